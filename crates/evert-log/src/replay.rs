//! Replay: the commits of the log in their one order, from memory and disk alike.

use std::collections::VecDeque;
use std::sync::Arc;

use evert_model::{EncodedBatch, LogTime, Offset, PartitionId, Position, TopicId};
use hashbrown::HashMap;

use crate::ReadError;
use crate::core::Core;
use crate::entry::{Body, Entry, Slot, Span};
use crate::inner::Inner;
use crate::segment::{Cursor, Segment};

/// Commits are taken from memory so many at a time.
const TAKE_COUNT: usize = 512;
const TAKE_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 512 << 10;
/// Partitions read ahead of from disk; past it all are let go of.
const READERS_MAX: usize = 128;

/// One commit, as replay yields it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its place in the order.
    pub position: Position,
    /// Its log time.
    pub log_time: LogTime,
    /// What it says.
    pub body: CommitBody,
}

/// What a commit says.
#[derive(Clone, Debug)]
pub enum CommitBody {
    /// Facts, in the order (topic, partition, offset), topics by their age. Batches of topics
    /// that are deleted by now are left out.
    Data(Vec<CommitPart>),
    /// Log time passed.
    TimeTick,
    /// The front of a partition was forgotten.
    Trim {
        /// The topic.
        topic: TopicId,
        /// The partition of the topic.
        partition: PartitionId,
        /// The first offset that is kept.
        log_start: Offset,
    },
}

/// One batch of a commit.
#[derive(Clone, Debug)]
pub struct CommitPart {
    /// The topic.
    pub topic: TopicId,
    /// The partition of the topic.
    pub partition: PartitionId,
    /// The records, at their offsets.
    pub batch: EncodedBatch,
}

/// Walks the order. Blocking: use it from a thread of its own.
pub struct Replay {
    inner: Arc<Inner>,
    /// The last commit that was taken over.
    after: Position,
    ready: VecDeque<Ready>,
    readers: HashMap<Slot, Reader>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("after", &self.after).finish_non_exhaustive()
    }
}

/// A commit to yield.
enum Ready {
    Whole(Commit),
    /// Its batches are to be read.
    Entry(Arc<Entry>),
}

/// Reading one partition's segments on.
struct Reader {
    segment: Arc<Segment>,
    cursor: Cursor,
    batches: VecDeque<EncodedBatch>,
}

impl Replay {
    pub(crate) fn new(inner: Arc<Inner>, from: Position) -> Self {
        Self { inner, after: from, ready: VecDeque::new(), readers: HashMap::new() }
    }

    /// The next durable commit, or `None` when the log's durable end is reached. It can be
    /// called again after more was appended.
    #[allow(clippy::should_implement_trait, reason = "an end that can move is no iterator's")]
    pub fn next(&mut self) -> Result<Option<Commit>, ReadError> {
        if self.ready.is_empty() {
            self.take_more()?;
        }
        match self.ready.front() {
            None => return Ok(None),
            Some(Ready::Whole(_)) => {}
            Some(Ready::Entry(entry)) => {
                // It stays in front until it is read, so that an error can be tried again.
                let entry = Arc::clone(entry);
                let commit = self.read(&entry)?;
                self.ready[0] = Ready::Whole(commit);
            }
        }
        match self.ready.pop_front() {
            Some(Ready::Whole(commit)) => Ok(Some(commit)),
            _ => unreachable!("the front was just made whole"),
        }
    }

    fn take_more(&mut self) -> Result<(), ReadError> {
        let inner = Arc::clone(&self.inner);
        let core = inner.lock();
        if self.after >= core.end {
            return Ok(());
        }
        if let Some(entries) = core.entries_after(self.after) {
            let mut bytes = 0;
            for entry in entries.take(TAKE_COUNT) {
                self.ready.push_back(match from_memory(&core, entry, &mut bytes) {
                    Some(commit) => Ready::Whole(commit),
                    None => Ready::Entry(Arc::clone(entry)),
                });
                self.after = entry.position;
                if bytes >= TAKE_BYTES {
                    break;
                }
            }
            return Ok(());
        }
        drop(core);
        let entries = self.inner.entries_after(self.after, TAKE_COUNT)?;
        self.after = entries.last().map_or(self.after, |entry| entry.position);
        self.ready.extend(entries.into_iter().map(Ready::Entry));
        Ok(())
    }

    fn read(&mut self, entry: &Entry) -> Result<Commit, ReadError> {
        let body = match &entry.body {
            Body::Data(spans) => {
                let mut parts = Vec::new();
                for span in spans {
                    self.read_span(*span, &mut parts)?;
                }
                CommitBody::Data(parts)
            }
            other => empty_body(&self.inner.lock(), other),
        };
        Ok(Commit { position: entry.position, log_time: entry.log_time, body })
    }

