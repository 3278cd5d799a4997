//! Conditions in turn: what may fail is evaluated for those rows only that the conditions beside it
//! leave: `s <> 0 AND 10 / s > 2`, `s = 0 OR 10 / s > 2`.
//!
//! Postgres evaluates AND and OR from the left, row by row, and a WHERE's cheap conditions first.
//! DataFusion does so batch by batch, if it pays. A view evaluates row by row what fails.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Case, Cast, Like};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, binary_expr, lit,
};

use crate::casts::is_text;

/// So many sides of an operator are put in turn; those beyond are evaluated together.
const SIDES_MAX: usize = 64;

/// Puts the conditions of a plan that is optimised otherwise in turn.
pub(crate) fn in_turn(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let plan = match plan {
            LogicalPlan::Filter(filter) => filtered(filter)?,
            other => Transformed::no(other),
        };
        let mut schema = merge_schema(&plan.data.inputs());
        if let LogicalPlan::TableScan(scan) = &plan.data {
            schema.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&plan.data);
        plan.transform_data(|plan| {
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = three_valued(expr, &schema)?;
                Ok(expr.update_data(|expr| name.restore(expr)))
            })
        })
    })
    .data()
}

/// The rows that conditions leave. What cannot fail comes first.
fn filtered(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let schema = filter.input.schema();
    let conditions = split_conjunction_owned(filter.predicate.clone());
    if conditions.len() < 2 || conditions.iter().any(Expr::is_volatile) {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let (fail, safe): (Vec<Expr>, Vec<Expr>) =
        conditions.into_iter().partition(|condition| may_fail(condition, schema));
    if fail.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let mut turns: Vec<Expr> = conjunction(safe).into_iter().collect();
    turns.extend(fail);
    let in_turn = turns.into_iter().rev().reduce(|later, first| case(first, later, false));
    let Some(predicate) = in_turn else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    let filter = Filter::try_new(predicate, filter.input)?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

/// `CASE WHEN condition THEN result ELSE otherwise END`.
fn case(condition: Expr, result: Expr, otherwise: bool) -> Expr {
    let when_then_expr = vec![(Box::new(condition), Box::new(result))];
    Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(lit(otherwise))) })
}

/// AND and OR of which a later side may fail: it is evaluated where those before it decide nothing.
/// NULL decides nothing.
fn three_valued(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !may_fail(&expr, schema) {
        return Ok(Transformed::no(expr));
    }
    let op = match &expr {
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => *op,
        _ => return expr.map_children(|expr| three_valued(expr, schema)),
    };
    if expr.is_volatile() {
        return Ok(Transformed::no(expr));
    }
    let mut sides = sides(expr, op);
    if sides.len() > SIDES_MAX {
        let last = sides.split_off(SIDES_MAX);
        sides.extend(last.into_iter().reduce(|left, right| binary_expr(left, op, right)));
    }
    let mut changed = false;
    let mut turned = Vec::with_capacity(sides.len());
    for side in sides {
        let side = three_valued(side, schema)?;
        changed |= side.transformed;
        turned.push(side.data);
    }
    let mut later: Option<(Expr, bool)> = None;
    for side in turned.into_iter().rev() {
        let fails = may_fail(&side, schema);
        later = Some(match later {
            None => (side, fails),
            Some((later, true)) => {
                changed = true;
                let undecided = match op {
                    Operator::And => Expr::IsNotFalse(Box::new(side.clone())),
                    _ => Expr::IsNotTrue(Box::new(side.clone())),
                };
                (case(undecided, binary_expr(side, op, later), op == Operator::Or), true)
            }
            Some((later, false)) => (binary_expr(side, op, later), fails),
        });
    }
    let (expr, _) = later.expect("an operator has two sides");
    Ok(Transformed::new_transformed(expr, changed))
}

/// The sides of a chain of one operator, from the left.
fn sides(expr: Expr, op: Operator) -> Vec<Expr> {
    let (mut open, mut sides) = (vec![expr], Vec::new());
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: other, right }) if other == op => {
                open.extend([*right, *left]);
            }
            side => sides.push(side),
        }
    }
    sides
}

/// Whether evaluating an expression may be an error.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let fails = |expr: &Expr| {
        Ok(match expr {
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::Case(_)
            | Expr::Placeholder(_)
            | Expr::OuterReferenceColumn(..) => false,
            Expr::Like(Like { pattern, .. }) => !matches!(pattern.as_ref(), Expr::Literal(..)),
            Expr::BinaryExpr(BinaryExpr { op, right, .. }) => match op {
                Operator::And | Operator::Or => false,
                Operator::RegexMatch
                | Operator::RegexIMatch
                | Operator::RegexNotMatch
                | Operator::RegexNotIMatch => !matches!(right.as_ref(), Expr::Literal(..)),
                op => !is_comparison(*op),
            },
            Expr::Cast(Cast { expr, field }) => {
                let from = expr.get_type(schema)?;
                let wider = |from: &DataType, to: &DataType| {
                    from.is_integer()
                        && (to.is_integer() || to.is_floating())
                        && from.primitive_width() <= to.primitive_width()
                };
                !is_text(field.data_type())
                    && from != *field.data_type()
                    && !wider(&from, field.data_type())
            }
            _ => true,
        })
    };
    expr.exists(fails).unwrap_or(true)
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}
