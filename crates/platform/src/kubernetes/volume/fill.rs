//! Fills a directory of a volume through a helper pod: files are sent as tar, existing data is set aside first, a marker says that the
//! directory is incomplete, and in the end every file is hashed inside the volume.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use fabkeep_network::{NodeDirectory, NodeId};

use super::helper_pod::Rights;
use super::{PodVolume, patiently};
use crate::PlatformError;
use crate::kubernetes::connection::exec::{ContainerRef, Exec};
use crate::kubernetes::connection::shell::quote;
use crate::kubernetes::discover::mounts;
use crate::kubernetes::{Kubernetes, Volumes};
use crate::volume::{ASIDE, ASIDE_POINT, Fetch, Volume, VolumeEntry};

/// Says that a directory is being restored, and from which recovery point.
pub(crate) const MARKER: &str = ".fabkeep-restore";

/// `$1`: how many roots follow; then the directory itself, volumes mounted inside it, and last places inside it that are not its own.
/// `each` walks what belongs to the directory; names that `$aside` matches are of earlier restores.
const WALK: &str = r#"nl='
'
count=$1; shift
places=
for place in "$@"; do places="$places$nl$place"; done
places="$places$nl"
each() {
  for f in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    [ -e "$f" ] || [ -L "$f" ] || continue
    case ${f##*/} in lost+found|.fabkeep-restore|$aside) continue ;; esac
    case $places in *"$nl$f$nl"*) continue ;; *"$nl$f/"*) each "$f" "$2/${f##*/}"; continue ;; esac
    found "$f" "$2"
  done
}
roots() {
  at=0
  for root in "$@"; do
    at=$((at + 1)); [ "$at" -le "$count" ] || break
    each "$root" "$root/$name"
  done
}
"#;

/// Marker, whether anything else is there, free KiB. A directory that is not there is made where `$make` says so.
const LOOK: &str = r#"[ $make = yes ] && { mkdir -p "$1" || exit 2; }
if ! [ -d "$1" ]; then echo -; echo no; echo -; exit 0; fi
cd "$1" || exit 2
head -n 1 .fabkeep-restore 2>/dev/null | grep . || echo -
held=no; found() { held=yes; }
roots "$@"
echo $held
df -Pk . | tail -n 1 | { read -r fs blocks used free rest; echo "$free"; }"#;

/// A name under which an earlier restore of the same point has set the same things aside is left to it.
const SET_ASIDE: &str = r#"base=$name; number=0
found() { if [ -e "$2/${1##*/}" ] || [ -L "$2/${1##*/}" ]; then clash=yes; fi; }
while clash=no; roots "$@"; [ $clash = yes ]; do number=$((number + 1)); name=$base.$number; done
found() { mkdir -p "$2" && mv "$1" "$2/" || exit 3; }
roots "$@"
echo "$name"
echo done"#;

/// `$2` and its numbered ones.
const ASIDES: &str = r#"cd "$1" || exit 2
for f in "$2" "$2".*; do [ -d "$f" ] && echo "$f"; done
echo done"#;

const MARK: &str = r#"cd "$1" && printf '%s\n' "$2" > .fabkeep-restore && sync && echo done"#;
/// Lines with paths: these files are removed, to be written again.
const REMOVE: &str = r#"cd "$1" || exit 2
head -c "$2" | while IFS= read -r f; do rm -f "./$f" || printf '! %s\n' "$f"; done
echo done"#;
/// The same, and directories that are empty then.
const CLEAR: &str = r#"cd "$1" || exit 2
head -c "$2" | while IFS= read -r f; do
  if [ -d "./$f" ] && [ ! -L "./$f" ]; then rmdir "./$f" 2>/dev/null; else rm -f "./$f" || printf '! %s\n' "$f"; fi
done
echo done"#;
const OWNED: &str = r#"if [ "$(stat -c %u "$1")" = "$(id -u)" ]; then echo yes; else echo no; fi; echo done"#;
const UNMARK: &str = r#"cd "$1" && sync && rm -f .fabkeep-restore && sync && echo done"#;
const UNPACK: &str = r#"cd "$1" || exit 2; head -c "$2" | tar xpf - || exit 4; echo done"#;

