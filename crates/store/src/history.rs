//! The recovery points in the order of their commits. Each commit names the ones before it, so that the order does not depend on clocks and
//! a removed commit is noticed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::commit::{Commit, PointId, Previous};
use crate::forgotten::{self, ForgottenPoints};
use crate::index::ObjectEntry;
use crate::keys::WriterKey;
use crate::remark::{Remark, RemarkKind};
use crate::trust::untrusted;
use crate::{Repository, StoreError, drills, marks, memory, pruning, revoked, signed};

/// Every committed recovery point that can be trusted, and what is not as it should be.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In the order of commits, oldest first.
    pub commits: Vec<Commit>,
    /// What else there is.
    pub remarks: Vec<Remark>,
    /// BLAKE3 of the commit records' bytes, by recovery point.
    hashes: HashMap<PointId, String>,
    /// Who signed each commit record: the verifying key, hexadecimal.
    signers: HashMap<PointId, String>,
    /// Writers' certificates that commit records carry.
    pub(crate) certificates: BTreeSet<String>,
    /// Recovery points that were given up.
    pub(crate) forgotten: ForgottenPoints,
    /// Recovery points that were committed, and whose commit records are damaged or gone.
    pub(crate) lost: BTreeSet<PointId>,
}

/// A commit record that was read.
struct ParsedCommit {
    commit: Commit,
    /// BLAKE3 of its bytes.
    hash: String,
    /// The certificate that it carries.
    certificate: Option<String>,
    /// Who signed it.
    signer: String,
}

impl History {
    /// Returns the recovery point that was committed last.
    pub fn latest(&self) -> Option<&Commit> {
        self.commits.last()
    }

    /// Returns whether a recovery point is not in the repository any more. One whose commit record is damaged or lost is not gone.
    pub fn is_gone(&self, point: &str) -> bool {
        let is_it = |id: &PointId| id.as_str() == point;
        !self.commits.iter().any(|commit| is_it(&commit.id)) && !self.lost.iter().any(is_it)
    }

    /// Commits that no other one follows. Forgotten ones are links of the chain as before.
    pub(crate) fn heads(&self) -> Vec<Previous> {
        let forgotten: Vec<_> = self.forgotten.all().filter(|point| !self.has(&point.point)).collect();
        let by_commits = self.commits.iter().flat_map(|commit| &commit.previous);
        let by_forgotten = forgotten.iter().flat_map(|point| &point.previous);
        let followed: BTreeSet<&PointId> = by_commits.chain(by_forgotten).map(|previous| &previous.point).collect();
        let chained = |commit: &&Commit| commit.sequence.is_some();
        // Of those that are in no chain, the last one represents all.
        let last_unchained = self.commits.iter().rfind(|commit| commit.sequence.is_none());
        let forgotten = forgotten
            .iter()
            .filter(|point| point.sequence.is_some() && !followed.contains(&point.point))
            .map(|point| Previous { point: point.point.clone(), blake3: point.blake3.clone() });
        self.commits
            .iter()
            .filter(chained)
            .chain(last_unchained)
            .filter(|commit| !followed.contains(&commit.id))
            .filter_map(|commit| {
                Some(Previous { point: commit.id.clone(), blake3: self.hashes.get(&commit.id)?.clone() })
            })
            .chain(forgotten)
            .collect()
    }

    /// Returns the sequence number of the next commit.
    pub(crate) fn next_sequence(&self) -> u64 {
        let forgotten = self.forgotten.all().filter_map(|point| point.sequence);
        let highest = self.commits.iter().filter_map(|commit| commit.sequence).chain(forgotten).max();
        highest.unwrap_or(0).saturating_add(1)
    }

    /// Returns the hash of a recovery point's commit record, hexadecimal.
    pub(crate) fn hash(&self, point: &PointId) -> Option<&str> {
        self.hashes.get(point).map(String::as_str)
    }

    /// Returns the key of the writer that has committed a recovery point, hexadecimal.
    pub(crate) fn signer(&self, point: &PointId) -> Option<&str> {
        self.signers.get(point).map(String::as_str)
    }

