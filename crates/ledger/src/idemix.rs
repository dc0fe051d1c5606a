//! The public key of a certificate authority's idemix issuer, and whether a secret key belongs to it (`IssuerPublicKey`, `IssuerSecretKey`;
//! IBM/idemix, `issuerkey.go`). Known for the server's default curve FP256BN; keys on another curve are read as far as their form goes.

use crate::wire::{self, Value};

/// Longest public key read, in bytes.
pub const MAX_ISSUER_KEY_BYTES: u64 = 1 << 20;
/// Bytes of a number: a coordinate, a secret key, a hash.
const NUMBER_BYTES: usize = 32;
/// The field `hash`, at the key's end: tag and length.
const HASH_HEADER: [u8; 2] = [0x52, NUMBER_BYTES as u8];

/// The prime of FP256BN, and the order of its groups.
const PRIME: Number =
    Number([0xD329_2DDB_AED3_3013, 0x0CDC_65FB_1298_0A82, 0x46E5_F25E_EE71_A49F, 0xFFFF_FFFF_FFFC_F0CD]);
const ORDER: Number =
    Number([0xF62D_536C_D10B_500D, 0x0CDC_65FB_1299_921A, 0x46E5_F25E_EE71_A49E, 0xFFFF_FFFF_FFFC_F0CD]);

/// What is wrong with an issuer's public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerKeyError {
    /// A part of it is missing, or it ends early.
    #[error("a part of it is missing: it is truncated or damaged")]
    Incomplete,
    /// A point is none of the curve.
    #[error("one of its points is not on the curve: it is damaged")]
    OffCurve,
    /// It does not have the hash that it names.
    #[error("its content does not match the hash in it: it is damaged")]
    Hash,
}

/// An issuer's public key.
#[derive(Debug, Clone)]
pub struct IssuerPublicKey {
    /// Two points, the second of which is the first one times the secret key; `None` on another curve.
    pair: Option<(Point, Point)>,
}

impl IssuerPublicKey {
    /// Reads a public key and checks all that can be checked without the secret key.
    ///
    /// # Errors
    /// [`IssuerKeyError`].
    pub fn read(bytes: &[u8]) -> Result<Self, IssuerKeyError> {
        let (content, hash) = bytes
            .split_at_checked(bytes.len().saturating_sub(HASH_HEADER.len() + NUMBER_BYTES))
            .and_then(|(content, end)| Some((content, end.strip_prefix(&HASH_HEADER)?)))
            .ok_or(IssuerKeyError::Incomplete)?;
        let names = wire::all(content, 1).count();
        let attributes = wire::all(content, 4).count();
        let is_there = |number: u64| wire::bytes(content, number).is_some_and(|bytes| !bytes.is_empty());
        if names == 0 || attributes < names || ![2, 3, 5, 6, 7, 8, 9].into_iter().all(is_there) {
            return Err(IssuerKeyError::Incomplete);
        }
        let points: Vec<Option<Point>> =
            [2, 3, 4, 6, 7].into_iter().flat_map(|number| wire::all(content, number)).map(Point::read).collect();
        if points.iter().all(Option::is_none) {
            return Ok(IssuerPublicKey { pair: None });
        }
        let pair = [6, 7].map(|number| wire::bytes(content, number).and_then(Point::read));
        let (true, [Some(base), Some(multiple)]) = (points.iter().all(Option::is_some), pair) else {
            return Err(IssuerKeyError::OffCurve);
        };
        let digest = Number::read(&crate::sha256(&[content])).map(Number::in_order);
        if digest != Number::read(hash) {
            return Err(IssuerKeyError::Hash);
        }
        Ok(IssuerPublicKey { pair: Some((base, multiple)) })
    }

    /// Returns whether a secret key belongs to it; `None` on a curve that is not known here.
    pub fn belongs_to(&self, secret: &[u8]) -> Option<bool> {
        let (base, multiple) = &self.pair?;
        let Some(secret) = Number::read(secret) else { return Some(false) };
        Some(base.times(&secret).is(multiple))
    }
}

