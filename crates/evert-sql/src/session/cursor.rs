//! Cursors: DECLARE, FETCH, MOVE, CLOSE.
//!
//! A cursor's rows are computed as they are fetched. It lives as long as its transaction, or as
//! its session if it was declared WITH HOLD.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Session;
use crate::command::{Command, Declare, Fetch};
use crate::guard::Guard;
use crate::statement::{Parsed, done};
use crate::{Response, SqlError};

/// Open cursors of one session.
const CURSORS_MAX: usize = 100;
/// How long FETCH waits for changes when it does not say.
const FETCH_WAIT: Duration = Duration::ZERO;
/// How long what is there already may take to arrive.
const SETTLE: Duration = Duration::from_millis(50);

/// A session's cursors by name.
pub(super) type Cursors = HashMap<String, Cursor>;

/// A declared cursor.
#[derive(Clone)]
pub(super) struct Cursor {
    schema: SchemaRef,
    hold: bool,
    /// Of SUBSCRIBE: there may always be more later.
    endless: bool,
    rows: Arc<Mutex<Source>>,
}

/// The rows of a cursor that were not fetched yet.
struct Source {
    batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
    /// What is left of a batch.
    left: Option<RecordBatch>,
    ended: bool,
}

impl Source {
    /// Up to `count` rows; `None` at the end.
    async fn next(&mut self, count: u64) -> Option<Result<RecordBatch, SqlError>> {
        let batch = match self.left.take() {
            Some(batch) => batch,
            None if self.ended => return None,
            None => match self.batches.next().await {
                Some(Ok(batch)) => batch,
                other => {
                    self.ended = true;
                    return other;
                }
            },
        };
        let taken = usize::try_from(count).unwrap_or(usize::MAX).min(batch.num_rows());
        if taken < batch.num_rows() {
            self.left = Some(batch.slice(taken, batch.num_rows() - taken));
        }
        Some(Ok(batch.slice(0, taken)))
    }
}

impl Session {
    pub(super) async fn declare(
        &mut self,
        parsed: &Parsed,
        declare: &Declare,
        params: &[arrow::array::ArrayRef],
    ) -> Result<Response, SqlError> {
        if self.open.is_none() && !declare.hold {
            return Err(SqlError::new(
                "25P01",
                "DECLARE CURSOR can only be used in transaction blocks",
            ));
        }
        if self.cursors.contains_key(&declare.name) {
            let message = format!("cursor \"{}\" already exists", declare.name);
            return Err(SqlError::new("42P03", message));
        }
        if self.cursors.len() >= CURSORS_MAX {
            return Err(SqlError::new("54000", "too many open cursors"));
        }
        let (schema, batches, endless) = match declare.command.as_ref() {
            Command::Subscribe(subscribe) => {
                let (schema, batches) = self.subscribe(subscribe).await?;
                (schema, batches, true)
            }
            Command::Query(query) => match self.for_cursor(parsed, query, params).await? {
                Response::Rows { schema, batches, .. } => (schema, batches, false),
                _ => unreachable!("a SELECT gives rows"),
            },
            Command::QueryAsOf { query, as_of } => {
                match self.query_as_of(parsed, query, as_of, params).await? {
                    Response::Rows { schema, batches, .. } => (schema, batches, false),
                    _ => unreachable!("a SELECT gives rows"),
                }
            }
            _ => unreachable!("the parser lets only these through"),
        };
        let source = Source { batches, left: None, ended: false };
        let rows = Arc::new(Mutex::new(source));
        let cursor = Cursor { schema, hold: declare.hold, endless, rows };
        self.cursors.insert(declare.name.clone(), cursor);
        Ok(done("DECLARE CURSOR"))
    }

    fn cursor(&self, name: &str) -> Result<&Cursor, SqlError> {
        let none = || SqlError::new("34000", format!("cursor \"{name}\" does not exist"));
        self.cursors.get(name).ok_or_else(none)
    }

    /// The columns that FETCH gives; MOVE gives none.
    pub(super) fn fetch_schema(&self, fetch: &Fetch) -> Result<Option<SchemaRef>, SqlError> {
        let cursor = self.cursor(&fetch.name)?;
        Ok((!fetch.discard).then(|| Arc::clone(&cursor.schema)))
    }

    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<Response, SqlError> {
        let cursor = self.cursor(&fetch.name)?.clone();
        let guard = self.guard();
        let schema = Arc::clone(&cursor.schema);
        let batches = rows(cursor, fetch, guard);
        if !fetch.discard {
            return Ok(Response::Rows { schema, batches, tag: "FETCH" });
        }
        let mut moved = 0;
        let mut batches = batches;
        while let Some(batch) = batches.next().await {
            moved += batch?.num_rows();
        }
        Ok(done(format!("MOVE {moved}")))
    }

    pub(super) fn close_cursor(&mut self, name: Option<&str>) -> Result<Response, SqlError> {
        match name {
            None => {
                self.cursors.clear();
                Ok(done("CLOSE CURSOR ALL"))
            }
            Some(name) => {
                self.cursor(name)?;
                self.cursors.remove(name);
                Ok(done("CLOSE CURSOR"))
            }
        }
    }

    /// A transaction has ended: with it its cursors, after a failure all that it declared.
    pub(super) fn end_cursors(&mut self) {
        self.cursors.retain(|_, cursor| cursor.hold);
    }
}

/// The rows of one FETCH.
fn rows(
    cursor: Cursor,
    fetch: &Fetch,
    guard: Guard,
) -> BoxStream<'static, Result<RecordBatch, SqlError>> {
    let left = fetch.count.unwrap_or(u64::MAX);
    let wait = fetch.timeout_ms.map_or(FETCH_WAIT, Duration::from_millis);
    // What is there is given even if nothing is to be waited for.
    let until = cursor.endless.then(|| Instant::now() + wait.max(SETTLE));
    stream::unfold(Some((cursor.rows, guard, left, until)), |state| async move {
        let (rows, guard, left, until) = state?;
        if left == 0 {
            return None;
        }
        let next = async {
            let mut source = rows.lock().await;
            match until {
                None => source.next(left).await,
                Some(until) => {
                    tokio::time::timeout_at(until, source.next(left)).await.ok().flatten()
                }
            }
            .transpose()
        };
        match guard.run(next).await {
            Ok(None) => None,
            Ok(Some(batch)) => {
                let left = left - batch.num_rows() as u64;
                // Once there is something, only what is there already is added.
                let until = until.map(|until| until.min(Instant::now() + SETTLE));
                Some((Ok(batch), Some((rows, guard, left, until))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
