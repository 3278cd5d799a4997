//! A sink: follows a relation or view, and tells its target what changes.
//!
//! Owns: how many ticks are told at once, and how often a position alone is.

use std::time::Duration;

use async_trait::async_trait;
use evert_model::{Position, RowSchema};
use evert_view::{
    Changes, Outlet, OutletContext, OutletError, OutletVerdict, PastError, PinError, Subscription,
};
use futures::FutureExt;
use tokio::time::Instant;

use crate::changeset::Changeset;
use crate::target::Target;

/// Changed rows that are told at once, unless a single tick has more.
const ROWS_AT_ONCE: usize = 20_000;
/// How far the target's position may lie back while nothing changes there.
const POSITION_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Sink {
    target: Box<dyn Target>,
    schema: RowSchema,
}

impl Sink {
    pub(crate) fn new(target: Box<dyn Target>, schema: RowSchema) -> Self {
        Self { target, schema }
    }

    /// Copies all rows. Half a copy is nothing: stopping before its end is an error.
    async fn copy(
        &mut self,
        context: &OutletContext,
        changes: &mut Subscription,
    ) -> Result<(), OutletError> {
        let name = context.on();
        let cut = context.views().watch().borrow().clone();
        let total = cut.snapshots.get(name).map_or(0, |rows| rows.len());
        let mut done = 0;
        loop {
            let next = tokio::select! {
                () = context.stopping() => {
                    return Err(OutletError::Retry("stopped before all rows were copied".into()));
                }
                next = changes.next() => next,
            };
            let Some(Changes { position, deltas, complete, .. }) = next.transpose()? else {
                return Err(stopping());
            };
            for delta in &deltas {
                self.target.copy(&delta.rows).await?;
                done += delta.len();
            }
            if let Some(percent) = (done * 100).checked_div(total) {
                context.report_progress(percent.min(99) as u8);
            }
            if complete {
                self.target.end_copy(position).await?;
                context.report(position, self.target.rows());
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Outlet for Sink {
    fn position(&self) -> Option<Position> {
        self.target.position()
    }

    async fn follow(&mut self, context: &OutletContext) -> Result<(), OutletError> {
        let mut changes = context.changes(self.target.position()).await?;
        if self.target.position().is_none() {
            self.copy(context, &mut changes).await?;
        }
        let mut set = Changeset::new(&self.schema)?;
        let mut told_at = Instant::now();
        let (mut at, mut told) = (changes.position(), changes.position());
        context.report(at, self.target.rows());
        loop {
            let due = told_at + POSITION_EVERY;
            let first = tokio::select! {
                () = context.stopping() => {
                    if at > told {
                        self.target.write(&set, at).await?;
                    }
                    return Ok(());
                }
                next = changes.next() => Some(next),
                () = tokio::time::sleep_until(due), if at > told => None,
            };
            if let Some(next) = first {
                at = gather(next, &mut changes, &mut set).await?;
            }
            if !set.is_empty() || told_at.elapsed() >= POSITION_EVERY {
                self.target.write(&set, at).await?;
                set.clear();
                (told, told_at) = (at, Instant::now());
            }
            context.report(at, self.target.rows());
        }
    }

    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError> {
        self.target.verify(context).await
    }
}

type Next = Option<Result<Changes, PastError>>;

/// Adds a step, and those that are there already, up to the end of a tick. Gives its position.
async fn gather(
    first: Next,
    changes: &mut Subscription,
    set: &mut Changeset,
) -> Result<Position, OutletError> {
    let mut next = first;
    loop {
        let step = next.transpose()?.ok_or_else(stopping)?;
        for delta in step.deltas {
            set.add(delta)?;
        }
        next = match step.complete {
            false => changes.next().await,
            true if set.len() >= ROWS_AT_ONCE => return Ok(step.position),
            // What is not there yet is not waited for.
            true => match changes.next().now_or_never() {
                Some(next) => next,
                None => return Ok(step.position),
            },
        };
    }
}

fn stopping() -> OutletError {
    PinError::Stopping.into()
}
