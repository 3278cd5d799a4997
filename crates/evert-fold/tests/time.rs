//! Time: rows that come and go, and sessions, under random facts with retractions and late rows,
//! random ticks, and states saved and loaded on the way. What is put out must sum to what a plain
//! evaluation over all facts and the time gives, and nothing may happen before it is due.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use evert_fold::{Dataflow, Node, Plan, StateSink};
use evert_model::{Delta, LogTime};
use fastrand::Rng;

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// A row: a key, and two moments that may be NULL.
type Row = (i64, Option<i64>, Option<i64>);

#[derive(Default)]
struct Store(BTreeMap<Vec<u8>, Vec<u8>>);

impl StateSink for Store {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("note", DataType::Utf8View, true),
        Field::new("first", TIME, true),
        Field::new("second", TIME, true),
    ]))
}

fn delta(facts: &[(Row, i64)]) -> Delta {
    let keys: Int64Array = facts.iter().map(|((key, _, _), _)| Some(*key)).collect();
    let notes: StringViewArray =
        facts.iter().map(|((key, _, _), _)| Some(format!("the note of row {key}"))).collect();
    let first: TimestampMicrosecondArray = facts.iter().map(|((_, first, _), _)| *first).collect();
    let second: TimestampMicrosecondArray =
        facts.iter().map(|((_, _, second), _)| *second).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(keys), Arc::new(notes), Arc::new(first), Arc::new(second)];
    let rows = RecordBatch::try_new(schema(), columns).expect("columns of the schema");
    Delta::new(rows, Int64Array::from_iter_values(facts.iter().map(|(_, weight)| *weight)))
}

/// Adds changes up; each row as the values of its columns, but for the note.
fn add(sum: &mut BTreeMap<Vec<Option<i64>>, i64>, changes: &[Delta]) {
    for change in changes {
        let columns = change.rows.columns();
        for row in 0..change.len() {
            let mut values = vec![Some(columns[0].as_primitive::<Int64Type>().value(row))];
            let note = columns[1].as_string_view().value(row);
            assert_eq!(note, format!("the note of row {}", values[0].expect("a key")));
            for column in &columns[2..] {
                let column = column.as_primitive::<TimestampMicrosecondType>();
                values.push(column.is_valid(row).then(|| column.value(row)));
            }
            *sum.entry(values).or_default() += change.weights.value(row);
        }
    }
    sum.retain(|_, weight| *weight != 0);
}

fn column(index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new("", index))
}

fn plan(node: Node) -> Plan {
    let nodes = vec![Node::Input { index: 0, schema: schema() }, node];
    Plan { nodes, output: 1, key: None }
}

fn dataflow(plan: &Plan) -> Dataflow {
    let mut dataflow = Dataflow::new(plan.clone()).expect("a plan");
    assert!(dataflow.track());
    dataflow
}

fn reopened(plan: &Plan, store: &Store) -> Dataflow {
    let mut dataflow = dataflow(plan);
    for (key, value) in &store.0 {
        dataflow.load(key, value).expect("what was saved");
    }
    dataflow.loaded().expect("all that was saved");
    dataflow
}

/// Facts of one tick: new rows, and retractions of rows that are there, also of those long gone.
fn facts(rng: &mut Rng, there: &mut Vec<Row>, now: i64) -> Vec<(Row, i64)> {
    let mut facts = Vec::new();
    for _ in 0..rng.usize(0..8) {
        if !there.is_empty() && rng.u8(0..3) == 0 {
            facts.push((there.swap_remove(rng.usize(0..there.len())), -1));
            continue;
        }
        let mut moment = || (rng.u8(0..12) > 0).then(|| now + rng.i64(-30..30));
        let (first, second) = (moment(), moment());
        let row = (rng.i64(0..4), first, second);
        let times = rng.usize(1..3);
        facts.extend((0..times).map(|_| (row, 1)));
        there.extend((0..times).map(|_| row));
    }
    // Within a tick a row may be retracted before it is inserted.
    rng.shuffle(&mut facts);
    facts
}

/// Runs random ticks; after each, what was put out must sum to `expected`.
fn check(
    seed: u64,
    plan: &Plan,
    expected: impl Fn(&[Row], i64) -> BTreeMap<Vec<Option<i64>>, i64>,
) -> usize {
    let mut rng = Rng::with_seed(seed);
    let (mut flow, mut store) = (dataflow(plan), Store::default());
    let (mut there, mut sum) = (Vec::new(), BTreeMap::new());
    let (mut now, mut moved) = (1_000, 0);
    for _ in 0..60 {
        let pause = rng.choice([0, 1, 3, 40]).expect("there is one");
        if let Some(due) = flow.due() {
            // Nothing happens before it is due; at that moment something does.
            assert!(due.get() > now, "seed {seed}: due at {due}, now {now}");
            if due.get() > now + 1 {
                assert!(flow.tick(LogTime::new(due.get() - 1), &[]).changes.is_empty());
                now = due.get() - 1;
            }
            if due.get() <= now + pause {
                let changes = flow.tick(due, &[]).changes;
                assert!(!changes.is_empty(), "seed {seed}: nothing at {due}");
                add(&mut sum, &changes);
                now = due.get();
                moved += 1;
            }
        }
        now += pause;
        let facts = facts(&mut rng, &mut there, now);
        let output = flow.tick(LogTime::new(now), &[vec![delta(&facts)]]);
        assert!(output.errors.is_empty());
        add(&mut sum, &output.changes);
        assert_eq!(sum, expected(&there, now), "seed {seed} at {now}");
        if rng.u8(0..4) == 0 {
            flow.save(&mut store);
            flow = reopened(plan, &store);
        }
    }
    // With everything retracted nothing is kept.
    let facts: Vec<_> = there.iter().map(|row| (*row, -1)).collect();
    add(&mut sum, &flow.tick(LogTime::new(now), &[vec![delta(&facts)]]).changes);
    assert!(sum.is_empty(), "seed {seed}: {sum:?}");
    flow.save(&mut store);
    assert!(store.0.is_empty(), "seed {seed}: {} entries stay", store.0.len());
    assert!(flow.due().is_none() && flow.state().iter().all(|state| state.rows == 0));
    moved
}

