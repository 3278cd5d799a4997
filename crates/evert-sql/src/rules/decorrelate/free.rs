//! What a subquery takes from around it.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Subquery};

/// A column of a query around a subquery.
pub(super) type Outer = (FieldRef, Column);

/// The subquery that an expression itself is.
pub(super) fn subquery(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(membership) => Some(&membership.subquery),
        _ => None,
    }
}

/// Whether there is a subquery in an expression.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(subquery(expr).is_some())).unwrap_or(true)
}

/// The columns that a plan takes from around it, each once.
pub(super) fn free(plan: &LogicalPlan) -> Result<Vec<Outer>> {
    let mut found = Vec::new();
    collect(plan, &mut found)?;
    Ok(found)
}

fn add(found: &mut Vec<Outer>, outer: Outer) {
    if found.iter().all(|(_, column)| *column != outer.1) {
        found.push(outer);
    }
}

fn collect(plan: &LogicalPlan, found: &mut Vec<Outer>) -> Result<()> {
    if !matches!(plan, LogicalPlan::Subquery(_)) {
        let schema = merge_schema(&plan.inputs());
        plan.apply_expressions(|expr| {
            for outer in free_in(expr, &schema)? {
                add(found, outer);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    if let LogicalPlan::Join(join) = plan {
        let taken = free(&join.right)?;
        let is_lateral = is_lateral(join, &taken);
        collect(&join.left, found)?;
        for outer in taken {
            if !is_lateral || !join.left.schema().has_column(&outer.1) {
                add(found, outer);
            }
        }
        return Ok(());
    }
    plan.inputs().into_iter().try_for_each(|input| collect(input, found))
}

/// The columns that an expression over `schema` takes from around.
pub(super) fn free_in(expr: &Expr, schema: &DFSchema) -> Result<Vec<Outer>> {
    let mut found = Vec::new();
    expr.apply(|expr| {
        if let Expr::OuterReferenceColumn(field, column) = expr {
            add(&mut found, (Arc::clone(field), column.clone()));
        }
        if let Some(subquery) = subquery(expr) {
            for outer in free(&subquery.subquery)? {
                if !schema.has_column(&outer.1) {
                    add(&mut found, outer);
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The right side of a join, if it may refer to the left one.
pub(super) fn lateral(join: &Join) -> Result<Option<&LogicalPlan>> {
    if let LogicalPlan::Subquery(subquery) = unaliased(&join.right) {
        return Ok(Some(subquery.subquery.as_ref()));
    }
    let taken = free(&join.right)?;
    Ok(is_lateral(join, &taken).then_some(join.right.as_ref()))
}

/// Whether the right side of a join, which takes some columns from around it, may have them of
/// the left one.
fn is_lateral(join: &Join, taken: &[Outer]) -> bool {
    let takes_left = || taken.iter().any(|(_, column)| join.left.schema().has_column(column));
    match unaliased(&join.right) {
        LogicalPlan::Subquery(_) => true,
        // Tables in parentheses, one of which is LATERAL.
        LogicalPlan::Join(_) => takes_left(),
        // The planner marks a LATERAL query only if the query itself names columns from around
        // it, not if just the subqueries in its expressions do. One that names some and has no
        // mark is not LATERAL: its names are those of a query further out.
        right => takes_left() && right.all_out_ref_exprs().is_empty(),
    }
}

fn unaliased(mut plan: &LogicalPlan) -> &LogicalPlan {
    while let LogicalPlan::SubqueryAlias(alias) = plan {
        plan = &alias.input;
    }
    plan
}

/// Columns from around, and the names that they have got nearer by.
#[derive(Clone)]
pub(super) struct Renaming(pub(super) Vec<(Outer, Column)>);

impl Renaming {
    fn get(&self, column: &Column) -> Option<&Column> {
        self.0.iter().find(|((_, outer), _)| outer == column).map(|(_, name)| name)
    }

    /// Without what `schema` hides.
    fn under(&self, schema: &DFSchema) -> Self {
        let seen = self.0.iter().filter(|((_, outer), _)| !schema.has_column(outer));
        Self(seen.cloned().collect())
    }

    /// Whether a plan takes any of the columns.
    pub(super) fn touches(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(free(plan)?.iter().any(|(_, column)| self.get(column).is_some()))
    }

    /// An expression over `schema`, in which the names are columns now.
    pub(super) fn apply(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        let nested = self.under(schema);
        expr.transform_up(|expr| match expr {
            Expr::OuterReferenceColumn(field, column) => Ok(match self.get(&column) {
                Some(name) => Transformed::yes(Expr::Column(name.clone())),
                None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
            }),
            mut other => {
                let Some(subquery) = subquery_mut(&mut other) else {
                    return Ok(Transformed::no(other));
                };
                let plan = nested.outer(subquery.subquery.as_ref().clone())?;
                subquery.subquery = Arc::new(plan);
                Ok(Transformed::yes(other))
            }
        })
        .data()
    }

    /// A plan to which the names are columns from around.
    pub(super) fn outer(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if self.0.is_empty() {
            return Ok(plan);
        }
        let renamed = |expr: Expr, schema: &DFSchema| {
            let nested = self.under(schema);
            expr.transform_up(|expr| match expr {
                Expr::OuterReferenceColumn(field, column) => {
                    let name = self.get(&column).cloned().unwrap_or(column);
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, name)))
                }
                mut other => {
                    let Some(subquery) = subquery_mut(&mut other) else {
                        return Ok(Transformed::no(other));
                    };
                    let plan = nested.outer(subquery.subquery.as_ref().clone())?;
                    subquery.subquery = Arc::new(plan);
                    Ok(Transformed::yes(other))
                }
            })
        };
        plan.transform_down(|plan| {
            if matches!(plan, LogicalPlan::Subquery(_)) {
                return Ok(Transformed::no(plan));
            }
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(renamed(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })
        })
        .data()
    }
}

fn subquery_mut(expr: &mut Expr) -> Option<&mut Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&mut exists.subquery),
        Expr::InSubquery(membership) => Some(&mut membership.subquery),
        _ => None,
    }
}
