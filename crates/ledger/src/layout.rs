//! The files and directories of a Fabric node, and which of them a recovery needs.

use serde::{Deserialize, Serialize};

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// A peer.
    Peer,
    /// An ordering node, raft or SmartBFT.
    Orderer,
    /// A certificate authority.
    CertificateAuthority,
    /// A peer's CouchDB.
    StateDatabase,
    /// A certificate authority's PostgreSQL or MySQL.
    CaDatabase,
    /// A chaincode that runs as a service.
    Chaincode,
    /// Files that belong to the network and to no node: administrators' identities, channel artifacts, chaincode.
    Files,
}

impl std::fmt::Display for NodeRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            NodeRole::Peer => "peer",
            NodeRole::Orderer => "orderer",
            NodeRole::CertificateAuthority => "ca",
            NodeRole::StateDatabase => "state-db",
            NodeRole::CaDatabase => "ca-db",
            NodeRole::Chaincode => "chaincode",
            NodeRole::Files => "files",
        })
    }
}

/// What a directory of a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectoryRole {
    /// A peer's `CORE_PEER_FILESYSTEMPATH`.
    PeerData,
    /// An orderer's `ORDERER_FILELEDGER_LOCATION`; may hold the raft directories too.
    OrdererLedger,
    /// An orderer's `ORDERER_CONSENSUS_WALDIR`: one directory a channel.
    OrdererWal,
    /// An orderer's `ORDERER_CONSENSUS_SNAPDIR`: one directory a channel.
    OrdererSnapshots,
    /// `FABRIC_CA_HOME`.
    CaHome,
    /// An MSP directory.
    Msp,
    /// TLS certificate and key.
    Tls,
    /// `core.yaml` or `orderer.yaml`.
    Config,
    /// A peer's CouchDB files: world state, rebuilt by the peer.
    StateDatabase,
    /// The files of a database server, all of one moment.
    Database,
    /// A dump of a certificate authority's PostgreSQL or MySQL database: SQL, made by the server's own tools.
    DatabaseDump,
    /// Anything else.
    Other,
}

impl DirectoryRole {
    /// Returns whether a node writes data there that it cannot create again.
    pub fn is_data(self) -> bool {
        use DirectoryRole::{CaHome, Database, OrdererLedger, OrdererSnapshots, OrdererWal, PeerData};
        matches!(self, PeerData | OrdererLedger | OrdererWal | OrdererSnapshots | CaHome | Database)
    }
}

impl std::fmt::Display for DirectoryRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            DirectoryRole::PeerData => "peer-data",
            DirectoryRole::OrdererLedger => "orderer-ledger",
            DirectoryRole::OrdererWal => "orderer-wal",
            DirectoryRole::OrdererSnapshots => "orderer-snapshots",
            DirectoryRole::CaHome => "ca-home",
            DirectoryRole::Msp => "msp",
            DirectoryRole::Tls => "tls",
            DirectoryRole::Config => "config",
            DirectoryRole::StateDatabase => "state-database",
            DirectoryRole::Database => "database",
            DirectoryRole::DatabaseDump => "database-dump",
            DirectoryRole::Other => "other",
        })
    }
}

/// What a recovery needs of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Must be there.
    Authoritative,
    /// The node rebuilds it at its start (P4).
    Derived,
    /// Never of use in another life: locks, temporary files.
    Skip,
}

/// What an authoritative file needs at its capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Copied as it is.
    Plain,
    /// A block file of this channel.
    BlockFile(String),
    /// Part of a LevelDB directory; the directory's path relative to the node directory.
    LevelDb(String),
    /// A raft or SmartBFT log file of this channel.
    WalFile(String),
    /// A raft snapshot file of this channel.
    RaftSnapshot(String),
    /// A sqlite database.
    Sqlite,
    /// Part of a database server's files: good only together with all the others, as they were at one moment.
    Opaque,
}

/// A path's place in a node's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What a recovery needs of it.
    pub class: Class,
    /// How it is captured.
    pub kind: Kind,
}

const fn place(class: Class, kind: Kind) -> Place {
    Place { class, kind }
}

