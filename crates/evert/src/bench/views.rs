//! Views: decoded rows through a view's plan into what readers see, on one thread.
//!
//! Plans come from SQL as those of `CREATE MATERIALIZED VIEW` do; each tick is folded, applied to
//! the published rows, and a snapshot is taken. The log and decoding are in `follow`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{BooleanArray, RecordBatch};
use evert_fold::{Arrangement, Dataflow, Upsert, UpsertBatch};
use evert_model::{Delta, LogTime};
use evert_sql::SqlPlanner;
use evert_view::{Catalog, Name, Planner};

use super::payments::{Ids, Payments, catalog, merchants};
use super::report::{Durability, Outcome, Report};
use super::{Bench, follow, nexmark};

/// Batches folded in one tick, as a follower that is behind cuts them.
const TICK_BATCHES: usize = 8;
const SMALL_TICKS: usize = 2000;
const SMALL_TICK_ROWS: usize = 100;

const FILTER: &str = "SELECT payment_id, merchant_id, amount * 2 AS twice FROM payments \
                      WHERE status = 'captured'";
const BY_MERCHANT: &str =
    "SELECT merchant_id, count(*), sum(amount) FROM payments GROUP BY merchant_id";
const BY_PAYMENT: &str =
    "SELECT payment_id, count(*), sum(amount) FROM payments GROUP BY payment_id";
const BY_CITY: &str = "SELECT m.city, count(*), sum(p.amount) FROM payments p \
                       JOIN merchants m ON p.merchant_id = m.merchant_id GROUP BY m.city";

pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    let catalog = catalog();
    // As in a server.
    evert_view::merge_beside_ticks();
    let rows = bench.records(4_000_000);
    bench.begin("making payments");
    let new = Payments::new(&catalog).batches(rows, Ids::New);
    let known = Payments::new(&catalog).batches(rows, Ids::Known);
    let streams = [
        ("filter and project", FILTER, &new),
        ("group by 10,000 merchants: count, sum", BY_MERCHANT, &new),
        ("group by 1,000,000 payments: count, sum", BY_PAYMENT, &known),
        ("join 10,000 merchants, group by city", BY_CITY, &new),
    ];
    for (name, sql, batches) in streams {
        report.item(bench, name, Durability::Memory, true, || {
            let mut view = View::new(&catalog, sql)?;
            let start = Instant::now();
            let rows = view.fold(batches);
            let outcome = Outcome::since(start, rows);
            view.check(batches)?;
            Ok(outcome)
        })?;
    }
    report.item(
        bench,
        "upsert 1,000,000 payments, group by merchant",
        Durability::Memory,
        true,
        || {
            let mut view = View::new(&catalog, BY_MERCHANT)?;
            let mut table = view.table(&catalog)?;
            let start = Instant::now();
            let rows = view.fold_upserts(&mut table, &known);
            Ok(Outcome::since(start, rows))
        },
    )?;
    small_ticks(bench, report, &catalog, &known)?;
    drop((new, known));
    follow::items(bench, report, &catalog, BY_MERCHANT)?;
    nexmark::items(bench, report)
}

/// Ticks of 100 rows on state of a million keys.
fn small_ticks(
    bench: &Bench,
    report: &mut Report,
    catalog: &Catalog,
    known: &[RecordBatch],
) -> Result<()> {
    let ticks = bench.records(SMALL_TICKS);
    let views = [
        ("ticks of 100 rows: group by 1,000,000 payments", BY_PAYMENT),
        ("ticks of 100 rows: join 10,000 merchants, group by city", BY_CITY),
    ];
    for (name, sql) in views {
        report.item(bench, name, Durability::Memory, false, || {
            let mut view = View::new(catalog, sql)?;
            view.fold(known);
            let mut payments = Payments::new(catalog);
            let tick = |view: &mut View| {
                let batch = payments.batch(SMALL_TICK_ROWS, Ids::Known);
                let start = Instant::now();
                view.tick(vec![Delta::inserts(batch)]);
                start.elapsed()
            };
            Ok(ticks_of(ticks, &mut view, tick))
        })?;
    }
    let name = "ticks of 100 rows: upsert 1,000,000 payments, group by merchant";
    report.item(bench, name, Durability::Memory, false, || {
        let mut view = View::new(catalog, BY_MERCHANT)?;
        let mut table = view.table(catalog)?;
        view.fold_upserts(&mut table, known);
        let mut payments = Payments::new(catalog);
        let tick = |view: &mut View| {
            let batch = upserts(&payments.batch(SMALL_TICK_ROWS, Ids::Known));
            let start = Instant::now();
            let change = table.apply(&[batch]);
            std::hint::black_box(table.snapshot());
            view.tick(vec![change]);
            start.elapsed()
        };
        Ok(ticks_of(ticks, &mut view, tick))
    })
}

