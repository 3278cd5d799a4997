//! Records become rows.
//!
//! Owns: the formats `json` and `debezium`, and what makes a record bad.
//! Not here: what rows do to a relation's state (`relation`).
//!
//! Invariants
//! - A record yields either its events or one reason why it is bad, never part of a row.
//! - A row depends on its record alone.

mod cell;
mod columns;
mod debezium;
mod key;
mod parsed;
mod row;
mod text;

use arrow::array::{BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch};
use evert_fold::UpsertBatch;
use evert_model::{Delta, Record};

pub(crate) use cell::Cell;
use cell::JsonColumns;
pub(crate) use columns::Columns;
pub use key::KeyWriter;
pub use parsed::RowParser;
use row::RowReader;

use crate::catalog::{Format, Relation, RelationKind};

/// What a run of records does to its relation, in log order.
#[derive(Debug)]
pub(crate) enum Event {
    /// Rows of a stream.
    Rows(RecordBatch),
    /// Facts about the keys of a table.
    Upsert(UpsertBatch),
    /// Rows in and out of a bag.
    Change(Delta),
    /// Every row leaves.
    Truncate,
}

/// Decodes the records of one relation and gathers what they do.
pub(crate) struct Decoder {
    reader: RowReader,
    kind: RelationKind,
    format: Format,
    rows: Columns,
    live: BooleanBufferBuilder,
    weights: Vec<i64>,
    done: Vec<Event>,
}

impl Decoder {
    pub(crate) fn new(relation: &Relation) -> Self {
        let columns = match relation.format {
            Format::Json => JsonColumns::Inline,
            Format::Debezium => JsonColumns::Quoted,
        };
        let mut schema = relation.schema.clone();
        for &index in &relation.schema.key {
            schema.columns[index].nullable = false;
        }
        Self {
            kind: relation.kind,
            format: relation.format,
            rows: Columns::new(&relation.schema),
            reader: RowReader::new(schema, columns),
            live: BooleanBufferBuilder::new(0),
            weights: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Reads one record. On an error the record does nothing but, in a table, take its key's row
    /// out, if the key can be read.
    pub(crate) fn push(&mut self, record: &Record<'_>) -> Result<(), String> {
        match (self.format, self.kind) {
            (Format::Json, RelationKind::Table) => self.push_keyed(record),
            (Format::Json, _) => {
                let value = record.value.ok_or("the record has no value")?;
                let cells = self.reader.read(utf8(value)?)?;
                self.put(&cells);
                Ok(())
            }
            (Format::Debezium, _) => debezium::push(self, record),
        }
    }

    fn push_keyed(&mut self, record: &Record<'_>) -> Result<(), String> {
        let key = record.key.ok_or(
            "the record has no key: a table's records carry their primary key, as text or, \
             for several columns, as a JSON object",
        )?;
        let key = key::read(&self.reader, utf8(key)?)?;
        let Some(value) = record.value else {
            self.delete(&key);
            return Ok(());
        };
        let row = utf8(value).and_then(|value| self.reader.read(value)).and_then(|row| {
            let key_columns = &self.reader.schema().key;
            let same = key_columns.iter().all(|&index| row[index].is(&key[index]));
            if same { Ok(row) } else { Err("the record's key is not its row's key".into()) }
        });
        match row {
            Ok(row) => {
                self.put(&row);
                Ok(())
            }
            Err(why) => {
                self.delete(&key);
                Err(why)
            }
        }
    }

    fn put(&mut self, row: &[Cell<'_>]) {
        self.rows.push(row);
        self.live.append(true);
        self.weights.push(1);
    }

    /// Deletes a key of a table.
    fn delete(&mut self, key: &[Cell<'_>]) {
        self.rows.push(key);
        self.live.append(false);
        self.weights.push(-1);
    }

    /// Takes a row out of a bag.
    fn retract(&mut self, row: &[Cell<'_>]) {
        self.delete(row);
    }

    fn truncate(&mut self) {
        self.seal();
        self.done.push(Event::Truncate);
    }

    fn seal(&mut self) {
        if self.rows.len() == 0 {
            return;
        }
        let rows = self.rows.take();
        let live = BooleanArray::new(self.live.finish(), None);
        let weights = Int64Array::from(std::mem::take(&mut self.weights));
        self.done.push(match self.kind {
            RelationKind::Stream => Event::Rows(rows),
            RelationKind::Table => Event::Upsert(UpsertBatch { rows, live }),
            RelationKind::Bag => Event::Change(Delta::new(rows, weights)),
        });
    }

    /// How many rows wait to be sealed.
    pub(crate) fn pending(&self) -> usize {
        self.rows.len()
    }

    /// Whether something was sealed since the last call of [`Decoder::take`].
    pub(crate) fn has_events(&self) -> bool {
        !self.done.is_empty()
    }

    /// What the records since the last call do.
    pub(crate) fn take(&mut self) -> Vec<Event> {
        self.seal();
        std::mem::take(&mut self.done)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 text: byte {} is invalid", error.valid_up_to()))
}

#[cfg(test)]
mod tests;
