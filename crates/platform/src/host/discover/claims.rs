//! Assigns directories to nodes: old copies are excluded, and each directory belongs to one node.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};

use super::container::Unrecognised;
use super::names::{copied_from, holds_copies};
use super::node::Node;
use super::remark::Remarks;
use super::tree::Tree;

/// How deep below an orderer's folder its raft logs are looked for.
const RAFT_DEPTH: usize = 3;

/// Takes old copies of nodes and networks out of what was found, and tells of them. Returns where they lie. `used`: the directories of the
/// nodes that the files below the root start or configure; one that is used is no copy, whatever its name.
pub(super) fn set_copies_apart(
    tree: &mut Tree,
    root: &Path,
    used: impl Fn(&Tree) -> Vec<PathBuf>,
    remarks: &mut Remarks,
) -> Vec<PathBuf> {
    let mut copies = copies_by_name(tree, root);
    if !copies.is_empty() {
        let mut others = tree.clone();
        others.set_apart(&copies.keys().cloned().collect::<Vec<_>>(), false);
        let used = used(&others);
        let is_used = |path: &Path| used.iter().any(|used| used.starts_with(path));
        for (copy, original) in copies.clone() {
            if !is_used(&copy) {
                continue;
            }
            copies.remove(&copy);
            let holds = tree.data.iter().any(|data| data.path.starts_with(&original));
            // The copy is the one beside it that nothing uses.
            if holds && copy.parent() == original.parent() && !is_used(&original) {
                copies.insert(original, copy);
            }
        }
    }
    let all: Vec<PathBuf> = copies.keys().cloned().collect();
    tree.set_apart(&all, true);
    for (copy, original) in &copies {
        remarks.push(format!(
            "{} looks like an old copy of {}: it is not treated as a node and is not in the inventory; to capture it, name it there as a directory `other`",
            copy.display(),
            original.display()
        ));
    }
    all
}

/// What the names of folders say is a copy, and of what.
fn copies_by_name(tree: &Tree, root: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let live: Vec<PathBuf> =
        tree.data.iter().map(|data| data.path.clone()).chain(tree.authorities.iter().cloned()).collect();
    let all = [&tree.configs, &tree.authorities].into_iter().flatten().cloned();
    let all = all.chain(tree.data.iter().map(|data| data.path.clone()));
    let all = all.chain(tree.identities.iter().map(|identity| identity.msp.clone()));
    all.filter_map(|path| copy_of(&path, root, &live)).collect()
}

/// Where a copy that holds this path begins, and what it is a copy of.
fn copy_of(path: &Path, root: &Path, live: &[PathBuf]) -> Option<(PathBuf, PathBuf)> {
    let inside = path.strip_prefix(root).ok()?;
    let mut at = root.to_path_buf();
    for part in inside.components() {
        let before = at.clone();
        at.push(part);
        let name = part.as_os_str().to_str()?;
        if let Some(base) = copied_from(name)
            && before.join(base).exists()
        {
            return Some((at, before.join(base)));
        }
        if holds_copies(name) {
            // Copied with some of its path.
            let rest = path.strip_prefix(&at).ok()?;
            let tails = rest.ancestors().take_while(|tail| tail.components().count() > 0);
            let mut originals =
                tails.filter_map(|tail| live.iter().find(|live| live.ends_with(tail) && !live.starts_with(&at)));
            if let Some(original) = originals.next() {
                return Some((at, original.clone()));
            }
            let dated = rest.components().skip(1).collect::<PathBuf>();
            let count = dated.components().count();
            if count > 0
                && let Some(original) = live.iter().find(|live| live.ends_with(&dated) && !live.starts_with(&at))
            {
                return Some((at, original.clone()));
            }
        }
    }
    None
}

pub(super) fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// A directory as the machine knows it: one that is mounted in two places is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DirectoryKey {
    /// Its device and number.
    Here(u64, u64),
    /// It is not here.
    Named(PathBuf),
}

impl DirectoryKey {
    pub fn of(path: &Path) -> DirectoryKey {
        path.metadata().map_or_else(
            |_| DirectoryKey::Named(path.to_path_buf()),
            |found| DirectoryKey::Here(found.dev(), found.ino()),
        )
    }
}

