//! Functions of values of any type: `pg_typeof`, `num_nulls`, `format`, `array_length`,
//! `gen_random_uuid`; and those that write or read by a format.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, StringViewArray,
};
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility};
use evert_model::{Column, ColumnType, RowSchema};
use uuid::Uuid;

use super::dates::{Times, is_interval, zoned};
use super::lists::is_list;
use super::rows::{Call, RowFunction, cast, is_integer, is_null, is_number, is_text, of, types};
use super::strings::literal;
use super::texts::{sent_texts, texts_of};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, INVALID_PARAMETER_VALUE};
use crate::times::{self, Source};
use crate::wording::type_name;

type Returned = Result<Option<FieldRef>>;

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let volatile = RowFunction {
        volatility: Volatility::Volatile,
        ..RowFunction::new("gen_random_uuid", uuid_type, gen_random_uuid)
    };
    let functions = [
        RowFunction::new("pg_typeof", typeof_type, pg_typeof),
        RowFunction::new("as_written", same_type, |call| Ok(Arc::clone(&call.values[0]))),
        RowFunction::new("num_nulls", count_type, |call| nulls(call, true)),
        RowFunction::new("num_nonnulls", count_type, |call| nulls(call, false)),
        RowFunction::new("format", format_type, format),
        RowFunction::new("array_length", length_type, array_length),
        RowFunction::new("to_char", to_char_type, to_char),
        RowFunction::new("to_date", |args| read_type(args, DataType::Date32), to_date),
        RowFunction::new("to_timestamp", to_timestamp_type, to_timestamp),
        RowFunction::new("to_number", |args| read_type(args, NUMBER), to_number),
        volatile,
    ];
    functions.into_iter().map(RowFunction::shared).collect()
});

/// What `to_number` gives.
const NUMBER: DataType = DataType::Decimal128(38, 10);

/// The functions, some in the place of DataFusion's of the same name.
pub(crate) fn value_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

/// What a cast gives that was written there.
fn same_type(args: &ReturnFieldArgs<'_>) -> Returned {
    Ok(args.arg_fields.first().map(Arc::clone))
}

fn typeof_type(args: &ReturnFieldArgs<'_>) -> Returned {
    if args.arg_fields.len() == 1 { of(DataType::Utf8View) } else { Ok(None) }
}

fn pg_typeof(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let name = type_name(&call.fields[0]);
    Ok(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(name, call.rows))))
}

fn count_type(args: &ReturnFieldArgs<'_>) -> Returned {
    if args.arg_fields.is_empty() { Ok(None) } else { of(DataType::Int32) }
}

fn nulls(call: &Call<'_>, counted: bool) -> Result<ArrayRef, SqlError> {
    let count = |row: usize| {
        let counts = call.values.iter().filter(|values| is_null(values, row) == counted);
        i32::try_from(counts.count()).unwrap_or(i32::MAX)
    };
    Ok(Arc::new((0..call.rows).map(count).collect::<Int32Array>()))
}

fn uuid_type(args: &ReturnFieldArgs<'_>) -> Returned {
    if !args.arg_fields.is_empty() {
        return Ok(None);
    }
    let column = Column { name: String::new(), ty: ColumnType::Uuid, nullable: true };
    let schema = RowSchema { columns: vec![column], key: Vec::new() }.to_arrow();
    Ok(Some(Arc::new(schema.field(0).clone())))
}

fn gen_random_uuid(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let uuids = (0..call.rows).map(|_| Uuid::new_v4().hyphenated().to_string());
    Ok(Arc::new(StringViewArray::from_iter_values(uuids)))
}

fn length_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [list, dimension] if (is_list(list) || list.is_null()) && is_integer(dimension) => {
            of(DataType::Int32)
        }
        _ => Ok(None),
    }
}

