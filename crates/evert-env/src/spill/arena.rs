//! The arena: a scratch file, mapped into memory, and the blocks that are given out of it.
//!
//! Large blocks are places of the file, kept in lists by size. Small ones are parts of slabs,
//! each list running through the free blocks themselves.
//!
//! Invariants
//! - A block is in a list or given out, never both.
//! - A block that is given out has its place on the disk.

use std::alloc::Layout;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Spilled;
use super::sizes::{ALIGN_MAX, CLASSES, LARGE_BYTES, bytes_of, class_of, slab_bytes};

/// Addresses that are reserved, largest first: where the file system or a limit forbids one, the
/// next is tried.
const RESERVED_BYTES: [usize; 3] = [1 << 40, 1 << 36, 1 << 33];
/// The file grows by so much.
const GROWTH_BYTES: usize = 4 << 20;
/// Free blocks from this size on give their place on the disk back.
const PUNCHED_BYTES: usize = 1 << 20;
/// Large blocks lie at multiples of this, which every alignment that is served divides.
const PLACE_BYTES: usize = ALIGN_MAX;

pub(super) struct Arena {
    start: AtomicUsize,
    end: AtomicUsize,
    inner: Mutex<Inner>,
    bytes: AtomicU64,
    disk_bytes: AtomicU64,
    refused_bytes: AtomicU64,
}

struct Inner {
    mapped: Option<Mapped>,
    /// Where blocks begin in the file.
    first: usize,
    /// From here on nothing was ever given out.
    fresh: usize,
    /// Up to here the file has its place on the disk, but for what was given back.
    backed: usize,
    large: [Vec<Free>; CLASSES],
    small: [Slab; CLASSES],
    /// Where trimming goes on.
    hand: usize,
}

struct Mapped {
    file: File,
    map: MmapRaw,
}

/// A large block that is not given out.
#[derive(Clone, Copy)]
struct Free {
    at: usize,
    is_backed: bool,
}

