//! Groups and partitions whose aggregate fails or panics: in error for as long as it does, while
//! the others stay, also across a save.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, Volatility, WindowFrame, WindowFunctionDefinition, create_udaf,
};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_plan::windows::create_window_expr;
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use evert_fold::{
    Aggregate, AggregateFunction, Dataflow, GeneralAggregate, Node, Plan, RowError, StateSink,
};
use evert_model::{Delta, LogTime};

/// How many rows there are; fails over a 13, panics over a 14.
#[derive(Debug, Default)]
struct Superstitious {
    rows: i64,
}

impl Accumulator for Superstitious {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Int64Type>().values() {
            match value {
                13 => return exec_err!("thirteen is too many"),
                14 => panic!("fourteen is worse"),
                _ => self.rows += 1,
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.rows)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        exec_err!("it is computed in one piece")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        exec_err!("it is computed in one piece")
    }
}

fn superstitious() -> Arc<AggregateUDF> {
    Arc::new(create_udaf(
        "superstitious",
        vec![DataType::Int64],
        Arc::new(DataType::Int64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::<Superstitious>::default())),
        Arc::new(vec![DataType::Int64]),
    ))
}

fn schema(columns: &[&str]) -> SchemaRef {
    let fields = columns.iter().map(|name| Field::new(*name, DataType::Int64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn value() -> Vec<Arc<dyn PhysicalExpr>> {
    vec![Arc::new(Column::new("v", 1))]
}

fn reduce() -> Plan {
    let expr = AggregateExprBuilder::new(superstitious(), value())
        .schema(schema(&["g", "v"]))
        .alias("rows")
        .build()
        .expect("it is sound");
    let aggregate = Aggregate {
        function: AggregateFunction::General(GeneralAggregate(Arc::new(expr))),
        argument: None,
        distinct: false,
        filter: None,
    };
    let nodes = vec![
        Node::Input { index: 0, schema: schema(&["g", "v"]) },
        Node::Reduce {
            input: 0,
            keys: vec![0],
            aggregates: vec![aggregate],
            schema: schema(&["g", "rows"]),
        },
    ];
    Plan { nodes, output: 1, key: Some(vec![0]) }
}

fn window() -> Plan {
    let function = create_window_expr(
        &WindowFunctionDefinition::AggregateUDF(superstitious()),
        "rows".to_owned(),
        &value(),
        &[],
        &[],
        Arc::new(WindowFrame::new(None)),
        schema(&["g", "v"]),
        false,
        false,
        None,
    );
    let nodes = vec![
        Node::Input { index: 0, schema: schema(&["g", "v"]) },
        Node::Window {
            input: 0,
            partition: vec![0],
            order: vec![],
            functions: vec![function.expect("it is sound")],
            schema: schema(&["g", "v", "rows"]),
        },
    ];
    Plan { nodes, output: 1, key: None }
}

#[derive(Default)]
struct Saved(BTreeMap<Vec<u8>, Vec<u8>>);

impl StateSink for Saved {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
}

/// A plan that is saved and begun anew before each tick.
struct Restarting {
    plan: Plan,
    dataflow: Dataflow,
    saved: Saved,
}

impl Restarting {
    fn new(plan: Plan) -> Self {
        let mut dataflow = Dataflow::new(plan.clone()).expect("valid");
        assert!(dataflow.track());
        Self { plan, dataflow, saved: Saved::default() }
    }

    /// Rows of (g, v) with a weight each; gives the changed rows, and the errors.
    fn tick(&mut self, rows: &[(i64, i64, i64)]) -> (Vec<Vec<i64>>, Vec<RowError>) {
        self.dataflow.save(&mut self.saved);
        self.dataflow = Dataflow::new(self.plan.clone()).expect("valid");
        assert!(self.dataflow.track());
        for (key, value) in &self.saved.0 {
            self.dataflow.load(key, value).expect("it was saved");
        }
        self.dataflow.loaded().expect("it was saved");
        let column = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
        let columns = vec![
            column(rows.iter().map(|row| row.0).collect()),
            column(rows.iter().map(|row| row.1).collect()),
        ];
        let batch = RecordBatch::try_new(schema(&["g", "v"]), columns).expect("fits");
        let weights = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
        let output = self.dataflow.tick(LogTime::default(), &[vec![Delta::new(batch, weights)]]);
        let mut changes: Vec<Vec<i64>> = Vec::new();
        for delta in &output.changes {
            for (row, &weight) in delta.weights.values().iter().enumerate() {
                let columns = delta.rows.columns().iter();
                let values = columns.map(|column| column.as_primitive::<Int64Type>().value(row));
                changes.push(values.chain([weight]).collect());
            }
        }
        changes.sort();
        (changes, output.errors)
    }
}

fn error(reason: &str, weight: i64) -> RowError {
    RowError { reason: reason.to_owned(), row: r#"{"g":7}"#.to_owned(), weight }
}

const FAILED: &str = "thirteen is too many";

#[test]
fn a_group_whose_aggregate_fails_is_in_error_until_it_no_longer_does() {
    let mut view = Restarting::new(reduce());
    let (changes, errors) = view.tick(&[(7, 1, 1), (7, 2, 1), (8, 13, 1), (8, 13, -1), (8, 1, 1)]);
    assert_eq!((changes, errors), (vec![vec![7, 2, 1], vec![8, 1, 1]], vec![]));
    let (changes, errors) = view.tick(&[(7, 13, 1), (8, 1, 2)]);
    assert_eq!(changes, [vec![7, 2, -1], vec![8, 1, -1], vec![8, 3, 1]]);
    assert_eq!(errors, [error(FAILED, 1)]);
    assert_eq!(view.tick(&[(7, 3, 1)]), (vec![], vec![]), "still in error: no news");
    let (changes, errors) = view.tick(&[(7, 13, -1), (7, 14, 1)]);
    assert_eq!(changes, [] as [Vec<i64>; 0]);
    assert_eq!(errors, [error("an aggregate panicked", 1), error(FAILED, -1)]);
    let (changes, errors) = view.tick(&[(7, 14, -1)]);
    assert_eq!((changes, errors), (vec![vec![7, 3, 1]], vec![error("an aggregate panicked", -1)]));
}

#[test]
fn a_partition_whose_function_fails_has_no_rows_until_it_no_longer_does() {
    let mut view = Restarting::new(window());
    let (changes, errors) = view.tick(&[(7, 1, 1), (7, 2, 1), (8, 1, 1)]);
    assert_eq!(changes, [vec![7, 1, 2, 1], vec![7, 2, 2, 1], vec![8, 1, 1, 1]]);
    assert_eq!(errors, []);
    let (changes, errors) = view.tick(&[(7, 13, 1), (8, 1, 1)]);
    let gone = [vec![7, 1, 2, -1], vec![7, 2, 2, -1]];
    let eight = [vec![8, 1, 1, -1], vec![8, 1, 2, 2]];
    assert_eq!(changes, [&gone[..], &eight[..]].concat());
    assert_eq!(errors, [error(FAILED, 1)]);
    assert_eq!(view.tick(&[(7, 3, 1), (7, 1, -1)]), (vec![], vec![]), "still in error: no news");
    let (changes, errors) = view.tick(&[(7, 13, -1), (7, 14, 1)]);
    assert_eq!(changes, [] as [Vec<i64>; 0]);
    assert_eq!(errors, [error("a window function panicked", 1), error(FAILED, -1)]);
    let (changes, errors) = view.tick(&[(7, 14, -1)]);
    assert_eq!(changes, [vec![7, 2, 2, 1], vec![7, 3, 2, 1]]);
    assert_eq!(errors, [error("a window function panicked", -1)]);
    let (changes, errors) = view.tick(&[(7, 13, 1), (7, 2, -1), (7, 3, -1)]);
    assert_eq!(changes, [vec![7, 2, 2, -1], vec![7, 3, 2, -1]]);
    assert_eq!(errors, [error(FAILED, 1)]);
    let (changes, errors) = view.tick(&[(7, 13, -1)]);
    assert_eq!((changes, errors), (vec![], vec![error(FAILED, -1)]), "an empty partition is fine");
}