/// Takes containers out that do not run and have the data of another: an old container that was kept is no node, whatever its name.
pub(super) fn set_stopped_apart(nodes: &mut Vec<Node>, stopped: &BTreeSet<String>, remarks: &mut Remarks) {
    let mut out: Vec<Node> = Vec::new();
    for node in std::mem::take(nodes) {
        let data = node.data().filter(|path| path.exists()).map(DirectoryKey::of);
        let mut known = out.iter().filter(|known| known.role == node.role);
        let same = known.find(|known| data.is_some() && known.data().map(DirectoryKey::of) == data);
        match same.filter(|_| stopped.contains(&node.origin)) {
            Some(known) if stopped.contains(&known.origin) => remarks.push(format!(
                "{} and {} both do not run and have the same data {}: the node is the first of them, with its commands; if the second is \
                 the one that is started, correct the inventory",
                known.origin,
                node.origin,
                node.data().unwrap_or(Path::new("")).display()
            )),
            Some(known) => remarks.push(format!(
                "{} does not run and has the data of {}, {}: it is not in the inventory; remove it, so that nobody starts it on this data",
                node.origin,
                known.origin,
                node.data().unwrap_or(Path::new("")).display()
            )),
            None => out.push(node),
        }
    }
    *nodes = out;
}

/// Tells of containers that hold what a node has, and are none of the nodes that were found.
pub(super) fn tell_unrecognised(unrecognised: &[Unrecognised], nodes: &[Node], remarks: &mut Remarks) {
    let known: Vec<PathBuf> =
        nodes.iter().flat_map(|node| node.directories.iter().map(|(_, path)| real(path))).collect();
    for one in unrecognised {
        let unclaimed: Vec<String> = one
            .data
            .iter()
            .filter(|path| !known.iter().any(|known| real(path).starts_with(known)))
            .map(|path| path.display().to_string())
            .collect();
        let what = match (one.data.is_empty(), unclaimed.is_empty()) {
            (false, true) => continue,
            (false, false) => format!("has the data of a Fabric node ({})", unclaimed.join(", ")),
            (true, _) => "has the configuration of a Fabric node, and its data is not where that says".to_owned(),
        };
        remarks.push(format!(
            "{} {what}, and neither its image nor its command nor its settings tell which node it is (K7): add the node to the \
             inventory, with its role and its directories",
            one.origin
        ));
    }
}

/// Makes one node of what tells of one: a script and the environment file that it reads, a service of two compose files. What says more
/// comes first.
pub(super) fn settle(nodes: &mut Vec<Node>, remarks: &mut Remarks) {
    let mut out: Vec<Node> = Vec::new();
    for mut node in std::mem::take(nodes) {
        let data = node.data().map(DirectoryKey::of);
        let same = out.iter_mut().find(|known| data.is_some() && known.data().map(DirectoryKey::of) == data);
        match same {
            Some(known) if known.role == node.role => {
                if let (Some(one), Some(other)) = (known.data(), node.data())
                    && real(one) != real(other)
                {
                    remarks.push(same_directory(other, one));
                }
                merge(known, &mut node);
            }
            Some(known) => {
                remarks.push(format!(
                    "{} and {} both name the directory {}: it is kept as the {}'s; correct one of them, or the inventory",
                    known.origin,
                    node.origin,
                    node.data().unwrap_or(Path::new("")).display(),
                    known.role
                ));
                let data = node.data().map(Path::to_path_buf);
                node.directories.retain(|(_, path)| Some(path) != data.as_ref());
                out.push(node);
            }
            None => out.push(node),
        }
    }
    *nodes = out;
}

/// What is said of a directory that is found under two paths.
pub(super) fn same_directory(second: &Path, first: &Path) -> String {
    format!(
        "{} is the same directory as {}, mounted a second time: what is in it is in the inventory under one of the two paths only",
        second.display(),
        first.display()
    )
}

