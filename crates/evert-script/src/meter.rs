//! Meter: how much memory a runtime holds, how many steps it has made, and when it is stopped.
//!
//! Built-in functions make one step however much they work on, so memory that is taken counts as
//! steps too, and so does what they walk where that is long (`prelude.js` tells). What works for
//! long nevertheless is stopped by the clock, or because nobody wants it any more.
//!
//! Owns: the allocator that a runtime uses and what its interrupt handler answers.
//!
//! Invariants
//! - A runtime that has held more than it may is known to have, whatever its code did about it.
//! - Steps are counted, never timed: the engine calls its handler once in [`STEPS_A_CALL`] steps.
//! - Late is only what was neither too large nor too long before.

// The engine takes its allocator as a trait whose implementation is a promise: this one only counts
// and refuses, and leaves the memory itself to rquickjs's allocator over Rust's.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::rc::Rc;
use std::time::Instant;

use evert_env::is_unwanted;
use rquickjs::allocator::{Allocator, RustAllocator};

/// Calls and turns of loops between two calls of the interrupt handler, as the engine has it.
pub(crate) const STEPS_A_CALL: usize = 10_000;
/// Bytes taken that count as much as those steps: a step for each 512.
const BYTES_A_CALL: usize = STEPS_A_CALL * 512;
/// An allocation of so many bytes is refused to an evaluation that is to end: what has many of them
/// may take long between two calls of the handler. The engine's own small ones are left alone.
const LARGE_BYTES: usize = 4096;

/// What an evaluation has used of what it may.
#[derive(Debug)]
pub(crate) struct Meter {
    bytes: Cell<usize>,
    bytes_max: usize,
    over: Cell<bool>,
    calls: Cell<usize>,
    calls_max: Cell<usize>,
    /// Bytes taken since the evaluation began, whatever was given back, and those walked.
    taken: Cell<usize>,
    until: Cell<Option<Instant>>,
    late: Cell<bool>,
}

impl Meter {
    /// A meter for a runtime that may hold so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            bytes_max,
            over: Cell::new(false),
            calls: Cell::new(0),
            calls_max: Cell::new(usize::MAX),
            taken: Cell::new(0),
            until: Cell::new(None),
            late: Cell::new(false),
        })
    }

    /// Begins an evaluation that is stopped at the `calls_max`-th call of the handler, and by the
    /// clock at `until`.
    pub(crate) fn begin(&self, calls_max: usize, until: Option<Instant>) {
        self.over.set(false);
        self.calls.set(0);
        self.calls_max.set(calls_max);
        self.taken.set(0);
        self.until.set(until);
        self.late.set(false);
    }

    /// Calls of the handler since the evaluation began, and those that its bytes count as.
    pub(crate) fn calls(&self) -> usize {
        self.calls.get() + self.taken.get() / BYTES_A_CALL
    }

    /// Whether the evaluation was stopped for its steps.
    pub(crate) fn is_too_long(&self) -> bool {
        self.calls() >= self.calls_max.get()
    }

    /// Whether more memory was held, or asked for, than may be.
    pub(crate) fn is_too_large(&self) -> bool {
        self.over.get()
    }

    /// Whether the evaluation was stopped by the clock, or because nobody wants it.
    pub(crate) fn is_late(&self) -> bool {
        self.late.get()
    }

    /// The handler: whether the code is to be stopped, which it cannot catch.
    pub(crate) fn interrupt(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        self.ends()
    }

    /// What the prelude asks before a built-in function walks something long: whether the code is
    /// to be stopped. The handler says so at its next call as well.
    pub(crate) fn walks(&self, bytes: f64) -> bool {
        // Too many are as many as there can be.
        self.charge(bytes as usize);
        self.ends()
    }

    /// Whether the evaluation is to end. The clock has a say only where nothing else has.
    fn ends(&self) -> bool {
        if self.is_too_long() || self.is_too_large() {
            return true;
        }
        if self.until.get().is_some_and(|until| Instant::now() >= until || is_unwanted()) {
            self.late.set(true);
        }
        self.is_late()
    }

    /// Whether so many more bytes are given. What grows slowly is stopped by the handler, since
    /// code can catch an allocation's failure; only what is large is refused here.
    fn allows(&self, more: usize) -> bool {
        let after = self.bytes.get().saturating_add(more);
        if after > self.bytes_max && !self.is_late() {
            self.over.set(true);
        }
        after <= self.bytes_max.saturating_mul(2) && (more < LARGE_BYTES || !self.ends())
    }

    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn take(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
    }

    fn charge(&self, bytes: usize) {
        self.taken.set(self.taken.get().saturating_add(bytes));
    }
}

/// Rust's allocator under a meter.
pub(crate) struct Metered(pub(crate) Rc<Meter>);

// SAFETY: every pointer comes from `RustAllocator` and goes back to it, or is null.
unsafe impl Allocator for Metered {
    fn alloc(&mut self, size: usize) -> *mut u8 {
        if !self.0.allows(size) {
            return ptr::null_mut();
        }
        self.counted(RustAllocator.alloc(size))
    }

    fn calloc(&mut self, count: usize, size: usize) -> *mut u8 {
        // A product that overflows is too large as well.
        if !self.0.allows(count.saturating_mul(size)) {
            return ptr::null_mut();
        }
        self.counted(RustAllocator.calloc(count, size))
    }

    unsafe fn dealloc(&mut self, ptr: *mut u8) {
        // SAFETY: the caller promises that the pointer came from here and is not null.
        unsafe {
            self.0.take(RustAllocator::usable_size(ptr));
            RustAllocator.dealloc(ptr);
        }
    }

    unsafe fn realloc(&mut self, ptr: *mut u8, new_size: usize) -> *mut u8 {
        if ptr.is_null() {
            return self.alloc(new_size);
        }
        // SAFETY: the caller promises that the pointer came from here.
        let old_size = unsafe { RustAllocator::usable_size(ptr) };
        if !self.0.allows(new_size.saturating_sub(old_size)) {
            return ptr::null_mut();
        }
        // SAFETY: as above; a pointer that could not be moved is left as it was.
        let moved = unsafe { RustAllocator.realloc(ptr, new_size) };
        if !moved.is_null() {
            // SAFETY: `RustAllocator` has just given the pointer.
            let new_size = unsafe { RustAllocator::usable_size(moved) };
            self.0.take(old_size);
            self.0.add(new_size);
            self.0.charge(new_size.saturating_sub(old_size));
        }
        moved
    }

    unsafe fn usable_size(ptr: *mut u8) -> usize {
        // SAFETY: the caller promises that the pointer came from here.
        unsafe { RustAllocator::usable_size(ptr) }
    }
}

impl Metered {
    fn counted(&self, ptr: *mut u8) -> *mut u8 {
        if !ptr.is_null() {
            // SAFETY: `RustAllocator` has just given the pointer.
            let size = unsafe { RustAllocator::usable_size(ptr) };
            self.0.add(size);
            self.0.charge(size);
        }
        ptr
    }
}
