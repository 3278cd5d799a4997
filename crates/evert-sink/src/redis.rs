//! The Redis target: a hash for each row, and the position in a hash of its own.
//!
//! Keys are `prefix` and the row's key: the text of one column, a JSON object of several. Fields
//! are the columns; NULL ones are left out.
//!
//! Invariants
//! - Rows and mark change in one MULTI, watched: it is undone if the mark has changed meanwhile,
//!   because of another writer, or because the server has lost its keys.

use std::collections::HashMap;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use async_trait::async_trait;
use evert_log::LogId;
use evert_model::{ColumnType, Position, RowSchema};
use evert_view::{
    KeyWriter, OutletContext, OutletDef, OutletError, OutletVerdict, SubscribeFrom,
    write_postgres_text, write_text,
};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisError};

use crate::changeset::Changeset;
use crate::options::RedisOptions;
use crate::target::{Target, WriteError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for this long is down.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands that are sent at once, outside of MULTI.
const COMMANDS_AT_ONCE: usize = 1000;
/// The field of a row whose columns are all NULL: a hash has at least one.
const NO_COLUMNS: &str = "";

/// Rows under a prefix of keys.
pub(crate) struct RedisTarget {
    connection: MultiplexedConnection,
    prefix: String,
    mark: String,
    log_id: String,
    id: String,
    schema: RowSchema,
    keys: KeyWriter,
    position: Option<Position>,
    rows: u64,
    copied: Option<u64>,
}

fn retry(error: RedisError) -> OutletError {
    OutletError::Retry(format!("Redis: {error}"))
}

async fn connect(options: &RedisOptions) -> Result<MultiplexedConnection, OutletError> {
    let client = redis::Client::open(options.url.as_str())
        .map_err(|_| OutletError::Failed("the Redis URL cannot be read".into()))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(retry)
}

fn mark_of(def: &OutletDef) -> String {
    format!("evert:sink:{}", def.name)
}

/// A pattern of SCAN that means a text literally.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

type MarkFields = (Option<String>, Option<String>, Option<String>);

impl RedisTarget {
    pub(crate) async fn open(
        options: &RedisOptions,
        def: &OutletDef,
        schema: &RowSchema,
        log_id: LogId,
    ) -> Result<Self, OutletError> {
        if schema.key.is_empty() {
            let why = format!("\"{}\" has no key to name its rows by", def.on);
            return Err(OutletError::Failed(why));
        }
        let mut target = Self {
            connection: connect(options).await?,
            prefix: options.prefix.clone(),
            mark: mark_of(def),
            log_id: log_id.0.to_string(),
            id: def.id.to_string(),
            schema: schema.clone(),
            keys: KeyWriter::new(schema, false),
            position: None,
            rows: 0,
            copied: None,
        };
        let (marked_log, marked_id, position) = target.read_mark().await?;
        if let Some(marked) = marked_log.as_ref().filter(|marked| **marked != target.log_id)
            && !options.replace
        {
            return Err(OutletError::Failed(format!(
                "key {} says that a sink of this name of another log ({marked}) writes there: \
                 give the sink another name, or take it over WITH (existing = 'replace')",
                target.mark
            )));
        }
        let keys = target.keys_there().await?;
        if marked_log.is_none() && !keys.is_empty() && !options.replace {
            return Err(OutletError::Failed(format!(
                "there are keys that begin with \"{}\": remove them, take another prefix, or let \
                 them be replaced WITH (existing = 'replace')",
                target.prefix
            )));
        }
        if marked_id.as_ref() == Some(&target.id) && marked_log.as_ref() == Some(&target.log_id) {
            target.position = position.and_then(|text| text.parse().ok()).map(Position::new);
        }
        target.rows = keys.len() as u64;
        Ok(target)
    }

    /// Forgets that the rows are a sink's.
    pub(crate) async fn forget(options: &RedisOptions, def: &OutletDef) -> Result<(), OutletError> {
        let mut connection = connect(options).await?;
        let mut command = redis::cmd("DEL");
        command.arg(mark_of(def)).exec_async(&mut connection).await.map_err(retry)
    }

    async fn read_mark(&mut self) -> Result<MarkFields, OutletError> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.mark).arg(&["log_id", "id", "position"]);
        command.query_async(&mut self.connection).await.map_err(retry)
    }

    /// All keys under the prefix, each once.
    async fn keys_there(&mut self) -> Result<Vec<Vec<u8>>, OutletError> {
        let pattern = escaped(&self.prefix) + "*";
        let (mut keys, mut cursor) = (Vec::new(), 0u64);
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(COMMANDS_AT_ONCE);
            let (next, found): (u64, Vec<Vec<u8>>) =
                command.query_async(&mut self.connection).await.map_err(retry)?;
            // The mark may lie under the prefix.
            keys.extend(found.into_iter().filter(|key| key != self.mark.as_bytes()));
            if next == 0 {
                // SCAN may give a key more than once.
                keys.sort_unstable();
                keys.dedup();
                return Ok(keys);
            }
            cursor = next;
        }
    }

    fn key(&self, rows: &RecordBatch, row: usize) -> Result<String, OutletError> {
        if let [column] = self.schema.key[..]
            && rows.column(column).is_null(row)
        {
            // As no text is written: a key that no other row has.
            return Ok(format!("{}\0", self.prefix));
        }
        let mut key = self.prefix.clone();
        match self.schema.key[..] {
            [column] => {
                let ty = self.schema.columns[column].ty;
                write_postgres_text(rows.column(column), ty, row, &mut key);
            }
            _ => {
                let mut parts = String::new();
                self.keys.write(rows, row, &mut parts);
                key.push_str(&parts);
            }
        }
        Ok(key)
    }

    fn fields(&self, rows: &RecordBatch, row: usize) -> Vec<(&str, String)> {
        let mut fields = Vec::with_capacity(self.schema.columns.len());
        for (index, column) in self.schema.columns.iter().enumerate() {
            if !rows.column(index).is_null(row) {
                let mut cell = String::new();
                let values = rows.column(index);
                match column.ty {
                    // JSON, which a hash's readers know best.
                    ColumnType::Array(_) => write_text(values, column.ty, row, &mut cell),
                    ty => write_postgres_text(values, ty, row, &mut cell),
                }
                fields.push((column.name.as_str(), cell));
            }
        }
        if fields.is_empty() {
            fields.push((NO_COLUMNS, String::new()));
        }
        fields
    }

    fn put(&self, pipe: &mut Pipeline, rows: &RecordBatch, row: usize) -> Result<(), OutletError> {
        let key = self.key(rows, row)?;
        // Columns that are NULL now must not stay.
        pipe.cmd("DEL").arg(&key).ignore();
        pipe.cmd("HSET").arg(&key).arg(&self.fields(rows, row)[..]).ignore();
        Ok(())
    }

    async fn send(&mut self, pipe: &mut Pipeline) -> Result<(), OutletError> {
        if !pipe.is_empty() {
            pipe.exec_async(&mut self.connection).await.map_err(retry)?;
            pipe.clear();
        }
        Ok(())
    }

    /// Removes what is there before a copy, and notes whose the keys are from now on.
    async fn begin_copy(&mut self) -> Result<(), OutletError> {
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg(&self.mark).ignore();
        let mark = [("log_id", &self.log_id), ("id", &self.id)];
        pipe.cmd("HSET").arg(&self.mark).arg(&mark[..]).ignore();
        self.send(&mut pipe).await?;
        for keys in self.keys_there().await?.chunks(COMMANDS_AT_ONCE) {
            let mut command = redis::cmd("UNLINK");
            command.arg(keys).exec_async(&mut self.connection).await.map_err(retry)?;
        }
        self.copied = Some(0);
        Ok(())
    }

    /// Sends a MULTI that moves the mark, if the mark says what it is expected to.
    async fn commit(&mut self, mut pipe: Pipeline, position: Position) -> Result<(), OutletError> {
        redis::cmd("WATCH")
            .arg(&self.mark)
            .exec_async(&mut self.connection)
            .await
            .map_err(retry)?;
        let (log_id, id, marked) = self.read_mark().await?;
        let expected = self.position.map(|position| position.to_string());
        let is_own = log_id.as_ref() == Some(&self.log_id) && id.as_ref() == Some(&self.id);
        if !is_own || marked != expected {
            let why = "the mark in Redis is another one: another writer has moved it, or keys \
                       were lost";
            return Err(OutletError::Retry(why.into()));
        }
        pipe.cmd("HSET").arg(&self.mark).arg("position").arg(position.get()).ignore();
        let done: Option<()> = pipe.query_async(&mut self.connection).await.map_err(retry)?;
        done.ok_or_else(|| {
            OutletError::Retry("another writer has moved the mark in Redis".into())
        })?;
        self.position = Some(position);
        Ok(())
    }

    /// The rows that ought to be there.
    async fn expected(
        &self,
        context: &OutletContext,
        position: Position,
    ) -> Result<HashMap<String, HashMap<String, String>>, OutletError> {
        let from = SubscribeFrom { snapshot: true, after: Some(position), upto: Some(position) };
        let mut all = context.views().subscribe(context.on(), from).await?;
        let mut expected = HashMap::new();
        while let Some(changes) = all.next().await {
            for delta in changes?.deltas {
                for row in 0..delta.len() {
                    let fields = self.fields(&delta.rows, row).into_iter();
                    let fields = fields.map(|(name, value)| (name.to_owned(), value)).collect();
                    expected.insert(self.key(&delta.rows, row)?, fields);
                }
            }
        }
        Ok(expected)
    }
}

