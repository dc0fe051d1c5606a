//! Something between the command and the API server that can fail: it cuts every stream, and is away for a while, as a server that is
//! restarted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;

/// What happens when so many bytes have passed.
type Event = (u64, Box<dyn FnOnce() + Send>);

#[derive(Default)]
struct State {
    streams: Mutex<Vec<TcpStream>>,
    passed: Mutex<(u64, Vec<Event>)>,
    away_until: Mutex<Option<Instant>>,
    stop: AtomicBool,
}

impl State {
    fn is_away(&self) -> bool {
        self.away_until.lock().unwrap().is_some_and(|until| Instant::now() < until)
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn count(&self, bytes: usize) {
        let due = {
            let mut passed = self.passed.lock().unwrap();
            passed.0 += bytes as u64;
            let now = passed.0;
            let (due, later) = std::mem::take(&mut passed.1).into_iter().partition(|(at, _)| *at <= now);
            passed.1 = later;
            due
        };
        let due: Vec<Event> = due;
        due.into_iter().for_each(|(_, event)| event());
    }
}

pub struct Proxy {
    state: Arc<State>,
    kubeconfig: tempfile::NamedTempFile,
}

impl Proxy {
    /// In front of a cluster's API server.
    pub fn new(cluster: &Cluster) -> Proxy {
        let mut config = cluster.json(&["config", "view", "--raw", "--minify"]);
        let settings = config.pointer_mut("/clusters/0/cluster").unwrap();
        let server = settings["server"].as_str().unwrap().split_once("https://").unwrap().1.trim_end_matches('/');
        let server = if server.contains(':') { server.to_owned() } else { format!("{server}:443") };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        settings["server"] = format!("https://{}", listener.local_addr().unwrap()).into();
        settings["tls-server-name"] = server.rsplit_once(':').unwrap().0.into();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(client) = client else { continue };
                if shared.is_away() {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let mut streams = shared.streams.lock().unwrap();
                streams.extend([client.try_clone().unwrap(), upstream.try_clone().unwrap()]);
                drop(streams);
                for (from, to) in [(client.try_clone(), upstream.try_clone()), (Ok(upstream), Ok(client))] {
                    let shared = Arc::clone(&shared);
                    let (from, to) = (from.unwrap(), to.unwrap());
                    std::thread::spawn(move || pass(from, to, &shared));
                }
            }
        });
        Proxy { state, kubeconfig: file }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.path().to_owned()
    }

    /// Does something once so many bytes have passed from now on.
    pub fn after(&self, bytes: u64, event: impl FnOnce() + Send + 'static) {
        let mut passed = self.state.passed.lock().unwrap();
        let at = passed.0 + bytes;
        passed.1.push((at, Box::new(event)));
    }

    /// Cuts every stream once so many bytes have passed, and answers nobody for a while.
    pub fn away_after(&self, bytes: u64, time: Duration) {
        let state = Arc::clone(&self.state);
        self.after(bytes, move || {
            *state.away_until.lock().unwrap() = Some(Instant::now() + time);
            state.cut();
        });
    }

    /// Events that have not happened.
    pub fn pending(&self) -> usize {
        self.state.passed.lock().unwrap().1.len()
    }

    /// Forgets events that have not happened.
    pub fn forget(&self) {
        self.state.passed.lock().unwrap().1.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        self.state.cut();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(read) if read > 0 => {
                state.count(read);
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