/// A number below 2^256, least significant word first. Not for secrets of this machine: its arithmetic takes as long as the numbers make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Number([u64; 4]);

impl Number {
    const ZERO: Number = Number([0; 4]);

    /// Returns the number of these bytes, most significant first.
    fn read(bytes: &[u8]) -> Option<Number> {
        let bytes: &[u8; NUMBER_BYTES] = bytes.try_into().ok()?;
        let mut out = [0; 4];
        for (word, chunk) in out.iter_mut().rev().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        }
        Some(Number(out))
    }

    fn is_below(&self, other: &Number) -> bool {
        self.0.iter().rev().lt(other.0.iter().rev())
    }

    /// Returns the sum without its carry, and the carry.
    fn plus(self, other: Number) -> (Number, bool) {
        let mut carry = false;
        let mut out = [0; 4];
        for (sum, (a, b)) in out.iter_mut().zip(self.0.into_iter().zip(other.0)) {
            let (part, first) = a.overflowing_add(b);
            let (part, second) = part.overflowing_add(u64::from(carry));
            (*sum, carry) = (part, first || second);
        }
        (Number(out), carry)
    }

    /// Returns the difference, 2^256 added where it is below zero.
    fn minus(self, other: Number) -> Number {
        let mut borrow = false;
        let mut out = [0; 4];
        for (rest, (a, b)) in out.iter_mut().zip(self.0.into_iter().zip(other.0)) {
            let (part, first) = a.overflowing_sub(b);
            let (part, second) = part.overflowing_sub(u64::from(borrow));
            (*rest, borrow) = (part, first || second);
        }
        Number(out)
    }

    /// A number of 256 bits modulo the order, which has as many.
    fn in_order(self) -> Number {
        if self.is_below(&ORDER) { self } else { self.minus(ORDER) }
    }

    fn bits(self) -> impl Iterator<Item = bool> {
        (0..256).rev().map(move |bit: usize| self.0[bit / 64] >> (bit % 64) & 1 == 1)
    }

    /// Modulo the prime, of numbers below it.
    fn add(self, other: Number) -> Number {
        let (sum, carry) = self.plus(other);
        if carry || !sum.is_below(&PRIME) { sum.minus(PRIME) } else { sum }
    }

    fn sub(self, other: Number) -> Number {
        if self.is_below(&other) { self.plus(PRIME).0.minus(other) } else { self.minus(other) }
    }

    fn mul(self, other: Number) -> Number {
        self.bits().fold(Number::ZERO, |sum, bit| {
            let sum = sum.add(sum);
            if bit { sum.add(other) } else { sum }
        })
    }

    fn square(self) -> Number {
        self.mul(self)
    }
}

/// A point of the curve y² = x³ + 3 over the prime.
#[derive(Debug, Clone, Copy)]
struct Point {
    x: Number,
    y: Number,
}

/// The same as a fraction: x / z², y / z³; the neutral element where z is zero.
#[derive(Clone, Copy)]
struct Fraction {
    x: Number,
    y: Number,
    z: Number,
}

impl Point {
    /// Reads a message `ECP`; `None` where it is no point of the curve.
    fn read(message: &[u8]) -> Option<Point> {
        let number = |field: u64| {
            wire::fields(message).find_map(|(of, value)| match value {
                Value::Bytes(bytes) if of == field => Number::read(bytes).filter(|number| number.is_below(&PRIME)),
                _ => None,
            })
        };
        let (x, y) = (number(1)?, number(2)?);
        let three = Number([3, 0, 0, 0]);
        (y.square() == x.square().mul(x).add(three)).then_some(Point { x, y })
    }

    fn times(&self, factor: &Number) -> Fraction {
        let neutral = Fraction { x: Number::ZERO, y: Number::ZERO, z: Number::ZERO };
        factor.bits().fold(neutral, |sum, bit| {
            let sum = sum.twice();
            if bit { sum.plus(self) } else { sum }
        })
    }
}

