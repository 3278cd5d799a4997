//! The order: which commits there are and what each touched.
//!
//! Owns: its files, blocks and sparse index. Not here: what is still in memory alone (`core`).
//!
//! A file is a run of blocks, each of whole entries:
//! ```text
//!  0 magic "EVO1"      8 first position  24 payload bytes u32
//!  4 CRC-32C of 8..32 16 last position   28 CRC-32C of the payload
//! ```
//! Invariants
//! - Positions strictly increase from entry to entry, from block to block, from file to file.
//! - What a checkpoint covers is synced; anything after it is written again from the journal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use evert_env::{File, Files, OpenMode};
use evert_model::Position;

use crate::entry::{Entry, crc};
use crate::{OpenError, ReadError};

const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"EVO1";
/// A block is cut when its payload reaches this.
const BLOCK_BYTES: usize = 16 << 10;
const FILE_BYTES: u64 = 64 << 20;

/// What readers see of the order on disk. Shared.
#[derive(Default)]
pub(crate) struct OrderIndex {
    files: RwLock<Vec<Arc<OrderFile>>>,
}

struct OrderFile {
    path: PathBuf,
    file: Arc<dyn File>,
    first: Position,
    blocks: RwLock<Vec<Block>>,
}

#[derive(Clone, Copy)]
struct Block {
    first: Position,
    last: Position,
    byte: u64,
    payload_bytes: u32,
    payload_crc: u32,
}

impl OrderIndex {
    /// The entries of the first block that reaches past `after`, without those up to `after`;
    /// `None` if the files end before.
    pub(crate) fn read_after(&self, after: Position) -> Result<Option<Vec<Entry>>, ReadError> {
        let Some((file, block)) = self.find(after) else { return Ok(None) };
        let damaged = |what| ReadError::damaged(&file.path, block.byte, what);
        let mut payload = vec![0; block.payload_bytes as usize];
        let at = block.byte + HEADER_BYTES as u64;
        file.file.read_exact_at(&mut payload, at).map_err(ReadError::io(&file.path))?;
        if crc(&payload) != block.payload_crc {
            return Err(damaged("a block of the order fails its CRC"));
        }
        let (mut rest, mut entries) = (&payload[..], Vec::new());
        while !rest.is_empty() {
            let unknown = || damaged("a block of the order has unknown content");
            let entry = Entry::decode(&mut rest).ok_or_else(unknown)?;
            if entry.position > after {
                entries.push(entry);
            }
        }
        Ok(Some(entries))
    }

    fn find(&self, after: Position) -> Option<(Arc<OrderFile>, Block)> {
        let files = self.files.read().expect("no holder panics");
        // The file before the first that begins later may still reach past `after`.
        let from = files.partition_point(|file| file.first <= after).saturating_sub(1);
        files[from..].iter().find_map(|file| {
            let blocks = file.blocks.read().expect("no holder panics");
            let at = blocks.partition_point(|block| block.last <= after);
            blocks.get(at).map(|block| (Arc::clone(file), *block))
        })
    }
}

/// The writing end, and what a checkpoint records of it.
pub(crate) struct OrderWriter {
    files: Arc<dyn Files>,
    dir: PathBuf,
    index: Arc<OrderIndex>,
    listed: Vec<OrderFileSize>,
    payload: Vec<u8>,
    first: Position,
    last: Position,
    dirty: Vec<Arc<OrderFile>>,
    entries_changed: bool,
}

/// One file of the order as a checkpoint lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderFileSize {
    /// The position its name says.
    pub(crate) first: Position,
    pub(crate) bytes: u64,
}

