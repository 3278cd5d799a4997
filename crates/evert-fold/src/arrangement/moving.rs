//! A merge of large runs beside the ticks.
//!
//! Another thread makes the merged run of what was alive when it began. Then its rows come to life
//! a few thousand a tick, each as it dies in the run that it comes from: a row that was changed
//! meanwhile stays dead. Readers see each row once all the while.
//!
//! Owns: how far the merge is.
//! Not here: which runs are merged (`runs`).

use super::run::{LiveRun, Run};
use super::runs::{Place, Runs};
use crate::background::{Outcome, Pending};

/// Smaller merges are done within a tick.
pub(super) const MOVED_ROWS_MIN: usize = 1 << 15;
/// Rows that move in a tick, or so many times the tick's own if that is more.
const STEP_ROWS: usize = 4096;
const STEP_TIMES: usize = 4;

/// A merged run, and where each of its rows comes from.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) run: Run,
    pub(super) origins: Vec<Place>,
}

/// A merge on its way.
#[derive(Debug)]
pub(super) struct Moving {
    /// The slots of the runs that are merged.
    pub(super) from: Vec<u32>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Another thread is at it. `None`: nothing was alive.
    Merging(Pending<Option<Merged>>),
    /// The run is there, and rows move into it.
    Moving { to: u32, origins: Vec<Place>, next: usize },
}

impl Moving {
    /// Begins, if another thread can be had.
    pub(super) fn start(runs: &Runs, from: Vec<u32>) -> Option<Self> {
        let schema = runs.schema().clone();
        let sources: Vec<LiveRun> = from.iter().map(|&slot| runs.get(slot).clone()).collect();
        let slots = from.clone();
        let pending =
            Pending::start(move || super::runs::merge_with_origins(&schema, &sources, &slots))?;
        Some(Self { from, stage: Stage::Merging(pending) })
    }

    /// Whether the run of a slot takes part.
    pub(super) fn holds(&self, slot: u32) -> bool {
        let to = match self.stage {
            Stage::Merging(_) => None,
            Stage::Moving { to, .. } => Some(to),
        };
        self.from.contains(&slot) || to == Some(slot)
    }
}

/// How a step ends.
pub(super) enum Moved {
    GoesOn(Moving),
    /// Every row has moved, or there were none.
    Done,
    /// The merge has to be made here: these slots.
    Lost(Vec<u32>),
}

impl Runs {
    /// Goes on with a merge, in a tick of `rows` rows.
    pub(super) fn step(&mut self, moving: Moving, rows: usize) -> Moved {
        let Moving { from, stage } = moving;
        let (to, origins, next) = match stage {
            Stage::Moving { to, origins, next } => (to, origins, next),
            Stage::Merging(pending) => match pending.take() {
                Outcome::Working => {
                    return Moved::GoesOn(Moving { from, stage: Stage::Merging(pending) });
                }
                Outcome::Lost => return Moved::Lost(from),
                Outcome::Done(None) => return Moved::Done,
                Outcome::Done(Some(Merged { run, origins })) => (self.push_dead(run), origins, 0),
            },
        };
        let end = origins.len().min(next + STEP_ROWS.max(rows * STEP_TIMES));
        for (row, &origin) in (next..end).zip(&origins[next..end]) {
            self.move_row(origin, Place { run: to, row: row as u32 });
        }
        if end == origins.len() {
            return Moved::Done;
        }
        Moved::GoesOn(Moving { from, stage: Stage::Moving { to, origins, next: end } })
    }

    /// Moves a row, unless it has changed or gone since the merge began.
    fn move_row(&mut self, origin: Place, to: Place) {
        let id = self.get(to.run).run.ids[to.row as usize];
        // The origin's run keeps its slot until the merge is done, so nothing else is there.
        if self.place(id) == origin {
            self.kill(origin);
            self.revive(to);
            self.set_place(id, to);
        }
    }
}
