//! Installed chaincode packages: a gzipped tar with `metadata.json` and `code.tar.gz`. The package of a chaincode that runs as a service
//! contains the address of that service, and the hash of the package is its identity: the address cannot be changed (K5).

use std::io::Read;

use flate2::read::GzDecoder;
use serde::Deserialize;

/// Largest package that is looked into, and most bytes that any part of it may unpack to.
pub const MAX_PACKAGE_BYTES: u64 = 64 << 20;
/// Longest `metadata.json` or `connection.json`.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// A package that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("not a chaincode package: {0}")]
pub struct PackageError(String);

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChaincodePackage {
    /// Its label.
    pub label: String,
    /// `golang`, `node`, `java`, `ccaas`, `external`, …
    pub kind: String,
    /// `host:port` of the service that runs it, when one does.
    pub address: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    label: String,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Connection {
    #[serde(default)]
    address: String,
}

/// Returns the file of this name in a gzipped tar.
fn file(packed: &[u8], name: &str, limit: u64) -> Result<Option<Vec<u8>>, PackageError> {
    let wrong = |error: std::io::Error| PackageError(error.to_string());
    let unpacked = GzDecoder::new(packed).take(MAX_PACKAGE_BYTES);
    let mut archive = tar::Archive::new(unpacked);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let path = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
        if path.strip_prefix("./").unwrap_or(&path) != name {
            continue;
        }
        let mut bytes = Vec::new();
        entry.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(wrong)?;
        if bytes.len() as u64 > limit {
            return Err(PackageError(format!("{name} is larger than {limit} bytes")));
        }
        return Ok(Some(bytes));
    }
    Ok(None)
}

impl ChaincodePackage {
    /// Reads a package's bytes.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn parse(packed: &[u8]) -> Result<ChaincodePackage, PackageError> {
        let metadata = file(packed, "metadata.json", MAX_JSON_BYTES)?
            .ok_or_else(|| PackageError("it has no metadata.json".to_owned()))?;
        let metadata: Metadata =
            serde_json::from_slice(&metadata).map_err(|error| PackageError(format!("metadata.json: {error}")))?;
        let mut package = ChaincodePackage { label: metadata.label, kind: metadata.kind, address: None };
        // Whatever an external builder calls its packages: the connection tells.
        let Some(code) = file(packed, "code.tar.gz", MAX_PACKAGE_BYTES)? else { return Ok(package) };
        if let Some(connection) = file(&code, "connection.json", MAX_JSON_BYTES)? {
            let connection: Connection = serde_json::from_slice(&connection)
                .map_err(|error| PackageError(format!("connection.json: {error}")))?;
            package.address = Some(connection.address).filter(|address| !address.is_empty());
        }
        Ok(package)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(gzip);
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_services_address_is_found_in_its_package() {
        let connection = br#"{"address": "asset.org1.svc:9999", "dial_timeout": "10s", "tls_required": false}"#;
        let code = packed(&[("connection.json", connection)]);
        let metadata = br#"{"type": "ccaas", "label": "asset_1.0"}"#;
        let package = ChaincodePackage::parse(&packed(&[("metadata.json", metadata), ("code.tar.gz", &code)])).unwrap();
        assert_eq!((package.label.as_str(), package.kind.as_str()), ("asset_1.0", "ccaas"));
        assert_eq!(package.address.as_deref(), Some("asset.org1.svc:9999"));
    }

    #[test]
    fn damaged_and_hostile_packages_are_errors() {
        let metadata: &[u8] = br#"{"type": "ccaas", "label": "asset_1.0"}"#;
        let whole = packed(&[("metadata.json", metadata), ("code.tar.gz", b"no gzip")]);
        assert!(ChaincodePackage::parse(&whole).is_err());
        for cut in 0..whole.len() {
            let _ = ChaincodePackage::parse(&whole[..cut]);
        }
        assert!(ChaincodePackage::parse(&packed(&[("code.tar.gz", b"")])).is_err());
        let large = vec![b' '; 2 << 20];
        assert!(ChaincodePackage::parse(&packed(&[("metadata.json", &large)])).is_err());
    }
}
