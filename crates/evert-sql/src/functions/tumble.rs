//! Windows of a time: `tumble`, `tumble_end` and `hop`.
//!
//! Windows are aligned to the epoch, or to an offset from it, and reach from their start
//! (included) to their end (not included). Exact to the microsecond; beyond the range of
//! timestamps is an error.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, PrimitiveArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Field, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::rows::external;
use crate::SqlError;
use crate::error::INVALID_PARAMETER_VALUE;

/// A row lies in so many windows at most: a list has to hold them.
const WINDOWS_MAX: i64 = 100_000;
const DAY_MICROS: i64 = 86_400_000_000;

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
    [
        Arc::new(Window::new("tumble", Kind::TumbleStart, &["tumble_start"]).into()),
        Arc::new(Window::new("tumble_end", Kind::TumbleEnd, &[]).into()),
        Arc::new(Window::new("hop", Kind::HopStarts, &[]).into()),
    ]
});

/// Functions of windows of time.
pub(crate) fn tumble_functions() -> impl Iterator<Item = &'static Arc<ScalarUDF>> {
    FUNCTIONS.iter()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// (time, size[, offset])
    TumbleStart,
    /// (time, size[, offset])
    TumbleEnd,
    /// (time, slide, size[, offset]): the starts of all windows that hold the time, as a list.
    HopStarts,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Window {
    name: &'static str,
    kind: Kind,
    aliases: Vec<String>,
    signature: Signature,
}

