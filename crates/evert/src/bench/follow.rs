//! Views over a real log: JSON facts, relations, views on them, and the follower between them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit, Receipt};
use evert_model::Position;
use evert_sql::SqlPlanner;
use evert_view::{Catalog, Name, Relation, RelationKind, RowChange, ViewState, Views};
use tokio::runtime::Handle;

use super::payments::{Ids, MERCHANTS, PAYMENTS, Payments, create_as, merchants};
use super::report::{Durability, Outcome, Report};
use super::views::{BY_CITY, BY_MERCHANT, FILTER};
use super::{Bench, Scratch};

/// Payments of a commit.
const COMMIT_ROWS: usize = 100;
const FRESHNESS_COMMITS: usize = 500;
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
/// Commits that have been asked for and not been waited for.
const IN_FLIGHT: usize = 1000;
/// Between two commits, while rows are looked up: 5,000 payments a second.
const COMMIT_EVERY: Duration = Duration::from_millis(20);
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Catches up with a log from its beginning, then follows it commit by commit.
pub(super) fn items(bench: &Bench, report: &mut Report, catalog: &Catalog) -> Result<()> {
    let rows = bench.records(1_000_000);
    let shapes = [
        ("filter and project", FILTER, RelationKind::Stream),
        ("group by merchant", BY_MERCHANT, RelationKind::Stream),
        ("join merchants, group by city", BY_CITY, RelationKind::Stream),
        ("upsert, group by merchant", BY_MERCHANT, RelationKind::Table),
    ];
    for (shape, sql, kind) in shapes {
        let name = format!("from the log: replay JSON payments, {shape}");
        report.item(bench, &name, Durability::Read, true, || {
            let mut world = World::new(&bench.scratch, catalog, kind)?;
            let view = world.view("replayed", sql)?;
            let ids = if kind == RelationKind::Table { Ids::Known } else { Ids::New };
            let end = world.append(rows, ids)?;
            world.reopen()?;
            let start = Instant::now();
            ensure!(world.visible(&view, end)? > 0, "the view is empty");
            Ok(Outcome::since(start, rows))
        })?;
    }
    let commits = bench.records(FRESHNESS_COMMITS);
    let name = "from the log: commit of 100 JSON payments until its view shows it";
    report.item(bench, name, Durability::Synced, false, || {
        let mut world = World::new(&bench.scratch, catalog, RelationKind::Table)?;
        let view = world.view("by_merchant", BY_MERCHANT)?;
        let mut latencies = Vec::with_capacity(commits);
        for _ in 0..commits {
            let commit = world.commit(Ids::New)?;
            let start = Instant::now();
            let position = world.log.append(commit)?.wait()?.position;
            world.visible(&view, position)?;
            latencies.push(start.elapsed());
        }
        let records = commits * COMMIT_ROWS;
        Ok(Outcome { elapsed: latencies.iter().sum(), records, latencies, ..Outcome::default() })
    })?;
    rebuild(bench, report, catalog)?;
    lookups(bench, report, catalog)
}