impl Fraction {
    fn twice(self) -> Fraction {
        let (a, b) = (self.x.square(), self.y.square());
        let c = b.square();
        let d = self.x.add(b).square().sub(a).sub(c);
        let (d, e) = (d.add(d), a.add(a).add(a));
        let x = e.square().sub(d).sub(d);
        let c = c.add(c);
        let c = c.add(c);
        let y = e.mul(d.sub(x)).sub(c).sub(c);
        let z = self.y.mul(self.z);
        Fraction { x, y, z: z.add(z) }
    }

    fn plus(self, other: &Point) -> Fraction {
        let whole = Fraction { x: other.x, y: other.y, z: Number([1, 0, 0, 0]) };
        if self.z == Number::ZERO {
            return whole;
        }
        let z = self.z.square();
        let (h, r) = (other.x.mul(z).sub(self.x), other.y.mul(z).mul(self.z).sub(self.y));
        if h == Number::ZERO {
            return if r == Number::ZERO { self.twice() } else { Fraction { z: Number::ZERO, ..whole } };
        }
        let hh = h.square();
        let (hhh, v) = (h.mul(hh), self.x.mul(hh));
        let x = r.square().sub(hhh).sub(v).sub(v);
        Fraction { x, y: r.mul(v.sub(x)).sub(self.y.mul(hhh)), z: self.z.mul(h) }
    }

    fn is(&self, point: &Point) -> bool {
        let z = self.z.square();
        self.z != Number::ZERO && self.x == point.x.mul(z) && self.y == point.y.mul(z).mul(self.z)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The public and secret keys of the issuers of the small network.
    fn keys() -> [(Vec<u8>, Vec<u8>); 2] {
        let folder = tempfile::tempdir().unwrap();
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, folder.path()).unwrap();
        ["Org1", "Org2"].map(|organization| {
            let home = folder.path().join(organization).join("ca");
            let read = |name: &str| std::fs::read(home.join(name)).unwrap();
            (read("IssuerPublicKey"), read("msp/keystore/IssuerSecretKey"))
        })
    }

    #[test]
    fn a_real_issuers_keys_belong_together_and_those_of_two_issuers_do_not() {
        let [(public, secret), (other, of_other)] = keys();
        let key = IssuerPublicKey::read(&public).unwrap();
        assert_eq!((key.belongs_to(&secret), key.belongs_to(&of_other)), (Some(true), Some(false)));
        let key = IssuerPublicKey::read(&other).unwrap();
        assert_eq!((key.belongs_to(&secret), key.belongs_to(&of_other)), (Some(false), Some(true)));
        let changed: Vec<u8> = secret.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 31)).collect();
        let key = IssuerPublicKey::read(&public).unwrap();
        assert_eq!(
            (key.belongs_to(&changed), key.belongs_to(&secret[1..]), key.belongs_to(&[0; 32])),
            (Some(false), Some(false), Some(false))
        );
    }

    #[test]
    fn a_key_that_was_changed_anywhere_is_damaged() {
        let [(public, _), _] = keys();
        for len in 0..public.len() {
            assert!(IssuerPublicKey::read(&public[..len]).is_err(), "{len}");
        }
        for at in (0..public.len()).step_by(7) {
            let mut changed = public.clone();
            changed[at] ^= 0x10;
            assert!(IssuerPublicKey::read(&changed).is_err(), "byte {at}");
        }
        assert_eq!(IssuerPublicKey::read(b"-----BEGIN PUBLIC KEY-----").unwrap_err(), IssuerKeyError::Incomplete);
    }

    /// A key on a curve that is not known here has its form alone.
    #[test]
    fn a_key_on_another_curve_is_not_judged() {
        let [(public, secret), _] = keys();
        let mut other = public.clone();
        // Every point another one: what begins with the length of a coordinate.
        for at in 34..public.len() - NUMBER_BYTES {
            if public[at] == 0x12 && public[at + 1] == 0x20 && public[at - 34] == 0x0a && public[at - 33] == 0x20 {
                other[at + 2] ^= 1;
            }
        }
        let key = IssuerPublicKey::read(&other).unwrap();
        assert_eq!(key.belongs_to(&secret), None);
    }
}
