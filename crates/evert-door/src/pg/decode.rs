//! Parameters: text or binary values of a Postgres type to one-row Arrow arrays.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringViewArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNanoType};

use evert_model::array_elements;

use super::backend::SqlError;
use super::datetime;
use super::encode::Form;
use super::numeric::{Number, NumericError};
use super::types::{PARAM_SCALE, arrow_type, element_of, oid};

/// A parameter as it was bound. A NUMERIC has the digits that it came with, whatever scale its
/// context would give it: none is lost.
pub(super) fn bound(
    oid: u32,
    form: Form,
    value: Option<&[u8]>,
    ty: &DataType,
) -> Result<ArrayRef, SqlError> {
    match (oid, value, ty) {
        (oid::NUMERIC, Some(bytes), DataType::Decimal128(..)) => numeric(form, bytes),
        _ => param(oid, form, value, ty),
    }
}

/// A value of type `oid` as a one-row array of type `ty`, which is expected of it.
pub(super) fn param(
    oid: u32,
    form: Form,
    value: Option<&[u8]>,
    ty: &DataType,
) -> Result<ArrayRef, SqlError> {
    let Some(bytes) = value else { return Ok(new_null_array(ty, 1)) };
    let array = match (oid, ty) {
        // Read at the scale that is wanted, so that nothing is rounded twice.
        (oid::NUMERIC, DataType::Decimal128(precision, scale)) => {
            decimal(form, bytes, *precision, *scale)?
        }
        _ => read(oid, form, bytes)?,
    };
    if array.data_type() == ty {
        return Ok(array);
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&array, ty, &strict)
        .map_err(|error| SqlError::new("22P02", format!("parameter: {error}")))
}

fn read(oid: u32, form: Form, bytes: &[u8]) -> Result<ArrayRef, SqlError> {
    if let Some(element) = element_of(oid) {
        return list(element, form, bytes);
    }
    match form {
        Form::Text => read_text(oid, text_of(bytes)?),
        Form::Binary => read_binary(oid, bytes),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, SqlError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(SqlError::new("22021", "invalid byte sequence for encoding \"UTF8\"")),
    }
}

fn read_text(oid: u32, text: &str) -> Result<ArrayRef, SqlError> {
    let bad = || invalid(oid, text);
    let trimmed = text.trim();
    let one: ArrayRef = match oid {
        oid::BOOL => Arc::new(BooleanArray::from(vec![boolean(trimmed).ok_or_else(bad)?])),
        oid::INT2 => Arc::new(Int16Array::from(vec![integer(oid, trimmed)? as i16])),
        oid::INT4 => Arc::new(Int32Array::from(vec![integer(oid, trimmed)? as i32])),
        oid::INT8 | 26 => Arc::new(Int64Array::from(vec![integer(oid, trimmed)?])),
        // Rust reads Infinity, inf and NaN in any case, as Postgres does.
        oid::FLOAT4 => {
            let value: f32 = trimmed.parse().map_err(|_| bad())?;
            float_in_range(trimmed, value.is_infinite(), value == 0.0, "real")?;
            Arc::new(Float32Array::from(vec![value]))
        }
        oid::FLOAT8 => {
            let value: f64 = trimmed.parse().map_err(|_| bad())?;
            float_in_range(trimmed, value.is_infinite(), value == 0.0, "double precision")?;
            Arc::new(Float64Array::from(vec![value]))
        }
        oid::NUMERIC => decimal(Form::Text, text.as_bytes(), 38, PARAM_SCALE)?,
        oid::BYTEA => Arc::new(BinaryArray::from(vec![&*bytea(text).ok_or_else(bad)?])),
        oid::DATE => date(datetime::parse_date(trimmed).ok_or_else(bad)?),
        oid::TIME => time(datetime::parse_time(trimmed).ok_or_else(bad)?),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let zoned = oid == oid::TIMESTAMPTZ;
            timestamp(datetime::parse_timestamp(trimmed, zoned).ok_or_else(bad)?, zoned)
        }
        oid::INTERVAL => {
            let value = parse_interval_month_day_nano(trimmed).map_err(|_| bad())?;
            Arc::new(IntervalMonthDayNanoArray::from(vec![value]))
        }
        oid::UUID => string(&uuid(trimmed).ok_or_else(bad)?.to_string()),
        // A text of any other type is a text: the statement casts it or refuses.
        _ => string(text),
    };
    Ok(one)
}

