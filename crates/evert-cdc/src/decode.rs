//! pgoutput's messages become the records of whole transactions.
//!
//! Owns: what the source's tables look like on the wire now, the transaction being read, and the
//! columns that the write-ahead log leaves out (unchanged TOAST values).
//! Not here: sockets (`stream`), JSON (`envelope`).
//!
//! Invariants
//! - Nothing of a transaction comes out as complete before its commit message.
//! - A row image is whole, or the caller is asked for what is missing, or the record is a bad one
//!   on purpose. Never are values made up.
//!
//! Source: the Postgres manual, "Logical Replication Message Formats", protocol version 1.

use std::collections::HashMap;

use bytes::Bytes;
use evert_model::{Compression, Lsn};
use pg_walstream::{ColumnInfo, LogicalReplicationMessage, LogicalReplicationParser, TupleData};
use thiserror::Error;

use crate::definition::Table;
use crate::envelope::{Change, Envelopes, Origin, TableBatch};
use crate::overlay::{Known, Overlay};
use crate::row::{BadValue, Cell, RowWriter};
use crate::types;

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres counts from.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Why the stream cannot go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// A table is no longer what the relation was made from.
    #[error("{table} has changed: {what}")]
    TableChanged { table: String, what: String },
    #[error(transparent)]
    Value(#[from] BadValue),
    /// Too many rows to remember for an update that leaves values out.
    #[error(
        "a transaction is too large to follow: it updates rows of {table} that it wrote itself, \
         and leaves values out; with ALTER TABLE {table} REPLICA IDENTITY FULL it would not"
    )]
    TooLarge { table: String },
    /// The messages contradict themselves.
    #[error("the replication stream is not understood: {0}")]
    Protocol(String),
}

/// What a message led to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Go on.
    Taken,
    /// The row that `Wanted::key` had at the previous commit is needed to go on: answer with
    /// [`Decoder::supply`] before the next message.
    Wanted(Wanted),
}

/// A question for the row of a table as the previous commit left it.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The table's index.
    pub(crate) table: usize,
    /// A row of which the key's cells are set.
    pub(crate) key: Vec<Cell>,
    new: NewRow,
}

/// A row as an UPDATE message has it.
#[derive(Debug)]
struct NewRow {
    old_key: Option<Vec<Cell>>,
    cells: Vec<Cell>,
    /// Columns that did not change and were left out.
    missing: Vec<usize>,
}

/// A transaction that has committed at the source.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Just behind its commit: what may be confirmed once it is durable.
    pub(crate) end: Lsn,
    pub(crate) committed_us: i64,
    /// The batches that were not taken yet.
    pub(crate) batches: Vec<TableBatch>,
    /// All records of the transaction, also those taken before.
    pub(crate) records: u64,
}

/// Reads one replication stream.
pub(crate) struct Decoder {
    parser: LogicalReplicationParser,
    tables: Vec<Table>,
    keys: Vec<RowWriter>,
    /// Tables by their ids on the wire; `None`: not one of ours.
    relations: HashMap<u32, Option<Relation>>,
    envelopes: Envelopes,
    overlay: Overlay,
    open: Option<Open>,
    resume: Lsn,
    warnings: Vec<String>,
}

/// The transaction being read.
#[derive(Clone, Copy)]
struct Open {
    committed_us: i64,
    /// It is in the log already.
    skip: bool,
}

/// How a table's tuples are laid out now.
struct Relation {
    table: usize,
    /// Our column of each column on the wire.
    columns: Vec<Option<usize>>,
}

impl Decoder {
    /// Reads a stream of which everything that committed before `resume` is in the log.
    pub(crate) fn new(tables: Vec<Table>, resume: Lsn) -> Self {
        Self {
            parser: LogicalReplicationParser::with_protocol_version(1),
            keys: tables.iter().map(RowWriter::new).collect(),
            envelopes: Envelopes::new(&tables, Compression::None),
            tables,
            relations: HashMap::new(),
            overlay: Overlay::default(),
            open: None,
            resume,
            warnings: Vec::new(),
        }
    }

    /// Whether a transaction is being read.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What a user should know, since the last call.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The bytes of the open transaction's batches that are ready to be taken.
    pub(crate) fn closed_bytes(&self) -> usize {
        self.envelopes.closed_bytes()
    }

