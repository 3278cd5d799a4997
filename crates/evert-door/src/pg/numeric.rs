//! NUMERIC: Arrow's scaled integers and Postgres's base-10000 digits.

use std::fmt::{self, Write};

use bytes::{Buf, BufMut, BytesMut};

const NEGATIVE: u16 = 0x4000;

/// The decimal digits of a value, before and after the point.
struct Digits {
    negative: bool,
    whole: String,
    fraction: String,
}

impl Digits {
    fn new(value: i128, scale: i8) -> Self {
        let mut whole = value.unsigned_abs().to_string();
        if scale < 0 && value != 0 {
            whole.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
        let places = usize::try_from(scale).unwrap_or(0);
        if whole.len() <= places {
            whole.insert_str(0, &"0".repeat(places + 1 - whole.len()));
        }
        let fraction = whole.split_off(whole.len() - places);
        Self { negative: value < 0, whole, fraction }
    }
}

pub(super) fn write_numeric(out: &mut impl Write, value: i128, scale: i8) -> fmt::Result {
    let digits = Digits::new(value, scale);
    out.write_str(if digits.negative { "-" } else { "" })?;
    out.write_str(&digits.whole)?;
    if digits.fraction.is_empty() {
        return Ok(());
    }
    write!(out, ".{}", digits.fraction)
}

/// Writes a value as Postgres's `numeric_send` does.
pub(super) fn numeric_to_wire(out: &mut BytesMut, value: i128, scale: i8) {
    let Digits { negative, mut whole, mut fraction } = Digits::new(value, scale);
    let places = fraction.len();
    whole.insert_str(0, &"0".repeat((4 - whole.len() % 4) % 4));
    fraction.extend(std::iter::repeat_n('0', (4 - places % 4) % 4));
    let group = |four: &[u8]| four.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let groups: Vec<u16> =
        whole.as_bytes().chunks(4).chain(fraction.as_bytes().chunks(4)).map(group).collect();

    let leading = groups.iter().take_while(|&&group| group == 0).count();
    let end = groups.iter().rposition(|&group| group != 0).map_or(leading, |last| last + 1);
    let significant = &groups[leading.min(end)..end];
    let weight =
        if significant.is_empty() { 0 } else { (whole.len() / 4) as i16 - 1 - leading as i16 };
    out.put_u16(significant.len() as u16);
    out.put_i16(weight);
    out.put_u16(if negative { NEGATIVE } else { 0 });
    out.put_u16(places as u16);
    significant.iter().for_each(|&group| out.put_u16(group));
}

/// A number being read: an unscaled value and the power of ten it is to be multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    value: i128,
    exponent: i32,
    /// Digits after the point, as it was written: zeros at the end count.
    places: u32,
}

/// What a number cannot be turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumericError {
    /// It is not a number, or NaN or infinity, which have no place here.
    NotANumber,
    /// More digits than the type has.
    OutOfRange,
}

impl Number {
    pub(super) fn parse(text: &str) -> Result<Self, NumericError> {
        let text = text.trim();
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i32>().map_err(|_| NumericError::NotANumber)?)
            }
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
            return Err(NumericError::NotANumber);
        }
        // Zeros at the end say nothing that the exponent cannot.
        let significant = fraction.trim_end_matches('0');
        let mut value = 0_i128;
        for digit in whole.bytes().chain(significant.bytes()) {
            value = push_digit(value, i128::from(digit - b'0'))?;
        }
        let places = i32::try_from(significant.len()).map_err(|_| NumericError::OutOfRange)?;
        let written = i32::try_from(fraction.len()).map_err(|_| NumericError::OutOfRange)?;
        let written = written.checked_sub(exponent).ok_or(NumericError::OutOfRange)?;
        let exponent = exponent.checked_sub(places).ok_or(NumericError::OutOfRange)?;
        let places = u32::try_from(written).unwrap_or(0);
        Ok(Self { value: if negative { -value } else { value }, exponent, places })
    }

    /// Reads what Postgres's `numeric_send` writes.
    pub(super) fn from_wire(mut bytes: &[u8]) -> Result<Self, NumericError> {
        if bytes.len() < 8 {
            return Err(NumericError::NotANumber);
        }
        let count = usize::from(bytes.get_u16());
        let weight = i32::from(bytes.get_i16());
        let sign = bytes.get_u16();
        let places = u32::from(bytes.get_u16());
        if bytes.len() != count * 2 || !matches!(sign, 0 | NEGATIVE) {
            return Err(NumericError::NotANumber);
        }
        // At most 65,535 groups: far from what an i32 holds.
        let (mut value, mut exponent) = (0_i128, (weight - count as i32 + 1) * 4);
        for index in 0..count {
            let mut group = bytes.get_u16();
            if group > 9_999 {
                return Err(NumericError::NotANumber);
            }
            let mut shift = 10_000;
            // The last group's zeros may be more digits than there is room for.
            while index + 1 == count && group > 0 && group.is_multiple_of(10) {
                group /= 10;
                shift /= 10;
                exponent += 1;
            }
            let shifted = value.checked_mul(shift).ok_or(NumericError::OutOfRange)?;
            value = shifted.checked_add(i128::from(group)).ok_or(NumericError::OutOfRange)?;
        }
        let value = if sign == NEGATIVE { -value } else { value };
        Ok(Self { value, exponent, places })
    }

    /// How many digits it has at its own scale, and that scale.
    pub(super) fn size(self) -> Result<(u32, i8), NumericError> {
        let exact = u32::try_from(-i64::from(self.exponent)).unwrap_or(0);
        let scale = i8::try_from(self.places.max(exact)).map_err(|_| NumericError::OutOfRange)?;
        if scale > 38 {
            return Err(NumericError::OutOfRange);
        }
        let value = self.at_scale(38, scale)?.unsigned_abs();
        let digits = value.checked_ilog10().map_or(1, |log| log + 1);
        Ok((digits.max(u32::from(scale.unsigned_abs())), scale))
    }

    /// The unscaled value at a scale, rounded half away from zero as Postgres rounds.
    pub(super) fn at_scale(self, precision: u8, scale: i8) -> Result<i128, NumericError> {
        let shift = self.exponent.checked_add(i32::from(scale)).ok_or(NumericError::OutOfRange)?;
        let value = if self.value == 0 {
            0
        } else if shift >= 0 {
            let power =
                10_i128.checked_pow(shift.unsigned_abs()).ok_or(NumericError::OutOfRange)?;
            self.value.checked_mul(power).ok_or(NumericError::OutOfRange)?
        } else {
            match 10_i128.checked_pow(shift.unsigned_abs()) {
                // Nothing is left of a value that is smaller than any i128 can divide.
                None => 0,
                Some(power) => {
                    let (quotient, rest) = (self.value / power, self.value % power);
                    let rounds = rest.unsigned_abs() >= power.unsigned_abs().div_ceil(2);
                    quotient + if rounds { self.value.signum() } else { 0 }
                }
            }
        };
        let bound = 10_i128.checked_pow(u32::from(precision)).ok_or(NumericError::OutOfRange)?;
        if value.unsigned_abs() >= bound.unsigned_abs() {
            return Err(NumericError::OutOfRange);
        }
        Ok(value)
    }
}

