//! Large commits: pending batches in files of their own, and a marker that gives them a place.
//!
//! Each partition's batches go to a new segment that counts its offsets from 0. The marker is
//! an ordinary commit that names the synced files: with it the segments take their place in
//! their partitions, and without it the next open removes them. Sequences of idempotent
//! producers are not checked here.

use std::collections::BTreeMap;
use std::sync::Arc;

use evert_model::{Offset, Position};

use crate::append::{Checked, GROUP_BYTES_MAX, Writer, still_there};
use crate::core::Pending;
use crate::entry::{Body, Entry, Slot, Span};
use crate::inner::Inner;
use crate::journal::{Copy, JournalCommit, Payload};
use crate::segment::{Segment, SegmentName, segment_path};
use crate::{AppendError, Appended, LEADER_EPOCH, NewCommit, NewPart, Receipt};

/// A commit too large for one frame: parts go in as pending, the marker makes them one commit.
/// Dropped without `commit`, it vanishes.
pub struct LargeCommit {
    inner: Arc<Inner>,
    /// What is small so far is kept, and becomes an ordinary commit if it stays so.
    parts: Vec<NewPart>,
    bytes: usize,
    files: BTreeMap<Slot, Spool>,
    /// Where each part went: its partition and its offset there, counted from 0.
    places: Vec<(Slot, i64)>,
    failed: bool,
}

impl std::fmt::Debug for LargeCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LargeCommit").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

struct Spool {
    part: Checked,
    segment: Segment,
    number: u64,
}

impl LargeCommit {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let (parts, files, places) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { inner, parts, bytes: 0, files, places, failed: false }
    }

    /// Adds a batch. Blocks while it is written.
    pub fn append(&mut self, part: NewPart) -> Result<(), AppendError> {
        self.bytes += part.batch.bytes().len();
        if self.files.is_empty() && self.bytes <= self.inner.config.large_memory_bytes {
            // Checked now, so that the caller learns of a bad part where it gave it.
            self.inner.check_parts(vec![part.clone()], Writer::Anyone)?;
            self.parts.push(part);
            return Ok(());
        }
        let mut parts = std::mem::take(&mut self.parts);
        parts.push(part);
        for checked in self.inner.check_parts(parts, Writer::Anyone)? {
            let outcome = self.spool(checked);
            self.failed |= outcome.is_err();
            outcome.map_err(|error| AppendError::Large(error.to_string()))?;
        }
        Ok(())
    }

    fn spool(&mut self, part: Checked) -> std::io::Result<()> {
        let inner = &self.inner;
        let slot = part.slot;
        let batch = part.batch.clone();
        let spool = match self.files.entry(slot) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let mut random = [0; 8];
                inner.env.random.fill(&mut random);
                let number = u64::from_le_bytes(random);
                let name = SegmentName::Copy(number);
                let dir = inner.dir.join("segments");
                let path = segment_path(&dir, part.topic, slot.partition, name);
                let files = &*inner.env.files;
                let base = Offset::new(0);
                let segment = Segment::create(files, path, name, base, Position::ZERO)?;
                vacant.insert(Spool { part, segment, number })
            }
        };
        let offset = spool.segment.end();
        self.places.push((slot, offset.get()));
        spool.segment.append(&[(batch.at(offset, LEADER_EPOCH), Position::ZERO)], &mut Vec::new())
    }

    /// Makes the parts one commit. Blocks until they are on disk; the receipt resolves when the
    /// marker is.
    pub fn commit(mut self) -> Result<Receipt, AppendError> {
        if self.failed {
            return Err(AppendError::Large("a part could not be written".to_owned()));
        }
        if self.files.is_empty() {
            let parts = std::mem::take(&mut self.parts);
            return self.inner.append(NewCommit { parts }, Writer::Anyone);
        }
        self.sync().map_err(|error| AppendError::Large(error.to_string()))?;
        let inner = Arc::clone(&self.inner);
        let mut core = inner.room_for(0)?;
        for spool in self.files.values() {
            still_there(&core, &spool.part)?;
        }
        let log_time = core.log_now(&*inner.env.clock);
        let position = core.assigned.next();
        core.assigned = position;
        let (mut spans, mut copies, mut segments) = (Vec::new(), Vec::new(), Vec::new());
        let mut bases = BTreeMap::new();
        for (slot, spool) in std::mem::take(&mut self.files) {
            let info = spool.segment.info();
            let partition = core.partition_mut(slot).expect("it was just checked");
            let (first, count) = (partition.next, info.end.get());
            partition.next = first.plus(count);
            bases.insert(slot, first);
            spans.push(Span { slot, first, count });
            let max_timestamp = info.max_timestamp;
            copies.push(Copy { number: spool.number, bytes: info.bytes, max_timestamp });
            segments.push(Arc::new(spool.segment.adopted(first, position)));
        }
        let entry = Entry { position, log_time, body: Body::Data(spans.into()) };
        let commit = JournalCommit { entry, payload: Payload::Copies(copies) };
        let done = core.enqueue(Pending { commit, segments }, GROUP_BYTES_MAX);
        drop(core);
        inner.journal_work.notify_one();
        let places = std::mem::take(&mut self.places);
        let base_offsets = places.iter().map(|(slot, at)| bases[slot].plus(*at)).collect();
        Ok(Receipt::new(Appended { position, log_time, base_offsets }, Some(done)))
    }

    /// Makes the pending files and their names durable.
    fn sync(&self) -> std::io::Result<()> {
        let files = &*self.inner.env.files;
        for spool in self.files.values() {
            spool.segment.sync(files)?;
        }
        files.sync_dir(&self.inner.dir.join("segments"))
    }
}

impl Drop for LargeCommit {
    fn drop(&mut self) {
        for spool in self.files.values() {
            let files = &self.inner.env.files;
            for path in [spool.segment.path().with_extension("index"), spool.segment.path().into()]
            {
                // What cannot be removed now is removed by the next open.
                if files.exists(&path).unwrap_or(false)
                    && let Err(error) = files.remove(&path)
                {
                    tracing::warn!(path = %path.display(), %error, "a vanished commit's file stays");
                }
            }
        }
    }
}
