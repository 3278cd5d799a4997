//! Sinks: a table followed into Postgres, beside the same rows sent there by hand.
//!
//! The reference sends batches as large as the sink's to the same server: COPY into a temporary
//! table, then INSERT ... ON CONFLICT from it, in one transaction each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit};
use evert_model::{Position, RowSchema};
use evert_sink::Sinks;
use evert_sql::SqlPlanner;
use evert_view::{
    Catalog, Name, OutletDef, OutletFactory, OutletKind, RowChange, Views, write_text,
};
use futures::SinkExt;
use tokio_postgres::{Client, NoTls};

use super::payments::{Ids, Payments, catalog, new_relation};
use super::report::{Durability, Outcome, Report};
use super::{Bench, Scratch};

const TABLE: &str = "evert_bench_payments";
const REFERENCE: &str = "evert_bench_reference";
/// As many rows as the sink writes at once.
const ROWS_AT_ONCE: usize = 20_000;
const REACH_WITHIN: Duration = Duration::from_secs(600);

/// Upserts of known payments into a Postgres at `url`, in tables that are made and dropped.
pub(super) fn items(bench: &Bench, report: &mut Report, url: &str) -> Result<()> {
    let catalog = catalog();
    let rows = bench.records(400_000);
    let batches = Payments::new(&catalog).batches(rows, Ids::Known);
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let name = "sink: payments into Postgres, from the log";
    report.item(bench, name, Durability::Synced, true, || {
        let world = World::new(&bench.scratch, &catalog, url)?;
        let start = Instant::now();
        let end = world.append(&batches)?;
        world.reached(end)?;
        Ok(Outcome::since(start, rows))
    })?;
    let schema = &catalog.relations[&Name::public("payments")].schema;
    let name = "reference: the same by COPY and INSERT ... ON CONFLICT";
    report.item(bench, name, Durability::Synced, true, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = connect(url).await?;
            let made = format!(
                "DROP TABLE IF EXISTS {REFERENCE}; CREATE TABLE {REFERENCE} (LIKE {TABLE} \
                 INCLUDING ALL); CREATE TEMPORARY TABLE staged ON COMMIT DELETE ROWS AS SELECT * \
                 FROM {REFERENCE} WITH NO DATA"
            );
            client.batch_execute(&made).await?;
            let start = Instant::now();
            send(&client, schema, &batches).await?;
            let outcome = Outcome::since(start, rows);
            client.batch_execute(&format!("DROP TABLE {REFERENCE}")).await?;
            Ok(outcome)
        })
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = connect(url).await?;
        let gone =
            format!("DROP TABLE {TABLE}; DELETE FROM evert_sink_positions WHERE sink = 'bench'");
        client.batch_execute(&gone).await?;
        Ok(())
    })
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to Postgres")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn send(client: &Client, schema: &RowSchema, batches: &[RecordBatch]) -> Result<()> {
    let names: Vec<_> = schema.columns.iter().map(|column| column.name.as_str()).collect();
    let key: Vec<_> = schema.key.iter().map(|&index| names[index]).collect();
    let sets = names.iter().map(|name| format!("{name} = EXCLUDED.{name}"));
    // Of a key that is there twice the last row counts.
    let upsert = format!(
        "INSERT INTO {REFERENCE} SELECT DISTINCT ON ({key}) * FROM staged ORDER BY {key}, ctid \
         DESC ON CONFLICT ({key}) DO UPDATE SET {}; COMMIT",
        sets.collect::<Vec<_>>().join(", "),
        key = key.join(", "),
    );
    let (mut text, mut rows) = (String::new(), 0);
    for batch in batches {
        write_lines(schema, batch, &mut text);
        rows += batch.num_rows();
        if rows >= ROWS_AT_ONCE {
            flush(client, std::mem::take(&mut text), &upsert).await?;
            rows = 0;
        }
    }
    flush(client, text, &upsert).await
}

fn write_lines(schema: &RowSchema, batch: &RecordBatch, text: &mut String) {
    for row in 0..batch.num_rows() {
        for (index, column) in schema.columns.iter().enumerate() {
            text.push_str(if index > 0 { "\t" } else { "" });
            match batch.column(index).is_null(row) {
                true => text.push_str("\\N"),
                false => write_text(batch.column(index), column.ty, row, text),
            }
        }
        text.push('\n');
    }
}

async fn flush(client: &Client, text: String, upsert: &str) -> Result<()> {
    client.batch_execute("BEGIN").await?;
    let mut copy = Box::pin(client.copy_in("COPY staged FROM STDIN").await?);
    copy.send(Bytes::from(text)).await?;
    copy.as_mut().finish().await?;
    client.batch_execute(upsert).await?;
    Ok(())
}

/// A log with a table of payments and a sink of it that has caught up.
struct World {
    log: Log,
    views: Views,
    dir: std::path::PathBuf,
}

fn sink() -> Name {
    Name::public("bench")
}

impl World {
    fn new(scratch: &Scratch, catalog: &Catalog, url: &str) -> Result<Self> {
        let dir = scratch.path().join("sinks");
        let log = Log::open(Env::real(), dir.clone(), LogConfig::default())?;
        let views = Views::open(Env::real(), log.clone(), Arc::new(SqlPlanner::new()))?;
        let payments = &catalog.relations[&Name::public("payments")];
        views.create_relation(new_relation(payments))?;
        let sinks: Arc<dyn OutletFactory> = Arc::new(Sinks::new(log.id()));
        views.serve_outlets([(OutletKind::Sink, sinks)])?;
        let options = serde_json::json!({
            "into": "postgres", "url": url, "table": [TABLE],
            "with": { "create": "on", "existing": "replace" },
        });
        let def = OutletDef::new(sink(), OutletKind::Sink, payments.name.clone(), options);
        let created = views.create_outlet(def)?;
        let world = Self { log, views, dir };
        world.reached(created)?;
        Ok(world)
    }

    fn append(&self, batches: &[RecordBatch]) -> Result<Position> {
        let catalog = self.views.catalog();
        let relation =
            catalog.relations.get(&Name::public("payments")).context("the table was made")?;
        let mut end = Position::ZERO;
        for batch in batches {
            let parts = self.views.encode(relation, &[RowChange::Put(batch.clone())])?;
            end = self.log.append(NewCommit { parts })?.wait()?.position;
        }
        Ok(end)
    }

    /// Waits until the sink has stored everything up to a position.
    fn reached(&self, position: Position) -> Result<()> {
        let until = Instant::now() + REACH_WITHIN;
        loop {
            let reached = self.views.outlet_reached(&sink()).context("the sink is there")?;
            if *reached.borrow() >= position {
                return Ok(());
            }
            let state = self.views.status().into_iter().find(|status| status.name == sink());
            let state = state.map(|status| status.state.to_string()).unwrap_or_default();
            ensure!(Instant::now() < until && !state.starts_with("failed"), "the sink is {state}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.views.close();
        self.log.close();
        // What is left goes with the scratch directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
