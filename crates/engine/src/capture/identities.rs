//! Checks the identities of a node by the roles of its directories: an MSP that certifies its own node, TLS with certificate, key and CA,
//! the configuration that names them, and the files of a CA (I5, C5, C3). The rules over key facts judge each certificate with its key.

use std::io::Read;

use fabkeep_ledger::ca_config::{CaConfig, DatabaseKind, config_file_name};
use fabkeep_ledger::certificate::{Certificate, MAX_PEM_BYTES, PemContent, first_pem_block, is_private_key_pem};
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::msp::{Msp, RevocationList};
use fabkeep_ledger::msp_config::{UnitCertificate, has_administrators, named_certificates};
use fabkeep_ledger::node_settings::has_section;
use fabkeep_ledger::proto::msp::FabricMspConfig;
use fabkeep_ledger::yaml::{MAX_CONFIG_BYTES, parse};
use fabkeep_network::{DirectorySource, Finding, KeyFacts, KeyPurpose, NodeDirectory, OrLeaveOut, Rule};
use fabkeep_platform::{EntryKind, VolumeEntry};

use super::issuer;
use super::links::LedTo;
use super::presence::RoleView;
use super::settings;
use super::survey::{PlannedNode, SurveyedDirectory};
use crate::located::locate_all;

pub(super) const BRING_BACK: OrLeaveOut =
    OrLeaveOut("restore the files from the CA's records or an earlier recovery point, or correct the inventory");

/// Folders of an MSP whose files are certificates.
const CERTIFICATE_FOLDERS: [&str; 5] =
    ["cacerts", "intermediatecerts", "admincerts", "tlscacerts", "tlsintermediatecerts"];
/// Folders that a node reads at its start.
const MSP_FOLDERS: [&str; 7] =
    ["cacerts", "intermediatecerts", "admincerts", "tlscacerts", "tlsintermediatecerts", "crls", "signcerts"];

/// A PEM file of an MSP or TLS directory.
struct Pem {
    /// Its path, as messages name it.
    label: String,
    /// The folder that contains it, as far as the layout shows it.
    folder: String,
    name: String,
    certificate: Option<Certificate>,
    bytes: Vec<u8>,
    key: bool,
}

impl Pem {
    /// Returns the certificates after the first: those of the chain that a server shows.
    fn chain(&self) -> Vec<Certificate> {
        Certificate::all_from_pem(&self.bytes).into_iter().skip(1).filter_map(Result::ok).collect()
    }
}

