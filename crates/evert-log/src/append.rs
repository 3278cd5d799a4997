//! Appending: what a commit must satisfy, which offsets and position it gets.

use std::sync::Arc;

use bytes::Bytes;
use evert_model::{
    BatchHeader, EncodedBatch, LogTime, Offset, PartitionId, Position, ProducerId, TopicId,
};
use hashbrown::HashMap;

use crate::config::Threads;
use crate::core::{Core, Pending};
use crate::entry::{Body, Entry, Slot, Span, crc};
use crate::inner::Inner;
use crate::journal::{JournalCommit, Payload};
use crate::producer::{self, Producer, Taken, Verdict};
use crate::settings::Settings;
use crate::topic::CATALOG_NUMBER;
use crate::{AppendError, Appended, LEADER_EPOCH, Receipt, Topic};

/// A commit's frame, and so what one sync waits for, stays below this.
const COMMIT_BYTES_MAX: usize = 256 << 20;
/// Appends that gather become a new group past this.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
const PAYLOAD_BYTES_MAX: usize = 256 << 20;
const LOG_APPEND_TIME_BIT: i16 = 1 << 3;

/// One atomic commit. Batches of one partition keep their order.
#[derive(Clone, Debug, Default)]
pub struct NewCommit {
    /// What it holds; none is a commit that only takes a position.
    pub parts: Vec<NewPart>,
}

/// A batch and where it goes.
#[derive(Clone, Debug)]
pub struct NewPart {
    /// The topic.
    pub topic: TopicId,
    /// The partition of the topic.
    pub partition: PartitionId,
    /// The records; their base offset is replaced.
    pub batch: EncodedBatch,
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Anyone: the log's own topics are closed.
    Anyone,
    /// The log itself.
    Log,
}

/// A part that has passed every check that needs no order.
pub(crate) struct Checked {
    pub(crate) slot: Slot,
    pub(crate) topic: TopicId,
    pub(crate) batch: EncodedBatch,
    pub(crate) buffered: bool,
}

