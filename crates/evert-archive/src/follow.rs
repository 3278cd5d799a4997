//! Following the log: a thread reads and decodes, the archive's own casts, writes and commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evert_log::{Log, ReadError};
use evert_model::Position;
use evert_view::{Facts, FactsBatch, OutletContext, OutletError, PastError, Relation};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::archives::{Archive, outlet_error};
use crate::error::ArchiveError;
use crate::verify::positions;

/// Batches that are read ahead.
const BATCHES_AHEAD: usize = 3;
/// How long commits gather before they are read, once the end was reached.
const GATHER: Duration = Duration::from_millis(50);
/// How often a position is told at which nothing has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Archive {
    /// Follows until it is to stop, and then writes what it has taken.
    pub(crate) async fn follow_log(&mut self, context: &OutletContext) -> Result<(), OutletError> {
        // After an error nobody knows what has come through: what is stored says.
        self.reload().await.map_err(outlet_error)?;
        let relation = relation(context)?;
        let mark = self.writer.taken().clone();
        let (views, log) = (context.views(), context.views().log().clone());
        if mark.position > log.end() {
            let what = format!(
                "the archive is at position {}, the log ends at {}: was a backup restored?",
                mark.position,
                log.end()
            );
            return Err(OutletError::Failed(what));
        }
        let facts = views.facts_after(&relation, mark.position, &mark.next_offsets);
        let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
        let facts = facts.map_err(past_error)?;
        // It ends when the receiver is gone.
        let reader = tokio::task::spawn_blocking(move || read(facts, &log, &sender));
        let followed = self.take_all(context, &mut batches).await;
        drop(batches);
        drop(reader);
        followed
    }

    async fn take_all(
        &mut self,
        context: &OutletContext,
        batches: &mut mpsc::Receiver<Result<FactsBatch, ReadError>>,
    ) -> Result<(), OutletError> {
        let mut due: Option<Instant> = None;
        loop {
            self.report(context);
            self.clean_if_due().await;
            let wake = due.unwrap_or_else(|| Instant::now() + LOOK_EVERY);
            let taken = tokio::select! {
                biased;
                () = context.stopping() => break,
                () = tokio::time::sleep_until(wake) => None,
                batch = batches.recv() => Some(batch),
            };
            match taken {
                Some(Some(Ok(batch))) => {
                    self.look_back(context, &batch).await?;
                    let now = self.now_ms();
                    self.writer.take(&batch, now).await.map_err(outlet_error)?;
                    if self.writer.has_waiting() && due.is_none() {
                        due = Some(Instant::now() + self.options.flush_interval);
                    }
                }
                Some(Some(Err(error))) => return Err(OutletError::Retry(error.to_string())),
                Some(None) => return Err(OutletError::Retry("the reading ended early".into())),
                // In an object store a look costs money: there the next commit finds out.
                None if self.writer.table().store().objects().is_none() => {
                    self.writer.table().check().await.map_err(outlet_error)?;
                }
                None => {}
            }
            let passed = due.is_none_or(|due| due <= Instant::now());
            if passed || self.writer.is_full() {
                if self.flush().await.map_err(outlet_error)? {
                    self.compact().await.map_err(outlet_error)?;
                }
                due = None;
            }
        }
        self.flush().await.map_err(outlet_error)?;
        self.report(context);
        Ok(())
    }

    /// A column that has come may be one of which earlier records have told: then they are read
    /// again for it, and all is written anew.
    async fn look_back(
        &mut self,
        context: &OutletContext,
        batch: &FactsBatch,
    ) -> Result<(), OutletError> {
        let columns = self.writer.new_columns(&batch.rows.schema());
        let end = self.writer.taken().position;
        if columns.is_empty() || end == Position::ZERO || !told_of(context, &columns, end)? {
            return Ok(());
        }
        self.begin_anew(&batch.rows.schema()).await.map_err(outlet_error)?;
        let columns = columns.join(", ");
        Err(OutletError::Retry(format!("older facts have values of {columns}: written anew")))
    }

    /// Where nothing waits, all that was taken is stored.
    fn report(&self, context: &OutletContext) {
        let mark = match self.writer.has_waiting() {
            true => self.writer.table().mark(),
            false => self.writer.taken(),
        };
        // Whoever waits for the position reads what is published as soon as it is reported.
        self.publish(mark.position);
        context.report(mark.position, self.stored_rows());
    }

    pub(crate) fn stored_rows(&self) -> u64 {
        self.writer.table().files().iter().map(|live| live.file.record_count()).sum()
    }
}

