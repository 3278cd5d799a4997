//! Merges beside the ticks: rows stay what they were, snapshots too, and no tick is long.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use evert_fold::{Snapshot, Upsert, UpsertBatch, Work, lend_threads};
use evert_model::Delta;

/// Some work is lost: then it is done within a tick.
fn lend() {
    fn run(work: Work) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        match COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 5 {
            4 => drop(work),
            _ => drop(std::thread::spawn(work)),
        }
    }
    lend_threads(run);
}

fn schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![field("key"), field("a"), field("b"), field("c")]))
}

fn batch(rows: &[(i64, i64)], live: Vec<bool>) -> UpsertBatch {
    let column = |of: &dyn Fn(&(i64, i64)) -> i64| -> Arc<Int64Array> {
        Arc::new(rows.iter().map(of).collect())
    };
    let (value, double) = (column(&|row| row.1), column(&|row| row.1.wrapping_mul(2)));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![column(&|row| row.0), Arc::clone(&value) as _, double, value];
    let rows = RecordBatch::try_new(schema(), columns).expect("rows that fit");
    UpsertBatch { rows, live: BooleanArray::from(live) }
}

fn rows_of(deltas: impl Iterator<Item = Delta>) -> Vec<(i64, i64, i64)> {
    let mut rows = Vec::new();
    for delta in deltas {
        let column = |at: usize| delta.rows.column(at).as_primitive::<Int64Type>().clone();
        let (key, value, double) = (column(0), column(1), column(2));
        for row in 0..delta.len() {
            assert_eq!(double.value(row), value.value(row).wrapping_mul(2));
            rows.push((key.value(row), value.value(row), delta.weights.value(row)));
        }
    }
    rows
}

fn check(snapshot: &Snapshot, model: &BTreeMap<i64, i64>) {
    let mut rows = rows_of(snapshot.as_deltas());
    rows.sort_unstable();
    let expected: Vec<_> = model.iter().map(|(&key, &value)| (key, value, 1)).collect();
    assert!(rows == expected, "{} rows, {} expected", rows.len(), expected.len());
    assert_eq!(snapshot.len(), model.len());
}

#[test]
fn rows_and_snapshots_are_right_while_runs_are_merged() {
    lend();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut table = Upsert::new(schema(), vec![0]);
    let mut model = BTreeMap::new();
    let mut kept: Vec<(Snapshot, BTreeMap<i64, i64>)> = Vec::new();
    for step in 0..900 {
        // Large ticks first, then small ones, so that merges are met at every stage.
        let count = if step < 60 { 8000 } else { rng.usize(1..600) };
        let keys = if step < 60 { 400_000 } else { 120_000 };
        let mut rows = Vec::new();
        let mut live = Vec::new();
        for _ in 0..count {
            let (key, value) = (rng.i64(0..keys), rng.i64(..));
            let lives = rng.u8(0..10) < 8;
            rows.push((key, value));
            live.push(lives);
            if lives {
                model.insert(key, value);
            } else {
                model.remove(&key);
            }
        }
        table.apply(&[batch(&rows, live)]);
        if step % 60 == 0 {
            kept.push((table.snapshot(), model.clone()));
        }
        if step == 700 {
            table.truncate();
            model.clear();
        }
    }
    check(&table.snapshot(), &model);
    for (snapshot, model) in &kept {
        check(snapshot, model);
    }
    // What turns one snapshot into another, though runs were half moved at both.
    for pair in kept.windows(2) {
        let ((before, old), (after, new)) = (&pair[0], &pair[1]);
        let mut rows: BTreeMap<(i64, i64), i64> = BTreeMap::new();
        let old = old.iter().map(|(&key, &value)| (key, value, 1));
        for (key, value, weight) in old.chain(rows_of(after.changes_since(before).into_iter())) {
            *rows.entry((key, value)).or_default() += weight;
        }
        rows.retain(|_, weight| *weight != 0);
        let expected = new.iter().map(|(&key, &value)| ((key, value), 1)).collect();
        assert!(rows == expected);
    }
    for key in (0..400_000).step_by(997) {
        let wanted = batch(&[(key, 0)], vec![true]).rows.project(&[0]).expect("rows that fit");
        let found = table.snapshot().get(&wanted, 0);
        let found = found.map(|row| row.column(1).as_primitive::<Int64Type>().value(0));
        assert_eq!(found, model.get(&key).copied());
    }
}
