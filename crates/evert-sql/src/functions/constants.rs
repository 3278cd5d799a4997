//! Constant texts beside values of other types, which they take, as Postgres's constants of unknown
//! type do: `amount + '1.5'`, `paid_at - '2026-01-01'`, `flag = 'true'`.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, cast};
use datafusion::scalar::ScalarValue;
use sqlparser::ast::BinaryOperator;

use super::dates::{INTERVAL, is_interval};
use super::moments::type_of;
use crate::casts::numeric_of_text;

/// The text, if the expression is a constant one that no cast gives a type.
pub(crate) fn constant_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

/// A constant text as a value of a type; a decimal has the digits that are written.
pub(crate) fn constant_as(expr: Expr, ty: &DataType) -> Expr {
    let number = match (constant_text(&expr), ty) {
        (Some(text), DataType::Decimal128(..) | DataType::Decimal256(..)) => decimal(text),
        _ => None,
    };
    number.unwrap_or_else(|| cast(expr, ty.clone()))
}

fn decimal(text: &str) -> Option<Expr> {
    let number = numeric_of_text(text).ok()?;
    let (precision, scale) = number.size()?;
    let units = number.units(precision, scale).ok()?;
    Some(Expr::Literal(ScalarValue::Decimal128(Some(units), precision, scale), None))
}

/// The type of a constant beside a type that DataFusion compares with no text; `None` for others.
pub(crate) fn apart_from_text(ty: &DataType) -> Option<DataType> {
    match ty {
        DataType::Boolean => Some(DataType::Boolean),
        // The difference of two timestamps is an interval too.
        DataType::Duration(_) => Some(INTERVAL),
        ty if is_interval(ty) => Some(INTERVAL),
        _ => None,
    }
}

/// Operators with a constant text on a side.
#[derive(Debug)]
pub(crate) struct ConstantOperators;

impl ExprPlanner for ConstantOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let is_right = constant_text(&right).is_some();
        let (constant, other) = if is_right { (&right, &left) } else { (&left, &right) };
        let wanted = match constant_text(constant) {
            Some(_) => type_of(other, schema).and_then(|ty| beside(&op, &ty, is_right)),
            None => None,
        };
        let (left, right) = match (wanted, is_right) {
            (Some(ty), true) => (left, constant_as(right, &ty)),
            (Some(ty), false) => (constant_as(left, &ty), right),
            (None, _) => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// The type of a constant beside a value of a type: its own, but for operators whose sides differ.
fn beside(op: &BinaryOperator, ty: &DataType, is_right: bool) -> Option<DataType> {
    use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    let is_instant = matches!(ty, DataType::Timestamp(..));
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq => apart_from_text(ty),
        Plus | Minus | Multiply | Divide | Modulo if ty.is_numeric() => Some(ty.clone()),
        Plus | Minus if is_interval(ty) => Some(INTERVAL),
        Multiply | Divide if is_interval(ty) && is_right => Some(DataType::Float64),
        Plus if is_instant => Some(INTERVAL),
        Minus if is_instant || *ty == DataType::Date32 => Some(ty.clone()),
        _ => None,
    }
}