impl Window {
    fn new(name: &'static str, kind: Kind, aliases: &[&str]) -> Self {
        let aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
        Self { name, kind, aliases, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// How many intervals follow the time: without and with an offset.
    fn intervals(&self) -> [usize; 2] {
        if self.kind == Kind::HopStarts { [2, 3] } else { [1, 2] }
    }
}

impl ScalarUDFImpl for Window {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let Some((time, intervals)) = types.split_first() else {
            return plan_err!("{}() of nothing", self.name);
        };
        if !self.intervals().contains(&intervals.len()) {
            return plan_err!("{}() with {} intervals", self.name, intervals.len());
        }
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let coerced = std::iter::once(window_time(time, self.name)?);
        Ok(coerced.chain(intervals.iter().map(|_| interval.clone())).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match self.kind {
            Kind::HopStarts => {
                Ok(DataType::List(Arc::new(Field::new_list_field(types[0].clone(), true))))
            }
            _ => Ok(types[0].clone()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        // Constants alone come as single values.
        let rows = arrays.first().map_or(rows, |array| array.len());
        let times = arrays[0].as_primitive::<TimestampMicrosecondType>();
        let spans = Spans { kind: self.kind, intervals: &arrays[1..] };
        let array: ArrayRef = match self.kind {
            Kind::HopStarts => Arc::new(hops(times, &spans)?),
            _ => {
                let mut edges = Vec::with_capacity(rows);
                for row in 0..rows {
                    edges.push(match (times.is_valid(row), spans.of_row(row)?) {
                        (true, Some(span)) => Some(span.edge(times.value(row), self.kind)?),
                        _ => None,
                    });
                }
                let edges = TimestampMicrosecondArray::from(edges);
                Arc::new(edges.with_data_type(times.data_type().clone()))
            }
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// The type of a window's time, and of its edges.
pub(super) fn window_time(ty: &DataType, function: &str) -> Result<DataType> {
    match ty {
        DataType::Timestamp(_, zone) => {
            Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        DataType::Date32 | DataType::Date64 | DataType::Null => {
            Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        ty if ty.is_string() => Ok(DataType::Timestamp(TimeUnit::Microsecond, None)),
        other => plan_err!("{function}() of {other}: a window is of timestamps"),
    }
}

/// The microseconds of an interval that has a fixed length.
pub(super) fn span_micros(interval: IntervalMonthDayNano) -> Result<i64> {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    if months != 0 {
        return exec_err!("a window of months: give its length in days or less");
    }
    Ok(i64::from(days) * DAY_MICROS + nanoseconds / 1_000)
}

/// Whether a call's windows are such as there can be, where its intervals are constants.
///
/// # Errors
/// 22023: what is wrong with their lengths.
pub(crate) fn check_windows(call: &ScalarFunction) -> Result<()> {
    let Some(window) = call.func.inner().downcast_ref::<Window>() else { return Ok(()) };
    let mut intervals = Vec::with_capacity(3);
    for expr in call.args.iter().skip(1) {
        match expr {
            Expr::Literal(value @ ScalarValue::IntervalMonthDayNano(Some(_)), _) => {
                intervals.push(value.to_array()?);
            }
            _ => return Ok(()),
        }
    }
    let is_whole = window.intervals().contains(&intervals.len());
    let spans = Spans { kind: window.kind, intervals: &intervals };
    match is_whole.then(|| spans.of_row(0)) {
        Some(Err(DataFusionError::Execution(message))) => {
            Err(external(SqlError::new(INVALID_PARAMETER_VALUE, message)))
        }
        Some(Err(other)) => Err(other),
        Some(Ok(_)) | None => Ok(()),
    }
}

struct Spans<'a> {
    kind: Kind,
    intervals: &'a [ArrayRef],
}

/// Windows of `size` that begin every `slide`, counted from `offset`.
struct Span {
    slide: i64,
    size: i64,
    offset: i64,
}

impl Spans<'_> {
    fn of_row(&self, row: usize) -> Result<Option<Span>> {
        let mut micros = [0; 3];
        for (micros, interval) in micros.iter_mut().zip(self.intervals) {
            let interval: &PrimitiveArray<IntervalMonthDayNanoType> = interval.as_primitive();
            if interval.is_null(row) {
                return Ok(None);
            }
            *micros = span_micros(interval.value(row))?;
        }
        let span = match self.kind {
            Kind::HopStarts => Span { slide: micros[0], size: micros[1], offset: micros[2] },
            _ => Span { slide: micros[0], size: micros[0], offset: micros[1] },
        };
        match span.slide > 0 && span.size > 0 {
            true if span.size / span.slide >= WINDOWS_MAX => {
                exec_err!("a time in {} windows at once", span.size / span.slide)
            }
            true => Ok(Some(span)),
            false => exec_err!("a window must be longer than nothing"),
        }
    }
}

impl Span {
    /// The last start at or before a time.
    fn start(&self, time: i64) -> Option<i64> {
        let since = time.checked_sub(self.offset)?;
        time.checked_sub(since.rem_euclid(self.slide))
    }

    fn edge(&self, time: i64, kind: Kind) -> Result<i64> {
        let start = self.start(time);
        let edge = match kind {
            Kind::TumbleEnd => start.and_then(|start| start.checked_add(self.size)),
            _ => start,
        };
        edge.map_or_else(|| exec_err!("timestamp out of range"), Ok)
    }
}

fn hops(times: &TimestampMicrosecondArray, spans: &Spans<'_>) -> Result<ListArray> {
    let (mut starts, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..times.len() {
        let before = starts.len();
        let span = spans.of_row(row)?.filter(|_| times.is_valid(row));
        valid.push(span.is_some());
        if let Some(span) = span {
            let time = times.value(row);
            let mut start = span.start(time);
            while let Some(from) = start
                && time.saturating_sub(from) < span.size
            {
                starts.push(from);
                start = from.checked_sub(span.slide);
            }
            if start.is_none() {
                return exec_err!("timestamp out of range");
            }
        }
        lengths.push(starts.len() - before);
    }
    let starts = TimestampMicrosecondArray::from(starts).with_data_type(times.data_type().clone());
    let field = Arc::new(Field::new_list_field(times.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(ListArray::new(field, offsets, Arc::new(starts), Some(NullBuffer::from(valid))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_their_times_before_the_epoch_too() {
        let span = Span { slide: 10, size: 25, offset: 3 };
        for time in -100..100 {
            let start = span.start(time).unwrap();
            assert_eq!((start - 3).rem_euclid(10), 0);
            assert!(start <= time && time < start + 10);
        }
        assert!(span.start(i64::MIN).is_none());
    }
}
