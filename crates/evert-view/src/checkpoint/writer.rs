//! The thread that writes checkpoints, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Frozen;
use super::moments::Moments;
use super::store::{Store, StoreError};

const WAIT_STEP: Duration = Duration::from_millis(2);
/// After a failure it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Writes checkpoints behind the follower's back.
pub(crate) struct Writer {
    to: Option<Sender<Frozen>>,
    is_busy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `moments` hears of every checkpoint that is there.
    pub(crate) fn start(store: Store, moments: Arc<Moments>) -> std::io::Result<Self> {
        let (to, from) = channel();
        let is_busy = Arc::new(AtomicBool::new(false));
        let busy = Arc::clone(&is_busy);
        let thread = thread::Builder::new().name("checkpoints".into());
        let work = move || {
            // A checkpoint of a large state is itself large.
            let _spills = evert_env::spill::spills_here();
            run(store, &from, &busy, &moments);
            moments.clear();
        };
        let thread = thread.spawn(work)?;
        Ok(Self { to: Some(to), is_busy, thread: Some(thread) })
    }

    /// Whether a checkpoint is being written. The next has to wait: the store holds the
    /// differences between them.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Hands over the next checkpoint; the last has been written.
    pub(crate) fn write(&self, frozen: Frozen) {
        assert!(!self.is_busy.swap(true, Ordering::AcqRel), "one checkpoint at a time");
        if let Some(to) = &self.to {
            // A writer that has ended keeps `is_busy` set: no more checkpoints are taken.
            drop(to.send(frozen));
        }
    }

    /// Waits until nothing is being written, or nothing will be any more.
    pub(crate) fn wait(&self) {
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while self.is_busy() && !ended() {
            thread::sleep(WAIT_STEP);
        }
    }

    /// Waits for what was handed over, and for the disk.
    pub(crate) fn finish(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of checkpoints ended in a panic");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

fn run(mut store: Store, from: &Receiver<Frozen>, is_busy: &AtomicBool, moments: &Moments) {
    let keep = |store: &Store, bytes| {
        if let Some(moment) = store.moment() {
            moments.keep(moment, bytes);
        }
    };
    keep(&store, 0);
    while let Ok(frozen) = from.recv() {
        let started = Instant::now();
        if let Err(error) = store.write(&frozen) {
            tracing::warn!(%error, "a checkpoint cannot be written: it will be tried again");
            // Whoever reads one keeps the store from being opened again, until they are done.
            moments.clear();
            match write_later(store, &frozen, from) {
                Some(again) => store = again,
                None => return,
            }
        }
        keep(&store, frozen.bytes());
        let entries = frozen.changes();
        tracing::debug!(entries, took = ?started.elapsed(), "a checkpoint was written");
        is_busy.store(false, Ordering::Release);
    }
    if let Err(error) = store.sync() {
        tracing::warn!(%error, "the checkpoint may not survive a loss of power");
    }
}

/// Tries again until it succeeds, the server stops, or what was written before is gone: then the
/// difference is of no use.
fn write_later(store: Store, frozen: &Frozen, from: &Receiver<Frozen>) -> Option<Store> {
    let config = store.config().clone();
    let before = store.manifest().map(|manifest| manifest.serial);
    // A store that has failed once refuses to go on: it has to be opened again.
    drop(store);
    loop {
        match from.recv_timeout(RETRY_AFTER) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return None,
        }
        let written = Store::open(&config).and_then(|mut store| {
            let found = store.manifest().map(|manifest| manifest.serial);
            if found != before && found != Some(frozen.manifest.serial) {
                let what = "the last checkpoint is gone".to_owned();
                return Err(StoreError::Entry(what));
            }
            store.write(frozen).map(|()| store)
        });
        match written {
            Ok(store) => {
                tracing::info!("the checkpoint was written at last");
                return Some(store);
            }
            Err(error @ StoreError::Entry(_)) => {
                tracing::warn!(%error, "no more checkpoints until the next start");
                return None;
            }
            Err(error) => tracing::warn!(%error, "a checkpoint cannot be written"),
        }
    }
}
