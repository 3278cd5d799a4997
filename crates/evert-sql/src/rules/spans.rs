//! Comparing a span between two timestamps with an interval: `now() - paid_at < INTERVAL '2 days'`.
//!
//! DataFusion compares intervals field by field, so that no number of hours is ever a day. Here,
//! as in Postgres, a day is 24 hours and a month 30 days, and so the comparison is one of
//! timestamps: `now() < paid_at + INTERVAL '48 hours'`.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::scalar::ScalarValue;

const MONTH_DAYS: i64 = 30;
const DAY_NANOS: i64 = 86_400_000_000_000;

/// Rewrites such comparisons in a plan whose types are not settled yet.
pub(super) fn compare(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| Ok(rewritten(expr, &schema)))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    })
    .data()
}

fn rewritten(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else {
        return Transformed::no(expr);
    };
    let is_comparison = matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
    );
    let found = match (is_comparison, span(left, schema), span(right, schema)) {
        (true, Some((later, earlier)), None) => interval(right)
            .map(|interval| comparison(later.clone(), *op, earlier.clone() + interval)),
        (true, None, Some((later, earlier))) => interval(left)
            .map(|interval| comparison(earlier.clone() + interval, *op, later.clone())),
        _ => None,
    };
    found.map_or_else(|| Transformed::no(expr.clone()), Transformed::yes)
}

fn comparison(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// The two timestamps of a difference.
fn span<'a>(expr: &'a Expr, schema: &DFSchema) -> Option<(&'a Expr, &'a Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = unnested(expr) else {
        return None;
    };
    let is_timestamp = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Timestamp(_, _)));
    (is_timestamp(left) && is_timestamp(right)).then_some((left, right))
}

fn unnested(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unnested(&alias.expr),
        other => other,
    }
}

/// A constant interval in nanoseconds alone, if it fits.
fn interval(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = unnested(expr) else {
        return None;
    };
    let days = i64::from(interval.months) * MONTH_DAYS + i64::from(interval.days);
    let nanos = days.checked_mul(DAY_NANOS)?.checked_add(interval.nanoseconds)?;
    let interval = IntervalMonthDayNano::new(0, 0, nanos);
    Some(Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), None))
}
