//! The texts of values, as Postgres writes them.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use super::dates::{Times, is_interval};
use super::rows::cast;
use crate::SqlError;
use crate::times::{self, Source};

/// The texts of values, NULL for NULL: those of casts.
pub(crate) fn texts_of(values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    match values.data_type() {
        DataType::Float32 => {
            let floats = values.as_primitive::<Float32Type>().iter();
            Ok(Arc::new(floats.map(|x| x.map(real)).collect::<StringViewArray>()))
        }
        DataType::Float64 => {
            let floats = values.as_primitive::<Float64Type>().iter();
            Ok(Arc::new(floats.map(|x| x.map(double)).collect::<StringViewArray>()))
        }
        DataType::Binary => {
            let bytes = values.as_binary::<i32>().iter();
            Ok(Arc::new(bytes.map(|bytes| bytes.map(hex)).collect::<StringViewArray>()))
        }
        ty if is_time(ty) => {
            let times = Times::of(values)?;
            let mut texts = StringViewBuilder::with_capacity(values.len());
            for row in 0..values.len() {
                match values.is_null(row) {
                    true => texts.append_null(),
                    false => texts.append_value(time(times.source(row))?),
                }
            }
            Ok(Arc::new(texts.finish()))
        }
        _ => cast(values, &DataType::Utf8View),
    }
}

/// The texts that functions such as `concat` and `format` make of values: as they are sent.
pub(super) fn sent_texts(values: &ArrayRef) -> Result<StringViewArray, SqlError> {
    if *values.data_type() == DataType::Boolean {
        let flags = values.as_boolean().iter();
        return Ok(flags.map(|flag| flag.map(|flag| if flag { "t" } else { "f" })).collect());
    }
    Ok(texts_of(values)?.as_string_view().clone())
}

/// Whether Arrow would write values of a type otherwise.
pub(crate) fn is_written(ty: &DataType) -> bool {
    is_time(ty) || matches!(ty, DataType::Float32 | DataType::Float64 | DataType::Binary)
}

fn is_time(ty: &DataType) -> bool {
    let dated = matches!(ty, DataType::Timestamp(..) | DataType::Date32);
    dated || matches!(ty, DataType::Time32(_) | DataType::Time64(_)) || is_interval(ty)
}

fn time(source: Source) -> Result<String, SqlError> {
    match source {
        Source::Timestamp(micros, zoned) => times::write_timestamp(micros, zoned),
        Source::Date(days) => times::write_date(days),
        Source::Clock(micros) => Ok(times::write_clock(micros)),
        Source::Interval(span) => Ok(span.written()),
    }
}

/// `\x00ff`.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

fn double(x: f64) -> String {
    match x.is_finite() {
        true => decimal(&format!("{x:e}"), 15),
        false => not_finite(x),
    }
}

fn real(x: f32) -> String {
    match x.is_finite() {
        true => decimal(&format!("{x:e}"), 6),
        false => not_finite(f64::from(x)),
    }
}

fn not_finite(x: f64) -> String {
    let text = match x {
        x if x.is_nan() => "NaN",
        x if x > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    text.to_owned()
}

/// The fewest digits that tell a float from all others (`1.5e-7`), with an exponent only if it is
/// below -4 or at least `exponent_min`.
fn decimal(scientific: &str, exponent_min: i32) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= exponent_min {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    match usize::try_from(exponent) {
        Ok(place) if place + 1 >= digits.len() => {
            format!("{sign}{digits:0<width$}", width = place + 1)
        }
        Ok(place) => format!("{sign}{}.{}", &digits[..=place], &digits[place + 1..]),
        Err(_) => {
            let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
            format!("{sign}0.{zeros}{digits}")
        }
    }
}
