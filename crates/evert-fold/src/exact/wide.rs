//! Integers of any size times a power of two.

/// `limbs * 2^(64 * base)`: two's complement, the least limb first, as few as hold the number.
/// Zero has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wide {
    base: i32,
    limbs: Vec<u64>,
}

impl Wide {
    /// `value * 2^exponent`.
    pub(crate) fn new(value: i128, exponent: i32) -> Self {
        let mut wide = Self::default();
        wide.add_scaled(value, exponent);
        wide
    }

    /// Adds `value * 2^exponent`.
    pub(crate) fn add_scaled(&mut self, value: i128, exponent: i32) {
        if value == 0 {
            return;
        }
        let shift = exponent.rem_euclid(64);
        let low = (value as u128) << shift;
        let high = if shift == 0 { value >> 127 } else { value >> (128 - shift) };
        self.add_words(&[low as u64, (low >> 64) as u64, high as u64], exponent.div_euclid(64));
    }

    /// Adds another number.
    pub(crate) fn add(&mut self, other: &Self) {
        if !other.limbs.is_empty() {
            self.add_words(&other.limbs, other.base);
        }
    }

    pub(crate) fn negated(&self) -> Self {
        let mut negated = Self { base: self.base, limbs: negated(&self.limbs) };
        // Only the least number of its length has no room for its opposite.
        if self.is_negative() && negated.is_negative() {
            negated.limbs.push(0);
        }
        negated
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        let (left, right) = (self.magnitude(), other.magnitude());
        let mut limbs = vec![0_u64; left.len() + right.len() + 1];
        for (i, &l) in left.iter().enumerate() {
            let mut carry = 0_u128;
            for (j, at) in limbs[i..].iter_mut().enumerate() {
                let r = right.get(j).copied().unwrap_or(0);
                let sum = u128::from(l) * u128::from(r) + u128::from(*at) + carry;
                *at = sum as u64;
                carry = sum >> 64;
            }
        }
        let mut product = Self { base: self.base + other.base, limbs };
        product.trim();
        if self.is_negative() == other.is_negative() { product } else { product.negated() }
    }

    #[cfg(test)]
    pub(crate) fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.limbs.last().is_some_and(|&top| top >> 63 == 1)
    }

    /// The number as `significand * 2^exponent`, the significand rounded to nearest, ties to
    /// even. Both are 0 for zero.
    pub(crate) fn rounded(&self) -> (f64, i32) {
        let magnitude = self.magnitude();
        let Some(top) = magnitude.iter().rposition(|&limb| limb != 0) else { return (0.0, 0) };
        // The top two limbs hold at least 65 significant bits; what lies below them only
        // decides ties.
        let below = top.checked_sub(1).map_or(0, |i| magnitude[i]);
        let sticky = magnitude[..top.saturating_sub(1)].iter().any(|&limb| limb != 0);
        let head = u128::from(magnitude[top]) << 64 | u128::from(below) | u128::from(sticky);
        let exponent = 64 * (self.base + top as i32 - 1);
        (if self.is_negative() { -(head as f64) } else { head as f64 }, exponent)
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.limbs.capacity() * size_of::<u64>()
    }

    pub(crate) fn parts(&self) -> (i32, &[u64]) {
        (self.base, &self.limbs)
    }

    pub(crate) fn from_parts(base: i32, limbs: Vec<u64>) -> Self {
        let mut wide = Self { base, limbs };
        wide.trim();
        wide
    }

    /// Adds `words * 2^(64 * base)`.
    fn add_words(&mut self, words: &[u64], base: i32) {
        if self.limbs.is_empty() {
            self.base = base;
        }
        if base < self.base {
            let lower = (self.base - base) as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, lower));
            self.base = base;
        }
        let from = (base - self.base) as usize;
        // One limb more, so that a carry does not reach the sign.
        let len = self.limbs.len().max(from + words.len()) + 1;
        self.limbs.resize(len, sign(&self.limbs));
        let extension = sign(words);
        let mut carry = false;
        for (i, at) in self.limbs[from..].iter_mut().enumerate() {
            let word = words.get(i).copied().unwrap_or(extension);
            let (sum, carry1) = at.overflowing_add(word);
            let (sum, carry2) = sum.overflowing_add(u64::from(carry));
            *at = sum;
            carry = carry1 | carry2;
        }
        self.trim();
    }

    /// Cuts limbs that only repeat the sign.
    fn trim(&mut self) {
        while let [.., below, top] = self.limbs[..] {
            if top != sign(&[below]) {
                break;
            }
            self.limbs.pop();
        }
        if self.limbs == [0] {
            *self = Self::default();
        }
    }

    fn magnitude(&self) -> Vec<u64> {
        if self.is_negative() { negated(&self.limbs) } else { self.limbs.clone() }
    }
}

/// What repeats the sign above the top limb.
fn sign(limbs: &[u64]) -> u64 {
    limbs.last().map_or(0, |&top| ((top as i64) >> 63) as u64)
}

/// The opposite, modulo the length.
fn negated(limbs: &[u64]) -> Vec<u64> {
    let mut carry = true;
    let negate = |&limb: &u64| {
        let (negated, carried) = (!limb).overflowing_add(u64::from(carry));
        carry = carried;
        negated
    };
    limbs.iter().map(negate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_products_agree_with_128_bits() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut small = || i128::from(rng.i64(..) >> rng.u32(0..63));
            let (a, b, c) = (small(), small(), small());
            let exponent = rng.i32(-200..200);
            let mut sum = Wide::new(a, exponent).times(&Wide::new(b, -exponent));
            sum.add_scaled(c, 0);
            assert_eq!(sum, Wide::new(a * b + c, 0).aligned_to(&sum), "{a} * {b} + {c}");
            sum.add(&Wide::new(a * b + c, 0).negated());
            assert!(sum.is_zero(), "{a} * {b} + {c}");
        }
    }

    #[test]
    fn far_apart_numbers_leave_no_trace() {
        let mut sum = Wide::new(3, -2148);
        sum.add_scaled(-5, 2000);
        sum.add_scaled(i128::MIN, 64);
        sum.add_scaled(5, 2000);
        sum.add(&Wide::new(i128::MIN, 64).negated());
        assert_eq!(sum.rounded(), (3.0 * 2_f64.powi(64 + 28), -2240));
        sum.add_scaled(-3, -2148);
        assert!(sum.is_zero());
    }

    #[test]
    fn rounding_is_to_nearest_and_ties_to_even() {
        let one_and = |low: i128, exponent| {
            let mut wide = Wide::new(1 << 53, 0);
            wide.add_scaled(low, exponent);
            let (significand, exponent) = wide.rounded();
            significand * 2_f64.powi(exponent)
        };
        let even = 2_f64.powi(53);
        assert_eq!(one_and(1, 0), even, "a tie goes to the even neighbour");
        assert_eq!(one_and(3, 0), even + 4.0);
        let mut above = Wide::new((1 << 53) + 1, 0);
        above.add_scaled(1, -500);
        let (significand, exponent) = above.rounded();
        assert_eq!(significand * 2_f64.powi(exponent), even + 2.0, "the least bit breaks a tie");
        assert_eq!(Wide::new(-7, 3).rounded(), (-7.0 * 2_f64.powi(67), -64));
    }

    impl Wide {
        /// The same number with as low a base as another's.
        fn aligned_to(mut self, other: &Self) -> Self {
            while !self.is_zero() && self.base > other.base {
                self.limbs.insert(0, 0);
                self.base -= 1;
            }
            self
        }
    }
}
