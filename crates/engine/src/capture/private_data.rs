//! Private data that peers lack, and whether other captured peers have it (P9).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fabkeep_ledger::Hash;
use fabkeep_ledger::channel_config::{ChannelConfig, OrganizationKind};
use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::leveldb::{self, Database, MissingPrivateData};
use fabkeep_ledger::private_hashes::PrivateWrite;
use fabkeep_network::{Finding, KeyFacts, MissingCollection, OrLeaveOut, Rule};

use super::ByChannel;
use super::databases::{Heights, NodeChecks, Notes};
use super::survey::{PlannedNode, Survey, SurveyedDirectory};

/// Most transactions of one peer and channel that are looked for at other peers.
const MAX_LOOKED_FOR: usize = 500;

/// Blocks at either end of a chain whose private data is compared with the blocks.
const BLOCKS_COMPARED: u64 = 64;
/// Most private writes of one peer and channel that are compared.
const MAX_COMPARED: usize = 4096;
const FOREIGN: OrLeaveOut = OrLeaveOut(
    "take the peer's whole data directory from one moment: from another peer of its organization or an earlier recovery point",
);

/// Returns a channel's private-data store in a directory.
fn stores(directory: &SurveyedDirectory) -> Vec<(String, String)> {
    let of = |channel: &str, path: &str| Some(path.strip_suffix(&format!("/chains/chains/{channel}"))?.to_owned());
    let chains = directory.chains().into_iter();
    chains
        .filter_map(|chain| {
            let store = of(&chain.channel, &chain.path)?;
            Some((chain.channel, format!("{store}/pvtdataStore")))
        })
        .collect()
}

/// Reads what a peer lacks. A store that cannot be read has its finding already.
pub(super) fn read(node: &PlannedNode, notes: &Notes<'_>, heights: &mut ByChannel<Heights>) {
    for directory in &node.directories {
        for (channel, path) in stores(directory) {
            let heights = heights.entry(channel.clone()).or_default();
            match directory.local(&path) {
                Some(local) => {
                    heights.missing = leveldb::missing_private_data(&local, &channel).unwrap_or_default();
                    heights.missing_private = by_collection(&heights.missing);
                    read_writes(&local, &channel, node.node.msp_id.as_deref(), heights);
                    heights.private_changed = !notes.is_unchanged(directory, &path);
                    if !heights.missing_private.is_empty() {
                        let missing = heights.missing_private.clone();
                        notes.amend(directory, &path, |known| {
                            known.missing.insert(channel, missing);
                        });
                    }
                }
                None => {
                    let known = notes.recall(directory, &path).map(|known| known.missing).unwrap_or_default();
                    heights.missing_private = known.get(&channel).cloned().unwrap_or_default();
                }
            }
        }
    }
}

/// Reads what the store holds of the first and the last blocks.
fn read_writes(local: &Path, channel: &str, msp_id: Option<&str>, heights: &mut Heights) {
    let (Ok(store), Some(height)) = (Database::open(local), heights.private) else { return };
    let last = height.saturating_sub(BLOCKS_COMPARED);
    for (from, to) in [(0, BLOCKS_COMPARED.min(last)), (last, height)] {
        heights.private_writes.extend(leveldb::stored_private_data(&store, channel, from, to).unwrap_or_default());
        let approved = msp_id.map(|msp_id| leveldb::approved_packages(&store, channel, msp_id, from, to));
        heights.approved.extend(approved.and_then(Result::ok).unwrap_or_default());
    }
    heights.private_writes.truncate(MAX_COMPARED);
    heights.purged = Some(leveldb::has_purged(&store, channel).unwrap_or(true));
}

/// Compares the private data that peers hold with the hashes in the chain's blocks, and peers of one organization with each other: a store of
/// another chain, or of another organization's peer, stands in the place of the right one.
pub(super) fn compare(
    channel: &str,
    survey: &Survey,
    checked: &[NodeChecks],
    config: Option<&ChannelConfig>,
    in_blocks: &BTreeMap<PrivateWrite, Hash>,
    read: &BTreeSet<u64>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut members: BTreeMap<(&str, &str, &str), (String, bool)> = BTreeMap::new();
    // One write of each collection shows who is a member.
    let by_collection: BTreeMap<(&str, &str), &PrivateWrite> =
        in_blocks.keys().map(|write| ((write.chaincode.as_str(), write.collection.as_str()), write)).collect();
    for (node, of_node) in survey.nodes.iter().zip(checked) {
        let Some(heights) = of_node.heights.get(channel).filter(|_| node.node.role == NodeRole::Peer) else { continue };
        let subject = format!("{} {channel}", node.node.id);
        let compared =
            heights.private_writes.iter().filter_map(|(write, hash)| Some((write, *hash, *in_blocks.get(write)?)));
        let (mut same, mut other) = (0u64, None);
        for (write, hash, expected) in compared {
            if hash == expected { same += 1 } else { other = other.or(Some(write)) }
        }
        // A block that the walk read and that has no such write at all.
        let foreign = heights.private_writes.iter().map(|(write, _)| write);
        let foreign = foreign.filter(|write| read.contains(&write.block)).find(|write| !in_blocks.contains_key(write));
        if let Some(write) = other.filter(|_| !(heights.purged == Some(true) && same > 0)).or(foreign) {
            findings.push(Finding::error(
                Rule::StoresInOrder,
                &subject,
                format!(
                    "its private-data store does not belong to this chain: its data of {}/{} in block {}, transaction {}, does not match the hash in the block",
                    write.chaincode, write.collection, write.block, write.transaction
                ),
                FOREIGN,
            ));
        }
        let Some(msp) = node.node.msp_id.as_deref().or_else(|| organization_of(of_node, config?)) else { continue };
        let of_another = |write: &&PrivateWrite| implicit_to(write).is_some_and(|organization| organization != msp);
        if let Some(write) = heights.private_writes.iter().map(|(write, _)| write).find(of_another) {
            findings.push(Finding::error(
                Rule::StoresInOrder,
                &subject,
                format!(
                    "its private-data store belongs to a peer of another organization: it contains {}/{}, which no peer of {msp} may have",
                    write.chaincode, write.collection
                ),
                FOREIGN,
            ));
        }
        let stores: Vec<Database> = open_stores(node, channel);
        for write in by_collection.values() {
            let member = heights.private_writes.iter().any(|(held, _)| held == *write);
            let no_member = |store: &Database| leveldb::is_no_member(store, channel, write).unwrap_or(false);
            // Neither is missing, expired or purged: that tells nothing.
            if !member && !stores.iter().any(no_member) {
                continue;
            }
            let key = (msp, write.chaincode.as_str(), write.collection.as_str());
            let known = members.entry(key).or_insert_with(|| (node.node.id.to_string(), member));
            if known.1 != member && known.0 != node.node.id.to_string() {
                for (one, another) in
                    [(subject.clone(), known.0.clone()), (format!("{} {channel}", known.0), node.node.id.to_string())]
                {
                    findings.push(Finding::error(
                        Rule::StoresInOrder,
                        one,
                        format!(
                            "its private-data store and that of {another}, of the same organization, do not agree whether they are members of the collection {}/{}: one of them belongs to a peer of another organization",
                            write.chaincode, write.collection
                        ),
                        FOREIGN,
                    ));
                }
                break;
            }
        }
    }
    findings
}

