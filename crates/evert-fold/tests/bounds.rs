//! A join whose rows meet far too many others fails by name, before it takes all memory.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_fold::{Dataflow, JoinKind, Node, Plan};
use evert_model::{Delta, LogTime};

fn schema(columns: &[&str]) -> SchemaRef {
    let fields = columns.iter().map(|name| Field::new(*name, DataType::Int64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn rows(count: i64) -> Vec<Delta> {
    let values: Int64Array = (0..count).collect();
    let batch =
        RecordBatch::try_new(schema(&["a"]), vec![Arc::new(values)]).expect("rows that fit");
    vec![Delta::inserts(batch)]
}

/// Every row with every other.
fn cross() -> Dataflow {
    let input = |index| Node::Input { index, schema: schema(&["a"]) };
    let join = Node::Join {
        left: 0,
        right: 1,
        kind: JoinKind::Inner,
        on: Vec::new(),
        null_equal: false,
        filter: None,
        schema: schema(&["a", "b"]),
    };
    let nodes = vec![input(0), input(1), join];
    Dataflow::new(Plan { nodes, output: 2, key: None }).expect("rows that fit")
}

#[test]
fn a_tick_of_too_many_rows_fails_and_the_same_in_steps_does_not() {
    // A pair is two columns and a weight: 24 bytes.
    let bytes_max = 1000 * 40 * 24;
    let mut flow = cross();
    flow.limit(bytes_max);
    let output = flow.tick(LogTime::new(0), &[rows(1000), rows(40)]);
    assert_eq!(output.failed, None);
    assert_eq!(output.changes.iter().map(Delta::len).sum::<usize>(), 40_000);
    // The bound is of a tick.
    let output = flow.tick(LogTime::new(1), &[Vec::new(), rows(40)]);
    assert_eq!(output.failed, None);

    let mut flow = cross();
    flow.limit(bytes_max);
    let output = flow.tick(LogTime::new(0), &[rows(100_000), rows(100_000)]);
    let why = output.failed.expect("ten thousand million rows are too many");
    assert_eq!(why, "the rows of a join in one step take more than 1 MiB");
    assert!(output.changes.is_empty());
}
