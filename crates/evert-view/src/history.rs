//! Recent history: the changes of the last ticks, and the last cuts.
//!
//! Owns: what is kept, and how much of it.
//! Not here: what came before (`past` replays it), who reads it (`subscribe`).
//!
//! Invariants
//! - Ticks are kept without gaps: each begins where the one before it ended. A view has changes
//!   in those ticks only that it folded with the live cohort.
//! - What is kept is bounded by bytes and time, whoever still wants to read it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evert_model::{Delta, LogTime, Position};

use crate::Name;
use crate::cohort::{Cohort, Cut, TickDeltas};

/// Changes that are kept, in bytes of their rows.
const CHANGES_BYTES_MAX: usize = 64 << 20;
/// What a tick counts for beside its rows.
const TICK_BYTES: usize = 256;
/// How long a cut is kept after a newer one, and how many are.
const CUT_AGE_MAX: Duration = Duration::from_secs(5);
const CUTS_MAX: usize = 256;

/// What one tick changed: the commits after `after` up to `upto`.
pub(crate) struct Tick {
    pub(crate) after: Position,
    pub(crate) upto: Position,
    pub(crate) log_time: LogTime,
    /// Whose changes it has; others fold apart.
    members: Arc<BTreeSet<Name>>,
    changes: TickDeltas,
    bytes: usize,
}

impl Tick {
    /// What it changed of one relation or view.
    pub(crate) fn changes_of(&self, name: &Name) -> Vec<Delta> {
        self.changes.get(name).cloned().unwrap_or_default()
    }
}

/// What comes after a position.
pub(crate) enum After {
    /// A tick that begins there.
    Tick(Arc<Tick>),
    /// Nothing yet.
    Nothing,
    /// It is not kept, or no tick began there.
    NotKept,
}

/// The last ticks and cuts.
pub(crate) struct History {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    ticks: VecDeque<Arc<Tick>>,
    bytes: usize,
    reached: Position,
    cuts: VecDeque<(Instant, Arc<Cut>)>,
}

impl History {
    /// The first tick begins at `position`.
    pub(crate) fn new(position: Position) -> Self {
        Self::with_bytes(position, CHANGES_BYTES_MAX)
    }

