//! Exact sums: neither the order of what was added nor what was taken away again shows.
//!
//! Owns: sums of floats without rounding until they are read, sums of integers and decimals
//! past 128 bits, decimal averages, and variances.

mod moments;
mod saved;
mod wide;

use arrow::datatypes::i256;

pub use moments::ExactMoments;
use wide::Wide;

/// A sum or average that its type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// Bit 0 of a [`Fixed`] is worth 2^-1088: below the least float, at a limb's border.
const FIXED_EXPONENT: i32 = -1088;
/// 2304 bits reach past the greatest float times 2^63 weights of 2^64 rows.
const FIXED_LIMBS: usize = 36;

/// The exact sum of floats with weights.
///
/// Most sums fit `mantissa * 2^exponent` with 128 bits; the others move to a fixed-point number
/// that covers every float.
#[derive(Clone, Debug, Default)]
pub struct ExactFloatSum {
    mantissa: i128,
    exponent: i32,
    rare: Option<Box<Rare>>,
}

/// What few sums need.
#[derive(Clone, Debug, Default)]
struct Rare {
    fixed: Option<Fixed>,
    nans: i64,
    infinities: i64,
    negative_infinities: i64,
}

impl ExactFloatSum {
    /// Adds `value` `weight` times; a negative weight takes it away.
    pub fn add(&mut self, value: f64, weight: i64) {
        if !value.is_finite() {
            return self.add_special(value, weight);
        }
        let (mantissa, exponent) = decompose(value);
        self.add_scaled(i128::from(mantissa) * i128::from(weight), exponent);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.add_scaled(other.mantissa, other.exponent);
        let Some(theirs) = &other.rare else { return };
        let rare = self.rare.get_or_insert_default();
        rare.nans += theirs.nans;
        rare.infinities += theirs.infinities;
        rare.negative_infinities += theirs.negative_infinities;
        if let Some(fixed) = &theirs.fixed {
            rare.fixed.get_or_insert_default().merge(fixed);
        }
    }

    /// The sum, rounded once to the nearest float; 0.0, never -0.0.
    ///
    /// # Errors
    /// If finite values sum to what is past the greatest float.
    pub fn sum(&self) -> Result<f64, OutOfRange> {
        if let Some(special) = self.special() {
            return Ok(special);
        }
        let sum = self.finite(0);
        if sum.is_finite() { Ok(sum) } else { Err(OutOfRange) }
    }

    /// The sum by `count`, also where the sum alone is past the greatest float.
    pub fn average(&self, count: i64) -> f64 {
        if let Some(special) = self.special() {
            return special;
        }
        let sum = self.finite(0);
        if sum.is_finite() {
            return sum / count as f64;
        }
        scale(self.finite(-128) / count as f64, 128)
    }

    /// Bytes held outside the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.rare.as_ref().map_or(0, |_| size_of::<Rare>())
    }

    fn add_special(&mut self, value: f64, weight: i64) {
        let rare = self.rare.get_or_insert_default();
        if value.is_nan() {
            rare.nans += weight;
        } else if value > 0.0 {
            rare.infinities += weight;
        } else {
            rare.negative_infinities += weight;
        }
    }

    fn special(&self) -> Option<f64> {
        let rare = self.rare.as_ref()?;
        match (rare.nans > 0, rare.infinities > 0, rare.negative_infinities > 0) {
            (true, _, _) | (_, true, true) => Some(f64::NAN),
            (_, true, _) => Some(f64::INFINITY),
            (_, _, true) => Some(f64::NEG_INFINITY),
            _ => None,
        }
    }

    fn add_scaled(&mut self, mantissa: i128, exponent: i32) {
        if mantissa == 0 {
            return;
        }
        if self.mantissa == 0 {
            (self.mantissa, self.exponent) = (mantissa, exponent);
            return;
        }
        // Both to the smaller exponent, if 128 bits suffice.
        let common = exponent.min(self.exponent);
        let sum = shift_left(mantissa, exponent - common).and_then(|added| {
            shift_left(self.mantissa, self.exponent - common)?.checked_add(added)
        });
        match sum {
            Some(sum) => (self.mantissa, self.exponent) = (sum, common),
            None => {
                let fixed = self.rare.get_or_insert_default().fixed.get_or_insert_default();
                fixed.add(self.mantissa, self.exponent);
                (self.mantissa, self.exponent) = (mantissa, exponent);
            }
        }
    }

    /// The finite part times 2^`shift`, rounded once.
    fn finite(&self, shift: i32) -> f64 {
        match self.rare.as_ref().and_then(|rare| rare.fixed.as_ref()) {
            None => scale(self.mantissa as f64, self.exponent + shift),
            Some(fixed) => {
                let mut fixed = fixed.clone();
                fixed.add(self.mantissa, self.exponent);
                fixed.to_f64(shift)
            }
        }
    }
}