impl Inner {
    pub(crate) fn append(&self, commit: NewCommit, writer: Writer) -> Result<Receipt, AppendError> {
        let parts = self.check_parts(commit.parts, writer)?;
        let bytes: usize = parts.iter().map(|part| part.batch.bytes().len()).sum();
        if bytes > COMMIT_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes, bytes_max: COMMIT_BYTES_MAX });
        }
        let mut core = self.room_for(bytes)?;
        for part in &parts {
            still_there(&core, part)?;
        }
        if let Some(receipt) = repeated(&core, &parts)? {
            return Ok(receipt);
        }
        let receipt = self.order(&mut core, parts);
        drop(core);
        self.journal_work.notify_one();
        Ok(receipt)
    }

    /// Appends a commit that says how far log time has come, and nothing else.
    pub(crate) fn append_time_tick(&self) -> Result<Receipt, AppendError> {
        let mut core = self.room_for(0)?;
        let log_time = core.log_now(&*self.env.clock);
        let position = core.assigned.next();
        core.assigned = position;
        let entry = Entry { position, log_time, body: Body::TimeTick };
        let commit = JournalCommit { entry, payload: Payload::Inline(Vec::new()) };
        let done = core.enqueue(Pending { commit, segments: Vec::new() }, GROUP_BYTES_MAX);
        drop(core);
        self.journal_work.notify_one();
        let appended = Appended { position, log_time, base_offsets: Vec::new() };
        Ok(Receipt::new(appended, Some(done)))
    }

    /// Checks parts by themselves, and copies what is shared so that it can be patched later
    /// without holding anyone up.
    pub(crate) fn check_parts(
        &self,
        parts: Vec<NewPart>,
        writer: Writer,
    ) -> Result<Vec<Checked>, AppendError> {
        let (targets, now) = {
            let mut core = self.lock();
            let targets = parts
                .iter()
                .map(|part| target(&core, part.topic, part.partition, writer))
                .collect::<Result<Vec<_>, _>>()?;
            (targets, core.log_now(&*self.env.clock))
        };
        parts
            .into_iter()
            .zip(targets)
            .map(|(part, target)| {
                let batch = self.check_batch(part.batch, &target, now)?;
                let buffered = target.settings.buffered;
                Ok(Checked { slot: target.slot, topic: part.topic, batch, buffered })
            })
            .collect()
    }

    fn check_batch(
        &self,
        batch: EncodedBatch,
        target: &Target,
        now: LogTime,
    ) -> Result<EncodedBatch, AppendError> {
        let bytes = batch.bytes().len();
        let bytes_max = target.settings.message_bytes_max.min(self.config.batch_bytes_max);
        if bytes > bytes_max {
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        if i64::from(batch.header().record_count) != batch.header().offset_count() {
            return Err(AppendError::Unreadable {
                topic: target.topic.name.clone(),
                why: "it counts other records than offsets".to_owned(),
            });
        }
        if target.settings.compacted {
            check_keys(&batch, &target.topic.name)?;
        }
        if target.settings.append_time {
            return stamp(&batch, now).ok_or_else(|| AppendError::Unreadable {
                topic: target.topic.name.clone(),
                why: "its header contradicts itself".to_owned(),
            });
        }
        // An offset that no batch has makes `at` copy unless the bytes are ours alone.
        Ok(batch.at(Offset::new(-1), LEADER_EPOCH))
    }

    /// Waits until so much more may be kept in memory.
    pub(crate) fn room_for(
        &self,
        bytes: usize,
    ) -> Result<std::sync::MutexGuard<'_, Core>, AppendError> {
        let mut core = self.lock();
        loop {
            if let Some(why) = &core.stopped {
                return Err(AppendError::Stopped(why.clone()));
            }
            if core.closing {
                return Err(AppendError::Stopped("it was closed".to_owned()));
            }
            let unwritten = core.unwritten_bytes;
            if unwritten == 0 || unwritten + bytes <= self.config.tail_bytes_max {
                return Ok(core);
            }
            match self.config.threads {
                Threads::Real => core = self.room.wait(core).expect("no holder panics"),
                Threads::Manual => {
                    drop(core);
                    self.pump();
                    core = self.lock();
                }
            }
        }
    }

    /// Gives the commit its place. From here on it is either durable in that place or never seen.
    fn order(&self, core: &mut Core, parts: Vec<Checked>) -> Receipt {
        let log_time = core.log_now(&*self.env.clock);
        let position = core.assigned.next();
        core.assigned = position;
        let buffered = !parts.is_empty() && parts.iter().all(|part| part.buffered);
        let mut base_offsets = vec![Offset::new(0); parts.len()];
        let mut indexed: Vec<_> = parts.into_iter().enumerate().collect();
        indexed.sort_by_key(|(_, part)| part.slot);
        let (mut spans, mut batches) = (Vec::<Span>::new(), Vec::with_capacity(indexed.len()));
        for (at, part) in indexed {
            let partition = core.partition_mut(part.slot).expect("it was just checked");
            let batch = part.batch.at(partition.next, LEADER_EPOCH);
            partition.next = batch.header().next_offset();
            partition.producers.take(batch.header(), position, log_time);
            base_offsets[at] = batch.header().base_offset;
            add_span(&mut spans, part.slot, batch.header());
            batches.push(batch);
        }
        let entry = Entry { position, log_time, body: Body::Data(spans.into()) };
        let commit = JournalCommit { entry, payload: Payload::Inline(batches) };
        let done = core.enqueue(Pending { commit, segments: Vec::new() }, GROUP_BYTES_MAX);
        let appended = Appended { position, log_time, base_offsets };
        Receipt::new(appended, (!buffered).then_some(done))
    }
}

fn add_span(spans: &mut Vec<Span>, slot: Slot, header: &BatchHeader) {
    match spans.last_mut().filter(|span| span.slot == slot) {
        Some(span) => span.count += header.offset_count(),
        None => {
            spans.push(Span { slot, first: header.base_offset, count: header.offset_count() });
        }
    }
}

