//! Checks that what a peer's or an orderer's configuration names exists and is in the set: TLS files, the block that an orderer begins with,
//! libraries of a peer's handlers, directories; and that configuration and inventory speak of the same node (I5, K3). On hosts only: on a cluster a configuration names
//! paths of its container.
//!
//! A file's paths may be those of a container too. They count when others of the same kind, relative or absolute, lead to what is captured.
//! Paths that the inventory keeps of the environment are paths of this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::node_settings::{
    Environment, HANDLERS, NamedFile, NodeSettings, bootstrap_file, client_file_without_partner, handler_libraries,
    named_paths, places, tls_files,
};
use fabkeep_ledger::yaml::{MAX_CONFIG_BYTES, parse};
use fabkeep_network::{Finding, OrLeaveOut, Rule};
use fabkeep_platform::{VolumeEntry, normal};

use super::presence::RoleView;
use super::settings;
use super::survey::{PlannedNode, SurveyedDirectory};

/// The organization of Fabric's sample configurations: a node with another one gets it from its environment.
const SAMPLE_MSP: &str = "SampleOrg";
const BRING_BACK: OrLeaveOut = OrLeaveOut("restore the file, or correct the node's configuration");
const AGREE: &str = "correct the one that is wrong; if the node's environment overrides its configuration file, name that in the inventory";

/// A node's configuration and everything that was surveyed.
struct ConfiguredNode<'a> {
    node: &'a PlannedNode,
    all: &'a [PlannedNode],
    /// The folder of the configuration file: relative paths begin there.
    base: Option<PathBuf>,
    /// What the configuration file is called.
    file: String,
    /// Whether its file's relative paths, its absolute ones lead to what is captured.
    speaks_of_here: [bool; 2],
}

/// Finds what is named and missing, and what contradicts the inventory.
pub(super) fn check(node: &PlannedNode, all: &[PlannedNode], found: &dyn Fn(Finding)) {
    let role = node.node.role;
    if !matches!(role, NodeRole::Peer | NodeRole::Orderer) || node.node.workload.is_some() {
        return;
    }
    let (_, at) = settings::node_settings(node);
    let bytes = at.as_ref().and_then(|at| settings::read(node, at, MAX_CONFIG_BYTES)?.ok()).unwrap_or_default();
    // A file that is not YAML has its own finding.
    let Ok(yaml) = parse(&bytes).or_else(|_| parse(b"{}")) else { return };
    let environment = &node.node.environment;
    let file = at.as_ref().and_then(|(_, path)| path.rsplit('/').next()).unwrap_or("the configuration").to_owned();
    let base = at.as_ref().and_then(|(position, path)| {
        let file = Path::new(&node.directories.get(*position)?.directory.path).join(path);
        Some(file.parent()?.to_path_buf())
    });
    let mut named = ConfiguredNode { node, all, base, file, speaks_of_here: [false; 2] };
    for one in named_paths(role, &yaml, environment).iter().filter(|one| !one.by_environment) {
        let own = |path: &Path| node.directories.iter().any(|directory| lies_in(directory, path, Sought::Anything));
        if named.resolve(one).is_some_and(|path| own(&path)) {
            named.speaks_of_here[usize::from(one.path.starts_with('/'))] = true;
        }
    }
    let mut reported = BTreeSet::new();
    for one in tls_files(role, &yaml, environment) {
        named.check_file(&one, Rule::EveryKey, BRING_BACK, &mut reported, found);
    }
    for one in handler_libraries(role, &yaml, environment) {
        // A library that exists is part of the program, and not of the node's data.
        if named.resolve(&one).is_some_and(|path| is_missing(&path)) {
            named.check_file(&one, Rule::NotPersistent, BRING_BACK, &mut reported, found);
        }
    }
    if let Some(one) = client_file_without_partner(role, &yaml, environment) {
        let what = format!(
            "{}, and not the other of peer.tls.clientCert.file and peer.tls.clientKey.file: the peer does not start",
            named.says(&one)
        );
        let remedy = OrLeaveOut("set both, or neither");
        found(Finding::error(Rule::EveryKey, format!("{} {}", node.node.id, one.path), what, remedy));
    }
    if let Some(one) = bootstrap_file(role, &yaml, environment) {
        let remedy = OrLeaveOut(
            "restore the file; or set General.BootstrapMethod to none: orderers of Fabric 2.3 and newer that have channels do not need it",
        );
        named.check_file(&one, Rule::NotPersistent, remedy, &mut reported, found);
    }
    for one in places(role, &yaml, environment).iter().filter(|one| !one.by_environment) {
        named.check_place(one, found);
    }
    let of_file = NodeSettings::of(role, &yaml, &Environment::new()).msp_id.filter(|id| id != SAMPLE_MSP);
    let overridden = NodeSettings::read(role, b"{}", environment).msp_id;
    let by_environment = overridden.is_some();
    if let (Some(says), Some(known)) = (overridden.or(of_file), &node.node.msp_id)
        && says != *known
    {
        let who = if by_environment { "its environment" } else { named.file.as_str() };
        found(Finding::warning(
            Rule::EveryKey,
            &node.node.id,
            format!("{who} says that its organization's MSP is {says}, the inventory says {known}"),
            AGREE,
        ));
    }
}

