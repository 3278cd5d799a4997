//! A row's bound in log time, as a function over the row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::path::{ALWAYS, NEVER, Step, first_moment};

/// A moment that a row determines: the first at which a path from log time has led to the row's
/// value, or past it.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) row: Expr,
    pub(super) path: Vec<Step>,
    /// Past it.
    pub(super) beyond: bool,
}

/// Which of several edges bounds a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pick {
    Earliest,
    Latest,
}

/// The bound as an expression: microseconds since the epoch, NULL if an edge's value is.
pub(super) fn bound(edges: &[Edge], pick: Pick) -> Option<Expr> {
    if edges.is_empty() {
        return None;
    }
    let function = Bound {
        edges: edges.iter().map(|edge| (edge.path.clone(), edge.beyond)).collect(),
        pick,
        signature: Signature::any(edges.len(), Volatility::Immutable),
    };
    let rows = edges.iter().map(|edge| edge.row.clone()).collect();
    let function = Arc::new(ScalarUDF::from(function));
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(function, rows)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bound {
    /// Path and whether past it, by argument.
    edges: Vec<(Vec<Step>, bool)>,
    pick: Pick,
    signature: Signature,
}

impl Bound {
    fn of_row(&self, values: &[Int64Array], row: usize) -> Result<Option<i64>> {
        let mut bound = None;
        for (values, (path, beyond)) in values.iter().zip(&self.edges) {
            if values.is_null(row) {
                return Ok(None);
            }
            let goal = match values.value(row) {
                infinite @ (NEVER | ALWAYS) => infinite,
                // What lies past the last number there is lies beyond all time.
                value => value.saturating_add(i64::from(*beyond)),
            };
            let Some(moment) = first_moment(path, goal) else {
                return exec_err!("timestamp out of range");
            };
            bound = Some(match (bound, self.pick) {
                (None, _) => moment,
                (Some(other), Pick::Earliest) => moment.min(other),
                (Some(other), Pick::Latest) => moment.max(other),
            });
        }
        Ok(bound)
    }
}

impl ScalarUDFImpl for Bound {
    fn name(&self) -> &str {
        "time_bound"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args
            .args
            .into_iter()
            .map(|value| numbers(&value.into_array(args.number_rows)?))
            .collect::<Result<Vec<_>>>()?;
        let rows = 0..args.number_rows;
        let bounds: Int64Array =
            rows.map(|row| self.of_row(&values, row)).collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(bounds)))
    }
}

/// Dates as days, timestamps in their own unit, infinities as [`NEVER`] and [`ALWAYS`].
fn numbers(values: &ArrayRef) -> Result<Int64Array> {
    let values = match values.data_type() {
        DataType::Date32 => {
            let number = |days| match days {
                i32::MAX => NEVER,
                i32::MIN => ALWAYS,
                days => i64::from(days),
            };
            return Ok(values.as_primitive::<Date32Type>().unary(number));
        }
        DataType::Timestamp(_, _) | DataType::Int64 => cast(values, &DataType::Int64)?,
        other => return exec_err!("a bound in time of {other}"),
    };
    Ok(values.as_primitive::<Int64Type>().clone())
}
