//! COPY: rows from the client or a file into a relation, and rows of a query out to either.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use evert_log::LargeCommit;
use evert_view::{Name, Relation, RelationKind, RowChange};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::AsyncReadExt;

use super::Session;
use super::read::Reading;
use crate::command::{Command, Copy, CopyEnd, CopyRead, CopyWhat};
use crate::copy::{
    CopyFile, ForceQuote, Format, Input, Options, ParquetIn, ParquetOut, file_to_read,
    file_to_write,
};
use crate::dml::defaults::Filling;
use crate::dml::{self, insert};
use crate::engine::Inner;
use crate::error::{
    INTERNAL_ERROR, IO_ERROR, OUT_OF_MEMORY, READ_ONLY_TRANSACTION, SERIALIZATION_FAILURE,
    UNDEFINED_COLUMN,
};
use crate::guard::{FOREVER, Guard};
use crate::statement::{Parsed, done};
use crate::transaction::{Check, Transaction};
use crate::{Response, SqlError, translate};

/// Bytes of text that are worth a turn on another thread.
const CHUNK_BYTES: usize = 256 << 10;
/// What a COPY may hold whose rows have to wait for COMMIT.
const HELD_BYTES_MAX: usize = 512 << 20;

/// COPY FROM STDIN under way.
pub(super) struct CopyIn {
    input: Input,
    target: Target,
    guard: Guard,
    /// What has come and was not looked at.
    pending: Vec<u8>,
}

/// Where rows go.
struct Target {
    relation: Arc<Relation>,
    into: Into,
    count: u64,
    held_bytes: usize,
}

enum Into {
    /// Into the log as they come; the commit makes them facts.
    Log(LargeCommit),
    /// Into a transaction of the COPY's own: what the table holds has to be looked at.
    Own(Box<Transaction>),
    /// Into the session's.
    Open,
}

/// Work that takes a while, on a thread that may wait.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SqlError::new(INTERNAL_ERROR, error.to_string())),
    }
}

impl Session {
    pub(super) async fn copy(
        &mut self,
        parsed: &Parsed,
        copy: &Copy,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        match &copy.what {
            CopyWhat::From { relation, columns } => self.copy_from(copy, relation, columns).await,
            CopyWhat::To(read) => {
                let file = match &copy.end {
                    CopyEnd::Client => None,
                    CopyEnd::File(path) => Some(self.file_to_write(path).await?),
                };
                let (schema, batches, endless) = match self.copied(parsed, read, params).await? {
                    Response::Rows { schema, batches, .. } => (schema, batches, false),
                    Response::CopyOut { schema, batches, endless, .. } => {
                        (schema, batches, endless)
                    }
                    _ => return Err(SqlError::new(INTERNAL_ERROR, "a query gives rows")),
                };
                if let ForceQuote::Columns(names) = &copy.options.form.force_quote
                    && let Some(name) = names.iter().find(|name| schema.index_of(name).is_err())
                {
                    let message = format!("FORCE_QUOTE column \"{name}\" not referenced by COPY");
                    return Err(SqlError::new(UNDEFINED_COLUMN, message));
                }
                match file {
                    Some(file) if copy.options.format == Format::Parquet => {
                        let writer = ParquetOut::new(&schema)?;
                        let guard = self.guard_copy();
                        let count = guard.run(parquet_out(writer, batches, file)).await?;
                        Ok(done(format!("COPY {count}")))
                    }
                    file => {
                        let form = copy.options.form.clone();
                        Ok(Response::CopyOut {
                            schema,
                            batches,
                            form,
                            file: file.map(Box::new),
                            endless,
                        })
                    }
                }
            }
        }
    }

    async fn file_to_write(&self, path: &str) -> Result<CopyFile, SqlError> {
        file_to_write(self.engine.config.files_dir.as_deref(), path).await
    }

