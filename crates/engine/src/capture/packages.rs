//! Chaincode packages: the file name contains the hash of the content, so that a truncated or foreign package is recognised. Those of the
//! lifecycle before Fabric 2.0 are read as a peer reads them at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use aws_lc_rs::digest;
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::legacy_package::{LegacyPackage, MAX_LEGACY_PACKAGE_BYTES};
use fabkeep_network::{Finding, OrLeaveOut, Rule};
use fabkeep_platform::EntryKind;
use fabkeep_store::PointWriter;

use super::CaptureOptions;
use super::databases::NodeChecks;
use super::files::is_unchanged;
use super::identities;
use super::links::LedTo;
use super::presence::RoleView;
use super::survey::{PlannedNode, Survey};

/// Bytes read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Most packages that are told by name.
const MAX_SHOWN: usize = 3;

/// An organization that has approved chaincode with a package has it on one of its peers at least: which of them endorse is its own choice.
pub(super) fn check_approved(survey: &Survey, checked: &[NodeChecks], found: &dyn Fn(Finding)) {
    let mut organizations: BTreeMap<&str, (Vec<&PlannedNode>, BTreeSet<&str>)> = BTreeMap::new();
    for (node, checked) in survey.nodes.iter().zip(checked).filter(|(node, _)| node.node.role == NodeRole::Peer) {
        let Some(msp_id) = node.node.msp_id.as_deref() else { continue };
        let (peers, approved) = organizations.entry(msp_id).or_default();
        peers.push(node);
        approved.extend(checked.heights.values().flat_map(|heights| &heights.approved).map(String::as_str));
    }
    let is_package = |path: &str| path.starts_with("lifecycle/chaincodes/") && path.ends_with(".tar.gz");
    for (msp_id, (peers, approved)) in organizations {
        let has_any = |node: &&PlannedNode| {
            RoleView::of(node, DirectoryRole::PeerData).files().any(|(_, path, _)| is_package(path))
        };
        if approved.is_empty() || peers.iter().any(has_any) {
            continue;
        }
        let more = approved.len().saturating_sub(MAX_SHOWN);
        let shown = approved.iter().take(MAX_SHOWN).copied().collect::<Vec<_>>().join(", ");
        let shown = if more > 0 { format!("{shown} (and {more} more)") } else { shown };
        for node in peers {
            let place = RoleView::of(node, DirectoryRole::PeerData).label_of("lifecycle/chaincodes");
            found(Finding::warning(
                Rule::NotPersistent,
                format!("{} {place}", node.node.id),
                format!(
                    "it contains no chaincode package, nor does that of any other captured peer of {msp_id}, although the organization has approved {shown}: none of these peers endorses"
                ),
                "no action is needed if other peers of the organization endorse; otherwise install the packages again, or take them from an earlier recovery point",
            ));
        }
    }
}

/// Checks the packages that are new since the last capture.
pub(super) fn check(node: &PlannedNode, writer: &PointWriter<'_>, options: &CaptureOptions, found: &dyn Fn(Finding)) {
    check_hashes(node, writer, options, found);
    check_legacy(node, writer, options, found);
}

/// A peer reads every file with a dot in its name in its folder of legacy packages, and does not start where one is no package.
fn check_legacy(node: &PlannedNode, writer: &PointWriter<'_>, options: &CaptureOptions, found: &dyn Fn(Finding)) {
    let view = RoleView::of(node, DirectoryRole::PeerData);
    for (directory, path, entry) in view.entries() {
        let Some(name) = path.strip_prefix("chaincodes/").filter(|name| !name.contains('/')) else { continue };
        if !name.contains('.') || entry.kind == EntryKind::Directory {
            continue;
        }
        let problem = match directory.led_to(entry) {
            LedTo::Nothing => "it is a link that leads to nothing".to_owned(),
            LedTo::Entry(at) if at.kind == EntryKind::Directory => "it is a link to a directory".to_owned(),
            _ => {
                if !options.reread && is_unchanged(writer, node, directory, entry) {
                    continue;
                }
                // A file that cannot be read has its finding where it is kept.
                let Some(bytes) = identities::read(directory, entry, MAX_LEGACY_PACKAGE_BYTES) else { continue };
                let Err(problem) = LegacyPackage::parse(&bytes) else { continue };
                problem.to_string()
            }
        };
        found(Finding::error(
            Rule::NotPersistent,
            format!("{} {}", node.node.id, view.label_of(path)),
            format!(
                "it is not a chaincode package ({problem}), and the peer does not start: it reads every file in this folder that has a dot in its name"
            ),
            OrLeaveOut(
                "move the file out of the folder; if it was a package, take it from another peer or an earlier recovery point",
            ),
        ));
    }
}

/// Checks the packages that have the hash of their content in their name.
fn check_hashes(node: &PlannedNode, writer: &PointWriter<'_>, options: &CaptureOptions, found: &dyn Fn(Finding)) {
    let view = RoleView::of(node, DirectoryRole::PeerData);
    for (directory, path, entry) in view.files() {
        let name = path.strip_prefix("lifecycle/chaincodes/").and_then(|name| name.strip_suffix(".tar.gz"));
        let Some((_, named)) = name.and_then(|name| name.rsplit_once('.')).filter(|(_, hash)| hash.len() == 64) else {
            continue;
        };
        if !options.reread && is_unchanged(writer, node, directory, entry) {
            continue;
        }
        let (volume, source) = directory.source(&entry.path);
        let hash = || -> std::io::Result<String> {
            let mut file = volume.open(source, 0..entry.stamp.size)?;
            let mut context = digest::Context::new(&digest::SHA256);
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hex::encode(context.finish().as_ref())),
                    read => context.update(&buffer[..read]),
                }
            }
        };
        // A file that cannot be read has its finding where it is kept.
        if let Ok(hash) = hash()
            && hash != named
        {
            found(Finding::error(
                Rule::NotPersistent,
                format!("{} {}", node.node.id, view.label_of(path)),
                format!(
                    "the chaincode package is truncated or was replaced: the hash of its content is {hash}, its name says {named}"
                ),
                OrLeaveOut(
                    "install the package again, or take the file from another peer or an earlier recovery point",
                ),
            ));
        }
    }
}