    fn add(&mut self, parsed: ParsedCommit) {
        let id = parsed.commit.id.clone();
        self.hashes.insert(id.clone(), parsed.hash);
        self.signers.insert(id, parsed.signer);
        self.certificates.extend(parsed.certificate);
        self.commits.push(parsed.commit);
    }

    /// Returns whether a recovery point is there or was given up: it is not missing.
    pub(crate) fn accounts_for(&self, point: &PointId) -> bool {
        self.has(point) || self.forgotten.any(point).is_some()
    }

    /// Returns whether a recovery point is there.
    pub(crate) fn has(&self, point: &PointId) -> bool {
        self.hashes.contains_key(point)
    }

    /// Takes in what others have committed since.
    pub(crate) fn refresh(&mut self, repository: &Repository) -> Result<(), StoreError> {
        let names: Vec<String> = repository.backend.list("points")?.into_keys().collect();
        let known = |id: &PointId| self.hashes.contains_key(id) || self.forgotten.is_here(id);
        let new = |name: &String| point_of(name, "points").is_some_and(|id| !known(&id));
        let new: Vec<String> = names.into_iter().filter(new).collect();
        for (name, read) in repository.backend.get_many(&new)? {
            if let Ok(parsed) = read.and_then(|bytes| repository.parse_commit(&name, &bytes)) {
                self.add(parsed);
            }
        }
        self.sort();
        Ok(())
    }

    fn sort(&mut self) {
        let time = |commit: &Commit| commit.committed.parse::<jiff::Timestamp>().ok();
        let chained: Vec<(Option<jiff::Timestamp>, u64)> =
            self.commits.iter().filter_map(|commit| Some((time(commit), commit.sequence?))).collect();
        // Commits of older versions are ordered after the chain's commits of the same time.
        let place = |commit: &Commit| match commit.sequence {
            Some(sequence) => (sequence, 0),
            None => {
                let own = time(commit);
                let before = chained.iter().filter(|(other, _)| *other <= own).map(|(_, sequence)| *sequence).max();
                (before.unwrap_or(0), 1)
            }
        };
        let mut keyed: Vec<((u64, u8), Commit)> =
            std::mem::take(&mut self.commits).into_iter().map(|commit| (place(&commit), commit)).collect();
        keyed.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        self.commits = keyed.into_iter().map(|(_, commit)| commit).collect();
    }

    /// Commits that others name and that are not there, or are not those that were named.
    fn judge_chain(&mut self, unreadable: &BTreeSet<PointId>, of_revoked: &BTreeSet<PointId>) {
        let mut missed: BTreeMap<PointId, Remark> = BTreeMap::new();
        let commits = self.commits.iter().map(|commit| (&commit.id, &commit.previous));
        let named = self.commits.iter().flat_map(|commit| &commit.previous).map(|previous| &previous.point);
        let forgotten = self.forgotten.that_vouch(named).into_iter().map(|point| (&point.point, &point.previous));
        for (by, all) in commits.chain(forgotten) {
            for previous in all {
                let object = previous.point.commit_name();
                let remark = match self.hashes.get(&previous.point) {
                    Some(hash) if *hash == previous.blake3 => continue,
                    Some(_) => Remark::new(
                        RemarkKind::Replaced,
                        object,
                        format!("it differs from the commit record that {by} names: it was replaced"),
                    ),
                    None if unreadable.contains(&previous.point) || of_revoked.contains(&previous.point) => continue,
                    None if self.forgotten.any(&previous.point).is_some() => continue,
                    None => Remark::new(
                        RemarkKind::Missing,
                        object,
                        format!("the recovery point was committed before {by}, and its commit record is gone"),
                    ),
                };
                missed.entry(previous.point.clone()).or_insert(remark);
            }
        }
        self.lost = missed.keys().filter(|point| !self.has(point)).cloned().collect();
        self.lost.extend(unreadable.iter().cloned());
        self.remarks.extend(missed.into_values());
    }

