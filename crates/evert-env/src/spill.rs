//! State beyond the memory budget: an allocator that, past the budget, gives memory that lies on
//! a scratch file.
//!
//! Threads that fold views say so ([`spills_here`]). What they allocate while the process holds
//! more than its budget comes from a file mapped into memory; what they held before stays where
//! it is. Pages of the file that are not in use leave memory again: the operating system writes
//! and reads them as they are needed. Every container of every operator can spill in this way, and
//! none of them knows.
//!
//! Owns: the scratch file, who gets memory from it, how much of it stays resident.
//! Not here: what the memory holds.
//!
//! Invariants
//! - Within the budget nothing is different: the base allocator serves everything.
//! - The file has no name and goes with the process: nothing is left to clean up.
//! - Blocks of the file are reserved on the disk before they are given out, so that a full disk
//!   is noticed here. Then memory comes from the base allocator, past the budget.

mod arena;
mod budget;
mod sizes;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::io;
use std::path::Path;

use arena::Arena;
use budget::Budget;

/// Allocations from this size on are counted one by one. Smaller ones are counted on the threads
/// that spill, in sums of about this size.
const COUNTED_BYTES: usize = 64 * 1024;

static ARENA: Arena = Arena::new();
static BUDGET: Budget = Budget::new();

thread_local! {
    static SPILLS: Cell<bool> = const { Cell::new(false) };
    /// Bytes of small allocations less what was freed, since they were last counted.
    static SMALL: Cell<isize> = const { Cell::new(0) };
}

/// While it lives, what this thread allocates may lie on the scratch file.
#[derive(Debug)]
pub struct SpillsHere {
    before: bool,
}

impl Drop for SpillsHere {
    fn drop(&mut self) {
        SPILLS.set(self.before);
    }
}

/// From here on this thread allocates state that may be large: what lies beyond the budget goes
/// to the scratch file. Until the guard is dropped.
#[must_use]
pub fn spills_here() -> SpillsHere {
    SpillsHere { before: SPILLS.replace(true) }
}

/// Keeps this thread from the arena, for what must not come from there.
fn stays_here() -> SpillsHere {
    SpillsHere { before: SPILLS.replace(false) }
}

/// What is spilled at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spilled {
    /// Bytes given out from the scratch file and not given back.
    pub bytes: u64,
    /// Bytes of the disk that it takes.
    pub disk_bytes: u64,
    /// Bytes that should have been spilled and were not, for want of disk.
    pub refused_bytes: u64,
}

/// Bounds the memory of this process by `memory_bytes`, as far as threads spill: `dir` gets the
/// scratch file. Takes effect in a program whose global allocator is a [`Spilling`]. A second
/// call changes the budget only.
///
/// # Errors
/// If the file cannot be made or mapped, or no thread can be started.
pub fn begin(dir: &Path, memory_bytes: u64) -> io::Result<()> {
    let _base = stays_here();
    BUDGET.set(memory_bytes);
    if ARENA.open(dir)? {
        let watch = std::thread::Builder::new().name("memory".into());
        watch.spawn(|| BUDGET.watch(&ARENA))?;
    }
    Ok(())
}

/// What is spilled now.
pub fn spilled() -> Spilled {
    ARENA.spilled()
}

/// Whether an allocation lies on the scratch file, by its address.
pub fn is_spilled(address: usize) -> bool {
    ARENA.contains(address)
}

/// An allocator that spills what threads allocate that said so, past the budget.
#[derive(Debug)]
pub struct Spilling<A> {
    base: A,
}

impl<A> Spilling<A> {
    /// Over the allocator that serves everything else.
    pub const fn over(base: A) -> Self {
        Self { base }
    }
}

/// Memory of the scratch file, if this thread is to have it.
fn from_arena(layout: Layout) -> Option<*mut u8> {
    // The first is false until the budget comes near: that is all that most allocations see.
    let wanted = BUDGET.is_near() && SPILLS.get() && BUDGET.is_passed_by(layout.size());
    if !wanted {
        return None;
    }
    let _base = stays_here();
    ARENA.allocate(layout)
}

/// The base allocator has given so many bytes.
fn allocated(bytes: usize) {
    if bytes >= COUNTED_BYTES {
        BUDGET.count(bytes);
    } else if SPILLS.get() {
        note_small(bytes as isize);
    }
}

/// The base allocator has so many bytes back.
fn freed(bytes: usize) {
    if bytes >= COUNTED_BYTES {
        BUDGET.uncount(bytes);
    } else if SPILLS.get() {
        note_small(-(bytes as isize));
    }
}

fn note_small(bytes: isize) {
    let sum = SMALL.get() + bytes;
    if sum.unsigned_abs() < COUNTED_BYTES {
        return SMALL.set(sum);
    }
    SMALL.set(0);
    BUDGET.count_small(sum);
}

// SAFETY: memory comes from the base allocator or from the arena, which gives each block to one
// caller at a time, of at least the layout's size and alignment. Where it came from is told by
// its address, so that it goes back there. The arena does not unwind and does not allocate from
// itself: this thread is kept from it meanwhile.
#[allow(unsafe_code)]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Spilling<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(block) = from_arena(layout) {
            return block;
        }
        // SAFETY: the caller's promises are the base's.
        let block = unsafe { self.base.alloc(layout) };
        if !block.is_null() {
            allocated(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(block) = from_arena(layout) {
            // SAFETY: the block is the caller's, and as long as the layout says.
            unsafe { block.write_bytes(0, layout.size()) };
            return block;
        }
        // SAFETY: the caller's promises are the base's.
        let block = unsafe { self.base.alloc_zeroed(layout) };
        if !block.is_null() {
            allocated(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if ARENA.contains(block as usize) {
            let _base = stays_here();
            ARENA.free(block, layout);
            return;
        }
        freed(layout.size());
        // SAFETY: it is not the arena's, so it is the base's.
        unsafe { self.base.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_spilled = ARENA.contains(block as usize);
        if is_spilled && ARENA.fits(layout, size) {
            return block;
        }
        let moves = is_spilled || (BUDGET.is_near() && size >= COUNTED_BYTES);
        if !moves {
            // SAFETY: the block is the base's.
            let new = unsafe { self.base.realloc(block, layout, size) };
            if !new.is_null() {
                freed(layout.size());
                allocated(size);
            }
            return new;
        }
        // SAFETY: the caller promises that the size does not overflow when it is aligned.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: a layout of the caller's, of another size.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both are as long as what is copied, and the new one is nobody else's.
            unsafe { new.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: the block is the caller's, with this layout.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}
