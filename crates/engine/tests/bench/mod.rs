//! A network, a repository and a place to restore into, in a temporary folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_engine::{
    CaptureOptions, Captured, EngineError, EntryContent, Proof, RaftSource, RecoveryPoint, Reporter, RestoreOptions,
    RestorePlan, RestoreTarget, Restored, Silent, VerifyLevel, capture, verify_point,
};
use fabkeep_ledger::block_file::{BOOTSTRAPPING_SNAPSHOT, BootstrappingSnapshot, ChainReader};
use fabkeep_platform::{Host, Machine, discover};
use fabkeep_store::{IdentityFile, Repository, WriterKey};
use prost::Message;
use tempfile::TempDir;

pub struct Bench {
    pub folder: TempDir,
}

impl Bench {
    pub fn new(packed: &[u8]) -> Bench {
        Bench::at(tempfile::tempdir().unwrap(), packed)
    }

    /// In memory where there is such a folder: what is written down again and again costs nothing there.
    pub fn in_memory(packed: &[u8]) -> Bench {
        let memory = tempfile::tempdir_in("/dev/shm");
        Bench::at(memory.or_else(|_| tempfile::tempdir()).unwrap(), packed)
    }

    fn at(folder: TempDir, packed: &[u8]) -> Bench {
        let bench = Bench { folder };
        fabkeep_fixtures::unpack(packed, &bench.network()).unwrap();
        bench.with_repository()
    }

    /// A copy of another network.
    pub fn of(network: &Path) -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        copy(network, &bench.network());
        bench.with_repository()
    }

    fn with_repository(self) -> Bench {
        let bench = self;
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
        Host::new(&found.inventory, self.folder.path()).unwrap().kept_by(self.machine())
    }

    /// What signs the notes of windows here.
    pub fn machine(&self) -> Machine {
        Machine::at(&self.path("state"))
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

    /// Everything as it was captured, raft logs too.
    pub fn restore_all(&self) -> Result<PathBuf, EngineError> {
        let to = self.path("restored");
        let raft_state = RaftSource::Captured;
        self.restore_below("restored", &RestoreOptions { raft_state, ..RestoreOptions::default() })?;
        Ok(to)
    }

    /// Restores the latest recovery point into the network's own places.
    pub fn restore(&self, options: &RestoreOptions) -> Result<Restored, EngineError> {
        self.restore_to(&RestoreTarget::Host(&self.host()), options, &Silent)
    }

    /// The same into a folder.
    pub fn restore_below(&self, name: &str, options: &RestoreOptions) -> Result<Restored, EngineError> {
        self.restore_to(&RestoreTarget::Folder(self.path(name)), options, &Silent)
    }

    pub fn restore_to(
        &self,
        target: &RestoreTarget<'_>,
        options: &RestoreOptions,
        reporter: &dyn Reporter,
    ) -> Result<Restored, EngineError> {
        let repository = self.repository();
        let commit = repository.point("latest").unwrap();
        RestorePlan::make(&repository, &commit, &self.identity(), target, options)?.execute(reporter)
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

/// Holds the locks that running nodes of the small network hold.
pub fn locks(bench: &Bench) -> Vec<std::fs::File> {
    let peers = ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"]
        .map(|peer| format!("{peer}/production/ledgersData/fileLock/LOCK"));
    let orderers =
        ["orderer1", "orderer2", "orderer3"].map(|orderer| format!("OrdererOrg/{orderer}/production/index/LOCK"));
    peers.iter().chain(&orderers).map(|path| lock(&bench.network().join(path))).collect()
}

/// Holds one lock.
pub fn lock(path: &Path) -> std::fs::File {
    let file = std::fs::File::open(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    file
}

/// The chain directories of a channel of the small network, all nodes'.
pub fn chains(network: &Path, channel: &str) -> Vec<PathBuf> {
    let peers = ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"]
        .map(|peer| network.join(peer).join("production/ledgersData/chains/chains").join(channel));
    let orderers = ["orderer1", "orderer2", "orderer3"]
        .map(|orderer| network.join("OrdererOrg").join(orderer).join("production/chains").join(channel));
    peers.into_iter().chain(orderers).collect()
}

/// The height of a chain directory.
pub fn height(chain: &Path) -> u64 {
    let walk = fabkeep_ledger::chain::walk_directory(chain, 1, &std::sync::atomic::AtomicU64::new(0)).unwrap();
    walk.tip.unwrap().height
}

/// Where a block's record begins in a chain's only block file.
pub fn offset_of_block(file: &Path, number: u64) -> u64 {
    let mut reader = fabkeep_ledger::block_file::ChainReader::open(file.parent().unwrap()).unwrap();
    while let Some(batch) = reader.next_batch(1, u64::MAX).unwrap() {
        let position = batch.blocks.iter().position(|span| span.number == number);
        if let Some(position) = position {
            let start = position.checked_sub(1).map_or(0, |before| batch.blocks[before].metadata.end);
            return batch.offset + start as u64;
        }
    }
    panic!("no block {number}");
}

/// Copies a directory tree; files keep their holes.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            copy_file(&entry.path(), &target);
        }
    }
}

/// A file's bytes up to the hole that it may end with: the rest of a preallocated log reads as zeros.
pub fn data_of(path: &Path) -> Vec<u8> {
    fabkeep_ledger::raft::read_up_to_hole(path).unwrap()
}

pub fn copy_file(from: &Path, to: &Path) {
    let metadata = from.metadata().unwrap();
    std::fs::write(to, data_of(from)).unwrap();
    std::fs::File::options().write(true).open(to).unwrap().set_len(metadata.len()).unwrap();
    std::fs::set_permissions(to, metadata.permissions()).unwrap();
    std::fs::File::open(to).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
}

/// Makes a peer's chain one that was joined by a snapshot of its first `blocks` blocks.
pub fn join_by_snapshot(chain: &Path, blocks: u64) {
    let mut reader = ChainReader::open(chain).unwrap();
    let batch = reader.next_batch(8 << 20, blocks - 1).unwrap().unwrap();
    let last = batch.blocks.last().unwrap();
    let info = BootstrappingSnapshot {
        last_block: last.number,
        last_block_hash: last.header_hash(&batch.buffer).to_vec(),
        previous_block_hash: batch.buffer[last.previous_hash.clone()].to_vec(),
    };
    let whole = std::fs::read(chain.join("blockfile_000000")).unwrap();
    std::fs::write(chain.join("blockfile_000000"), &whole[batch.len as usize..]).unwrap();
    std::fs::write(chain.join(BOOTSTRAPPING_SNAPSHOT), info.encode_to_vec()).unwrap();
}
