//! Rules that give a statement its meaning, before anything is optimised: views and ad-hoc reads
//! share them, so that they agree.
//!
//! Owns: set operations with multiplicities, subqueries as joins, orders without ties,
//! intervals that compare.
//! Not here: what makes a plan fast.

mod columns;
mod decorrelate;
mod guarded;
mod order;
mod set_operation;
mod spans;

pub(crate) use columns::needed_columns;
pub(crate) use guarded::{join_keys, joins_in_order};
pub(crate) use set_operation::{SetOperation, SetOperator};

use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

/// What must be seen before types are settled.
pub(crate) fn before_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    set_operation::recognise(spans::compare(plan)?)
}

/// The rest, over a plan whose types are settled.
pub(crate) fn after_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = RewriteSetComparison::new().rewrite(plan, &OptimizerContext::new())?.data;
    let plan = order::settle(plan)?;
    decorrelate::decorrelate(plan)
}

/// A plan without Evert's own operators.
pub(crate) fn standard(plan: LogicalPlan) -> Result<LogicalPlan> {
    set_operation::expand(plan)
}
