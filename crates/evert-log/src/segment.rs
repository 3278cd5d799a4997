//! Segments: the files that a partition's log is made of.
//!
//! Owns: one file of batches, its sparse index, reading and checking batches.
//! Not here: when segments are written (`behind`), which there are (`core`, `checkpoint`).
//!
//! Invariants
//! - Batches lie one after the other and their offsets leave no gap, so that a batch whose
//!   offset is not the expected one is damage, though offsets lie outside a batch's CRC.
//! - A segment that a large commit wrote counts its offsets from 0: where it would begin was
//!   not known then. Its base is added when a batch is read.
//! - The index is a cache. What is missing of it is read from the batches again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use evert_env::{File, Files, OpenMode};
use evert_model::{BatchHeader, EncodedBatch, HEADER_BYTES, Offset, Position, TopicId};

use crate::entry::crc;
use crate::order::create_over;
use crate::{OpenError, ReadError};

/// An index entry is made every so many bytes.
const INDEX_INTERVAL_BYTES: u64 = 4096;
/// What memory keeps of a sealed segment's index: an entry every so many bytes.
const SEALED_INTERVAL_BYTES: u64 = 64 << 10;
const INDEX_ENTRY_BYTES: usize = 36;
/// Reads ask for no less than this.
const READ_BYTES_MIN: usize = 64 << 10;

/// Names a segment, with its topic and partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SegmentName {
    /// Written behind the journal, from this offset on.
    Base(Offset),
    /// Written by a large commit.
    Copy(u64),
}

/// One segment as a checkpoint lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) name: SegmentName,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    pub(crate) first_position: Position,
    pub(crate) max_timestamp: i64,
}

pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    pub(crate) base: Offset,
    first_position: Position,
    path: PathBuf,
    file: Arc<dyn File>,
    bytes: AtomicU64,
    end: AtomicI64,
    max_timestamp: AtomicI64,
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    entries: Vec<IndexEntry>,
    /// How many of them the file holds.
    saved: usize,
    /// No more will come.
    is_sealed: bool,
}

impl Index {
    /// Lets go of what a longer read can make up for.
    fn thin(&mut self) {
        let mut next = 0;
        self.entries.retain(|entry| {
            let keep = entry.byte >= next;
            if keep {
                next = entry.byte + SEALED_INTERVAL_BYTES;
            }
            keep
        });
        self.entries.shrink_to_fit();
    }
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexEntry {
    /// Its base offset less the segment's.
    delta: i64,
    byte: u64,
    /// A commit at or before the batch's.
    position: Position,
    /// The largest timestamp of all batches before it.
    max_before: i64,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    pub(crate) byte: u64,
    pub(crate) offset: Offset,
}

impl Segment {
    /// A new, empty segment.
    pub(crate) fn create(
        files: &dyn Files,
        path: PathBuf,
        name: SegmentName,
        base: Offset,
        first_position: Position,
    ) -> io::Result<Self> {
        let file = create_over(files, &path)?;
        let info = SegmentInfo {
            name,
            base,
            end: base,
            bytes: 0,
            first_position,
            max_timestamp: i64::MIN,
        };
        Ok(Self::new(path, file, info))
    }

    fn new(path: PathBuf, file: Arc<dyn File>, info: SegmentInfo) -> Self {
        Self {
            name: info.name,
            base: info.base,
            first_position: info.first_position,
            path,
            file,
            bytes: AtomicU64::new(info.bytes),
            end: AtomicI64::new(info.end.get()),
            max_timestamp: AtomicI64::new(info.max_timestamp),
            index: RwLock::default(),
        }
    }

    /// Opens a segment that is known to hold what `info` says, and cuts what follows.
    pub(crate) fn open(
        files: &dyn Files,
        path: PathBuf,
        info: SegmentInfo,
    ) -> Result<Self, OpenError> {
        if !files.exists(&path).map_err(OpenError::io(&path))? {
            return Err(OpenError::damaged(&path, 0, "a segment is missing"));
        }
        let file = files.open(&path, OpenMode::Write).map_err(OpenError::io(&path))?;
        let length = file.len().map_err(OpenError::io(&path))?;
        if length < info.bytes {
            return Err(OpenError::damaged(&path, length, "a segment is cut short"));
        }
        if length > info.bytes {
            file.set_len(info.bytes).map_err(OpenError::io(&path))?;
        }
        let segment = Self::new(path, file, info);
        segment.load_index(files)?;
        Ok(segment)
    }