    /// The batches of the open transaction that are ready.
    pub(crate) fn take_closed(&mut self) -> Vec<TableBatch> {
        self.envelopes.take_closed()
    }

    /// A transaction begins whose commit is at `commit`.
    pub(crate) fn begin(&mut self, commit: Lsn, xid: u32, micros: i64) -> Result<(), DecodeError> {
        if self.open.is_some() {
            return Err(DecodeError::Protocol("a transaction begins inside another".into()));
        }
        let committed_us = micros.saturating_add(POSTGRES_EPOCH_US);
        // Resume points lie between records, so a commit that starts before one also ends there.
        self.open = Some(Open { committed_us, skip: commit < self.resume });
        self.overlay.clear();
        self.envelopes.begin(Origin { lsn: commit, xid: Some(xid), committed_us });
        Ok(())
    }

    /// The open transaction has committed. `None` if it is in the log already.
    pub(crate) fn commit(&mut self, end: Lsn) -> Result<Option<Finished>, DecodeError> {
        let open = self.open.take();
        let open = open.ok_or_else(|| DecodeError::Protocol("a commit without a begin".into()))?;
        self.overlay.clear();
        if open.skip {
            return Ok(None);
        }
        let records = self.envelopes.records();
        let batches = self.envelopes.finish();
        Ok(Some(Finished { end, committed_us: open.committed_us, batches, records }))
    }

    /// A message other than begin and commit.
    pub(crate) fn message(&mut self, data: Bytes) -> Result<Outcome, DecodeError> {
        use LogicalReplicationMessage as Message;
        let message = self
            .parser
            .parse_wal_message_bytes(data)
            .map_err(|error| DecodeError::Protocol(error.to_string()))?
            .message;
        match message {
            Message::Relation {
                relation_id,
                namespace,
                relation_name,
                replica_identity,
                columns,
            } => {
                let relation =
                    self.relation(&namespace, &relation_name, replica_identity, &columns)?;
                self.relations.insert(relation_id, relation);
            }
            Message::Insert { relation_id, tuple } => {
                if let Some(relation) = self.open_relation(relation_id)? {
                    let (table, new) = relation.new_row(&tuple, &self.tables)?;
                    if !new.missing.is_empty() {
                        return Err(protocol("an inserted row leaves a value out"));
                    }
                    self.envelopes.push(table, Change::Insert(&new.cells))?;
                    self.remember(table, &new.cells)?;
                }
            }
            Message::Update { relation_id, old_tuple, new_tuple, key_type } => {
                return self.update(relation_id, old_tuple, &new_tuple, key_type);
            }
            Message::Delete { relation_id, old_tuple, key_type } => {
                self.delete(relation_id, &old_tuple, key_type)?;
            }
            Message::Truncate { relation_ids, .. } => {
                for relation_id in relation_ids {
                    if let Some(table) = self.open_relation(relation_id)?.map(|r| r.table) {
                        self.envelopes.push(table, Change::Truncate)?;
                        self.overlay.truncate(table);
                    }
                }
            }
            Message::Type { .. } | Message::Origin { .. } | Message::Message { .. } => {}
            other => return Err(DecodeError::Protocol(format!("unexpected message {other:?}"))),
        }
        Ok(Outcome::Taken)
    }

    /// The layout of a table of ours, if there is an open transaction that is not to be skipped.
    fn open_relation(&self, id: u32) -> Result<Option<&Relation>, DecodeError> {
        match self.open {
            None => Err(protocol("a change outside of a transaction")),
            Some(open) if open.skip => Ok(None),
            Some(_) => match self.relations.get(&id) {
                Some(relation) => Ok(relation.as_ref()),
                None => Err(protocol("a change of a table that was not described")),
            },
        }
    }

