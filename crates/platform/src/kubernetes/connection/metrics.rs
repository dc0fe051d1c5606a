//! A node's operations endpoint, asked through the API server's port forwarding.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::Connection;

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest answer read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// What a node's metrics say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// `ledger_blockchain_height` by channel.
    pub heights: BTreeMap<String, u64>,
    /// `consensus_etcdraft_is_leader` by channel.
    pub leads: BTreeMap<String, bool>,
}

/// Asks a pod's port for `/metrics`; what is wrong otherwise.
pub(crate) fn ask(connection: &Connection, namespace: &str, pod: &str, port: u16) -> Result<Metrics, String> {
    let text = connection.wait(async {
        tokio::time::timeout(ANSWER, get(connection, namespace, pod, port, "/metrics"))
            .await
            .map_err(|_| "no answer in time".to_owned())?
    })?;
    Ok(parse(&text))
}

async fn get(connection: &Connection, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String, String> {
    let api: Api<Pod> = Api::namespaced(connection.client(), namespace);
    let mut forward = api.portforward(pod, &[port]).await.map_err(|error| super::chain(&error))?;
    let stream = forward.take_stream(port).ok_or("the port cannot be forwarded")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", "localhost")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
    driver.abort();
    if !status.is_success() {
        return Err(format!("HTTP status {status}"));
    }
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// Reads Prometheus' text form, as far as it is of interest here.
fn parse(text: &str) -> Metrics {
    let mut out = Metrics::default();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.split_once('}') else { continue };
        let channel = labels.split(',').find_map(|label| label.trim().strip_prefix("channel=\"")?.strip_suffix('"'));
        let (Some(channel), Ok(value)) = (channel, value.trim().parse::<f64>()) else { continue };
        match name {
            "ledger_blockchain_height" if value >= 0.0 => {
                out.heights.insert(channel.to_owned(), value as u64);
            }
            "consensus_etcdraft_is_leader" => {
                out.leads.insert(channel.to_owned(), value > 0.0);
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_read_as_fabric_writes_them() {
        let text = "# HELP ledger_blockchain_height Height of the chain in blocks.\n# TYPE ledger_blockchain_height gauge\n\
                    ledger_blockchain_height{channel=\"mychannel\"} 27\nledger_blockchain_height{channel=\"settlement\"} 1.2e+06\n\
                    consensus_etcdraft_is_leader{channel=\"mychannel\"} 1\ngo_goroutines 88\n";
        let metrics = parse(text);
        assert_eq!(metrics.heights["mychannel"], 27);
        assert_eq!(metrics.heights["settlement"], 1_200_000);
        assert!(metrics.leads["mychannel"]);
    }
}