fn read_binary(oid: u32, bytes: &[u8]) -> Result<ArrayRef, SqlError> {
    let one: ArrayRef = match oid {
        oid::BOOL => Arc::new(BooleanArray::from(vec![fixed::<1>(bytes)? != [0]])),
        oid::INT2 => Arc::new(Int16Array::from(vec![i16::from_be_bytes(fixed(bytes)?)])),
        oid::INT4 => Arc::new(Int32Array::from(vec![i32::from_be_bytes(fixed(bytes)?)])),
        oid::INT8 => Arc::new(Int64Array::from(vec![i64::from_be_bytes(fixed(bytes)?)])),
        26 => Arc::new(Int64Array::from(vec![i64::from(u32::from_be_bytes(fixed(bytes)?))])),
        oid::FLOAT4 => Arc::new(Float32Array::from(vec![f32::from_be_bytes(fixed(bytes)?)])),
        oid::FLOAT8 => Arc::new(Float64Array::from(vec![f64::from_be_bytes(fixed(bytes)?)])),
        oid::NUMERIC => decimal(Form::Binary, bytes, 38, PARAM_SCALE)?,
        oid::BYTEA => Arc::new(BinaryArray::from(vec![bytes])),
        oid::DATE => {
            let days = datetime::date_from_wire(i32::from_be_bytes(fixed(bytes)?));
            date(days.ok_or_else(|| out_of_range("date"))?)
        }
        oid::TIME => time(i64::from_be_bytes(fixed(bytes)?)),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let micros = datetime::timestamp_from_wire(i64::from_be_bytes(fixed(bytes)?));
            let micros = micros.ok_or_else(|| out_of_range("timestamp"))?;
            timestamp(micros, oid == oid::TIMESTAMPTZ)
        }
        oid::INTERVAL => interval(bytes)?,
        oid::UUID => string(&uuid::Uuid::from_bytes(fixed(bytes)?).to_string()),
        oid::JSONB => match bytes {
            [1, json @ ..] => string(text_of(json)?),
            _ => return Err(SqlError::new("22P03", "unsupported jsonb version")),
        },
        oid if arrow_type(oid) == Some(DataType::Utf8View) => string(text_of(bytes)?),
        // Nobody named a type: the statement's context did not either, and it is text then.
        0 | 705 => string(text_of(bytes)?),
        _ => {
            let message = format!("binary parameters of the type with OID {oid} are not supported");
            return Err(SqlError::new("0A000", message));
        }
    };
    Ok(one)
}

fn date(days: i32) -> ArrayRef {
    Arc::new(Date32Array::from(vec![days]))
}

fn time(micros: i64) -> ArrayRef {
    Arc::new(Time64MicrosecondArray::from(vec![micros]))
}

fn timestamp(micros: i64, zoned: bool) -> ArrayRef {
    let array = TimestampMicrosecondArray::from(vec![micros]);
    if zoned { Arc::new(array.with_timezone("UTC")) } else { Arc::new(array) }
}

fn string(text: &str) -> ArrayRef {
    Arc::new(StringViewArray::from(vec![text]))
}