/// A new view over facts that have been on disk for long.
fn rebuild(bench: &Bench, report: &mut Report, catalog: &Catalog) -> Result<()> {
    let rows = bench.records(20_000_000);
    bench.begin(&format!("{rows} payments are appended"));
    let mut world = World::new(&bench.scratch, catalog, RelationKind::Stream)?;
    world.append(rows, Ids::New)?;
    report.item(bench, "build a group-by view over facts on disk", Durability::Read, true, || {
        let start = Instant::now();
        let view = world.view("built", BY_MERCHANT)?;
        let mut told = start;
        loop {
            let found = world.views.status().into_iter().find(|status| status.name == view);
            match found.context("the view was made")?.state {
                ViewState::Live => break,
                ViewState::Failed(why) => bail!("the view failed: {why}"),
                state if told.elapsed() > TOLD_EVERY => {
                    told = Instant::now();
                    bench.begin(&format!("a group-by view over {rows} facts: {state}"));
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
        let outcome = Outcome::since(start, rows);
        let shown = world.visible(&view, world.log.end())?;
        ensure!(shown == MERCHANTS as usize, "{shown} merchants");
        world.views.drop(&view, false)?;
        Ok(outcome)
    })
}

/// Rows by their keys, in process, while others change.
fn lookups(bench: &Bench, report: &mut Report, catalog: &Catalog) -> Result<()> {
    let lookups = bench.records(1_000_000);
    let mut world = World::new(&bench.scratch, catalog, RelationKind::Table)?;
    let rows = bench.records(PAYMENTS as usize);
    let end = world.append(rows, Ids::New)?;
    world.visible(&Name::public("payments"), end)?;
    let mut random = fastrand::Rng::with_seed(3);
    let ids: Int64Array = (0..lookups).map(|_| random.i64(0..rows as i64)).collect();
    let schema = Schema::new(vec![Field::new("payment_id", DataType::Int64, false)]);
    let keys = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids) as ArrayRef])?;
    let name = "look up a row of 1,000,000 by its key, in process, at 5,000 payments/s";
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        let views = world.views.clone();
        let flow = threads.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                let due = Instant::now() + COMMIT_EVERY;
                let commit = world.commit(Ids::Among(rows as i64))?;
                world.log.append(commit)?.wait()?;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(())
        });
        let cuts = views.watch();
        let looked_up = report.item(bench, name, Durability::Read, true, || {
            let start = Instant::now();
            for row in 0..lookups {
                let cut = Arc::clone(&cuts.borrow());
                let table = cut.snapshots.get(&Name::public("payments"));
                let found = table.context("the table is there")?.get(&keys, row);
                ensure!(found.is_some(), "a payment is not there");
            }
            Ok(Outcome::since(start, lookups))
        });
        done.store(true, Ordering::Relaxed);
        flow.join().expect("it does not panic").and(looked_up)
    })
}

/// A log with payments and merchants, and views on them.
struct World {
    log: Log,
    views: Views,
    relation: Arc<Relation>,
    payments: Payments,
    dir: PathBuf,
}

impl World {
    /// `kind` is that of the payments; merchants are a table, and all there.
    fn new(scratch: &Scratch, catalog: &Catalog, kind: RelationKind) -> Result<Self> {
        let dir = scratch.path().join("views");
        let log = Log::open(Env::real(), dir.clone(), LogConfig::default())?;
        let views = open(&log)?;
        let relation = create_as(&views, catalog, "payments", kind)?;
        let table = create_as(&views, catalog, "merchants", RelationKind::Table)?;
        let parts = views.encode(&table, &[RowChange::Put(merchants(catalog))])?;
        log.append(NewCommit { parts })?.wait()?;
        Ok(Self { log, views, relation, payments: Payments::new(catalog), dir })
    }

    fn view(&self, name: &str, sql: &str) -> Result<Name> {
        let name = Name::public(name);
        self.views.create_view(name.clone(), sql.to_owned())?;
        Ok(name)
    }

    /// Appends payments; gives where the log ends then.
    fn append(&mut self, rows: usize, ids: Ids) -> Result<Position> {
        let mut receipts: Vec<Receipt> = Vec::with_capacity(IN_FLIGHT);
        for _ in 0..rows / COMMIT_ROWS {
            let commit = self.commit(ids)?;
            receipts.push(self.log.append(commit)?);
            if receipts.len() == IN_FLIGHT {
                receipts.drain(..).try_for_each(|receipt| receipt.wait().map(drop))?;
            }
        }
        receipts.into_iter().try_for_each(|receipt| receipt.wait().map(drop))?;
        Ok(self.log.end())
    }

    fn commit(&mut self, ids: Ids) -> Result<NewCommit> {
        let rows = self.payments.batch(COMMIT_ROWS, ids);
        let parts = self.views.encode(&self.relation, &[RowChange::Put(rows)])?;
        Ok(NewCommit { parts })
    }

    /// Opens the views again, which have nothing but the log to begin with.
    fn reopen(&mut self) -> Result<()> {
        self.views.close();
        self.views = open(&self.log)?;
        Ok(())
    }

    /// Waits until a relation shows `position`; gives how many rows it has.
    fn visible(&self, name: &Name, position: Position) -> Result<usize> {
        let pinned = self.views.pin(std::slice::from_ref(name), position, CATCH_UP_MAX);
        let cut = Handle::current().block_on(pinned)?;
        Ok(cut.snapshots.get(name).context("the cut holds it")?.len())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.views.close();
        self.log.close();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn open(log: &Log) -> Result<Views> {
    Ok(Views::open(Env::real(), log.clone(), Arc::new(SqlPlanner::new()))?)
}
