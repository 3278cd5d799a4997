//! The budget: when state goes to the scratch file, and how much of that stays in memory.
//!
//! The process's memory is looked at now and then; between two looks large allocations are
//! counted, so that a state that grows by doubling does not pass the budget unseen.

use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::COUNTED_BYTES;
use super::arena::Arena;

/// While memory is far from the budget, it is looked at this often; near it, more often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_NEAR_EVERY: Duration = Duration::from_millis(10);
/// Pages leave memory in steps of this size.
const TRIM_BYTES: usize = 16 << 20;
/// The part of the budget that state may take outside the scratch file, with all else that the
/// process holds: the rest is for queries, and for pages of the file.
const HEAP_PART: u64 = 2;
/// At least this part of the budget is for pages of the file, whatever else is held.
const RESIDENT_PART: u64 = 8;

pub(super) struct Budget {
    memory_bytes: AtomicU64,
    /// Bytes of large allocations of the base allocator.
    counted: AtomicUsize,
    /// Bytes of small ones since the last look, less what was freed.
    small: AtomicIsize,
    /// So many of them may there be before state is spilled.
    counted_max: AtomicUsize,
    /// Whether an allocation could pass the budget at all.
    is_near: AtomicBool,
}

/// The process's memory, in bytes.
struct Held {
    /// Memory that has no file.
    anonymous: u64,
    /// Pages of files: the program's own, and the scratch file's.
    of_files: u64,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self {
            memory_bytes: AtomicU64::new(u64::MAX),
            counted: AtomicUsize::new(0),
            small: AtomicIsize::new(0),
            counted_max: AtomicUsize::new(usize::MAX),
            is_near: AtomicBool::new(false),
        }
    }

    pub(super) fn set(&self, memory_bytes: u64) {
        self.memory_bytes.store(memory_bytes, Ordering::Relaxed);
        self.look();
    }

    pub(super) fn is_near(&self) -> bool {
        self.is_near.load(Ordering::Relaxed)
    }

    pub(super) fn is_passed_by(&self, bytes: usize) -> bool {
        let large = if bytes >= COUNTED_BYTES { bytes } else { 0 };
        let counted = self.counted.load(Ordering::Relaxed);
        let small = self.small.load(Ordering::Relaxed).max(0) as usize;
        counted.saturating_add(large).saturating_add(small)
            > self.counted_max.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, bytes: usize) {
        self.counted.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn uncount(&self, bytes: usize) {
        self.counted.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Small allocations since the last look.
    pub(super) fn count_small(&self, bytes: isize) {
        let small = self.small.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let left = self.counted_max.load(Ordering::Relaxed);
        if small > 0 && small as usize >= left / 2 {
            self.is_near.store(true, Ordering::Relaxed);
        }
    }

    /// Looks for as long as the process runs, and takes pages of `arena` out of memory.
    pub(super) fn watch(&self, arena: &Arena) {
        let own = held().map_or(0, |held| held.of_files);
        loop {
            let near = self.look();
            if arena.spilled().disk_bytes > 0 {
                self.trim(arena, own);
            }
            std::thread::sleep(if near { LOOK_NEAR_EVERY } else { LOOK_EVERY });
        }
    }

    /// Sets how much may be allocated until the next look. Says whether that is little.
    fn look(&self) -> bool {
        self.small.store(0, Ordering::Relaxed);
        let Some(held) = held() else { return false };
        let budget = self.memory_bytes.load(Ordering::Relaxed);
        let counted = self.counted.load(Ordering::Relaxed);
        let others = held.anonymous.saturating_sub(counted as u64);
        let left = (budget / HEAP_PART).saturating_sub(others);
        self.counted_max.store(usize::try_from(left).unwrap_or(usize::MAX), Ordering::Relaxed);
        // An allocation may be as large as all that there is: a table that doubles.
        let near = held.anonymous >= budget / HEAP_PART / 2;
        self.is_near.store(near, Ordering::Relaxed);
        near
    }

    /// Takes pages of the scratch file out of memory until the rest is within the budget. `own`
    /// are the pages of other files.
    fn trim(&self, arena: &Arena, own: u64) {
        let budget = self.memory_bytes.load(Ordering::Relaxed);
        while let Some(held) = held() {
            let left = budget.saturating_sub(held.anonymous).max(budget / RESIDENT_PART);
            if held.of_files.saturating_sub(own) <= left || !arena.trim(TRIM_BYTES) {
                return;
            }
        }
    }
}

/// As the kernel counts.
fn held() -> Option<Held> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes_of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    let of_files = bytes_of("RssFile:")? + bytes_of("RssShmem:")?;
    Some(Held { anonymous: bytes_of("RssAnon:")?, of_files })
}
