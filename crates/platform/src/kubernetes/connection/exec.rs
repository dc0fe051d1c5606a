//! Runs commands in containers: the stream of standard output ends without an error only if the command's status is Success.

use std::io::{self, BufReader, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::Answer;
use super::{Connection, chain, status_code};

/// The stream's buffer: with kube's own of 1 KiB a stream crawls.
const BUFFER_BYTES: usize = 1 << 20;
/// Most of a command's error output that is kept, in bytes.
const MAX_STDERR_BYTES: usize = 64 << 10;
/// Unless somebody wants an answer sooner, a stream on which nothing moves for this long is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the opening of a stream may take.
const OPENING: Duration = Duration::from_secs(20);

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContainerRef {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

impl std::fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod {}/{} container {}", self.namespace, self.pod, self.container)
    }
}

/// A command that ended without success.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct Failed {
    code: Option<i32>,
    problem: String,
}

/// Returns the exit code of a command that failed, where the stream reported it.
pub(crate) fn exit_code(error: &io::Error) -> Option<i32> {
    error.get_ref()?.downcast_ref::<Failed>()?.code
}

type Status = Pin<Box<dyn Future<Output = Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>> + Send>>;

/// A running command.
pub(crate) struct Exec {
    handle: tokio::runtime::Handle,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Ends when standard error does.
    errors_reader: Option<tokio::task::JoinHandle<()>>,
    status: Option<Status>,
    /// A stream on which nothing moves for this long is dead.
    silence: Duration,
    /// Kept alive: the stream ends when it is dropped.
    _process: AttachedProcess,
}

impl Connection {
    /// Starts `sh -c script` with arguments `$1` … in a container. `stdin` says whether something will be written to it; its end cannot
    /// be signalled, so the script must know how much to read.
    pub fn exec(&self, place: &ContainerRef, script: &str, arguments: &[&str], stdin: bool) -> io::Result<Exec> {
        let api: Api<Pod> = Api::namespaced(self.client(), &place.namespace);
        let name = command_name(&place.pod);
        let mut command = vec!["sh", "-c", script, &name];
        command.extend(arguments);
        let parameters = AttachParams::default()
            .container(place.container.clone())
            .stdin(stdin)
            .stdout(true)
            .stderr(true)
            .max_stdin_buf_size(BUFFER_BYTES)
            .max_stdout_buf_size(BUFFER_BYTES);
        // Never the command: what it is given may be secret.
        tracing::debug!(%place, stdin, "opens a stream into a container");
        let opened = self.wait(async {
            tokio::time::timeout(OPENING, api.exec(&place.pod, command, &parameters))
                .await
                .map_err(|_| silent("opening"))
        })?;
        let mut process = opened.map_err(|error| {
            let kind = match status_code(&error) {
                // The pod is gone, or its container: waiting brings neither back.
                Some(404) => io::ErrorKind::HostUnreachable,
                Some(401 | 403) => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, format!("{place}: {}", chain(&error)))
        })?;
        let missing = || io::Error::other("the stream was opened without its channels");
        let stdout = Box::new(process.stdout().ok_or_else(missing)?);
        let stdin: Option<Box<dyn AsyncWrite + Send + Unpin>> =
            if stdin { Some(Box::new(process.stdin().ok_or_else(missing)?)) } else { None };
        let mut errors = process.stderr().ok_or_else(missing)?;
        let status: Status = Box::pin(process.take_status().ok_or_else(missing)?);
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        let errors_reader = self.handle().spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read) = errors.read(&mut buffer).await {
                if read == 0 {
                    break;
                }
                let mut kept = kept.lock();
                kept.extend_from_slice(&buffer[..read]);
                // The end says most.
                let surplus = kept.len().saturating_sub(MAX_STDERR_BYTES);
                kept.drain(..surplus);
            }
        });
        Ok(Exec {
            handle: self.handle(),
            stdout,
            stdin,
            stderr,
            errors_reader: Some(errors_reader),
            status: Some(status),
            silence: SILENCE,
            _process: process,
        })
    }

    /// Runs a script to its end with `input` on its standard input. Returns its output, at most `limit` bytes, verified by its length and
    /// hash.
    pub fn output(
        &self,
        place: &ContainerRef,
        script: &str,
        arguments: &[&str],
        input: &[u8],
        limit: usize,
    ) -> io::Result<Vec<u8>> {
        let mut exec = self.exec(place, &as_answer(script), arguments, !input.is_empty())?;
        exec.write(input)?;
        let mut answer = Answer::new(BufReader::new(exec));
        let out = answer.bytes("output").and_then(|out| answer.end().map(|()| out));
        // The command's own reason counts more than the answer that it broke off.
        answer.into_inner().into_inner().finish()?;
        let out = out?;
        if out.len() > limit {
            return Err(io::Error::other(format!("{place}: more than {limit} bytes of output")));
        }
        Ok(out)
    }
}

