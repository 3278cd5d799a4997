//! The traits of the world: what the rest of Evert may ask of it.
//!
//! Owns: the contract of each call, above all what is durable when.
//! Not here: any world. The real one is in `real`, the simulated one in `sim`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The world, handed to whatever needs it. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Files and directories.
    pub files: Arc<dyn Files>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing; an error if the name exists.
    CreateNew,
}

/// Files and directories. Every method may block.
pub trait Files: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its missing parents. Their entries are durable after `sync_dir`
    /// of each parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted; not the paths.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the directory's entries (creations, renames, removals) durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing what has the new name. Atomic for whoever looks meanwhile;
    /// durable after `sync_dir` of the directory, of both directories if it moves.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file unless something has the new name: an error of kind `AlreadyExists`. As
    /// atomic and as durable as `rename`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Those who have it open keep it until they close it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether the path exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Takes an exclusive lock named by `path` for as long as the result lives; an error of
    /// kind `WouldBlock` if another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// One open file. Methods may block and may be called from several threads.
pub trait File: Send + Sync {
    /// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`, growing the file as needed.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable (`fdatasync`), not its name.
    ///
    /// After an error nothing may be assumed of what was written since the last success: a
    /// later call may succeed although bytes were dropped.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space up to `bytes`, growing the file to that length if it is shorter. What was
    /// not written reads as zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Cuts the file, or extends it by zeros for which no space is reserved.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Time.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Microseconds since 1970-01-01 UTC by the machine's clock, which may jump.
    fn wall_micros(&self) -> i64;
}

/// Randomness.
pub trait Random: Send + Sync {
    /// Fills `buf` with random bytes.
    fn fill(&self, buf: &mut [u8]);
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}
