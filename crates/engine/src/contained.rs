//! Checks of a manifest's paths, links, modes and names (B7). A manifest is signed, and still not trusted with these: everything is checked
//! before anything is planned with it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use fabkeep_network::{NodeId, Rule};

use crate::EngineError;
use crate::content::check_parts;
use crate::point::{CapturedDirectory, CapturedEntry, CapturedNode, EntryContent, RecoveryPoint};

/// Longest path, in bytes.
const MAX_PATH_BYTES: usize = 4096;
/// Longest name in a path, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Longest name of a channel, in bytes: Fabric's own limit.
const MAX_CHANNEL_BYTES: usize = 249;
/// Set user id, set group id and sticky.
const SPECIAL_BITS: u32 = 0o7000;
/// Set user id.
const SET_USER_ID: u32 = 0o4000;

/// Refuses channels and nodes that would lead out of their places.
///
/// # Errors
/// [`EngineError::Point`], naming the first.
pub(crate) fn check<'a>(
    point: &RecoveryPoint,
    nodes: impl Iterator<Item = &'a CapturedNode>,
) -> Result<(), EngineError> {
    check_channels(point)?;
    for node in nodes {
        let id = &node.facts.id;
        for name in [&id.organization, &id.node] {
            if name.is_empty() || has_control(name) {
                return Err(wrong(id, name, "the node's name is empty or contains a control character"));
            }
        }
        for directory in &node.directories {
            check_directory(id, directory)?;
        }
    }
    Ok(())
}

/// Refuses names of channels that Fabric would refuse: they are parts of paths.
pub(crate) fn check_channels(point: &RecoveryPoint) -> Result<(), EngineError> {
    for channel in &point.channels {
        let name = channel.name.as_str();
        // Fabric 1.x allowed upper case and underscores.
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > MAX_CHANNEL_BYTES || !name.chars().all(letters) || name.starts_with('.') {
            return Err(EngineError::Point {
                point: name.escape_default().to_string(),
                problem: format!("rule {}: this is not a valid name of a channel", Rule::Contained),
            });
        }
    }
    Ok(())
}

fn wrong(id: &NodeId, path: &str, problem: &str) -> EngineError {
    EngineError::Point {
        point: format!("{id} {}", path.escape_default()),
        problem: format!("rule {}: {problem}", Rule::Contained),
    }
}

fn has_control(name: &str) -> bool {
    name.chars().any(char::is_control)
}

/// Returns the reason why a relative path must not be used.
fn problem_of(path: &str) -> Option<&'static str> {
    if path.len() > MAX_PATH_BYTES || path.split('/').any(|part| part.len() > MAX_NAME_BYTES) {
        return Some("the path is too long");
    }
    if has_control(path) {
        return Some("the path contains a line break or another control character");
    }
    let leaves = path.split('/').any(|part| matches!(part, "" | "." | ".."));
    leaves.then_some("the path leaves the node's directory")
}

/// Refuses entries that would leave their directory, that would be written through a link, and special permission bits.
fn check_directory(id: &NodeId, captured: &CapturedDirectory) -> Result<(), EngineError> {
    let place = captured.directory.path.as_str();
    let leaves = Path::new(place).components().any(|part| matches!(part, Component::ParentDir));
    let nowhere = place.is_empty() && captured.directory.source.is_volume();
    if nowhere || place.len() > MAX_PATH_BYTES || has_control(place) || leaves {
        return Err(wrong(id, place, "the path of the directory leaves its parent"));
    }
    let inner = captured.directory.nested.iter().map(|(path, _)| path).chain(&captured.directory.excluded);
    for path in inner {
        if let Some(problem) = problem_of(path) {
            return Err(wrong(id, path, problem));
        }
    }
    let mut folders: BTreeSet<&str> = BTreeSet::new();
    let mut others: BTreeSet<&str> = BTreeSet::new();
    let is_directory = |entry: &&CapturedEntry| matches!(entry.content, EntryContent::Directory);
    let captured_folders: BTreeSet<&str> =
        captured.entries.iter().filter(is_directory).map(|entry| entry.path.as_str()).collect();
    for entry in &captured.entries {
        let path = entry.path.as_str();
        let refuse = |problem: &str| Err(wrong(id, path, problem));
        let is_root = path.is_empty();
        if let Some(problem) = problem_of(path).filter(|_| !is_root) {
            return refuse(problem);
        }
        let is_folder = matches!(entry.content, EntryContent::Directory);
        if is_root && !is_folder {
            return refuse("the directory itself is a file or a link");
        }
        if !(if is_folder { &mut folders } else { &mut others }).insert(path) {
            return refuse("the path is named twice");
        }
        if entry.mode & !0o7777 != 0 || (is_folder && entry.mode & SET_USER_ID != 0) {
            return refuse("the mode is not one of a directory or file");
        }
        match &entry.content {
            EntryContent::Symlink { target } => {
                if has_control(target) || target.len() > MAX_PATH_BYTES {
                    return refuse("the link's target contains a control character or is too long");
                }
                if crate::capture::leaves(path, target) {
                    return refuse("the link leaves the node's directory");
                }
                if !goes_up_from_folders_alone(path, target, &captured_folders) {
                    return refuse(
                        "the link's target goes up (..) after a name that is no captured directory: where that leads cannot be determined. Replace the link by one whose target has .. at its beginning alone",
                    );
                }
            }
            EntryContent::File { size, parts } => {
                if entry.mode & SPECIAL_BITS != 0 {
                    return refuse("the file would be set user id, set group id or sticky");
                }
                check_parts(path, *size, parts)?;
            }
            EntryContent::Directory => {}
        }
    }
    // Whatever the order of the entries: nothing lies below a file or a link, or in its place.
    for path in folders.iter().chain(&others) {
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if above.any(|above| others.contains(above)) || (folders.contains(path) && others.contains(path)) {
            return Err(wrong(id, path, "the path leads through a file or a symbolic link"));
        }
    }
    Ok(())
}