/// Lines `size path`: files are made that long; what is added is a hole. A name may begin or end with blanks, or begin as an option does.
const EXTEND: &str = r#"cd "$1" || exit 2
head -c "$2" | while IFS= read -r line; do
  size=${line%% *}; f=${line#* }
  truncate -s "$size" "./$f" || printf '! %s\n' "$f"
done
echo done"#;

/// Lines `hash length size path`: what does not hold is reported.
const CHECK: &str = r#"cd "$1" || exit 2
head -c "$2" | while IFS= read -r line; do
  hash=${line%% *}; line=${line#* }; length=${line%% *}; line=${line#* }; size=${line%% *}; f=${line#* }
  [ "$(stat -c %s "./$f" 2>/dev/null)" = "$size" ] &&
    [ "$(head -c "$length" < "./$f" | sha256sum | cut -d ' ' -f 1)" = "$hash" ] || printf '! %s\n' "$f"
done
echo done"#;

/// Files of one command.
const MAX_BATCH: usize = 2_000;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteEntry {
    /// Relative path, `/`-separated; empty for the directory itself.
    pub path: String,
    /// What it is.
    pub kind: WriteKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub modified: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteKind {
    /// A directory.
    Directory,
    /// A link to this target.
    Symlink(String),
    /// A file with this many bytes to send.
    File(u64),
}

/// Which restore is writing a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The recovery point.
    pub point: String,
    /// The run that wrote the mark; empty when it is not known.
    pub run: String,
}

impl Mark {
    fn parse(text: &str) -> Mark {
        let (point, run) = text.split_once(' ').unwrap_or((text, ""));
        Mark { point: point.to_owned(), run: run.to_owned() }
    }
}

/// What a directory holds before it is filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillState {
    /// The unfinished restore that was writing it.
    pub marked: Option<Mark>,
    /// Something is there that no restore is writing.
    pub holds_data: bool,
    /// Free bytes on its volume.
    pub free_bytes: u64,
}

/// A file to check where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Relative path.
    pub path: String,
    /// SHA-256 of the first `len` bytes, hex.
    pub sha256: String,
    /// How many bytes the hash covers; after them there are zeros.
    pub len: u64,
    /// The file's size.
    pub size: u64,
}

/// Fills one directory of a node.
pub struct Filler {
    kubernetes: Arc<crate::kubernetes::Connection>,
    place: ContainerRef,
    root: String,
    /// Volumes mounted inside, absolute.
    inside: Vec<String>,
    excluded: Vec<String>,
    label: String,
    held_by: String,
    rights: Option<Rights>,
}

impl Kubernetes {
    /// Opens a directory for filling, in a helper pod.
    ///
    /// # Errors
    /// [`PlatformError`] when the node is not there or its helper does not start.
    pub fn filler(&self, node: &NodeId, directory: &NodeDirectory) -> Result<Filler, PlatformError> {
        let (position, _) = self.found(node)?;
        let reached = self.in_helper(position, Volumes::Own)?;
        self.filler_in(node, directory, reached)
    }

    /// Looks at a directory without changing anything, in the node's own container if it runs, else in a helper pod. `None`: it cannot be
    /// looked at before the node is stopped.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn look_before(&self, node: &NodeId, directory: &NodeDirectory) -> Result<Option<Filler>, PlatformError> {
        let (position, found) = self.found(node)?;
        let alone = self.claims(node).iter().any(|(namespace, claim)| self.is_for_one_pod(namespace, claim));
        if found.pod.is_some() && alone && self.own_place(position)?.is_none() {
            return Ok(None);
        }
        let Some(reached) = self.reach(position, false)? else { return Ok(None) };
        self.filler_in(node, directory, reached).map(Some)
    }

    /// Returns whether a claim may be mounted by one pod at a time, or is not bound yet: no helper gets it beside the node's pod.
    fn is_for_one_pod(&self, namespace: &str, claim: &str) -> bool {
        let all = self.analysis.all.iter().find(|(known, _)| known.name == namespace);
        let object = all.and_then(|(known, _)| known.find("PersistentVolumeClaim", claim));
        let modes = object.and_then(|object| object.pointer("/spec/accessModes")?.as_array());
        modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod")
    }

    fn filler_in(
        &self,
        node: &NodeId,
        directory: &NodeDirectory,
        reached: super::super::Reached,
    ) -> Result<Filler, PlatformError> {
        let (_, found) = self.found(node)?;
        let at = directory.mounted_at.as_deref().unwrap_or("/");
        let inside = mounts::nested(&found.mounts, at)
            .filter(|(mount, inside)| {
                let own = matches!(mount.holder, mounts::Holder::Claim(_));
                own && !directory.excluded.iter().any(|excluded| excluded == inside)
            })
            .map(|(mount, _)| format!("{}{}", reached.root, mount.path))
            .collect();
        let held_by = match mounts::holding(&found.mounts, at).map(|mount| &mount.holder) {
            Some(mounts::Holder::Claim(name)) => format!("claim {}/{name}", node.organization),
            Some(other) => format!("{other} of {node}"),
            None => node.to_string(),
        };
        Ok(Filler {
            held_by,
            kubernetes: Arc::clone(&self.connection),
            root: format!("{}{at}", reached.root),
            place: reached.place,
            inside,
            excluded: directory.excluded.clone(),
            label: format!("{node} {at}"),
            rights: reached.rights,
        })
    }
}

