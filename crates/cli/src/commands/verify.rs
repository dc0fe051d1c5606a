//! `fabkeep verify`.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use fabkeep_engine::{Proof, VerifyLevel, cores, verify_point};
use fabkeep_ledger::chain::{ChainError, walk_directory};
use fabkeep_network::Severity;
use fabkeep_store::Repository;
use serde_json::json;

use super::{done, key_files};
use crate::arguments::{Level, Verify};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

pub fn run(arguments: &Verify, output: &Output) -> Result<Code, CliError> {
    if let Some(chain) = &arguments.chain {
        return verify_chain(chain, output);
    }
    let location = arguments.repo.as_deref().unwrap_or_default();
    let repository = Repository::open(location)?;
    let identity = key_files::identity_if_any(&repository, arguments.identity.identity.as_deref())?;
    let level = match arguments.level {
        Level::Quick => VerifyLevel::Quick,
        Level::Full => VerifyLevel::Full,
    };
    let mut damaged = Vec::new();
    let mut commits = Vec::new();
    if arguments.all {
        for (name, commit) in repository.points()? {
            match commit {
                Ok(commit) => commits.push(commit),
                Err(error) => damaged.push(format!("{name}: {error}")),
            }
        }
    } else {
        commits.push(repository.point(&arguments.point)?);
    }
    let reporter = output.reporter();
    let mut proofs = Vec::new();
    for commit in &commits {
        let proof = verify_point(&repository, commit, identity.as_ref(), level, cores(), reporter.as_ref())?;
        print(&proof, output);
        proofs.push(proof);
    }
    damaged.iter().for_each(|problem| output.line(format!("damaged: {problem}")));
    output.json(&json!({"proofs": proofs, "damaged": damaged}));
    let broken = |proof: &Proof| proof.findings.iter().any(|finding| finding.severity == Severity::Error);
    if !damaged.is_empty() || proofs.iter().any(broken) {
        return Ok(Code::Damaged);
    }
    Ok(proofs.iter().map(|proof| done(&proof.findings)).max_by_key(|code| *code as u8).unwrap_or(Code::Done))
}

/// What a verification proved, for people.
pub fn print(proof: &Proof, output: &Output) {
    output.findings(&proof.findings);
    output.line(format!("recovery point {}", proof.point));
    for sentence in &proof.proven {
        output.line(format!("  proven: {sentence}"));
    }
    for sentence in &proof.not_proven {
        output.line(format!("  not proven: {sentence}"));
    }
    output.line(format!(
        "  {} objects, {}, {}",
        proof.objects,
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
        "  {} blocks from block {}: data hashes and links hold; {} in {} ({}/s)",
        walk.blocks,
        walk.first,
        units::bytes(walk.bytes),
        units::seconds(seconds),
        units::bytes((walk.bytes as f64 / seconds.max(1e-9)) as u64)
    ));
    output.line("  not proven: signatures, and that other nodes hold the same chain (fabkeep backup and verify do)");
    if let Some(torn) = walk.torn {
        output.line(format!(
            "  the last file ends inside a block ({} bytes of it): the node drops it at its start (B3)",
            torn.len
        ));
        return Ok(Code::DoneWithFindings);
    }
    Ok(Code::Done)
}
