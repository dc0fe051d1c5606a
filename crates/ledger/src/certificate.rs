//! X.509 certificates and private keys as Fabric stores them: PEM files in MSP, TLS and CA directories.

use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use der::{Decode, Encode};
use serde::{Deserialize, Serialize};
use x509_cert::Certificate as X509;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName, SubjectKeyIdentifier, name::GeneralName};

/// Longest PEM file looked at, in bytes.
pub const MAX_PEM_BYTES: u64 = 1 << 20;

const OID_ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const OID_ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const OID_ECDSA_SHA512: &str = "1.2.840.10045.4.3.4";
const OID_RSA_SHA256: &str = "1.2.840.113549.1.1.11";
const OID_RSA_SHA384: &str = "1.2.840.113549.1.1.12";
const OID_RSA_SHA512: &str = "1.2.840.113549.1.1.13";
const OID_ED25519: &str = "1.3.101.112";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_P521: &str = "1.3.132.0.35";
const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
/// Curves that Fabric's nodes accept.
const CURVES: [&str; 3] = [OID_P256, OID_P384, OID_P521];
const OID_COMMON_NAME: &str = "2.5.4.3";
const OID_UNIT: &str = "2.5.4.11";

/// Why bytes are not a certificate or key, or do not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM or not X.509.
    #[error("not a readable certificate: {0}")]
    Unreadable(String),
    /// An algorithm that Fabric's software provider does not use either.
    #[error("the algorithm {0} is not one that Fabric uses")]
    Algorithm(String),
    /// The signature is wrong.
    #[error("the signature does not verify")]
    Signature,
}

/// A parsed certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: X509,
}

/// A certificate's face: what a person wants to see of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSummary {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizational units: Fabric's node roles.
    pub units: Vec<String>,
    /// The issuer's common name.
    pub issuer: String,
    /// Serial number, hex.
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// DNS names and IP addresses it is good for.
    pub names: Vec<String>,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    /// SHA-256 of the public key's SubjectPublicKeyInfo, hex. Two certificates of one key share it (O7).
    pub key_sha256: String,
}

