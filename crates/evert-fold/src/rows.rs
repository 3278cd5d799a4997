//! Rows of batches: picking columns and rows, comparing values, also where there are no columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};

use crate::keys::KeyCodec;

/// Some columns of a batch.
pub(crate) fn columns_of(batch: &RecordBatch, indexes: &[usize]) -> Vec<ArrayRef> {
    indexes.iter().map(|&index| Arc::clone(batch.column(index))).collect()
}

/// A batch of `rows` rows, also where there are no columns. A NULL where the schema allows none
/// makes the batch's own schema lenient: nullability is a promise of the planner's, not a law.
///
/// # Panics
/// If the columns do not fit the schema's types.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let fits = schema
        .fields()
        .iter()
        .zip(&columns)
        .all(|(field, column)| field.is_nullable() || column.null_count() == 0);
    let schema = if fits { Arc::clone(schema) } else { nullable(schema) };
    RecordBatch::try_new_with_options(schema, columns, &options)
        .expect("the columns fit the schema")
}

/// The rows at `indices`.
///
/// # Panics
/// If an index lies past the batch.
pub(crate) fn take_rows(batch: &RecordBatch, indices: &UInt32Array) -> RecordBatch {
    let columns = batch.columns().iter();
    let columns = columns
        .map(|column| take(column, indices, None).expect("the indices lie in the batch"))
        .collect();
    batch_of(batch.schema_ref(), columns, indices.len())
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Row by row whether two columns hold the same value, byte for byte; NULL is the same as NULL.
pub(crate) fn same_values(before: &ArrayRef, after: &ArrayRef) -> BooleanArray {
    if let Ok(same) = not_distinct(before, after) {
        return same;
    }
    // Nested types: by their bytes.
    let codec = KeyCodec::new([before.data_type()]).expect("it could be aggregated");
    let (before, after) = (
        codec.encode(std::slice::from_ref(before), before.len()),
        codec.encode(std::slice::from_ref(after), after.len()),
    );
    (0..before.len()).map(|i| Some(before.get(i) == after.get(i))).collect()
}
