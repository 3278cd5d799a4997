//! Upsert: the newest record of a key wins.

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use crate::arrangement::{KeyedRows, Snapshot};
use crate::rows::batch_of;
use crate::state::{StateError, StateSink, Stateful};
use arrow::compute::concat_batches;

/// Turns "the newest record of a key wins" into deltas. Its state is what it publishes.
#[derive(Debug)]
pub struct Upsert {
    rows: KeyedRows,
}

/// A run of facts about keyed rows, in log order.
#[derive(Clone, Debug)]
pub struct UpsertBatch {
    /// Whole rows. Of a deleted row only the key columns matter; the others may be null or
    /// default.
    pub rows: RecordBatch,
    /// false: the key is deleted.
    pub live: BooleanArray,
}

impl Upsert {
    /// No rows yet; `key` names columns, in the order of the key.
    ///
    /// # Panics
    /// If the key's columns do not exist or cannot be ordered.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Self {
        let rows = KeyedRows::new(schema, key).expect("keys have types that can be ordered");
        Self { rows }
    }

    /// Later rows win over earlier ones; gives the consolidated change. A row that is written
    /// again as it was is no change.
    ///
    /// # Panics
    /// If a batch does not have the schema, or `live` another length than its rows.
    pub fn apply(&mut self, batches: &[UpsertBatch]) -> Delta {
        for batch in batches {
            assert_eq!(batch.rows.num_rows(), batch.live.len(), "each row is live or deleted");
        }
        let rows = batches.iter().map(|batch| &batch.rows).collect();
        let live: Vec<_> = batches.iter().map(|batch| &batch.live).collect();
        self.rows.upsert(rows, &live)
    }

    /// Deletes every row and gives the change.
    pub fn truncate(&mut self) -> Delta {
        let batches = self.rows.truncate();
        let schema = self.rows.schema();
        let rows = concat_batches(schema, &batches).expect("batches of one schema");
        let len = rows.num_rows();
        let rows = batch_of(schema, rows.columns().to_vec(), len);
        Delta::new(rows, Int64Array::from_value(-1, len))
    }

    /// From now on, changes are noted for [`Upsert::save`]. To be called before the first.
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
    /// If the entry is none of a table like this one.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.rows.load(key, value)
    }

    /// Every entry has been given to [`Upsert::load`].
    ///
    /// # Errors
    /// If the entries make no table like this one.
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
