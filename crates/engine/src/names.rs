//! All host names by which the nodes call each other: in channel configurations, chaincode packages and TLS certificates. They cannot be
//! changed from outside; in another place something must answer to them (O8, K5).

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::chaincode_package::{ChaincodePackage, MAX_PACKAGE_BYTES};
use fabkeep_network::{Finding, KeyPurpose, NodeId, Remedy, Rule};
use fabkeep_platform::Declaration;
use fabkeep_platform::kubernetes::old_names;
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;
use serde_json::Value;

use crate::EngineError;
use crate::content::Contents;
use crate::objects::declarations;
use crate::point::{EntryContent, RecoveryPoint};

/// A name, who uses it, and what answers to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UsedName {
    /// The name, or an address.
    pub name: String,
    /// Ports at which it is called.
    pub ports: BTreeSet<u16>,
    /// Where it is written: what breaks when nothing answers.
    pub used_by: BTreeSet<String>,
    /// Nodes whose TLS certificate is good for it.
    pub certificates: BTreeSet<String>,
    /// What makes it known: Services, Ingresses, hostAliases of the recovery point. Empty: DNS, or nothing.
    pub answered_by: BTreeSet<Answer>,
}

/// What makes a name known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// The name is the caller's own machine or pod.
    Caller,
    /// A Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Who gets this answer.
        to: Callers,
    },
    /// An Ingress, by its label.
    Ingress(String),
    /// The hostAliases of a workload, by its label.
    HostAliases(String),
}

/// Who gets a Service's answer to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callers {
    /// Every pod.
    All,
    /// Pods of its namespace.
    OfItsNamespace,
    /// Pods that know it by its names of another place.
    ByOldNames,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Caller => f.write_str("the caller's own machine or pod"),
            Answer::Service { namespace, name, to } => {
                write!(f, "Service {namespace}/{name}")?;
                f.write_str(match to {
                    Callers::All => "",
                    Callers::OfItsNamespace => ", within its namespace",
                    Callers::ByOldNames => ", by its old names",
                })
            }
            Answer::Ingress(label) => f.write_str(label),
            Answer::HostAliases(label) => write!(f, "hostAliases of {label}"),
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Returns every name of a recovery point, those first that channel configurations and packages use.
///
/// # Errors
/// [`EngineError`] when the recovery point cannot be read.
pub fn names(repository: &Repository, commit: &Commit, identity: &IdentityFile) -> Result<Vec<UsedName>, EngineError> {
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    let declared = declarations(&point, &reader)?;
    used_names(&point, &reader, &declared)
}

pub(crate) fn used_names(
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    declared: &[Declaration],
) -> Result<Vec<UsedName>, EngineError> {
    let mut by_name: BTreeMap<String, UsedName> = BTreeMap::new();
    let mut add = |address: &str, used_by: String| {
        let (name, port) = split(address);
        if name.is_empty() {
            return;
        }
        let entry = by_name.entry(name.to_lowercase()).or_default();
        entry.ports.extend(port);
        entry.used_by.insert(used_by);
    };
    for channel in &point.channels {
        let Some(config) = &channel.config else { continue };
        for consenter in &config.consenters {
            add(&format!("{}:{}", consenter.host, consenter.port), format!("consenter of {}", channel.name));
        }
        for address in &config.orderer_addresses {
            add(address, format!("orderer address of {}", channel.name));
        }
        for organization in &config.organizations {
            for address in &organization.endpoints {
                add(address, format!("orderer endpoint of {} on {}", organization.msp_id, channel.name));
            }
            for address in &organization.anchor_peers {
                add(address, format!("anchor peer of {} on {}", organization.msp_id, channel.name));
            }
        }
    }
    for (label, address, node) in services(point, reader)? {
        add(&address, format!("chaincode {label} on {node}"));
    }
    for node in &point.nodes {
        for key in node.facts.keys.iter().filter(|key| key.purpose == KeyPurpose::Tls) {
            for name in key.certificate.iter().flat_map(|certificate| &certificate.names) {
                let entry = by_name.entry(name.to_lowercase()).or_default();
                entry.certificates.insert(node.facts.id.to_string());
            }
        }
    }
    let answers = Answers::of(declared);
    let mut out: Vec<UsedName> =
        by_name.into_iter().map(|(name, used)| UsedName { answered_by: answers.to(&name), name, ..used }).collect();
    out.sort_by_key(|used| used.used_by.is_empty());
    Ok(out)
}

/// Names that channel configurations and packages use, and that nothing in the recovery point answers to.
pub(crate) fn unanswered(used: &[UsedName]) -> Option<Finding> {
    let names: Vec<&str> = used
        .iter()
        .filter(|used| !used.used_by.is_empty() && used.answered_by.is_empty())
        .map(|used| used.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        Finding::note(
            Rule::NamesKept,
            format!("{} names", names.len()),
            format!(
                "channel configurations or chaincode packages contain {}; no Service, Ingress or hostAliases of the recovery point answers to these names",
                names.join(", ")
            ),
            Remedy::from("let DNS resolve them in another place").and(Remedy::ListNames),
        )
    })
}

/// `host:port`, also with a scheme before it or an address in brackets.
fn split(address: &str) -> (&str, Option<u16>) {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    let address = address.split('/').next().unwrap_or(address);
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (address, None),
    }
}