struct Target {
    slot: Slot,
    settings: Settings,
    topic: Arc<Topic>,
}

fn target(
    core: &Core,
    topic: TopicId,
    partition: PartitionId,
    writer: Writer,
) -> Result<Target, AppendError> {
    let unknown = AppendError::UnknownTopic(topic);
    let Some(number) = core.number_of(topic) else { return Err(unknown) };
    let Some(state) = core.topic(number).filter(|state| !state.deleting) else {
        return Err(unknown);
    };
    if number == CATALOG_NUMBER && writer == Writer::Anyone {
        return Err(AppendError::Reserved(state.topic.name.clone()));
    }
    if !(0..state.topic.partitions).contains(&partition.get()) {
        return Err(AppendError::UnknownPartition { topic: state.topic.name.clone(), partition });
    }
    let slot = Slot { topic: number, partition: partition.get() };
    Ok(Target { slot, settings: state.settings, topic: Arc::clone(&state.topic) })
}

/// A topic may have been deleted since its part was checked.
pub(crate) fn still_there(core: &Core, part: &Checked) -> Result<(), AppendError> {
    match core.topic(part.slot.topic) {
        Some(state) if !state.deleting => Ok(()),
        _ => Err(AppendError::UnknownTopic(part.topic)),
    }
}

/// The receipt of a commit that was taken before; `None` if it is new.
fn repeated(core: &Core, parts: &[Checked]) -> Result<Option<Receipt>, AppendError> {
    let mut staged: HashMap<(Slot, ProducerId), Producer> = HashMap::new();
    let mut repeats: Vec<Taken> = Vec::new();
    for part in parts {
        let header = part.batch.header();
        if header.producer_id == ProducerId::NONE {
            continue;
        }
        let key = (part.slot, header.producer_id);
        let partition = core.partition(part.slot).expect("it was just checked");
        let known = staged.get(&key).or_else(|| partition.producers.0.get(&header.producer_id));
        match producer::check(known, header)? {
            Verdict::Repeated(taken) => repeats.push(taken),
            Verdict::New if parts.len() > 1 => {
                let known = known.cloned();
                let (position, time) = (Position::ZERO, LogTime::new(0));
                staged.insert(key, producer::taken(known, header, position, time));
            }
            Verdict::New => {}
        }
    }
    let Some(last) = repeats.iter().max_by_key(|taken| taken.position) else { return Ok(None) };
    if repeats.len() < parts.len() {
        // Half of the commit was taken before: as a whole it is neither new nor a repetition.
        let got = last.first_sequence;
        return Err(AppendError::OutOfOrderSequence { expected: last.last_sequence, got });
    }
    let appended = Appended {
        position: last.position,
        log_time: last.log_time,
        base_offsets: repeats.iter().map(|taken| taken.base_offset).collect(),
    };
    Ok(Some(Receipt::new(appended, core.done_of(last.position))))
}

fn check_keys(batch: &EncodedBatch, topic: &str) -> Result<(), AppendError> {
    let unreadable = |error: evert_model::BatchError| AppendError::Unreadable {
        topic: topic.to_owned(),
        why: error.to_string(),
    };
    let payload = batch.payload(PAYLOAD_BYTES_MAX).map_err(unreadable)?;
    for record in batch.records(&payload) {
        if record.map_err(unreadable)?.key.is_none() {
            return Err(AppendError::KeylessRecord(topic.to_owned()));
        }
    }
    Ok(())
}

/// The batch with the log's time as its timestamp: the header says so for all its records.
fn stamp(batch: &EncodedBatch, now: LogTime) -> Option<EncodedBatch> {
    let mut bytes = batch.bytes().to_vec();
    let attributes = batch.header().attributes | LOG_APPEND_TIME_BIT;
    bytes[0..8].copy_from_slice(&(-1i64).to_be_bytes());
    bytes[12..16].copy_from_slice(&LEADER_EPOCH.to_be_bytes());
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[35..43].copy_from_slice(&now.millis().to_be_bytes());
    let checksum = crc(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    EncodedBatch::new(Bytes::from(bytes)).ok()
}
