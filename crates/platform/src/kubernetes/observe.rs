//! Queries nodes on a cluster: endpoints through the API server's port forwarding, commands and files by exec, logs from the API.

use std::time::Duration;

use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{DirectorySource, HeightSource, NodeId, Observation, Operations};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::Kubernetes;
use super::connection::exec::ContainerRef;
use super::connection::{Connection, chain, failed};
use super::discover::FoundNode;
use super::discover::workloads::LivePod;
use crate::host::health_word;
use crate::probe::{
    ProbeScope, answers, ask_participation, block_files, http, now_ms, take_heights, take_metrics, wants_files,
};
use crate::{Platform, PlatformError};

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Most of a log that is read, in bytes, and in lines from its end.
const MAX_LOG_BYTES: i64 = 16 << 20;
const MAX_LOG_LINES: i64 = 50_000;
/// Longest certificate or key file, in bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;
/// Longest output of `peer channel getinfo`.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// `peer channel getinfo` for each channel, with a line that names it before.
const GETINFO: &str =
    r#"for channel in "$@"; do echo "channel $channel"; peer channel getinfo -c "$channel" 2>&1; done"#;

/// GETs a path from a port of a pod; what is wrong otherwise.
pub(super) fn get(
    connection: &Connection,
    (namespace, pod, port): (&str, &str, u16),
    tls: Option<&http::Tls>,
    path: &str,
    any_status: bool,
) -> Result<String, String> {
    let question = async {
        let api: Api<Pod> = Api::namespaced(connection.client(), namespace);
        let mut forward = api.portforward(pod, &[port]).await.map_err(|error| chain(&error))?;
        let stream = forward.take_stream(port).ok_or("the port cannot be forwarded")?;
        http::get(stream, tls, path, any_status).await
    };
    connection.wait(async { tokio::time::timeout(ANSWER, question).await.map_err(|_| "no answer in time".to_owned())? })
}

impl Kubernetes {
    /// Returns the node's pod as it is now: it may have been replaced since the network was looked at.
    pub(super) fn pod_now(&self, found: &FoundNode) -> Result<Option<LivePod>, PlatformError> {
        let Some(known) = found.node.workload.as_ref() else { return Ok(None) };
        let pods = self.pods_of(&known.into(), false)?;
        Ok(match known.ordinal {
            Some(ordinal) => pods.into_iter().find(|pod| pod.name == format!("{}-{ordinal}", known.name)),
            None => {
                let ready = pods.iter().position(|pod| pod.ready).unwrap_or(0);
                pods.into_iter().nth(ready)
            }
        })
    }

    pub(super) fn ask(&self, node: &NodeId, asked: ProbeScope) -> Observation {
        let Ok((_, found)) = self.found(node) else {
            return Observation::new(node.clone(), fabkeep_ledger::layout::NodeRole::Files, false);
        };
        let mut out = Observation::new(node.clone(), found.node.role, false);
        let Some(workload) = found.node.workload.as_ref().filter(|_| out.has_ledger()) else {
            out.running = self.runs(found);
            return out;
        };
        let pod = match self.pod_now(found) {
            Ok(pod) => pod.filter(|pod| pod.running.contains(&workload.container)),
            Err(error) => {
                out.silent.push((HeightSource::Metrics, error.to_string()));
                None
            }
        };
        out.running = pod.is_some();
        if let Some(pod) = &pod {
            let at = |operations: Operations| (workload.namespace.as_str(), pod.name.as_str(), operations.port);
            if let Some(operations) = workload.operations {
                let tls = operations.tls.then(|| self.client_tls(found));
                let asked_ms = now_ms();
                match get(&self.connection, at(operations), tls.as_ref(), "/metrics", false) {
                    Ok(text) => take_metrics(&mut out, &answers::metrics(&text), asked_ms),
                    Err(problem) => out.silent.push((HeightSource::Metrics, problem)),
                }
                if asked.health {
                    let health = get(&self.connection, at(operations), tls.as_ref(), "/healthz", true);
                    out.health = health.ok().map(|text| health_word(&text));
                }
            }
            if let Some(participation) = workload.participation {
                let tls = participation.tls.then(|| self.client_tls(found));
                let ask = |path: &str| get(&self.connection, at(participation), tls.as_ref(), path, false);
                ask_participation(&ask, &mut out);
            }
            let reported = out.channels.values().any(|answer| !answer.readings.is_empty());
            if !reported && out.role == fabkeep_ledger::layout::NodeRole::Peer {
                let place = ContainerRef {
                    namespace: workload.namespace.clone(),
                    pod: pod.name.clone(),
                    container: workload.container.clone(),
                };
                self.ask_getinfo(found, &place, &mut out);
            }
        }
        if wants_files(asked, &out) {
            for directory in &found.node.directories {
                let ledger = matches!(directory.role, DirectoryRole::PeerData | DirectoryRole::OrdererLedger)
                    || !directory.nested.is_empty();
                if !ledger || directory.source == DirectorySource::Objects {
                    continue;
                }
                let asked_ms = now_ms();
                let reported = match self.volume(node, directory) {
                    Ok(Some(volume)) => block_files::heights(volume.as_ref(), directory),
                    Ok(None) => continue,
                    Err(error) => Err(error.to_string()),
                };
                take_heights(&mut out, HeightSource::BlockFiles, asked_ms, reported);
            }
        }
        out
    }

