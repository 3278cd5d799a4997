//! The worked example: one log of payments, five views of it, and how fresh each of them is.
//!
//! Owns: the server, the payments that flow at a rate, and when each commit is readable where.
//! Not here: which figures a benchmark makes of that (`doors`, `tuesday`).

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use evert_log::{NewCommit, NewPart};
use evert_model::{PartitionId, Position, TopicId};
use evert_view::{Name, Views};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::report::{Durability, Outcome, Report};
use super::{Bench, usage};
use crate::demo::payments::{Payments, VIEWS, merchants_sql, views_sql};
use crate::serve::Server;
use crate::settings::Settings;

/// Payments a second, and for how long, where five views are measured by themselves.
const RATE: u32 = 5_000;
const FLOWS: Duration = Duration::from_secs(30);
/// Commits a second: each carries its share of the rate.
const COMMITS_PER_SECOND: u32 = 100;
/// Payments of a commit while history is made.
const HISTORY_COMMIT: u32 = 2_000;
/// Commits of history that wait for their acknowledgement.
const HISTORY_AHEAD: usize = 64;
const WEEK_MICROS: i64 = 7 * 24 * 3600 * 1_000_000;
const CATCH_UP_MAX: Duration = Duration::from_secs(3600);
/// A commit that is not readable after this long counts as so late.
const READABLE_WITHIN: Duration = Duration::from_secs(120);
const TABLE: &str = "CREATE STREAM payments (payment_id BIGINT, merchant_id TEXT, \
     amount NUMERIC(12,2), status TEXT, email TEXT, card_hash TEXT, card_last4 TEXT, \
     paid_at TIMESTAMP)";

/// The kinds of views whose freshness is measured, and a view of each.
pub(super) const KINDS: [(&str, &str); 4] = [
    ("dashboard and key-value", "merchant_today"),
    ("fraud, the last 60 seconds", "card_last_minute"),
    ("settlement", "settlement"),
    ("search", "payments_search"),
];

/// A server with the example's relations.
pub(super) struct World {
    server: Server,
    client: Client,
    topic: TopicId,
}

impl World {
    /// Starts a server in `dir`, with relations and no views yet.
    pub(super) async fn start(dir: &Path) -> Result<Self> {
        let off = || Some("off".to_owned());
        let settings = Settings {
            data: Some(dir.to_path_buf()),
            sql: Some("127.0.0.1:0".to_owned()),
            kafka: off(),
            keyvalue: off(),
            http: off(),
            ..Settings::default()
        };
        let server = Server::start(&settings).await?;
        let address = server.addresses.sql.context("the SQL door is closed")?;
        let (host, port) = (address.ip(), address.port());
        let config = format!("host={host} port={port} user=bench dbname=bench");
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(TABLE).await?;
        let topic = server.views.log().topic("payments").context("the stream was made")?.id;
        Ok(Self { server, client, topic })
    }

    pub(super) fn views(&self) -> &Views {
        &self.server.views
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Appends a week of payments that ends now.
    pub(super) async fn append_history(&self, count: usize, payments: &mut Payments) -> Result<()> {
        let now = chrono::Utc::now().timestamp_micros();
        let commits = count / HISTORY_COMMIT as usize;
        let mut under_way = std::collections::VecDeque::new();
        for commit in 0..commits {
            let ago = WEEK_MICROS / commits.max(1) as i64 * (commits - commit) as i64;
            let batch = payments.batch(HISTORY_COMMIT, now - ago);
            under_way.push_back(append(self.views(), self.topic, batch)?);
            if under_way.len() > HISTORY_AHEAD
                && let Some(oldest) = under_way.pop_front()
            {
                oldest.await?;
            }
        }
        for receipt in under_way {
            receipt.await?;
        }
        Ok(())
    }

    /// Makes the five views; gives how long each took to catch up with the log.
    pub(super) async fn create_views(&self) -> Result<Vec<(&'static str, Duration)>> {
        let begun = Instant::now();
        for statement in views_sql("payments") {
            self.client.batch_execute(&statement).await?;
        }
        self.client.batch_execute(&merchants_sql()).await?;
        let end = self.views().log().end();
        let caught_up = VIEWS.map(|name| async move {
            readable(self.views(), &Name::public(name), end, CATCH_UP_MAX).await?;
            anyhow::Ok((name, begun.elapsed()))
        });
        futures::future::try_join_all(caught_up).await
    }

    /// Lets payments flow until the load is ended.
    pub(super) fn load(&self, rate: u32, payments: Payments) -> Load {
        let (stop, stopped) = watch::channel(false);
        let seen = Seen::default();
        let phase = Arc::new(AtomicUsize::new(0));
        let flow = Flow {
            views: self.views().clone(),
            topic: self.topic,
            payments,
            rate,
            seen: seen.clone(),
            phase: Arc::clone(&phase),
        };
        Load { stop, phase, seen, running: tokio::spawn(flow.run(stopped)) }
    }

    pub(super) async fn stop(self) -> Result<()> {
        drop(self.client);
        self.server.stop().await
    }
}

fn append(
    views: &Views,
    topic: TopicId,
    batch: evert_model::EncodedBatch,
) -> Result<evert_log::Receipt> {
    let part = NewPart { topic, partition: PartitionId::new(0), batch };
    Ok(views.log().append(NewCommit { parts: vec![part] })?)
}

/// Waits until a view or an outlet shows a position.
pub(super) async fn readable(
    views: &Views,
    name: &Name,
    position: Position,
    within: Duration,
) -> Result<()> {
    match views.outlet_reached(name) {
        None => {
            views.pin(std::slice::from_ref(name), position, within).await?;
        }
        Some(mut reached) => {
            let reached = reached.wait_for(|reached| *reached >= position);
            tokio::time::timeout(within, reached).await.with_context(|| {
                format!("\"{name}\" does not catch up: SHOW VIEWS would tell why")
            })??;
        }
    }
    Ok(())
}

/// How late commits were readable: by kind, then by phase.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<[Vec<Vec<Duration>>; KINDS.len()]>>);

impl Seen {
    fn add(&self, kind: usize, phase: usize, late: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let phases = &mut all[kind];
        phases.resize_with(phases.len().max(phase + 1), Vec::new);
        phases[phase].push(late);
    }
}

/// Payments that flow.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    phase: Arc<AtomicUsize>,
    seen: Seen,
    running: JoinHandle<Result<usize>>,
}

