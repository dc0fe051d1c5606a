//! Certificates and keys of a node: the purpose of each certificate, and the location of its private key (I5).

use std::collections::{HashMap, HashSet};
use std::io::Read;

use fabkeep_ledger::certificate::{
    Certificate, CertificateSummary, MAX_PEM_BYTES, PrivateKey, first_pem_block, private_keys,
};
use fabkeep_ledger::layout::{DirectoryRole, Kind, NodeRole};
use fabkeep_network::{Finding, KeyFacts, KeyPurpose, Node, NodeDirectory, NodeId, OrLeaveOut, Rule};
use fabkeep_platform::{EntryKind, Platform, VolumeEntry};

use super::key_store::{KeyFile, KeyStores, Unread};
use super::settings;
use super::survey::PlannedNode;
use crate::located::{Located, locate_all, locate_folders};

/// What a node's configuration says of its certificates and keys, and where they are in its directories.
#[derive(Default)]
struct ConfiguredKeys {
    purposes: HashMap<Located, KeyPurpose>,
    /// Key files, by the certificate that they belong to.
    keys: HashMap<Located, Located>,
    /// Tokens that hold keys instead of files, by purpose of the certificate.
    tokens: Vec<(KeyPurpose, String)>,
    /// The folders of the key stores.
    stores: KeyStores,
    /// The configuration says where the TLS certificate is.
    tls: bool,
    /// A TLS certificate that the configuration names and that is in none of the directories.
    missing_tls: Option<String>,
}

impl ConfiguredKeys {
    fn of(node: &PlannedNode) -> ConfiguredKeys {
        let mut out = ConfiguredKeys::default();
        let directories: Vec<&NodeDirectory> = node.directories.iter().map(|directory| &directory.directory).collect();
        let exists = |at: &Located| {
            let entries = node.directories.get(at.0).map(|directory| &directory.entries);
            entries.is_some_and(|entries| {
                entries.iter().any(|(entry, _)| entry.path == at.1 && entry.kind == EntryKind::File)
            })
        };
        let mut pair = |base: (usize, &str), certificate: &str, key: Option<&str>, purpose: KeyPurpose| {
            let at = |named: &str| locate_all(&directories, base, named).into_iter().find(|at| exists(at));
            let found = at(certificate)?;
            if let Some(key) = key.and_then(at) {
                out.keys.insert(found.clone(), key);
            }
            out.purposes.insert(found, purpose);
            Some(())
        };
        if node.node.role == NodeRole::CertificateAuthority {
            let mut tokens = Vec::new();
            let mut stores = Vec::new();
            for home in settings::surveyed_homes(node) {
                let base = (home.directory, home.at.as_str());
                let config = &home.config;
                if config.key_store.is_none() {
                    stores.push((home.directory, home.inside("msp/keystore")));
                }
                pair(base, &config.certificate, config.key.as_deref(), KeyPurpose::Authority);
                pair(base, &config.tls_certificate, config.tls_key.as_deref(), KeyPurpose::Tls);
                if let Some(token) = config.bccsp.token() {
                    tokens.push((KeyPurpose::Authority, token.clone()));
                    if config.tls_key.is_none() {
                        tokens.push((KeyPurpose::Tls, token));
                    }
                }
            }
            out.tokens = tokens;
            out.stores = KeyStores::Folders(stores);
            return out;
        }
        let (config, file) = settings::node_settings(node);
        let base = file
            .as_ref()
            .map_or((0, ""), |(position, path)| (*position, path.rsplit_once('/').map_or("", |(folder, _)| folder)));
        // Without the file, where relative paths begin is not known.
        let known = |named: &str| file.is_some() || named.starts_with('/');
        let tls = &config.tls;
        let mut missing = None;
        let mut named_tls = false;
        if tls.enabled != Some(false)
            && let Some(certificate) = tls.certificate.as_deref().filter(|named| known(named))
        {
            named_tls = pair(base, certificate, tls.key.as_deref(), KeyPurpose::Tls).is_some();
            if !named_tls && tls.enabled == Some(true) {
                missing = Some(certificate.to_owned());
            }
        }
        if let Some((certificate, key)) = tls.client.as_ref().filter(|(named, _)| known(named)) {
            pair(base, certificate, Some(key.as_str()), KeyPurpose::Tls);
        }
        let not_read = config.keystore.as_deref().filter(|named| known(named));
        let not_read = not_read.map(|named| locate_folders(&directories, base, named)).unwrap_or_default();
        out.stores = KeyStores::BesideCertificate { not_read };
        out.tls = named_tls;
        out.missing_tls = missing;
        out.tokens = config.bccsp.token().map(|token| (KeyPurpose::Enrolment, token)).into_iter().collect();
        out
    }

