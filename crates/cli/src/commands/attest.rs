//! `fabkeep attest`: writes a signed statement about a recovery point, and compares one with the own nodes.

use std::io::{Read, Write};
use std::path::Path;

use fabkeep_engine::{
    Agreement, AttestOptions, Attestation, AttestedChannel, ComparedCommits, ComparedNode, Comparison,
    MAX_ATTESTATION_BYTES, attestation, compare_attestation,
};
use fabkeep_network::{Finding, Remedy, Rule, Severity};
use fabkeep_store::{IdentityFile, Repository, Signer, Statement, StoreError, open_statement};
use serde_json::json;

use super::{done, key_files, list, network};
use crate::arguments::{Attest, AttestCommand, AttestVerify};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Attest, output: &Output) -> Result<Code, CliError> {
    if let Some(AttestCommand::Verify(arguments)) = &arguments.command {
        return verify(arguments, output);
    }
    let location = arguments.repo.as_deref().unwrap_or_default();
    let repository = key_files::open(location, arguments.pin.root.as_deref())?;
    let (commit, findings) = list::point(&repository, &arguments.point)?;
    let identity = key_files::identity(&repository, &arguments.identity)?;
    let options = AttestOptions { channels: arguments.channel.clone(), ranges: arguments.hashes.clone() };
    let reporter = output.reporter();
    let made = attestation(&repository, &commit, &identity, &options, reporter.as_ref())?;
    let statement = sign(&repository, &made, &identity, arguments.writer.as_deref())?;
    let Some(file) = &arguments.file else {
        // The statement is the result, whatever its form.
        let out = std::io::stdout().write_all(&statement).and_then(|()| std::io::stdout().write_all(b"\n"));
        return out.map(|()| Code::Done).map_err(CliError::io("standard output"));
    };
    output.remarks(&findings);
    write_new(file, &statement)?;
    let opened = open_statement(&file.display().to_string(), &statement, None)?;
    output.json(&json!({
        "file": file, "point": made.point, "network": made.network, "signer": opened.signer, "root": made.root,
        "channels": made.channels.iter().map(summary).collect::<Vec<_>>(), "bytes": statement.len(),
    }));
    output.line(format!(
        "attestation of recovery point {}: {} ({})",
        made.point,
        file.display(),
        units::bytes(statement.len() as u64)
    ));
    for channel in &made.channels {
        output.line(format!(
            "  {}: height {}, tip hash {}…, {} header hashes, {} commit hashes",
            channel.name,
            channel.height,
            units::short(&channel.tip_hash),
            channel.header_hashes.len(),
            channel.commit_hashes.len()
        ));
    }
    output.line(format!("  signed by {}", opened.signer));
    output.line(format!(
        "next: give it to another organization; it runs `fabkeep attest verify FILE --key {}`; tell it the key in \
         another way than the file",
        opened.root.as_deref().unwrap_or(&opened.signer)
    ));
    Ok(done(&findings))
}

fn summary(channel: &AttestedChannel) -> serde_json::Value {
    json!({
        "channel": channel.name, "height": channel.height, "tip_hash": channel.tip_hash,
        "header_hashes": channel.header_hashes.len(), "commit_hashes": channel.commit_hashes.len(),
    })
}

/// Signs with the root key where the identity is the one that it follows from, else with the writer key.
fn sign(
    repository: &Repository,
    made: &Attestation,
    identity: &IdentityFile,
    writer: Option<&Path>,
) -> Result<Vec<u8>, CliError> {
    let payload = made.payload()?;
    match repository.sign_statement(&payload, &Signer::Identity(identity)) {
        Err(StoreError::RootNotPinned { .. }) => {
            let writer = key_files::writer(repository, writer)?;
            Ok(repository.sign_statement(&payload, &Signer::Writer(&writer))?)
        }
        signed => Ok(signed?),
    }
}

fn write_new(file: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut opened = match std::fs::File::options().write(true).create_new(true).open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CliError::new(
                Code::Refused,
                format!("{} exists; nothing was changed", file.display()),
                "name another file (--file FILE)",
            ));
        }
        opened => opened.map_err(CliError::io(file))?,
    };
    opened.write_all(bytes).and_then(|()| opened.sync_all()).map_err(CliError::io(file))
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let from: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(CliError::io(file))?)
    };
    from.take(MAX_ATTESTATION_BYTES + 1).read_to_end(&mut bytes).map_err(CliError::io(file))?;
    if bytes.len() as u64 > MAX_ATTESTATION_BYTES {
        return Err(CliError::new(
            Code::Damaged,
            format!("{} has more than {}: it is no attestation", file.display(), units::bytes(MAX_ATTESTATION_BYTES)),
            "name the file that `fabkeep attest` wrote",
        ));
    }
    Ok(bytes)
}

