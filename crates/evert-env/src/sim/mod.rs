//! The simulated world: a disk in memory that tears, loses and fails, a clock that is set by
//! hand, and randomness from a seed.
//!
//! Owns: the handle by which a test plays fate ([`SimWorld`]).
//! Not here: what a crash keeps of a file (`content`) and of names (`tree`).
//!
//! Invariants
//! - The same seed and the same calls in the same order give the same world. Calls from
//!   several threads race for their order, as they would for a real disk.
//! - What a crash left behind is on the disk for good: a second crash does not lose it.
//! - Whatever was opened before a crash or a kill fails after it.

mod clock;
mod content;
mod fate;
mod files;
mod taste;
mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{SimClock, SimRandom, Time};
pub use fate::{Call, Mishap};
use files::{Disk, SimFiles};

use crate::Env;

/// Fate's end of a simulated world. Cheap to clone.
#[derive(Clone)]
pub struct SimWorld {
    disk: Arc<Mutex<Disk>>,
    time: Arc<Time>,
    random: Arc<SimRandom>,
}

impl Env {
    /// A simulated world: an empty disk, and the handle that makes things happen to it.
    pub fn simulated(seed: u64) -> (Self, SimWorld) {
        let world = SimWorld {
            disk: Arc::new(Mutex::new(Disk::new(seed))),
            time: Arc::new(Time::new()),
            random: Arc::new(SimRandom::new(seed)),
        };
        (world.env(), world)
    }
}

impl SimWorld {
    /// The world as it is seen from here until the next crash.
    pub fn env(&self) -> Env {
        Env {
            files: Arc::new(SimFiles::new(Arc::clone(&self.disk))),
            clock: Arc::new(SimClock::new(Arc::clone(&self.time))),
            random: self.random.clone(),
        }
    }

    /// Lets something happen at the `nth` call of a kind from now on, the next being the first.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn schedule(&self, call: Call, nth: u64, mishap: Mishap) {
        assert!(nth > 0, "the next call is the first");
        self.disk().fate.schedule(call, nth, mishap);
    }

    /// Drops what was scheduled and has not happened.
    pub fn clear_schedule(&self) {
        self.disk().fate.clear();
    }

    /// How many scheduled mishaps have not happened yet.
    pub fn scheduled(&self) -> usize {
        self.disk().fate.scheduled()
    }

    /// How many calls of a kind there were since the world began.
    pub fn count(&self, call: Call) -> u64 {
        self.disk().fate.count(call)
    }

    /// Cuts the power: every call fails until [`SimWorld::crash`].
    pub fn power_off(&self) {
        self.disk().fate.power_off();
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.disk().fate.is_off()
    }

    /// While the disk is full nothing can be created or grown. Space that a file already has
    /// can be written.
    pub fn set_disk_full(&self, full: bool) {
        self.disk().fate.set_disk_full(full);
    }

    /// Power failure and reboot: what was not synced is kept or lost as `seed` has it, and
    /// nothing is scheduled any more. Returns the world as the next process sees it.
    pub fn crash(&self, seed: u64) -> Env {
        self.disk().crash(seed);
        self.time.reboot();
        self.env()
    }

    /// Kills the process and leaves the machine running: what was opened is of no use any more,
    /// locks are free, and the page cache still shows everything that was written, synced or
    /// not. What is scheduled stays so. Returns the world as the next process sees it.
    pub fn kill(&self) -> Env {
        self.disk().kill();
        self.env()
    }

    /// An independent copy of the disk, as a crash that keeps everything would leave it.
    pub fn fork(&self, seed: u64) -> (Env, Self) {
        let world = Self {
            disk: Arc::new(Mutex::new(self.disk().fork(seed))),
            time: Arc::new(self.time.fork()),
            random: Arc::new(SimRandom::new(seed)),
        };
        (world.env(), world)
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.time.advance(by);
    }

    /// Sets the machine's clock forward or back.
    pub fn jump_wall(&self, micros: i64) {
        self.time.jump_wall(micros);
    }

    /// Every file there is, with its length in bytes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let disk = self.disk();
        let files = disk.tree.files().into_iter();
        files.map(|(path, content)| (path, content.live().len() as u64)).collect()
    }

    /// A file's bytes, past all faults.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        Ok(disk.tree.file(disk.tree.find(path)?)?.live().to_vec())
    }

    /// Rots a file: flips one bit of one byte, on the disk as well. Past the file's end nothing
    /// happens.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u32) -> io::Result<()> {
        let mut disk = self.disk();
        let id = disk.tree.find(path)?;
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        disk.tree.file_mut(id)?.flip_bit(byte, bit);
        Ok(())
    }

    /// Begins to write down each call, for [`SimWorld::take_trace`].
    pub fn trace(&self) {
        self.disk().trace = Some(Vec::new());
    }

    /// The calls since [`SimWorld::trace`] or since they were last taken, one a line.
    pub fn take_trace(&self) -> Vec<String> {
        self.disk().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWorld").field("files", &self.files()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