impl OrderWriter {
    /// Opens the files that a checkpoint lists, as long as it says they are.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        dir: PathBuf,
        listed: Vec<OrderFileSize>,
        last: Position,
    ) -> Result<Self, OpenError> {
        let mut opened = Vec::new();
        for size in &listed {
            opened.push(Arc::new(open_file(&*files, &dir, *size)?));
        }
        let index = Arc::new(OrderIndex { files: RwLock::new(opened.clone()) });
        let dirty = opened.into_iter().collect();
        Ok(Self {
            files,
            dir,
            index,
            listed,
            payload: Vec::new(),
            first: last,
            last,
            // A cut file's length must be durable before it is relied upon.
            dirty,
            entries_changed: true,
        })
    }

    pub(crate) fn index(&self) -> Arc<OrderIndex> {
        Arc::clone(&self.index)
    }

    pub(crate) fn listed(&self) -> &[OrderFileSize] {
        &self.listed
    }

    /// Takes the next entry; writes a block when one is full. Returns the position up to which
    /// the order can be read from its files.
    pub(crate) fn push(&mut self, entry: &Entry) -> io::Result<Position> {
        assert!(entry.position > self.last, "positions increase");
        if self.payload.is_empty() {
            self.first = entry.position;
        }
        entry.encode(&mut self.payload);
        let written = self.written();
        self.last = entry.position;
        if self.payload.len() >= BLOCK_BYTES {
            return self.flush();
        }
        Ok(written)
    }

    fn written(&self) -> Position {
        match self.payload.is_empty() {
            true => self.last,
            false => Position::new(self.first.get() - 1),
        }
    }

    /// Writes what is left as a short block.
    pub(crate) fn flush(&mut self) -> io::Result<Position> {
        if self.payload.is_empty() {
            return Ok(self.last);
        }
        let full = self.listed.last().is_none_or(|size| size.bytes >= FILE_BYTES);
        if full {
            self.roll()?;
        }
        let file = {
            let files = self.index.files.read().expect("no holder panics");
            Arc::clone(files.last().expect("there is a file"))
        };
        let size = self.listed.last_mut().expect("there is a file");
        let block = Block {
            first: self.first,
            last: self.last,
            byte: size.bytes,
            payload_bytes: self.payload.len() as u32,
            payload_crc: crc(&self.payload),
        };
        let mut bytes = block.header().to_vec();
        bytes.extend_from_slice(&self.payload);
        file.file.write_all_at(&bytes, block.byte)?;
        size.bytes += bytes.len() as u64;
        file.blocks.write().expect("no holder panics").push(block);
        if !self.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, &file)) {
            self.dirty.push(file);
        }
        self.payload.clear();
        Ok(self.last)
    }

    fn roll(&mut self) -> io::Result<()> {
        let path = file_path(&self.dir, self.first);
        let file = create_over(&*self.files, &path)?;
        let file = OrderFile { path, file, first: self.first, blocks: RwLock::default() };
        self.index.files.write().expect("no holder panics").push(Arc::new(file));
        self.listed.push(OrderFileSize { first: self.first, bytes: 0 });
        self.entries_changed = true;
        Ok(())
    }

    /// Makes everything flushed durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        for file in &self.dirty {
            file.file.sync_data()?;
        }
        self.dirty.clear();
        if std::mem::take(&mut self.entries_changed) {
            self.files.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Whether a path in the order's directory is one of its files.
    pub(crate) fn owns(&self, path: &Path) -> bool {
        self.listed.iter().any(|size| file_path(&self.dir, size.first) == path)
    }
}

impl Block {
    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.last.get().to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        let header_crc = crc(&bytes[8..]);
        bytes[4..8].copy_from_slice(&header_crc.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8; HEADER_BYTES], byte: u64) -> Option<Self> {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        (bytes[0..4] == MAGIC && u32_at(4) == crc(&bytes[8..])).then(|| Self {
            first: Position::new(u64_at(8)),
            last: Position::new(u64_at(16)),
            byte,
            payload_bytes: u32_at(24),
            payload_crc: u32_at(28),
        })
    }
}

/// Opens a listed file, cuts what is not listed and reads its block headers.
fn open_file(files: &dyn Files, dir: &Path, size: OrderFileSize) -> Result<OrderFile, OpenError> {
    let path = file_path(dir, size.first);
    if !files.exists(&path).map_err(OpenError::io(&path))? {
        return Err(OpenError::damaged(&path, 0, "a file of the order is missing"));
    }
    let file = files.open(&path, OpenMode::Write).map_err(OpenError::io(&path))?;
    let length = file.len().map_err(OpenError::io(&path))?;
    if length < size.bytes {
        return Err(OpenError::damaged(&path, length, "a file of the order is cut short"));
    }
    if length > size.bytes {
        file.set_len(size.bytes).map_err(OpenError::io(&path))?;
    }
    let (mut blocks, mut at) = (Vec::new(), 0);
    let mut last = Position::new(size.first.get().saturating_sub(1));
    while at < size.bytes {
        let damaged = |what| OpenError::damaged(&path, at, what);
        let mut header = [0; HEADER_BYTES];
        if size.bytes - at < HEADER_BYTES as u64 {
            return Err(damaged("a block of the order is cut short"));
        }
        file.read_exact_at(&mut header, at).map_err(OpenError::io(&path))?;
        let block = Block::read(&header, at).ok_or_else(|| damaged("a bad block of the order"))?;
        let end = at + HEADER_BYTES as u64 + u64::from(block.payload_bytes);
        if end > size.bytes || block.first <= last || block.last < block.first {
            return Err(damaged("a block of the order contradicts its file"));
        }
        last = block.last;
        blocks.push(block);
        at = end;
    }
    Ok(OrderFile { path, file, first: size.first, blocks: RwLock::new(blocks) })
}

/// An empty file of this name, whatever a former life has left there.
pub(crate) fn create_over(files: &dyn Files, path: &Path) -> io::Result<Arc<dyn File>> {
    if files.exists(path)? {
        let file = files.open(path, OpenMode::Write)?;
        file.set_len(0)?;
        return Ok(file);
    }
    files.open(path, OpenMode::CreateNew)
}

fn file_path(dir: &Path, first: Position) -> PathBuf {
    dir.join(format!("{:020}.order", first.get()))
}
