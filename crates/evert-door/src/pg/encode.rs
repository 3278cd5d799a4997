//! Results: Arrow columns to DataRow messages, in text or binary.
//!
//! Owns: each type's outward form (Postgres's `*out` and `*send` functions).
//! Not here: which Postgres type a column has (`types`).
//!
//! `arrow-pg` is not used for this: its NUMERIC ends at 28 digits and it has no infinity.

use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, ListArray,
    PrimitiveArray, RecordBatch, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use evert_model::{ColumnType, array_element, is_vector};
use evert_view::write_postgres_float as write_float;

use super::backend::{CopyForm, SqlError};
use super::copy;
use super::numeric::{numeric_to_wire, write_numeric};
use super::reply;
use super::types::PgType;
use super::{datetime, reply::set_length};

/// The largest row: Postgres's own bound on a message.
const ROW_BYTES_MAX: usize = (1 << 30) - 1;

/// A batch of rows, ready to be written one by one.
pub(super) struct Rows {
    columns: Vec<(Column, Form)>,
    rows: usize,
}

/// How a value travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Binary,
}

impl Form {
    /// The form that a format code names.
    pub(super) fn of_code(code: i16) -> Result<Self, SqlError> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            _ => Err(SqlError::new("22023", format!("unsupported format code: {code}"))),
        }
    }

    pub(super) fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }
}

/// A column in the one physical type of each outward type.
enum Column {
    Null,
    Boolean(BooleanArray),
    Int16(PrimitiveArray<Int16Type>),
    Int32(PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    Float32(PrimitiveArray<Float32Type>),
    Float64(PrimitiveArray<Float64Type>),
    Decimal(Decimal128Array),
    Text(StringViewArray),
    Uuid(StringViewArray),
    Bytes(BinaryArray),
    Date(PrimitiveArray<Date32Type>),
    Time(PrimitiveArray<Time64MicrosecondType>),
    Timestamp { values: PrimitiveArray<TimestampMicrosecondType>, zoned: bool },
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    List { lists: ListArray, items: Box<Column>, item_oid: u32 },
    Vector(ListArray),
}

impl Rows {
    /// Prepares a batch; `forms` gives each column's form.
    pub(super) fn new(batch: &RecordBatch, forms: &[Form]) -> Result<Self, SqlError> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).zip(forms);
        let columns = columns
            .map(|((field, array), form)| Ok((Column::new(field, array)?, *form)))
            .collect::<Result<Vec<_>, SqlError>>()?;
        Ok(Self { columns, rows: batch.num_rows() })
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Appends a DataRow message. After an error the output is as it was.
    pub(super) fn write(&self, row: usize, out: &mut BytesMut) -> Result<(), SqlError> {
        let start = out.len();
        let written = self.write_message(row, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// Appends a line as COPY writes it. After an error the output is as it was.
    pub(super) fn write_copy(
        &self,
        row: usize,
        form: &CopyForm,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        let start = out.len();
        let mut text = BytesMut::new();
        for (index, (column, _)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.put_u8(form.delimiter);
            }
            if column.is_null(row) {
                out.put_slice(form.null.as_bytes());
                continue;
            }
            text.clear();
            column.write_text(row, &mut text);
            match form.csv {
                true => {
                    let always = form.force_quote.get(index) == Some(&true);
                    copy::put_csv(&text, form, always, self.columns.len() == 1, out);
                }
                false => copy::put_text(&text, form.delimiter, out),
            }
            if out.len() - start > ROW_BYTES_MAX {
                out.truncate(start);
                return Err(SqlError::new("54000", "a row of the result is larger than 1 GiB"));
            }
        }
        out.put_u8(b'\n');
        Ok(())
    }

    fn write_message(&self, row: usize, out: &mut BytesMut) -> Result<(), SqlError> {
        out.put_u8(b'D');
        let start = out.len();
        out.put_i32(0);
        out.put_u16(self.columns.len() as u16);
        for (column, form) in &self.columns {
            column.write_field(row, *form, out)?;
            if out.len() - start > ROW_BYTES_MAX {
                return Err(SqlError::new("54000", "a row of the result is larger than 1 GiB"));
            }
        }
        set_length(out, start, out.len() - start);
        Ok(())
    }
}

impl Column {
    fn new(field: &Field, array: &ArrayRef) -> Result<Self, SqlError> {
        let to = |ty: &DataType| {
            if array.data_type() == ty { Ok(array.clone()) } else { cast(array, ty) }
                .map_err(|error| SqlError::new("XX000", error.to_string()))
        };
        let Some(ty) = ColumnType::of_field(field) else { return Self::other(field, array) };
        let plain = to(&ty.arrow_type())?;
        let array = &plain;
        Ok(match ty {
            ColumnType::Boolean => Self::Boolean(array.as_boolean().clone()),
            ColumnType::Int16 => Self::Int16(primitive(array)),
            ColumnType::Int32 => Self::Int32(primitive(array)),
            ColumnType::Int64 => Self::Int64(primitive(array)),
            ColumnType::Float32 => Self::Float32(primitive(array)),
            ColumnType::Float64 => Self::Float64(primitive(array)),
            ColumnType::Decimal { .. } => Self::Decimal(primitive::<Decimal128Type>(array)),
            ColumnType::Text | ColumnType::Json => Self::Text(array.as_string_view().clone()),
            ColumnType::Uuid => Self::Uuid(array.as_string_view().clone()),
            ColumnType::Bytes => Self::Bytes(array.as_binary().clone()),
            ColumnType::Date => Self::Date(primitive(array)),
            ColumnType::Timestamp => Self::Timestamp { values: primitive(array), zoned: false },
            ColumnType::TimestampTz => Self::Timestamp { values: primitive(array), zoned: true },
            ColumnType::Array(item) => {
                let lists = array.as_list::<i32>().clone();
                let field = Field::new("", item.column_type().arrow_type(), true);
                let items = Box::new(Self::new(&field, lists.values())?);
                Self::List { lists, items, item_oid: PgType::of_field(&field).oid }
            }
        })
    }

