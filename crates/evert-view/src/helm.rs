//! The helm: which thread is the follower while a view folds.
//!
//! A fold cannot be interrupted. So before each view's fold the follower is left here, and taken
//! back after it. When a fold takes far too long, the thread that watches takes the follower and
//! goes on without the view; the thread that folds learns of it at the end, and hands the view to
//! a lane.
//!
//! Owns: who has the follower, the watch.
//! Not here: what becomes of the view (`company`).

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalog::ViewDef;
use crate::follower::Follower;
use crate::live_view::{Folded, LiveView};

/// How often the watch looks while ticks are folded: so many times in the time a fold may take.
const LOOKS: u32 = 16;
const LOOK_MIN: Duration = Duration::from_micros(100);

/// A view whose fold has ended, and what it changed.
pub(crate) type Ended = (LiveView, Folded);

pub(crate) struct Helm {
    look_every: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// Counts the folds.
    turn: u64,
    /// Where threads without a follower leave their view, by turn.
    lost: HashMap<u64, Sender<Ended>>,
    /// The watch sleeps until there is something to watch.
    parked: bool,
    stopped: bool,
}

struct Held {
    follower: Box<Follower>,
    view: Arc<ViewDef>,
    until: Instant,
}

impl Helm {
    /// A helm with its watch; a fold may take at least `fold_max`.
    pub(crate) fn new(fold_max: Duration) -> Arc<Self> {
        let look_every = (fold_max / LOOKS).max(LOOK_MIN);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let helm = Arc::new(Self { look_every, state, changed });
        helm.start_watch();
        helm
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the follower while `view` folds, which may take `patience`.
    pub(crate) fn leave(
        &self,
        follower: Box<Follower>,
        view: Arc<ViewDef>,
        patience: Duration,
    ) -> u64 {
        let mut state = self.lock();
        state.turn += 1;
        state.held = Some(Held { follower, view, until: Instant::now() + patience });
        if state.parked {
            self.changed.notify_all();
        }
        state.turn
    }

    /// The follower again, or where to leave the view if another thread has gone on with it.
    pub(crate) fn take_back(&self, turn: u64) -> Result<Box<Follower>, Sender<Ended>> {
        let mut state = self.lock();
        match state.lost.remove(&turn) {
            Some(sender) => Err(sender),
            None => Ok(state.held.take().expect("it was left here and not taken").follower),
        }
    }

    /// Ends the watch.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn start_watch(self: &Arc<Self>) {
        let helm = Arc::clone(self);
        let thread = thread::Builder::new().name("watch".into()).spawn(move || helm.watch());
        if let Err(error) = thread {
            tracing::error!(%error, "no thread to watch slow views with: they hold up the others");
        }
    }

    fn watch(self: Arc<Self>) {
        let mut seen = 0;
        let mut state = self.lock();
        loop {
            if state.stopped {
                return;
            }
            if let Some(held) = state.held.take_if(|held| held.until <= Instant::now()) {
                let (sender, ended) = channel();
                let turn = state.turn;
                state.lost.insert(turn, sender);
                drop(state);
                return self.take_over(held, ended);
            }
            let idle = state.held.is_none() && state.turn == seen;
            seen = state.turn;
            state = if idle {
                state.parked = true;
                let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.parked = false;
                state
            } else {
                let waited = self.changed.wait_timeout(state, self.look_every);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// This thread is the follower from now on, and another one watches.
    fn take_over(self: Arc<Self>, held: Held, ended: Receiver<Ended>) {
        let Held { mut follower, view, .. } = held;
        tracing::warn!(view = %view.name, "view is too slow for the others: it goes on apart");
        self.start_watch();
        follower.lose(&view, ended);
        follower.run();
    }
}
