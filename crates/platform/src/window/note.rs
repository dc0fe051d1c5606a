//! Records of open windows in a cluster's ConfigMaps or beside an inventory. Somebody else may have written such a record: it is trusted
//! only with a signature of this machine's key, and it never contains a command.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use fabkeep_network::NodeId;
use serde::{Deserialize, Serialize};

use super::{Change, WindowRecord};
use crate::ObjectRef;

/// Prefix of the signed text, so that a signature over something else is not valid for a record.
const CONTEXT: &[u8] = b"fabkeep window note 2\n";
/// Longest first line of a note, in bytes.
const MAX_HEAD_BYTES: usize = 1024;

/// What is noted of windows in a place.
#[derive(Debug, Clone, Default)]
pub struct NotedWindows {
    /// The window that this machine opened.
    pub open: Option<WindowRecord>,
    /// Notes that this machine has not signed: nothing of them is undone.
    pub strange: Vec<StrangeNote>,
}

/// A note that this machine has not signed.
#[derive(Debug, Clone)]
pub struct StrangeNote {
    /// Its location, as named in messages.
    pub at: String,
    /// The namespace on a cluster; empty on hosts.
    pub namespace: String,
    /// Why it is not believed.
    pub problem: NoteProblem,
    /// What it says, if that can be read. It may say anything.
    pub says: Option<WindowRecord>,
    /// The command that removes it.
    pub removal: String,
}

/// Why a note is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteProblem {
    /// It has no signature: an older fabkeep wrote it, or somebody else.
    Unsigned,
    /// It is signed by another key.
    Foreign,
    /// Its signature does not fit its text.
    Altered,
    /// It was written for another place.
    OtherPlace,
    /// This machine has closed that window: its note was put there again.
    Over,
    /// It is not a note.
    NoNote,
    /// This machine's key cannot be used: what is wrong with it.
    Key(String),
}

impl std::fmt::Display for NoteProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoteProblem::Unsigned => f.write_str("it has no signature"),
            NoteProblem::Foreign => f.write_str("it is signed by a key of another machine"),
            NoteProblem::Altered => f.write_str("its signature does not match its text: it was altered"),
            NoteProblem::OtherPlace => f.write_str("this machine signed it for another network: it was copied here"),
            NoteProblem::Over => f.write_str("this machine has closed that window: its record was put back"),
            NoteProblem::NoNote => f.write_str("it is not the record of a window"),
            NoteProblem::Key(problem) => write!(f, "this machine's key cannot be used: {problem}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    fabkeep_window: u32,
    signer: String,
    signature: String,
}

/// What a note says: no command, and nothing that a window does not change.
#[derive(Serialize, Deserialize)]
struct Note {
    run: String,
    begun: String,
    by: String,
    /// The place that it was written for.
    place: Vec<String>,
    changes: Vec<NotedChange>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
enum NotedChange {
    Hook,
    Scale {
        #[serde(flatten)]
        workload: ObjectRef,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u32>,
    },
    Fence {
        namespace: String,
        policy: String,
    },
    Stop {
        node: NodeId,
        workload: Option<ObjectRef>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u32>,
    },
}

impl From<&Change> for NotedChange {
    fn from(change: &Change) -> Self {
        match change {
            Change::Hook(_) | Change::UnknownHook => NotedChange::Hook,
            Change::Scale { workload, replicas } => {
                NotedChange::Scale { workload: workload.clone(), replicas: *replicas }
            }
            Change::Fence { namespace, policy, .. } => {
                NotedChange::Fence { namespace: namespace.clone(), policy: policy.clone() }
            }
            Change::Stop { node, workload, replicas } => {
                NotedChange::Stop { node: node.clone(), workload: workload.clone(), replicas: *replicas }
            }
        }
    }
}

impl From<NotedChange> for Change {
    fn from(change: NotedChange) -> Self {
        match change {
            NotedChange::Hook => Change::UnknownHook,
            NotedChange::Scale { workload, replicas } => Change::Scale { workload, replicas },
            NotedChange::Fence { namespace, policy } => {
                Change::Fence { namespace, policy, object: serde_json::Value::Null }
            }
            NotedChange::Stop { node, workload, replicas } => Change::Stop { node, workload, replicas },
        }
    }
}

/// Returns the text of a note: a line with the signature, then what is signed.
pub(super) fn write(
    record: &WindowRecord,
    place: &[String],
    key: &Ed25519KeyPair,
) -> Result<String, serde_json::Error> {
    let note = Note {
        run: record.run.clone(),
        begun: record.begun.clone(),
        by: record.by.clone(),
        place: place.to_vec(),
        changes: record.changes.iter().map(NotedChange::from).collect(),
    };
    let text = serde_json::to_string_pretty(&note)?;
    let head = Head {
        fabkeep_window: 2,
        signer: hex::encode(key.public_key().as_ref()),
        signature: hex::encode(key.sign(&[CONTEXT, text.as_bytes()].concat()).as_ref()),
    };
    Ok(format!("{}\n{text}\n", serde_json::to_string(&head)?))
}

/// Reads a note: what it says when this key has signed it for this place, else why it is not believed and what it says.
pub(super) fn read(
    text: &str,
    key: Option<&Ed25519KeyPair>,
    fits: &dyn Fn(&[String]) -> bool,
) -> Result<WindowRecord, (NoteProblem, Option<WindowRecord>)> {
    let head = text.split_once('\n').filter(|(head, _)| head.len() <= MAX_HEAD_BYTES);
    let head = head.and_then(|(head, body)| Some((serde_json::from_str::<Head>(head).ok()?, body)));
    let Some((head, body)) = head else {
        // As older versions wrote it.
        return Err(match serde_json::from_str::<WindowRecord>(text) {
            Ok(record) => (NoteProblem::Unsigned, Some(record)),
            Err(_) => (NoteProblem::NoNote, None),
        });
    };
    let body = body.strip_suffix('\n').unwrap_or(body);
    let Ok(note) = serde_json::from_str::<Note>(body) else { return Err((NoteProblem::NoNote, None)) };
    let place = note.place;
    let changes = note.changes.into_iter().map(Change::from).collect();
    let says = WindowRecord { run: note.run, begun: note.begun, by: note.by, changes };
    let Some(key) = key else { return Err((NoteProblem::Foreign, Some(says))) };
    let own = key.public_key();
    if head.signer != hex::encode(own.as_ref()) {
        return Err((NoteProblem::Foreign, Some(says)));
    }
    let signed = [CONTEXT, body.as_bytes()].concat();
    let good = hex::decode(&head.signature)
        .is_ok_and(|signature| UnparsedPublicKey::new(&ED25519, own.as_ref()).verify(&signed, &signature).is_ok());
    if !good {
        return Err((NoteProblem::Altered, Some(says)));
    }
    if !fits(&place) {
        return Err((NoteProblem::OtherPlace, Some(says)));
    }
    Ok(says)
}
