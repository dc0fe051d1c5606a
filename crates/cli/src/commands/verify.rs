//! `fabkeep verify`.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use fabkeep_engine::{NotProven, Proof, VerifyLevel, cores, verify_point};
use fabkeep_ledger::chain::{ChainError, walk_directory};
use fabkeep_network::{Finding, Severity};
use fabkeep_store::{BadObject, IdentityFile, Repository, Signer, StoreError};
use serde_json::json;

use super::{done, key_files, list};
use crate::arguments::{Level, Verify};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

pub fn run(arguments: &Verify, output: &Output) -> Result<Code, CliError> {
    if let Some(chain) = &arguments.chain {
        return verify_chain(chain, output);
    }
    let location = arguments.repo.as_deref().unwrap_or_default();
    let repository = key_files::open(location, arguments.pin.root.as_deref())?;
    let identity = key_files::identity_if_any(&repository, &arguments.identity)?;
    let level = match arguments.level {
        Level::Quick => VerifyLevel::Quick,
        Level::Full => VerifyLevel::Full,
    };
    let history = repository.history()?;
    let writer = arguments.writer.as_deref();
    let mut findings = list::findings(&repository, &history, writer, arguments.expect_at_least.as_deref())?;
    let commits = match (arguments.all, arguments.point.as_str()) {
        (true, _) => history.commits.clone(),
        (false, "latest") => {
            vec![history.latest().cloned().ok_or_else(|| StoreError::NoSuchPoint("latest".to_owned()))?]
        }
        (false, point) => vec![repository.point(point)?],
    };
    let reporter = output.reporter();
    let mut proofs = Vec::new();
    for commit in &commits {
        let proof = verify_point(&repository, commit, identity.as_ref(), level, cores(), reporter.as_ref())?;
        print(&proof, output);
        proofs.push(proof);
    }
    let bad: Vec<BadObject> = proofs.iter().flat_map(|proof| proof.bad.iter().cloned()).collect();
    let recorded = if bad.is_empty() { None } else { record(&repository, &bad, identity.as_ref(), writer, output) };
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    output.findings(&findings);
    output.json(&json!({"proofs": proofs, "repository": findings, "recorded": recorded}));
    let broken = |finding: &Finding| finding.severity == Severity::Error;
    if findings.iter().any(broken) || proofs.iter().any(|proof: &Proof| proof.findings.iter().any(broken)) {
        return Ok(Code::Damaged);
    }
    let codes = proofs.iter().map(|proof| done(&proof.findings)).chain([done(&findings)]);
    Ok(codes.max_by_key(|code| *code as u8).unwrap_or(Code::Done))
}

/// Records what is damaged, so that no backup builds on it and the next one puts its content again.
fn record(
    repository: &Repository,
    bad: &[BadObject],
    identity: Option<&IdentityFile>,
    writer: Option<&Path>,
    output: &Output,
) -> Option<String> {
    let by_identity = identity.map(|identity| repository.record_bad(bad, &Signer::Identity(identity)));
    let recorded = match by_identity {
        Some(Ok(recorded)) => Ok(recorded),
        _ => match key_files::writer_if_any(repository, writer) {
            Some(writer) => repository.record_bad(bad, &Signer::Writer(&writer)),
            None => {
                output.line(
                    "the damage was not recorded: this needs the identity or a writer key (--writer FILE); later backups do not know what is damaged",
                );
                return None;
            }
        },
    };
    match recorded {
        Ok(Some(name)) => {
            output.line(format!(
                "recorded as damaged in {name}: the next backup stores again what the nodes still have of it"
            ));
            Some(name)
        }
        Ok(None) => None,
        Err(error) => {
            output.line(format!("the damage was not recorded: {error}; later backups do not know what is damaged"));
            None
        }
    }
}

/// Prints the result of a verification as text.
pub fn print(proof: &Proof, output: &Output) {
    output.findings(&proof.findings);
    output.line(format!("recovery point {}", proof.point));
    for sentence in &proof.proven {
        output.line(format!("  proven: {sentence}"));
    }
    for part in &proof.not_proven {
        let how = match part {
            NotProven::Content => " (--identity FILE)",
            NotProven::Bytes => " (verify --level full)",
            NotProven::ContentOfDamaged | NotProven::Signatures { .. } | NotProven::Start => "",
        };
        output.line(format!("  not proven: {part}{how}"));
    }
    output.line(format!(
        "  {}, {}, {}",
        units::objects(proof.objects),
        units::bytes(proof.bytes),
        units::seconds(proof.seconds)
    ));
}

fn verify_chain(chain: &Path, output: &Output) -> Result<Code, CliError> {
    let begun = Instant::now();
    let walk = walk_directory(chain, cores(), &AtomicU64::new(0)).map_err(|error| match error {
        ChainError::File(fabkeep_ledger::block_file::BlockFileError::NoFiles) => CliError::new(
            Code::Usage,
            format!("{}: {error}", chain.display()),
            "name a channel's directory, …/ledgersData/chains/chains/CHANNEL on a peer, …/chains/CHANNEL on an orderer",
        ),
        ChainError::File(fabkeep_ledger::block_file::BlockFileError::Io { file, source }) => CliError::io(file)(source),
        error => CliError::new(
            Code::Damaged,
            format!("{}: {error}", chain.display()),
            "take the chain from another node or from a recovery point (fabkeep restore --node)",
        ),
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let tip = walk.tip.map(|tip| (tip.height, hex::encode(tip.header_hash)));
    output.json(&json!({
        "first_block": walk.first, "height": tip.as_ref().map(|tip| tip.0), "tip_hash": tip.as_ref().map(|tip| &tip.1),
        "blocks": walk.blocks, "bytes": walk.bytes, "torn_bytes": walk.torn.map(|torn| torn.len), "seconds": seconds,
    }));
    let (height, hash) = tip.unwrap_or_default();
    output.line(format!("height {height}, tip hash {hash}"));
    output.line(format!(
        "  {} blocks from block {}: data hashes and links are correct; {} in {} ({}/s)",
        walk.blocks,
        walk.first,
        units::bytes(walk.bytes),
        units::seconds(seconds),
        units::bytes((walk.bytes as f64 / seconds.max(1e-9)) as u64)
    ));
    output.line(
        "  not proven: signatures, and that other nodes have the same chain (fabkeep backup and verify check these)",
    );
    if let Some(torn) = walk.torn {
        output.line(format!(
            "  the last file ends with an incomplete block ({} bytes): the node drops it when it starts (B3)",
            torn.len
        ));
        return Ok(Code::DoneWithFindings);
    }
    Ok(Code::Done)
}
