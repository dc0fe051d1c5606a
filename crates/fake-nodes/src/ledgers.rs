//! A node's ledgers, opened as the real node opens them: locks, heights, and the reasons for which it refuses to start.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use fabkeep_ledger::block_file::{BlockFileError, ChainReader, StartAt, list_block_files};
use fabkeep_ledger::chain::walk_directory;
use fabkeep_ledger::{leveldb, raft, smartbft};
use rustix::fs::{FlockOperation, flock};

use crate::log;

/// Bytes of blocks read in one go.
const BATCH_BYTES: usize = 1 << 20;

/// What kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Peer,
    Orderer,
}

/// Open ledgers: their heights are those of the block files. What was appended is read when heights are asked for.
pub struct Ledgers {
    pub kind: Kind,
    chains: BTreeMap<String, Chain>,
    /// Held as long as the node runs.
    _locks: Vec<File>,
}

fn lock(path: &Path, problem: &str) -> Result<File, String> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| problem.to_owned())?;
    Ok(file)
}

/// A chain, read up to a place.
struct Chain {
    folder: PathBuf,
    height: u64,
    end: StartAt,
}

impl Chain {
    /// Checks all blocks.
    fn open(folder: PathBuf) -> Result<Chain, String> {
        let walk = walk_directory(&folder, 1, &AtomicU64::new(0)).map_err(|error| error.to_string())?;
        let last = list_block_files(&folder).map_err(|error| error.to_string())?.last().map_or(0, |file| file.number);
        let end = StartAt { file: last, ..StartAt::default() };
        Ok(Chain { folder, height: walk.tip.map_or(0, |tip| tip.height), end })
    }

    /// Reads what was appended; the height then.
    fn read_on(&mut self) -> Result<u64, BlockFileError> {
        let mut reader = ChainReader::open_at(&self.folder, self.end)?;
        while reader.next_batch(BATCH_BYTES, u64::MAX)?.is_some() {}
        let (file, offset) = reader.position();
        self.end = StartAt { file, offset, number: reader.next_number() };
        self.height = reader.next_number().unwrap_or(self.height);
        Ok(self.height)
    }
}

fn folders(path: &Path) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect()
}

impl Ledgers {
    /// Opens the ledgers below `root` (a peer's `ledgersData`, an orderer's ledger directory).
    pub fn open(kind: Kind, root: &Path, wal: &Path) -> Result<Ledgers, String> {
        match kind {
            Kind::Peer => open_peer(root),
            Kind::Orderer => open_orderer(root, wal),
        }
    }

    /// Channels that cannot be read are left out.
    pub fn heights(&mut self) -> BTreeMap<String, u64> {
        let reported = |(channel, chain): (&String, &mut Chain)| Some((channel.clone(), chain.read_on().ok()?));
        self.chains.iter_mut().filter_map(reported).collect()
    }
}

fn open_peer(root: &Path) -> Result<Ledgers, String> {
    let file_lock = root.join("fileLock");
    std::fs::create_dir_all(&file_lock).map_err(|error| format!("{}: {error}", file_lock.display()))?;
    let locked = lock(
        &file_lock.join("LOCK"),
        "lock is already acquired on file: another peer node command is executing, wait for that command to complete",
    )?;
    let listed = leveldb::ledger_ids(&root.join("ledgerProvider")).unwrap_or_default();
    if listed.is_empty() {
        log("info", "ledgermgmt", "no ledgers");
    }
    let mut chains = BTreeMap::new();
    for channel in listed {
        let chain = root.join("chains/chains").join(&channel);
        if !chain.is_dir() {
            return Err(format!("the block files of ledger {channel} are missing"));
        }
        let chain = Chain::open(chain)?;
        let blocks = chain.height;
        if let Ok(Some(state)) = leveldb::state_height(&root.join("stateLeveldb"), &channel)
            && state > blocks
        {
            // The peer stays up, without this channel (P7).
            log(
                "error",
                "kvledger",
                &format!("the state database [height={state}] is ahead of the block store [height={blocks}]"),
            );
            continue;
        }
        let private = leveldb::private_data_height(&root.join("pvtdataStore"), &channel).ok().flatten();
        if private.unwrap_or(0) < blocks {
            return Err(format!("expected block number={}, received block number={blocks}", private.unwrap_or(0)));
        }
        log("info", "kvledger", &format!("Opened ledger {channel} at height {blocks}"));
        chains.insert(channel, chain);
    }
    Ok(Ledgers { kind: Kind::Peer, chains, _locks: vec![locked] })
}

fn open_orderer(root: &Path, wal: &Path) -> Result<Ledgers, String> {
    let mut chains = BTreeMap::new();
    let mut locks = Vec::new();
    for (channel, chain) in folders(&root.join("chains")) {
        let chain = Chain::open(chain)?;
        let blocks = chain.height;
        let log_folder = wal.join(&channel);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&log_folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "wal"))
            .collect();
        files.sort();
        if files.is_empty() {
            if blocks > 1 {
                // It starts and never campaigns (O6): for a test that is as bad as not starting.
                log("error", "orderer.consensus.etcdraft", &format!("{channel}: No Raft leader, the log is missing"));
                continue;
            }
        } else {
            for file in &files {
                locks.push(lock(file, "fileutil: file already locked")?);
            }
            let smart = files.iter().any(|path| {
                path.file_name().is_some_and(|name| smartbft::wal_file_number(&name.to_string_lossy()).is_some())
            });
            if smart {
                smartbft::check_wal_directory(&log_folder).map_err(|error| format!("{channel}: {error}"))?;
            } else {
                raft::check_wal_directory(&log_folder, |_, _| {}).map_err(|error| format!("{channel}: {error}"))?;
            }
        }
        log("info", "orderer.consensus.etcdraft", &format!("channel={channel} raft.node: opened at height {blocks}"));
        chains.insert(channel, chain);
    }
    Ok(Ledgers { kind: Kind::Orderer, chains, _locks: locks })
}
