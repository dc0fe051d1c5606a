//! Lists the blocks of a channel: the time and number of their transactions, and configuration updates. With this list a person finds the
//! height to go back to.

use fabkeep_ledger::channel_config::{envelope_header, is_config_block};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use jiff::Timestamp;
use serde::Serialize;

use crate::EngineError;
use crate::misuse::Misuse;
use crate::point::{Channel, RecoveryPoint};
use crate::replay::open_segment;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockSummary {
    /// Its number.
    pub number: u64,
    /// When its first transaction was made, by its client's clock.
    pub first: Option<Timestamp>,
    /// When its last transaction was made, by its client's clock.
    pub last: Option<Timestamp>,
    /// How many transactions it has.
    pub transactions: u64,
    /// Bytes of header and data.
    pub bytes: u64,
    /// Whether it holds a configuration of the channel.
    pub configuration: bool,
}

/// Goes through a channel's blocks in a recovery point, in order.
///
/// # Errors
/// [`EngineError::Usage`] without such a channel; [`EngineError`] when the recovery point cannot be read, and what `each` returns.
pub fn blocks<E: From<EngineError>>(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    channel: &str,
    each: &mut dyn FnMut(BlockSummary) -> Result<(), E>,
) -> Result<(), E> {
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity).map_err(EngineError::from)?;
    crate::contained::check_channels(&point)?;
    let channel = point.channel(channel).ok_or_else(|| {
        let known: Vec<&str> = point.channels.iter().map(|channel| channel.name.as_str()).collect();
        let problem = format!("the recovery point has no channel {channel}; it has {}", known.join(", "));
        EngineError::from(Misuse::new(problem))
    })?;
    of_channel(&reader, channel, each)
}

/// The same of an open recovery point.
pub(crate) fn of_channel<E: From<EngineError>>(
    reader: &PointReader<'_>,
    channel: &Channel,
    each: &mut dyn FnMut(BlockSummary) -> Result<(), E>,
) -> Result<(), E> {
    for segment in &channel.segments {
        let opened = open_segment(reader, &channel.name, segment)?;
        for span in &opened.spans {
            let times = span.envelopes(&opened.bytes).filter_map(|envelope| {
                let time = envelope_header(envelope)?.timestamp?;
                Timestamp::new(time.seconds, time.nanos).ok()
            });
            let (first, last) = times.fold((None::<Timestamp>, None::<Timestamp>), |(first, last), time| {
                (Some(first.map_or(time, |first| first.min(time))), Some(last.map_or(time, |last| last.max(time))))
            });
            each(BlockSummary {
                number: span.number,
                first,
                last,
                transactions: span.envelope_count,
                bytes: span.canonical.len() as u64,
                configuration: is_config_block(&opened.bytes, span),
            })?;
        }
    }
    Ok(())
}
