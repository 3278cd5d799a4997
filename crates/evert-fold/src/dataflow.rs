//! A plan with its state, moved tick by tick.

use arrow::datatypes::SchemaRef;
use evert_model::{Delta, LogTime};

use crate::consolidate::consolidate;
use crate::join::{Join, JoinSpec};
use crate::keys::KeyCodec;
use crate::plan::{FoldError, Node, NodeId, Plan};
use crate::project::Projection;
use crate::recursion::Recursion;
use crate::reduce::Reduce;
use crate::rows::batch_of;
use crate::session::Session;
use crate::set_op::SetOperation;
use crate::state::{Keeping, OperatorState, StateError, StateSink};
use crate::temporal::TemporalFilter;
use crate::topk::TopK;
use crate::unnest::Unnest;
use crate::window::Window;
use std::sync::Arc;

/// A row that could not be evaluated (overflow, division by zero, a failed cast), or a group
/// whose aggregate does not fit its type: it is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// What went wrong.
    pub reason: String,
    /// The row as JSON-like text, cut to a few hundred bytes.
    pub row: String,
    /// +1 the row is now in error, -1 it was and has been retracted.
    pub weight: i64,
}

/// What a tick changes.
#[derive(Debug, Default)]
pub struct TickOutput {
    /// Consolidated changes of the output: no row is both inserted and retracted.
    pub changes: Vec<Delta>,
    /// Rows that fell out, or came back.
    pub errors: Vec<RowError>,
    /// Why the view cannot go on: an operator has met a limit of its own. Nothing that the tick
    /// gives counts then, and there may be no further tick.
    pub failed: Option<String>,
}

/// A plan with its state.
#[derive(Debug)]
pub struct Dataflow {
    operators: Vec<Operator>,
    /// How many nodes read each node.
    readers: Vec<usize>,
    output: NodeId,
    output_schema: SchemaRef,
    output_codec: KeyCodec,
    /// Whether the output needs no consolidation.
    is_consolidated: bool,
}

#[derive(Debug)]
enum Operator {
    Input { index: usize },
    FilterProject { input: NodeId, projection: Projection },
    Join { left: NodeId, right: NodeId, join: Box<Join> },
    Reduce { input: NodeId, reduce: Box<Reduce> },
    Union { inputs: Vec<NodeId>, schema: SchemaRef },
    TemporalFilter { input: NodeId, filter: Box<TemporalFilter> },
    Session { input: NodeId, session: Box<Session> },
    SetOp { left: NodeId, right: NodeId, operation: Box<SetOperation> },
    TopK { input: NodeId, topk: Box<TopK> },
    Window { input: NodeId, window: Box<Window> },
    Unnest { input: NodeId, unnest: Unnest },
    Recursive { inputs: Vec<NodeId>, recursion: Box<Recursion> },
}

impl Dataflow {
    /// A plan over no rows yet.
    ///
    /// # Errors
    /// If the plan is not valid.
    pub fn new(plan: Plan) -> Result<Self, FoldError> {
        let schemas = plan.schemas()?;
        let mut readers = vec![0; plan.nodes.len()];
        for input in plan.nodes.iter().flat_map(Node::inputs) {
            readers[input] += 1;
        }
        let operators = plan
            .nodes
            .iter()
            .zip(&schemas)
            .map(|(node, schema)| Operator::new(node, schema, &schemas))
            .collect::<Result<Vec<_>, _>>()?;
        let output_schema = Arc::clone(&schemas[plan.output]);
        Ok(Self {
            is_consolidated: matches!(
                operators[plan.output],
                Operator::Reduce { .. } | Operator::SetOp { .. } | Operator::TopK { .. }
            ),
            output_codec: KeyCodec::of_schema(&output_schema)?,
            operators,
            readers,
            output: plan.output,
            output_schema,
        })
    }

    /// Feeds each input's deltas of one tick, which ends at log time `now`, and gives the
    /// output's changes. Rows may come in any number of deltas; within a tick none is retracted
    /// more often than it was inserted. Log time never goes back.
    ///
    /// # Panics
    /// If rows do not have their input's schema, or a row is retracted that is not there.
    pub fn tick(&mut self, now: LogTime, inputs: &[Vec<Delta>]) -> TickOutput {
        let mut errors = Vec::new();
        let mut results = Results::new(&self.readers, self.output);
        for (id, operator) in self.operators.iter_mut().enumerate() {
            let result = operator.tick(now, inputs, &mut results, &mut errors);
            results.put(id, result);
        }
        let changes = results.take(self.output);
        let changes = if self.is_consolidated {
            changes
        } else {
            consolidate(changes, &self.output_codec, &self.output_schema)
        };
        let failed = self.operators.iter().find_map(|operator| match operator {
            Operator::Recursive { recursion, .. } => recursion.failed().cloned(),
            Operator::Join { join, .. } => join.failed(),
            _ => None,
        });
        TickOutput { changes, errors: cancel_errors(errors), failed }
    }

