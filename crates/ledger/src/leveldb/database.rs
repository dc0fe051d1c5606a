//! A complete LevelDB directory: checks it and looks up keys.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::log::{LogEnd, read_log};
use super::manifest::Version;
use super::table::{Cursor, Table, sequence, user_key};
use super::{Entry, LevelDbError, MAX_MANIFEST_BYTES, corrupt};
use crate::varint;

/// A LevelDB directory, open for reading.
pub struct Database {
    directory: PathBuf,
    version: Version,
    manifest: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tables checked.
    pub tables: usize,
    /// Bytes of tables and logs read.
    pub bytes: u64,
    /// A log or manifest that ends inside a record: its name and the record's offset in bytes. Left by a crash or a live copy.
    pub torn: Option<(String, u64)>,
}

impl Database {
    /// Reads `CURRENT` and the manifest that it names.
    ///
    /// # Errors
    /// [`LevelDbError`].
    pub fn open(directory: &Path) -> Result<Database, LevelDbError> {
        let mut current = String::new();
        let file = match File::open(directory.join("CURRENT")) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(LevelDbError::Missing {
                    file: "CURRENT".to_owned(),
                    named_by: "every LevelDB directory".to_owned(),
                });
            }
            Err(source) => return Err(LevelDbError::Io { file: "CURRENT".to_owned(), source }),
        };
        file.take(64)
            .read_to_string(&mut current)
            .map_err(|source| LevelDbError::Io { file: "CURRENT".to_owned(), source })?;
        let manifest = current
            .strip_suffix('\n')
            .filter(|name| {
                name.strip_prefix("MANIFEST-")
                    .is_some_and(|digits| digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            })
            .ok_or_else(|| corrupt("CURRENT", 0, "it does not name a manifest"))?
            .to_owned();
        let reader = open_named(directory, &manifest, "CURRENT")?;
        let version = Version::read(&manifest, reader.take(MAX_MANIFEST_BYTES))?;
        Ok(Database { directory: directory.to_path_buf(), version, manifest })
    }

    /// Checks everything: manifest, tables, logs.
    ///
    /// # Errors
    /// [`LevelDbError`], the first found.
    pub fn check(&self) -> Result<Report, LevelDbError> {
        let mut report = Report {
            tables: self.version.tables.len(),
            bytes: 0,
            torn: self.version.torn.then(|| (self.manifest.clone(), 0)),
        };
        for (&number, table) in &self.version.tables {
            let size = table.size;
            let (path, name) = self.table_path(number)?;
            let found = path.metadata().map_err(|source| LevelDbError::Io { file: name.clone(), source })?.len();
            if found != size {
                return Err(corrupt(&name, 0, format!("it has {found} bytes, the manifest says {size}")));
            }
            Table::open(&path, &name)?.check()?;
            report.bytes += size;
        }
        for (name, path) in self.logs()? {
            let io = |source| LevelDbError::Io { file: name.clone(), source };
            let file = File::open(&path).map_err(io)?;
            report.bytes += file.metadata().map_err(io)?.len();
            let end = read_log(&name, BufReader::new(file), |record, offset| {
                walk_batch(record, &mut |_, _, _| {})
                    .ok_or_else(|| corrupt(&name, offset, "a write batch does not decode"))
            })?;
            if let LogEnd::Torn(offset) = end {
                report.torn = Some((name, offset));
            }
        }
        Ok(report)
    }

    /// Returns the value of a key, if it has one.
    ///
    /// # Errors
    /// [`LevelDbError`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LevelDbError> {
        let mut to = key.to_vec();
        to.push(0);
        Ok(self.range(key, &to)?.remove(key))
    }

    /// Returns all live entries with keys in `[from, to)`.
    ///
    /// # Errors
    /// [`LevelDbError`].
    pub fn range(&self, from: &[u8], to: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, LevelDbError> {
        self.entries(from, Some(to))?.collect()
    }

    /// Returns all live entries with keys from `from` to in front of `to`, in the order of their keys. Of each table that is being read one
    /// block is in memory; what only logs hold is in memory whole (goleveldb begins another log at 4 MiB).
    ///
    /// # Errors
    /// [`LevelDbError`].
    pub fn entries<'a>(&'a self, from: &[u8], to: Option<&'a [u8]>) -> Result<Entries<'a>, LevelDbError> {
        let within = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
        let mut logged: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)> = BTreeMap::new();
        for (name, path) in self.logs()? {
            let file = File::open(&path).map_err(|source| LevelDbError::Io { file: name.clone(), source })?;
            read_log(&name, BufReader::new(file), |record, offset| {
                let mut on_entry = |key: &[u8], number: u64, value: Option<&[u8]>| {
                    if within(key) {
                        let slot = logged.entry(key.to_vec()).or_default();
                        if number >= slot.0 {
                            *slot = (number, value.map(<[u8]>::to_vec));
                        }
                    }
                };
                walk_batch(record, &mut on_entry).ok_or_else(|| corrupt(&name, offset, "a write batch does not decode"))
            })?;
        }
        let mut tables = Vec::new();
        for (&number, table) in &self.version.tables {
            let (first, last) = (user_key(&table.bounds.0), user_key(&table.bounds.1));
            if last >= from && to.is_none_or(|to| first < to) {
                tables.push((first, number));
            }
        }
        tables.sort_unstable_by(|one, other| other.cmp(one));
        let mut entries = Entries {
            database: self,
            from: from.to_vec(),
            to,
            tables,
            sources: vec![Source::Log(logged.into_iter())],
            heads: BinaryHeap::new(),
            last: None,
        };
        entries.advance(0)?;
        Ok(entries)
    }

    fn table_path(&self, number: u64) -> Result<(PathBuf, String), LevelDbError> {
        for extension in ["ldb", "sst"] {
            let name = format!("{number:06}.{extension}");
            let path = self.directory.join(&name);
            if path.exists() {
                return Ok((path, name));
            }
        }
        Err(LevelDbError::Missing { file: format!("{number:06}.ldb"), named_by: self.manifest.clone() })
    }

    /// Returns the logs that still count, oldest first. The one that the manifest names must be there.
    fn logs(&self) -> Result<Vec<(String, PathBuf)>, LevelDbError> {
        let io = |source| LevelDbError::Io { file: self.directory.display().to_string(), source };
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_suffix(".log").and_then(|digits| digits.parse::<u64>().ok());
            if let Some(number) = number.filter(|&number| number >= self.version.log_number) {
                logs.push((number, name, entry.path()));
            }
        }
        logs.sort();
        let named = self.version.log_number;
        if named != 0 && logs.first().is_none_or(|log| log.0 != named) {
            let file = format!("{named:06}.log");
            return Err(LevelDbError::Missing { file, named_by: self.manifest.clone() });
        }
        Ok(logs.into_iter().map(|(_, name, path)| (name, path)).collect())
    }
}

