//! Writing behind the journal: durable commits go into order and segments, and checkpoints
//! say how far that is synced.
//!
//! Owns: what is written and what a checkpoint holds; producers as of the last written commit.
//! Not here: what is durable (`core`), the formats (`order`, `segment`, `checkpoint`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use evert_model::{EncodedBatch, LogTime, Offset, Position, TopicId};

use crate::checkpoint::{Checkpoint, PartitionInfo};
use crate::core::{DurableGroup, Pending, slots_of};
use crate::entry::{Body, Slot};
use crate::inner::Inner;
use crate::journal::{Payload, Place};
use crate::order::OrderWriter;
use crate::producer::Producers;
use crate::segment::{Segment, SegmentName, segment_path};

/// One step moves at most about so much.
pub(crate) const STEP_BYTES_MAX: usize = 16 << 20;
/// Batches of one partition are joined up to this much.
const RUN_BYTES_MAX: usize = 1 << 20;
/// A producer that wrote nothing for so long is forgotten, as Kafka's default has it.
const PRODUCER_EXPIRY_MICROS: i64 = 24 * 3600 * 1_000_000;

pub(crate) struct Behind {
    pub(crate) order: OrderWriter,
    pub(crate) partitions: BTreeMap<Slot, PartitionLog>,
    pub(crate) position: Position,
    pub(crate) log_time: LogTime,
    /// Where the journal's first group lies that is not written yet.
    pub(crate) journal: Place,
    pub(crate) since_checkpoint: u64,
    pub(crate) failed: bool,
    /// When this life of the log began, in its own time.
    pub(crate) opened_at: Option<LogTime>,
    dirty: Vec<Arc<Segment>>,
    /// Partitions with batches that are gathered and not written.
    gathering: BTreeSet<Slot>,
    names_changed: bool,
    /// Memory for joining batches.
    joined: Vec<u8>,
    /// Files of deleted topics, to be removed once a checkpoint no longer lists them.
    doomed: Vec<PathBuf>,
}

/// One partition as it is on disk.
pub(crate) struct PartitionLog {
    topic: TopicId,
    segment_bytes: u64,
    log_start: Offset,
    next: Offset,
    segments: Vec<Arc<Segment>>,
    producers: Producers,
    run: Vec<(EncodedBatch, Position)>,
    run_bytes: usize,
}

impl PartitionLog {
    pub(crate) fn new(topic: TopicId, segment_bytes: u64) -> Self {
        Self {
            topic,
            segment_bytes,
            log_start: Offset::new(0),
            next: Offset::new(0),
            segments: Vec::new(),
            producers: Producers::default(),
            run: Vec::new(),
            run_bytes: 0,
        }
    }

    pub(crate) fn restored(
        info: &PartitionInfo,
        segments: Vec<Arc<Segment>>,
        segment_bytes: u64,
    ) -> Self {
        Self {
            log_start: info.log_start,
            next: info.next,
            segments,
            producers: info.producers.clone(),
            ..Self::new(info.topic, segment_bytes)
        }
    }

    /// The segment that can be appended to.
    fn active(&self) -> Option<&Arc<Segment>> {
        self.segments.last().filter(|segment| matches!(segment.name, SegmentName::Base(_)))
    }
}

impl Behind {
    pub(crate) fn new(order: OrderWriter, from: &Checkpoint) -> Self {
        Self {
            order,
            partitions: BTreeMap::new(),
            position: from.position,
            log_time: from.log_time,
            journal: from.journal,
            since_checkpoint: 0,
            failed: false,
            opened_at: None,
            dirty: Vec::new(),
            gathering: BTreeSet::new(),
            names_changed: false,
            joined: Vec::new(),
            doomed: Vec::new(),
        }
    }

    pub(crate) fn journal_start(&self) -> Place {
        self.journal
    }

