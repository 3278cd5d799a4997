//! Reduce: GROUP BY, and DISTINCT as a GROUP BY of all columns.
//!
//! A tick collects the groups it touches, puts aside what they showed, changes their
//! accumulators, and gives the difference. Rows may be retracted before they are inserted within
//! a tick: groups are judged at its end only.
//!
//! Invariants
//! - A group's slot is the slot of its key; accumulators are columns over slots.
//! - After a tick, groups have at least one row, but for the one group of a reduce without keys.

mod accumulators;
mod general;
mod ordered;
mod saved;
mod show;
mod sums;
mod values;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use evert_model::Delta;
use std::sync::Arc;

use crate::dataflow::RowError;
use crate::key_index::KeyIndex;
use crate::keys::KeyCodec;
use crate::plan::{Aggregate, FoldError};
use crate::project::filter_delta;
use crate::row_text::row_text;
use crate::rows::{batch_of, columns_of, same_values};
use accumulators::Accumulators;
use saved::{Loading, Numbers, Tracking};

/// Rows of a batch of all that was put out.
const PUBLISHED_ROWS: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct Reduce {
    keys: Vec<usize>,
    codec: KeyCodec,
    key_schema: SchemaRef,
    schema: SchemaRef,
    groups: KeyIndex,
    /// Rows in the group, by slot.
    rows: Vec<i64>,
    /// Whether this tick has touched the group, by slot.
    touched: Vec<bool>,
    accumulators: Accumulators,
    /// Without keys there is always one row.
    is_global: bool,
    /// Whether that row has been put out.
    global_shown: bool,
    numbers: Numbers,
    tracking: Option<Tracking>,
    loading: Option<Box<Loading>>,
}

/// What the touched groups show at one moment.
struct Shown {
    live: Vec<bool>,
    columns: Vec<ArrayRef>,
    errors: Vec<Option<String>>,
}

impl Reduce {
    pub(crate) fn new(
        input: &SchemaRef,
        keys: Vec<usize>,
        aggregates: &[Aggregate],
        schema: SchemaRef,
    ) -> Result<Self, FoldError> {
        let codec = KeyCodec::new(keys.iter().map(|&key| input.field(key).data_type()))?;
        let fields: Vec<Field> = keys.iter().map(|&key| input.field(key).clone()).collect();
        let mut reduce = Self {
            is_global: keys.is_empty(),
            codec,
            key_schema: Arc::new(Schema::new(fields)),
            accumulators: Accumulators::new(input, aggregates)?,
            keys,
            schema,
            groups: KeyIndex::default(),
            rows: Vec::new(),
            touched: Vec::new(),
            global_shown: false,
            numbers: Numbers::default(),
            tracking: None,
            loading: None,
        };
        if reduce.is_global {
            let (slot, _) = reduce.groups.find_or_insert(&[]);
            reduce.name(slot);
            reduce.make_room();
        }
        Ok(reduce)
    }

    /// SELECT DISTINCT: groups by all columns. Over rows without columns there is one row or none,
    /// never a global aggregate's row.
    pub(crate) fn distinct(
        input: &SchemaRef,
        keys: Vec<usize>,
        schema: SchemaRef,
    ) -> Result<Self, FoldError> {
        let mut reduce = Self::new(input, keys, &[], schema)?;
        if std::mem::take(&mut reduce.is_global) {
            let group = reduce.groups.find(&[]).expect("a global aggregate has its group");
            reduce.groups.remove(group);
        }
        Ok(reduce)
    }

    pub(crate) fn tick(&mut self, input: &[Delta], errors: &mut Vec<RowError>) -> Vec<Delta> {
        let mut touched = Vec::new();
        if self.is_global && !self.global_shown {
            self.touched[0] = true;
            touched.push(0);
        }
        let slots: Vec<Vec<u32>> =
            input.iter().map(|delta| self.touch(delta, &mut touched)).collect();
        if touched.is_empty() {
            return Vec::new();
        }
        let before = self.show(&touched);
        for (delta, slots) in input.iter().zip(&slots) {
            self.change(delta, slots);
        }
        self.global_shown = true;
        let after = self.show(&touched);
        let keys = self.codec.decode(touched.iter().map(|&slot| self.groups.get(slot)));
        self.report(&touched, &keys, &before, &after, errors);
        let out = self.difference(&keys, &before, &after);
        self.settle(&touched);
        out
    }

    /// Every row it has put out and not taken back.
    pub(crate) fn published(&mut self) -> Vec<Delta> {
        let exists =
            |slot: &u32| self.rows[*slot as usize] > 0 || (self.is_global && self.global_shown);
        let slots: Vec<u32> = (0..self.groups.end() as u32).filter(exists).collect();
        let chunks = slots.chunks(PUBLISHED_ROWS).map(|slots| {
            let Shown { live, columns, .. } = self.show(slots);
            let keys = self.codec.decode(slots.iter().map(|&slot| self.groups.get(slot)));
            let rows =
                batch_of(&self.schema, keys.into_iter().chain(columns).collect(), slots.len());
            filter_delta(&Delta::inserts(rows), &live.into_iter().map(Some).collect())
        });
        chunks.collect()
    }

