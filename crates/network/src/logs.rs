//! Classifies log lines: known messages of peers and orderers with their rule and remedy, and the number of other errors.

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Rule, Severity};

/// Longest line that is reported, in characters.
const MAX_REPORTED: usize = 300;
/// How far into a line its level is looked for, in bytes.
const HEAD_BYTES: usize = 160;

/// How loud a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Below a warning.
    Quiet,
    /// A warning.
    Warning,
    /// An error.
    Error,
    /// A panic or fatal error: the process ends.
    Panic,
}

struct LogPattern {
    rule: Rule,
    severity: Severity,
    /// All of these are in the line.
    words: &'static [&'static str],
    remedy: &'static str,
}

const fn known(rule: Rule, severity: Severity, words: &'static [&'static str], remedy: &'static str) -> LogPattern {
    LogPattern { rule, severity, words, remedy }
}

/// Messages of Fabric's nodes that show which rule is broken.
const KNOWN: &[LogPattern] = &[
    known(
        Rule::StoresInOrder,
        Severity::Error,
        &["is ahead of the block store"],
        "state and blocks do not belong together: stop the peer, remove stateLeveldb, historyLeveldb, configHistory and bookkeeper together (or the CouchDB's data), and start it: it replays its blocks",
    ),
    known(
        Rule::StoresInOrder,
        Severity::Error,
        &["expected block number=", "received block number="],
        "the private-data store is behind the block store (P2): restore it together with the blocks, or take it from another peer of the organization",
    ),
    known(
        Rule::StoresInOrder,
        Severity::Error,
        &["hash of pvt data", "does not match"],
        "the private-data store contains data of another chain, as after a rollback: restore the whole peer",
    ),
    known(
        Rule::PeerAboveOrderer,
        Severity::Error,
        &["unexpected Previous block hash"],
        "the chain forked: this peer was above the ordering service when that was restored; restore the peer at the orderers' height",
    ),
    known(
        Rule::IndexNotAhead,
        Severity::Error,
        &["bufio: negative count"],
        "the block index is ahead of the block files: stop the node, remove the index directory and start the node, which rebuilds it",
    ),
    known(
        Rule::OrderersLevel,
        Severity::Error,
        &["need non-empty snapshot"],
        "the orderers were restored at different heights: stop all of them and level them to the highest",
    ),
    known(
        Rule::LogPresent,
        Severity::Error,
        &["tocommit(", "is out of range"],
        "an orderer was restored with fewer entries than the leader knows: restart all OTHER orderers, then start this one",
    ),
    known(
        Rule::LogPresent,
        Severity::Warning,
        &["No Raft leader"],
        "make sure that a majority of the channel's consenters runs, can connect to each other and has its raft logs",
    ),
    known(
        Rule::SnapshotNoted,
        Severity::Error,
        &["wal: snapshot not found"],
        "the raft log has no record of its snapshot: restore log and snapshots from one moment",
    ),
    known(
        Rule::RaftLogWhole,
        Severity::Error,
        &["wal: crc mismatch"],
        "the raft log is damaged: restore the orderer's ledger and raft directories from another orderer",
    ),
    known(
        Rule::LogsClean,
        Severity::Error,
        &["file already locked"],
        "another process has the raft log open (O9): wait until the old process or pod has ended",
    ),
    known(
        Rule::LogsClean,
        Severity::Error,
        &["lock is already acquired"],
        "another process has the ledger open: wait until the old process or pod has ended",
    ),
    known(
        Rule::TransientStore,
        Severity::Warning,
        &["private data matching public hash version is not available"],
        "private data is missing and no member sent it (P9): check whether another member of the collection has it",
    ),
    known(
        Rule::Certificates,
        Severity::Error,
        &["certificate has expired"],
        "renew the certificate; that of a consenter with its existing key (O7)",
    ),
    known(
        Rule::Certificates,
        Severity::Warning,
        &["certificate signed by unknown authority"],
        "the nodes do not trust each other's CAs: compare the TLS CA certificates with the channel configuration",
    ),
    known(
        Rule::Certificates,
        Severity::Warning,
        &["tls: bad certificate"],
        "the other node refuses this node's TLS certificate: compare it with the channel configuration (O7)",
    ),
    known(
        Rule::ReadyPerChannel,
        Severity::Error,
        &["Failed to load ledger"],
        "the peer runs without this channel: earlier lines of its log say why the ledger did not open",
    ),
    known(
        Rule::ReadyPerChannel,
        Severity::Error,
        &["Error opening ledger"],
        "the peer runs without this channel: earlier lines of its log say why the ledger did not open",
    ),
    known(
        Rule::LogsClean,
        Severity::Error,
        &["Cannot commit block"],
        "the peer cannot commit the blocks that it receives: the message says why; compare header hashes with other peers",
    ),
];

/// One kind of message in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMessage {
    /// Which rule it speaks of.
    pub rule: Rule,
    /// How bad it is.
    pub severity: Severity,
    /// How often it came.
    pub count: u64,
    /// The newest line, shortened.
    pub line: String,
    /// What to do.
    pub remedy: String,
}

impl LogMessage {
    /// As a finding about a node.
    pub fn finding(&self, node: impl ToString) -> Finding {
        let often = if self.count == 1 { String::new() } else { format!(" ({} times)", self.count) };
        Finding {
            rule: self.rule,
            severity: self.severity,
            subject: node.to_string(),
            what: format!("its log says{often}: {}", self.line),
            remedy: self.remedy.as_str().into(),
        }
    }
}

