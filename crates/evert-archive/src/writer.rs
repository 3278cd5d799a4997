//! An archive being written: facts gather, become files, and files become a snapshot.
//!
//! Invariants
//! - Facts are taken in the log's order, and a snapshot has all that were taken before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use evert_model::{Column, ColumnType, RowSchema};
use evert_view::FactsBatch;

use crate::commit::Change;
use crate::compact;
use crate::datafile;
use crate::days::{self, Day};
use crate::error::{ArchiveError, Result};
use crate::mark::Mark;
use crate::options::ArchiveOptions;
use crate::schema::with_new_columns;
use crate::table::Table;

/// Rows that wait take no more memory than this.
const WAITING_BYTES_MAX: usize = 48 << 20;
/// A position at which nothing has come is committed this often.
const SILENT_COMMIT_EVERY_MS: i64 = 600_000;

/// A table and the rows that wait for it.
pub(crate) struct Writer {
    table: Table,
    options: ArchiveOptions,
    /// The facts' columns as they came last.
    columns: Option<SchemaRef>,
    waiting: BTreeMap<Day, Vec<RecordBatch>>,
    waiting_bytes: usize,
    /// How far the facts go that were taken.
    taken: Mark,
}

impl Writer {
    pub(crate) fn new(mut table: Table, options: ArchiveOptions) -> Self {
        table.snapshot_age_ms = u64::try_from(options.snapshot_age.as_millis()).unwrap_or(u64::MAX);
        let taken = table.mark().clone();
        Self { table, options, columns: None, waiting: BTreeMap::new(), waiting_bytes: 0, taken }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// How far the facts go that were taken.
    pub(crate) fn taken(&self) -> &Mark {
        &self.taken
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether no more should be taken before a flush.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// Takes over facts. Blocks the thread for as long as their columns take to be cast.
    pub(crate) async fn take(&mut self, batch: &FactsBatch, now_ms: i64) -> Result<()> {
        self.look_at_columns(&batch.rows.schema(), now_ms).await?;
        if batch.rows.num_rows() > 0 {
            let rows = self.table.shape().convert(&batch.rows)?;
            for (day, rows) in days::part(&rows, &self.options.partition_by)? {
                self.waiting_bytes += rows.get_array_memory_size();
                self.waiting.entry(day).or_default().push(rows);
            }
        }
        self.taken.position = batch.position;
        self.taken.log_time = batch.log_time;
        self.taken.next_offsets.extend(&batch.next_offsets);
        Ok(())
    }

    /// The names of columns that the table does not have yet.
    pub(crate) fn new_columns(&self, columns: &SchemaRef) -> Vec<String> {
        if self.columns.as_ref() == Some(columns) {
            return Vec::new();
        }
        let schema = &self.table.shape().iceberg;
        let names = columns.fields().iter().map(|field| field.name());
        names.filter(|name| schema.field_by_name(name).is_none()).cloned().collect()
    }

    /// Columns that are new get their place in the table, before any row has them.
    async fn look_at_columns(&mut self, columns: &SchemaRef, now_ms: i64) -> Result<()> {
        if self.columns.as_ref() == Some(columns) {
            return Ok(());
        }
        let last_id = self.table.metadata().last_column_id();
        let schema = with_new_columns(&self.table.shape().iceberg, &sql(columns)?, last_id)?;
        if schema.is_some() {
            self.flush(now_ms).await?;
            let change = Change { schema, ..Change::default() };
            self.table.commit(change, self.taken.clone(), now_ms).await?;
        }
        self.columns = Some(Arc::clone(columns));
        Ok(())
    }

    /// Writes what waits, as one snapshot; says whether there was anything to write.
    pub(crate) async fn flush(&mut self, now_ms: i64) -> Result<bool> {
        if !self.has_waiting() && !self.is_silent_commit_due(now_ms) {
            return Ok(false);
        }
        let mut added = Vec::with_capacity(self.waiting.len());
        for (day, rows) in &self.waiting {
            let (shape, spec_id) = (self.table.shape(), self.table.spec().spec_id());
            let url = self.table.new_file_url(*day);
            let rows = rows.iter().cloned().map(Ok);
            let (bytes, file) = datafile::make(shape, rows, &url, *day, spec_id).await?;
            self.table.store().put(self.table.name_of(&url)?, bytes).await?;
            added.push(file);
        }
        let change = Change { added, ..Change::default() };
        self.table.commit(change, self.taken.clone(), now_ms).await?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(true)
    }

    fn is_silent_commit_due(&self, now_ms: i64) -> bool {
        let last = self.table.committed_ms().unwrap_or(now_ms);
        self.taken.position > self.table.mark().position && now_ms - last > SILENT_COMMIT_EVERY_MS
    }

    /// Merges small files, if there are enough; says whether it has.
    pub(crate) async fn compact(&mut self, now_ms: i64) -> Result<bool> {
        compact::compact(&mut self.table, self.options.file_size_bytes, now_ms).await
    }
}

pub(crate) fn sql(columns: &SchemaRef) -> Result<RowSchema> {
    let columns = columns.fields().iter().map(|field| {
        let ty = ColumnType::of_field(field);
        let unknown = || ArchiveError::Invalid(format!("column \"{}\" has no type", field.name()));
        Ok(Column { name: field.name().clone(), ty: ty.ok_or_else(unknown)?, nullable: true })
    });
    Ok(RowSchema { columns: columns.collect::<Result<_>>()?, key: Vec::new() })
}
