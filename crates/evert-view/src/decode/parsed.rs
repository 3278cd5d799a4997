//! Reading back what [`crate::RowWriter`] has written.

use arrow::array::RecordBatch;
use evert_model::RowSchema;

use super::cell::JsonColumns;
use super::columns::Columns;
use super::row::RowReader;

/// Rows of JSON objects, gathered into batches.
pub struct RowParser {
    reader: RowReader,
    rows: Columns,
}

impl RowParser {
    /// Reads rows of `schema`; any column may be NULL.
    pub fn new(schema: &RowSchema) -> Self {
        let mut nullable = schema.clone();
        for column in &mut nullable.columns {
            column.nullable = true;
        }
        let reader = RowReader::new(nullable, JsonColumns::Inline).of_any_text();
        Self { reader, rows: Columns::new(schema) }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// What cannot be read; no row is added then.
    pub fn push(&mut self, json: &str) -> Result<(), String> {
        let row = self.reader.read(json)?;
        self.rows.push(&row);
        Ok(())
    }

    /// How many rows wait to be taken.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows since the last call.
    pub fn take(&mut self) -> RecordBatch {
        self.rows.take()
    }
}
