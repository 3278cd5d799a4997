//! Rows as lines of COPY's text format.

use arrow::array::{Array, RecordBatch};
use evert_model::{ColumnType, RowSchema};
use evert_view::write_postgres_text;

/// Appends a row as a line of COPY's text format, with more cells after it as they are.
pub(crate) fn write_copy_line(
    schema: &RowSchema,
    rows: &RecordBatch,
    row: usize,
    more: &str,
    out: &mut Vec<u8>,
    cell: &mut String,
) {
    for (index, column) in schema.columns.iter().enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        if rows.column(index).is_null(row) {
            out.extend_from_slice(b"\\N");
            continue;
        }
        cell.clear();
        write_postgres_text(rows.column(index), column.ty, row, cell);
        match column.ty {
            ColumnType::Text | ColumnType::Json | ColumnType::Bytes | ColumnType::Array(_) => {
                escape(cell, out);
            }
            _ => out.extend_from_slice(cell.as_bytes()),
        }
    }
    out.extend_from_slice(more.as_bytes());
    out.push(b'\n');
}

fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, Int64Array, ListBuilder, StringViewArray, StringViewBuilder,
    };
    use evert_model::{Column, ItemType};

    use super::*;

    #[test]
    fn lines_are_as_copy_reads_them() {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let columns = vec![
            column("t", ColumnType::Text),
            column("n", ColumnType::Int64),
            column("b", ColumnType::Bytes),
            column("a", ColumnType::Array(ItemType::Text)),
        ];
        let schema = RowSchema { columns, key: Vec::new() };
        let mut texts = ListBuilder::new(StringViewBuilder::new());
        texts.append_value([Some("a,\"\\"), None, Some("")]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(["a\tb\\\n"])),
            Arc::new(Int64Array::from(vec![None::<i64>])),
            Arc::new(BinaryArray::from_vec(vec![&[0, 255]])),
            Arc::new(texts.finish()),
        ];
        let rows = RecordBatch::try_new(schema.to_arrow(), columns).expect("rows");
        let (mut out, mut cell) = (Vec::new(), String::new());
        write_copy_line(&schema, &rows, 0, "\tf", &mut out, &mut cell);
        assert_eq!(out, b"a\\tb\\\\\\n\t\\N\t\\\\x00ff\t{\"a,\\\\\"\\\\\\\\\",NULL,\"\"}\tf\n");
    }
}
