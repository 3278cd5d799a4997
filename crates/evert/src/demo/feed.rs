//! The feed: payments appended to the log by hand, or committed in a Postgres and read from there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use evert_log::{NewCommit, NewPart};
use evert_model::{Lsn, PartitionId, Position};
use evert_view::Views;
use tokio::sync::watch;

use super::freshness::Freshness;
use super::payments::Payments;
use super::postgres::{self, Origin};

/// Commits a second: each carries its share of the rate.
const COMMITS_PER_SECOND: u32 = 100;
/// How long a commit over there may take to be seen here.
const COMES_WITHIN: Duration = Duration::from_secs(60);

/// What the feed tells while it runs.
#[derive(Default)]
pub(super) struct Told {
    pub(super) freshness: Freshness,
    pub(super) payments: u64,
    /// The last commit in a Postgres ended before this place.
    pub(super) committed: Option<Lsn>,
}

/// What the feed tells, shared with whoever shows it.
#[derive(Clone, Default)]
pub(super) struct Telling(Arc<Mutex<Told>>);

impl Telling {
    pub(super) fn get(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where payments go.
#[derive(Clone)]
pub(super) enum Target {
    Log,
    Postgres(Arc<Origin>),
}

/// Makes payments until told to stop.
pub(super) struct Feed {
    pub(super) views: Views,
    pub(super) target: Target,
    pub(super) payments: Payments,
    /// Payments a second.
    pub(super) rate: u32,
    pub(super) telling: Telling,
}

impl Feed {
    /// Runs; gives the position at which the last payment is in the log.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) -> Result<Position> {
        let mut clock = tokio::time::interval(Duration::from_secs(1) / COMMITS_PER_SECOND);
        let (started, mut sent) = (Instant::now(), 0u64);
        let mut last = Position::ZERO;
        while !*stop.borrow() {
            clock.tick().await;
            // What is due by now, so that a late tick makes up for it.
            let due = (started.elapsed().as_secs_f64() * f64::from(self.rate)) as u64;
            let count = u32::try_from(due.saturating_sub(sent)).unwrap_or(u32::MAX).min(self.rate);
            if count == 0 {
                continue;
            }
            match self.target.clone() {
                Target::Log => last = self.append(count).await?,
                Target::Postgres(origin) => self.commit(&origin, count).await?,
            }
            sent += u64::from(count);
            self.telling.get().payments = sent;
        }
        match &self.target {
            Target::Log => Ok(last),
            Target::Postgres(origin) => {
                let token = postgres::token(origin.end().await?);
                Ok(self.views.resolve(&token, COMES_WITHIN).await?)
            }
        }
    }

    async fn append(&mut self, count: u32) -> Result<Position> {
        let topic = self.views.log().topic("payments").context("topic payments is gone")?;
        let batch = self.payments.batch(count, chrono::Utc::now().timestamp_micros());
        let part = NewPart { topic: topic.id, partition: PartitionId::new(0), batch };
        let at = Instant::now();
        let appended = self.views.log().append(NewCommit { parts: vec![part] })?.await?;
        self.telling.get().freshness.sent(appended.position, at);
        Ok(appended.position)
    }

    async fn commit(&mut self, origin: &Origin, count: u32) -> Result<()> {
        let at = Instant::now();
        let micros = chrono::Utc::now().timestamp_micros();
        let lsn = origin.commit(&mut self.payments, count, micros).await?;
        self.telling.get().committed = Some(lsn);
        let (views, telling) = (self.views.clone(), self.telling.clone());
        tokio::spawn(async move {
            // One that does not come in time shows in the lag, and at the end.
            if views.resolve(&postgres::token(lsn), COMES_WITHIN).await.is_ok() {
                telling.get().freshness.took(at.elapsed());
            }
        });
        Ok(())
    }
}

/// Notes when commits of the log become visible.
pub(super) async fn watch_cuts(views: Views, telling: Telling) {
    let mut cuts = views.watch();
    while cuts.changed().await.is_ok() {
        let position = cuts.borrow_and_update().position;
        telling.get().freshness.visible(position, Instant::now());
    }
}
