//! Record keys of tables: text for one column, a JSON object for several.

use arrow::array::RecordBatch;
use evert_model::{ColumnType, RowSchema};

use super::cell::Cell;
use super::row::{NO_NUL, RowReader};
use super::text;
use crate::encode::{RowWriter, write_text};

/// The key's columns from a record's key, as a row with nothing else in it.
pub(super) fn read<'a>(reader: &RowReader, key: &'a str) -> Result<Vec<Cell<'a>>, String> {
    let schema = reader.schema();
    let [index] = schema.key[..] else { return reader.read_key(key) };
    let column = &schema.columns[index];
    let mut cells = vec![Cell::Null; schema.columns.len()];
    cells[index] = text::parse(key.into(), column.ty).ok_or_else(|| {
        let ty = column.ty.sql_name();
        format!("the record's key {} is not {ty}", text::shorten(key))
    })?;
    if cells[index].has_nul() {
        return Err(format!("the record's key: {NO_NUL}"));
    }
    Ok(cells)
}

/// Writes the record keys of rows.
pub struct KeyWriter {
    key: Vec<usize>,
    types: Vec<ColumnType>,
    writer: RowWriter,
    json: bool,
}

impl KeyWriter {
    /// Keys of `schema`; always as JSON objects if `json`.
    ///
    /// # Panics
    /// If the schema has no key.
    pub fn new(schema: &RowSchema, json: bool) -> Self {
        let types = schema.key.iter().map(|&index| schema.columns[index].ty).collect();
        let writer = RowWriter::new(schema, &schema.key);
        Self { key: schema.key.clone(), types, writer, json: json || schema.key.len() > 1 }
    }

    /// The key of row `row` of `rows`, a batch in the relation's schema, instead of what is in
    /// `out`. A key of one column must not be NULL.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn write(&self, rows: &RecordBatch, row: usize, out: &mut String) {
        out.clear();
        if self.json {
            self.writer.write(rows, row, out);
        } else {
            write_text(rows.column(self.key[0]), self.types[0], row, out);
        }
    }
}
