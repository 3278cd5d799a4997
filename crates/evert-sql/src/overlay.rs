//! A transaction's own writes to one table, over the snapshot that it reads.
//!
//! Owns: which rows the transaction sees, and which rows it saw under the keys it touched.
//! Not here: encoding and appending (`transaction`).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::common::Result;
use evert_model::RowSchema;
use evert_view::RowChange;

/// Keys as comparable bytes.
#[derive(Debug)]
pub(crate) struct Keys {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl Keys {
    /// Of the key columns of a relation.
    pub(crate) fn of(schema: &RowSchema) -> Result<Self> {
        let arrow = schema.to_arrow();
        let fields = schema
            .key
            .iter()
            .map(|column| SortField::new(arrow.field(*column).data_type().clone()))
            .collect();
        Ok(Self { columns: schema.key.clone(), converter: RowConverter::new(fields)? })
    }

    /// The key columns of whole rows.
    pub(crate) fn project(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.project(&self.columns)?)
    }

    /// The keys of whole rows.
    pub(crate) fn of_rows(&self, rows: &RecordBatch) -> Result<Rows> {
        self.of_keys(&self.project(rows)?)
    }

    /// Key columns alone, in key order.
    pub(crate) fn of_keys(&self, keys: &RecordBatch) -> Result<Rows> {
        Ok(self.converter.convert_columns(keys.columns())?)
    }
}

/// The rows that a transaction has written to a table so far.
#[derive(Debug)]
pub(crate) struct Overlay {
    keys: Arc<Keys>,
    /// By key: the row, or `None` where it was deleted.
    rows: HashMap<OwnedRow, Option<RecordBatch>>,
}

impl Overlay {
    pub(crate) fn new(keys: Arc<Keys>) -> Self {
        Self { keys, rows: HashMap::new() }
    }

    /// Takes a change in.
    pub(crate) fn apply(&mut self, change: &RowChange) -> Result<()> {
        let (RowChange::Put(rows) | RowChange::Delete(rows)) = change;
        let live = matches!(change, RowChange::Put(_));
        let keys = self.keys.of_rows(rows)?;
        for row in 0..rows.num_rows() {
            self.rows.insert(keys.row(row).owned(), live.then(|| rows.slice(row, 1)));
        }
        Ok(())
    }

    /// What the transaction made of a key: `None` if nothing.
    pub(crate) fn get(&self, key: &RecordBatch, row: usize) -> Option<Option<RecordBatch>> {
        let keys = self.keys.of_keys(key).ok()?;
        self.rows.get(&keys.row(row).owned()).cloned()
    }

    /// A snapshot's rows without those that the transaction wrote.
    pub(crate) fn hide(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let keys = self.keys.of_rows(rows)?;
        let kept: BooleanArray =
            keys.iter().map(|key| Some(!self.rows.contains_key(&key.owned()))).collect();
        Ok(filter_record_batch(rows, &kept)?)
    }

    /// The rows that the transaction wrote and did not delete.
    pub(crate) fn rows(&self) -> impl Iterator<Item = RecordBatch> + Send + 'static {
        let rows: Vec<_> = self.rows.values().flatten().cloned().collect();
        rows.into_iter()
    }
}

impl Clone for Overlay {
    fn clone(&self) -> Self {
        Self { keys: Arc::clone(&self.keys), rows: self.rows.clone() }
    }
}
