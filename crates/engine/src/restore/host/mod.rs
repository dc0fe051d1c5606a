//! Restore on hosts: every directory is written beside its place and verified there, and is then put into place by renames; the previous
//! directory is set aside.

mod disk;
mod existing;
mod finishing;
mod journal;
mod may_change;
mod old_paths;
mod places;
mod plan;
mod prove;
mod restart;
mod room;
mod running;
mod same_files;
mod same_place;
mod staging;
mod switch;
mod volume;

use std::path::PathBuf;

use fabkeep_network::Severity;
use fabkeep_platform::Host;
use fabkeep_store::StoreError;
use parking_lot::Mutex;

use super::ca::databases;
use super::progress::{Record, Step};
use super::write::{self, WriteVolume};
use super::{KeptFiles, RestoreOptions, RestorePlan, Restored, SetAside};
use crate::event::{Reporter, step};
use crate::point::{CapturedNode, RecoveryPoint};
use crate::transform::{Transformed, is_named};
use crate::{Done, EngineError, Next};
use finishing::Finishing;
use volume::SharedJournal;

pub(in crate::restore) use disk::Disk;
pub(in crate::restore) use journal::Journal;
pub(in crate::restore) use plan::{Plan, PlannedDirectory, make as plan};
pub(in crate::restore) use staging::free_name;

/// Where directories go.
#[derive(Clone)]
pub(in crate::restore) enum Places<'a> {
    /// Below a folder, in the captured layout.
    Below(PathBuf),
    /// Where an inventory says.
    Of(&'a Host),
}

impl<'a> Places<'a> {
    /// The host whose nodes' places they are.
    pub fn host(&self) -> Option<&'a Host> {
        match self {
            Places::Of(host) => Some(host),
            Places::Below(_) => None,
        }
    }
}

impl Plan<'_> {
    /// Nodes whose data is written.
    pub fn written<'t>(&self, transformed: &'t Transformed) -> Vec<&'t CapturedNode> {
        transformed.point.nodes.iter().filter(|node| is_named(&node.facts.id, &transformed.nodes)).collect()
    }
}

/// One run of a restore: what it works with.
pub(in crate::restore) struct Run<'a> {
    whole: &'a RestorePlan<'a>,
    plan: &'a Plan<'a>,
    point: &'a RecoveryPoint,
    options: &'a RestoreOptions,
    threads: usize,
    reporter: &'a dyn Reporter,
    disk: Disk<'a>,
}

