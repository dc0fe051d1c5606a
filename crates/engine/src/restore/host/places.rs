//! The place of every directory: below a folder, or where the inventory names it. A directory that was captured inside another one may have a
//! place of its own here, and the other way round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{Finding, Node, NodeDirectory, NodeId, Remedy, Rule};
use fabkeep_platform::{Host, Platform, may_be_shared};

use super::Places;
use super::plan::Plan;
use super::staging::resolve;
use crate::EngineError;
use crate::misuse::Misuse;
use crate::point::{CapturedDirectory, CapturedNode, RecoveryPoint};
use crate::transform::{Transformed, is_named};

/// A directory and its place.
pub(super) struct Placed {
    pub node: usize,
    pub directory: usize,
    pub id: NodeId,
    /// Further nodes with the same directory.
    pub shared: Vec<NodeId>,
    pub place: PathBuf,
}

/// Finds the place of every directory of the nodes that are restored.
pub(super) fn place_all(plan: &mut Plan<'_>, transformed: &mut Transformed) -> Result<Vec<Placed>, EngineError> {
    let common = common_folder(&transformed.point);
    let chosen: Vec<usize> = (0..transformed.point.nodes.len())
        .filter(|node| is_named(&transformed.point.nodes[*node].facts.id, &transformed.nodes))
        .collect();
    let mut out: Vec<Placed> = Vec::new();
    for index in chosen {
        let node = &mut transformed.point.nodes[index];
        let id = node.facts.id.clone();
        let found = match &plan.places {
            Places::Below(to) => below(node, to, &common),
            Places::Of(host) => on_host(host, node)?,
        };
        for (directory, place) in found.into_iter().enumerate() {
            let place = match place {
                Ok(place) => resolve(&id, &place)?,
                Err(problem) => {
                    plan.findings
                        .push(problem.finding(&id, &transformed.point.nodes[index].directories[directory].directory));
                    continue;
                }
            };
            if let Some(other) = out.iter_mut().find(|other| other.place == place) {
                let nodes = &transformed.point.nodes;
                let one = &nodes[other.node].directories[other.directory];
                if is_same(one, &nodes[index].directories[directory]) {
                    other.shared.push(id.clone());
                    continue;
                }
                return Err(Misuse::new(format!(
                    "{} is the place of a directory of {} and of one of {id}",
                    place.display(),
                    other.id
                ))
                .next("correct the inventory")
                .into());
            }
            out.push(Placed { node: index, directory, id: id.clone(), shared: Vec::new(), place });
        }
    }
    Ok(out)
}

/// Returns whether two nodes were captured with the same directory: the restore puts it back once.
fn is_same(one: &CapturedDirectory, other: &CapturedDirectory) -> bool {
    may_be_shared(one.directory.role) && may_be_shared(other.directory.role) && one.entries == other.entries
}

/// Why a directory has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NoPlace {
    /// The inventory has none.
    None,
    /// It may be any of these.
    Any(Vec<PathBuf>),
}

impl NoPlace {
    fn finding(&self, id: &NodeId, directory: &NodeDirectory) -> Finding {
        let (role, path) = (&directory.role, &directory.path);
        let (what, remedy) = match self {
            NoPlace::None => (
                format!("the inventory names no place for its {role} directory {path}"),
                Remedy::from("add the directory to the inventory")
                    .or(Remedy::LeaveNodeOut)
                    .or(Remedy::RestoreElsewhere),
            ),
            NoPlace::Any(places) => {
                let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                (
                    format!("its {role} directory {path} may belong to any of {}", places.join(", ")),
                    Remedy::from("give the directories in the inventory the names that they had when they were captured (the ends of the paths are compared)")
                        .or(Remedy::RestoreElsewhere),
                )
            }
        };
        Finding::error(Rule::NotPersistent, id, what, remedy)
    }
}

type Found = Vec<Result<PathBuf, NoPlace>>;

/// The captured layout below a folder.
fn below(node: &CapturedNode, to: &Path, common: &Path) -> Found {
    let inside = |captured: &CapturedDirectory| {
        to.join(Path::new(&captured.directory.path).strip_prefix(common).unwrap_or(Path::new("")))
    };
    node.directories.iter().map(|captured| Ok(inside(captured))).collect()
}

/// The deepest folder that holds all captured directories.
fn common_folder(point: &RecoveryPoint) -> PathBuf {
    let mut folders = point
        .nodes
        .iter()
        .flat_map(|node| &node.directories)
        .filter_map(|directory| Path::new(&directory.directory.path).parent().map(Path::to_path_buf));
    let first = folders.next().unwrap_or_default();
    folders.fold(first, |common, folder| {
        common.ancestors().find(|ancestor| folder.starts_with(ancestor)).unwrap_or(Path::new("")).to_path_buf()
    })
}

