//! Chaincode packages: the file name contains the hash of the content, so that a truncated or foreign package is recognised.

use std::io::Read;

use aws_lc_rs::digest;
use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{Finding, Rule};
use fabkeep_store::PointWriter;

use super::CaptureOptions;
use super::files::is_unchanged;
use super::presence::RoleView;
use super::survey::PlannedNode;

/// Bytes read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Checks the packages that are new since the last capture.
pub(super) fn check(node: &PlannedNode, writer: &PointWriter<'_>, options: &CaptureOptions, found: &dyn Fn(Finding)) {
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
                "install the package again, or take the file from another peer or an earlier recovery point; or leave the node out (--exclude)",
            ));
        }
    }
}