/// Reads a file that is not longer than this; one that cannot be read has its finding where it is kept.
pub(super) fn read(directory: &SurveyedDirectory, entry: &VolumeEntry, most: u64) -> Option<Vec<u8>> {
    if entry.stamp.size > most {
        return None;
    }
    let (volume, path) = directory.source(&entry.path);
    let mut bytes = Vec::new();
    volume.open(path, 0..most).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns the files of a role. Where a Secret is mounted as one of an MSP's folders, the folder is part of the mount's path.
fn pems(node: &PlannedNode, role: DirectoryRole) -> Vec<Pem> {
    let view = RoleView::of(node, role);
    let files: Vec<_> =
        view.files().filter(|(_, path, _)| !path.split('/').any(|part| part.starts_with(".."))).collect();
    let mut out = Vec::new();
    for (directory, path, entry) in files {
        let Some(bytes) = read(directory, entry, MAX_PEM_BYTES) else { continue };
        let root = directory.directory.mounted_at.as_deref().unwrap_or(&directory.directory.path);
        let whole = format!("{}/{}", root.trim_end_matches('/'), entry.path);
        let mut parts = whole.rsplit('/');
        let (name, folder) = (parts.next().unwrap_or(path).to_owned(), parts.next().unwrap_or_default().to_owned());
        out.push(Pem {
            label: format!("{}/{}", directory.directory.path.trim_end_matches('/'), entry.path),
            folder,
            name,
            certificate: Certificate::from_pem(&bytes).ok(),
            key: is_private_key_pem(&bytes),
            bytes,
        });
    }
    out
}

/// Finds what is missing or does not fit.
pub(super) fn check(node: &PlannedNode, keys: &[KeyFacts], found: &dyn Fn(Finding)) {
    match node.node.role {
        NodeRole::Peer | NodeRole::Orderer => {
            check_msp(node, found);
            check_tls(node, keys, found);
            check_config(node, found);
        }
        NodeRole::CertificateAuthority => check_authority(node, keys, found),
        _ => {}
    }
}

fn error(node: &PlannedNode, rule: Rule, place: &str, what: impl Into<String>) -> Finding {
    Finding::error(rule, format!("{} {place}", node.node.id), what, BRING_BACK)
}

fn warning(node: &PlannedNode, rule: Rule, place: &str, what: impl Into<String>) -> Finding {
    Finding::warning(rule, format!("{} {place}", node.node.id), what, BRING_BACK)
}

fn check_msp(node: &PlannedNode, found: &dyn Fn(Finding)) {
    let view = RoleView::of(node, DirectoryRole::Msp);
    if view.parts.is_empty() {
        // The rules report that no enrolment certificate is in the set.
        return;
    }
    let files = pems(node, DirectoryRole::Msp);
    let of = |folder: &str| -> Vec<&Pem> { files.iter().filter(|file| file.folder == folder).collect() };
    let authorities = of("cacerts");
    let certificates =
        |files: &[&Pem]| -> Vec<Certificate> { files.iter().filter_map(|file| file.certificate.clone()).collect() };
    let roots = certificates(&authorities);
    if roots.is_empty() {
        let what = if authorities.is_empty() {
            "the MSP has no CA certificate: the node does not start"
        } else {
            "none of the MSP's CA certificates can be read: the node does not start"
        };
        found(error(node, Rule::EveryKey, &view.label_of("cacerts"), what));
    }
    for (directory, path, entry) in view.entries() {
        if MSP_FOLDERS.contains(&path)
            && matches!(directory.led_to(entry), LedTo::Entry(at) if at.kind == EntryKind::File)
        {
            let what = "it is a file, and the node expects a directory of this name: the node does not start";
            found(error(node, Rule::EveryKey, &view.label_of(path), what));
        }
    }
    // Without a certificate in tlscacerts the node does not look into the folder of those between.
    let without_tls = !of("tlscacerts").iter().any(|file| first_pem_block(&file.bytes).is_some());
    for folder in CERTIFICATE_FOLDERS.iter().filter(|folder| !(without_tls && **folder == "tlsintermediatecerts")) {
        for file in of(folder) {
            match &file.certificate {
                _ if matches!(first_pem_block(&file.bytes), Some(PemContent::Other)) => {
                    let what = format!(
                        "what its first PEM block in {folder} contains is not a readable certificate: the node does not start"
                    );
                    found(error(node, Rule::EveryKey, &file.label, what));
                }
                None => found(warning(
                    node,
                    Rule::EveryKey,
                    &file.label,
                    "it is not a readable certificate, and not PEM: the node ignores it",
                )),
                Some(certificate) if *folder != "admincerts" && !certificate.is_ca() => {
                    let what = format!(
                        "the certificate of {} in {folder} is not a CA's: the node does not start",
                        certificate.summary().common_name
                    );
                    found(error(node, Rule::EveryKey, &file.label, what));
                }
                Some(_) => {}
            }
        }
    }
    for file in of("crls") {
        match RevocationList::of(&file.bytes) {
            RevocationList::Readable => {}
            RevocationList::NoList => {
                let what = "it is not a readable revocation list (CRL): the node does not start";
                found(error(node, Rule::EveryKey, &file.label, what));
            }
            RevocationList::NotPem => {
                let what = "it is not PEM: the node ignores it and does not know the revocations in it";
                found(warning(node, Rule::EveryKey, &file.label, what));
            }
        }
    }
    let named = |entry: &VolumeEntry| entry.path == "tlscacerts" || entry.path.ends_with("/tlscacerts");
    if view.entries().any(|(_, _, entry)| named(entry)) && of("tlscacerts").is_empty() {
        found(Finding::note(
            Rule::EveryKey,
            format!("{} {}", node.node.id, view.label_of("tlscacerts")),
            "the MSP's folder of TLS CA certificates is empty",
            "no action is needed if the node's TLS directory contains its CA",
        ));
    }
    // Fabric looks a signing identity's chain up at its start.
    let (intermediates, admins) = (of("intermediatecerts"), of("admincerts"));
    let pem = |files: &[&Pem]| files.iter().map(|file| file.bytes.clone()).collect();
    let msp = Msp::from_config(&FabricMspConfig {
        root_certs: pem(&authorities),
        intermediate_certs: pem(&intermediates),
        ..FabricMspConfig::default()
    });
    let mut signing: Vec<&Pem> = of("signcerts");
    signing.sort_by_key(|file| &file.label);
    let own = signing.iter().find_map(|file| Some((file, first_pem_block(&file.bytes)?)));
    // What cannot be read at all is reported by the rule for certificates.
    if let Some((file, PemContent::Other)) = own.filter(|(file, _)| file.certificate.is_some() || file.key) {
        let what = "what its first PEM block in signcerts contains is not a readable certificate, and the node reads no other block: it does not start";
        found(error(node, Rule::EveryKey, &file.label, what));
    }
    // Of several the node uses the first.
    let signing = of("signcerts").into_iter().filter_map(|file| Some((file, file.certificate.as_ref()?)));
    let first = signing.min_by_key(|(file, _)| &file.label).filter(|_| !roots.is_empty());
    if let Some((file, certificate)) = first.filter(|(_, certificate)| !msp.vouches_for(certificate)) {
        found(if msp.cannot_check(certificate) {
            let what = "it is signed with an algorithm that fabkeep cannot check";
            Finding::note(Rule::EveryKey, &file.label, what, "no action is needed if the node runs with it")
        } else {
            error(
                node,
                Rule::EveryKey,
                &file.label,
                format!(
                    "the enrolment certificate of {} was not issued by any of the CA certificates in the MSP's cacerts: the node does not start",
                    certificate.summary().common_name
                ),
            )
        });
    }
    // Fabric follows the chains of these as well, and does not start without one.
    let followed = intermediates.iter().chain(&admins).filter(|_| !roots.is_empty());
    for file in followed {
        let Some(certificate) = &file.certificate else { continue };
        let administrator = file.folder == "admincerts";
        let vouched = if administrator { msp.vouches_for(certificate) } else { msp.leads_to_a_root(certificate) };
        // That an intermediate certificate is not a CA's is said above.
        if vouched || msp.cannot_check(certificate) || !(administrator || certificate.is_ca()) {
            continue;
        }
        let what = format!(
            "the certificate of {} was not issued by any of the CA certificates in the MSP: the node does not start",
            certificate.summary().common_name
        );
        found(error(node, Rule::EveryKey, &file.label, what));
    }
    check_tls_chain(node, &of("tlscacerts"), &of("tlsintermediatecerts"), found);
    let config = files.iter().find(|file| file.name == "config.yaml" && file.folder != "keystore");
    let vouching = [authorities.as_slice(), intermediates.as_slice()].concat();
    for unit in config.map(|file| named_certificates(&file.bytes)).unwrap_or_default() {
        check_unit(node, &unit, &files, &vouching, &view.label_of(&unit.path), found);
    }
    let administrators = admins.iter().any(|file| file.certificate.is_some());
    let by_units = config.map(|file| has_administrators(&file.bytes));
    if !administrators && by_units != Some(Ok(true)) {
        let (place, what) = match (config, by_units) {
            (Some(file), Some(Err(problem))) => (file.label.clone(), format!("it is not valid YAML ({problem})")),
            (Some(file), _) => (file.label.clone(), "it names no unit of administrators (NodeOUs)".to_owned()),
            (None, _) => (view.label_of("config.yaml"), "it is missing".to_owned()),
        };
        let what = format!(
            "{what}, and admincerts contains no certificate: the MSP has no administrators, and the node does not start"
        );
        found(error(node, Rule::EveryKey, &place, what));
    } else if let (Some(file), Some(Err(problem))) = (config, by_units) {
        found(error(node, Rule::EveryKey, &file.label, format!("it is not valid YAML ({problem})")));
    }
}

/// A certificate that the MSP's configuration names for a unit must be one of the MSP's CA certificates.
fn check_unit(
    node: &PlannedNode,
    unit: &UnitCertificate,
    files: &[Pem],
    vouching: &[&Pem],
    place: &str,
    found: &dyn Fn(Finding),
) {
    let is_named = |file: &&Pem| {
        file.label.ends_with(&format!("/{}", unit.path)) || unit.path == format!("{}/{}", file.folder, file.name)
    };
    let Some(file) = files.iter().find(is_named) else {
        // One outside of the MSP is in none of the files looked at here.
        if !unit.of_nodes && unit.path.split('/').any(|part| part == "..") {
            return;
        }
        found(if unit.of_nodes {
            let what = "the MSP's config.yaml names this certificate, but it is missing: the node then accepts node units (NodeOUs) of any CA";
            warning(node, Rule::EveryKey, place, what)
        } else {
            let what = "the MSP's config.yaml names this certificate (OrganizationalUnitIdentifiers), but it is missing: the node does not start";
            error(node, Rule::EveryKey, place, what)
        });
        return;
    };
    let is_known = |certificate: &Certificate| {
        let mut known = vouching.iter().filter_map(|file| file.certificate.as_ref());
        known.any(|known| known.has_key_of(certificate))
    };
    // Under node units a file of length zero is as none.
    let unread = unit.of_nodes && file.bytes.is_empty();
    if !unread && !file.certificate.as_ref().is_some_and(is_known) {
        let what = "the MSP's config.yaml names it as the certificate of a unit, and it is none of the CA certificates in cacerts and intermediatecerts: the node does not start";
        found(error(node, Rule::EveryKey, &file.label, what));
    }
}

/// TLS CA certificates between a root and the nodes: each must lead to a root of the MSP's tlscacerts.
fn check_tls_chain(node: &PlannedNode, roots: &[&Pem], intermediates: &[&Pem], found: &dyn Fn(Finding)) {
    let pem = |files: &[&Pem]| files.iter().map(|file| file.bytes.clone()).collect();
    let authorities = Msp::from_config(&FabricMspConfig {
        root_certs: pem(roots),
        intermediate_certs: pem(intermediates),
        ..FabricMspConfig::default()
    });
    if !roots.iter().any(|file| file.certificate.is_some()) {
        return;
    }
    for file in intermediates {
        let Some(certificate) = file.certificate.as_ref().filter(|certificate| certificate.is_ca()) else { continue };
        if !authorities.leads_to_a_root(certificate) && !authorities.cannot_check(certificate) {
            let what = format!(
                "the TLS CA certificate of {} was not issued by any of the CA certificates in the MSP's tlscacerts: the node does not start",
                certificate.summary().common_name
            );
            found(error(node, Rule::EveryKey, &file.label, what));
        }
    }
}

fn check_tls(node: &PlannedNode, keys: &[KeyFacts], found: &dyn Fn(Finding)) {
    let view = RoleView::of(node, DirectoryRole::Tls);
    if view.parts.is_empty() {
        return;
    }
    let files = pems(node, DirectoryRole::Tls);
    // A self-signed server certificate may be marked as a CA's: its private key beside it shows that it is the node's own.
    let with_key: Vec<_> =
        keys.iter().filter(|known| known.key.is_some()).filter_map(|known| known.certificate.as_ref()).collect();
    let own = |file: &&Pem| {
        file.certificate
            .as_ref()
            .is_some_and(|certificate| !certificate.is_ca() || with_key.contains(&&certificate.summary()))
    };
    for file in files.iter().filter(|file| file.certificate.is_none() && !file.key && looks_like_pem(&file.name)) {
        found(error(
            node,
            Rule::EveryKey,
            &file.label,
            "it contains neither a readable certificate nor a readable private key",
        ));
    }
    if !files.iter().any(|file| own(&file)) {
        found(error(node, Rule::EveryKey, &view.label(), "no TLS certificate is in the node's TLS directory"));
        return;
    }
    if !files.iter().any(|file| file.key) {
        found(error(node, Rule::EveryKey, &view.label(), "no private key is in the node's TLS directory"));
    }
    // The CA that others' certificates are checked against may lie in the MSP.
    let msp = pems(node, DirectoryRole::Msp);
    let of_msp = msp.iter().filter(|file| matches!(file.folder.as_str(), "tlscacerts" | "tlsintermediatecerts"));
    let chains: Vec<Certificate> = files.iter().flat_map(Pem::chain).collect();
    let authorities: Vec<&Certificate> = files
        .iter()
        .chain(of_msp)
        .filter_map(|file| file.certificate.as_ref())
        .chain(&chains)
        .filter(|known| known.is_ca())
        .collect();
    if authorities.is_empty() {
        let what = "no TLS CA certificate is in the node's TLS directory or in its MSP (tlscacerts)";
        // On a cluster it may be mounted where only the node's environment says.
        let on_host = view.parts.iter().any(|(directory, _)| directory.directory.mounted_at.is_none());
        found(if on_host {
            error(node, Rule::EveryKey, &view.label(), what)
        } else {
            warning(node, Rule::EveryKey, &view.label(), what)
        });
        return;
    }
    for file in files.iter().filter(own) {
        let Some(certificate) = &file.certificate else { continue };
        let beside: Vec<&Certificate> = files
            .iter()
            .filter_map(|file| file.certificate.as_ref())
            .chain(&chains)
            .filter(|known| known.is_ca())
            .collect();
        let judges = if beside.is_empty() { &authorities } else { &beside };
        let is_judged = |authority: &&Certificate| {
            certificate.is_signed_by(authority) || certificate.cannot_be_checked_by(authority)
        };
        if !judges.iter().any(is_judged) {
            found(warning(
                node,
                Rule::EveryKey,
                &file.label,
                format!(
                    "no TLS CA certificate beside it has signed the TLS certificate of {}",
                    certificate.summary().common_name
                ),
            ));
        }
    }
}

fn looks_like_pem(name: &str) -> bool {
    [".crt", ".pem", ".key", ".cert", "_sk"].iter().any(|end| name.ends_with(end))
}

/// The node's configuration: there, whole, YAML.
fn check_config(node: &PlannedNode, found: &dyn Fn(Finding)) {
    let view = RoleView::of(node, DirectoryRole::Config);
    let (name, sections): (&str, &[&str]) = match node.node.role {
        NodeRole::Peer => ("core.yaml", &["peer", "ledger"]),
        _ => ("orderer.yaml", &["General", "FileLedger"]),
    };
    let on_host = |directory: &SurveyedDirectory| directory.directory.mounted_at.is_none();
    let files: Vec<_> = view.files().filter(|(_, path, _)| *path == name).collect();
    if files.is_empty() && view.parts.iter().any(|(directory, _)| on_host(directory)) {
        found(error(node, Rule::NotPersistent, &view.label_of(name), "the node's configuration is missing"));
    }
    for (directory, _, entry) in files {
        let label = format!("{}/{}", directory.directory.path.trim_end_matches('/'), entry.path);
        let Some(bytes) = read(directory, entry, MAX_CONFIG_BYTES) else { continue };
        let config = match parse(&bytes) {
            Ok(config) => config,
            Err(problem) => {
                found(error(
                    node,
                    Rule::NotPersistent,
                    &label,
                    format!("the node's configuration is not valid YAML ({problem})"),
                ));
                continue;
            }
        };
        if bytes.trim_ascii().is_empty() && on_host(directory) {
            found(error(node, Rule::NotPersistent, &label, "the node's configuration is empty"));
            continue;
        }
        for section in sections.iter().filter(|section| !has_section(&config, section)) {
            found(warning(
                node,
                Rule::NotPersistent,
                &label,
                format!("the node's configuration has no section {section}: it may have been truncated"),
            ));
        }
    }
}

fn check_authority(node: &PlannedNode, keys: &[KeyFacts], found: &dyn Fn(Finding)) {
    let view = RoleView::of(node, DirectoryRole::CaHome);
    if view.files().next().is_none() {
        return;
    }
    let config_name = config_file_name(&node.node.environment);
    let config_file = view.files().find(|(_, path, _)| *path == config_name);
    let config = config_file.and_then(|(directory, _, entry)| {
        let bytes = read(directory, entry, MAX_CONFIG_BYTES)?;
        match CaConfig::read(&bytes, &node.node.environment) {
            Ok(config) if !bytes.is_empty() => Some(config),
            Ok(_) => {
                found(error(node, Rule::CaKey, &view.label_of(config_name), "the CA's configuration is empty"));
                None
            }
            Err(problem) => {
                let what = format!("the CA's configuration cannot be read ({problem})");
                found(error(node, Rule::CaKey, &view.label_of(config_name), what));
                None
            }
        }
    });
    if let Some((directory, path, entry)) = config_file
        && let Some(yaml) = read(directory, entry, MAX_CONFIG_BYTES).and_then(|bytes| parse(&bytes).ok())
    {
        let lacks: Vec<&str> = ["ca", "db", "registry"].into_iter().filter(|name| !has_section(&yaml, name)).collect();
        if !lacks.is_empty() {
            found(Finding::note(
                Rule::CaKey,
                format!("{} {}", node.node.id, view.label_of(path)),
                format!("the CA's configuration has no section {}: the server uses its defaults", lacks.join(", ")),
                "no action is needed if that is intended; otherwise the file was truncated: restore it",
            ));
        }
    }
    // On a cluster the configuration may come from a ConfigMap that is mounted where the server is configured to look.
    let on_host = view.parts.iter().any(|(directory, _)| directory.directory.mounted_at.is_none());
    if config_file.is_none() && on_host {
        let what =
            "the CA's configuration is not there: its next start writes one with other profiles and affiliations";
        found(error(node, Rule::CaKey, &view.label_of(config_name), what));
    }
    let certificate = config.as_ref().map_or("ca-cert.pem", |config| config.certificate.as_str());
    let own = keys.iter().any(|key| key.purpose == KeyPurpose::Authority);
    if !own && !certificate.starts_with('/') && !view.files().any(|(_, path, _)| path == certificate) {
        found(error(
            node,
            Rule::CaKey,
            &view.label_of(certificate),
            "the CA's certificate is missing: when the CA starts, it creates a new root, and the certificates that it issued are no longer valid",
        ));
    }
    if let Some(config) = config.as_ref().filter(|config| config.tls && !config.tls_certificate.starts_with('/')) {
        let there = view.has_file(&config.tls_certificate) || keys.iter().any(|key| key.purpose == KeyPurpose::Tls);
        if !there {
            let what = "the CA's TLS certificate is missing: when the CA starts, it creates one that no client trusts";
            found(error(node, Rule::EveryKey, &view.label_of(&config.tls_certificate), what));
        }
    }
    let served = !node.node.served_by.is_empty()
        || node.node.directories.iter().any(|directory| directory.role == DirectoryRole::DatabaseDump);
    let stays = view.parts.iter().any(|(directory, _)| directory.directory.source != DirectorySource::Objects);
    if let Some(config) = config.as_ref().filter(|config| config.database == DatabaseKind::Sqlite && !served && stays) {
        // Options may follow the file's name.
        let file = config.data_source.split('?').next().unwrap_or_default().trim_start_matches("file:");
        let inside = !file.starts_with('/') && !file.split('/').any(|part| part == "..");
        if inside && !view.has_file(file) {
            let what = "the CA's database is missing: when the CA starts, it creates an empty one and does not know its identities and certificates any more";
            found(error(node, Rule::CaDatabase, &view.label_of(file), what));
        }
    }
    check_authority_files(node, found);
    issuer::check(node, config.as_ref(), found);
}

/// Further TLS files that the configurations of a server's CAs name. On hosts only: on a cluster they name paths of the container.
fn check_authority_files(node: &PlannedNode, found: &dyn Fn(Finding)) {
    if node.node.workload.is_some() {
        return;
    }
    let directories: Vec<&NodeDirectory> = node.directories.iter().map(|directory| &directory.directory).collect();
    for home in settings::surveyed_homes(node) {
        let base = (home.directory, home.at.as_str());
        let is_there = |named: &str| {
            locate_all(&directories, base, named).iter().any(|(position, path)| {
                let directory = node.directories.get(*position);
                directory.is_some_and(|directory| {
                    let mut entries = directory.entries.iter().map(|(entry, _)| entry);
                    entries.any(|entry| entry.path == *path && directory.led_to(entry).is_file())
                })
            })
        };
        // An absolute path may be one of a container.
        let is_missing = |named: &&String| !named.starts_with('/') && !is_there(named);
        let place = |named: &str| format!("{}/{named}", directories[home.directory].path.trim_end_matches('/'));
        for named in home.config.client_roots.iter().filter(is_missing) {
            let what = "the CA's configuration names it (tls.clientauth.certfiles), but it is missing: the server does not start";
            found(error(node, Rule::EveryKey, &place(&home.inside(named)), what));
        }
        for (setting, named) in home.config.operations.iter().filter(|(_, named)| is_missing(&named)) {
            let what = format!(
                "the CA's configuration names it ({setting}), and the home does not contain it: unless it is where the server is started, the server does not start"
            );
            found(warning(node, Rule::EveryKey, &place(&home.inside(named)), what));
        }
    }
}