/// Returns the name (`$0`) of fabkeep's commands in a pod: it shows there which processes are fabkeep's.
pub(in crate::kubernetes) fn command_name(pod: &str) -> String {
    format!("fabkeep:{pod}")
}

/// Returns a script whose output becomes one item of an [`Answer`].
fn as_answer(script: &str) -> String {
    format!(
        "out=$(\n{script}\n) || exit $?\necho \"+output $(($(printf '%s' \"$out\" | wc -c)))\"\nprintf '%s' \"$out\"\nprintf '%s' \
         \"$out\" | sha256sum\necho .\n"
    )
}

fn silent(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} a stream to the container: no data within the time limit"))
}

impl Exec {
    /// From now on it is dead when nothing moves for so long; without a word, for as long as usual.
    pub fn give_up_after(&mut self, silence: Option<Duration>) {
        self.silence = silence.unwrap_or(SILENCE);
    }

    /// Writes to the command's standard input; waits while the other side is slow.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stdin) = self.stdin.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(()) };
        let write = async {
            for piece in bytes.chunks(BUFFER_BYTES / 4) {
                tokio::time::timeout(SILENCE, stdin.write_all(piece)).await.map_err(|_| silent("writing to"))??;
            }
            Ok(())
        };
        self.handle.block_on(write)
    }

    /// Returns what the command wrote to standard error so far.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock()).trim().to_owned()
    }

    /// As [`Exec::finish`]. Returns all that the command wrote to standard error.
    pub fn finish_with_errors(mut self) -> io::Result<String> {
        let stderr = Arc::clone(&self.stderr);
        let reader = self.errors_reader.take();
        let handle = self.handle.clone();
        self.finish()?;
        if let Some(reader) = reader {
            // The status may arrive before the last of standard error was taken over.
            let _ = handle.block_on(async { tokio::time::timeout(OPENING, reader).await });
        }
        Ok(String::from_utf8_lossy(&stderr.lock()).trim().to_owned())
    }

    /// Waits for the command's status: only Success is success.
    pub fn finish(mut self) -> io::Result<()> {
        let Some(status) = self.status.take() else { return Ok(()) };
        let status = self
            .handle
            .block_on(async { tokio::time::timeout(SILENCE, status).await.map_err(|_| silent("the status of")) })?;
        match status {
            Some(status) if status.status.as_deref() == Some("Success") => Ok(()),
            Some(status) => {
                let mut problem = status.message.unwrap_or_else(|| "the command failed".to_owned());
                let errors = self.errors();
                if !errors.is_empty() {
                    problem = format!("{problem}: {errors}");
                }
                let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
                let code = causes
                    .iter()
                    .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
                    .and_then(|cause| cause.message.as_ref()?.parse().ok());
                Err(io::Error::other(Failed { code, problem }))
            }
            None => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the stream broke before the command's status arrived",
            )),
        }
    }
}

impl Read for Exec {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (stdout, silence) = (&mut self.stdout, self.silence);
        self.handle.block_on(async {
            tokio::time::timeout(silence, stdout.read(buffer)).await.map_err(|_| silent("reading from"))?
        })
    }
}