/// `value` = mantissa * 2^exponent.
fn decompose(value: f64) -> (i64, i32) {
    let bits = value.to_bits();
    let field = ((bits >> 52) & 0x7FF) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (mantissa, exponent) =
        if field == 0 { (fraction, -1074) } else { (fraction | (1 << 52), field - 1075) };
    (if value < 0.0 { -mantissa } else { mantissa }, exponent)
}

fn shift_left(value: i128, by: i32) -> Option<i128> {
    if by == 0 {
        return Some(value);
    }
    if by >= 127 {
        return None;
    }
    let shifted = value << by;
    (shifted >> by == value).then_some(shifted)
}

/// `value` * 2^`exponent`. Two steps, so that neither factor leaves the range of floats.
fn scale(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * power_of_two(half) * power_of_two(exponent - half)
}

fn power_of_two(exponent: i32) -> f64 {
    assert!((-1022..=1023).contains(&exponent), "2^{exponent} is a normal float");
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// A two's complement fixed-point number over the whole range of floats.
#[derive(Clone, Debug)]
struct Fixed {
    limbs: [u64; FIXED_LIMBS],
}

impl Default for Fixed {
    fn default() -> Self {
        Self { limbs: [0; FIXED_LIMBS] }
    }
}

impl Fixed {
    fn add(&mut self, mantissa: i128, exponent: i32) {
        if mantissa == 0 {
            return;
        }
        let bit = usize::try_from(exponent - FIXED_EXPONENT).expect("no float is this small");
        let (limb, shift) = (bit / 64, bit % 64);
        let low = (mantissa as u128) << shift;
        let high = if shift == 0 { mantissa >> 127 } else { mantissa >> (128 - shift) };
        let sign = (mantissa >> 127) as u64;
        let words = [low as u64, (low >> 64) as u64, high as u64];
        let mut carry = false;
        for (i, at) in self.limbs[limb..].iter_mut().enumerate() {
            let word = words.get(i).copied().unwrap_or(sign);
            let (sum, carry1) = at.overflowing_add(word);
            let (sum, carry2) = sum.overflowing_add(u64::from(carry));
            *at = sum;
            carry = carry1 | carry2;
        }
    }

    fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (at, &word) in self.limbs.iter_mut().zip(&other.limbs) {
            let (sum, carry1) = at.overflowing_add(word);
            let (sum, carry2) = sum.overflowing_add(u64::from(carry));
            *at = sum;
            carry = carry1 | carry2;
        }
    }

    /// The number times 2^`shift`, rounded to the nearest float, ties to even.
    fn to_f64(&self, shift: i32) -> f64 {
        let negative = self.limbs[FIXED_LIMBS - 1] >> 63 == 1;
        let magnitude = if negative { self.negated() } else { self.clone() };
        let Some(top) = magnitude.limbs.iter().rposition(|&limb| limb != 0) else { return 0.0 };
        // The top two limbs hold at least 65 significant bits; what lies below them only
        // decides ties.
        let limb = |index: Option<usize>| index.map_or(0, |i| magnitude.limbs[i]);
        let head = u128::from(limb(Some(top))) << 64 | u128::from(limb(top.checked_sub(1)));
        let rest = top.saturating_sub(1);
        let sticky = magnitude.limbs[..rest].iter().any(|&limb| limb != 0);
        let head = head | u128::from(sticky);
        let exponent = FIXED_EXPONENT + 64 * (top as i32 - 1) + shift;
        let value = scale_wide(head as f64, exponent);
        if negative { -value } else { value }
    }

    fn negated(&self) -> Self {
        let mut carry = true;
        let limbs = self.limbs.map(|limb| {
            let (negated, carried) = (!limb).overflowing_add(u64::from(carry));
            carry = carried;
            negated
        });
        Self { limbs }
    }
}