    /// Sets how many bytes the rows that a join gives in a tick may take, of columns that have a
    /// width and of the others' places. The tick fails that passes it.
    pub fn limit(&mut self, bytes_max: usize) {
        for operator in &mut self.operators {
            match operator {
                Operator::Join { join, .. } => join.limit(bytes_max),
                Operator::Recursive { recursion, .. } => recursion.limit(bytes_max),
                _ => {}
            }
        }
    }

    /// The schema of the changes.
    pub fn schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    /// The log time at which rows come or go without new facts: the next moment at which
    /// [`Dataflow::tick`] has something to do. `None`: never.
    pub fn due(&self) -> Option<LogTime> {
        let due = self.operators.iter().filter_map(|operator| match operator {
            Operator::TemporalFilter { filter, .. } => filter.due(),
            Operator::Recursive { recursion, .. } => recursion.due(),
            _ => None,
        });
        due.min()
    }

    /// From now on, changes are noted for [`Dataflow::save`]; to be called before the first tick.
    /// Returns false, and notes nothing, if the plan has more nodes than saved entries can name:
    /// its view comes back by replay.
    pub fn track(&mut self) -> bool {
        if self.operators.len() > usize::from(u16::MAX) {
            return false;
        }
        for operator in &mut self.operators {
            if let Keeping::Entries(state) = operator.keeping() {
                state.track();
            }
        }
        true
    }

    /// Gives every entry of state that has changed since the last call.
    pub fn save(&mut self, sink: &mut dyn StateSink) {
        for (node, operator) in self.operators.iter_mut().enumerate() {
            if let Keeping::Entries(state) = operator.keeping() {
                state.save(&mut OfNode::new(node, sink));
            }
        }
    }

    /// Takes one saved entry, before the first tick.
    ///
    /// # Errors
    /// If the entry is not of a plan like this one.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (node, key) = of_node(key)?;
        match self.operators.get_mut(node).map(Operator::keeping) {
            Some(Keeping::Entries(state)) => state.load(key, value),
            _ => Err(StateError(format!("node {node} has no state"))),
        }
    }

    /// Every entry has been given to [`Dataflow::load`].
    ///
    /// # Errors
    /// If the entries make no state of a plan like this one.
    pub fn loaded(&mut self) -> Result<(), StateError> {
        for operator in &mut self.operators {
            if let Keeping::Entries(state) = operator.keeping() {
                state.loaded()?;
            }
        }
        Ok(())
    }

    /// Whether the rows put out can be told from the state, by [`Dataflow::published`].
    pub fn knows_output(&self) -> bool {
        let mut node = self.output;
        loop {
            match &self.operators[node] {
                Operator::Reduce { .. } => return true,
                Operator::FilterProject { input, .. } => node = *input,
                _ => return false,
            }
        }
    }

    /// Every row put out and not taken back, if [`Dataflow::knows_output`].
    pub fn published(&mut self) -> Option<Vec<Delta>> {
        if !self.knows_output() {
            return None;
        }
        let mut projections = Vec::new();
        let mut node = self.output;
        while let Operator::FilterProject { input, .. } = &self.operators[node] {
            projections.push(node);
            node = *input;
        }
        let Operator::Reduce { reduce, .. } = &mut self.operators[node] else { return None };
        let mut rows = reduce.published();
        for node in projections.into_iter().rev() {
            let Operator::FilterProject { projection, .. } = &self.operators[node] else {
                return None;
            };
            // What fails now failed when it came, and was reported then.
            let mut errors = Vec::new();
            rows = rows.iter().filter_map(|delta| projection.apply(delta, &mut errors)).collect();
        }
        Some(rows)
    }

    /// Operators.
    pub fn nodes(&self) -> usize {
        self.operators.len()
    }

    /// What each operator with state holds.
    pub fn state(&self) -> Vec<OperatorState> {
        let operators = self.operators.iter().enumerate();
        let states = operators.filter_map(|(node, operator)| {
            let (operator, rows, bytes) = operator.size()?;
            Some(OperatorState { node, operator, rows, bytes })
        });
        states.collect()
    }

    /// Bytes of state.
    pub fn memory_bytes(&self) -> usize {
        self.operators.iter().filter_map(Operator::size).map(|(_, _, bytes)| bytes).sum()
    }
}

/// Puts a node's number before its entries' keys.
struct OfNode<'a> {
    sink: &'a mut dyn StateSink,
    node: [u8; 2],
    key: Vec<u8>,
}

impl<'a> OfNode<'a> {
    fn new(node: NodeId, sink: &'a mut dyn StateSink) -> Self {
        let node = u16::try_from(node).expect("a plan has fewer than 2^16 nodes");
        Self { sink, node: node.to_be_bytes(), key: Vec::new() }
    }