    /// The rows of COPY TO.
    async fn copied(
        &mut self,
        parsed: &Parsed,
        read: &CopyRead,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let reading = || Reading { lasting: self.settings.own_timeout().is_none(), tag: "COPY" };
        match read {
            CopyRead::Relation { name, columns } => {
                let statement = self.own_statement(&select_all(name, columns))?;
                let Command::Query(query) = &statement.0.command else {
                    return Err(SqlError::new(INTERNAL_ERROR, "a SELECT is a query"));
                };
                let reading = reading();
                let rows = self.select(&statement.0, query, &[], reading).await;
                // Its place would be one in the text made here.
                rows.map_err(|error| SqlError { position: None, ..error })
            }
            CopyRead::Statement(command) => match command.as_ref() {
                Command::Query(query) => {
                    let reading = reading();
                    self.select(parsed, query, params, reading).await
                }
                Command::QueryAsOf { query, as_of } => {
                    self.query_as_of(parsed, query, as_of, params).await
                }
                Command::Subscribe(subscribe) => self.copy_changes(subscribe).await,
                _ => Err(SqlError::new(INTERNAL_ERROR, "COPY of no query")),
            },
        }
    }

    /// A COPY may take as long as it takes, unless the session says otherwise.
    fn guard_copy(&self) -> Guard {
        Guard::new(self.settings.own_timeout().unwrap_or(FOREVER), &self.cancel)
    }

    async fn copy_from(
        &mut self,
        copy: &Copy,
        name: &Name,
        columns: &[String],
    ) -> Result<Response, SqlError> {
        let guard = self.guard_copy();
        let relation = dml::writable(name, &self.engine.views.catalog())?;
        let columns = insert::listed(&relation, columns)?;
        let filling = Filling::new(&self.state, &self.scope(), &relation, &columns)?;
        let mut target = self.target(&relation, &guard).await?;
        match &copy.end {
            CopyEnd::Client => {
                let input = Input::new(&relation, &columns, filling, &copy.options)?;
                let pending = Vec::new();
                self.copying = Some(Box::new(CopyIn { input, target, guard, pending }));
                return Ok(Response::CopyIn { columns: columns.len() });
            }
            CopyEnd::File(path) => {
                let root = self.engine.config.files_dir.clone();
                let file = file_to_read(root.as_deref(), path).await?;
                let into = (columns.as_slice(), filling);
                self.take_file(file, into, &copy.options, &mut target, &guard).await?;
            }
        }
        self.end_copy(target, &guard).await.map(done)
    }

