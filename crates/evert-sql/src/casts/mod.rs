//! Casts: a value of one type as one of another, as Postgres converts it.
//!
//! Owns: what a cast and an assignment give where Arrow's kernels give something else: numbers are
//! rounded and not cut, what is out of range is refused, texts are read as their type writes them
//! (times by `functions`).
//! Not here: which casts a statement makes (`rules::numbers`), what a column demands (`dml`).

mod numbers;
mod text;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;

pub(crate) use numbers::numeric_of_float;
pub(crate) use text::{NumericText, json, numeric_of_text, uuid};

use crate::SqlError;
use crate::error::{DATATYPE_MISMATCH, NUMERIC_OUT_OF_RANGE};
use crate::functions::{is_read, is_written, texts_of, times_of_texts};
use crate::{times, translate};

/// Whether Arrow's own kernel would give something else than Postgres for some values.
pub(crate) fn is_own(from: &DataType, to: &DataType) -> bool {
    let is_decimal = |ty: &DataType| matches!(ty, DataType::Decimal128(..));
    let wide = matches!(from, DataType::Decimal256(..));
    if is_decimal(from) || wide {
        return to.is_signed_integer() || is_float(to);
    }
    if is_float(from) && !is_text(to) {
        let narrower = *from == DataType::Float64 && *to == DataType::Float32;
        return to.is_signed_integer() || is_decimal(to) || narrower;
    }
    if *from == DataType::Date32 && !is_text(to) {
        return is_micros(to);
    }
    if is_micros(from) && (*to == DataType::Date32 || is_micros(to)) {
        return from != to;
    }
    if is_text(to) {
        return is_written(from);
    }
    if is_text(from) && is_read(to) {
        return true;
    }
    is_text(from)
        && (to.is_signed_integer() || is_decimal(to) || is_float(to) || *to == DataType::Binary)
}

fn is_micros(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, _))
}

fn is_float(ty: &DataType) -> bool {
    matches!(ty, DataType::Float32 | DataType::Float64)
}

pub(crate) fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Values as another type. What has no value there is an error, never NULL.
pub(crate) fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let from = values.data_type();
    if !is_own(from, to) {
        return plain(values, to);
    }
    if is_text(to) {
        return plain(&texts_of(values)?, to);
    }
    if is_text(from) && is_read(to) {
        return times_of_texts(values, to);
    }
    if is_text(from) {
        return text::parsed(&plain(values, &DataType::Utf8View)?, to);
    }
    match from {
        DataType::Decimal256(_, scale) => {
            numbers::of_decimals(&plain(values, &DataType::Decimal128(38, *scale))?, *scale, to)
        }
        DataType::Decimal128(_, scale) => numbers::of_decimals(values, *scale, to),
        DataType::Date32 => midnights(values, to),
        DataType::Timestamp(..) if *to == DataType::Date32 => Ok(days(values)),
        // Sessions live in UTC: with a zone or without one, it is the same number.
        DataType::Timestamp(..) => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().clone();
            Ok(Arc::new(micros.with_data_type(to.clone())))
        }
        _ => numbers::of_floats(values, to),
    }
}

/// Dates as timestamps, infinities as such.
fn midnights(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let values = values.as_primitive::<Date32Type>();
    let values = values.try_unary::<_, TimestampMicrosecondType, _>(times::midnight)?;
    Ok(Arc::new(values.with_data_type(to.clone())))
}

/// The days that timestamps lie in, infinities as such.
fn days(values: &ArrayRef) -> ArrayRef {
    let values = values.as_primitive::<TimestampMicrosecondType>();
    Arc::new(values.unary::<_, Date32Type>(times::date_of_micros))
}

/// Values as Arrow casts them.
fn plain(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(values, to, &options).map_err(|error| match &error {
        ArrowError::CastError(message) if message.starts_with("Casting from") => {
            let message = format!("a value of type {} cannot be assigned", values.data_type());
            SqlError::new(DATATYPE_MISMATCH, message)
        }
        _ => translate::planning(&error.into(), ""),
    })
}

/// The name that a type has in messages.
fn type_name(ty: &DataType) -> &'static str {
    match ty {
        DataType::Int8 | DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Binary => "bytea",
        _ => "numeric",
    }
}

/// `22003`: a value is beyond its type.
fn out_of_range(ty: &DataType) -> SqlError {
    match ty {
        DataType::Decimal128(precision, scale) => {
            let whole = i16::from(*precision) - i16::from(*scale);
            SqlError::new(NUMERIC_OUT_OF_RANGE, "numeric field overflow").detail(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute \
                 value less than 10^{whole}."
            ))
        }
        ty => SqlError::new(NUMERIC_OUT_OF_RANGE, format!("{} out of range", type_name(ty))),
    }
}
