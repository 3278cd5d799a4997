//! Exact sums in saved entries.

use super::{ExactFloatSum, ExactMoments, FIXED_LIMBS, Fixed, Rare, Wide};
use crate::state::StateError;
use crate::state::entry::{Reader, Writer, malformed};

/// Floats lie between 2^-1074 and 2^1024, their squares between twice that, in limbs of 64 bits.
const WIDE_LIMBS_MAX: i128 = 100;

impl ExactFloatSum {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.integer(self.mantissa);
        out.integer(self.exponent.into());
        let Some(rare) = &self.rare else { return out.integer(0) };
        out.integer(if rare.fixed.is_some() { 2 } else { 1 });
        for count in [rare.nans, rare.infinities, rare.negative_infinities] {
            out.integer(count.into());
        }
        rare.fixed.iter().flat_map(|fixed| fixed.limbs).for_each(|limb| out.word(limb));
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let mantissa = from.integer()?;
        let exponent = from.integer()?;
        // What no float has would be out of a fixed-point number's range later.
        let is_float = (-1074..=971).contains(&exponent);
        let exponent = i32::try_from(exponent).ok().filter(|_| is_float).ok_or_else(malformed)?;
        let kind = from.count()?;
        if kind == 0 {
            return Ok(Self { mantissa, exponent, rare: None });
        }
        let mut rare = Rare {
            nans: from.count()?,
            infinities: from.count()?,
            negative_infinities: from.count()?,
            fixed: None,
        };
        if kind == 2 {
            let mut fixed = Fixed { limbs: [0; FIXED_LIMBS] };
            for limb in &mut fixed.limbs {
                *limb = from.word()?;
            }
            rare.fixed = Some(fixed);
        }
        Ok(Self { mantissa, exponent, rare: Some(Box::new(rare)) })
    }
}

impl ExactMoments {
    pub(crate) fn write(&self, out: &mut Writer) {
        let (sum, squares, specials) = self.parts();
        sum.write(out);
        squares.write(out);
        out.integer(specials.into());
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let (sum, squares) = (Wide::read(from)?, Wide::read(from)?);
        Ok(Self::from_parts(sum, squares, from.count()?))
    }
}

impl Wide {
    fn write(&self, out: &mut Writer) {
        let (base, limbs) = self.parts();
        out.integer(base.into());
        out.integer(limbs.len() as i128);
        limbs.iter().for_each(|&limb| out.word(limb));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let (base, limbs) = (from.integer()?, from.integer()?);
        let fits = base.abs() <= WIDE_LIMBS_MAX && (0..=WIDE_LIMBS_MAX).contains(&limbs);
        let base = i32::try_from(base).ok().filter(|_| fits).ok_or_else(malformed)?;
        let limbs: Result<Vec<u64>, _> = (0..limbs).map(|_| from.word()).collect();
        Ok(Self::from_parts(base, limbs?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_come_back_and_go_on() {
        let mut rng = fastrand::Rng::with_seed(3);
        let pick = |rng: &mut fastrand::Rng| match rng.u8(0..10) {
            0 => f64::NAN,
            1 => f64::NEG_INFINITY,
            2 => f64::MAX,
            3 => 1e-310,
            _ => (rng.f64() - 0.5) * 1e6,
        };
        for _ in 0..300 {
            let (mut sum, mut moments) = (ExactFloatSum::default(), ExactMoments::default());
            let mut added = Vec::new();
            for _ in 0..rng.usize(0..8) {
                let value = pick(&mut rng);
                added.push(value);
                sum.add(value, 1);
                moments.add_float(value, 1);
            }
            let mut out = Writer::default();
            sum.write(&mut out);
            moments.write(&mut out);
            let mut reader = Reader::new(out.bytes());
            let mut sum = ExactFloatSum::read(&mut reader).unwrap();
            let mut moments = ExactMoments::read(&mut reader).unwrap();
            reader.end().unwrap();
            for value in added {
                sum.add(value, -1);
                moments.add_float(value, -1);
            }
            assert_eq!(sum.sum(), Ok(0.0));
            let (sum, squares, specials) = moments.parts();
            assert!(sum.is_zero() && squares.is_zero() && specials == 0);
        }
    }

    #[test]
    fn numbers_that_no_float_has_are_refused() {
        let mut out = Writer::default();
        for number in [1, 5000, 0] {
            out.integer(number);
        }
        assert!(ExactFloatSum::read(&mut Reader::new(out.bytes())).is_err());
        let mut out = Writer::default();
        for number in [0, i128::MAX] {
            out.integer(number);
        }
        assert!(Wide::read(&mut Reader::new(out.bytes())).is_err());
    }
}