/// Addresses in the chaincode packages of the peers: label, address, peer.
fn services(point: &RecoveryPoint, reader: &PointReader<'_>) -> Result<Vec<(String, String, NodeId)>, EngineError> {
    let contents = Contents::new(reader, point);
    let mut out = Vec::new();
    for node in &point.nodes {
        for entry in node.directories.iter().flat_map(|directory| &directory.entries) {
            let package = entry.path.contains("lifecycle/chaincodes/") && entry.path.ends_with(".tar.gz");
            let EntryContent::File { size, .. } = &entry.content else { continue };
            if !package || *size > MAX_PACKAGE_BYTES {
                continue;
            }
            let bytes = contents.whole(entry)?;
            // What cannot be read names nobody; `verify` is for damage.
            if let Ok(ChaincodePackage { label, address: Some(address), .. }) = ChaincodePackage::parse(&bytes) {
                out.push((label, address, node.facts.id.clone()));
            }
        }
    }
    Ok(out)
}

fn service(namespace: &str, name: &str, to: Callers) -> Answer {
    Answer::Service { namespace: namespace.to_owned(), name: name.to_owned(), to }
}

/// What makes names known inside a cluster.
struct Answers<'d> {
    services: BTreeSet<(&'d str, &'d str)>,
    /// Name, and what answers.
    others: Vec<(String, Answer)>,
}

impl<'d> Answers<'d> {
    fn of(declared: &'d [Declaration]) -> Self {
        let mut out = Answers { services: BTreeSet::new(), others: Vec::new() };
        for known in declared {
            let texts = |pointer: &str, inner: &str| -> Vec<String> {
                let all = known.object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
                all.flat_map(|value| match value.pointer(inner) {
                    Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_lowercase).collect(),
                    Some(Value::String(one)) => vec![one.to_lowercase()],
                    _ => Vec::new(),
                })
                .collect()
            };
            match known.kind.as_str() {
                "Service" => {
                    out.services.insert((&known.namespace, &known.name));
                }
                "Ingress" => {
                    let hosts = texts("/spec/rules", "/host").into_iter();
                    out.others.extend(hosts.map(|host| (host, Answer::Ingress(known.label()))));
                }
                _ => {
                    let pointer = match known.kind.as_str() {
                        "Pod" => "/spec/hostAliases",
                        "CronJob" => "/spec/jobTemplate/spec/template/spec/hostAliases",
                        _ => "/spec/template/spec/hostAliases",
                    };
                    let aliases = texts(pointer, "/hostnames").into_iter();
                    out.others.extend(aliases.map(|host| (host, Answer::HostAliases(known.label()))));
                    // Names of the place before, which a restore makes hostAliases of again.
                    for old in old_names(&known.object) {
                        let by = service(&old.namespace, &old.service, Callers::ByOldNames);
                        out.others.extend(old.names.into_iter().map(|name| (name.to_lowercase(), by.clone())));
                    }
                }
            }
        }
        out
    }

    fn to(&self, name: &str) -> BTreeSet<Answer> {
        let mut out = BTreeSet::new();
        if name == "localhost" || name.starts_with("127.") || name == "::1" {
            out.insert(Answer::Caller);
        }
        for (namespace, known) in &self.services {
            let rest = name.strip_prefix(&known.to_lowercase());
            let full = rest.and_then(|rest| rest.strip_prefix('.')?.strip_prefix(&namespace.to_lowercase()));
            match (rest, full) {
                // A bare name is looked for in the caller's own namespace.
                (Some(""), _) => out.insert(service(namespace, known, Callers::OfItsNamespace)),
                (_, Some(end)) if end.is_empty() || end == ".svc" || end.starts_with(".svc.") => {
                    out.insert(service(namespace, known, Callers::All))
                }
                _ => false,
            };
        }
        let same = |host: &str| match host.strip_prefix("*.") {
            Some(domain) => name.split_once('.').is_some_and(|(_, rest)| rest == domain),
            None => host == name,
        };
        out.extend(self.others.iter().filter(|(host, _)| same(host)).map(|(_, by)| by.clone()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_in_every_form() {
        assert_eq!(split("orderer1:7050"), ("orderer1", Some(7050)));
        assert_eq!(split("grpcs://orderer1.org.svc:7050/"), ("orderer1.org.svc", Some(7050)));
        assert_eq!(split("[fe80::1]:7050"), ("fe80::1", Some(7050)));
        assert_eq!(split("fe80::1"), ("fe80::1", None));
        assert_eq!(split("10.0.0.1"), ("10.0.0.1", None));
    }

    #[test]
    fn services_ingresses_and_aliases_answer_to_their_names_and_to_no_others() {
        let declared = |kind: &str, namespace: &str, name: &str, object: Value| Declaration {
            namespace: namespace.to_owned(),
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            object,
        };
        let all = [
            declared("Service", "org", "peer0", Value::Null),
            declared("Ingress", "org", "in", serde_json::json!({"spec": {"rules": [{"host": "*.fabric.example"}]}})),
            declared(
                "Deployment",
                "org",
                "ord",
                serde_json::json!({"spec": {"template": {"spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["Old.Name"]}]}}}}),
            ),
        ];
        let answers = Answers::of(&all);
        for name in ["peer0", "peer0.org", "peer0.org.svc", "peer0.org.svc.cluster.local"] {
            assert!(answers.to(name).iter().any(|by| by.to_string().starts_with("Service org/peer0")), "{name}");
        }
        for name in ["peer00", "peer0.org1", "peer0.org.example.com", "xpeer0", "a.b.fabric.example"] {
            assert!(answers.to(name).is_empty(), "{name}");
        }
        assert_eq!(answers.to("old.name").len(), 1);
        let note = r#"[{"namespace": "org", "service": "peer0", "names": ["peer0.first"]}]"#;
        let moved = serde_json::json!({"metadata": {"annotations": {"fabkeep.io/old-names": note}}});
        let moved = [declared("Deployment", "org", "ord", moved)];
        assert!(Answers::of(&moved).to("peer0.first").iter().any(|by| by.to_string().starts_with("Service org/peer0")));
        assert_eq!(answers.to("a.fabric.example").len(), 1);
    }
}
