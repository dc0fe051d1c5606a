//! Finds the files that a node's configuration names in the node's directories.

use std::path::Path;

use fabkeep_network::NodeDirectory;
use fabkeep_platform::normal;

/// A file in one of a node's directories: which directory, and its path in it.
pub(crate) type Located = (usize, String);

/// Returns the directory that holds what a configuration in `base` (a directory, and a folder in it) names: by the paths of this machine,
/// or by those that its container sees.
pub(crate) fn locate(directories: &[&NodeDirectory], base: (usize, &str), named: &str) -> Option<Located> {
    locate_all(directories, base, named).into_iter().next()
}

/// Returns the same where several directories are mounted at one place, as a volume and objects in it: all that may hold it, volumes first.
pub(crate) fn locate_all(directories: &[&NodeDirectory], base: (usize, &str), named: &str) -> Vec<Located> {
    let mut found = locate_folders(directories, base, named);
    found.retain(|(_, inside)| !inside.is_empty());
    found
}

/// Returns the same of a folder, which may be a whole directory of the node: its path in that is empty.
pub(crate) fn locate_folders(directories: &[&NodeDirectory], base: (usize, &str), named: &str) -> Vec<Located> {
    let (position, folder) = base;
    let starts = |directory: &NodeDirectory| -> Vec<String> {
        directory.mounted_at.iter().cloned().chain([directory.path.clone()]).collect()
    };
    for root in directories.get(position).map(|directory| starts(directory)).unwrap_or_default() {
        let from = Path::new(&root).join(folder);
        let wanted = normal(&from.join(named));
        let mut found: Vec<(usize, Located)> = Vec::new();
        for (position, directory) in directories.iter().enumerate() {
            for root in starts(directory) {
                let Ok(inside) = wanted.strip_prefix(&root) else { continue };
                let Some(inside) = inside.to_str() else { continue };
                let excluded = directory.excluded.iter().any(|known| Path::new(inside).starts_with(known));
                if !excluded {
                    found.push((root.len(), (position, inside.to_owned())));
                }
            }
        }
        let deepest = found.iter().map(|(depth, _)| *depth).max();
        let mut out: Vec<Located> =
            found.into_iter().filter(|(depth, _)| Some(*depth) == deepest).map(|(_, at)| at).collect();
        out.sort_by_key(|(position, _)| !directories[*position].source.is_volume());
        if !out.is_empty() {
            return out;
        }
    }
    Vec::new()
}
