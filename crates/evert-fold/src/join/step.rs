//! One step of a join: one side changes, the other stays.
//!
//! Owns: which rows are given alone, before and after.
//! Not here: pairs (`pairs`).
//! Invariant: what a step gives is exactly what the change of its side changes.

use std::collections::HashMap;

use arrow::array::{BooleanArray, Int64Array};
use arrow::compute::not;
use evert_model::Delta;

use super::bound::Bound;
use super::pairs::{Met, OUTPUT_ROWS, Pairs};
use super::shape::{Matching, Shape, Shows};
use super::side::{Keyed, Side, Totals};
use crate::dataflow::RowError;
use crate::project::{Projection, filter_delta};

/// The side that changes, the other one, and where what comes of it goes.
pub(super) struct Step<'a> {
    pub(super) shape: &'a Shape,
    pub(super) filter: Option<&'a Projection>,
    pub(super) own: &'a mut Side,
    pub(super) other: &'a mut Side,
    pub(super) own_is_left: bool,
    pub(super) out: &'a mut Vec<Delta>,
    pub(super) bound: &'a mut Bound,
    pub(super) errors: &'a mut Vec<RowError>,
}

/// A held row of the other side that has got its first match, or lost its last one.
#[derive(Clone, Copy)]
struct Flip {
    row: u32,
    has_match: bool,
}

