//! A sink: follows a relation or view, and tells its target what changes.
//!
//! Owns: how many ticks are told at once, how often a position alone is, and what is done about
//! changes that the target refuses.
//!
//! Invariants
//! - Whatever was tried before, what is told is what rows are at one position beyond those of the
//!   position before it: a row that has come and gone again is never told.

use std::time::Duration;

use async_trait::async_trait;
use evert_model::{Position, RowSchema};
use evert_view::{
    Changes, Outlet, OutletContext, OutletError, OutletVerdict, PastError, PinError, Subscription,
};
use futures::FutureExt;
use tokio::time::Instant;

use crate::changeset::Changeset;
use crate::target::{Target, WriteError};

/// Changed rows that are told at once, unless a single tick has more.
const ROWS_AT_ONCE: usize = 20_000;
/// Changed keys that are gathered at most to see whether what was refused is mended since.
const ROWS_REFUSED_MAX: usize = 500_000;
/// How long it waits for changes that are known to be there.
const CHANGES_WITHIN: Duration = Duration::from_secs(1);
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

    /// Writes what has changed. What is refused is tried once more with all that has happened
    /// since, so that a row that is mended or gone by now is in nobody's way.
    async fn tell(
        &mut self,
        context: &OutletContext,
        changes: &mut Subscription,
        set: &mut Changeset,
        at: Position,
    ) -> Result<Position, OutletError> {
        match self.target.write(set, at).await {
            Ok(()) => return Ok(at),
            Err(WriteError::Other(error)) => return Err(error),
            Err(WriteError::Refused(_)) => {}
        }
        let at = gather_to_now(context, changes, set, ROWS_REFUSED_MAX).await?.max(at);
        self.write(set, at).await?;
        Ok(at)
    }

    /// Writes what has changed, or says which row is refused.
    async fn write(&mut self, set: &Changeset, at: Position) -> Result<(), OutletError> {
        let why = match self.target.write(set, at).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Other(error)) => return Err(error),
            Err(WriteError::Refused(why)) => why,
        };
        let row = self.target.find_refused(set).await?;
        Err(OutletError::Retry(match row {
            Some(row) => format!("{why}: the row of {row} is refused"),
            None => why,
        }))
    }
}

#[async_trait]
impl Outlet for Sink {
    fn position(&self) -> Option<Position> {
        self.target.position()
    }

    fn rows(&self) -> u64 {
        self.target.rows()
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
        // What an attempt before this one could not tell may be other rows by now.
        at = gather_to_now(context, &mut changes, &mut set, ROWS_AT_ONCE).await?;
        if !set.is_empty() {
            at = self.tell(context, &mut changes, &mut set, at).await?;
            set.clear();
            told = at;
            context.report(at, self.target.rows());
        }
        loop {
            let due = told_at + POSITION_EVERY;
            let first = tokio::select! {
                () = context.stopping() => {
                    if at > told {
                        self.write(&set, at).await?;
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
                at = self.tell(context, &mut changes, &mut set, at).await?;
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

/// Adds what has happened up to now, unless that is more than `rows_max` rows.
async fn gather_to_now(
    context: &OutletContext,
    changes: &mut Subscription,
    set: &mut Changeset,
    rows_max: usize,
) -> Result<Position, OutletError> {
    let now = context.views().position();
    let mut at = changes.position();
    while at < now && set.len() < rows_max && !context.is_stopping() {
        // A view that nothing has happened to says nothing.
        match tokio::time::timeout(CHANGES_WITHIN, changes.next()).await {
            Ok(next) => at = gather(next, changes, set).await?,
            Err(_) => break,
        }
    }
    Ok(at)
}

fn stopping() -> OutletError {
    PinError::Stopping.into()
}
