//! A certificate authority: its certificate, the key to it, its database.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fabkeep_ledger::certificate::{Certificate, public_key_of_private_pem};

use crate::{log, variable};

/// How long a database server that begins together with its authority may take to listen.
const DATABASE_STARTS: Duration = Duration::from_secs(30);

pub fn run() -> Result<(), String> {
    let home = PathBuf::from(variable(
        "FABRIC_CA_SERVER_HOME",
        &variable("FABRIC_CA_HOME", "/etc/hyperledger/fabric-ca-server"),
    ));
    let certificate =
        PathBuf::from(variable("FABRIC_CA_SERVER_CA_CERTFILE", &home.join("ca-cert.pem").to_string_lossy()));
    let key = std::env::var("FABRIC_CA_SERVER_CA_KEYFILE").ok();
    check_key(&certificate, key.as_deref().map(Path::new), &home.join("msp/keystore"))?;
    match variable("FABRIC_CA_SERVER_DB_TYPE", "sqlite3").as_str() {
        "sqlite3" => {
            let database = home.join(variable("FABRIC_CA_SERVER_DB_DATASOURCE", "fabric-ca-server.db"));
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let users = rusqlite::Connection::open_with_flags(&database, flags)
                .and_then(|open| open.query_row("SELECT count(*) FROM users", [], |row| row.get::<_, i64>(0)));
            let users = users.map_err(|error| format!("Failed to open sqlite3 DB {}: {error}", database.display()))?;
            log("INFO", "ca", &format!("Initialized sqlite3 database at {}: {users} identities", database.display()));
        }
        _ => reach_database(&variable("FABRIC_CA_SERVER_DB_DATASOURCE", ""))?,
    }
    let address = format!("0.0.0.0:{}", variable("FABRIC_CA_SERVER_PORT", "7054"));
    let listener = TcpListener::bind(&address).map_err(|error| format!("{address}: {error}"))?;
    log("INFO", "ca", &format!("Listening on https://{address}"));
    for stream in listener.incoming().flatten() {
        // A client that went away is no concern of the node.
        let _ = answer(stream);
    }
    Ok(())
}

/// Tells about itself to everybody who asks, as the real server does.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = String::new();
    BufReader::new(stream.try_clone()?.take(4096)).read_line(&mut request)?;
    if !request.starts_with("GET /cainfo ") {
        return Ok(());
    }
    let body = r#"{"result":{"CAName":"","CAChain":"TFMw","Version":"1.5"},"errors":[],"messages":[],"success":true}"#;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// The real server makes a new root when its key is not there: that breaks every MSP (C5), so the fake node refuses.
fn check_key(certificate: &Path, key: Option<&Path>, keystore: &Path) -> Result<(), String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let certificate = Certificate::from_pem(&read(certificate)?).map_err(|error| error.to_string())?;
    let keys: Vec<Vec<u8>> = match key {
        Some(key) => vec![read(key)?],
        None => {
            let entries = std::fs::read_dir(keystore).map_err(|error| format!("{}: {error}", keystore.display()))?;
            entries.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok()).collect()
        }
    };
    let matching =
        keys.iter().filter_map(|key| public_key_of_private_pem(key)).any(|key| key == certificate.public_key());
    if matching { Ok(()) } else { Err("CA certificate and key do not match: a new root would be made".to_owned()) }
}

/// Waits for a database server to listen. The real server fails at once and is started again; a cluster pauses longer before every start.
fn reach_database(source: &str) -> Result<(), String> {
    let word = |name: &str| source.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let address = format!("{}:{}", word("host").unwrap_or("localhost"), word("port").unwrap_or("5432"));
    let begun = Instant::now();
    while begun.elapsed() < DATABASE_STARTS {
        let found = address.to_socket_addrs().ok().and_then(|mut all| all.next());
        if found.is_some_and(|found| TcpStream::connect_timeout(&found, Duration::from_secs(3)).is_ok()) {
            log("INFO", "ca", &format!("Initialized postgres database at {address}"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Err(format!("Failed to connect to database at {address}"))
}