impl Filler {
    /// Returns the claim, or what else holds it, for people: directories that it holds share its free space.
    pub fn held_by(&self) -> &str {
        &self.held_by
    }

    /// Returns the user that written files belong to, if it is not the captured one: that of a helper that may not be root. `Some(None)`:
    /// one that the cluster chose.
    pub fn owner(&self) -> Option<Option<i64>> {
        match self.rights {
            Some(Rights::Workload(user)) => Some(user),
            Some(Rights::Root) | None => None,
        }
    }

    /// Returns whether the directory's own mode, owner and times may be changed: a volume's root may belong to root.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn may_change_root(&self) -> io::Result<bool> {
        if self.owner().is_none() {
            return Ok(true);
        }
        Ok(self.done(OWNED, &[&self.root], &[])?.first().is_some_and(|line| line == "yes"))
    }

    /// Arguments of [`WALK`].
    fn walk_arguments(&self) -> Vec<String> {
        let excluded = self.excluded.iter().map(|path| format!("{}/{path}", self.root));
        let mut out = vec![(self.inside.len() + 1).to_string(), self.root.clone()];
        out.extend(self.inside.iter().cloned());
        out.extend(excluded);
        out
    }

    fn script(&self, script: &str, arguments: &[&str], input: &[u8]) -> io::Result<Vec<String>> {
        patiently(|| {
            let out = self.kubernetes.output(&self.place, script, arguments, input, 16 << 20)?;
            Ok(String::from_utf8_lossy(&out).lines().map(str::to_owned).collect())
        })
    }

    fn done(&self, script: &str, arguments: &[&str], input: &[u8]) -> io::Result<Vec<String>> {
        let mut lines = self.script(script, arguments, input)?;
        match lines.pop().as_deref() {
            Some("done") => Ok(lines),
            _ => Err(io::Error::other(format!("{}: the command did not finish", self.label))),
        }
    }

    /// Returns the existing content; creates the directory if it is missing.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn state(&self) -> io::Result<FillState> {
        self.look("yes")
    }

    /// Returns the existing content; changes nothing.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn state_now(&self) -> io::Result<FillState> {
        self.look("no")
    }

    fn look(&self, make: &str) -> io::Result<FillState> {
        let script = walking(&format!("name=none; make={make}"), LOOK);
        let lines = self.script(&script, &strs(&self.walk_arguments()), &[])?;
        let [marked, held, free] = lines.as_slice() else {
            return Err(io::Error::other(format!("{}: the answer has an unexpected form", self.label)));
        };
        Ok(FillState {
            marked: (marked != "-").then(|| Mark::parse(marked)),
            holds_data: held == "yes",
            free_bytes: free.parse::<u64>().unwrap_or(u64::MAX / 1024) * 1024,
        })
    }

    /// Moves existing data into a folder beside it. Returns the folder's name.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn set_aside(&self, point: &str) -> io::Result<String> {
        let name = format!("{ASIDE}{point}");
        let script = walking(&format!("name={}", quote(&name)), SET_ASIDE);
        let lines = self.done(&script, &strs(&self.walk_arguments()), &[])?;
        Ok(lines.last().cloned().unwrap_or(name))
    }

    /// Returns what was set aside last for this recovery point, as a directory of its own.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn last_aside(&self, point: &str) -> io::Result<Option<Filler>> {
        let name = format!("{ASIDE}{point}");
        let number = |found: &str| match found.strip_prefix(&name)?.strip_prefix('.') {
            None => Some(0),
            Some(number) => number.parse::<u32>().ok(),
        };
        let lines = self.done(ASIDES, &[&self.root, &name], &[])?;
        let last = lines.into_iter().filter(|found| number(found).is_some()).max_by_key(|found| number(found));
        Ok(last.map(|found| Filler {
            kubernetes: Arc::clone(&self.kubernetes),
            place: self.place.clone(),
            root: format!("{}/{found}", self.root),
            inside: Vec::new(),
            excluded: self.excluded.clone(),
            label: format!("{} {found}", self.label),
            held_by: self.held_by.clone(),
            rights: self.rights,
        }))
    }

    /// Says that the directory is being restored.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn mark(&self, mark: &Mark) -> io::Result<()> {
        self.done(MARK, &[&self.root, &format!("{} {}", mark.point, mark.run)], &[]).map(|_| ())
    }

    /// Removes files that are not what was written, to write them again.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn remove(&self, paths: &[String]) -> io::Result<()> {
        self.without(REMOVE, paths)
    }

    /// Removes what is not of the recovery point: files, and directories after what is in them. A directory that something stays in stays.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn clear(&self, paths: &[String]) -> io::Result<()> {
        self.without(CLEAR, paths)
    }

    fn without(&self, script: &str, paths: &[String]) -> io::Result<()> {
        for batch in paths.chunks(MAX_BATCH) {
            let list: String = batch.iter().map(|path| format!("{path}\n")).collect();
            let wrong = self.done(script, &[&self.root, &list.len().to_string()], list.as_bytes())?;
            if let Some(line) = wrong.first() {
                return Err(io::Error::other(format!("{}: cannot remove {line}", self.label)));
            }
        }
        Ok(())
    }

    /// Says that it is whole.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn unmark(&self) -> io::Result<()> {
        self.done(UNMARK, &[&self.root], &[]).map(|_| ())
    }

    /// Returns the present content, for a run that continues.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn list(&self) -> Result<Vec<VolumeEntry>, PlatformError> {
        self.volume().list("")
    }

    /// Copies existing files. Returns for each whether it existed.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn fetch(&self, files: &[Fetch]) -> io::Result<Vec<bool>> {
        self.volume().fetch(files)
    }

    /// Returns the existing content, as a volume that can be read.
    pub fn as_volume(&self) -> Box<dyn Volume> {
        Box::new(self.volume())
    }

    fn volume(&self) -> PodVolume {
        PodVolume::new(Arc::clone(&self.kubernetes), self.place.clone(), self.root.clone(), self.excluded.clone())
    }

    /// Begins to write entries; their bytes follow in this order.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn write(&self, entries: Vec<WriteEntry>) -> io::Result<Writing> {
        let mut headers = Vec::new();
        let mut total = 1024;
        for entry in &entries {
            let header = header(entry)?;
            let bytes = match entry.kind {
                WriteKind::File(bytes) => bytes,
                _ => 0,
            };
            total += header.len() as u64 + bytes.next_multiple_of(512);
            headers.push((header, bytes));
        }
        let exec = self.kubernetes.exec(&self.place, UNPACK, &[&self.root, &total.to_string()], true)?;
        Ok(Writing { exec, headers: headers.into_iter(), left: 0, padding: 0, buffer: Vec::new() })
    }

    /// Makes files as long as they should be; what is added is a hole.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn extend(&self, files: &[(String, u64)]) -> io::Result<()> {
        for batch in files.chunks(MAX_BATCH) {
            let list: String = batch.iter().map(|(path, size)| format!("{size} {path}\n")).collect();
            let wrong = self.done(EXTEND, &[&self.root, &list.len().to_string()], list.as_bytes())?;
            if let Some(line) = wrong.first() {
                return Err(io::Error::other(format!("{}: cannot extend {line}", self.label)));
            }
        }
        Ok(())
    }

    /// Hashes files where they lie. Those that are not as expected.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn check(&self, files: &[Expected], progress: &dyn Fn(u64)) -> io::Result<Vec<String>> {
        let mut wrong = Vec::new();
        for batch in batches(files) {
            let list: String = batch
                .iter()
                .map(|file| format!("{} {} {} {}\n", file.sha256, file.len, file.size, file.path))
                .collect();
            let lines = patiently(|| {
                let mut exec =
                    self.kubernetes.exec(&self.place, CHECK, &[&self.root, &list.len().to_string()], true)?;
                exec.write(list.as_bytes())?;
                let mut lines: Vec<String> = Vec::new();
                for line in BufReader::new(exec.by_ref().take(16 << 20)).lines() {
                    lines.push(line?);
                }
                exec.finish()?;
                Ok(lines)
            })?;
            if lines.last().map(String::as_str) != Some("done") {
                return Err(io::Error::other(format!("{}: the check did not finish", self.label)));
            }
            wrong.extend(lines.iter().filter_map(|line| line.strip_prefix("! ")).map(str::to_owned));
            progress(batch.iter().map(|file| file.len).sum());
        }
        Ok(wrong)
    }
}

