//! Rows compared with rows, and values with the elements of arrays, as Postgres compares them:
//! column by column, where NULL makes the answer unknown.
//!
//! `(a, b) = (1, 2)` is `a = 1 AND b = 2`; `x = ANY (ARRAY[1, 2])` is `x IN (1, 2)`.
//! Not here: rows of subqueries.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, UnaryOperator, Value,
};

use super::{call, function_name, unnamed};
use crate::error::SYNTAX_ERROR;
use crate::{SqlError, depth};

type Rephrased = ControlFlow<SqlError, Option<Expr>>;

/// A comparison with rows or arrays in words without them; `None` for all others.
pub(super) fn compared(expr: &Expr) -> Rephrased {
    let none = ControlFlow::Continue(None);
    match expr {
        Expr::BinaryOp { left, op, right } => match (row(left), row(right)) {
            (Some(left), Some(right)) => operation(&left, op, &right),
            _ => none,
        },
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            let (Some(left), Some(right)) = (row(left), row(right)) else { return none };
            same_length(&left, &right)?;
            let distinct = left.into_iter().zip(right).map(|(a, b)| match expr {
                Expr::IsDistinctFrom(..) => Expr::IsDistinctFrom(Box::new(a), Box::new(b)),
                _ => Expr::IsNotDistinctFrom(Box::new(a), Box::new(b)),
            });
            let junction = match expr {
                Expr::IsDistinctFrom(..) => BinaryOperator::Or,
                _ => BinaryOperator::And,
            };
            found(joined(distinct, &junction))
        }
        Expr::InList { expr, list, negated } => {
            let Some(left) = row(expr) else { return none };
            let mut equal = Vec::with_capacity(list.len());
            for item in list {
                let Some(right) = row(item) else { return none };
                same_length(&left, &right)?;
                equal.push(equality(&left, &right));
            }
            let any = joined(equal, &BinaryOperator::Or);
            found(any.map(|any| if *negated { not(any) } else { any }))
        }
        Expr::Between { expr, negated, low, high } => {
            let (Some(row), Some(low), Some(high)) = (row(expr), row(low), row(high)) else {
                return none;
            };
            let from = operation(&row, &BinaryOperator::GtEq, &low)?;
            let to = operation(&row, &BinaryOperator::LtEq, &high)?;
            let both = joined([from, to].into_iter().flatten(), &BinaryOperator::And);
            found(both.map(|both| if *negated { not(both) } else { both }))
        }
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
            let Some(row) = row(inner) else { return none };
            let each = row.into_iter().map(|item| match expr {
                Expr::IsNull(_) => Expr::IsNull(Box::new(item)),
                _ => Expr::IsNotNull(Box::new(item)),
            });
            found(joined(each, &BinaryOperator::And))
        }
        Expr::AnyOp { left, compare_op, right, .. } => found(any(left, compare_op, right, expr)),
        Expr::AllOp { left, compare_op, right } => found(all(left, compare_op, right)),
        _ => none,
    }
}

fn found(expr: Option<Expr>) -> Rephrased {
    ControlFlow::Continue(expr.map(|expr| Expr::Nested(Box::new(expr))))
}

/// The columns of `(a, b)` or `ROW(a, b)`.
fn row(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(items) => Some(items.clone()),
        Expr::Function(function) if function_name(&function.name)? == "row" => arguments(function),
        _ => None,
    }
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let args = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    args.collect()
}

fn same_length(left: &[Expr], right: &[Expr]) -> ControlFlow<SqlError> {
    if left.len() == right.len() {
        return ControlFlow::Continue(());
    }
    let message = "unequal number of entries in row expressions";
    ControlFlow::Break(SqlError::new(SYNTAX_ERROR, message))
}

/// Two rows under an operator.
fn operation(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Rephrased {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    if !matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
        return ControlFlow::Continue(None);
    }
    same_length(left, right)?;
    found(match op {
        Eq => Some(equality(left, right)),
        NotEq => {
            let differ = left.iter().zip(right).map(|(a, b)| compare(a, NotEq, b));
            joined(differ, &BinaryOperator::Or)
        }
        op => order(left, op, right),
    })
}

fn equality(left: &[Expr], right: &[Expr]) -> Expr {
    let equal = left.iter().zip(right).map(|(a, b)| compare(a, BinaryOperator::Eq, b));
    let all = joined(equal, &BinaryOperator::And);
    all.map_or_else(|| Expr::value(Value::Boolean(true)), |all| Expr::Nested(Box::new(all)))
}

