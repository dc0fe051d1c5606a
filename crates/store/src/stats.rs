//! What a repository's bytes are for.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::commit::PointId;
use crate::history::checkpoint_of;
use crate::keys::IdentityFile;
use crate::prune::{Amount, list_all};
use crate::reach::Reached;
use crate::{Repository, StoreError};

/// What a network, or a recovery point, needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// All of it.
    pub needed: Amount,
    /// What nothing else needs.
    pub only: Amount,
}

/// A recovery point's part of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PointStats {
    /// The recovery point.
    pub point: PointId,
    /// Its network.
    pub network: String,
    /// What it needs, and what only it needs.
    #[serde(flatten)]
    pub bytes: Needed,
    /// Sealed bytes that it added.
    pub added_bytes: u64,
}

/// What a repository's bytes are for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Everything.
    pub all: Amount,
    /// By kind: `objects`, `manifests`, `indexes`, `digests`, `checkpoints`, `commits`, `records`.
    pub kinds: BTreeMap<&'static str, Amount>,
    /// By network.
    pub networks: BTreeMap<String, Needed>,
    /// By recovery point, by network and in the order of their commits.
    pub points: Vec<PointStats>,
    /// Objects, manifests, indexes and commit records that no recovery point needs: `prune` frees them.
    pub unreferenced: Amount,
    /// Of these, what a prune has recorded already.
    pub recorded: Amount,
    /// Sealed bytes that were added in a day, on average over the last 30 days in which there are points.
    pub growth_per_day: Option<u64>,
}

/// Days over which growth is measured.
const GROWTH_DAYS: i64 = 30;

fn kind(name: &str) -> &'static str {
    match name.split('/').next() {
        Some("objects") => "objects",
        Some("manifests") => "manifests",
        Some("points") => "commits",
        Some("index") => match checkpoint_of(name) {
            Some((_, 0)) => "digests",
            Some(_) => "checkpoints",
            None => "indexes",
        },
        _ => "records",
    }
}

impl Repository {
    /// Returns what the repository's bytes are for. With the identity also points whose indexes cannot be read are taken into account.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed or read.
    pub fn stats(&self, identity: Option<&IdentityFile>) -> Result<Stats, StoreError> {
        let mut stats = Stats::default();
        let (prunings, _) = self.prunings()?;
        let recorded: HashSet<String> = prunings.into_iter().flat_map(|(pruning, _)| pruning.names).collect();
        for (name, size) in self.backend.list("")? {
            stats.all.add(size);
            stats.kinds.entry(kind(&name)).or_default().add(size);
        }
        let present = list_all(&self.backend)?;
        let history = self.history()?;
        let (bad, _) = self.bad_objects()?;
        let roots = self.roots(&history);
        let reach = self.reach(&roots, &present, &bad, &recorded, identity)?;
        let network = |at: u32| {
            let commit = roots.get(at as usize).and_then(|root| root.commit.as_ref());
            commit.map(|commit| commit.summary.network.as_str())
        };
        let mut points: Vec<Needed> = vec![Needed::default(); roots.len()];
        for object in &reach.objects {
            let (mut count, mut last) = (0, 0);
            let mut networks: BTreeSet<Option<&str>> = BTreeSet::new();
            for (first, end) in &object.needed_by {
                networks.extend((*first..*end).map(network));
            }
            for point in object.points() {
                (count, last) = (count + 1, point);
                points[point as usize].needed.add(object.size);
            }
            if count == 1 {
                points[last as usize].only.add(object.size);
            }
            for name in networks.iter().flatten() {
                let all = stats.networks.entry((*name).to_owned()).or_default();
                all.needed.add(object.size);
                if networks.len() == 1 {
                    all.only.add(object.size);
                }
            }
        }
        let mut stays: BTreeSet<String> = BTreeSet::new();
        for (root, mut bytes) in roots.iter().zip(points) {
            stays.extend([format!("manifests/{}", root.id), format!("index/{}", root.id), root.id.commit_name()]);
            let Some(commit) = &root.commit else { continue };
            for entry in [&commit.manifest, &commit.index] {
                bytes.needed.add(entry.size);
                bytes.only.add(entry.size);
                let all = stats.networks.entry(commit.summary.network.clone()).or_default();
                all.needed.add(entry.size);
                all.only.add(entry.size);
            }
            stats.points.push(PointStats {
                point: root.id.clone(),
                network: commit.summary.network.clone(),
                bytes,
                added_bytes: commit.new_bytes,
            });
        }
        for (name, stat) in &present {
            let digest = matches!(checkpoint_of(name), Some((_, 0)));
            let needed = reach.get(name).is_some_and(Reached::is_needed);
            if !digest && !needed && !stays.contains(name) {
                stats.unreferenced.add(stat.size);
                if recorded.contains(name) {
                    stats.recorded.add(stat.size);
                }
            }
        }
        stats.growth_per_day = growth(&history.commits);
        Ok(stats)
    }
}

/// Returns the bytes that were added in a day: from the first to the last point of the newest 30 days, if that is a day at
/// least. What the first of them added came before.
fn growth(commits: &[crate::Commit]) -> Option<u64> {
    let time = |commit: &crate::Commit| commit.created.parse::<Timestamp>().ok();
    let last = commits.iter().filter_map(time).max()?;
    let since = last.as_second().saturating_sub(GROWTH_DAYS * 86_400);
    let recent: Vec<(Timestamp, u64)> = commits
        .iter()
        .filter_map(|commit| Some((time(commit)?, commit.new_bytes)))
        .filter(|(time, _)| time.as_second() >= since)
        .collect();
    let first = recent.iter().map(|(time, _)| *time).min()?;
    let seconds = last.as_second().saturating_sub(first.as_second());
    // What was added in hours says little of a day.
    if seconds < 86_400 {
        return None;
    }
    let added: u64 = recent.iter().filter(|(time, _)| *time > first).map(|(_, bytes)| bytes).sum();
    u64::try_from(u128::from(added) * 86_400 / seconds as u128).ok()
}