/// Reads a log: known messages, panics, and other errors as one kind. `since`: lines with an older time of their own are passed over.
pub fn classify(log: &str, since: &str) -> Vec<LogMessage> {
    let mut out: Vec<LogMessage> = Vec::new();
    let mut note = |rule: Rule, severity: Severity, line: &str, remedy: &str| {
        let line: String = line.chars().take(MAX_REPORTED).collect();
        match out.iter_mut().find(|message| message.rule == rule && message.remedy == remedy) {
            Some(message) => {
                message.count += 1;
                message.line = line;
            }
            None => out.push(LogMessage { rule, severity, count: 1, line, remedy: remedy.to_owned() }),
        }
    };
    for raw in log.lines() {
        let line = plain(raw);
        if is_older(&line, since) {
            continue;
        }
        let level = level(&line);
        if let Some(known) = KNOWN.iter().find(|known| known.words.iter().all(|word| line.contains(word))) {
            note(known.rule, known.severity, &line, known.remedy);
        } else if level == LogLevel::Panic {
            note(
                Rule::LogsClean,
                Severity::Error,
                &line,
                "the process ended: read the surrounding log lines; restore the node if its data is damaged",
            );
        } else if level == LogLevel::Error {
            note(Rule::LogsClean, Severity::Note, &line, "read the node's log");
        }
    }
    out.sort_by_key(|message| std::cmp::Reverse(message.severity));
    out
}

/// Returns a line without terminal colours.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, behind)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = behind.split_once('m').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    out
}

/// Returns whether a line begins with a time before `since`; both as `2026-11-24 15:04:05` or with a T between.
fn is_older(line: &str, since: &str) -> bool {
    let time = |text: &str| -> Option<String> {
        let head = text.get(..19)?;
        let shape = head.bytes().enumerate().all(|(i, byte)| match i {
            4 | 7 => byte == b'-',
            10 => byte == b' ' || byte == b'T',
            13 | 16 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
        shape.then(|| head.replace('T', " "))
    };
    matches!((time(line), time(since)), (Some(line), Some(since)) if line < since)
}

/// Returns a line's level, in the forms that Fabric's logging writes.
pub fn level(line: &str) -> LogLevel {
    let mut end = line.len().min(HEAD_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let head = &line[..end];
    if head.starts_with("panic:") || head.starts_with("fatal error:") {
        return LogLevel::Panic;
    }
    let word = |wanted: &[&str]| {
        head.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| wanted.contains(&word))
            || wanted.iter().any(|name| head.contains(&format!("\"level\":\"{}\"", name.to_ascii_lowercase())))
    };
    let first = head.split_whitespace().next().unwrap_or_default();
    if word(&["PANI", "PANIC", "FATA", "FATAL"]) || matches!(first, "panic" | "fatal") {
        LogLevel::Panic
    } else if word(&["ERRO", "ERROR"]) || first == "error" {
        LogLevel::Error
    } else if word(&["WARN", "WARNING"]) || first == "warn" {
        LogLevel::Warning
    } else {
        LogLevel::Quiet
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_every_form_that_fabric_writes_are_classified() {
        assert_eq!(
            level("2026-11-24 15:00:00.000 UTC 0001 INFO [gossip] func -> ERROR is only a word far behind? no"),
            LogLevel::Error
        );
        assert_eq!(level("\"level\":\"error\",\"msg\":\"x\""), LogLevel::Error);
        assert_eq!(level("panic: runtime error: index out of range"), LogLevel::Panic);
        assert_eq!(
            level("2026-11-24 15:00:00.000 UTC 0a1f PANI [gossip.state] commitBlock -> Cannot commit"),
            LogLevel::Panic
        );
        assert_eq!(level("info [kvledger] Opened ledger"), LogLevel::Quiet);
        let coloured = "\u{1b}[34m2026-11-24 15:00:01.000 UTC [kvledger] x -> ERRO 00a\u{1b}[0m some problem";
        let found = classify(coloured, "");
        assert_eq!((found.len(), found[0].severity, found[0].rule), (1, Severity::Note, Rule::LogsClean));
        assert!(!found[0].line.contains('\u{1b}'));
    }

    #[test]
    fn known_messages_name_their_rule_and_old_lines_are_passed_over() {
        let log = "2026-11-24 14:00:00.000 UTC 1 PANI [x] old panic\n\
                   2026-11-24 15:00:02.000 UTC 2 ERRO [kvledger] recover -> the state database [height=27] is ahead of the block store [height=20]\n\
                   2026-11-24 15:00:03.000 UTC 3 PANI [gossip.state] commitBlock -> Cannot commit block to the ledger due to unexpected Previous block hash\n\
                   2026-11-24 15:00:04.000 UTC 4 ERRO [grpc] one\n2026-11-24 15:00:05.000 UTC 5 ERRO [grpc] two\n";
        let found = classify(log, "2026-11-24T15:00:00Z");
        let rules: Vec<&str> = found.iter().map(|message| message.rule.code()).collect();
        assert_eq!(rules, ["I2", "I1", "L1"]);
        assert_eq!((found[2].count, found[2].severity), (2, Severity::Note));
        assert!(found[2].finding("Org1/peer0").what.contains("(2 times)"));
        assert!(found.iter().all(|message| !message.line.contains("old panic")));
    }
}
