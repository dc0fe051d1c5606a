//! Decides where the parts of a directory are written and where existing data is set aside. A directory on one mount is written beside its
//! place and is put into place by renames of whole directories. A directory that is a mount point, or contains mount points or other nodes'
//! places, stays where it is: each part is written on the mount that it belongs to, and its entries are renamed one by one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_platform::{ASIDE, Mounts, STAGED, is_aside, is_below, trusted_link};

use super::same_files::kept_list;
use crate::EngineError;
use crate::error::io as at;
use crate::misuse::Misuse;

/// Most folders looked through for whether something is in a place.
const MAX_FIXED: usize = 10_000;

/// A part of a directory's tree that lies on one mount.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    /// Where it begins, relative to the directory; empty: the directory itself.
    pub root: String,
    /// The same on this machine.
    pub at: PathBuf,
    /// Where it is written first.
    pub staging: PathBuf,
    /// Where what is there goes, unless something has this name already.
    pub aside: PathBuf,
    /// It is a mount point, or a folder behind a link that stays one.
    pub mounted: bool,
}

/// How a directory gets into its place.
#[derive(Debug, Clone)]
pub(crate) struct Staging {
    /// Its place.
    pub place: PathBuf,
    /// Its parts, outer ones first; the first begins at the place itself.
    pub regions: Vec<Region>,
    /// Folders that stay where they are, relative, outer ones first: mount points, and what is above them or above other nodes' places.
    /// Empty: the directory is renamed as a whole.
    pub fixed: Vec<String>,
    /// Other nodes' places inside, relative: nothing in them is touched. Files that are mounted there are among them.
    pub stays: Vec<String>,
    /// Files that are mounted inside, relative: each stays as it is.
    pub mounted_files: Vec<String>,
}

impl Staging {
    /// `others`: places of other directories; those inside this one stay. `folders`: its folders as captured, relative; where one of them is
    /// a link to a folder now, it stays one, and what it leads to is treated as a mount point is.
    pub fn new(
        point: &str,
        place: PathBuf,
        mounts: &Mounts,
        others: &[PathBuf],
        folders: &[String],
    ) -> Result<Staging, EngineError> {
        let relative = |path: &Path| match path.strip_prefix(&place).unwrap_or(path).to_str() {
            Some(inside) => Ok(inside.to_owned()),
            None => Err(not_utf8(path)),
        };
        let below = others.iter().filter(|other| is_below(other, &place));
        let mut stays = below.map(|other| relative(other)).collect::<Result<Vec<String>, _>>()?;
        let files = mounts.at_or_below(&place).filter(|mount| mount.point != place && is_a_file(&mount.point));
        let mut mounted_files = files.map(|mount| relative(&mount.point)).collect::<Result<Vec<String>, _>>()?;
        mounted_files.retain(|path| !stays.iter().any(|other| path == other || is_inside(path, other)));
        stays.extend(mounted_files.iter().cloned());
        stays.sort();
        stays.dedup();
        let outer = stays.clone();
        stays.retain(|path| !outer.iter().any(|other| is_inside(path, other)));
        let mut regions = vec![region(point, String::new(), &place, false)];
        for mount in mounts.at_or_below(&place) {
            let root = relative(&mount.point)?;
            if stays.iter().any(|path| *path == root || is_inside(&root, path)) {
                continue;
            }
            let found = region(point, root, &mount.point, true);
            match regions.first_mut().filter(|_| found.root.is_empty()) {
                Some(first) => *first = found,
                None => regions.push(found),
            }
        }
        for folder in folders.iter().filter(|folder| !folder.is_empty()) {
            let own = stays.iter().any(|path| path == folder || is_inside(folder, path));
            let known = regions.iter().any(|region| region.root == *folder);
            let Some(target) = linked_folder(&place, folder, others).filter(|_| !own && !known) else { continue };
            regions.push(region(point, folder.clone(), &target, true));
        }
        let mut fixed: Vec<String> =
            regions.iter().filter(|region| region.mounted).flat_map(|r| with_above(&r.root)).collect();
        fixed.extend(
            stays
                .iter()
                .filter_map(|path| path.rsplit_once('/').map_or(Some(""), |(above, _)| Some(above)))
                .flat_map(with_above),
        );
        fixed.sort();
        fixed.dedup();
        Ok(Staging { place, regions, fixed, stays, mounted_files })
    }

    /// Whether its entries are renamed, and not the directory itself.
    pub fn is_in_parts(&self) -> bool {
        !self.fixed.is_empty()
    }

    /// Whether a folder of it stays where it is.
    pub fn is_fixed(&self, path: &str) -> bool {
        self.fixed.iter().any(|fixed| fixed == path)
    }

