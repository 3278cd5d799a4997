//! Work beside a tick: what need not be done by its end.
//!
//! Owns: where such work is handed to.
//! Not here: any thread. Whoever drives the fold may lend it some; without them the work is done
//! within ticks.
//!
//! Invariant: what a tick gives is the same with threads and without.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Work to be done once, by another thread.
pub type Work = Box<dyn FnOnce() + Send>;

static LENT: OnceLock<fn(Work)> = OnceLock::new();

/// From now on `run` is given work that need not be done within a tick; it must not do it before
/// it returns. Work that it drops is done within a later tick. The first call counts.
pub fn lend_threads(run: fn(Work)) {
    // A second call comes from a second server in one process, and lends the same.
    let _ = LENT.set(run);
}

/// What comes of work that another thread does.
#[derive(Debug)]
pub(crate) struct Pending<T>(Arc<Mutex<Outcome<T>>>);

#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Working,
    Done(T),
    /// It was dropped, or ended in a panic.
    Lost,
}

/// Says that the work is lost, unless it is done.
struct Promise<T>(Arc<Mutex<Outcome<T>>>);

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut outcome = lock(&self.0);
        if matches!(*outcome, Outcome::Working) {
            *outcome = Outcome::Lost;
        }
    }
}

impl<T: Send + 'static> Pending<T> {
    /// Hands work on, if there is a thread to do it.
    pub(crate) fn start(work: impl FnOnce() -> T + Send + 'static) -> Option<Self> {
        let run = LENT.get()?;
        let outcome = Arc::new(Mutex::new(Outcome::Working));
        let promise = Promise(Arc::clone(&outcome));
        run(Box::new(move || {
            let done = work();
            *lock(&promise.0) = Outcome::Done(done);
        }));
        Some(Self(outcome))
    }

    /// What has come of it so far. What is done is given once.
    pub(crate) fn take(&self) -> Outcome<T> {
        let mut outcome = lock(&self.0);
        match *outcome {
            Outcome::Working => Outcome::Working,
            _ => std::mem::replace(&mut outcome, Outcome::Lost),
        }
    }
}

fn lock<T>(outcome: &Mutex<T>) -> MutexGuard<'_, T> {
    outcome.lock().unwrap_or_else(PoisonError::into_inner)
}
