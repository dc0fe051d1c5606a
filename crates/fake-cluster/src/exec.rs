//! Commands in containers, over WebSocket (protocols v5 and v4): run as processes of this machine in the container's folders.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::call::{Answer, Call};
use crate::cluster::Cluster;
use crate::folders::Container;
use crate::server::{Body, body, refused};
use crate::state::{Refusal, text};

/// Bytes of one frame: as the kubelet sends them.
const FRAME_BYTES: usize = 32 << 10;
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Closes one channel, in v5.
const CLOSE: u8 = 255;

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Takes a connection over as a WebSocket. `protocols`: those that are spoken, the best first; `serve` gets the socket.
pub(crate) fn upgrade<F>(
    mut request: Request<Incoming>,
    protocols: &[&'static str],
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let asked = header("sec-websocket-protocol").to_owned();
    let key = derive_accept_key(header("sec-websocket-key").as_bytes());
    let protocol = protocols.iter().find(|known| asked.split(',').any(|name| name.trim() == **known));
    let (Some(protocol), Ok(key)) = (protocol, HeaderValue::from_str(&key)) else {
        return refused(&Refusal(400, "BadRequest", "no protocol is spoken by both".to_owned()));
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            serve(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
        }
    });
    let mut response = Response::new(body(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    headers.insert("sec-websocket-accept", key);
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    response
}

/// Begins a command in a container.
pub(crate) fn start(cluster: &Arc<Cluster>, call: &Call, request: Request<Incoming>, answer: Answer) -> Response<Body> {
    let (container, spec) = {
        let state = cluster.state();
        let Some(pod) = state.find("Pod", &call.namespace, &call.name) else {
            return refused(&Refusal(404, "NotFound", format!("pods \"{}\" not found", call.name)));
        };
        let wanted = call.query.get("container").map(String::as_str).unwrap_or_default();
        let both = ["/spec/containers", "/spec/initContainers"].into_iter();
        let mut all = both.filter_map(|list| pod.pointer(list)?.as_array()).flatten();
        let Some(spec) = all.find(|container| wanted.is_empty() || text(container, "/name") == wanted) else {
            return refused(&Refusal(
                400,
                "BadRequest",
                format!("container {wanted} is not valid for pod {}", call.name),
            ));
        };
        if text(pod, "/status/phase") != "Running" {
            return refused(&Refusal(400, "BadRequest", format!("pod {} does not run", call.name)));
        }
        (Container::of(&state, pod, spec), spec.clone())
    };
    let protocols: &[&'static str] =
        if cluster.only_v4() { &["v4.channel.k8s.io"] } else { &["v5.channel.k8s.io", "v4.channel.k8s.io"] };
    let stdin = call.query.get("stdin").is_some_and(|value| value == "true");
    let (cluster, call) = (Arc::clone(cluster), call.clone());
    upgrade(request, protocols, move |socket| async move {
        let (sink, source) = socket.split();
        match cluster.spawn(&call, &container, text(&spec, "/image")) {
            Ok(running) => run(running, sink, source, container, stdin, reads_commands(&call.command), answer).await,
            Err(problem) => {
                let mut sink = sink;
                let status = json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                    "message": format!("error executing command in container: {problem}")});
                let _ = sink.send(frame(STATUS, status.to_string().as_bytes())).await;
                let _ = sink.close().await;
            }
        }
    })
}

/// Returns whether a script reads lines that it runs: then paths in its input are the container's.
fn reads_commands(command: &[String]) -> bool {
    command.get(2).is_some_and(|script| script.contains("eval "))
}

/// A process with its pipes.
struct Running {
    child: Arc<Mutex<Child>>,
    stdin: ChildStdin,
    stdout: std::process::ChildStdout,
    stderr: std::process::ChildStderr,
}

impl Cluster {
    /// Starts a process for a command in a container.
    fn spawn(&self, call: &Call, container: &Container, image: &str) -> Result<Running, String> {
        let program = call.command.first().map(String::as_str).unwrap_or_default();
        if self.has_no_shell(image) {
            return Err(format!("exec: \"{program}\": executable file not found in $PATH: unknown"));
        }
        let script = call.command.get(1).is_some_and(|word| word == "-c");
        let words = call.command.iter().enumerate().map(|(at, word)| {
            // A script stays as it is; what it is given is the container's.
            if at == 0 || (script && at == 2) { word.clone() } else { container.word(word) }
        });
        let words: Vec<String> = words.collect();
        let found = self
            .search_path()
            .split(':')
            .map(|folder| format!("{folder}/{program}"))
            .find(|path| std::path::Path::new(path).is_file());
        let found = found.ok_or(format!("exec: \"{program}\": executable file not found in $PATH: unknown"))?;
        let mut command = Command::new(found);
        command.args(&words[1..]).current_dir(self.folder());
        command.env("PATH", self.search_path()).env("FAKE_POD", &call.name).env("FAKE_NAMESPACE", &call.namespace);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err("a process without pipes".to_owned()) };
        let child = Arc::new(Mutex::new(child));
        self.keep_process(Arc::clone(&child));
        Ok(Running { child, stdin, stdout, stderr })
    }
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut whole = Vec::with_capacity(bytes.len() + 1);
    whole.push(channel);
    whole.extend_from_slice(bytes);
    Message::Binary(whole.into())
}

