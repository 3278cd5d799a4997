//! Variances from the distances of all pairs: the sum of their squares is what the formula's
//! numerator is, and nothing is taken away from anything.

use evert_fold::Spread;

use crate::big::Big;
use crate::values::Value;

/// The measure of values that are not NULL; their decimals have `scale` digits.
pub(crate) fn spread(of: Spread, values: &[Value], scale: i8) -> Value {
    let is_sample = matches!(of, Spread::Variance | Spread::Deviation);
    if values.len() <= usize::from(is_sample) {
        return Value::Null;
    }
    let is_finite = |value: &Value| !matches!(value, Value::Float(_)) || value.as_f64().is_finite();
    if !values.iter().all(is_finite) {
        return Value::float(f64::NAN);
    }
    // Every value as an integer times 2^exponent, moved above zero.
    let parts: Vec<(i128, i32)> = values.iter().map(parts).collect();
    let exponent = parts.iter().map(|(_, exponent)| *exponent).min().expect("there is a value");
    let scaled: Vec<(bool, Big)> = parts
        .iter()
        .map(|(value, own)| {
            let mut big = Big::new(value.unsigned_abs());
            for _ in exponent..*own {
                big = big.plus(&big);
            }
            (*value < 0, big)
        })
        .collect();
    let mut sum = Big::default();
    for (i, (negative, value)) in scaled.iter().enumerate() {
        for (other_negative, other) in &scaled[..i] {
            let same_side = negative == other_negative;
            let apart = if same_side { value.apart(other) } else { value.plus(other) };
            sum = sum.plus(&apart.times(&apart));
        }
    }
    let count = values.len() as i128;
    let pairs = if is_sample { count * (count - 1) } else { count * count };
    let variance = sum.to_f64() / (pairs as f64 * 10_f64.powi(2 * i32::from(scale)));
    Value::float(match of {
        Spread::Variance | Spread::VariancePopulation => variance * 2_f64.powi(2 * exponent),
        Spread::Deviation | Spread::DeviationPopulation => variance.sqrt() * 2_f64.powi(exponent),
    })
}

fn parts(value: &Value) -> (i128, i32) {
    match value {
        Value::Int(value) => ((*value).into(), 0),
        Value::Decimal(value) => (*value, 0),
        Value::Float(_) => {
            let (mut mantissa, mut exponent) = (value.as_f64(), 0);
            while mantissa.fract() != 0.0 {
                (mantissa, exponent) = (mantissa * 2.0, exponent - 1);
            }
            (mantissa as i128, exponent)
        }
        other => panic!("{other:?} is no number"),
    }
}
