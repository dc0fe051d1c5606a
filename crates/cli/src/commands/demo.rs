//! `fabkeep demo`: backs up, damages, verifies and restores a bundled network of real Fabric nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fabkeep_engine::{
    CaptureOptions, RecoveryPoint, RestoreOptions, RestorePlan, RestoreTarget, VerifyLevel, capture, verify_point,
};
use fabkeep_network::Severity;
use fabkeep_platform::{Host, Platform, discover};
use fabkeep_store::{IdentityFile, Repository, WriterKey};
use serde_json::json;

use super::{backup, restore, show, verify};
use crate::arguments::Demo;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

/// What the demo destroys: a peer's volume, an orderer, a CA's home, and one byte of another peer's chain.
const DESTROYED: [&str; 3] = ["Org1/peer0/production", "OrdererOrg/orderer2/production", "Org2/ca"];
const FLIPPED: &str = "Org2/peer1/production/ledgersData/chains/chains/mychannel/blockfile_000000";

struct Stage<'a> {
    output: &'a Output,
    number: u32,
    begun: Instant,
    timings: Vec<(String, f64)>,
}

impl Stage<'_> {
    fn next(&mut self, title: &str) {
        self.end();
        self.number += 1;
        self.timings.push((title.to_owned(), 0.0));
        self.begun = Instant::now();
        self.output.line(format!("\n== {}. {title}", self.number));
    }

    fn end(&mut self) {
        if let Some(last) = self.timings.last_mut() {
            last.1 = self.begun.elapsed().as_secs_f64();
        }
    }
}

