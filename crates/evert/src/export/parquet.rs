//! Parquet, with the types that the columns have in SQL.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, BinaryArray, ListArray, RecordBatch, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio_postgres::Column;
use tokio_postgres::types::{Kind, Type};

use super::Sink;

/// Rows that are encoded at a time, so that the file does not depend on how they came.
const BATCH_ROWS: usize = 8192;

pub(super) struct ParquetFile {
    writer: ArrowWriter<Box<dyn Write + Send>>,
    schema: SchemaRef,
    waiting: Vec<Vec<Option<String>>>,
    rows: usize,
}

impl ParquetFile {
    pub(super) fn begin(out: Box<dyn Write + Send>, columns: &[Column]) -> Result<Self> {
        let fields =
            columns.iter().map(|column| Ok(Field::new(column.name(), column_type(column)?, true)));
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("evert".to_owned())
            .build();
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
        Ok(Self { writer, schema, waiting: vec![Vec::new(); columns.len()], rows: 0 })
    }

    fn write(&mut self) -> Result<()> {
        let columns = self.waiting.iter_mut().zip(self.schema.fields()).map(|(values, field)| {
            let values = std::mem::take(values);
            typed(values, field).with_context(|| format!("column \"{}\"", field.name()))
        });
        let batch =
            RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?;
        self.rows = 0;
        Ok(self.writer.write(&batch)?)
    }
}

impl Sink for ParquetFile {
    fn row(&mut self, values: &[Option<&str>]) -> Result<()> {
        for (column, value) in self.waiting.iter_mut().zip(values) {
            column.push(value.map(ToOwned::to_owned));
        }
        self.rows += 1;
        if self.rows == BATCH_ROWS {
            self.write()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.rows > 0 {
            self.write()?;
        }
        self.writer.finish()?;
        Ok(self.writer.inner_mut().flush()?)
    }
}

fn column_type(column: &Column) -> Result<DataType> {
    let (ty, modifier) = (column.type_(), column.type_modifier());
    let found = match ty.kind() {
        Kind::Array(item) => data_type(item, modifier).map(|item| DataType::new_list(item, true)),
        _ => data_type(ty, modifier),
    };
    match found {
        Some(found) => Ok(found),
        None => bail!("column \"{}\" is {ty}, which the format has no type for", column.name()),
    }
}

fn data_type(ty: &Type, modifier: i32) -> Option<DataType> {
    Some(match *ty {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::NUMERIC => numeric(modifier),
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::BYTEA => DataType::Binary,
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::JSON
        | Type::JSONB
        | Type::UUID => DataType::Utf8,
        _ => return None,
    })
}

/// A NUMERIC's digits are in its modifier; without one it is kept as text, exactly.
fn numeric(modifier: i32) -> DataType {
    let digits = modifier.checked_sub(4).filter(|digits| *digits >= 0);
    match digits.map(|digits| (u8::try_from(digits >> 16), i8::try_from(digits & 0x7ff))) {
        Some((Ok(precision @ 1..=38), Ok(scale))) => DataType::Decimal128(precision, scale),
        _ => DataType::Utf8,
    }
}

fn typed(values: Vec<Option<String>>, field: &Field) -> Result<ArrayRef> {
    let values: Vec<Option<String>> = match field.data_type() {
        DataType::Boolean => {
            let word = |value: String| if value == "t" { "true" } else { "false" }.to_owned();
            values.into_iter().map(|value| value.map(word)).collect()
        }
        DataType::Binary => {
            let bytes = values.iter().map(|value| value.as_deref().map(unhex).transpose());
            let bytes = bytes.collect::<Result<Vec<_>>>()?;
            return Ok(Arc::new(BinaryArray::from_iter(bytes)));
        }
        DataType::List(item) => return lists(&values, item),
        _ => values,
    };
    let text: ArrayRef = Arc::new(StringArray::from(values));
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(&text, field.data_type(), &strict)?)
}

fn lists(values: &[Option<String>], item: &Arc<Field>) -> Result<ArrayRef> {
    let lists = values.iter().map(|value| value.as_deref().map_or(Ok(Vec::new()), items));
    let lists = lists.collect::<Result<Vec<_>>>()?;
    let ends = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
    let there = NullBuffer::from_iter(values.iter().map(Option::is_some));
    let items = typed(lists.into_iter().flatten().collect(), item)?;
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), ends, items, Some(there))?))
}

/// The items of an array in Postgres's text form: `{a,"b, c",NULL}`.
fn items(text: &str) -> Result<Vec<Option<String>>> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let inner = inner.with_context(|| format!("{text} is no array"))?;
    let (mut items, mut item) = (Vec::new(), String::new());
    let (mut was_quoted, mut in_quotes) = (false, false);
    let mut chars = inner.chars();
    while !inner.is_empty() {
        match chars.next() {
            Some('\\') => item.extend(chars.next()),
            Some('"') => {
                was_quoted = true;
                in_quotes = !in_quotes;
            }
            Some(c) if in_quotes || c != ',' => item.push(c),
            end => {
                let item = std::mem::take(&mut item);
                let is_null = !std::mem::take(&mut was_quoted) && item == "NULL";
                items.push((!is_null).then_some(item));
                if end.is_none() {
                    break;
                }
            }
        }
    }
    Ok(items)
}

/// `\x` and two digits a byte.
fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits = text.strip_prefix("\\x").context("bytes are written as \\x and digits")?;
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)?;
        Ok(u8::from_str_radix(pair, 16)?)
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};

    use super::*;

    #[test]
    fn texts_get_their_types() {
        let of = |text: &str, ty: DataType| {
            typed(vec![Some(text.to_owned()), None], &Field::new("c", ty, true)).expect("typed")
        };
        assert!(of("t", DataType::Boolean).as_boolean().value(0));
        let numeric = of("-12.50", numeric((10 << 16 | 2) + 4));
        assert_eq!(numeric.as_primitive::<Decimal128Type>().value(0), -1250);
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let time = of("2026-11-21 23:00:00.5+00", time);
        assert_eq!(time.as_primitive::<TimestampMicrosecondType>().value(0), 1_795_302_000_500_000);
        assert_eq!(of("\\x00ff", DataType::Binary).as_binary::<i32>().value(0), [0, 255]);
        assert!(typed(vec![Some("x".into())], &Field::new("c", DataType::Int64, true)).is_err());
        let numbers = of("{1,NULL,3}", DataType::new_list(DataType::Int64, true));
        let numbers = numbers.as_list::<i32>();
        assert!(numbers.is_null(1));
        let first = numbers.value(0);
        assert_eq!(
            first.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
            [Some(1), None, Some(3)]
        );
    }

    #[test]
    fn arrays_are_read_as_postgres_writes_them() {
        let read = |text| items(text).expect("an array");
        let some = |text: &str| Some(text.to_owned());
        assert!(read("{}").is_empty());
        assert_eq!(read("{a,NULL,\"NULL\"}"), [some("a"), None, some("NULL")]);
        assert_eq!(read(r#"{"b, {c}","\"\\x00",""}"#), [some("b, {c}"), some("\"\\x00"), some("")]);
        assert!(items("[0:1]={1,2}").is_err());
    }
}