/// `(a, b) < (c, d)` is `a < c OR (a = c AND b < d)`: where `a` and `c` cannot be told apart for a
/// NULL, neither can the rows.
fn order(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, Or};
    let ((a, left), (b, right)) = (left.split_first()?, right.split_first()?);
    if left.is_empty() {
        return Some(compare(a, op.clone(), b));
    }
    let strict = match op {
        LtEq => Lt,
        GtEq => Gt,
        other => other.clone(),
    };
    let rest = order(left, op, right)?;
    let tied = joined([compare(a, Eq, b), Expr::Nested(Box::new(rest))], &And)?;
    joined([compare(a, strict, b), Expr::Nested(Box::new(tied))], &Or)
}

fn compare(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    let nested = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
    let compared = Expr::BinaryOp { left: nested(left), op, right: nested(right) };
    // Rows within rows.
    match self::compared(&compared) {
        ControlFlow::Continue(Some(other)) => other,
        _ => compared,
    }
}

fn joined(exprs: impl IntoIterator<Item = Expr>, op: &BinaryOperator) -> Option<Expr> {
    let mut exprs: Vec<Expr> = exprs.into_iter().collect();
    match exprs.len() {
        0 | 1 => exprs.pop(),
        _ => Some(depth::joined(&mut exprs, op)),
    }
}

fn not(expr: Expr) -> Expr {
    let expr = Box::new(Expr::Nested(Box::new(expr)));
    Expr::UnaryOp { op: UnaryOperator::Not, expr }
}

/// The elements of `ARRAY[a, b]`.
fn elements(expr: &Expr) -> Option<Vec<Expr>> {
    let elements = match expr {
        Expr::Array(array) => array.elem.clone(),
        Expr::Function(function) if function_name(&function.name)? == "make_array" => {
            arguments(function)?
        }
        _ => return None,
    };
    (!elements.is_empty()).then_some(elements)
}

/// `x op ANY (array)`: unknown, where the array holds a NULL and nothing else makes it true.
fn any(left: &Expr, op: &BinaryOperator, right: &Expr, whole: &Expr) -> Option<Expr> {
    if let Some(list) = elements(right) {
        if *op == BinaryOperator::Eq {
            let expr = Box::new(left.clone());
            return Some(Expr::InList { expr, list, negated: false });
        }
        let each = list.iter().map(|item| compare(left, op.clone(), item));
        return joined(each, &BinaryOperator::Or);
    }
    // A parameter has its type from the plain form; what is rephrased already stays.
    if matches!(right, Expr::Subquery(_) | Expr::Value(_) | Expr::Nested(_)) {
        return None;
    }
    or_unknown(left, right, whole)
}

/// `x = ANY ($1)`, once the parameter has its type.
pub(super) fn any_of_parameter(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::AnyOp { left, right, .. } if matches!(**right, Expr::Value(_)) => {
            or_unknown(left, right, expr).map(|expr| Expr::Nested(Box::new(expr)))
        }
        _ => None,
    }
}

fn or_unknown(left: &Expr, right: &Expr, whole: &Expr) -> Option<Expr> {
    // The brackets tell that it has been rephrased.
    let Expr::AnyOp { compare_op, is_some, .. } = whole else { return None };
    let plain = Expr::AnyOp {
        left: Box::new(left.clone()),
        compare_op: compare_op.clone(),
        right: Box::new(Expr::Nested(Box::new(right.clone()))),
        is_some: *is_some,
    };
    let null = Expr::value(Value::Null);
    let place = call("array_position", vec![unnamed(right.clone()), unnamed(null.clone())]);
    let unknown = Expr::Cast {
        kind: CastKind::DoubleColon,
        expr: Box::new(null),
        data_type: DataType::Boolean,
        array: false,
        format: None,
    };
    let has_null = Expr::IsNotNull(Box::new(place));
    joined([plain, joined([has_null, unknown], &BinaryOperator::And)?], &BinaryOperator::Or)
}

/// `x op ALL (ARRAY[a, b])` is `x op a AND x op b`.
fn all(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    let list = elements(right)?;
    if *op == BinaryOperator::NotEq {
        return Some(Expr::InList { expr: Box::new(left.clone()), list, negated: true });
    }
    let each = list.iter().map(|item| compare(left, op.clone(), item));
    joined(each, &BinaryOperator::And)
}
