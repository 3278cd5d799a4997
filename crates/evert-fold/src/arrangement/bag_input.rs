//! A bag fed from outside, where a retraction may name a row that is not there.

use std::collections::HashMap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use super::bag::{BagRows, joined};
use super::snapshot::Snapshot;
use crate::consolidate::consolidate;
use crate::dataflow::RowError;
use crate::project::filter_delta;
use crate::row_text::row_text;
use crate::state::{StateError, StateSink, Stateful};

/// A bag that is told which rows come and go, in log order.
#[derive(Debug)]
pub struct BagInput {
    rows: BagRows,
}

impl BagInput {
    /// An empty bag.
    ///
    /// # Panics
    /// If the rows have a type that cannot be ordered.
    pub fn new(schema: SchemaRef) -> Self {
        let rows = BagRows::new(schema).expect("rows have types that can be ordered");
        Self { rows }
    }

    /// Inserts and retracts rows in the order given. A retraction of a row that is not there at
    /// its turn is left out and reported. Gives the consolidated change.
    pub fn apply(&mut self, changes: &Delta) -> (Delta, Vec<RowError>) {
        if changes.weights.values().iter().all(|&weight| weight > 0) {
            self.rows.apply(std::slice::from_ref(changes));
            return (changes.clone(), Vec::new());
        }
        let mut errors = Vec::new();
        // How often each row has been inserted by what came before in this call.
        let mut pending: HashMap<Vec<u8>, i64> = HashMap::new();
        let keys = self.rows.codec().encode(changes.rows.columns(), changes.len());
        let weights = changes.weights.values().iter().enumerate();
        let keep = weights.map(|(row, &weight)| {
            let bytes = keys.get(row);
            let added = pending.get(bytes).copied().unwrap_or(0);
            if weight < 0 && self.rows.multiplicity(bytes) + added + weight < 0 {
                errors.push(absent(&changes.rows, row));
                return Some(false);
            }
            *pending.entry(bytes.to_vec()).or_default() += weight;
            Some(weight != 0)
        });
        let keep: BooleanArray = keep.collect();
        let accepted = vec![filter_delta(changes, &keep)];
        let schema = self.rows.schema();
        let change = consolidate(accepted, self.rows.codec(), schema);
        self.rows.apply(&change);
        (joined(self.rows.schema(), &change), errors)
    }

    /// Retracts every row and gives the change.
    pub fn truncate(&mut self) -> Delta {
        self.rows.truncate()
    }

    /// From now on, changes are noted for [`BagInput::save`]. To be called before the first.
    pub fn track(&mut self) {
        self.rows.track();
    }

    /// Gives every entry that has changed since the last call.
    pub fn save(&mut self, sink: &mut dyn StateSink) {
        self.rows.save(sink);
    }

    /// Takes one saved entry, before the first change.
    ///
    /// # Errors
    /// If the entry is none of a bag like this one.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.rows.load(key, value)
    }

    /// Every entry has been given to [`BagInput::load`].
    ///
    /// # Errors
    /// If the entries make no bag like this one.
    pub fn loaded(&mut self) -> Result<(), StateError> {
        self.rows.loaded()
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.rows.snapshot()
    }

    /// Bytes of rows and index.
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }
}

fn absent(rows: &RecordBatch, row: usize) -> RowError {
    let reason = "the row to take away is not there".to_owned();
    RowError { reason, row: row_text(rows, row), weight: 1 }
}
