//! Comparisons with `now()`, solved for it.

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator, TryCast};
use datafusion::scalar::ScalarValue;
use evert_model::ColumnType;

use super::bound::Edge;
use super::cells::{Cell, both};
use super::mentions_now;
use super::path::{DAY_MICROS, PIECES, Piece, Step, Unit};
use crate::functions::conversion;

/// When `left op right` is true: cells without a condition of their own, no two of which overlap.
///
/// # Errors
/// What stands in the way.
pub(super) fn solve(left: &Expr, op: Operator, right: &Expr) -> Result<Vec<Cell>, String> {
    let (row, op, time) = match (mentions_now(left), mentions_now(right)) {
        (false, true) => (left, op, right),
        (true, false) => (right, op.swap().ok_or_else(|| unknown(op))?, left),
        _ => return Err("now() on both sides of a comparison".to_owned()),
    };
    let path = Path::of(time)?.steps;
    // `row op time`: whether time has come to the row's value, or past it.
    let reached = Reach { row, path: &path, beyond: false };
    let passed = Reach { beyond: true, ..reached };
    Ok(match op {
        Operator::Lt => passed.when(),
        Operator::LtEq => reached.when(),
        Operator::Gt => reached.when_not(),
        Operator::GtEq => passed.when_not(),
        Operator::Eq => both(&reached.when(), &passed.when_not())?,
        Operator::NotEq => [reached.when_not(), passed.when()].concat(),
        other => return Err(unknown(other)),
    })
}

/// That time has come to a row's value, or past it.
#[derive(Clone, Copy)]
struct Reach<'a> {
    row: &'a Expr,
    path: &'a [Step],
    beyond: bool,
}

impl Reach<'_> {
    /// With months in the path, the piece they are asked for.
    fn edge(self, piece: Option<Piece>) -> Edge {
        let mut path = self.path.to_vec();
        for step in &mut path {
            if let (Step::Months(_, of), Some(piece)) = (step, piece) {
                *of = piece;
            }
        }
        Edge { row: self.row.clone(), path, beyond: self.beyond }
    }

    fn has_months(self) -> bool {
        self.path.iter().any(|step| matches!(step, Step::Months(..)))
    }

    fn when(self) -> Vec<Cell> {
        if !self.has_months() {
            return vec![Cell::from(self.edge(None))];
        }
        let piece = |n| Cell {
            until: vec![self.edge(Some(Piece::Ends(n)))],
            ..Cell::from(self.edge(Some(Piece::Begins(n))))
        };
        (0..PIECES).map(piece).collect()
    }

    fn when_not(self) -> Vec<Cell> {
        if !self.has_months() {
            return vec![Cell::until(self.edge(None))];
        }
        let before = |n: u8| Cell {
            from: n.checked_sub(1).map(|n| self.edge(Some(Piece::Ends(n)))).into_iter().collect(),
            ..Cell::until(self.edge(Some(Piece::Begins(n))))
        };
        (0..PIECES).map(before).collect()
    }
}

fn unknown(op: Operator) -> String {
    format!("now() under {op}")
}

/// An expression of `now()` and constants, as steps, the innermost first.
struct Path {
    steps: Vec<Step>,
    ty: DataType,
    /// Whether its values are midnights.
    whole_days: bool,
}

impl Path {
    fn of(expr: &Expr) -> Result<Self, String> {
        match expr {
            Expr::ScalarVariable(field, _) => {
                Ok(Self { steps: Vec::new(), ty: field.data_type().clone(), whole_days: false })
            }
            Expr::Alias(alias) => Self::of(&alias.expr),
            Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
                Self::of(expr)?.cast(field.data_type())
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
                match (interval(left), interval(right)) {
                    (_, Some(interval)) => Self::of(left)?.add(interval, 1),
                    (Some(interval), _) => Self::of(right)?.add(interval, 1),
                    _ => Err(in_words(expr)),
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
                let interval = interval(right).ok_or_else(|| in_words(expr))?;
                Self::of(left)?.add(interval, -1)
            }
            Expr::ScalarFunction(call) if conversion(call).is_some() => {
                let (expr, ty) = conversion(call).expect("it was one on the line before");
                Self::of(expr)?.cast(ty)
            }
            Expr::ScalarFunction(call) if call.func.name() == "date_trunc" => {
                let [unit, time, ..] = call.args.as_slice() else { return Err(in_words(expr)) };
                let unit = text(unit).and_then(Unit::of_name).ok_or_else(|| in_words(expr))?;
                Self::of(time)?.truncate(unit)
            }
            Expr::ScalarFunction(call) if call.func.name() == "timezone" => {
                let [zone, time] = call.args.as_slice() else { return Err(in_words(expr)) };
                let is_utc = text(zone).is_some_and(|zone| {
                    ["utc", "gmt", "z", "+00", "+00:00"].contains(&zone.to_lowercase().as_str())
                });
                let path = Self::of(time)?;
                let ty = match &path.ty {
                    _ if !is_utc => return Err(in_words(expr)),
                    DataType::Timestamp(_, None) => ColumnType::TimestampTz.arrow_type(),
                    _ => ColumnType::Timestamp.arrow_type(),
                };
                path.cast(&ty)
            }
            _ => Err(in_words(expr)),
        }
    }