    fn purpose(&self, node: NodeRole, at: &Located, role: DirectoryRole, inside: &str) -> KeyPurpose {
        if let Some(named) = self.purposes.get(at) {
            return *named;
        }
        match purpose(node, role, inside) {
            // The configuration names others.
            KeyPurpose::Tls if self.tls => KeyPurpose::Trusted,
            KeyPurpose::Authority | KeyPurpose::Tls if role == DirectoryRole::CaHome => KeyPurpose::Trusted,
            other => other,
        }
    }

    fn is_named(&self, at: &Located) -> bool {
        self.purposes.contains_key(at) || self.keys.values().any(|key| key == at)
    }
}

/// A certificate that was read.
struct CertificateFile {
    at: Located,
    label: String,
    purpose: KeyPurpose,
    /// `None` when it cannot be read.
    certificate: Option<Certificate>,
}

/// Reads every certificate and key of a node. Keys are matched by public key: file names say nothing certain.
pub(crate) fn collect(node: &PlannedNode, found: &dyn Fn(Finding)) -> Vec<KeyFacts> {
    let named = ConfiguredKeys::of(node);
    let mut private: HashMap<Vec<u8>, Vec<KeyFile>> = HashMap::new();
    let mut by_file: HashMap<Located, Vec<Vec<u8>>> = HashMap::new();
    // Keys that are there and say nothing: encrypted, damaged, of other algorithms.
    let mut odd: Vec<(Located, String, PrivateKey)> = Vec::new();
    let mut certificates: Vec<CertificateFile> = Vec::new();
    let mut signing: HashSet<(usize, String)> = HashSet::new();
    for (position, directory) in node.directories.iter().enumerate() {
        let role = directory.directory.role;
        let is_wanted = |entry: &VolumeEntry, kind: &Kind| {
            let (_, part, path) = directory.directory.part(&entry.path);
            let named = || named.is_named(&(position, entry.path.clone()));
            *kind == Kind::Plain && entry.stamp.size <= MAX_PEM_BYTES && (may_be_pem(part, path) || named())
        };
        let wanted: Vec<(&str, u64)> = directory
            .files(false)
            .filter(|(entry, place)| is_wanted(entry, &place.kind))
            .map(|(entry, _)| (entry.path.as_str(), entry.stamp.size))
            .collect();
        // What cannot be read gets its finding below.
        let _ = directory.volume.prefetch(&wanted);
        for (entry, place) in directory.files(false) {
            if !is_wanted(entry, &place.kind) {
                continue;
            }
            let (_, part, inside) = directory.directory.part(&entry.path);
            let at = (position, entry.path.clone());
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
                    OrLeaveOut("make it readable for the user who runs fabkeep"),
                ));
                continue;
            }
            let keys = private_keys(&bytes);
            let is_key = !keys.is_empty();
            // The keys of a CA's idemix issuer belong to no certificate.
            let of_issuer = entry.path.rsplit('/').next().is_some_and(|name| name.starts_with("Issuer"));
            for (number, key) in keys.into_iter().enumerate() {
                match key {
                    PrivateKey::Understood(public) => {
                        let size = entry.stamp.size;
                        let file = KeyFile::new(at.clone(), label.clone(), size, &bytes, number);
                        private.entry(public.clone()).or_default().push(file);
                        by_file.entry(at.clone()).or_default().push(public);
                    }
                    other if !of_issuer => odd.push((at.clone(), label.clone(), other)),
                    _ => {}
                }
            }
            let mut purpose = named.purpose(node.node.role, &at, part, inside);
            let all = Certificate::all_from_pem(&bytes);
            // Of several certificates in signcerts the node uses the first.
            let folder = inside.rsplit_once('/').map_or("", |(folder, _)| folder);
            let signs = purpose == KeyPurpose::Enrolment && all.first().is_some_and(Result::is_ok);
            if signs && !signing.insert((position, folder.to_owned())) {
                purpose = KeyPurpose::Trusted;
            }
            // A node passes over what is not PEM; that no other certificate is there is said by the rules.
            if purpose == KeyPurpose::Enrolment && first_pem_block(&bytes).is_none() && !is_key {
                found(Finding::warning(
                    Rule::EveryKey,
                    format!("{} {label}", node.node.id),
                    "it is not PEM: the node ignores it",
                    "no action is needed if the node's certificate is in another file of this folder",
                ));
                continue;
            }
            // That an authority's own certificate cannot be read is reported by the rule for authorities.
            let expected = !matches!(purpose, KeyPurpose::Trusted | KeyPurpose::Authority);
            if all.is_empty() && !is_key && expected {
                certificates.push(CertificateFile { at, label, purpose, certificate: None });
                continue;
            }
            for (number, one) in all.into_iter().enumerate() {
                let (label, purpose) = match number {
                    0 => (label.clone(), purpose),
                    // The certificates that certify the first one follow it.
                    number => (format!("{label} (certificate {})", number + 1), KeyPurpose::Trusted),
                };
                if one.is_ok() || (number == 0 && expected) {
                    certificates.push(CertificateFile { at: at.clone(), label, purpose, certificate: one.ok() });
                }
            }
        }
    }
    let tls_found = certificates.iter().any(|read| read.purpose == KeyPurpose::Tls);
    if let Some(missing) = named.missing_tls.as_ref().filter(|_| !tls_found && node.node.workload.is_none()) {
        found(Finding::error(
            Rule::EveryKey,
            &node.node.id,
            format!("its TLS certificate {missing}, which its configuration names, is in none of its directories"),
            OrLeaveOut("name the directory that holds it in the inventory (tls = \"…\")"),
        ));
    }
    if node.node.role == NodeRole::CertificateAuthority {
        keys_without_certificate(node, &by_file, &certificates, found);
    }
    certificates
        .into_iter()
        .map(|read| {
            let key = key_of(node, &read, &named, &private, &by_file, &odd, found);
            KeyFacts {
                path: read.label,
                purpose: read.purpose,
                certificate: read.certificate.map(|certificate| certificate.summary()),
                key,
            }
        })
        .collect()
}

