//! The journal: what makes commits durable.
//!
//! Owns: files of groups, one generation a file; group frames; durable marks; recycling.
//! Not here: what a group means (`commit`), reading after a crash (`scan`), who syncs when.
//!
//! Invariants
//! - A group is written only after every group before it is synced, or is itself never
//!   acknowledged; its header carries a mark: up to where the journal was durable then.
//! - A file's name and space are durable before its first group is acknowledged.
//! - A generation is never used twice, so that bytes of a recycled file's former life are not
//!   taken for groups.

mod commit;
mod frame;
mod scan;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evert_env::{File, Files, OpenMode};

pub(crate) use commit::{Copy, JournalCommit, Payload};
pub(crate) use frame::Place;
use frame::{FRAME_ALIGN, HEADER_BYTES, Header};
pub(crate) use scan::{Group, scan};

/// Memory that is kept from group to group.
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// Files kept for their space once a checkpoint has passed them.
const SPARES_MAX: usize = 4;

/// The end of the journal that is written to.
pub(crate) struct Journal {
    files: Arc<dyn Files>,
    dir: PathBuf,
    file_bytes: u64,
    file: Option<Arc<dyn File>>,
    /// Where the next group goes.
    next: Place,
    /// Everything before is synced.
    durable: Place,
    /// The mark that the newest durable group, or mark alone, has put on disk.
    marked: Place,
    /// Generations whose files are free, oldest first.
    spares: Vec<u64>,
    /// Generations whose files hold groups after the last checkpoint, oldest first.
    live: Vec<u64>,
    buffer: Vec<u8>,
}

impl Journal {
    /// Writing starts in a new file, of `generation`; `spares` are older files.
    pub(crate) fn new(
        files: Arc<dyn Files>,
        dir: PathBuf,
        file_bytes: u64,
        generation: u64,
        spares: Vec<u64>,
    ) -> Self {
        let next = Place { generation, byte: 0 };
        Self {
            files,
            dir,
            file_bytes,
            file: None,
            next,
            durable: next,
            marked: next,
            spares,
            live: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Writes one group, without syncing it.
    pub(crate) fn write<'a>(
        &mut self,
        commits: impl Iterator<Item = &'a JournalCommit>,
    ) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        commits.for_each(|commit| commit.encode(&mut buffer));
        let outcome = self.write_frame(&mut buffer);
        // One huge group must not keep its memory for ever.
        buffer.shrink_to(BUFFER_BYTES_MAX);
        self.buffer = buffer;
        outcome
    }

    fn write_frame(&mut self, frame: &mut Vec<u8>) -> io::Result<()> {
        let payload_bytes = frame.len() - HEADER_BYTES;
        frame.resize(frame.len().next_multiple_of(FRAME_ALIGN), 0);
        let full = self.next.byte > 0 && self.next.byte + frame.len() as u64 > self.file_bytes;
        if full || self.file.is_none() {
            self.roll()?;
        }
        let header = Header {
            place: self.next,
            mark: self.durable,
            payload_bytes: u32::try_from(payload_bytes).map_err(io::Error::other)?,
        };
        header.write_to(frame);
        let file = self.file.as_ref().expect("a file was just opened");
        file.write_all_at(frame, self.next.byte)?;
        self.next.byte += frame.len() as u64;
        Ok(())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        self.marked = self.durable;
        self.durable = self.next;
        Ok(())
    }

    /// Whether the last groups are durable without a mark on disk that says so.
    pub(crate) fn needs_mark(&self) -> bool {
        self.marked != self.durable && self.file.is_some()
    }

    /// Writes and syncs the durable mark by itself: a group of no commits.
    pub(crate) fn write_mark(&mut self) -> io::Result<()> {
        self.write(std::iter::empty())?;
        self.sync()?;
        // The mark's own frame is nothing that could be lost.
        self.marked = self.durable;
        Ok(())
    }

    /// Where the next group goes; a group written before ends here at the latest.
    pub(crate) fn end(&self) -> Place {
        self.next
    }

    /// Frees the files that lie wholly before `start`, where a durable checkpoint begins.
    pub(crate) fn recycle(&mut self, start: Place) -> io::Result<()> {
        let keep = self.live.partition_point(|generation| *generation < start.generation);
        self.spares.extend(self.live.drain(..keep));
        while self.spares.len() > SPARES_MAX {
            let generation = self.spares.remove(0);
            self.files.remove(&file_path(&self.dir, generation))?;
        }
        Ok(())
    }

    fn roll(&mut self) -> io::Result<()> {
        let generation =
            if self.file.is_some() { self.next.generation + 1 } else { self.next.generation };
        let path = file_path(&self.dir, generation);
        let file = match self.spares.pop() {
            Some(spare) => {
                self.files.rename(&file_path(&self.dir, spare), &path)?;
                self.files.open(&path, OpenMode::Write)?
            }
            None => {
                let file = self.files.open(&path, OpenMode::CreateNew)?;
                file.allocate(self.file_bytes)?;
                file.sync_data()?;
                file
            }
        };
        self.files.sync_dir(&self.dir)?;
        self.file = Some(file);
        self.live.push(generation);
        self.next = Place { generation, byte: 0 };
        Ok(())
    }
}

pub(crate) fn file_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation:020}.journal"))
}

/// The generation that a file's name says, if it is a journal file's.
pub(crate) fn generation_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".journal")?.parse().ok()
}
