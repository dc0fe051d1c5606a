//! A network, a repository and a place to restore into, in a temporary folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_engine::{
    CaptureOptions, Captured, EngineError, EntryContent, Proof, RecoveryPoint, RestoreOptions, Silent, VerifyLevel,
    capture, restore, verify_point,
};
use fabkeep_platform::{Host, discover};
use fabkeep_store::{IdentityFile, Repository, WriterKey};
use tempfile::TempDir;

pub struct Bench {
    pub folder: TempDir,
}

impl Bench {
    pub fn new(packed: &[u8]) -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        fabkeep_fixtures::unpack(packed, &bench.network()).unwrap();
        Repository::init(&bench.location(), Some(&bench.identity_file()), Some(&bench.writer_file()), &[]).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn network(&self) -> PathBuf {
        self.path("network")
    }

    pub fn location(&self) -> String {
        self.path("repository").display().to_string()
    }

    pub fn identity_file(&self) -> PathBuf {
        self.path("keys/identity")
    }

    pub fn writer_file(&self) -> PathBuf {
        self.path("keys/writer")
    }

    pub fn repository(&self) -> Repository {
        Repository::open(&self.location()).unwrap()
    }

    pub fn identity(&self) -> IdentityFile {
        IdentityFile::read(&self.identity_file()).unwrap()
    }

    pub fn host(&self) -> Host {
        let found = discover(&self.network(), self.folder.path()).unwrap();
        Host::new(&found.inventory, self.folder.path()).unwrap()
    }

    pub fn capture(&self, options: &CaptureOptions) -> Result<Captured, EngineError> {
        let key = WriterKey::read(&self.writer_file()).unwrap();
        capture(&self.host(), &self.repository(), key, options, &Silent)
    }

    pub fn capture_from(&self, host: &Host, options: &CaptureOptions) -> Result<Captured, EngineError> {
        let key = WriterKey::read(&self.writer_file()).unwrap();
        capture(host, &self.repository(), key, options, &Silent)
    }

    pub fn verify(&self, level: VerifyLevel) -> Result<Proof, EngineError> {
        let repository = self.repository();
        let commit = repository.point("latest").unwrap();
        verify_point(&repository, &commit, Some(&self.identity()), level, 2, &Silent)
    }

    pub fn restore_all(&self) -> Result<PathBuf, EngineError> {
        let to = self.path("restored");
        self.restore(&RestoreOptions { to: Some(to.clone()), ..RestoreOptions::default() })?;
        Ok(to)
    }

    pub fn restore(&self, options: &RestoreOptions) -> Result<fabkeep_engine::Restored, EngineError> {
        let repository = self.repository();
        let commit = repository.point("latest").unwrap();
        let host = self.host_or_none();
        let platform = host.as_ref();
        restore(&repository, &commit, &self.identity(), platform, options, &Silent)
    }

    fn host_or_none(&self) -> Option<Host> {
        let found = discover(&self.network(), self.folder.path()).ok()?;
        Host::new(&found.inventory, self.folder.path()).ok()
    }

    /// Every captured file is there, equal to its source in bytes, mode and time, and no larger on the disk; nothing else is there.
    pub fn assert_equal(&self, point: &RecoveryPoint, restored: &Path) {
        let mut expected = 0;
        for node in &point.nodes {
            for directory in &node.directories {
                let source = Path::new(&directory.directory.path);
                let target = restored.join(source.strip_prefix(self.network().canonicalize().unwrap()).unwrap());
                for entry in &directory.entries {
                    let (from, to) = (source.join(&entry.path), target.join(&entry.path));
                    let (a, b) =
                        (from.metadata().unwrap(), to.metadata().unwrap_or_else(|_| panic!("{}", to.display())));
                    assert_eq!(a.mode(), b.mode(), "{}", to.display());
                    assert_eq!(a.mtime(), b.mtime(), "{}", to.display());
                    if matches!(entry.content, EntryContent::File { .. }) {
                        expected += 1;
                        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "{}", to.display());
                        assert!(b.blocks() <= a.blocks() + 64, "{}: {} > {}", to.display(), b.blocks(), a.blocks());
                    }
                }
            }
        }
        assert_eq!(count_files(restored), expected);
    }
}

pub fn count_files(folder: &Path) -> u64 {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        count += if entry.file_type().unwrap().is_dir() { count_files(&entry.path()) } else { 1 };
    }
    count
}
