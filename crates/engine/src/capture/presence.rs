//! Checks that a node has everything that its role requires, directory by directory. Missing or empty data is an error, never a smaller
//! set.

use fabkeep_ledger::layout::{Class, DirectoryRole, NodeRole, ORDERER_CHAINS, PEER_CHAINS};
use fabkeep_network::{DirectorySource, Finding, OrLeaveOut, Remedy, Rule};
use fabkeep_platform::{EntryKind, VolumeEntry};

use super::links::LedTo;
use super::start_marks::{LEDGER_LIST, roots};
use super::survey::{PlannedNode, SurveyedDirectory};

/// Where a peer keeps the packages of installed chaincode, relative to its data directory.
const PACKAGES: &str = "lifecycle/chaincodes";
/// What the external builders made of packages, by label and hash.
const BUILDS: &str = "externalbuilder/builds";
/// Folders that a peer makes itself where they are missing, relative to its data directory. It cannot where a link leads to nothing.
const PEER_FOLDERS: [&str; 17] = [
    "ledgersData",
    "ledgersData/chains",
    "ledgersData/chains/chains",
    "ledgersData/chains/index",
    "ledgersData/ledgerProvider",
    "ledgersData/pvtdataStore",
    "ledgersData/stateLeveldb",
    "ledgersData/historyLeveldb",
    "ledgersData/configHistory",
    "ledgersData/bookkeeper",
    "ledgersData/fileLock",
    "ledgersData/snapshots",
    "snapshots",
    "transientstore",
    "lifecycle",
    "lifecycle/chaincodes",
    "externalbuilder",
];
/// The same of an orderer, relative to its ledger directory.
const ORDERER_FOLDERS: [&str; 8] = [
    "chains",
    "index",
    "pendingops",
    "pendingops/join",
    "pendingops/remove",
    "etcdraft",
    "etcdraft/wal",
    "etcdraft/snapshot",
];
/// What a peer cannot rebuild for a channel that it joined by snapshot, and what it does without each.
const NOT_REBUILT: [(&str, &str); 3] = [
    ("ledgersData/chains/index", "it cannot sync its block index and does not start"),
    ("ledgersData/configHistory", "collection configurations from before the snapshot are lost"),
    ("ledgersData/bookkeeper", "expiring private data from before the snapshot is never purged"),
];
/// Folders in whose place a peer cannot start with a file, whatever its configuration says.
const NO_FILES_OF_PEER: [&str; 14] = [
    "ledgersData",
    "ledgersData/chains",
    "ledgersData/chains/chains",
    "ledgersData/chains/index",
    "ledgersData/ledgerProvider",
    "ledgersData/pvtdataStore",
    "ledgersData/configHistory",
    "ledgersData/bookkeeper",
    "ledgersData/fileLock",
    "transientstore",
    "lifecycle",
    "lifecycle/chaincodes",
    "chaincodes",
    "externalbuilder",
];
/// The same of an orderer.
const NO_FILES_OF_ORDERER: [&str; 5] = ["chains", "index", "pendingops", "pendingops/join", "pendingops/remove"];
const BRING_BACK: OrLeaveOut = OrLeaveOut(
    "mount the volume again, or correct the inventory; or restore the directory from an earlier recovery point",
);

/// What a node has of one role: a directory, a part of one, or several (a volume, and what Secrets put into it).
pub(super) struct RoleView<'a> {
    /// Directories, and where the part with the role begins in each; empty: the directory itself.
    pub parts: Vec<(&'a SurveyedDirectory, &'a str)>,
}

