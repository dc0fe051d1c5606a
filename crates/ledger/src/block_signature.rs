//! Block signatures: checks that the ordering service signed each block, by the configuration in force before it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use prost::Message;

use crate::block::{SLOT_LAST_CONFIG, SLOT_ORDERER, SLOT_SIGNATURES, SLOT_TRANSACTIONS_FILTER, Slots};
use crate::certificate::Certificate;
use crate::channel_config::BlockValidation;
use crate::policy::Signer;
use crate::proto::{common, etcdraft, msp};
use crate::{Hash, sha256};

/// Why a block's signatures are not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature metadata does not decode.
    #[error("its SIGNATURES metadata does not decode")]
    Decode,
    /// One signature is wrong.
    #[error("a signature of {signer} is wrong")]
    Wrong {
        /// Whose, as far as it can be read.
        signer: String,
    },
    /// The signatures are good and not enough.
    #[error("its {signatures} good signatures do not satisfy the channel's BlockValidation policy")]
    Policy {
        /// How many are good.
        signatures: usize,
    },
    /// The two places that name the last configuration block differ.
    #[error("its LAST_CONFIG metadata does not agree with its signed metadata")]
    LastConfig,
    /// The two places that hold the consenter's metadata differ.
    #[error("its ORDERER metadata does not agree with its signed metadata")]
    Orderer,
    /// Not one validation code for each transaction.
    #[error("it has {transactions} transactions and {codes} validation codes (TRANSACTIONS_FILTER)")]
    Filter {
        /// Transactions.
        transactions: u64,
        /// Codes.
        codes: usize,
    },
}

/// What an orderer's signature covers beside the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrdererMetadata {
    /// Number of the last configuration block, when named.
    pub last_config: Option<u64>,
    /// The raft index of the block's entry (etcdraft only).
    pub raft_index: Option<u64>,
}

/// Reads what the orderer wrote about a block, without checking signatures.
pub fn orderer_metadata(slots: Slots<'_>) -> OrdererMetadata {
    let Some(signed) = signed_metadata(slots) else { return OrdererMetadata::default() };
    OrdererMetadata {
        raft_index: raft_of(&signed).map(|raft| raft.raft_index),
        last_config: signed.last_config.map(|last| last.index),
    }
}

/// Reads what a raft orderer wrote about a block's entry: its index and the consenters after it.
pub fn raft_metadata(slots: Slots<'_>) -> Option<etcdraft::BlockMetadata> {
    raft_of(&signed_metadata(slots)?)
}

fn signed_metadata(slots: Slots<'_>) -> Option<common::OrdererBlockMetadata> {
    let metadata = common::Metadata::decode(slots.get(SLOT_SIGNATURES)).ok()?;
    common::OrdererBlockMetadata::decode(metadata.value.as_slice()).ok()
}

/// Unwraps the consenter's metadata, which is wrapped once more.
fn raft_of(signed: &common::OrdererBlockMetadata) -> Option<etcdraft::BlockMetadata> {
    let wrapped = common::Metadata::decode(signed.consenter_metadata.as_slice()).ok()?;
    let raft = etcdraft::BlockMetadata::decode(wrapped.value.as_slice()).ok()?;
    (raft.raft_index > 0).then_some(raft)
}

/// Checks signatures, remembering those it has seen: nodes that pulled a block from the same orderer hold the same signature,
/// and a signer's certificate needs parsing once.
#[derive(Debug, Default)]
pub struct SignatureChecker {
    good: Mutex<HashMap<Hash, ()>>,
    certificates: Mutex<HashMap<Vec<u8>, Option<Certificate>>>,
}

/// Most signatures remembered; then the memory is emptied.
const MAX_REMEMBERED: usize = 1 << 16;