    fn with_bytes(position: Position, bytes_max: usize) -> Self {
        let kept = Kept { reached: position, ..Kept::default() };
        Self { kept: Mutex::new(kept), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a tick of the live cohort, which ends where the cohort stands; it begins where the
    /// last one ended.
    pub(crate) fn record(&self, cohort: &Cohort, changes: &TickDeltas) {
        let at = (cohort.position(), cohort.log_time());
        self.keep(at, cohort.names(), changes.clone());
    }

    fn keep(&self, at: (Position, LogTime), members: BTreeSet<Name>, changes: TickDeltas) {
        let (upto, log_time) = at;
        let rows = changes.values().flatten();
        let bytes = TICK_BYTES + rows.map(|d| d.rows.get_array_memory_size()).sum::<usize>();
        let mut kept = self.lock();
        let after = kept.reached;
        assert!(upto >= after, "ticks come in order");
        kept.reached = upto;
        let before = kept.ticks.back().map(|tick| &tick.members);
        let members = match before {
            Some(before) if **before == members => Arc::clone(before),
            _ => Arc::new(members),
        };
        kept.ticks.push_back(Arc::new(Tick { after, upto, log_time, members, changes, bytes }));
        kept.bytes += bytes;
        while kept.bytes > self.bytes_max
            && let Some(oldest) = kept.ticks.pop_front()
        {
            kept.bytes -= oldest.bytes;
        }
    }

    /// The follower begins at `position`, which a checkpoint has kept.
    pub(crate) fn begin(&self, position: Position) {
        *self.lock() = Kept { reached: position, ..Kept::default() };
    }

    /// What comes after `position` in the changes of `name`.
    pub(crate) fn after(&self, name: &Name, position: Position) -> After {
        let kept = self.lock();
        if position == kept.reached {
            return After::Nothing;
        }
        let found = kept.ticks.binary_search_by_key(&position, |tick| tick.after);
        match found.map(|index| &kept.ticks[index]) {
            Ok(tick) if tick.members.contains(name) => After::Tick(Arc::clone(tick)),
            _ => After::NotKept,
        }
    }

    /// Other views have taken the place of these: what they were before is not the past of the
    /// new ones.
    pub(crate) fn forget(&self, names: &BTreeSet<Name>) {
        let mut kept = self.lock();
        for (_, cut) in &mut kept.cuts {
            let mut others = Cut::clone(cut);
            others.snapshots.retain(|name, _| !names.contains(name));
            others.failed.retain(|name, _| !names.contains(name));
            *cut = Arc::new(others);
        }
        for tick in &mut kept.ticks {
            let members = tick.members.difference(names).cloned().collect();
            *tick = Arc::new(Tick {
                members: Arc::new(members),
                changes: tick.changes.clone(),
                ..**tick
            });
        }
    }

    /// Where the newest tick ended.
    pub(crate) fn reached(&self) -> Position {
        self.lock().reached
    }

    /// Keeps a published cut for a while.
    pub(crate) fn keep_cut(&self, cut: &Arc<Cut>) {
        let now = Instant::now();
        let mut kept = self.lock();
        // A cut at the same position holds more: something has joined.
        if kept.cuts.back().is_some_and(|(_, last)| last.position == cut.position) {
            kept.cuts.pop_back();
        }
        kept.cuts.push_back((now, Arc::clone(cut)));
        let old = |at: &Instant| now.duration_since(*at) > CUT_AGE_MAX;
        while kept.cuts.len() > CUTS_MAX || kept.cuts.front().is_some_and(|(at, _)| old(at)) {
            kept.cuts.pop_front();
        }
    }

    /// Lets go of all cuts, as time does.
    pub(crate) fn forget_cuts(&self) {
        self.lock().cuts.clear();
    }

    /// The cut at exactly this position, if it is kept.
    pub(crate) fn cut_at(&self, position: Position) -> Option<Arc<Cut>> {
        let kept = self.lock();
        let found = kept.cuts.binary_search_by_key(&position, |(_, cut)| cut.position).ok()?;
        Some(Arc::clone(&kept.cuts[found].1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    fn changes(name: &Name, rows: usize) -> TickDeltas {
        let column: ArrayRef = Arc::new(Int64Array::from_value(1, rows));
        let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
        TickDeltas::from([(name.clone(), vec![Delta::inserts(rows)])])
    }

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    fn keep(history: &History, upto: u64, members: &[&Name], changes: TickDeltas) {
        let members = members.iter().copied().cloned().collect();
        history.keep((at(upto), LogTime::new(upto as i64)), members, changes);
    }

    #[test]
    fn ticks_are_found_by_where_they_begin() {
        let (history, v) = (History::new(at(0)), Name::public("v"));
        keep(&history, 3, &[&v], changes(&v, 1));
        keep(&history, 7, &[&v], TickDeltas::new());
        let After::Tick(tick) = history.after(&v, at(0)) else { panic!("it is kept") };
        assert_eq!((tick.upto, tick.changes_of(&v).len()), (at(3), 1));
        let After::Tick(tick) = history.after(&v, at(3)) else { panic!("it is kept") };
        assert_eq!((tick.upto, tick.changes_of(&v).len()), (at(7), 0));
        assert!(matches!(history.after(&v, at(7)), After::Nothing));
        assert!(matches!(history.after(&v, at(5)), After::NotKept), "inside a tick");
    }

    #[test]
    fn a_view_that_folds_apart_has_no_changes_here() {
        let (history, v, w) = (History::new(at(0)), Name::public("v"), Name::public("w"));
        keep(&history, 3, &[&w], TickDeltas::new());
        keep(&history, 4, &[&v, &w], changes(&v, 1));
        keep(&history, 5, &[&w], TickDeltas::new());
        assert!(matches!(history.after(&v, at(0)), After::NotKept));
        assert!(matches!(history.after(&v, at(3)), After::Tick(_)));
        assert!(matches!(history.after(&v, at(4)), After::NotKept));
        assert!(matches!(history.after(&w, at(4)), After::Tick(_)));
    }

    #[test]
    fn the_oldest_ticks_make_room() {
        let (history, v) = (History::with_bytes(at(0), 10_000), Name::public("v"));
        for position in 1..=10 {
            keep(&history, position, &[&v], changes(&v, 300));
        }
        assert!(matches!(history.after(&v, at(0)), After::NotKept));
        assert!(matches!(history.after(&v, at(9)), After::Tick(_)));
        assert!(history.lock().bytes <= 10_000);
        // One that is too large by itself is not kept, and leaves no gap unnoticed.
        keep(&history, 11, &[&v], changes(&v, 10_000));
        assert!(matches!(history.after(&v, at(10)), After::NotKept));
        assert!(matches!(history.after(&v, at(11)), After::Nothing));
    }
}
