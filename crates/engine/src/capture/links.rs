//! What the links of a directory lead to. A link that leads to nothing, or around in a circle, is for a node as if nothing had its name.

use std::collections::{BTreeMap, HashMap};

use std::path::PathBuf;

use fabkeep_ledger::layout::{Class, NodeRole, Place};
use fabkeep_network::{Finding, NodeId, OrLeaveOut, Rule};
use fabkeep_platform::{EntryKind, VolumeEntry};

use super::survey::PlannedNode;

/// Links that are followed one after another, as Linux does.
const MAX_HOPS: u32 = 40;

/// What stands at the end of a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LedTo<'a> {
    /// This entry of the same directory, which is no link.
    Entry(&'a VolumeEntry),
    /// Something outside of what is listed: it may be anything.
    Outside,
    /// Nothing.
    Nothing,
}

impl LedTo<'_> {
    /// Returns whether a file may be there.
    pub fn is_file(self) -> bool {
        match self {
            LedTo::Entry(entry) => entry.kind == EntryKind::File,
            LedTo::Outside => true,
            LedTo::Nothing => false,
        }
    }

    /// Returns whether a directory may be there.
    pub fn is_directory(self) -> bool {
        match self {
            LedTo::Entry(entry) => entry.kind == EntryKind::Directory,
            LedTo::Outside => true,
            LedTo::Nothing => false,
        }
    }

    /// Returns whether it is not a file of length zero.
    pub fn has_content(self) -> bool {
        match self {
            LedTo::Entry(entry) => entry.stamp.size > 0 || entry.kind != EntryKind::File,
            LedTo::Outside => true,
            LedTo::Nothing => false,
        }
    }
}

/// The links of a directory, by their paths, with what they lead to.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<String, End>);

#[derive(Debug)]
enum End {
    Entry(Box<VolumeEntry>),
    Outside,
    Nothing,
}

impl Links {
    /// Follows the links among these entries. `excluded`: parts of the directory that are not listed. `whole`: nothing else of it is not
    /// listed, such as what is mounted into it in a pod.
    pub fn of(entries: &[(VolumeEntry, Place)], excluded: &[String], whole: bool) -> Links {
        let is_link = |(entry, _): &&(VolumeEntry, Place)| matches!(entry.kind, EntryKind::Symlink(_));
        if !entries.iter().any(|entry| is_link(&entry)) {
            return Links::default();
        }
        let known = entries.iter().map(|(entry, _)| (entry.path.as_str(), entry)).collect();
        let tree = Tree { known, excluded };
        let end = |path: &str| match tree.follow(path) {
            End::Nothing if !whole => End::Outside,
            end => end,
        };
        Links(entries.iter().filter(is_link).map(|(entry, _)| (entry.path.clone(), end(&entry.path))).collect())
    }

    /// Returns what the link at a path leads to.
    pub fn led_to(&self, path: &str) -> LedTo<'_> {
        match self.0.get(path) {
            Some(End::Entry(entry)) => LedTo::Entry(entry),
            Some(End::Outside) | None => LedTo::Outside,
            Some(End::Nothing) => LedTo::Nothing,
        }
    }
}

/// Returns what there is to know of links out of nodes' directories that were followed. A folder that belongs to another directory would be
/// restored twice.
pub(super) fn judge_followed(nodes: &[PlannedNode]) -> Vec<Finding> {
    let of_nodes = nodes.iter().filter(|node| node.node.role != NodeRole::Files);
    let places: Vec<(&NodeId, PathBuf)> = of_nodes
        .flat_map(|node| node.directories.iter().map(move |directory| (&node.node.id, directory)))
        .filter_map(|(id, directory)| Some((id, directory.volume.local("")?.canonicalize().ok()?)))
        .collect();
    let mut out = Vec::new();
    for node in nodes {
        for (entry, place) in node.directories.iter().flat_map(|directory| &directory.entries) {
            let Some(target) = entry.followed.as_deref().filter(|_| place.class != Class::Skip) else { continue };
            let is_folder = entry.kind == EntryKind::Directory;
            let subject = format!("{} {}", node.node.id, entry.path);
            let other = places.iter().find(|(_, place)| PathBuf::from(target).starts_with(place)).filter(|_| is_folder);
            out.push(match other {
                Some((id, place)) => Finding::error(
                    Rule::Contained,
                    subject,
                    format!("it links to {target}, which belongs to the directory {} of {id}", place.display()),
                    OrLeaveOut("remove that directory from the inventory if only this node uses it: what the link leads to is captured in the link's place"),
                ),
                None => Finding::note(
                    Rule::Contained,
                    subject,
                    format!("it links to {target}, outside of the node's directory: what is there is captured in the link's place"),
                    if is_folder {
                        "no action is needed: a restore writes to where the link leads if it is still there, and else makes a folder"
                    } else {
                        "no action is needed: a restore makes a file; replace it by a link again if it shall be one"
                    },
                ),
            });
        }
    }
    out
}

struct Tree<'a> {
    known: HashMap<&'a str, &'a VolumeEntry>,
    excluded: &'a [String],
}

impl Tree<'_> {
    fn follow(&self, path: &str) -> End {
        let mut rest: Vec<&str> = path.split('/').rev().collect();
        let mut at: Vec<&str> = Vec::new();
        let mut hops = 0;
        let mut last = None;
        while let Some(part) = rest.pop() {
            match part {
                "" | "." => continue,
                ".." => {
                    if at.pop().is_none() {
                        return End::Outside;
                    }
                    last = None;
                    continue;
                }
                part => at.push(part),
            }
            let path = at.join("/");
            if self.excluded.iter().any(|part| path == *part || path.starts_with(&format!("{part}/"))) {
                return End::Outside;
            }
            let Some(entry) = self.known.get(path.as_str()) else { return End::Nothing };
            last = Some(*entry);
            if let EntryKind::Symlink(target) = &entry.kind {
                hops += 1;
                if hops > MAX_HOPS {
                    return End::Nothing;
                }
                if target.starts_with('/') {
                    return End::Outside;
                }
                at.pop();
                last = None;
                rest.extend(target.split('/').rev());
            } else if entry.kind != EntryKind::Directory && !rest.is_empty() {
                return End::Nothing;
            }
        }
        match last.or_else(|| self.known.get(at.join("/").as_str()).copied()) {
            Some(entry) => End::Entry(Box::new(entry.clone())),
            // The directory itself.
            None => End::Outside,
        }
    }
}