fn merge(known: &mut Node, more: &mut Node) {
    for (role, path) in std::mem::take(&mut more.directories) {
        let another = known.directories.iter().any(|(have, have_path)| {
            *have_path == path
                || (*have == role && have_path.exists() && !matches!(role, DirectoryRole::Tls | DirectoryRole::Other))
        });
        if !another {
            // What one source says and is not there gives way to what another says and is.
            known.directories.retain(|(have, have_path)| *have != role || have_path.exists());
            known.directories.push((role, path));
        }
    }
    for (name, value) in std::mem::take(&mut more.environment) {
        known.environment.entry(name).or_insert(value);
    }
    known.msp_id = known.msp_id.take().or(more.msp_id.take());
    known.id = known.id.take().or(more.id.take());
    known.name = known.name.take().or(more.name.take());
    known.couch = known.couch.take().or(more.couch.take());
    known.operations = known.operations.take().or(more.operations.take());
    known.participation = known.participation.take().or(more.participation.take());
    known.client = known.client.take().or(more.client.take());
    known.config = known.config.take().or(more.config.take());
    for (name, value) in std::mem::take(&mut more.own) {
        known.own.entry(name).or_insert(value);
    }
    known.roots.append(&mut more.roots);
    known.hosts.append(&mut more.hosts);
    known.aliases.append(&mut more.aliases);
    known.ports.append(&mut more.ports);
    let have = |role: DirectoryRole| known.directories.iter().any(|(known, path)| *known == role && path.exists());
    let settled = have(DirectoryRole::Msp) && have(DirectoryRole::Tls);
    if settled {
        known.remarks.clear();
    } else {
        known.remarks.append(&mut more.remarks);
    }
}

/// The raft logs of orderers of which only the data is known and that do not have them in it: beside it.
fn add_raft_logs(nodes: &mut [Node], remarks: &mut Remarks) {
    for position in 0..nodes.len() {
        let node = &nodes[position];
        let known =
            node.directory(DirectoryRole::OrdererWal).is_some() || !node.by_layout || node.role != NodeRole::Orderer;
        let Some(data) = node.data().filter(|data| !known && !data.join("etcdraft").is_dir()) else { continue };
        let own = |path: &Path| {
            let others = nodes.iter().enumerate().filter(|(other, _)| *other != position);
            let mut others = others.flat_map(|(_, node)| node.directories.iter().map(|(_, path)| path));
            !path.starts_with(data) && !others.any(|other| path.starts_with(other))
        };
        let mut found: Vec<(DirectoryRole, PathBuf)> = Vec::new();
        for (role, end) in [(DirectoryRole::OrdererWal, "wal"), (DirectoryRole::OrdererSnapshots, "snap")] {
            let mut folders = Vec::new();
            if data != node.home {
                folders_of(&node.home, end, RAFT_DEPTH, &mut folders);
            }
            folders.retain(|path| own(path));
            match folders.as_slice() {
                [] => {}
                [folder] => found.push((role, folder.clone())),
                several => remarks.push(format!(
                    "{}: several folders hold raft files of its kind: write one of them into the inventory, {role} = {}",
                    node.origin,
                    several.iter().map(|path| format!("\"{}\"", path.display())).collect::<Vec<_>>().join(" or ")
                )),
            }
        }
        nodes[position].directories.extend(found);
    }
}

/// The folders below `folder` that have folders of channels with files of this ending.
fn folders_of(folder: &Path, end: &str, depth: usize, out: &mut Vec<PathBuf>) {
    let entries = |folder: &Path| {
        std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
    };
    let mut below: Vec<PathBuf> = entries(folder).filter(|path| path.is_dir() && !path.is_symlink()).collect();
    below.sort();
    let holds = |channel: &PathBuf| entries(channel).any(|file| file.extension().is_some_and(|known| known == end));
    if below.iter().any(holds) {
        out.push(folder.to_path_buf());
    } else if depth > 0 {
        below.iter().for_each(|folder| folders_of(folder, end, depth - 1, out));
    }
}

