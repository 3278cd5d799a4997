//! Deltas: changes to a bag of rows.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;

/// Rows with a weight each: +1 inserts a row, -1 retracts it (a Z-set).
#[derive(Clone, Debug)]
pub struct Delta {
    /// The rows.
    pub rows: RecordBatch,
    /// One weight a row, without nulls.
    pub weights: Int64Array,
}

impl Delta {
    /// Pairs rows with weights.
    ///
    /// # Panics
    /// If the lengths differ or a weight is null.
    pub fn new(rows: RecordBatch, weights: Int64Array) -> Self {
        assert_eq!(rows.num_rows(), weights.len(), "one weight a row");
        assert_eq!(weights.null_count(), 0, "weights are never null");
        Self { rows, weights }
    }

    /// Every row inserted once.
    pub fn inserts(rows: RecordBatch) -> Self {
        let weights = Int64Array::from_value(1, rows.num_rows());
        Self { rows, weights }
    }

    /// No change to rows of `schema`.
    pub fn empty(schema: SchemaRef) -> Self {
        Self {
            rows: RecordBatch::new_empty(Arc::clone(&schema)),
            weights: Int64Array::from_value(0, 0),
        }
    }

    /// How many rows carry a change.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}
