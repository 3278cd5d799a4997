//! Rows and groups that have no answer: reported once, left out, and forgotten when they leave.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Int64Array, RecordBatch,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr_common::operator::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use evert_fold::{
    Aggregate, AggregateFunction, Dataflow, FoldError, JoinKind, Node, Plan, RowError,
};
use evert_model::{Delta, LogTime};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
    ]))
}

fn rows(values: &[(i64, i64)], weight: i64) -> Delta {
    let column = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let (a, b) = values.iter().copied().unzip();
    let rows = RecordBatch::try_new(schema(), vec![column(a), column(b)]).expect("fits");
    Delta::new(rows, Int64Array::from(vec![weight; values.len()]))
}

fn column(index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(schema().field(index).name(), index))
}

fn binary(left: Arc<dyn PhysicalExpr>, op: Operator) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, op, column(1)).with_fail_on_overflow(true))
}

fn projection(expr: Arc<dyn PhysicalExpr>, field: Field) -> Plan {
    let input = Node::Input { index: 0, schema: schema() };
    let schema = Arc::new(Schema::new(vec![field]));
    let project = Node::FilterProject { input: 0, predicate: None, exprs: vec![expr], schema };
    Plan { nodes: vec![input, project], output: 1, key: None }
}

fn error(reason: &str, row: &str, weight: i64) -> RowError {
    RowError { reason: reason.to_owned(), row: row.to_owned(), weight }
}

