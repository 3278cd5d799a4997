//! Rows of a relation's snapshot, there and back: keys to look up, and the values that the
//! write-ahead log leaves out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use evert_model::ColumnType;

use crate::definition::Table;
use crate::row::{Cell, from_hex, to_hex};

/// The key's columns of `row`, in key order, as a batch of one row. `None` if a value cannot
/// stand in the relation, in which case there is no such row.
pub(crate) fn key_batch(table: &Table, row: &[Cell]) -> Option<RecordBatch> {
    let mut fields = Vec::with_capacity(table.key.len());
    let mut arrays = Vec::with_capacity(table.key.len());
    for &index in &table.key {
        let column = &table.columns[index];
        let text = std::str::from_utf8(row[index].as_deref()?).ok()?;
        let array = array(column.ty, text)?;
        if array.is_null(0) {
            return None;
        }
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()
}

fn array(ty: ColumnType, text: &str) -> Option<ArrayRef> {
    if ty == ColumnType::Bytes {
        return Some(Arc::new(BinaryArray::from(vec![from_hex(text)?.as_slice()])));
    }
    let texts = StringArray::from(vec![text]);
    if let (ColumnType::Timestamp | ColumnType::TimestampTz, Some(micros)) = (ty, infinity(text)) {
        let array = arrow::array::TimestampMicrosecondArray::from(vec![micros]);
        return Some(zoned(ty, array));
    }
    match ty {
        ColumnType::TimestampTz => {
            // Named zones need a database of them; the offset says the same.
            let zone = Some("+00:00".into());
            let array = cast(&texts, &DataType::Timestamp(TimeUnit::Microsecond, zone)).ok()?;
            Some(zoned(ty, array.as_primitive::<TimestampMicrosecondType>().clone()))
        }
        _ => cast(&texts, &ty.arrow_type()).ok(),
    }
}

fn infinity(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

fn zoned(ty: ColumnType, array: arrow::array::TimestampMicrosecondArray) -> ArrayRef {
    match ty {
        ColumnType::TimestampTz => Arc::new(array.with_timezone("UTC")),
        _ => Arc::new(array),
    }
}

/// The texts of row 0, of the columns whose values Postgres may store apart from their row.
/// Values of fixed length are always in the row, so theirs are never asked for.
pub(crate) fn cells(table: &Table, row: &RecordBatch) -> Vec<Cell> {
    let cell = |index: usize| {
        let array = row.columns().get(index)?;
        if array.is_null(0) {
            return None;
        }
        match table.columns[index].ty {
            ColumnType::Text | ColumnType::Json | ColumnType::Uuid => {
                let text = array.as_string_view_opt()?.value(0);
                Some(Bytes::copy_from_slice(text.as_bytes()))
            }
            ColumnType::Bytes => Some(to_hex(array.as_binary_opt::<i32>()?.value(0)).into()),
            ColumnType::Decimal { .. } => {
                let text = cast(array, &DataType::Utf8).ok()?;
                Some(Bytes::copy_from_slice(text.as_string_opt::<i32>()?.value(0).as_bytes()))
            }
            _ => None,
        }
    };
    (0..table.columns.len()).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;

    use super::*;
    use crate::definition::SourceColumn;

    fn table(types: &[ColumnType]) -> Table {
        let columns = types.iter().enumerate().map(|(n, &ty)| SourceColumn {
            name: format!("c{n}"),
            ty,
            type_oid: 0,
            type_modifier: -1,
        });
        Table {
            schema: "public".into(),
            name: "t".into(),
            columns: columns.collect(),
            key: (0..types.len()).collect(),
        }
    }

    #[test]
    fn keys_have_the_types_of_their_relation() {
        let cases = [
            (ColumnType::Boolean, "t"),
            (ColumnType::Int16, "-7"),
            (ColumnType::Int64, "9223372036854775807"),
            (ColumnType::Float64, "1e+20"),
            (ColumnType::Decimal { precision: 38, scale: 2 }, "123456789012345678901234567890.25"),
            (ColumnType::Text, "a b"),
            (ColumnType::Uuid, "0191d1f4-0000-7000-8000-000000000000"),
            (ColumnType::Bytes, "\\x00ff"),
            (ColumnType::Date, "2026-11-21"),
            (ColumnType::Timestamp, "2026-11-21 02:00:00.123456"),
            (ColumnType::TimestampTz, "2026-11-21 02:00:00.123456+00"),
            (ColumnType::TimestampTz, "infinity"),
        ];
        let types: Vec<_> = cases.iter().map(|(ty, _)| *ty).collect();
        let row: Vec<Cell> = cases.iter().map(|(_, text)| Some(Bytes::from(*text))).collect();
        let batch = key_batch(&table(&types), &row).expect("all values are of their types");
        for ((ty, text), column) in cases.iter().zip(batch.columns()) {
            assert_eq!(column.data_type(), &ty.arrow_type(), "{text}");
            assert!(!column.is_null(0), "{text}");
        }
        let micros = 1_795_226_400_123_456;
        for column in [9, 10] {
            let times = batch.column(column).as_primitive::<TimestampMicrosecondType>();
            assert_eq!(times.value(0), micros);
        }
        assert_eq!(key_batch(&table(&[ColumnType::Int32]), &[Some("x".into())]), None);
        assert_eq!(key_batch(&table(&[ColumnType::Int32]), &[None]), None);
    }

    #[test]
    fn values_that_may_be_stored_apart_come_back_as_text() {
        let decimal = ColumnType::Decimal { precision: 10, scale: 2 };
        let table = table(&[ColumnType::Text, ColumnType::Bytes, ColumnType::Json, decimal]);
        let fields = table.row_schema().to_arrow();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from(vec!["long"])),
            Arc::new(BinaryArray::from(vec![&[0u8, 255][..]])),
            Arc::new(StringViewArray::from(vec![None::<&str>])),
            array(decimal, "-1.50").unwrap(),
        ];
        let row = RecordBatch::try_new(fields, arrays).unwrap();
        let text = |text: &'static str| Some(Bytes::from(text));
        assert_eq!(cells(&table, &row), [text("long"), text("\\x00ff"), None, text("-1.50")]);
    }
}