/// Where a peer keeps its LevelDB directories that a recovery needs, relative to its data directory.
pub const PEER_DATABASES: [&str; 3] = ["ledgersData/pvtdataStore", "ledgersData/ledgerProvider", "transientstore"];
/// A peer's databases that it rebuilds from the block files. They are dropped together, never singly.
const PEER_DERIVED: [&str; 5] = [
    "ledgersData/chains/index",
    "ledgersData/stateLeveldb",
    "ledgersData/historyLeveldb",
    "ledgersData/configHistory",
    "ledgersData/bookkeeper",
];
/// Where a peer keeps its chains, relative to its data directory.
pub const PEER_CHAINS: &str = "ledgersData/chains/chains";
/// Where an orderer keeps its chains, relative to its ledger directory.
pub const ORDERER_CHAINS: &str = "chains";

/// Says what the file at `path` (relative, `/`-separated) in a directory of this role is. `joined_by_snapshot`: the peer holds a
/// channel that does not begin at block 0, so that nothing can be rebuilt (P4).
pub fn classify(role: DirectoryRole, path: &str, joined_by_snapshot: bool) -> Place {
    match role {
        DirectoryRole::PeerData => classify_peer(path, joined_by_snapshot),
        DirectoryRole::OrdererLedger => classify_orderer(path),
        DirectoryRole::OrdererWal => classify_wal(path),
        DirectoryRole::OrdererSnapshots => match path.split_once('/') {
            // Some deployers use one directory for logs and snapshots.
            Some((channel, name)) if name.ends_with(".snap") => {
                place(Class::Authoritative, Kind::RaftSnapshot(channel.to_owned()))
            }
            _ => classify_wal(path),
        },
        DirectoryRole::CaHome if path.ends_with(".db") => place(Class::Authoritative, Kind::Sqlite),
        // The directory itself is restored empty, with its owner.
        DirectoryRole::StateDatabase if path.is_empty() => place(Class::Authoritative, Kind::Plain),
        // The peer replays its blocks into an empty state database, except where it was joined by snapshot (P3, P4).
        DirectoryRole::StateDatabase if joined_by_snapshot => place(Class::Authoritative, Kind::Opaque),
        DirectoryRole::StateDatabase => place(Class::Derived, Kind::Opaque),
        DirectoryRole::Database => place(database_server_file(path), Kind::Opaque),
        _ => place(Class::Authoritative, Kind::Plain),
    }
}

/// Returns what PostgreSQL and MariaDB make anew at their start.
fn database_server_file(path: &str) -> Class {
    let name = path.rsplit('/').next().unwrap_or(path);
    let made_anew = matches!(name, "postmaster.pid" | "postmaster.opts" | "pg_internal.init")
        || [".pid", ".sock", ".sock.lock"].iter().any(|end| name.ends_with(end))
        || path.split('/').any(|part| part == "pg_stat_tmp");
    if made_anew { Class::Skip } else { Class::Authoritative }
}

fn within<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    path.strip_prefix(directory)?.strip_prefix('/')
}

/// Returns the place of a file in a LevelDB directory. Lock, info and temporary files are never needed.
fn database_file(directory: &str, name: &str, class: Class) -> Place {
    let class = if matches!(name, "LOCK" | "LOG" | "LOG.old") || name.ends_with(".tmp") { Class::Skip } else { class };
    place(class, Kind::LevelDb(directory.to_owned()))
}

fn classify_peer(path: &str, joined_by_snapshot: bool) -> Place {
    let derived = if joined_by_snapshot { Class::Authoritative } else { Class::Derived };
    if let Some(rest) = within(path, PEER_CHAINS) {
        return classify_chain(rest);
    }
    for directory in PEER_DATABASES {
        if let Some(name) = within(path, directory) {
            return database_file(directory, name, Class::Authoritative);
        }
    }
    for directory in PEER_DERIVED {
        if let Some(name) = within(path, directory) {
            return database_file(directory, name, derived);
        }
    }
    let locks = ["ledgersData/fileLock", "transientStoreFileLock"];
    if locks.iter().any(|lock| within(path, lock).is_some()) || within(path, "snapshots/temp").is_some() {
        return place(Class::Skip, Kind::Plain);
    }
    if within(path, "ledgersData/snapshots/temp").is_some() {
        return place(Class::Skip, Kind::Plain);
    }
    if within(path, "externalbuilder/builds").is_some() {
        return place(Class::Derived, Kind::Plain);
    }
    place(Class::Authoritative, Kind::Plain)
}