pub fn run(arguments: &Demo, output: &Output) -> Result<Code, CliError> {
    let folder = std::path::absolute(&arguments.dir).map_err(CliError::io(&arguments.dir))?;
    if folder.exists() {
        return Err(CliError::new(
            Code::Usage,
            format!("{} exists already", folder.display()),
            "remove it, or name another folder: fabkeep demo --dir DIR",
        ));
    }
    fs::create_dir_all(&folder).map_err(CliError::io(&folder))?;
    let network = folder.join("network");
    let repo = folder.join("repository").display().to_string();
    let (identity_file, writer_file) = (folder.join("keys/identity"), folder.join("keys/writer"));
    let inventory = folder.join("fabkeep.toml");
    let mut stage = Stage { output, number: 0, begun: Instant::now(), timings: Vec::new() };
    let reporter = output.reporter();

    stage.next(
        "unpack a network of real Fabric 2.5 nodes (3 raft orderers, 2 organizations with 2 peers and a CA each)",
    );
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &network).map_err(CliError::io(&network))?;

    stage.next("discover its nodes and create a repository");
    let found = discover(&network, &folder)?;
    fs::write(&inventory, found.inventory.to_text()?).map_err(CliError::io(&inventory))?;
    let host = Host::new(&found.inventory, &folder)?;
    for node in host.network().nodes() {
        output.line(format!("  {:<22} {}", node.id, node.role));
    }
    let made = Repository::init(&repo, Some(&identity_file), Some(&writer_file), &[])?;
    output.line(format!("  repository {} at {repo}; its identity (private key): {}", made.id, made.identity_file));

    stage.next("back up: parse and hash every block, compare it between nodes, check its signatures");
    let repository = Repository::open(&repo)?;
    let captured =
        capture(&host, &repository, WriterKey::read(&writer_file)?, &CaptureOptions::default(), reporter.as_ref())?;
    backup::print(&captured, output);

    stage.next("back up again: nothing changed, so almost nothing is written");
    let again =
        capture(&host, &repository, WriterKey::read(&writer_file)?, &CaptureOptions::default(), reporter.as_ref())?;
    backup::print(&again, output);

    stage.next("show the recovery point");
    show::print_point(&captured.point, output);

    stage.next("destroy a peer's volume, an orderer and a CA, and flip one byte of another peer's chain");
    let sizes = sizes(&network, &captured.point);
    for gone in DESTROYED {
        fs::remove_dir_all(network.join(gone)).map_err(CliError::io(network.join(gone)))?;
        output.line(format!("  removed {gone}"));
    }
    flip(&network.join(FLIPPED))?;
    output.line(format!("  flipped a byte in {FLIPPED}"));
    let refused = capture(
        &host,
        &repository,
        WriterKey::read(&writer_file)?,
        &CaptureOptions { reread: true, ..CaptureOptions::default() },
        &fabkeep_engine::Silent,
    );
    match refused {
        Err(error) => {
            output.line(format!("  a backup of the damaged network is refused, as it should be:\n    {error}"))
        }
        Ok(_) => return Err(failed("a backup of the destroyed network was not refused")),
    }

    stage.next("verify every byte of the recovery point");
    let identity = IdentityFile::read(&identity_file)?;
    let proof = verify_point(&repository, &captured.commit, Some(&identity), VerifyLevel::Full, 2, reporter.as_ref())?;
    verify::print(&proof, output);
    if proof.findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(failed("the recovery point does not verify"));
    }

    stage.next("restore the destroyed nodes in place, set their damaged data aside, and verify the result");
    let nodes = ["Org1/peer0", "OrdererOrg/orderer2", "Org2/ca", "Org2/peer1"].map(str::to_owned).to_vec();
    let options = RestoreOptions { nodes, replace: true, ..RestoreOptions::default() };
    let target = RestoreTarget::Host(&host);
    let plan = RestorePlan::make(&repository, &captured.commit, &identity, &target, &options)?;
    let restored = plan.execute(reporter.as_ref())?;
    restore::print(&restored, output);

    stage.next("restore everything into another folder as well");
    let to = folder.join("restored");
    let target = RestoreTarget::Folder(to.clone());
    let plan = RestorePlan::make(&repository, &captured.commit, &identity, &target, &RestoreOptions::default())?;
    let copy = plan.execute(reporter.as_ref())?;
    output.line(format!("  {} files restored and verified in {}", copy.files, to.display()));

    stage.next("check the restored network with another backup");
    let healed = capture(
        &host,
        &repository,
        WriterKey::read(&writer_file)?,
        &CaptureOptions { reread: true, ..CaptureOptions::default() },
        reporter.as_ref(),
    )?;
    let same = healed
        .point
        .channels
        .iter()
        .zip(&captured.point.channels)
        .all(|(a, b)| a.tip_hash == b.tip_hash && a.height == b.height);
    if !same || sizes != self::sizes(&network, &captured.point) {
        return Err(failed("the restored network differs from the captured one"));
    }
    output
        .line("  every channel has its earlier height and tip hash on every node, and every file has its earlier size");
    stage.end();

    output.line("\n== done");
    for (title, seconds) in &stage.timings {
        output.line(format!("  {:>9}  {title}", units::seconds(*seconds)));
    }
    output.line(format!("\nexplore {}:", folder.display()));
    let keys = format!("--repo {repo} --identity {}", identity_file.display());
    for next in [
        format!("fabkeep list --repo {repo}"),
        format!("fabkeep show {keys} --files"),
        format!("fabkeep verify {keys}"),
        format!("fabkeep restore {keys} --to {}/elsewhere", folder.display()),
    ] {
        output.line(format!("  {next}"));
    }
    output.json(&json!({
        "folder": folder, "first": backup::report(&captured), "second": backup::report(&again), "proof": proof,
        "restored": restored,
        "steps": stage.timings.iter().map(|(title, seconds)| json!({"step": title, "seconds": seconds})).collect::<Vec<_>>(),
    }));
    Ok(Code::Done)
}

fn failed(problem: &str) -> CliError {
    CliError::new(Code::Failed, problem, "this is a bug: report it with the demo's output")
}

fn flip(path: &Path) -> Result<(), CliError> {
    let mut bytes = fs::read(path).map_err(CliError::io(path))?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(path, bytes).map_err(CliError::io(path))
}

/// Sizes of every captured file as they are on the disk.
fn sizes(network: &Path, point: &RecoveryPoint) -> Vec<(PathBuf, u64)> {
    let mut sizes = Vec::new();
    for directory in point.nodes.iter().flat_map(|node| &node.directories) {
        for entry in &directory.entries {
            let path = network.join(&directory.directory.path).join(&entry.path);
            let size = path.metadata().map_or(0, |metadata| if metadata.is_file() { metadata.len() } else { 0 });
            sizes.push((path, size));
        }
    }
    sizes
}
