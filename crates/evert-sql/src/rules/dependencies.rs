//! Which columns determine others: DataFusion's belief, which is not relied on.
//!
//! It is mistaken where a projection computes something before a key (under
//! `SELECT a / 2 AS u, a ... GROUP BY a` it holds that `u` determines `a`), where a list is unnested,
//! where rows are joined and then grouped by more than the key, and where DISTINCT follows a join. It
//! would drop columns from an outer GROUP BY or ORDER BY, leave out a DISTINCT, and take rows of one
//! key for one row. So tables in FROM tell nothing of the kind to what reads them, and the rules
//! that would use it are kept from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef, FunctionalDependencies, Result};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, Projection, SortExpr};
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use sqlparser::ast::TableFactor;

/// A plan without the belief that columns determine others in what it aggregates.
pub(super) fn unbelieving(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down(|plan| match plan {
        LogicalPlan::Aggregate(mut aggregate) if believes(aggregate.input.schema()) => {
            let input = Arc::unwrap_or_clone(aggregate.input);
            aggregate.input = Arc::new(forgetful(input)?);
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        plan => Ok(Transformed::no(plan)),
    })
    .data()
}

fn believes(schema: &DFSchema) -> bool {
    !schema.functional_dependencies().is_empty()
}

/// The same rows, of which nothing is said.
fn forgetful(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !believes(plan.schema()) {
        return Ok(plan);
    }
    let schema = plan.schema().as_ref().clone();
    let schema = schema.with_functional_dependencies(FunctionalDependencies::empty())?;
    let schema: DFSchemaRef = Arc::new(schema);
    Ok(match plan {
        LogicalPlan::SubqueryAlias(mut alias) => {
            alias.schema = schema;
            LogicalPlan::SubqueryAlias(alias)
        }
        LogicalPlan::Join(mut join) => {
            join.schema = schema;
            LogicalPlan::Join(join)
        }
        LogicalPlan::Projection(projection) => {
            let Projection { expr, input, .. } = projection;
            LogicalPlan::Projection(Projection::try_new_with_schema(expr, input, schema)?)
        }
        LogicalPlan::Filter(mut filter) => {
            filter.input = Arc::new(forgetful(Arc::unwrap_or_clone(filter.input))?);
            LogicalPlan::Filter(filter)
        }
        plan => LogicalPlan::Projection(Projection::new_from_schema(Arc::new(plan), schema)),
    })
}

/// Tables in FROM, which do not tell what they believe.
#[derive(Debug, Default)]
pub(crate) struct ForgetfulTables {
    /// The next table is the one whose planning has begun.
    is_within: AtomicBool,
}

impl RelationPlanner for ForgetfulTables {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        if self.is_within.swap(false, Ordering::Relaxed) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        self.is_within.store(true, Ordering::Relaxed);
        let plan = forgetful(context.plan(relation)?)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

/// Makes a DISTINCT a GROUP BY.
pub(crate) fn distinct_as_groups() -> impl OptimizerRule {
    DistinctAsGroups(ReplaceDistinctWithAggregate::new())
}

/// The rule, but for where it would leave a DISTINCT out.
#[derive(Debug)]
struct DistinctAsGroups(ReplaceDistinctWithAggregate);

impl OptimizerRule for DistinctAsGroups {
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
        match plan {
            LogicalPlan::Distinct(Distinct::All(input)) if believes(input.schema()) => {
                let keys: Vec<_> = input.schema().columns().into_iter().map(Expr::Column).collect();
                let groups = Aggregate::try_new(input, keys, Vec::new())?;
                Ok(Transformed::yes(LogicalPlan::Aggregate(groups)))
            }
            plan => self.0.rewrite(plan, config),
        }
    }
}

/// Sorts and groups by each expression once.
pub(crate) fn each_expression_once() -> impl OptimizerRule {
    EachOnce(EliminateDuplicatedExpr::new())
}

/// The rule, but for what it believes of sorts.
#[derive(Debug)]
struct EachOnce(EliminateDuplicatedExpr);

impl OptimizerRule for EachOnce {
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
        let LogicalPlan::Sort(mut sort) = plan else { return self.0.rewrite(plan, config) };
        let mut once: Vec<SortExpr> = Vec::with_capacity(sort.expr.len());
        for key in std::mem::take(&mut sort.expr) {
            if !once.iter().any(|other| other.expr == key.expr) {
                once.push(key);
            }
        }
        sort.expr = once;
        Ok(Transformed::no(LogicalPlan::Sort(sort)))
    }
}