    /// Leaves out what was given up. This is read after the commit records: one that has gone since was given up before.
    fn leave_out_forgotten(&mut self, forgotten: ForgottenPoints) {
        self.forgotten = forgotten;
        let gone: BTreeSet<&PointId> = self.forgotten.here().collect();
        self.commits.retain(|commit| !gone.contains(&commit.id));
        for point in gone {
            self.hashes.remove(point);
        }
    }

    /// Points whose time is later than that of others that were committed after them.
    fn judge_clocks(&mut self) {
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        let mut highest: Option<&Commit> = None;
        let mut odd: BTreeMap<&PointId, (u64, &Commit)> = BTreeMap::new();
        for commit in &self.commits {
            match highest {
                // One that was begun before and committed after the other is in order.
                Some(high) if commit.id < high.id => {
                    if time(&commit.committed) < time(&high.created) {
                        odd.entry(&high.id).or_insert((0, commit)).0 += 1;
                    }
                }
                _ => highest = Some(commit),
            }
        }
        let remarks: Vec<Remark> = odd
            .into_iter()
            .map(|(high, (count, first))| {
                let problem = format!(
                    "its time, {}, is later than that of {count} recovery points that were committed after it ({} at {}): a clock was wrong; the commits define the order",
                    high.time(),
                    first.id,
                    first.id.time()
                );
                Remark::new(RemarkKind::Clock, high.commit_name(), problem)
            })
            .collect();
        self.remarks.extend(remarks);
    }
}

/// Returns the recovery point that an object below a prefix belongs to.
pub(crate) fn point_of(name: &str, prefix: &str) -> Option<PointId> {
    PointId::parse(name.strip_prefix(prefix)?.strip_prefix('/')?)
}

/// Returns whether a name below `index/` is that of a checkpoint: a point's name and a number.
fn is_checkpoint(name: &str) -> bool {
    checkpoint_of(name).is_some()
}

/// Returns the recovery point and the number of a checkpoint below `index/`.
pub(crate) fn checkpoint_of(name: &str) -> Option<(PointId, u64)> {
    let (point, number) = name.rsplit_once('-')?;
    let good = (4..=10).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((point_of(point, "index")?, number.parse().ok().filter(|_| good)?))
}

