//! Chaincode packages of the lifecycle before Fabric 2.0, in a peer's folder `chaincodes`: a deployment spec as it is, or an envelope with
//! one that its owners signed. A peer reads all of them when it starts, and does not start with a file that is neither.

use prost::Message;

use crate::proto::common::{ChannelHeader, Envelope, HeaderType, Payload};

/// Largest package that is looked into: a peer receives none of more than 100 MiB.
pub const MAX_LEGACY_PACKAGE_BYTES: u64 = 128 << 20;

/// Why a file is not such a package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LegacyPackageError {
    /// It decodes neither as a deployment spec nor as an envelope.
    #[error("it is neither a deployment spec nor a signed one")]
    Neither,
    /// It is a deployment spec without the chaincode's name: an empty file is one.
    #[error("it names no chaincode")]
    Nameless,
    /// An envelope without this part.
    #[error("its envelope has no {0}")]
    Lacks(&'static str),
    /// An envelope of another kind.
    #[error("its envelope is not one of a chaincode package")]
    Kind,
}

/// `ChaincodeDeploymentSpec`, as far as a peer's start depends on it. The code itself is skipped, and must be whole.
#[derive(Clone, PartialEq, prost::Message)]
struct DeploymentSpec {
    #[prost(message, optional, tag = "1")]
    chaincode: Option<ChaincodeSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChaincodeSpec {
    #[prost(message, optional, tag = "2")]
    id: Option<ChaincodeId>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChaincodeId {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
}

/// `SignedChaincodeDeploymentSpec`; the owners' signatures are not looked at by a peer's start either.
#[derive(Clone, PartialEq, prost::Message)]
struct SignedDeploymentSpec {
    #[prost(bytes = "vec", tag = "1")]
    spec: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "2")]
    instantiation_policy: Option<Vec<u8>>,
}

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyPackage {
    /// The chaincode's name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl LegacyPackage {
    /// Reads a package as a peer does: as a deployment spec, and where that does not decode, as a signed one.
    ///
    /// # Errors
    /// [`LegacyPackageError`]: the peer does not start with the file.
    pub fn parse(bytes: &[u8]) -> Result<LegacyPackage, LegacyPackageError> {
        if let Ok(spec) = DeploymentSpec::decode(bytes) {
            let package = named(spec)?;
            // What a signed one looks like when it is read as the other form.
            if !package.name.chars().any(char::is_control) {
                return Ok(package);
            }
        }
        signed(bytes)
    }
}

fn named(spec: DeploymentSpec) -> Result<LegacyPackage, LegacyPackageError> {
    let id = spec.chaincode.and_then(|chaincode| chaincode.id).ok_or(LegacyPackageError::Nameless)?;
    Ok(LegacyPackage { name: id.name, version: id.version })
}

fn signed(bytes: &[u8]) -> Result<LegacyPackage, LegacyPackageError> {
    let neither = |_| LegacyPackageError::Neither;
    let envelope = Envelope::decode(bytes).map_err(neither)?;
    let payload = Payload::decode(envelope.payload.as_slice()).map_err(neither)?;
    drop(envelope);
    let header = payload.header.ok_or(LegacyPackageError::Lacks("header"))?;
    let header = ChannelHeader::decode(header.channel_header.as_slice()).map_err(neither)?;
    let of_owners = SignedDeploymentSpec::decode(payload.data.as_slice()).map_err(neither)?;
    if header.r#type != HeaderType::ChaincodePackage as i32 {
        return Err(LegacyPackageError::Kind);
    }
    let package = named(DeploymentSpec::decode(of_owners.spec.as_slice()).map_err(neither)?)?;
    match of_owners.instantiation_policy {
        Some(_) => Ok(package),
        None => Err(LegacyPackageError::Lacks("instantiation policy")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::proto::common::Header;

    /// A deployment spec with its code, which is behind the name.
    fn spec() -> Vec<u8> {
        let id = ChaincodeId { path: "example.com/cc".to_owned(), name: "mycc".to_owned(), version: "1.0".to_owned() };
        let mut bytes = DeploymentSpec { chaincode: Some(ChaincodeSpec { id: Some(id) }) }.encode_to_vec();
        bytes.extend([0x1a, 4, 0x1f, 0x8b, 8, 0]);
        bytes
    }

    fn envelope(kind: HeaderType, instantiation_policy: Option<Vec<u8>>) -> Vec<u8> {
        let data = SignedDeploymentSpec { spec: spec(), instantiation_policy }.encode_to_vec();
        let header = ChannelHeader { r#type: kind as i32, ..ChannelHeader::default() }.encode_to_vec();
        let header = Header { channel_header: header, ..Header::default() };
        let payload = Payload { header: Some(header), data }.encode_to_vec();
        Envelope { payload, signature: Vec::new() }.encode_to_vec()
    }

    #[test]
    fn both_forms_are_packages_and_tell_their_chaincode() {
        let signed = envelope(HeaderType::ChaincodePackage, Some(vec![0x08, 0, 0x12, 0]));
        for bytes in [spec(), signed] {
            let package = LegacyPackage::parse(&bytes).unwrap();
            assert_eq!((package.name.as_str(), package.version.as_str()), ("mycc", "1.0"));
        }
    }

    #[test]
    fn what_a_peer_does_not_start_with_is_none() {
        assert_eq!(LegacyPackage::parse(b""), Err(LegacyPackageError::Nameless));
        assert!(LegacyPackage::parse(b"\0\0\0\x01Bud1").is_err());
        assert!(LegacyPackage::parse(b"notes").is_err());
        let whole = spec();
        let end_of_name = whole.len() - 6;
        for cut in (0..whole.len()).filter(|cut| *cut != end_of_name) {
            assert!(LegacyPackage::parse(&whole[..cut]).is_err(), "{cut}");
        }
        let without = envelope(HeaderType::ChaincodePackage, None);
        assert_eq!(LegacyPackage::parse(&without), Err(LegacyPackageError::Lacks("instantiation policy")));
        let message = envelope(HeaderType::Message, Some(vec![0x08, 0]));
        assert_eq!(LegacyPackage::parse(&message), Err(LegacyPackageError::Kind));
    }
}
