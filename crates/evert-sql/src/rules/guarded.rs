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
    Guarded { rule: ExtractEquijoinPredicate::new(), spares: |plan| Ok(joins_nulls(plan)) }
}

/// Puts inner joins in an order in which each has keys.
pub(crate) fn joins_in_order() -> impl OptimizerRule {
    let spares: Spares = |plan| plan.exists(|plan| Ok(joins_nulls(plan)));
    Guarded { rule: EliminateCrossJoin::new(), spares }
}

/// Moves conditions towards the rows that they are about.
pub(crate) fn conditions_down() -> impl OptimizerRule {
    // Only a constant condition could go further than such an aggregate, and below it it would
    // take the rows away and not the row that answers for none.
    let spares: Spares = |plan| match plan {
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::Aggregate(aggregate) => Ok(may_answer_no_rows(aggregate)),
            _ => Ok(false),
        },
        _ => Ok(false),
    };
    Guarded { rule: PushDownFilter::new(), spares }
}

/// Drops constants from what rows are grouped by, unless nothing else is left to group by.
pub(crate) fn keys_without_constants() -> impl OptimizerRule {
    // A key that names a column stays, and with it the groups.
    let spares: Spares = |plan| match plan {
        LogicalPlan::Aggregate(aggregate) => {
            Ok(!aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::Column(_))))
        }
        _ => Ok(true),
    };
    Guarded { rule: EliminateGroupByConstant::new(), spares }
}

/// Which plans a rule is kept from.
type Spares = fn(&LogicalPlan) -> Result<bool>;

/// A rule, kept from some plans.
#[derive(Debug)]
struct Guarded<R> {
    rule: R,
    spares: Spares,
}

impl<R: OptimizerRule> OptimizerRule for Guarded<R> {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match (self.spares)(&plan)? {
            true => Ok(Transformed::no(plan)),
            false => self.rule.rewrite(plan, config),
        }
    }
}

fn joins_nulls(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join)
        if join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty())
}

/// Whether an aggregate may give a row over no rows: it groups by nothing, or by sets of which one
/// may be empty.
fn may_answer_no_rows(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.iter().all(|expr| matches!(expr, Expr::GroupingSet(_)))
}
