//! Queries nodes of this machine for heights, health and logs.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{HeightSource, NodeDirectory, NodeId, Observation};
use tokio::net::TcpStream;
use url::Url;

use super::{Host, HostVolume, Reach};
use crate::command::{self, Until};
use crate::probe::{
    BlockFiles, ProbeScope, answers, ask_participation, block_files, http, now_ms, take_heights, take_metrics,
    wants_files,
};
use crate::{NodeState, Platform, PlatformError};

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Most of a log that is read, in bytes.
const MAX_LOG_BYTES: u64 = 16 << 20;
/// Most of a failed command's error output that is shown, in characters.
const MAX_SHOWN: usize = 500;
/// Longest key or certificate file, in bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Returns an endpoint's address: `http` or `https`, a host, a port.
pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write it as http://host:port"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("write it as http://host:port or https://host:port".to_owned());
    }
    Ok(url)
}

fn read_pem(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    file.take(MAX_PEM_BYTES).read_to_end(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
    Ok(bytes)
}

/// GETs paths from an endpoint, one connection each.
fn get(reach: &Reach, url: &Url, path: &str, any_status: bool) -> Result<String, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let tls = match url.scheme() {
        "https" => {
            let client = match &reach.client {
                Some(client) => Some((read_pem(&client.certificate)?, read_pem(&client.key)?)),
                None => None,
            };
            let roots = reach.client.as_ref().and_then(|client| client.ca.as_deref()).map(read_pem).transpose()?;
            Some(http::Tls { roots, client, name: host.clone() })
        }
        _ => None,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let question = async {
            let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
            http::get(stream, tls.as_ref(), path, any_status).await
        };
        tokio::time::timeout(ANSWER, question).await.map_err(|_| "no answer in time".to_owned())?
    })
}

impl Host {
    pub(super) fn ask(&self, node: &NodeId, asked: ProbeScope) -> Observation {
        let known = self.network.node(node);
        let role = known.map_or(NodeRole::Files, |known| known.role);
        let nobody = self.nodes.get(node).is_none_or(|reach| {
            reach.operations.is_none() && reach.participation.is_none() && reach.commands.height.is_none()
        });
        if nobody && asked.block_files == BlockFiles::Never && !asked.health {
            return Observation::new(node.clone(), role, false);
        }
        let running = self.state(node).is_ok_and(|state| state == NodeState::Running);
        let mut out = Observation::new(node.clone(), role, running);
        let (Some(known), Some(reach)) = (known, self.nodes.get(node)) else { return out };
        if !out.has_ledger() {
            return out;
        }
        let asked_ms = now_ms();
        match reach.operations.as_ref().map(|url| get(reach, url, "/metrics", false)) {
            Some(Ok(text)) => {
                // An endpoint that answers belongs to a process that runs, whatever the locks say.
                out.running = true;
                take_metrics(&mut out, &answers::metrics(&text), asked_ms);
            }
            Some(Err(problem)) if running => out.silent.push((HeightSource::Metrics, problem)),
            Some(Err(_)) | None => {}
        }
        if out.running && asked.health {
            let health = reach.operations.as_ref().and_then(|url| get(reach, url, "/healthz", true).ok());
            out.health = health.map(|text| health_word(&text));
        }
        if let Some(url) = reach.participation.as_ref().filter(|_| out.running) {
            ask_participation(&|path| get(reach, url, path, false), &mut out);
        }
        let folders = || channels(known.directories.iter());
        if let Some(command) = reach.commands.height.as_ref().filter(|_| out.running) {
            let asked_ms = now_ms();
            let reported: Result<Vec<_>, String> = folders()
                .into_iter()
                .map(|channel| {
                    let output = self.output(&command.replace("{channel}", &channel))?;
                    Ok((channel, answers::getinfo(&output)?))
                })
                .collect();
            take_heights(&mut out, HeightSource::GetInfo, asked_ms, reported);
        }
        if wants_files(asked, &out) {
            for directory in &known.directories {
                let path = Path::new(&directory.path);
                if !path.is_dir() {
                    continue;
                }
                let asked_ms = now_ms();
                let reported = block_files::heights(&HostVolume::new(path.to_path_buf()), directory);
                take_heights(&mut out, HeightSource::BlockFiles, asked_ms, reported);
            }
        }
        out
    }

    /// Returns what a command prints.
    fn output(&self, command: &str) -> Result<String, String> {
        let ran = command::run(command, Until::ITS_END).map_err(|error| error.to_string())?;
        if ran.is_success() { Ok(ran.printed) } else { Err(ran.problem(MAX_SHOWN)) }
    }

    pub(super) fn read_log(&self, node: &NodeId, since: jiff::Timestamp) -> Result<Option<String>, PlatformError> {
        let Some(reach) = self.nodes.get(node) else { return Ok(None) };
        if let Some(command) = &reach.commands.log {
            let output = self.output(&command.replace("{since}", &since.to_string()));
            return output.map(Some).map_err(|problem| PlatformError::Command {
                node: node.to_string(),
                which: "log",
                problem,
            });
        }
        let Some(path) = &reach.log else { return Ok(None) };
        let io = |source| PlatformError::Io { path: path.display().to_string(), source };
        let mut file = std::fs::File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(MAX_LOG_BYTES))).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(MAX_LOG_BYTES).read_to_end(&mut bytes).map_err(io)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// `/healthz`' answer in a word: `OK`, or what fails.
pub(crate) fn health_word(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Failed {
        component: String,
        #[serde(default)]
        reason: String,
    }
    #[derive(serde::Deserialize)]
    struct Health {
        status: String,
        #[serde(default)]
        failed_checks: Vec<Failed>,
    }
    match serde_json::from_str::<Health>(text) {
        Ok(health) if health.failed_checks.is_empty() => health.status,
        Ok(health) => {
            let failed: Vec<String> =
                health.failed_checks.iter().map(|failed| format!("{}: {}", failed.component, failed.reason)).collect();
            failed.join("; ")
        }
        Err(_) => "an answer of another form".to_owned(),
    }
}

/// Channels of which a node has a chain directory.
fn channels<'a>(directories: impl Iterator<Item = &'a NodeDirectory>) -> Vec<String> {
    use fabkeep_ledger::layout::Kind;
    let mut out = Vec::new();
    for directory in directories {
        let path = Path::new(&directory.path);
        let Ok(entries) = crate::Volume::list(&HostVolume::new(path.to_path_buf()), "") else { continue };
        out.extend(entries.iter().filter_map(|entry| match directory.classify(&entry.path, false).kind {
            Kind::BlockFile(channel) => Some(channel),
            _ => None,
        }));
    }
    out.sort();
    out.dedup();
    out
}
