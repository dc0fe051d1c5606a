//! Judges what was listed: names, links and metadata that a recovery point cannot hold.

use fabkeep_ledger::layout::{Class, NodeRole, Place};
use fabkeep_network::{Finding, OrLeaveOut, Rule, Severity};
use fabkeep_platform::{EntryKind, VolumeEntry};

use super::survey::PlannedNode;

/// What of files' metadata is not captured: hard links, extended attributes, special permission bits.
fn check_metadata(node: &PlannedNode, entries: &[(VolumeEntry, Place)], findings: &mut Vec<Finding>) {
    let kept: Vec<&VolumeEntry> = entries
        .iter()
        .filter(|(entry, place)| {
            place.class == Class::Authoritative && matches!(entry.kind, EntryKind::File | EntryKind::Directory)
        })
        .map(|(entry, _)| entry)
        .collect();
    let mut report = |lost: &dyn Fn(&VolumeEntry) -> bool, severity, what: &str, remedy: &str| {
        let found: Vec<&VolumeEntry> = kept.iter().copied().filter(|entry| lost(entry)).collect();
        let Some(first) = found.first() else { return };
        let more = if found.len() > 1 { format!(" (and {} more)", found.len() - 1) } else { String::new() };
        let subject = format!("{} {}{more}", node.node.id, first.path);
        findings.push(Finding { severity, ..Finding::warning(Rule::FileReadable, subject, what, remedy) });
    };
    report(
        &|entry| entry.kind == EntryKind::File && entry.links > 1,
        Severity::Note,
        "the file has another name (a hard link): it is captured under each name as a file of its own",
        "no action is needed if the two names may be different files after a restore",
    );
    report(
        &|entry| entry.attributes,
        Severity::Warning,
        "it has extended attributes or an access control list, which are not captured: a restore restores only mode and owner",
        "write down what is set (getfacl, getfattr) and set it again after a restore, or grant the node's rights by owner and mode",
    );
    report(
        &|entry| entry.mode & !super::files::kept_bits(&entry.kind) != 0,
        Severity::Warning,
        "its set-user-id, set-group-id or sticky bit is not captured",
        "no action is needed for Fabric's nodes; set it again after a restore if something else needs it",
    );
}

/// Links among ordinary files that lead out of them, such as those of enabled services on another machine's disk: what they lead to is no
/// part of a node.
pub(super) fn leave_out_links(
    node: &PlannedNode,
    entries: &mut Vec<(VolumeEntry, Place)>,
    findings: &mut Vec<Finding>,
) {
    if node.node.role != NodeRole::Files {
        return;
    }
    entries.retain(|(entry, _)| {
        let EntryKind::Symlink(target) = &entry.kind else { return true };
        if !leaves(&entry.path, target) {
            return true;
        }
        findings.push(Finding::warning(
            Rule::Contained,
            format!("{} {}", node.node.id, entry.path),
            format!("it links to {target}, outside of the directory: the link is not captured"),
            "no action is needed if no node uses it; otherwise name the directory that it points to in the inventory",
        ));
        false
    });
}

/// What of the listed entries a recovery point cannot hold, or holds in another way.
pub(super) fn check_entries(node: &PlannedNode, entries: &[(VolumeEntry, Place)], findings: &mut Vec<Finding>) {
    for (entry, _) in entries.iter().filter(|(_, place)| place.class == Class::Authoritative) {
        let subject = || format!("{} {}", node.node.id, entry.path);
        match &entry.kind {
            EntryKind::Special if entry.path.ends_with("lost+found") => findings.push(Finding::note(
                Rule::FileReadable,
                subject(),
                "the file system's own lost+found cannot be read and is not captured",
                "no action is needed: no node uses it",
            )),
            EntryKind::Special => findings.push(Finding::warning(
                Rule::FileReadable,
                subject(),
                "it is a socket, pipe or device and is not captured",
                "no action is needed if the node creates it when it starts",
            )),
            EntryKind::Unnamed => findings.push(Finding::error(
                Rule::FileReadable,
                subject(),
                "its name, or what it links to, is not UTF-8 or contains a line break: it cannot be captured",
                OrLeaveOut("rename or remove it"),
            )),
            EntryKind::Symlink(target) if leaves(&entry.path, target) => findings.push(Finding::error(
                Rule::Contained,
                subject(),
                format!("it links to {target}, outside of the node's directory"),
                OrLeaveOut("name the directory that it points to in the inventory and replace the link with the file"),
            )),
            _ => {}
        }
    }
    check_metadata(node, entries, findings);
}

/// Returns whether a link at `path` with this target leaves the directory that `path` is relative to.
pub(crate) fn leaves(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return true;
    }
    let mut depth = path.split('/').count() as i64 - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}