#[test]
fn rows_are_there_while_time_is_in_their_interval() {
    for (from, until) in [(true, true), (true, false), (false, true)] {
        let node = Node::TemporalFilter {
            input: 0,
            from: from.then(|| column(2)),
            until: until.then(|| column(3)),
        };
        let mut moved = 0;
        for seed in 0..40 {
            moved += check(seed, &plan(node.clone()), |rows, now| {
                let mut sum = BTreeMap::new();
                for (key, first, second) in rows {
                    let has_begun = !from || first.is_some_and(|first| first <= now);
                    let is_over = until && second.is_none_or(|second| second <= now);
                    if has_begun && !is_over {
                        *sum.entry(vec![Some(*key), *first, *second]).or_default() += 1;
                    }
                }
                sum
            });
        }
        assert!(moved > 100, "rows came and went by themselves {moved} times");
    }
}

#[test]
fn sessions_grow_merge_and_split() {
    const GAP: i64 = 10;
    let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("window_start", TIME, true));
    fields.push(Field::new("window_end", TIME, true));
    let schema = Arc::new(Schema::new(fields));
    let plan = plan(Node::Session { input: 0, keys: vec![0], time: 2, gap: GAP, schema });
    for seed in 0..80 {
        check(seed, &plan, |rows, _| {
            let mut times: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for (key, time, _) in rows {
                times.entry(*key).or_default().extend(*time);
            }
            times.values_mut().for_each(|times| times.sort_unstable());
            let mut sum = BTreeMap::new();
            for (key, first, second) in rows {
                let Some(time) = *first else { continue };
                let times = &times[key];
                let at = times.binary_search(&time).expect("it is there");
                let apart = |pair: &[i64]| pair[1] - pair[0] >= GAP;
                let start = times[..=at].windows(2).rposition(apart).map_or(0, |i| i + 1);
                let last = times[at..].windows(2).position(apart);
                let last = last.map_or(times.len() - 1, |i| at + i);
                let ends = [Some(times[start]), Some(times[last] + GAP)];
                let row = [&[Some(*key), *first, *second][..], &ends].concat();
                *sum.entry(row).or_default() += 1;
            }
            sum
        });
    }
}

#[test]
fn a_row_that_cannot_be_bounded_is_an_error_until_it_is_retracted() {
    let end_of_time = (1, Some(i64::MAX - 3), None);
    let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.extend(["start", "end"].map(|name| Field::new(name, TIME, true)));
    let schema = Arc::new(Schema::new(fields));
    let mut flow =
        dataflow(&plan(Node::Session { input: 0, keys: vec![0], time: 2, gap: 5, schema }));
    for weight in [1, -1] {
        let output = flow.tick(LogTime::new(0), &[vec![delta(&[(end_of_time, weight)])]]);
        assert!(output.changes.is_empty());
        assert_eq!(output.errors.len(), 1);
        assert_eq!(output.errors[0].weight, weight);
    }
}

#[test]
fn the_end_of_time_does_not_come() {
    let node = Node::TemporalFilter { input: 0, from: Some(column(2)), until: Some(column(3)) };
    let mut flow = dataflow(&plan(node));
    let never = (1, Some(i64::MAX), Some(i64::MAX));
    let for_good = (2, Some(0), Some(i64::MAX));
    let output = flow.tick(LogTime::new(5), &[vec![delta(&[(never, 1), (for_good, 1)])]]);
    assert_eq!(output.changes.iter().map(Delta::len).sum::<usize>(), 1);
    assert_eq!((flow.due(), flow.state()[0].rows), (None, 0));
}

#[test]
fn damaged_entries_are_refused() {
    let flow = |node| Dataflow::new(plan(node)).expect("a plan");
    let node = Node::TemporalFilter { input: 0, from: None, until: Some(column(3)) };
    let mut flow = flow(node);
    for (key, value) in [
        (&[0, 1][..], &[0; 8][..]),
        (&[0, 1, 1], &[0; 8]),
        (&[0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 5]),
        (&[0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 8]),
    ] {
        assert!(flow.load(key, value).is_err(), "{key:?}");
    }
}
