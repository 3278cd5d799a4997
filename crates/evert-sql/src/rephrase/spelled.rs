//! What Postgres spells in its own way, as calls and operators that the planner knows: intervals,
//! `EXTRACT`, `AT TIME ZONE`, `SIMILAR TO`, `mod()`, rows in subqueries.

use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType as SqlType, DateTimeField, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Interval, ObjectName, Query,
    SelectItem, SetExpr, TableAlias, TableAliasColumnDef, UnaryOperator, Value,
};

use super::{call, derived, function_name, parsed, parsed_expr, unnamed};
use crate::SqlError;
use crate::error::{SYNTAX_ERROR, UNDEFINED_FUNCTION, UNDEFINED_OBJECT};
use crate::names::fold;
use crate::times::{Field, Span, read_span, truncate_span};

/// The same in other words; `None` if the planner knows these.
pub(super) fn respelled(expr: &Expr) -> Result<Option<Expr>, SqlError> {
    Ok(Some(match expr {
        Expr::Extract { field, expr, .. } => {
            called("extract", [text(field_name(field)), (**expr).clone()])
        }
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            let from = substring_from.as_deref().cloned().unwrap_or_else(|| number("1"));
            let length = substring_for.as_deref().cloned();
            called("substring", [(**expr).clone(), from].into_iter().chain(length))
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            called("timezone", [(**time_zone).clone(), (**timestamp).clone()])
        }
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            let escape = escape_char.as_ref().and_then(|escape| escape.value.clone().into_string());
            let escape = text(escape.unwrap_or_else(|| "\\".into()));
            let similar = called("similar_to", [(**expr).clone(), (**pattern).clone(), escape]);
            if *negated { not(similar) } else { similar }
        }
        Expr::Collate { expr, collation } => {
            refuse_collation(collation)?;
            (**expr).clone()
        }
        Expr::Interval(interval) => return read_literal(interval),
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type: SqlType::Interval { fields: None, precision: None },
            ..
        } => {
            match string(expr) {
                Some(text) => literal(read_span(text, None)?),
                // The cast gives the parameter its type.
                None if is_parameter(expr) => return Ok(None),
                None => called("as_interval", [(**expr).clone()]),
            }
        }
        Expr::Cast { .. } => return Ok(None),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } if is_power(expr) => {
            return Ok(power_of_negative(expr));
        }
        Expr::UnaryOp { op, expr } => return Ok(unary(op, expr)),
        Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right }
            if is_json_cast(left) && (is_json_cast(right) || string(right).is_some())
                || is_json_cast(right) && string(left).is_some() =>
        {
            called("json_concat", [(**left).clone(), (**right).clone()])
        }
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_json_cast(left) => {
            called("jsonb_delete", [(**left).clone(), (**right).clone()])
        }
        Expr::BinaryOp { op: BinaryOperator::Overlaps, .. } => {
            return Err(SqlError::unsupported("OVERLAPS")
                .hint("Compare the ends: a_from < b_until AND b_from < a_until."));
        }
        Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
            called("ceil", [(**expr).clone()])
        }
        Expr::Function(function) => return of_call(function),
        Expr::InSubquery { expr, subquery, negated } => {
            let Expr::Tuple(items) = expr.as_ref() else { return Ok(None) };
            row_in(items, subquery, *negated)
        }
        _ => return Ok(None),
    }))
}

pub(super) fn called(name: &str, args: impl IntoIterator<Item = Expr>) -> Expr {
    call(name, args.into_iter().map(unnamed).collect())
}

fn text(text: String) -> Expr {
    Expr::value(Value::SingleQuotedString(text))
}

fn number(digits: &str) -> Expr {
    Expr::value(Value::Number(digits.into(), false))
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested(expr)) }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// A cast to JSON, whose type the planner takes for text.
fn is_json_cast(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { data_type, .. } => matches!(data_type, SqlType::JSON | SqlType::JSONB),
        Expr::Nested(inner) => is_json_cast(inner),
        _ => false,
    }
}

fn is_power(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::PGExp, .. })
}

/// `-x ^ 2` is `(-x) ^ 2`: a sign binds tighter than a power, unlike in mathematics.
fn power_of_negative(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op: BinaryOperator::PGExp, right } = expr else { return None };
    let base = match is_power(left) {
        true => power_of_negative(left)?,
        false => nested(Expr::UnaryOp { op: UnaryOperator::Minus, expr: left.clone() }),
    };
    Some(binary(base, BinaryOperator::PGExp, (**right).clone()))
}

fn field_name(field: &DateTimeField) -> String {
    match field {
        DateTimeField::Custom(name) => name.value.to_lowercase(),
        other => other.to_string().trim_matches('\'').to_lowercase(),
    }
}

/// Texts are compared by their bytes, which is what these collations say.
fn refuse_collation(collation: &ObjectName) -> Result<(), SqlError> {
    let name = collation.0.last().and_then(|part| part.as_ident());
    let name = name.map(|ident| ident.value.clone()).unwrap_or_default();
    if ["C", "POSIX", "ucs_basic", "default"].contains(&name.as_str()) {
        return Ok(());
    }
    let message = format!("collation \"{name}\" for encoding \"UTF8\" does not exist");
    Err(SqlError::new(UNDEFINED_OBJECT, message)
        .hint("Texts are compared by their bytes, as collation \"C\" does it."))
}

fn string(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => string(inner),
        _ => None,
    }
}

fn is_parameter(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Placeholder(_)),
        _ => false,
    }
}