/// What a load has seen.
pub(super) struct Loaded {
    /// Payments that flowed.
    pub(super) payments: usize,
    /// How late commits were readable: by kind, then by phase.
    pub(super) late: [Vec<Vec<Duration>>; KINDS.len()],
}

impl Load {
    /// From now on commits belong to the next phase.
    pub(super) fn next_phase(&self) {
        self.phase.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the flow, and waits until all of it was readable.
    pub(super) async fn end(self) -> Result<Loaded> {
        self.stop.send_replace(true);
        let payments = self.running.await.context("the load ended in a panic")??;
        let late = std::mem::take(&mut *self.seen.0.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Loaded { payments, late })
    }
}

struct Flow {
    views: Views,
    topic: TopicId,
    payments: Payments,
    rate: u32,
    seen: Seen,
    phase: Arc<AtomicUsize>,
}

impl Flow {
    async fn run(mut self, stop: watch::Receiver<bool>) -> Result<usize> {
        let mut clock = tokio::time::interval(Duration::from_secs(1) / COMMITS_PER_SECOND);
        let (begun, mut sent) = (Instant::now(), 0u64);
        let mut looks = tokio::task::JoinSet::new();
        while !*stop.borrow() {
            clock.tick().await;
            // What is due by now, so that a late tick makes up for it.
            let due = (begun.elapsed().as_secs_f64() * f64::from(self.rate)) as u64;
            let count = u32::try_from(due.saturating_sub(sent)).unwrap_or(u32::MAX).min(self.rate);
            if count == 0 {
                continue;
            }
            let batch = self.payments.batch(count, chrono::Utc::now().timestamp_micros());
            let (at, phase) = (Instant::now(), self.phase.load(Ordering::Relaxed));
            let position = append(&self.views, self.topic, batch)?.await?.position;
            sent += u64::from(count);
            for (kind, (_, name)) in KINDS.into_iter().enumerate() {
                let (views, seen) = (self.views.clone(), self.seen.clone());
                looks.spawn(async move {
                    // One that is later still is not left out: it counts as late as it can be.
                    let name = Name::public(name);
                    let shown = readable(&views, &name, position, READABLE_WITHIN).await;
                    seen.add(kind, phase, at.elapsed());
                    shown
                });
            }
            while let Some(looked) = looks.try_join_next() {
                looked??;
            }
        }
        while let Some(looked) = looks.join_next().await {
            looked??;
        }
        ensure!(sent > 0, "no payment was due in that time");
        Ok(usize::try_from(sent)?)
    }
}

/// The threads of the runtime, where here only the payments are made and waited for.
const GENERATOR: &str = "tokio-rt-worker";

/// Five views while payments flow: how fresh each is, and what part of a core all of it takes.
pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    let dir = bench.scratch.path().join("example");
    bench.begin(&format!("five views at {RATE} payments/s"));
    let seconds = if bench.quick { FLOWS / 10 } else { FLOWS };
    let (loaded, elapsed, spent) = Handle::current().block_on(async {
        let world = World::start(&dir).await?;
        world.create_views().await?;
        let spent = || Some((usage::cpu_time()?, usage::cpu_time_of(GENERATOR)?));
        let (begun, before) = (Instant::now(), spent());
        let load = world.load(RATE, Payments::new(7, 1));
        tokio::time::sleep(seconds).await;
        let spent = spent().zip(before).map(|(after, before)| {
            let generator = after.1.saturating_sub(before.1);
            ((after.0 - before.0).saturating_sub(generator), generator)
        });
        let (loaded, elapsed) = (load.end().await?, begun.elapsed());
        world.stop().await?;
        anyhow::Ok((loaded, elapsed, spent))
    })?;
    std::fs::remove_dir_all(&dir)?;
    let percent = |time: Duration| time.as_secs_f64() / seconds.as_secs_f64() * 100.0;
    let share = spent.map_or("?".to_owned(), |(views, generator)| {
        format!(
            "{:.0} % of a core, beside {:.0} % of the generator",
            percent(views),
            percent(generator)
        )
    });
    let name = format!("five views at {RATE} payments/s: {share}");
    let all = Outcome { elapsed, records: loaded.payments, ..Outcome::default() };
    report.measured(&name, Durability::Synced, true, all);
    for ((kind, _), phases) in KINDS.into_iter().zip(loaded.late) {
        let latencies = phases.into_iter().flatten().collect();
        let name = format!("five views at {RATE} payments/s, until a commit is readable: {kind}");
        let outcome = Outcome { elapsed, latencies, ..Outcome::default() };
        report.measured(&name, Durability::Synced, false, outcome);
    }
    Ok(())
}
