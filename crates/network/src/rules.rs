//! Judges the invariants I1 to I5 and related rules over a whole captured set.

use fabkeep_ledger::channel_config::ChannelConfig;
use fabkeep_ledger::layout::NodeRole;

use crate::Remedy;
use crate::facts::{KeyPurpose, LedgerFacts, NodeFacts, RaftFacts, WalKind};
use crate::finding::{Finding, Rule};
use crate::heights::Relation;
use crate::membership::{self, Consensus};
use crate::remedy::OrLeaveOut;

/// Days before a certificate's end at which a finding warns of it.
pub const EXPIRY_WARNING_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;

/// Judges a captured set. `now` is in seconds since 1970; `derived` says whether state, history and index are in the set.
pub fn check_set(nodes: &[NodeFacts], configs: &[&ChannelConfig], derived: bool, now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    peers_at_most_at_orderers(nodes, &mut findings);
    peers_agree(nodes, &mut findings);
    orderers_level(nodes, &mut findings);
    membership::check(nodes, configs, &mut findings);
    membership::identities(nodes, configs, &mut findings);
    membership::authorities(nodes, configs, &mut findings);
    configuration_dates(configs, now, &mut findings);
    for node in nodes {
        for ledger in &node.ledgers {
            stores_in_order(node, ledger, derived, &mut findings);
            findings.extend(private_data(node, ledger));
            findings.extend(signatures_checked(node, ledger));
            if node.role == NodeRole::Orderer {
                let config = configs.iter().find(|config| config.channel == ledger.channel).copied();
                raft_in_order(node, ledger, config, &mut findings);
            }
        }
        check_keys(node, now, &mut findings);
        if let Some(ca) = &node.ca
            && ca.whole == Some(false)
        {
            findings.push(Finding::error(
                Rule::CaDatabase,
                &node.id,
                format!("the CA's database ({}) fails its own integrity check", ca.database),
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
        let private = ledgers(nodes, NodeRole::Peer, channel).filter_map(|(_, ledger)| ledger.private_height).max();
        if let Some(private) = private.filter(|private| *private < highest.height) {
            findings.push(Finding::note(
                Rule::PrivateData,
                channel,
                format!(
                    "blocks {private} to {} are in the set from orderers only: private data of their transactions is in no peer's store that was captured",
                    highest.height - 1
                ),
                Remedy::from("no action is needed if the channel has no private data (else it is lost when everything is restored together)")
                    .or(Remedy::CaptureAtCut)
                    .or(Remedy::CaptureInWindow),
            ));
        }
        for (peer, ledger) in ledgers(nodes, NodeRole::Peer, channel) {
            if ledger.height > highest.height {
                findings.push(Finding::error(
                    Rule::PeerAboveOrderer,
                    format!("{} {channel}", peer.id),
                    format!(
                        "the peer has height {}, the highest orderer in the set ({}) has {}",
                        ledger.height, orderer.id, highest.height
                    ),
                    "capture an orderer that is up to date: if this set is restored, the chain forks",
                ));
            }
        }
    }
}

/// I4: at one height there is one world state.
fn peers_agree(nodes: &[NodeFacts], findings: &mut Vec<Finding>) {
    for channel in channels(nodes) {
        let mut known: Vec<(&NodeFacts, &LedgerFacts)> = Vec::new();
        for (peer, ledger) in ledgers(nodes, NodeRole::Peer, channel) {
            let Some(hash) = &ledger.commit_hash else { continue };
            match known.iter().find(|(_, other)| other.height == ledger.height) {
                Some((other, same)) if same.tip_hash == ledger.tip_hash && same.commit_hash.as_ref() != Some(hash) => {
                    findings.push(Finding::error(
                        Rule::OneChain,
                        format!("{} {channel}", peer.id),
                        format!(
                            "at height {} its commit hash is {hash}, {} has a different one",
                            ledger.height, other.id
                        ),
                        Remedy::wrong_one_of(
                            "one of the two peers computed a wrong world state: compare both with a third peer",
                        ),
                    ));
                }
                Some(_) => {}
                None => known.push((peer, ledger)),
            }
        }
    }
}

/// B2: what was not checked is not called signed.
fn signatures_checked(node: &NodeFacts, ledger: &LedgerFacts) -> Option<Finding> {
    (ledger.unchecked_signatures > 0).then(|| {
        Finding::warning(
            Rule::BlockSigned,
            format!("{} {}", node.id, ledger.channel),
            format!(
                "the signatures of {} blocks, from block {} on, are not proven: the chain begins after a snapshot, and no configuration block is known against which they can be checked",
                ledger.unchecked_signatures, ledger.first_block
            ),
            "add a node that has all blocks of the channel; or update the channel's configuration once, so that later blocks can be checked",
        )
    })
}

/// P10, of the certificates that a channel's configuration holds.
fn configuration_dates(configs: &[&ChannelConfig], now: i64, findings: &mut Vec<Finding>) {
    for config in configs {
        for known in &config.certificates {
            let certificate = &known.certificate;
            let left_days = (certificate.not_after - now).div_euclid(DAY_SECONDS);
            if left_days >= EXPIRY_WARNING_DAYS {
                continue;
            }
            let verb = if certificate.not_after < now { "expired" } else { "expires" };
            findings.push(Finding::warning(
                Rule::Certificates,
                format!("{} configuration", config.channel),
                format!(
                    "{}: the {} {} {verb} on {}",
                    known.owner,
                    known.usage,
                    certificate.common_name,
                    date(certificate.not_after)
                ),
                "renew it, and update the channel's configuration with the new one while the old one is valid; renew that of a consenter with its existing key (O7)",
            ));
        }
    }
}

/// Returns a moment in seconds since 1970 as `2036-11-21`, in UTC.
fn date(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(moment) => moment.strftime("%Y-%m-%d").to_string(),
        Err(_) => format!("second {seconds} since 1970"),
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
                "wait until they are equal and capture again; a restore can bring them to the highest",
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
                "no action is needed: the peer fetches it from them when both run",
            ),
            Some(held) => Finding::warning(
                Rule::PrivateData,
                subject,
                format!("{what}; other captured peers have {held} of these"),
                "run the peer together with a member of the collection that has the rest, if there is one, and back up again; otherwise the data is lost",
            ),
            None => Finding::note(
                Rule::PrivateData,
                subject,
                format!("{what}; it was not checked whether other peers have it"),
                Remedy::ReadAgain,
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
            OrLeaveOut("the block files were truncated; take this node's blocks from another node or an earlier recovery point"),
        ));
    }
    let stores = [("state", ledger.state_height), ("history", ledger.history_height)];
    for (store, height) in stores.into_iter().filter(|_| !node.running) {
        let Some(height) = height.filter(|&height| height > ledger.height) else { continue };
        let what = format!("the {store} database has height {height}, the block store {}", ledger.height);
        let remedy = Remedy::from(format!(
            "find out whether the block files were truncated, or the {store} belongs to other blocks"
        ))
        .and(Remedy::WithoutDerived);
        findings.push(if derived {
            Finding::error(Rule::StoresInOrder, &subject, what, remedy)
        } else {
            Finding::warning(Rule::StoresInOrder, &subject, what, remedy)
        });
    }
    if node.role == NodeRole::Peer && ledger.private_height.is_none_or(|private| private < ledger.height) {
        let has = ledger
            .private_height
            .map_or("does not contain the channel".to_owned(), |height| format!("has height {height}"));
        findings.push(Finding::error(
            Rule::StoresInOrder,
            &subject,
            format!("the private-data store {has}, the block store has height {}: the next commit panics (P2)", ledger.height),
            OrLeaveOut("capture the private-data store after the block files, or take it from another peer of the organization"),
        ));
    }
}

