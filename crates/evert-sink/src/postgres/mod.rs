//! The Postgres target: rows in a table, and the position in another, in one transaction.
//!
//! Owns: the connection, what is written, the mark that says how far the rows are.
//! Not here: what the table has to be like (`table`), the statements (`statements`).
//!
//! Invariants
//! - Rows and mark change in one transaction. It ends only if the mark was what it was when the
//!   transaction began to count, so that of two writers one stops.

mod refused;
mod statements;
mod table;
mod verify;

use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use evert_log::LogId;
use evert_model::{Position, RowSchema};
use evert_view::{OutletContext, OutletDef, OutletError, OutletVerdict};
use futures::SinkExt;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, CopyInSink, NoTls, SimpleQueryMessage};

use self::statements::Statements;
use self::table::Table;
use crate::cells::write_copy_line;
use crate::changeset::{Change, Changeset};
use crate::options::PostgresOptions;
use crate::target::{Target, WriteError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is handed to COPY at once.
const COPY_BYTES: usize = 256 << 10;

/// Rows in a table of a Postgres server.
pub(crate) struct PostgresTarget {
    client: Client,
    statements: Statements,
    schema: RowSchema,
    position: Option<Position>,
    rows: u64,
    /// The table holds rows that a copy replaces.
    has_rows: bool,
    copying: Option<Copying>,
}

struct Copying {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    buffer: Vec<u8>,
    rows: u64,
}

impl Copying {
    async fn begin(client: &Client, sql: &str) -> Result<Self, tokio_postgres::Error> {
        let sink = client.copy_in(sql).await?;
        Ok(Self { sink: Box::pin(sink), buffer: Vec::with_capacity(COPY_BYTES + 4096), rows: 0 })
    }

    async fn flush_if(&mut self, bytes: usize) -> Result<(), tokio_postgres::Error> {
        if self.buffer.len() <= bytes {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(COPY_BYTES + 4096));
        self.sink.send(full.into()).await
    }

    async fn end(mut self) -> Result<(), tokio_postgres::Error> {
        self.flush_if(0).await?;
        self.sink.as_mut().finish().await.map(drop)
    }
}

/// What Postgres says is wrong there may be put right there: it is tried again.
fn retry(error: tokio_postgres::Error) -> OutletError {
    OutletError::Retry(told(&error))
}

fn told(error: &tokio_postgres::Error) -> String {
    let why = match error.as_db_error() {
        None => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
        Some(error) => {
            let detail = error.detail().map(|detail| format!(" ({detail})"));
            format!("{}{}", error.message(), detail.unwrap_or_default())
        }
    };
    format!("Postgres: {why}")
}

async fn connect(url: &str, name: &str) -> Result<Client, OutletError> {
    // The library's error text never repeats the string itself.
    let mut config: tokio_postgres::Config = url.parse().map_err(|error| {
        OutletError::Failed(format!("the connection string cannot be read: {error}"))
    })?;
    config.ssl_mode(match config.get_ssl_mode() {
        SslMode::Require => SslMode::Require,
        _ => SslMode::Disable,
    });
    config.application_name(format!("evert sink {name}"));
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    // The library's own timeout ends with the TCP handshake; a server that accepts and then says
    // nothing must not look like one that works.
    let connected = tokio::time::timeout(CONNECT_TIMEOUT * 2, config.connect(NoTls)).await;
    let no_answer = |_| OutletError::Retry("Postgres did not answer in time".into());
    let (client, connection) = connected.map_err(no_answer)?.map_err(retry)?;
    // Every call through the client reports how the connection ended.
    tokio::spawn(connection);
    client
        .batch_execute("SET statement_timeout = 0; SET datestyle = 'ISO'")
        .await
        .map_err(retry)?;
    Ok(client)
}

/// What the mark says.
struct Mark {
    log_id: String,
    id: String,
    /// `None`: the table that it spoke of is gone.
    position: Option<Position>,
}

async fn read_mark(client: &Client, statements: &Statements) -> Result<Option<Mark>, OutletError> {
    let rows = client.query(&statements.read_mark, &[]).await.map_err(retry)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let position: Option<i64> = row.get(2);
    let position = position.and_then(|position| u64::try_from(position).ok()).map(Position::new);
    Ok(Some(Mark { log_id: row.get(0), id: row.get(1), position }))
}

impl PostgresTarget {
    /// Connects and looks at the table and at the mark.
    pub(crate) async fn open(
        options: &PostgresOptions,
        def: &OutletDef,
        schema: &RowSchema,
        log_id: LogId,
    ) -> Result<Self, OutletError> {
        let client = connect(&options.url, &def.name.to_string()).await?;
        let table = Table::look(&client, options, def, schema).await?;
        let statements = Statements::new(&table, schema, def, log_id);
        client.batch_execute(&statements.prepare).await.map_err(retry)?;
        let mark = read_mark(&client, &statements).await?;
        let count = client.query_one(&statements.count, &[]).await.map_err(retry)?;
        let rows = u64::try_from(count.get::<_, i64>(0)).unwrap_or(0);
        let shown = table.shown();
        if let Some(mark) = &mark
            && mark.log_id != log_id.0.to_string()
            && !options.replace
        {
            return Err(OutletError::Failed(format!(
                "table {shown} is written by a sink of this name of another log ({}): give the \
                 sink another name, or take it over WITH (existing = 'replace')",
                mark.log_id
            )));
        }
        if mark.is_none() && rows > 0 && !options.replace {
            return Err(OutletError::Failed(format!(
                "table {shown} is not empty: empty it, or let its rows be replaced WITH \
                 (existing = 'replace')"
            )));
        }
        let own = mark
            .filter(|mark| mark.id == def.id.to_string() && mark.log_id == log_id.0.to_string());
        let position = own.and_then(|mark| mark.position);
        let (schema, copying) = (schema.clone(), None);
        Ok(Self { client, statements, schema, position, rows, has_rows: rows > 0, copying })
    }

    /// Forgets that the rows are a sink's.
    pub(crate) async fn forget(
        options: &PostgresOptions,
        def: &OutletDef,
    ) -> Result<(), OutletError> {
        let client = connect(&options.url, &def.name.to_string()).await?;
        client.batch_execute(&statements::forget(&options.table, def)).await.map_err(retry)
    }

    /// Puts changes into the temporary table.
    async fn stage<'a>(
        &self,
        changes: impl Iterator<Item = Change<'a>>,
    ) -> Result<(), tokio_postgres::Error> {
        let mut copying = Copying::begin(&self.client, &self.statements.stage).await?;
        let mut cell = String::new();
        for change in changes {
            let gone = if change.gone { "\tt" } else { "\tf" };
            let (rows, row, out) = (change.rows, change.row, &mut copying.buffer);
            write_copy_line(&self.schema, rows, row, gone, out, &mut cell);
            copying.flush_if(COPY_BYTES).await?;
        }
        copying.end().await
    }

    /// What makes of changes that were staged changes of the table.
    fn apply(&self, changes: &Changeset, range: Range<usize>) -> String {
        let mut sql = String::new();
        if changes.range(range).any(|change| change.gone) {
            sql.push_str(&self.statements.delete);
        }
        sql.push_str(&self.statements.put);
        sql
    }

    async fn try_write(&self, changes: &Changeset, mark: &str) -> Result<(), WriteError> {
        self.client.batch_execute("BEGIN").await?;
        let mut sql = String::new();
        if !changes.is_empty() {
            self.stage(changes.iter()).await?;
            sql.push_str(&self.apply(changes, 0..changes.len()));
        }
        sql.push_str(mark);
        self.finish(sql).await
    }

    /// Runs statements of which the last moves the mark, and ends the transaction if it did.
    async fn finish(&self, sql: String) -> Result<(), WriteError> {
        let messages = self.client.simple_query(&sql).await?;
        let counts = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        });
        if counts.last() != Some(1) {
            let why = "another writer has moved the sink's position in the target";
            return Err(OutletError::Retry(why.into()).into());
        }
        // Constraints that are deferred are looked at now.
        Ok(self.client.batch_execute("COMMIT").await?)
    }
}