    pub(crate) fn info(&self) -> SegmentInfo {
        SegmentInfo {
            name: self.name,
            base: self.base,
            end: self.end(),
            bytes: self.bytes(),
            first_position: self.first_position,
            max_timestamp: self.max_timestamp(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) -> Offset {
        Offset::new(self.end.load(Ordering::Acquire))
    }

    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp.load(Ordering::Acquire)
    }

    /// Appends batches, which go on where the segment ends, with their commits' positions.
    /// `joined` is memory to use.
    pub(crate) fn append(
        &self,
        run: &[(EncodedBatch, Position)],
        joined: &mut Vec<u8>,
    ) -> io::Result<()> {
        let start = self.bytes();
        match run {
            [] => return Ok(()),
            [(batch, _)] => self.file.write_all_at(batch.bytes(), start)?,
            _ => {
                joined.clear();
                run.iter().for_each(|(batch, _)| joined.extend_from_slice(batch.bytes()));
                self.file.write_all_at(joined, start)?;
            }
        }
        for (batch, position) in run {
            self.took(batch.header(), *position);
        }
        Ok(())
    }

    /// Counts a batch that has been written at the end.
    fn took(&self, header: &BatchHeader, position: Position) {
        let byte = self.bytes();
        let max_before = self.max_timestamp();
        let mut index = self.index.write().expect("no holder panics");
        let due = index.entries.last().is_none_or(|last| byte - last.byte >= INDEX_INTERVAL_BYTES);
        if due {
            let delta = self.end().get() - self.base.get();
            index.entries.push(IndexEntry { delta, byte, position, max_before });
        }
        drop(index);
        self.max_timestamp.fetch_max(header.max_timestamp.get(), Ordering::AcqRel);
        // Whoever sees the new end must find its bytes.
        self.bytes.store(byte + header.total_bytes() as u64, Ordering::Release);
        self.end.fetch_add(header.offset_count(), Ordering::AcqRel);
    }

    /// Makes the batches and the index durable.
    pub(crate) fn sync(&self, files: &dyn Files) -> io::Result<()> {
        self.file.sync_data()?;
        self.save_index(files)
    }

    /// Nothing more is appended: what memory holds of its index becomes smaller, now if it
    /// `is_saved`, else once it is.
    pub(crate) fn seal(&self, is_saved: bool) {
        let mut index = self.index.write().expect("no holder panics");
        index.is_sealed = true;
        if is_saved {
            index.thin();
        }
    }

    /// The same file under the base that its large commit was given.
    pub(crate) fn adopted(self, base: Offset, first_position: Position) -> Self {
        let count = self.end().get() - self.base.get();
        let mut index = self.index.into_inner().expect("no holder panics");
        index.entries.iter_mut().for_each(|entry| entry.position = first_position);
        Self {
            base,
            first_position,
            end: AtomicI64::new(base.get() + count),
            index: RwLock::new(index),
            ..self
        }
    }

    /// The last indexed place at or before `offset`, and a commit at or before what lies there.
    pub(crate) fn seek(&self, offset: Offset) -> (Cursor, Position) {
        let delta = offset.get() - self.base.get();
        let index = self.index.read().expect("no holder panics");
        let at = index.entries.partition_point(|entry| entry.delta <= delta);
        match at.checked_sub(1).map(|at| index.entries[at]) {
            Some(entry) => {
                (Cursor { byte: entry.byte, offset: self.base.plus(entry.delta) }, entry.position)
            }
            None => (Cursor { byte: 0, offset: self.base }, self.first_position),
        }
    }

    /// A place such that no batch before it reaches `timestamp`.
    pub(crate) fn seek_timestamp(&self, timestamp: i64) -> Cursor {
        let index = self.index.read().expect("no holder panics");
        let at = index.entries.partition_point(|entry| entry.max_before < timestamp);
        match at.checked_sub(1).map(|at| index.entries[at]) {
            Some(entry) => Cursor { byte: entry.byte, offset: self.base.plus(entry.delta) },
            None => Cursor { byte: 0, offset: self.base },
        }
    }

    /// Whole batches from `cursor` on, which moves past them: at least one unless the segment
    /// ends, and about `bytes_max` bytes. Each one's CRC and offset are checked.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        bytes_max: usize,
    ) -> Result<Vec<EncodedBatch>, ReadError> {
        let mut want = bytes_max.max(READ_BYTES_MIN);
        loop {
            let left = self.bytes().saturating_sub(cursor.byte);
            if left == 0 {
                return Ok(Vec::new());
            }
            let mut buffer = vec![0; want.min(usize::try_from(left).unwrap_or(usize::MAX))];
            self.file.read_exact_at(&mut buffer, cursor.byte).map_err(ReadError::io(&self.path))?;
            let whole = self.fix_offsets(&mut buffer, *cursor, left)?;
            match whole {
                Whole::Bytes(bytes) => {
                    buffer.truncate(bytes);
                    return self.cut(Bytes::from(buffer), cursor);
                }
                Whole::FirstNeeds(bytes) => want = bytes,
            }
        }
    }

