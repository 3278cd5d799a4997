//! Views: decoded rows through a view's plan into what readers see, on one thread.
//!
//! Plans come from SQL as those of `CREATE MATERIALIZED VIEW` do; each tick is folded, applied to
//! the published rows, and a snapshot is taken. The log and decoding are in `follow`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use evert_fold::{Arrangement, Dataflow, Upsert, UpsertBatch};
use evert_model::{Delta, LogTime};
use evert_sql::{SqlPlanner, evaluate_batch};
use evert_view::{Catalog, Name, Planner};
use tokio::runtime::Handle;

use super::payments::{BATCH_ROWS, Ids, Payments, catalog, merchants};
use super::report::{Durability, Outcome, Report};
use super::{Bench, follow, nexmark, usage};

/// Batches folded in one tick, as a follower that is behind cuts them.
const TICK_BATCHES: usize = 8;
const SMALL_TICKS: usize = 2000;
const SMALL_TICK_ROWS: usize = 100;

pub(super) const FILTER: &str = "SELECT payment_id, merchant_id, amount * 2 AS twice FROM payments \
                      WHERE status = 'captured'";
pub(super) const BY_MERCHANT: &str =
    "SELECT merchant_id, count(*), sum(amount) FROM payments GROUP BY merchant_id";
const BY_PAYMENT: &str =
    "SELECT payment_id, count(*), sum(amount) FROM payments GROUP BY payment_id";
pub(super) const BY_CITY: &str = "SELECT m.city, count(*), sum(p.amount) FROM payments p \
                       JOIN merchants m ON p.merchant_id = m.merchant_id GROUP BY m.city";

pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    // First: what others have freed would be used again.
    table_memory(bench, report);
    let catalog = Arc::new(catalog());
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
        let tables = HashMap::from([
            (Name::public("payments"), batches.clone()),
            (Name::public("merchants"), vec![merchants(&catalog)]),
        ]);
        let rows = row_count(batches);
        reference(bench, report, (name, rows), (sql, &catalog, &tables))?;
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
    follow::items(bench, report, &catalog)?;
    nexmark::items(bench, report)
}

/// A batch answer of the same rows: what a query costs that is run again instead of kept.
pub(super) fn reference(
    bench: &Bench,
    report: &mut Report,
    (name, rows): (&str, usize),
    (sql, catalog, tables): (&str, &Arc<Catalog>, &HashMap<Name, Vec<RecordBatch>>),
) -> Result<()> {
    let name = format!("{name}: DataFusion, one answer over all rows");
    report.item(bench, &name, Durability::Memory, true, || {
        let start = Instant::now();
        let found = Handle::current().block_on(evaluate_batch(sql, catalog, tables))?;
        std::hint::black_box(found);
        Ok(Outcome::since(start, rows))
    })
}

/// What a table's rows take in memory, beside what they are.
fn table_memory(bench: &Bench, report: &mut Report) {
    const ROW_BYTES: usize = 120;
    let rows = bench.records(1_000_000);
    bench.begin("a table's memory");
    let fields = [
        Field::new("id", DataType::Int64, false),
        Field::new("account", DataType::Int64, false),
        Field::new("amount", DataType::Int64, false),
        Field::new("email", DataType::Utf8View, false),
        Field::new("note", DataType::Utf8View, false),
    ];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let mut table = Upsert::new(Arc::clone(&schema), vec![0]);
    let before = usage::memory();
    let start = Instant::now();
    for first in (0..rows).step_by(BATCH_ROWS) {
        let ids = first as i64..rows.min(first + BATCH_ROWS) as i64;
        let text = |ids: Range<i64>, width: usize| -> StringViewArray {
            ids.map(|id| Some(format!("{id:0width$}"))).collect()
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ids.clone().collect::<Int64Array>()),
            Arc::new(ids.clone().map(|id| id % 1000).collect::<Int64Array>()),
            Arc::new(ids.clone().map(|id| id * 7).collect::<Int64Array>()),
            Arc::new(text(ids.clone(), 40)),
            Arc::new(text(ids, ROW_BYTES - 3 * 8 - 40)),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns that fit");
        table.apply(&[upserts(&rows)]);
    }
    let outcome = Outcome::since(start, rows);
    let (Some(before), Some(after)) = (before, usage::memory()) else { return };
    let row = after.saturating_sub(before) as f64 / rows as f64;
    let times = row / ROW_BYTES as f64;
    let name = format!(
        "a table of rows of 5 columns, {ROW_BYTES} B: {row:.0} B a row in memory ({times:.1}x)"
    );
    report.measured(&name, Durability::Memory, true, outcome);
    std::hint::black_box(table.snapshot());
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
    Outcome { elapsed: latencies.iter().sum(), records, latencies, ..Outcome::default() }
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