/// A private key of a certificate authority that fits no certificate is a hint that a certificate was lost.
fn keys_without_certificate(
    node: &PlannedNode,
    by_file: &HashMap<Located, Vec<Vec<u8>>>,
    certificates: &[CertificateFile],
    found: &dyn Fn(Finding),
) {
    let used = |key: &Vec<u8>| {
        certificates.iter().any(|read| read.certificate.as_ref().is_some_and(|known| known.public_key() == key))
    };
    let mut unused: Vec<&Located> =
        by_file.iter().filter(|(_, keys)| !keys.iter().any(used)).map(|(at, _)| at).collect();
    unused.sort();
    for (position, path) in unused {
        let directory = &node.directories[*position].directory;
        let (_, part, inside) = directory.part(path);
        if part == DirectoryRole::CaHome && inside.starts_with("msp/keystore/") && inside.ends_with("_sk") {
            found(Finding::note(
                Rule::EveryKey,
                format!("{} {}/{path}", node.node.id, directory.path),
                "no certificate in the set belongs to this private key of the CA: ca-cert.pem and tls-cert.pem are missing or do not match it",
                "no action is needed if the key is an old one",
            ));
        }
    }
}

/// Returns where a certificate's key is. A file in its place that is another key, or cannot be understood, is reported as such.
fn key_of(
    node: &PlannedNode,
    read: &CertificateFile,
    named: &ConfiguredKeys,
    private: &HashMap<Vec<u8>, Vec<KeyFile>>,
    by_file: &HashMap<Located, Vec<Vec<u8>>>,
    odd: &[(Located, String, PrivateKey)],
    found: &dyn Fn(Finding),
) -> Option<String> {
    let id: &NodeId = &node.node.id;
    let certificate = read.certificate.as_ref()?;
    let subject = || format!("{id} {}", read.label);
    let name = || certificate.summary().common_name;
    let rule = if read.purpose == KeyPurpose::Authority { Rule::CaKey } else { Rule::EveryKey };
    let files = private.get(certificate.public_key()).map(Vec::as_slice).unwrap_or_default();
    let key = files.first().map(|file| file.label.clone());
    if read.purpose == KeyPurpose::Trusted {
        return key;
    }
    let named_key = named.keys.get(&read.at);
    if let Some(others) = named_key.and_then(|at| by_file.get(at))
        && !others.iter().any(|public| public == certificate.public_key())
    {
        let at = named_key.map_or("", |(_, path)| path.as_str());
        found(Finding::error(
            rule,
            subject(),
            format!(
                "the key file {at} that its configuration names does not match the {} certificate of {}",
                read.purpose,
                name()
            ),
            "restore the certificate together with its own key: the node does not start with these two",
        ));
        return key.or_else(|| Some(at.to_owned()));
    }
    let useless = |label: &str, why: &str| {
        found(Finding::error(
            rule,
            subject(),
            format!("{label}, the key of {} ({}), cannot be used: {why}", name(), read.purpose),
            OrLeaveOut("replace it with a key that the node can read"),
        ));
    };
    let in_token = named.tokens.iter().any(|(purpose, _)| *purpose == read.purpose);
    // A TLS key may be anywhere in its file.
    if key.is_some() && (read.purpose == KeyPurpose::Tls || in_token) {
        return key;
    }
    if !files.is_empty() {
        return Some(match named.stores.find(node, &read.at, certificate.public_key(), files, named_key) {
            Ok(file) => file.label.clone(),
            Err(Unread { label, why }) => {
                useless(&label, &why);
                label
            }
        });
    }
    if let Some((_, token)) = named.tokens.iter().find(|(purpose, _)| *purpose == read.purpose) {
        found(Finding::note(
            rule,
            subject(),
            format!(
                "the private key of {} ({}) is in a {token}: it is not part of the recovery point",
                name(),
                read.purpose
            ),
            "back the token up with the tools of its vendor; it must be reachable before the node is started again",
        ));
        return Some(token.clone());
    }
    let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let beside = |(position, path): &Located| {
        let store = matches!(read.purpose, KeyPurpose::Enrolment | KeyPurpose::Authority) && path.contains("keystore/");
        store || (*position == read.at.0 && folder(path) == folder(&read.at.1))
    };
    let (_, label, what) =
        odd.iter().find(|(at, _, _)| named_key == Some(at) || (named_key.is_none() && beside(at)))?;
    match what {
        PrivateKey::NotUnderstood(why) => found(Finding::warning(
            rule,
            subject(),
            format!("it cannot be checked whether {label} is the key of {} ({}): {why}", name(), read.purpose),
            "make sure that the node starts with it; it is captured as it is",
        )),
        PrivateKey::Encrypted => useless(label, "it is encrypted, and the node cannot read encrypted keys"),
        PrivateKey::Damaged(why) => useless(label, why),
        PrivateKey::Understood(_) => return None,
    }
    Some(label.clone())
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

/// Returns the purpose of a certificate, from its path.
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

/// Returns the certificates of a node's directories, as they are now: path and face. What cannot be read is left out: this is a look, no
/// capture.
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
