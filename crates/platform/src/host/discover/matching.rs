//! Matches things that belong together but are stored apart: identities and data, peers and their CouchDB.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};

use super::node::Node;
use super::relative;
use super::remark::Remarks;
use super::tree::{Identity, Tree};

/// Gives nodes of which only data is known their MSP and TLS directories: those beside the data, else those of the same name.
pub(super) fn identities(tree: &Tree, nodes: &mut [Node]) {
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    let is_of = |identity: &Identity, nodes: &[Node]| {
        nodes.iter().any(|node| node.directories.iter().any(|(_, path)| *path == identity.msp))
    };
    for (position, identity) in tree.identities.iter().enumerate() {
        if is_of(identity, nodes) {
            taken.insert(position);
            give_tls(identity, nodes);
        }
    }
    let fits = |identity: &Identity, node: &Node| identity.role.is_none_or(|role| role == node.role);
    // Beside the data, or in it.
    for node in nodes.iter_mut().filter(|node| wants_identity(node)) {
        let Some(data) = node.data().map(Path::to_path_buf) else { continue };
        let beside = |identity: &Identity| {
            identity.home == node.home || identity.home == data || data.parent() == Some(identity.home.as_path())
        };
        let found = tree
            .identities
            .iter()
            .enumerate()
            .find(|(position, identity)| !taken.contains(position) && fits(identity, node) && beside(identity));
        if let Some((position, identity)) = found {
            taken.insert(position);
            give(node, identity);
        }
    }
    // Of the same name: whole names first, of all nodes, so that nobody takes another's; then the longest agreement, and only where one
    // identity agrees best.
    let count = nodes.len();
    for (least, position) in [WHOLE_NAME, 1].into_iter().flat_map(|least| (0..count).map(move |at| (least, at))) {
        if !wants_identity(&nodes[position]) {
            continue;
        }
        let node = &mut nodes[position];
        let mut ranked: Vec<(usize, usize)> = tree
            .identities
            .iter()
            .enumerate()
            .filter(|(position, identity)| !taken.contains(position) && fits(identity, node))
            .map(|(position, identity)| (agreement(node, identity), position))
            .filter(|(agreement, _)| *agreement >= least)
            .collect();
        ranked.sort_by(|a, b| b.cmp(a));
        let best = match ranked.as_slice() {
            [best] => Some(best),
            [best, second, ..] if best.0 > second.0 => Some(best),
            _ => None,
        };
        if let Some((_, position)) = best.copied() {
            let identity = &tree.identities[position];
            taken.insert(position);
            give(node, identity);
            if node.by_layout && identity.home.file_name().is_some_and(|name| name.to_string_lossy().contains('.')) {
                node.home.clone_from(&identity.home);
            }
        }
    }
}

/// The TLS directory beside a node's MSP is its own when it names none and does not switch TLS off.
fn give_tls(identity: &Identity, nodes: &mut [Node]) {
    let Some(tls) = &identity.tls else { return };
    if nodes.iter().flat_map(|node| &node.directories).any(|(_, path)| path == tls) {
        return;
    }
    let off = |node: &Node| {
        let mut settings = node.own.iter().chain(&node.environment);
        settings.any(|(name, value)| name.ends_with("_TLS_ENABLED") && value.eq_ignore_ascii_case("false"))
    };
    let node = nodes.iter_mut().find(|node| node.directories.iter().any(|(_, path)| *path == identity.msp));
    if let Some(node) = node.filter(|node| node.directory(DirectoryRole::Tls).is_none() && !off(node)) {
        node.directories.push((DirectoryRole::Tls, tls.clone()));
        node.settle(&[DirectoryRole::Tls]);
    }
}

fn wants_identity(node: &Node) -> bool {
    matches!(node.role, NodeRole::Peer | NodeRole::Orderer)
        && node.directory(DirectoryRole::Msp).is_none_or(|path| !path.is_dir())
}

