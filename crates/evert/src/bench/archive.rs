//! An archive that catches up with a log of JSON payments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit};
use evert_sql::SqlPlanner;
use evert_view::{Name, OutletDef, OutletFactory, OutletKind, RowChange, Views};
use serde_json::json;

use super::Bench;
use super::payments::{Ids, Payments, catalog, create};
use super::report::{Durability, Outcome, Report};
use crate::lake;

const COMMIT_ROWS: usize = 1000;
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// From JSON records in the log to committed Iceberg snapshots.
pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    let rows = bench.records(2_000_000);
    let name = "archive: JSON payments of the log into an Iceberg table";
    report.item(bench, name, Durability::Synced, true, || {
        let dir = bench.scratch.path().join("archive");
        let log = Log::open(Env::real(), dir.join("log"), LogConfig::default())?;
        let views = Views::open(Env::real(), log.clone(), Arc::new(SqlPlanner::new()))?;
        let outcome = archived(&log, &views, dir.join("lake"), rows);
        views.close();
        log.close();
        std::fs::remove_dir_all(&dir)?;
        outcome
    })
}

fn archived(log: &Log, views: &Views, root: std::path::PathBuf, rows: usize) -> Result<Outcome> {
    let archives = lake::archives(Env::real(), views, root);
    let factory: Arc<dyn OutletFactory> = Arc::new(archives.clone());
    views.serve_outlets([(OutletKind::Archive, factory)])?;
    let payments = append(log, views, rows)?;
    let end = log.end();
    let name = Name::public("archive");
    let options = json!({ "to": "payments", "with": { "flush_interval": "1s" } });
    let begun = Instant::now();
    views.create_outlet(OutletDef::new(name.clone(), OutletKind::Archive, payments, options))?;
    while views.outlet_reached(&name).is_none_or(|reached| *reached.borrow() < end) {
        ensure!(begun.elapsed() < CATCH_UP_MAX, "the archive does not catch up");
        std::thread::sleep(LOOK_EVERY);
    }
    let outcome = Outcome::since(begun, rows);
    let table = archives.table(&name).context("the archive is open")?;
    let stored: u64 = table.files.iter().map(|file| file.rows).sum();
    ensure!(stored == rows as u64, "{stored} rows of {rows} are stored");
    Ok(outcome)
}

fn append(log: &Log, views: &Views, rows: usize) -> Result<Name> {
    let catalog = catalog();
    let relation = create(views, &catalog)?;
    let mut made = Payments::new(&catalog);
    let mut last = None;
    for _ in 0..rows / COMMIT_ROWS {
        let batch = made.batch(COMMIT_ROWS, Ids::New);
        let parts = views.encode(&relation, &[RowChange::Put(batch)])?;
        last = Some(log.append(NewCommit { parts })?);
    }
    last.context("there are rows")?.wait()?;
    Ok(relation.name.clone())
}