impl Repository {
    /// Returns every recovery point that can be trusted, in the order of commits, and other objects among them.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed or read.
    pub fn history(&self) -> Result<History, StoreError> {
        let mut history = History { remarks: self.remarks.clone(), ..History::default() };
        // Others write meanwhile: what a commit names is there when the commit is.
        let points: Vec<String> = self.backend.list("points")?.into_keys().collect();
        let manifests = self.backend.list("manifests")?;
        let indexes = self.backend.list("index")?;
        let (mut unreadable, mut of_revoked) = (BTreeSet::new(), BTreeSet::new());
        let mut named = BTreeSet::new();
        let foreign =
            |name: &str| Remark::new(RemarkKind::Foreign, name, "a repository has no objects with such names");
        let known: Vec<String> = points
            .into_iter()
            .filter(|name| {
                let good = point_of(name, "points").is_some();
                if !good {
                    history.remarks.push(foreign(name));
                }
                good
            })
            .collect();
        let mut damaged = Vec::new();
        for (name, read) in self.backend.get_many(&known)? {
            let Some(id) = point_of(&name, "points") else { continue };
            named.insert(id.clone());
            match read.and_then(|bytes| self.parse_commit(&name, &bytes)) {
                Ok(parsed) => history.add(parsed),
                Err(error @ StoreError::Revoked { .. }) => {
                    let problem = format!("{}: it is ignored", error.problem());
                    history.remarks.push(Remark::new(RemarkKind::Foreign, &name, problem));
                    of_revoked.insert(id);
                }
                Err(error) => {
                    // What has a manifest and an index is a point of the repository's, unless somebody who can write there wanted it to look so.
                    let ours = manifests.contains_key(&format!("manifests/{id}"))
                        || indexes.contains_key(&format!("index/{id}"));
                    let kind = if ours { RemarkKind::Damaged } else { RemarkKind::Foreign };
                    damaged.push((id.clone(), Remark::new(kind, &name, error.problem())));
                    unreadable.insert(id);
                }
            }
        }
        let missed = |history: &History| {
            let named = history.commits.iter().flat_map(|commit| &commit.previous);
            let known = |id: &PointId| history.has(id) || unreadable.contains(id) || of_revoked.contains(id);
            named.into_iter().any(|previous| !known(&previous.point))
        };
        if missed(&history) {
            // A listing takes time: it may not contain objects that were written meanwhile.
            history.refresh(self)?;
        } else {
            history.sort();
        }
        let (forgotten, more) = self.forgotten()?;
        history.remarks.extend(more);
        history.leave_out_forgotten(forgotten);
        unreadable.retain(|id| !history.forgotten.is_here(id));
        damaged.retain(|(id, _)| unreadable.contains(id));
        history.remarks.extend(damaged.into_iter().map(|(_, remark)| remark));
        let listed = history.commits.iter().filter(|commit| named.contains(&commit.id)).cloned().collect::<Vec<_>>();
        history.judge_chain(&unreadable, &of_revoked);
        revoked::judge_gone(&mut history, &self.revoked);
        history.judge_clocks();
        let mut uncommitted = BTreeSet::new();
        for name in manifests.keys() {
            match point_of(name, "manifests") {
                Some(id) if !named.contains(&id) => drop(uncommitted.insert(id)),
                Some(_) => {}
                None => history.remarks.push(foreign(name)),
            }
        }
        for name in indexes.keys() {
            match point_of(name, "index") {
                Some(id) if !named.contains(&id) => drop(uncommitted.insert(id)),
                Some(_) => {}
                None if is_checkpoint(name) => {}
                None => history.remarks.push(foreign(name)),
            }
        }
        uncommitted.retain(|id| history.forgotten.any(id).is_none());
        if !uncommitted.is_empty() {
            // Committed since the listing.
            let now = self.backend.list("points")?;
            let stopped: BTreeSet<&PointId> = history.commits.iter().flat_map(|commit| &commit.stopped).collect();
            uncommitted.retain(|id| !now.contains_key(&id.commit_name()) && !stopped.contains(id));
        }
        history.remarks.extend(uncommitted.into_iter().map(|id| {
            Remark::new(
                RemarkKind::Uncommitted,
                id.commit_name(),
                "it is missing, although its manifest or index exists: that backup was stopped just before its end, or still runs, or its commit record was removed",
            )
        }));
        let wrong = |entry: &ObjectEntry, here: &BTreeMap<String, u64>| match here.get(&entry.name) {
            Some(&size) if size == entry.size => None,
            Some(&size) => Some(format!("it has {size} bytes, {} were written", entry.size)),
            None => Some("it is missing".to_owned()),
        };
        for commit in &listed {
            if let Some(problem) = wrong(&commit.manifest, &manifests) {
                let problem = format!("{problem}; recovery point {} names it", commit.id);
                history.remarks.push(Remark::new(RemarkKind::Missing, &commit.manifest.name, problem));
            }
            if let Some(problem) = wrong(&commit.index, &indexes) {
                let problem = format!(
                    "{problem}; recovery point {} names it, and its manifest contains all that a restore needs",
                    commit.id
                );
                history.remarks.push(Remark::new(RemarkKind::Unindexed, &commit.index.name, problem));
            }
        }
        Ok(history)
    }

    /// Returns remarks on objects whose names are not those of the repository's objects.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed.
    pub fn strays(&self) -> Result<Vec<Remark>, StoreError> {
        let all = self.backend.list("")?;
        let names = all.into_keys().filter(|name| !is_known(name));
        let problem = "a repository has no objects with such names";
        Ok(names.map(|name| Remark::new(RemarkKind::Foreign, name, problem)).collect())
    }