fn give(node: &mut Node, identity: &Identity) {
    let tls = node.directory(DirectoryRole::Tls).is_some_and(Path::is_dir);
    node.directories.retain(|(role, path)| !matches!(role, DirectoryRole::Msp | DirectoryRole::Tls) || path.is_dir());
    node.directories.push((DirectoryRole::Msp, identity.msp.clone()));
    if !tls {
        node.directories.extend(identity.tls.clone().map(|tls| (DirectoryRole::Tls, tls)));
    }
    node.settle(&[DirectoryRole::Msp, DirectoryRole::Tls]);
}

/// How well the names of a node's data and of an identity agree: 0 not at all.
fn agreement(node: &Node, identity: &Identity) -> usize {
    let host = identity.home.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let common_name = identity.common_name.to_lowercase();
    let data = node.data().unwrap_or(&node.home);
    let parts: Vec<String> = data.components().map(|part| part.as_os_str().to_string_lossy().to_lowercase()).collect();
    let own = [node.name.clone(), node.id.clone()].into_iter().flatten().map(|name| name.to_lowercase());
    let names: Vec<String> = parts.iter().rev().take(4).cloned().chain(own).collect();
    // A volume of docker compose is called project_name.
    let same = |name: &String, known: &str| {
        !known.is_empty()
            && (name == known || name.ends_with(&format!("_{known}")) || name.ends_with(&format!("-{known}")))
    };
    if known_host(&host) && names.iter().any(|name| same(name, &host)) {
        return WHOLE_NAME + 10;
    }
    if known_host(&common_name) && names.iter().any(|name| same(name, &common_name)) {
        return WHOLE_NAME;
    }
    // `org1/peer0` and peer0.org1.example.com: the node's own name, and as many of its host's other parts as there are.
    let labels: Vec<&str> =
        if common_name.contains('.') { common_name.split('.').collect() } else { host.split('.').collect() };
    let Some((first, domain)) = labels.split_first() else { return 0 };
    let begins = |name: &String| name.starts_with(&format!("{first}."));
    if !names.iter().any(|name| name == first || begins(name) || name.ends_with(&format!("_{first}"))) {
        return 0;
    }
    // `peer0.org1` is not peer0.org2.example.com, and a folder of another organization is none of its either.
    let contradicts = |name: &String| begins(name) && !is_shortened(name, &labels);
    let has = |label: &str| names.iter().any(|name| name.split(['.', '_', '-']).any(|part| part == label));
    if names.iter().any(contradicts) || !domain.first().is_some_and(|own| has(own)) {
        return 0;
    }
    10 + domain.iter().filter(|label| has(label)).count()
}

/// What a whole name counts; parts of it count less.
const WHOLE_NAME: usize = 90;

/// Whether a name has some of a host's labels in their order, and no other; behind its last one anything may follow, as in
/// `peer0.org1-data`.
fn is_shortened(name: &str, labels: &[&str]) -> bool {
    let mut left = labels.iter();
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        let part = if parts.peek().is_none() { part.split(['_', '-']).next().unwrap_or(part) } else { part };
        if !left.any(|label| *label == part) {
            return false;
        }
    }
    true
}

/// Whether a name says more than a role does.
fn known_host(name: &str) -> bool {
    !matches!(name, "" | "peer" | "orderer" | "node" | "ca" | "etc" | "config")
}

/// Tells of peers and orderers without an identity, and what to write.
pub(super) fn ask_for_identities(
    tree: &Tree,
    nodes: &[Node],
    named: &[(String, String)],
    base: &Path,
    remarks: &mut Remarks,
) {
    for (node, (organization, name)) in nodes.iter().zip(named).filter(|(node, _)| wants_identity(node)) {
        let free = tree.identities.iter().filter(|identity| {
            let used = nodes.iter().any(|node| node.directories.iter().any(|(_, path)| *path == identity.msp));
            !used && identity.role.is_none_or(|role| role == node.role)
        });
        let lines: Vec<String> = free
            .map(|identity| {
                let tls = identity.tls.as_ref().map(|tls| format!(", tls = \"{}\"", relative(tls, base)));
                format!(
                    "msp = \"{}\"{} ({})",
                    relative(&identity.msp, base),
                    tls.unwrap_or_default(),
                    identity.common_name
                )
            })
            .collect();
        let what = if lines.is_empty() {
            "name its MSP and TLS directories in the inventory: msp = \"…\", tls = \"…\"".to_owned()
        } else {
            format!("write one of these into its directories in the inventory: {}", lines.join("; or "))
        };
        let data = node.data().map_or(String::new(), |data| format!(" (data in {})", data.display()));
        remarks.push(format!("{organization}/{name}{data}: its identity is unknown; {what}"));
    }
}

