//! `fabkeep show`: prints a recovery point.

use std::collections::{BTreeMap, BTreeSet};

use std::path::{Path, PathBuf};

use fabkeep_engine::{
    CapturedDirectory, CapturedNode, EntryContent, RecoveryPoint, UsedName, WindowReport, blocks, genesis_blocks, names,
};
use fabkeep_network::KeyPurpose;
use fabkeep_platform::SnapshotReport;
use fabkeep_store::{Commit, IdentityFile, Repository};
use serde_json::json;

use super::{key_files, list};
use crate::arguments::Show;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Show, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let (commit, findings) = list::point(&repository, &arguments.point)?;
    output.remarks(&findings);
    let Some(identity) = key_files::identity_if_any(&repository, &arguments.identity)? else {
        output.json(&json!({"commit": commit}));
        print_commit(&commit, output);
        output.line("  (nodes, keys and findings are encrypted: name the identity to see them, --identity FILE)");
        return Ok(Code::Done);
    };
    if let Some(channel) = &arguments.blocks {
        return print_blocks(&repository, &commit, &identity, channel, output);
    }
    let (point, _) = repository.read_point::<RecoveryPoint>(&commit, &identity)?;
    let names = if arguments.names { Some(names(&repository, &commit, &identity)?) } else { None };
    let genesis = match &arguments.genesis {
        Some(folder) => write_genesis(&genesis_blocks(&repository, &commit, &identity)?, folder)?,
        None => Vec::new(),
    };
    if output.is_json() {
        let mut value = json!({"commit": commit, "point": json_point(&point, arguments.files)});
        if let Some(names) = &names {
            value["names"] = json!(names);
        }
        if arguments.genesis.is_some() {
            value["genesis"] = json!(genesis);
        }
        output.json(&value);
        return Ok(Code::Done);
    }
    print_commit(&commit, output);
    print_point(&point, output);
    if arguments.files {
        print_files(&point, output);
    }
    if let Some(names) = &names {
        print_names(names, !point.objects.is_empty(), output);
    }
    for path in genesis {
        output.line(format!("genesis block: {}", path.display()));
    }
    Ok(Code::Done)
}

/// Returns a channel's blocks: a line each, as they are read; for programs one document a line.
fn print_blocks(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    channel: &str,
    output: &Output,
) -> Result<Code, CliError> {
    output.line(format!("{:>10}  {:<30}  {:>12}  {:>10}", "BLOCK", "LAST TRANSACTION", "TRANSACTIONS", "BYTES"));
    blocks::<CliError>(repository, commit, identity, channel, &mut |block| {
        output.json_line(&block);
        output.line(format!(
            "{:>10}  {:<30}  {:>12}  {:>10}{}",
            block.number,
            block.last.map(|time| time.to_string()).unwrap_or_default(),
            block.transactions,
            units::bytes(block.bytes),
            if block.configuration { "  configuration" } else { "" }
        ));
        Ok(())
    })?;
    Ok(Code::Done)
}

/// Writes genesis blocks: `CHANNEL.block`. What is there is not overwritten with something else.
fn write_genesis(blocks: &[(String, Vec<u8>)], folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    std::fs::create_dir_all(folder).map_err(CliError::io(folder))?;
    let mut out = Vec::new();
    for (channel, block) in blocks {
        if channel.contains(['/', '\\']) || channel.starts_with('.') {
            return Err(CliError::new(
                Code::Damaged,
                format!("{channel:?} is not a valid name of a channel"),
                "fabkeep verify",
            ));
        }
        let path = folder.join(format!("{channel}.block"));
        match std::fs::read(&path) {
            Ok(there) if there == *block => {}
            Ok(_) => {
                return Err(CliError::new(
                    Code::Refused,
                    format!("{} exists and is a different block", path.display()),
                    "name another directory (--genesis DIR)",
                ));
            }
            Err(_) => std::fs::write(&path, block).map_err(CliError::io(&path))?,
        }
        out.push(path);
    }
    Ok(out)
}