/// The inventory's places. What was captured inside another directory and has a place of its own here becomes a directory of its own.
fn on_host(host: &Host, node: &mut CapturedNode) -> Result<Found, EngineError> {
    let id = node.facts.id.clone();
    let Some(known) = host.network().node(&id) else {
        return Ok(node.directories.iter().map(|_| Err(NoPlace::None)).collect());
    };
    let assigned = assign(node, known);
    let mut out = Found::new();
    let mut position = 0;
    // Directories that are split off are appended, and looked at in their turn.
    while let Some(captured) = node.directories.get(position) {
        let directory = &captured.directory;
        let place = match directory.role {
            DirectoryRole::DatabaseDump => dump_place(node, directory, &out),
            _ => assigned.get(&key(directory.role, &directory.path)).cloned().unwrap_or(Err(NoPlace::None)),
        };
        if let Ok(place) = &place {
            let mut nested = directory.nested.clone();
            nested.sort();
            let parent = resolve(&id, place)?;
            for (at, role) in nested {
                let captured = &mut node.directories[position];
                let path = join(&captured.directory.path, &at);
                let Some(Ok(own)) = assigned.get(&key(role, &path)) else { continue };
                let still_there = captured.directory.nested.iter().any(|(known, _)| *known == at);
                if still_there && resolve(&id, own)? != parent.join(&at) {
                    let split = split_off(captured, &at, role);
                    node.directories.push(split);
                }
            }
        }
        out.push(place);
        position += 1;
    }
    Ok(out)
}

/// A dump lies beside the authority's home, wherever that is here.
fn dump_place(node: &CapturedNode, dump: &NodeDirectory, places: &Found) -> Result<PathBuf, NoPlace> {
    let homes = node.directories.iter().zip(places).filter(|(known, _)| known.directory.role == DirectoryRole::CaHome);
    let mut found = homes.filter_map(|(home, place)| {
        let suffix = dump.path.strip_prefix(home.directory.path.as_str())?;
        Some(PathBuf::from(format!("{}{suffix}", place.as_ref().ok()?.display())))
    });
    found.next().ok_or(NoPlace::None)
}

type Key = (DirectoryRole, String);

fn key(role: DirectoryRole, path: &str) -> Key {
    (role, path.to_owned())
}

fn join(root: &str, at: &str) -> String {
    format!("{}/{at}", root.trim_end_matches('/'))
}

/// Directories with those inside them, by role.
fn by_role<'a>(directories: impl Iterator<Item = &'a NodeDirectory>) -> BTreeMap<DirectoryRole, Vec<String>> {
    let mut out: BTreeMap<DirectoryRole, Vec<String>> = BTreeMap::new();
    for directory in directories {
        out.entry(directory.role).or_default().push(directory.path.clone());
        for (at, role) in &directory.nested {
            out.entry(*role).or_default().push(join(&directory.path, at));
        }
    }
    out
}

/// Assigns every place once: the same path first, then the path with the longest common end.
fn assign(node: &CapturedNode, known: &Node) -> BTreeMap<Key, Result<PathBuf, NoPlace>> {
    let captured = by_role(node.directories.iter().map(|captured| &captured.directory));
    let mut here = by_role(known.directories.iter());
    let mut out = BTreeMap::new();
    for (role, mut paths) in captured {
        let mut places = here.remove(&role).unwrap_or_default();
        // Where there is one of each, its name says nothing; what an operator adds to a node is known by its name only.
        if let ([path], [place]) = (paths.as_slice(), places.as_slice())
            && role != DirectoryRole::Other
        {
            out.insert((role, path.clone()), Ok(PathBuf::from(place)));
            continue;
        }
        while let Some((path, place)) = next_pair(&paths, &places) {
            let (path, place) = (paths.remove(path), places.remove(place));
            out.insert((role, path), Ok(PathBuf::from(place)));
        }
        let left: Vec<PathBuf> = places.iter().map(PathBuf::from).collect();
        for path in paths {
            let problem = if left.is_empty() { NoPlace::None } else { NoPlace::Any(left.clone()) };
            out.insert((role, path), Err(problem));
        }
    }
    out
}

/// Returns the positions of a path and a place that belong together beyond doubt: no other pair has as long a common end with either.
fn next_pair(paths: &[String], places: &[String]) -> Option<(usize, usize)> {
    let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
    for (one, path) in paths.iter().enumerate() {
        for (other, place) in places.iter().enumerate() {
            let length = if path == place { usize::MAX } else { common_end(path, place) };
            pairs.push((length, one, other));
        }
    }
    let is_sole = |&(length, one, other): &(usize, usize, usize)| {
        let rivals = pairs.iter().filter(|(_, path, place)| (*path == one) != (*place == other));
        length > 0 && rivals.map(|(rival, ..)| rival).all(|rival| *rival < length)
    };
    pairs.iter().filter(|pair| is_sole(pair)).max().map(|(_, one, other)| (*one, *other))
}

