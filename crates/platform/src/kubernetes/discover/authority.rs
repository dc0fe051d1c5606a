//! Which Secrets and ConfigMaps hold a certificate authority's TLS certificate, its server configuration, its own key: by what is in them,
//! as their names and keys are the deployer's.

use std::collections::BTreeMap;

use fabkeep_ledger::ca_config::CA_CONFIG_FILE;
use fabkeep_ledger::certificate::{Certificate, public_key_of_private_pem};
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::NodeId;

use super::mounts::Holder;
use super::{Analysis, FoundNode};
use crate::kubernetes::objects::Namespace;

/// A Secret or ConfigMap that a certificate authority's container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityObject {
    /// Whose.
    pub id: NodeId,
    /// `Secret` or `ConfigMap`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It holds a TLS certificate or its key.
    pub tls: bool,
    /// It holds the server's configuration.
    pub config: bool,
    /// It holds the authority's own certificate or key.
    pub own: bool,
}

/// The objects that certificate authorities use.
pub(crate) fn authority_objects(analysis: &Analysis) -> Vec<AuthorityObject> {
    let mut out: Vec<AuthorityObject> = Vec::new();
    for node in analysis.nodes.iter().filter(|node| node.node.role == NodeRole::CertificateAuthority) {
        let Some((namespace, _)) =
            analysis.all.iter().find(|(namespace, _)| namespace.name == node.node.id.organization)
        else {
            continue;
        };
        for (kind, name, environment) in used(analysis, node) {
            let values = if kind == "Secret" { namespace.secret(&name) } else { namespace.config_map(&name) };
            let (tls, config, own) = holds(&values, namespace, node);
            let config = config || (environment && values.keys().any(|key| key.starts_with("FABRIC_CA_")));
            let id = node.node.id.clone();
            let namespace = namespace.name.clone();
            let known =
                out.iter().any(|known| (known.kind, &known.namespace, &known.name) == (kind, &namespace, &name));
            if !known {
                out.push(AuthorityObject { id, kind, namespace, name, tls, config, own });
            }
        }
    }
    out
}

/// Kind and name, and whether the environment comes from it.
fn used(analysis: &Analysis, node: &FoundNode) -> Vec<(&'static str, String, bool)> {
    let mut out = Vec::new();
    for mount in &node.mounts {
        let Holder::Objects(projections) = &mount.holder else { continue };
        for known in projections {
            out.push((if known.secret { "Secret" } else { "ConfigMap" }, known.name.clone(), false));
        }
    }
    let workload = node.node.workload.as_ref();
    let containers = analysis.all.iter().flat_map(|(_, workloads)| workloads).filter_map(|known| {
        let workload = workload?;
        let same =
            (&known.kind, &known.namespace, &known.name) == (&workload.kind, &workload.namespace, &workload.name);
        let of = |container: &&k8s_openapi::api::core::v1::Container| container.name == workload.container;
        known.spec.containers.iter().find(of).filter(|_| same)
    });
    for container in containers {
        for from in container.env_from.iter().flatten() {
            out.extend(from.config_map_ref.iter().map(|known| ("ConfigMap", known.name.clone(), true)));
            out.extend(from.secret_ref.iter().map(|known| ("Secret", known.name.clone(), true)));
        }
    }
    out
}

/// TLS, configuration, the authority's own.
fn holds(values: &BTreeMap<String, Vec<u8>>, namespace: &Namespace, node: &FoundNode) -> (bool, bool, bool) {
    let (mut tls, mut config, mut own) = (false, false, false);
    let authority = |certificate: &Certificate| certificate.is_ca();
    for (key, value) in values {
        config |= key == CA_CONFIG_FILE || is_configuration(value);
        if let Ok(certificate) = Certificate::from_pem(value) {
            if authority(&certificate) {
                // Somebody else's root to trust is no own one: only with its key.
                own |= values.values().any(|value| is_key_of(value, &certificate));
            } else {
                tls = true;
            }
        } else if let Some(public) = public_key_of_private_pem(value) {
            // The certificate may lie in another object that the container uses.
            match certificates(namespace, node).iter().find(|certificate| certificate.public_key() == public) {
                Some(certificate) if authority(certificate) => own = true,
                Some(_) => tls = true,
                None => {}
            }
        }
    }
    (tls, config, own)
}

fn is_key_of(value: &[u8], certificate: &Certificate) -> bool {
    public_key_of_private_pem(value).is_some_and(|public| public == certificate.public_key())
}

/// A server configuration under another name.
fn is_configuration(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    let top = |key: &str| text.lines().any(|line| line.trim_end() == key);
    top("registry:") && top("signing:") && top("ca:")
}

fn certificates(namespace: &Namespace, node: &FoundNode) -> Vec<Certificate> {
    let mut out = Vec::new();
    for mount in &node.mounts {
        let Holder::Objects(projections) = &mount.holder else { continue };
        for known in projections {
            let values = if known.secret { namespace.secret(&known.name) } else { namespace.config_map(&known.name) };
            out.extend(values.values().filter_map(|value| Certificate::from_pem(value).ok()));
        }
    }
    out
}