    /// Writes some durable groups. Says whether there were any.
    pub(crate) fn step(&mut self, inner: &Inner) -> io::Result<bool> {
        let mut groups = Vec::new();
        let mut bytes = 0;
        {
            let mut core = inner.lock();
            while bytes < STEP_BYTES_MAX
                && let Some(group) = core.behind.pop_front()
            {
                bytes += group.bytes;
                groups.push(group);
            }
        }
        if groups.is_empty() {
            return Ok(false);
        }
        let mut ordered = self.position;
        for group in &groups {
            ordered = self.write_group(inner, group)?;
        }
        while let Some(slot) = self.gathering.first().copied() {
            self.flush_run(inner, slot)?;
        }
        let mut core = inner.lock();
        let position = self.position;
        let gone: Vec<u32> = core
            .gone
            .extract_if(.., |gone| gone.deleted_at <= position)
            .map(|g| g.number)
            .collect();
        core.unwritten_bytes = core.unwritten_bytes.saturating_sub(bytes);
        core.evict(self.position, ordered, inner.config.tail_bytes_max);
        drop(core);
        inner.room.notify_all();
        // What they held is let go of outside the lock.
        drop(groups);
        gone.into_iter().for_each(|number| self.forget_topic(inner, number));
        Ok(true)
    }

    fn write_group(&mut self, inner: &Inner, group: &DurableGroup) -> io::Result<Position> {
        let mut ordered = self.position;
        for pending in &group.commits {
            ordered = self.order.push(&pending.commit.entry)?;
            self.write_commit(inner, pending)?;
            self.position = pending.commit.entry.position;
            self.log_time = pending.commit.entry.log_time;
        }
        self.since_checkpoint += group.bytes as u64;
        self.journal = group.end;
        Ok(ordered)
    }

    fn write_commit(&mut self, inner: &Inner, pending: &Pending) -> io::Result<()> {
        let entry = &pending.commit.entry;
        match (&entry.body, &pending.commit.payload) {
            (Body::Data(spans), Payload::Inline(batches)) => {
                for (slot, batch) in slots_of(spans, batches) {
                    let Some(partition) = self.partition(inner, slot) else { continue };
                    partition.next = batch.header().next_offset();
                    partition.producers.take(batch.header(), entry.position, entry.log_time);
                    partition.run_bytes += batch.bytes().len();
                    partition.run.push((batch.clone(), entry.position));
                    let full = partition.run_bytes >= RUN_BYTES_MAX;
                    self.gathering.insert(slot);
                    if full {
                        self.flush_run(inner, slot)?;
                    }
                }
            }
            (Body::Data(spans), Payload::Copies(_)) => {
                for (span, segment) in spans.iter().zip(&pending.segments) {
                    self.flush_run(inner, span.slot)?;
                    let Some(partition) = self.partition(inner, span.slot) else { continue };
                    partition.next = span.end();
                    partition.segments.push(Arc::clone(segment));
                    // The batches are synced already; the index is not.
                    self.dirty.push(Arc::clone(segment));
                }
            }
            (Body::TimeTick, _) => {}
            (Body::Trim(span), _) => {
                if let Some(partition) = self.partition(inner, span.slot) {
                    partition.log_start = partition.log_start.max(span.first);
                }
            }
        }
        Ok(())
    }