    /// Whether a path is another node's place, or lies in one.
    pub fn is_others(&self, path: &str) -> bool {
        self.stays.iter().any(|stays| path == stays || is_inside(path, stays))
    }

    /// The part that a path belongs to.
    pub fn region_of(&self, path: &str) -> &Region {
        let holds = |region: &&Region| path == region.root || is_inside(path, &region.root);
        self.regions.iter().filter(holds).max_by_key(|region| region.root.len()).unwrap_or(&self.regions[0])
    }

    /// Where a path is written first.
    pub fn staged(&self, path: &str) -> PathBuf {
        let region = self.region_of(path);
        join(&region.staging, inside(path, &region.root))
    }

    /// Where a path is in the end.
    pub fn placed(&self, path: &str) -> PathBuf {
        join(&self.place, path)
    }

    /// Where a path is in the end, if no link on the way to it leads elsewhere.
    pub fn unlinked(&self, path: &str) -> Option<PathBuf> {
        let region = self.region_of(path);
        let inside = Path::new(inside(path, &region.root));
        let folder = region.at.canonicalize().ok()?.join(inside.parent()?);
        let full = folder.join(inside.file_name()?);
        (folder.canonicalize().ok()? == folder).then_some(full)
    }

    /// Where what is in a folder that stays goes, below this root for what is set aside.
    pub fn aside_of(&self, path: &str, to: &Path) -> PathBuf {
        join(to, inside(path, &self.region_of(path).root))
    }

    /// Names in a folder that stays which are not ours, not other nodes' and not folders that stay: what a restore sets aside.
    pub fn entries(&self, folder: &str) -> Result<Vec<OsString>, EngineError> {
        let path = self.placed(folder);
        let found = match fs::read_dir(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&path)(error)),
        };
        let mut out = Vec::new();
        for entry in found {
            let name = entry.map_err(at(&path))?.file_name();
            // A name that is not UTF-8 is none of these.
            let is_left_alone = |name: &str| {
                let relative = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                self.is_ours(folder, name) || self.is_fixed(&relative) || self.is_others(&relative)
            };
            if !name.to_str().is_some_and(is_left_alone) {
                out.push(name);
            }
        }
        out.sort();
        Ok(out)
    }

    /// Whether an entry of a folder that stays is one that restores make, in a mount point or beside another node's place, or one that
    /// every file system has.
    fn is_ours(&self, folder: &str, name: &str) -> bool {
        let mounted = || self.regions.iter().any(|region| region.root == folder && region.mounted);
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let beside = |stays: &String| path.strip_prefix(stays.as_str()).is_some_and(is_own);
        (name == "lost+found" && mounted())
            || (is_own(name) && (name.starts_with('.') || self.stays.iter().any(beside)))
    }

    /// Whether a path is part of the directory: not another node's, and not what restores leave in folders that stay.
    pub fn is_part(&self, path: &str) -> bool {
        let ours = self.fixed.iter().any(|folder| {
            let name = inside(path, folder).split('/').next().unwrap_or_default();
            is_inside(path, folder) && self.is_ours(folder, name)
        });
        !ours && !self.is_others(path)
    }

    /// Whether something is in the place that a restore would have to set aside.
    pub fn is_occupied(&self, id: &NodeId) -> Result<bool, EngineError> {
        self.holds_anything().map_err(|error| match error {
            EngineError::Io { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                EngineError::Precondition(vec![Finding::error(
                    Rule::NotOverwritten,
                    id,
                    format!("{path} cannot be read: {source}"),
                    "run fabkeep as a user who may read and write the nodes' directories",
                )])
            }
            error => error,
        })
    }

    fn holds_anything(&self) -> Result<bool, EngineError> {
        if !self.is_in_parts() {
            return match fs::read_dir(&self.place) {
                Ok(mut entries) => Ok(entries.next().is_some()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(at(&self.place)(error)),
            };
        }
        for folder in self.fixed.iter().take(MAX_FIXED) {
            if !self.entries(folder)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether anything of it is written and not in its place yet.
    pub fn is_staged(&self) -> bool {
        self.regions.iter().any(|region| region.staging.exists())
    }
}

/// Returns what a folder of a place is a link to: a folder outside of the place that is no other directory's and contains none.
fn linked_folder(place: &Path, folder: &str, others: &[PathBuf]) -> Option<PathBuf> {
    let (target, metadata) = trusted_link(&join(place, folder))?;
    let own = place.canonicalize().unwrap_or_else(|_| place.to_path_buf());
    let apart = |other: &Path| !target.starts_with(other) && !other.starts_with(&target);
    (metadata.is_dir() && apart(&own) && others.iter().all(|other| apart(other))).then_some(target)
}

/// Whether something other than a directory is mounted at a point. What cannot be looked at has its finding elsewhere.
fn is_a_file(point: &Path) -> bool {
    point.metadata().is_ok_and(|found| !found.is_dir())
}

/// A directory's part on one mount. What is on a mount point of its own must be written, and set aside, inside.
fn region(point: &str, root: String, at: &Path, mounted: bool) -> Region {
    let beside = |name: String| {
        let mut own = at.file_name().unwrap_or_default().to_os_string();
        own.push(name);
        at.with_file_name(own)
    };
    let place = |name: String| if mounted { at.join(name) } else { beside(name) };
    Region {
        root,
        at: at.to_path_buf(),
        staging: place(format!("{STAGED}{point}")),
        aside: place(format!("{ASIDE}{point}")),
        mounted,
    }
}

/// Whether a name, or what stands behind a directory's name, is one that restores give.
fn is_own(name: &str) -> bool {
    name.contains(STAGED) || is_aside(name)
}

/// A path and the folders above it, the directory itself (empty) among them.
fn with_above(path: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    out.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
    if !path.is_empty() {
        out.push(path.to_owned());
    }
    out
}

/// Whether a path lies strictly below another; both relative, the empty one is the root.
pub(crate) fn is_inside(path: &str, root: &str) -> bool {
    match root {
        "" => !path.is_empty(),
        root => path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')),
    }
}

pub(super) fn inside<'a>(path: &'a str, root: &str) -> &'a str {
    path.strip_prefix(root).map_or(path, |rest| rest.trim_start_matches('/'))
}

