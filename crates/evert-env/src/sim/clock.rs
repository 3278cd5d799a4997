//! Time that is set by hand, and randomness from a seed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;

use crate::{Clock, Random};

/// The machine's clock when a world begins: a day in September 2026.
const BEGINNING_MICROS: i64 = 1_790_000_000_000_000;
/// Each look at the clock takes this long, so that whoever waits for time to pass gets there.
const LOOK_NANOS: u64 = 1_000;

/// The time of a world, through all its reboots.
#[derive(Debug)]
pub(super) struct Time {
    nanos: AtomicU64,
    booted_at_nanos: AtomicU64,
    wall_offset_micros: AtomicI64,
}

impl Time {
    pub(super) fn new() -> Self {
        Self {
            nanos: AtomicU64::new(0),
            booted_at_nanos: AtomicU64::new(0),
            wall_offset_micros: AtomicI64::new(BEGINNING_MICROS),
        }
    }

    pub(super) fn fork(&self) -> Self {
        let now = self.nanos.load(Ordering::SeqCst);
        Self {
            nanos: AtomicU64::new(now),
            booted_at_nanos: AtomicU64::new(now),
            wall_offset_micros: AtomicI64::new(self.wall_offset_micros.load(Ordering::SeqCst)),
        }
    }

    pub(super) fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("tests stay within five centuries");
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }

    pub(super) fn jump_wall(&self, micros: i64) {
        self.wall_offset_micros.fetch_add(micros, Ordering::SeqCst);
    }

    pub(super) fn reboot(&self) {
        self.booted_at_nanos.store(self.nanos.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn look(&self) -> u64 {
        self.nanos.fetch_add(LOOK_NANOS, Ordering::SeqCst) + LOOK_NANOS
    }
}

pub(super) struct SimClock {
    time: Arc<Time>,
}

impl SimClock {
    pub(super) fn new(time: Arc<Time>) -> Self {
        Self { time }
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        let booted_at = self.time.booted_at_nanos.load(Ordering::SeqCst);
        Duration::from_nanos(self.time.look().saturating_sub(booted_at))
    }

    fn wall_micros(&self) -> i64 {
        let passed = i64::try_from(self.time.look() / 1_000).unwrap_or(i64::MAX);
        passed.saturating_add(self.time.wall_offset_micros.load(Ordering::SeqCst))
    }
}

pub(super) struct SimRandom {
    rng: Mutex<Rng>,
}

impl SimRandom {
    pub(super) fn new(seed: u64) -> Self {
        // The disk draws from the same seed; this keeps the two apart.
        Self { rng: Mutex::new(Rng::with_seed(seed ^ 0x5eed_0000_0000_0000)) }
    }
}

impl Random for SimRandom {
    fn fill(&self, buf: &mut [u8]) {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill(buf);
    }
}
