//! Verification of a recovery point: its objects exist, and all files can be reconstructed from them. Reports what was proven and what was
//! not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Rule, check_set};
use fabkeep_store::{BadObject, Commit, IdentityFile, ObjectFault, Repository, check_objects};
use serde::Serialize;

use crate::EngineError;
use crate::content::{Contents, channel_of, check_parts, is_block_file};
use crate::event::{Event, Reporter, step};
use crate::point::{Channel, EntryContent, Part, RecoveryPoint};
use crate::replay::{Nowhere, ReplayTarget, replay};
use fabkeep_parallel as parallel;

/// How deep to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyLevel {
    /// Objects exist with their sizes; commit record, index and manifest are signed and whole.
    Quick,
    /// Every object is read; with the identity, every chain is walked, every signature checked, every file made again.
    Full,
}

/// What a verification did not prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotProven {
    /// The content of the objects, because no identity was given.
    Content,
    /// The content of the objects, because some are missing or damaged.
    ContentOfDamaged,
    /// That the bytes of the objects are intact, because they were not read.
    Bytes,
    /// Signatures behind a snapshot, for which no configuration is known.
    Signatures {
        /// Of which channel.
        channel: String,
        /// Of which node.
        node: String,
        /// How many blocks.
        blocks: u64,
    },
    /// That nodes start on the data.
    Start,
}

impl std::fmt::Display for NotProven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotProven::Content => {
                f.write_str("the content of the objects: it cannot be decrypted without the identity")
            }
            NotProven::ContentOfDamaged => f.write_str("the content of the objects: some are missing or damaged"),
            NotProven::Bytes => f.write_str("that the bytes of the objects are intact"),
            NotProven::Signatures { channel, node, blocks } => write!(
                f,
                "{channel}: the signatures of {blocks} blocks of {node}: its chain begins after a snapshot, and no configuration block before them is in the set"
            ),
            NotProven::Start => f.write_str("that the nodes start on the restored data"),
        }
    }
}

impl Serialize for NotProven {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a verification proved.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// The recovery point.
    pub point: String,
    /// How deep.
    pub level: VerifyLevel,
    /// What was proven, in sentences.
    pub proven: Vec<String>,
    /// What was not looked at; in JSON as sentences.
    pub not_proven: Vec<NotProven>,
    /// What is wrong or worth a look.
    pub findings: Vec<Finding>,
    /// Objects looked at.
    pub objects: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// Blocks walked: each channel's once for every node that holds it.
    pub blocks: u64,
    /// Objects that are damaged or missing: to be recorded, so that the next backup puts their content again.
    pub bad: Vec<BadObject>,
    /// How long it took.
    pub seconds: f64,
}

/// Returns an object that is damaged or missing, as a finding. What was put again elsewhere does not spoil the point.
fn fault_finding(fault: &ObjectFault) -> Finding {
    let subject = format!("object {}", fault.object);
    match &fault.instead {
        None => Finding::error(
            Rule::FileReadable,
            subject,
            fault.problem.clone(),
            "make a backup now: once the object is recorded as damaged, the backup stores again what the nodes still have of it; or restore the object \
             from a copy of the repository",
        ),
        Some(instead) => Finding::warning(
            Rule::FileReadable,
            subject,
            format!(
                "{}; everything that this point needs of it is in {}: the point is whole",
                fault.problem,
                instead.join(", ")
            ),
            "no action is needed for the data; find the cause of the damage",
        ),
    }
}

