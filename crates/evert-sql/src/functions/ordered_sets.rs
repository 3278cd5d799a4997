//! Aggregates over the sorted values of a group: `percentile_cont`, `percentile_disc` and `mode`.
//!
//! Their calls are `percentile_disc(value, percentile, descending)`; what writes them so is
//! `rephrase`. NULLs do not count.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, filter, is_not_null};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::floats::formed;
use super::rows::external;
use super::sorted::{Gathered, Order, list_fields};
use crate::SqlError;
use crate::error::NUMERIC_OUT_OF_RANGE;
use crate::wording::undefined_function;

/// What is taken of the sorted values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Between the two values that a percentile lies between.
    Continuous,
    /// The first value that a percentile of all is not beyond.
    Discrete,
    /// The most frequent value; the first of equally frequent ones.
    Mode,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedSet {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

static FUNCTIONS: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    [
        ("percentile_cont", Kind::Continuous),
        ("percentile_disc", Kind::Discrete),
        ("mode", Kind::Mode),
    ]
    .map(|(name, kind)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(AggregateUDF::from(OrderedSet { name, kind, signature }))
    })
    .to_vec()
});

/// The functions, one under the name of DataFusion's.
pub(super) fn functions() -> &'static [Arc<AggregateUDF>] {
    &FUNCTIONS
}

/// Whether a function takes its values from WITHIN GROUP.
pub(crate) fn is_ordered_set(name: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name() == name)
}

/// `22003`: what is no percentile.
pub(crate) fn check_percentile(percentile: f64) -> Result<f64, SqlError> {
    if (0.0..=1.0).contains(&percentile) {
        return Ok(percentile);
    }
    let message = format!("percentile value {percentile} is not between 0 and 1");
    Err(SqlError::new(NUMERIC_OUT_OF_RANGE, message))
}

impl AggregateUDFImpl for OrderedSet {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let undefined = || external(undefined_function(self.name, args.iter()));
        let is_number = |ty: &DataType| ty.is_numeric() || ty.is_null();
        match (self.kind, args) {
            (Kind::Mode, [value, _]) => Ok(vec![value.clone(), DataType::Boolean]),
            (Kind::Discrete, [value, percentile, _]) if is_number(percentile) => {
                Ok(vec![value.clone(), DataType::Float64, DataType::Boolean])
            }
            (Kind::Continuous, [value, percentile, _])
                if is_number(value) && is_number(percentile) =>
            {
                Ok(vec![DataType::Float64, DataType::Float64, DataType::Boolean])
            }
            _ => Err(undefined()),
        }
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Continuous => DataType::Float64,
            Kind::Discrete | Kind::Mode => args[0].clone(),
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let types: Vec<_> =
            args.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        let order = Order { args: types.len(), keys: Vec::new(), distinct: false };
        let ty = args.return_field.data_type();
        let result = ScalarValue::try_from(ty)?;
        let taken = Taken { kind: self.kind, result };
        Ok(Box::new(Gathered::new(Box::new(taken), types, order)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(list_fields(args.input_fields))
    }
}

/// Takes its result from values that come sorted, all at once.
#[derive(Debug)]
struct Taken {
    kind: Kind,
    result: ScalarValue,
}

impl Taken {
    fn of(&self, sorted: &ArrayRef, args: &[ArrayRef]) -> Result<Option<ScalarValue>> {
        let count = sorted.len();
        let descending = args.last().is_some_and(|flag| {
            let flag = flag.as_boolean();
            !flag.is_empty() && flag.is_valid(0) && flag.value(0)
        });
        let at = |place: usize| if descending { count - 1 - place } else { place };
        if self.kind == Kind::Mode {
            return Ok(match most_frequent(sorted, descending)? {
                Some(place) => Some(ScalarValue::try_from_array(sorted, place)?),
                None => None,
            });
        }
        let percentiles = args[0].as_primitive::<Float64Type>();
        let Some(percentile) = percentiles.iter().next().flatten() else { return Ok(None) };
        let percentile = check_percentile(percentile).map_err(external)?;
        if count == 0 {
            return Ok(None);
        }
        if self.kind == Kind::Discrete {
            let place = ((percentile * count as f64).ceil() as usize).saturating_sub(1);
            return Ok(Some(ScalarValue::try_from_array(sorted, at(place.min(count - 1)))?));
        }
        let values = cast(sorted, &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let exact = percentile * (count - 1) as f64;
        let (low, high) = (exact.floor(), exact.ceil());
        let (first, second) = (values.value(at(low as usize)), values.value(at(high as usize)));
        let value = if low == high { first } else { first + (exact - low) * (second - first) };
        Ok(Some(ScalarValue::Float64(Some(value))))
    }
}

/// Where the first of the most frequent values is.
fn most_frequent(sorted: &ArrayRef, descending: bool) -> Result<Option<usize>> {
    let fields = vec![SortField::new(sorted.data_type().clone())];
    let rows = RowConverter::new(fields)?.convert_columns(&[Arc::clone(sorted)])?;
    let (mut best, mut most, mut begin) = (None, 0, 0);
    for place in 0..rows.num_rows() {
        if rows.row(place) != rows.row(begin) {
            begin = place;
        }
        let count = place + 1 - begin;
        // Of equally frequent ones the last in ascending order is the first in descending.
        if count > most || (descending && count == most) {
            (best, most) = (Some(begin), count);
        }
    }
    Ok(best)
}

impl Accumulator for Taken {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let sorted = match values[0].data_type() {
            DataType::Null => values[0].slice(0, 0),
            _ => filter(&values[0], &is_not_null(&values[0])?)?,
        };
        if let Some(result) = self.of(&formed(&sorted), &values[1..])? {
            self.result = result;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.result.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.result.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.result.clone()])
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        datafusion::common::exec_err!("sorted values come all at once")
    }
}
