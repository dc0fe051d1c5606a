//! Private data that peers lack, and whether other captured peers have it (P9).

use std::collections::BTreeMap;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::leveldb::{self, Database, MissingPrivateData};
use fabkeep_network::MissingCollection;

use super::ByChannel;
use super::databases::{Checked, Heights, Notes};
use super::survey::{PlannedNode, Survey, SurveyedDirectory};

/// Most transactions of one peer and channel that are looked for at other peers.
const MAX_LOOKED_FOR: usize = 500;

/// A channel's private-data store in a directory.
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
pub(super) fn look_elsewhere(survey: &Survey, checked: &mut [Checked]) {
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
