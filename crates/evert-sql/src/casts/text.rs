//! Texts read as values.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type,
};
use uuid::Uuid;

use super::{out_of_range, type_name};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, INVALID_TEXT, NUMERIC_OUT_OF_RANGE};

/// The most digits that a decimal has.
const DIGITS_MAX: usize = 38;

/// Texts (`Utf8View`) as numbers or bytes.
pub(super) fn parsed(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    match to {
        DataType::Int8 => each::<Int8Type>(values, |text| integer(text, to)),
        DataType::Int16 => each::<Int16Type>(values, |text| integer(text, to)),
        DataType::Int32 => each::<Int32Type>(values, |text| integer(text, to)),
        DataType::Int64 => each::<Int64Type>(values, |text| integer(text, to)),
        DataType::Float32 => each::<Float32Type>(values, |text| {
            let value = text.trim().parse::<f32>().map_err(|_| bad(text, to))?;
            checked(text, value.is_infinite(), value == 0.0, to)?;
            Ok(value)
        }),
        DataType::Float64 => each::<Float64Type>(values, |text| {
            let value = text.trim().parse::<f64>().map_err(|_| bad(text, to))?;
            checked(text, value.is_infinite(), value == 0.0, to)?;
            Ok(value)
        }),
        DataType::Decimal128(precision, scale) => {
            let read = |text: &str| in_digits(&numeric_of_text(text)?, *precision, *scale);
            let decimals: PrimitiveArray<Decimal128Type> = collected(values, read)?;
            Ok(Arc::new(decimals.with_data_type(to.clone())))
        }
        _ => {
            let decoded = values.as_string_view().iter();
            let decoded = decoded.map(|value| value.map(bytes).transpose());
            Ok(Arc::new(BinaryArray::from_iter(decoded.collect::<Result<Vec<_>, _>>()?)))
        }
    }
}

fn each<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    read: impl Fn(&str) -> Result<T::Native, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let values: PrimitiveArray<T> = collected(values, read)?;
    Ok(Arc::new(values))
}

fn collected<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    read: impl Fn(&str) -> Result<T::Native, SqlError>,
) -> Result<PrimitiveArray<T>, SqlError> {
    let values = values.as_string_view().iter();
    let values = values.map(|value| value.map(&read).transpose());
    Ok(PrimitiveArray::from_iter(values.collect::<Result<Vec<Option<T::Native>>, _>>()?))
}

fn bad(text: &str, to: &DataType) -> SqlError {
    let ty = type_name(to);
    SqlError::new(INVALID_TEXT, format!("invalid input syntax for type {ty}: \"{text}\""))
}

fn integer<T: TryFrom<i128>>(text: &str, to: &DataType) -> Result<T, SqlError> {
    let number = text.trim();
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad(text, to));
    }
    let value = number.parse::<i128>().ok().and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| {
        let ty = type_name(to);
        let message = format!("value \"{number}\" is out of range for type {ty}");
        SqlError::new(NUMERIC_OUT_OF_RANGE, message)
    })
}

/// Refuses a float that its text is beyond.
fn checked(text: &str, infinite: bool, zero: bool, to: &DataType) -> Result<(), SqlError> {
    let number = text.trim();
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let names_digits =
        |range: std::ops::RangeInclusive<u8>| mantissa.bytes().any(|byte| range.contains(&byte));
    if (infinite && names_digits(b'0'..=b'9')) || (zero && names_digits(b'1'..=b'9')) {
        let ty = type_name(to);
        let message = format!("\"{number}\" is out of range for type {ty}");
        return Err(SqlError::new(NUMERIC_OUT_OF_RANGE, message));
    }
    Ok(())
}

/// A number as it is written: a sign, digits without zeros before or behind them, and the power of
/// ten of the last one.
#[derive(Debug, PartialEq)]
pub(crate) struct NumericText {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
    /// How many digits were written after the point.
    decimals: i64,
}

