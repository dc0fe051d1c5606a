//! Compares each node with its last capture and reports what is missing now: a channel that disappeared is an error, unless the node's own
//! records say that it left the channel. The earlier recovery point is a hint that something is missing, never evidence that something
//! exists.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::block_file::BOOTSTRAPPING_SNAPSHOT;
use fabkeep_ledger::layout::{DirectoryRole, NodeRole, ORDERER_CHAINS, PEER_CHAINS};
use fabkeep_ledger::leveldb::{self, LevelDbError};
use fabkeep_network::{Finding, KeyPurpose, NodeId, OrLeaveOut, Remedy, Rule};
use fabkeep_store::{PointWriter, Sources};
use serde::{Deserialize, Serialize};

use super::databases::{Heights, NodeChecks};
use super::issuer;
use super::presence::RoleView;
use super::private_data::implicit_to;
use super::start_marks::{channels, inside, roots};
use super::survey::{PlannedNode, Survey};
use super::{CaptureOptions, source_name};

/// What the index keeps of a node. Names are keyed hashes: the index names nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    channels: BTreeSet<String>,
    packages: BTreeSet<String>,
    /// A certificate authority has its idemix issuer's keys.
    #[serde(default)]
    issuer: bool,
    /// The keys of a server's certificate authorities.
    #[serde(default)]
    authorities: BTreeSet<String>,
    /// How many identities, certificates and revoked certificates a certificate authority's database has.
    #[serde(default)]
    registered: Option<(u64, u64, u64)>,
    /// Private data of its organization's implicit collections that a peer holds of the first blocks, by channel: it neither expires nor is
    /// purged.
    #[serde(default)]
    private: BTreeMap<String, BTreeSet<String>>,
}

/// Most writes of private data remembered of a channel.
const MAX_PRIVATE: usize = 64;

fn bring_back() -> Remedy {
    Remedy::from("restore the node's data from another node or an earlier recovery point")
        .or(Remedy::ExcludeNode)
        .or(Remedy::Intended)
}

/// Compares what nodes have with what they had, and notes what they have for the next capture. `renewed`: channels of which the nodes hold
/// another chain than before.
pub(super) fn check(
    survey: &Survey,
    checked: &[NodeChecks],
    renewed: &BTreeSet<&str>,
    known_channels: &[String],
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    sources: &mut Sources,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Those that no node has any more are named by the commits.
    let named = known_channels.iter().map(String::as_str).chain(writer.channels()).map(str::to_owned);
    let all: BTreeSet<String> = survey.nodes.iter().flat_map(channels).chain(named).collect();
    let is_held = |node: &&PlannedNode| {
        matches!(node.node.role, NodeRole::Peer | NodeRole::Orderer | NodeRole::CertificateAuthority)
    };
    for (node, checked) in survey.nodes.iter().zip(checked).filter(|(node, _)| is_held(node)) {
        let label = node.node.id.to_string();
        let own: BTreeSet<String> = channels(node).into_iter().collect();
        findings.extend(lost_by_its_stores(node, all.difference(&own)));
        let hashed = |kind: &str, name: &str| source_name(writer, &["held", kind, name]).to_string();
        let packages = packages(node);
        let of_channel = |(channel, heights): (&String, &Heights)| {
            let implicit = heights.private_writes.iter().filter(|(write, _)| implicit_to(write).is_some());
            let named = implicit.take(MAX_PRIVATE).map(|(write, hash)| {
                let place = format!("{}/{} {}/{}", write.block, write.transaction, write.chaincode, write.collection);
                hashed("private", &format!("{channel} {place} {}", hex::encode(hash)))
            });
            (hashed("channel", channel), named.collect())
        };
        let now = Held {
            private: checked.heights.iter().map(of_channel).collect(),
            channels: own.iter().map(|name| hashed("channel", name)).collect(),
            packages: packages.iter().map(|name| hashed("package", name)).collect(),
            issuer: has_issuer(node),
            authorities: authorities(checked).map(|key| hashed("authority", key)).collect(),
            registered: checked.ca.as_ref().and_then(|ca| Some((ca.identities?, ca.certificates?, ca.revoked?))),
        };
        let name = source_name(writer, &["held", &label]);
        let before = writer.earlier(&name).filter(|_| !options.reread);
        let before: Option<Held> = before.and_then(|value| serde_json::from_value(value.clone()).ok());
        if let Some(before) = before {
            let names: BTreeMap<String, &String> = all.iter().map(|name| (hashed("channel", name), name)).collect();
            findings.extend(vanished(node, &before, &now, &names, &own));
            findings.extend(foreign_private_data(node, &before, &now, &names, renewed));
        }
        if let Ok(value) = serde_json::to_value(now) {
            sources.insert(name.to_string(), value);
        }
    }
    findings
}