    fn update(
        &mut self,
        relation_id: u32,
        old: Option<TupleData>,
        new: &TupleData,
        key_type: Option<char>,
    ) -> Result<Outcome, DecodeError> {
        let Some(relation) = self.open_relation(relation_id)? else { return Ok(Outcome::Taken) };
        let (table, mut row) = relation.new_row(new, &self.tables)?;
        let old = old.map(|old| relation.old_row(&old, &self.tables)).transpose()?;
        let keyed = !self.tables[table].key.is_empty();
        if let (Some(old), Some('O')) = (&old, key_type) {
            for index in row.missing.drain(..) {
                row.cells[index].clone_from(&old[index]);
            }
            if keyed && self.tables[table].key.iter().any(|&i| old[i] != row.cells[i]) {
                self.envelopes.push(table, Change::Delete(old))?;
                self.forget(table, old)?;
                self.envelopes.push(table, Change::Insert(&row.cells))?;
            } else {
                let change = Change::Update { before: Some(old), after: &row.cells };
                self.envelopes.push(table, change)?;
            }
            self.remember(table, &row.cells)?;
            return Ok(Outcome::Taken);
        }
        if !keyed {
            let what = "its REPLICA IDENTITY is no longer FULL, and it has no primary key";
            return Err(self.changed(table, what));
        }
        row.old_key = old;
        if row.missing.is_empty() {
            self.put_update(table, &row)?;
            return Ok(Outcome::Taken);
        }
        let key = row.old_key.clone().unwrap_or_else(|| row.cells.clone());
        let known = match self.overlay.get(table, &self.key_text(table, &key)?) {
            Known::Row(row) => Some(row.to_vec()),
            Known::Untouched => None,
            Known::LeftOut => {
                return Err(DecodeError::TooLarge { table: self.tables[table].source_name() });
            }
        };
        let wanted = Wanted { table, key, new: row };
        match known {
            Some(known) => {
                self.supply(wanted, Some(&known))?;
                Ok(Outcome::Taken)
            }
            None => Ok(Outcome::Wanted(wanted)),
        }
    }

    /// Completes an update with the row that was wanted; `None` if the table has no such row.
    pub(crate) fn supply(
        &mut self,
        wanted: Wanted,
        known: Option<&[Cell]>,
    ) -> Result<(), DecodeError> {
        let Wanted { table, key, mut new } = wanted;
        let Some(known) = known else {
            self.warnings.push(format!(
                "{}: an update left out a value that is not known here; ALTER TABLE {} \
                 REPLICA IDENTITY FULL avoids it",
                self.tables[table].source_name(),
                self.tables[table].source_name(),
            ));
            self.envelopes.push(table, Change::Lost(&key))?;
            return Ok(());
        };
        for index in new.missing.drain(..) {
            new.cells[index].clone_from(&known[index]);
        }
        self.put_update(table, &new)
    }

    fn put_update(&mut self, table: usize, row: &NewRow) -> Result<(), DecodeError> {
        let key = &self.tables[table].key;
        let moved =
            row.old_key.as_ref().filter(|old| key.iter().any(|&i| old[i] != row.cells[i])).cloned();
        match &moved {
            Some(old) => {
                self.envelopes.push(table, Change::DeleteKey(old))?;
                self.forget(table, old)?;
                self.envelopes.push(table, Change::Insert(&row.cells))?;
            }
            None => {
                self.envelopes.push(table, Change::Update { before: None, after: &row.cells })?;
            }
        }
        self.remember(table, &row.cells)
    }

    fn delete(&mut self, id: u32, old: &TupleData, key_type: char) -> Result<(), DecodeError> {
        let Some(relation) = self.open_relation(id)? else { return Ok(()) };
        let table = relation.table;
        let old = relation.old_row(old, &self.tables)?;
        if key_type == 'O' {
            self.envelopes.push(table, Change::Delete(&old))?;
        } else if self.tables[table].key.is_empty() {
            let what = "its REPLICA IDENTITY is no longer FULL, and it has no primary key";
            return Err(self.changed(table, what));
        } else {
            self.envelopes.push(table, Change::DeleteKey(&old))?;
        }
        self.forget(table, &old)
    }

    fn remember(&mut self, table: usize, row: &[Cell]) -> Result<(), DecodeError> {
        if !self.tables[table].key.is_empty() {
            let key = self.key_text(table, row)?;
            self.overlay.put(table, key, row);
        }
        Ok(())
    }

