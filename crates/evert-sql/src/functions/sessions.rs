//! Session windows of ad-hoc reads: `session_start(time, gap) OVER (PARTITION BY ... ORDER BY
//! time)` and `session_end`.
//!
//! In a view, both are one operator of the fold (`view::time`), which gives the same.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNanoType, IntervalUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};

use super::tumble::{span_micros, window_time};

/// The first time of a row's session.
pub(crate) const SESSION_START: &str = "session_start";
/// The last time of a row's session, and the gap after it.
pub(crate) const SESSION_END: &str = "session_end";

static FUNCTIONS: LazyLock<[Arc<WindowUDF>; 2]> = LazyLock::new(|| {
    [SESSION_START, SESSION_END].map(|name| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(WindowUDF::from(Edge { name, signature }))
    })
});

/// Functions of sessions.
pub(crate) fn session_functions() -> impl Iterator<Item = &'static Arc<WindowUDF>> {
    FUNCTIONS.iter()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Edge {
    name: &'static str,
    signature: Signature,
}

impl WindowUDFImpl for Edge {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [time, _] => Ok(vec![
                window_time(time, self.name)?,
                DataType::Interval(IntervalUnit::MonthDayNano),
            ]),
            _ => plan_err!("{}() takes a time and a gap", self.name),
        }
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let ty = args.input_fields()[0].data_type().clone();
        Ok(Arc::new(Field::new(args.name(), ty, true)))
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Partition { is_end: self.name == SESSION_END }))
    }
}

#[derive(Debug)]
struct Partition {
    is_end: bool,
}

impl PartitionEvaluator for Partition {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let times = values[0].as_primitive::<TimestampMicrosecondType>();
        let gaps = values[1].as_primitive::<IntervalMonthDayNanoType>();
        let mut edges: Vec<Option<i64>> = Vec::with_capacity(rows);
        let mut first = 0;
        while first < rows {
            if times.is_null(first) || gaps.is_null(first) {
                edges.push(None);
                first += 1;
                continue;
            }
            let gap = span_micros(gaps.value(first))?;
            if gap <= 0 {
                return exec_err!("a session's gap must be longer than nothing");
            }
            let is_apart = |row: &usize| {
                let (before, time) = (times.value(row - 1), times.value(*row));
                times.is_null(*row) || time.saturating_sub(before) >= gap
            };
            let end = (first + 1..rows).find(is_apart).unwrap_or(rows);
            if (first + 1..end).any(|row| times.value(row) < times.value(row - 1)) {
                return exec_err!("sessions are of rows in the order of their times");
            }
            let edge = match self.is_end {
                true => times.value(end - 1).checked_add(gap),
                false => Some(times.value(first)),
            };
            if edge.is_none() {
                return exec_err!("timestamp out of range");
            }
            edges.extend(std::iter::repeat_n(edge, end - first));
            first = end;
        }
        let edges = TimestampMicrosecondArray::from(edges);
        Ok(Arc::new(edges.with_data_type(times.data_type().clone())))
    }
}
