//! `sum` and `avg` as views compute them: exact, and of the types that `evert-fold` gives.
//!
//! Owns: the aggregates that ad-hoc reads run. A view's plan only takes their names and types.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type};
use datafusion::common::{Result, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use evert_fold::AggregateFunction;

use super::exact::ExactSum;

/// The name of `sum`.
pub(crate) const SUM: &str = "sum";
/// The name of `avg`.
pub(crate) const AVG: &str = "avg";

/// `sum` or `avg`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    function: AggregateFunction,
    aliases: Vec<String>,
    signature: Signature,
}

static FUNCTIONS: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    let make = |function, aliases: &[&str]| {
        Arc::new(AggregateUDF::from(Exact {
            function,
            aliases: aliases.iter().map(ToString::to_string).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    vec![make(AggregateFunction::Sum, &[]), make(AggregateFunction::Avg, &["mean"])]
});

/// `sum` and `avg`.
pub(super) fn functions() -> &'static [Arc<AggregateUDF>] {
    &FUNCTIONS
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        match self.function {
            AggregateFunction::Avg => AVG,
            _ => SUM,
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let [arg] = args else {
            return plan_err!("{} takes one argument", self.name());
        };
        Ok(vec![match arg {
            DataType::Dictionary(_, value) => return self.coerce_types(&[*value.clone()]),
            DataType::Null => DataType::Int64,
            DataType::UInt64 => DataType::Decimal128(20, 0),
            ty if ty.is_integer() => DataType::Int64,
            ty if ty.is_floating() => DataType::Float64,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                DataType::Decimal128(*p, *s)
            }
            DataType::Decimal256(_, s) => DataType::Decimal128(38, *s),
            other => return plan_err!("No function matches {}({other})", self.name()),
        }])
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.function.output_type(args.first()).map_err(|error| exec_datafusion_err!("{error}"))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let Some(input) = args.expr_fields.first() else {
            return exec_err!("{} takes one argument", self.name());
        };
        let sum = Total::over(input.data_type())?;
        let output = args.return_field.data_type().clone();
        let state = if args.is_distinct {
            return Ok(Box::new(Distinct {
                seen: Default::default(),
                input: input.data_type().clone(),
                inner: Running { function: self.function.clone(), sum, count: 0, output },
            }));
        } else {
            Running { function: self.function.clone(), sum, count: 0, output }
        };
        Ok(Box::new(state))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            let item = Field::new_list_field(args.input_fields[0].data_type().clone(), true);
            let list = DataType::List(Arc::new(item));
            return Ok(vec![Arc::new(Field::new("values", list, true))]);
        }
        Ok(vec![
            Arc::new(Field::new("total", DataType::Binary, true)),
            Arc::new(Field::new("count", DataType::Int64, true)),
        ])
    }
}

/// An exact sum.
#[derive(Debug)]
enum Total {
    /// Of integers (scale 0) or of decimals of this scale.
    Decimal {
        units: i128,
        scale: i8,
    },
    Float(ExactSum),
}

impl Total {
    fn over(input: &DataType) -> Result<Self> {
        Ok(match input {
            DataType::Int64 => Self::Decimal { units: 0, scale: 0 },
            DataType::Decimal128(_, scale) => Self::Decimal { units: 0, scale: *scale },
            DataType::Float64 => Self::Float(ExactSum::default()),
            other => return exec_err!("there is no sum over {other}"),
        })
    }

    /// Adds the non-null values and gives how many there were.
    fn add(&mut self, values: &ArrayRef) -> Result<i64> {
        match self {
            Self::Decimal { units, scale } => {
                let values = cast(values, &DataType::Decimal128(38, *scale))?;
                for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
                    *units = units
                        .checked_add(value)
                        .ok_or_else(|| exec_datafusion_err!("overflow in sum"))?;
                }
            }
            Self::Float(sum) => {
                for value in values.as_primitive::<Float64Type>().iter().flatten() {
                    sum.add(value);
                }
            }
        }
        Ok((values.len() - values.null_count()) as i64)
    }

    /// Takes non-null values away and gives how many there were.
    fn remove(&mut self, values: &ArrayRef) -> Result<i64> {
        match self {
            Self::Decimal { units, scale } => {
                let values = cast(values, &DataType::Decimal128(38, *scale))?;
                for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
                    *units = units
                        .checked_sub(value)
                        .ok_or_else(|| exec_datafusion_err!("overflow in sum"))?;
                }
            }
            Self::Float(sum) => {
                for value in values.as_primitive::<Float64Type>().iter().flatten() {
                    sum.remove(value);
                }
            }
        }
        Ok((values.len() - values.null_count()) as i64)
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Decimal { units, .. } => units.to_le_bytes().to_vec(),
            Self::Float(sum) => sum.parts().flat_map(f64::to_le_bytes).collect(),
        }
    }

    fn merge_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Decimal { units, .. } => {
                let Ok(bytes) = bytes.try_into() else {
                    return exec_err!("a partial sum has {} bytes", bytes.len());
                };
                *units = units
                    .checked_add(i128::from_le_bytes(bytes))
                    .ok_or_else(|| exec_datafusion_err!("overflow in sum"))?;
            }
            Self::Float(sum) => {
                for part in bytes.as_chunks::<8>().0 {
                    sum.add(f64::from_le_bytes(*part));
                }
            }
        }
        Ok(())
    }
}

