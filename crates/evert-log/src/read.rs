//! Reading by partition: fetches, ends, and finding records by time and by position.

use std::sync::Arc;

use bytes::Bytes;
use evert_model::{EncodedBatch, LogTime, Offset, PartitionId, Position, TimestampMs, TopicId};

use crate::ReadError;
use crate::core::{Core, Partition};
use crate::entry::{Body, Entry, Slot};
use crate::inner::Inner;
use crate::segment::{Cursor, Segment};

const SCAN_BYTES: usize = 256 << 10;
const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// What a fetch found.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, the first of which may begin before the offset asked for.
    pub batches: Vec<Bytes>,
    /// Everything below is durable and visible.
    pub high_watermark: Offset,
    /// The first offset that is still there.
    pub log_start: Offset,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    /// The first offset that is still there.
    pub log_start: Offset,
    /// Everything below is durable and visible.
    pub high_watermark: Offset,
}

impl Inner {
    pub(crate) fn fetch(
        &self,
        topic: TopicId,
        partition: PartitionId,
        offset: Offset,
        bytes_max: usize,
        memory_only: bool,
    ) -> Result<Option<Fetched>, ReadError> {
        let core = self.lock();
        let slot = slot(&core, topic, partition)?;
        let partition = core.partition(slot).expect("slots are of partitions");
        let (log_start, high_watermark) = (partition.log_start, partition.high_watermark);
        if offset < log_start || offset > high_watermark {
            return Err(ReadError::OutOfRange { offset, start: log_start, end: high_watermark });
        }
        let fetched = |batches| Ok(Some(Fetched { batches, high_watermark, log_start }));
        if offset == high_watermark {
            return fetched(Vec::new());
        }
        let mut taken = Taken { batches: Vec::new(), bytes_left: bytes_max };
        partition.in_memory(offset).all(|held| taken.take(&held.batch));
        if !taken.batches.is_empty() {
            return fetched(taken.batches);
        }
        if memory_only {
            return Ok(None);
        }
        let segment = self.segment(partition, offset)?;
        drop(core);
        let (mut cursor, _) = segment.seek(offset);
        loop {
            let batches = match segment.read(&mut cursor, bytes_max.min(SCAN_BYTES * 16)) {
                // What is good before a bad batch is handed out first.
                Err(_) if !taken.batches.is_empty() => return fetched(taken.batches),
                outcome => outcome?,
            };
            let past = batches.is_empty();
            let mut wanted = batches.iter().filter(|batch| batch.header().next_offset() > offset);
            let more = wanted.all(|batch| taken.take(batch));
            if past || !more {
                return fetched(taken.batches);
            }
        }
    }

    fn segment(&self, partition: &Partition, offset: Offset) -> Result<Arc<Segment>, ReadError> {
        let missing = "no segment holds an offset that the log has";
        let found = partition.segment_at(offset).map(Arc::clone);
        found.ok_or_else(|| ReadError::damaged(&self.dir.join("segments"), 0, missing))
    }

