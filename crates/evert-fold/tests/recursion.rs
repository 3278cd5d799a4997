//! WITH RECURSIVE over changing facts, against rounds run from the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr_common::operator::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal};
use evert_fold::{Dataflow, JoinKind, Node, Plan, SetOp, StateSink};
use evert_model::{Delta, LogTime};
use fastrand::Rng;

/// A bag of rows.
type Bag = BTreeMap<Vec<i64>, i64>;

fn schema(columns: &[&str]) -> SchemaRef {
    let fields = columns.iter().map(|name| Field::new(*name, DataType::Int64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn column(index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new("c", index))
}

fn int(value: i64) -> Arc<dyn PhysicalExpr> {
    Arc::new(Literal::new(ScalarValue::Int64(Some(value))))
}

fn binary(
    left: Arc<dyn PhysicalExpr>,
    op: Operator,
    right: Arc<dyn PhysicalExpr>,
) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, op, right).with_fail_on_overflow(true))
}

fn delta(columns: &[&str], rows: &[(Vec<i64>, i64)]) -> Delta {
    let values = |i: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|(row, _)| Some(row[i])).collect::<Int64Array>())
    };
    let arrays = (0..columns.len()).map(values).collect();
    let batch = RecordBatch::try_new(schema(columns), arrays).expect("columns fit");
    Delta::new(batch, rows.iter().map(|(_, weight)| Some(*weight)).collect())
}

/// Which recursion.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Nodes reached along edges; dividing by the node reached, so that node 0 is an error.
    Reach,
    /// The same, all paths counted. Only over graphs without cycles.
    Paths,
    /// Reached, but never by way of a node that is blocked.
    Unblocked,
    /// Reached along edges whose both ends the last round has: no linear step.
    Squared,
    /// As `Paths`, with NULL-free outer joins and blocked nodes: linear, not monotone.
    UnblockedPaths,
}

const SHAPES: [Shape; 5] =
    [Shape::Reach, Shape::Paths, Shape::Unblocked, Shape::Squared, Shape::UnblockedPaths];

impl Shape {
    fn is_distinct(self) -> bool {
        !matches!(self, Self::Paths | Self::UnblockedPaths)
    }

    /// Inputs: the last round (n), edges (a, b), blocked nodes (n).
    fn step(self) -> Plan {
        let input = |index, columns: &[&str]| Node::Input { index, schema: schema(columns) };
        let mut nodes = vec![input(0, &["n"]), input(1, &["a", "b"]), input(2, &["n"])];
        let join = |left, right, kind, on, columns: &[&str]| Node::Join {
            left,
            right,
            kind,
            on,
            null_equal: false,
            filter: None,
            schema: schema(columns),
        };
        let ends = |input, expr| Node::FilterProject {
            input,
            predicate: None,
            exprs: vec![expr],
            schema: schema(&["n"]),
        };
        nodes.push(join(0, 1, JoinKind::Inner, vec![(0, 0)], &["n", "a", "b"]));
        match self {
            // b + 0 / b
            Self::Reach => {
                let zero = binary(int(0), Operator::Divide, column(2));
                nodes.push(ends(3, binary(column(2), Operator::Plus, zero)));
            }
            Self::Paths => nodes.push(ends(3, column(2))),
            Self::Unblocked | Self::UnblockedPaths => {
                nodes.push(ends(3, column(2)));
                nodes.push(join(4, 2, JoinKind::Anti, vec![(0, 0)], &["n"]));
            }
            Self::Squared => {
                nodes.push(join(3, 0, JoinKind::Semi, vec![(0, 0)], &["n", "a", "b"]));
                nodes.push(ends(4, column(2)));
            }
        }
        let output = nodes.len() - 1;
        Plan { nodes, output, key: None }
    }

    fn plan(self, rounds_max: usize) -> Plan {
        let input = |index, columns: &[&str]| Node::Input { index, schema: schema(columns) };
        let nodes = vec![
            input(0, &["n"]),
            input(1, &["a", "b"]),
            input(2, &["n"]),
            Node::Recursive {
                base: 0,
                others: vec![1, 2],
                step: Box::new(self.step()),
                distinct: self.is_distinct(),
                rounds_max,
            },
        ];
        Plan { nodes, output: 3, key: None }
    }