impl SignatureChecker {
    /// Checks one block's signatures. `header` is the header in DER, `validation` the configuration in force before the block.
    /// Every signature present must be good, also those beyond what the policy needs: a flipped byte must not hide.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn check(&self, header: &[u8], slots: Slots<'_>, validation: &BlockValidation) -> Result<(), SignatureError> {
        let bytes = slots.get(SLOT_SIGNATURES);
        check_unsigned(slots)?;
        let together = sha256(&[header, bytes]);
        if self.good.lock().is_ok_and(|good| good.contains_key(&together)) {
            return Ok(());
        }
        let metadata = common::Metadata::decode(bytes).map_err(|_| SignatureError::Decode)?;
        if metadata.encode_to_vec() != bytes {
            return Err(SignatureError::Decode);
        }
        let mut signers = Vec::with_capacity(metadata.signatures.len());
        for signature in &metadata.signatures {
            let (identity_header, msp_id, pem) = identity_of(signature, validation).ok_or(SignatureError::Decode)?;
            let wrong = |signer: String| SignatureError::Wrong { signer };
            let certificate = self.certificate(&pem).ok_or_else(|| wrong(msp_id.clone()))?;
            let message = [metadata.value.as_slice(), identity_header, header].concat();
            if certificate.verify_message(&message, &signature.signature).is_err() {
                return Err(wrong(format!("{} ({msp_id})", certificate.summary().common_name)));
            }
            signers.push(Signer { msp_id, certificate });
        }
        // Two signatures of one signer count once.
        let mut seen = HashSet::new();
        signers.retain(|signer: &Signer| seen.insert((signer.msp_id.clone(), signer.certificate.der().to_vec())));
        if !validation.policy.is_satisfied_by(&signers, validation) {
            return Err(SignatureError::Policy { signatures: signers.len() });
        }
        if let Ok(mut good) = self.good.lock() {
            if good.len() >= MAX_REMEMBERED {
                good.clear();
            }
            good.insert(together, ());
        }
        Ok(())
    }

    fn certificate(&self, pem: &[u8]) -> Option<Certificate> {
        let mut known = self.certificates.lock().ok()?;
        if known.len() >= 4096 {
            known.clear();
        }
        known.entry(pem.to_vec()).or_insert_with(|| Certificate::from_pem(pem).ok()).clone()
    }
}

/// Returns the signed identity header of a signature, its MSP and its certificate (PEM).
fn identity_of<'a>(
    signature: &'a common::MetadataSignature,
    validation: &BlockValidation,
) -> Option<(&'a [u8], String, Vec<u8>)> {
    if signature.signature_header.is_empty() {
        let header = common::IdentifierHeader::decode(signature.identifier_header.as_slice()).ok()?;
        let (msp_id, pem) = validation.consenter_identities.get(&header.identifier)?;
        return Some((&signature.identifier_header, msp_id.clone(), pem.clone()));
    }
    let header = common::SignatureHeader::decode(signature.signature_header.as_slice()).ok()?;
    let identity = msp::SerializedIdentity::decode(header.creator.as_slice()).ok()?;
    Some((&signature.signature_header, identity.mspid, identity.id_bytes))
}

/// Checks the genesis block's metadata: nobody signs it, and it has one form.
///
/// # Errors
/// [`SignatureError`].
pub fn check_genesis(slots: Slots<'_>) -> Result<(), SignatureError> {
    let bytes = slots.get(SLOT_SIGNATURES);
    let metadata = common::Metadata::decode(bytes).map_err(|_| SignatureError::Decode)?;
    let value = common::OrdererBlockMetadata::decode(metadata.value.as_slice()).map_err(|_| SignatureError::Decode)?;
    let index = value.last_config.as_ref().map_or(0, |last| last.index);
    let canonical = common::Metadata { value: value.encode_to_vec(), signatures: metadata.signatures };
    if index != 0 || canonical.encode_to_vec() != bytes {
        return Err(SignatureError::Decode);
    }
    check_unsigned(slots)
}

/// Refuses a peer's block that does not have one validation code for each transaction.
///
/// # Errors
/// [`SignatureError::Filter`].
pub fn check_filter(slots: Slots<'_>, transactions: u64) -> Result<(), SignatureError> {
    let codes = slots.get(SLOT_TRANSACTIONS_FILTER).len();
    if codes as u64 == transactions { Ok(()) } else { Err(SignatureError::Filter { transactions, codes }) }
}

/// What no signature covers must agree with what one does.
fn check_unsigned(slots: Slots<'_>) -> Result<(), SignatureError> {
    check_last_config(slots)?;
    let orderer = slots.get(SLOT_ORDERER);
    if orderer.is_empty() {
        return Ok(());
    }
    let signed = common::Metadata::decode(slots.get(SLOT_SIGNATURES))
        .ok()
        .and_then(|metadata| common::OrdererBlockMetadata::decode(metadata.value.as_slice()).ok())
        .map(|value| value.consenter_metadata)
        .unwrap_or_default();
    // Before Fabric 2.0 it stood in its own slot only.
    if signed.is_empty() || signed == orderer { Ok(()) } else { Err(SignatureError::Orderer) }
}

/// The deprecated LAST_CONFIG slot is signed by nobody; where it is filled it must say what the signed metadata says.
fn check_last_config(slots: Slots<'_>) -> Result<(), SignatureError> {
    let bytes = slots.get(SLOT_LAST_CONFIG);
    if bytes.is_empty() {
        return Ok(());
    }
    let metadata = common::Metadata::decode(bytes).map_err(|_| SignatureError::LastConfig)?;
    let last = common::LastConfig::decode(metadata.value.as_slice()).map_err(|_| SignatureError::LastConfig)?;
    let canonical = common::Metadata { value: last.encode_to_vec(), signatures: metadata.signatures }.encode_to_vec();
    let signed = orderer_metadata(slots).last_config.unwrap_or(0);
    if canonical != bytes || last.index != signed {
        return Err(SignatureError::LastConfig);
    }
    Ok(())
}
