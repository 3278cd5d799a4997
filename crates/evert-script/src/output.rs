//! Output: what a fold's `row` returns as values of its columns, packed into bytes.
//!
//! Owns: which of JavaScript's values a column takes. A value that does not fit is an error, never
//! rounded or cut; a numeric is rounded to its scale, as Postgres does.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, ListArray, StringArray, StringViewArray, TimestampMicrosecondArray,
    new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use evert_model::{Column, ColumnType, ItemType};
use rquickjs::convert::Coerced;
use rquickjs::{Array, Ctx, FromJs, Value};

use crate::input::SAFE_INTEGER_MAX;
use crate::script::Failure;

/// Microseconds either way of 1970 that a Number of milliseconds tells apart.
const MICROS_MAX: f64 = (1_i64 << 53) as f64;

/// Elements that an array may have.
const ARRAY_ITEMS_MAX: usize = 1 << 16;

/// How rows of the output's columns become bytes and columns again.
#[derive(Debug)]
pub(crate) struct Packing {
    rows: RowConverter,
    /// A row of NULLs.
    nulls: Vec<u8>,
}

impl Packing {
    pub(crate) fn new(output: &[Column]) -> Result<Self, ArrowError> {
        let types: Vec<_> = output.iter().map(|column| column.ty.arrow_type()).collect();
        let rows = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let nulls: Vec<ArrayRef> = types.iter().map(|ty| new_null_array(ty, 1)).collect();
        let nulls = packed(&rows, &nulls)?;
        Ok(Self { rows, nulls })
    }

    /// A row that the code returned.
    pub(crate) fn pack<'js>(
        &self,
        ctx: &Ctx<'js>,
        output: &[Column],
        row: &Array<'js>,
    ) -> Result<Vec<u8>, Failure> {
        let mut columns = Vec::with_capacity(output.len());
        for (place, column) in output.iter().enumerate() {
            let refused = |why| Failure::Value { column: column.name.clone(), why };
            let value: Value<'js> = row.get(place).map_err(|error| refused(error.to_string()))?;
            columns.push(value_of(ctx, column.ty, &value).map_err(refused)?);
        }
        packed(&self.rows, &columns)
            .map_err(|error| Failure::Thrown { message: error.to_string(), line: None })
    }

    pub(crate) fn unpack(&self, rows: &BinaryArray, column: usize) -> Result<ArrayRef, ArrowError> {
        let parser = self.rows.parser();
        let rows = rows.iter().map(|row| parser.parse(row.unwrap_or(&self.nulls)));
        let mut columns = self.rows.convert_rows(rows)?;
        if column >= columns.len() {
            return Err(ArrowError::InvalidArgumentError(format!("no column {column}")));
        }
        Ok(columns.swap_remove(column))
    }
}

fn packed(rows: &RowConverter, columns: &[ArrayRef]) -> Result<Vec<u8>, ArrowError> {
    Ok(rows.convert_columns(columns)?.row(0).as_ref().to_vec())
}

