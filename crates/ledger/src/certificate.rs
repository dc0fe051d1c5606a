//! X.509 certificates and private keys as Fabric keeps them: PEM files in MSP, TLS and CA directories.

use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use der::{Decode, DecodePem, Encode};
use serde::{Deserialize, Serialize};
use x509_cert::Certificate as X509;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName, name::GeneralName};

/// Longest PEM file looked at, in bytes.
pub const MAX_PEM_BYTES: u64 = 1 << 20;

const OID_ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const OID_ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const OID_RSA_SHA256: &str = "1.2.840.113549.1.1.11";
const OID_ED25519: &str = "1.3.101.112";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
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
    /// SHA-256 of the public key's SubjectPublicKeyInfo, hex. Two certificates of one key share it (FABRIC.md O7).
    pub key_sha256: String,
}

impl Certificate {
    /// Parses one PEM certificate (the first, when there are more).
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = |error: der::Error| CertificateError::Unreadable(error.to_string());
        let block = first_pem_block(pem, &["CERTIFICATE"])
            .ok_or_else(|| CertificateError::Unreadable("no BEGIN CERTIFICATE and END CERTIFICATE lines".to_owned()))?;
        let parsed = X509::from_pem(block.as_bytes()).map_err(unreadable)?;
        let der = parsed.to_der().map_err(unreadable)?;
        Ok(Certificate { der, parsed })
    }

    /// Parses a DER certificate.
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = X509::from_der(der).map_err(|error| CertificateError::Unreadable(error.to_string()))?;
        Ok(Certificate { der: der.to_vec(), parsed })
    }

    /// The DER bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The public key's raw bytes: a point, an RSA key, an Ed25519 key.
    pub fn public_key(&self) -> &[u8] {
        self.parsed.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// Whether `issuer`'s key signed this certificate and the names match.
    pub fn is_signed_by(&self, issuer: &Certificate) -> bool {
        let tbs = self.parsed.tbs_certificate();
        if tbs.issuer() != issuer.parsed.tbs_certificate().subject() {
            return false;
        }
        let Ok(message) = tbs.to_der() else { return false };
        let oid = self.parsed.signature_algorithm().oid.to_string();
        issuer.verify(&oid, &message, self.parsed.signature().raw_bytes()).is_ok()
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
            (OID_ECDSA_SHA256, Some(OID_P384)) => &signature::ECDSA_P384_SHA256_ASN1,
            (OID_ECDSA_SHA384, Some(OID_P384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (OID_RSA_SHA256, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (OID_ED25519, _) => &signature::ED25519,
            _ => return Err(CertificateError::Algorithm(algorithm.to_owned())),
        };
        UnparsedPublicKey::new(verification, self.public_key())
            .verify(message, bytes)
            .map_err(|_| CertificateError::Signature)
    }

    /// The organizational units in the subject.
    pub fn units(&self) -> Vec<String> {
        self.name_parts(self.parsed.tbs_certificate().subject(), OID_UNIT)
    }

    fn name_parts(&self, name: &x509_cert::name::Name, oid: &str) -> Vec<String> {
        name.iter()
            .filter(|part| part.oid.to_string() == oid)
            .map(|part| String::from_utf8_lossy(part.value.value()).into_owned())
            .collect()
    }

    /// Whether the certificate may sign others.
    pub fn is_ca(&self) -> bool {
        matches!(self.parsed.tbs_certificate().get_extension::<BasicConstraints>(), Ok(Some((_, basic))) if basic.ca)
    }

    /// Serial number, big endian.
    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// Whether both certificates hold the same public key.
    pub fn has_key_of(&self, other: &Certificate) -> bool {
        self.parsed.tbs_certificate().subject_public_key_info()
            == other.parsed.tbs_certificate().subject_public_key_info()
    }

    /// What a person wants to see.
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

/// The raw public key of a PEM private key, in the form of [`Certificate::public_key`]; `None` when the file holds no key of a
/// kind that Fabric uses.
pub fn public_key_of_private_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let block = first_pem_block(pem, &["PRIVATE KEY", "EC PRIVATE KEY"])?;
    let (label, der) = der::pem::decode_vec(block.as_bytes()).ok()?;
    let curves = [&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_ASN1_SIGNING];
    for curve in curves {
        let pair = match label {
            "EC PRIVATE KEY" => EcdsaKeyPair::from_private_key_der(curve, &der).ok(),
            _ => EcdsaKeyPair::from_pkcs8(curve, &der).ok(),
        };
        if let Some(pair) = pair {
            return Some(pair.public_key().as_ref().to_vec());
        }
    }
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()?;
    Some(pair.public_key().as_ref().to_vec())
}

/// Whether a file looks like a PEM private key, of whatever kind.
pub fn is_private_key_pem(bytes: &[u8]) -> bool {
    bytes.starts_with(b"-----BEGIN")
        && first_pem_block(bytes, &["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"]).is_some()
}

/// The first PEM block with one of `labels`, its BEGIN and END lines included.
fn first_pem_block<'a>(pem: &'a [u8], labels: &[&str]) -> Option<String> {
    let text: &'a str = std::str::from_utf8(pem).ok()?;
    labels.iter().find_map(|label| {
        let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
        let start = text.find(&begin)?;
        let stop = start + text[start..].find(&end)? + end.len();
        // Files from Windows editors and Kubernetes Secrets come with odd line ends; PEM readers want plain ones.
        let lines: Vec<&str> = text[start..stop].lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Some(lines.join("\n") + "\n")
    })
}