/// `array_length(list, dimension)`; an empty list has no dimensions.
fn array_length(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let dimensions = call.integers(1)?;
    call.each::<Int32Array, i32>(|row| {
        if call.values[0].data_type().is_null() {
            return Ok(None);
        }
        let mut list = call.values[0].slice(row, 1);
        for _ in 0..dimensions.value(row).clamp(0, 7) {
            list = match list.data_type() {
                DataType::List(_) if !list.is_empty() && list.is_valid(0) => {
                    list.as_list::<i32>().value(0)
                }
                DataType::LargeList(_) if !list.is_empty() && list.is_valid(0) => {
                    list.as_list::<i64>().value(0)
                }
                DataType::FixedSizeList(..) if !list.is_empty() && list.is_valid(0) => {
                    list.as_fixed_size_list().value(0)
                }
                _ => return Ok(None),
            };
        }
        let within = (1..=6).contains(&dimensions.value(row)) && !list.is_empty();
        Ok(within.then(|| i32::try_from(list.len()).unwrap_or(i32::MAX)))
    })
}

fn format_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).first() {
        Some(ty) if is_text(ty) => of(DataType::Utf8View),
        _ => Ok(None),
    }
}

/// `format('%s of %I: %L', ...)`.
fn format(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let templates = call.texts(0)?;
    let values = call.values[1..].iter().map(sent_texts).collect::<Result<Vec<_>, _>>()?;
    call.texts_of(false, |row| {
        if templates.is_null(row) {
            return Ok(None);
        }
        let value = |place: usize| -> Result<Option<&str>, SqlError> {
            let values =
                values.get(place).ok_or_else(|| wrong("too few arguments for format()"))?;
            Ok(values.is_valid(row).then(|| values.value(row)))
        };
        formatted(templates.value(row), value).map(Some)
    })
}

fn wrong(message: &str) -> SqlError {
    SqlError::new(INVALID_PARAMETER_VALUE, message)
}

fn formatted<'a>(
    template: &str,
    value: impl Fn(usize) -> Result<Option<&'a str>, SqlError>,
) -> Result<String, SqlError> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (mut number, mut after) = digits(after);
        if let Some(behind) = after.strip_prefix('$') {
            let place: usize = number.parse().map_err(|_| wrong("format specifies argument 0"))?;
            next = place.checked_sub(1).ok_or_else(|| {
                wrong("format specifies argument 0, but arguments are numbered from 1")
            })?;
            (number, after) = ("", behind);
        }
        let left = number.is_empty() && after.starts_with('-');
        if number.is_empty() {
            (number, after) = digits(after.trim_start_matches('-'));
        }
        let width: usize = if number.is_empty() { 0 } else { number.parse().unwrap_or(usize::MAX) };
        if width > 10_000 {
            return Err(wrong("number is out of range"));
        }
        let mut letters = after.chars();
        let text = match letters.next() {
            Some('s') => value(next)?.unwrap_or_default().to_owned(),
            Some('I') => identifier(value(next)?.ok_or_else(|| {
                SqlError::new("22004", "null values cannot be formatted as an SQL identifier")
            })?),
            Some('L') => value(next)?.map_or_else(|| "NULL".to_owned(), literal),
            Some('*') => {
                let message = "a width that is an argument (%*s) is not supported";
                return Err(SqlError::new(FEATURE_NOT_SUPPORTED, message));
            }
            Some(other) => {
                let message = format!("unrecognized format() type specifier \"{other}\"");
                return Err(wrong(&message).hint("For a single \"%\" use \"%%\"."));
            }
            None => return Err(wrong("unterminated format() type specifier")),
        };
        next += 1;
        match left {
            true => out.push_str(&format!("{text:<width$}")),
            false => out.push_str(&format!("{text:>width$}")),
        }
        rest = letters.as_str();
    }
    out.push_str(rest);
    Ok(out)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A name, quoted if it must be.
fn identifier(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let is_plain = name.chars().all(plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && !is_reserved(name);
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn is_reserved(name: &str) -> bool {
    use sqlparser::keywords::{RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER};
    let mut words = RESERVED_FOR_IDENTIFIER.iter().chain(RESERVED_FOR_COLUMN_ALIAS);
    words.any(|word| format!("{word:?}").eq_ignore_ascii_case(name))
}

fn to_char_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [value, template] if is_text(template) => {
            let time = matches!(value, DataType::Timestamp(..) | DataType::Date32 | DataType::Null);
            if time || is_interval(value) || is_number(value) {
                of(DataType::Utf8View)
            } else {
                Ok(None)
            }
        }
        _ => Ok(None),
    }
}