    /// Checks the offsets of the whole batches in `buffer` and patches those that count from 0.
    fn fix_offsets(
        &self,
        buffer: &mut [u8],
        cursor: Cursor,
        left: u64,
    ) -> Result<Whole, ReadError> {
        let shift = self.shift();
        let (mut at, mut expected) = (0, cursor.offset);
        while let Some(rest) = buffer.get_mut(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
            let damaged = |what| Err(ReadError::damaged(&self.path, cursor.byte + at as u64, what));
            let Ok(header) = BatchHeader::parse(rest) else {
                return damaged("a batch header that cannot be");
            };
            if header.base_offset.get().checked_add(shift) != Some(expected.get()) {
                return damaged("a batch at an offset it cannot have");
            }
            if header.leader_epoch != crate::LEADER_EPOCH {
                return damaged("a batch of a leader epoch that never was");
            }
            if header.total_bytes() as u64 > left - at as u64 {
                return damaged("a batch that runs past the end of its segment");
            }
            if header.total_bytes() > rest.len() {
                break;
            }
            rest[0..8].copy_from_slice(&expected.get().to_be_bytes());
            expected = expected.plus(header.offset_count());
            at += header.total_bytes();
        }
        if at > 0 {
            return Ok(Whole::Bytes(at));
        }
        match BatchHeader::parse(buffer) {
            Ok(header) => Ok(Whole::FirstNeeds(header.total_bytes())),
            Err(_) => Err(ReadError::damaged(&self.path, cursor.byte, "a batch cut short")),
        }
    }

    fn shift(&self) -> i64 {
        match self.name {
            SegmentName::Base(_) => 0,
            SegmentName::Copy(_) => self.base.get(),
        }
    }

    fn cut(&self, bytes: Bytes, cursor: &mut Cursor) -> Result<Vec<EncodedBatch>, ReadError> {
        let mut batches = Vec::new();
        for batch in evert_model::split_batches(bytes) {
            let Ok(batch) = batch else {
                let what = "a batch that fails its CRC";
                // The batches before it are good: they are handed out first.
                if !batches.is_empty() {
                    break;
                }
                return Err(ReadError::damaged(&self.path, cursor.byte, what));
            };
            cursor.byte += batch.bytes().len() as u64;
            cursor.offset = batch.header().next_offset();
            batches.push(batch);
        }
        Ok(batches)
    }

    fn index_path(&self) -> PathBuf {
        self.path.with_extension("index")
    }

    /// Writes and syncs the entries that are new.
    fn save_index(&self, files: &dyn Files) -> io::Result<()> {
        let mut index = self.index.write().expect("no holder panics");
        if index.saved >= index.entries.len() {
            if index.is_sealed {
                index.thin();
            }
            return Ok(());
        }
        let path = self.index_path();
        let file = match index.saved {
            0 => create_over(files, &path)?,
            _ => files.open(&path, OpenMode::Write)?,
        };
        let bytes: Vec<u8> =
            index.entries[index.saved..].iter().flat_map(IndexEntry::encode).collect();
        file.write_all_at(&bytes, (index.saved * INDEX_ENTRY_BYTES) as u64)?;
        // Entries of a former life, past these, would be taken for later ones.
        file.set_len((index.entries.len() * INDEX_ENTRY_BYTES) as u64)?;
        file.sync_data()?;
        index.saved = index.entries.len();
        if index.is_sealed {
            index.thin();
        }
        Ok(())
    }

