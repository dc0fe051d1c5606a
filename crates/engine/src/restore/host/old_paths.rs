//! Finds absolute paths in the configuration files of a copy (`--to`) that point to the captured place: a node started with them would use,
//! and write to, the original data.

use std::path::{Path, PathBuf};

use fabkeep_network::{Finding, Rule};
use fabkeep_store::PointReader;

use super::plan::{Plan, PlannedDirectory};
use crate::EngineError;
use crate::content::Contents;
use crate::point::{CapturedEntry, EntryContent, RecoveryPoint};

/// Largest file that is looked into, in bytes.
const MAX_BYTES: u64 = 256 << 10;
/// Most lines named of one file.
const MAX_LINES: usize = 10;
/// Ends of names of files that hold settings.
const SETTINGS: [&str; 8] = [".yaml", ".yml", ".env", ".sh", ".service", ".conf", ".json", ".toml"];

/// Reports the lines to change, file by file.
pub(super) fn check(plan: &mut Plan<'_>, point: &RecoveryPoint, reader: &PointReader<'_>) -> Result<(), EngineError> {
    let contents = Contents::new(reader, point);
    let mut moved: Vec<(String, PathBuf)> = plan
        .directories
        .iter()
        .map(|planned| {
            let known = &point.nodes[planned.node].directories[planned.directory].directory;
            (known.path.clone(), planned.staging.place.clone())
        })
        .filter(|(from, to)| Path::new(from).is_absolute() && Path::new(from) != to.as_path())
        .collect();
    // The longest first: an inner directory has a place of its own.
    moved.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
    let mut findings = Vec::new();
    for planned in &plan.directories {
        let captured = &point.nodes[planned.node].directories[planned.directory];
        for entry in captured.entries.iter().filter(|entry| holds_settings(entry)) {
            let bytes = contents.whole(entry)?;
            let Ok(text) = std::str::from_utf8(&bytes) else { continue };
            findings.extend(lines_to_change(planned, entry, text, &moved));
        }
    }
    plan.findings.extend(findings);
    Ok(())
}

fn holds_settings(entry: &CapturedEntry) -> bool {
    let EntryContent::File { size, .. } = &entry.content else { return false };
    *size <= MAX_BYTES && SETTINGS.iter().any(|end| entry.path.ends_with(end))
}

fn lines_to_change(
    planned: &PlannedDirectory,
    entry: &CapturedEntry,
    text: &str,
    moved: &[(String, PathBuf)],
) -> Option<Finding> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        let found = moved.iter().find_map(|(from, to)| leads_to(line, from).map(|at| (from, to, at)));
        if let Some((from, to, at)) = found {
            let rest: String = line[at + from.len()..].chars().take_while(|c| is_of_path(*c)).collect();
            lines.push(format!("line {}: {from}{rest} is {}{rest} here", number + 1, to.display()));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let more = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    let more = if more > 0 { format!("; and {more} more lines") } else { String::new() };
    Some(Finding::warning(
        Rule::Contained,
        format!("{} {}", planned.id, planned.staging.placed(&entry.path).display()),
        format!(
            "it names paths of the captured place, and a node that is started with it uses the original data: {}{more}",
            lines.join("; ")
        ),
        "change these lines before the copy is started",
    ))
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_')
}

/// Where a line names a path or something below it.
fn leads_to(line: &str, path: &str) -> Option<usize> {
    line.match_indices(path).map(|(at, _)| at).find(|&at| {
        let before = line[..at].chars().next_back().is_none_or(|c| !is_of_path(c));
        let after = line[at + path.len()..].chars().next().is_none_or(|c| c == '/' || !is_of_path(c));
        before && after
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_as_a_whole() {
        assert_eq!(leads_to("fileSystemPath: /srv/net/peer0/production", "/srv/net/peer0/production"), Some(16));
        assert_eq!(leads_to("  - /srv/p:/var/x", "/srv/p"), Some(4));
        assert_eq!(leads_to("dir: \"/srv/p/snapshots\"", "/srv/p"), Some(6));
        assert_eq!(leads_to("dir: /srv/p2", "/srv/p"), None);
        assert_eq!(leads_to("dir: /mnt/srv/p", "/srv/p"), None);
    }
}