/// Chaincode packages that a peer has installed.
fn packages(node: &PlannedNode) -> Vec<String> {
    let view = RoleView::of(node, DirectoryRole::PeerData);
    view.files()
        .filter_map(|(_, path, _)| path.strip_prefix("lifecycle/chaincodes/").map(str::to_owned))
        .filter(|name| name.ends_with(".tar.gz"))
        .collect()
}

/// Returns a store that holds nothing of what it held of an organization's own data is another one. One of a ledger joined by snapshot is
/// new.
fn foreign_private_data(
    node: &PlannedNode,
    before: &Held,
    now: &Held,
    names: &BTreeMap<String, &String>,
    renewed: &BTreeSet<&str>,
) -> Vec<Finding> {
    let joined = |channel: &str| {
        let info = format!("/{channel}/{BOOTSTRAPPING_SNAPSHOT}");
        node.directories.iter().flat_map(|directory| &directory.entries).any(|(entry, _)| entry.path.ends_with(&info))
    };
    let lost = before.private.iter().filter(|(channel, held)| {
        let now = now.private.get(*channel).filter(|now| !now.is_empty());
        !held.is_empty() && now.is_some_and(|now| now.is_disjoint(held))
    });
    lost.filter_map(|(channel, _)| names.get(channel))
        .filter(|channel| !joined(channel) && !renewed.contains(channel.as_str()))
        .map(|channel| {
            Finding::error(
                Rule::StoresInOrder,
                format!("{} {channel}", node.node.id),
                "its private-data store (pvtdataStore) differs from the last recovery point: it lacks its organization's own data of the first blocks, which it contained then",
                bring_back(),
            )
        })
        .collect()
}

/// The public keys of a server's certificate authorities, hashed.
fn authorities(checked: &NodeChecks) -> impl Iterator<Item = &str> {
    let own = checked.keys.iter().filter(|key| key.purpose == KeyPurpose::Authority);
    own.filter_map(|key| Some(key.certificate.as_ref()?.key_sha256.as_str()))
}

/// A certificate authority's database that has less than before: an older one, or one that began anew. An authority removes identities, but
/// neither certificates nor revocations.
fn forgotten(id: &NodeId, before: &Held, now: &Held) -> Option<Finding> {
    let (had, has) = (before.registered?, now.registered?);
    let counts = |(identities, certificates, revoked): (u64, u64, u64)| {
        format!("{identities} identities, {certificates} certificates and {revoked} revoked ones")
    };
    let what = format!("its database has {}; the last recovery point has {}", counts(has), counts(had));
    if has.1 < had.1 || has.2 < had.2 {
        let remedy = "restore its database from the last recovery point, if it was replaced by an older or a new one";
        return Some(Finding::warning(Rule::CaDatabase, id, what, remedy));
    }
    let remedy = "no action is needed if identities were removed on purpose";
    (has.0 < had.0).then(|| Finding::note(Rule::CaDatabase, id, what, remedy))
}

fn has_issuer(node: &PlannedNode) -> bool {
    let view = RoleView::of(node, DirectoryRole::CaHome);
    issuer::FILES.into_iter().any(|path| view.has_file(path))
}

