//! State of this machine: the key that signs the records of its windows, and its own record of every open window, with the commands that
//! undo it. None of it is read from a cluster.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};

use super::note::{self, NoteProblem};
use super::{Change, WindowRecord};
use crate::PlatformError;

/// The folder, where the environment names it.
const FOLDER: &str = "FABKEEP_STATE_DIR";
/// The key's file, where the environment names it: several machines, or pods that keep nothing, may share one.
const KEY: &str = "FABKEEP_WINDOW_KEY";
const KEY_FILE: &str = "window.key";
/// Extension of the files that mark a window as closed.
const OVER: &str = "over";
/// Longest file read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Longest name of a window.
const MAX_RUN_BYTES: usize = 64;
/// How long this machine knows that a window is over.
const KEPT: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// What this machine keeps for itself.
#[derive(Debug, Clone)]
pub struct Machine {
    folder: PathBuf,
    /// A key file that is named; it is never made.
    key: Option<PathBuf>,
}

/// This machine's own record of a window.
#[derive(Serialize, Deserialize)]
struct Remembered {
    place: Vec<String>,
    /// Whether its record is in its place: changes are made only while it is.
    noted: bool,
    window: WindowRecord,
}

impl Default for Machine {
    /// `FABKEEP_STATE_DIR`, `$XDG_STATE_HOME/fabkeep`, `$HOME/.local/state/fabkeep` or `/var/lib/fabkeep`; the key is `window.key` there, or
    /// the file that `FABKEEP_WINDOW_KEY` names.
    fn default() -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = absolute(FOLDER)
            .or_else(|| Some(absolute("XDG_STATE_HOME")?.join("fabkeep")))
            .or_else(|| Some(absolute("HOME")?.join(".local/state/fabkeep")))
            .unwrap_or_else(|| PathBuf::from("/var/lib/fabkeep"));
        Machine { folder, key: std::env::var_os(KEY).map(PathBuf::from) }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PlatformError {
    let path = path.display().to_string();
    move |source| PlatformError::Io { path, source }
}

/// Reads a file that nobody else can have written, nor read.
fn read_own(path: &Path) -> io::Result<Option<String>> {
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    let wrong = |problem: &str| Err(io::Error::new(ErrorKind::PermissionDenied, problem.to_owned()));
    if metadata.uid() != own && metadata.uid() != 0 {
        return wrong("it belongs to another user");
    }
    if metadata.mode() & 0o027 != 0 {
        return wrong("others may read or change it: chmod 600");
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Writes a file whole, readable by its owner only. `replace`: over one that exists.
fn write_own(path: &Path, text: &str, replace: bool) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let _ = std::fs::remove_file(&partial);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if replace { std::fs::rename(&partial, path) } else { std::fs::hard_link(&partial, path) }
    })();
    let _ = std::fs::remove_file(&partial);
    written?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Returns the file that marks the window of a record as closed.
fn over(record: &Path) -> PathBuf {
    record.with_extension(OVER)
}

fn parse_key(text: &str) -> io::Result<Ed25519KeyPair> {
    let bad = || io::Error::new(ErrorKind::InvalidData, "it is not a machine key (64 hexadecimal digits)");
    let seed = hex::decode(text.trim()).ok().filter(|seed| seed.len() == 32).ok_or_else(bad)?;
    Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| bad())
}

impl Machine {
    /// Returns a machine that keeps its key and records in this folder.
    pub fn at(folder: &Path) -> Self {
        Machine { folder: folder.to_path_buf(), key: None }
    }

    fn key_file(&self) -> PathBuf {
        self.key.clone().unwrap_or_else(|| self.folder.join(KEY_FILE))
    }

    fn key(&self) -> io::Result<Option<Ed25519KeyPair>> {
        read_own(&self.key_file())?.map(|text| parse_key(&text)).transpose()
    }