/// Which CouchDB serves which peer: by the address that the peer names, else by where they lie and what they are called.
pub(super) fn state_databases(
    nodes: &[Node],
    named: &[(String, String)],
    remarks: &mut Remarks,
) -> BTreeMap<usize, String> {
    let name_of = |position: usize| format!("{}/{}", named[position].0, named[position].1);
    let databases: Vec<usize> =
        (0..nodes.len()).filter(|&position| nodes[position].role == NodeRole::StateDatabase).collect();
    let mut out = BTreeMap::new();
    let mut free: BTreeSet<usize> = databases.iter().copied().collect();
    let mut waiting = Vec::new();
    // Peers whose address leads to several, and to which.
    let mut several: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut addressed: Vec<(usize, String)> = Vec::new();
    for (position, node) in nodes.iter().enumerate().filter(|(_, node)| node.role == NodeRole::Peer) {
        let Some(address) = couch_of(node, !databases.is_empty()) else { continue };
        // In the peer's own network a name leads to one container.
        let near = databases.iter().copied().filter(|&database| is_near(node, &nodes[database], host_of(&address)));
        match near.collect::<Vec<usize>>().as_slice() {
            [] => addressed.push((position, address)),
            [database] => {
                free.remove(database);
                out.insert(position, name_of(*database));
            }
            all => several.push((position, all.to_vec())),
        }
    }
    let mut candidates: Vec<(usize, Vec<usize>)> = Vec::new();
    for (position, address) in addressed {
        let host = host_of(&address);
        let port: Option<u16> = address.rsplit_once(':').map_or(Some(5984), |(_, port)| port.parse().ok());
        let leads = |database: &Node| {
            database.hosts.iter().any(|known| known == host)
                || port.is_some_and(|port| database.ports.contains(&port) && is_local(host))
        };
        let all: Vec<usize> = free.iter().copied().filter(|&database| leads(&nodes[database])).collect();
        if all.is_empty() { waiting.push(position) } else { candidates.push((position, all)) }
    }
    for (position, all) in &candidates {
        // One that others name as well serves one of them.
        let shared =
            candidates.iter().any(|(other, theirs)| other != position && theirs.iter().any(|one| all.contains(one)));
        match all.as_slice() {
            [database] if !shared => {
                out.insert(*position, name_of(*database));
            }
            _ => several.push((*position, all.clone())),
        }
    }
    free.retain(|database| !candidates.iter().chain(&several).any(|(_, all)| all.contains(database)));
    // The best agreement first, so that nobody takes another's.
    while !waiting.is_empty() {
        let pairs = waiting.iter().flat_map(|&peer| free.iter().map(move |&database| (peer, database)));
        // Containers whose names are known, and that the address is none of, are others.
        let named = |node: &Node| !node.aliases.is_empty();
        let pairs = pairs.filter(|(peer, database)| {
            nodes[*peer].couch.is_none() || !named(&nodes[*peer]) || !named(&nodes[*database])
        });
        let mut ranked: Vec<(usize, usize, usize)> =
            pairs.map(|(peer, database)| (closeness(&nodes[peer], &nodes[database]), peer, database)).collect();
        ranked.sort_by(|a, b| b.cmp(a));
        let Some(&(best, peer, database)) = ranked.first() else { break };
        let clear = !ranked.iter().skip(1).any(|&(other, other_peer, other_database)| {
            other == best && (other_peer == peer || other_database == database)
        });
        if !clear && ranked.len() > 1 {
            break;
        }
        free.remove(&database);
        waiting.retain(|&known| known != peer);
        out.insert(peer, name_of(database));
    }
    for (peer, all) in several {
        let names: Vec<String> = all.into_iter().map(name_of).collect();
        remarks.push(format!(
            "{}: its world state is in a CouchDB, and its address ({}) does not tell which of this machine's it is, or other peers have \
             the same: write the right one into the inventory, served_by = [\"{}\"]",
            name_of(peer),
            nodes[peer].couch.as_deref().unwrap_or_default(),
            names.join("\"] or [\"")
        ));
    }
    for peer in waiting {
        let candidates: Vec<String> = free.iter().map(|&database| name_of(database)).collect();
        let what = match candidates.as_slice() {
            [] => {
                "it was not found: after a restore of the peer it must be emptied before the peer starts (P3); if its files are \
                 on this machine, add a node with role = \"state-database\" and directories = { state-database = \"…\" }, and the peer's \
                 served_by = [\"…\"]"
                    .to_owned()
            }
            [one] if nodes[peer].couch.as_ref().is_some_and(|address| !address.is_empty()) => format!(
                "its address ({}) does not lead to {one}: if it is that one, write served_by = [\"{one}\"] into the inventory",
                nodes[peer].couch.as_deref().unwrap_or_default()
            ),
            several => format!(
                "several are possible: write the right one into the inventory, served_by = [\"{}\"]",
                several.join("\"] or [\"")
            ),
        };
        remarks.push(format!("{}: its world state is in a CouchDB; {what}", name_of(peer)));
    }
    for database in free {
        remarks.push(format!(
            "{} contains the files of a CouchDB, but no peer is known to use it; write served_by = [\"{}\"] into its peer's entry in the inventory, or remove it",
            nodes[database].data().unwrap_or(Path::new("it")).display(),
            name_of(database)
        ));
    }
    out
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Whether this name leads from a peer's container to a CouchDB's in a network that both are in.
fn is_near(peer: &Node, database: &Node, host: &str) -> bool {
    database
        .aliases
        .iter()
        .any(|(network, name)| name == host && peer.aliases.iter().any(|(known, _)| known == network))
}

/// The address of a peer's CouchDB; empty when only the missing LevelDB tells of it.
fn couch_of(node: &Node, any: bool) -> Option<String> {
    if let Some(address) = &node.couch {
        return Some(address.clone());
    }
    let ledgers = node.data()?.join("ledgersData");
    let without_state = ledgers.is_dir() && !ledgers.join("stateLeveldb").exists();
    (node.config.is_none() && any && without_state).then(String::new)
}

fn is_local(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]" | "0.0.0.0" | "")
}

/// How close a peer and a CouchDB lie to each other: shared folders count most, then their numbers, then words of their names.
fn closeness(peer: &Node, database: &Node) -> usize {
    let (Some(left), Some(right)) = (peer.data(), database.data()) else { return 0 };
    let shared = left.components().zip(right.components()).take_while(|(a, b)| a == b).count();
    let words = |node: &Node| -> BTreeSet<String> {
        let home = node.home.to_string_lossy().to_lowercase();
        let own = node.name.clone().unwrap_or_default().to_lowercase();
        let all = format!("{home}/{own}");
        all.split(['/', '.', '_', '-']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let numbers = |node: &Node| -> BTreeSet<String> {
        let last = node.name.clone().unwrap_or_else(|| {
            node.home.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        });
        last.split('.')
            .next()
            .unwrap_or_default()
            .split(|c: char| !c.is_ascii_digit())
            .filter(|number| !number.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let common_words = words(peer).intersection(&words(database)).count();
    let common_numbers = numbers(peer).intersection(&numbers(database)).count();
    shared * 100 + common_numbers * 20 + common_words
}
