//! Unnest: a row for each element, lists side by side.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Int64Array, ListArray, RecordBatch,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use evert_fold::{Dataflow, FoldError, Node, Plan};
use evert_model::{Delta, LogTime};

type List = Option<Vec<Option<i64>>>;
/// (id, element of a, element of b, weight)
type Unnested = (i64, Option<i64>, Option<i64>, i64);

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

fn input(rows: &[(i64, List, List)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let a = ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|row| row.1.clone()));
    let b = rows.iter().map(|row| {
        let narrow =
            |list: Vec<Option<i64>>| list.into_iter().map(|v| v.map(|v| v as i32)).collect();
        row.2.clone().map(narrow) as Option<Vec<Option<i32>>>
    });
    let b = ListArray::from_iter_primitive::<Int32Type, _, _>(b);
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(a), Arc::new(b)];
    RecordBatch::try_new(input_schema(), columns).expect("columns fit")
}

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("a", list_of(DataType::Int64), true),
        Field::new("b", list_of(DataType::Int32), true),
    ]))
}

/// Elements of `b` come as wider integers than they are in their list.
fn plan(keep_empty: bool) -> Plan {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
    ]));
    let input = Node::Input { index: 0, schema: input_schema() };
    let unnest = Node::Unnest { input: 0, columns: vec![1, 2], keep_empty, schema };
    Plan { nodes: vec![input, unnest], output: 1, key: None }
}

fn tick(keep_empty: bool, delta: Delta) -> Vec<Unnested> {
    let mut dataflow = Dataflow::new(plan(keep_empty)).expect("valid");
    let output = dataflow.tick(LogTime::default(), &[vec![delta]]);
    assert_eq!(output.failed, None);
    let mut rows = Vec::new();
    for delta in output.changes {
        let column = |i: usize| delta.rows.column(i).as_primitive::<Int64Type>().clone();
        let (id, a, b) = (column(0), column(1), column(2));
        let at = |column: &Int64Array, row| column.is_valid(row).then(|| column.value(row));
        rows.extend(
            (0..delta.len()).map(|i| (id.value(i), at(&a, i), at(&b, i), delta.weights.value(i))),
        );
    }
    rows
}

#[test]
fn lists_stand_side_by_side_and_the_shorter_is_padded() {
    let list = |values: &[i64]| Some(values.iter().copied().map(Some).collect::<Vec<_>>());
    let rows = [
        (1, list(&[10, 11]), list(&[20])),
        (2, None, list(&[])),
        (3, list(&[]), Some(vec![None, Some(30)])),
        (4, None, None),
    ];
    let weights = Int64Array::from(vec![1, 1, -2, 1]);
    // A slice, so that the lists do not begin at their first element.
    let delta = Delta::new(input(&rows).slice(1, 3), weights.slice(1, 3));
    assert_eq!(tick(false, delta), [(3, None, None, -2), (3, None, Some(30), -2)]);
    let delta = Delta::new(input(&rows), weights);
    let expected = [
        (1, Some(10), Some(20), 1),
        (1, Some(11), None, 1),
        (2, None, None, 1),
        (3, None, None, -2),
        (3, None, Some(30), -2),
        (4, None, None, 1),
    ];
    assert_eq!(tick(true, delta), expected);
}

#[test]
fn long_lists_lose_nothing_where_batches_are_cut() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut expected = Vec::new();
    let mut rows = Vec::new();
    for id in 0..400 {
        let length = if rng.u8(0..20) == 0 { rng.usize(0..30_000) } else { rng.usize(0..100) };
        let list: Vec<Option<i64>> =
            (0..length as i64).map(|i| (rng.u8(0..10) > 0).then_some(i)).collect();
        expected.extend(list.iter().map(|&element| (id, element, None, 1)));
        rows.push((id, Some(list), None));
    }
    let mut got = tick(false, Delta::inserts(input(&rows)));
    got.sort_unstable();
    expected.sort_unstable();
    assert!(got == expected);
}

#[test]
fn a_null_list_of_fixed_size_has_no_elements() {
    let lists = [Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(3)])];
    let lists = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(lists, 2);
    let schema = Arc::new(Schema::new(vec![Field::new("a", lists.data_type().clone(), true)]));
    let output = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let input = Node::Input { index: 0, schema: schema.clone() };
    let unnest = Node::Unnest { input: 0, columns: vec![0], keep_empty: false, schema: output };
    let plan = Plan { nodes: vec![input, unnest], output: 1, key: None };
    let mut dataflow = Dataflow::new(plan).expect("valid");
    let rows = RecordBatch::try_new(schema, vec![Arc::new(lists)]).expect("columns fit");
    let output = dataflow.tick(LogTime::default(), &[vec![Delta::inserts(rows)]]);
    let elements = output.changes[0].rows.column(0).as_primitive::<Int64Type>();
    assert_eq!(elements.iter().collect::<Vec<_>>(), [Some(1), Some(2), None, Some(3)]);
}

#[test]
fn what_is_no_list_is_refused() {
    let schema = input_schema();
    let input = Node::Input { index: 0, schema: schema.clone() };
    let unnest = Node::Unnest { input: 0, columns: vec![0], keep_empty: false, schema };
    let plan = Plan { nodes: vec![input, unnest], output: 1, key: None };
    let Err(FoldError::InvalidPlan(why)) = Dataflow::new(plan) else { panic!("it is refused") };
    assert_eq!(why, "node 1: column 0 is no list: Int64");
}
