//! Views over a real log: JSON facts, a table, a view on it, and the follower between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit};
use evert_model::Position;
use evert_sql::SqlPlanner;
use evert_view::{Catalog, Name, RowChange, Views};
use tokio::runtime::Runtime;

use super::payments::{Ids, Payments, new_relation};
use super::report::{Durability, Outcome, Report};
use super::{Bench, Scratch};

/// Payments of a commit.
const COMMIT_ROWS: usize = 100;
const FRESHNESS_COMMITS: usize = 500;
const CATCH_UP_MAX: Duration = Duration::from_secs(600);

/// Catches up with a log from its beginning, then follows it commit by commit.
pub(super) fn items(
    bench: &Bench,
    report: &mut Report,
    catalog: &Catalog,
    view_sql: &str,
) -> Result<()> {
    let rows = bench.records(1_000_000);
    let name = "from the log: replay JSON payments into table and view";
    report.item(bench, name, Durability::Read, true, || {
        let world = World::new(&bench.scratch, catalog, view_sql)?;
        world.append(&mut Payments::new(catalog), rows)?;
        let end = world.log.end();
        world.views.close();
        let start = Instant::now();
        let views = Views::open(Env::real(), world.log.clone(), Arc::new(SqlPlanner::new()))?;
        let len = world.visible(&views, end)?;
        let outcome = Outcome::since(start, rows);
        views.close();
        ensure!(len > 0, "the view is empty");
        Ok(outcome)
    })?;
    let commits = bench.records(FRESHNESS_COMMITS);
    let name = "from the log: commit of 100 JSON payments until its view shows it";
    report.item(bench, name, Durability::Synced, false, || {
        let world = World::new(&bench.scratch, catalog, view_sql)?;
        let mut payments = Payments::new(catalog);
        let mut latencies = Vec::with_capacity(commits);
        for _ in 0..commits {
            let commit = world.commit(&mut payments)?;
            let start = Instant::now();
            let position = world.log.append(commit)?.wait()?.position;
            world.visible(&world.views, position)?;
            latencies.push(start.elapsed());
        }
        world.views.close();
        let records = commits * COMMIT_ROWS;
        Ok(Outcome { elapsed: latencies.iter().sum(), records, bytes: None, latencies })
    })
}

/// A log with a table of payments and a view on it.
struct World {
    log: Log,
    views: Views,
    view: Name,
    runtime: Runtime,
    dir: std::path::PathBuf,
}

impl World {
    fn new(scratch: &Scratch, catalog: &Catalog, view_sql: &str) -> Result<Self> {
        let dir = scratch.path().join("views");
        let log = Log::open(Env::real(), dir.clone(), LogConfig::default())?;
        let views = Views::open(Env::real(), log.clone(), Arc::new(SqlPlanner::new()))?;
        let payments = &catalog.relations[&Name::public("payments")];
        views.create_relation(new_relation(payments))?;
        let view = Name::public("by_merchant");
        views.create_view(view.clone(), view_sql.to_owned())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { log, views, view, runtime, dir })
    }

    fn append(&self, payments: &mut Payments, rows: usize) -> Result<()> {
        let commits =
            (0..rows / COMMIT_ROWS).map(|_| Ok(self.log.append(self.commit(payments)?)?));
        let receipts: Vec<_> = commits.collect::<Result<_>>()?;
        for receipt in receipts {
            receipt.wait()?;
        }
        Ok(())
    }

    fn commit(&self, payments: &mut Payments) -> Result<NewCommit> {
        let catalog = self.views.catalog();
        let relation = catalog.relations.get(&Name::public("payments"));
        let rows = payments.batch(COMMIT_ROWS, Ids::New);
        let relation = relation.context("the table was made")?;
        let parts = self.views.encode(relation, &[RowChange::Put(rows)])?;
        Ok(NewCommit { parts })
    }

    /// Waits until the view shows `position`; gives how many rows it has.
    fn visible(&self, views: &Views, position: Position) -> Result<usize> {
        let names = std::slice::from_ref(&self.view);
        let cut = self.runtime.block_on(views.pin(names, position, CATCH_UP_MAX))?;
        let snapshot = cut.snapshots.get(&self.view).context("the cut holds the view")?;
        Ok(snapshot.len())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.views.close();
        self.log.close();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
