//! Natural numbers of any size, in the plainest way: digits of base 10^9, the least first.

use std::cmp::Ordering;

const BASE: u64 = 1_000_000_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct Big(Vec<u64>);

impl Big {
    pub(crate) fn new(mut value: u128) -> Self {
        let mut digits = Vec::new();
        while value > 0 {
            digits.push((value % u128::from(BASE)) as u64);
            value /= u128::from(BASE);
        }
        Self(digits)
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let len = self.0.len().max(other.0.len());
        let digit = |of: &Self, i: usize| of.0.get(i).copied().unwrap_or(0);
        Self((0..len).map(|i| digit(self, i) + digit(other, i)).collect()).carried()
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        let mut product = Self::default();
        for (i, l) in self.0.iter().enumerate() {
            let row = std::iter::repeat_n(0, i).chain(other.0.iter().map(|r| l * r));
            product = product.plus(&Self(row.collect()).carried());
        }
        product
    }

    /// The distance between the two.
    pub(crate) fn apart(&self, other: &Self) -> Self {
        let (great, small) =
            if self.compare(other).is_lt() { (other, self) } else { (self, other) };
        let (mut digits, mut borrow) = (Vec::new(), 0);
        for (i, &digit) in great.0.iter().enumerate() {
            let taken = small.0.get(i).copied().unwrap_or(0) + borrow;
            borrow = u64::from(digit < taken);
            digits.push(digit + borrow * BASE - taken);
        }
        Self(digits).carried()
    }

    /// Rounded once, as decimal text is.
    pub(crate) fn to_f64(&self) -> f64 {
        let digits: String = self.0.iter().rev().map(|digit| format!("{digit:09}")).collect();
        if digits.is_empty() { 0.0 } else { digits.parse().expect("digits are a number") }
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    fn carried(self) -> Self {
        let (mut digits, mut carry) = (Vec::new(), 0);
        for digit in self.0 {
            digits.push((digit + carry) % BASE);
            carry = (digit + carry) / BASE;
        }
        while carry > 0 {
            digits.push(carry % BASE);
            carry /= BASE;
        }
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Self(digits)
    }
}
