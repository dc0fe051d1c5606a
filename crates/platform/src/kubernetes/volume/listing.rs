//! Parses a listing of a container's `find` and `stat`: it is complete, or an error.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::sync::atomic::{AtomicI64, Ordering};

use crate::kubernetes::connection::answer::{Answer, Item};
use crate::volume::{EntryKind, MAX_ENTRIES, Stamp, VolumeEntry};

/// What `find` and `stat` say, in the C locale, of what went away meanwhile. Whatever else they say is an error.
const VANISHED: &str = "No such file or directory";
/// The line that says that `find` finished and reported errors. Without a line that gives a harmless reason it is an error.
const FAILED: &str = "find: exit code 1";
const SECOND_NS: i128 = 1_000_000_000;

/// Reads the answer to a `list` command; nothing when the directory is not there.
///
/// # Errors
/// What the stream said; [`io::ErrorKind::PermissionDenied`] and [`io::ErrorKind::InvalidData`] when `find` or `stat` could not see
/// everything, with what they said first.
pub(super) fn read(answer: &mut Answer<impl BufRead>) -> io::Result<Vec<VolumeEntry>> {
    let mut out = Vec::new();
    let mut links: HashMap<String, String> = HashMap::new();
    let mut now_seconds = i128::MAX;
    let mut complete = false;
    loop {
        match answer.next()? {
            Item::End if complete => break,
            Item::End => return Err(incomplete("it has no last line".to_owned())),
            Item::Word(word) if word == "-" => complete = true,
            Item::Word(word) => return Err(incomplete(format!("it contains {word:?}"))),
            Item::Bytes(name, bytes) => match name.as_str() {
                "now" => now_seconds = String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(i128::MAX),
                "entries" => {
                    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                        out.push(entry(line, now_seconds)?);
                    }
                }
                "links" => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let mut lines = text.lines();
                    while let (Some(path), Some(target)) = (lines.next(), lines.next()) {
                        links.insert(relative(path).to_owned(), target.to_owned());
                    }
                }
                "odd" => {
                    let names = String::from_utf8_lossy(&bytes).into_owned();
                    out.extend(names.lines().map(|name| unnamed(relative(name))));
                }
                "errors" => {
                    check_errors(&String::from_utf8_lossy(&bytes))?;
                    complete = true;
                }
                other => return Err(incomplete(format!("it contains {other:?}"))),
            },
        }
        if out.len() > MAX_ENTRIES {
            return Err(incomplete(format!("it has more than {MAX_ENTRIES} entries")));
        }
    }
    for entry in &mut out {
        if let EntryKind::Symlink(target) = &mut entry.kind {
            *target =
                links.remove(&entry.path).ok_or_else(|| incomplete(format!("the link {} was not read", entry.path)))?;
        }
    }
    out.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    Ok(out)
}

fn incomplete(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the listing is not complete: {what}"))
}

/// Errors that `find` and `stat` reported: only what vanished meanwhile is none.
fn check_errors(text: &str) -> io::Result<()> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let vanished = text.lines().any(|line| line.ends_with(VANISHED));
    let wrong = lines.find(|line| !(line.ends_with(VANISHED) || (vanished && *line == FAILED)));
    match wrong {
        None => Ok(()),
        Some(line) => Err(incomplete(line.chars().take(300).collect())),
    }
}

fn relative(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(if path == "." { "" } else { path })
}

/// Returns an entry whose name cannot be kept.
fn unnamed(path: &str) -> VolumeEntry {
    let stamp = Stamp { size: 0, modified_ns: 0, changed_ns: 0, inode: 0 };
    VolumeEntry {
        path: path.to_owned(),
        kind: EntryKind::Unnamed,
        mode: 0,
        uid: 0,
        gid: 0,
        stamp,
        links: 0,
        attributes: false,
        followed: None,
    }
}

/// `mode(hex) uid gid links size inode modified|changed|./path`
fn entry(line: &[u8], now_seconds: i128) -> io::Result<VolumeEntry> {
    let text = String::from_utf8_lossy(line);
    let parsed =
        parse(&text, now_seconds).ok_or_else(|| incomplete(format!("a line has an unexpected form: {text:?}")))?;
    Ok(if std::str::from_utf8(line).is_ok() { parsed } else { unnamed(&parsed.path) })
}

fn parse(line: &str, now_seconds: i128) -> Option<VolumeEntry> {
    let (head, rest) = line.split_once('|')?;
    let (changed, path) = rest.split_once('|')?;
    let mut words = head.splitn(7, ' ');
    let mode = u32::from_str_radix(words.next()?, 16).ok()?;
    let uid = words.next()?.parse().ok()?;
    let gid = words.next()?.parse().ok()?;
    let links = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let inode = words.next()?.parse().ok()?;
    let modified_ns = nanoseconds(words.next()?)?;
    let changed_ns = nanoseconds(changed)?;
    if path != "." && !path.starts_with("./") {
        return None;
    }
    let kind = match mode & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0o100_000 => EntryKind::File,
        0o120_000 => EntryKind::Symlink(String::new()),
        _ => EntryKind::Special,
    };
    let coarse = modified_ns % SECOND_NS == 0 && changed_ns % SECOND_NS == 0;
    let changed_ns = if coarse && changed_ns / SECOND_NS >= now_seconds - 1 { unlike(changed_ns) } else { changed_ns };
    let stamp = Stamp { size, modified_ns, changed_ns, inode };
    Some(VolumeEntry {
        path: relative(path).to_owned(),
        kind,
        mode: mode & 0o7777,
        uid,
        gid,
        stamp,
        links,
        attributes: false,
        followed: None,
    })
}