fn verify(arguments: &AttestVerify, output: &Output) -> Result<Code, CliError> {
    let name = arguments.statement.display().to_string();
    let bytes = read(&arguments.statement)?;
    // Whoever pipes it through a text tool may have added a line break.
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let statement = open_statement(&name, bytes, arguments.key.as_deref()).map_err(untrusted)?;
    let stated = Attestation::parse(&statement.payload).map_err(|error| {
        CliError::new(Code::Damaged, error.to_string(), "ask the other organization for a new attestation")
    })?;
    let platform = network::open(&arguments.place)?;
    network::print_remarks(&arguments.place, platform.as_ref(), output);
    let reporter = output.reporter();
    let mut compared = compare_attestation(&stated, platform.as_ref(), reporter.as_ref())?;
    if arguments.key.is_none() {
        compared.findings.push(unknown_signer(&statement));
    }
    output.json(&json!({
        "point": stated.point, "network": stated.network, "captured": stated.captured, "verdict": stated.verdict,
        "signer": statement.signer, "root": statement.root, "key_checked": arguments.key.is_some(), "comparison": compared,
    }));
    print(&stated, &statement, &compared, output);
    let differs = compared.findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if differs { Code::Unproven } else { done(&compared.findings) })
}

fn untrusted(error: StoreError) -> CliError {
    let help = match &error {
        StoreError::Untrusted { .. } => {
            "compare the key with the other organization in another way than by this file; if it is another one, do \
             not trust the statement"
        }
        StoreError::Damaged { .. } => {
            "ask the other organization for the file again, and let it be sent as a binary file"
        }
        _ => return error.into(),
    };
    CliError::new(Code::Damaged, error.to_string(), help)
}

fn unknown_signer(statement: &Statement) -> Finding {
    let key = statement.root.as_deref().unwrap_or(&statement.signer);
    Finding::warning(
        Rule::RepositoryOwn,
        "the attestation",
        format!("its signature is good, and nothing says whose key {key} is"),
        Remedy::from("ask the other organization for its key, and compare again with --key KEY"),
    )
}

fn print(stated: &Attestation, statement: &Statement, compared: &Comparison, output: &Output) {
    output.findings(&compared.findings);
    let signer = statement.root.as_deref().unwrap_or(&statement.signer);
    output.line(format!(
        "attestation of network {}, captured {}: {}",
        stated.network,
        units::moment(&stated.captured),
        stated.verdict
    ));
    output.line(format!("  recovery point {}, signed by {signer}", stated.point));
    let mut rows = table(["channel", "attested", "node", "height", "header hashes", "commit hashes"]);
    for channel in &compared.channels {
        for (number, node) in channel.nodes.iter().enumerate() {
            let once = |text: String| if number == 0 { text } else { String::new() };
            rows.add_row([
                once(channel.channel.clone()),
                once(channel.height.to_string()),
                node.node.clone(),
                node.height.map_or_else(|| "?".to_owned(), |height| height.to_string()),
                headers(node),
                commits(node),
            ]);
        }
    }
    if !compared.channels.is_empty() {
        output.line(rows.to_string());
    }
    let lists = [
        (&compared.only_attested, "channels of the attestation that these nodes do not have"),
        (&compared.only_own, "channels of these nodes that the attestation does not have"),
    ];
    for (channels, what) in lists.into_iter().filter(|(channels, _)| !channels.is_empty()) {
        output.line(format!("  {what}: {}", channels.join(", ")));
    }
    let nodes = || compared.channels.iter().flat_map(|channel| &channel.nodes);
    let equal = nodes().filter(|node| matches!(node.headers, Agreement::Equal { .. })).count();
    output.line(format!("  {equal} of {} chains agree with the attestation", nodes().count()));
}

fn headers(node: &ComparedNode) -> String {
    match &node.headers {
        Agreement::Equal { block } => {
            let behind = if node.behind > 0 { format!(", {} behind", node.behind) } else { String::new() };
            format!("equal to block {block}{behind}")
        }
        Agreement::Fork { last_equal, different, .. } => {
            let first = last_equal.map_or(0, |number| number.saturating_add(1));
            if first == *different {
                format!("FORK at block {different}")
            } else {
                format!("FORK at blocks {first} to {different}")
            }
        }
        Agreement::NothingCommon => "no common block".to_owned(),
        Agreement::Unread { .. } => "cannot be read".to_owned(),
    }
}

fn commits(node: &ComparedNode) -> String {
    match &node.commits {
        None => String::new(),
        Some(ComparedCommits::Equal { block }) => format!("equal to block {block}"),
        Some(ComparedCommits::Differ { different, .. }) => format!("DIFFER at block {different}"),
        Some(ComparedCommits::NothingCommon) => "none to compare".to_owned(),
    }
}