/// As `scale`, for exponents down to -1300 of values that are large in turn.
fn scale_wide(value: f64, exponent: i32) -> f64 {
    let third = exponent / 3;
    value * power_of_two(third) * power_of_two(third) * power_of_two(exponent - 2 * third)
}

/// The exact sum of 128-bit integers with weights: `high * 2^128 + low`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactIntegerSum {
    low: i128,
    high: i128,
}

impl ExactIntegerSum {
    /// From the two parts of a sum that is kept in pieces.
    pub(crate) fn from_parts(low: i128, high: i128) -> Self {
        Self { low, high }
    }

    /// Adds `value` `weight` times; a negative weight takes it away.
    pub fn add(&mut self, value: i128, weight: i64) {
        self.high += add_with_carry(&mut self.low, value, weight);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.high += other.high + add_with_carry(&mut self.low, other.low, 1);
    }

    /// The sum as the unscaled value of a Decimal128 of 38 digits.
    ///
    /// # Errors
    /// If it has more digits.
    pub fn sum(&self) -> Result<i128, OutOfRange> {
        if self.high != 0 {
            return Err(OutOfRange);
        }
        fits_38_digits(self.low)
    }

    /// The average of decimals with `scale_more` digits more after the point, rounded half away
    /// from zero.
    ///
    /// # Errors
    /// If it has more than 38 digits.
    pub fn average_decimal(&self, count: i64, scale_more: u32) -> Result<i128, OutOfRange> {
        let ten_to = i256::from_i128(10).checked_pow(scale_more).ok_or(OutOfRange)?;
        let scaled = self.to_i256().checked_mul(ten_to).ok_or(OutOfRange)?;
        let count = i256::from_i128(i128::from(count));
        let quotient = scaled.checked_div(count).ok_or(OutOfRange)?;
        let remainder = scaled.wrapping_rem(count).wrapping_abs();
        let up = remainder.wrapping_add(remainder) >= count;
        let step = match (up, scaled.is_negative()) {
            (false, _) => i256::ZERO,
            (true, false) => i256::ONE,
            (true, true) => i256::MINUS_ONE,
        };
        let rounded = quotient.wrapping_add(step).to_i128().ok_or(OutOfRange)?;
        fits_38_digits(rounded)
    }

    /// The average as a float.
    pub fn average_f64(&self, count: i64) -> f64 {
        let sum = if self.high == 0 {
            self.low as f64
        } else {
            self.high as f64 * power_of_two(128) + self.low as f64
        };
        sum / count as f64
    }

    fn to_i256(self) -> i256 {
        let borrow = i128::from(self.low < 0);
        i256::from_parts(self.low as u128, self.high - borrow)
    }
}

fn fits_38_digits(value: i128) -> Result<i128, OutOfRange> {
    const LIMIT: i128 = 10_i128.pow(38);
    if -LIMIT < value && value < LIMIT { Ok(value) } else { Err(OutOfRange) }
}

/// Adds `value * weight` to `low` modulo 2^128 (as a signed number) and gives what to add to the
/// part above it.
#[inline]
pub(crate) fn add_with_carry(low: &mut i128, value: i128, weight: i64) -> i128 {
    let sum = value.checked_mul(i128::from(weight)).and_then(|added| low.checked_add(added));
    if let Some(sum) = sum {
        *low = sum;
        return 0;
    }
    let product = i256::from_i128(value).wrapping_mul(i256::from_i128(i128::from(weight)));
    let (bottom, top) = i256::from_i128(*low).wrapping_add(product).to_parts();
    *low = bottom as i128;
    top + i128::from(*low < 0)
}

#[cfg(test)]
mod tests;
