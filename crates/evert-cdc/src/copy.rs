//! The initial copy: every row of every table as of the slot's start, in one commit.
//!
//! A copy that is killed midway leaves nothing behind but a slot, which the next attempt replaces.

use evert_log::NewPart;
use evert_model::{Compression, Lsn, PartitionId, TopicId};
use futures::StreamExt;
use tokio_postgres::Client;

use crate::address::{quote_identifier, quote_literal};
use crate::copy_text::{self, Lines};
use crate::definition::Table;
use crate::envelope::{Change, Envelopes, Origin};
use crate::large::LargeWriter;
use crate::slot::{self, NewSlot};
use crate::status::SourcePhase;
use crate::trouble::Trouble;
use crate::worker::Source;

/// How many rows pass between two updates of the status.
const ROWS_PER_REPORT: u64 = 4096;

/// Copies the tables and gives the place where the stream takes over.
pub(crate) async fn run(source: &Source, slot: Option<NewSlot>) -> Result<Lsn, Trouble> {
    source.status.phase(SourcePhase::Copying, None);
    source.status.update(|status| status.rows_copied = 0);
    let definition = &source.definition;
    let client = definition.url.connect("evert copy").await?;
    let slot = match slot {
        Some(slot) => slot,
        None => {
            slot::drop_slot(&client, &definition.slot).await?;
            slot::create(definition).await?
        }
    };
    let topics = source.ensure_topics().await?;
    client
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; \
             SET LOCAL row_security = off",
            quote_literal(&slot.snapshot)
        ))
        .await?;
    let mut copy = Copy {
        source,
        topics,
        envelopes: Envelopes::new(&definition.tables, Compression::Lz4),
        writer: LargeWriter::new(source.destination.begin_large()),
        rows: 0,
        rows_expected: rows_expected(&client, &definition.tables).await?,
    };
    let committed_us = source.destination.now().get();
    copy.envelopes.begin(Origin { lsn: slot.start, xid: None, committed_us });
    for (index, table) in definition.tables.iter().enumerate() {
        if !source.destination.is_empty(copy.topics[index])? {
            // What a dropped source of this name has left there.
            let cleared = copy.envelopes.push(index, Change::Truncate);
            cleared.map_err(|error| Trouble::Failed(error.to_string()))?;
        }
        copy.table(&client, index, table).await?;
    }
    copy.finish(slot.start).await?;
    Ok(slot.start)
}

struct Copy<'a> {
    source: &'a Source,
    topics: Vec<TopicId>,
    envelopes: Envelopes,
    writer: LargeWriter,
    rows: u64,
    rows_expected: f64,
}

impl Copy<'_> {
    async fn table(&mut self, client: &Client, index: usize, table: &Table) -> Result<(), Trouble> {
        let failed =
            |what: &str| Trouble::Failed(format!("copying {}: {what}", table.source_name()));
        let stream = client.copy_out(&copy_statement(table)).await?;
        futures::pin_mut!(stream);
        let mut lines = Lines::default();
        while let Some(data) = stream.next().await {
            lines.push(&data?);
            while let Some(line) = lines.next() {
                let row = copy_text::cells(&line, table.columns.len()).map_err(failed)?;
                self.envelopes
                    .push(index, Change::Read(&row))
                    .map_err(|error| failed(&error.to_string()))?;
                self.rows += 1;
                if self.rows.is_multiple_of(ROWS_PER_REPORT) {
                    self.report();
                }
            }
            if self.envelopes.closed_bytes() > 0 {
                self.flush().await?;
            }
        }
        if lines.is_empty() { Ok(()) } else { Err(failed("COPY ended inside a row")) }
    }

    fn report(&self) {
        let rows = self.rows;
        let detail = if self.rows_expected > 0.0 {
            // The source's own statistics; the last percent is the commit.
            format!("{:.0}%", (rows as f64 / self.rows_expected * 100.0).min(99.0))
        } else {
            format!("{rows} rows")
        };
        self.source.status.update(|status| {
            status.rows_copied = rows;
            status.detail = Some(detail);
        });
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        for batch in self.envelopes.take_closed() {
            self.writer.append(part(self.topics[batch.table], batch.batch)).await?;
        }
        Ok(())
    }

    async fn finish(mut self, start: Lsn) -> Result<(), Trouble> {
        for batch in self.envelopes.finish() {
            self.writer.append(part(self.topics[batch.table], batch.batch)).await?;
        }
        let state = self.source.definition.state(&self.source.name, start);
        self.writer.append(self.source.destination.state_part(&state)).await?;
        let position = self.writer.commit().await?.await?;
        self.source.status.update(|status| {
            status.rows_copied = self.rows;
            status.lsn = Some(start);
            status.position = Some(position);
        });
        tracing::info!(source = self.source.name, rows = self.rows, "copied");
        Ok(())
    }
}

/// The part that appends a batch to the one partition of a table's topic.
pub(crate) fn part(topic: TopicId, batch: evert_model::EncodedBatch) -> NewPart {
    NewPart { topic, partition: PartitionId::new(0), batch }
}

fn copy_statement(table: &Table) -> String {
    let columns: Vec<_> = table.columns.iter().map(|c| quote_identifier(&c.name)).collect();
    format!(
        "COPY (SELECT {} FROM ONLY {}.{}) TO STDOUT",
        columns.join(", "),
        quote_identifier(&table.schema),
        quote_identifier(&table.name)
    )
}

/// How many rows the source's statistics promise; 0 if they are not known.
async fn rows_expected(client: &Client, tables: &[Table]) -> Result<f64, Trouble> {
    let mut sum = 0.0;
    for table in tables {
        let sql = "SELECT c.reltuples::float8 FROM pg_class c JOIN pg_namespace n \
             ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
        let row = client.query_opt(sql, &[&table.schema, &table.name]).await?;
        sum += row.map_or(0.0, |row| row.get::<_, f64>(0)).max(0.0);
    }
    Ok(sum)
}