impl NumericText {
    /// Reads `-12.5e3` and the like; `None` if it is no such thing.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let negative = text.starts_with('-');
        let number = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match number.split_once(['e', 'E']) {
            // An exponent of more digits than this is beyond every type.
            Some((_, exponent)) if exponent.len() > 8 => return None,
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (number, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut exponent = exponent - fraction.len() as i64;
        let decimals = -exponent.min(0);
        let first = all.iter().position(|digit| *digit != b'0').unwrap_or(all.len());
        let mut digits: Vec<u8> = all[first..].iter().map(|digit| digit - b'0').collect();
        while digits.last() == Some(&0) {
            digits.pop();
            exponent += 1;
        }
        if digits.is_empty() {
            exponent = 0;
        }
        Some(Self { negative, digits, exponent, decimals })
    }

    /// The same without zeros at its end.
    pub(crate) fn shortened(self) -> Self {
        Self { decimals: -self.exponent.min(0), ..self }
    }

    /// The precision and scale that hold it as it is written, or without the zeros at its end, if a
    /// decimal does.
    pub(crate) fn size(&self) -> Option<(u8, i8)> {
        self.size_with(self.decimals).or_else(|| self.size_with(-self.exponent.min(0)))
    }

    fn size_with(&self, decimals: i64) -> Option<(u8, i8)> {
        let scale = usize::try_from(decimals).ok()?;
        // Zeros behind the last digit, up to the point and behind it.
        let zeros = usize::try_from(self.exponent.checked_add(decimals)?).ok()?;
        let digits = self.digits.len().checked_add(zeros)?.max(scale).max(1);
        (digits <= DIGITS_MAX && scale <= DIGITS_MAX).then_some((digits as u8, scale as i8))
    }

    /// Its units of a decimal type, halves away from zero.
    pub(crate) fn units(&self, precision: u8, scale: i8) -> Result<i128, SqlError> {
        in_digits(self, precision, scale)
    }

    /// How many digits it has after the point, but for zeros at its end.
    pub(crate) fn decimals(&self) -> i64 {
        -self.exponent.min(0)
    }
}

/// A number's units of a decimal type, halves away from zero.
fn in_digits(number: &NumericText, precision: u8, scale: i8) -> Result<i128, SqlError> {
    let NumericText { negative, digits, exponent, .. } = number;
    let overflow = || out_of_range(&DataType::Decimal128(precision, scale));
    // How many digits are kept, of those there are and zeros behind them.
    let kept = digits.len() as i64 + exponent + i64::from(scale);
    if kept < 0 || digits.is_empty() {
        return Ok(0);
    }
    if kept > DIGITS_MAX as i64 {
        return Err(overflow());
    }
    let kept = kept as usize;
    let mut units: i128 = 0;
    for place in 0..kept {
        units = units * 10 + i128::from(digits.get(place).copied().unwrap_or(0));
    }
    if digits.get(kept).is_some_and(|next| *next >= 5) {
        units += 1;
    }
    if units >= 10_i128.pow(u32::from(precision).min(DIGITS_MAX as u32)) {
        return Err(overflow());
    }
    Ok(if *negative { -units } else { units })
}

/// A text read as a number.
pub(crate) fn numeric_of_text(text: &str) -> Result<NumericText, SqlError> {
    let number = text.trim();
    NumericText::read(number).ok_or_else(|| {
        let lower = number.trim_start_matches(['-', '+']).to_lowercase();
        match lower.as_str() {
            "nan" | "inf" | "infinity" => SqlError::new(
                FEATURE_NOT_SUPPORTED,
                format!("{number} as a value of type numeric is not supported"),
            ),
            _ => bad(text, &DataType::Decimal128(38, 0)),
        }
    })
}

/// A JSON value, its text unchanged.
pub(crate) fn json(text: &str) -> Result<String, SqlError> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(SqlError::new(INVALID_TEXT, "invalid input syntax for type json")
            .detail(error.to_string())),
    }
}

/// A UUID in its one form: lower case, with hyphens. Postgres takes it in braces, and with a hyphen
/// after any four digits, or without.
pub(crate) fn uuid(text: &str) -> Result<String, SqlError> {
    uuid_digits(text.trim())
        .map(|digits| Uuid::from_u128(digits).hyphenated().to_string())
        .ok_or_else(|| {
            let message = format!("invalid input syntax for type uuid: \"{text}\"");
            SqlError::new(INVALID_TEXT, message)
        })
}

fn uuid_digits(text: &str) -> Option<u128> {
    let text = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}')?,
        None => text,
    };
    let (mut value, mut count, mut after_hyphen) = (0_u128, 0, true);
    for c in text.chars() {
        if c == '-' {
            if after_hyphen || count % 4 != 0 {
                return None;
            }
            after_hyphen = true;
            continue;
        }
        // The digits before the last 32 would be lost.
        if count == 32 {
            return None;
        }
        value = value << 4 | u128::from(c.to_digit(16)?);
        count += 1;
        after_hyphen = false;
    }
    (count == 32 && !after_hyphen).then_some(value)
}

