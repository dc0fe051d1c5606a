//! A certificate authority that keeps the TLS certificate and server configuration of its target, while its key, certificate and database
//! are replaced (C4). Kept and restored parts must match; otherwise the server would create a new root (C5) or begin with an empty
//! database.

use std::collections::BTreeMap;

use fabkeep_ledger::ca_config::{CaConfig, CaConfigError, DatabaseKind, MAX_CONFIG_BYTES, config_file_name};
use fabkeep_ledger::certificate::{Certificate, MAX_PEM_BYTES, public_key_of_private_pem};
use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_ledger::node_settings::Environment;
use fabkeep_network::{Finding, KeyPurpose, NodeDirectory, NodeFacts, NodeId, Remedy, Rule};
use fabkeep_platform::VolumeEntry;
use serde::Serialize;

use crate::EngineError;
use crate::content::Contents;
use crate::located::locate_all;
use crate::point::{CapturedDirectory, CapturedEntry, CapturedNode, EntryContent};

/// Where containers usually have an authority's home: so its configuration may call it, wherever it is on this machine.
const USUAL_HOMES: [&str; 2] = ["/etc/hyperledger/fabric-ca-server", "/etc/hyperledger/fabric-ca"];

/// What a certificate authority keeps of its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CaKeep {
    /// Its TLS certificate and key.
    pub tls: bool,
    /// Its `fabric-ca-server-config.yaml`.
    pub config: bool,
}

impl CaKeep {
    /// Whether anything is kept.
    pub fn is_asked(self) -> bool {
        self.tls || self.config
    }
}

/// A file that is there.
#[derive(Debug, Clone)]
pub(crate) struct ExistingFile {
    /// Its path, mode, owner and time; it has no parts.
    pub entry: CapturedEntry,
    pub bytes: Vec<u8>,
}

impl ExistingFile {
    pub fn new(found: &VolumeEntry, bytes: Vec<u8>) -> Self {
        let content = EntryContent::File { size: bytes.len() as u64, parts: Vec::new() };
        let entry = CapturedEntry {
            path: found.path.clone(),
            mode: found.mode,
            uid: found.uid,
            gid: found.gid,
            modified_ns: found.stamp.modified_ns,
            content,
        };
        ExistingFile { entry, bytes }
    }

    fn path(&self) -> &str {
        &self.entry.path
    }
}

/// Files that are there, by path.
pub(in crate::restore) type ExistingFiles = BTreeMap<String, ExistingFile>;

/// What stays of one directory.
#[derive(Debug, Default)]
pub(in crate::restore) struct KeptFiles {
    pub files: Vec<ExistingFile>,
    pub findings: Vec<Finding>,
    /// The certificate and key that come fit, and what stays fits them.
    pub fits: bool,
}

/// Certificate authorities' home directories inside a directory: where each begins, empty for the directory itself.
pub(in crate::restore) fn homes(directory: &NodeDirectory) -> Vec<&str> {
    let nested = directory.nested.iter().filter(|(_, role)| *role == DirectoryRole::CaHome).map(|(at, _)| at.as_str());
    let own = (directory.role == DirectoryRole::CaHome).then_some("");
    own.into_iter().chain(nested).collect()
}

/// Whether a file that is there may be one that stays.
pub(in crate::restore) fn is_looked_at(directory: &NodeDirectory, path: &str, size: u64) -> bool {
    let (_, role, inside) = directory.part(path);
    // A command line may name a configuration file of any name.
    let config = !inside.contains('/') && (inside.ends_with(".yaml") || inside.ends_with(".yml"));
    let name = inside.rsplit('/').next().unwrap_or(inside);
    let pem = [".pem", ".crt", ".cert", ".key", "_sk"].iter().any(|end| name.ends_with(end));
    let keyed = pem || inside.starts_with("msp/keystore/");
    role == DirectoryRole::CaHome && ((config && size <= MAX_CONFIG_BYTES) || (keyed && size <= MAX_PEM_BYTES))
}

/// Names that a directory goes by in its authority's configuration.
pub(in crate::restore) fn known_as<'a>(captured: &'a NodeDirectory, target: &'a NodeDirectory) -> Vec<&'a str> {
    let mut names: Vec<&str> =
        [&captured.mounted_at, &target.mounted_at].into_iter().flatten().map(String::as_str).collect();
    names.extend([captured.path.as_str(), target.path.as_str()]);
    names
}

