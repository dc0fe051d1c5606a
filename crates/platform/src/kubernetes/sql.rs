//! Dumps of certificate authorities' databases, made and loaded in the database server's own pod.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use fabkeep_ledger::ca_dump::{self, DUMP_FILE, Dump};
use fabkeep_network::{NodeId, Remedy};

use super::Kubernetes;
use super::connection::exec::{ContainerRef, Exec};
use crate::sql::{Dumped, SqlDatabase, create_private, settle};
use crate::volume::Volume;
use crate::{OnProgress, PlatformError, Progress};

/// Takes variables from standard input, up to an empty line: a command line can be seen by others.
const WITH_VARIABLES: &str = "while IFS= read -r line && [ -n \"$line\" ]; do export \"${line?}\"; done\n";
/// Returns a command whose output is of unknown length: its SHA-256 is the last line of standard error, and its exit code is kept.
fn with_hash(script: &str) -> String {
    format!(
        "code=$( {{ {{ {{ (\n{script}\n); echo $? >&4; }} | tee /dev/fd/3 | sha256sum >&2; }} 3>&5; }} 4>&1 ) 5>&1\nexit \"$code\"\n"
    )
}

/// Bytes sent at a time.
const SEND_BYTES: usize = 256 << 10;
/// Between two tries to reach a server that starts.
const POLL: Duration = Duration::from_millis(500);
/// Longest answer to a question.
const MAX_ANSWER_BYTES: usize = 1 << 16;

impl Kubernetes {
    /// Returns the database of a server's node, and the container to run its tools in; `None` when its pod does not run.
    fn sql_place(&self, node: &NodeId) -> Result<Option<(SqlDatabase, ContainerRef)>, PlatformError> {
        let (_, found) = self.found(node)?;
        let (Some(sql), Some(known)) = (&found.sql, &found.node.workload) else { return Ok(None) };
        if self.is_stopped_by_window(found) {
            return Ok(None);
        }
        // It may have been started again since the network was looked at.
        let pods = self.pods_of(&known.into(), false)?;
        let name = known.ordinal.map(|ordinal| format!("{}-{ordinal}", known.name));
        let runs = |pod: &&super::discover::workloads::LivePod| {
            name.as_ref().is_none_or(|name| pod.name == *name) && pod.running.contains(&known.container)
        };
        Ok(pods.iter().find(runs).map(|pod| {
            let (namespace, container) = (known.namespace.clone(), known.container.clone());
            (sql.seen_from_its_pod(), ContainerRef { namespace, pod: pod.name.clone(), container })
        }))
    }

    fn sql_exec(
        &self,
        (database, place): &(SqlDatabase, ContainerRef),
        script: &str,
        arguments: &[&str],
    ) -> io::Result<Exec> {
        let mut exec = self.connection.exec(place, &format!("{WITH_VARIABLES}{script}"), arguments, true)?;
        let mut variables: String =
            database.environment(None).iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        variables.push('\n');
        exec.write(variables.as_bytes())?;
        Ok(exec)
    }

    fn sql_failed(&self, node: &NodeId, what: &str, error: impl ToString) -> PlatformError {
        PlatformError::NotHere {
            problem: format!("{node}: {what} failed: {}", error.to_string().trim()),
            next: Remedy::from("correct the credentials in the certificate authority's configuration (the tools are those of the server's image)")
                .or(Remedy::CopyDatabases),
        }
    }

    /// Dumps a server's database into a folder of its own; `None` when the server does not run.
    pub(super) fn dumped(&self, node: &NodeId) -> Result<Option<Box<dyn Volume>>, PlatformError> {
        let Some(at) = self.sql_place(node)? else { return Ok(None) };
        let folder = Dumped::folder()?;
        let path = folder.path().join(DUMP_FILE);
        // A dump that could not be loaded is not a backup: found now, not when it is needed.
        self.dump_to(&at, &path)
            .and_then(|()| at.0.check(&path))
            .map_err(|error| self.sql_failed(node, "dumping", error))?;
        Ok(Some(Box::new(Dumped::new(folder))))
    }

