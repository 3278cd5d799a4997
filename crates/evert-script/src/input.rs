//! Input: columns of rows as arrays of JavaScript's values.
//!
//! Owns: which value of JavaScript's stands for a value of SQL's. Nothing is rounded: a bigint that
//! no Number tells apart from its neighbours is a BigInt, a numeric is its digits.

use std::ops::Range;

use arrow::array::{Array as _, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, DecimalType, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use evert_model::ColumnType;
use rquickjs::{Array, BigInt, Ctx, IntoJs, Result};

/// Rows that the code is handed at once, at most, and the bytes of their texts.
const PORTION_ROWS: usize = 256;
const PORTION_BYTES: usize = 1 << 20;

/// The largest integer below which a Number tells all integers apart.
pub(crate) const SAFE_INTEGER_MAX: i64 = (1 << 53) - 1;

/// Ranges of a batch's rows that are handed over one after the other.
pub(crate) fn portions(batch: &[ArrayRef]) -> Vec<Range<usize>> {
    let rows = batch.first().map_or(0, |column| column.len());
    let mut portions = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for row in 0..rows {
        bytes += batch.iter().map(|column| text_bytes(column, row)).sum::<usize>();
        if row + 1 - start == PORTION_ROWS || bytes >= PORTION_BYTES {
            portions.push(start..row + 1);
            (start, bytes) = (row + 1, 0);
        }
    }
    if start < rows {
        portions.push(start..rows);
    }
    portions
}

fn text_bytes(column: &ArrayRef, row: usize) -> usize {
    if let Some(texts) = column.as_string_view_opt() {
        return texts.lengths().nth(row).unwrap_or_default() as usize;
    }
    if let Some(lists) = column.as_list_opt::<i32>() {
        let items = lists.value(row);
        let texts: usize = (0..items.len()).map(|place| text_bytes(&items, place)).sum();
        return texts + items.len() * size_of::<i64>();
    }
    column.as_binary_opt::<i32>().map_or(0, |bytes| bytes.value_length(row) as usize)
}

/// Some rows of a column as an array.
pub(crate) fn values<'js>(
    ctx: &Ctx<'js>,
    ty: ColumnType,
    column: &ArrayRef,
    rows: Range<usize>,
) -> Result<Array<'js>> {
    let column = &column.slice(rows.start, rows.len());
    match ty {
        ColumnType::Boolean => filled(ctx, column.as_boolean().iter()),
        ColumnType::Int16 => numbers::<Int16Type, _>(ctx, column, i32::from),
        ColumnType::Int32 => numbers::<Int32Type, _>(ctx, column, |value| value),
        ColumnType::Int64 => numbers::<Int64Type, _>(ctx, column, Integer),
        ColumnType::Float32 => numbers::<Float32Type, _>(ctx, column, f64::from),
        ColumnType::Float64 => numbers::<Float64Type, _>(ctx, column, |value| value),
        ColumnType::Decimal { precision, scale } => {
            let digits = |value| Decimal128Type::format_decimal(value, precision, scale);
            numbers::<Decimal128Type, _>(ctx, column, digits)
        }
        ColumnType::Text | ColumnType::Json | ColumnType::Uuid => {
            filled(ctx, column.as_string_view().iter())
        }
        ColumnType::Bytes => {
            filled(ctx, column.as_binary::<i32>().iter().map(|bytes| bytes.map(hexadecimal)))
        }
        ColumnType::Date => numbers::<Date32Type, _>(ctx, column, day),
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            numbers::<TimestampMicrosecondType, _>(ctx, column, |micros| micros as f64 / 1000.0)
        }
        ColumnType::Array(item) => {
            let item = item.column_type();
            let lists = column.as_list::<i32>().iter();
            let lists = lists.map(|list| list.map(|list| values(ctx, item, &list, 0..list.len())));
            filled(ctx, lists.map(Option::transpose).collect::<Result<Vec<_>>>()?.into_iter())
        }
    }
}

fn numbers<'js, T: ArrowPrimitiveType, V: IntoJs<'js>>(
    ctx: &Ctx<'js>,
    column: &ArrayRef,
    value: impl Fn(T::Native) -> V,
) -> Result<Array<'js>> {
    filled(ctx, column.as_primitive::<T>().iter().map(|each| each.map(&value)))
}

/// NULL is null.
fn filled<'js, V: IntoJs<'js>>(
    ctx: &Ctx<'js>,
    values: impl Iterator<Item = Option<V>>,
) -> Result<Array<'js>> {
    let array = Array::new(ctx.clone())?;
    for (place, value) in values.enumerate() {
        match value {
            Some(value) => array.set(place, value)?,
            None => array.set(place, rquickjs::Null)?,
        }
    }
    Ok(array)
}

/// A bigint.
struct Integer(i64);

impl<'js> IntoJs<'js> for Integer {
    fn into_js(self, ctx: &Ctx<'js>) -> Result<rquickjs::Value<'js>> {
        if let Ok(small) = i32::try_from(self.0) {
            return small.into_js(ctx);
        }
        if self.0.unsigned_abs() <= SAFE_INTEGER_MAX.unsigned_abs() {
            return (self.0 as f64).into_js(ctx);
        }
        BigInt::from_i64(ctx.clone(), self.0)?.into_js(ctx)
    }
}

/// `2026-11-21`.
fn day(days: i32) -> String {
    Date32Type::to_naive_date_opt(days).map_or_else(String::new, |date| date.to_string())
}

/// As Postgres shows bytea: `\x00ff`.
fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("\\x".to_owned()).chain(digits).collect()
}