/// Carries a command's streams until it ends or the stream breaks. Then its pipes are closed; it is not killed, as no kubelet does.
async fn run(
    running: Running,
    mut sink: SplitSink<Socket, Message>,
    source: SplitStream<Socket>,
    container: Container,
    stdin: bool,
    lines: bool,
    answer: Answer,
) {
    let (sender, mut receiver) = mpsc::channel::<Message>(4);
    let (output, input) = match answer {
        Answer::CutOutput(bytes) => (Some(bytes), None),
        Answer::CutInput(bytes) => (None, Some(bytes)),
        _ => (None, None),
    };
    let Running { child, stdin: to, stdout, stderr } = running;
    let (out_sender, errors_sender) = (sender.clone(), sender.clone());
    let out = spawn_blocking(move || pump(stdout, STDOUT, &out_sender, output));
    let errors = spawn_blocking(move || pump(stderr, STDERR, &errors_sender, None));
    let (writer, written) = mpsc::channel::<Vec<u8>>(4);
    if stdin {
        spawn_blocking(move || write_all(to, written));
    } else {
        drop(to);
    }
    let mut feeding = tokio::spawn(feed(source, writer, container, lines, input, sender));
    let ended = async {
        let whole = out.await.unwrap_or(false);
        let _ = errors.await;
        if whole { Some(status(&child).await) } else { None }
    };
    tokio::pin!(ended);
    let status = loop {
        tokio::select! {
            Some(message) = receiver.recv() => {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            status = &mut ended => break status,
            // The client is gone, or the stream is cut.
            _ = &mut feeding => return,
        }
    };
    while let Ok(message) = receiver.try_recv() {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    // Cut: the connection is dropped as it is.
    let Some(status) = status else {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return;
    };
    if answer != Answer::LoseStatus {
        let _ = sink.send(frame(STATUS, status_of(status).to_string().as_bytes())).await;
    }
    let _ = sink.close().await;
    // The other side closes too, or goes.
    let _ = tokio::time::timeout(Duration::from_secs(2), feeding).await;
}

/// Waits for a process whose output has ended.
async fn status(child: &Mutex<Child>) -> std::process::ExitStatus {
    loop {
        let ended = child.lock().try_wait();
        match ended {
            Ok(Some(status)) => return status,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn status_of(status: std::process::ExitStatus) -> Value {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

/// Sends what a pipe gives; whether it came to its end.
fn pump(mut from: impl Read, channel: u8, to: &mpsc::Sender<Message>, cut: Option<u64>) -> bool {
    let mut left = cut.unwrap_or(u64::MAX);
    let mut buffer = vec![0; FRAME_BYTES];
    loop {
        let Ok(read) = from.read(&mut buffer) else { return true };
        if read == 0 {
            return true;
        }
        let sent = usize::try_from(left).unwrap_or(usize::MAX).min(read);
        left -= sent as u64;
        if sent > 0 && to.blocking_send(frame(channel, &buffer[..sent])).is_err() {
            return false;
        }
        if left == 0 {
            return false;
        }
    }
}

/// Writes to a process until nothing more comes. One that does not read any more says why by its status.
fn write_all(mut to: ChildStdin, mut from: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = from.blocking_recv() {
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Takes what the client sends; ends when the client closes the stream, or where it is cut.
async fn feed(
    mut from: SplitStream<Socket>,
    to: mpsc::Sender<Vec<u8>>,
    container: Container,
    lines: bool,
    cut: Option<u64>,
    replies: mpsc::Sender<Message>,
) {
    let mut left = cut.unwrap_or(u64::MAX);
    let mut held: Vec<u8> = Vec::new();
    let mut to = Some(to);
    while let Some(Ok(message)) = from.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            Message::Ping(bytes) => {
                let _ = replies.send(Message::Pong(bytes)).await;
                continue;
            }
            _ => continue,
        };
        match (bytes.first(), &mut to) {
            (Some(&CLOSE), _) if bytes.get(1) == Some(&STDIN) => to = None,
            (Some(&STDIN), Some(writer)) => {
                let bytes = &bytes[1..];
                if bytes.len() as u64 > left {
                    return;
                }
                left -= bytes.len() as u64;
                let mut out = Vec::new();
                if lines {
                    held.extend_from_slice(bytes);
                    let whole = held.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                    for line in held[..whole].split_inclusive(|&byte| byte == b'\n') {
                        out.extend(container.line(line));
                    }
                    held.drain(..whole);
                } else {
                    out.extend_from_slice(bytes);
                }
                let _ = writer.send(out).await;
            }
            _ => {}
        }
    }
}
