//! The stream: each transaction of the source becomes one commit, in the source's order.
//!
//! Invariants
//! - A commit carries the place in the source's WAL that it ends at, so that after a crash the log
//!   itself says where to go on.
//! - The slot is confirmed only past commits that are durable (`progress`).
//! - Reading does not wait for the disk; what is in flight is bounded.

use std::collections::HashMap;
use std::time::Duration;

use evert_log::NewPart;
use evert_model::{Lsn, Position, TopicId};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use pgwire_replication::{ReplicationClient, ReplicationEvent};
use tokio::time::Instant;

use crate::copy::part;
use crate::decode::{Decoder, Finished, Outcome, Wanted};
use crate::definition::Definition;
use crate::destination::{Durable, Rows};
use crate::envelope::TableBatch;
use crate::inspect;
use crate::large::LargeWriter;
use crate::progress::Progress;
use crate::slot;
use crate::status::SourcePhase;
use crate::trouble::Trouble;
use crate::worker::Source;

/// A transaction with more bytes than this goes in as a large commit, piece by piece.
const TRANSACTION_BYTES_MAX: usize = 4 << 20;
/// Commits that may wait for the disk.
const IN_FLIGHT_MAX: usize = 1024;
/// Bytes that may wait for the disk.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// The least time between two commits that only say how far an idle source has come.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// How often the slot's durable place is told to the source.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);
/// How often the source is asked how much WAL the slot keeps.
const MONITOR_EVERY: Duration = Duration::from_secs(5);
/// Messages that may wait between the socket and this loop.
const MESSAGES_WAITING_MAX: usize = 1024;
/// The largest message: one row, at most a gigabyte in Postgres.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Streams from `resume` on until something ends it.
pub(crate) async fn run(source: &Source, resume: Lsn) -> Result<(), Trouble> {
    let definition = &source.definition;
    let sql = definition.url.connect("evert").await?;
    slot::check(&sql, &definition.slot, resume).await?;
    let config = definition
        .url
        .replication(&definition.slot, &definition.publication)?
        .with_start_lsn(pgwire_replication::Lsn(resume.get()))
        .with_status_interval(CONFIRM_EVERY)
        .with_buffer_size(MESSAGES_WAITING_MAX)
        .with_max_message_size(MESSAGE_BYTES_MAX);
    let mut client = ReplicationClient::connect(config).await?;
    client.wait_started().await?;
    source.status.phase(SourcePhase::Running, None);
    tracing::info!(source = source.name, lsn = resume.to_postgres(), "streaming");
    let stream = Stream {
        source,
        client,
        topics: source.topics(),
        decoder: Decoder::new(definition.tables.clone(), resume),
        progress: source.progress(resume),
        in_flight: FuturesOrdered::new(),
        in_flight_bytes: 0,
        rows: HashMap::new(),
        large: None,
        idle: None,
        idle_since: None,
    };
    tokio::select! {
        ended = stream.run() => ended,
        never = monitor(source, &sql) => match never {},
    }
}

struct Stream<'a> {
    source: &'a Source,
    client: ReplicationClient,
    /// By table; `None`: the relation was dropped.
    topics: Vec<Option<TopicId>>,
    decoder: Decoder,
    progress: Progress,
    in_flight: FuturesOrdered<BoxFuture<'static, Settled>>,
    in_flight_bytes: usize,
    /// By table: the rows before the open transaction, once it has asked for any.
    rows: HashMap<usize, Box<dyn Rows>>,
    /// The open transaction's commit, if it is too large to be kept in memory.
    large: Option<LargeWriter>,
    /// A place up to which nothing concerns us, to be written down when it is time.
    idle: Option<Lsn>,
    /// When such a place was written down last.
    idle_since: Option<Instant>,
}

/// What became of a commit.
struct Settled {
    end: Lsn,
    bytes: usize,
    /// When it committed at the source; `None` if it holds no facts.
    committed_us: Option<i64>,
    outcome: Result<Position, evert_log::AppendError>,
}

