//! Values in Postgres's text form, for doors that have no types of their own.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};
use evert_model::ColumnType;
use evert_view::write_postgres_float;

use super::backend::SqlError;
use super::datetime;
use super::decode;
use super::encode::{self, Form};
use super::numeric::write_numeric;
use super::types::{PgType, oid};

/// Appends a value that is not NULL, of an array in its type's one physical form.
///
/// # Panics
/// If the array is of another form, or has no such row.
pub(crate) fn write_value(values: &ArrayRef, ty: ColumnType, row: usize, out: &mut BytesMut) {
    match ty {
        ColumnType::Boolean => {
            out.write_char(if values.as_boolean().value(row) { 't' } else { 'f' })
        }
        ColumnType::Int16 => write!(out, "{}", values.as_primitive::<Int16Type>().value(row)),
        ColumnType::Int32 => write!(out, "{}", values.as_primitive::<Int32Type>().value(row)),
        ColumnType::Int64 => write!(out, "{}", values.as_primitive::<Int64Type>().value(row)),
        ColumnType::Float32 => {
            let value = values.as_primitive::<Float32Type>().value(row);
            write_postgres_float(out, &format!("{value:e}"), 6)
        }
        ColumnType::Float64 => {
            let value = values.as_primitive::<Float64Type>().value(row);
            write_postgres_float(out, &format!("{value:e}"), 15)
        }
        ColumnType::Decimal { scale, .. } => {
            write_numeric(out, values.as_primitive::<Decimal128Type>().value(row), scale)
        }
        ColumnType::Text | ColumnType::Json | ColumnType::Uuid => {
            out.put_slice(values.as_string_view().value(row).as_bytes());
            Ok(())
        }
        ColumnType::Bytes => encode::write_hex(out, values.as_binary::<i32>().value(row)),
        ColumnType::Date => {
            datetime::write_date(out, values.as_primitive::<Date32Type>().value(row))
        }
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
            datetime::write_timestamp(out, micros, ty == ColumnType::TimestampTz)
        }
        ColumnType::Array(_) => {
            let field = Field::new("", ty.arrow_type(), true);
            write_any(&field, values, row, out).map_err(|_| std::fmt::Error)
        }
    }
    .expect("a buffer in memory takes every text");
}

/// Appends a value that is not NULL, of any type and form.
///
/// # Errors
/// If it cannot be brought into the form of its type.
pub(crate) fn write_any(
    field: &Field,
    values: &ArrayRef,
    row: usize,
    out: &mut BytesMut,
) -> Result<(), SqlError> {
    encode::write_one(field, &values.slice(row, 1), out)
}

/// The value that a text is, as an array of one row in the type's physical form.
///
/// # Errors
/// If the text is no value of the type.
pub(crate) fn read_value(ty: ColumnType, text: &[u8]) -> Result<ArrayRef, SqlError> {
    let arrow = ty.arrow_type();
    let oid = match ty {
        ColumnType::Uuid => oid::UUID,
        ColumnType::Json => oid::JSON,
        _ => PgType::of_field(&Field::new("", arrow.clone(), true)).oid,
    };
    decode::param(oid, Form::Text, Some(text), &arrow)
}

#[cfg(test)]
mod tests {
    use evert_model::ItemType;

    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        let cases = [
            (ColumnType::Boolean, "t"),
            (ColumnType::Int16, "-32768"),
            (ColumnType::Int32, "42"),
            (ColumnType::Int64, "9223372036854775807"),
            (ColumnType::Float32, "1.5"),
            (ColumnType::Float64, "-1e+300"),
            (ColumnType::Decimal { precision: 12, scale: 2 }, "-250.00"),
            (ColumnType::Text, "a b"),
            (ColumnType::Json, "{\"a\":1}"),
            (ColumnType::Uuid, "6ecd8c99-4036-403d-bf84-cf8400f67836"),
            (ColumnType::Bytes, "\\x00ff"),
            (ColumnType::Date, "2026-02-28"),
            (ColumnType::Timestamp, "2026-02-28 23:59:59.5"),
            (ColumnType::TimestampTz, "2026-02-28 23:59:59+00"),
            (ColumnType::Array(ItemType::Int64), "{1,NULL,-3}"),
            (ColumnType::Array(ItemType::Int16), "{}"),
            (ColumnType::Array(ItemType::Text), "{a,\"b \\\"c\",NULL,\"null\",\"\"}"),
            (ColumnType::Array(ItemType::Date), "{2026-02-28}"),
            (ColumnType::Array(ItemType::Bytes), "{\"\\\\x00ff\"}"),
            (ColumnType::Array(ItemType::Decimal { precision: 12, scale: 2 }), "{-250.00}"),
        ];
        for (ty, text) in cases {
            let value = read_value(ty, text.as_bytes()).expect(text);
            assert_eq!(*value.data_type(), ty.arrow_type(), "{text}");
            let mut out = BytesMut::new();
            write_value(&value, ty, 0, &mut out);
            assert_eq!(out, text, "{ty:?}");
            let field = Field::new("", ty.arrow_type(), true);
            out.clear();
            write_any(&field, &value, 0, &mut out).expect(text);
            assert_eq!(out, text, "{ty:?}");
        }
        assert!(read_value(ColumnType::Int32, b"x").is_err());
    }
}
