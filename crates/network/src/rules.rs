//! The invariants I1–I5 and the rules beside them, judged over a whole captured set.

use fabkeep_ledger::channel_config::ChannelConfig;
use fabkeep_ledger::layout::NodeRole;

use crate::facts::{KeyPurpose, LedgerFacts, NodeFacts, RaftFacts, WalKind};
use crate::finding::{Finding, Rule};

/// Days before a certificate's end at which a finding warns of it.
pub const EXPIRY_WARNING_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;

/// Judges a captured set. `now` is in seconds since 1970; `derived` says whether state, history and index are in the set.
pub fn check_set(nodes: &[NodeFacts], configs: &[&ChannelConfig], derived: bool, now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    peers_at_most_at_orderers(nodes, &mut findings);
    orderers_level(nodes, &mut findings);
    for node in nodes {
        for ledger in &node.ledgers {
            stores_in_order(node, ledger, derived, &mut findings);
            findings.extend(private_data(node, ledger));
            if node.role == NodeRole::Orderer {
                raft_in_order(node, ledger, &mut findings);
            }
        }
        logs_without_chain(node, &mut findings);
        keys(node, now, &mut findings);
        if node.role == NodeRole::Orderer {
            consenter_key(node, configs, &mut findings);
        }
        if let Some(ca) = &node.ca
            && ca.whole == Some(false)
        {
            findings.push(Finding::error(
                Rule::CaDatabase,
                &node.id,
                "the CA's database fails its own integrity check",
                "restore the database from an earlier recovery point, or repair it with sqlite3 `.recover`",
            ));
        }
    }
    findings
}

fn ledgers<'a>(
    nodes: &'a [NodeFacts],
    role: NodeRole,
    channel: &'a str,
) -> impl Iterator<Item = (&'a NodeFacts, &'a LedgerFacts)> {
    nodes.iter().filter(move |node| node.role == role).flat_map(move |node| {
        node.ledgers.iter().filter(move |ledger| ledger.channel == channel).map(move |ledger| (node, ledger))
    })
}

