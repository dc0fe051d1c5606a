//! Hashes of private data in a block: what a peer's private-data store must contain, or may lack.

use crate::Hash;
use crate::block::{BlockSpan, SLOT_TRANSACTIONS_FILTER};
use crate::wire::{all, bytes as field};

/// The validation code of a transaction that counts.
const VALID: u8 = 0;

/// Private data of one collection that a transaction wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrivateWrite {
    /// The block.
    pub block: u64,
    /// The transaction's number in it.
    pub transaction: u64,
    /// The chaincode.
    pub chaincode: String,
    /// The collection.
    pub collection: String,
}

/// Chaincode, collection and hash of the private data that a transaction wrote. An envelope that is no transaction of a chaincode has none.
pub fn of_envelope(envelope: &[u8]) -> Vec<(String, String, Hash)> {
    let mut out = Vec::new();
    // Envelope.payload, Payload.data: a Transaction and its actions.
    let Some(transaction) = field(envelope, 1).and_then(|payload| field(payload, 2)) else { return out };
    for action in all(transaction, 1) {
        // ChaincodeActionPayload.action.proposal_response_payload, ProposalResponsePayload.extension, ChaincodeAction.results.
        let results = field(action, 2)
            .and_then(|payload| field(payload, 2))
            .and_then(|endorsed| field(endorsed, 1))
            .and_then(|response| field(response, 2))
            .and_then(|action| field(action, 1));
        for namespace in results.into_iter().flat_map(|results| all(results, 2)) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let chaincode = field(namespace, 1).map(text).unwrap_or_default();
            for hashed in all(namespace, 3) {
                let hash = field(hashed, 3).and_then(|hash| Hash::try_from(hash).ok());
                if let (Some(collection), Some(hash)) = (field(hashed, 1), hash) {
                    out.push((chaincode.clone(), text(collection), hash));
                }
            }
        }
    }
    out
}

/// Returns the private data that a block's valid transactions wrote, with its hashes. The block must be one of a peer's: orderers do not
/// validate.
pub fn of_block(block: &BlockSpan, buffer: &[u8]) -> Vec<(PrivateWrite, Hash)> {
    let codes = block.slots(buffer).get(SLOT_TRANSACTIONS_FILTER);
    let valid = (0..).zip(block.envelopes(buffer)).zip(codes).filter(|(_, code)| **code == VALID);
    valid
        .flat_map(|((transaction, envelope), _)| {
            of_envelope(envelope).into_iter().map(move |(chaincode, collection, hash)| {
                (PrivateWrite { block: block.number, transaction, chaincode, collection }, hash)
            })
        })
        .collect()
}

/// Returns the chaincode packages that an organization has approved, from what a private-data store holds of its implicit collection of
/// `_lifecycle` (a `CollectionPvtReadWriteSet`): `label:hash`. An approval without a package has none.
pub fn approved_packages(value: &[u8]) -> Vec<String> {
    let written = field(value, 2).unwrap_or_default();
    let of_source = |key: &[u8]| key.starts_with(b"chaincode-sources/fields/") && key.ends_with(b"/PackageID");
    let writes = all(written, 3).filter(|write| field(write, 1).is_some_and(of_source));
    // A StateData with a text.
    let ids = writes.filter_map(|write| field(field(write, 3)?, 3));
    ids.filter(|id| !id.is_empty()).map(|id| String::from_utf8_lossy(id).into_owned()).collect()
}

/// Returns the hash that a block has of private data, from what a private-data store holds of it (a `CollectionPvtReadWriteSet`).
pub fn of_stored(value: &[u8]) -> Option<Hash> {
    field(value, 2).map(|written| crate::sha256(&[written]))
}