    /// Types that are no column's type.
    fn other(field: &Field, array: &ArrayRef) -> Result<Self, SqlError> {
        let failed = |error: arrow::error::ArrowError| SqlError::new("XX000", error.to_string());
        Ok(match field.data_type() {
            DataType::Null => Self::Null,
            DataType::List(_) if is_vector(field) => {
                let item = Field::new_list_field(DataType::Int16, true);
                let plain = cast(array, &DataType::List(item.into())).map_err(failed)?;
                Self::Vector(plain.as_list::<i32>().clone())
            }
            DataType::Dictionary(_, value) => {
                let field = Field::new("", value.as_ref().clone(), true)
                    .with_metadata(field.metadata().clone());
                let plain = cast(array, value).map_err(failed)?;
                return Self::new(&field, &plain);
            }
            DataType::FixedSizeBinary(_) => {
                let plain = cast(array, &DataType::Binary).map_err(failed)?;
                Self::Bytes(plain.as_binary().clone())
            }
            DataType::Time32(_) | DataType::Time64(_) => {
                let ty = DataType::Time64(TimeUnit::Microsecond);
                Self::Time(primitive(&cast(array, &ty).map_err(failed)?))
            }
            DataType::Interval(_) | DataType::Duration(_) => {
                let ty = DataType::Interval(IntervalUnit::MonthDayNano);
                Self::Interval(primitive(&cast(array, &ty).map_err(failed)?))
            }
            DataType::Decimal256(_, scale) => {
                let plain = cast(array, &DataType::Decimal128(38, *scale)).map_err(failed)?;
                Self::Decimal(primitive::<Decimal128Type>(&plain))
            }
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
                if !item.data_type().is_nested() =>
            {
                let plain = cast(array, &DataType::List(item.clone())).map_err(failed)?;
                let lists = plain.as_list::<i32>().clone();
                let items = Box::new(Self::new(item, lists.values())?);
                Self::List { lists, items, item_oid: PgType::of_field(item).oid }
            }
            _ => Self::displayed(array).map_err(failed)?,
        })
    }