fn channels(nodes: &[NodeFacts]) -> Vec<&str> {
    let mut names: Vec<&str> =
        nodes.iter().flat_map(|node| &node.ledgers).map(|ledger| ledger.channel.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// I1.
fn peers_at_most_at_orderers(nodes: &[NodeFacts], findings: &mut Vec<Finding>) {
    for channel in channels(nodes) {
        let Some((orderer, highest)) =
            ledgers(nodes, NodeRole::Orderer, channel).max_by_key(|(_, ledger)| ledger.height)
        else {
            if ledgers(nodes, NodeRole::Peer, channel).next().is_some() {
                findings.push(Finding::note(
                    Rule::PeerAboveOrderer,
                    channel,
                    "no orderer of this channel is in the set, so I1 cannot be judged",
                    "make sure that the ordering service's own backup is not older than this one",
                ));
            }
            continue;
        };
        for (peer, ledger) in ledgers(nodes, NodeRole::Peer, channel) {
            if ledger.height > highest.height {
                findings.push(Finding::error(
                    Rule::PeerAboveOrderer,
                    format!("{} {channel}", peer.id),
                    format!(
                        "the peer has height {}, the highest orderer in the set ({}) has {}",
                        ledger.height, orderer.id, highest.height
                    ),
                    "capture an orderer that is up to date: a network restored so forks its chain",
                ));
            }
        }
    }
}

/// O2.
fn orderers_level(nodes: &[NodeFacts], findings: &mut Vec<Finding>) {
    for channel in channels(nodes) {
        let heights: Vec<(String, u64)> = ledgers(nodes, NodeRole::Orderer, channel)
            .map(|(node, ledger)| (node.id.to_string(), ledger.height))
            .collect();
        let (lowest, highest) = (heights.iter().map(|h| h.1).min(), heights.iter().map(|h| h.1).max());
        if lowest != highest {
            let list: Vec<String> = heights.iter().map(|(node, height)| format!("{node} {height}")).collect();
            findings.push(Finding::warning(
                Rule::OrderersLevel,
                channel,
                format!("the orderers have different heights: {}", list.join(", ")),
                "wait until they agree and capture again, or level them to the highest when restoring",
            ));
        }
    }
}

/// P9.
fn private_data(node: &NodeFacts, ledger: &LedgerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for missing in &ledger.missing_private {
        let subject = format!("{} {}", node.id, ledger.channel);
        let what = format!(
            "it lacks private data of {}: {} transactions in blocks {} to {}",
            missing.collection, missing.transactions, missing.first_block, missing.last_block
        );
        findings.push(match missing.held_elsewhere {
            Some(held) if held >= missing.transactions => Finding::note(
                Rule::PrivateData,
                subject,
                format!("{what}; other captured peers have all of it"),
                "nothing: the peer fetches it from them when both run",
            ),
            Some(held) => Finding::warning(
                Rule::PrivateData,
                subject,
                format!("{what}; other captured peers have {held} of these"),
                "let the peer run beside a member of the collection that has the rest, if there is one, and back up again; else it is lost",
            ),
            None => Finding::note(
                Rule::PrivateData,
                subject,
                format!("{what}; whether others have it was not looked for"),
                "`fabkeep backup --reread` looks",
            ),
        });
    }
    findings
}

/// I2 and P5.
fn stores_in_order(node: &NodeFacts, ledger: &LedgerFacts, derived: bool, findings: &mut Vec<Finding>) {
    let subject = format!("{} {}", node.id, ledger.channel);
    if let Some(index) = ledger.index_height.filter(|&index| index > ledger.height)
        && !node.running
    {
        findings.push(Finding::error(
            Rule::IndexNotAhead,
            &subject,
            format!("the block index has reached height {index}, the block files end at {}: blocks are missing from their end", ledger.height),
            "the block files were cut; take this node's blocks from another node or an earlier recovery point, or exclude the node (--exclude)",
        ));
    }
    if let Some(state) = ledger.state_height.filter(|&state| state > ledger.height)
        && !node.running
    {
        let what = format!("the state database has height {state}, the block store {}", ledger.height);
        let remedy = "the block files were cut, or the state comes from elsewhere: leave the derived data out";
        findings.push(if derived {
            Finding::error(Rule::StoresInOrder, &subject, what, remedy)
        } else {
            Finding::warning(Rule::StoresInOrder, &subject, what, remedy)
        });
    }
    if node.role == NodeRole::Peer
        && let Some(private) = ledger.private_height.filter(|&private| private < ledger.height)
    {
        findings.push(Finding::error(
            Rule::StoresInOrder,
            &subject,
            format!("the private-data store has height {private}, the block store {}: the next commit panics (P2)", ledger.height),
            "capture the private-data store after the block files, or take it from another peer of the organization; or exclude the node (--exclude)",
        ));
    }
}

/// I3, O5, O6.
fn raft_in_order(node: &NodeFacts, ledger: &LedgerFacts, findings: &mut Vec<Finding>) {
    let subject = format!("{} {}", node.id, ledger.channel);
    let Some(raft) = node.raft.iter().find(|raft| raft.channel == ledger.channel) else {
        if ledger.height > 1 {
            findings.push(Finding::error(
                Rule::LogPresent,
                &subject,
                "the channel has no raft or SmartBFT log in the set",
                "name the directory of ORDERER_CONSENSUS_WALDIR in the inventory, or exclude the node (--exclude)",
            ));
        }
        return;
    };
    if raft.kind != WalKind::Raft {
        return;
    }
    raft_log_reaches_chain(&subject, raft, ledger, findings);
    let have = raft.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
    if raft.first_index.is_some_and(|first| first > have + 1) {
        findings.push(Finding::error(
            Rule::RaftInOrder,
            &subject,
            format!("the raft log begins at entry {:?}, the newest snapshot file is at {have}: the entries between are lost", raft.first_index),
            "name the directory of ORDERER_CONSENSUS_SNAPDIR in the inventory, or leave the node out (--exclude)",
        ));
    }
    if let Some(snapshot) = &raft.snapshot {
        // The index may be ahead of the last block's by entries that hold no block.
        let past = match snapshot.block {
            Some(block) => block >= ledger.height,
            None => ledger.raft_index.is_some_and(|applied| snapshot.index > applied),
        };
        if past {
            findings.push(Finding::error(
                Rule::RaftInOrder,
                &subject,
                format!(
                    "the raft snapshot is at index {} (block {:?}), past the chain's last block {} (index {:?})",
                    snapshot.index,
                    snapshot.block,
                    ledger.height.saturating_sub(1),
                    ledger.raft_index
                ),
                "capture snapshots before chains; a node restored so hangs",
            ));
        }
        if raft.noted_snapshot.is_none_or(|noted| noted < snapshot.index) {
            findings.push(Finding::error(
                Rule::SnapshotNoted,
                &subject,
                format!("the raft log has no record of the snapshot at index {}", snapshot.index),
                "capture snapshots before the raft log, or exclude the node (--exclude)",
            ));
        }
    }
}

/// A log that `channel remove` leaves behind looks like a chain that was lost.
fn logs_without_chain(node: &NodeFacts, findings: &mut Vec<Finding>) {
    for raft in &node.raft {
        if !node.ledgers.iter().any(|ledger| ledger.channel == raft.channel) {
            findings.push(Finding::warning(
                Rule::LogPresent,
                format!("{} {}", node.id, raft.channel),
                "the orderer has a raft log of this channel and no block files",
                "if the channel was removed here, wipe its log and snapshots before joining again (O10); else the chain is lost: restore it",
            ));
        }
    }
}

fn raft_log_reaches_chain(subject: &str, raft: &RaftFacts, ledger: &LedgerFacts, findings: &mut Vec<Finding>) {
    let Some(applied) = ledger.raft_index else { return };
    let newest = raft.last_index.max(raft.snapshot.as_ref().map(|snapshot| snapshot.index)).unwrap_or(0);
    if newest < applied {
        findings.push(Finding::error(
            Rule::LedgerNotAheadOfLog,
            subject,
            format!("the chain's last block was raft entry {applied}, the raft log ends at {newest}"),
            "capture the raft log after the chain; restored so, blocks are lost silently",
        ));
    }
}

/// I5, P10, C5.
fn keys(node: &NodeFacts, now: i64, findings: &mut Vec<Finding>) {
    for key in &node.keys {
        let subject = format!("{} {}", node.id, key.path);
        let own = key.purpose != KeyPurpose::Trusted;
        let Some(certificate) = &key.certificate else {
            if own {
                findings.push(Finding::error(
                    Rule::EveryKey,
                    &subject,
                    format!("the {} certificate cannot be read", key.purpose),
                    "put the certificate back; the node does not start without it",
                ));
            }
            continue;
        };
        if own && key.key.is_none() {
            let rule = if key.purpose == KeyPurpose::Authority { Rule::CaKey } else { Rule::EveryKey };
            findings.push(Finding::error(
                rule,
                &subject,
                format!("the private key of {} ({}) is not in the set", certificate.common_name, key.purpose),
                "name the directory that holds the key in the inventory; a key in an HSM cannot be captured: exclude the node or back the HSM up",
            ));
        }
        let left_days = (certificate.not_after - now).div_euclid(DAY_SECONDS);
        if certificate.not_after < now {
            findings.push(Finding::warning(
                Rule::Certificates,
                &subject,
                format!("the certificate of {} expired {} days ago", certificate.common_name, -left_days),
                "renew it before the node is started again",
            ));
        } else if left_days < EXPIRY_WARNING_DAYS {
            findings.push(Finding::warning(
                Rule::Certificates,
                &subject,
                format!("the certificate of {} expires in {left_days} days", certificate.common_name),
                "renew it",
            ));
        }
    }
    if matches!(node.role, NodeRole::Peer | NodeRole::Orderer)
        && !node.keys.iter().any(|key| key.purpose == KeyPurpose::Enrolment)
    {
        findings.push(Finding::error(
            Rule::EveryKey,
            &node.id,
            "the set holds no enrolment certificate of this node",
            "name its MSP directory in the inventory (msp = \"…\"), or exclude the node (--exclude)",
        ));
    }
}

/// O7.
fn consenter_key(node: &NodeFacts, configs: &[&ChannelConfig], findings: &mut Vec<Finding>) {
    for config in configs {
        if !node.ledgers.iter().any(|ledger| ledger.channel == config.channel) || config.consenters.is_empty() {
            continue;
        }
        let bft = config.consensus_type != "etcdraft";
        let purpose = if bft { KeyPurpose::Enrolment } else { KeyPurpose::Tls };
        let mut own = node
            .keys
            .iter()
            .filter(|key| key.purpose == purpose)
            .filter_map(|key| Some(key.certificate.as_ref()?.key_sha256.as_str()))
            .peekable();
        if own.peek().is_none() {
            continue;
        }
        let known = own.any(|own| {
            config.consenters.iter().any(|consenter| {
                if bft {
                    consenter.identity_key.as_deref() == Some(own)
                } else {
                    consenter.client_tls_key == own || consenter.server_tls_key == own
                }
            })
        });
        if !known {
            findings.push(Finding::warning(
                Rule::ConsenterKey,
                format!("{} {}", node.id, config.channel),
                format!("the node's {purpose} key is none of the channel's {} consenters'", config.consenters.len()),
                "it is a follower, or its certificate was renewed with a new key: compare with the channel configuration before a restore",
            ));
        }
    }
}
