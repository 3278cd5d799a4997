//! Incremental operators over deltas (API draft).
#![allow(missing_docs)]

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use evert_model::Delta;
use thiserror::Error;

/// Index of a node in its plan. A node's inputs come before it.
pub type NodeId = usize;

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: Vec<Node>,
    /// The node whose output is the view.
    pub output: NodeId,
    /// The output's columns that identify a row, if any: GROUP BY's keys.
    pub key: Option<Vec<usize>>,
}

#[derive(Clone, Debug)]
pub enum Node {
    /// Deltas from outside: the `index`-th input of `Dataflow::tick`.
    Input { index: usize, schema: SchemaRef },
    FilterProject {
        input: NodeId,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        /// Over the input's columns.
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    },
    /// Inner equi-join; NULL keys never match. No keys: cross join. Output: left columns, then
    /// right columns.
    Join {
        left: NodeId,
        right: NodeId,
        on: Vec<(usize, usize)>,
        /// Over the output's columns.
        filter: Option<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    },
    /// GROUP BY. Output: keys, then aggregates. With no keys there is exactly one row, always
    /// (also over no input).
    Reduce { input: NodeId, keys: Vec<usize>, aggregates: Vec<Aggregate>, schema: SchemaRef },
    /// SELECT DISTINCT.
    Distinct { input: NodeId },
    /// UNION ALL.
    Union { inputs: Vec<NodeId>, schema: SchemaRef },
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// The input column; `None` for count(*).
    pub argument: Option<usize>,
    pub distinct: bool,
    /// A boolean input column: FILTER (WHERE ...).
    pub filter: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

impl AggregateFunction {
    /// The output type over an argument type: sum of integers is Decimal128(38, 0), of decimals
    /// Decimal128(38, s), of floats Float64; avg of integers and floats is Float64, of
    /// Decimal128(p, s) is Decimal128(38, max(s, 6)); count is Int64; min and max keep the type.
    pub fn output_type(
        self,
        argument: Option<&arrow::datatypes::DataType>,
    ) -> Result<arrow::datatypes::DataType, FoldError> {
        let _ = argument;
        unimplemented!()
    }
}

#[derive(Debug, Error)]
pub enum FoldError {
    #[error("the plan is not valid: {0}")]
    InvalidPlan(String),
}

/// A row that could not be evaluated (overflow, division by zero, a failed cast): it is left out.
#[derive(Clone, Debug)]
pub struct RowError {
    pub reason: String,
    /// The row as JSON-like text, cut to a few hundred bytes.
    pub row: String,
    /// +1 the row is now in error, -1 it was and has been retracted.
    pub weight: i64,
}

#[derive(Debug, Default)]
pub struct TickOutput {
    /// Consolidated changes of the output.
    pub changes: Vec<Delta>,
    pub errors: Vec<RowError>,
}

/// A plan with its state.
pub struct Dataflow(());

impl Dataflow {
    pub fn new(plan: Plan) -> Result<Self, FoldError> {
        let _ = plan;
        unimplemented!()
    }
    /// Feeds each input's deltas of one tick and gives the output's changes.
    pub fn tick(&mut self, inputs: &[Vec<Delta>]) -> TickOutput {
        let _ = inputs;
        unimplemented!()
    }
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
}

/// A published bag or keyed set of rows: immutable runs plus a small newest one.
pub struct Arrangement(());

impl Arrangement {
    /// At most one row per key.
    pub fn keyed(schema: SchemaRef, key: Vec<usize>) -> Self {
        let _ = (schema, key);
        unimplemented!()
    }
    /// A bag: rows with multiplicities.
    pub fn bag(schema: SchemaRef) -> Self {
        let _ = schema;
        unimplemented!()
    }
    pub fn apply(&mut self, changes: &[Delta]) {
        let _ = changes;
        unimplemented!()
    }
    /// Cheap; readers never block the writer.
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
}

/// Turns "the newest record of a key wins" into deltas, over an arrangement it owns.
pub struct Upsert(());

/// A run of facts about keyed rows, in log order.
#[derive(Clone, Debug)]
pub struct UpsertBatch {
    /// Whole rows. Of a deleted row only the key columns matter; the others may be null or
    /// default.
    pub rows: RecordBatch,
    /// false: the key is deleted.
    pub live: BooleanArray,
}

impl Upsert {
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Self {
        let _ = (schema, key);
        unimplemented!()
    }
    /// Later rows win over earlier ones; gives the consolidated change.
    pub fn apply(&mut self, batches: &[UpsertBatch]) -> Delta {
        let _ = batches;
        unimplemented!()
    }
    /// Deletes every row and gives the change.
    pub fn truncate(&mut self) -> Delta {
        unimplemented!()
    }
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
}

/// The rows at one moment.
#[derive(Clone)]
pub struct Snapshot(Arc<()>);

impl Snapshot {
    pub fn schema(&self) -> &SchemaRef {
        unimplemented!()
    }
    /// Rows, multiplicities counted.
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The rows as batches of a few thousand; multiplicities are expanded.
    pub fn scan(
        &self,
        projection: Option<&[usize]>,
    ) -> Box<dyn Iterator<Item = RecordBatch> + Send> {
        let _ = projection;
        unimplemented!()
    }
    /// The rows as deltas: (row, multiplicity).
    pub fn as_deltas(&self) -> Box<dyn Iterator<Item = Delta> + Send> {
        unimplemented!()
    }
    /// The rows whose key equals row `row` of `key` (columns in key order). Keyed only.
    pub fn get(&self, key: &RecordBatch, row: usize) -> Option<RecordBatch> {
        let _ = (key, row);
        unimplemented!()
    }
    /// Order-independent digest of the rows: two snapshots with equal rows have equal digests.
    pub fn digest(&self) -> u128 {
        unimplemented!()
    }
}

/// A bag whose changes come from outside: a retraction of a row that is not there is reported and
/// left out, never a panic.
pub struct BagInput(());

impl BagInput {
    pub fn new(schema: SchemaRef) -> Self {
        let _ = schema;
        unimplemented!()
    }
    /// Gives the consolidated change that was made, and what could not be retracted.
    pub fn apply(&mut self, changes: &Delta) -> (Delta, Vec<RowError>) {
        let _ = changes;
        unimplemented!()
    }
    /// Takes every row out and gives the change.
    pub fn truncate(&mut self) -> Delta {
        unimplemented!()
    }
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    pub fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
}
