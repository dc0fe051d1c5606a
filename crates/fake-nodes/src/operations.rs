//! The operations endpoint: `/healthz` and `/metrics`, one short answer for each connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::ledgers::{Kind, Ledgers};
use crate::log;

/// Accepts connections where clients and other nodes call the node, and says nothing to them.
pub fn accept(address: &str) -> Result<(), String> {
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    std::thread::spawn(move || listener.incoming().for_each(drop));
    Ok(())
}

/// Serves until the process is stopped.
pub fn serve(address: &str, ledgers: &mut Ledgers) -> Result<(), String> {
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    log("info", "operations", &format!("serving at {address}"));
    for stream in listener.incoming().flatten() {
        // A client that went away is no concern of the node.
        let _ = answer(stream, ledgers);
    }
    Ok(())
}

fn answer(mut stream: TcpStream, ledgers: &mut Ledgers) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let body = match request.split(' ').nth(1) {
        Some("/metrics") => metrics(ledgers),
        _ => "{\"status\":\"OK\",\"time\":\"2026-01-01T00:00:00Z\"}\n".to_owned(),
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn metrics(ledgers: &mut Ledgers) -> String {
    let mut out = String::from("# TYPE ledger_blockchain_height gauge\n");
    for (channel, height) in ledgers.heights() {
        out.push_str(&format!("ledger_blockchain_height{{channel=\"{channel}\"}} {height}\n"));
        if ledgers.kind == Kind::Orderer {
            let committed = height.saturating_sub(1);
            out.push_str(&format!("consensus_etcdraft_committed_block_number{{channel=\"{channel}\"}} {committed}\n"));
            // There is no consensus between fake nodes: each leads alone.
            out.push_str(&format!("consensus_etcdraft_is_leader{{channel=\"{channel}\"}} 1\n"));
            out.push_str(&format!("participation_consensus_relation{{channel=\"{channel}\"}} 1\n"));
            out.push_str(&format!("participation_status{{channel=\"{channel}\"}} 1\n"));
        }
    }
    out
}