/// Small blocks of one size.
#[derive(Clone, Copy)]
struct Slab {
    /// Address of the first free block, which holds that of the next; 0: none.
    free: usize,
    /// What is left of the newest slab: addresses.
    next: usize,
    end: usize,
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            inner: Mutex::new(Inner {
                mapped: None,
                first: 0,
                fresh: 0,
                backed: 0,
                large: [const { Vec::new() }; CLASSES],
                small: [Slab { free: 0, next: 0, end: 0 }; CLASSES],
                hand: 0,
            }),
            bytes: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(0),
            refused_bytes: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the file in `dir`, and says whether it was made: false if there is one.
    pub(super) fn open(&self, dir: &Path) -> io::Result<bool> {
        let mut inner = self.lock();
        if inner.mapped.is_some() {
            return Ok(false);
        }
        let (file, map) = mapped(dir)?;
        // Who looks for a group by its key gains nothing from its neighbours.
        map.advise(Advice::Random)?;
        let start = map.as_mut_ptr() as usize;
        // The mapping begins at a page, and pages are small.
        let first = start.next_multiple_of(PLACE_BYTES) - start;
        (inner.first, inner.fresh, inner.backed, inner.hand) = (first, first, first, first);
        self.end.store(start + map.len(), Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        inner.mapped = Some(Mapped { file, map });
        Ok(true)
    }

    pub(super) fn contains(&self, address: usize) -> bool {
        // Nobody has an address in it who was not given it by a thread that saw both.
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        (start..end).contains(&address)
    }

    pub(super) fn spilled(&self) -> Spilled {
        Spilled {
            bytes: self.bytes.load(Ordering::Relaxed),
            disk_bytes: self.disk_bytes.load(Ordering::Relaxed),
            refused_bytes: self.refused_bytes.load(Ordering::Relaxed),
        }
    }

    /// A block; `None` if there is none to be had.
    pub(super) fn allocate(&self, layout: Layout) -> Option<*mut u8> {
        let class = class_of(layout)?;
        let mut inner = self.lock();
        let block = if bytes_of(class) < LARGE_BYTES {
            inner.small_block(class, &self.disk_bytes)
        } else {
            inner.large_block(class, &self.disk_bytes)
        };
        match block {
            Some(block) => {
                self.bytes.fetch_add(bytes_of(class) as u64, Ordering::Relaxed);
                Some(block as *mut u8)
            }
            None => {
                self.refused_bytes.fetch_add(layout.size() as u64, Ordering::Relaxed);
                None
            }
        }
    }

    /// Whether a block of this layout holds so many bytes as well, and not many more.
    pub(super) fn fits(&self, layout: Layout, bytes: usize) -> bool {
        let resized = Layout::from_size_align(bytes, layout.align());
        resized.is_ok_and(|resized| class_of(resized) == class_of(layout))
    }

    /// Takes a block back that was allocated with this layout.
    pub(super) fn free(&self, block: *mut u8, layout: Layout) {
        let class = class_of(layout).expect("it was allocated with this layout");
        self.bytes.fetch_sub(bytes_of(class) as u64, Ordering::Relaxed);
        let mut inner = self.lock();
        if bytes_of(class) < LARGE_BYTES {
            inner.free_small(class, block as usize);
        } else {
            inner.free_large(class, block as usize, &self.disk_bytes);
        }
    }

    /// Takes the next `bytes` of the file out of memory; false at the file's end. Whoever needs
    /// them again gets them back from the operating system.
    pub(super) fn trim(&self, bytes: usize) -> bool {
        let mut inner = self.lock();
        let (from, to) = (inner.hand, (inner.hand + bytes).min(inner.fresh));
        let is_end = to == inner.fresh;
        inner.hand = if is_end { inner.first } else { to };
        if let (Some(mapped), true) = (&inner.mapped, from < to) {
            mapped.leave_memory(from, to - from);
        }
        !is_end
    }
}

impl Inner {
    fn large_block(&mut self, class: usize, disk_bytes: &AtomicU64) -> Option<usize> {
        let bytes = bytes_of(class);
        let Mapped { file, map } = self.mapped.as_ref()?;
        let start = map.as_mut_ptr() as usize;
        if let Some(free) = self.large[class].pop() {
            if !free.is_backed {
                if reserve(file, free.at, bytes).is_err() {
                    self.large[class].push(free);
                    return None;
                }
                disk_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            return Some(start + free.at);
        }
        let at = self.fresh;
        let end = at.checked_add(bytes)?;
        if end > map.len() {
            return None;
        }
        if end > self.backed {
            let growth = (end - self.backed).next_multiple_of(GROWTH_BYTES);
            let growth = growth.min(map.len() - self.backed);
            reserve(file, self.backed, growth).ok()?;
            disk_bytes.fetch_add(growth as u64, Ordering::Relaxed);
            self.backed += growth;
        }
        self.fresh = end;
        Some(start + at)
    }

    fn free_large(&mut self, class: usize, block: usize, disk_bytes: &AtomicU64) {
        let Some(mapped) = &self.mapped else { return };
        let (at, bytes) = (block - mapped.map.as_mut_ptr() as usize, bytes_of(class));
        let given_back = bytes >= PUNCHED_BYTES && mapped.give_back(at, bytes);
        if given_back {
            disk_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        }
        self.large[class].push(Free { at, is_backed: !given_back });
    }

    fn small_block(&mut self, class: usize, disk_bytes: &AtomicU64) -> Option<usize> {
        let Slab { free, next, end } = self.small[class];
        if free != 0 {
            // SAFETY: a free block is this arena's own, aligned to 16 bytes, and holds the
            // address of the next.
            #[allow(unsafe_code)]
            let following = unsafe { (free as *const usize).read() };
            self.small[class].free = following;
            return Some(free);
        }
        let bytes = bytes_of(class);
        if end - next >= bytes {
            self.small[class].next = next + bytes;
            return Some(next);
        }
        let slab = Layout::from_size_align(slab_bytes(class), 1).ok()?;
        let slab_class = class_of(slab)?;
        let start = self.large_block(slab_class, disk_bytes)?;
        self.small[class].next = start + bytes;
        self.small[class].end = start + bytes_of(slab_class);
        Some(start)
    }

    fn free_small(&mut self, class: usize, block: usize) {
        let following = self.small[class].free;
        // SAFETY: the block was given back, is at least 16 bytes long and aligned to them.
        #[allow(unsafe_code)]
        unsafe {
            (block as *mut usize).write(following);
        }
        self.small[class].free = block;
    }
}

impl Mapped {
    /// Takes pages out of memory that this process may want again.
    fn leave_memory(&self, at: usize, bytes: usize) {
        // SAFETY: the mapping is shared and of a file: its pages are the file's, and come back as
        // they were. What this fails to do costs memory only.
        #[allow(unsafe_code)]
        let done = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, at, bytes) };
        drop(done);
    }

    /// Lets the disk have the place of a free block; false if it does not take it.
    fn give_back(&self, at: usize, bytes: usize) -> bool {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, at as u64, bytes as u64).is_ok()
    }
}

/// A file without a name, and its mapping.
fn mapped(dir: &Path) -> io::Result<(File, MmapRaw)> {
    let path = dir.join(format!("scratch-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let mut last = None;
    for bytes in RESERVED_BYTES {
        let tried =
            file.set_len(bytes as u64).and_then(|()| MmapOptions::new().len(bytes).map_raw(&file));
        match tried {
            Ok(map) => return Ok((file, map)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("at least one size was tried"))
}

/// Reserves a part of the file on the disk.
fn reserve(file: &File, at: usize, bytes: usize) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, at as u64, bytes as u64) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(file, at, bytes),
            other => return Ok(other?),
        }
    }
}

/// What `reserve` does where the file system cannot: real zeros take real space.
fn write_zeros(file: &File, at: usize, bytes: usize) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    const ZEROS: [u8; 4096] = [0; 4096];
    for step in (0..bytes).step_by(ZEROS.len()) {
        let len = ZEROS.len().min(bytes - step);
        file.write_all_at(&ZEROS[..len], (at + step) as u64)?;
    }
    Ok(())
}