/// A value as a column of one row.
fn value_of<'js>(ctx: &Ctx<'js>, ty: ColumnType, value: &Value<'js>) -> Result<ArrayRef, String> {
    if value.is_null() || value.is_undefined() {
        return Ok(new_null_array(&ty.arrow_type(), 1));
    }
    let wrong = || format!("{} is no {}", shown(ctx, value), ty.sql_name());
    Ok(match ty {
        ColumnType::Boolean => {
            Arc::new(BooleanArray::from(vec![value.as_bool().ok_or_else(wrong)?]))
        }
        ColumnType::Int16 => {
            let integer = integer(ctx, value).and_then(|value| i16::try_from(value).ok());
            Arc::new(Int16Array::from(vec![integer.ok_or_else(wrong)?]))
        }
        ColumnType::Int32 => {
            let integer = integer(ctx, value).and_then(|value| i32::try_from(value).ok());
            Arc::new(Int32Array::from(vec![integer.ok_or_else(wrong)?]))
        }
        ColumnType::Int64 => {
            Arc::new(Int64Array::from(vec![integer(ctx, value).ok_or_else(wrong)?]))
        }
        ColumnType::Float32 => {
            let number = value.as_number().ok_or_else(wrong)?;
            if number.is_finite() && !(number as f32).is_finite() {
                return Err(wrong());
            }
            Arc::new(Float32Array::from(vec![number as f32]))
        }
        ColumnType::Float64 => {
            Arc::new(Float64Array::from(vec![value.as_number().ok_or_else(wrong)?]))
        }
        ColumnType::Decimal { .. } => {
            let digits = digits(ctx, value).ok_or_else(wrong)?;
            parsed(&digits, ty).ok_or_else(wrong)?
        }
        ColumnType::Text | ColumnType::Json => {
            let text = text(value).ok_or_else(wrong)?;
            Arc::new(StringViewArray::from_iter_values([text]))
        }
        ColumnType::Uuid => {
            let text = text(value).filter(|text| is_uuid(text)).ok_or_else(wrong)?;
            Arc::new(StringViewArray::from_iter_values([text.to_lowercase()]))
        }
        ColumnType::Bytes => {
            let bytes = text(value).as_deref().and_then(bytes).ok_or_else(wrong)?;
            Arc::new(BinaryArray::from_iter_values([bytes]))
        }
        ColumnType::Date => text(value).and_then(|text| parsed(&text, ty)).ok_or_else(wrong)?,
        ColumnType::Timestamp | ColumnType::TimestampTz => match value.as_number() {
            Some(millis) => {
                let micros = (millis * 1000.0).round();
                if micros.is_nan() || micros.abs() > MICROS_MAX {
                    return Err(wrong());
                }
                let array = TimestampMicrosecondArray::from(vec![micros as i64]);
                match ty {
                    ColumnType::TimestampTz => Arc::new(array.with_timezone("UTC")),
                    _ => Arc::new(array),
                }
            }
            None => text(value).and_then(|text| parsed(&text, ty)).ok_or_else(wrong)?,
        },
        ColumnType::Array(item) => {
            let elements = value.as_array().ok_or_else(wrong)?;
            if elements.len() > ARRAY_ITEMS_MAX {
                return Err(format!("an array has more than {ARRAY_ITEMS_MAX} elements"));
            }
            let items = elements
                .iter::<Value<'js>>()
                .map(|element| value_of(ctx, item.column_type(), &element.map_err(|_| wrong())?));
            array_of(items.collect::<Result<Vec<_>, _>>()?, item)
        }
    })
}

/// An array of items that are columns of one row each.
fn array_of(items: Vec<ArrayRef>, item: ItemType) -> ArrayRef {
    let ty = item.column_type().arrow_type();
    let parts: Vec<&dyn arrow::array::Array> = items.iter().map(AsRef::as_ref).collect();
    let values = match parts.is_empty() {
        true => new_empty_array(&ty),
        false => concat(&parts).expect("items of one type"),
    };
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    let field = Field::new_list_field(ty, true);
    Arc::new(ListArray::new(field.into(), offsets, values, None))
}

/// An integer that a Number or BigInt tells exactly.
fn integer<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> Option<i64> {
    if value.is_big_int() {
        return big_digits(ctx, value)?.parse().ok();
    }
    let number = value.as_number()?;
    let is_exact = number.fract() == 0.0 && number.abs() <= SAFE_INTEGER_MAX as f64;
    is_exact.then_some(number as i64)
}

/// The digits of a numeric.
fn digits<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> Option<String> {
    if value.is_big_int() {
        return big_digits(ctx, value);
    }
    match value.as_number() {
        Some(number) => number.is_finite().then(|| number.to_string()),
        None => text(value),
    }
}

fn big_digits<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> Option<String> {
    Some(Coerced::<String>::from_js(ctx, value.clone()).ok()?.0)
}

/// A text that Postgres would hold: no NUL, no half of a surrogate pair.
fn text(value: &Value<'_>) -> Option<String> {
    let text = value.as_string()?.to_string().ok()?;
    (!text.contains('\0')).then_some(text)
}

/// A text read as a value of a type.
fn parsed(text: &str, ty: ColumnType) -> Option<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let texts = StringArray::from(vec![text.trim()]);
    let array = cast_with_options(&texts, &ty.arrow_type(), &options).ok()?;
    array.is_valid(0).then_some(array)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// What `\x00ff` stands for.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .strip_prefix("\\x")
        .filter(|digits| digits.is_ascii() && digits.len().is_multiple_of(2))?;
    let byte = |place| u8::from_str_radix(&digits[place..place + 2], 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A value in a message.
fn shown<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> String {
    const CHARS_MAX: usize = 60;
    let text = match value.as_string() {
        Some(_) => text(value).map(|text| format!("\"{text}\"")),
        None if value.is_object() || value.is_symbol() => Some(value.type_name().to_owned()),
        None => Coerced::<String>::from_js(ctx, value.clone()).ok().map(|text| text.0),
    };
    let text = text.unwrap_or_else(|| value.type_name().to_owned());
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
