//! Rows become documents.
//!
//! Owns: a document's fields, `_id` and `_source`.
//!
//! Invariants
//! - The same row makes the same document, whatever batch it came in.
//! - `_id` of a row with a key is its key; of one without it is its hash and a number, since equal
//!   rows may be there several times.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use evert_model::ColumnType;
use evert_view::RowWriter;
use tantivy::{DateTime, TantivyDocument};

use crate::mapping::{FieldKind, IndexField, KEYWORD_BYTES_MAX, Mapping};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Makes documents of rows.
pub(crate) struct DocumentWriter {
    source: RowWriter,
    key: Option<RowWriter>,
    /// The key is one column.
    single: bool,
}

impl DocumentWriter {
    pub(crate) fn new(mapping: &Mapping) -> Self {
        let all: Vec<_> = (0..mapping.rows.columns.len()).collect();
        let key = &mapping.rows.key;
        Self {
            source: RowWriter::new(&mapping.rows, &all),
            key: (!key.is_empty()).then(|| RowWriter::new(&mapping.rows, key)),
            single: key.len() == 1,
        }
    }

    /// The row as JSON.
    pub(crate) fn source(&self, rows: &RecordBatch, row: usize, out: &mut String) {
        out.clear();
        self.source.write(rows, row, out);
    }

    /// The key's text: the value itself, or a JSON array of several. Nothing for rows without key.
    pub(crate) fn key(&self, rows: &RecordBatch, row: usize, out: &mut String) -> Option<()> {
        let key = self.key.as_ref()?;
        out.clear();
        key.write_values(rows, row, out);
        if self.single {
            let value = &out[1..out.len() - 1];
            let text = match value.starts_with('"') {
                true => serde_json::from_str::<String>(value).expect("it was written as a string"),
                false => value.to_owned(),
            };
            *out = text;
        }
        Some(())
    }
}

/// A row's hash: equal rows have equal ones. (FNV-1a, 128 bits)
pub(crate) fn row_hash(source: &str) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for &byte in source.as_bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    }
    hash
}

/// The document of a row.
pub(crate) fn document(
    mapping: &Mapping,
    rows: &RecordBatch,
    row: usize,
    id: &str,
    source: &str,
) -> TantivyDocument {
    let mut document = TantivyDocument::default();
    document.add_text(mapping.id, id);
    for field in &mapping.fields {
        let values = rows.column(field.column);
        if values.is_null(row) {
            continue;
        }
        let all = match field.ty {
            ColumnType::Array(item) => {
                let items = values.as_list::<i32>().value(row);
                let valid = (0..items.len()).filter(|&place| items.is_valid(place));
                // All are added, whether or not one of them cannot be searched.
                let mut all = true;
                for place in valid {
                    all &= add(&mut document, field, item.column_type(), &items, place);
                }
                all
            }
            ty => add(&mut document, field, ty, values, row),
        };
        if !all {
            document.add_text(mapping.ignored, &field.name);
        }
    }
    document.add_text(mapping.source, source);
    document
}

/// Adds a value that is not null; says whether all of it can be searched.
fn add(
    document: &mut TantivyDocument,
    field: &IndexField,
    ty: ColumnType,
    column: &ArrayRef,
    row: usize,
) -> bool {
    let at = field.field;
    match field.kind {
        FieldKind::Text | FieldKind::Keyword => {
            let mut digits = String::new();
            let text = match integer(column, ty, row) {
                Some(number) => {
                    digits.push_str(&number.to_string());
                    &digits
                }
                None => column.as_string_view().value(row),
            };
            let fits = text.len() <= KEYWORD_BYTES_MAX;
            if field.kind == FieldKind::Text {
                document.add_text(at, text);
            }
            let keyword = field.keyword.unwrap_or(at);
            if fits {
                document.add_text(keyword, text);
            }
            fits
        }
        FieldKind::Long => {
            let number = integer(column, ty, row).expect("only integers are long");
            document.add_i64(at, number);
            true
        }
        FieldKind::Boolean => {
            document.add_bool(at, column.as_boolean().value(row));
            true
        }
        FieldKind::Double => match double(column, ty, row) {
            Some(number) => {
                document.add_f64(at, number);
                true
            }
            None => false,
        },
        FieldKind::Date => match date(column, ty, row) {
            Some(date) => {
                document.add_date(at, date);
                true
            }
            None => false,
        },
    }
}

fn integer(column: &dyn Array, ty: ColumnType, row: usize) -> Option<i64> {
    Some(match ty {
        ColumnType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        ColumnType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        ColumnType::Int64 => column.as_primitive::<Int64Type>().value(row),
        _ => return None,
    })
}

/// A number that can be compared; infinities and NaN cannot.
fn double(column: &dyn Array, ty: ColumnType, row: usize) -> Option<f64> {
    let number = match ty {
        ColumnType::Float32 => column.as_primitive::<Float32Type>().value(row).into(),
        ColumnType::Float64 => column.as_primitive::<Float64Type>().value(row),
        ColumnType::Decimal { scale, .. } => {
            let value = column.as_primitive::<Decimal128Type>().value(row) as f64;
            let unit = 10f64.powi(i32::from(scale).abs());
            if scale < 0 { value * unit } else { value / unit }
        }
        _ => return None,
    };
    // Minus zero is zero.
    number.is_finite().then_some(number + 0.0)
}

/// A date between the years 1677 and 2262.
fn date(column: &dyn Array, ty: ColumnType, row: usize) -> Option<DateTime> {
    let micros = match ty {
        ColumnType::Date => {
            let days = i64::from(column.as_primitive::<Date32Type>().value(row));
            days.checked_mul(MICROS_PER_DAY)?
        }
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            column.as_primitive::<TimestampMicrosecondType>().value(row)
        }
        _ => return None,
    };
    date_of(micros)
}

/// Microseconds since 1970 as a date of an index, if it reaches that far.
pub(crate) fn date_of(micros: i64) -> Option<DateTime> {
    Some(DateTime::from_timestamp_nanos(micros.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};
    use evert_model::{Column, RowSchema};

    use super::*;

    fn rows(key: Vec<usize>) -> (RowSchema, RecordBatch) {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let columns = vec![column("a", ColumnType::Text), column("b", ColumnType::Int64)];
        let schema = RowSchema { columns, key };
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from(vec!["x\"y", "plain"])),
            Arc::new(Int64Array::from(vec![Some(7), None])),
        ];
        let batch = RecordBatch::try_new(schema.to_arrow(), arrays).unwrap();
        (schema, batch)
    }

    fn keys(key: Vec<usize>) -> Vec<String> {
        let (schema, batch) = rows(key);
        let options = serde_json::json!({});
        let options = crate::mapping::IndexOptions::plan(&options, &schema).unwrap();
        let writer = DocumentWriter::new(&Mapping::new(&options, &schema).unwrap());
        let mut out = String::new();
        (0..2).filter_map(|row| writer.key(&batch, row, &mut out).map(|()| out.clone())).collect()
    }

    #[test]
    fn an_id_is_the_key_s_text() {
        assert_eq!(keys(vec![0]), ["x\"y", "plain"]);
        assert_eq!(keys(vec![1])[0], "7");
        assert_eq!(keys(vec![1, 0])[0], r#"[7,"x\"y"]"#);
        assert!(keys(vec![]).is_empty());
    }

    #[test]
    fn equal_rows_have_equal_hashes_only() {
        assert_eq!(row_hash(r#"{"a":1}"#), row_hash(r#"{"a":1}"#));
        assert_ne!(row_hash(r#"{"a":1}"#), row_hash(r#"{"a":2}"#));
    }
}