    fn forget(&mut self, table: usize, row: &[Cell]) -> Result<(), DecodeError> {
        if !self.tables[table].key.is_empty() {
            let key = self.key_text(table, row)?;
            self.overlay.remove(table, &key);
        }
        Ok(())
    }

    fn key_text(&self, table: usize, row: &[Cell]) -> Result<String, DecodeError> {
        let mut text = String::new();
        self.keys[table].put_key(&mut text, row)?;
        Ok(text)
    }

    fn changed(&self, table: usize, what: impl Into<String>) -> DecodeError {
        DecodeError::TableChanged { table: self.tables[table].source_name(), what: what.into() }
    }

    /// Compares a table's description with the definition.
    fn relation(
        &mut self,
        schema: &str,
        name: &str,
        replica_identity: u8,
        wire: &[ColumnInfo],
    ) -> Result<Option<Relation>, DecodeError> {
        let found = self.tables.iter().position(|t| t.schema == schema && t.name == name);
        let Some(table) = found else { return Ok(None) };
        let ours = &self.tables[table];
        let mut columns = Vec::with_capacity(wire.len());
        for column in wire {
            let index = ours.columns.iter().position(|c| c.name == *column.name);
            if index.is_none() {
                self.warnings.push(format!(
                    "{}: column \"{}\" was added and is not taken; drop the source and create \
                     it again to take it",
                    ours.source_name(),
                    column.name
                ));
            }
            columns.push(index);
        }
        for (index, column) in ours.columns.iter().enumerate() {
            let place = columns.iter().position(|&c| c == Some(index));
            let Some(place) = place else {
                return Err(self.changed(table, format!("column \"{}\" is gone", column.name)));
            };
            let now = &wire[place];
            let same = now.type_id == column.type_oid && now.type_modifier == column.type_modifier;
            if !same && types::map(now.type_id, now.type_modifier).column_type() != column.ty {
                return Err(
                    self.changed(table, format!("column \"{}\" has another type", column.name))
                );
            }
            if ours.is_key(index) && !now.is_key() && replica_identity != b'f' {
                let what = format!(
                    "key column \"{}\" is not part of its REPLICA IDENTITY any more",
                    column.name
                );
                return Err(self.changed(table, what));
            }
        }
        if ours.key.is_empty() && replica_identity != b'f' {
            let what = "its REPLICA IDENTITY is no longer FULL, and it has no primary key";
            return Err(self.changed(table, what));
        }
        Ok(Some(Relation { table, columns }))
    }
}

impl Relation {
    fn new_row(&self, tuple: &TupleData, tables: &[Table]) -> Result<(usize, NewRow), DecodeError> {
        let mut row = NewRow {
            old_key: None,
            cells: vec![None; tables[self.table].columns.len()],
            missing: Vec::new(),
        };
        self.read(tuple, |index, cell| match cell {
            Some(cell) => row.cells[index] = cell,
            None => row.missing.push(index),
        })?;
        Ok((self.table, row))
    }

    fn old_row(&self, tuple: &TupleData, tables: &[Table]) -> Result<Vec<Cell>, DecodeError> {
        let mut cells = vec![None; tables[self.table].columns.len()];
        let mut whole = true;
        self.read(tuple, |index, cell| match cell {
            Some(cell) => cells[index] = cell,
            None => whole = false,
        })?;
        if whole { Ok(cells) } else { Err(protocol("an old row leaves a value out")) }
    }

    /// Calls `put` with each of our columns; `None` is a value that was left out.
    fn read(
        &self,
        tuple: &TupleData,
        mut put: impl FnMut(usize, Option<Cell>),
    ) -> Result<(), DecodeError> {
        if tuple.columns.len() != self.columns.len() {
            return Err(protocol("a row has another number of columns than its table"));
        }
        for (column, index) in tuple.columns.iter().zip(&self.columns) {
            let Some(index) = *index else { continue };
            match column.data_type {
                b'n' => put(index, Some(None)),
                b'u' => put(index, None),
                b't' => put(index, Some(Some(column.raw_bytes()))),
                _ => return Err(protocol("a value is not in text format")),
            }
        }
        Ok(())
    }
}

fn protocol(what: &str) -> DecodeError {
    DecodeError::Protocol(what.to_owned())
}

#[cfg(test)]
mod tests;