/// How many names at their ends two paths share.
fn common_end(one: &str, other: &str) -> usize {
    one.rsplit('/').zip(other.rsplit('/')).take_while(|(one, other)| one == other).count()
}

/// Takes what lies at a path out of a captured directory, as a directory of its own.
fn split_off(outer: &mut CapturedDirectory, at: &str, role: DirectoryRole) -> CapturedDirectory {
    let below = format!("{at}/");
    let strip = |path: &str| path.strip_prefix(&below).map(str::to_owned);
    let mut directory = NodeDirectory::new(role, join(&outer.directory.path, at));
    directory.source = outer.directory.source;
    directory.mounted_at = outer.directory.mounted_at.as_ref().map(|mounted| join(mounted, at));
    let nested = std::mem::take(&mut outer.directory.nested);
    for (path, role) in nested.into_iter().filter(|(path, _)| path != at) {
        match strip(&path) {
            Some(path) => directory.nested.push((path, role)),
            None => outer.directory.nested.push((path, role)),
        }
    }
    let (inner, rest): (Vec<_>, Vec<_>) =
        std::mem::take(&mut outer.directory.excluded).into_iter().partition(|path| path.starts_with(&below));
    (outer.directory.excluded, directory.excluded) = (rest, inner.iter().filter_map(|path| strip(path)).collect());
    if let Some(files) = &mut outer.directory.sqlite {
        let (inner, rest): (Vec<_>, Vec<_>) = files.drain(..).partition(|path| path.starts_with(&below));
        *files = rest;
        directory.sqlite = Some(inner.iter().filter_map(|path| strip(path)).collect());
    }
    let (mut entries, mut omitted) = (Vec::new(), Vec::new());
    for mut entry in std::mem::take(&mut outer.entries) {
        match if entry.path == at { Some(String::new()) } else { strip(&entry.path) } {
            Some(path) => {
                entry.path = path;
                entries.push(entry);
            }
            None => outer.entries.push(entry),
        }
    }
    for mut left in std::mem::take(&mut outer.omitted) {
        match strip(&left.path) {
            Some(path) => {
                left.path = path;
                omitted.push(left);
            }
            None => outer.omitted.push(left),
        }
    }
    CapturedDirectory { directory, entries, omitted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(paths: &[&str], places: &[&str]) -> Vec<(String, Option<String>)> {
        let directories = |role: DirectoryRole, paths: &[&str]| -> Vec<NodeDirectory> {
            paths.iter().map(|path| NodeDirectory::new(role, (*path).to_owned())).collect()
        };
        let (captured, here) = (directories(DirectoryRole::Tls, paths), directories(DirectoryRole::Tls, places));
        let mut paths = by_role(captured.iter()).remove(&DirectoryRole::Tls).unwrap_or_default();
        let mut places = by_role(here.iter()).remove(&DirectoryRole::Tls).unwrap_or_default();
        let mut out = Vec::new();
        while let Some((path, place)) = next_pair(&paths, &places) {
            out.push((paths.remove(path), Some(places.remove(place))));
        }
        out.extend(paths.into_iter().map(|path| (path, None)));
        out.sort();
        out
    }

    fn pair(path: &str, place: Option<&str>) -> (String, Option<String>) {
        (path.to_owned(), place.map(str::to_owned))
    }

    #[test]
    fn places_are_found_by_the_ends_of_paths_and_each_is_given_once() {
        assert_eq!(
            pairs(&["/n/o1/tls", "/n/cl/o1/tls"], &["/m/cl/o1/tls", "/m/o1/tls"]),
            [pair("/n/cl/o1/tls", Some("/m/cl/o1/tls")), pair("/n/o1/tls", Some("/m/o1/tls"))]
        );
        // One is gone: the others keep their places, and it gets none of theirs.
        assert_eq!(
            pairs(&["/n/a", "/n/b", "/n/c"], &["/n/b", "/n/c"]),
            [pair("/n/a", None), pair("/n/b", Some("/n/b")), pair("/n/c", Some("/n/c"))]
        );
        // Names that say nothing.
        assert_eq!(pairs(&["/n/ca", "/n/cb"], &["/m/x", "/m/y"]), [pair("/n/ca", None), pair("/n/cb", None)]);
        assert_eq!(pairs(&["/n/a/tls", "/n/b/tls"], &["/m/tls"]), [pair("/n/a/tls", None), pair("/n/b/tls", None)]);
        assert_eq!(pairs(&["/n/ca", "/n/cb"], &["/m/x", "/m/cb"]), [pair("/n/ca", None), pair("/n/cb", Some("/m/cb"))]);
    }
}