#[test]
fn a_bad_row_is_left_out_and_the_others_stay() {
    let field = Field::new("q", DataType::Int64, true);
    let plan = projection(binary(column(0), Operator::Divide), field);
    let mut dataflow = Dataflow::new(plan).expect("valid");
    let mut facts: Vec<(i64, i64)> = (0..1000).map(|i| (i, 1)).collect();
    facts[321].1 = 0;
    facts[999].1 = 0;
    let output = dataflow.tick(LogTime::default(), &[vec![rows(&facts, 1)]]);
    let zero = "division by zero";
    let expected = [error(zero, r#"{"a":321,"b":0}"#, 1), error(zero, r#"{"a":999,"b":0}"#, 1)];
    assert_eq!(output.errors, expected);
    let kept: Vec<i64> = output
        .changes
        .iter()
        .flat_map(|delta| delta.rows.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    let survivors: Vec<i64> = (0..999).filter(|i| *i != 321).collect();
    assert_eq!(kept, survivors);
    let output = dataflow.tick(LogTime::default(), &[vec![rows(&facts[320..322], -1)]]);
    assert_eq!(output.errors, [error(zero, r#"{"a":321,"b":0}"#, -1)]);
    assert_eq!(output.changes.len(), 1);
    assert_eq!(output.changes[0].weights.values().to_vec(), [-1]);
}

#[test]
fn a_row_does_not_share_the_error_of_the_rows_beside_it() {
    // The cast looks at all bytes of a column at once, also in a slice of it.
    let bytes = Arc::new(Schema::new(vec![Field::new("y", DataType::Binary, true)]));
    let text = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
    let input = Node::Input { index: 0, schema: bytes.clone() };
    let cast = Arc::new(CastExpr::new(Arc::new(Column::new("y", 0)), DataType::Utf8, None));
    let project =
        Node::FilterProject { input: 0, predicate: None, exprs: vec![cast], schema: text };
    let plan = Plan { nodes: vec![input, project], output: 1, key: None };
    let mut dataflow = Dataflow::new(plan).expect("valid");
    let values: Vec<&[u8]> = vec![b"ab", b"\x00\xff", b"cd", b"ef"];
    let batch = RecordBatch::try_new(bytes, vec![Arc::new(BinaryArray::from(values))]);
    let batch = batch.expect("fits");
    let mut tick = |rows: RecordBatch, weight: i64| {
        let weights = Int64Array::from(vec![weight; rows.num_rows()]);
        let output = dataflow.tick(LogTime::default(), &[vec![Delta::new(rows, weights)]]);
        let good: usize = output.changes.iter().map(Delta::len).sum();
        (good, output.errors.iter().map(|error| error.weight).collect::<Vec<_>>())
    };
    assert_eq!(tick(batch.clone(), 1), (3, vec![1]));
    // Good rows leave as they came, though the bad one is still in the buffer beside them.
    assert_eq!(tick(batch.slice(2, 1), -1), (1, vec![]));
    assert_eq!(tick(batch.slice(0, 2), -1), (1, vec![-1]));
    assert_eq!(tick(batch.slice(3, 1), -1), (1, vec![]));
}

#[test]
fn what_comes_and_goes_within_a_tick_is_no_news() {
    let field = Field::new("q", DataType::Int64, true);
    let plan = projection(binary(column(0), Operator::Divide), field);
    let mut dataflow = Dataflow::new(plan).expect("valid");
    let facts = [(1, 0), (4, 2)];
    let output = dataflow.tick(LogTime::default(), &[vec![rows(&facts, 1), rows(&facts, -1)]]);
    assert!(output.errors.is_empty() && output.changes.is_empty(), "{output:?}");
}

#[test]
fn overflow_casts_and_forbidden_nulls_are_row_errors() {
    let wide = Field::new("q", DataType::Int64, true);
    let mut sums = Dataflow::new(projection(binary(column(0), Operator::Plus), wide)).unwrap();
    let errors = sums.tick(LogTime::default(), &[vec![rows(&[(i64::MAX, 1), (1, 1)], 1)]]).errors;
    assert_eq!(errors.len(), 1);
    assert!(errors[0].reason.to_lowercase().contains("overflow"), "{errors:?}");

    // The plan says Int16 where the expression gives Int64.
    let narrow = Field::new("q", DataType::Int16, true);
    let mut casts = Dataflow::new(projection(column(0), narrow)).unwrap();
    let output = casts.tick(LogTime::default(), &[vec![rows(&[(70_000, 0), (7, 0)], 1)]]);
    assert_eq!((output.errors.len(), output.changes[0].len()), (1, 1));
    assert_eq!(output.changes[0].rows.column(0).data_type(), &DataType::Int16);

    let null: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Int64(None)));
    let strict = Field::new("q", DataType::Int64, false);
    let mut nulls = Dataflow::new(projection(null, strict)).unwrap();
    let output = nulls.tick(LogTime::default(), &[vec![rows(&[(1, 1)], 1)]]);
    let reason = "NULL in column \"q\", which allows none";
    assert_eq!(output.errors, [error(reason, r#"{"a":1,"b":1}"#, 1)]);
    assert!(output.changes.is_empty());
}

#[test]
fn a_group_that_does_not_fit_comes_back_when_it_does() {
    // sum(a) over decimals of 38 digits.
    let decimal = DataType::Decimal128(38, 0);
    let input: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("g", DataType::Int64, true),
        Field::new("d", decimal.clone(), true),
    ]));
    let schema = Arc::new(Schema::new(vec![
        Field::new("g", DataType::Int64, true),
        Field::new("sum", decimal.clone(), true),
    ]));
    let sum = Aggregate {
        function: AggregateFunction::Sum,
        argument: Some(1),
        distinct: false,
        filter: None,
    };
    let nodes = vec![
        Node::Input { index: 0, schema: input.clone() },
        Node::Reduce { input: 0, keys: vec![0], aggregates: vec![sum], schema },
    ];
    let mut dataflow = Dataflow::new(Plan { nodes, output: 1, key: Some(vec![0]) }).unwrap();
    let mut tick = |value: i128, weight: i64| {
        let value = Decimal128Array::from(vec![value]).with_precision_and_scale(38, 0).unwrap();
        let group: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let rows = RecordBatch::try_new(input.clone(), vec![group, Arc::new(value)]).unwrap();
        let output = dataflow
            .tick(LogTime::default(), &[vec![Delta::new(rows, Int64Array::from(vec![weight]))]]);
        let weights: Vec<i64> =
            output.changes.iter().flat_map(|delta| delta.weights.values().to_vec()).collect();
        (weights, output.errors)
    };
    let most = 10_i128.pow(38) - 1;
    let reason = "sum is out of range for Decimal128(38, 0)";
    let (there, gone) = (error(reason, r#"{"g":7}"#, 1), error(reason, r#"{"g":7}"#, -1));
    assert_eq!(tick(most, 1), (vec![1], vec![]));
    assert_eq!(tick(1, 1), (vec![-1], vec![there.clone()]));
    assert_eq!(tick(most, 1), (vec![], vec![]), "still in error: no news");
    assert_eq!(tick(most, -1), (vec![], vec![]));
    assert_eq!(tick(1, -1), (vec![1], vec![gone.clone()]));
    assert_eq!(tick(1, 1), (vec![-1], vec![there]));
    assert_eq!(tick(1, -1), (vec![1], vec![gone]));
    assert_eq!(tick(most, -1), (vec![-1], vec![]));
}

#[test]
fn a_global_aggregate_has_a_row_from_the_first_tick_on() {
    let count = Aggregate {
        function: AggregateFunction::Count,
        argument: None,
        distinct: false,
        filter: None,
    };
    let schema = Arc::new(Schema::new(vec![Field::new("count", DataType::Int64, false)]));
    let nodes = vec![
        Node::Input { index: 0, schema: self::schema() },
        Node::Reduce { input: 0, keys: vec![], aggregates: vec![count], schema },
    ];
    let mut dataflow = Dataflow::new(Plan { nodes, output: 1, key: Some(vec![]) }).unwrap();
    let mut changes = |deltas: Vec<Delta>| -> Vec<(i64, i64)> {
        let output = dataflow.tick(LogTime::default(), &[deltas]);
        let rows = output.changes.iter().flat_map(|delta| {
            let counts = delta.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            counts.into_iter().zip(delta.weights.values().to_vec())
        });
        rows.collect()
    };
    assert_eq!(changes(vec![]), [(0, 1)]);
    assert_eq!(changes(vec![]), []);
    assert_eq!(changes(vec![rows(&[(1, 1), (2, 2)], 1)]), [(0, -1), (2, 1)]);
    assert_eq!(changes(vec![rows(&[(1, 1), (2, 2)], -1)]), [(2, -1), (0, 1)]);
}

#[test]
fn plans_that_contradict_themselves_are_refused() {
    let input = || Node::Input { index: 0, schema: schema() };
    let refused = |nodes: Vec<Node>, output| {
        let outcome = Dataflow::new(Plan { nodes, output, key: None });
        assert!(matches!(outcome, Err(FoldError::InvalidPlan(_))));
    };
    refused(vec![input()], 1);
    refused(vec![Node::Distinct { input: 0 }], 0);
    refused(vec![input(), Node::Union { inputs: vec![2], schema: schema() }], 1);
    let cast: Arc<dyn PhysicalExpr> = Arc::new(CastExpr::new(column(0), DataType::Utf8View, None));
    let project =
        |exprs| Node::FilterProject { input: 0, predicate: None, exprs, schema: schema() };
    refused(vec![input(), project(vec![cast])], 1);
    let join = Node::Join {
        left: 0,
        right: 0,
        kind: JoinKind::Inner,
        null_equal: false,
        on: vec![(0, 5)],
        filter: None,
        schema: schema(),
    };
    refused(vec![input(), join], 1);
    let sum = Aggregate {
        function: AggregateFunction::Sum,
        argument: None,
        distinct: false,
        filter: None,
    };
    let aggregates = vec![sum];
    refused(
        vec![input(), Node::Reduce { input: 0, keys: vec![], aggregates, schema: schema() }],
        1,
    );
}