/// Returns the organization that a node's identity is of: the one of the channel whose roots its MSP has.
fn organization_of<'c>(checked: &NodeChecks, config: &'c ChannelConfig) -> Option<&'c str> {
    let of_authority = |key: &&KeyFacts| key.path.split('/').any(|part| part == "cacerts");
    let own = checked.keys.iter().filter(of_authority).filter_map(|key| key.certificate.as_ref());
    let own: BTreeSet<&str> = own.map(|certificate| certificate.key_sha256.as_str()).collect();
    let mut known = config.organizations.iter().filter(|organization| {
        organization.kind != OrganizationKind::Orderer && own.iter().any(|key| organization.has_root(key))
    });
    match (known.next(), known.next()) {
        (Some(one), None) => Some(&one.msp_id),
        _ => None,
    }
}

/// Returns the organization whose implicit collection a write is of: only its own peers hold it.
pub(super) fn implicit_to(write: &PrivateWrite) -> Option<&str> {
    write.collection.strip_prefix("_implicit_org_")
}

/// Returns the node's private-data stores of a channel, as far as they are at hand.
fn open_stores(node: &PlannedNode, channel: &str) -> Vec<Database> {
    let directories = node.directories.iter();
    let of_channel = directories.flat_map(|directory| {
        stores(directory).into_iter().filter(|(name, _)| name == channel).filter_map(|(_, path)| directory.local(&path))
    });
    of_channel.filter_map(|local| Database::open(&local).ok()).collect()
}

fn by_collection(missing: &[MissingPrivateData]) -> Vec<MissingCollection> {
    let mut out: BTreeMap<String, MissingCollection> = BTreeMap::new();
    for one in missing {
        let collection = format!("{}/{}", one.chaincode, one.collection);
        let entry = out.entry(collection.clone()).or_insert(MissingCollection {
            collection,
            transactions: 0,
            first_block: one.block,
            last_block: one.block,
            held_elsewhere: None,
        });
        entry.transactions += one.transactions.len() as u64;
        entry.first_block = entry.first_block.min(one.block);
        entry.last_block = entry.last_block.max(one.block);
    }
    out.into_values().collect()
}

/// Looks at the other peers for what one lacks.
pub(super) fn look_elsewhere(survey: &Survey, checked: &mut [NodeChecks]) {
    for (position, checked) in checked.iter_mut().enumerate() {
        for (channel, heights) in &mut checked.heights {
            let wanted: usize = heights.missing.iter().map(|one| one.transactions.len()).sum();
            if wanted == 0 || wanted > MAX_LOOKED_FOR {
                continue;
            }
            let others: Vec<Database> = survey
                .nodes
                .iter()
                .enumerate()
                .filter(|(other, node)| *other != position && node.node.role == NodeRole::Peer)
                .flat_map(|(_, node)| &node.directories)
                .flat_map(|directory| {
                    let of_channel = stores(directory).into_iter().filter(|(name, _)| name == channel);
                    of_channel.filter_map(|(_, path)| Database::open(&directory.local(&path)?).ok()).collect::<Vec<_>>()
                })
                .collect();
            let held = |one: &MissingPrivateData, transaction: u64| {
                let of = (one.chaincode.as_str(), one.collection.as_str());
                let has = |store: &Database| leveldb::has_private_data(store, channel, (one.block, transaction), of);
                others.iter().any(|store| has(store).unwrap_or(false))
            };
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for one in &heights.missing {
                let found = one.transactions.iter().filter(|&&transaction| held(one, transaction)).count();
                *counts.entry(format!("{}/{}", one.chaincode, one.collection)).or_default() += found as u64;
            }
            for collection in &mut heights.missing_private {
                collection.held_elsewhere = counts.get(&collection.collection).copied();
            }
        }
    }
}