    /// Returns the key; made when there is none yet.
    fn key_or_new(&self) -> Result<Ed25519KeyPair, PlatformError> {
        let path = self.key_file();
        if let Some(key) = self.key().map_err(failed(&path))? {
            return Ok(key);
        }
        let missing = || io::Error::from(ErrorKind::NotFound);
        if self.key.is_some() {
            return Err(failed(&path)(missing()));
        }
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| failed(&path)(io::Error::other("no random bytes")))?;
        match write_own(&path, &format!("{}\n", hex::encode(seed)), false) {
            // Another run of this machine was quicker: its key is the one.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&path)(error)),
            _ => {}
        }
        self.key().map_err(failed(&path))?.ok_or_else(|| failed(&path)(missing()))
    }

    fn record_file(&self, run: &str) -> Option<PathBuf> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let named = !run.is_empty() && run.len() <= MAX_RUN_BYTES && run.chars().all(good);
        named.then(|| self.folder.join("windows").join(format!("{run}.json")))
    }

    /// Returns the text of a window's note, signed.
    ///
    /// # Errors
    /// [`PlatformError::Io`] when the key cannot be read or made.
    pub(crate) fn sign(&self, record: &WindowRecord, place: &[String]) -> Result<String, PlatformError> {
        let key = self.key_or_new()?;
        note::write(record, place, &key).map_err(|error| failed(&self.key_file())(io::Error::other(error)))
    }

    /// Reads a note. The commands that undo a window come from this machine's own record of it.
    ///
    /// # Errors
    /// Why it is not believed, and what it says.
    pub(crate) fn read(
        &self,
        text: &str,
        fits: &dyn Fn(&[String]) -> bool,
    ) -> Result<WindowRecord, (NoteProblem, Option<WindowRecord>)> {
        let (key, problem) = match self.key() {
            Ok(key) => (key, None),
            Err(error) => (None, Some(NoteProblem::Key(format!("{}: {error}", self.key_file().display())))),
        };
        let noted = note::read(text, key.as_ref(), fits).map_err(|(why, says)| match (why, problem) {
            (NoteProblem::Foreign, Some(problem)) => (problem, says),
            (why, _) => (why, says),
        })?;
        let path = self.record_file(&noted.run);
        if path.as_ref().is_some_and(|path| over(path).exists()) {
            return Err((NoteProblem::Over, Some(noted)));
        }
        let own = path.and_then(|path| self.remembered_in(&path).ok().flatten());
        Ok(match own {
            Some(own) if own.window.run == noted.run && fits(&own.place) => own.window,
            _ => noted,
        })
    }

    fn remembered_in(&self, path: &Path) -> io::Result<Option<Remembered>> {
        let Some(text) = read_own(path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Keeps this machine's own record of a window.
    ///
    /// # Errors
    /// [`PlatformError::Io`].
    pub(crate) fn remember(&self, window: &WindowRecord, place: &[String], noted: bool) -> Result<(), PlatformError> {
        let Some(path) = self.record_file(&window.run) else {
            return Err(failed(&self.folder)(io::Error::new(ErrorKind::InvalidInput, "no name for a window")));
        };
        let remembered = Remembered { place: place.to_vec(), noted, window: window.clone() };
        let text = serde_json::to_string_pretty(&remembered).map_err(|error| failed(&path)(io::Error::other(error)))?;
        write_own(&path, &text, true).map_err(failed(&path))
    }

    /// Removes this machine's own record of a window: it is over, whoever puts its note there again.
    ///
    /// # Errors
    /// [`PlatformError::Io`].
    pub(crate) fn forget(&self, run: &str) -> Result<(), PlatformError> {
        let Some(path) = self.record_file(run) else { return Ok(()) };
        write_own(&over(&path), "", true).map_err(failed(&path))?;
        self.forget_old();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes the marks of windows that were closed long ago.
    fn forget_old(&self) {
        let known = std::fs::read_dir(self.folder.join("windows")).into_iter().flatten().flatten();
        for entry in known.filter(|entry| entry.path().extension().is_some_and(|extension| extension == OVER)) {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > KEPT) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Returns a window of this place whose note was there when this machine opened it: it is open although somebody has removed the note.
    pub(crate) fn remembered(&self, fits: &dyn Fn(&[String]) -> bool) -> Option<WindowRecord> {
        let entries = std::fs::read_dir(self.folder.join("windows")).ok()?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths
            .iter()
            .filter_map(|path| self.remembered_in(path).ok().flatten())
            .find(|known| known.noted && fits(&known.place))
            .map(|known| known.window)
    }
}

impl WindowRecord {
    /// Returns the record with this command in the place of one that is not known.
    #[must_use]
    pub fn with_hook(mut self, after: &str) -> Self {
        for change in self.changes.iter_mut().filter(|change| matches!(change, Change::UnknownHook | Change::Hook(_))) {
            *change = Change::Hook(super::Hook { before: String::new(), after: after.to_owned() });
        }
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{Hook, ObjectRef};

    fn record() -> WindowRecord {
        let hook = Hook { before: "close".to_owned(), after: "open".to_owned() };
        let shop = ObjectRef { kind: "Deployment".to_owned(), namespace: "org1".to_owned(), name: "shop".to_owned() };
        let changes = vec![Change::Hook(hook), Change::Scale { workload: shop, replicas: Some(2) }];
        WindowRecord {
            run: "20261125T000000000Z-abcdef".to_owned(),
            begun: "b".to_owned(),
            by: "m".to_owned(),
            changes,
        }
    }

    fn here(place: &[String]) -> bool {
        place == ["here"]
    }

    #[test]
    fn a_note_is_believed_on_the_machine_that_signed_it_only_and_names_no_command() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (machine, stranger) = (Machine::at(folder.path()), Machine::at(other.path()));
        let place = ["here".to_owned()];
        let text = machine.sign(&record(), &place).unwrap();
        assert!(!text.contains("open\"") && !text.contains("close"), "{text}");
        let says = machine.read(&text, &here).unwrap();
        assert_eq!(says.changes[0], Change::UnknownHook);
        machine.remember(&record(), &place, true).unwrap();
        assert_eq!(machine.read(&text, &here).unwrap(), record());
        assert_eq!(machine.remembered(&here), Some(record()));
        assert_eq!(machine.remembered(&|_| false), None);
        let why = |text: &str, machine: &Machine| machine.read(text, &here).unwrap_err().0;
        assert_eq!(why(&text, &stranger), NoteProblem::Foreign);
        stranger.sign(&record(), &place).unwrap();
        assert_eq!(why(&text, &stranger), NoteProblem::Foreign);
        for (from, to) in [("shop", "mint"), ("org1", "org2"), ("\"b\"", "\"c\"")] {
            assert_eq!(why(&text.replace(from, to), &machine), NoteProblem::Altered, "{from}");
        }
        assert_eq!(machine.read(&text, &|_| false).unwrap_err().0, NoteProblem::OtherPlace);
        let (head, body) = text.split_once('\n').unwrap();
        assert_eq!(why(body, &machine), NoteProblem::NoNote);
        assert_eq!(why(&format!("{head}\n"), &machine), NoteProblem::NoNote);
        let old = serde_json::to_string_pretty(&record()).unwrap();
        assert_eq!(machine.read(&old, &here).unwrap_err(), (NoteProblem::Unsigned, Some(record())));
        for rubbish in ["", "{}", "\n", "null", "{\"fabkeep_window\":2}\n{}"] {
            assert_eq!(why(rubbish, &machine), NoteProblem::NoNote, "{rubbish}");
        }
        machine.forget(&record().run).unwrap();
        assert_eq!(machine.remembered(&here), None);
        // The note of a window that is over, again: this machine has signed it, and nothing of it is undone.
        assert_eq!(machine.read(&text, &here).unwrap_err(), (NoteProblem::Over, Some(says)));
        let over = over(&machine.record_file(&record().run).unwrap());
        let long_ago = std::time::SystemTime::now() - 2 * KEPT;
        File::options().write(true).open(&over).unwrap().set_modified(long_ago).unwrap();
        machine.forget("another").unwrap();
        assert!(!over.exists());
    }

    #[test]
    fn a_key_that_others_can_read_or_a_record_that_others_can_write_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::at(folder.path());
        let place = ["here".to_owned()];
        let text = machine.sign(&record(), &place).unwrap();
        let key = folder.path().join(KEY_FILE);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        machine.remember(&record(), &place, true).unwrap();
        let kept = machine.record_file(&record().run).unwrap();
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(machine.read(&text, &here).unwrap().changes[0], Change::UnknownHook);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(machine.read(&text, &here).unwrap_err().0, NoteProblem::Key(_)));
        assert!(machine.sign(&record(), &place).is_err());
    }

    #[test]
    fn a_windows_name_never_leads_out_of_the_folder() {
        let machine = Machine::at(Path::new("/state"));
        for run in ["../../etc/cron.d/x", "a/b", "", ".", &"a".repeat(65)] {
            assert_eq!(machine.record_file(run), None, "{run}");
        }
    }
}