/// I3, O5, O6: of consenters. A follower's chain grows by replication, its raft log does not.
fn raft_in_order(node: &NodeFacts, ledger: &LedgerFacts, config: Option<&ChannelConfig>, findings: &mut Vec<Finding>) {
    let subject = format!("{} {}", node.id, ledger.channel);
    let kind = config.map(|config| Consensus::of(&config.consensus_type));
    if matches!(kind, Some(Consensus::Kafka | Consensus::Solo | Consensus::Other)) {
        return;
    }
    let follows = config.is_some_and(|config| membership::relation(node, config) == Relation::Follower);
    let Some(raft) = node.raft.iter().find(|raft| raft.channel == ledger.channel && raft.files > 0) else {
        if ledger.height > 1 && !follows {
            findings.push(Finding::error(
                Rule::LogPresent,
                &subject,
                "the channel has no raft or SmartBFT log in the set",
                OrLeaveOut("name the directory of ORDERER_CONSENSUS_WALDIR in the inventory"),
            ));
        }
        return;
    };
    let of_channel = match kind {
        Some(Consensus::Raft) => Some(WalKind::Raft),
        Some(Consensus::Bft) => Some(WalKind::SmartBft),
        _ => None,
    };
    if of_channel.is_some_and(|kind| kind != raft.kind) && !follows {
        let (has, needs) = if raft.kind == WalKind::Raft { ("raft", "SmartBFT") } else { ("SmartBFT", "raft") };
        findings.push(Finding::error(
            Rule::RaftLogWhole,
            &subject,
            format!("its consensus log is a {has} log, but the channel is ordered by {needs}"),
            OrLeaveOut(
                "take the orderer's ledger and raft directories from another orderer or an earlier recovery point",
            ),
        ));
    }
    if let (WalKind::SmartBft, Some(config), false) = (raft.kind, config, follows) {
        smartbft_log(node, ledger, raft, config, findings);
    }
    if raft.kind != WalKind::Raft || follows {
        return;
    }
    raft_log_reaches_chain(&subject, raft, ledger, findings);
    let have = raft.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
    if raft.first_index.is_some_and(|first| first > have + 1) {
        findings.push(Finding::error(
            Rule::RaftInOrder,
            &subject,
            format!("the raft log begins at entry {:?}, the newest snapshot file is at {have}: the entries between are lost", raft.first_index),
            OrLeaveOut("name the directory of ORDERER_CONSENSUS_SNAPDIR in the inventory"),
        ));
    }
    if let Some(noted) = raft.noted_snapshot.filter(|&noted| noted > have)
        && raft.first_index.is_some_and(|first| first <= have + 1)
    {
        findings.push(Finding::warning(
            Rule::RaftInOrder,
            &subject,
            format!("the raft log records a snapshot at index {noted}, but there is no such file: the orderer replays its log from entry {}", have + 1),
            "name the directory of ORDERER_CONSENSUS_SNAPDIR in the inventory, if it is another one",
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
                "capture snapshots before chains; a node restored from this set hangs",
            ));
        }
        if raft.noted_snapshot.is_none_or(|noted| noted < snapshot.index) {
            findings.push(Finding::error(
                Rule::SnapshotNoted,
                &subject,
                format!("the raft log has no record of the snapshot at index {}", snapshot.index),
                OrLeaveOut("capture snapshots before the raft log"),
            ));
            return;
        }
    }
    let newest = raft.snapshot.as_ref().map_or((0, 0), |snapshot| (snapshot.term, snapshot.index));
    let whole = raft.first_index.is_none_or(|first| first <= have + 1);
    if whole && raft.opens_at.as_ref().is_some_and(|opens_at| !opens_at.contains(&newest)) {
        let from = match newest {
            (_, 0) => "its beginning".to_owned(),
            (term, index) => format!("the newest snapshot (term {term}, index {index})"),
        };
        findings.push(Finding::error(
            Rule::SnapshotNoted,
            &subject,
            format!(
                "the raft log cannot be opened at {from}: the files that begin there by their names do not have it, and the orderer does not start"
            ),
            OrLeaveOut("a log file's name contains the index of its first entry: give the files their own names, take the orderer's ledger and raft directories from another orderer or an earlier recovery point"),
        ));
    }
}

