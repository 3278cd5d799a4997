//! Values become a table's: assignment casts, and the checks that a column makes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringViewArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, UInt32Type};
use arrow::util::display::FormatOptions;
use evert_model::{Column, ColumnType, RowSchema};
use uuid::Uuid;

use crate::error::{DATATYPE_MISMATCH, INVALID_TEXT, NOT_NULL_VIOLATION};
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
        ColumnType::Bytes if text => bytes(values),
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => integers(values, &to),
        _ => cast(values, &to),
    }
    .map_err(|error| error.context(format!("column \"{}\"", column.name)))
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(values, to, &options).map_err(|error| match &error {
        arrow::error::ArrowError::CastError(message) if message.starts_with("Casting from") => {
            let message = format!("a value of type {} cannot be assigned", values.data_type());
            SqlError::new(DATATYPE_MISMATCH, message)
        }
        _ => translate::planning(&error.into(), ""),
    })
}

/// Halves go away from zero for decimals and to even for floats, as in Postgres.
fn integers(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let whole = match values.data_type() {
        DataType::Float32 | DataType::Float64 => {
            let floats = cast(values, &DataType::Float64)?;
            let floats = floats.as_primitive::<Float64Type>();
            Arc::new(floats.unary::<_, Float64Type>(f64::round_ties_even)) as ArrayRef
        }
        DataType::Decimal128(..) => cast(values, &DataType::Decimal128(38, 0))?,
        _ => Arc::clone(values),
    };
    cast(&whole, to)
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

fn json(text: &str) -> Result<String, SqlError> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(SqlError::new(INVALID_TEXT, "invalid input syntax for type json")
            .detail(error.to_string())),
    }
}

fn uuid(text: &str) -> Result<String, SqlError> {
    match Uuid::try_parse(text.trim()) {
        Ok(uuid) => Ok(uuid.hyphenated().to_string()),
        Err(_) => Err(SqlError::new(
            INVALID_TEXT,
            format!("invalid input syntax for type uuid: \"{text}\""),
        )),
    }
}

/// Text for a bytea: `\x` and hexadecimal digits, or the bytes themselves.
fn bytes(values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let values = cast(values, &DataType::Utf8View)?;
    let decode = |text: &str| match text.strip_prefix("\\x") {
        Some(digits) => unhex(digits).ok_or_else(|| {
            SqlError::new(INVALID_TEXT, "invalid hexadecimal digits for type bytea")
        }),
        None => Ok(text.as_bytes().to_vec()),
    };
    let decoded = values
        .as_string_view()
        .iter()
        .map(|value| value.map(decode).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(BinaryArray::from_iter(decoded)))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// The rows at these indexes.
pub(super) fn take(rows: &RecordBatch, indexes: Vec<u32>) -> Result<RecordBatch, SqlError> {
    let indexes = arrow::array::PrimitiveArray::<UInt32Type>::from(indexes);
    arrow::compute::take_record_batch(rows, &indexes)
        .map_err(|error| translate::planning(&error.into(), ""))
}