    /// Reads the saved index as far as it is good, and the rest from the batches.
    fn load_index(&self, files: &dyn Files) -> Result<(), OpenError> {
        let entries = self.saved_entries(files).map_err(OpenError::io(&self.index_path()))?;
        let saved = entries.len();
        let (byte, delta, max) =
            entries.last().map_or((0, 0, i64::MIN), |e| (e.byte, e.delta, e.max_before));
        let (bytes, end) = (self.bytes(), self.end());
        let position = entries.last().map_or(self.first_position, |entry| entry.position);
        self.index.write().expect("no holder panics").entries = entries;
        self.bytes.store(byte, Ordering::Release);
        self.end.store(self.base.get() + delta, Ordering::Release);
        self.max_timestamp.store(max, Ordering::Release);
        while self.bytes() < bytes {
            let damaged = |what| OpenError::damaged(&self.path, self.bytes(), what);
            let mut fixed = [0; HEADER_BYTES];
            if bytes - self.bytes() < HEADER_BYTES as u64 {
                return Err(damaged("a batch cut short"));
            }
            self.file.read_exact_at(&mut fixed, self.bytes()).map_err(OpenError::io(&self.path))?;
            let Ok(header) = BatchHeader::parse(&fixed) else {
                return Err(damaged("a batch header that cannot be"));
            };
            if header.base_offset.get().checked_add(self.shift()) != Some(self.end().get()) {
                return Err(damaged("a batch at an offset it cannot have"));
            }
            self.took(&header, position);
        }
        if self.bytes() != bytes || self.end() != end {
            return Err(OpenError::damaged(&self.path, bytes, "a segment ends where it cannot"));
        }
        self.index.write().expect("no holder panics").saved = saved;
        Ok(())
    }

    fn saved_entries(&self, files: &dyn Files) -> io::Result<Vec<IndexEntry>> {
        let path = self.index_path();
        if !files.exists(&path)? {
            return Ok(Vec::new());
        }
        let file = files.open(&path, OpenMode::Read)?;
        let length = file.len()?.min(self.bytes() / INDEX_INTERVAL_BYTES * 40 + 40);
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let mut entries: Vec<IndexEntry> = Vec::new();
        let count = self.end().get() - self.base.get();
        for chunk in bytes.chunks_exact(INDEX_ENTRY_BYTES) {
            let Some(entry) = IndexEntry::decode(chunk) else { break };
            let follows = entries.last().is_none_or(|last| {
                entry.delta > last.delta
                    && entry.byte > last.byte
                    && entry.position >= last.position
            });
            if !follows || entry.byte >= self.bytes() || entry.delta >= count {
                break;
            }
            // A large commit's index was saved before its position was known.
            let position = entry.position.max(self.first_position);
            let entry = IndexEntry { position, ..entry };
            entries.push(entry);
        }
        Ok(entries)
    }
}

enum Whole {
    /// So many bytes are whole batches.
    Bytes(usize),
    /// Not even one is whole; the first takes so many bytes.
    FirstNeeds(usize),
}

impl IndexEntry {
    fn encode(&self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        bytes[0..8].copy_from_slice(&self.delta.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.byte.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.max_before.to_le_bytes());
        let checksum = crc(&bytes[..32]);
        bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let at = |at: usize| -> [u8; 8] { std::array::from_fn(|i| bytes[at + i]) };
        let stored = u32::from_le_bytes(std::array::from_fn(|i| bytes[32 + i]));
        (crc(&bytes[..32]) == stored).then(|| Self {
            delta: i64::from_le_bytes(at(0)),
            byte: u64::from_le_bytes(at(8)),
            position: Position::new(u64::from_le_bytes(at(16))),
            max_before: i64::from_le_bytes(at(24)),
        })
    }
}

/// The path of a segment: all lie in one directory, so that one sync makes their names durable.
pub(crate) fn segment_path(
    dir: &Path,
    topic: TopicId,
    partition: i32,
    name: SegmentName,
) -> PathBuf {
    let topic = topic.uuid();
    dir.join(match name {
        SegmentName::Base(base) => format!("{topic}.{partition}.{:020}.segment", base.get()),
        SegmentName::Copy(number) => format!("{topic}.{partition}.copy-{number:016x}.segment"),
    })
}
