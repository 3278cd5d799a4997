//! Guards: a statement ends when it is cancelled or takes too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::error::QUERY_CANCELED;
use crate::flights::{BATCHES_MAX, Pilot};
use crate::query::conform;
use crate::{SqlError, translate};

/// What `statement_timeout = 0` comes to.
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// Batches that wait for a slow client.
const BATCHES_AHEAD: usize = BATCHES_MAX;

/// The end of a statement's patience.
#[derive(Clone)]
pub(crate) struct Guard {
    deadline: Instant,
    cancelled: watch::Receiver<u64>,
}

impl Guard {
    /// A guard from now on: earlier cancellations are past.
    pub(crate) fn new(timeout: Duration, cancel: &watch::Sender<u64>) -> Self {
        let timeout = if timeout.is_zero() { FOREVER } else { timeout };
        Self { deadline: Instant::now() + timeout, cancelled: cancel.subscribe() }
    }

    /// What is left of the time.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs to the end, or to the statement's.
    pub(crate) async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        tokio::select! {
            // What is ready at once sets no timer.
            biased;
            result = work => result,
            error = self.over() => Err(error),
        }
    }

    async fn over(&self) -> SqlError {
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            Ok(()) = cancelled.changed() => {
                SqlError::new(QUERY_CANCELED, "canceling statement due to user request")
            }
            () = tokio::time::sleep_until(self.deadline) => {
                SqlError::new(QUERY_CANCELED, "canceling statement due to statement timeout")
            }
        }
    }

    /// A result that is computed on a thread of its own, apart from the threads that serve
    /// sockets, and ends with this guard. An error in it sets `failed`.
    pub(crate) fn stream(
        self,
        mut rows: SendableRecordBatchStream,
        schema: SchemaRef,
        text: Arc<str>,
        failed: Option<Arc<AtomicBool>>,
        pilot: Option<Pilot>,
    ) -> BoxStream<'static, Result<RecordBatch, SqlError>> {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async move {
                let mut pilot = pilot;
                let mut shared = Vec::new();
                loop {
                    let next = tokio::select! {
                        next = rows.next() => next,
                        () = sender.closed() => break,
                    };
                    let Some(batch) = next else {
                        if let Some(pilot) = pilot {
                            pilot.land(shared);
                        }
                        break;
                    };
                    let batch = match batch {
                        Ok(batch) => conform(&batch, &schema),
                        Err(error) => Err(translate::planning(&error, &text)),
                    };
                    let ended = batch.is_err();
                    match &batch {
                        Ok(batch) if shared.len() < BATCHES_MAX => shared.push(batch.clone()),
                        _ => drop(pilot.take()),
                    }
                    if sender.send(batch).await.is_err() || ended {
                        break;
                    }
                }
            });
        });
        let state = Some((self, receiver, failed));
        stream::unfold(state, |state| async move {
            let (guard, mut receiver, failed) = state?;
            let next = tokio::select! {
                next = receiver.recv() => next?,
                error = guard.over() => Err(error),
            };
            match next {
                Ok(batch) => Some((Ok(batch), Some((guard, receiver, failed)))),
                Err(error) => {
                    if let Some(failed) = failed {
                        failed.store(true, Ordering::Relaxed);
                    }
                    Some((Err(error), None))
                }
            }
        })
        .boxed()
    }
}