impl Certificate {
    /// Parses one PEM certificate (the first, when there are more).
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let none = || CertificateError::Unreadable("no BEGIN CERTIFICATE and END CERTIFICATE lines".to_owned());
        Self::all_from_pem(pem).into_iter().next().unwrap_or_else(|| Err(none()))
    }

    /// Parses every certificate of a PEM file, in the file's order: a leaf first, then the chain above it.
    pub fn all_from_pem(pem: &[u8]) -> Vec<Result<Self, CertificateError>> {
        let blocks = pem_blocks(pem).into_iter();
        blocks
            .filter(|block| block.label == "CERTIFICATE")
            .map(|block| match block.der {
                Some(der) => Self::from_der(&der),
                None => Err(CertificateError::Unreadable("its lines are not base64".to_owned())),
            })
            .collect()
    }

    /// Parses a DER certificate.
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = X509::from_der(der).map_err(|error| CertificateError::Unreadable(error.to_string()))?;
        Ok(Certificate { der: der.to_vec(), parsed })
    }

    /// Returns the DER bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the public key's raw bytes: a point, an RSA key, an Ed25519 key.
    pub fn public_key(&self) -> &[u8] {
        self.parsed.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// Returns whether `issuer`'s key signed this certificate and the names match.
    pub fn is_signed_by(&self, issuer: &Certificate) -> bool {
        self.check_signed_by(issuer).is_ok()
    }

    /// Returns whether the names say that `issuer` signed this certificate, by an algorithm that is not known here.
    pub fn cannot_be_checked_by(&self, issuer: &Certificate) -> bool {
        matches!(self.check_signed_by(issuer), Err(CertificateError::Algorithm(_)))
    }

    fn check_signed_by(&self, issuer: &Certificate) -> Result<(), CertificateError> {
        let tbs = self.parsed.tbs_certificate();
        if tbs.issuer() != issuer.parsed.tbs_certificate().subject() {
            return Err(CertificateError::Signature);
        }
        let message = tbs.to_der().map_err(|_| CertificateError::Signature)?;
        let oid = self.parsed.signature_algorithm().oid.to_string();
        issuer.verify(&oid, &message, self.parsed.signature().raw_bytes())
    }

    /// Checks a signature that Fabric made with this certificate's key over `message` (ECDSA over its SHA-256, or Ed25519).
    ///
    /// # Errors
    /// [`CertificateError::Signature`] or [`CertificateError::Algorithm`].
    pub fn verify_message(&self, message: &[u8], signature: &[u8]) -> Result<(), CertificateError> {
        let key = self.parsed.tbs_certificate().subject_public_key_info().algorithm.oid.to_string();
        let algorithm = if key == OID_ED25519 { OID_ED25519 } else { OID_ECDSA_SHA256 };
        self.verify(algorithm, message, signature)
    }

    fn verify(&self, algorithm: &str, message: &[u8], bytes: &[u8]) -> Result<(), CertificateError> {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        let curve = info
            .algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.decode_as::<der::asn1::ObjectIdentifier>().ok())
            .map(|oid| oid.to_string());
        let verification: &dyn signature::VerificationAlgorithm = match (algorithm, curve.as_deref()) {
            (OID_ECDSA_SHA256, Some(OID_P256)) => &signature::ECDSA_P256_SHA256_ASN1,
            (OID_ECDSA_SHA384, Some(OID_P256)) => &signature::ECDSA_P256_SHA384_ASN1,
            (OID_ECDSA_SHA512, Some(OID_P256)) => &signature::ECDSA_P256_SHA512_ASN1,
            (OID_ECDSA_SHA256, Some(OID_P384)) => &signature::ECDSA_P384_SHA256_ASN1,
            (OID_ECDSA_SHA384, Some(OID_P384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (OID_ECDSA_SHA512, Some(OID_P384)) => &signature::ECDSA_P384_SHA512_ASN1,
            (OID_ECDSA_SHA256, Some(OID_P521)) => &signature::ECDSA_P521_SHA256_ASN1,
            (OID_ECDSA_SHA384, Some(OID_P521)) => &signature::ECDSA_P521_SHA384_ASN1,
            (OID_ECDSA_SHA512, Some(OID_P521)) => &signature::ECDSA_P521_SHA512_ASN1,
            (OID_RSA_SHA256, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (OID_RSA_SHA384, _) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (OID_RSA_SHA512, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (OID_ED25519, _) => &signature::ED25519,
            _ => return Err(CertificateError::Algorithm(algorithm.to_owned())),
        };
        UnparsedPublicKey::new(verification, self.public_key())
            .verify(message, bytes)
            .map_err(|_| CertificateError::Signature)
    }

    /// Returns the organizational units in the subject.
    pub fn units(&self) -> Vec<String> {
        self.name_parts(self.parsed.tbs_certificate().subject(), OID_UNIT)
    }

    fn name_parts(&self, name: &x509_cert::name::Name, oid: &str) -> Vec<String> {
        name.iter()
            .filter(|part| part.oid.to_string() == oid)
            .map(|part| String::from_utf8_lossy(part.value.value()).into_owned())
            .collect()
    }

    /// Returns whether the certificate may sign others.
    pub fn is_ca(&self) -> bool {
        matches!(self.parsed.tbs_certificate().get_extension::<BasicConstraints>(), Ok(Some((_, basic))) if basic.ca)
    }

    /// Returns the identifier of its key, which certificates that it signs name.
    pub fn key_identifier(&self) -> Option<Vec<u8>> {
        match self.parsed.tbs_certificate().get_extension::<SubjectKeyIdentifier>() {
            Ok(Some((_, identifier))) => Some(identifier.0.as_bytes().to_vec()),
            _ => None,
        }
    }

    /// Serial number, big endian.
    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// Returns whether both certificates hold the same public key.
    pub fn has_key_of(&self, other: &Certificate) -> bool {
        self.parsed.tbs_certificate().subject_public_key_info()
            == other.parsed.tbs_certificate().subject_public_key_info()
    }

    /// Returns the entries that a person wants to see.
    pub fn summary(&self) -> CertificateSummary {
        let tbs = self.parsed.tbs_certificate();
        let first = |name| self.name_parts(name, OID_COMMON_NAME).into_iter().next().unwrap_or_default();
        let names = match tbs.get_extension::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(general_name).collect(),
            _ => Vec::new(),
        };
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs() as i64;
        CertificateSummary {
            common_name: first(tbs.subject()),
            units: self.units(),
            issuer: first(tbs.issuer()),
            serial: hex::encode(self.serial()),
            not_before: seconds(&tbs.validity().not_before),
            not_after: seconds(&tbs.validity().not_after),
            names,
            is_ca: self.is_ca(),
            key_sha256: tbs
                .subject_public_key_info()
                .to_der()
                .map(|der| hex::encode(crate::sha256(&[&der])))
                .unwrap_or_default(),
        }
    }
}

fn general_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes() {
            [a, b, c, d] => Some(format!("{a}.{b}.{c}.{d}")),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// A private key in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateKey {
    /// A key of a kind that Fabric uses: the raw public key that belongs to it, in the form of [`Certificate::public_key`].
    Understood(Vec<u8>),
    /// A key of an algorithm or curve whose public key cannot be computed here.
    NotUnderstood(String),
    /// A key that is encrypted: nodes read none.
    Encrypted,
    /// It says that it is a key, and its bytes are damaged.
    Damaged(String),
}

/// Returns every private key of a PEM file, in the file's order. Text before, between and after them is skipped, as are certificates.
pub fn private_keys(pem: &[u8]) -> Vec<PrivateKey> {
    pem_blocks(pem)
        .into_iter()
        .filter(|block| block.label.ends_with("PRIVATE KEY"))
        .map(|block| match &block.der {
            None if block.encrypted => PrivateKey::Encrypted,
            None => PrivateKey::Damaged("its lines are not base64".to_owned()),
            Some(der) => private_key(&block.label, der),
        })
        .collect()
}

/// Largest file that Fabric's key store looks at when it searches for a key, in bytes.
pub const MAX_KEY_STORE_FILE_BYTES: u64 = 64 << 10;

/// Returns what precedes the first private key of a PEM file: the label of the file's first block, if that is no private key. Fabric's key
/// store reads the first block alone, TLS all of them.
pub fn block_before_key(pem: &[u8]) -> Option<String> {
    let first = pem_blocks(pem).into_iter().find(|block| block.der.is_some() || block.encrypted)?;
    (!first.label.ends_with("PRIVATE KEY")).then_some(first.label)
}

/// Returns the raw public key of the first PEM private key that is understood, in the form of [`Certificate::public_key`]; `None` when the
/// file holds no such key.
pub fn public_key_of_private_pem(pem: &[u8]) -> Option<Vec<u8>> {
    private_keys(pem).into_iter().find_map(|key| match key {
        PrivateKey::Understood(public) => Some(public),
        PrivateKey::NotUnderstood(_) | PrivateKey::Encrypted | PrivateKey::Damaged(_) => None,
    })
}

/// Returns the raw public key of the first PEM public key (`PUBLIC KEY`), in the form of [`Certificate::public_key`]; `None` when the file
/// holds none.
pub fn public_key_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let block = pem_blocks(pem).into_iter().find(|block| block.label == "PUBLIC KEY")?;
    let der = block.der?;
    let info = x509_cert::spki::SubjectPublicKeyInfoRef::try_from(der.as_slice()).ok()?;
    Some(info.subject_public_key.raw_bytes().to_vec())
}

/// Returns whether a file holds a PEM private key, of whatever kind.
pub fn is_private_key_pem(bytes: &[u8]) -> bool {
    pem_blocks(bytes).iter().any(|block| block.label.ends_with("PRIVATE KEY"))
}

/// Returns whether a file is a private key in DER: PKCS#8, SEC1 or PKCS#1.
pub fn is_private_key_der(bytes: &[u8]) -> bool {
    ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"]
        .iter()
        .any(|label| matches!(private_key(label, bytes), PrivateKey::Understood(_) | PrivateKey::NotUnderstood(_)))
}

fn private_key(label: &str, der: &[u8]) -> PrivateKey {
    let damaged = || PrivateKey::Damaged("its content does not decode".to_owned());
    let understood = |public: Option<Vec<u8>>| public.map_or_else(damaged, PrivateKey::Understood);
    match label {
        "RSA PRIVATE KEY" => understood(rsa_public(der)),
        "EC PRIVATE KEY" => match ec_public(der, |curve, der| EcdsaKeyPair::from_private_key_der(curve, der).ok()) {
            Some(public) => PrivateKey::Understood(public),
            None => unknown_curve(der).map_or_else(damaged, PrivateKey::NotUnderstood),
        },
        "PRIVATE KEY" => {
            let Some((algorithm, parameters, key)) = pkcs8(der) else {
                // Fabric tries every form, whatever the label says; a CA writes its revocation key in this one.
                return match private_key("EC PRIVATE KEY", der) {
                    PrivateKey::Damaged(_) => private_key("RSA PRIVATE KEY", der),
                    other => other,
                };
            };
            match algorithm.as_str() {
                OID_RSA => understood(rsa_public(key)),
                OID_EC => match ec_public(der, |curve, der| EcdsaKeyPair::from_pkcs8(curve, der).ok()) {
                    Some(public) => PrivateKey::Understood(public),
                    None => match parameters {
                        Some(curve) if !CURVES.contains(&curve.as_str()) => {
                            PrivateKey::NotUnderstood(format!("its curve {curve} is not one that Fabric uses"))
                        }
                        _ => damaged(),
                    },
                },
                OID_ED25519 => {
                    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok();
                    understood(pair.map(|pair| pair.public_key().as_ref().to_vec()))
                }
                other => PrivateKey::NotUnderstood(format!("its algorithm {other} is not one that Fabric uses")),
            }
        }
        "ENCRYPTED PRIVATE KEY" => PrivateKey::Encrypted,
        other => PrivateKey::NotUnderstood(format!("a key of the kind {other} is not one that Fabric uses")),
    }
}

/// Returns the public key of an EC key on the curve that it fits.
fn ec_public(
    der: &[u8],
    open: impl Fn(&'static signature::EcdsaSigningAlgorithm, &[u8]) -> Option<EcdsaKeyPair>,
) -> Option<Vec<u8>> {
    let curves = [
        &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
        &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
    ];
    curves.into_iter().find_map(|curve| open(curve, der)).map(|pair| pair.public_key().as_ref().to_vec())
}

/// Returns what a SEC1 key says of its curve, when it is none that Fabric uses.
fn unknown_curve(der: &[u8]) -> Option<String> {
    let mut fields = Tlv::read(&mut &*der, TAG_SEQUENCE)?.value;
    Tlv::read(&mut fields, TAG_INTEGER)?;
    Tlv::read(&mut fields, TAG_OCTETS)?;
    // [0] parameters: the curve's name.
    let mut parameters = Tlv::read(&mut fields, 0xa0)?.value;
    let curve = object_identifier(&mut parameters)?;
    (!CURVES.contains(&curve.as_str())).then(|| format!("its curve {curve} is not one that Fabric uses"))
}

/// Algorithm, parameters when they are an identifier, and the key of a PKCS#8 structure.
fn pkcs8(der: &[u8]) -> Option<(String, Option<String>, &[u8])> {
    let mut fields = Tlv::read(&mut &*der, TAG_SEQUENCE)?.value;
    Tlv::read(&mut fields, TAG_INTEGER)?;
    let mut algorithm = Tlv::read(&mut fields, TAG_SEQUENCE)?.value;
    let name = object_identifier(&mut algorithm)?;
    let parameters = object_identifier(&mut algorithm);
    Some((name, parameters, Tlv::read(&mut fields, TAG_OCTETS)?.value))
}

/// `RSAPublicKey` of an `RSAPrivateKey`: modulus and exponent.
fn rsa_public(der: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Tlv::read(&mut &*der, TAG_SEQUENCE)?.value;
    Tlv::read(&mut fields, TAG_INTEGER)?;
    let modulus = Tlv::read(&mut fields, TAG_INTEGER)?;
    let exponent = Tlv::read(&mut fields, TAG_INTEGER)?;
    // The private exponent and the primes must be there too: a cut key is none.
    (0..6).try_for_each(|_| Tlv::read(&mut fields, TAG_INTEGER).map(|_| ()))?;
    let content = [modulus.whole, exponent.whole].concat();
    let mut out = vec![TAG_SEQUENCE];
    match content.len() {
        len @ 0..=0x7f => out.push(len as u8),
        len => {
            let bytes: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend(content);
    Some(out)
}

const TAG_INTEGER: u8 = 0x02;
const TAG_OCTETS: u8 = 0x04;
const TAG_OID: u8 = 0x06;
const TAG_SEQUENCE: u8 = 0x30;

/// One DER value: all of its bytes, and those of its content.
struct Tlv<'a> {
    whole: &'a [u8],
    value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// Takes a value with this tag from the front.
    fn read(from: &mut &'a [u8], tag: u8) -> Option<Self> {
        let bytes = *from;
        let (&found, rest) = bytes.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut len = usize::from(first);
        if first & 0x80 != 0 {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 || count > rest.len() {
                return None;
            }
            let (digits, behind) = rest.split_at(count);
            len = digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit));
            rest = behind;
        }
        if found != tag || len > rest.len() {
            return None;
        }
        let (value, behind) = rest.split_at(len);
        *from = behind;
        Some(Tlv { whole: &bytes[..bytes.len() - behind.len()], value })
    }
}

fn object_identifier(from: &mut &[u8]) -> Option<String> {
    let tlv = Tlv::read(from, TAG_OID)?;
    der::asn1::ObjectIdentifier::from_bytes(tlv.value).ok().map(|oid| oid.to_string())
}

/// A block between `BEGIN` and `END` lines.
pub(crate) struct PemBlock {
    pub(crate) label: String,
    /// Its content; `None` when it does not decode.
    pub(crate) der: Option<Vec<u8>>,
    /// Its header lines say that it is encrypted.
    pub(crate) encrypted: bool,
}

/// What the first PEM block of a file contains. Fabric reads no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemContent {
    /// A certificate.
    Certificate,
    /// Anything else.
    Other,
}