fn ticks_of(ticks: usize, view: &mut View, tick: impl FnMut(&mut View) -> Duration) -> Outcome {
    let mut tick = tick;
    let latencies: Vec<Duration> = (0..ticks).map(|_| tick(view)).collect();
    let records = ticks * SMALL_TICK_ROWS;
    Outcome { elapsed: latencies.iter().sum(), records, bytes: None, latencies }
}

/// A view and what it publishes.
struct View {
    dataflow: Dataflow,
    published: Arrangement,
    /// Which of the plan's inputs the payments are.
    payments: usize,
    inputs: usize,
}

impl View {
    fn new(catalog: &Catalog, sql: &str) -> Result<Self> {
        let planned = SqlPlanner::new().plan_view(sql, catalog)?;
        let schema = planned.plan.output_schema()?;
        let published = match &planned.plan.key {
            Some(key) => Arrangement::keyed(schema, key.clone()),
            None => Arrangement::bag(schema),
        };
        let place = |name| planned.inputs.iter().position(|input| *input == Name::public(name));
        let payments = place("payments").context("the view reads payments")?;
        let inputs = planned.inputs.len();
        let mut view = Self { dataflow: Dataflow::new(planned.plan)?, published, payments, inputs };
        if let Some(at) = place("merchants") {
            let mut deltas = vec![Vec::new(); inputs];
            deltas[at].push(Delta::inserts(merchants(catalog)));
            view.fold_tick(&deltas);
        }
        Ok(view)
    }

    fn table(&self, catalog: &Catalog) -> Result<Upsert> {
        let payments = catalog.relations.get(&Name::public("payments"));
        let schema = &payments.context("payments are in the catalog")?.schema;
        Ok(Upsert::new(schema.to_arrow(), schema.key.clone()))
    }

    fn tick(&mut self, payments: Vec<Delta>) {
        let mut deltas = vec![Vec::new(); self.inputs];
        deltas[self.payments] = payments;
        self.fold_tick(&deltas);
    }

    fn fold_tick(&mut self, deltas: &[Vec<Delta>]) {
        let output = self.dataflow.tick(LogTime::default(), deltas);
        self.published.apply(&output.changes);
        std::hint::black_box(self.published.snapshot());
    }

    /// Folds insertions; gives how many rows they were.
    fn fold(&mut self, batches: &[RecordBatch]) -> usize {
        for tick in batches.chunks(TICK_BATCHES) {
            self.tick(tick.iter().cloned().map(Delta::inserts).collect());
        }
        row_count(batches)
    }

    fn fold_upserts(&mut self, table: &mut Upsert, batches: &[RecordBatch]) -> usize {
        for tick in batches.chunks(TICK_BATCHES) {
            let upserts: Vec<_> = tick.iter().map(upserts).collect();
            let change = table.apply(&upserts);
            std::hint::black_box(table.snapshot());
            self.tick(vec![change]);
        }
        row_count(batches)
    }

    /// A benchmark of a wrong answer is worth nothing: groups count as many rows as were folded.
    fn check(&self, batches: &[RecordBatch]) -> Result<()> {
        let snapshot = self.published.snapshot();
        ensure!(!snapshot.is_empty(), "the view is empty");
        let Some(count) = snapshot.schema().fields().iter().position(|f| f.name() == "count")
        else {
            return Ok(());
        };
        let counted: i64 = snapshot
            .scan(Some(&[count]))
            .map(|batch| {
                use arrow::array::AsArray;
                let counts = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
                counts.values().iter().sum::<i64>()
            })
            .sum();
        ensure!(counted == row_count(batches) as i64, "{counted} rows were counted");
        Ok(())
    }
}

fn row_count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn upserts(batch: &RecordBatch) -> UpsertBatch {
    let live = BooleanArray::from(vec![true; batch.num_rows()]);
    UpsertBatch { rows: batch.clone(), live }
}
