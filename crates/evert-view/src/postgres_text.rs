//! Values in Postgres's text form: what its `*out` functions write, and its `*in` functions read.
//!
//! Not here: the form that records have (`encode`), the wire's binary forms (`evert-door`).

use std::fmt::{self, Write};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Date32Type, Float32Type, Float64Type, TimestampMicrosecondType};
use evert_model::{ColumnType, array_element};

use crate::calendar::date_of_day;
use crate::encode::write_text;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Appends a value that is not NULL.
///
/// # Panics
/// If the array is not of the type's one physical form, or has no such row.
pub fn write_postgres_text(values: &ArrayRef, ty: ColumnType, row: usize, out: &mut String) {
    match ty {
        ColumnType::Boolean => {
            out.write_char(if values.as_boolean().value(row) { 't' } else { 'f' })
        }
        ColumnType::Float32 => {
            let value = values.as_primitive::<Float32Type>().value(row);
            write_postgres_float(out, &format!("{value:e}"), 6)
        }
        ColumnType::Float64 => {
            let value = values.as_primitive::<Float64Type>().value(row);
            write_postgres_float(out, &format!("{value:e}"), 15)
        }
        ColumnType::Bytes => write_hex(out, values.as_binary::<i32>().value(row)),
        ColumnType::Date => {
            write_postgres_date(out, values.as_primitive::<Date32Type>().value(row))
        }
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
            write_postgres_timestamp(out, micros, ty == ColumnType::TimestampTz)
        }
        ColumnType::Array(item) => write_array(values, item.column_type(), row, out),
        // The form that records have is Postgres's.
        ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::Decimal { .. }
        | ColumnType::Text
        | ColumnType::Json
        | ColumnType::Uuid => {
            write_text(values, ty, row, out);
            Ok(())
        }
    }
    .expect("a String takes every text");
}

fn write_array(values: &ArrayRef, item: ColumnType, row: usize, out: &mut String) -> fmt::Result {
    let items = values.as_list::<i32>().value(row);
    let mut text = String::new();
    out.write_char('{')?;
    for place in 0..items.len() {
        out.write_str(if place > 0 { "," } else { "" })?;
        if items.is_null(place) {
            out.write_str("NULL")?;
            continue;
        }
        text.clear();
        write_postgres_text(&items, item, place, &mut text);
        out.write_str(&array_element(&text))?;
    }
    out.write_char('}')
}

fn write_hex(out: &mut String, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + bytes.len() * 2);
    out.push_str("\\x");
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    Ok(())
}

fn write_day(out: &mut impl Write, days: i64) -> Result<bool, fmt::Error> {
    let (year, month, day) = date_of_day(days);
    let before_christ = year <= 0;
    let year = if before_christ { 1 - year } else { year };
    write!(out, "{year:04}-{month:02}-{day:02}")?;
    Ok(before_christ)
}

/// Appends a time of day, or a span of clock time, of microseconds that are not negative:
/// `04:05:06.7`.
///
/// # Errors
/// Those of `out`.
pub fn write_clock(out: &mut impl Write, micros: i64) -> fmt::Result {
    let (hours, minutes, seconds) = (micros / HOUR, micros / MINUTE % 60, micros / SECOND % 60);
    write!(out, "{hours:02}:{minutes:02}:{seconds:02}")?;
    let mut fraction = micros % SECOND;
    if fraction != 0 {
        let mut width = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        write!(out, ".{fraction:0width$}")?;
    }
    Ok(())
}

/// Appends days since 1970: `2026-11-21`, `0044-03-15 BC`, `infinity`.
///
/// # Errors
/// Those of `out`.
pub fn write_postgres_date(out: &mut impl Write, days: i32) -> fmt::Result {
    match days {
        i32::MAX => out.write_str("infinity"),
        i32::MIN => out.write_str("-infinity"),
        _ => {
            let before_christ = write_day(out, i64::from(days))?;
            out.write_str(if before_christ { " BC" } else { "" })
        }
    }
}

/// Appends microseconds since 1970: `2026-11-21 04:05:06.7`, with `+00` if it has a zone.
///
/// # Errors
/// Those of `out`.
pub fn write_postgres_timestamp(out: &mut impl Write, micros: i64, zoned: bool) -> fmt::Result {
    match micros {
        i64::MAX => out.write_str("infinity"),
        i64::MIN => out.write_str("-infinity"),
        _ => {
            let before_christ = write_day(out, micros.div_euclid(DAY))?;
            out.write_char(' ')?;
            write_clock(out, micros.rem_euclid(DAY))?;
            out.write_str(if zoned { "+00" } else { "" })?;
            out.write_str(if before_christ { " BC" } else { "" })
        }
    }
}

/// A float from its shortest digits in scientific form, laid out as Postgres does: plain from
/// 1e-4 up to 1e`exponent_max`.
pub fn write_postgres_float(
    out: &mut impl Write,
    scientific: &str,
    exponent_max: i32,
) -> fmt::Result {
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return out.write_str(match scientific {
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            _ => "NaN",
        });
    };
    let exponent: i32 = exponent.parse().expect("the standard library writes a number");
    if !(-4..exponent_max).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(|&digit| digit != '.').collect();
    out.write_str(sign)?;
    match usize::try_from(exponent) {
        Err(_) => {
            let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
            write!(out, "0.{zeros}{digits}")
        }
        Ok(whole) if digits.len() <= whole + 1 => {
            write!(out, "{digits}{}", "0".repeat(whole + 1 - digits.len()))
        }
        Ok(whole) => write!(out, "{}.{}", &digits[..=whole], &digits[whole + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float32Array, Float64Array, ListBuilder, StringViewBuilder};
    use arrow::array::{Date32Array, TimestampMicrosecondArray};
    use evert_model::ItemType;

    use super::*;

    fn text(values: ArrayRef, ty: ColumnType) -> String {
        let mut out = String::new();
        write_postgres_text(&values, ty, 0, &mut out);
        out
    }

    #[test]
    fn values_are_as_postgres_writes_them() {
        assert_eq!(text(Arc::new(BooleanArray::from(vec![true])), ColumnType::Boolean), "t");
        for (value, wanted) in [
            (1e20, "1e+20"),
            (0.1, "0.1"),
            (-1e-5, "-1e-05"),
            (f64::NAN, "NaN"),
            (1e14, "100000000000000"),
        ] {
            let values = Arc::new(Float64Array::from(vec![value]));
            assert_eq!(text(values, ColumnType::Float64), wanted);
        }
        let values = Arc::new(Float32Array::from(vec![0.1]));
        assert_eq!(text(values, ColumnType::Float32), "0.1");
        for (day, wanted) in [
            (35_804_721, "99999-12-31"),
            (-2_440_550, "4713-01-01 BC"),
            (-719_163, "0001-12-31 BC"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(text(Arc::new(Date32Array::from(vec![day])), ColumnType::Date), wanted);
        }
        let values = || Arc::new(TimestampMicrosecondArray::from(vec![-500_000]));
        assert_eq!(text(values(), ColumnType::Timestamp), "1969-12-31 23:59:59.5");
        assert_eq!(text(values(), ColumnType::TimestampTz), "1969-12-31 23:59:59.5+00");
        let mut texts = ListBuilder::new(StringViewBuilder::new());
        texts.append_value([Some("a,b"), None, Some("")]);
        let ty = ColumnType::Array(ItemType::Text);
        assert_eq!(text(Arc::new(texts.finish()), ty), "{\"a,b\",NULL,\"\"}");
    }
}
