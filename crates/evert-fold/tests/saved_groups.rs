//! What groups save: an entry a group, a value, a row, and only those that have changed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_fold::{Aggregate, AggregateFunction, Dataflow, Node, Plan, SortKey, Spread, StateSink};
use evert_model::{Delta, LogTime};

#[derive(Default)]
struct Store {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    saved: HashSet<Vec<u8>>,
}

impl StateSink for Store {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        assert!(self.saved.insert(key.to_vec()), "a key is saved twice");
        self.entries.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        assert!(self.saved.insert(key.to_vec()), "a key is saved twice");
        self.entries.remove(key);
    }
}

impl Store {
    /// How many entries a save touches.
    fn save(&mut self, dataflow: &mut Dataflow) -> usize {
        self.saved.clear();
        dataflow.save(self);
        self.saved.len()
    }
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn input() -> SchemaRef {
    schema(&[("g", DataType::Int64), ("v", DataType::Int64), ("f", DataType::Float64)])
}

fn rows(groups: std::ops::Range<i64>, values: std::ops::Range<i64>, weight: i64) -> Vec<Delta> {
    let each: Vec<(i64, i64)> = groups.flat_map(|g| values.clone().map(move |v| (g, v))).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(each.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(each.iter().map(|row| row.1))),
        Arc::new(Float64Array::from_iter_values(each.iter().map(|row| row.1 as f64 / 3.0))),
    ];
    let batch = RecordBatch::try_new(input(), columns).expect("fits");
    vec![Delta::new(batch, Int64Array::from(vec![weight; each.len()]))]
}

fn tracked(node: Node) -> Dataflow {
    let nodes = vec![Node::Input { index: 0, schema: input() }, node];
    let mut dataflow = Dataflow::new(Plan { nodes, output: 1, key: None }).expect("valid");
    assert!(dataflow.track());
    dataflow
}

fn reduce(functions: &[(AggregateFunction, usize)]) -> Node {
    let aggregates = functions.iter().map(|(function, argument)| Aggregate {
        function: function.clone(),
        argument: Some(*argument),
        distinct: false,
        filter: None,
    });
    let mut fields = vec![("g", DataType::Int64)];
    for (function, argument) in functions {
        let ty = function.output_type(Some(input().field(*argument).data_type()));
        fields.push(("a", ty.expect("there is such an aggregate")));
    }
    let aggregates = aggregates.collect();
    Node::Reduce { input: 0, keys: vec![0], aggregates, schema: schema(&fields) }
}

fn first_rows() -> Node {
    let order = vec![SortKey { column: 1, descending: true, nulls_first: false }];
    Node::TopK { input: 0, keys: vec![0], order, skip: 0, limit: Some(3) }
}

fn window() -> Node {
    Node::Window { input: 0, partition: vec![0], order: vec![], functions: vec![], schema: input() }
}

fn tick(dataflow: &mut Dataflow, rows: Vec<Delta>) {
    dataflow.tick(LogTime::default(), &[rows]);
}

#[test]
fn a_group_of_sums_is_one_entry() {
    let spread = AggregateFunction::Spread(Spread::Variance);
    let node = reduce(&[(AggregateFunction::Sum, 2), (AggregateFunction::Avg, 1), (spread, 2)]);
    let (mut dataflow, mut store) = (tracked(node), Store::default());
    tick(&mut dataflow, rows(0..100, 0..50, 1));
    assert_eq!(store.save(&mut dataflow), 100);
    assert_eq!(store.save(&mut dataflow), 0);
    tick(&mut dataflow, rows(7..8, 50..90, 1));
    tick(&mut dataflow, rows(8..9, 0..50, -1));
    tick(&mut dataflow, rows(200..201, 0..1, 1));
    assert_eq!(store.save(&mut dataflow), 3, "one changed, one gone, one new");
    assert_eq!(store.entries.len(), 100);
    tick(&mut dataflow, rows(200..201, 0..1, -1));
    tick(&mut dataflow, rows(200..201, 5..6, 1));
    assert_eq!(store.save(&mut dataflow), 1, "gone and come again");
}

#[test]
fn a_value_of_a_multiset_is_an_entry() {
    let node = reduce(&[(AggregateFunction::Max, 1), (AggregateFunction::Min, 1)]);
    let (mut dataflow, mut store) = (tracked(node), Store::default());
    tick(&mut dataflow, rows(0..10, 0..50, 1));
    assert_eq!(store.save(&mut dataflow), 10 + 500, "min and max share their values");
    tick(&mut dataflow, rows(3..4, 7..9, -1));
    assert_eq!(store.save(&mut dataflow), 1 + 2);
    tick(&mut dataflow, rows(4..5, 0..50, -1));
    tick(&mut dataflow, rows(20..21, 0..1, 1));
    assert_eq!(store.save(&mut dataflow), (1 + 50) + (1 + 1));
    assert_eq!(store.entries.len(), 10 + 500 - 2 - 50 + 1);
}

#[test]
fn values_of_a_group_that_comes_and_goes_between_saves_are_no_entries() {
    let node = reduce(&[(AggregateFunction::Max, 1)]);
    let (mut dataflow, mut store) = (tracked(node), Store::default());
    for group in 0..20 {
        tick(&mut dataflow, rows(group..group + 1, 0..50, 1));
        tick(&mut dataflow, rows(group..group + 1, 0..50, -1));
    }
    tick(&mut dataflow, rows(30..31, 0..50, 1));
    assert_eq!(store.save(&mut dataflow), 20 + 1 + 50, "the groups, and the values of the last");
    assert_eq!(store.entries.len(), 1 + 50);
    // Those of the saved group are to go from the store, those of another are not there.
    tick(&mut dataflow, rows(31..32, 0..50, 1));
    tick(&mut dataflow, rows(30..32, 0..50, -1));
    assert_eq!(store.save(&mut dataflow), 2 + 50);
    assert_eq!(store.entries.len(), 0);
}

#[test]
fn a_row_of_an_order_is_an_entry() {
    for node in [first_rows(), window()] {
        let (mut dataflow, mut store) = (tracked(node), Store::default());
        tick(&mut dataflow, rows(0..10, 0..50, 1));
        assert_eq!(store.save(&mut dataflow), 500);
        assert_eq!(store.save(&mut dataflow), 0);
        tick(&mut dataflow, rows(3..5, 7..9, -1));
        tick(&mut dataflow, rows(3..4, 7..8, 2));
        assert_eq!(store.save(&mut dataflow), 4);
        assert_eq!(store.entries.len(), 500 - 3);
    }
}

#[test]
fn damaged_entries_are_refused_without_a_panic() {
    let max = reduce(&[(AggregateFunction::Sum, 2), (AggregateFunction::Max, 1)]);
    for node in [max, first_rows(), window()] {
        let (mut dataflow, mut store) = (tracked(node.clone()), Store::default());
        tick(&mut dataflow, rows(0..3, 0..4, 1));
        store.save(&mut dataflow);
        let mut refused = 0;
        for (key, value) in &store.entries {
            for cut in 0..key.len() + value.len() {
                let mut other = tracked(node.clone());
                let (key, value) = (&key[..cut.min(key.len())], &value[..cut.min(value.len())]);
                let loaded = other.load(key, value).and_then(|()| other.loaded());
                refused += usize::from(loaded.is_err());
            }
        }
        assert!(refused > 50, "{refused} refused");
    }
}
