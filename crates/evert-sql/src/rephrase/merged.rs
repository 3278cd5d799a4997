//! Columns that `FULL JOIN ... USING` and `RIGHT JOIN ... USING` merge. The planner takes the left
//! side's, which is NULL in rows of the right side alone.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectNamePart, OrderByKind, Query, Select,
    SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use super::{call, unnamed};
use crate::SqlError;
use crate::names::fold;

/// Puts what a merged column is in the place of its name.
///
/// # Errors
/// 0A000 where that takes the columns of the tables: under `*`, and in NATURAL joins.
pub(super) fn merge(query: &mut Query) -> Result<(), SqlError> {
    let merged = match query.body.as_mut() {
        SetExpr::Select(select) => in_select(select)?,
        body => return in_operands(body),
    };
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(()) };
    // What ORDER BY names is a result first.
    let is_result = |name: &str| {
        select.projection.iter().any(
            |item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == name),
        )
    };
    let merged: Vec<_> = merged.into_iter().filter(|(name, _)| !is_result(name)).collect();
    if let Some(order) = &mut query.order_by
        && let OrderByKind::Expressions(exprs) = &mut order.kind
    {
        let _ = exprs.visit(&mut Names { merged: &merged, below: 0 });
    }
    Ok(())
}

fn in_operands(body: &mut SetExpr) -> Result<(), SqlError> {
    match body {
        SetExpr::Select(select) => in_select(select).map(drop),
        SetExpr::SetOperation { left, right, .. } => {
            in_operands(left)?;
            in_operands(right)
        }
        // A query in parentheses is visited by itself.
        _ => Ok(()),
    }
}

/// A merged column and what it is.
type Merged = Vec<(String, Expr)>;

fn in_select(select: &mut Select) -> Result<Merged, SqlError> {
    let mut merged = Merged::new();
    for tables in &select.from {
        merged.extend(columns_of(tables)?);
    }
    if merged.is_empty() {
        return Ok(merged);
    }
    for item in &mut select.projection {
        match item {
            SelectItem::Wildcard(_) => {
                return Err(SqlError::unsupported("* over FULL or RIGHT JOIN ... USING")
                    .hint("Name the columns."));
            }
            SelectItem::UnnamedExpr(expr) => {
                if let Some(name) = named(expr).filter(|name| find(&merged, &fold(name)).is_some())
                {
                    let (expr, alias) = (expr.clone(), name.clone());
                    *item = SelectItem::ExprWithAlias { expr, alias };
                }
            }
            _ => {}
        }
    }
    let names = &mut Names { merged: &merged, below: 0 };
    let _ = select.projection.visit(names);
    let _ = select.selection.visit(names);
    let _ = select.group_by.visit(names);
    let _ = select.having.visit(names);
    let _ = select.distinct.visit(names);
    Ok(merged)
}

/// The merged columns that are not the left side's.
fn columns_of(tables: &TableWithJoins) -> Result<Merged, SqlError> {
    use JoinOperator::{FullOuter, Right, RightOuter};
    let mut merged = Merged::new();
    for (place, Join { relation, join_operator, .. }) in tables.joins.iter().enumerate() {
        let (constraint, full) = match join_operator {
            FullOuter(constraint) => (constraint, true),
            Right(constraint) | RightOuter(constraint) => (constraint, false),
            _ => continue,
        };
        let columns = match constraint {
            JoinConstraint::Using(columns) => columns,
            JoinConstraint::Natural => {
                return Err(SqlError::unsupported("NATURAL FULL JOIN and NATURAL RIGHT JOIN")
                    .hint("Name the columns: JOIN ... USING (...)."));
            }
            _ => continue,
        };
        for column in columns {
            let [ObjectNamePart::Identifier(column)] = column.0.as_slice() else { continue };
            let of = |table: &TableFactor| {
                let parts = [alias(table)?, column.clone()];
                Some(Expr::CompoundIdentifier(parts.to_vec()))
            };
            let known = find(&merged, &fold(column)).cloned();
            let first = || of(&tables.relation).filter(|_| place == 0);
            let both = known.or_else(first).zip(of(relation));
            let Some((left, right)) = both else {
                return Err(SqlError::unsupported(
                    "FULL or RIGHT JOIN ... USING after another join",
                )
                .hint("Say ON, and coalesce(a.k, b.k)."));
            };
            let value = match full {
                true => call("coalesce", vec![unnamed(left), unnamed(right)]),
                false => right,
            };
            let name = fold(column);
            merged.retain(|(other, _)| *other != name);
            merged.push((name, value));
        }
    }
    Ok(merged)
}

fn find<'a>(merged: &'a Merged, name: &str) -> Option<&'a Expr> {
    merged.iter().find(|(merged, _)| merged == name).map(|(_, value)| value)
}

/// What columns of a table are called by.
fn alias(table: &TableFactor) -> Option<Ident> {
    let (alias, name) = match table {
        TableFactor::Table { alias, name, .. } => (alias, Some(name)),
        TableFactor::Derived { alias, .. } => (alias, None),
        _ => return None,
    };
    match (alias, name.and_then(|name| name.0.last())) {
        (Some(alias), _) => Some(alias.name.clone()),
        (None, Some(ObjectNamePart::Identifier(name))) => Some(name.clone()),
        _ => None,
    }
}

fn named(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        _ => None,
    }
}

/// Names outside subqueries, which have tables of their own.
struct Names<'a> {
    merged: &'a [(String, Expr)],
    below: usize,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.below += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.below -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.below == 0
            && let Some(name) = named(expr).map(fold)
            && let Some((_, value)) = self.merged.iter().find(|(merged, _)| *merged == name)
        {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}