pub(crate) fn relation(context: &OutletContext) -> Result<Arc<Relation>, OutletError> {
    let relation = context.views().catalog().relations.get(context.on()).map(Arc::clone);
    relation.ok_or_else(|| OutletError::Failed(format!("\"{}\" is no relation", context.on())))
}

/// What the log has forgotten does not come back.
pub(crate) fn past_error(error: PastError) -> OutletError {
    match error {
        PastError::Forgotten { .. } => OutletError::Failed(error.to_string()),
        other => OutletError::Retry(other.to_string()),
    }
}

fn read(mut facts: Facts, log: &Log, batches: &mpsc::Sender<Result<FactsBatch, ReadError>>) {
    let mut end = log.watch_end();
    let runtime = tokio::runtime::Handle::current();
    loop {
        end.mark_unchanged();
        let next = match facts.next() {
            Ok(Some(batch)) => Ok(batch),
            Ok(None) => {
                let more = runtime.block_on(async {
                    tokio::select! {
                        () = batches.closed() => false,
                        changed = end.changed() => changed.is_ok(),
                    }
                });
                if !more {
                    return;
                }
                // The thread's own sleep: the runtime may be shutting down, and its timers panic then.
                std::thread::sleep(GATHER);
                continue;
            }
            Err(error) => Err(error),
        };
        let failed = next.is_err();
        if batches.blocking_send(next).is_err() || failed {
            return;
        }
    }
}

/// Whether a fact up to a position has a value in one of the columns. One that the log has
/// forgotten says nothing any more.
fn told_of(
    context: &OutletContext,
    columns: &[String],
    end: Position,
) -> Result<bool, OutletError> {
    let (relation, none) = (relation(context)?, BTreeMap::new());
    let mut facts = match context.views().facts_after(&relation, Position::ZERO, &none) {
        Err(PastError::Forgotten { .. }) => return Ok(false),
        facts => facts.map_err(past_error)?,
    };
    let (mut told, end_of_rows) = (false, end.get() as i64);
    tokio::task::block_in_place(|| {
        upto(&mut facts, end, |batch| {
            let within = positions(&batch.rows)?.iter().filter(|at| **at <= end_of_rows).count();
            let has_values = |column: &String| {
                let values = batch.rows.column_by_name(column);
                let values = values.map(|values| values.slice(0, within));
                values.is_some_and(|values| values.null_count() < values.len())
            };
            told |= columns.iter().any(has_values);
            match told || context.is_stopping() {
                true => Err(ArchiveError::Place("it was looked at long enough".into())),
                false => Ok(()),
            }
        })
    })
    .or_else(|error| if told { Ok(()) } else { Err(error) })?;
    Ok(told)
}

/// Every fact of a relation up to a position, in order. Blocks.
pub(crate) fn upto(
    facts: &mut Facts,
    end: Position,
    mut each: impl FnMut(&FactsBatch) -> crate::error::Result<()>,
) -> Result<(), OutletError> {
    loop {
        match facts.next().map_err(|error| OutletError::Retry(error.to_string()))? {
            None => return Ok(()),
            Some(batch) => {
                each(&batch).map_err(outlet_error)?;
                if batch.position >= end {
                    return Ok(());
                }
            }
        }
    }
}