    fn key(&mut self, key: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(&self.node);
        self.key.extend_from_slice(key);
    }
}

impl StateSink for OfNode<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.key(key);
        self.sink.put(&self.key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.key(key);
        self.sink.delete(&self.key);
    }
}

fn of_node(key: &[u8]) -> Result<(NodeId, &[u8]), StateError> {
    let (node, key) =
        key.split_first_chunk::<2>().ok_or_else(|| StateError("an entry has no node".into()))?;
    Ok((u16::from_be_bytes(*node).into(), key))
}

impl Operator {
    /// How its state is kept beyond the process.
    fn keeping(&mut self) -> Keeping<'_> {
        match self {
            Self::Input { .. }
            | Self::FilterProject { .. }
            | Self::Union { .. }
            | Self::Unnest { .. } => Keeping::Nothing,
            Self::Join { join, .. } => Keeping::Entries(join.as_mut()),
            Self::Reduce { reduce, .. } => Keeping::Entries(reduce.as_mut()),
            Self::SetOp { operation, .. } => Keeping::Entries(operation.as_mut()),
            Self::TopK { topk, .. } => Keeping::Entries(topk.as_mut()),
            Self::Window { window, .. } => Keeping::Entries(window.as_mut()),
            Self::TemporalFilter { filter, .. } => Keeping::Entries(filter.as_mut()),
            Self::Session { session, .. } => Keeping::Entries(session.as_mut()),
            Self::Recursive { recursion, .. } => Keeping::Entries(recursion.as_mut()),
        }
    }

    /// What it is called, and how many rows and bytes it holds.
    fn size(&self) -> Option<(&'static str, usize, usize)> {
        match self {
            Self::Input { .. }
            | Self::FilterProject { .. }
            | Self::Union { .. }
            | Self::Unnest { .. } => None,
            Self::TopK { topk, .. } => Some(("top k", topk.len(), topk.memory_bytes())),
            Self::Window { window, .. } => Some(("window", window.len(), window.memory_bytes())),
            Self::SetOp { operation, .. } => {
                Some(("set operation", operation.len(), operation.memory_bytes()))
            }
            Self::Join { join, .. } => Some(("join", join.len(), join.memory_bytes())),
            Self::Reduce { reduce, .. } => Some(("reduce", reduce.len(), reduce.memory_bytes())),
            Self::TemporalFilter { filter, .. } => {
                Some(("temporal filter", filter.len(), filter.memory_bytes()))
            }
            Self::Recursive { recursion, .. } => {
                Some(("recursion", recursion.len(), recursion.memory_bytes()))
            }
            Self::Session { session, .. } => {
                Some(("session", session.len(), session.memory_bytes()))
            }
        }
    }

    fn new(node: &Node, schema: &SchemaRef, schemas: &[SchemaRef]) -> Result<Self, FoldError> {
        let schema = Arc::clone(schema);
        Ok(match node {
            Node::Input { index, .. } => Self::Input { index: *index },
            Node::FilterProject { input, predicate, exprs, .. } => Self::FilterProject {
                input: *input,
                projection: Projection::new(predicate.clone(), exprs.clone(), schema),
            },
            Node::Join { left, right, kind, on, null_equal, filter, .. } => {
                let spec = JoinSpec {
                    kind: *kind,
                    on,
                    null_equal: *null_equal,
                    filter: filter.clone(),
                    schema,
                };
                let join = Join::new(&schemas[*left], &schemas[*right], spec)?;
                Self::Join { left: *left, right: *right, join: Box::new(join) }
            }
            Node::Reduce { input, keys, aggregates, .. } => {
                let reduce = Reduce::new(&schemas[*input], keys.clone(), aggregates, schema)?;
                Self::Reduce { input: *input, reduce: Box::new(reduce) }
            }
            Node::Distinct { input } => {
                let keys = (0..schema.fields().len()).collect();
                let reduce = Reduce::distinct(&schemas[*input], keys, schema)?;
                Self::Reduce { input: *input, reduce: Box::new(reduce) }
            }
            Node::Union { inputs, .. } => Self::Union { inputs: inputs.clone(), schema },
            Node::TopK { input, keys, order, skip, limit } => {
                let topk = TopK::new(schema, keys, order, *skip, *limit)?;
                Self::TopK { input: *input, topk: Box::new(topk) }
            }
            Node::Window { input, partition, order, functions, .. } => {
                let functions = functions.clone();
                let window = Window::new(&schemas[*input], partition, order, functions, schema)?;
                Self::Window { input: *input, window: Box::new(window) }
            }
            Node::SetOp { left, right, op, all } => {
                let operation = SetOperation::new(*op, *all, schema)?;
                Self::SetOp { left: *left, right: *right, operation: Box::new(operation) }
            }
            Node::Unnest { input, columns, keep_empty, .. } => {
                let unnest = Unnest::new(columns.clone(), *keep_empty, schema);
                Self::Unnest { input: *input, unnest }
            }
            Node::TemporalFilter { input, from, until } => {
                let filter = TemporalFilter::new(schema, from.as_ref(), until.as_ref())?;
                Self::TemporalFilter { input: *input, filter: Box::new(filter) }
            }
            Node::Recursive { others, step, distinct, rounds_max, .. } => {
                let other_schemas: Vec<_> =
                    others.iter().map(|&other| Arc::clone(&schemas[other])).collect();
                let recursion =
                    Recursion::new(&schema, &other_schemas, step, *distinct, *rounds_max)?;
                Self::Recursive { inputs: node.inputs(), recursion: Box::new(recursion) }
            }
            Node::Session { input, keys, time, gap, .. } => {
                let session = Session::new(&schemas[*input], keys.clone(), *time, *gap, schema)?;
                Self::Session { input: *input, session: Box::new(session) }
            }
        })
    }

    fn tick(
        &mut self,
        now: LogTime,
        inputs: &[Vec<Delta>],
        results: &mut Results,
        errors: &mut Vec<RowError>,
    ) -> Vec<Delta> {
        match self {
            Self::Input { index } => inputs.get(*index).cloned().unwrap_or_default(),
            Self::FilterProject { input, projection } => {
                let input = results.take(*input);
                input.iter().filter_map(|delta| projection.apply(delta, errors)).collect()
            }
            Self::Join { left, right, join } => {
                let (left, right) = (results.take(*left), results.take(*right));
                join.tick(&left, &right, errors)
            }
            Self::Reduce { input, reduce } => reduce.tick(&results.take(*input), errors),
            Self::TemporalFilter { input, filter } => {
                filter.tick(now, &results.take(*input), errors)
            }
            Self::Recursive { inputs, recursion } => {
                let inputs: Vec<_> = inputs.iter().map(|&id| results.take(id)).collect();
                recursion.tick(now, &inputs, errors)
            }
            Self::Session { input, session } => session.tick(&results.take(*input), errors),
            Self::TopK { input, topk } => topk.tick(&results.take(*input)),
            Self::Window { input, window } => window.tick(&results.take(*input), errors),
            Self::SetOp { left, right, operation } => {
                let (left, right) = (results.take(*left), results.take(*right));
                operation.tick(&left, &right)
            }
            Self::Unnest { input, unnest } => {
                results.take(*input).iter().flat_map(|delta| unnest.apply(delta)).collect()
            }
            Self::Union { inputs, schema } => {
                let deltas: Vec<_> = inputs.iter().flat_map(|&id| results.take(id)).collect();
                deltas.into_iter().map(|delta| with_schema(delta, schema)).collect()
            }
        }
    }
}

