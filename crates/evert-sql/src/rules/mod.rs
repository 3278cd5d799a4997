//! Rules that give a statement its meaning, before anything is optimised: views and ad-hoc reads
//! share them, so that they agree.
//!
//! Owns: recursive terms of one type, set operations with multiplicities, subqueries as joins,
//! orders without ties, intervals that compare, constants that take others' types, texts that are
//! arrays, numbers of two types, types that are final; for ad-hoc reads alone, keys as the fold
//! compares them, and conditions in turn.
//! Not here: what makes a plan fast.

mod arrays;
mod columns;
mod constants;
mod decorrelate;
mod dependencies;
mod digits;
mod frames;
mod grouping;
mod guarded;
mod in_turn;
mod keys;
mod numbers;
mod order;
mod recursion;
mod set_operation;
mod spans;

pub(crate) use columns::needed_columns;
pub(crate) use dependencies::{ForgetfulTables, distinct_as_groups, each_expression_once};
pub(crate) use grouping::common_expressions;
pub(crate) use guarded::{conditions_down, join_keys, joins_in_order, keys_without_constants};
pub(crate) use in_turn::in_turn;
pub(crate) use order::{is_sortable, limits_at_sorts};
pub(crate) use set_operation::{SetOperation, SetOperator};

use datafusion::common::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{InvariantLevel, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

use crate::functions::CheckedArithmetic;

/// How often types are settled anew; they only widen, so that few rounds are ever needed.
const TYPE_ROUNDS_MAX: usize = 8;

/// A plan that comes from SQL, its types settled by a state's analyzer and its meaning by the
/// rules here.
pub(crate) fn settle(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    frames::refuse(&plan)?;
    recursion::check(&plan)?;
    let plan = constants::settle(frames::widen(plan)?)?;
    let plan = arrays::settle(spans::compare(plan)?)?;
    let mut plan = grouping::settle(set_operation::recognise(plan)?)?;
    let analyzer = state.analyzer();
    let rewrites = analyzer.function_rewrites();
    if !rewrites.is_empty() {
        let rule = ApplyFunctionRewrites::new(rewrites.to_vec());
        plan = rule.analyze(plan, state.config_options())?;
    }
    for _ in 0..TYPE_ROUNDS_MAX {
        plan = numbers::settle(plan)?.data;
        // The analyzer's last check would refuse subqueries that only DataFusion cannot plan.
        // Types that become known here may be of use to what was settled before.
        let mut found = false;
        for rule in &analyzer.rules {
            plan = rule.analyze(plan, state.config_options())?;
            // Right after types are settled: later rules put functions in the place of casts.
            let digits = digits::settle(plan)?;
            found |= digits.transformed;
            plan = digits.data;
        }
        let common = set_operation::common(plan)?;
        plan = arrays::settle(common.data)?;
        if !found && !common.transformed {
            break;
        }
    }
    spans::refuse(&plan)?;
    let plan = RewriteSetComparison::new().rewrite(plan, &OptimizerContext::new())?.data;
    // `= ANY` is a comparison only now.
    let plan = CheckedArithmetic.analyze(plan, state.config_options())?;
    let plan = decorrelate::decorrelate(order::settle(plan)?)?;
    plan.check_invariants(InvariantLevel::Executable)?;
    Ok(plan)
}

/// A plan for DataFusion's operators, which group, sort and join as the fold does.
pub(crate) fn standard(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let plan = set_operation::expand(plan)?;
    // What a subquery reads of the outer side may have got another type since.
    keys::settle(TypeCoercion::new().analyze(plan, state.config_options())?)
}
