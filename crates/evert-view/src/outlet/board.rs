//! The board: where an outlet writes how it is doing, for whoever looks.
//!
//! Invariants
//! - The position it shows never goes back, but for a rebuild.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evert_model::Position;
use tokio::sync::watch;

use super::Standing;
use crate::status::ViewState;

/// What an outlet is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It catches up from a position to another.
    CatchingUp {
        from: Position,
        to: Position,
    },
    Following,
    Retrying(String),
    Failed(String),
    Paused,
}

#[derive(Debug)]
pub(crate) struct Board {
    reached: watch::Sender<Position>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    doing: Doing,
    /// How much of its first rows is stored, 0 to 99.
    percent: Option<u8>,
    rows: u64,
    since: Instant,
}

impl Board {
    pub(crate) fn new() -> Self {
        let doing = Doing::CatchingUp { from: Position::ZERO, to: Position::ZERO };
        let state = State { doing, percent: None, rows: 0, since: Instant::now() };
        Self { reached: watch::Sender::new(Position::ZERO), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, doing: Doing) {
        let mut state = self.lock();
        state.doing = doing;
        state.percent = None;
        state.since = Instant::now();
    }

    /// It begins to follow from `from`, where `rows` are stored; live is at `to`.
    pub(crate) fn begin(&self, from: Position, rows: u64, to: Position) {
        self.set(Doing::CatchingUp { from, to });
        self.lock().rows = rows;
        self.reached.send_replace(from);
    }

    /// Until it begins it shows what the one before has shown last.
    pub(crate) fn take_over(&self, before: &Self) {
        let (reached, rows) = (before.reached(), before.rows());
        let took = self.reached.send_if_modified(|own| {
            let is_new = *own == Position::ZERO;
            *own = reached.max(*own);
            is_new
        });
        if took {
            self.lock().rows = rows;
        }
    }

    /// Until it begins it shows where it stood.
    pub(crate) fn stands(&self, at: Standing) {
        self.lock().rows = at.rows;
        self.reached.send_replace(Position::new(at.position));
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing { position: self.reached().get(), rows: self.rows() }
    }

    pub(crate) fn report(&self, position: Position, rows: u64) {
        let mut state = self.lock();
        state.rows = rows;
        match state.doing {
            Doing::CatchingUp { to, .. } if position < to => {}
            _ => {
                state.doing = Doing::Following;
                state.percent = None;
            }
        }
        drop(state);
        self.reached.send_if_modified(|reached| {
            let moves = position > *reached;
            *reached = position.max(*reached);
            moves
        });
    }

    pub(crate) fn report_progress(&self, percent: u8) {
        self.lock().percent = Some(percent.min(99));
    }

    pub(crate) fn doing(&self) -> Doing {
        self.lock().doing.clone()
    }

    pub(crate) fn reached(&self) -> Position {
        *self.reached.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Position> {
        self.reached.subscribe()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.lock().rows
    }

    pub(crate) fn view_state(&self) -> ViewState {
        let reached = self.reached();
        let state = self.lock();
        match &state.doing {
            Doing::CatchingUp { from, to } => {
                let done = reached.get().saturating_sub(from.get());
                let total = to.get().saturating_sub(from.get()).max(1);
                let percent = state.percent.unwrap_or((done * 100 / total).min(99) as u8);
                let elapsed = state.since.elapsed();
                let left = f64::from(100 - percent) / f64::from(percent.max(1));
                let eta = (percent > 0).then(|| elapsed.mul_f64(left));
                ViewState::Rebuilding { percent, eta }
            }
            Doing::Following => ViewState::Live,
            Doing::Retrying(why) => ViewState::Retrying(why.clone()),
            Doing::Failed(why) => ViewState::Failed(why.clone()),
            Doing::Paused => ViewState::Paused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_live_once_it_has_reached_where_the_others_were() {
        let board = Board::new();
        board.begin(Position::new(100), 5, Position::new(200));
        assert_eq!(board.rows(), 5, "what is stored is known before anything comes");
        board.report(Position::new(150), 7);
        assert!(matches!(board.view_state(), ViewState::Rebuilding { percent: 50, .. }));
        board.report(Position::new(200), 9);
        assert_eq!(board.view_state(), ViewState::Live);
        assert_eq!((board.reached(), board.rows()), (Position::new(200), 9));
    }

    #[test]
    fn positions_do_not_go_back_while_it_follows() {
        let board = Board::new();
        let watch = board.watch();
        board.report(Position::new(5), 1);
        board.report(Position::new(4), 1);
        assert_eq!(*watch.borrow(), Position::new(5));
    }
}