/// Verifies a recovery point. Without the identity, objects are checked by their sealed bytes and nothing is opened.
///
/// # Errors
/// [`EngineError`] if the repository cannot be read at all; damage is reported as findings.
pub fn verify_point(
    repository: &Repository,
    commit: &Commit,
    identity: Option<&IdentityFile>,
    level: VerifyLevel,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<Proof, EngineError> {
    let begun = Instant::now();
    let mut proof = Proof {
        point: commit.id.to_string(),
        level,
        proven: vec!["the commit record is signed by a writer of this repository".to_owned()],
        not_proven: Vec::new(),
        findings: Vec::new(),
        objects: 0,
        bytes: 0,
        blocks: 0,
        bad: Vec::new(),
        seconds: 0.0,
    };
    let read = level == VerifyLevel::Full;
    let progress = AtomicU64::new(0);
    let name = if read { "read every object" } else { "check every object" };
    let checked = step(reporter, name, None, || {
        tell_while(reporter, &progress, || check_objects(repository, commit, identity, read, threads, &progress))
    })?;
    (proof.objects, proof.bytes) = (checked.objects, checked.bytes);
    proof.findings.extend(checked.faults.iter().map(fault_finding));
    proof.bad = checked.faults.iter().map(ObjectFault::to_record).collect();
    let lost = checked.faults.iter().filter(|fault| fault.instead.is_none()).count();
    if lost == 0 && !checked.faults.is_empty() {
        proof.proven.push(format!(
            "{} of {} objects are damaged or missing, and everything that the point needs of them was stored again",
            checked.faults.len(),
            checked.objects
        ));
    }
    if checked.faults.is_empty() {
        proof.proven.push(if read {
            format!("all {} objects exist, and their bytes are those that were written", checked.objects)
        } else {
            format!("all {} objects exist and have their sizes", checked.objects)
        });
    }
    match identity {
        None => proof.not_proven.push(NotProven::Content),
        Some(_) if lost > 0 => proof.not_proven.push(NotProven::ContentOfDamaged),
        Some(identity) => look_inside(repository, commit, identity, level, threads, reporter, &mut proof)?,
    }
    if !read {
        proof.not_proven.push(NotProven::Bytes);
    }
    proof.not_proven.push(NotProven::Start);
    proof.seconds = begun.elapsed().as_secs_f64();
    Ok(proof)
}

/// Tells progress that another thread counts.
fn tell_while<T: Send>(reporter: &dyn Reporter, progress: &AtomicU64, work: impl FnOnce() -> T + Send) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let result = work();
            done.store(true, Ordering::Release);
            result
        });
        let mut reported = 0;
        loop {
            let finished = done.load(Ordering::Acquire) || worker.is_finished();
            let now = progress.load(Ordering::Relaxed);
            reporter.event(Event::Advance { bytes: now - reported, blocks: 0 });
            reported = now;
            if finished {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn look_inside(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    level: VerifyLevel,
    threads: usize,
    reporter: &dyn Reporter,
    proof: &mut Proof,
) -> Result<(), EngineError> {
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    let facts: Vec<_> = point.nodes.iter().map(|node| node.facts.clone()).collect();
    let configs: Vec<_> = point.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    proof.findings.extend(check_set(&facts, &configs, point.derived, jiff::Timestamp::now().as_second()));
    proof
        .proven
        .push("the manifest can be decrypted, and the set satisfies the invariants I1 to I5 as recorded".to_owned());
    if level == VerifyLevel::Quick {
        return Ok(());
    }
    for channel in &point.channels {
        let targets = block_targets(&point, &channel.name);
        let nodes: Vec<String> = targets.iter().map(|target| target.label.clone()).collect();
        let bytes = targets.iter().flat_map(|target| &target.files).flatten().map(|part| part.len).sum();
        let counter = Counting { reporter, blocks: AtomicU64::new(0) };
        let name = format!("check chain {}", channel.name);
        let replayed =
            step(reporter, &name, Some(bytes), || replay(&reader, channel, targets, true, threads, &counter));
        proof.blocks += counter.blocks.into_inner();
        match replayed {
            Ok(replayed) => {
                if replayed.findings.is_empty() {
                    tell_channel(channel, &nodes, &replayed.unchecked, proof);
                }
                proof.findings.extend(replayed.findings);
            }
            Err(EngineError::Stopped) => return Err(EngineError::Stopped),
            Err(error) => proof.findings.push(damage(&channel.name, &error)),
        }
    }
    open_files(&point, &reader, threads, reporter, proof)
}

/// Says what was done to a channel's chains, node by node where they differ.
fn tell_channel(channel: &Channel, nodes: &[String], unchecked: &BTreeMap<String, u64>, proof: &mut Proof) {
    let signed = nodes.iter().filter(|node| !unchecked.contains_key(*node)).count();
    let signatures = match (signed, nodes.len()) {
        (_, 0) => ", no node has their block files".to_owned(),
        (0, _) => ", block files equal bit for bit".to_owned(),
        (signed, all) if signed == all => {
            format!(", signed as configured on {all} nodes, block files equal bit for bit")
        }
        (signed, all) => format!(", signed as configured on {signed} of {all} nodes, block files equal bit for bit"),
    };
    proof.proven.push(format!(
        "{}: {} blocks linked and hashed to height {} ({}…){signatures}",
        channel.name,
        channel.height - channel.first_block,
        channel.height,
        channel.tip_hash.get(..16).unwrap_or_default()
    ));
    proof.not_proven.extend(unchecked.iter().map(|(node, blocks)| NotProven::Signatures {
        channel: channel.name.clone(),
        node: node.to_string(),
        blocks: *blocks,
    }));
}

fn damage(subject: &str, error: &EngineError) -> Finding {
    Finding::error(
        Rule::HashChain,
        subject,
        error.to_string(),
        "this recovery point cannot be restored completely: make a new one now, and find the cause of the damage",
    )
}

/// Returns every node's block files of a channel.
fn block_targets(point: &RecoveryPoint, channel: &str) -> Vec<ReplayTarget<'static>> {
    let mut targets = Vec::new();
    for node in &point.nodes {
        for directory in &node.directories {
            let mut chains: BTreeMap<&str, Vec<Vec<Part>>> = BTreeMap::new();
            for entry in &directory.entries {
                if let EntryContent::File { parts, .. } = &entry.content
                    && channel_of(parts) == Some(channel)
                {
                    let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    chains.entry(folder).or_default().push(parts.clone());
                }
            }
            targets.extend(chains.into_values().map(|files| ReplayTarget {
                whole: true,
                label: node.facts.id.to_string(),
                peer: node.facts.role == NodeRole::Peer,
                files,
                sink: Box::new(Nowhere),
            }));
        }
    }
    targets
}

fn open_files(
    point: &RecoveryPoint,
    reader: &fabkeep_store::PointReader<'_>,
    threads: usize,
    reporter: &dyn Reporter,
    proof: &mut Proof,
) -> Result<(), EngineError> {
    let contents = Contents::new(reader, point);
    let mut files: Vec<(String, u64, &[Part])> = Vec::new();
    for node in &point.nodes {
        for directory in &node.directories {
            for entry in &directory.entries {
                if let EntryContent::File { size, parts } = &entry.content {
                    files.push((
                        format!("{} {}/{}", node.facts.id, directory.directory.role, entry.path),
                        *size,
                        parts,
                    ));
                }
            }
        }
    }
    let count = files.len();
    let bytes: u64 =
        files.iter().filter(|file| !is_block_file(file.2)).flat_map(|file| file.2).map(|part| part.len).sum();
    let results = step(reporter, "reconstruct every file", Some(bytes), || {
        parallel::map(files, threads, |(name, size, parts)| -> Result<(), EngineError> {
            check_parts(&name, size, parts)?;
            if is_block_file(parts) {
                return Ok(());
            }
            for part in parts {
                contents.bytes(&name, part)?;
                reporter.event(Event::Advance { bytes: part.len, blocks: 0 });
            }
            Ok(())
        })
    });
    let mut whole = true;
    for error in results.into_iter().filter_map(Result::err) {
        whole = false;
        proof.findings.push(damage("files", &error));
    }
    if whole {
        proof.proven.push(format!("all {count} files of {} nodes can be reconstructed bit for bit", point.nodes.len()));
    }
    Ok(())
}

/// Counts blocks on their way to another reporter.
struct Counting<'a> {
    reporter: &'a dyn Reporter,
    blocks: AtomicU64,
}

impl Reporter for Counting<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::Advance { blocks, .. } = event {
            self.blocks.fetch_add(blocks, Ordering::Relaxed);
        }
        self.reporter.event(event);
    }

    fn is_interrupted(&self) -> bool {
        self.reporter.is_interrupted()
    }
}
