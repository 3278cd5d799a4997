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
pub(crate) use guarded::{conditions_down, join_keys, joins_in_order, keys_without_constants};
pub(crate) use order::limits_at_sorts;
pub(crate) use set_operation::{SetOperation, SetOperator};

use datafusion::common::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{InvariantLevel, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

/// A plan that comes from SQL, its types settled by a state's analyzer and its meaning by the
/// rules here.
pub(crate) fn settle(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let mut plan = set_operation::recognise(spans::compare(plan)?)?;
    let analyzer = state.analyzer();
    let rewrites = analyzer.function_rewrites();
    if !rewrites.is_empty() {
        let rule = ApplyFunctionRewrites::new(rewrites.to_vec());
        plan = rule.analyze(plan, state.config_options())?;
    }
    // The analyzer's last check would refuse subqueries that only DataFusion cannot plan.
    for rule in &analyzer.rules {
        plan = rule.analyze(plan, state.config_options())?;
    }
    let plan = RewriteSetComparison::new().rewrite(plan, &OptimizerContext::new())?.data;
    let plan = decorrelate::decorrelate(order::settle(plan)?)?;
    plan.check_invariants(InvariantLevel::Executable)?;
    Ok(plan)
}

/// A plan without Evert's own operators.
pub(crate) fn standard(plan: LogicalPlan) -> Result<LogicalPlan> {
    set_operation::expand(plan)
}