    fn push(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn truncate(self, unit: Unit) -> Result<Self, String> {
        let ty = self.ty.clone();
        let path = self.cast(&micros_like(&ty))?.push(Step::Truncate(unit));
        let path = Self { whole_days: unit.is_days(), ..path };
        path.cast(&micros_like(&ty))
    }

    fn add(self, interval: IntervalMonthDayNano, sign: i64) -> Result<Self, String> {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        let out_of_range = || "an interval out of range".to_owned();
        let days = i64::from(days) * sign;
        let months = if sign < 0 { months.checked_neg() } else { Some(months) };
        let months = months.ok_or_else(out_of_range)?;
        let nanos = nanoseconds.checked_mul(sign).ok_or_else(out_of_range)?;
        match &self.ty {
            // A day that is an hour longer is still that day.
            DataType::Date32 => {
                let days = days + nanos / (DAY_MICROS * 1_000);
                let path = if months == 0 { self } else { self.push(Step::AddMonths(months)) };
                Ok(path.push(Step::Add(days)))
            }
            DataType::Timestamp(unit, _) => {
                let in_unit = match unit {
                    TimeUnit::Microsecond => nanos / 1_000 + days * DAY_MICROS,
                    TimeUnit::Nanosecond => {
                        let days = days.checked_mul(DAY_MICROS * 1_000);
                        days.and_then(|days| days.checked_add(nanos)).ok_or_else(out_of_range)?
                    }
                    _ => return Err("now() in a coarse unit of time".to_owned()),
                };
                let path = if months == 0 { self } else { self.add_months(months)? };
                let whole_days = path.whole_days && nanos == 0;
                Ok(Self { whole_days, ..path.push(Step::Add(in_unit)) })
            }
            other => Err(format!("an interval and now() as {other}")),
        }
    }

    fn add_months(self, months: i32) -> Result<Self, String> {
        if !self.whole_days {
            return self.add_months_to_time(months);
        }
        let ty = self.ty.clone();
        self.cast(&DataType::Date32)?.push(Step::AddMonths(months)).cast(&ty)
    }

    /// Months that are added to a time of day do not always move it forward: what is the 31st
    /// becomes the 30th, and of two times the later one the earlier.
    fn add_months_to_time(self, months: i32) -> Result<Self, String> {
        if self.steps.iter().any(|step| matches!(step, Step::Months(..))) {
            return Err("now() and several intervals of months".to_owned());
        }
        let ty = self.ty.clone();
        let path = self.cast(&micros_like(&ty))?;
        path.push(Step::Months(months, Piece::Begins(0))).cast(&ty)
    }

    fn cast(mut self, to: &DataType) -> Result<Self, String> {
        use DataType::{Date32, Timestamp};
        match (&self.ty, to) {
            (Timestamp(from, _), Timestamp(to, _)) => {
                let (from, to) = (per_second(*from), per_second(*to));
                if from < to {
                    self.steps.push(Step::Times(to / from));
                } else if to < from {
                    self.steps.push(Step::Per(from / to));
                }
            }
            (Timestamp(from, _), Date32) => {
                self.steps.extend(to_micros(*from));
                self.steps.push(Step::ToDays);
                self.whole_days = true;
            }
            (Date32, Timestamp(to, _)) => {
                self.steps.push(Step::ToMicros);
                self.steps.extend(from_micros(*to));
                self.whole_days = true;
            }
            (from, to) if from == to => {}
            (_, to) => return Err(format!("now() as {to}")),
        }
        Ok(Self { ty: to.clone(), ..self })
    }
}

fn micros_like(ty: &DataType) -> DataType {
    let zone = match ty {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    DataType::Timestamp(TimeUnit::Microsecond, zone)
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn to_micros(unit: TimeUnit) -> Option<Step> {
    match per_second(unit) {
        1_000_000 => None,
        finer if finer > 1_000_000 => Some(Step::Per(finer / 1_000_000)),
        coarser => Some(Step::Times(1_000_000 / coarser)),
    }
}

fn from_micros(unit: TimeUnit) -> Option<Step> {
    match per_second(unit) {
        1_000_000 => None,
        finer if finer > 1_000_000 => Some(Step::Times(finer / 1_000_000)),
        coarser => Some(Step::Per(1_000_000 / coarser)),
    }
}

/// A constant span of time.
pub(super) fn interval(expr: &Expr) -> Option<IntervalMonthDayNano> {
    let nanos = |nanos| Some(IntervalMonthDayNano::new(0, 0, nanos));
    match expr {
        Expr::Alias(alias) => interval(&alias.expr),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(interval), _) => *interval,
        Expr::Literal(ScalarValue::IntervalDayTime(Some(span)), _) => {
            let nanos = i64::from(span.milliseconds) * 1_000_000;
            Some(IntervalMonthDayNano::new(0, span.days, nanos))
        }
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => {
            Some(IntervalMonthDayNano::new(*months, 0, 0))
        }
        Expr::Literal(ScalarValue::DurationNanosecond(Some(span)), _) => nanos(*span),
        Expr::Literal(ScalarValue::DurationMicrosecond(Some(span)), _) => {
            nanos(span.checked_mul(1_000)?)
        }
        Expr::Literal(ScalarValue::DurationMillisecond(Some(span)), _) => {
            nanos(span.checked_mul(1_000_000)?)
        }
        Expr::Literal(ScalarValue::DurationSecond(Some(span)), _) => {
            nanos(span.checked_mul(1_000_000_000)?)
        }
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Alias(alias) => text(&alias.expr),
        Expr::Literal(value, _) => value.try_as_str()?,
        _ => None,
    }
}

fn in_words(expr: &Expr) -> String {
    match expr {
        Expr::ScalarFunction(call) => format!("now() within {}()", call.func.name()),
        Expr::BinaryExpr(BinaryExpr { op, .. }) => format!("now() {op} something of the row"),
        _ => "this use of now()".to_owned(),
    }
}