#[async_trait]
impl Target for RedisTarget {
    fn position(&self) -> Option<Position> {
        self.position
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    async fn copy(&mut self, rows: &RecordBatch) -> Result<(), OutletError> {
        if self.copied.is_none() {
            self.begin_copy().await?;
        }
        let mut pipe = redis::pipe();
        for row in 0..rows.num_rows() {
            self.put(&mut pipe, rows, row)?;
            if pipe.len() >= COMMANDS_AT_ONCE {
                self.send(&mut pipe).await?;
            }
        }
        self.send(&mut pipe).await?;
        self.copied = Some(self.copied.unwrap_or(0) + rows.num_rows() as u64);
        Ok(())
    }

    async fn end_copy(&mut self, position: Position) -> Result<(), OutletError> {
        if self.copied.is_none() {
            self.begin_copy().await?;
        }
        let mut pipe = redis::pipe();
        pipe.atomic();
        self.commit(pipe, position).await?;
        self.rows = self.copied.take().unwrap_or(0);
        Ok(())
    }

    async fn write(&mut self, changes: &Changeset, position: Position) -> Result<(), WriteError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for change in changes.iter() {
            match change.gone {
                false => self.put(&mut pipe, change.rows, change.row)?,
                true => {
                    let key = self.key(change.rows, change.row)?;
                    pipe.cmd("DEL").arg(key).ignore();
                }
            }
        }
        self.commit(pipe, position).await?;
        self.rows = self.rows.saturating_add_signed(changes.weight);
        Ok(())
    }

    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError> {
        let Some(position) = self.position else {
            return Err(OutletError::Retry("the target has no copy of the rows yet".into()));
        };
        let mut expected = self.expected(context, position).await?;
        let mut verdict = OutletVerdict {
            position,
            rows_expected: expected.len() as u64,
            ..OutletVerdict::default()
        };
        let mut differences = Vec::new();
        let keys = self.keys_there().await?;
        verdict.rows_stored = keys.len() as u64;
        for keys in keys.chunks(COMMANDS_AT_ONCE) {
            let mut pipe = redis::pipe();
            for key in keys {
                pipe.cmd("HGETALL").arg(key);
            }
            let rows: Vec<HashMap<String, String>> =
                pipe.query_async(&mut self.connection).await.map_err(retry)?;
            for (key, stored) in keys.iter().zip(rows) {
                let key = String::from_utf8_lossy(key);
                match expected.remove(key.as_ref()) {
                    Some(row) if row == stored => {}
                    Some(_) => differences.push(format!("other {key}")),
                    None => differences.push(format!("unexpected {key}")),
                }
            }
        }
        differences.extend(expected.into_keys().map(|key| format!("missing {key}")));
        Ok(verdict.with(differences))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_their_text() {
        assert_eq!(escaped("a*b[c]:"), "a\\*b\\[c\\]:");
    }
}
