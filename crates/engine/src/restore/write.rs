//! Writes the files of a recovery point to any target: block files from the channels' segments, for all nodes at once; everything else from
//! its blobs. What an earlier run or attempt has written is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use backon::{BlockingRetryable, ExponentialBuilder};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::NodeId;
use fabkeep_store::PointReader;

use crate::EngineError;
use crate::content::{Contents, channel_of, is_block_file};
use crate::event::{Event, Reporter, step};
use crate::point::{CapturedEntry, Channel, EntryContent, Part, RecoveryPoint};
use crate::replay::{ReplayTarget, Sink, replay};
use fabkeep_parallel as parallel;

/// How often what may pass is tried again, and the longest pause before.
const ATTEMPTS: usize = 8;
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// What a file still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// Nothing: it is written.
    Nothing,
    /// It is there: its bytes are asked for to check it by.
    Check,
    /// To be written.
    Bytes,
}

/// A file of a directory on its way.
#[derive(Clone, Copy)]
pub(super) struct FileToWrite<'a> {
    /// Its position among the directory's entries.
    pub position: usize,
    pub entry: &'a CapturedEntry,
    pub wants: Wants,
}

impl<'a> FileToWrite<'a> {
    pub fn parts(&self) -> &'a [Part] {
        match &self.entry.content {
            EntryContent::File { parts, .. } => parts,
            _ => &[],
        }
    }
}

/// A directory that takes what was captured: beside its place on a host, or in a volume of a cluster.
pub(super) trait WriteVolume: Sync {
    /// Whose it is.
    fn node(&self) -> (&NodeId, NodeRole);

    /// The data that is written into it.
    fn entries(&self) -> &[CapturedEntry];

    /// Learns what is there already, and writes everything but captured files: directories, links, what stays of what was there.
    fn begin(&self) -> Result<(), EngineError>;

    /// What a file still needs, as it was when the directory was begun.
    fn wants(&self, position: usize, entry: &CapturedEntry) -> Wants;

    /// Returns the bytes of a part of a file if they are in the directory's place already: they need not be fetched.
    fn there(&self, _: &CapturedEntry, _: &Part) -> Option<Vec<u8>> {
        None
    }

    /// Opens a stream for files. They come in this order, each from its beginning to its end; the stream ends behind the last.
    fn stream<'s>(&'s self, files: Vec<FileToWrite<'s>>) -> Result<Box<dyn Sink + 's>, EngineError>;

    /// Whether files go one after the other in one stream: it is far away, and a stream costs more than a file.
    fn is_far(&self) -> bool;

    /// Whether another attempt may go better.
    fn may_pass(&self, error: &EngineError) -> bool;

    /// All files are written: what directories get last.
    fn finish(&self) -> Result<(), EngineError>;
}

/// Tries again what may pass, as one of the directories knows it; `again` comes before each further attempt.
pub(super) fn persistently<T>(
    volumes: &[&dyn WriteVolume],
    reporter: &dyn Reporter,
    again: impl Fn() -> Result<(), EngineError>,
    mut attempt: impl FnMut() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let pauses = ExponentialBuilder::new().with_max_delay(MAX_PAUSE).with_max_times(ATTEMPTS - 1);
    let mut first = true;
    let one = || {
        if !std::mem::take(&mut first) {
            again()?;
        }
        attempt()
    };
    let may_pass =
        |error: &EngineError| !reporter.is_interrupted() && volumes.iter().any(|volume| volume.may_pass(error));
    one.retry(pauses).sleep(std::thread::sleep).when(may_pass).call()
}

/// Begins all directories, or begins them anew.
fn begin(volumes: &[&dyn WriteVolume]) -> Result<(), EngineError> {
    volumes.iter().try_for_each(|volume| volume.begin())
}

fn nothing() -> Result<(), EngineError> {
    Ok(())
}

/// Writes everything that the directories do not have, `bytes` in all.
pub(super) fn write_all(
    volumes: &[&dyn WriteVolume],
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    threads: usize,
    bytes: u64,
    reporter: &dyn Reporter,
) -> Result<(), EngineError> {
    step(reporter, "write files", Some(bytes), || {
        all(volumes, threads, |volume| persistently(&[volume], reporter, nothing, || volume.begin()))?;
        write_files(volumes, point, reader, threads, reporter)?;
        for channel in &point.channels {
            persistently(
                volumes,
                reporter,
                || begin(volumes),
                || write_chains(volumes, channel, reader, threads, reporter),
            )?;
        }
        all(volumes, threads, |volume| persistently(&[volume], reporter, nothing, || volume.finish()))
    })
}