/// Returns a script that walks a directory.
fn walking(variables: &str, script: &str) -> String {
    format!("aside={}\n{variables}\n{WALK}{script}", quote(&format!("{ASIDE}{ASIDE_POINT}")))
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Batches of files of bounded number and bytes: a command that says nothing for long looks dead.
fn batches(files: &[Expected]) -> Vec<&[Expected]> {
    const BATCH_BYTES: u64 = 2 << 30;
    let mut out = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, file) in files.iter().enumerate() {
        if at > from && (bytes + file.len > BATCH_BYTES || at - from >= MAX_BATCH) {
            out.push(&files[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += file.len;
    }
    if from < files.len() {
        out.push(&files[from..]);
    }
    out
}

/// Returns an entry's header as tar writes it, with the extra records of a long name.
fn header(entry: &WriteEntry) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(u64::from(entry.uid));
    header.set_gid(u64::from(entry.gid));
    header.set_mtime(entry.modified);
    let path = if entry.path.is_empty() { "." } else { &entry.path };
    let mut builder = tar::Builder::new(Vec::new());
    match &entry.kind {
        WriteKind::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            builder.append_data(&mut header, Path::new(path), io::empty())?;
        }
        WriteKind::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, Path::new(path), Path::new(target))?;
        }
        WriteKind::File(bytes) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(*bytes);
            builder.append_data(&mut header, Path::new(path), io::empty())?;
        }
    }
    Ok(builder.get_ref().clone())
}