/// Adds the nodes of which only data was found.
pub(super) fn add_data(tree: &Tree, nodes: &mut Vec<Node>, remarks: &mut Remarks) {
    for data in &tree.data {
        let path = DirectoryKey::of(&data.path);
        let claimed = nodes
            .iter()
            .flat_map(|node| &node.directories)
            .any(|(role, known)| *role == data.kind && DirectoryKey::of(known) == path);
        if claimed {
            continue;
        }
        let node = Node::of_data(data.role, data.kind, &data.path);
        // A node that is configured to have its data in another place of the same folder.
        let instead = nodes.iter().find(|known| {
            known.role == node.role
                && !known.by_layout
                && known.data().is_some_and(|used| used.is_dir() && used.parent() == data.path.parent())
                && known.home == node.home
                && !known.home.ends_with(data.path.file_name().unwrap_or_default())
        });
        if let Some(known) = instead {
            remarks.push(format!(
                "{} contains data of a {} that no configuration names ({} names {}): it is not treated as a node and is not in the inventory",
                data.path.display(),
                data.role,
                known.origin,
                known.data().unwrap_or(Path::new("another")).display()
            ));
            continue;
        }
        // A node whose data was named and is not where it was named: its folder holds data of its kind.
        let without = nodes.iter_mut().find(|known| {
            known.role == node.role
                && !known.by_layout
                && known.data().is_none_or(|path| !path.exists())
                && known.home.as_path() != Path::new("/")
                && (known.home == node.home
                    || (known.role != NodeRole::StateDatabase && data.path.starts_with(&known.home)))
        });
        match without {
            Some(known) => {
                known.directories.retain(|(role, _)| *role != data.kind);
                known.directories.push((data.kind, data.path.clone()));
                known.settle(&[data.kind]);
            }
            None => nodes.push(node),
        }
    }
    add_raft_logs(nodes, remarks);
}

/// Gives each directory to one node: the first that names it. What is shared is reported, except for keys: those are each node's.
pub(super) fn one_owner_each(nodes: &mut [Node], remarks: &mut Remarks) {
    let mut owners: BTreeMap<DirectoryKey, (usize, DirectoryRole)> = BTreeMap::new();
    // Data before anything else: a folder of configuration that is somebody's data is data.
    for (position, node) in nodes.iter().enumerate() {
        if let Some(data) = node.data() {
            owners.entry(DirectoryKey::of(data)).or_insert((position, DirectoryRole::PeerData));
        }
    }
    // A node's own files before certificates that vouch for others.
    for roots in [false, true] {
        for (position, node) in nodes.iter().enumerate() {
            for (role, path) in node.directories.iter().filter(|(_, path)| node.roots.contains(path) == roots) {
                owners.entry(DirectoryKey::of(path)).or_insert((position, *role));
            }
        }
    }
    for position in 0..nodes.len() {
        let mut lost = Vec::new();
        let mut seen = Vec::new();
        let node = &mut nodes[position];
        node.directories.retain(|(role, path)| {
            let place = DirectoryKey::of(path);
            let keys = |role: DirectoryRole| matches!(role, DirectoryRole::Msp | DirectoryRole::Tls);
            let owner = owners.get(&place);
            // That of a certificate which vouches for others is theirs.
            let both = owner.is_some_and(|(_, of)| keys(*of)) && keys(*role) && !node.roots.contains(path);
            let own = both || owner.is_none_or(|(owner, _)| *owner == position);
            if !own && !node.roots.contains(path) {
                lost.push((*role, path.clone(), owners[&place].0));
            }
            let twice = seen.contains(&place);
            seen.push(place);
            own && !twice
        });
        for (role, path, owner) in lost {
            remarks.push(format!(
                "{} is used by {} and by {}: it is captured with the first of them only ({role})",
                path.display(),
                nodes[owner].origin,
                nodes[position].origin
            ));
            // A node whose configuration file is another's to keep says itself where its keys are.
            if matches!(role, DirectoryRole::Config | DirectoryRole::Tls) {
                let node = &mut nodes[position];
                for (name, value) in std::mem::take(&mut node.own) {
                    node.environment.entry(name).or_insert(value);
                }
            }
        }
    }
}
