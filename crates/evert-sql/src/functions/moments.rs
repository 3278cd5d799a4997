//! Operators and casts of dates, times and intervals, as Postgres has them.
//!
//! A date plus an interval is a timestamp, a time of day wraps at midnight, intervals are scaled by
//! numbers and compared by their length, and texts become times in Postgres's forms. DataFusion's
//! operators do none of these.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, IntervalMonthDayNanoArray,
    StringViewArray, Time64NanosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarUDF,
};
use sqlparser::ast::BinaryOperator;

use super::dates::{CLOCK, INTERVAL, Times, each_span, is_interval, plain};
use super::floats::is_comparison;
use super::mathematics::power;
use super::rows::{Call, RowFunction, cast, is_number, is_text, of, types};
use crate::SqlError;
use crate::error::DIVISION_BY_ZERO;
use crate::times::{self, DAY};

/// The functions, and where they are in their list.
static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = [
        RowFunction::new("as_interval", as_interval_type, as_interval),
        RowFunction::new("interval_length", length_type, length),
        RowFunction::new("interval_times", scaled_type, interval_times),
        RowFunction::new("interval_over", scaled_type, interval_over),
        RowFunction::new("time_plus", clock_type, |call| moved(call, 1)),
        RowFunction::new("time_minus", clock_type, |call| moved(call, -1)),
    ];
    functions.into_iter().map(RowFunction::shared).collect()
});

/// The functions that the operators become.
pub(crate) fn moment_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

fn called(name: &str, args: Vec<Expr>) -> Expr {
    let function = FUNCTIONS.iter().find(|function| function.name() == name);
    let function = function.expect("only functions of the list are called");
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

type Returned = Result<Option<arrow::datatypes::FieldRef>>;

fn is_clock(ty: &DataType) -> bool {
    matches!(ty, DataType::Time32(_) | DataType::Time64(_))
}

fn as_interval_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_text(ty) || is_interval(ty) || is_clock(ty) => of(INTERVAL),
        _ => Ok(None),
    }
}

fn as_interval(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let values = &call.values[0];
    if is_text(values.data_type()) {
        return times_of_texts(values, &INTERVAL);
    }
    let times = Times::of(values)?;
    each_span(call, |row| Ok(times.span(row)))
}

fn length_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_interval(ty) || ty.is_null() => of(DataType::Decimal128(38, 0)),
        _ => Ok(None),
    }
}

fn length(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let times = Times::of(&call.values[0])?;
    let lengths = call.each::<Decimal128Array, i128>(|row| Ok(Some(times.span(row).length())))?;
    let lengths = lengths.as_primitive::<Decimal128Type>().clone();
    Ok(Arc::new(lengths.with_data_type(DataType::Decimal128(38, 0))))
}

fn scaled_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty, by] if is_interval(ty) && is_number(by) => of(INTERVAL),
        _ => Ok(None),
    }
}

fn too_far() -> SqlError {
    times::out_of_range("interval")
}

fn interval_times(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (times, by) = (Times::of(&call.values[0])?, call.floats(1)?);
    each_span(call, |row| times.span(row).times(by.value(row)).ok_or_else(too_far))
}

fn interval_over(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (times, by) = (Times::of(&call.values[0])?, call.floats(1)?);
    each_span(call, |row| {
        if by.value(row) == 0.0 {
            return Err(SqlError::new(DIVISION_BY_ZERO, "division by zero"));
        }
        times.span(row).over(by.value(row)).ok_or_else(too_far)
    })
}

fn clock_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty, by] if is_clock(ty) && is_interval(by) => of(CLOCK),
        _ => Ok(None),
    }
}

/// A time of day, moved along the clock.
fn moved(call: &Call<'_>, sign: i64) -> Result<ArrayRef, SqlError> {
    let (clocks, by) = (Times::of(&call.values[0])?, Times::of(&call.values[1])?);
    call.each::<Time64NanosecondArray, i64>(|row| {
        let clock = clocks.span(row).micros;
        // Days and months bring the clock back to where it was.
        Ok(Some((clock + sign * (by.span(row).micros % DAY)).rem_euclid(DAY) * 1_000))
    })
}

/// Whether texts become values of a type by `times_of_texts`.
pub(crate) fn is_read(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(..) | DataType::Date32 | DataType::Interval(_)) || is_clock(ty)
}

/// Dates, times of day, timestamps or intervals from texts in Postgres's forms.
pub(crate) fn times_of_texts(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let texts = cast(values, &DataType::Utf8View)?;
    let texts = texts.as_string_view();
    fn each<A: FromIterator<Option<T>> + Array + 'static, T>(
        texts: &StringViewArray,
        read: impl Fn(&str) -> Result<T, SqlError>,
    ) -> Result<A, SqlError> {
        texts.iter().map(|text| text.map(&read).transpose()).collect()
    }
    let read: ArrayRef = match to {
        DataType::Date32 => Arc::new(each::<Date32Array, _>(texts, times::read_date)?),
        DataType::Timestamp(_, zone) => {
            let read = |text: &str| times::read_timestamp(text, zone.is_some());
            let micros = each::<TimestampMicrosecondArray, _>(texts, read)?;
            Arc::new(micros.with_timezone_opt(zone.clone()))
        }
        DataType::Interval(_) => {
            let read = |text: &str| times::read_span(text, None)?.to_arrow();
            Arc::new(each::<IntervalMonthDayNanoArray, _>(texts, read)?)
        }
        _ => {
            let read = |text: &str| Ok(times::read_clock(text)? * 1_000);
            Arc::new(each::<Time64NanosecondArray, _>(texts, read)?)
        }
    };
    cast(&read, to)
}