impl<'a> RoleView<'a> {
    /// Returns what a node has of a role.
    pub fn of(node: &'a PlannedNode, role: DirectoryRole) -> RoleView<'a> {
        let directories = node.directories.iter();
        RoleView {
            parts: directories.flat_map(|directory| roots(directory, role).map(move |at| (directory, at))).collect(),
        }
    }

    /// Returns its place, as messages name it.
    pub fn label(&self) -> String {
        let first = self.parts.first();
        first.map(|(directory, at)| inside_of(&directory.directory.path, at)).unwrap_or_default()
    }

    /// As [`RoleView::label`], with a path inside.
    pub fn label_of(&self, path: &str) -> String {
        inside_of(&self.label(), path)
    }

    /// Returns its entries that a recovery may need: directory, path inside the part, entry. What other roles inside hold is theirs.
    pub fn entries(&self) -> impl Iterator<Item = (&'a SurveyedDirectory, &'a str, &'a VolumeEntry)> {
        self.parts.iter().flat_map(|&(directory, at)| {
            directory.entries.iter().filter(|(_, place)| place.class != Class::Skip).filter_map(move |(entry, _)| {
                let (of, _, rest) = directory.directory.part(&entry.path);
                (of == at && !rest.is_empty()).then_some((directory, rest, entry))
            })
        })
    }

    /// Returns its files, with their paths inside.
    pub fn files(&self) -> impl Iterator<Item = (&'a SurveyedDirectory, &'a str, &'a VolumeEntry)> {
        self.entries().filter(|(directory, _, entry)| directory.led_to(entry).is_file())
    }

    /// Returns whether something that is not of length zero lies below a path.
    pub fn holds(&self, below: &str) -> bool {
        let within = |path: &str| path.strip_prefix(below).is_some_and(|rest| rest.starts_with('/'));
        self.files().any(|(directory, path, entry)| within(path) && directory.led_to(entry).has_content())
    }

    /// Returns whether a file of this path has content.
    pub fn has_file(&self, path: &str) -> bool {
        self.files().any(|(directory, known, entry)| known == path && directory.led_to(entry).has_content())
    }

    fn has_folder(&self, path: &str) -> bool {
        let mut entries = self.entries();
        entries.any(|(directory, known, entry)| known == path && directory.led_to(entry).is_directory())
            || self.holds(path)
    }
}

/// `path` below `folder`, either of which may be empty.
fn inside_of(folder: &str, path: &str) -> String {
    let both = folder.trim_end_matches('/');
    if path.is_empty() { both.to_owned() } else { format!("{both}/{path}") }
}

/// Finds missing data of a node, as far as its listings show it.
pub(super) fn check(node: &PlannedNode, include_derived: bool, findings: &mut Vec<Finding>) {
    let before = findings.len();
    match node.node.role {
        NodeRole::Peer => {
            let what = "data directory (CORE_PEER_FILESYSTEMPATH)";
            judge(node, DirectoryRole::PeerData, what, findings, |node, part, findings| {
                peer_data(node, part, findings);
                led_nowhere(node, part, &PEER_FOLDERS, findings);
                files_as_folders(node, part, &NO_FILES_OF_PEER, findings);
                if include_derived && !node.joined_by_snapshot {
                    dropped_alone(node, part, findings);
                }
            });
        }
        NodeRole::Orderer => {
            let what = "ledger directory (ORDERER_FILELEDGER_LOCATION)";
            judge(node, DirectoryRole::OrdererLedger, what, findings, |node, part, findings| {
                ledger(node, part, findings);
                led_nowhere(node, part, &ORDERER_FOLDERS, findings);
                files_as_folders(node, part, &NO_FILES_OF_ORDERER, findings);
            });
        }
        NodeRole::CertificateAuthority => {
            let what = "home directory (FABRIC_CA_SERVER_HOME)";
            judge(node, DirectoryRole::CaHome, what, findings, ca_home);
        }
        NodeRole::CaDatabase => {}
        NodeRole::StateDatabase | NodeRole::Chaincode | NodeRole::Files => return,
    }
    let files = node.directories.iter().flat_map(|directory| directory.files(true)).count();
    if files == 0 && !node.directories.is_empty() && findings.len() == before {
        findings.push(Finding::error(
            Rule::NotPersistent,
            &node.node.id,
            "its directories contain no file",
            BRING_BACK,
        ));
    }
}

/// Judges what a node has of a role. A directory that is named and does not exist has its finding already.
fn judge(
    node: &PlannedNode,
    role: DirectoryRole,
    what: &str,
    findings: &mut Vec<Finding>,
    judge: impl Fn(&PlannedNode, &RoleView<'_>, &mut Vec<Finding>),
) {
    let mut view = RoleView::of(node, role);
    // A node's data is never in Secrets: what those put into its directory is beside it.
    view.parts.retain(|(directory, _)| {
        role == DirectoryRole::CaHome || directory.directory.source != DirectorySource::Objects
    });
    if !view.parts.is_empty() {
        judge(node, &view, findings);
    } else if !node.node.directories.iter().any(|directory| of_role(directory, role)) {
        findings.push(Finding::error(
            Rule::NotPersistent,
            &node.node.id,
            format!("its {what} is not known"),
            Remedy::from(format!("name it in the inventory ({role} = \"…\")")).or(Remedy::ExcludeNode),
        ));
    }
}

fn of_role(directory: &fabkeep_network::NodeDirectory, role: DirectoryRole) -> bool {
    directory.role == role || directory.nested.iter().any(|(_, of)| *of == role)
}

fn missing(node: &PlannedNode, rule: Rule, place: String, what: impl Into<String>) -> Finding {
    Finding::error(rule, format!("{} {place}", node.node.id), what, BRING_BACK)
}

/// A node makes a folder that is missing, and fails at one whose name is a link that leads to nothing.
fn led_nowhere(node: &PlannedNode, part: &RoleView<'_>, folders: &[&str], findings: &mut Vec<Finding>) {
    for (directory, path, entry) in part.entries().filter(|(_, path, _)| folders.contains(path)) {
        if matches!(directory.led_to(entry), LedTo::Nothing) {
            let what = "it is a link that leads to nothing: the node does not start with it";
            findings.push(missing(node, Rule::NotPersistent, part.label_of(path), what));
        }
    }
}

fn files_as_folders(node: &PlannedNode, part: &RoleView<'_>, folders: &[&str], findings: &mut Vec<Finding>) {
    for (directory, path, entry) in part.entries().filter(|(_, path, _)| folders.contains(path)) {
        if matches!(directory.led_to(entry), LedTo::Entry(at) if at.kind == EntryKind::File) {
            let what = "it is a file, and the node expects a directory of this name: the node does not start";
            findings.push(missing(node, Rule::NotPersistent, part.label_of(path), what));
        }
    }
}

fn peer_data(node: &PlannedNode, part: &RoleView<'_>, findings: &mut Vec<Finding>) {
    if part.files().next().is_none() {
        findings.push(missing(
            node,
            Rule::NotPersistent,
            part.label(),
            "the peer's data directory is empty: it contains no ledger and no chaincode",
        ));
        return;
    }
    for (database, rule, what) in [
        (
            LEDGER_LIST,
            Rule::NotPersistent,
            "the peer's list of ledgers is missing: the peer starts without its channels",
        ),
        (
            "ledgersData/pvtdataStore",
            Rule::StoresInOrder,
            "the private-data store is missing: blocks do not contain private data, and the next commit panics (P2)",
        ),
    ] {
        if !part.holds(database) {
            findings.push(missing(node, rule, part.label_of(database), what));
        }
    }
    if !["transientstore", "transientStore"].iter().any(|name| part.holds(name)) {
        findings.push(Finding::warning(
            Rule::TransientStore,
            format!("{} {}", node.node.id, part.label_of("transientstore")),
            "the transient store is missing: private transactions that were in flight are committed with missing data",
            "no action is needed if no private transaction was in flight; the peer creates a new store when it starts",
        ));
    }
    if !part.has_folder(PEER_CHAINS) {
        findings.push(missing(
            node,
            Rule::NotPersistent,
            part.label_of(PEER_CHAINS),
            "the peer's folder of chains is missing",
        ));
    }
    packages(node, part, findings);
    if node.joined_by_snapshot {
        joined_by_snapshot(node, part, findings);
    }
}

/// Chaincode packages: their folder is made at the peer's first start, and a package that was built was installed.
fn packages(node: &PlannedNode, part: &RoleView<'_>, findings: &mut Vec<Finding>) {
    let old = part.has_folder("chaincodes");
    let only_old = old && !part.has_folder("lifecycle") && !part.has_folder("externalbuilder");
    if !(only_old || part.has_folder(PACKAGES)) {
        findings.push(missing(
            node,
            Rule::NotPersistent,
            part.label_of(PACKAGES),
            "the folder of installed chaincode packages is missing: endorsement fails",
        ));
        return;
    }
    let builds = part.entries().filter(|(_, _, entry)| entry.kind == EntryKind::Directory);
    for (_, path, _) in builds {
        let name = path.strip_prefix(BUILDS).and_then(|rest| rest.strip_prefix('/')).filter(|rest| !rest.contains('/'));
        let Some((label, hash)) = name.and_then(|name| name.rsplit_once('-')) else { continue };
        let package = format!("{PACKAGES}/{label}.{hash}.tar.gz");
        if hash.len() == 64 && !part.has_file(&package) {
            findings.push(missing(
                node,
                Rule::NotPersistent,
                part.label_of(&package),
                "a chaincode package that the peer has built is missing: endorsement fails after a restore",
            ));
        }
    }
}

/// Derived stores that a peer makes again together with its world state, and never beside one.
fn dropped_alone(node: &PlannedNode, part: &RoleView<'_>, findings: &mut Vec<Finding>) {
    if !(part.holds("ledgersData/stateLeveldb") || has_couch(node, part)) {
        return;
    }
    for (path, lost) in [
        ("ledgersData/configHistory", "the collection configurations of earlier blocks"),
        ("ledgersData/bookkeeper", "the dates on which private data expires"),
    ] {
        if !has_database(part, path) {
            findings.push(Finding::error(
                Rule::StoresInOrder,
                format!("{} {}", node.node.id, part.label_of(path)),
                format!("it is missing, and the world state exists: the peer does not rebuild it beside a state, and lacks {lost}"),
                super::derived::without(),
            ));
        }
    }
}

fn has_couch(node: &PlannedNode, part: &RoleView<'_>) -> bool {
    node.node.directories.iter().any(|directory| of_role(directory, DirectoryRole::StateDatabase))
        || !node.node.served_by.is_empty()
        || part.holds("ledgersData/couchdbRedoLogs")
}

fn joined_by_snapshot(node: &PlannedNode, part: &RoleView<'_>, findings: &mut Vec<Finding>) {
    let remedy = OrLeaveOut(
        "nothing of a channel joined by snapshot can be rebuilt: take the peer's whole data directory from an earlier recovery point, or join the channel again",
    );
    let not_there = |path: &str, what: &str| {
        Finding::error(
            Rule::SnapshotJoined,
            format!("{} {}", node.node.id, part.label_of(path)),
            format!("a channel was joined by snapshot, and this is missing: {what}"),
            remedy,
        )
    };
    for (path, what) in NOT_REBUILT {
        if !has_database(part, path) {
            findings.push(not_there(path, what));
        }
    }
    if !has_couch(node, part) && !part.holds("ledgersData/stateLeveldb") {
        findings.push(not_there("ledgersData/stateLeveldb", "the world state from before the snapshot is lost"));
    }
    if !part.holds("ledgersData/historyLeveldb") {
        findings.push(Finding::warning(
            Rule::SnapshotJoined,
            format!("{} {}", node.node.id, part.label_of("ledgersData/historyLeveldb")),
            "a channel was joined by snapshot, and the history database is missing",
            "no action is needed if the peer keeps no history (ledger.history.enableHistoryDatabase)",
        ));
    }
}

/// Returns whether a directory has a LevelDB database. One without entries has a log of length zero, and a file CURRENT.
fn has_database(part: &RoleView<'_>, path: &str) -> bool {
    part.has_file(&format!("{path}/CURRENT"))
}

fn ledger(node: &PlannedNode, part: &RoleView<'_>, findings: &mut Vec<Finding>) {
    if !part.has_folder(ORDERER_CHAINS) {
        findings.push(missing(
            node,
            Rule::NotPersistent,
            part.label_of(ORDERER_CHAINS),
            "the orderer's ledger directory contains no chains",
        ));
    } else if part.files().next().is_none() {
        findings.push(missing(
            node,
            Rule::NotPersistent,
            part.label(),
            "the orderer's ledger directory contains no file",
        ));
    }
}

fn ca_home(node: &PlannedNode, part: &RoleView<'_>, findings: &mut Vec<Finding>) {
    let stays = part.parts.iter().any(|(directory, _)| directory.directory.source != DirectorySource::Ephemeral);
    if part.files().next().is_none() && stays {
        findings.push(missing(
            node,
            Rule::NotPersistent,
            part.label(),
            "the CA's home directory is empty: without its key and certificate the CA creates a new root when it starts (C5)",
        ));
    }
}
