//! LATERAL: a table of the FROM clause that refers to those before it.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinType, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    EmptyRelation, Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection,
};

use super::free::{has_subquery, lateral};
use super::pull::realias;
use super::{Decorrelator, and, around, only, refused};

impl Decorrelator {
    /// A join whose right side refers to the left one.
    pub(super) fn lateral(&mut self, join: Join) -> Result<LogicalPlan> {
        let columns = join.schema.columns();
        let left = self.plan(Arc::unwrap_or_clone(Arc::clone(&join.left)))?;
        if !join.on.is_empty() || !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return Err(refused(&format!("a {} join with LATERAL", join.join_type)));
        }
        let subquery = lateral(&join)?.expect("the caller has seen it");
        let (plan, names) = (subquery.clone(), subquery.schema().columns());
        if join.join_type == JoinType::Inner
            && let Some(direct) = self.row_by_row(&left, &plan)?
        {
            let renamed = renamed_columns(&left, names, &join)?;
            let direct = LogicalPlan::Projection(Projection::try_new(renamed, Arc::new(direct))?);
            return match join.filter {
                Some(filter) => {
                    self.plan(LogicalPlan::Filter(Filter::try_new(filter, Arc::new(direct))?))
                }
                None => Ok(direct),
            };
        }
        let values = names.iter().cloned().map(Expr::Column).collect();
        let mut related = self.relate(&left, &plan, values, false)?;
        // The columns have the names that the query knows them by again.
        let mut exprs: Vec<Expr> =
            related.plan.schema().columns().into_iter().map(Expr::Column).collect();
        let first = exprs.len() - names.len();
        let shown = join.right.schema().columns();
        for (expr, name) in exprs[first..].iter_mut().zip(&shown) {
            *expr = expr.clone().alias_qualified(name.relation.clone(), &name.name);
        }
        related.plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(related.plan))?);
        related.filter = match join.filter {
            Some(filter) => and(related.filter, filter),
            None => related.filter,
        };
        let joined = related.join(left, join.join_type)?;
        let joined = match joined {
            LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(has_subquery) => {
                self.join(join)?
            }
            joined => joined,
        };
        only(joined, columns)
    }

    /// A subquery that computes from each row of `left` alone, such as `unnest(t.list)`: over
    /// `left` itself. `None` if it is another.
    fn row_by_row(
        &mut self,
        left: &LogicalPlan,
        subquery: &LogicalPlan,
    ) -> Result<Option<LogicalPlan>> {
        let columns = left.schema().columns();
        let keep = || columns.iter().cloned().map(Expr::Column);
        Ok(match subquery {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }) => {
                Some(left.clone())
            }
            LogicalPlan::Subquery(subquery) => self.row_by_row(left, &subquery.subquery)?,
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = self.row_by_row(left, &alias.input)? else { return Ok(None) };
                if clashes(left, alias.schema.as_ref()) {
                    return Ok(None);
                }
                Some(realias(input, alias, &columns)?)
            }
            LogicalPlan::Projection(projection) => {
                let Some(input) = self.row_by_row(left, &projection.input)? else {
                    return Ok(None);
                };
                if clashes(left, projection.schema.as_ref())
                    || projection.expr.iter().any(has_subquery)
                {
                    return Ok(None);
                }
                let names = NamePreserver::new(subquery);
                let mut exprs: Vec<Expr> = Vec::new();
                for expr in &projection.expr {
                    let name = names.save(expr);
                    exprs.push(name.restore(around(expr.clone())?));
                }
                exprs.extend(keep());
                Some(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
            }
            LogicalPlan::Unnest(unnest) => {
                let Some(input) = self.row_by_row(left, &unnest.input)? else { return Ok(None) };
                let (columns, options) = (unnest.exec_columns.clone(), unnest.options.clone());
                Some(
                    LogicalPlanBuilder::from(input)
                        .unnest_columns_with_options(columns, options)?
                        .build()?,
                )
            }
            _ => None,
        })
    }
}

/// Whether a name of the subquery's would hide one of `left`.
fn clashes(left: &LogicalPlan, schema: &DFSchema) -> bool {
    schema
        .columns()
        .iter()
        .any(|column| left.schema().iter().any(|(_, field)| *field.name() == column.name))
}

/// The columns of `left`, then the subquery's under the names that the join gives them.
fn renamed_columns(left: &LogicalPlan, inner: Vec<Column>, join: &Join) -> Result<Vec<Expr>> {
    let kept = left.schema().columns().into_iter().map(Expr::Column);
    let shown = join.right.schema().columns().into_iter().zip(inner);
    let shown =
        shown.map(|(name, column)| Expr::Column(column).alias_qualified(name.relation, name.name));
    Ok(kept.chain(shown).collect())
}