    /// Groups.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.groups.memory_bytes()
            + self.rows.capacity() * size_of::<i64>()
            + self.touched.capacity()
            + self.numbers.memory_bytes()
            + self.accumulators.memory_bytes()
    }

    /// The group of each row; groups met first this tick are added to `touched`.
    fn touch(&mut self, delta: &Delta, touched: &mut Vec<u32>) -> Vec<u32> {
        let columns = columns_of(&delta.rows, &self.keys);
        let keys = self.codec.encode_normalised(&columns, delta.len());
        let mut slots = Vec::with_capacity(delta.len());
        for row in 0..delta.len() {
            let (slot, is_new) = self.groups.find_or_insert(keys.get(row));
            if is_new {
                self.name(slot);
                if slot as usize >= self.touched.len() {
                    self.touched.resize(self.groups.end(), false);
                }
            }
            if !std::mem::replace(&mut self.touched[slot as usize], true) {
                touched.push(slot);
            }
            slots.push(slot);
        }
        self.make_room();
        slots
    }

    /// Gives a new group its number, if anything is named by it.
    fn name(&mut self, slot: u32) {
        if self.accumulators.hold_values() {
            self.numbers.give(slot);
        }
    }

    fn make_room(&mut self) {
        let end = self.groups.end();
        self.rows.resize(end, 0);
        self.touched.resize(end, false);
        self.accumulators.resize(end);
    }

    fn change(&mut self, delta: &Delta, slots: &[u32]) {
        for (&slot, &weight) in slots.iter().zip(delta.weights.values()) {
            self.rows[slot as usize] += weight;
        }
        let ids = self.numbers.ids();
        self.accumulators.change(&delta.rows, slots, delta.weights.values(), ids);
    }

    fn show(&mut self, touched: &[u32]) -> Shown {
        let mut errors = vec![None; touched.len()];
        let columns = self.accumulators.show(&self.rows, touched, &mut errors);
        let live = touched
            .iter()
            .zip(&mut errors)
            .map(|(&slot, error)| {
                let exists = self.rows[slot as usize] > 0 || (self.is_global && self.global_shown);
                if !exists {
                    *error = None;
                }
                exists && error.is_none()
            })
            .collect();
        Shown { live, columns, errors }
    }

    /// Groups whose aggregates no longer fit, or fit again.
    fn report(
        &self,
        touched: &[u32],
        keys: &[ArrayRef],
        before: &Shown,
        after: &Shown,
        errors: &mut Vec<RowError>,
    ) {
        let mut rows: Option<RecordBatch> = None;
        for (i, (old, new)) in before.errors.iter().zip(&after.errors).enumerate() {
            if old == new {
                continue;
            }
            let rows = rows
                .get_or_insert_with(|| batch_of(&self.key_schema, keys.to_vec(), touched.len()));
            for (reason, weight) in [(old, -1), (new, 1)] {
                let Some(reason) = reason.clone() else { continue };
                errors.push(RowError { reason, row: row_text(rows, i), weight });
            }
        }
    }

    fn difference(&self, keys: &[ArrayRef], before: &Shown, after: &Shown) -> Vec<Delta> {
        let same = self.same(before, after);
        let changed = |i: usize, shown: &Shown, other: &Shown| {
            shown.live[i] && !(other.live[i] && same.as_ref().is_none_or(|same| same.value(i)))
        };
        let groups = 0..before.live.len();
        let old: UInt32Array =
            groups.clone().filter(|&i| changed(i, before, after)).map(|i| i as u32).collect();
        let new: UInt32Array =
            groups.filter(|&i| changed(i, after, before)).map(|i| i as u32).collect();
        let rows = old.len() + new.len();
        if rows == 0 {
            return Vec::new();
        }
        let joined = |before: &ArrayRef, after: &ArrayRef| {
            let pick = |column, indices| take(column, indices, None).expect("indices are in range");
            match (old.is_empty(), new.is_empty()) {
                (true, _) => pick(after, &new),
                (_, true) => pick(before, &old),
                _ => concat(&[&pick(before, &old), &pick(after, &new)]).expect("of one type"),
            }
        };
        let keys = keys.iter().map(|key| joined(key, key));
        let values = before.columns.iter().zip(&after.columns).map(|(b, a)| joined(b, a));
        let batch = batch_of(&self.schema, keys.chain(values).collect(), rows);
        let weights = (0..rows).map(|i| if i < old.len() { -1 } else { 1 });
        vec![Delta::new(batch, Int64Array::from_iter_values(weights))]
    }

    /// Where all aggregates are what they were; `None` if there are no aggregates.
    fn same(&self, before: &Shown, after: &Shown) -> Option<BooleanArray> {
        before
            .columns
            .iter()
            .zip(&after.columns)
            .map(|(before, after)| same_values(before, after))
            .reduce(|all, same| BooleanArray::new(all.values() & same.values(), None))
    }

    /// Forgets groups that have lost their last row.
    fn settle(&mut self, touched: &[u32]) {
        for &slot in touched {
            self.touched[slot as usize] = false;
            let rows = self.rows[slot as usize];
            assert!(rows >= 0, "more rows were retracted from a group than it had");
            if rows == 0 && !self.is_global {
                if let Some(tracking) = &mut self.tracking {
                    tracking.remove(self.groups.get(slot));
                }
                self.numbers.take(slot);
                self.accumulators.clear(slot);
                self.groups.remove(slot);
            } else if let Some(tracking) = &mut self.tracking {
                tracking.change(slot);
            }
        }
    }
}