fn interval(bytes: &[u8]) -> Result<ArrayRef, SqlError> {
    let wire: [u8; 16] = fixed(bytes)?;
    let (micros, rest) = wire.split_first_chunk::<8>().expect("16 bytes have 8");
    let (days, months) = rest.split_first_chunk::<4>().expect("8 bytes have 4");
    let nanos = i64::from_be_bytes(*micros).checked_mul(1_000);
    let months = i32::from_be_bytes(fixed(months)?);
    let value = IntervalMonthDayNanoType::make_value(
        months,
        i32::from_be_bytes(*days),
        nanos.ok_or_else(|| out_of_range("interval"))?,
    );
    Ok(Arc::new(IntervalMonthDayNanoArray::from(vec![value])))
}

/// A number at its own scale, of the smallest precision that has room for it: few of them, so
/// that a statement is not planned for each value.
fn numeric(form: Form, bytes: &[u8]) -> Result<ArrayRef, SqlError> {
    let (digits, scale) = number(form, bytes)
        .and_then(|number| number.size())
        .map_err(|error| number_error(error, bytes, "numeric"))?;
    let precision =
        [9_u8, 18, 28].into_iter().find(|room| digits <= u32::from(*room)).unwrap_or(38);
    decimal(form, bytes, precision, scale)
}

/// A UUID in braces or not, with hyphens between any groups of four digits or none.
/// (Postgres, "UUID Type")
fn uuid(text: &str) -> Option<uuid::Uuid> {
    let inner = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}')?,
        None => text,
    };
    let groups = inner.split('-').all(|group| !group.is_empty() && group.len().is_multiple_of(4));
    uuid::Uuid::try_parse(&inner.replace('-', "")).ok().filter(|_| groups)
}

fn number(form: Form, bytes: &[u8]) -> Result<Number, NumericError> {
    match form {
        Form::Text => {
            Number::parse(std::str::from_utf8(bytes).map_err(|_| NumericError::NotANumber)?)
        }
        Form::Binary => Number::from_wire(bytes),
    }
}

fn number_error(error: NumericError, bytes: &[u8], ty: &str) -> SqlError {
    match error {
        NumericError::OutOfRange => out_of_range(ty),
        NumericError::NotANumber => invalid(oid::NUMERIC, &String::from_utf8_lossy(bytes)),
    }
}

fn decimal(form: Form, bytes: &[u8], precision: u8, scale: i8) -> Result<ArrayRef, SqlError> {
    let value = number(form, bytes).and_then(|number| number.at_scale(precision, scale));
    let value = value
        .map_err(|error| number_error(error, bytes, &format!("numeric({precision},{scale})")))?;
    let array = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale);
    Ok(Arc::new(array.map_err(|error| SqlError::new("22003", error.to_string()))?))
}

/// An integer of a type, as text.
fn integer(oid: u32, text: &str) -> Result<i64, SqlError> {
    let value: i128 = text.parse().map_err(|_| invalid(oid, text))?;
    let (name, bits) = match oid {
        oid::INT2 => ("smallint", 15),
        oid::INT4 => ("integer", 31),
        _ => ("bigint", 63),
    };
    let bound = 1_i128 << bits;
    if value < -bound || value >= bound {
        let message = format!("value \"{text}\" is out of range for type {name}");
        return Err(SqlError::new("22003", message));
    }
    Ok(value as i64)
}

/// The words for true and false, and their beginnings.
fn boolean(text: &str) -> Option<bool> {
    match &*text.to_ascii_lowercase() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Bytes in hex (`\x0aff`) or in the older escape format (`a\\b\000`).
fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| match pair {
            [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => None,
        });
        return pairs.collect();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                rest = after;
                b'\\'
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                rest = after;
                (a - b'0') * 64 + (b - b'0') * 8 + (c - b'0')
            }
            (b'\\', _) => return None,
            _ => byte,
        });
    }
    Some(bytes)
}