fn classify_chain(rest: &str) -> Place {
    match rest.split_once('/') {
        Some((channel, name)) if crate::block_file::file_number(name).is_some() => {
            place(Class::Authoritative, Kind::BlockFile(channel.to_owned()))
        }
        _ => place(Class::Authoritative, Kind::Plain),
    }
}

/// Returns whether the file at `path` in a directory of this role is one that a node without a block index takes for a block file, and that
/// is none.
pub fn is_like_a_block_file(role: DirectoryRole, path: &str) -> bool {
    let chains = match role {
        DirectoryRole::PeerData => PEER_CHAINS,
        DirectoryRole::OrdererLedger => ORDERER_CHAINS,
        _ => return false,
    };
    let name = within(path, chains).and_then(|rest| rest.split_once('/'));
    name.is_some_and(|(_, name)| !name.contains('/') && crate::block_file::is_like_a_block_file(name))
}

fn classify_orderer(path: &str) -> Place {
    if let Some(rest) = within(path, ORDERER_CHAINS) {
        return classify_chain(rest);
    }
    if let Some(name) = within(path, "index") {
        return database_file("index", name, Class::Derived);
    }
    if let Some(rest) = within(path, "etcdraft/wal") {
        return classify_wal(rest);
    }
    if let Some(rest) = within(path, "etcdraft/snapshot") {
        return classify(DirectoryRole::OrdererSnapshots, rest, false);
    }
    place(Class::Authoritative, Kind::Plain)
}

fn classify_wal(path: &str) -> Place {
    match path.split_once('/') {
        Some((_, name)) if name.ends_with(".tmp") => place(Class::Skip, Kind::Plain),
        Some((channel, name)) if name.ends_with(".snap") => {
            place(Class::Authoritative, Kind::RaftSnapshot(channel.to_owned()))
        }
        Some((channel, name)) if name.ends_with(".wal") => {
            place(Class::Authoritative, Kind::WalFile(channel.to_owned()))
        }
        _ => place(Class::Authoritative, Kind::Plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(path: &str) -> Class {
        classify(DirectoryRole::PeerData, path, false).class
    }

    #[test]
    fn a_peers_paths_are_what_experiments_showed_them_to_be() {
        assert_eq!(peer("ledgersData/pvtdataStore/000002.log"), Class::Authoritative);
        assert_eq!(peer("ledgersData/pvtdataStore/LOCK"), Class::Skip);
        assert_eq!(peer("ledgersData/stateLeveldb/000001.log"), Class::Derived);
        assert_eq!(peer("ledgersData/configHistory/CURRENT"), Class::Derived);
        assert_eq!(peer("lifecycle/chaincodes/multi.tar.gz"), Class::Authoritative);
        assert_eq!(peer("something/unknown"), Class::Authoritative);
        let joined = classify(DirectoryRole::PeerData, "ledgersData/stateLeveldb/000001.log", true);
        assert_eq!(joined.class, Class::Authoritative);
        let block = classify(DirectoryRole::PeerData, "ledgersData/chains/chains/ch/blockfile_000000", false);
        assert_eq!(block.kind, Kind::BlockFile("ch".to_owned()));
    }

    #[test]
    fn an_orderers_logs_and_snapshots_are_found_in_either_directory() {
        let of = |role, path| classify(role, path, false);
        let ledger = DirectoryRole::OrdererLedger;
        assert_eq!(of(ledger, "etcdraft/wal/ch/0.tmp").class, Class::Skip);
        assert_eq!(of(ledger, "etcdraft/wal/ch/1-1.wal").kind, Kind::WalFile("ch".to_owned()));
        assert_eq!(of(ledger, "etcdraft/snapshot/ch/1-1.snap").kind, Kind::RaftSnapshot("ch".to_owned()));
        assert_eq!(of(DirectoryRole::OrdererWal, "ch/1-1.snap").kind, Kind::RaftSnapshot("ch".to_owned()));
        assert_eq!(of(DirectoryRole::OrdererSnapshots, "ch/1-1.wal").kind, Kind::WalFile("ch".to_owned()));
        assert_eq!(of(ledger, "index/000001.log").class, Class::Derived);
        assert_eq!(of(ledger, "pendingops/join/ch.block").class, Class::Authoritative);
    }
}
