//! Port forwarding: the test answers GET requests.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio_tungstenite::tungstenite::Message;

use crate::call::Call;
use crate::cluster::{Cluster, Get};
use crate::exec::upgrade;
use crate::server::{Body, refused};
use crate::state::Refusal;

const DATA: u8 = 0;
const ERROR: u8 = 1;
/// How a TLS connection begins.
const TLS_HANDSHAKE: u8 = 22;

/// Begins to forward a port of a pod.
pub(crate) fn start(cluster: &Arc<Cluster>, call: &Call, request: Request<Incoming>) -> Response<Body> {
    if cluster.state().find("Pod", &call.namespace, &call.name).is_none() {
        return refused(&Refusal(404, "NotFound", format!("pods \"{}\" not found", call.name)));
    }
    let port: u16 =
        call.query.get("ports").and_then(|ports| ports.split(['\n', ',']).next()?.parse().ok()).unwrap_or(0);
    let (cluster, call) = (Arc::clone(cluster), call.clone());
    let protocols = ["v5.channel.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io"];
    upgrade(request, &protocols, move |mut socket| async move {
        for channel in [DATA, ERROR] {
            let [low, high] = port.to_le_bytes();
            let _ = socket.send(Message::Binary(vec![channel, low, high].into())).await;
        }
        let mut asked = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(bytes) = message else { continue };
            if bytes.first() != Some(&DATA) {
                continue;
            }
            asked.extend_from_slice(&bytes[1..]);
            if asked.first() == Some(&TLS_HANDSHAKE) {
                // Nothing here speaks TLS: a client that waits for an answer waits in vain.
                let mut whole = vec![ERROR];
                whole.extend_from_slice(b"connection refused");
                let _ = socket.send(Message::Binary(whole.into())).await;
                break;
            }
            if !asked.windows(4).any(|window| window == b"\r\n\r\n") {
                continue;
            }
            let head = String::from_utf8_lossy(&asked).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
            let get = Get { namespace: &call.namespace, pod: &call.name, port, path: &path };
            let asked = tokio::task::block_in_place(|| cluster.http_answer(&get));
            match asked {
                Some((code, body)) => {
                    let text = format!(
                        "HTTP/1.1 {code} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    let mut whole = vec![DATA];
                    whole.extend_from_slice(text.as_bytes());
                    let _ = socket.send(Message::Binary(whole.into())).await;
                }
                None => {
                    let mut whole = vec![ERROR];
                    whole.extend_from_slice(b"connection refused");
                    let _ = socket.send(Message::Binary(whole.into())).await;
                }
            }
            break;
        }
        let _ = socket.close(None).await;
    })
}