/// Returns the time of a file that may change once more in the same second without a trace, because its time has no smaller part: never
/// equal to that of another listing.
fn unlike(changed_ns: i128) -> i128 {
    static NUMBER: AtomicI64 = AtomicI64::new(0);
    let number = i128::from(NUMBER.fetch_add(1, Ordering::Relaxed));
    let clock = jiff::Timestamp::now().as_nanosecond();
    changed_ns + (clock + number) % (SECOND_NS - 1) + 1
}

/// `2026-11-23 20:12:01.070885850 +0000`, as `stat` writes it under UTC; BusyBox may leave the part behind the second out.
fn nanoseconds(text: &str) -> Option<i128> {
    let (date, rest) = text.split_once(' ')?;
    let time = rest.split(' ').next()?;
    let stamp: jiff::Timestamp = format!("{date}T{time}Z").parse().ok()?;
    Some(stamp.as_nanosecond())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn item(name: &str, bytes: &[u8]) -> Vec<u8> {
        let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes));
        [format!("+{name} {}\n", bytes.len()).as_bytes(), bytes, format!("{hash}  -\n").as_bytes()].concat()
    }

    fn listed(entries: &[u8], links: &str, errors: &str) -> io::Result<Vec<VolumeEntry>> {
        let items = [
            item("now", b"1795810000"),
            item("entries", entries),
            item("links", links.as_bytes()),
            item("errors", errors.as_bytes()),
            b".\n".to_vec(),
        ];
        read(&mut Answer::new(items.concat().as_slice()))
    }

    const TEXT: &str = "41ed 0 0 2 4096 12 2026-11-23 20:12:01.070885850 +0000|2026-11-23 20:12:01.1 +0000|.\n\
        81a4 7051 7051 1 3 13 2026-11-23 20:12:01.070885850 +0000|2026-11-23 20:12:01.1 +0000|./a b|c\n\
        a1ff 0 0 1 1 14 2026-11-23 20:12:01.000000000 +0000|2026-11-23 20:12:01.1 +0000|./link\n";

    #[test]
    fn a_listing_is_read_as_stat_writes_it_and_an_error_of_find_is_an_error() {
        let entries = listed(TEXT.as_bytes(), "./link\na b|c\n", "").unwrap();
        assert_eq!(entries[0].kind, EntryKind::Directory);
        assert_eq!((entries[1].path.as_str(), entries[1].mode, entries[1].uid), ("a b|c", 0o644, 7051));
        assert_eq!(entries[1].stamp.modified_ns % SECOND_NS, 70_885_850);
        assert_eq!(entries[2].kind, EntryKind::Symlink("a b|c".to_owned()));
        // A link whose target was not read.
        assert!(listed(TEXT.as_bytes(), "", "").is_err());
        let links = "./link\nx\n";
        let vanished = "find: './x': No such file or directory\nfind: exit code 1\n";
        assert!(listed(TEXT.as_bytes(), links, vanished).is_ok());
        for errors in [
            "find: './x': Input/output error\nfind: exit code 1\n",
            "find: ./x: I/O error\n",
            "find: './x': Permission denied\n",
            "stat: './x': Stale file handle\n",
            "find: ‘./x’: Keine Berechtigung\nfind: exit code 1\n",
            "find: exit code 1\n",
            "find: './x': No such file or directory\nfind: './y': Input/output error\nfind: exit code 1\n",
            "find: './x': No such file or directory\nfind: exit code 137\n",
        ] {
            let error = listed(TEXT.as_bytes(), links, errors).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{errors}");
        }
        // Without what find reported, nothing is known of its end.
        let cut = [item("now", b"1"), item("entries", TEXT.as_bytes()), b".\n".to_vec()].concat();
        assert!(read(&mut Answer::new(cut.as_slice())).is_err());
    }

    #[test]
    fn a_name_that_is_no_text_is_listed_as_such() {
        let line = b"81a4 0 0 1 3 13 2026-11-23 20:12:01.5 +0000|2026-11-23 20:12:01.1 +0000|./a\xff\n";
        let entries = listed(line, "", "").unwrap();
        assert_eq!((entries[0].kind.clone(), entries[0].path.as_str()), (EntryKind::Unnamed, "a\u{fffd}"));
    }

    #[test]
    fn a_time_without_nanoseconds_of_a_file_that_is_new_is_never_the_same_again() {
        let old = parse("81a4 0 0 1 3 13 2026-11-23 20:12:01|2026-11-23 20:12:01|./a", 1_795_810_000).unwrap();
        let again = parse("81a4 0 0 1 3 13 2026-11-23 20:12:01|2026-11-23 20:12:01|./a", 1_795_810_000).unwrap();
        assert_eq!(old.stamp, again.stamp);
        let seconds = old.stamp.changed_ns / SECOND_NS;
        let new = || parse("81a4 0 0 1 3 13 2026-11-23 20:12:01|2026-11-23 20:12:01|./a", seconds).unwrap().stamp;
        assert_ne!(new(), new());
        assert_ne!(new(), old.stamp);
    }
}