    pub(crate) fn partition_ends(
        &self,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<PartitionEnds, ReadError> {
        let core = self.lock();
        let slot = slot(&core, topic, partition)?;
        let partition = core.partition(slot).expect("slots are of partitions");
        let (log_start, high_watermark) = (partition.log_start, partition.high_watermark);
        Ok(PartitionEnds { log_start, high_watermark })
    }

    pub(crate) fn offset_for_timestamp(
        &self,
        topic: TopicId,
        partition: PartitionId,
        timestamp: TimestampMs,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        let (slot, mut offset, end) = {
            let core = self.lock();
            let slot = slot(&core, topic, partition)?;
            let partition = core.partition(slot).expect("slots are of partitions");
            (slot, partition.log_start, partition.high_watermark)
        };
        let start = offset;
        while offset < end {
            let found = match self.run_at(slot, topic, offset)? {
                Run::Memory(batches) => {
                    offset = batches.last().map_or(end, |batch| batch.header().next_offset());
                    first_in(&batches, timestamp, start)
                }
                Run::Disk(segment) => {
                    offset = segment.end();
                    first_in_segment(&segment, timestamp, start)?
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What holds `offset`: a segment if it is written, else memory.
    fn run_at(&self, slot: Slot, topic: TopicId, offset: Offset) -> Result<Run, ReadError> {
        let core = self.lock();
        let partition = core.partition(slot).ok_or(ReadError::UnknownTopic(topic))?;
        if let Some(segment) = partition.segment_at(offset) {
            return Ok(Run::Disk(Arc::clone(segment)));
        }
        let batches: Vec<_> = partition.in_memory(offset).map(|held| held.batch.clone()).collect();
        match batches.is_empty() {
            true => self.segment(partition, offset).map(Run::Disk),
            false => Ok(Run::Memory(batches)),
        }
    }

    pub(crate) fn position_of(
        &self,
        topic: TopicId,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<Position>, ReadError> {
        let (slot, hint) = {
            let core = self.lock();
            let slot = slot(&core, topic, partition)?;
            let partition = core.partition(slot).expect("slots are of partitions");
            if offset < partition.log_start || offset >= partition.high_watermark {
                return Ok(None);
            }
            if let Some(held) = partition.in_memory(offset).next() {
                return Ok(Some(held.position));
            }
            (slot, self.segment(partition, offset)?.seek(offset).1)
        };
        let mut after = Position::new(hint.get().saturating_sub(1));
        loop {
            let entries = self.entries_after(after, SCAN_BYTES)?;
            let Some(last) = entries.last() else { return Ok(None) };
            after = last.position;
            let holds = |entry: &&Arc<Entry>| match &entry.body {
                Body::Data(spans) => spans
                    .iter()
                    .any(|span| span.slot == slot && (span.first..span.end()).contains(&offset)),
                _ => false,
            };
            if let Some(entry) = entries.iter().find(holds) {
                return Ok(Some(entry.position));
            }
        }
    }

    /// The last durable commit whose log time is at or before `time`.
    pub(crate) fn position_at(&self, time: LogTime) -> Result<Option<Position>, ReadError> {
        // Log time never goes back, so the order can be searched like a sorted list.
        let (mut low, mut high) = (Position::ZERO, self.lock().end);
        while low < high {
            let middle = Position::new(low.get() + (high.get() - low.get()) / 2);
            match self.entries_after(middle, 1)?.first() {
                Some(entry) if entry.log_time <= time => low = entry.position.min(high),
                _ => high = middle,
            }
        }
        Ok((low > Position::ZERO).then_some(low))
    }

    /// Some of the durable entries after `after`, in order; none at the durable end.
    pub(crate) fn entries_after(
        &self,
        after: Position,
        count_max: usize,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        loop {
            if let Some(entries) = self.lock().entries_after(after) {
                return Ok(entries.take(count_max).map(Arc::clone).collect());
            }
            if let Some(entries) = self.order.read_after(after)? {
                return Ok(entries.into_iter().map(Arc::new).collect());
            }
            // Memory let go of them between the two looks, so the order's files have them now;
            // if they do not, the order lacks what the log has.
            if self.lock().entries_after(after).is_none() && self.order.read_after(after)?.is_none()
            {
                let missing = "the order lacks entries that the log has";
                return Err(ReadError::damaged(&self.dir.join("order"), 0, missing));
            }
        }
    }
}

enum Run {
    Memory(Vec<EncodedBatch>),
    Disk(Arc<Segment>),
}

/// Collects batches up to a size.
struct Taken {
    batches: Vec<Bytes>,
    bytes_left: usize,
}

impl Taken {
    /// Takes one more if it is the first or fits. Says whether it did.
    fn take(&mut self, batch: &EncodedBatch) -> bool {
        let bytes = batch.bytes().len();
        if !self.batches.is_empty() && bytes > self.bytes_left {
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.batches.push(batch.bytes().clone());
        true
    }
}

/// The partition that a door names.
fn slot(core: &Core, topic: TopicId, partition: PartitionId) -> Result<Slot, ReadError> {
    let number = core.number_of(topic).ok_or(ReadError::UnknownTopic(topic))?;
    let slot = Slot { topic: number, partition: partition.get() };
    match core.partition(slot) {
        Some(_) => Ok(slot),
        None => Err(ReadError::UnknownPartition(partition)),
    }
}

fn first_in_segment(
    segment: &Segment,
    timestamp: TimestampMs,
    start: Offset,
) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
    if segment.max_timestamp() < timestamp.get() {
        return Ok(None);
    }
    let mut cursor: Cursor = segment.seek_timestamp(timestamp.get());
    loop {
        let batches = segment.read(&mut cursor, SCAN_BYTES)?;
        let found = first_in(&batches, timestamp, start);
        if found.is_some() || batches.is_empty() {
            return Ok(found);
        }
    }
}

/// The first record at or after `timestamp`, not before `start`.
fn first_in(
    batches: &[EncodedBatch],
    timestamp: TimestampMs,
    start: Offset,
) -> Option<(Offset, TimestampMs)> {
    batches
        .iter()
        .filter(|batch| batch.header().max_timestamp >= timestamp)
        .find_map(|batch| first_record(batch, timestamp, start))
}

fn first_record(
    batch: &EncodedBatch,
    timestamp: TimestampMs,
    start: Offset,
) -> Option<(Offset, TimestampMs)> {
    // Nothing more can be said of a batch whose records cannot be read: it stands as a whole.
    let whole = (batch.header().base_offset.max(start), batch.header().max_timestamp);
    let Ok(payload) = batch.payload(PAYLOAD_BYTES_MAX) else { return Some(whole) };
    for record in batch.records(&payload) {
        let Ok(record) = record else { return Some(whole) };
        if record.offset >= start && record.timestamp >= timestamp {
            return Some((record.offset, record.timestamp));
        }
    }
    None
}
