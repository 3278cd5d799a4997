//! Exact sums of values and of their squares: what variances are made of.

use super::wide::Wide;
use super::{OutOfRange, decompose, power_of_two};
use crate::plan::Spread;

/// The exact sum of values and that of their squares, with weights.
///
/// Nothing is rounded before it is read: the variance of `n` values is
/// `(n * sum of squares - sum^2) / (n * (n - 1))`, its numerator exact.
#[derive(Clone, Debug, Default)]
pub struct ExactMoments {
    sum: Wide,
    squares: Wide,
    /// Values that are infinite or NaN.
    specials: i64,
}

impl ExactMoments {
    /// Adds a float `weight` times; a negative weight takes it away.
    pub fn add_float(&mut self, value: f64, weight: i64) {
        if !value.is_finite() {
            self.specials += weight;
            return;
        }
        let (mantissa, exponent) = decompose(value);
        self.add(mantissa.into(), exponent, weight);
    }

    /// Adds an integer, or a decimal's unscaled value.
    pub fn add_integer(&mut self, value: i128, weight: i64) {
        self.add(value, 0, weight);
    }

    /// Adds other sums.
    pub fn merge(&mut self, other: &Self) {
        self.sum.add(&other.sum);
        self.squares.add(&other.squares);
        self.specials += other.specials;
    }

    fn add(&mut self, value: i128, exponent: i32, weight: i64) {
        match value.checked_mul(weight.into()) {
            Some(value) => self.sum.add_scaled(value, exponent),
            None => self.sum.add(&Wide::new(value, exponent).times(&Wide::new(weight.into(), 0))),
        }
        let square = value.checked_mul(value);
        match square.and_then(|square| square.checked_mul(weight.into())) {
            Some(square) => self.squares.add_scaled(square, 2 * exponent),
            None => {
                let value = Wide::new(value, exponent);
                self.squares.add(&value.times(&value).times(&Wide::new(weight.into(), 0)));
            }
        }
    }

    /// The measure over `count` values that have `scale` digits after the decimal point; `None`
    /// if so few have none.
    ///
    /// # Errors
    /// If it is past the greatest float.
    pub fn spread(&self, spread: Spread, count: i64, scale: i8) -> Result<Option<f64>, OutOfRange> {
        let is_sample = matches!(spread, Spread::Variance | Spread::Deviation);
        if count <= i64::from(is_sample) {
            return Ok(None);
        }
        if self.specials > 0 {
            return Ok(Some(f64::NAN));
        }
        let mut numerator = self.squares.times(&Wide::new(count.into(), 0));
        numerator.add(&self.sum.times(&self.sum).negated());
        assert!(!numerator.is_negative(), "the mean of squares is at least the square of the mean");
        let count = i128::from(count);
        let pairs = if is_sample { count * (count - 1) } else { count * count };
        let divisor = pairs as f64 * 10_f64.powi(2 * i32::from(scale));
        let (mut significand, mut exponent) = numerator.rounded();
        if matches!(spread, Spread::Variance | Spread::VariancePopulation) {
            let variance = shifted(significand / divisor, exponent);
            return if variance.is_finite() { Ok(Some(variance)) } else { Err(OutOfRange) };
        }
        if exponent % 2 != 0 {
            (significand, exponent) = (significand * 2.0, exponent - 1);
        }
        Ok(Some(shifted((significand / divisor).sqrt(), exponent / 2)))
    }

    /// Bytes held outside the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap_bytes()
    }

    pub(crate) fn parts(&self) -> (&Wide, &Wide, i64) {
        (&self.sum, &self.squares, self.specials)
    }

    pub(crate) fn from_parts(sum: Wide, squares: Wide, specials: i64) -> Self {
        Self { sum, squares, specials }
    }
}

/// `value * 2^exponent`, by steps that are floats themselves.
fn shifted(mut value: f64, mut exponent: i32) -> f64 {
    while exponent != 0 {
        let step = exponent.clamp(-1000, 1000);
        value *= power_of_two(step);
        exponent -= step;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> ExactMoments {
        let mut moments = ExactMoments::default();
        values.iter().for_each(|&value| moments.add_float(value, 1));
        moments
    }

    fn spread(moments: &ExactMoments, spread: Spread, count: usize) -> Option<f64> {
        moments.spread(spread, count as i64, 0).expect("it is in range")
    }

    #[test]
    fn variances_do_not_cancel() {
        // Where sums of squares in floats have no digit right.
        let values = [1e15 + 4.0, 1e15 + 7.0, 1e15 + 13.0, 1e15 + 16.0];
        assert_eq!(spread(&of(&values), Spread::Variance, 4), Some(30.0));
        assert_eq!(spread(&of(&values), Spread::VariancePopulation, 4), Some(22.5));
        assert_eq!(spread(&of(&[0.1; 3]), Spread::Deviation, 3), Some(0.0));
        assert_eq!(spread(&of(&[2.0]), Spread::Variance, 1), None);
        assert_eq!(spread(&of(&[2.0]), Spread::DeviationPopulation, 1), Some(0.0));
    }

    #[test]
    fn the_extremes_of_floats_have_a_deviation() {
        let (max, tiny) = (f64::MAX, f64::from_bits(1));
        assert_eq!(of(&[max, -max]).spread(Spread::Variance, 2, 0), Err(OutOfRange));
        assert_eq!(spread(&of(&[max, -max]), Spread::DeviationPopulation, 2), Some(max));
        assert_eq!(spread(&of(&[tiny, -tiny]), Spread::DeviationPopulation, 2), Some(tiny));
        assert!(spread(&of(&[1.0, f64::INFINITY]), Spread::Variance, 2).unwrap().is_nan());
    }

    #[test]
    fn retraction_leaves_no_trace() {
        let mut moments = of(&[1.5, 2.5]);
        for value in [f64::NAN, f64::MAX, 1e-300, -7.25] {
            moments.add_float(value, 3);
        }
        for value in [f64::NAN, f64::MAX, 1e-300, -7.25] {
            moments.add_float(value, -3);
        }
        assert_eq!(spread(&moments, Spread::Variance, 2), Some(0.5));
    }

    #[test]
    fn decimals_of_38_digits_are_exact() {
        let mut moments = ExactMoments::default();
        let great = 10_i128.pow(38) - 1;
        for value in [great, great - 2, great, great - 2] {
            moments.add_integer(value, 1);
        }
        assert_eq!(moments.spread(Spread::VariancePopulation, 4, 0), Ok(Some(1.0)));
        assert_eq!(moments.spread(Spread::DeviationPopulation, 4, 2), Ok(Some(0.01)));
        moments.add_integer(i128::MAX, i64::MAX);
        moments.add_integer(i128::MAX, -i64::MAX);
        assert_eq!(moments.spread(Spread::VariancePopulation, 4, 0), Ok(Some(1.0)));
    }
}
