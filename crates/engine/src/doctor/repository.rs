//! The repository: reachable, readable, writable; its keys, and the clock of its store.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fabkeep_network::{Remedy, Rule};
use fabkeep_platform::kubernetes::Purpose;
use fabkeep_store::{History, IdentityFile, Repository, WriteTried, WriterKey};
use jiff::Timestamp;

use super::{CLOCK_SECONDS, Diagnosis, DoctorOptions, DoctorRepository, Known, Outcome, Topic};
use crate::repository::remark_finding;
use crate::units;

pub(super) fn examine(out: &mut Diagnosis, examined: DoctorRepository<'_>, options: &DoctorOptions) -> Option<Known> {
    let repository = match examined.opened {
        Ok(repository) => repository,
        Err(error) => {
            out.error(Topic::Repository, Outcome::Failed, examined.location, error);
            return None;
        }
    };
    let history = match repository.history() {
        Ok(history) => history,
        Err(error) => {
            out.error(Topic::Repository, Outcome::Failed, examined.location, error);
            return None;
        }
    };
    let points = units::counted(history.commits.len(), "recovery point");
    let newest = history.latest().map(|commit| format!(", the newest of {}", commit.id.time())).unwrap_or_default();
    let what = format!("repository {} can be read: {points}{newest}", repository.config().id);
    out.ok(Topic::Repository, examined.location, what);
    history.remarks.iter().for_each(|remark| out.finding(Topic::Repository, remark_finding(remark)));
    trial(out, examined.location, &repository, &history);
    writer(out, examined.keys.writer.as_deref(), &repository, &history);
    identity(out, examined.keys.identity.as_deref(), &repository, options);
    clocks(out, &repository, &history);
    Some(Known { history, folder: repository.folder().map(Path::to_path_buf) })
}

fn trial(out: &mut Diagnosis, location: &str, repository: &Repository, history: &History) {
    let before = Timestamp::now();
    match repository.try_write(history) {
        Ok(WriteTried::InFolders { written }) => {
            out.ok(Topic::Repository, location, "it can be written to: a file was written and removed");
            let (earliest, latest) = (before.as_second() - 1, Timestamp::now().as_second() + 1);
            let told = written.as_second();
            let ahead = if told < earliest { told - earliest } else { (told - latest).max(0) };
            out.clock("the repository's file system", ahead);
        }
        Ok(WriteTried::OnlyOnce) => out.ok(
            Topic::Repository,
            location,
            "it can be written to, and the store refuses to write over an object: nothing was written, because objects may not be removable",
        ),
        Ok(WriteTried::WroteOver) => out.fail(
            Topic::Repository,
            location,
            "the store writes over objects that exist (it ignores `If-None-Match: *`): two backups could replace each other's objects; the trial wrote an object over itself",
            "use a store that supports conditional writes, or a folder",
        ),
        Err(error) => out.error(Topic::Repository, Outcome::Failed, location, error),
    }
}

/// Reports a key file that others can read.
fn permissions(out: &mut Diagnosis, path: &Path) -> bool {
    let Ok(metadata) = path.metadata() else { return true };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return true;
    }
    let what = format!("others can read or write this key file (mode {mode:03o})");
    out.warn(Topic::Keys, path.display(), what, format!("`chmod 600 {}`", path.display()));
    false
}

fn writer(out: &mut Diagnosis, path: Option<&Path>, repository: &Repository, history: &History) {
    let Some(path) = path else {
        out.fail(
            Topic::Keys,
            "writer key",
            format!("the writer key of repository {} is not in the key folder of this machine", repository.config().id),
            Remedy::NameWriterKey,
        );
        return;
    };
    let checked = WriterKey::read(path).and_then(|key| repository.check_writer_key(&key, history));
    if let Err(error) = checked {
        out.error(Topic::Keys, Outcome::Failed, format!("writer key {}", path.display()), error);
        return;
    }
    let private = permissions(out, path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
        out.note(
            Topic::Keys,
            folder.display(),
            "the folder of the writer key is not writable: this machine cannot remember its last recovery point",
            Remedy::from("make it writable").or(Remedy::ExpectPoint),
        );
    }
    if private {
        out.ok(
            Topic::Keys,
            format!("writer key {}", path.display()),
            "it belongs to this repository, and only its owner can read it",
        );
    }
}

fn identity(out: &mut Diagnosis, path: Option<&Path>, repository: &Repository, options: &DoctorOptions) {
    let Some(path) = path else {
        if options.wants(Purpose::Restore) {
            let what = "the identity (private key) is not in the key folder of this machine: a restore needs it";
            out.fail(Topic::Keys, "identity", what, Remedy::NameIdentity);
        } else {
            out.ok(
                Topic::Keys,
                "identity",
                "it is not on this machine, and a backup does not need it: keep it where restores can use it",
            );
        }
        return;
    };
    if IdentityFile::is_protected(path) {
        if permissions(out, path) {
            let what = "it is protected by a passphrase, and was not tried; only its owner can read the file";
            out.ok(Topic::Keys, format!("identity {}", path.display()), what);
        }
        return;
    }
    let checked = IdentityFile::read(path).and_then(|identity| repository.check_reader(&identity));
    if let Err(error) = checked {
        out.error(Topic::Keys, Outcome::Failed, format!("identity {}", path.display()), error);
        return;
    }
    if permissions(out, path) {
        out.ok(
            Topic::Keys,
            format!("identity {}", path.display()),
            "it reads this repository, and only its owner can read it; a machine that only makes backups does not need it",
        );
    }
}

/// The clocks of other writers and of the store, by what they wrote.
fn clocks(out: &mut Diagnosis, repository: &Repository, history: &History) {
    let limit = Timestamp::now().as_second() + CLOCK_SECONDS;
    if let Ok(Some(written)) = repository.newest_write()
        && written.as_second() > limit
    {
        let ahead = written.as_second() - Timestamp::now().as_second();
        out.clock("the store's newest object", ahead);
    }
    let newest = history
        .commits
        .iter()
        .filter_map(|commit| Some((commit.committed.parse::<Timestamp>().ok()?, commit)))
        .max_by_key(|(time, _)| *time);
    if let Some((time, commit)) = newest.filter(|(time, _)| time.as_second() > limit) {
        let finding = fabkeep_network::Finding::warning(
            Rule::CommitClock,
            format!("recovery point {}", commit.id),
            format!("it was committed at {time}, which is later than this machine's clock says"),
            "set the clocks of the machines that write backups; `latest` is the recovery point that was committed last",
        );
        out.finding(Topic::Clocks, finding);
    }
}
