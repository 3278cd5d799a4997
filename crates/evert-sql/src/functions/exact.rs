//! Exact sums of floats, so that the order of the rows does not show.
//!
//! After J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic": the sum is kept as
//! non-overlapping floats whose mathematical sum is exact, and is rounded once, at the end.

/// A sum without rounding.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactSum {
    /// Non-overlapping, least significant first.
    parts: Vec<f64>,
    /// How many values there are of each kind that is not finite.
    nans: i64,
    infinities: i64,
    negative_infinities: i64,
}

impl ExactSum {
    /// Adds one value.
    pub(crate) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            *self.specials(value) += 1;
            return;
        }
        self.add_finite(value);
    }

    /// Takes away a value that was added before.
    pub(crate) fn remove(&mut self, value: f64) {
        if !value.is_finite() {
            *self.specials(value) -= 1;
            return;
        }
        self.add_finite(-value);
    }

    fn specials(&mut self, value: f64) -> &mut i64 {
        if value.is_nan() {
            &mut self.nans
        } else if value > 0.0 {
            &mut self.infinities
        } else {
            &mut self.negative_infinities
        }
    }

    /// The sum, if it is not finite.
    fn special(&self) -> Option<f64> {
        match (self.nans > 0, self.infinities > 0, self.negative_infinities > 0) {
            (true, _, _) | (_, true, true) => Some(f64::NAN),
            (_, true, _) => Some(f64::INFINITY),
            (_, _, true) => Some(f64::NEG_INFINITY),
            _ => None,
        }
    }

    fn add_finite(&mut self, value: f64) {
        let mut x = value;
        let mut kept = 0;
        for i in 0..self.parts.len() {
            let mut y = self.parts[i];
            if x.abs() < y.abs() {
                std::mem::swap(&mut x, &mut y);
            }
            let high = x + y;
            let low = y - (high - x);
            if low != 0.0 {
                self.parts[kept] = low;
                kept += 1;
            }
            x = high;
        }
        self.parts.truncate(kept);
        self.parts.push(x);
    }

    /// Floats with the same exact sum.
    pub(crate) fn parts(&self) -> impl Iterator<Item = f64> {
        self.parts.iter().copied().chain(self.special())
    }

    /// The sum, rounded once, halves to even; `None` if it is too large for a float.
    pub(crate) fn value(&self) -> Option<f64> {
        if let Some(special) = self.special() {
            return Some(special);
        }
        let Some((&top, rest)) = self.parts.split_last() else { return Some(0.0) };
        let mut high = top;
        let mut low = 0.0;
        let mut below = rest.len();
        while below > 0 {
            below -= 1;
            let x = high;
            let y = rest[below];
            high = x + y;
            low = y - (high - x);
            if low != 0.0 {
                break;
            }
        }
        // Half an ulp that was rounded to even goes the other way if what is below says so.
        if below > 0
            && ((low < 0.0 && rest[below - 1] < 0.0) || (low > 0.0 && rest[below - 1] > 0.0))
        {
            let doubled = low * 2.0;
            let moved = high + doubled;
            if doubled == moved - high {
                high = moved;
            }
        }
        high.is_finite().then_some(high + 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.value().expect("a float")
    }

    #[test]
    fn nothing_is_lost() {
        assert_eq!(sum(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[1.0, 1e-16, 1e-16]), 1.0 + 2.0 * 1e-16);
        assert_eq!(sum(&[]), 0.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    #[test]
    fn what_is_taken_away_leaves_no_trace() {
        let mut sum = ExactSum::default();
        for value in [1e300, 0.1, f64::NAN, f64::INFINITY] {
            sum.add(value);
        }
        assert!(sum.value().expect("a float").is_nan());
        sum.remove(f64::NAN);
        assert_eq!(sum.value(), Some(f64::INFINITY));
        sum.remove(f64::INFINITY);
        sum.remove(1e300);
        assert_eq!(sum.value(), Some(0.1));
    }

    #[test]
    fn order_does_not_show() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut values: Vec<f64> =
                (0..40).map(|_| (rng.f64() - 0.5) * 10_f64.powi(rng.i32(-30..30))).collect();
            let expected = sum(&values);
            rng.shuffle(&mut values);
            assert_eq!(sum(&values).to_bits(), expected.to_bits());
        }
    }
}
