//! Joins of every kind: both sides indexed by key, and the change of what they give.
//!
//! A tick is two steps: the left side's change meets the right side as it was, then the right
//! side's change meets the left side as it is by then. Each pair of rows is met once. A row that
//! is given alone (padded with NULLs, for having a match, for having none) changes when its
//! matches become some or none: they are counted by key, or by row where a filter can tell rows
//! of one key apart.

mod bound;
mod decoded;
mod pairs;
mod saved;
mod shape;
mod side;
mod step;
mod tally;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use evert_model::Delta;

use crate::FoldError;
use crate::dataflow::RowError;
use crate::plan::JoinKind;
use crate::project::Projection;
use bound::Bound;
use shape::{Shape, Shows};
use side::{Keeps, Side};
use step::Step;

/// What a join is asked for.
#[derive(Debug)]
pub(crate) struct JoinSpec<'a> {
    pub(crate) kind: JoinKind,
    /// Pairs of (left column, right column) that must be equal.
    pub(crate) on: &'a [(usize, usize)],
    pub(crate) null_equal: bool,
    /// Over the left's columns, then the right's.
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    /// The output.
    pub(crate) schema: SchemaRef,
}

#[derive(Debug)]
pub(crate) struct Join {
    left: Side,
    right: Side,
    shape: Shape,
    filter: Option<Projection>,
    bound: Bound,
}

impl Join {
    pub(crate) fn new(
        left: &SchemaRef,
        right: &SchemaRef,
        spec: JoinSpec<'_>,
    ) -> Result<Self, FoldError> {
        let shape = Shape::new(spec.kind, spec.null_equal, left, right, spec.schema);
        let has_filter = spec.filter.is_some();
        let keeps = |own: Shows, other: Shows| Keeps {
            rows: shape.pairs || has_filter || own != Shows::Nothing,
            totals: !has_filter && other != Shows::Nothing,
            counts: has_filter && own != Shows::Nothing,
        };
        let (left_keeps, right_keeps) =
            (keeps(shape.left, shape.right), keeps(shape.right, shape.left));
        let left_key = spec.on.iter().map(|&(l, _)| l).collect();
        let right_key = spec.on.iter().map(|&(_, r)| r).collect();
        let pair_schema = Arc::clone(&shape.pair_schema);
        Ok(Self {
            left: Side::new(left, left_key, shape.matching, left_keeps)?,
            right: Side::new(right, right_key, shape.matching, right_keeps)?,
            filter: spec.filter.map(|filter| Projection::filter(filter, pair_schema)),
            shape,
            bound: Bound::default(),
        })
    }

    /// A tick that gives more is given up.
    pub(crate) fn limit(&mut self, bytes_max: usize) {
        self.bound = Bound::of(bytes_max);
    }

    /// Why the last tick was given up, if it was. Then the state is of no use any more.
    pub(crate) fn failed(&self) -> Option<String> {
        self.bound.failure()
    }

    pub(crate) fn tick(
        &mut self,
        left: &[Delta],
        right: &[Delta],
        errors: &mut Vec<RowError>,
    ) -> Vec<Delta> {
        let mut out = Vec::new();
        self.bound.reset();
        let step = Step {
            shape: &self.shape,
            filter: self.filter.as_ref(),
            own: &mut self.left,
            other: &mut self.right,
            own_is_left: true,
            out: &mut out,
            bound: &mut self.bound,
            errors,
        };
        step.run(left);
        let step = Step {
            shape: &self.shape,
            filter: self.filter.as_ref(),
            own: &mut self.right,
            other: &mut self.left,
            own_is_left: false,
            out: &mut out,
            bound: &mut self.bound,
            errors,
        };
        step.run(right);
        // Who fails gives nothing, and the operators after it do not see half of it.
        if self.bound.is_passed() {
            out.clear();
        }
        out
    }

    /// Rows held.
    pub(crate) fn len(&self) -> usize {
        self.left.len() + self.right.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.left.memory_bytes() + self.right.memory_bytes()
    }
}