    /// What Postgres has no type for goes out as Arrow prints it.
    fn displayed(array: &ArrayRef) -> Result<Self, arrow::error::ArrowError> {
        let formatter = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())?;
        let texts = (0..array.len())
            .map(|row| array.is_valid(row).then(|| formatter.value(row).to_string()));
        Ok(Self::Text(texts.collect()))
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(values) => values.is_null(row),
            Self::Int16(values) => values.is_null(row),
            Self::Int32(values) => values.is_null(row),
            Self::Int64(values) => values.is_null(row),
            Self::Float32(values) => values.is_null(row),
            Self::Float64(values) => values.is_null(row),
            Self::Decimal(values) => values.is_null(row),
            Self::Text(values) | Self::Uuid(values) => values.is_null(row),
            Self::Bytes(values) => values.is_null(row),
            Self::Date(values) => values.is_null(row),
            Self::Time(values) => values.is_null(row),
            Self::Timestamp { values, .. } => values.is_null(row),
            Self::Interval(values) => values.is_null(row),
            Self::List { lists, .. } | Self::Vector(lists) => lists.is_null(row),
        }
    }

    /// A value with its length before it.
    fn write_field(&self, row: usize, form: Form, out: &mut BytesMut) -> Result<(), SqlError> {
        let start = out.len();
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        out.put_i32(0);
        match form {
            Form::Text => self.write_text(row, out),
            Form::Binary => self.write_binary(row, out)?,
        }
        let length = out.len() - start - 4;
        if length > ROW_BYTES_MAX {
            return Err(SqlError::new("54000", "a value of the result is larger than 1 GiB"));
        }
        reply::set_length(out, start, length);
        Ok(())
    }

    fn write_text(&self, row: usize, out: &mut BytesMut) {
        match self {
            Self::Null => Ok(()),
            Self::Boolean(values) => out.write_char(if values.value(row) { 't' } else { 'f' }),
            Self::Int16(values) => write!(out, "{}", values.value(row)),
            Self::Int32(values) => write!(out, "{}", values.value(row)),
            Self::Int64(values) => write!(out, "{}", values.value(row)),
            Self::Float32(values) => write_float(out, &format!("{:e}", values.value(row)), 6),
            Self::Float64(values) => write_float(out, &format!("{:e}", values.value(row)), 15),
            Self::Decimal(values) => write_numeric(out, values.value(row), values.scale()),
            Self::Text(values) | Self::Uuid(values) => {
                out.put_slice(values.value(row).as_bytes());
                Ok(())
            }
            Self::Bytes(values) => write_hex(out, values.value(row)),
            Self::Date(values) => datetime::write_date(out, values.value(row)),
            Self::Time(values) => datetime::write_time(out, values.value(row)),
            Self::Timestamp { values, zoned } => {
                datetime::write_timestamp(out, values.value(row), *zoned)
            }
            Self::Interval(values) => {
                let interval = values.value(row);
                let micros = interval.nanoseconds / 1_000;
                datetime::write_interval(out, interval.months, interval.days, micros)
            }
            Self::List { lists, items, .. } => write_array(out, lists, items, row),
            Self::Vector(lists) => {
                let numbers = lists.value(row);
                let numbers = numbers.as_primitive::<Int16Type>().values().iter();
                let texts: Vec<String> = numbers.map(ToString::to_string).collect();
                out.write_str(&texts.join(" "))
            }
        }
        .expect("a buffer in memory takes every text");
    }

    fn write_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), SqlError> {
        match self {
            Self::Null => {}
            Self::Boolean(values) => out.put_u8(u8::from(values.value(row))),
            Self::Int16(values) => out.put_i16(values.value(row)),
            Self::Int32(values) => out.put_i32(values.value(row)),
            Self::Int64(values) => out.put_i64(values.value(row)),
            Self::Float32(values) => out.put_f32(values.value(row)),
            Self::Float64(values) => out.put_f64(values.value(row)),
            Self::Decimal(values) => numeric_to_wire(out, values.value(row), values.scale()),
            Self::Text(values) => out.put_slice(values.value(row).as_bytes()),
            Self::Uuid(values) => out.put_slice(uuid_bytes(values.value(row))?.as_bytes()),
            Self::Bytes(values) => out.put_slice(values.value(row)),
            Self::Date(values) => {
                out.put_i32(datetime::date_to_wire(values.value(row)).ok_or_else(out_of_range)?);
            }
            Self::Time(values) => out.put_i64(values.value(row)),
            Self::Timestamp { values, .. } => {
                let micros = datetime::timestamp_to_wire(values.value(row));
                out.put_i64(micros.ok_or_else(out_of_range)?);
            }
            Self::Interval(values) => {
                let interval = values.value(row);
                out.put_i64(interval.nanoseconds / 1_000);
                out.put_i32(interval.days);
                out.put_i32(interval.months);
            }
            // Its first element is at 0, where an array's is at 1.
            Self::Vector(lists) => {
                let numbers = lists.value(row);
                let numbers = numbers.as_primitive::<Int16Type>().values();
                out.put_i32(1);
                out.put_i32(0);
                out.put_u32(super::types::oid::INT2);
                out.put_i32(numbers.len() as i32);
                out.put_i32(0);
                for &number in numbers {
                    out.put_i32(2);
                    out.put_i16(number);
                }
            }
            Self::List { lists, items, item_oid } => {
                let range = list_range(lists, row);
                out.put_i32(i32::from(!range.is_empty()));
                out.put_i32(i32::from(range.clone().any(|item| items.is_null(item))));
                out.put_u32(*item_oid);
                if !range.is_empty() {
                    out.put_i32(range.len() as i32);
                    out.put_i32(1);
                }
                for item in range {
                    items.write_field(item, Form::Binary, out)?;
                }
            }
        }
        Ok(())
    }
}

