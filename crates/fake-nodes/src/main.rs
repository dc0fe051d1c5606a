//! Stand-ins for Fabric's nodes, for tests on a real cluster: called as `peer`, `orderer` or `fabric-ca-server`, it reads the real data
//! of such a node, refuses to start where the real one does, writes similar log lines, and reports the heights of its own block files
//! under the names of the real metrics. It accepts connections but takes part in no network: no gossip, no consensus, no transactions.

mod authority;
mod ledgers;
mod operations;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ledgers::{Kind, Ledgers};

/// Returns a variable, or a default.
fn variable(name: &str, usual: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| usual.to_owned())
}

/// A line as Fabric's nodes write them.
pub(crate) fn log(level: &str, module: &str, text: &str) {
    eprintln!("{level} [{module}] {text}");
}

fn main() -> ExitCode {
    let called = std::env::args().next().unwrap_or_default();
    let name = called.rsplit('/').next().unwrap_or_default().to_owned();
    let result = match name.as_str() {
        "peer" => peer(),
        "orderer" => orderer(),
        "fabric-ca-server" => authority::run(),
        other => Err(format!("call it as peer, orderer or fabric-ca-server, not as {other}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log("panic", "main", &problem);
            ExitCode::from(2)
        }
    }
}

/// An MSP directory with a certificate and the key to it.
pub(crate) fn check_msp(msp: &Path) -> Result<(), String> {
    use fabkeep_ledger::certificate::{Certificate, public_key_of_private_pem};
    let read = |folder: &str| -> Result<Vec<Vec<u8>>, String> {
        let folder = msp.join(folder);
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // Mounted Secrets store their files behind links, in a hidden folder.
        Ok(entries.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok()).collect())
    };
    let keys: Vec<Vec<u8>> = read("keystore")?.iter().filter_map(|pem| public_key_of_private_pem(pem)).collect();
    let certificates: Vec<Certificate> =
        read("signcerts")?.iter().filter_map(|pem| Certificate::from_pem(pem).ok()).collect();
    let matching = certificates.iter().any(|certificate| keys.iter().any(|key| key == certificate.public_key()));
    if matching {
        Ok(())
    } else {
        Err(format!(
            "Cannot run peer because error when setting up MSP from directory {}: no key for its certificate",
            msp.display()
        ))
    }
}

fn check_tls(certificate: &str, key: &str) -> Result<(), String> {
    for path in [certificate, key] {
        std::fs::metadata(path).map_err(|error| format!("error loading TLS file {path}: {error}"))?;
    }
    Ok(())
}

fn peer() -> Result<(), String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().map(String::as_str) != Some("node") {
        return Err("only `peer node start` is stood in for".to_owned());
    }
    let data = PathBuf::from(variable("CORE_PEER_FILESYSTEMPATH", "/var/hyperledger/production"));
    check_msp(Path::new(&variable("CORE_PEER_MSPCONFIGPATH", "/etc/hyperledger/fabric/msp")))?;
    if variable("CORE_PEER_TLS_ENABLED", "false") == "true" {
        check_tls(&variable("CORE_PEER_TLS_CERT_FILE", ""), &variable("CORE_PEER_TLS_KEY_FILE", ""))?;
    }
    let mut ledgers = Ledgers::open(Kind::Peer, &data.join("ledgersData"), Path::new(""))?;
    log("info", "nodeCmd", &format!("Started peer with ID=[{}]", variable("CORE_PEER_ID", "peer")));
    operations::accept(&variable("CORE_PEER_LISTENADDRESS", "0.0.0.0:7051"))?;
    operations::serve(&variable("CORE_OPERATIONS_LISTENADDRESS", "127.0.0.1:9443"), &mut ledgers)
}

fn orderer() -> Result<(), String> {
    let ledger = PathBuf::from(variable("ORDERER_FILELEDGER_LOCATION", "/var/hyperledger/production/orderer"));
    let wal = variable("ORDERER_CONSENSUS_WALDIR", "/var/hyperledger/production/orderer/etcdraft/wal");
    check_msp(Path::new(&variable("ORDERER_GENERAL_LOCALMSPDIR", "/etc/hyperledger/fabric/msp")))?;
    if variable("ORDERER_GENERAL_TLS_ENABLED", "false") == "true" {
        check_tls(&variable("ORDERER_GENERAL_TLS_CERTIFICATE", ""), &variable("ORDERER_GENERAL_TLS_PRIVATEKEY", ""))?;
    }
    let mut ledgers = Ledgers::open(Kind::Orderer, &ledger, Path::new(&wal))?;
    log("info", "orderer.common.server", "Beginning to serve requests");
    operations::accept(&format!("0.0.0.0:{}", variable("ORDERER_GENERAL_LISTENPORT", "7050")))?;
    operations::serve(&variable("ORDERER_OPERATIONS_LISTENADDRESS", "127.0.0.1:8443"), &mut ledgers)
}
