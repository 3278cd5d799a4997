//! Comparing a span between two timestamps with an interval: `now() - paid_at < INTERVAL '2 days'`.
//!
//! DataFusion compares intervals field by field, so that no number of hours is ever a day. Here,
//! as in Postgres, a day is 24 hours and a month 30 days, and so the comparison is one of
//! timestamps: `now() < paid_at + INTERVAL '48 hours'`.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::scalar::ScalarValue;

use crate::SqlError;

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

/// Refuses what would tell apart intervals of one length, in a plan whose types are settled.
pub(super) fn refuse(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        let is_span = |expr: &Expr| matches!(expr.get_type(&schema), Ok(DataType::Interval(_)));
        let what = match plan {
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().any(is_span) => {
                Some("GROUP BY or DISTINCT")
            }
            LogicalPlan::Aggregate(aggregate) => {
                aggregate.aggr_expr.iter().find_map(|expr| of_aggregate(expr, &is_span))
            }
            LogicalPlan::Distinct(_) => {
                let mut fields = plan.schema().fields().iter();
                fields
                    .any(|field| matches!(field.data_type(), DataType::Interval(_)))
                    .then_some("DISTINCT")
            }
            LogicalPlan::Sort(sort) => {
                sort.expr.iter().any(|key| is_span(&key.expr)).then_some("ORDER BY")
            }
            _ => None,
        };
        match what {
            None => Ok(TreeNodeRecursion::Continue),
            Some(what) => {
                let error = SqlError::unsupported(format!("{what} of intervals"))
                    .hint("Use their length: extract(epoch from i).");
                Err(DataFusionError::External(Box::new(error)))
            }
        }
    })
    .map(drop)
}

/// An aggregate that compares its arguments.
fn of_aggregate(expr: &Expr, is_span: &dyn Fn(&Expr) -> bool) -> Option<&'static str> {
    let Expr::AggregateFunction(call) = unnested(expr) else { return None };
    let compares = call.params.distinct || matches!(call.func.name(), "min" | "max");
    let found = compares && call.params.args.iter().any(is_span);
    found.then_some("min(), max() or DISTINCT")
}

/// A difference of a date and a timestamp as one of timestamps. DataFusion would take both for
/// nanoseconds, which do not reach the year 9999.
fn with_dates(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = expr else {
        return Transformed::no(expr);
    };
    let (mut sides, mut changed) = ([left, right], false);
    let types = [&sides[0], &sides[1]].map(|side| side.get_type(schema).ok());
    for place in 0..2 {
        if let (Some(DataType::Date32), Some(stamp @ DataType::Timestamp(..))) =
            (&types[place], &types[1 - place])
        {
            *sides[place] = cast((*sides[place]).clone(), stamp.clone());
            changed = true;
        }
    }
    let [left, right] = sides;
    let expr = Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right });
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

fn rewritten(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let expr = with_dates(expr, schema);
    if expr.transformed {
        return expr;
    }
    let expr = expr.data;
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
