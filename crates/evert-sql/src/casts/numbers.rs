//! Numbers as other numbers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type,
};

use super::text::NumericText;
use super::{out_of_range, plain};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, NUMERIC_OUT_OF_RANGE};

/// The largest scale whose power of ten is a float exactly.
const EXACT_SCALE_MAX: i8 = 22;
/// Integers up to here are floats exactly.
const EXACT_UNITS_MAX: u128 = 1 << 53;

/// Decimals as integers, halves away from zero, or as floats, each the nearest.
pub(super) fn of_decimals(
    values: &ArrayRef,
    scale: i8,
    to: &DataType,
) -> Result<ArrayRef, SqlError> {
    let values = values.as_primitive::<Decimal128Type>();
    Ok(match to {
        DataType::Float64 => Arc::new(values.unary::<_, Float64Type>(|units| double(units, scale))),
        DataType::Float32 => Arc::new(values.unary::<_, Float32Type>(|units| real(units, scale))),
        to => integers(values, to, |units| whole(units, scale))?,
    })
}

/// Floats as integers, halves to even, as decimals by their first 15 digits (6 of a real), or as
/// reals.
pub(super) fn of_floats(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let single = *values.data_type() == DataType::Float32;
    let values = plain(values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    Ok(match to {
        DataType::Decimal128(precision, scale) => {
            let decimal = |x: f64| numeric_of_float(x, single)?.units(*precision, *scale);
            Arc::new(values.try_unary::<_, Decimal128Type, _>(decimal)?.with_data_type(to.clone()))
        }
        DataType::Float32 => {
            let narrow = |x: f64| {
                let real = x as f32;
                let lost = (real.is_infinite() && x.is_finite()) || (real == 0.0 && x != 0.0);
                if lost { Err(out_of_range(to)) } else { Ok(real) }
            };
            Arc::new(values.try_unary::<_, Float32Type, _>(narrow)?)
        }
        to => integers(values, to, |x| {
            let whole = x.round_ties_even();
            // Beyond the range of i128 a float casts to its end, which no integer type reaches.
            if whole.is_nan() { None } else { Some(whole as i128) }
        })?,
    })
}

/// The number that a float is written as: 15 significant digits of a double, 6 of a real.
pub(crate) fn numeric_of_float(x: f64, single: bool) -> Result<NumericText, SqlError> {
    if !x.is_finite() {
        let what = if x.is_nan() { "NaN" } else { "infinity" };
        return Err(SqlError::new(
            FEATURE_NOT_SUPPORTED,
            format!("cannot convert {what} to numeric"),
        ));
    }
    let text = if single { format!("{x:.5e}") } else { format!("{x:.14e}") };
    NumericText::read(&text)
        .map(NumericText::shortened)
        .ok_or_else(|| SqlError::new(NUMERIC_OUT_OF_RANGE, "numeric field overflow"))
}

fn double(units: i128, scale: i8) -> f64 {
    // One division of exact numbers rounds once.
    if (0..=EXACT_SCALE_MAX).contains(&scale) && units.unsigned_abs() <= EXACT_UNITS_MAX {
        return units as f64 / 10_f64.powi(i32::from(scale));
    }
    let text = format!("{units}e{}", -i32::from(scale));
    text.parse().expect("digits and an exponent are a float")
}

fn real(units: i128, scale: i8) -> f32 {
    let text = format!("{units}e{}", -i32::from(scale));
    text.parse().expect("digits and an exponent are a float")
}

/// A decimal without its fraction, halves away from zero.
fn whole(units: i128, scale: i8) -> Option<i128> {
    if scale <= 0 {
        return 10_i128.checked_pow(scale.unsigned_abs().into())?.checked_mul(units);
    }
    let one = 10_i128.checked_pow(scale.unsigned_abs().into())?;
    let (quotient, rest) = (units / one, units % one);
    let up = rest.unsigned_abs() >= one.unsigned_abs().div_ceil(2);
    Some(if up { quotient + units.signum() } else { quotient })
}

fn integers<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    to: &DataType,
    whole: impl Fn(T::Native) -> Option<i128>,
) -> Result<ArrayRef, SqlError> {
    fn narrow<T: ArrowPrimitiveType, O: ArrowPrimitiveType>(
        values: &PrimitiveArray<T>,
        to: &DataType,
        whole: impl Fn(T::Native) -> Option<i128>,
    ) -> Result<ArrayRef, SqlError>
    where
        O::Native: TryFrom<i128>,
    {
        let narrow = |x| whole(x).and_then(|x| O::Native::try_from(x).ok());
        let narrow = |x| narrow(x).ok_or_else(|| out_of_range(to));
        Ok(Arc::new(values.try_unary::<_, O, _>(narrow)?))
    }
    match to {
        DataType::Int8 => narrow::<T, Int8Type>(values, to, whole),
        DataType::Int16 => narrow::<T, Int16Type>(values, to, whole),
        DataType::Int32 => narrow::<T, Int32Type>(values, to, whole),
        _ => narrow::<T, Int64Type>(values, to, whole),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Int32Array};

    use super::*;
    use crate::casts::cast;

    #[test]
    fn halves_go_away_from_zero_in_decimals_and_to_even_in_floats() {
        let decimals = Decimal128Array::from(vec![25, 35, -25, 5, 24, -5])
            .with_precision_and_scale(2, 1)
            .unwrap();
        let whole = cast(&(Arc::new(decimals) as ArrayRef), &DataType::Int32).unwrap();
        assert_eq!(*whole.as_primitive(), Int32Array::from(vec![3, 4, -3, 1, 2, -1]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![2.5, 3.5, -2.5, 0.5]));
        let whole = cast(&floats, &DataType::Int32).unwrap();
        assert_eq!(*whole.as_primitive(), Int32Array::from(vec![2, 4, -2, 0]));
    }

    #[test]
    fn decimals_are_the_nearest_floats() {
        assert_eq!(double(1_000_000_000_000_000, 0), 1e15);
        assert_eq!(double(123_456_789_012_345_678_901_234_567, 20), 1_234_567.890_123_456_8);
        assert_eq!(double(1, 38), 1e-38);
        assert_eq!(real(1, 1), 0.1_f32);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let large: ArrayRef = Arc::new(Float64Array::from(vec![3e9]));
        let error = cast(&large, &DataType::Int32).unwrap_err();
        assert_eq!((error.sqlstate, error.message.as_str()), ("22003", "integer out of range"));
        for (x, to) in [
            (f64::NAN, DataType::Int64),
            (f64::INFINITY, DataType::Int64),
            (1e39, DataType::Float32),
            (1e-60, DataType::Float32),
            (1e10, DataType::Decimal128(10, 2)),
        ] {
            let x: ArrayRef = Arc::new(Float64Array::from(vec![x]));
            assert_eq!(cast(&x, &to).unwrap_err().sqlstate, "22003", "{x:?} {to}");
        }
    }

    #[test]
    fn floats_become_decimals_by_their_first_fifteen_digits() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 1e22, 2.675, -1e-7]));
        let decimals = cast(&floats, &DataType::Decimal128(38, 3)).unwrap();
        let decimals: Vec<_> = decimals.as_primitive::<Decimal128Type>().values().to_vec();
        assert_eq!(decimals, [100, 10_i128.pow(25), 2675, 0]);
    }
}
