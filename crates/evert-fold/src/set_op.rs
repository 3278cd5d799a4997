//! INTERSECT and EXCEPT: how often each row is on either side.
//!
//! Invariant: after a tick, every row held is on one side at least.

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use crate::key_index::KeyIndex;
use crate::keys::KeyCodec;
use crate::plan::{FoldError, SetOp};
use crate::rows::batch_of;
use crate::state::{StateError, StateSink, Stateful};
use crate::unsaved::{Unsaved, split_number};

const ROW: u8 = 0;

#[derive(Debug)]
pub(crate) struct SetOperation {
    op: SetOp,
    all: bool,
    schema: SchemaRef,
    codec: KeyCodec,
    rows: KeyIndex,
    /// How often a row is on the left and on the right, by slot.
    counts: Vec<[i64; 2]>,
    /// Rows that this tick has changed, with how often they were given before.
    touched: Vec<(u32, i64)>,
    is_touched: Vec<bool>,
    unsaved: Option<Unsaved>,
}

impl SetOperation {
    pub(crate) fn new(op: SetOp, all: bool, schema: SchemaRef) -> Result<Self, FoldError> {
        Ok(Self {
            op,
            all,
            codec: KeyCodec::of_schema(&schema)?,
            schema,
            rows: KeyIndex::default(),
            counts: Vec::new(),
            touched: Vec::new(),
            is_touched: Vec::new(),
            unsaved: None,
        })
    }

    /// Gives consolidated changes.
    ///
    /// # Panics
    /// If a row is retracted that is not there.
    pub(crate) fn tick(&mut self, left: &[Delta], right: &[Delta]) -> Vec<Delta> {
        left.iter().for_each(|delta| self.change(0, delta));
        right.iter().for_each(|delta| self.change(1, delta));
        let (mut changed, mut weights) = (Vec::new(), Vec::new());
        for &(slot, before) in &self.touched {
            let counts = self.counts[slot as usize];
            assert!(counts[0] >= 0 && counts[1] >= 0, "a row is retracted that is not there");
            let given = self.given(counts);
            if given != before {
                changed.push(slot);
                weights.push(given - before);
            }
        }
        let columns = self.codec.decode(changed.iter().map(|&slot| self.rows.get(slot)));
        self.settle();
        if weights.is_empty() {
            return Vec::new();
        }
        let rows = batch_of(&self.schema, columns, weights.len());
        vec![Delta::new(rows, Int64Array::from(weights))]
    }

    /// Distinct rows held.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
            + self.counts.capacity() * size_of::<[i64; 2]>()
            + self.is_touched.capacity()
            + self.unsaved.as_ref().map_or(0, Unsaved::memory_bytes)
    }

    fn change(&mut self, side: usize, delta: &Delta) {
        let rows = self.codec.encode_normalised(delta.rows.columns(), delta.len());
        for (row, &weight) in delta.weights.values().iter().enumerate() {
            if weight == 0 {
                continue;
            }
            let slot = self.slot(rows.get(row));
            if !std::mem::replace(&mut self.is_touched[slot as usize], true) {
                self.touched.push((slot, self.given(self.counts[slot as usize])));
            }
            self.counts[slot as usize][side] += weight;
        }
    }

    fn slot(&mut self, row: &[u8]) -> u32 {
        let (slot, is_new) = self.rows.find_or_insert(row);
        if is_new && slot as usize >= self.counts.len() {
            self.counts.resize(self.rows.end(), [0, 0]);
            self.is_touched.resize(self.rows.end(), false);
        }
        slot
    }

    /// How often a row is given.
    fn given(&self, [left, right]: [i64; 2]) -> i64 {
        match (self.op, self.all) {
            (SetOp::Intersect, true) => left.min(right),
            (SetOp::Intersect, false) => i64::from(left > 0 && right > 0),
            (SetOp::Except, true) => (left - right).max(0),
            (SetOp::Except, false) => i64::from(left > 0 && right <= 0),
        }
    }

    fn settle(&mut self) {
        for (slot, _) in std::mem::take(&mut self.touched) {
            self.is_touched[slot as usize] = false;
            let is_gone = self.counts[slot as usize] == [0, 0];
            match &mut self.unsaved {
                Some(unsaved) if is_gone => unsaved.remove(slot, self.rows.get(slot)),
                Some(unsaved) => unsaved.change(slot),
                None => {}
            }
            if is_gone {
                self.rows.remove(slot);
            }
        }
    }
}

impl Stateful for SetOperation {
    fn track(&mut self) {
        self.unsaved = Some(Unsaved::default());
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        let Some(unsaved) = &mut self.unsaved else { return };
        unsaved.save(&self.rows, ROW, sink, |slot, value| {
            let [left, right] = self.counts[slot as usize];
            value.extend_from_slice(&left.to_le_bytes());
            value.extend_from_slice(&right.to_le_bytes());
        });
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let Some((&ROW, row)) = key.split_first() else {
            return Err(StateError("an entry is no row of a set operation".into()));
        };
        let (left, rest) = split_number(value)?;
        let (right, _) = split_number(rest)?;
        if left < 0 || right < 0 {
            return Err(StateError(format!("a row is there {left} and {right} times")));
        }
        let slot = self.slot(row);
        self.counts[slot as usize] = [left, right];
        Ok(())
    }
}
