//! Which columns an operator has to give, by DataFusion's rule, kept from recursive queries and
//! from beliefs (`dependencies`).
//!
//! The rule takes from a recursive query's terms the columns that its reader does not ask for. But
//! the recursive term may read them, and where rows are distinct they tell rows apart.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{LogicalPlan, RecursiveQuery, SubqueryAlias};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::dependencies::unbelieving;

/// Stands around a static term while the rule runs: the rule stops at names other than the
/// recursive query's own.
const GUARD: &str = "static term";

/// Drops columns that nobody reads.
pub(crate) fn needed_columns() -> impl OptimizerRule {
    NeededColumns(OptimizeProjections::new())
}

#[derive(Debug)]
struct NeededColumns(OptimizeProjections);

impl OptimizerRule for NeededColumns {
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
        let plan = unbelieving(plan)?;
        let guarded = plan.transform_down(|plan| match plan {
            LogicalPlan::RecursiveQuery(query) => {
                let query = self.guard(query, config)?;
                let plan = LogicalPlan::RecursiveQuery(query);
                Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump))
            }
            plan => Ok(Transformed::no(plan)),
        })?;
        if !guarded.transformed {
            return self.0.rewrite(guarded.data, config);
        }
        let rewritten = self.0.rewrite(guarded.data, config)?;
        let plan = rewritten.data.transform_up(unguard)?.data;
        Ok(Transformed::new_transformed(plan, rewritten.transformed))
    }
}

impl NeededColumns {
    /// Rewrites the terms by themselves, each with all its columns.
    fn guard(&self, query: RecursiveQuery, config: &dyn OptimizerConfig) -> Result<RecursiveQuery> {
        let term = |term: Arc<LogicalPlan>| {
            self.rewrite(Arc::unwrap_or_clone(term), config).map(|rewritten| rewritten.data)
        };
        let static_term = Arc::new(term(query.static_term)?);
        let guarded = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(static_term, GUARD)?);
        Ok(RecursiveQuery {
            static_term: Arc::new(guarded),
            recursive_term: Arc::new(term(query.recursive_term)?),
            ..query
        })
    }
}

fn unguard(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::RecursiveQuery(query) = plan else { return Ok(Transformed::no(plan)) };
    let static_term = match Arc::unwrap_or_clone(query.static_term) {
        LogicalPlan::SubqueryAlias(alias) if alias.alias.table() == GUARD => alias.input,
        other => Arc::new(other),
    };
    let query = RecursiveQuery { static_term, ..query };
    Ok(Transformed::yes(LogicalPlan::RecursiveQuery(query)))
}
