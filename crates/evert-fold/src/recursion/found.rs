//! The rows of a recursion of distinct rows, with how many derivations each has.
//!
//! Invariants, between ticks
//! - A row is in if and only if it has a derivation: from the base, or from a row that is in.
//! - A row without a derivation is not held.

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use crate::FoldError;
use crate::key_index::KeyIndex;
use crate::keys::KeyCodec;
use crate::rows::batch_of;

#[derive(Debug)]
pub(super) struct Found {
    schema: SchemaRef,
    codec: KeyCodec,
    rows: KeyIndex,
    /// By slot.
    entries: Vec<Entry>,
    /// Rows that this tick has met, and whether they were in before.
    touched: Vec<(u32, bool)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    derivations: i64,
    is_in: bool,
    is_touched: bool,
}

impl Found {
    pub(super) fn new(schema: SchemaRef) -> Result<Self, FoldError> {
        Ok(Self {
            codec: KeyCodec::of_schema(&schema)?,
            schema,
            rows: KeyIndex::default(),
            entries: Vec::new(),
            touched: Vec::new(),
        })
    }

    /// Takes derivations away. Rows that lose one go out, even if they have others: those may rest
    /// on the row itself. Gives the rows that have gone out.
    pub(super) fn lose(&mut self, deltas: &[Delta]) -> Vec<u32> {
        let mut out = Vec::new();
        self.change(deltas, |slot, weight, entry| {
            if weight < 0 && entry.is_in {
                entry.is_in = false;
                out.push(slot);
            }
        });
        out
    }

    /// Adds derivations, and gives the rows that have come in.
    pub(super) fn gain(&mut self, deltas: &[Delta]) -> Vec<u32> {
        let mut came = Vec::new();
        self.change(deltas, |slot, _, entry| {
            if entry.derivations > 0 && !entry.is_in {
                entry.is_in = true;
                came.push(slot);
            }
        });
        came
    }

    /// Of rows that have gone out, those that still have a derivation come in again.
    pub(super) fn bring_back(&mut self, mut rows: Vec<u32>) -> Vec<u32> {
        rows.retain(|&slot| {
            let entry = &mut self.entries[slot as usize];
            entry.is_in = entry.derivations > 0;
            entry.is_in
        });
        rows
    }

    /// Rows as a delta, each once.
    pub(super) fn delta(&self, rows: &[u32], weight: i64) -> Delta {
        let columns = self.codec.decode(rows.iter().map(|&slot| self.rows.get(slot)));
        let batch = batch_of(&self.schema, columns, rows.len());
        Delta::new(batch, Int64Array::from_value(weight, rows.len()))
    }

    /// Ends a tick, and gives what has changed.
    ///
    /// # Panics
    /// If a row has lost more derivations than it had.
    pub(super) fn settle(&mut self) -> Vec<Delta> {
        let touched = std::mem::take(&mut self.touched);
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        for &(slot, was_in) in &touched {
            let entry = &mut self.entries[slot as usize];
            entry.is_touched = false;
            assert!(entry.derivations >= 0, "more derivations were retracted than a row had");
            match (was_in, entry.is_in) {
                (false, true) => came.push(slot),
                (true, false) => gone.push(slot),
                _ => {}
            }
        }
        let deltas = [self.delta(&gone, -1), self.delta(&came, 1)];
        for (slot, _) in touched {
            if self.entries[slot as usize].derivations == 0 {
                self.rows.remove(slot);
            }
        }
        deltas.into_iter().filter(|delta| !delta.is_empty()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.entries.capacity() * size_of::<Entry>()
    }

    fn change(&mut self, deltas: &[Delta], mut visit: impl FnMut(u32, i64, &mut Entry)) {
        for delta in deltas {
            let rows = self.codec.encode_normalised(delta.rows.columns(), delta.len());
            for (row, &weight) in delta.weights.values().iter().enumerate() {
                let (slot, is_new) = self.rows.find_or_insert(rows.get(row));
                if is_new && slot as usize >= self.entries.len() {
                    self.entries.resize(self.rows.end(), Entry::default());
                }
                let entry = &mut self.entries[slot as usize];
                if !std::mem::replace(&mut entry.is_touched, true) {
                    self.touched.push((slot, entry.is_in));
                }
                entry.derivations += weight;
                visit(slot, weight, entry);
            }
        }
    }
}