/// Returns whether a target climbs after names of captured directories alone: another name may be that of a link, and where `..` leads from
/// there cannot be determined from the text.
fn goes_up_from_folders_alone(link: &str, target: &str, folders: &BTreeSet<&str>) -> bool {
    let mut at: Vec<&str> = link.split('/').collect();
    at.pop();
    let mut behind_a_name = false;
    for part in target.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part != ".." {
            at.push(part);
            behind_a_name = true;
        } else if (behind_a_name && !folders.contains(at.join("/").as_str())) || at.pop().is_none() {
            return false;
        }
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fabkeep_ledger::layout::DirectoryRole;
    use fabkeep_network::NodeDirectory;

    use super::*;

    fn entry(path: &str, mode: u32, content: EntryContent) -> CapturedEntry {
        CapturedEntry { path: path.to_owned(), mode, uid: 0, gid: 0, modified_ns: 0, content }
    }

    fn folder(path: &str) -> CapturedEntry {
        entry(path, 0o755, EntryContent::Directory)
    }

    fn file(path: &str) -> CapturedEntry {
        entry(path, 0o644, EntryContent::File { size: 0, parts: Vec::new() })
    }

    fn link(path: &str, target: &str) -> CapturedEntry {
        entry(path, 0o777, EntryContent::Symlink { target: target.to_owned() })
    }

    fn directory(path: &str, entries: Vec<CapturedEntry>) -> CapturedDirectory {
        let directory = NodeDirectory::new(DirectoryRole::Other, path.to_owned());
        CapturedDirectory { directory, entries, omitted: Vec::new() }
    }

    fn check(entries: Vec<CapturedEntry>) -> Result<(), EngineError> {
        let id = NodeId { organization: "Org1".to_owned(), node: "peer0".to_owned() };
        let mut all = vec![folder("")];
        all.extend(entries);
        check_directory(&id, &directory("/srv/peer0", all))
    }

    #[test]
    fn what_nodes_have_is_let_through() {
        check(vec![folder("a"), file("a/b"), link("a/c", "../d/e"), link("f", "a"), file("with space")]).unwrap();
        check(vec![folder("a"), folder("a/b"), link("a/l", "./b/../../f"), link("m", "a/b/../x")]).unwrap();
        check(vec![entry("shared", 0o2775, EntryContent::Directory)]).unwrap();
    }

    #[test]
    fn what_would_leave_the_directory_or_be_written_through_a_link_is_refused() {
        let refused: Vec<Vec<CapturedEntry>> = vec![
            vec![file("../x")],
            vec![file("/etc/passwd")],
            vec![file("a/../../x")],
            vec![file("a//b")],
            vec![file("a/./b")],
            vec![file("a\0b")],
            vec![file("a\nb")],
            vec![file("a\rb")],
            vec![file(&"n".repeat(256))],
            vec![link("l", "/etc")],
            vec![link("l", "../x")],
            vec![folder("d"), link("d/l", "."), link("m", "d/l/../..")],
            vec![folder("d"), link("d/l", "."), link("m", "d/l/../x")],
            vec![link("m", "unknown/../x")],
            vec![link("l", "a"), file("l/x")],
            vec![file("l/x"), link("l", "a")],
            vec![link("a", "b"), file("a")],
            vec![folder("a"), link("a", "b")],
            vec![file("a"), file("a")],
            vec![file("a"), file("a/b")],
            vec![entry("a", 0o4755, EntryContent::File { size: 0, parts: Vec::new() })],
            vec![entry("a", 0o2755, EntryContent::File { size: 0, parts: Vec::new() })],
            vec![entry("a", 0o1644, EntryContent::File { size: 0, parts: Vec::new() })],
            vec![entry("a", 0o4755, EntryContent::Directory)],
            vec![entry("a", 0o60660, EntryContent::File { size: 0, parts: Vec::new() })],
            vec![link("", "x")],
        ];
        for entries in refused {
            let reported = format!("{entries:?}");
            assert!(matches!(check(entries), Err(EngineError::Point { .. })), "{reported}");
        }
        let id = NodeId { organization: "Org1".to_owned(), node: "peer0".to_owned() };
        for place in ["/srv/../../etc", "", "/srv/a\nb"] {
            assert!(check_directory(&id, &directory(place, Vec::new())).is_err(), "{place:?}");
        }
    }
}
