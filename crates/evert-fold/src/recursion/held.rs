//! Rows with how often each is there.
//!
//! Invariant: a row that is there no times is not held.

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use crate::FoldError;
use crate::key_index::KeyIndex;
use crate::keys::KeyCodec;
use crate::rows::batch_of;
use crate::state::{StateError, StateSink};
use crate::unsaved::{Unsaved, split_number};

#[derive(Debug)]
pub(super) struct HeldRows {
    schema: SchemaRef,
    codec: KeyCodec,
    /// Whether -0.0 and 0.0 are one value.
    normalised: bool,
    rows: KeyIndex,
    /// By slot.
    counts: Vec<i64>,
    unsaved: Option<Unsaved>,
}

impl HeldRows {
    pub(super) fn new(schema: SchemaRef, normalised: bool) -> Result<Self, FoldError> {
        Ok(Self {
            codec: KeyCodec::of_schema(&schema)?,
            schema,
            normalised,
            rows: KeyIndex::default(),
            counts: Vec::new(),
            unsaved: None,
        })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn codec(&self) -> &KeyCodec {
        &self.codec
    }

    pub(super) fn apply(&mut self, deltas: &[Delta]) {
        for delta in deltas {
            let rows = if self.normalised {
                self.codec.encode_normalised(delta.rows.columns(), delta.len())
            } else {
                self.codec.encode(delta.rows.columns(), delta.len())
            };
            for (row, &weight) in delta.weights.values().iter().enumerate() {
                if weight != 0 {
                    self.change(rows.get(row), weight);
                }
            }
        }
    }

    /// All rows, as insertions.
    pub(super) fn contents(&self) -> Delta {
        self.select(|_, count| count)
    }

    /// Rows with the weights that `weight` gives them from their bytes and counts; none of weight
    /// zero.
    pub(super) fn select(&self, weight: impl Fn(&[u8], i64) -> i64) -> Delta {
        let slots = self.counts.iter().enumerate().filter(|(_, count)| **count != 0);
        let (rows, weights): (Vec<&[u8]>, Vec<i64>) = slots
            .map(|(slot, &count)| {
                let row = self.rows.get(slot as u32);
                (row, weight(row, count))
            })
            .filter(|(_, weight)| *weight != 0)
            .unzip();
        let columns = self.codec.decode(rows.iter().copied());
        let batch = batch_of(&self.schema, columns, rows.len());
        Delta::new(batch, Int64Array::from(weights))
    }

    pub(super) fn contains(&self, row: &[u8]) -> bool {
        self.rows.find(row).is_some()
    }

    /// Distinct rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
            + self.counts.capacity() * size_of::<i64>()
            + self.unsaved.as_ref().map_or(0, Unsaved::memory_bytes)
    }

    pub(super) fn track(&mut self) {
        self.unsaved = Some(Unsaved::default());
    }

    pub(super) fn save(&mut self, prefix: u8, sink: &mut dyn StateSink) {
        let Some(unsaved) = &mut self.unsaved else { return };
        unsaved.save(&self.rows, prefix, sink, |slot, value| {
            value.extend_from_slice(&self.counts[slot as usize].to_le_bytes());
        });
    }

    pub(super) fn load(&mut self, row: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (count, _) = split_number(value)?;
        if count <= 0 {
            return Err(StateError(format!("a row is there {count} times")));
        }
        let unsaved = self.unsaved.take();
        self.change(row, count);
        self.unsaved = unsaved;
        Ok(())
    }

    fn change(&mut self, row: &[u8], weight: i64) {
        let (slot, is_new) = self.rows.find_or_insert(row);
        if is_new {
            if slot as usize >= self.counts.len() {
                self.counts.resize(self.rows.end(), 0);
            }
            self.counts[slot as usize] = 0;
        }
        let count = &mut self.counts[slot as usize];
        *count += weight;
        let is_gone = *count == 0;
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
