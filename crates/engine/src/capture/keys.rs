//! Certificates and keys of a node: what each certificate is for, and where its private key is (I5).

use std::collections::HashMap;
use std::io::Read;

use fabkeep_ledger::certificate::{
    Certificate, CertificateSummary, MAX_PEM_BYTES, is_private_key_pem, public_key_of_private_pem,
};
use fabkeep_ledger::layout::{DirectoryRole, Kind, NodeRole};
use fabkeep_network::{Finding, KeyFacts, KeyPurpose, Node, NodeDirectory, Rule};
use fabkeep_platform::Platform;

use super::survey::PlannedNode;

/// Reads every certificate and key of a node. Keys are matched by public key: file names say nothing certain.
pub(crate) fn collect(node: &PlannedNode, found: &dyn Fn(Finding)) -> Vec<KeyFacts> {
    let mut private: HashMap<Vec<u8>, String> = HashMap::new();
    let mut certificates: Vec<(String, KeyPurpose, Option<Certificate>)> = Vec::new();
    for directory in &node.directories {
        let role = directory.directory.role;
        let wanted: Vec<(&str, u64)> = directory
            .files(false)
            .filter(|(entry, place)| {
                let (_, part, path) = directory.directory.part(&entry.path);
                place.kind == Kind::Plain && entry.stamp.size <= MAX_PEM_BYTES && may_be_pem(part, path)
            })
            .map(|(entry, _)| (entry.path.as_str(), entry.stamp.size))
            .collect();
        // What cannot be read gets its finding below.
        let _ = directory.volume.prefetch(&wanted);
        for (entry, place) in directory.files(false) {
            let (_, part, inside) = directory.directory.part(&entry.path);
            if place.kind != Kind::Plain || entry.stamp.size > MAX_PEM_BYTES || !may_be_pem(part, inside) {
                continue;
            }
            let label = format!("{role}/{}", entry.path);
            let (volume, path) = directory.source(&entry.path);
            let mut bytes = Vec::new();
            let read = volume
                .open(path, 0..entry.stamp.size)
                .and_then(|file| file.take(MAX_PEM_BYTES).read_to_end(&mut bytes));
            if let Err(error) = read {
                found(Finding::error(
                    Rule::FileReadable,
                    format!("{} {label}", node.node.id),
                    error.to_string(),
                    "make it readable for the user that runs fabkeep, or leave the node out (--exclude)",
                ));
                continue;
            }
            if is_private_key_pem(&bytes) {
                if let Some(public) = public_key_of_private_pem(&bytes) {
                    private.insert(public, label);
                }
                continue;
            }
            let purpose = purpose(node.node.role, part, inside);
            match Certificate::from_pem(&bytes) {
                Ok(certificate) => certificates.push((label, purpose, Some(certificate))),
                Err(_) if purpose != KeyPurpose::Trusted => certificates.push((label, purpose, None)),
                Err(_) => {}
            }
        }
    }
    certificates
        .into_iter()
        .map(|(path, purpose, certificate)| KeyFacts {
            path,
            purpose,
            key: certificate.as_ref().and_then(|certificate| private.get(certificate.public_key()).cloned()),
            certificate: certificate.map(|certificate| certificate.summary()),
        })
        .collect()
}

fn may_be_pem(role: DirectoryRole, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match role {
        DirectoryRole::Msp | DirectoryRole::Tls => true,
        _ => {
            let in_msp = path.contains("msp/") || path.contains("tls/") || path.contains("keystore/");
            in_msp || [".pem", ".crt", ".key", "_sk"].iter().any(|end| name.ends_with(end))
        }
    }
}

/// What a certificate is for, by its place.
fn purpose(node: NodeRole, role: DirectoryRole, path: &str) -> KeyPurpose {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = folder.rsplit('/').next().unwrap_or(folder);
    match (node, role) {
        (NodeRole::Files, _) => KeyPurpose::Trusted,
        (_, DirectoryRole::Msp) if folder == "signcerts" => KeyPurpose::Enrolment,
        (_, DirectoryRole::Tls) if matches!(name, "server.crt" | "tls.crt" | "cert.pem") => KeyPurpose::Tls,
        (NodeRole::CertificateAuthority, DirectoryRole::CaHome) if path == "ca-cert.pem" => KeyPurpose::Authority,
        (NodeRole::CertificateAuthority, DirectoryRole::CaHome) if path == "tls-cert.pem" => KeyPurpose::Tls,
        _ => KeyPurpose::Trusted,
    }
}

/// The certificates of a node's directories, as they are now: path and face. What cannot be read is left out: this is a look, no capture.
pub(crate) fn certificates_of(
    platform: &dyn Platform,
    node: &Node,
    wanted: impl Fn(&NodeDirectory) -> bool,
) -> Vec<(String, CertificateSummary)> {
    let mut out = Vec::new();
    for directory in node.directories.iter().filter(|directory| wanted(directory)) {
        let Ok(Some(volume)) = platform.volume(&node.id, directory) else { continue };
        let Ok(entries) = volume.list("") else { continue };
        for entry in entries.iter().filter(|entry| entry.stamp.size <= MAX_PEM_BYTES) {
            let (_, part, inside) = directory.part(&entry.path);
            let file = entry.kind == fabkeep_platform::EntryKind::File;
            if !file || !may_be_pem(part, inside) || purpose(node.role, part, inside) == KeyPurpose::Trusted {
                continue;
            }
            let mut bytes = Vec::new();
            let read = volume
                .open(&entry.path, 0..entry.stamp.size)
                .and_then(|file| file.take(MAX_PEM_BYTES).read_to_end(&mut bytes));
            if let (Ok(_), Ok(certificate)) = (read, Certificate::from_pem(&bytes)) {
                out.push((format!("{part}/{}", entry.path), certificate.summary()));
            }
        }
    }
    out
}