impl Stream<'_> {
    async fn run(mut self) -> Result<(), Trouble> {
        loop {
            let full = self.in_flight.len() >= IN_FLIGHT_MAX
                || self.in_flight_bytes >= IN_FLIGHT_BYTES_MAX;
            let idle_at = self.idle_at();
            tokio::select! {
                Some(settled) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.settle(settled)?;
                }
                () = sleep_until(idle_at), if idle_at.is_some() => self.append_idle()?,
                event = self.client.recv(), if !full => {
                    let Some(event) = event? else {
                        return Err(Trouble::Retry("the source ended the stream".into()));
                    };
                    self.event(event).await?;
                }
            }
        }
    }

    async fn event(&mut self, event: ReplicationEvent) -> Result<(), Trouble> {
        match event {
            ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                self.decoder.begin(lsn(final_lsn), xid, commit_time_micros)?;
            }
            ReplicationEvent::XLogData { data, .. } => {
                if let Outcome::Wanted(wanted) = self.decoder.message(data)? {
                    self.supply(wanted).await?;
                }
                self.spill().await?;
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.rows.clear();
                match self.decoder.commit(lsn(end_lsn))? {
                    Some(finished) if finished.records > 0 => self.append(finished).await?,
                    Some(Finished { end, .. }) => self.pass(end),
                    None => {}
                }
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                // Inside a transaction it only says that the source is alive.
                if !self.decoder.is_open() {
                    self.pass(lsn(wal_end));
                }
            }
            ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => {}
        }
        for warning in self.decoder.take_warnings() {
            tracing::warn!(source = self.source.name, "{warning}");
            self.source.status.warn(warning);
        }
        Ok(())
    }

    /// Answers the decoder's question for a row as the previous commit left it.
    async fn supply(&mut self, wanted: Wanted) -> Result<(), Trouble> {
        let (source, index) = (self.source, wanted.table);
        let table = &source.definition.tables[index];
        if !self.rows.contains_key(&index) {
            self.settle_all().await?;
            // Only this source writes the relation: its rows stay as they are until the open
            // transaction's own commit.
            let rows = source.destination.rows(&source.name, table).await?;
            self.rows.insert(index, rows);
        }
        let row = self.rows[&index].get(table, &wanted.key);
        Ok(self.decoder.supply(wanted, row.as_deref())?)
    }

    /// Moves what an open transaction has gathered into a large commit.
    async fn spill(&mut self) -> Result<(), Trouble> {
        if self.decoder.closed_bytes() < TRANSACTION_BYTES_MAX {
            return Ok(());
        }
        let batches = self.decoder.take_closed();
        let parts = self.parts(batches);
        let begin = || LargeWriter::new(self.source.destination.begin_large());
        let large = self.large.get_or_insert_with(begin);
        for part in parts {
            large.append(part).await?;
        }
        Ok(())
    }

    /// Appends a whole transaction as one commit.
    async fn append(&mut self, finished: Finished) -> Result<(), Trouble> {
        let Finished { end, committed_us, batches, .. } = finished;
        let mut parts = self.parts(batches);
        parts.push(self.state_part(end));
        let bytes = parts.iter().map(|part| part.batch.bytes().len()).sum();
        let durable = match self.large.take() {
            None => self.source.destination.append(parts)?,
            Some(mut large) => {
                for part in parts {
                    large.append(part).await?;
                }
                large.commit().await?
            }
        };
        self.put_in_flight(end, bytes, Some(committed_us), durable);
        Ok(())
    }

    fn put_in_flight(&mut self, end: Lsn, bytes: usize, committed: Option<i64>, durable: Durable) {
        self.progress.append(end);
        self.confirm();
        if self.idle.is_some_and(|idle| idle <= end) {
            self.idle = None;
        }
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(Box::pin(async move {
            Settled { end, bytes, committed_us: committed, outcome: durable.await }
        }));
    }

    /// Batches of tables whose relation was dropped are left out.
    fn parts(&self, batches: Vec<TableBatch>) -> Vec<NewPart> {
        let part = |batch: TableBatch| Some(part(self.topics[batch.table]?, batch.batch));
        batches.into_iter().filter_map(part).collect()
    }

    fn state_part(&self, end: Lsn) -> NewPart {
        let state = self.source.definition.state(&self.source.name, end);
        self.source.destination.state_part(&state)
    }

    /// Nothing up to `end` concerns us but what was appended.
    fn pass(&mut self, end: Lsn) {
        if end > self.progress.appended() {
            self.idle = self.idle.max(Some(end));
        }
    }

    fn idle_at(&self) -> Option<Instant> {
        self.idle?;
        Some(self.idle_since.map_or_else(Instant::now, |since| since + IDLE_PAUSE))
    }

    /// Writes down how far the source has come, so that the slot can be confirmed and nobody
    /// waits for a place that no transaction of ours will ever reach.
    fn append_idle(&mut self) -> Result<(), Trouble> {
        let Some(end) = self.idle.take() else { return Ok(()) };
        let part = self.state_part(end);
        let bytes = part.batch.bytes().len();
        let durable = self.source.destination.append(vec![part])?;
        self.put_in_flight(end, bytes, None, durable);
        self.idle_since = Some(Instant::now());
        Ok(())
    }

    /// Waits until everything that was appended is durable.
    async fn settle_all(&mut self) -> Result<(), Trouble> {
        while let Some(settled) = self.in_flight.next().await {
            self.settle(settled)?;
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled) -> Result<(), Trouble> {
        let position = settled.outcome?;
        self.in_flight_bytes -= settled.bytes;
        self.progress.settle(settled.end);
        self.confirm();
        let now_us = self.source.destination.now().get();
        self.source.status.update(|status| {
            status.lsn = Some(settled.end);
            status.position = Some(position);
            status.lag_ms = Some(match settled.committed_us {
                Some(committed_us) => {
                    status.transactions += 1;
                    u64::try_from(now_us.saturating_sub(committed_us) / 1000).unwrap_or_default()
                }
                None => 0,
            });
        });
        Ok(())
    }

    fn confirm(&self) {
        let confirmable = self.progress.confirmable();
        self.client.update_applied_lsn(pgwire_replication::Lsn(confirmable.get()));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Keeps the status up to date with what only the source knows.
async fn monitor(source: &Source, sql: &tokio_postgres::Client) -> std::convert::Infallible {
    loop {
        warn_of_unpublished(source, sql).await;
        tell_of_added_columns(source, sql).await;
        let retained = slot::retained_wal_bytes(sql, &source.definition.slot).await;
        source.status.update(|status| status.retained_wal_bytes = retained);
        tokio::time::sleep(MONITOR_EVERY).await;
    }
}

/// A table that left the publication goes quiet without a word in the stream.
async fn warn_of_unpublished(source: &Source, sql: &tokio_postgres::Client) {
    let Definition { publication, tables, .. } = &source.definition;
    // Without an answer the stream itself is about to end.
    let Ok(missing) = inspect::unpublished(sql, publication, tables).await else { return };
    for table in missing {
        source.status.warn(format!(
            "{}: it is not in publication \"{publication}\" any more, so its changes do not arrive",
            table.source_name()
        ));
    }
}

/// The detail says which columns are not taken, for as long as there are any.
async fn tell_of_added_columns(source: &Source, sql: &tokio_postgres::Client) {
    // Without an answer the stream itself is about to end.
    let Ok(added) = inspect::added_columns(sql, &source.definition.tables).await else { return };
    let told: Vec<String> = added
        .iter()
        .map(|(table, column)| format!("column {column} of {table} is not taken"))
        .collect();
    let detail = (!told.is_empty())
        .then(|| format!("{}: drop the source and create it again to have it", told.join(", ")));
    source.status.phase(SourcePhase::Running, detail);
}

fn lsn(theirs: pgwire_replication::Lsn) -> Lsn {
    Lsn::new(theirs.0)
}