    fn dump_to(&self, at: &(SqlDatabase, ContainerRef), to: &Path) -> io::Result<()> {
        let mut exec = self.sql_exec(at, &with_hash(&at.0.dump_script()), &[])?;
        let raw = to.with_extension("raw");
        let mut file = create_private(&raw)?;
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; SEND_BYTES];
        loop {
            let read = exec.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            file.write_all(&buffer[..read])?;
        }
        let errors = exec.finish_with_errors()?;
        let sent = errors.lines().last().and_then(|line| line.split(' ').next()).unwrap_or_default();
        if sent != hex::encode(hash.finish()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the received dump is not the one that was sent (SHA-256)",
            ));
        }
        file.flush()?;
        settle(&raw, to)
    }

    /// Returns how many tables a server's database has.
    fn tables(&self, at: &(SqlDatabase, ContainerRef)) -> io::Result<u64> {
        let mut exec = self.sql_exec(at, &at.0.tables_script(), &[])?;
        let mut out = String::new();
        exec.by_ref().take(MAX_ANSWER_BYTES as u64).read_to_string(&mut out)?;
        exec.finish()?;
        out.trim()
            .parse()
            .map_err(|_| io::Error::other(format!("it printed {:?} instead of the number of tables", out.trim())))
    }

    /// Loads a dump into a server that has just begun anew, and dumps it again: what it holds then. `reported` is called with what is waited
    /// for.
    ///
    /// # Errors
    /// [`PlatformError`] when the server cannot be reached in time, or does not take the dump.
    pub fn load_dump(
        &self,
        node: &NodeId,
        from: &Path,
        deadline: Duration,
        reported: &OnProgress<'_>,
    ) -> Result<Dump, PlatformError> {
        let wrong = |what: &'static str| move |error: io::Error| self.sql_failed(node, what, error);
        let begun = Instant::now();
        let mut said = String::new();
        // A new server makes its database first, and is ready in between.
        let at = loop {
            let problem = match self.sql_place(node)? {
                None => "its pod does not run".to_owned(),
                Some(at) => match self.tables(&at) {
                    Ok(_) => break at,
                    Err(error) => error.to_string(),
                },
            };
            if begun.elapsed() > deadline {
                return Err(self.sql_failed(node, "reaching the database", problem));
            }
            if problem != said {
                reported(&Progress::WaitsForDatabase { node, problem: &problem });
                said = problem;
            }
            std::thread::sleep(POLL);
        };
        self.load_from(&at, from).map_err(wrong("loading"))?;
        let folder = Dumped::folder()?;
        let again = folder.path().join(DUMP_FILE);
        self.dump_to(&at, &again).map_err(wrong("dumping what was loaded"))?;
        let read = || ca_dump::read(File::open(&again)?, &mut |_, _| {});
        read().map_err(wrong("reading what was loaded"))
    }

    fn load_from(&self, at: &(SqlDatabase, ContainerRef), from: &Path) -> io::Result<()> {
        at.0.check(from)?;
        let mut file = File::open(from)?;
        let len = file.metadata()?.len();
        // The end of the input cannot be known otherwise.
        let script = format!("head -c \"$1\" | ( {} )", at.0.load_script()?);
        let mut exec = self.sql_exec(at, &script, &[&len.to_string()])?;
        let mut buffer = vec![0; SEND_BYTES];
        let mut sent = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            exec.write(&buffer[..read])?;
            sent += read as u64;
        }
        if sent != len {
            return Err(io::Error::other("the dump changed while it was sent"));
        }
        let mut out = String::new();
        exec.by_ref().take(MAX_ANSWER_BYTES as u64).read_to_string(&mut out)?;
        exec.finish()
    }
}