pub(super) fn join(root: &Path, path: &str) -> PathBuf {
    if path.is_empty() { root.to_path_buf() } else { root.join(path) }
}

/// A name that nothing has: data set aside by an earlier restore of the same point stays where it is.
pub(in crate::restore) fn free_name(path: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{number}"));
        path.with_file_name(name)
    };
    let is_free = |path: &Path| path.symlink_metadata().is_err() && kept_list(path).symlink_metadata().is_err();
    if is_free(path) {
        return path.to_path_buf();
    }
    (1..).map(numbered).find(|name| is_free(name)).unwrap_or_else(|| path.to_path_buf())
}

/// Makes a place absolute. One that is a link to the data's true home keeps being one.
pub(super) fn resolve(of: impl std::fmt::Display, place: &Path) -> Result<PathBuf, EngineError> {
    let place = std::path::absolute(place).map_err(at(place))?;
    // The deepest folder above that is there, as it is known without links.
    for above in place.ancestors() {
        if let Ok(found) = above.canonicalize() {
            let rest = place.strip_prefix(above).unwrap_or(Path::new(""));
            let found = join_path(&found, rest);
            if let Some(file) = [above, &found].into_iter().find(|path| path.exists() && !path.is_dir()) {
                return Err(EngineError::Precondition(vec![Finding::error(
                    Rule::NotOverwritten,
                    of.to_string(),
                    format!("{} is a file, and a directory is to be restored there", file.display()),
                    Remedy::from("move it away").or("correct the inventory").or(Remedy::RestoreElsewhere),
                )]));
            }
            if found.to_str().is_none() {
                return Err(not_utf8(&found));
            }
            return Ok(found);
        }
        if above.symlink_metadata().is_ok() {
            return Err(Misuse::new(format!("{of}: {} is a link that leads to nothing", above.display()))
                .next(Remedy::from("mount the disk that it leads to").or("remove the link"))
                .into());
        }
    }
    Ok(place)
}

/// The journal and the plan cannot hold such a path.
fn not_utf8(path: &Path) -> EngineError {
    let problem =
        format!("{}: the name of a node's directory, or of what is mounted in it, is not UTF-8", path.display());
    Misuse::new(problem).next(Remedy::from("rename it").or(Remedy::RestoreElsewhere)).into()
}

fn join_path(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(path) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_another_nodes_place_stays_and_so_do_the_folders_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("production");
        let others = [place.join("a/orderer"), place.join("a/orderer/wal"), folder.path().join("production2")];
        let staging = Staging::new("p", place.clone(), &Mounts::default(), &others, &[]).unwrap();
        assert_eq!(staging.stays, ["a/orderer"]);
        assert_eq!(staging.fixed, ["", "a"]);
        for name in [
            "a/orderer/chains",
            "a/orderer.before-20261130T184622581Z-4c4cf4",
            "a/orderer.fabkeep-restore-x",
            "a/other",
            "ledgersData",
        ] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        assert_eq!(staging.entries("").unwrap(), ["ledgersData"]);
        assert_eq!(staging.entries("a").unwrap(), ["other"]);
        assert!(staging.holds_anything().unwrap());
        assert_eq!(staging.staged("a/b"), folder.path().join("production.fabkeep-restore-p/a/b"));
        let alone = Staging::new("p", place, &Mounts::default(), &[], &[]).unwrap();
        assert!(!alone.is_in_parts());
    }
}