/// An aggregate as it runs.
#[derive(Debug)]
struct Running {
    function: AggregateFunction,
    sum: Total,
    count: i64,
    output: DataType,
}

impl Running {
    fn name(&self) -> &'static str {
        if self.function == AggregateFunction::Avg { AVG } else { SUM }
    }

    fn result(&self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.output);
        }
        let average = self.function == AggregateFunction::Avg;
        match (&self.sum, &self.output) {
            (Total::Float(sum), _) => {
                let Some(sum) = sum.value() else {
                    return exec_err!("overflow in {}", self.name());
                };
                Ok(float(if average { sum / self.count as f64 } else { sum }))
            }
            (Total::Decimal { units, .. }, DataType::Float64) => {
                Ok(float(*units as f64 / self.count as f64))
            }
            (Total::Decimal { units, scale }, DataType::Decimal128(precision, to)) => {
                let value = if average {
                    divide(*units, self.count, (*to - *scale).unsigned_abs())?
                } else {
                    *units
                };
                if value.unsigned_abs() >= 10_u128.pow(u32::from(*precision)) {
                    return exec_err!("overflow: {} does not fit {}", self.name(), self.output);
                }
                Ok(ScalarValue::Decimal128(Some(value), *precision, *to))
            }
            (_, other) => exec_err!("there is no {} of type {other}", self.name()),
        }
    }
}

fn float(value: f64) -> ScalarValue {
    ScalarValue::Float64(Some(value))
}

/// `units / count` with `digits` more decimal digits, halves rounded away from zero.
fn divide(units: i128, count: i64, digits: u8) -> Result<i128> {
    let overflow = || exec_datafusion_err!("overflow in avg");
    let count = i128::from(count);
    let power = 10_i128.checked_pow(u32::from(digits)).ok_or_else(overflow)?;
    // The whole part and the remainder are scaled apart: their product alone may not fit.
    let whole = (units / count).checked_mul(power).ok_or_else(overflow)?;
    let rest = (units % count).checked_mul(power).ok_or_else(overflow)?;
    let rounding =
        if (rest % count).unsigned_abs() * 2 >= count.unsigned_abs() { rest.signum() } else { 0 };
    whole.checked_add(rest / count + rounding).ok_or_else(overflow)
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += self.sum.add(&values[0])?;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= self.sum.remove(&values[0])?;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.result()
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::Binary(Some(self.sum.to_bytes())),
            ScalarValue::Int64(Some(self.count)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(totals) = states[0].as_any().downcast_ref::<BinaryArray>() else {
            return exec_err!("partial sums are not bytes");
        };
        for total in totals.iter().flatten() {
            self.sum.merge_bytes(total)?;
        }
        let counts = states[1].as_primitive::<arrow::datatypes::Int64Type>();
        self.count += counts.iter().flatten().sum::<i64>();
        Ok(())
    }
}

/// The same over each value once.
#[derive(Debug)]
struct Distinct {
    seen: std::collections::HashSet<ScalarValue>,
    input: DataType,
    inner: Running,
}

impl Distinct {
    fn insert(&mut self, values: &ArrayRef) -> Result<()> {
        for row in 0..values.len() {
            if values.is_valid(row) {
                let mut value = ScalarValue::try_from_array(values, row)?;
                if let ScalarValue::Float64(Some(float)) = &mut value {
                    // -0.0 and 0.0 are one value.
                    *float += 0.0;
                }
                self.seen.insert(value);
            }
        }
        Ok(())
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.insert(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let seen = std::mem::take(&mut self.seen);
        if !seen.is_empty() {
            self.inner.update_batch(&[ScalarValue::iter_to_array(seen)?])?;
        }
        self.inner.result()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.capacity() * size_of::<ScalarValue>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let seen: Vec<_> = std::mem::take(&mut self.seen).into_iter().collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list(&seen, &self.input, true))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.insert(&values)?;
        }
        Ok(())
    }
}
