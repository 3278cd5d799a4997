//! How far something that catches up has come, for whoever shows it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// What it reads is not there yet.
    #[default]
    Waiting,
    /// Rows of tables and views are loaded.
    Loading,
    /// Records are read from the log.
    Replaying,
    /// What has changed since is folded.
    CatchingUp,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Replaying => "replaying",
            Self::CatchingUp => "catching up",
        })
    }
}

/// A stage's progress at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageProgress {
    /// What is being done.
    pub stage: Stage,
    /// How much of it is done, 0 to 99.
    pub percent: u8,
    /// Rows or records a second, since the stage began.
    pub rate: Option<u64>,
    /// What is left of the stage, at that rate.
    pub eta: Option<Duration>,
}

/// Shared between the thread that works and those who look.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    cancelled: Arc<AtomicBool>,
    began: Mutex<Option<Instant>>,
}

impl Progress {
    /// Begins a stage of `total` rows or records.
    pub(crate) fn begin(&self, stage: Stage, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn add_done(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set_done(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Set when it is cancelled.
    pub(crate) fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// How far it is.
    pub(crate) fn now(&self) -> StageProgress {
        let stage = match self.stage.load(Ordering::Relaxed) {
            1 => Stage::Loading,
            2 => Stage::Replaying,
            3 => Stage::CatchingUp,
            _ => Stage::Waiting,
        };
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let percent = (done.saturating_mul(100) / total.max(1)).min(99) as u8;
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = began.map(|began| began.elapsed()).filter(|time| time.as_millis() > 100);
        let rate = elapsed.map(|elapsed| (done as f64 / elapsed.as_secs_f64()) as u64);
        let left = total.saturating_sub(done) as f64;
        let eta = rate.filter(|rate| *rate > 0);
        let eta = eta.map(|rate| Duration::from_secs_f64(left / rate as f64));
        StageProgress { stage, percent, rate, eta }
    }
}
