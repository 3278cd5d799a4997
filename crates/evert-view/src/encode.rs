//! Rows become records: the way in for INSERT, UPDATE and DELETE.
//!
//! What is written here, `decode` reads back to the same row.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evert_log::NewPart;
use evert_model::{BatchBuilder, ColumnType, Compression, PartitionId, RowSchema, TimestampMs};

use crate::calendar::date_of_day;
use crate::catalog::{CatalogError, Format, Relation, RelationKind};
use crate::decode::KeyWriter;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Uncompressed bytes after which a batch is closed: well below `max.message.bytes`.
const BATCH_BYTES: usize = 256 << 10;

/// What a DML statement does to one relation.
#[derive(Clone, Debug)]
pub enum RowChange {
    /// Whole rows, in the relation's schema.
    Put(RecordBatch),
    /// Rows of which only the key columns matter.
    Delete(RecordBatch),
}

/// The batches that make `changes` facts of `relation`, over `partitions` partitions.
///
/// A keyed record goes to the partition that Kafka's default partitioner gives its key (murmur2);
/// rows without a key go to partition `keyless % partitions`.
pub(crate) fn encode(
    relation: &Relation,
    partitions: i32,
    keyless: u32,
    now: TimestampMs,
    changes: &[RowChange],
) -> Result<Vec<NewPart>, CatalogError> {
    let refuse = |what| Err(CatalogError::Invalid(format!("\"{}\" {what}", relation.name)));
    if relation.format != Format::Json {
        return refuse("is written by its source only");
    }
    let mut batches = Batches::new(relation, partitions, now);
    let all: Vec<usize> = (0..relation.schema.columns.len()).collect();
    let values = RowWriter::new(&relation.schema, &all);
    let mut value = String::new();
    if relation.kind == RelationKind::Stream {
        let partition = (keyless % partitions.max(1) as u32) as i32;
        for change in changes {
            let RowChange::Put(rows) = change else {
                return refuse("is a stream: rows only go in");
            };
            for row in 0..rows.num_rows() {
                value.clear();
                values.write(rows, row, &mut value);
                batches.push(partition, None, Some(value.as_bytes()));
            }
        }
        return Ok(batches.finish());
    }
    let keys = KeyWriter::new(&relation.schema, false);
    let mut key = String::new();
    for change in changes {
        let (RowChange::Put(rows) | RowChange::Delete(rows)) = change;
        for row in 0..rows.num_rows() {
            keys.write(rows, row, &mut key);
            let partition = partition_of(key.as_bytes(), partitions);
            if matches!(change, RowChange::Put(_)) {
                value.clear();
                values.write(rows, row, &mut value);
                batches.push(partition, Some(key.as_bytes()), Some(value.as_bytes()));
            } else {
                batches.push(partition, Some(key.as_bytes()), None);
            }
        }
    }
    Ok(batches.finish())
}

/// Records gathered by partition into batches of a moderate size.
struct Batches<'a> {
    relation: &'a Relation,
    now: TimestampMs,
    open: Vec<BatchBuilder>,
    done: Vec<NewPart>,
}

impl<'a> Batches<'a> {
    fn new(relation: &'a Relation, partitions: i32, now: TimestampMs) -> Self {
        let open = (0..partitions.max(1)).map(|_| BatchBuilder::new(Compression::None)).collect();
        Self { relation, now, open, done: Vec::new() }
    }

    fn push(&mut self, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
        let builder = &mut self.open[partition as usize];
        builder.push(self.now, key, value, &[]);
        if builder.payload_bytes() >= BATCH_BYTES {
            self.close(partition);
        }
    }

    fn close(&mut self, partition: i32) {
        let fresh = BatchBuilder::new(Compression::None);
        let builder = std::mem::replace(&mut self.open[partition as usize], fresh);
        if !builder.is_empty() {
            self.done.push(NewPart {
                topic: self.relation.topic_id,
                partition: PartitionId::new(partition),
                batch: builder.build(),
            });
        }
    }

    fn finish(mut self) -> Vec<NewPart> {
        for partition in 0..self.open.len() {
            self.close(partition as i32);
        }
        self.done
    }
}

/// Kafka's default partitioner: murmur2 of the key, made positive, modulo the partitions.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions.max(1)
}

/// MurmurHash2 with Kafka's seed (org.apache.kafka.common.utils.Utils.murmur2).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28cu32 ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        let word = tail.iter().rev().fold(0u32, |word, &byte| word << 8 | u32::from(byte));
        hash = (hash ^ word).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Writes chosen columns of rows as JSON objects.
pub struct RowWriter {
    /// (column, type, `"name":` as JSON)
    columns: Vec<(usize, ColumnType, String)>,
}

impl RowWriter {
    /// Writes these columns of rows of `schema`.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn new(schema: &RowSchema, columns: &[usize]) -> Self {
        let columns = columns.iter().map(|&index| {
            let column = &schema.columns[index];
            let mut label = String::new();
            write_string(&column.name, &mut label);
            label.push(':');
            (index, column.ty, label)
        });
        Self { columns: columns.collect() }
    }

    /// Appends one row of a batch.
    ///
    /// # Panics
    /// If the rows are not of the schema, or there is no such row.
    pub fn write(&self, rows: &RecordBatch, row: usize, out: &mut String) {
        self.write_after("", rows, row, out);
    }

    /// The same with members before the columns: `"name":value`, with commas between.
    ///
    /// # Panics
    /// As [`RowWriter::write`].
    pub fn write_after(&self, first: &str, rows: &RecordBatch, row: usize, out: &mut String) {
        out.push('{');
        out.push_str(first);
        for (i, (index, ty, label)) in self.columns.iter().enumerate() {
            if i > 0 || !first.is_empty() {
                out.push(',');
            }
            out.push_str(label);
            write_value(rows.column(*index), *ty, row, out);
        }
        out.push('}');
    }

    /// Appends one row's values as a JSON array.
    ///
    /// # Panics
    /// As [`RowWriter::write`].
    pub fn write_values(&self, rows: &RecordBatch, row: usize, out: &mut String) {
        out.push('[');
        for (i, (index, ty, _)) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            write_value(rows.column(*index), *ty, row, out);
        }
        out.push(']');
    }
}