    /// What the step makes of a round, and how many errors it meets.
    fn apply(self, round: &Bag, edges: &Bag, blocked: &Bag) -> (Bag, i64) {
        let (mut out, mut errors) = (Bag::new(), 0);
        for (node, &times) in round {
            for (edge, &edge_times) in edges.iter().filter(|(edge, _)| edge[0] == node[0]) {
                let (to, weight) = (vec![edge[1]], times * edge_times);
                let stops = matches!(self, Self::Unblocked | Self::UnblockedPaths)
                    && blocked.contains_key(&to);
                if self == Self::Reach && edge[1] == 0 {
                    errors += weight;
                } else if !stops {
                    *out.entry(to).or_default() += weight;
                }
            }
        }
        (out, errors)
    }

    fn answer(self, inputs: &[Bag; 3]) -> (Bag, i64) {
        let [base, edges, blocked] = inputs;
        let (mut all, mut errors) = (Bag::new(), 0);
        let once = |bag: Bag| bag.into_keys().map(|row| (row, 1)).collect::<Bag>();
        let mut round = if self.is_distinct() { once(base.clone()) } else { base.clone() };
        while !round.is_empty() {
            for (row, times) in &round {
                *all.entry(row.clone()).or_default() += times;
            }
            let (next, failed) = self.apply(&round, edges, blocked);
            errors += failed;
            round = next;
            if self.is_distinct() {
                round = once(round);
                round.retain(|row, _| !all.contains_key(row));
            }
        }
        (all, errors)
    }
}

/// Entries saved so far.
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

fn restored(plan: &Plan, saved: &Saved) -> Dataflow {
    let mut dataflow = Dataflow::new(plan.clone()).expect("valid");
    assert!(dataflow.track());
    for (key, value) in &saved.0 {
        dataflow.load(key, value).expect("it was saved by the same plan");
    }
    dataflow.loaded().expect("it was saved by the same plan");
    dataflow
}

/// Random changes of one tick, which never retract what is not there; in any order.
fn changes(rng: &mut Rng, shape: Shape, inputs: &mut [Bag; 3]) -> [Vec<(Vec<i64>, i64)>; 3] {
    let mut changes: [Vec<(Vec<i64>, i64)>; 3] = Default::default();
    let nodes = if shape.is_distinct() { 8 } else { 7 };
    for _ in 0..rng.usize(0..6) {
        let input = [0, 1, 1, 1, 2][rng.usize(0..5)];
        let bag = &mut inputs[input];
        if !bag.is_empty() && rng.u8(0..5) < 2 {
            let row = bag.keys().nth(rng.usize(0..bag.len())).cloned().expect("it is there");
            changes[input].push((row.clone(), -1));
            *bag.get_mut(&row).expect("it is there") -= 1;
            bag.retain(|_, times| *times != 0);
            continue;
        }
        let row = match (input, rng.i64(0..nodes), rng.i64(0..nodes)) {
            (1, a, b) if shape.is_distinct() => vec![a, b],
            (1, a, b) if a == b => continue,
            (1, a, b) => vec![a.min(b), a.max(b)],
            (_, n, _) => vec![n],
        };
        *bag.entry(row.clone()).or_default() += 1;
        changes[input].push((row, 1));
    }
    changes.iter_mut().for_each(|changes| rng.shuffle(changes));
    changes
}

fn run(shape: Shape, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let plan = shape.plan(1000);
    let mut dataflow = Dataflow::new(plan.clone()).expect("valid");
    assert!(dataflow.track());
    let mut saved = Saved::default();
    let mut inputs: [Bag; 3] = Default::default();
    let (mut published, mut errors) = (Bag::new(), 0);
    for _ in 0..rng.usize(1..25) {
        let changes = changes(&mut rng, shape, &mut inputs);
        let [base, edges, blocked] = &changes;
        let deltas = [
            vec![delta(&["n"], base)],
            vec![delta(&["a", "b"], edges)],
            vec![delta(&["n"], blocked)],
        ];
        let output = dataflow.tick(LogTime::default(), &deltas);
        assert_eq!(output.failed, None);
        for delta in &output.changes {
            let nodes = delta.rows.column(0).as_primitive::<Int64Type>().values();
            for (&node, &weight) in nodes.iter().zip(delta.weights.values()) {
                *published.entry(vec![node]).or_default() += weight;
            }
        }
        published.retain(|_, times| *times != 0);
        errors += output.errors.iter().map(|error| error.weight).sum::<i64>();
        assert_eq!((&published, errors), (&shape.answer(&inputs).0, shape.answer(&inputs).1));
        if rng.u8(0..4) == 0 {
            dataflow.save(&mut saved);
            if rng.bool() {
                dataflow = restored(&plan, &saved);
            }
        }
    }
}