/// The same rows under another schema of the same number of columns.
fn with_schema(delta: Delta, schema: &SchemaRef) -> Delta {
    let columns = delta.rows.columns().iter().zip(schema.fields());
    let columns = columns
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Arc::clone(column);
            }
            arrow::compute::cast(column, field.data_type())
                .expect("the planner unites columns that cast")
        })
        .collect();
    Delta::new(batch_of(schema, columns, delta.len()), delta.weights)
}

/// What the nodes have put out this tick, each kept until its last reader has taken it.
struct Results {
    deltas: Vec<Vec<Delta>>,
    left: Vec<usize>,
}

impl Results {
    fn new(readers: &[usize], output: NodeId) -> Self {
        let mut left = readers.to_vec();
        left[output] += 1;
        Self { deltas: Vec::with_capacity(readers.len()), left }
    }

    fn put(&mut self, id: NodeId, deltas: Vec<Delta>) {
        assert_eq!(id, self.deltas.len(), "nodes tick in order");
        self.deltas.push(deltas);
    }

    fn take(&mut self, id: NodeId) -> Vec<Delta> {
        self.left[id] -= 1;
        if self.left[id] == 0 {
            std::mem::take(&mut self.deltas[id])
        } else {
            self.deltas[id].clone()
        }
    }
}

/// Errors that came and went within the tick are no news.
fn cancel_errors(errors: Vec<RowError>) -> Vec<RowError> {
    if errors.iter().all(|error| error.weight > 0) {
        return errors;
    }
    let mut sums = std::collections::BTreeMap::<(String, String), i64>::new();
    for error in errors {
        *sums.entry((error.reason, error.row)).or_default() += error.weight;
    }
    let left = sums.into_iter().filter(|(_, weight)| *weight != 0);
    left.map(|((reason, row), weight)| RowError { reason, row, weight }).collect()
}
