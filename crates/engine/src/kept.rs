//! Snapshots that stay in their cluster with a recovery point. What belongs to which point is found by notes that a writer of the repository
//! has signed; what others wrote into the cluster is ignored, and never removed.

use std::collections::BTreeMap;

use fabkeep_network::{Finding, Rule};
use fabkeep_platform::kubernetes::{ClusterAddress, KeptSnapshots};
use fabkeep_platform::{KeptSnapshot, Platform};
use fabkeep_store::{History, Repository, Signer, WriterKey, open_statement};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::misuse::Misuse;

/// What a note says, signed.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    repository: String,
    root: String,
    point: String,
    network: String,
    kept: KeptSnapshot,
}

/// The snapshots in a cluster that one recovery point has kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptSet {
    pub point: String,
    pub network: String,
    pub snapshots: Vec<KeptSnapshot>,
    /// The age of the youngest, in seconds.
    pub age_seconds: i64,
}

/// Keeps the snapshots of a recovery point that is committed.
fn keep(
    platform: &dyn Platform,
    repository: &Repository,
    key: &WriterKey,
    (point, network): (&str, &str),
    kept: &[KeptSnapshot],
) -> Result<(), EngineError> {
    let mut notes = Vec::new();
    for kept in kept {
        let note = Note {
            repository: repository.config().id.clone(),
            root: repository.config().root.clone(),
            point: point.to_owned(),
            network: network.to_owned(),
            kept: kept.clone(),
        };
        let payload = serde_json::to_vec(&note).map_err(|error| Misuse::new(error.to_string()))?;
        let signed = repository.sign_statement(&payload, &Signer::Writer(key))?;
        notes.push((kept.clone(), String::from_utf8(signed).map_err(|error| Misuse::new(error.to_string()))?));
    }
    Ok(platform.keep_snapshots(&notes)?)
}

/// Returns what writers of this repository have kept in a cluster, by recovery point.
fn sets(repository: &Repository, access: &KeptSnapshots) -> Result<Vec<KeptSet>, EngineError> {
    let (id, root) = (&repository.config().id, &repository.config().root);
    let mut out: BTreeMap<String, KeptSet> = BTreeMap::new();
    for found in access.list()? {
        let Ok(statement) = open_statement(&found.content, found.note.as_bytes(), Some(root)) else { continue };
        let Ok(note) = serde_json::from_slice::<Note>(&statement.payload) else { continue };
        let recorded = (&note.kept.content, &note.kept.content_uid, &note.kept.handle);
        if note.repository != *id || recorded != (&found.content, &found.content_uid, &found.handle) {
            continue;
        }
        let set = out.entry(note.point.clone()).or_insert_with(|| KeptSet {
            point: note.point,
            network: note.network,
            snapshots: Vec::new(),
            age_seconds: found.age_seconds,
        });
        set.age_seconds = set.age_seconds.min(found.age_seconds);
        set.snapshots.push(note.kept);
    }
    Ok(out.into_values().collect())
}

/// Returns the sets of a network that are no longer wanted: those of recovery points that are gone, and those beyond the newest `keep`.
fn surplus<'s>(sets: &'s [KeptSet], history: &History, network: &str, keep: usize) -> Vec<&'s KeptSet> {
    let mut of_network: Vec<&KeptSet> = sets.iter().filter(|set| set.network == network).collect();
    let place = |set: &KeptSet| history.commits.iter().position(|commit| commit.id.as_str() == set.point);
    let mut gone: Vec<&KeptSet> = of_network.iter().copied().filter(|set| history.is_gone(&set.point)).collect();
    // Those whose commit records are damaged are left alone.
    of_network.retain(|set| place(set).is_some());
    of_network.sort_by_key(|set| std::cmp::Reverse(place(set)));
    gone.extend(of_network.into_iter().skip(keep));
    gone
}

/// Keeps a committed recovery point's snapshots, and removes older sets of its network beyond `keep`. What went wrong is a warning: the
/// recovery point is complete without.
pub(crate) fn after_commit(
    platform: &dyn Platform,
    repository: &Repository,
    key: &WriterKey,
    (point, network): (&str, &str),
    kept: &[KeptSnapshot],
    count: usize,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if count > 0 && kept.is_empty() {
        findings.push(Finding::warning(
            Rule::Snapshots,
            point,
            "no snapshots are kept in the cluster for it: its volumes were read without",
            "no action is needed; a restore writes the volumes from the repository",
        ));
    }
    if !kept.is_empty()
        && let Err(error) = keep(platform, repository, key, (point, network), kept)
    {
        findings.push(Finding::warning(
            Rule::Snapshots,
            point,
            format!("the recovery point is complete, but its snapshots could not be kept in the cluster: {error}"),
            "correct what is reported before the next backup; a restore writes the volumes from the repository",
        ));
    }
    let removed = || -> Result<(), EngineError> {
        let Some(access) = platform.kept_snapshots() else { return Ok(()) };
        let sets = sets(repository, &access)?;
        let surplus = surplus(&sets, &repository.history()?, network, count);
        let snapshots: Vec<&KeptSnapshot> = surplus.iter().flat_map(|set| &set.snapshots).collect();
        Ok(access.remove(&snapshots)?)
    };
    if let Err(error) = removed() {
        findings.push(Finding::warning(
            Rule::Snapshots,
            network,
            format!("snapshots that older recovery points have kept in the cluster could not be removed: {error}"),
            "correct what is reported: the next backup removes them",
        ));
    }
    findings
}

/// Removes snapshots that were kept for recovery points which are gone from the repository: those older than this many seconds, of these
/// namespaces (empty: of all). Returns what they are.
///
/// # Errors
/// [`EngineError`].
pub fn clean_kept(
    repository: &Repository,
    address: &ClusterAddress,
    namespaces: &[String],
    older_than_seconds: i64,
    only_look: bool,
) -> Result<Vec<String>, EngineError> {
    let access = KeptSnapshots::open(address)?;
    let history = repository.history()?;
    let mut out = Vec::new();
    for set in sets(repository, &access)? {
        if !history.is_gone(&set.point) || set.age_seconds < older_than_seconds {
            continue;
        }
        let meant = |kept: &&KeptSnapshot| namespaces.is_empty() || namespaces.contains(&kept.namespace);
        let snapshots: Vec<&KeptSnapshot> = set.snapshots.iter().filter(meant).collect();
        if !only_look {
            access.remove(&snapshots)?;
        }
        out.extend(snapshots.iter().map(|kept| {
            format!(
                "VolumeSnapshot {}/{} of claim {} (kept for {}, which is gone from the repository)",
                kept.namespace,
                kept.name,
                kept.of(),
                set.point
            )
        }));
    }
    Ok(out)
}
