//! What a backup costs: bytes to read, the time that this takes, room for copies and in the repository.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::{Diagnosis, DoctorOptions, Known, Topic, all_bytes, host};
use crate::capture::Looked;
use crate::units;

/// Most bytes that are read to measure how fast nodes are read.
const SAMPLE_BYTES: u64 = 16 << 20;
/// A smaller sample says nothing of the speed.
const SMALLEST_SAMPLE_BYTES: u64 = 1 << 20;
/// What one core captures at most, in bytes a second: it hashes, compresses and encrypts what it reads.
const CORE_BYTES_PER_SECOND: f64 = 350.0 * 1024.0 * 1024.0;

/// What a backup costs, about.
#[derive(Debug, Clone, Serialize)]
pub struct Effort {
    /// Bytes of all files that a recovery needs.
    pub bytes: u64,
    /// Bytes of databases and logs that are copied to the folder for temporary copies.
    pub copied_bytes: u64,
    /// Bytes read in a second by a sample; `None`: there is too little to read for a measurement.
    pub bytes_per_second: Option<u64>,
    /// About how long a backup takes that reads everything, in seconds.
    pub seconds: Option<u64>,
    /// Whether the repository has a recovery point of this network: then only what is new is read.
    pub continues: bool,
}

pub(super) fn examine(out: &mut Diagnosis, looked: Looked, known: Option<&Known>, options: &DoctorOptions) {
    let bytes = all_bytes(&looked);
    let begun = Instant::now();
    let sample = looked.read_sample(SAMPLE_BYTES).unwrap_or(0);
    let rate = (sample >= SMALLEST_SAMPLE_BYTES).then(|| sample as f64 / begun.elapsed().as_secs_f64().max(1e-6));
    let cores = options.capture.threads.max(1) as f64;
    let rate = rate.map(|rate| (rate * cores).min(CORE_BYTES_PER_SECOND * cores));
    let network = looked.network.as_str();
    let continues =
        known.is_some_and(|known| known.history.commits.iter().any(|commit| commit.summary.network == network));
    let seconds = rate.map(|rate| (bytes as f64 / rate).ceil() as u64);
    let time = match seconds {
        Some(seconds) if seconds >= 120 => format!("about {} min", seconds.div_ceil(60)),
        Some(seconds) => format!("about {} s", seconds.max(1)),
        None => "a few seconds".to_owned(),
    };
    let read = match continues {
        true => format!("a backup that reads everything again takes {time}; others read only what is new"),
        false => format!("the first backup takes {time}; later ones read only what is new"),
    };
    out.ok(Topic::Effort, "", format!("{} to capture; {read}", units::bytes(bytes)));
    out.nodes = looked.nodes;
    out.effort = Some(Effort {
        bytes,
        copied_bytes: looked.staged_bytes,
        bytes_per_second: rate.map(|rate| rate as u64),
        seconds,
        continues,
    });
    let temporary = options.capture.work_folder.clone().unwrap_or_else(std::env::temp_dir);
    work_folder(out, &temporary, looked.staged_bytes);
    if let Some(folder) = known.and_then(|known| known.folder.as_deref()).filter(|_| !continues) {
        repository(out, folder, bytes);
    }
}

/// The folder for copies of running nodes' databases.
fn work_folder(out: &mut Diagnosis, folder: &Path, needed: u64) {
    let subject = folder.display();
    if let Err(error) = tempfile::tempfile_in(folder) {
        out.fail(
            Topic::Room,
            subject,
            format!("the folder for temporary copies cannot be written to: {error}"),
            fabkeep_network::Remedy::NameWorkFolder,
        );
        return;
    }
    let Some(free) = host::free_bytes(folder) else { return };
    if free < needed {
        out.fail(
            Topic::Room,
            subject,
            format!(
                "the databases of the nodes are copied there: {} may be needed, {} are free",
                units::bytes(needed),
                units::bytes(free)
            ),
            fabkeep_network::Remedy::from("free some space").or(fabkeep_network::Remedy::NameWorkFolder),
        );
        return;
    }
    let what = format!(
        "for temporary copies of databases {} may be needed, {} are free",
        units::bytes(needed),
        units::bytes(free)
    );
    out.ok(Topic::Room, subject, what);
}

fn repository(out: &mut Diagnosis, folder: &Path, bytes: u64) {
    let Some(free) = host::free_bytes(folder) else { return };
    let subject = format!("repository {}", folder.display());
    if free < bytes {
        out.warn(
            Topic::Room,
            subject,
            format!("the first backup stores at most {}, {} are free", units::bytes(bytes), units::bytes(free)),
            "free some space, or put the repository on another disk: blocks are stored once for all nodes and compressed, so that less may do",
        );
    } else {
        out.ok(
            Topic::Room,
            subject,
            format!("{} are free, the first backup stores at most {}", units::bytes(free), units::bytes(bytes)),
        );
    }
}
