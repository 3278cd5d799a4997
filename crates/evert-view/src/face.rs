//! A lane's face: what others see of it and ask of it while it folds.
//!
//! Owns: the cut it has published, who waits for which position.
//! Not here: the folding (`lane`), what it has yet to fold (`tap`).
//!
//! Invariants
//! - Published positions never go back, and never lie beyond the live cohort's.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evert_fold::OperatorState;
use evert_model::{LogTime, Position};
use tokio::sync::oneshot;

use crate::Name;
use crate::cohort::{Cut, Memory};
use crate::progress::Progress;
use crate::tap::Tap;

/// What others see of a lane.
pub(crate) struct Face {
    pub(crate) tap: Tap,
    pub(crate) progress: Arc<Progress>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The lane's views only.
    cut: Option<Arc<Cut>>,
    waiters: Vec<(Position, oneshot::Sender<Arc<Cut>>)>,
    memory: Memory,
    due: Option<LogTime>,
    /// What other threads still fold for its views is unwanted when these are set.
    elsewhere: Vec<Arc<AtomicBool>>,
}

/// A snapshot that is there, or is to come.
pub(crate) enum Awaited {
    Now(Arc<Cut>),
    /// Ends without a snapshot if the lane has none of that position.
    Later(oneshot::Receiver<Arc<Cut>>),
    /// The lane is past the position.
    Passed,
}

impl Face {
    /// `cut` is what its views have published so far; `None` while they are new.
    pub(crate) fn new(inputs: BTreeSet<Name>, cut: Option<Arc<Cut>>) -> Arc<Self> {
        Arc::new(Self {
            tap: Tap::new(inputs),
            progress: Arc::default(),
            state: Mutex::new(State { cut, ..State::default() }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has published.
    pub(crate) fn cut(&self) -> Option<Arc<Cut>> {
        self.lock().cut.clone()
    }

    /// Whether it is paused at this position.
    pub(crate) fn is_paused_at(&self, position: Position) -> bool {
        self.tap.paused_at().is_some_and(|cut| cut.position == position)
    }

    /// Its snapshot at exactly this position.
    pub(crate) fn at(&self, position: Position) -> Awaited {
        let mut state = self.lock();
        if let Some(cut) = &state.cut {
            if cut.position == position {
                return Awaited::Now(Arc::clone(cut));
            }
            if cut.position > position {
                return Awaited::Passed;
            }
        }
        // Its views may have gone elsewhere since the caller looked: nobody would answer here.
        if self.tap.is_closed() {
            return Awaited::Passed;
        }
        // It may have been paused since the caller looked; who pauses wakes those who wait by then.
        if self.tap.paused_at().is_some_and(|paused| paused.position < position) {
            return Awaited::Passed;
        }
        let (waiter, later) = oneshot::channel();
        state.waiters.retain(|(_, waiter)| !waiter.is_closed());
        state.waiters.push((position, waiter));
        self.tap.want(position);
        Awaited::Later(later)
    }

    /// Shows a later cut, and when its views change without new facts.
    pub(crate) fn publish(&self, cut: Cut, due: Option<LogTime>, memory: Option<Memory>) {
        let mut state = self.lock();
        let before = state.cut.as_ref().map_or(Position::ZERO, |before| before.position);
        assert!(cut.position >= before, "published positions never go back");
        let cut = Arc::new(cut);
        let answered = state.waiters.extract_if(.., |(position, _)| *position <= cut.position);
        for (position, waiter) in answered {
            if position == cut.position {
                // Whoever has gone needs no answer.
                drop(waiter.send(Arc::clone(&cut)));
            }
        }
        state.cut = Some(cut);
        state.due = due;
        if let Some(memory) = memory {
            state.memory = memory;
        }
    }

    /// The log time at which one of its views changes without new facts.
    pub(crate) fn due(&self) -> Option<LogTime> {
        let due = self.lock().due;
        due.filter(|_| self.tap.paused_at().is_none())
    }

    pub(crate) fn state_of(&self, name: &Name) -> Vec<OperatorState> {
        self.lock().memory.get(name).cloned().unwrap_or_default()
    }

    /// Those who wait look again.
    pub(crate) fn wake(&self) {
        self.lock().waiters.clear();
    }

    /// Another thread still folds for its views, and is to learn when nobody wants that any more.
    pub(crate) fn folds_elsewhere(&self, unwanted: Arc<AtomicBool>) {
        self.lock().elsewhere.push(unwanted);
    }

    /// Nothing comes any more: those who wait look elsewhere.
    pub(crate) fn close(&self) {
        self.progress.cancel();
        self.tap.close();
        let mut state = self.lock();
        state.waiters.clear();
        state.elsewhere.drain(..).for_each(|unwanted| unwanted.store(true, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_at_a_face_that_was_closed() {
        let face = Face::new(BTreeSet::new(), None);
        let Awaited::Later(mut later) = face.at(Position::new(7)) else {
            panic!("nothing is there")
        };
        face.close();
        let sent_elsewhere = matches!(later.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(sent_elsewhere, "who waits looks again");
        assert!(matches!(face.at(Position::new(7)), Awaited::Passed), "and so is who comes later");
    }
}