    /// One recovery point's commit record. `latest` is the one that was committed last; unambiguous beginnings of a name are understood.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPoint`] and others.
    pub fn point(&self, wanted: &str) -> Result<Commit, StoreError> {
        if wanted == "latest" {
            return self.history()?.latest().cloned().ok_or_else(|| StoreError::NoSuchPoint(wanted.to_owned()));
        }
        let names = self.backend.list("points")?;
        let (forgotten, _) = self.forgotten()?;
        let mut matching = names.keys().filter(|name| {
            let id = point_of(name, "points").filter(|id| !forgotten.is_here(id));
            !wanted.is_empty() && id.is_some_and(|id| id.as_str().starts_with(wanted))
        });
        match (matching.next(), matching.next()) {
            (Some(name), None) => Ok(self.parse_commit(name, &self.backend.need(name)?)?.commit),
            (Some(_), Some(_)) => Err(StoreError::NoSuchPoint(format!("{wanted} (several names begin with it)"))),
            (None, _) => Err(StoreError::NoSuchPoint(wanted.to_owned())),
        }
    }

    fn parse_commit(&self, name: &str, bytes: &[u8]) -> Result<ParsedCommit, StoreError> {
        let opened = signed::open(name, "commit", bytes)?;
        self.check_signer(name, &opened)?;
        let commit = Commit::parse(name, opened.payload)?;
        if commit.repository != self.config.id
            || PointId::parse(commit.id.as_str()).is_none()
            || commit.id.commit_name() != name
        {
            return Err(untrusted(name, "it was written for another repository or point"));
        }
        let hash = blake3::hash(bytes).to_hex().to_string();
        Ok(ParsedCommit {
            commit,
            hash,
            certificate: opened.certificate,
            signer: hex::encode(opened.signer.as_bytes()),
        })
    }

    /// Returns what a writer's own memory of its last recovery point says of the repository.
    pub fn remembered(&self, writer: &WriterKey, history: &History) -> Option<Remark> {
        let last = memory::last(&writer.memory()?, &self.config.id)?;
        let problem = match history.hashes.get(&last.point) {
            Some(hash) if *hash == last.blake3 => return None,
            Some(_) => "it differs from the commit record that this writer wrote: it was replaced",
            None if history.forgotten.any(&last.point).is_some_and(|known| known.blake3 == last.blake3) => return None,
            None => {
                "this writer has committed it, and it cannot be read: it was removed or damaged, or the repository was rolled back"
            }
        };
        Some(Remark::new(RemarkKind::Missing, last.point.commit_name(), problem))
    }

    /// Returns whether this point, or one that was committed later, is there: what another place knows of the repository.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPoint`] when it is no point's name.
    pub fn expected(&self, point: &str, history: &History) -> Result<Option<Remark>, StoreError> {
        let id = PointId::parse(point)
            .ok_or_else(|| StoreError::NoSuchPoint(format!("{point} (give the complete name)")))?;
        if history.accounts_for(&id) {
            return Ok(None);
        }
        let problem =
            "it is expected, but it is missing or cannot be read: it was removed, or the repository was rolled back";
        Ok(Some(Remark::new(RemarkKind::Missing, id.commit_name(), problem)))
    }
}

/// Returns whether an object is called as one of a repository's.
pub(crate) fn is_known(name: &str) -> bool {
    let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = |text: &str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    match name.split_once('/') {
        None => name == crate::config::CONFIG || name == forgotten::PLACE,
        Some(("writers", key)) => hex(key, 64),
        Some(("points", _)) => point_of(name, "points").is_some(),
        Some(("manifests", _)) => point_of(name, "manifests").is_some(),
        Some(("index", _)) => point_of(name, "index").is_some() || is_checkpoint(name),
        Some((
            folder
            @ ("faults" | marks::FOLDER | drills::FOLDER | forgotten::FOLDER | pruning::FOLDER | revoked::FOLDER),
            _,
        )) => point_of(name, folder).is_some(),
        Some(("objects", rest)) => rest.split_once('/').is_some_and(|(beginning, rest)| {
            let (hash, generation) = rest.split_once('.').map_or((rest, None), |(hash, last)| (hash, Some(last)));
            hex(beginning, 2) && hex(hash, 64) && generation.is_none_or(number)
        }),
        Some(_) => false,
    }
}