#[test]
fn every_tick_agrees_with_rounds_from_the_beginning() {
    for shape in SHAPES {
        for seed in 0..400 {
            let outcome = std::panic::catch_unwind(|| run(shape, seed));
            assert!(outcome.is_ok(), "{shape:?}, seed {seed}");
        }
    }
}

/// Rows that only derive each other leave with the row that they came from.
#[test]
fn a_cycle_does_not_hold_itself_up() {
    let mut dataflow = Dataflow::new(Shape::Reach.plan(100)).expect("valid");
    let edges = [(vec![1, 2], 1), (vec![2, 3], 1), (vec![3, 2], 1)];
    let start = [vec![delta(&["n"], &[(vec![1], 1)])], vec![delta(&["a", "b"], &edges)]];
    dataflow.tick(LogTime::default(), &start);
    let cut = [vec![], vec![delta(&["a", "b"], &[(vec![1, 2], -1)])]];
    let output = dataflow.tick(LogTime::default(), &cut);
    let gone: BTreeSet<i64> = output
        .changes
        .iter()
        .flat_map(|delta| {
            assert!(delta.weights.values().iter().all(|&weight| weight == -1));
            delta.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
        })
        .collect();
    assert_eq!(gone, BTreeSet::from([2, 3]));
}

#[test]
fn counting_without_end_fails_by_its_rounds() {
    let input = |index| Node::Input { index, schema: schema(&["n"]) };
    let next = Node::FilterProject {
        input: 0,
        predicate: None,
        exprs: vec![binary(column(0), Operator::Plus, int(1))],
        schema: schema(&["n"]),
    };
    for distinct in [true, false] {
        let step = Box::new(Plan { nodes: vec![input(0), next.clone()], output: 1, key: None });
        let count = Node::Recursive { base: 0, others: Vec::new(), step, distinct, rounds_max: 50 };
        let plan = Plan { nodes: vec![input(0), count], output: 1, key: None };
        let mut dataflow = Dataflow::new(plan).expect("valid");
        let output = dataflow.tick(LogTime::default(), &[vec![delta(&["n"], &[(vec![1], 1)])]]);
        let why = "the recursion has not come to an end after 50 rounds";
        assert_eq!(output.failed.as_deref(), Some(why));
    }
}

#[test]
fn doubling_without_end_fails_by_its_rows() {
    let mut dataflow = Dataflow::new(Shape::Paths.plan(1000)).expect("valid");
    // Two edges each way: twice the paths a round.
    let edges = [(vec![1, 2], 2), (vec![2, 1], 2)];
    let start = [vec![delta(&["n"], &[(vec![1], 1)])], vec![delta(&["a", "b"], &edges)]];
    let output = dataflow.tick(LogTime::default(), &start);
    let why = "the recursion has more than 10000000 rows";
    assert_eq!(output.failed.as_deref(), Some(why));
}

/// A step that reads the last round on the wrong side of an EXCEPT is run from the beginning too.
#[test]
fn a_step_that_shrinks_with_its_input_is_run_in_rounds() {
    let input = |index| Node::Input { index, schema: schema(&["n"]) };
    let except = Node::SetOp { left: 1, right: 0, op: SetOp::Except, all: false };
    let step = Plan { nodes: vec![input(0), input(1), except], output: 2, key: None };
    let recursion = Node::Recursive {
        base: 0,
        others: vec![1],
        step: Box::new(step),
        distinct: true,
        rounds_max: 10,
    };
    let plan = Plan { nodes: vec![input(0), input(1), recursion], output: 2, key: None };
    let mut dataflow = Dataflow::new(plan).expect("valid");
    let row = |n: i64| vec![delta(&["n"], &[(vec![n], 1)])];
    // Without a base there is no round.
    assert!(dataflow.tick(LogTime::default(), &[vec![], row(2)]).changes.is_empty());
    let output = dataflow.tick(LogTime::default(), &[row(1), vec![]]);
    let mut rows: Vec<i64> = output
        .changes
        .iter()
        .flat_map(|delta| delta.rows.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2]);
}