fn all(
    volumes: &[&dyn WriteVolume],
    threads: usize,
    work: impl Fn(&dyn WriteVolume) -> Result<(), EngineError> + Sync,
) -> Result<(), EngineError> {
    parallel::map(volumes.to_vec(), threads, work).into_iter().collect()
}

/// Files of a directory that are to be written, those of a kind.
fn files<'v>(volume: &'v dyn WriteVolume, is: &dyn Fn(&[Part]) -> bool) -> Vec<FileToWrite<'v>> {
    let files = volume.entries().iter().enumerate().filter_map(|(position, entry)| match &entry.content {
        EntryContent::File { parts, .. } if is(parts) => {
            Some(FileToWrite { position, entry, wants: volume.wants(position, entry) })
        }
        _ => None,
    });
    files.collect()
}

/// Everything but block files.
fn write_files(
    volumes: &[&dyn WriteVolume],
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<(), EngineError> {
    let contents = Contents::new(reader, point);
    let mut tasks: Vec<(&dyn WriteVolume, Option<FileToWrite<'_>>)> = Vec::new();
    for &volume in volumes {
        if volume.is_far() {
            tasks.push((volume, None));
        } else {
            tasks.extend(files(volume, &|parts| !is_block_file(parts)).into_iter().map(|file| (volume, Some(file))));
        }
    }
    let results = parallel::map(tasks, threads, |(volume, one)| {
        persistently(
            &[volume],
            reporter,
            || volume.begin(),
            || {
                let files = one.map_or_else(|| files(volume, &|parts| !is_block_file(parts)), |file| vec![file]);
                write_in_order(volume, files, &contents, reporter)
            },
        )
    });
    results.into_iter().collect()
}

fn write_in_order(
    volume: &dyn WriteVolume,
    files: Vec<FileToWrite<'_>>,
    contents: &Contents<'_>,
    reporter: &dyn Reporter,
) -> Result<(), EngineError> {
    let (pending, written): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.wants != Wants::Nothing);
    written.iter().for_each(|file| advance(file, reporter));
    if pending.is_empty() {
        return Ok(());
    }
    let mut stream = volume.stream(pending.clone())?;
    for (number, file) in pending.iter().enumerate() {
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        for part in file.parts() {
            let bytes = match volume.there(file.entry, part) {
                Some(bytes) => bytes,
                None => contents.bytes(&file.entry.path, part)?,
            };
            stream.write(number, part.offset, &bytes)?;
        }
        stream.finish(number)?;
        advance(file, reporter);
    }
    Ok(())
}

/// Reports a file that is there.
fn advance(file: &FileToWrite<'_>, reporter: &dyn Reporter) {
    reporter.event(Event::Advance { bytes: file.parts().iter().map(|part| part.len).sum(), blocks: 0 });
}

/// Block files of one channel, for all nodes at once.
fn write_chains(
    volumes: &[&dyn WriteVolume],
    channel: &Channel,
    reader: &PointReader<'_>,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<(), EngineError> {
    let mut targets = Vec::new();
    for volume in volumes {
        let mut chains: BTreeMap<&str, Vec<FileToWrite<'_>>> = BTreeMap::new();
        for file in files(*volume, &|parts| channel_of(parts) == Some(channel.name.as_str())) {
            let folder = file.entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            chains.entry(folder).or_default().push(file);
        }
        for mut files in chains.into_values() {
            let count = files.len();
            files.retain(|file| {
                let is_there = file.wants == Wants::Nothing;
                if is_there {
                    advance(file, reporter);
                }
                !is_there
            });
            if files.is_empty() {
                continue;
            }
            let (id, role) = volume.node();
            targets.push(ReplayTarget {
                label: id.to_string(),
                peer: role == NodeRole::Peer,
                files: files.iter().map(|file| file.parts().to_vec()).collect(),
                whole: files.len() == count,
                sink: volume.stream(files)?,
            });
        }
    }
    if targets.is_empty() {
        return Ok(());
    }
    replay(reader, channel, targets, false, threads, reporter).map(|_| ())
}
