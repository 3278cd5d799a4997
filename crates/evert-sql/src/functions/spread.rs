//! Variances and standard deviations from exact sums, as views compute them.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::scalar::ScalarValue;
use evert_fold::{ExactMoments, Spread};

/// One of DataFusion's, computed exactly.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    spread: Spread,
    inner: Arc<AggregateUDF>,
}

static FUNCTIONS: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    let make = |spread, inner| Arc::new(AggregateUDF::from(Exact { spread, inner }));
    vec![
        make(Spread::Variance, var_samp_udaf()),
        make(Spread::VariancePopulation, var_pop_udaf()),
        make(Spread::Deviation, stddev_udaf()),
        make(Spread::DeviationPopulation, stddev_pop_udaf()),
    ]
});

/// The functions, under the names of DataFusion's.
pub(super) fn functions() -> &'static [Arc<AggregateUDF>] {
    &FUNCTIONS
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Running {
            spread: self.spread,
            moments: ExactMoments::default(),
            values: Vec::new(),
            removed: 0,
            seen: args.is_distinct.then(HashSet::new),
        }))
    }

    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(DataType::Float64, true);
        Ok(vec![Arc::new(Field::new("values", DataType::List(Arc::new(item)), true))])
    }
}

#[derive(Debug)]
struct Running {
    spread: Spread,
    moments: ExactMoments,
    /// What was added, for partial results.
    values: Vec<f64>,
    /// How many of them have been taken away again.
    removed: usize,
    /// With DISTINCT: the values so far, by their bits.
    seen: Option<HashSet<u64>>,
}

impl Running {
    fn floats(values: &[ArrayRef]) -> impl Iterator<Item = f64> {
        values[0].as_primitive::<Float64Type>().iter().flatten()
    }

    fn add(&mut self, value: f64) {
        // One zero and one NaN.
        let key = if value.is_nan() { f64::NAN } else { value + 0.0 };
        if self.seen.as_mut().is_none_or(|seen| seen.insert(key.to_bits())) {
            self.moments.add_float(value, 1);
            self.values.push(value);
        }
    }
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        Self::floats(values).for_each(|value| self.add(value));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in Self::floats(values) {
            self.moments.add_float(value, -1);
            self.removed += 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.seen.is_none()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let count = i64::try_from(self.values.len() - self.removed).unwrap_or(i64::MAX);
        let spread = self.moments.spread(self.spread, count, 0);
        spread
            .map(ScalarValue::Float64)
            .map_err(|_| exec_datafusion_err!("overflow: a variance is past the greatest float"))
    }

    fn size(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, |seen| seen.capacity() * size_of::<u64>());
        size_of_val(self) + self.values.capacity() * size_of::<f64>() + seen
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<_> =
            self.values.iter().map(|value| ScalarValue::Float64(Some(*value))).collect();
        let list = ScalarValue::new_list(&values, &DataType::Float64, true);
        Ok(vec![ScalarValue::List(list)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }
}