/// A SmartBFT log is its writer's own, and not newer than the chain.
fn smartbft_log(
    node: &NodeFacts,
    ledger: &LedgerFacts,
    raft: &RaftFacts,
    config: &ChannelConfig,
    findings: &mut Vec<Finding>,
) {
    let subject = format!("{} {}", node.id, ledger.channel);
    if let Some(proposed) = raft.proposed.filter(|&proposed| proposed > ledger.height) {
        findings.push(Finding::error(
            Rule::RaftInOrder,
            &subject,
            format!(
                "the SmartBFT log proposes block {proposed}, the chain has height {}: the orderer panics when it starts",
                ledger.height
            ),
            OrLeaveOut("capture the log before the chain"),
        ));
    }
    let writer = raft.signer.and_then(|signer| {
        let of_signer =
            |consenter: &&fabkeep_ledger::channel_config::Consenter| consenter.id.map(u64::from) == Some(signer);
        config.consenters.iter().find(of_signer)
    });
    let Some(key) = writer.and_then(|writer| writer.identity_key.as_deref()) else { return };
    let own = node.keys.iter().filter(|known| known.purpose == KeyPurpose::Enrolment);
    let mut own = own.filter_map(|known| known.certificate.as_ref()).peekable();
    if let (true, Some(writer)) = (own.peek().is_some() && own.all(|certificate| certificate.key_sha256 != key), writer)
    {
        findings.push(Finding::error(
            Rule::ConsenterKey,
            &subject,
            format!("the SmartBFT log was written by another consenter ({}:{})", writer.host, writer.port),
            OrLeaveOut("take the orderer's own log from an earlier recovery point, or remove it while all orderers of the channel are restored together"),
        ));
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
            "capture the raft log after the chain; a node restored from this set loses blocks without a message",
        ));
    }
}

/// Checks a node's certificates and keys by what is known of them (I5, P10, C5). `now`: seconds since 1970.
pub fn check_keys(node: &NodeFacts, now: i64, findings: &mut Vec<Finding>) {
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
                OrLeaveOut("name the directory that holds the key in the inventory; back up an HSM that holds it by its own means"),
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
            "the set contains no enrolment certificate of this node",
            OrLeaveOut("name its MSP directory in the inventory (msp = \"…\")"),
        ));
    }
}
