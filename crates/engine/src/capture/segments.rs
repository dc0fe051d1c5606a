//! Segments: the headers and data of a channel in blobs of about [`SEGMENT_BYTES`]. Their boundaries depend only on the blocks, so that
//! every node of the channel yields the same segments.

use std::collections::VecDeque;

use fabkeep_ledger::Hash;
use fabkeep_store::{PointWriter, StoreError};
use parking_lot::Mutex;

use crate::point::Segment;
use fabkeep_parallel::Queue;

/// Bytes of header and data at which a segment ends.
const SEGMENT_BYTES: usize = 8 << 20;

/// A stored segment does not hold the blocks that the nodes hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredDiffers {
    /// The stored segment.
    pub segment: Segment,
    /// Header hash of its last block as the nodes have it, hex.
    pub found: String,
}

/// Results of the segments on their way into the repository, by position.
#[derive(Default)]
pub(crate) struct Results {
    segments: Mutex<Vec<Option<Segment>>>,
    error: Mutex<Option<StoreError>>,
}

impl Results {
    /// Returns every segment, in order, once the queue has ended.
    pub fn take(&self) -> Result<Vec<Segment>, StoreError> {
        if let Some(error) = self.error.lock().take() {
            return Err(error);
        }
        let segments = std::mem::take(&mut *self.segments.lock());
        Ok(segments.into_iter().flatten().collect())
    }

    pub fn failed(&self) -> bool {
        self.error.lock().is_some()
    }
}

/// Cuts blocks into segments, taking stored ones where the repository has them.
pub(crate) struct SegmentBuilder<'scope> {
    stored: VecDeque<Segment>,
    buffer: Vec<u8>,
    first: u64,
    count: u64,
    last: Option<Hash>,
    position: usize,
    writer: &'scope PointWriter<'scope>,
    results: &'scope Results,
    queue: Queue<'scope>,
}

impl<'scope> SegmentBuilder<'scope> {
    /// `stored`: the segments that the repository has, in order from the channel's first block; those below `start` are taken as
    /// they are, those above are compared as the walk passes their ends.
    pub fn new(
        stored: Vec<Segment>,
        start: u64,
        writer: &'scope PointWriter<'scope>,
        results: &'scope Results,
        queue: Queue<'scope>,
    ) -> Self {
        let mut builder = SegmentBuilder {
            stored: stored.into(),
            buffer: Vec::new(),
            first: start,
            count: 0,
            last: None,
            position: 0,
            writer,
            results,
            queue,
        };
        while let Some(segment) = builder.stored.pop_front_if(|segment| segment.end() <= start) {
            builder.finished(segment);
        }
        builder
    }

    fn finished(&mut self, segment: Segment) {
        let mut slots = self.results.segments.lock();
        let wanted = slots.len().max(self.position + 1);
        slots.resize(wanted, None);
        slots[self.position] = Some(segment);
        self.position += 1;
    }

    /// Takes the next block.
    pub fn push(&mut self, number: u64, canonical: &[u8], header_hash: Hash) -> Result<(), StoredDiffers> {
        if let Some(segment) = self.stored.front().filter(|segment| number < segment.end()) {
            if number + 1 == segment.end() {
                let found = hex::encode(header_hash);
                if found != segment.last_hash {
                    return Err(StoredDiffers { segment: segment.clone(), found });
                }
                if let Some(segment) = self.stored.pop_front() {
                    self.finished(segment);
                }
            }
            self.first = number + 1;
            return Ok(());
        }
        if self.count == 0 {
            self.first = number;
        }
        self.buffer.extend_from_slice(canonical);
        self.count += 1;
        self.last = Some(header_hash);
        if self.buffer.len() >= SEGMENT_BYTES {
            self.cut();
        }
        Ok(())
    }

    /// Returns the stored segment that the blocks so far end inside of, if they do.
    pub fn unfinished(&self) -> Option<Segment> {
        self.stored.front().cloned()
    }

    /// Hands the collected blocks over as a segment.
    pub fn cut(&mut self) {
        let Some(last) = self.last.take().filter(|_| self.count > 0) else { return };
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(SEGMENT_BYTES + (1 << 20)));
        let (first, count, position) = (self.first, self.count, self.position);
        self.position += 1;
        self.count = 0;
        self.first += count;
        let (writer, results) = (self.writer, self.results);
        self.queue.push(move || {
            let len = bytes.len() as u64;
            match writer.put_alone(bytes) {
                Ok(blob) => {
                    let segment = Segment { first, count, blob, bytes: len, last_hash: hex::encode(last) };
                    let mut slots = results.segments.lock();
                    let wanted = slots.len().max(position + 1);
                    slots.resize(wanted, None);
                    slots[position] = Some(segment);
                }
                Err(error) => {
                    results.error.lock().get_or_insert(error);
                }
            }
        });
    }
}
