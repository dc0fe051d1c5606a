//! Finds the Secrets and ConfigMaps that contain a certificate authority's TLS certificate, its server configuration and its own key. They
//! are recognised by their content, because deployers choose the names and keys.

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
        let same = known.runs(workload, node.pod.as_ref());
        let of = |container: &&k8s_openapi::api::core::v1::Container| container.name == workload.container;
        super::workloads::lasting_containers(&known.spec).find(of).filter(|_| same)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::Engine;
    use serde_json::{Value, json};

    use crate::Declaration;
    use crate::kubernetes::authority_objects;

    fn declared(kind: &str, name: &str, mut object: Value) -> Declaration {
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = "org1".into();
        let (namespace, name) = ("org1".to_owned(), name.to_owned());
        let api_version = if kind == "Deployment" { "apps/v1" } else { "v1" }.to_owned();
        Declaration { namespace, api_version, kind: kind.to_owned(), name, object }
    }

    #[test]
    fn what_an_object_holds_is_told_by_its_content_and_not_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, folder.path()).unwrap();
        let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
        let public = |certificate: &[u8]| super::Certificate::from_pem(certificate).unwrap().public_key().to_vec();
        let key_of = |certificate: &[u8]| {
            let store = std::fs::read_dir(folder.path().join("Org1/ca/msp/keystore")).unwrap();
            let keys = store.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
            let fits = |key: &Vec<u8>| super::public_key_of_private_pem(key) == Some(public(certificate));
            keys.into_iter().find(fits).unwrap()
        };
        let (own, tls, foreign) =
            (read("Org1/ca/ca-cert.pem"), read("Org1/ca/tls-cert.pem"), read("Org2/ca/ca-cert.pem"));
        let coded = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let secret = |name: &str, files: &[(&str, &[u8])]| {
            let data: serde_json::Map<String, Value> =
                files.iter().map(|(key, bytes)| ((*key).to_owned(), coded(bytes).into())).collect();
            declared("Secret", name, json!({"data": data}))
        };
        let config = String::from_utf8(read("Org1/ca/fabric-ca-server-config.yaml")).unwrap();
        let secrets = ["a", "b", "c", "d"];
        let mounts: Vec<Value> =
            secrets.iter().map(|name| json!({"name": name, "mountPath": format!("/keys/{name}")})).collect();
        let volumes: Vec<Value> =
            secrets.iter().map(|name| json!({"name": name, "secret": {"secretName": name}})).collect();
        let mut workload = json!({"spec": {"replicas": 1, "selector": {}, "template": {"metadata": {}, "spec": {
            "containers": [{"name": "ca", "image": "hyperledger/fabric-ca:1.5", "volumeMounts": mounts,
                "env": [{"name": "FABRIC_CA_HOME", "value": "/home/ca"}], "envFrom": [{"configMapRef": {"name": "settings"}}]}],
            "volumes": volumes}}}});
        let spec = &mut workload["spec"]["template"]["spec"];
        spec["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(json!({"name": "e", "mountPath": "/conf"}));
        spec["volumes"].as_array_mut().unwrap().push(json!({"name": "e", "configMap": {"name": "e"}}));
        let all = [
            secret("a", &[("x", &tls), ("y", &key_of(&tls))]),
            secret("b", &[("x", &own), ("y", &key_of(&own))]),
            secret("c", &[("root.pem", &foreign)]),
            // A key whose certificate lies in another one.
            secret("d", &[("z", &key_of(&own))]),
            declared("ConfigMap", "e", json!({"data": {"ca.yaml": config}})),
            declared("ConfigMap", "settings", json!({"data": {"FABRIC_CA_SERVER_DEBUG": "true"}})),
            declared("Deployment", "ca", workload),
        ];
        let found = authority_objects(&all);
        let of = |name: &str| {
            let object = found.iter().find(|object| object.name == name).unwrap();
            (object.tls, object.config, object.own)
        };
        assert_eq!(of("a"), (true, false, false));
        assert_eq!(of("b"), (false, false, true));
        assert_eq!(of("c"), (false, false, false));
        assert_eq!(of("d"), (false, false, true));
        assert_eq!(of("e"), (false, true, false));
        assert_eq!(of("settings"), (false, true, false));
    }
}
