//! Aggregates: what a Reduce computes for each group, and of which type it is.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_expr::expressions::{Column, Literal};

use super::{FoldError, in_range};

/// An aggregate over a group.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// What is computed.
    pub function: AggregateFunction,
    /// The input column; `None` for count(*), and for a general aggregate, which names its own.
    pub argument: Option<usize>,
    /// Each value counts once.
    pub distinct: bool,
    /// A boolean input column: FILTER (WHERE ...).
    pub filter: Option<usize>,
}

/// What an [`Aggregate`] computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Rows, or rows with a value.
    Count,
    /// Exact whatever the order; NULL over no values.
    Sum,
    /// The exact sum by the count, rounded once more; NULL over no values.
    Avg,
    /// The least value; NULL over no values. NaN is greater than any number.
    Min,
    /// The greatest value; NULL over no values.
    Max,
    /// Variance or standard deviation from exact sums of the values and their squares. NULL over
    /// no values, of a sample also over one; NaN if a value is infinite or NaN.
    Spread(Spread),
    /// Whether all values are true; NULL over no values.
    BoolAnd,
    /// Whether any value is true; NULL over no values.
    BoolOr,
    /// Any other, computed anew for each group that changes.
    General(GeneralAggregate),
}

/// A measure of how far values lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// var_samp
    Variance,
    /// var_pop
    VariancePopulation,
    /// stddev_samp
    Deviation,
    /// stddev_pop
    DeviationPopulation,
}

/// An aggregate of DataFusion's, with its own ORDER BY and any number of arguments.
///
/// Its arguments and the columns of its order are columns of the Reduce's input, or literals; what
/// else they are computed from lies in a projection before it. A group's rows reach it in its
/// order, ties by the bytes of its arguments; DISTINCT is done before it, by all its arguments.
#[derive(Clone, Debug)]
pub struct GeneralAggregate(pub Arc<AggregateFunctionExpr>);

impl PartialEq for GeneralAggregate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for GeneralAggregate {}

impl Hash for GeneralAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl GeneralAggregate {
    /// The input's columns that it reads, as it is given them: arguments, then order. `None`
    /// stands for a literal.
    pub(crate) fn columns(&self) -> Result<Vec<Option<usize>>, String> {
        let order = self.0.order_bys().iter().map(|sort| Arc::clone(&sort.expr));
        self.0.expressions().into_iter().chain(order).map(|expr| column_of(&expr)).collect()
    }

    pub(super) fn check(&self, input: &Schema) -> Result<(), String> {
        self.columns()?.into_iter().flatten().try_for_each(|column| in_range(input, column))
    }
}

/// The column that an expression is; `None` for a literal.
fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Result<Option<usize>, String> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Ok(Some(column.index()));
    }
    if expr.downcast_ref::<Literal>().is_some() {
        return Ok(None);
    }
    Err(format!("{expr} is an argument of an aggregate and neither column nor literal"))
}

/// Decimal digits that every sum and decimal average has.
pub(crate) const SUM_PRECISION: u8 = 38;
/// The least scale of a decimal average.
const AVG_SCALE_MIN: i8 = 16;

impl AggregateFunction {
    /// The output type over an argument type: sum of integers is Decimal128(38, 0), of decimals
    /// Decimal128(38, s), of floats Float64; avg of integers and floats is Float64, of
    /// Decimal128(p, s) is Decimal128(38, max(s, 16)); count is Int64; min and max keep the type;
    /// variances and deviations are Float64; a general aggregate says itself.
    ///
    /// # Errors
    /// If there is no such aggregate over such an argument.
    pub fn output_type(&self, argument: Option<&DataType>) -> Result<DataType, FoldError> {
        let unsupported = || {
            let of = argument.map_or("*".to_owned(), ToString::to_string);
            FoldError::InvalidPlan(format!("there is no {self:?} over {of}"))
        };
        match (self, argument) {
            (Self::Count, _) => Ok(DataType::Int64),
            (Self::General(general), None) => Ok(general.0.field().data_type().clone()),
            (Self::General(_), Some(_)) | (_, None) => Err(unsupported()),
            (Self::Min | Self::Max, Some(argument)) => Ok(argument.clone()),
            (Self::Sum, Some(argument)) => match argument {
                t if t.is_integer() => Ok(DataType::Decimal128(SUM_PRECISION, 0)),
                t if t.is_floating() => Ok(DataType::Float64),
                DataType::Decimal32(_, s)
                | DataType::Decimal64(_, s)
                | DataType::Decimal128(_, s) => Ok(DataType::Decimal128(SUM_PRECISION, *s)),
                _ => Err(unsupported()),
            },
            (Self::Avg, Some(argument)) => match argument {
                t if t.is_integer() || t.is_floating() => Ok(DataType::Float64),
                DataType::Decimal32(_, s)
                | DataType::Decimal64(_, s)
                | DataType::Decimal128(_, s) => {
                    Ok(DataType::Decimal128(SUM_PRECISION, (*s).max(AVG_SCALE_MIN)))
                }
                _ => Err(unsupported()),
            },
            (Self::Spread(_), Some(argument)) => match argument {
                t if t.is_integer() || t.is_floating() => Ok(DataType::Float64),
                DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => {
                    Ok(DataType::Float64)
                }
                _ => Err(unsupported()),
            },
            (Self::BoolAnd | Self::BoolOr, Some(DataType::Boolean)) => Ok(DataType::Boolean),
            (Self::BoolAnd | Self::BoolOr, Some(_)) => Err(unsupported()),
        }
    }

    /// The SQL name.
    pub fn name(&self) -> &str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Spread(Spread::Variance) => "var_samp",
            Self::Spread(Spread::VariancePopulation) => "var_pop",
            Self::Spread(Spread::Deviation) => "stddev_samp",
            Self::Spread(Spread::DeviationPopulation) => "stddev_pop",
            Self::BoolAnd => "bool_and",
            Self::BoolOr => "bool_or",
            Self::General(general) => general.0.fun().name(),
        }
    }
}
