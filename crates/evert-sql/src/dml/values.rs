//! Values become a table's: assignment casts, and the checks that a column makes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, UInt32Type};
use evert_model::{Column, ColumnType, RowSchema};

use crate::casts::{cast, is_text, json, uuid};
use crate::error::NOT_NULL_VIOLATION;
use crate::{SqlError, translate};

/// Whole rows of a relation from arrays in its columns' order, `None` where NULL is meant.
pub(crate) fn rows(
    relation: &str,
    schema: &RowSchema,
    values: Vec<Option<ArrayRef>>,
    count: usize,
) -> Result<RecordBatch, SqlError> {
    let arrow = schema.to_arrow();
    let mut arrays = Vec::with_capacity(schema.columns.len());
    for (column, value) in schema.columns.iter().zip(values) {
        let array = match value {
            Some(value) => assign(column, &value)?,
            None => arrow::array::new_null_array(&column.ty.arrow_type(), count),
        };
        if !column.nullable && array.null_count() > 0 {
            let message = format!(
                "null value in column \"{}\" of relation \"{relation}\" violates not-null \
                 constraint",
                column.name
            );
            return Err(SqlError::new(NOT_NULL_VIOLATION, message));
        }
        arrays.push(array);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(arrow, arrays, &options)
        .map_err(|error| translate::planning(&error.into(), ""))
}

/// Casts values as Postgres does on assignment: what does not fit is an error, fractions are
/// rounded.
pub(crate) fn assign(column: &Column, values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let to = column.ty.arrow_type();
    let text = is_text(values.data_type());
    match column.ty {
        ColumnType::Json if text => checked_text(values, json),
        ColumnType::Uuid if text => checked_text(values, uuid),
        _ => cast(values, &to),
    }
    .map_err(|error| error.context(format!("column \"{}\"", column.name)))
}

fn checked_text(
    values: &ArrayRef,
    check: impl Fn(&str) -> Result<String, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let values = cast(values, &DataType::Utf8View)?;
    let checked = values
        .as_string_view()
        .iter()
        .map(|value| value.map(&check).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StringViewArray::from_iter(checked)))
}

/// The rows at these indexes.
pub(super) fn take(rows: &RecordBatch, indexes: Vec<u32>) -> Result<RecordBatch, SqlError> {
    let indexes = arrow::array::PrimitiveArray::<UInt32Type>::from(indexes);
    arrow::compute::take_record_batch(rows, &indexes)
        .map_err(|error| translate::planning(&error.into(), ""))
}