/// Returns what the first PEM block of a file contains; `None` when the file has none, or the block's lines are not base64: such a file is
/// not PEM for a node.
pub fn first_pem_block(pem: &[u8]) -> Option<PemContent> {
    let der = pem_blocks(pem).into_iter().find_map(|block| block.der)?;
    Some(if Certificate::from_der(&der).is_ok() { PemContent::Certificate } else { PemContent::Other })
}

/// Returns every PEM block of a file. Files from Windows editors, from `openssl x509 -text` and from Kubernetes Secrets come with odd line
/// ends, text around the blocks and lines of any length: all of that is skipped.
pub(crate) fn pem_blocks(pem: &[u8]) -> Vec<PemBlock> {
    let text = String::from_utf8_lossy(pem);
    let mut rest: &str = &text;
    let mut out = Vec::new();
    while let Some(start) = rest.find("-----BEGIN ") {
        rest = &rest[start + "-----BEGIN ".len()..];
        let Some(end_of_label) = rest.find("-----") else { break };
        let label = &rest[..end_of_label];
        let body = &rest[end_of_label + "-----".len()..];
        let Some(stop) = body.find(&format!("-----END {label}-----")) else { continue };
        let headers = body[..stop].lines().filter(|line| line.contains(": ")).collect::<Vec<_>>();
        let encrypted = headers.iter().any(|line| line.contains("ENCRYPTED"));
        let content: String =
            body[..stop].lines().filter(|line| !line.contains(": ")).flat_map(str::split_whitespace).collect();
        let der = if encrypted { None } else { decode_base64(&content) };
        out.push(PemBlock { label: label.to_owned(), der, encrypted });
        rest = &body[stop..];
    }
    out
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    // Lines of 64 characters, as the decoder wants them.
    let mut wrapped = String::from("-----BEGIN DATA-----\n");
    for line in text.as_bytes().chunks(64) {
        wrapped.push_str(std::str::from_utf8(line).ok()?);
        wrapped.push('\n');
    }
    wrapped.push_str("-----END DATA-----\n");
    der::pem::decode_vec(wrapped.as_bytes()).ok().map(|(_, der)| der)
}