/// Decides what stays of what is there. `environment`: the settings that override the node's configuration file where it is restored.
pub(in crate::restore) fn decide(
    node: &CapturedNode,
    captured: &CapturedDirectory,
    environment: &Environment,
    known_as: &[&str],
    present: &ExistingFiles,
    contents: &Contents<'_>,
    keep: CaKeep,
) -> Result<KeptFiles, EngineError> {
    let mut kept = KeptFiles::default();
    // A server's environment speaks of its first CA only.
    let mut environment = environment.clone();
    for home in homes(&captured.directory) {
        let environment = std::mem::take(&mut environment);
        let one = Home { node, captured, environment, known_as, present, contents, home };
        one.decide(keep, &mut kept)?;
    }
    Ok(kept)
}

/// Takes out of what is captured the files in whose place others stay.
pub(in crate::restore) fn leave_out(captured: &mut CapturedDirectory, facts: Option<&mut NodeFacts>, kept: &KeptFiles) {
    let stays = |path: &str| kept.files.iter().any(|file| file.path() == path);
    captured.entries.retain(|entry| !stays(&entry.path));
    if let Some(facts) = facts {
        let role = format!("{}/", captured.directory.role);
        let replaced = |path: &str| path.strip_prefix(&role).is_some_and(stays);
        facts.keys.retain(|key| key.purpose != KeyPurpose::Tls || !replaced(&key.path));
    }
}

/// What stays, in a sentence.
pub(in crate::restore) fn reported(id: &NodeId, kept: &[ExistingFile], fits: bool) -> String {
    let files: Vec<&str> = kept.iter().map(ExistingFile::path).collect();
    let fits = if fits { "; its own key and certificate come from the recovery point and match" } else { "" };
    format!("{id} keeps the target's {}{fits}", files.join(", "))
}

/// One home directory.
struct Home<'a> {
    node: &'a CapturedNode,
    environment: Environment,
    captured: &'a CapturedDirectory,
    known_as: &'a [&'a str],
    present: &'a ExistingFiles,
    contents: &'a Contents<'a>,
    home: &'a str,
}