/// Returns the manifest without the lists that only a restore needs.
fn json_point(point: &RecoveryPoint, files: bool) -> serde_json::Value {
    let nodes: Vec<serde_json::Value> = point
        .nodes
        .iter()
        .map(|node| {
            let directories: Vec<serde_json::Value> = node
                .directories
                .iter()
                .map(|directory| {
                    let listed: Vec<serde_json::Value> = directory
                        .entries
                        .iter()
                        .filter(|_| files)
                        .map(|entry| json!({"path": entry.path, "mode": entry.mode, "size": entry.size()}))
                        .collect();
                    let mut value = json!({"directory": directory.directory, "omitted": directory.omitted});
                    if files {
                        value["entries"] = json!(listed);
                    }
                    value
                })
                .collect();
            json!({"facts": node.facts, "bytes": node_bytes(node), "directories": directories})
        })
        .collect();
    let channels: Vec<serde_json::Value> = point
        .channels
        .iter()
        .map(|channel| {
            json!({
                "name": channel.name, "first_block": channel.first_block, "height": channel.height,
                "tip_hash": channel.tip_hash, "donor": channel.donor, "segments": channel.segments.len(),
                "config": channel.config, "config_block": channel.config_block,
            })
        })
        .collect();
    json!({
        "fabkeep": point.fabkeep, "network": point.network, "created": point.created, "derived": point.derived,
        "excluded": point.excluded, "without_logs": point.without_logs, "channels": channels, "nodes": nodes, "findings": point.findings, "window": point.window, "snapshots": point.snapshots,
        "objects": point.objects.iter().map(|object| json!({"namespace": object.namespace, "kind": object.kind, "name": object.name})).collect::<Vec<_>>(),
    })
}

fn node_bytes(node: &CapturedNode) -> u64 {
    node.directories.iter().map(CapturedDirectory::data_bytes).sum()
}

fn print_commit(commit: &Commit, output: &Output) {
    output.line(format!("recovery point {}: {}", commit.id, commit.summary.verdict));
    output.line(format!(
        "  network {}, captured {}, committed {}",
        commit.summary.network, commit.created, commit.committed
    ));
    output.line(format!(
        "  {} of files; this point added {} in {}",
        units::bytes(commit.summary.source_bytes),
        units::bytes(commit.new_bytes),
        units::objects(commit.new_objects)
    ));
}

/// The no-transaction window of a capture.
pub fn print_window(window: &WindowReport, output: &Output) {
    output.line(format!(
        "  no-transaction window: {}, heights equal after {}{}",
        units::seconds(window.seconds),
        units::seconds(window.level_after_seconds),
        if window.passes > 1 { format!("; extended, {} passes", window.passes) } else { String::new() }
    ));
    let after = if window.stays_closed { "stayed so after the capture" } else { "undone" };
    window.changes.iter().for_each(|change| output.line(format!("    {change}: {after}")));
}

/// The snapshots that the volumes were read from.
pub fn print_snapshots(snapshots: &SnapshotReport, output: &Output) {
    let groups = snapshots.sets.iter().filter(|set| set.grouped).count();
    let grouped = match groups {
        0 => String::new(),
        1 => ", in one group".to_owned(),
        more => format!(", in {more} groups"),
    };
    output.line(format!(
        "  volumes: {} snapshots{grouped}, taken in {}",
        snapshots.volumes(),
        units::seconds(snapshots.seconds)
    ));
    if !snapshots.kept.is_empty() {
        output.line(format!(
            "  {} of them were left in the cluster for restore --from-snapshots; they share its storage and do not replace the repository",
            snapshots.kept.len()
        ));
    }
}