impl Step<'_> {
    pub(super) fn run(mut self, deltas: &[Delta]) {
        let total_before = self.own.total;
        for delta in deltas.iter().filter(|delta| !delta.is_empty()) {
            if self.bound.is_passed() {
                return;
            }
            let keyed = self.own.keyed(delta);
            let counts = self.meet(&keyed);
            self.show_own(&keyed, counts.as_deref());
            self.own.update(&keyed, counts.as_deref());
        }
        let flips = match self.other.counts.is_some() {
            true => self.flips_by_row(),
            false => self.flips_by_key(total_before),
        };
        for flips in flips.chunks(OUTPUT_ROWS) {
            self.show_flips(flips);
        }
        self.own.settle();
    }

    fn own_shows(&self) -> Shows {
        if self.own_is_left { self.shape.left } else { self.shape.right }
    }

    fn other_shows(&self) -> Shows {
        if self.own_is_left { self.shape.right } else { self.shape.left }
    }

    /// Tries the pairs of a delta with the rows of the other side. Gives how many matches each of
    /// its rows has, if a filter makes them differ within a key.
    fn meet(&mut self, keyed: &Keyed<'_>) -> Option<Vec<i64>> {
        if !self.shape.pairs && self.filter.is_none() {
            return None;
        }
        self.other.expect(keyed.delta.len());
        // The counts change while the rows are read.
        let other_counts = self.other.counts.take();
        let met = Met { keyed, other: self.other, own_is_left: self.own_is_left };
        let mut pairs = Pairs::new(met, self.shape, self.filter, other_counts, self.bound);
        for (row, &weight) in keyed.delta.weights.values().iter().enumerate() {
            if weight == 0 {
                continue;
            }
            self.other
                .candidates(keyed, row)
                .for_each(|held| pairs.push(row, held, self.out, self.errors));
        }
        let (own_counts, other_counts) = pairs.finish(self.out, self.errors);
        self.other.counts = other_counts;
        own_counts
    }

    /// Gives the rows of a delta as they show with the other side as it is.
    fn show_own(&mut self, keyed: &Keyed<'_>, counts: Option<&[i64]>) {
        let shows = self.own_shows();
        if shows == Shows::Nothing {
            return;
        }
        let delta = keyed.delta;
        let has_match: BooleanArray = match counts {
            Some(counts) => counts.iter().map(|&count| Some(count > 0)).collect(),
            None => (0..delta.len()).map(|row| Some(self.other.total_of(keyed, row) > 0)).collect(),
        };
        let (shown, mark) = match shows {
            Shows::Matched => (filter_delta(delta, &has_match), None),
            Shows::Unmatched => {
                let unmatched = not(&has_match).expect("it is a mask");
                (filter_delta(delta, &unmatched), None)
            }
            Shows::Nothing | Shows::Mark => (delta.clone(), Some(has_match)),
        };
        if !shown.is_empty() {
            let columns = shown.rows.columns().to_vec();
            self.out.push(self.shape.alone(self.own_is_left, columns, mark, shown.weights));
        }
    }

    /// Gives the change of what held rows of the other side show.
    fn show_flips(&mut self, flips: &[Flip]) {
        let signs: &[i64] = match self.other_shows() {
            Shows::Nothing => return,
            Shows::Matched => &[1],
            Shows::Unmatched => &[-1],
            // What it showed before, then what it shows now.
            Shows::Mark => &[-1, 1],
        };
        let is_mark = signs.len() == 2;
        let rows: Vec<u32> = signs.iter().flat_map(|_| flips.iter().map(|f| f.row)).collect();
        let weights = signs.iter().flat_map(|sign| {
            flips.iter().map(move |flip| if flip.has_match || is_mark { *sign } else { -sign })
        });
        let weights = weights.zip(&rows).map(|(sign, &row)| sign * self.other.weight(row));
        let weights = Int64Array::from_iter_values(weights);
        let mark = is_mark.then(|| {
            let marks = [false, true].into_iter();
            let marks = marks.flat_map(|now| flips.iter().map(move |f| Some(f.has_match == now)));
            marks.collect::<BooleanArray>()
        });
        let columns = self.other.decode(&rows);
        self.out.push(self.shape.alone(!self.own_is_left, columns, mark, weights));
    }

    /// Rows of the other side that flip because pairs with them have come or gone.
    fn flips_by_row(&mut self) -> Vec<Flip> {
        let changed = self.other.take_recounted();
        let flips = changed.into_iter().filter_map(|(row, before)| {
            let after = self.other.match_count(row);
            assert!(before >= 0 && after >= 0, "more matches were retracted than a row had");
            ((before > 0) != (after > 0)).then_some(Flip { row, has_match: after > 0 })
        });
        flips.collect()
    }

    /// Rows of the other side that flip because a key of this side has got its first row, or lost
    /// its last one.
    fn flips_by_key(&mut self, before: Totals) -> Vec<Flip> {
        let Some(totals) = &mut self.own.totals else { return Vec::new() };
        let changed = totals.take_changed();
        if self.other_shows() == Shows::Nothing {
            return Vec::new();
        }
        let after = self.own.total;
        if self.shape.matching != Matching::NotDifferent {
            return self.flips_of_keys(&changed);
        }
        let mut flips = Vec::new();
        push_flips(&mut flips, self.other.rows_of(self.other.null_key()), before.all, after.all);
        match (before.null > 0, after.null > 0) {
            // Every row has a match before and after.
            (true, true) => {}
            (false, false) => {
                let null = self.own.key_slot(self.own.null_key());
                let changed: Vec<_> =
                    changed.into_iter().filter(|&(slot, _)| Some(slot) != null).collect();
                flips.extend(self.flips_of_keys(&changed));
            }
            _ => {
                let changed: HashMap<u32, i64> = changed.into_iter().collect();
                for (key, rows) in self.other.rows_by_key() {
                    if key == self.other.null_key() {
                        continue;
                    }
                    let slot = self.own.key_slot(key);
                    let after_key = self.own.key_total(key);
                    let before_key =
                        slot.and_then(|slot| changed.get(&slot)).copied().unwrap_or(after_key);
                    push_flips(&mut flips, rows, before_key + before.null, after_key + after.null);
                }
            }
        }
        flips
    }

    fn flips_of_keys(&self, changed: &[(u32, i64)]) -> Vec<Flip> {
        let mut flips = Vec::new();
        for &(slot, before) in changed {
            let key = self.own.key_at(slot);
            let after = self.own.key_total(key);
            if (before > 0) != (after > 0) {
                push_flips(&mut flips, self.other.rows_of(key), before, after);
            }
        }
        flips
    }
}

fn push_flips(flips: &mut Vec<Flip>, rows: &[u32], before: i64, after: i64) {
    assert!(before >= 0 && after >= 0, "more rows were retracted from a join than it had");
    if (before > 0) != (after > 0) {
        flips.extend(rows.iter().map(|&row| Flip { row, has_match: after > 0 }));
    }
}