    async fn take_file(
        &mut self,
        mut file: tokio::fs::File,
        (columns, filling): (&[usize], Filling),
        options: &Options,
        target: &mut Target,
        guard: &Guard,
    ) -> Result<(), SqlError> {
        let relation = Arc::clone(&target.relation);
        if options.format == Format::Parquet {
            let (file, columns) = (file.into_std().await, columns.to_vec());
            let open = aside(move || ParquetIn::open(file, &relation, &columns, filling));
            let mut input = guard.run(open).await?;
            loop {
                let next = aside(move || input.next().map(|rows| (input, rows)));
                let (back, rows) = guard.run(next).await?;
                input = back;
                let Some(rows) = rows else { return Ok(()) };
                self.put(target, rows, guard).await?;
            }
        }
        let mut input = Input::new(&relation, columns, filling, options)?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = file.read_buf(&mut chunk).await;
            let read = read.map_err(|error| {
                SqlError::new(IO_ERROR, format!("could not read from COPY file: {error}"))
            })?;
            input = self.take(input, chunk, read == 0, target, guard).await?;
            if read == 0 {
                return Ok(());
            }
        }
    }

    /// Where the rows of a COPY into a relation go.
    async fn target(
        &mut self,
        relation: &Arc<Relation>,
        guard: &Guard,
    ) -> Result<Target, SqlError> {
        let at_least = self.at_least(guard).await?;
        let engine = Arc::clone(&self.engine);
        let names = std::slice::from_ref(&relation.name);
        let by_default = self.settings.get("default_transaction_read_only");
        let by_default = by_default.is_ok_and(|value| value == "on");
        let read_only = match &self.open {
            Some(open) => open.transaction.read_only,
            None => by_default,
        };
        if read_only {
            let message = "cannot execute COPY FROM in a read-only transaction";
            return Err(SqlError::new(READ_ONLY_TRANSACTION, message));
        }
        let at_least = at_least.max(engine.log.end());
        let into = if let Some(open) = &mut self.open {
            let pin = open.transaction.pin(&engine, names, at_least, guard.left());
            self.last = guard.run(pin).await?.position;
            Into::Open
        } else if relation.kind == RelationKind::Table && relation.conflict_is_error {
            let mut own = Transaction::default();
            guard.run(own.pin(&engine, names, at_least, guard.left())).await?;
            Into::Own(Box::new(own))
        } else {
            Into::Log(engine.log.begin_large())
        };
        Ok(Target { relation: Arc::clone(relation), into, count: 0, held_bytes: 0 })
    }

    /// More of COPY FROM STDIN's data, after [`Response::CopyIn`].
    ///
    /// # Errors
    /// At a line that is no row; the COPY is over then, and nothing of it is kept.
    pub async fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        let Some(copy) = &mut self.copying else { return Ok(()) };
        copy.pending.extend_from_slice(data);
        if copy.pending.len() < CHUNK_BYTES {
            return Ok(());
        }
        let result = self.advance_copy(false).await;
        if result.is_err() {
            self.copy_abandon();
        }
        result
    }

    /// The end of COPY FROM STDIN's data: makes the rows one commit and gives the tag.
    ///
    /// # Errors
    /// As [`Session::copy_data`], and whatever the commit meets.
    pub async fn copy_end(&mut self) -> Result<String, SqlError> {
        if let Err(error) = self.advance_copy(true).await {
            self.copy_abandon();
            return Err(error);
        }
        let Some(copy) = self.copying.take() else {
            return Err(SqlError::new(INTERNAL_ERROR, "no COPY is under way"));
        };
        let CopyIn { target, guard, .. } = *copy;
        let ended = self.end_copy(target, &guard).await;
        if ended.is_err() {
            self.note_failure();
        }
        ended
    }

    /// The client gave COPY FROM STDIN up: nothing of it is kept, and an open transaction has
    /// failed.
    pub fn copy_abandon(&mut self) {
        self.copying = None;
        self.note_failure();
    }

    async fn advance_copy(&mut self, last: bool) -> Result<(), SqlError> {
        let Some(copy) = self.copying.take() else { return Ok(()) };
        let CopyIn { input, mut target, guard, pending } = *copy;
        let input = self.take(input, pending, last, &mut target, &guard).await?;
        self.copying = Some(Box::new(CopyIn { input, target, guard, pending: Vec::new() }));
        Ok(())
    }

    /// Takes the rows that more bytes complete.
    async fn take(
        &mut self,
        mut input: Input,
        bytes: Vec<u8>,
        last: bool,
        target: &mut Target,
        guard: &Guard,
    ) -> Result<Input, SqlError> {
        let cut = aside(move || {
            let batches = input.take(&bytes, last)?;
            Ok((input, batches))
        });
        let (input, batches) = guard.run(cut).await?;
        for rows in batches {
            self.put(target, rows, guard).await?;
        }
        Ok(input)
    }

    async fn put(
        &mut self,
        target: &mut Target,
        rows: RecordBatch,
        guard: &Guard,
    ) -> Result<(), SqlError> {
        target.count += rows.num_rows() as u64;
        let engine = Arc::clone(&self.engine);
        let relation = Arc::clone(&target.relation);
        if !matches!(target.into, Into::Log(_)) {
            target.held_bytes += rows.get_array_memory_size();
            if target.held_bytes > HELD_BYTES_MAX {
                let message = "the rows of this COPY take too much memory until they are committed";
                return Err(SqlError::new(OUT_OF_MEMORY, message).hint(match target.into {
                    Into::Open => "Use COPY outside of a transaction block, or fewer rows at once.",
                    _ => "Copy fewer rows at once.",
                }));
            }
        }
        target.into = match std::mem::replace(&mut target.into, Into::Open) {
            Into::Log(mut large) => {
                let append = aside(move || {
                    let encoded = engine.views.encode(&relation, &[RowChange::Put(rows)]);
                    for part in encoded.map_err(|error| translate::catalog(&error))? {
                        large.append(part).map_err(|error| translate::append(&error))?;
                    }
                    Ok(large)
                });
                Into::Log(guard.run(append).await?)
            }
            Into::Own(mut own) => {
                put_checked(&engine, &mut own, &relation, rows)?;
                Into::Own(own)
            }
            Into::Open => {
                let Some(open) = &mut self.open else {
                    return Err(SqlError::new(INTERNAL_ERROR, "the transaction is gone"));
                };
                put_checked(&engine, &mut open.transaction, &relation, rows)?;
                Into::Open
            }
        };
        Ok(())
    }

    /// Makes the rows a commit, unless they wait for the session's.
    async fn end_copy(&mut self, target: Target, guard: &Guard) -> Result<String, SqlError> {
        let engine = Arc::clone(&self.engine);
        let tag = format!("COPY {}", target.count);
        let position = match target.into {
            Into::Open => None,
            Into::Own(own) => own.commit(&engine, guard.left()).await?,
            Into::Log(_) if target.count == 0 => None,
            Into::Log(large) => {
                let _shared = guard.run(async { Ok(engine.dml.read().await) }).await?;
                let (name, catalog) = (&target.relation.name, engine.views.catalog());
                let now = catalog.relation(name);
                if now.is_none_or(|now| now.topic_id != target.relation.topic_id) {
                    let message = format!("\"{name}\" was dropped or replaced");
                    return Err(SqlError::new(SERIALIZATION_FAILURE, message));
                }
                // From here on it is not cancelled: its facts are on their way.
                let commit = aside(move || large.commit().map_err(|e| translate::append(&e)));
                let receipt = commit.await?;
                Some(receipt.await.map_err(|error| translate::append(&error))?.position)
            }
        };
        if let Some(position) = position {
            self.wrote(position);
        }
        Ok(tag)
    }
}