/// Channels, nodes, certificates, findings.
pub fn print_point(point: &RecoveryPoint, output: &Output) {
    if let Some(window) = &point.window {
        print_window(window, output);
    }
    if let Some(snapshots) = &point.snapshots {
        print_snapshots(snapshots, output);
    }
    let mut channels = table(["channel", "height", "tip hash", "donor", "consensus", "organizations", "last config"]);
    for channel in &point.channels {
        let (consensus, organizations) = channel.config.as_ref().map_or_else(Default::default, |config| {
            let names: Vec<&str> =
                config.organizations.iter().map(|organization| organization.msp_id.as_str()).collect();
            (format!("{}, {} consenters", config.consensus_type, config.consenters.len()), names.join(" "))
        });
        channels.add_row([
            channel.name.clone(),
            channel.height.to_string(),
            format!("{}…", units::short(&channel.tip_hash)),
            channel.donor.clone(),
            consensus,
            organizations,
            channel.config_block.map_or_else(|| "?".to_owned(), |number| format!("block {number}")),
        ]);
    }
    output.line(format!("\n{channels}\n"));
    let mut nodes = table(["node", "role", "heights", "data", "left out", "keys", "first expiry", "more"]);
    for node in &point.nodes {
        nodes.add_row(node_row(node));
    }
    output.line(nodes.to_string());
    if !point.objects.is_empty() {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for object in &point.objects {
            *kinds.entry(object.kind.as_str()).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        output.line(format!("\n{} objects: {}", point.objects.len(), kinds.join(", ")));
    }
    if !point.excluded.is_empty() {
        output.line(format!("\nleft out on request: {}", point.excluded.join(", ")));
    }
    if !point.without_logs.is_empty() {
        output.line(format!(
            "\nwithout raft logs: {} (a restore of all orderers creates their raft state; one alone comes back empty: --replicate)",
            point.without_logs.join(", ")
        ));
    }
    output.line(String::new());
    if point.findings.is_empty() {
        output.line("no findings");
    }
    output.findings(&point.findings);
}

fn node_row(node: &CapturedNode) -> [String; 8] {
    let heights: Vec<String> =
        node.facts.ledgers.iter().map(|ledger| format!("{} {}", ledger.channel, ledger.height)).collect();
    let own = || node.facts.keys.iter().filter(|key| key.purpose != KeyPurpose::Trusted);
    let (all, with_key) = (own().count(), own().filter(|key| key.key.is_some()).count());
    let expiry = own().filter_map(|key| key.certificate.as_ref()).map(|certificate| certificate.not_after).min();
    let left_out: u64 =
        node.directories.iter().flat_map(|directory| &directory.omitted).map(|omitted| omitted.bytes).sum();
    let mut more = Vec::new();
    if node.facts.running {
        more.push("captured while running".to_owned());
    }
    for raft in &node.facts.raft {
        if let Some(last) = raft.last_index {
            let snapshot =
                raft.snapshot.as_ref().map_or_else(String::new, |snapshot| format!(" snapshot {}", snapshot.index));
            more.push(format!("{} raft {last}{snapshot}", raft.channel));
        }
    }
    if let Some(ca) = &node.facts.ca {
        let count = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        more.push(format!(
            "{}: {} identities, {} certificates, {} revoked",
            ca.database,
            count(ca.identities),
            count(ca.certificates),
            count(ca.revoked)
        ));
    }
    [
        node.facts.id.to_string(),
        node.facts.role.to_string(),
        heights.join(", "),
        units::bytes(node_bytes(node)),
        units::bytes(left_out),
        if all == 0 { String::new() } else { format!("{with_key} of {all}") },
        expiry.map_or_else(String::new, units::day),
        more.join("; "),
    ]
}

fn print_names(names: &[UsedName], cluster: bool, output: &Output) {
    output.line("\nhost names by which the nodes call each other:");
    for used in names {
        let ports: Vec<String> = used.ports.iter().map(u16::to_string).collect();
        let ports = if ports.is_empty() { String::new() } else { format!("  port {}", ports.join(", ")) };
        output.line(format!("  {}{ports}", used.name));
        let list = |title: &str, texts: &BTreeSet<String>, without: &str| {
            let mut title = title;
            for text in texts {
                output.line(format!("    {title:<20} {text}"));
                title = "";
            }
            if texts.is_empty() && !without.is_empty() {
                output.line(format!("    {title:<20} {without}"));
            }
        };
        let called = !used.used_by.is_empty();
        list("used by", &used.used_by, "");
        list("TLS certificates of", &used.certificates, "of no node: TLS connections to this name fail");
        let answers = used.answered_by.iter().map(ToString::to_string).collect();
        list("answered by", &answers, if called { "DNS, or nothing" } else { "" });
    }
    output.line(if cluster {
        "In another place each used name must resolve: by a Service with the old name, hostAliases or DNS."
    } else {
        "In another place each used name must resolve: by DNS or /etc/hosts."
    });
}

fn print_files(point: &RecoveryPoint, output: &Output) {
    for node in &point.nodes {
        for directory in &node.directories {
            output.line(format!("\n{} {} {}", node.facts.id, directory.directory.role, directory.directory.path));
            for entry in &directory.entries {
                match &entry.content {
                    EntryContent::File { size, .. } => {
                        output.line(format!("  {:>12}  {}", units::bytes(*size), entry.path))
                    }
                    EntryContent::Symlink { target } => {
                        output.line(format!("  {:>12}  {} -> {target}", "link", entry.path))
                    }
                    EntryContent::Directory => {}
                }
            }
            for omitted in &directory.omitted {
                output.line(format!(
                    "  {:>12}  {} (left out: {:?}, {} files)",
                    units::bytes(omitted.bytes),
                    omitted.path,
                    omitted.class,
                    omitted.files
                ));
            }
        }
    }
}