/// Where entries come from.
enum Source {
    Log(std::collections::btree_map::IntoIter<Vec<u8>, (u64, Option<Vec<u8>>)>),
    Table { cursor: Cursor, name: String },
}

/// The next entry of a source. Ordered by key, the newest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    key: Vec<u8>,
    number: Reverse<u64>,
    value: Option<Vec<u8>>,
    source: usize,
}

/// Live entries of a database, in the order of their keys: [`Database::entries`].
pub struct Entries<'a> {
    database: &'a Database,
    from: Vec<u8>,
    to: Option<&'a [u8]>,
    /// Tables that are not open yet: first key and number, the one that begins first at the end.
    tables: Vec<(&'a [u8], u64)>,
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<Head>>,
    last: Option<Vec<u8>>,
}

impl Entries<'_> {
    /// Takes the next entry of a source into the heap.
    fn advance(&mut self, source: usize) -> Result<(), LevelDbError> {
        let (key, number, value) = match &mut self.sources[source] {
            Source::Log(entries) => match entries.next() {
                Some((key, (number, value))) => (key, number, value),
                None => return Ok(()),
            },
            Source::Table { cursor, name } => loop {
                let Some(entry) = cursor.next() else {
                    // Its file is closed.
                    self.sources[source] = Source::Log(BTreeMap::new().into_iter());
                    return Ok(());
                };
                let (mut key, value) = entry?;
                let (number, live) = sequence(&key);
                key.truncate(user_key(&key).len());
                if key < self.from {
                    continue;
                }
                if self.last.as_ref().is_some_and(|last| key < *last) {
                    return Err(corrupt(name, 0, "its keys are out of order"));
                }
                break (key, number, live.then_some(value));
            },
        };
        if self.to.is_none_or(|to| key.as_slice() < to) {
            self.heads.push(Reverse(Head { key, number: Reverse(number), value, source }));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Entry>, LevelDbError> {
        loop {
            while let Some(&(first, number)) = self.tables.last()
                && self.heads.peek().is_none_or(|head| first <= head.0.key.as_slice())
            {
                self.tables.pop();
                let (path, name) = self.database.table_path(number)?;
                let cursor = Table::open(&path, &name)?.cursor(&self.from)?;
                self.sources.push(Source::Table { cursor, name });
                self.advance(self.sources.len() - 1)?;
            }
            let Some(Reverse(head)) = self.heads.pop() else { return Ok(None) };
            self.advance(head.source)?;
            if self.last.as_ref() == Some(&head.key) {
                continue;
            }
            self.last = Some(head.key.clone());
            if let Some(value) = head.value {
                return Ok(Some((head.key, value)));
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, LevelDbError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

fn open_named(directory: &Path, name: &str, named_by: &str) -> Result<BufReader<File>, LevelDbError> {
    match File::open(directory.join(name)) {
        Ok(file) => Ok(BufReader::new(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(LevelDbError::Missing { file: name.to_owned(), named_by: named_by.to_owned() })
        }
        Err(source) => Err(LevelDbError::Io { file: name.to_owned(), source }),
    }
}

/// Takes one entry of a write batch: key, sequence number, value or deletion.
type OnEntry<'a> = &'a mut dyn FnMut(&[u8], u64, Option<&[u8]>);

/// Walks a write batch: each entry as `(key, sequence, value or deletion)`.
fn walk_batch(record: &[u8], on_entry: OnEntry<'_>) -> Option<()> {
    let (head, mut rest) = record.split_at_checked(12)?;
    let sequence = u64::from_le_bytes(*head.first_chunk::<8>()?);
    let count = u32::from_le_bytes(*head.last_chunk::<4>()?);
    fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, used) = varint::read(rest)?;
        let end = used.checked_add(usize::try_from(len).ok()?)?;
        let bytes = rest.get(used..end)?;
        *rest = &rest[end..];
        Some(bytes)
    }
    for i in 0..u64::from(count) {
        let (&kind, tail) = rest.split_first()?;
        rest = tail;
        let key = take(&mut rest)?;
        let value = match kind {
            0 => None,
            1 => Some(take(&mut rest)?),
            _ => return None,
        };
        on_entry(key, sequence + i, value);
    }
    rest.is_empty().then_some(())
}