fn vanished(
    node: &PlannedNode,
    before: &Held,
    now: &Held,
    names: &BTreeMap<String, &String>,
    own: &BTreeSet<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let id = &node.node.id;
    if !before.authorities.is_empty() && !now.authorities.is_empty() && before.authorities.is_disjoint(&now.authorities)
    {
        findings.push(Finding::warning(
            Rule::CaKey,
            id,
            "the key of its certificate differs from the last recovery point: certificates that the CA issued before do not chain to it any more",
            "no action is needed if the CA was replaced on purpose; otherwise restore its certificate, key and database",
        ));
    }
    findings.extend(forgotten(id, before, now));
    if before.issuer && !now.issuer {
        findings.push(Finding::error(
            Rule::CaKey,
            id,
            "the last recovery point contains its idemix issuer's keys, and all of them are missing now: the next start creates new ones",
            bring_back(),
        ));
    }
    let gone: Vec<&String> = before.channels.difference(&now.channels).collect();
    if !gone.is_empty() && own.is_empty() {
        let named: Vec<&str> = gone.iter().filter_map(|hash| Some(names.get(*hash)?.as_str())).collect();
        let named = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
        findings.push(Finding::error(
            Rule::NotPersistent,
            id,
            format!(
                "the last recovery point contains {} channels of this node{named}, and it has none now",
                gone.len()
            ),
            bring_back(),
        ));
    } else {
        for hash in gone {
            let subject = names.get(hash).map_or_else(|| id.to_string(), |name| format!("{id} {name}"));
            findings.push(Finding::warning(
                Rule::NotPersistent,
                subject,
                "the last recovery point contains this channel, and the node has no block of it now; none of its stores names the channel any more, as after leaving it",
                bring_back(),
            ));
        }
    }
    let packages: Vec<&String> = before.packages.difference(&now.packages).collect();
    if !packages.is_empty() {
        let what = format!(
            "the last recovery point contains {} chaincode packages that the peer does not have now",
            packages.len()
        );
        findings.push(if now.packages.is_empty() {
            Finding::error(
                Rule::NotPersistent,
                id,
                format!("{what}, and none is left: endorsement fails"),
                bring_back(),
            )
        } else {
            Finding::warning(Rule::NotPersistent, id, what, bring_back())
        });
    }
    findings
}

/// Reads how far a store has come in a channel.
type ReadHeight = fn(&std::path::Path, &str) -> Result<Option<u64>, LevelDbError>;

const PEER_STORES: &[(&str, ReadHeight)] = &[
    ("ledgersData/pvtdataStore", leveldb::private_data_height),
    ("ledgersData/stateLeveldb", leveldb::state_height),
    ("ledgersData/chains/index", leveldb::block_index_height),
];
const ORDERER_STORES: &[(&str, ReadHeight)] = &[("index", leveldb::block_index_height)];

/// Returns a channel that a node's other stores name and that has no chain there was lost: who leaves a channel removes it from all of
/// them.
fn lost_by_its_stores<'a>(node: &PlannedNode, missing: impl Iterator<Item = &'a String> + Clone) -> Vec<Finding> {
    let (role, chains, stores): (DirectoryRole, &str, &[(&str, ReadHeight)]) = match node.node.role {
        NodeRole::Peer => (DirectoryRole::PeerData, PEER_CHAINS, PEER_STORES),
        _ => (DirectoryRole::OrdererLedger, ORDERER_CHAINS, ORDERER_STORES),
    };
    let mut findings = Vec::new();
    for directory in &node.directories {
        for root in roots(directory, role) {
            for channel in missing.clone().filter(|channel| !node.removed_by_start.contains(*channel)) {
                let named = stores.iter().find_map(|(store, read)| {
                    let local = directory.local(&inside(root, store))?;
                    Some((*store, read(&local, channel).ok().flatten()?))
                });
                let Some((store, height)) = named else { continue };
                findings.push(Finding::error(
                    Rule::StoresInOrder,
                    format!("{} {channel}", node.node.id),
                    format!(
                        "its {} contains the channel up to height {height}, but its block files ({}) are missing",
                        inside(root, store),
                        inside(root, &format!("{chains}/{channel}"))
                    ),
                    OrLeaveOut("take the node's data directory from another node or an earlier recovery point"),
                ));
            }
        }
    }
    findings
}