impl<'a> Run<'a> {
    pub fn new(whole: &'a RestorePlan<'a>, plan: &'a Plan<'a>, reporter: &'a dyn Reporter) -> Run<'a> {
        let (point, options) = (whole.point(), &whole.options);
        let threads = options.threads();
        Run { whole, plan, point, options, threads, reporter, disk: Disk::new(reporter) }
    }

    /// Carries the plan out; an error carries what was done until then.
    pub fn execute(&self, restored: &mut Restored) -> Result<(), EngineError> {
        let mut journal = Journal::open(self.plan, &self.whole.point, &self.whole.fingerprint, self.disk)?;
        restored.resumed = journal.is_resumed();
        if let Err(error) = self.data(&mut journal, restored) {
            if self.is_useless(&error, &journal) {
                self.remove_written()?;
            }
            let done = self.plan.done_by(&journal);
            if done.is_empty() {
                journal.abandon()?;
                return Err(error);
            }
            return Err(error.after(done, Next::SameCommand));
        }
        if let Err(error) = self.restart_others(&mut journal) {
            return Err(error.after(self.plan.done_by(&journal), Next::SameCommand));
        }
        let finished = self
            .start(&mut journal, restored)
            .and_then(|()| databases::remove_loaded(self.plan, self.disk))
            .and_then(|()| journal.finish());
        if let Err(error) = finished {
            let nodes = self.plan.to_start.iter().map(ToString::to_string);
            let nodes: Vec<String> = nodes.filter(|node| !journal.is_started(node)).collect();
            let next = if nodes.is_empty() { Next::SameCommand } else { Next::StartNodes { nodes } };
            return Err(error.after(self.plan.done_by(&journal), next));
        }
        let asides = restored.directories.iter().filter_map(|directory| {
            let to = directory.set_aside.as_ref()?.display().to_string();
            Some(SetAside { what: directory.path.display().to_string(), to })
        });
        restored.set_aside = asides.collect();
        Ok(())
    }

    /// Returns whether what this run has written is of no use: the repository lacks a part of it, and nothing else was changed.
    fn is_useless(&self, error: &EngineError, journal: &Journal<'_>) -> bool {
        let of_repository = matches!(
            error,
            EngineError::Store(StoreError::Damaged { .. } | StoreError::Untrusted { .. } | StoreError::Missing(_))
        );
        let only_written = || self.plan.done_by(journal).iter().all(|done| matches!(done, Done::Written { .. }));
        of_repository && !journal.is_resumed() && only_written()
    }

    /// Removes what was written beside the places.
    fn remove_written(&self) -> Result<(), EngineError> {
        let regions = self.plan.directories.iter().flat_map(|planned| &planned.staging.regions);
        for region in regions.filter(|region| region.staging.symlink_metadata().is_ok()) {
            self.disk.remove_tree(&region.staging)?;
        }
        Ok(())
    }

    /// Stops what has to be stopped, writes, proves, puts into place and loads databases.
    fn data(&self, journal: &mut Journal<'_>, restored: &mut Restored) -> Result<(), EngineError> {
        let (plan, point, reporter, disk) = (self.plan, self.point, self.reporter, self.disk);
        let reader = &self.whole.reader;
        journal.note_all(self.overridden())?;
        self.stop(journal)?;
        switch::finish_begun(plan, point, journal, disk)?;
        switch::keep_equal(plan, point, reader.names(), journal)?;
        switch::prepare(plan, journal, disk)?;
        restored.proven = self.write_and_prove(journal)?;
        restored.bytes = self.whole.bytes;
        restored.kept = self.kept(journal);
        self.check_stopped(journal)?;
        restored.directories =
            step(reporter, "put into place", None, || switch::switch_all(plan, point, journal, disk))?;
        if !plan.loads.is_empty() {
            let loaded = step(reporter, "load databases", None, || databases::load_all(plan, journal, disk))?;
            restored.proven.extend(loaded.0);
            restored.directories.extend(loaded.1);
        }
        Ok(())
    }

    /// Writes everything beside its place and reads it back; when this ends, it is on the disk. What was proven, in sentences.
    fn write_and_prove(&self, journal: &mut Journal<'_>) -> Result<Vec<String>, EngineError> {
        let failed = Mutex::new(None);
        let journal: SharedJournal<'_, '_> = Mutex::new(journal);
        let proven = std::thread::scope(|scope| {
            let finishing = Finishing::begin(scope, self.threads, &failed);
            let pending = volume::pending(self, &journal, &finishing);
            let volumes: Vec<&dyn WriteVolume> = pending.iter().map(|one| one as &dyn WriteVolume).collect();
            let (bytes, reporter) = (self.whole.bytes, self.reporter);
            write::write_all(&volumes, self.point, &self.whole.reader, self.threads, bytes, reporter)?;
            // Files are still added to the journal.
            let record: Record = journal.lock().clone();
            step(reporter, "prove", Some(bytes), || prove::prove(self, &record))
        })?;
        failed.into_inner().map_or(Ok(proven), Err)
    }

    /// Files that stay where they were.
    fn kept(&self, journal: &Journal<'_>) -> KeptFiles {
        let mut kept = KeptFiles::default();
        for (index, planned) in self.plan.directories.iter().enumerate() {
            let entries = &self.point.nodes[planned.node].directories[planned.directory].entries;
            let stay = entries.iter().enumerate().filter(|(position, _)| journal.is_kept(index, *position));
            kept = stay.fold(kept, |kept, (_, entry)| kept.and(entry.size()));
        }
        kept
    }

    /// Findings that would have forbidden the restore.
    fn overridden(&self) -> impl Iterator<Item = Step> {
        let broken = self.whole.findings.iter().filter(|finding| finding.severity == Severity::Error);
        broken.filter(|finding| self.options.is_overridden(finding)).map(|finding| Step::Overridden {
            rule: finding.rule.code().to_owned(),
            subject: finding.subject.clone(),
            what: finding.what.clone(),
        })
    }
}