impl Home<'_> {
    fn id(&self) -> &NodeId {
        &self.node.facts.id
    }

    fn inside(&self, path: &str) -> String {
        if self.home.is_empty() { path.to_owned() } else { format!("{}/{path}", self.home) }
    }

    /// A path of the configuration relative to the directory, when it lies in it.
    fn local(&self, path: &str) -> Option<String> {
        let full = match path.strip_prefix('/') {
            None => self.inside(path),
            Some(_) => {
                let below = |root: &str| path.strip_prefix(root.trim_end_matches('/'))?.strip_prefix('/');
                let known = self.known_as.iter().find_map(|known| below(known).map(str::to_owned));
                known.or_else(|| USUAL_HOMES.iter().find_map(|home| below(home).map(|rest| self.inside(rest))))?
            }
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in full.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        Some(parts.join("/"))
    }

    /// Returns the places that the configuration may mean: a Secret or a ConfigMap may be mounted where it looks.
    fn located(&self, named: &str) -> Vec<(&CapturedDirectory, String)> {
        let all = &self.node.directories;
        let directories: Vec<&NodeDirectory> = all.iter().map(|captured| &captured.directory).collect();
        let own = all.iter().position(|captured| captured.directory.path == self.captured.directory.path);
        let found = own.map(|own| locate_all(&directories, (own, self.home), named)).unwrap_or_default();
        let here = self.local(named).map(|path| (self.captured, path));
        here.into_iter().chain(found.into_iter().map(|(position, path)| (&all[position], path))).collect()
    }

    /// Returns the captured file that the configuration names.
    fn captured_entry(&self, named: &str) -> Option<&CapturedEntry> {
        let found = self.located(named).into_iter();
        found.flat_map(|(directory, path)| directory.entries.iter().find(move |entry| entry.path == path)).next()
    }

    /// Returns the captured files in the authority's key store.
    fn key_store(&self) -> Vec<&CapturedEntry> {
        let found = self.located("msp/keystore").into_iter();
        found
            .flat_map(|(directory, path)| {
                let store = format!("{path}/");
                directory.entries.iter().filter(move |entry| entry.path.starts_with(&store))
            })
            .collect()
    }

    /// Reads a captured small file.
    fn read(&self, entry: &CapturedEntry) -> Result<Option<Vec<u8>>, EngineError> {
        let small = |size: &u64| *size <= MAX_CONFIG_BYTES.max(MAX_PEM_BYTES);
        match &entry.content {
            EntryContent::File { size, .. } if small(size) => self.contents.whole(entry).map(Some),
            _ => Ok(None),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<CaConfig, CaConfigError> {
        CaConfig::read(bytes, &self.environment)
    }

    fn decide(&self, keep: CaKeep, kept: &mut KeptFiles) -> Result<(), EngineError> {
        let file_name = config_file_name(&self.environment);
        let name = self.inside(file_name);
        let mut add = |finding: Finding| kept.findings.push(finding);
        let here = self.present.get(&name);
        if self.present.is_empty() {
            add(Finding::warning(
                Rule::CaKept,
                self.id(),
                "the target has nothing that can be kept: everything is restored from the recovery point",
                "deploy the certificate authority and let it start once before the restore, if its new TLS certificate or configuration should stay",
            ));
            return Ok(());
        }
        let theirs = match here.map(|file| self.parse(&file.bytes)).transpose() {
            Ok(config) => config,
            Err(error) => {
                add(Finding::error(
                    Rule::CaKept,
                    format!("{} {name}", self.id()),
                    format!("the existing one cannot be read: {error}"),
                    Remedy::from("correct it").or(Remedy::WithoutCaKeep { tls: false }),
                ));
                return Ok(());
            }
        };
        let captured = match self.captured_entry(file_name) {
            Some(entry) => self.read(entry)?.and_then(|bytes| self.parse(&bytes).ok()),
            None => None,
        };
        if keep.config {
            match here {
                Some(file) => kept.files.push(file.clone()),
                None => add(Finding::warning(
                    Rule::CaKept,
                    format!("{} {name}", self.id()),
                    "the target has no server configuration: that of the recovery point is restored",
                    "no action is needed if its configuration is in a ConfigMap or the environment",
                )),
            }
        }
        let usual = || self.parse(b"{}").ok();
        // Without a file in the volume the server reads the one that is mounted.
        let theirs_or_usual = theirs.clone().or_else(|| captured.clone()).or_else(usual);
        let in_force = if keep.config && theirs.is_some() { theirs } else { captured.clone().or_else(usual) };
        let (Some(theirs), Some(in_force)) = (theirs_or_usual, in_force) else { return Ok(()) };
        if keep.tls {
            self.keep_tls(&theirs, &in_force, kept);
        }
        self.judge_database(&in_force, captured.as_ref(), kept);
        self.judge_key(&in_force, kept)
    }

    fn keep_tls(&self, theirs: &CaConfig, in_force: &CaConfig, kept: &mut KeptFiles) {
        let mut add = |finding: Finding| kept.findings.push(finding);
        let Some(path) = self.local(&theirs.tls_certificate) else {
            return add(Finding::warning(
                Rule::CaKept,
                self.id(),
                format!(
                    "its TLS certificate is at {}, outside of its home: here nothing of it is kept",
                    theirs.tls_certificate
                ),
                "no action is needed if that is a Secret, or a directory that the recovery point does not have; otherwise copy the file to another place first, and put it back afterwards",
            ));
        };
        let subject = format!("{} {path}", self.id());
        let Some(file) = self.present.get(&path) else {
            return add(Finding::warning(
                Rule::CaKept,
                subject,
                "the target has no TLS certificate: that of the recovery point is restored",
                "no action is needed if the server has none, or has it in a Secret",
            ));
        };
        let remedy = Remedy::from("correct both").or(Remedy::WithoutCaKeep { tls: true });
        let Ok(certificate) = Certificate::from_pem(&file.bytes) else {
            return add(Finding::error(Rule::CaKept, subject, "the existing TLS certificate cannot be read", remedy));
        };
        let fits = |file: &ExistingFile| {
            public_key_of_private_pem(&file.bytes).is_some_and(|public| public == certificate.public_key())
        };
        let store = self.inside("msp/keystore/");
        let key = match &theirs.tls_key {
            Some(key) => self.local(key).and_then(|path| self.present.get(&path)).filter(|file| fits(file)),
            None => self.present.values().find(|file| file.path().starts_with(&store) && fits(file)),
        };
        let Some(key) = key else {
            return add(Finding::error(
                Rule::CaKept,
                subject,
                "no existing key matches the TLS certificate: the server would not start with it",
                remedy,
            ));
        };
        let same = |named: &str, path: &str| self.local(named).is_some_and(|named| named == path);
        let found = same(&in_force.tls_certificate, &path)
            && match &in_force.tls_key {
                Some(named) => same(named, key.path()),
                None => key.path().starts_with(&store),
            };
        if !found {
            return add(Finding::error(
                Rule::CaKept,
                subject,
                format!(
                    "the recovery point's configuration looks for the TLS certificate at {}, and for the key {}: this one would not be found",
                    in_force.tls_certificate,
                    in_force.tls_key.as_deref().map_or("in msp/keystore".to_owned(), |key| format!("at {key}"))
                ),
                Remedy::KeepCaConfigToo,
            ));
        }
        let summary = certificate.summary();
        if summary.not_after < jiff::Timestamp::now().as_second() {
            add(Finding::warning(
                Rule::Certificates,
                subject,
                format!("the kept TLS certificate of {} has expired", summary.common_name),
                Remedy::from("renew it").or(Remedy::WithoutCaKeep { tls: true }),
            ));
        }
        kept.files.extend([file.clone(), key.clone()]);
    }

    /// The configuration must lead to the database that comes.
    fn judge_database(&self, in_force: &CaConfig, captured: Option<&CaConfig>, kept: &mut KeptFiles) {
        let subject = format!("{} {}", self.id(), self.inside(config_file_name(&self.environment)));
        let remedy = Remedy::from("let its db section name the recovery point's database").or(Remedy::KeepCaTlsOnly);
        let mut refuse = |what| kept.findings.push(Finding::error(Rule::CaKept, &subject, what, remedy.clone()));
        if let Some(captured) = captured.filter(|captured| captured.database != in_force.database) {
            return refuse(format!(
                "the kept configuration names a {} database, the recovery point has one of {}",
                in_force.database, captured.database
            ));
        }
        if in_force.database == DatabaseKind::Sqlite
            && let Some(path) = self.local(&in_force.data_source)
            && !self.captured.entries.iter().any(|entry| entry.path == path)
        {
            return refuse(format!(
                "it keeps identities in {path}, which the recovery point does not have: the server would begin with an empty database"
            ));
        }
        if let Some(captured) = captured.filter(|captured| captured.name != in_force.name) {
            kept.findings.push(Finding::warning(
                Rule::CaKept,
                subject,
                format!(
                    "the name of the CA is {:?} in the kept configuration and {:?} in the recovery point",
                    in_force.name, captured.name
                ),
                "clients that name it (--caname) must use the new name",
            ));
        }
    }

    /// C5: the certificate and the key that the configuration names are there, and match.
    fn judge_key(&self, in_force: &CaConfig, kept: &mut KeptFiles) -> Result<(), EngineError> {
        let found = self.captured_entry(&in_force.certificate);
        // Outside of everything that was captured: it is judged with the node's keys.
        let Some(path) = self.local(&in_force.certificate).or(found.map(|entry| entry.path.clone())) else {
            return Ok(());
        };
        let subject = format!("{} {path}", self.id());
        let remedy = Remedy::from("let its ca section name the recovery point's files").or(Remedy::KeepCaTlsOnly);
        let mut refuse = |what: String| kept.findings.push(Finding::error(Rule::CaKey, &subject, what, remedy.clone()));
        let read = found.map(|entry| self.read(entry)).transpose()?.flatten();
        let Some(certificate) = read.and_then(|bytes| Certificate::from_pem(&bytes).ok()) else {
            refuse(
                "the authority's certificate is not in the recovery point: the server would make a new root".to_owned(),
            );
            return Ok(());
        };
        let candidates: Vec<&CapturedEntry> = match &in_force.key {
            Some(named) => match self.captured_entry(named) {
                Some(entry) => vec![entry],
                None if self.local(named).is_none() => return Ok(()),
                None => Vec::new(),
            },
            None => self.key_store(),
        };
        let mut key = None;
        for candidate in candidates {
            let public = self.read(candidate)?.and_then(|bytes| public_key_of_private_pem(&bytes));
            if public.is_some_and(|public| public == certificate.public_key()) {
                key = Some(candidate.path.clone());
            }
        }
        let Some(key) = key else {
            refuse("the key that fits the authority's certificate is not where the configuration looks for it: the server would make a new root".to_owned());
            return Ok(());
        };
        if let Some(file) = kept.files.iter().find(|file| file.path() == path || file.path() == key) {
            let what =
                format!("{} would be kept instead of the CA's own files: keep only the configuration", file.path());
            kept.findings.push(Finding::error(Rule::CaKey, &subject, what, Remedy::WithoutCaKeep { tls: true }));
            return Ok(());
        }
        kept.fits = true;
        Ok(())
    }
}
