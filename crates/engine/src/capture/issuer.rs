//! The keys of a certificate authority's idemix issuer: complete, readable, and belonging together (C5).

use fabkeep_ledger::ca_config::CaConfig;
use fabkeep_ledger::certificate::{MAX_PEM_BYTES, PrivateKey, private_keys, public_key_pem};
use fabkeep_ledger::idemix::{IssuerPublicKey, MAX_ISSUER_KEY_BYTES};
use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{Finding, Rule};

use super::identities::{BRING_BACK, read};
use super::presence::RoleView;
use super::survey::{PlannedNode, SurveyedDirectory};

const PUBLIC: &str = "IssuerPublicKey";
const SECRET: &str = "msp/keystore/IssuerSecretKey";
const REVOCATION_PUBLIC: &str = "IssuerRevocationPublicKey";
const REVOCATION_PRIVATE: &str = "msp/keystore/IssuerRevocationPrivateKey";
/// An issuer's files: they are made together at the CA's first start.
pub(super) const FILES: [&str; 4] = [PUBLIC, REVOCATION_PUBLIC, SECRET, REVOCATION_PRIVATE];

/// Bytes of an issuer's secret key.
const SECRET_BYTES: u64 = 32;

/// Checks the issuers of all of a server's certificate authorities. `config`: the server's own configuration.
pub(super) fn check(node: &PlannedNode, config: Option<&CaConfig>, found: &dyn Fn(Finding)) {
    let view = RoleView::of(node, DirectoryRole::CaHome);
    let there: Vec<&str> = FILES.into_iter().filter(|path| view.has_file(path)).collect();
    if !there.is_empty() {
        for path in FILES.iter().filter(|path| !there.contains(path)) {
            let what =
                "it is missing or empty, although the idemix issuer's other files exist: the issuer is incomplete";
            // Where keys are in a token, nothing of the key store may be in files.
            let token = config.and_then(|config| config.bccsp.token());
            let subject = format!("{} {}", node.node.id, view.label_of(path));
            found(match token {
                Some(_) => Finding::warning(Rule::CaKey, subject, what, BRING_BACK),
                None => Finding::error(Rule::CaKey, subject, what, BRING_BACK),
            });
        }
    }
    for &(directory, at) in &view.parts {
        Home { node, directory, at }.check(found);
    }
}

/// One authority's home.
struct Home<'a> {
    node: &'a PlannedNode,
    directory: &'a SurveyedDirectory,
    at: &'a str,
}

impl Home<'_> {
    fn path(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}/{name}", self.at) }
    }

    /// Returns a file's content; nothing of one that is missing or empty, which has its finding.
    fn file(&self, name: &str, most: u64) -> Option<Vec<u8>> {
        let path = self.path(name);
        let (entry, _) = self.directory.files(false).find(|(entry, _)| entry.path == path)?;
        read(self.directory, entry, most).filter(|bytes| !bytes.is_empty())
    }

    fn wrong(&self, name: &str, what: impl Into<String>) -> Finding {
        let root = self.directory.directory.path.trim_end_matches('/');
        Finding::error(Rule::CaKey, format!("{} {root}/{}", self.node.node.id, self.path(name)), what, BRING_BACK)
    }

    fn check(&self, found: &dyn Fn(Finding)) {
        let (public, secret) = (self.file(PUBLIC, MAX_ISSUER_KEY_BYTES), self.file(SECRET, MAX_PEM_BYTES));
        let whole = |secret: &Vec<u8>| (secret.len() as u64).is_multiple_of(SECRET_BYTES);
        if let Some(bytes) = secret.as_ref().filter(|bytes| !whole(bytes)) {
            let what = format!("it has {} bytes: an idemix issuer's secret key has {SECRET_BYTES}", bytes.len());
            found(self.wrong(SECRET, what));
        }
        match public.as_deref().map(IssuerPublicKey::read) {
            None => {}
            Some(Err(problem)) => {
                let what = format!(
                    "it is not a whole public key of an idemix issuer ({problem}): the CA does not start with it"
                );
                found(self.wrong(PUBLIC, what));
            }
            Some(Ok(key)) => {
                let fits = secret.filter(whole).and_then(|secret| key.belongs_to(&secret));
                if fits == Some(false) {
                    let what = format!(
                        "it does not belong to the idemix issuer's secret key ({SECRET}): nothing accepts the credentials that the CA issues with these two"
                    );
                    found(self.wrong(PUBLIC, what));
                }
            }
        }
        let (public, private) =
            (self.file(REVOCATION_PUBLIC, MAX_PEM_BYTES), self.file(REVOCATION_PRIVATE, MAX_PEM_BYTES));
        let damaged = "it is damaged or truncated: its PEM does not contain a key";
        let of_public = public.map(|text| public_key_pem(&text));
        if of_public == Some(None) {
            found(self.wrong(REVOCATION_PUBLIC, damaged));
        }
        match private.map(|text| private_keys(&text).into_iter().next()) {
            Some(None | Some(PrivateKey::Damaged(_) | PrivateKey::Encrypted)) => {
                found(self.wrong(REVOCATION_PRIVATE, damaged));
            }
            Some(Some(PrivateKey::Understood(key))) if matches!(&of_public, Some(Some(public)) if *public != key) => {
                let what = format!(
                    "it does not belong to the idemix issuer's revocation key ({REVOCATION_PRIVATE}): nothing accepts the CA's revocation information"
                );
                found(self.wrong(REVOCATION_PUBLIC, what));
            }
            _ => {}
        }
    }
}