fn push_digit(value: i128, digit: i128) -> Result<i128, NumericError> {
    let shifted = value.checked_mul(10).ok_or(NumericError::OutOfRange)?;
    shifted.checked_add(digit).ok_or(NumericError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: i128, scale: i8) -> String {
        let mut text = String::new();
        write_numeric(&mut text, value, scale).expect("a string takes everything");
        text
    }

    #[test]
    fn text_and_wire_round_trip() {
        let largest = 10_i128.pow(38) - 1;
        for value in [0, 1, -1, 9_999, 10_000, 123_456_789, -100_000_000, largest, -largest] {
            for scale in [0, 1, 2, 3, 4, 5, 10, 37, 38] {
                let written = text(value, scale);
                let number = Number::parse(&written).expect(&written);
                assert_eq!(number.at_scale(38, scale), Ok(value), "{written}");
                let mut wire = BytesMut::new();
                numeric_to_wire(&mut wire, value, scale);
                let number = Number::from_wire(&wire).expect(&written);
                assert_eq!(number.at_scale(38, scale), Ok(value), "{written}");
            }
        }
        assert_eq!(text(5, 2), "0.05");
        assert_eq!(text(-12, -2), "-1200");
    }

    #[test]
    fn wire_form_is_that_of_postgres() {
        // What Postgres 16 sends for 12345.678::numeric(10,3) and for 0.0001.
        let mut wire = BytesMut::new();
        numeric_to_wire(&mut wire, 12_345_678, 3);
        assert_eq!(&wire[..], [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
        wire.clear();
        numeric_to_wire(&mut wire, 1, 4);
        assert_eq!(&wire[..], [0, 1, 0xff, 0xff, 0, 0, 0, 4, 0, 1]);
    }

    #[test]
    fn rounds_half_away_from_zero() {
        let at = |text: &str| Number::parse(text).expect(text).at_scale(10, 2);
        assert_eq!(at("1.005"), Ok(101));
        assert_eq!(at("-1.005"), Ok(-101));
        assert_eq!(at("1.0049999"), Ok(100));
        assert_eq!(at("1e3"), Ok(100_000));
        assert_eq!(at("1e-300"), Ok(0));
        assert_eq!(at("99999999.999"), Err(NumericError::OutOfRange));
        assert_eq!(at("1e2000000000"), Err(NumericError::OutOfRange));
        assert_eq!(at("0e2000000000"), Ok(0));
        for bad in ["", ".", "-", "NaN", "1.2.3", "1e", "0x10", "Infinity"] {
            assert_eq!(Number::parse(bad), Err(NumericError::NotANumber), "{bad}");
        }
    }

    #[test]
    fn a_number_has_the_digits_it_was_written_with() {
        let size = |text: &str| Number::parse(text).expect(text).size();
        assert_eq!(size("1.20"), Ok((3, 2)));
        assert_eq!(size("0.00000000000123"), Ok((14, 14)));
        assert_eq!(size("1E-20"), Ok((20, 20)));
        assert_eq!(size("1.5E3"), Ok((4, 0)));
        assert_eq!(size("0"), Ok((1, 0)));
        assert_eq!(size("-123456789012345678901234567890.25"), Ok((32, 2)));
        assert_eq!(size("1E-39"), Err(NumericError::OutOfRange));
        assert_eq!(size("1E38"), Err(NumericError::OutOfRange));
        let mut wire = BytesMut::new();
        numeric_to_wire(&mut wire, 120, 2);
        assert_eq!(Number::from_wire(&wire).and_then(Number::size), Ok((3, 2)));
    }
}
