//! Key stores as Fabric's nodes and certificate authorities read them: files directly in the store's folder, the first PEM block of each, and
//! none of more than 64 KiB, except the one that has the key's identifier in its name (`<SKI>_sk`), which is read in place of all others (I5).

use fabkeep_ledger::certificate::{MAX_KEY_STORE_FILE_BYTES, block_before_key};
use fabkeep_ledger::layout::Place;
use fabkeep_ledger::sha256;
use fabkeep_platform::{EntryKind, VolumeEntry};

use super::links::LedTo;
use super::survey::{PlannedNode, SurveyedDirectory};
use crate::located::Located;

/// A file with a private key.
pub(super) struct KeyFile {
    pub at: Located,
    /// Its path, as messages name it.
    pub label: String,
    size: u64,
    /// What stands before the key in the file, if it is not the first block.
    before: Option<String>,
}

impl KeyFile {
    /// `number`: how many other private keys stand before it.
    pub fn new(at: Located, label: String, size: u64, bytes: &[u8], number: usize) -> Self {
        let before = block_before_key(bytes).or((number > 0).then(|| "another PRIVATE KEY".to_owned()));
        KeyFile { at, label, size, before }
    }
}

/// A key that is there, and that the node does not read.
pub(super) struct Unread {
    pub label: String,
    pub why: String,
}

/// Where a node looks for the keys of its certificates.
#[derive(Default)]
pub(super) enum KeyStores {
    /// In a place that only its configuration knows.
    #[default]
    Elsewhere,
    /// In the folder `keystore` beside that of the certificate.
    BesideCertificate {
        /// Folders that the configuration names as the key store (`BCCSP.SW.FileKeyStore.KeyStore`). Peers and orderers do not read that
        /// setting, and look beside the certificate.
        not_read: Vec<Located>,
    },
    /// In these folders.
    Folders(Vec<Located>),
}

impl KeyStores {
    /// Returns the file, among those with a key, in which the node finds it.
    pub fn find<'a>(
        &self,
        node: &PlannedNode,
        certificate: &Located,
        public_key: &[u8],
        files: &'a [KeyFile],
        named: Option<&Located>,
    ) -> Result<&'a KeyFile, Unread> {
        let by_name = format!("{}_sk", hex::encode(sha256(&[public_key])));
        let folders = self.folders(certificate);
        let stores: Vec<Store<'_>> = folders.iter().filter_map(|at| Store::of(node, at)).collect();
        let in_its_place = stores.iter().find_map(|store| Some((store.file(&by_name)?, store)));
        let mut unread = None;
        for file in files {
            let why = match (&file.before, in_its_place) {
                (Some(before), _) => {
                    Some(format!("the first PEM block in it is {before}, and the node reads no other block of a file"))
                }
                (None, _) if named == Some(&file.at) => None,
                (None, Some((at, store))) if *at != file.at => Some(format!(
                    "the node reads {}/{by_name} in its place, which does not contain this key",
                    store.path
                )),
                (None, Some(_)) => None,
                (None, None) if self.is_elsewhere(&file.at, &folders) => Some(
                    "peers and orderers do not read the setting BCCSP.SW.FileKeyStore.KeyStore, which names its folder: they look in the folder keystore of the MSP".to_owned(),
                ),
                (None, None) if stores.iter().any(|store| store.hides(&file.at)) => Some(
                    "the node reads files directly in the folder keystore, and none in folders below it".to_owned(),
                ),
                (None, None) if file.size > MAX_KEY_STORE_FILE_BYTES => {
                    Some("it has more than 64 KiB, and the node looks into smaller files alone".to_owned())
                }
                (None, None) => None,
            };
            match why {
                None => return Ok(file),
                Some(why) => unread = unread.or(Some(Unread { label: file.label.clone(), why })),
            }
        }
        Err(unread.unwrap_or(Unread { label: by_name, why: "it is not there".to_owned() }))
    }

    /// Whether a file is in a key store that the node does not read.
    fn is_elsewhere(&self, file: &Located, folders: &[Located]) -> bool {
        let KeyStores::BesideCertificate { not_read } = self else { return false };
        let is_in = |folder: &Located| {
            let rest = (file.0 == folder.0).then(|| file.1.strip_prefix(&folder.1)).flatten();
            rest.is_some_and(|rest| folder.1.is_empty() || rest.starts_with('/'))
        };
        not_read.iter().any(is_in) && !folders.iter().any(is_in)
    }

    fn folders(&self, certificate: &Located) -> Vec<Located> {
        match self {
            KeyStores::Elsewhere => Vec::new(),
            KeyStores::Folders(all) => all.clone(),
            KeyStores::BesideCertificate { .. } => {
                let folder = certificate.1.rsplit_once('/').map_or("", |(folder, _)| folder);
                let msp = folder.rsplit_once('/').map_or(String::new(), |(msp, _)| format!("{msp}/"));
                vec![(certificate.0, format!("{msp}keystore"))]
            }
        }
    }
}

/// A folder of keys: its files, and what the links in it lead to.
struct Store<'a> {
    at: &'a Located,
    path: String,
    /// Names, and where each file is.
    files: Vec<(&'a str, Located)>,
}

impl<'a> Store<'a> {
    /// Returns `None` where it is not known what the folder contains.
    fn of(node: &'a PlannedNode, at: &'a Located) -> Option<Self> {
        let directory: &SurveyedDirectory = node.directories.get(at.0)?;
        let is_folder = |(entry, _): &&(VolumeEntry, Place)| entry.path == at.1 && entry.kind == EntryKind::Directory;
        directory.entries.iter().find(is_folder)?;
        let below = format!("{}/", at.1);
        let mut files = Vec::new();
        for (entry, _) in &directory.entries {
            let Some(name) = entry.path.strip_prefix(&below).filter(|name| !name.contains('/')) else { continue };
            match directory.led_to(entry) {
                LedTo::Entry(file) if file.kind == EntryKind::File => files.push((name, (at.0, file.path.clone()))),
                LedTo::Outside => return None,
                LedTo::Entry(_) | LedTo::Nothing => {}
            }
        }
        Some(Store { at, path: format!("{}/{}", directory.directory.path.trim_end_matches('/'), at.1), files })
    }

    fn file(&self, name: &str) -> Option<&Located> {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, at)| at)
    }

    /// Whether a file lies in a folder below, and no link in the store leads to it.
    fn hides(&self, file: &Located) -> bool {
        let inside = (file.0 == self.at.0).then(|| file.1.strip_prefix(&self.at.1)?.strip_prefix('/')).flatten();
        inside.is_some_and(|inside| inside.contains('/')) && !self.files.iter().any(|(_, at)| at == file)
    }
}