    /// The partition, unless its topic was deleted before.
    fn partition(&mut self, inner: &Inner, slot: Slot) -> Option<&mut PartitionLog> {
        use std::collections::btree_map::Entry;
        match self.partitions.entry(slot) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(vacant) => {
                let (topic, bytes) = inner.lock().topic_files(slot.topic)?;
                let bytes = bytes.min(inner.config.segment_bytes_max);
                Some(vacant.insert(PartitionLog::new(topic, bytes)))
            }
        }
    }

    /// Writes what has been gathered for a partition, into new segments where one is full.
    fn flush_run(&mut self, inner: &Inner, slot: Slot) -> io::Result<()> {
        self.gathering.remove(&slot);
        let Some(partition) = self.partitions.get_mut(&slot) else { return Ok(()) };
        let run = std::mem::take(&mut partition.run);
        partition.run_bytes = 0;
        let mut rest = &run[..];
        while let Some((first, position)) = rest.first() {
            let room = partition
                .active()
                .map_or(0, |segment| partition.segment_bytes.saturating_sub(segment.bytes()));
            let mut count = fitting(rest, room);
            if count == 0 {
                partition.segments.last().into_iter().for_each(|full| full.seal(false));
                let base = first.header().base_offset;
                let name = SegmentName::Base(base);
                let dir = segments_dir(inner);
                let path = segment_path(&dir, partition.topic, slot.partition, name);
                let files = &*inner.env.files;
                let segment = Arc::new(Segment::create(files, path, name, base, *position)?);
                partition.segments.push(Arc::clone(&segment));
                inner.lock().add_segment(slot, segment);
                self.names_changed = true;
                // A batch larger than a segment has one to itself.
                count = fitting(rest, partition.segment_bytes).max(1);
            }
            let segment = partition.active().expect("there is one now");
            segment.append(&rest[..count], &mut self.joined)?;
            if !self.dirty.last().is_some_and(|last| Arc::ptr_eq(last, segment)) {
                self.dirty.push(Arc::clone(segment));
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    fn forget_topic(&mut self, inner: &Inner, number: u32) {
        let partitions = std::mem::take(&mut self.partitions);
        let (gone, kept) = partitions.into_iter().partition(|(slot, _)| slot.topic == number);
        self.partitions = kept;
        for segment in gone.into_values().flat_map(|partition: PartitionLog| partition.segments) {
            self.dirty.retain(|dirty| !Arc::ptr_eq(dirty, &segment));
            self.doomed.push(segment.path().to_path_buf());
            self.doomed.push(segment.path().with_extension("index"));
        }
        tracing::debug!(number, dir = %inner.dir.display(), "the topic's files go with the next checkpoint");
    }

    /// Syncs what is written and records it. `journal` is where the journal goes on, unless that
    /// is after the last group written.
    pub(crate) fn checkpoint(&mut self, inner: &Inner, journal: Option<Place>) -> io::Result<()> {
        let files = &*inner.env.files;
        self.order.flush()?;
        self.order.sync()?;
        // In the order of their names, so that a run under a seed repeats itself.
        self.dirty.sort_by(|a, b| a.path().cmp(b.path()));
        self.dirty.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for segment in &self.dirty {
            segment.sync(files)?;
        }
        self.dirty.clear();
        if std::mem::take(&mut self.names_changed) {
            files.sync_dir(&segments_dir(inner))?;
        }
        self.journal = journal.unwrap_or(self.journal);
        let cutoff = self.producer_cutoff();
        if let Some(cutoff) = cutoff {
            self.partitions.values_mut().for_each(|p| p.producers.forget_before(cutoff));
        }
        let created = {
            let mut core = inner.lock();
            cutoff.into_iter().for_each(|cutoff| core.forget_producers(cutoff));
            core.topics().map(|(number, state)| (number, state.topic.created_at)).collect()
        };
        let checkpoint = Checkpoint {
            id: inner.id,
            position: self.position,
            log_time: self.log_time,
            journal: self.journal,
            order: self.order.listed().to_vec(),
            created,
            partitions: self.partitions.iter().map(|(slot, p)| p.info(*slot)).collect(),
        };
        checkpoint.store(files, &inner.dir)?;
        self.since_checkpoint = 0;
        inner.lock().ordered(self.position);
        for path in self.doomed.drain(..) {
            // It goes at the next open if not now.
            if files.exists(&path)? {
                files.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Producers silent since then are forgotten. Time in which the log was not there does not
    /// count, nor does a clock that was set meanwhile: a producer may be waiting to repeat what
    /// was taken before.
    fn producer_cutoff(&self) -> Option<LogTime> {
        let cutoff = LogTime::new(self.log_time.get().saturating_sub(PRODUCER_EXPIRY_MICROS));
        self.opened_at.filter(|opened_at| *opened_at <= cutoff).map(|_| cutoff)
    }

    /// Whether a file in the directory of segments is one of this log's.
    pub(crate) fn owns(&self, path: &std::path::Path) -> bool {
        self.partitions
            .values()
            .flat_map(|partition| &partition.segments)
            .any(|segment| segment.path() == path || segment.path().with_extension("index") == path)
    }
}

impl PartitionLog {
    fn info(&self, slot: Slot) -> PartitionInfo {
        PartitionInfo {
            slot,
            topic: self.topic,
            log_start: self.log_start,
            next: self.next,
            segments: self.segments.iter().map(|segment| segment.info()).collect(),
            producers: self.producers.clone(),
        }
    }
}

/// How many batches from the front of `run` take no more than `room` bytes.
fn fitting(run: &[(EncodedBatch, Position)], room: u64) -> usize {
    let mut bytes = 0;
    run.iter()
        .take_while(|(batch, _)| {
            bytes += batch.bytes().len() as u64;
            bytes <= room
        })
        .count()
}

pub(crate) fn segments_dir(inner: &Inner) -> PathBuf {
    inner.dir.join("segments")
}