/// A one-dimensional array.
fn list(element: u32, form: Form, bytes: &[u8]) -> Result<ArrayRef, SqlError> {
    let ty = arrow_type(element).expect("every array's element has an Arrow type");
    let mut items = Vec::new();
    match form {
        Form::Text => {
            let text = text_of(bytes)?;
            let parts = array_elements(text).ok_or_else(|| malformed_array(text))?;
            for part in parts {
                items.push(match part {
                    Some(part) => read_text(element, &part)?,
                    None => new_null_array(&ty, 1),
                });
            }
        }
        Form::Binary => {
            for part in wire_items(element, bytes)? {
                items.push(match part {
                    Some(part) => read_binary(element, part)?,
                    None => new_null_array(&ty, 1),
                });
            }
        }
    }
    let values = if items.is_empty() {
        arrow::array::new_empty_array(&ty)
    } else {
        let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
        concat(&items).map_err(|error| SqlError::new("22P02", error.to_string()))?
    };
    let field = Arc::new(Field::new_list_field(ty, true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(Arc::new(ListArray::new(field, offsets, values, None)))
}

/// The items of an array in `array_send`'s form.
fn wire_items(element: u32, bytes: &[u8]) -> Result<Vec<Option<&[u8]>>, SqlError> {
    let bad = || SqlError::new("22P03", "incorrect binary data format in an array parameter");
    let mut rest = bytes;
    let mut next = || {
        let (head, after) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
        rest = after;
        Ok::<_, SqlError>(i32::from_be_bytes(*head))
    };
    let (dimensions, _has_null, oid) = (next()?, next()?, next()?);
    if oid as u32 != element {
        return Err(bad());
    }
    match dimensions {
        0 => return Ok(Vec::new()),
        1 => {}
        _ => return Err(SqlError::new("0A000", "arrays of arrays are not supported")),
    }
    let (count, _lower_bound) = (next()?, next()?);
    let count = usize::try_from(count).map_err(|_| bad())?;
    // Each item takes at least its length: a count cannot promise more than there is.
    if count > rest.len() / 4 {
        return Err(bad());
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let (head, after) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
        rest = after;
        let length = i32::from_be_bytes(*head);
        if length == -1 {
            items.push(None);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| bad())?;
        let (item, after) = rest.split_at_checked(length).ok_or_else(bad)?;
        rest = after;
        items.push(Some(item));
    }
    if rest.is_empty() { Ok(items) } else { Err(bad()) }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SqlError> {
    bytes.try_into().map_err(|_| {
        let message = format!("a binary parameter of {} bytes should have {N}", bytes.len());
        SqlError::new("22P03", message)
    })
}

/// Refuses digits that a float rounds to infinity or to zero.
fn float_in_range(text: &str, infinite: bool, zero: bool, ty: &str) -> Result<(), SqlError> {
    let mut mantissa = text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E'));
    let lost = (infinite && mantissa.clone().any(|byte| byte.is_ascii_digit()))
        || (zero && mantissa.any(|byte| matches!(byte, b'1'..=b'9')));
    if lost {
        let message = format!("\"{}\" is out of range for type {ty}", shown(text));
        return Err(SqlError::new("22003", message));
    }
    Ok(())
}

fn malformed_array(text: &str) -> SqlError {
    SqlError::new("22P02", format!("malformed array literal: \"{}\"", shown(text)))
}

fn invalid(oid: u32, text: &str) -> SqlError {
    let (sqlstate, name) = match oid {
        oid::BOOL => ("22P02", "boolean"),
        oid::INT2 => ("22P02", "smallint"),
        oid::INT4 => ("22P02", "integer"),
        oid::INT8 => ("22P02", "bigint"),
        oid::FLOAT4 => ("22P02", "real"),
        oid::FLOAT8 => ("22P02", "double precision"),
        oid::NUMERIC => ("22P02", "numeric"),
        oid::BYTEA => ("22P02", "bytea"),
        oid::UUID => ("22P02", "uuid"),
        oid::DATE => ("22007", "date"),
        oid::TIME => ("22007", "time"),
        oid::TIMESTAMP => ("22007", "timestamp"),
        oid::TIMESTAMPTZ => ("22007", "timestamp with time zone"),
        _ => ("22007", "interval"),
    };
    SqlError::new(sqlstate, format!("invalid input syntax for type {name}: \"{}\"", shown(text)))
}

fn out_of_range(what: &str) -> SqlError {
    let sqlstate = if what.starts_with("numeric") { "22003" } else { "22008" };
    SqlError::new(sqlstate, format!("a parameter is out of range for type {what}"))
}

/// As much of a value as an error message shows.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Decimal128Type, Int32Type};

    use super::*;

    fn text(oid: u32, value: &str) -> Result<ArrayRef, SqlError> {
        let ty = arrow_type(oid).expect("a known type");
        param(oid, Form::Text, Some(value.as_bytes()), &ty)
    }

    #[test]
    fn values_out_of_form_and_range() {
        let cases = [
            (oid::INT4, "x", "22P02"),
            (oid::INT2, "40000", "22003"),
            (oid::INT8, "9223372036854775808", "22003"),
            (oid::BOOL, "maybe", "22P02"),
            (oid::NUMERIC, "NaN", "22P02"),
            (oid::DATE, "2023-02-29", "22007"),
            (oid::FLOAT8, "1e400", "22003"),
            (oid::FLOAT8, "1e-400", "22003"),
            (oid::FLOAT4, "-1e39", "22003"),
            (oid::UUID, "1234", "22P02"),
            (oid::BYTEA, "\\xabc", "22P02"),
            (oid::TEXT, "a\0b", "22021"),
        ];
        for (oid, value, sqlstate) in cases {
            assert_eq!(text(oid, value).expect_err(value).sqlstate, sqlstate, "{value}");
        }
        for value in ["1e308", "0e999", "-Infinity", "inf", "NaN"] {
            assert!(text(oid::FLOAT8, value).is_ok(), "{value}");
        }
    }

    #[test]
    fn numeric_takes_the_scale_of_its_context() {
        let ty = DataType::Decimal128(10, 2);
        let array = param(oid::NUMERIC, Form::Text, Some(b"12.345"), &ty).expect("legal");
        assert_eq!(array.as_primitive::<Decimal128Type>().value(0), 1_235);
        let array = bound(oid::NUMERIC, Form::Text, Some(b"12.345"), &ty).expect("legal");
        assert_eq!(array.as_primitive::<Decimal128Type>().value(0), 12_345, "unless it was bound");
        assert_eq!(*array.data_type(), DataType::Decimal128(9, 3));
    }

    #[test]
    fn arrays_in_both_forms() {
        let array = text(1007, "{1,NULL, 3}").expect("legal");
        let items = array.as_list::<i32>().value(0);
        assert_eq!(
            items.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(),
            [Some(1), None, Some(3)]
        );
        let quoted = text(1009, r#"{"a,b","c \"d\"",null,"null",e}"#).expect("legal");
        let items = quoted.as_list::<i32>().value(0);
        let items: Vec<_> = items.as_string_view().iter().collect();
        assert_eq!(items, [Some("a,b"), Some("c \"d\""), None, Some("null"), Some("e")]);
        for bad in ["", "{", "{1", "{1,}", "{{1},{2}}", "{\"a}", "{\\"] {
            assert!(text(1007, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn random_binary_values_never_panic() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let oids = [
            16, 17, 20, 21, 23, 25, 26, 700, 701, 1007, 1082, 1083, 1114, 1184, 1186, 1700, 2950,
            3802, 1009, 1231,
        ];
        for _ in 0..100_000 {
            let oid = oids[random() as usize % oids.len()];
            let bytes: Vec<u8> = (0..random() % 30)
                .map(|_| if random() % 2 == 0 { 0 } else { random() as u8 })
                .collect();
            let ty = arrow_type(oid).expect("a known type");
            for form in [Form::Binary, Form::Text] {
                let _ = param(oid, form, Some(&bytes), &ty);
            }
        }
    }
}
