//! `percentile_cont(0.5) WITHIN GROUP (ORDER BY x DESC)` as a call with all that it takes:
//! `percentile_cont(x, 0.5, true)`.

use sqlparser::ast::{Expr, Function, FunctionArguments, UnaryOperator, Value};

use super::{function_name, unnamed};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, SYNTAX_ERROR, UNDEFINED_FUNCTION, WRONG_OBJECT_TYPE};
use crate::functions::{check_percentile, is_ordered_set};

/// Whether a call is of an aggregate that takes its values from WITHIN GROUP.
pub(super) fn concerns(function: &Function) -> bool {
    function_name(&function.name).is_some_and(|name| is_ordered_set(&name))
}

/// The call in the words of the planner.
pub(super) fn called(function: &Function) -> Result<Expr, SqlError> {
    let name = function_name(&function.name).unwrap_or_default();
    if function.over.is_some() {
        let message = format!("OVER is not supported for ordered-set aggregate {name}");
        return Err(SqlError::new(FEATURE_NOT_SUPPORTED, message));
    }
    let mut call = function.clone();
    let FunctionArguments::List(list) = &mut call.args else {
        return Err(undefined(&name));
    };
    if list.duplicate_treatment.is_some() {
        return Err(SqlError::new(SYNTAX_ERROR, "cannot use DISTINCT with WITHIN GROUP"));
    }
    let key = match call.within_group.as_slice() {
        [] => {
            let message = format!("WITHIN GROUP is required for ordered-set aggregate {name}");
            return Err(SqlError::new(WRONG_OBJECT_TYPE, message));
        }
        [key] => key.clone(),
        _ => return Err(undefined(&name)),
    };
    call.within_group.clear();
    for arg in &list.args {
        if let sqlparser::ast::FunctionArg::Unnamed(sqlparser::ast::FunctionArgExpr::Expr(expr)) =
            arg
            && let Some(percentile) = constant(expr)
        {
            check_percentile(percentile)?;
        }
    }
    list.args.insert(0, unnamed(key.expr));
    let descending = key.options.asc == Some(false);
    list.args.push(unnamed(Expr::value(Value::Boolean(descending))));
    Ok(Expr::Function(call))
}

fn undefined(name: &str) -> SqlError {
    let message = format!("function {name}() does not exist for such arguments");
    SqlError::new(UNDEFINED_FUNCTION, message)
}

/// A number that is written out.
fn constant(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => constant(expr).map(|value| -value),
        Expr::Nested(expr) => constant(expr),
        _ => None,
    }
}
