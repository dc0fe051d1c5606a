//! Nodes asked over TLS with client certificates, by the participation API, by a command and by their block files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use fabkeep_network::{HeightSource, Observation, Participating, Relation};
use fabkeep_platform::{BlockFiles, ClientFiles, Host, InventoryNode, Platform, ProbeScope, discover};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// An orderer's endpoints as Fabric serves them: TLS, and a client certificate of the organization is wanted.
fn serve(tls: &Path) -> u16 {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls.join("ca.crt")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = CertificateDer::pem_file_iter(tls.join("server.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(tls.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Who comes without a certificate is turned away.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = vec![0; 4096];
                let Ok(read) = stream.read(&mut request).await else { continue };
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
                let response =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
    });
    port
}

fn answer(path: &str) -> (u16, &'static str) {
    match path {
        "/metrics" => (
            200,
            "ledger_blockchain_height{channel=\"mychannel\"} 27\nconsensus_etcdraft_is_leader{channel=\"mychannel\"} 1\n",
        ),
        "/healthz" => (
            503,
            r#"{"status":"Service Unavailable","time":"x","failed_checks":[{"component":"couchdb","reason":"connection refused"}]}"#,
        ),
        "/participation/v1/channels" => (200, r#"{"systemChannel":null,"channels":[{"name":"mychannel","url":"x"}]}"#),
        "/participation/v1/channels/mychannel" => {
            (200, r#"{"name":"mychannel","url":"x","consensusRelation":"follower","status":"onboarding","height":27}"#)
        }
        _ => (404, "no such path"),
    }
}

fn observe(folder: &Path, node: &str, block_files: BlockFiles, change: impl Fn(&mut InventoryNode)) -> Observation {
    let mut inventory = discover(&folder.join("network"), folder).unwrap().inventory;
    for organization in &mut inventory.organizations {
        for known in &mut organization.nodes {
            known.operations = None;
            known.participation = None;
            known.commands.status = Some("true".to_owned());
            if format!("{}/{}", organization.name, known.name) == node {
                change(known);
            }
        }
    }
    let host = Host::new(&inventory, folder).unwrap();
    let id = &host.network().nodes().find(|known| known.id.to_string() == node).unwrap().id;
    host.observe(id, ProbeScope { block_files, health: true })
}

fn heights(observation: &Observation) -> Vec<(HeightSource, u64)> {
    observation.channels["mychannel"].readings.iter().map(|reading| (reading.source, reading.height)).collect()
}

#[test]
fn an_orderer_is_asked_over_tls_with_its_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &folder.path().join("network")).unwrap();
    let tls = folder.path().join("network/OrdererOrg/orderer1/tls");
    let url = format!("https://127.0.0.1:{}", serve(&tls));
    let client = |ca: Option<&str>| ClientFiles {
        certificate: tls.join("server.crt").display().to_string(),
        key: tls.join("server.key").display().to_string(),
        ca: ca.map(|ca| tls.join(ca).display().to_string()),
    };
    for ca in [None, Some("ca.crt")] {
        let observation = observe(folder.path(), "OrdererOrg/orderer1", BlockFiles::Always, |node| {
            node.operations = Some(url.clone());
            node.participation = Some(url.clone());
            node.client = Some(client(ca));
        });
        assert!(observation.silent.is_empty(), "{:?}", observation.silent);
        let all = [HeightSource::Metrics, HeightSource::Participation, HeightSource::BlockFiles];
        assert_eq!(heights(&observation), all.map(|source| (source, 27)));
        let channel = &observation.channels["mychannel"];
        assert_eq!((channel.leads, channel.relation), (Some(true), Some(Relation::Follower)));
        assert_eq!(channel.participating, Some(Participating::Onboarding));
        assert_eq!(observation.health.as_deref(), Some("couchdb: connection refused"));
        assert!(fabkeep_network::contradictions(&observation).is_empty());
    }
    // Without a certificate, and with roots that do not vouch for the endpoint, nobody answers: and it is reported why.
    for (client, sign) in [(None, ""), (Some(client(Some("server.crt"))), "TLS")] {
        let observation = observe(folder.path(), "OrdererOrg/orderer1", BlockFiles::IfSilent, |node| {
            node.operations = Some(url.clone());
            node.client = client.clone();
        });
        let (source, problem) = &observation.silent[0];
        assert!(*source == HeightSource::Metrics && problem.contains(sign) && !problem.is_empty(), "{problem}");
        assert_eq!(heights(&observation), [(HeightSource::BlockFiles, 27)], "its block files answer for it");
    }
}

#[test]
fn a_peer_is_asked_by_the_operators_own_command() {
    let folder = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &folder.path().join("network")).unwrap();
    let observation = observe(folder.path(), "Org1/peer0", BlockFiles::IfSilent, |node| {
        let script = r#"[ {channel} = mychannel ] && n=27 || n=8; echo "Blockchain info: {\"height\":$n,\"currentBlockHash\":\"x\"}""#;
        node.commands.height = Some(script.to_owned());
    });
    assert_eq!(heights(&observation), [(HeightSource::GetInfo, 27)]);
    assert_eq!(observation.height("settlement"), Some(8));
    let observation = observe(folder.path(), "Org1/peer0", BlockFiles::IfSilent, |node| {
        node.commands.height = Some("echo 'Error: access denied' >&2; exit 1".to_owned());
    });
    assert!(observation.silent[0].1.contains("access denied"), "{:?}", observation.silent);
    assert_eq!(observation.height("mychannel"), Some(27), "its block files answer for it");
}

#[test]
fn an_address_that_is_none_is_refused_with_its_node() {
    let folder = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &folder.path().join("network")).unwrap();
    let mut inventory = discover(&folder.path().join("network"), folder.path()).unwrap().inventory;
    inventory.organizations[0].nodes[0].operations = Some("127.0.0.1:9443".to_owned());
    let error = Host::new(&inventory, folder.path()).err().unwrap().to_string();
    assert!(error.contains("OrdererOrg/orderer1") && error.contains("http://host:port"), "{error}");
}