/// Text for a bytea: `\x` and hexadecimal digits, or the bytes themselves with `\\` for a backslash
/// and `\ooo` for a byte in octal digits.
fn bytes(text: &str) -> Result<Vec<u8>, SqlError> {
    match text.strip_prefix("\\x") {
        Some(digits) => unhex(digits).ok_or_else(|| {
            SqlError::new(INVALID_TEXT, "invalid hexadecimal digits for type bytea")
        }),
        None => unescaped(text.as_bytes())
            .ok_or_else(|| SqlError::new(INVALID_TEXT, "invalid input syntax for type bytea")),
    }
}

fn unescaped(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        text = match text {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    // Postgres lets white space stand between pairs.
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str, precision: u8, scale: i8) -> Result<i128, &'static str> {
        numeric_of_text(text)
            .and_then(|number| in_digits(&number, precision, scale))
            .map_err(|error| error.sqlstate)
    }

    #[test]
    fn decimals_are_read_digit_by_digit() {
        assert_eq!(units(" 12.345 ", 5, 2), Ok(1235));
        assert_eq!(units("-12.345", 5, 2), Ok(-1235));
        assert_eq!(units("1.5e3", 10, 0), Ok(1500));
        assert_eq!(units(".5", 10, 0), Ok(1));
        assert_eq!(units("0.049", 10, 1), Ok(0));
        assert_eq!(units("5.", 10, 1), Ok(50));
        assert_eq!(units("1e-400", 38, 38), Ok(0));
        assert_eq!(units("999.995", 5, 2), Err("22003"));
        assert_eq!(units("1e38", 38, 0), Err("22003"));
        assert_eq!(units("1e999999999999", 38, 0), Err("22P02"));
        assert_eq!(units("", 38, 0), Err("22P02"));
        assert_eq!(units("1.2.3", 38, 0), Err("22P02"));
        assert_eq!(units("NaN", 38, 0), Err("0A000"));
    }

    #[test]
    fn sizes_are_the_least_that_hold_a_number() {
        let size = |text: &str| NumericText::read(text).and_then(|number| number.size());
        assert_eq!(size("1.50"), Some((3, 2)));
        assert_eq!(size("100"), Some((3, 0)));
        assert_eq!(size("0.00"), Some((2, 2)));
        assert_eq!(size("1e15"), Some((16, 0)));
        assert_eq!(size("1e-20"), Some((20, 20)));
        assert_eq!(size("0"), Some((1, 0)));
        assert_eq!(size("1e300"), None);
        assert_eq!(size("1e-39"), None);
    }

    #[test]
    fn floats_are_refused_beyond_their_range() {
        for text in ["1e400", "-1e400", "1e-400"] {
            let to = DataType::Float64;
            let value: f64 = text.parse().unwrap();
            assert!(checked(text, value.is_infinite(), value == 0.0, &to).is_err(), "{text}");
        }
        for text in ["Infinity", "-inf", "0", "0.0e5", "1e308"] {
            let to = DataType::Float64;
            let value: f64 = text.parse().unwrap();
            assert!(checked(text, value.is_infinite(), value == 0.0, &to).is_ok(), "{text}");
        }
    }

    #[test]
    fn uuids_have_one_form() {
        let one = "6ecd8c99-4036-403d-bf84-cf8400f67836";
        for text in [
            one,
            "6ECD8C99-4036-403D-BF84-CF8400F67836",
            " {6ecd8c994036403dbf84cf8400f67836} ",
            "6ecd-8c99-4036-403d-bf84-cf84-00f6-7836",
        ] {
            assert_eq!(uuid(text).unwrap(), one, "{text}");
        }
        for text in [
            "",
            "{6ecd8c99-4036-403d-bf84-cf8400f67836",
            "6ecd8c99-4036-403d-bf84-cf8400f6783",
            "6ecd8c99-4036-403d-bf84-cf8400f678366",
            "6ecd8c9-94036-403d-bf84-cf8400f67836",
            "6ecd8c99--4036-403d-bf84-cf8400f67836",
            "6ecd8c99-4036-403d-bf84-cf8400f67836-",
            "gecd8c99-4036-403d-bf84-cf8400f67836",
        ] {
            assert!(uuid(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_hexadecimal_or_escaped() {
        assert_eq!(bytes("\\x6162").unwrap(), b"ab");
        assert_eq!(bytes("a\\\\b\\001").unwrap(), b"a\\b\x01");
        assert!(bytes("a\\b").is_err());
        assert!(bytes("\\x616").is_err());
    }
}
