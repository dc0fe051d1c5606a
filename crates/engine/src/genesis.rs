//! The genesis blocks of a recovery point's channels, in the form that `osnadmin channel join` and `peer channel join` accept.

use fabkeep_ledger::block::BlockSpan;
use fabkeep_ledger::proto::common;
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use prost::Message;

use crate::EngineError;
use crate::point::{Channel, Content, EntryContent, RecoveryPoint};
use crate::replay::Blocks;

/// Metadata slots of a block, and how many of them are the block's own from the beginning: peers and orderers add theirs after.
const SLOTS: usize = 5;
const OWN_SLOTS: usize = 2;

/// Each channel's genesis block; channels that begin later than at block 0 have none.
///
/// # Errors
/// [`EngineError`] when the recovery point cannot be read.
pub fn genesis_blocks(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    crate::contained::check_channels(&point)?;
    let mut out = Vec::new();
    for channel in point.channels.iter().filter(|channel| channel.first_block == 0 && channel.height > 0) {
        out.push((channel.name.clone(), genesis(&point, &reader, channel)?));
    }
    Ok(out)
}

fn genesis(point: &RecoveryPoint, reader: &PointReader<'_>, channel: &Channel) -> Result<Vec<u8>, EngineError> {
    let wrong =
        |problem: &str| EngineError::Point { point: format!("{} block 0", channel.name), problem: problem.to_owned() };
    let record = Blocks::new(reader, channel).record(0)?.ok_or_else(|| wrong("it cannot be read"))?;
    let span = BlockSpan::parse_canonical(&record, 0..record.len()).map_err(|error| wrong(&error.to_string()))?;
    // Any node's will do: nobody signs a genesis block.
    let parts = point.nodes.iter().flat_map(|node| &node.directories).flat_map(|directory| &directory.entries);
    let metadata = parts
        .filter_map(|entry| match &entry.content {
            EntryContent::File { parts, .. } => Some(parts),
            _ => None,
        })
        .flatten()
        .find_map(|part| match &part.content {
            Content::Blocks { channel: of, first: 0, metadata, .. } if *of == channel.name => Some(*metadata),
            _ => None,
        })
        .ok_or_else(|| wrong("no node has its metadata"))?;
    let metadata = reader.blob(&metadata)?;
    let slots = fabkeep_ledger::block::Slots::new(&metadata);
    let own = (0..OWN_SLOTS).map(|slot| slots.get(slot).to_vec());
    let others = std::iter::repeat_with(Vec::new);
    let block = common::Block {
        header: Some(common::BlockHeader {
            number: 0,
            previous_hash: Vec::new(),
            data_hash: record[span.data_hash.clone()].to_vec(),
        }),
        data: Some(common::BlockData { data: span.envelopes(&record).map(<[u8]>::to_vec).collect() }),
        metadata: Some(common::BlockMetadata { metadata: own.chain(others).take(SLOTS).collect() }),
    };
    Ok(block.encode_to_vec())
}