/// `interval '1 day 04:05:06'`, `interval '5' hour`.
fn read_literal(interval: &Interval) -> Result<Option<Expr>, SqlError> {
    let Some(text) = string(&interval.value) else { return Ok(None) };
    let plain = interval.last_field.is_none()
        && interval.leading_precision.is_none()
        && interval.fractional_seconds_precision.is_none();
    if !plain {
        return Ok(None);
    }
    let Some(leading) = &interval.leading_field else {
        return Ok(Some(literal(read_span(text, None)?)));
    };
    let name = field_name(leading);
    let span = read_span(text, Some(&name))?;
    Ok(Some(literal(match Field::of_name(&name) {
        // Seconds have all their digits.
        None | Some(Field::Second | Field::Milliseconds | Field::Microseconds) => span,
        Some(field) => truncate_span(field, &name, span)?,
    })))
}

/// An interval in the words of the planner.
fn literal(span: Span) -> Expr {
    let Span { months, days, micros } = span;
    let value = text(format!("{months} months {days} days {micros} microseconds"));
    Expr::Interval(Interval {
        value: Box::new(value),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })
}

fn unary(op: &UnaryOperator, expr: &Expr) -> Option<Expr> {
    let operand = || expr.clone();
    Some(match op {
        UnaryOperator::PGAbs => called("abs", [operand()]),
        UnaryOperator::PGSquareRoot => called("sqrt", [operand()]),
        UnaryOperator::PGCubeRoot => called("cbrt", [operand()]),
        UnaryOperator::BitwiseNot => {
            let ones =
                nested(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number("1")) });
            nested(binary(nested(operand()), BinaryOperator::PGBitwiseXor, ones))
        }
        // The planner would negate what its text begins with.
        UnaryOperator::Minus => match expr {
            Expr::Interval(interval) => {
                let span = read_span(string(&interval.value)?, None).ok()?;
                literal(span.negated()?)
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// A call that is an operator, or whose arguments are named or left out.
fn of_call(function: &Function) -> Result<Option<Expr>, SqlError> {
    let Some(name) = function_name(&function.name) else { return Ok(None) };
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    Ok(Some(match (name.as_str(), plain_args(&list.args).as_deref()) {
        ("mod", Some([x, y])) => {
            nested(binary(nested((*x).clone()), BinaryOperator::Modulo, nested((*y).clone())))
        }
        ("age", Some([since])) => called("age", [parsed_expr("current_date"), (*since).clone()]),
        ("to_hex" | "pg_typeof", Some([value])) if is_small(value) => {
            let mut narrow = parsed_expr("CAST(1 AS integer)");
            if let Expr::Cast { expr, .. } = &mut narrow {
                **expr = (*value).clone();
            }
            called(&name, [narrow])
        }
        ("make_interval", None) => interval_of_names(&list.args)?,
        _ => return Ok(None),
    }))
}

/// Arguments without names.
fn plain_args(args: &[FunctionArg]) -> Option<Vec<&Expr>> {
    let plain = |arg| match arg {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    args.iter().map(plain).collect()
}

/// Whether a constant is an integer of 32 bits, which the planner takes for one of 64.
fn is_small(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse::<i32>().is_ok(),
            _ => false,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_small(expr),
        _ => false,
    }
}

/// `make_interval(days => 10)`.
fn interval_of_names(args: &[FunctionArg]) -> Result<Expr, SqlError> {
    const NAMES: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    let mut values: Vec<Expr> = NAMES.map(|_| number("0")).to_vec();
    for (place, arg) in args.iter().enumerate() {
        let (place, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (Some(place), value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                (NAMES.iter().position(|known| *known == fold(name)), value)
            }
            FunctionArg::ExprNamed {
                name: Expr::Identifier(name),
                arg: FunctionArgExpr::Expr(value),
                ..
            } => (NAMES.iter().position(|known| *known == fold(name)), value),
            _ => return Err(SqlError::new(SYNTAX_ERROR, "make_interval() takes no such argument")),
        };
        let slot = place.and_then(|place| values.get_mut(place));
        *slot.ok_or_else(|| {
            SqlError::new(UNDEFINED_FUNCTION, "make_interval() has no argument of that name")
        })? = value.clone();
    }
    Ok(called("make_interval", values))
}

/// `(a, b) IN (SELECT ...)`: true if a row equals it, unknown if one may, false otherwise.
fn row_in(items: &[Expr], subquery: &Query, negated: bool) -> Expr {
    let names: Vec<Ident> = (1..=items.len()).map(|n| Ident::new(format!("__row_{n}"))).collect();
    let equal = items.iter().zip(&names).map(|(item, name)| {
        binary(Expr::Identifier(name.clone()), BinaryOperator::Eq, nested(item.clone()))
    });
    let equal = equal.reduce(|all, next| binary(all, BinaryOperator::And, next));
    let equal = nested(equal.unwrap_or_else(|| Expr::value(Value::Boolean(true))));
    let exists = |condition: Expr| {
        let mut query = parsed("SELECT 1 FROM x WHERE true");
        if let SetExpr::Select(select) = query.body.as_mut() {
            let columns = names
                .iter()
                .map(|name| TableAliasColumnDef { name: name.clone(), data_type: None });
            let alias = TableAlias {
                explicit: true,
                name: Ident::new("__rows"),
                columns: columns.collect(),
                at: None,
            };
            if let Some(from) = select.from.first_mut() {
                from.relation = derived(subquery.clone(), Some(alias), false);
            }
            select.selection = Some(condition);
            debug_assert!(matches!(select.projection.as_slice(), [SelectItem::UnnamedExpr(_)]));
        }
        Expr::Exists { subquery: Box::new(query), negated: false }
    };
    let mut case = parsed_expr("CASE WHEN true THEN true WHEN true THEN NULL ELSE false END");
    if let Expr::Case { conditions, .. } = &mut case {
        conditions[0].condition = exists(equal.clone());
        conditions[1].condition = exists(Expr::IsNull(Box::new(equal)));
    }
    if negated { not(case) } else { case }
}
