//! Arrangements: the published rows of a view or table.
//!
//! Owns: immutable runs and the merging of them, the writer's index, snapshots.
//! Not here: how the changes come about (`dataflow`, `upsert`).
//!
//! Invariants
//! - A snapshot never changes; taking one costs a clone of each run's handle.
//! - Every row is alive in at most one run; what is dead is marked in bitmaps that snapshots
//!   share until they differ.

mod bag;
mod bag_index;
mod bag_input;
mod bag_state;
mod keyed;
mod keyed_state;
mod moving;
mod point;
mod run;
mod run_index;
mod runs;
mod snapshot;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use crate::state::{StateError, StateSink, Stateful};
use bag::BagRows;
pub use bag_input::BagInput;
pub(crate) use keyed::KeyedRows;
pub use point::RowRef;
pub use snapshot::Snapshot;

/// A published bag or keyed set of rows.
#[derive(Debug)]
pub struct Arrangement {
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Keyed(Box<KeyedRows>),
    Bag(Box<BagRows>),
}

impl Arrangement {
    /// At most one row per key; `key` names columns, in the order of the key.
    ///
    /// # Panics
    /// If the key's columns do not exist or cannot be ordered.
    pub fn keyed(schema: SchemaRef, key: Vec<usize>) -> Self {
        let rows = KeyedRows::new(schema, key).expect("keys have types that can be ordered");
        Self { rows: Rows::Keyed(Box::new(rows)) }
    }

    /// A bag: rows with multiplicities.
    ///
    /// # Panics
    /// If the rows have a type that cannot be ordered.
    pub fn bag(schema: SchemaRef) -> Self {
        let rows = BagRows::new(schema).expect("rows have types that can be ordered");
        Self { rows: Rows::Bag(Box::new(rows)) }
    }

    /// Applies one tick's consolidated changes.
    ///
    /// # Panics
    /// If a row is retracted that is not there, or a key gets a second row. What comes from
    /// outside goes through [`BagInput`] or [`Upsert`](crate::Upsert), which check.
    pub fn apply(&mut self, changes: &[Delta]) {
        match &mut self.rows {
            Rows::Keyed(rows) => rows.apply(changes),
            Rows::Bag(rows) => rows.apply(changes),
        }
    }

    /// From now on, changes are noted for [`Arrangement::save`]. To be called before the first.
    pub fn track(&mut self) {
        self.stateful().track();
    }

    /// Gives every entry that has changed since the last call.
    pub fn save(&mut self, sink: &mut dyn StateSink) {
        self.stateful().save(sink);
    }

    /// Takes one saved entry, before the first change.
    ///
    /// # Errors
    /// If the entry is none of an arrangement like this one.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.stateful().load(key, value)
    }

    /// Every entry has been given to [`Arrangement::load`].
    ///
    /// # Errors
    /// If the entries make no arrangement like this one.
    pub fn loaded(&mut self) -> Result<(), StateError> {
        self.stateful().loaded()
    }

    fn stateful(&mut self) -> &mut dyn Stateful {
        match &mut self.rows {
            Rows::Keyed(rows) => rows.as_mut(),
            Rows::Bag(rows) => rows.as_mut(),
        }
    }

    /// The rows as they are now; readers never block the writer.
    pub fn snapshot(&self) -> Snapshot {
        match &self.rows {
            Rows::Keyed(rows) => rows.snapshot(),
            Rows::Bag(rows) => rows.snapshot(),
        }
    }

    /// What the rows look like.
    pub fn schema(&self) -> &SchemaRef {
        match &self.rows {
            Rows::Keyed(rows) => rows.schema(),
            Rows::Bag(rows) => rows.schema(),
        }
    }

    /// Rows, multiplicities counted.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Keyed(rows) => rows.len(),
            Rows::Bag(rows) => rows.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of rows and index.
    pub fn memory_bytes(&self) -> usize {
        match &self.rows {
            Rows::Keyed(rows) => rows.memory_bytes(),
            Rows::Bag(rows) => rows.memory_bytes(),
        }
    }
}

impl KeyedRows {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let key = snapshot::Key { columns: self.key().to_vec(), codec: Arc::clone(self.codec()) };
        Snapshot::new(self.schema(), self.runs().iter(), self.len(), Some(key))
    }
}

impl BagRows {
    fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.schema(), self.runs().iter(), self.len(), None)
    }
}