    fn read_span(&mut self, span: Span, parts: &mut Vec<CommitPart>) -> Result<(), ReadError> {
        let partition = PartitionId::new(span.slot.partition);
        let mut offset = span.first;
        while offset < span.end() {
            let Some((topic, batch)) = self.read_batch(span.slot, &mut offset)? else {
                return Ok(());
            };
            if batch.header().base_offset < span.first || batch.header().next_offset() > span.end()
            {
                let what = "a batch that crosses the border of its commit";
                return Err(ReadError::damaged(&self.inner.dir.join("segments"), 0, what));
            }
            parts.push(CommitPart { topic, partition, batch });
        }
        Ok(())
    }

    /// The batch at `offset`, which moves past it, or past what is trimmed; `None` if its topic
    /// is gone.
    fn read_batch(
        &mut self,
        slot: Slot,
        offset: &mut Offset,
    ) -> Result<Option<(TopicId, EncodedBatch)>, ReadError> {
        let inner = Arc::clone(&self.inner);
        let core = inner.lock();
        let Some(topic) = core.topic(slot.topic).map(|state| state.topic.id) else {
            self.readers.remove(&slot);
            return Ok(None);
        };
        let partition = core.partition(slot).expect("an entry's partition is its topic's");
        if let Some(held) = partition.in_memory(*offset).next() {
            *offset = held.batch.header().next_offset();
            return Ok(Some((topic, held.batch.clone())));
        }
        let segment = partition.segment_at(*offset).map(Arc::clone);
        drop(core);
        if let Some(batch) = self.readers.get_mut(&slot).and_then(|reader| reader.next(*offset)) {
            *offset = batch.header().next_offset();
            return Ok(Some((topic, batch)));
        }
        let Some(segment) = segment else {
            let missing = "no segment holds an offset that the order has";
            return Err(ReadError::damaged(&self.inner.dir.join("segments"), 0, missing));
        };
        let batch = self.read_ahead(slot, segment, *offset)?;
        *offset = batch.header().next_offset();
        Ok(Some((topic, batch)))
    }

    fn read_ahead(
        &mut self,
        slot: Slot,
        segment: Arc<Segment>,
        offset: Offset,
    ) -> Result<EncodedBatch, ReadError> {
        if self.readers.len() >= READERS_MAX {
            self.readers.clear();
        }
        let goes_on = |reader: &Reader| {
            Arc::ptr_eq(&reader.segment, &segment) && reader.cursor.offset == offset
        };
        let cursor = match self.readers.get(&slot).filter(|reader| goes_on(reader)) {
            Some(reader) => reader.cursor,
            None => segment.seek(offset).0,
        };
        let mut reader = Reader { segment, cursor, batches: VecDeque::new() };
        loop {
            let batches = reader.segment.read(&mut reader.cursor, READ_BYTES)?;
            if batches.is_empty() {
                let what = "a segment ends before its last offset";
                return Err(ReadError::damaged(reader.segment.path(), reader.cursor.byte, what));
            }
            reader.batches = batches.into();
            if let Some(batch) = reader.next(offset) {
                self.readers.insert(slot, reader);
                return Ok(batch);
            }
        }
    }
}

impl Reader {
    /// The batch that holds `offset`, if it has been read; those before it are let go of.
    fn next(&mut self, offset: Offset) -> Option<EncodedBatch> {
        while self.batches.front().is_some_and(|batch| batch.header().next_offset() <= offset) {
            self.batches.pop_front();
        }
        let holds = self.batches.front()?.header().base_offset <= offset;
        if holds { self.batches.pop_front() } else { None }
    }
}

/// The commit, if memory holds all its batches.
fn from_memory(core: &Core, entry: &Entry, bytes: &mut usize) -> Option<Commit> {
    let body = match &entry.body {
        Body::Data(spans) => {
            let mut parts = Vec::with_capacity(spans.len());
            for span in spans {
                let Some(state) = core.topic(span.slot.topic) else { continue };
                let (topic, partition) = (state.topic.id, PartitionId::new(span.slot.partition));
                let mut offset = span.first;
                for held in core.partition(span.slot)?.in_memory(span.first) {
                    if offset >= span.end() {
                        break;
                    }
                    offset = held.batch.header().next_offset();
                    *bytes += held.batch.bytes().len();
                    parts.push(CommitPart { topic, partition, batch: held.batch.clone() });
                }
                if offset < span.end() {
                    return None;
                }
            }
            CommitBody::Data(parts)
        }
        other => empty_body(core, other),
    };
    Some(Commit { position: entry.position, log_time: entry.log_time, body })
}

/// The body of a commit without facts. A trim of a deleted topic says nothing any more.
fn empty_body(core: &Core, body: &Body) -> CommitBody {
    match body {
        Body::Data(_) => CommitBody::Data(Vec::new()),
        Body::TimeTick => CommitBody::TimeTick,
        Body::Trim(span) => match core.topic(span.slot.topic) {
            None => CommitBody::Data(Vec::new()),
            Some(state) => CommitBody::Trim {
                topic: state.topic.id,
                partition: PartitionId::new(span.slot.partition),
                log_start: span.first,
            },
        },
    }
}
