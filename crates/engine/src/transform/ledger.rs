//! Gives a peer the ledger of another peer of its organization: the chain, its private data and everything derived from both. The peer
//! keeps its own identity, chaincode packages and everything else.

use std::str::FromStr;

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, Remedy, Rule};

use crate::EngineError;
use crate::misuse::{Misuse, Request};
use crate::point::{CapturedDirectory, CapturedEntry, CapturedNode, RecoveryPoint};

/// Where a peer keeps everything that comes of its blocks, relative to its data directory.
const LEDGERS: &str = "ledgersData";

/// Which peer takes whose ledger, as `Organization/node` each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFrom {
    /// The peer that is restored.
    pub node: String,
    /// The peer whose ledger it takes.
    pub donor: String,
}

impl FromStr for LedgerFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((node, donor)) if !node.is_empty() && !donor.is_empty() && node != donor => {
                Ok(LedgerFrom { node: node.to_owned(), donor: donor.to_owned() })
            }
            _ => Err("name two peers of one organization: Org1/peer1=Org1/peer0".to_owned()),
        }
    }
}

fn wrong(from: &LedgerFrom, problem: impl Into<String>) -> Misuse {
    Misuse::of(Request::LedgerFrom(from.clone()), problem)
}

/// The peer data directory of a node: which of its directories, and where in it.
pub(super) fn data_of(node: &CapturedNode) -> Option<(usize, String)> {
    let mut found = node.directories.iter().enumerate().flat_map(|(position, captured)| {
        let own = (captured.directory.role == DirectoryRole::PeerData).then(|| (position, String::new()));
        let nested = captured.directory.nested.iter().filter(|(_, role)| *role == DirectoryRole::PeerData);
        own.into_iter().chain(nested.map(move |(at, _)| (position, format!("{at}/"))))
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// A path below a data directory's ledgers, from there.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(root)?.strip_prefix(LEDGERS)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Gives a peer the ledger of another; the note that says so.
pub(super) fn take(point: &mut RecoveryPoint, from: &LedgerFrom, nodes: &[String]) -> Result<Finding, EngineError> {
    let find = |name: &str| -> Result<_, EngineError> {
        let peer = |node: &&CapturedNode| node.facts.id.to_string() == name && node.facts.role == NodeRole::Peer;
        point.nodes.iter().find(peer).ok_or_else(|| {
            wrong(from, format!("the recovery point has no peer {name}")).next(Remedy::ListCaptured).into()
        })
    };
    let (node, donor) = (find(&from.node)?, find(&from.donor)?);
    if !nodes.is_empty() && !nodes.contains(&from.node) {
        return Err(wrong(from, "that peer is not among those that are restored").next(Remedy::ChooseNodes).into());
    }
    if node.facts.id.organization != donor.facts.id.organization || node.facts.msp_id != donor.facts.msp_id {
        return Err(wrong(from, "they are of different organizations, whose peers hold different private data").into());
    }
    let single = |node: &CapturedNode| -> Result<_, EngineError> {
        data_of(node)
            .ok_or_else(|| wrong(from, format!("{} does not have exactly one data directory", node.facts.id)).into())
    };
    let ((_, target_root), (given_in, given_root)) = (single(node)?, single(donor)?);
    let given: Vec<CapturedEntry> = donor.directories[given_in]
        .entries
        .iter()
        .filter_map(|entry| {
            let rest = below(&entry.path, &given_root)?;
            Some(CapturedEntry { path: format!("{target_root}{LEDGERS}{rest}"), ..entry.clone() })
        })
        .collect();
    let ledgers = donor.facts.ledgers.clone();
    let heights: Vec<String> = ledgers.iter().map(|ledger| format!("{} {}", ledger.channel, ledger.height)).collect();
    if ledgers.is_empty() {
        return Err(wrong(from, format!("{} has no ledger", from.donor)).into());
    }
    let Some(node) = point.nodes.iter_mut().find(|node| node.facts.id.to_string() == from.node) else {
        return Err(wrong(from, "there is no such peer").into());
    };
    let Some((position, _)) = data_of(node) else {
        return Err(wrong(from, "it does not have exactly one data directory").into());
    };
    replace(&mut node.directories[position], &target_root, given);
    node.facts.ledgers = ledgers;
    Ok(Finding::note(
        Rule::OneChain,
        &node.facts.id,
        format!(
            "it gets the ledger of {} ({}); it keeps its own keys and chaincode packages",
            from.donor,
            heights.join(", ")
        ),
        "no action is needed: its collections contain the private data of the donor",
    ))
}

fn replace(captured: &mut CapturedDirectory, root: &str, given: Vec<CapturedEntry>) {
    let mark = |entry: &CapturedEntry| below(&entry.path, root).is_some();
    let own = captured.entries.iter().find(|entry| mark(entry)).or(captured.entries.first());
    let (uid, gid) = own.map_or((0, 0), |entry| (entry.uid, entry.gid));
    captured.entries.retain(|entry| !mark(entry));
    captured.entries.extend(given.into_iter().map(|entry| CapturedEntry { uid, gid, ..entry }));
    captured.entries.sort_by(|a, b| a.path.cmp(&b.path));
    captured.omitted.retain(|omitted| below(&omitted.path, root).is_none());
}
