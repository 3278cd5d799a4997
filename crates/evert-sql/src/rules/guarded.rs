//! DataFusion's rules, kept from what they mistake.
//!
//! Rules about inner joins are kept from joins in which NULL equals NULL: there they would take
//! equalities in which it does not for more of the same. Conditions and constant keys stay where
//! they are at an aggregate that answers a row over no rows.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// Takes join keys from conditions.
pub(crate) fn join_keys() -> impl OptimizerRule {
    JoinKeys(ExtractEquijoinPredicate::new())
}

/// Puts inner joins in an order in which each has keys.
pub(crate) fn joins_in_order() -> impl OptimizerRule {
    JoinsInOrder(EliminateCrossJoin::new())
}

/// Moves conditions towards the rows that they are about.
pub(crate) fn conditions_down() -> impl OptimizerRule {
    ConditionsDown(PushDownFilter::new())
}

/// Drops constants from what rows are grouped by, unless nothing else is left to group by.
pub(crate) fn keys_without_constants() -> impl OptimizerRule {
    KeysWithoutConstants(EliminateGroupByConstant::new())
}

#[derive(Debug)]
struct JoinKeys(ExtractEquijoinPredicate);

impl OptimizerRule for JoinKeys {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        if joins_nulls(&plan) { Ok(Transformed::no(plan)) } else { self.0.rewrite(plan, config) }
    }
}

#[derive(Debug)]
struct JoinsInOrder(EliminateCrossJoin);

impl OptimizerRule for JoinsInOrder {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        if plan.exists(|plan| Ok(joins_nulls(plan)))? {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}

fn joins_nulls(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join)
        if join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty())
}

#[derive(Debug)]
struct ConditionsDown(PushDownFilter);

impl OptimizerRule for ConditionsDown {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        // Only a constant condition could go further, and below such an aggregate it would take
        // the rows away and not the row that answers for none.
        if let LogicalPlan::Filter(filter) = &plan
            && let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref()
            && may_answer_no_rows(aggregate)
        {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}

/// Whether an aggregate may give a row over no rows: it groups by nothing, or by sets of which one
/// may be empty.
fn may_answer_no_rows(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.iter().all(|expr| matches!(expr, Expr::GroupingSet(_)))
}

#[derive(Debug)]
struct KeysWithoutConstants(EliminateGroupByConstant);

impl OptimizerRule for KeysWithoutConstants {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        // A key that names a column stays, and with it the groups.
        let keeps_a_key = |aggregate: &Aggregate| {
            aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::Column(_)))
        };
        match &plan {
            LogicalPlan::Aggregate(aggregate) if keeps_a_key(aggregate) => {
                self.0.rewrite(plan, config)
            }
            _ => Ok(Transformed::no(plan)),
        }
    }
}