/// Rows into a transaction, under the table's own rule about keys that are there.
fn put_checked(
    engine: &Inner,
    transaction: &mut Transaction,
    relation: &Arc<Relation>,
    rows: RecordBatch,
) -> Result<(), SqlError> {
    if relation.kind == RelationKind::Table
        && relation.conflict_is_error
        && let Some(cut) = transaction.cut()
    {
        let table = transaction.rows(engine, cut, &relation.name)?;
        insert::refuse_existing(&table, relation, &rows)?;
    }
    transaction.write(relation, RowChange::Put(rows), Check::AtCommit)
}

fn select_all(name: &Name, columns: &[String]) -> String {
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let columns = match columns {
        [] => "*".to_owned(),
        columns => columns.iter().map(quoted).collect::<Vec<_>>().join(", "),
    };
    format!("SELECT {columns} FROM {}.{}", quoted(&name.schema), quoted(&name.name))
}

/// Writes rows into a Parquet file; gives their number.
async fn parquet_out(
    mut writer: ParquetOut,
    mut batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
    mut file: CopyFile,
) -> Result<u64, SqlError> {
    let mut count = 0;
    while let Some(rows) = batches.next().await {
        let rows = rows?;
        count += rows.num_rows() as u64;
        let (back, bytes) = aside(move || {
            let bytes = writer.write(&rows)?;
            Ok((writer, bytes))
        })
        .await?;
        writer = back;
        file.write(&bytes).await?;
    }
    let bytes = aside(move || writer.finish()).await?;
    file.write(&bytes).await?;
    file.finish().await?;
    Ok(count)
}