#[async_trait]
impl Target for PostgresTarget {
    fn position(&self) -> Option<Position> {
        self.position
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    async fn copy(&mut self, rows: &RecordBatch) -> Result<(), OutletError> {
        let mut copying = match self.copying.take() {
            Some(copying) => copying,
            None => {
                self.client.batch_execute("BEGIN").await.map_err(retry)?;
                let into = match self.has_rows {
                    true => &self.statements.stage,
                    false => &self.statements.load,
                };
                Copying::begin(&self.client, into).await.map_err(retry)?
            }
        };
        let more = if self.has_rows { "\tf" } else { "" };
        let mut cell = String::new();
        for row in 0..rows.num_rows() {
            write_copy_line(&self.schema, rows, row, more, &mut copying.buffer, &mut cell);
            copying.flush_if(COPY_BYTES).await.map_err(retry)?;
        }
        copying.rows += rows.num_rows() as u64;
        self.copying = Some(copying);
        Ok(())
    }

    async fn end_copy(&mut self, position: Position) -> Result<(), OutletError> {
        let mut rows = 0;
        match self.copying.take() {
            Some(copying) => {
                rows = copying.rows;
                copying.end().await.map_err(retry)?;
            }
            None => self.client.batch_execute("BEGIN").await.map_err(retry)?,
        }
        let mut sql = String::new();
        if self.has_rows {
            sql.push_str(&self.statements.replace);
        }
        sql.push_str(&self.statements.set_mark(position));
        self.finish(sql).await?;
        (self.position, self.rows, self.has_rows) = (Some(position), rows, true);
        Ok(())
    }

    async fn write(&mut self, changes: &Changeset, position: Position) -> Result<(), WriteError> {
        let from = self.position.ok_or_else(|| {
            OutletError::Failed("changes cannot come before the copy of all rows".into())
        })?;
        let written = self.try_write(changes, &self.statements.move_mark(from, position)).await;
        if let Err(WriteError::Refused(_)) = &written {
            self.client.batch_execute("ROLLBACK").await?;
        }
        written?;
        self.position = Some(position);
        self.rows = self.rows.saturating_add_signed(changes.weight);
        Ok(())
    }

    async fn find_refused(&mut self, changes: &Changeset) -> Result<Option<String>, OutletError> {
        self.search_refused(changes).await
    }

    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError> {
        self.compare(context).await
    }
}