    /// `peer channel getinfo` in the peer's own container, with its own identity.
    fn ask_getinfo(&self, found: &FoundNode, place: &ContainerRef, out: &mut Observation) {
        let channels = self.chain_folders(found);
        if channels.is_empty() {
            return;
        }
        let names: Vec<&str> = channels.iter().map(String::as_str).collect();
        let asked_ms = now_ms();
        let reported = self
            .connection
            .output(place, GETINFO, &names, &[], MAX_OUTPUT_BYTES)
            .map_err(|error| error.to_string())
            .and_then(|output| {
                let text = String::from_utf8_lossy(&output).into_owned();
                let parts = text.split("channel ").skip(1).filter_map(|part| part.split_once('\n'));
                let reported: Vec<(String, u64)> = parts
                    .filter(|(channel, _)| channels.iter().any(|known| known == channel))
                    .filter_map(|(channel, said)| Some((channel.to_owned(), answers::getinfo(said).ok()?)))
                    .collect();
                if reported.is_empty() { Err("it reported no height".to_owned()) } else { Ok(reported) }
            });
        take_heights(out, HeightSource::GetInfo, asked_ms, reported);
    }

    /// Channels of which the node has a chain directory.
    fn chain_folders(&self, found: &FoundNode) -> Vec<String> {
        let mut out = Vec::new();
        for directory in found.node.directories.iter().filter(|known| known.role == DirectoryRole::PeerData) {
            let Ok(Some(volume)) = self.volume(&found.node.id, directory) else { continue };
            let Ok(entries) = volume.list("") else { continue };
            out.extend(entries.iter().filter_map(|entry| match directory.classify(&entry.path, false).kind {
                fabkeep_ledger::layout::Kind::BlockFile(channel) => Some(channel),
                _ => None,
            }));
        }
        out.sort();
        out.dedup();
        out
    }

    /// Returns the node's own TLS certificate and key, for endpoints that want a client's. The stream leads to the pod by the API server's
    /// word.
    fn client_tls(&self, found: &FoundNode) -> http::Tls {
        use fabkeep_ledger::certificate::{Certificate, is_private_key_pem, public_key_of_private_pem};
        use std::io::Read;
        let mut certificates: Vec<Vec<u8>> = Vec::new();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for directory in found.node.directories.iter().filter(|known| known.role == DirectoryRole::Tls) {
            let Ok(Some(volume)) = self.volume(&found.node.id, directory) else { continue };
            let Ok(entries) = volume.list("") else { continue };
            for entry in entries.iter().filter(|entry| entry.kind == crate::EntryKind::File) {
                let size = entry.stamp.size;
                if size > MAX_PEM_BYTES {
                    continue;
                }
                let mut bytes = Vec::new();
                let read = volume.open(&entry.path, 0..size).and_then(|file| file.take(size).read_to_end(&mut bytes));
                match read {
                    Ok(_) if is_private_key_pem(&bytes) => keys.push(bytes),
                    Ok(_) => certificates.push(bytes),
                    Err(_) => {}
                }
            }
        }
        let client = certificates.into_iter().find_map(|pem| {
            let certificate = Certificate::from_pem(&pem).ok()?;
            let key = keys
                .iter()
                .find(|key| public_key_of_private_pem(key).is_some_and(|public| public == certificate.public_key()))?;
            Some((pem, key.clone()))
        });
        http::Tls { roots: None, client, name: "localhost".to_owned() }
    }

    pub(super) fn read_log(&self, node: &NodeId, since: jiff::Timestamp) -> Result<Option<String>, PlatformError> {
        let (_, found) = self.found(node)?;
        let Some(workload) = found.node.workload.as_ref() else { return Ok(None) };
        let Some(pod) = self.pod_now(found)? else { return Ok(None) };
        let parameters = LogParams {
            container: Some(workload.container.clone()),
            since_time: k8s_openapi::jiff::Timestamp::from_second(since.as_second()).ok(),
            limit_bytes: Some(MAX_LOG_BYTES),
            tail_lines: Some(MAX_LOG_LINES),
            ..LogParams::default()
        };
        let read = self.connection.try_run(|client| {
            let api: Api<Pod> = Api::namespaced(client, &workload.namespace);
            let (name, parameters) = (pod.name.clone(), parameters.clone());
            async move { api.logs(&name, &parameters).await }
        });
        match read {
            Ok(text) => Ok(Some(text)),
            // A container that has not begun has no log.
            Err(kube::Error::Api(status)) if status.code == 400 || status.code == 404 => Ok(None),
            Err(error) => Err(failed(&format!("reading the log of {node}"), &error)),
        }
    }
}