/// What is looked for at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sought {
    File,
    Directory,
    Anything,
}

impl Sought {
    fn is(self, directory: &SurveyedDirectory, entry: &VolumeEntry) -> bool {
        let there = directory.led_to(entry);
        match self {
            Sought::File => there.is_file(),
            Sought::Directory => there.is_directory(),
            Sought::Anything => there.is_file() || there.is_directory(),
        }
    }
}

impl ConfiguredNode<'_> {
    /// Returns the place of this machine that a path means.
    fn resolve(&self, one: &NamedFile) -> Option<PathBuf> {
        if one.path.starts_with('/') {
            return Some(normal(Path::new(&one.path)));
        }
        Some(normal(&self.base.as_ref()?.join(&one.path)))
    }

    /// Whether it is in any node's directories, also where links lead there.
    fn is_captured(&self, path: &Path, sought: Sought) -> bool {
        Self::lies_in_any(self.all, path, sought)
    }

    /// Whether it is in the node's own directories, also where links lead there.
    fn is_own(&self, path: &Path, sought: Sought) -> bool {
        Self::lies_in_any(std::slice::from_ref(self.node), path, sought)
    }

    fn lies_in_any(nodes: &[PlannedNode], path: &Path, sought: Sought) -> bool {
        let any = |path: &Path| {
            let mut directories = nodes.iter().flat_map(|node| &node.directories);
            directories.any(|directory| lies_in(directory, path, sought))
        };
        any(path) || path.canonicalize().is_ok_and(|real| real != path && any(&real))
    }

    /// Whether a captured path ends as this one does: paths of some settings begin where the node is started, which is not known.
    fn ends_like_captured(&self, named: &str, sought: Sought) -> bool {
        let parts: Vec<&str> = named.split('/').skip_while(|part| matches!(*part, "." | "..")).collect();
        let tail = parts.join("/");
        let mut directories = self.node.directories.iter();
        directories.any(|directory| {
            let root = Path::new(&directory.directory.path);
            let mut entries = directory.entries.iter().filter(|(entry, _)| sought.is(directory, entry));
            (sought != Sought::File && root.ends_with(&tail))
                || entries.any(|(entry, _)| root.join(&entry.path).ends_with(&tail))
        })
    }

    /// Whether a setting's relative path begins at the configuration file.
    fn begins_at_file(&self, one: &NamedFile) -> bool {
        let outside = ["Admin.", "Operations.", "Consensus."].iter().any(|section| one.setting.starts_with(section));
        let of_peer = self.node.node.role == NodeRole::Peer && !one.setting.starts_with(HANDLERS);
        one.path.starts_with('/') || of_peer || !(outside || one.setting.starts_with(HANDLERS))
    }

    fn says(&self, one: &NamedFile) -> String {
        if one.by_environment {
            format!("the environment names it ({})", one.variable)
        } else {
            format!("{} names it ({})", self.file, one.setting)
        }
    }

    fn speaks_of_here(&self, one: &NamedFile) -> bool {
        one.by_environment || self.speaks_of_here[usize::from(one.path.starts_with('/'))]
    }

    /// Whether the file's folder is one of the node's MSP and TLS directories.
    fn folder_is_own(&self, path: &Path) -> bool {
        let Some(folder) = path.parent() else { return false };
        [DirectoryRole::Tls, DirectoryRole::Msp].into_iter().any(|role| {
            let view = RoleView::of(self.node, role);
            let mut roots = view.parts.iter().map(|(directory, at)| Path::new(&directory.directory.path).join(at));
            roots.any(|root| folder.starts_with(root))
        })
    }

    fn check_file(
        &self,
        one: &NamedFile,
        rule: Rule,
        remedy: OrLeaveOut,
        reported: &mut BTreeSet<PathBuf>,
        found: &dyn Fn(Finding),
    ) {
        let Some(path) = self.resolve(one).filter(|path| !reported.contains(path)) else { return };
        if self.is_captured(&path, Sought::File) {
            return;
        }
        if !self.begins_at_file(one) && self.ends_like_captured(&one.path, Sought::File) {
            return;
        }
        let certain = self.folder_is_own(&path) || (self.speaks_of_here(one) && self.begins_at_file(one));
        let subject = format!("{} {}", self.node.node.id, path.display());
        let says = self.says(one);
        if certain && path.is_dir() {
            // What a container's engine makes of a file to mount that is missing.
            reported.insert(path);
            found(Finding::error(rule, subject, format!("{says}, but it is a directory"), remedy));
        } else if !is_missing(&path) {
            reported.insert(path);
            let remedy = "name its directory in the inventory (tls = \"…\", other = \"…\")";
            let what = format!("{says}, but it is in none of the captured directories");
            found(Finding::warning(rule, subject, what, remedy));
        } else if certain {
            reported.insert(path);
            found(Finding::error(rule, subject, format!("{says}, but it is missing"), remedy));
        } else if self.speaks_of_here(one) {
            reported.insert(path);
            let what = format!(
                "{says} by a path that begins where the node is started, and no captured file has a path that ends alike: the node does not start without it"
            );
            let remedy =
                "restore the file if it was lost, or name its directory in the inventory (tls = \"…\", other = \"…\")";
            found(Finding::warning(rule, format!("{} {}", self.node.node.id, one.path), what, remedy));
        }
    }

    /// A directory that the configuration names in another place than the inventory.
    fn check_place(&self, one: &NamedFile, found: &dyn Fn(Finding)) {
        let (role, rule) = match one.setting.rsplit('.').next() {
            Some("fileSystemPath") => (DirectoryRole::PeerData, Rule::NotPersistent),
            Some("Location") => (DirectoryRole::OrdererLedger, Rule::NotPersistent),
            Some("WALDir") => (DirectoryRole::OrdererWal, Rule::NotPersistent),
            Some("SnapDir") => (DirectoryRole::OrdererSnapshots, Rule::NotPersistent),
            _ => (DirectoryRole::Msp, Rule::EveryKey),
        };
        // That the node has none at all has its own finding.
        let view = RoleView::of(self.node, role);
        let Some(path) = self.resolve(one).filter(|_| !view.parts.is_empty()) else { return };
        if self.is_own(&path, Sought::Directory) {
            return;
        }
        // Where the path may mean several places, another node's is none of them by chance.
        let is_anothers = self.is_captured(&path, Sought::Directory);
        let by_its_end = || !self.begins_at_file(one) && self.ends_like_captured(&one.path, Sought::Directory);
        if !is_anothers && (by_its_end() || !self.speaks_of_here(one)) {
            return;
        }
        let missing = if is_missing(&path) { ", which does not exist" } else { "" };
        found(Finding::warning(
            rule,
            format!("{} {}", self.node.node.id, path.display()),
            format!(
                "{} names this directory{missing} ({}), and the inventory names another place, {}: what is captured may not be what the node uses",
                self.file,
                one.setting,
                view.label()
            ),
            AGREE,
        ));
    }
}

/// Whether an entry of a directory, or the directory itself, lies at a path.
fn lies_in(directory: &SurveyedDirectory, path: &Path, sought: Sought) -> bool {
    let root = Path::new(&directory.directory.path);
    let real = root.canonicalize();
    let roots = [Some(root), real.as_deref().ok()];
    roots.into_iter().flatten().any(|root| {
        let Ok(inside) = path.strip_prefix(root) else { return false };
        if inside.as_os_str().is_empty() {
            return sought != Sought::File;
        }
        directory.entries.iter().any(|(entry, _)| Path::new(&entry.path) == inside && sought.is(directory, entry))
    })
}

/// Whether nothing is there: what cannot be looked at may be there.
fn is_missing(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match path.metadata() {
        Ok(_) => false,
        Err(error) => {
            let in_a_circle = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
            matches!(error.kind(), NotFound | NotADirectory) || in_a_circle
        }
    }
}
