//! Membership service providers: the certificates that an organization certifies, and their roles.

use std::collections::BTreeSet;

use crate::certificate::{Certificate, pem_blocks};
use crate::proto::msp::FabricMspConfig;

/// Longest chain of intermediate certificates followed.
const MAX_CHAIN: usize = 10;

/// The roles that Fabric's principals name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Any valid identity.
    Member,
    /// An administrator.
    Admin,
    /// A client.
    Client,
    /// A peer.
    Peer,
    /// An orderer.
    Orderer,
}

/// An organization's MSP, as a channel configuration carries it.
#[derive(Debug, Clone, Default)]
pub struct Msp {
    roots: Vec<Certificate>,
    intermediates: Vec<Certificate>,
    admins: Vec<Certificate>,
    revoked_serials: BTreeSet<Vec<u8>>,
    node_units: Option<NodeUnits>,
}

#[derive(Debug, Clone)]
struct NodeUnits {
    client: Option<String>,
    peer: Option<String>,
    admin: Option<String>,
    orderer: Option<String>,
}

impl Msp {
    /// Takes an MSP definition; certificates that do not parse vouch for nobody.
    pub fn from_config(config: &FabricMspConfig) -> Self {
        let parse = |list: &[Vec<u8>]| list.iter().filter_map(|pem| Certificate::from_pem(pem).ok()).collect();
        let units = config.fabric_node_ous.as_ref().filter(|units| units.enable);
        let name = |unit: &Option<crate::proto::msp::FabricOuIdentifier>| {
            unit.as_ref().map(|unit| unit.organizational_unit_identifier.clone())
        };
        Msp {
            roots: parse(&config.root_certs),
            intermediates: parse(&config.intermediate_certs),
            admins: parse(&config.admins),
            revoked_serials: config.revocation_list.iter().flat_map(|crl| revoked_serials(crl)).collect(),
            node_units: units.map(|units| NodeUnits {
                client: name(&units.client_ou_identifier),
                peer: name(&units.peer_ou_identifier),
                admin: name(&units.admin_ou_identifier),
                orderer: name(&units.orderer_ou_identifier),
            }),
        }
    }

    /// Root and intermediate certificates.
    pub fn authorities(&self) -> impl Iterator<Item = &Certificate> {
        self.roots.iter().chain(&self.intermediates)
    }

    /// Returns whether the certificate leads to one of the MSP's roots and is not revoked. Dates are not looked at: Fabric checks a block's
    /// signers as of their own certificate's first second.
    pub fn vouches_for(&self, certificate: &Certificate) -> bool {
        !certificate.is_ca()
            && !self.revoked_serials.contains(certificate.serial())
            && self.leads_to_a_root(certificate)
    }

    /// Returns whether one of the MSP's roots has signed the certificate, or an intermediate certificate that leads to one.
    pub fn leads_to_a_root(&self, certificate: &Certificate) -> bool {
        let mut current = certificate;
        for _ in 0..MAX_CHAIN {
            if self.roots.iter().any(|root| current.is_signed_by(root)) {
                return true;
            }
            match self.intermediates.iter().find(|issuer| current.is_signed_by(issuer)) {
                Some(issuer) => current = issuer,
                None => return false,
            }
        }
        false
    }

    /// Returns whether the certificate with this serial number, in hex, is in the MSP's revocation lists.
    pub fn revokes(&self, serial: &str) -> bool {
        self.revoked_serials.iter().any(|revoked| hex::encode(revoked) == serial)
    }

    /// Returns whether the certificate leads towards a root by signatures of an algorithm that is not known here.
    pub fn cannot_check(&self, certificate: &Certificate) -> bool {
        let unknown =
            |certificate: &Certificate| self.authorities().any(|authority| certificate.cannot_be_checked_by(authority));
        let issuer = self.intermediates.iter().find(|issuer| certificate.is_signed_by(issuer));
        unknown(certificate) || issuer.is_some_and(unknown)
    }

    /// Returns whether a certificate that the MSP vouches for has a role.
    pub fn has_role(&self, certificate: &Certificate, role: Role) -> bool {
        let units = certificate.units();
        let has = |unit: &Option<String>| unit.as_ref().is_some_and(|unit| units.contains(unit));
        match (role, &self.node_units) {
            (Role::Member, _) => true,
            (Role::Admin, nodes) => {
                self.admins.iter().any(|admin| admin.der() == certificate.der())
                    || nodes.as_ref().is_some_and(|nodes| has(&nodes.admin))
            }
            (_, None) => false,
            (Role::Client, Some(nodes)) => has(&nodes.client),
            (Role::Peer, Some(nodes)) => has(&nodes.peer),
            (Role::Orderer, Some(nodes)) => has(&nodes.orderer),
        }
    }
}

/// What a file among an MSP's revocation lists is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationList {
    /// A list.
    Readable,
    /// Not PEM: Fabric passes over it.
    NotPem,
    /// PEM, and no list: Fabric does not start with it.
    NoList,
}

impl RevocationList {
    /// Reads a file of the folder `crls` as Fabric does.
    pub fn of(file: &[u8]) -> Self {
        use der::Decode;
        // What stands before the first line keeps Fabric from seeing a list in PEM.
        let Some(first) = pem_blocks(file).into_iter().next() else { return RevocationList::NotPem };
        let der = first.der.filter(|_| file.starts_with(b"-----BEGIN X509 CRL"));
        // Only whether it is one: lists of unusual authorities are lists.
        let parses = |der: &[u8]| Vec::<der::Any>::from_der(der).is_ok_and(|parts| parts.len() == 3);
        if der.is_some_and(|der| parses(&der)) { RevocationList::Readable } else { RevocationList::NoList }
    }
}

fn revoked_serials(pem: &[u8]) -> Vec<Vec<u8>> {
    use der::Decode;
    let Ok((_, der)) = der::pem::decode_vec(pem) else { return Vec::new() };
    let Ok(list) = x509_cert::crl::CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der) else {
        return Vec::new();
    };
    let revoked = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
    revoked.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect()
}