/// Puts functions in the place of operators on times.
#[derive(Debug)]
pub(crate) struct TimeOperators;

impl ExprPlanner for TimeOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let planned = match &expr.op {
            BinaryOperator::PGExp => Some(power(expr.left.clone(), expr.right.clone())),
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide => operation(&expr, schema),
            _ => None,
        };
        Ok(planned.map_or(PlannerResult::Original(expr), PlannerResult::Planned))
    }
}

/// The type of an expression, whose columns may be named without their table's schema.
pub(super) fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    let found = |column: &Column| {
        schema.iter().find(|(qualifier, field)| {
            let is_of = |relation: &datafusion::common::TableReference| {
                qualifier.is_some_and(|qualifier| {
                    qualifier.to_string().ends_with(&format!(".{relation}"))
                })
            };
            field.name() == &column.name && column.relation.as_ref().is_some_and(is_of)
        })
    };
    let whole = expr.clone().transform(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        if schema.has_column(column) {
            return Ok(Transformed::no(expr));
        }
        Ok(match found(column) {
            Some(field) => Transformed::yes(Expr::from(field)),
            None => Transformed::no(expr),
        })
    });
    whole.data().ok()?.get_type(schema).ok()
}

/// An operator whose sides' types ask for a function.
fn operation(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<Expr> {
    let (left, right) = (type_of(&expr.left, schema)?, type_of(&expr.right, schema)?);
    let (a, b) = (expr.left.clone(), expr.right.clone());
    let plus = expr.op == BinaryOperator::Plus;
    let sum = |a: Expr, b: Expr| {
        let op = if plus { Operator::Plus } else { Operator::Minus };
        Expr::BinaryExpr(BinaryExpr::new(Box::new(a), op, Box::new(b)))
    };
    let timestamp = |date: Expr| datafusion::logical_expr::cast(date, plain());
    let is_stamp = |ty: &DataType| matches!(ty, DataType::Timestamp(..));
    Some(match (&expr.op, &left, &right) {
        (BinaryOperator::Multiply, span, by) if is_interval(span) && by.is_numeric() => {
            called("interval_times", vec![a, b])
        }
        (BinaryOperator::Multiply, by, span) if is_interval(span) && by.is_numeric() => {
            called("interval_times", vec![b, a])
        }
        (BinaryOperator::Divide, span, by) if is_interval(span) && by.is_numeric() => {
            called("interval_over", vec![a, b])
        }
        (BinaryOperator::Multiply | BinaryOperator::Divide, ..) => return None,
        (_, DataType::Date32, span) if is_interval(span) => sum(timestamp(a), b),
        (_, span, DataType::Date32) if plus && is_interval(span) => sum(a, timestamp(b)),
        (_, clock, span) if is_clock(clock) && is_interval(span) => {
            called(if plus { "time_plus" } else { "time_minus" }, vec![a, b])
        }
        (_, span, clock) if plus && is_clock(clock) && is_interval(span) => {
            called("time_plus", vec![b, a])
        }
        (_, stamp, clock) if is_stamp(stamp) && is_clock(clock) => {
            sum(a, called("as_interval", vec![b]))
        }
        (_, clock, stamp) if plus && is_stamp(stamp) && is_clock(clock) => {
            sum(called("as_interval", vec![a]), b)
        }
        _ => return None,
    })
}

/// A difference of times as an interval, whose whole days are days.
pub(crate) fn interval_of(difference: Expr) -> Expr {
    called("as_interval", vec![difference])
}

/// Comparisons of intervals by their lengths, in a plan whose types are settled.
pub(crate) fn by_length(expr: Expr, schema: &DFSchema) -> Expr {
    let is_span = |side: &Expr| side.get_type(schema).is_ok_and(|ty| is_interval(&ty));
    let length = |side: Box<Expr>| Box::new(called("interval_length", vec![*side]));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_comparison(op) && is_span(&left) && is_span(&right) =>
        {
            Expr::BinaryExpr(BinaryExpr { left: length(left), op, right: length(right) })
        }
        Expr::Between(Between { expr, negated, low, high }) if is_span(&expr) => {
            let (expr, low, high) = (length(expr), length(low), length(high));
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::InList(mut list) if is_span(&list.expr) => {
            list.expr = length(list.expr);
            list.list = list.list.into_iter().map(|item| *length(Box::new(item))).collect();
            Expr::InList(list)
        }
        other => other,
    }
}

/// A difference of times that is cast to an interval; `None` for other casts.
pub(crate) fn cast_of_difference(cast: &Cast, schema: &DFSchema) -> Option<Expr> {
    let from = cast.expr.get_type(schema).ok()?;
    let is_difference =
        matches!((&from, cast.field.data_type()), (DataType::Duration(_), DataType::Interval(_)));
    is_difference.then(|| interval_of((*cast.expr).clone()))
}