/// Appends the text of a value that is not NULL: the only one of its array.
pub(super) fn write_one(
    field: &Field,
    array: &ArrayRef,
    out: &mut BytesMut,
) -> Result<(), SqlError> {
    Column::new(field, array)?.write_text(0, out);
    Ok(())
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> PrimitiveArray<T> {
    array.as_primitive::<T>().clone()
}

fn out_of_range() -> SqlError {
    SqlError::new("22008", "a date or timestamp of the result is out of range")
}

fn uuid_bytes(text: &str) -> Result<uuid::Uuid, SqlError> {
    uuid::Uuid::parse_str(text)
        .map_err(|_| SqlError::new("22P02", format!("\"{text}\" is not a uuid")))
}

pub(super) fn write_hex(out: &mut BytesMut, bytes: &[u8]) -> std::fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.put_slice(b"\\x");
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
    Ok(())
}

fn list_range(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
    // Arrow keeps its offsets non-negative and in order.
    lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize
}

/// `{1,NULL,"a \"b\""}`
fn write_array(
    out: &mut BytesMut,
    lists: &ListArray,
    items: &Column,
    row: usize,
) -> std::fmt::Result {
    let mut item_text = BytesMut::new();
    out.put_u8(b'{');
    for (index, item) in list_range(lists, row).enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        if items.is_null(item) {
            out.put_slice(b"NULL");
            continue;
        }
        item_text.clear();
        items.write_text(item, &mut item_text);
        let item = std::str::from_utf8(&item_text).expect("it was written as text");
        out.put_slice(array_element(item).as_bytes());
    }
    out.put_u8(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(value: f64) -> String {
        let mut out = BytesMut::new();
        write_float(&mut out, &format!("{value:e}"), 15).expect("fits");
        String::from_utf8(out.to_vec()).expect("ASCII")
    }

    #[test]
    fn floats_read_as_in_postgres() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (123_456.789, "123456.789"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e300, "1e+300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
    }
}