/// Entries on their way into a directory.
pub struct Writing {
    exec: Exec,
    headers: std::vec::IntoIter<(Vec<u8>, u64)>,
    /// Bytes of the open entry that are still to come.
    left: u64,
    padding: usize,
    buffer: Vec<u8>,
}

/// Bytes sent at a time.
const SEND_BYTES: usize = 256 << 10;

impl Writing {
    /// Begins the next entry.
    ///
    /// # Errors
    /// What the stream said; that the entry before is not whole.
    pub fn begin_entry(&mut self) -> io::Result<()> {
        self.close()?;
        let (header, bytes) = self.headers.next().ok_or_else(|| io::Error::other("more entries than announced"))?;
        self.left = bytes;
        self.padding = usize::try_from(bytes.next_multiple_of(512) - bytes).unwrap_or(0);
        self.put(&header)
    }

    /// Bytes of the open entry.
    ///
    /// # Errors
    /// What the stream said; that they are too many.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("more bytes than announced for the entry"))?;
        self.put(bytes)
    }

    fn close(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("fewer bytes than announced for the entry"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&vec![0; padding])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= SEND_BYTES {
            self.exec.write(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends the stream and waits until everything is unpacked.
    ///
    /// # Errors
    /// What the stream or the container said.
    pub fn finish(mut self) -> io::Result<()> {
        self.close()?;
        if self.headers.next().is_some() {
            return Err(io::Error::other("fewer entries than announced"));
        }
        self.put(&[0; 1024])?;
        self.exec.write(&self.buffer)?;
        let mut out = String::new();
        self.exec.by_ref().take(64).read_to_string(&mut out)?;
        let done = out.trim() == "done";
        self.exec.finish()?;
        if done { Ok(()) } else { Err(io::Error::other("unpacking did not finish")) }
    }
}