const INFALLIBLE: &str = "writing into a string cannot fail";

/// One value as JSON.
fn write_value(column: &ArrayRef, ty: ColumnType, row: usize, out: &mut String) {
    if column.is_null(row) {
        out.push_str("null");
        return;
    }
    match ty {
        ColumnType::Boolean
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::Json
        | ColumnType::Array(_) => write_text(column, ty, row, out),
        ColumnType::Float32 | ColumnType::Float64 if is_finite(column, ty, row) => {
            write_text(column, ty, row, out);
        }
        ColumnType::Text => write_string(column.as_string_view().value(row), out),
        // What follows holds no character that JSON escapes.
        _ => {
            out.push('"');
            write_text(column, ty, row, out);
            out.push('"');
        }
    }
}

fn is_finite(column: &ArrayRef, ty: ColumnType, row: usize) -> bool {
    match ty {
        ColumnType::Float32 => column.as_primitive::<Float32Type>().value(row).is_finite(),
        _ => column.as_primitive::<Float64Type>().value(row).is_finite(),
    }
}

/// Appends one value that is not null, as plain text: what `decode` parses as this type. An
/// array is JSON.
///
/// # Panics
/// If the column is not of the type, or there is no such row.
pub fn write_text(column: &ArrayRef, ty: ColumnType, row: usize, out: &mut String) {
    match ty {
        ColumnType::Boolean => write!(out, "{}", column.as_boolean().value(row)),
        ColumnType::Int16 => write!(out, "{}", column.as_primitive::<Int16Type>().value(row)),
        ColumnType::Int32 => write!(out, "{}", column.as_primitive::<Int32Type>().value(row)),
        ColumnType::Int64 => write!(out, "{}", column.as_primitive::<Int64Type>().value(row)),
        ColumnType::Float32 => {
            write_float(column.as_primitive::<Float32Type>().value(row).into(), out, |value| {
                format!("{}", value as f32)
            })
        }
        ColumnType::Float64 => {
            write_float(column.as_primitive::<Float64Type>().value(row), out, |value| {
                format!("{value}")
            })
        }
        ColumnType::Decimal { scale, .. } => {
            write_decimal(column.as_primitive::<Decimal128Type>().value(row), scale, out)
        }
        ColumnType::Text | ColumnType::Json | ColumnType::Uuid => {
            out.write_str(column.as_string_view().value(row))
        }
        ColumnType::Bytes => out.write_str(&BASE64.encode(column.as_binary::<i32>().value(row))),
        ColumnType::Date => write_date(column.as_primitive::<Date32Type>().value(row), out),
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            write_timestamp(micros, ty == ColumnType::TimestampTz, out)
        }
        ColumnType::Array(item) => {
            let items = column.as_list::<i32>().value(row);
            out.push('[');
            for place in 0..items.len() {
                if place > 0 {
                    out.push(',');
                }
                write_value(&items, item.column_type(), place, out);
            }
            out.write_char(']')
        }
    }
    .expect(INFALLIBLE);
}

fn write_float(value: f64, out: &mut String, text: impl Fn(f64) -> String) -> std::fmt::Result {
    if value.is_nan() {
        out.write_str("NaN")
    } else if value.is_infinite() {
        out.write_str(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        out.write_str(&text(value))
    }
}

fn write_decimal(value: i128, scale: i8, out: &mut String) -> std::fmt::Result {
    let sign = if value < 0 { "-" } else { "" };
    let digits = value.unsigned_abs();
    match u32::try_from(scale) {
        Ok(0) => write!(out, "{sign}{digits}"),
        Ok(places) => {
            let unit = 10u128.pow(places);
            write!(
                out,
                "{sign}{}.{:0width$}",
                digits / unit,
                digits % unit,
                width = places as usize
            )
        }
        Err(_) => write!(out, "{sign}{digits}e{}", -i32::from(scale)),
    }
}

fn write_date(days: i32, out: &mut String) -> std::fmt::Result {
    match days {
        i32::MAX => out.write_str("infinity"),
        i32::MIN => out.write_str("-infinity"),
        _ => write_day(days.into(), out),
    }
}

/// As ISO 8601 has it: years of other than four digits have a sign, year 0 is 1 BC.
fn write_day(day: i64, out: &mut String) -> std::fmt::Result {
    let (year, month, day) = date_of_day(day);
    match year {
        0..=9999 => write!(out, "{year:04}-{month:02}-{day:02}"),
        _ => write!(out, "{year:+05}-{month:02}-{day:02}"),
    }
}

fn write_timestamp(micros: i64, zoned: bool, out: &mut String) -> std::fmt::Result {
    match micros {
        i64::MAX => out.write_str("infinity"),
        i64::MIN => out.write_str("-infinity"),
        _ => {
            write_day(micros.div_euclid(MICROS_PER_DAY), out)?;
            let clock = micros.rem_euclid(MICROS_PER_DAY);
            let (seconds, micros) = (clock / 1_000_000, clock % 1_000_000);
            let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            write!(out, "T{hour:02}:{minute:02}:{second:02}.{micros:06}")?;
            out.write_str(if zoned { "Z" } else { "" })
        }
    }
}

/// A JSON string with what must be escaped escaped.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