fn to_char(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let templates = call.texts(1)?;
    let ty = call.values[0].data_type();
    if is_number(ty) && !ty.is_null() {
        let numbers = numerals(&call.values[0])?;
        return call
            .each_text(|row| times::number_as(numbers.value(row), templates.value(row)).map(Some));
    }
    let times = Times::of(&call.values[0])?;
    call.each_text(|row| {
        let template = templates.value(row);
        match times.source(row) {
            Source::Timestamp(micros, zoned) => times::written_as(micros, zoned, template),
            // A date is the moment at which it begins.
            Source::Date(days) => times::written_as(times::midnight(days)?, true, template),
            Source::Clock(micros) => {
                times::written_span_as(times::Span { micros, ..times::Span::default() }, template)
            }
            Source::Interval(span) => times::written_span_as(span, template),
        }
        .map(Some)
    })
}

/// Numbers as digits without an exponent.
fn numerals(values: &ArrayRef) -> Result<StringViewArray, SqlError> {
    if !values.data_type().is_floating() {
        return Ok(texts_of(values)?.as_string_view().clone());
    }
    let floats = cast(values, &DataType::Float64)?;
    let floats = floats.as_primitive::<arrow::datatypes::Float64Type>();
    let numeral = |x: f64| match x.is_finite() {
        true => Ok(format!("{x}")),
        false => Err(SqlError::new(FEATURE_NOT_SUPPORTED, "to_char() of a number without digits")),
    };
    floats.iter().map(|x| x.map(numeral).transpose()).collect()
}

fn read_type(args: &ReturnFieldArgs<'_>, ty: DataType) -> Returned {
    match types(args).as_slice() {
        [text, template] if is_text(text) && is_text(template) => of(ty),
        _ => Ok(None),
    }
}

fn to_date(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (texts, templates) = (call.texts(0)?, call.texts(1)?);
    call.each::<arrow::array::Date32Array, i32>(|row| {
        let micros = times::read_as(texts.value(row), templates.value(row))?;
        Ok(Some(times::date_of_micros(micros)))
    })
}

/// Of seconds since 1970, or of a text and its format.
fn to_timestamp_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [seconds] if is_number(seconds) => of(zoned()),
        _ => read_type(args, zoned()),
    }
}

fn to_timestamp(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let stamps = |micros: &mut dyn FnMut(usize) -> Result<Option<i64>, SqlError>| {
        let array = call.each::<arrow::array::TimestampMicrosecondArray, i64>(micros)?;
        let array = array.as_primitive::<TimestampMicrosecondType>().clone();
        Ok(Arc::new(array.with_data_type(call.ty.clone())) as ArrayRef)
    };
    if call.values.len() == 2 {
        let (texts, templates) = (call.texts(0)?, call.texts(1)?);
        return stamps(&mut |row| times::read_as(texts.value(row), templates.value(row)).map(Some));
    }
    if is_integer(call.values[0].data_type()) {
        let seconds: Int64Array = call.integers(0)?;
        return stamps(&mut |row| {
            let micros = seconds.value(row).checked_mul(times::SECOND);
            micros.map(Some).ok_or_else(|| times::out_of_range("timestamp"))
        });
    }
    let seconds = call.floats(0)?;
    stamps(&mut |row| {
        let micros = (seconds.value(row) * times::SECOND as f64).round_ties_even();
        let fits = micros.is_finite() && micros.abs() < i64::MAX as f64;
        fits.then_some(Some(micros as i64)).ok_or_else(|| times::out_of_range("timestamp"))
    })
}

fn to_number(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (texts, templates) = (call.texts(0)?, call.texts(1)?);
    let digits = call
        .each_text(|row| times::number_read_as(texts.value(row), templates.value(row)).map(Some))?;
    let numbers = cast(&digits, &NUMBER)?;
    let numbers: &Decimal128Array = numbers.as_primitive::<Decimal128Type>();
    Ok(Arc::new(numbers.clone()))
}
