//! Decimals multiplied and divided with the digits that they need.
//!
//! Postgres chooses the digits of a quotient by its value; a column has the same for all rows, so
//! that they are chosen by the types: 24 digits after the point where the whole part leaves room,
//! 20 where it does not. A product is exact while its digits fit by their types, and keeps 24 after
//! the point beyond that. Halves are rounded away from zero.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::common::Result;

/// The most digits that a decimal has.
const DIGITS_MAX: i16 = 38;
/// How many digits after the point a quotient has, if there is room, and at least.
const QUOTIENT_SCALE: i16 = 24;
const QUOTIENT_SCALE_MIN: i16 = 20;
/// How many digits after the point a product keeps that has too many.
const PRODUCT_SCALE: i16 = 24;

fn sizes(left: &DataType, right: &DataType) -> Option<[i16; 4]> {
    match (left, right) {
        (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) if *s1 >= 0 && *s2 >= 0 => {
            Some([i16::from(*p1), i16::from(*s1), i16::from(*p2), i16::from(*s2)])
        }
        _ => None,
    }
}

/// A quotient's type; `None` if the two are not decimals of 128 bits.
pub(super) fn quotient_type(left: &DataType, right: &DataType) -> Option<DataType> {
    let [p1, s1, _, s2] = sizes(left, right)?;
    let room = DIGITS_MAX - (p1 - s1 + s2);
    let least = QUOTIENT_SCALE_MIN.max(s1).max(s2);
    let scale = room.clamp(least, least.max(QUOTIENT_SCALE));
    Some(DataType::Decimal128(DIGITS_MAX as u8, scale as i8))
}

/// A product's type; `None` if the two are not decimals of 128 bits.
pub(super) fn product_type(left: &DataType, right: &DataType) -> Option<DataType> {
    let [p1, s1, p2, s2] = sizes(left, right)?;
    let exact = s1 + s2;
    if p1 + p2 <= DIGITS_MAX || exact <= PRODUCT_SCALE {
        let precision = (p1 + p2 + 1).min(DIGITS_MAX);
        return Some(DataType::Decimal128(precision as u8, exact as i8));
    }
    let scale = PRODUCT_SCALE.max(s1).max(s2).min(exact);
    Some(DataType::Decimal128(DIGITS_MAX as u8, scale as i8))
}

/// The quotient of decimals that have a [`quotient_type`].
pub(super) fn divide(left: &dyn Datum, right: &dyn Datum, ty: &DataType) -> Result<ArrayRef> {
    let (s1, s2, scale) = scales(left, right, ty);
    let shift = (scale - s1 + s2) as u32;
    each(left, right, ty, |dividend, divisor| {
        if divisor == 0 {
            return Err(ArrowError::DivideByZero);
        }
        let shifted = 10_i128.checked_pow(shift).and_then(|by| dividend.checked_mul(by));
        if let Some(shifted) = shifted {
            let (quotient, rest) = (shifted / divisor, shifted % divisor);
            let up = rest.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
            return Ok(if up { quotient + sign(dividend, divisor) } else { quotient });
        }
        let ten = i256::from_i128(10);
        let shifted = ten
            .checked_pow(shift)
            .and_then(|by| i256::from_i128(dividend).checked_mul(by))
            .ok_or_else(overflow)?;
        rounded(shifted, i256::from_i128(divisor), sign(dividend, divisor))
    })
}

/// The product of decimals that have a [`product_type`].
pub(super) fn multiply(left: &dyn Datum, right: &dyn Datum, ty: &DataType) -> Result<ArrayRef> {
    let (s1, s2, scale) = scales(left, right, ty);
    let cut = (s1 + s2 - scale) as u32;
    if cut == 0 {
        return Ok(numeric::mul(left, right)?);
    }
    let by = i256::from_i128(10).checked_pow(cut).ok_or_else(overflow)?;
    each(left, right, ty, |a, b| {
        let product = i256::from_i128(a).checked_mul(i256::from_i128(b)).ok_or_else(overflow)?;
        rounded(product, by, sign(a, b))
    })
}

fn scales(left: &dyn Datum, right: &dyn Datum, ty: &DataType) -> (i16, i16, i16) {
    let scale = |ty: &DataType| match ty {
        DataType::Decimal128(_, scale) => i16::from(*scale),
        other => unreachable!("{other} is no decimal"),
    };
    (scale(left.get().0.data_type()), scale(right.get().0.data_type()), scale(ty))
}

fn sign(a: i128, b: i128) -> i128 {
    a.signum() * b.signum()
}

fn rounded(dividend: i256, divisor: i256, sign: i128) -> Result<i128, ArrowError> {
    let quotient = dividend.checked_div(divisor).and_then(i256::to_i128).ok_or_else(overflow)?;
    let rest = dividend.checked_rem(divisor).and_then(i256::checked_abs).ok_or_else(overflow)?;
    let divisor = divisor.checked_abs().ok_or_else(overflow)?;
    // What is left and what is missing: no doubling that could overflow.
    let up = rest >= divisor.wrapping_sub(rest);
    quotient.checked_add(if up { sign } else { 0 }).ok_or_else(overflow)
}

fn overflow() -> ArrowError {
    ArrowError::ArithmeticOverflow("numeric field overflow".into())
}

fn each(
    left: &dyn Datum,
    right: &dyn Datum,
    ty: &DataType,
    compute: impl Fn(i128, i128) -> Result<i128, ArrowError>,
) -> Result<ArrayRef> {
    let ((a, a_is_scalar), (b, b_is_scalar)) = (left.get(), right.get());
    let rows = if a_is_scalar { b.len() } else { a.len() };
    let (a, b) = (a.as_primitive::<Decimal128Type>(), b.as_primitive::<Decimal128Type>());
    let limit = 10_i128.pow(DIGITS_MAX as u32);
    let value = |row: usize| {
        let (i, j) = (if a_is_scalar { 0 } else { row }, if b_is_scalar { 0 } else { row });
        if a.is_null(i) || b.is_null(j) {
            return Ok(None);
        }
        let value = compute(a.value(i), b.value(j))?;
        if value.abs() >= limit { Err(overflow()) } else { Ok(Some(value)) }
    };
    let values = (0..rows).map(value).collect::<Result<Decimal128Array, ArrowError>>()?;
    Ok(Arc::new(values.with_data_type(ty.clone())))
}

#[cfg(test)]
mod tests {
    use arrow::array::Scalar;

    use super::*;

    fn decimal(units: i128, precision: u8, scale: i8) -> Scalar<Decimal128Array> {
        let array = Decimal128Array::from(vec![units]);
        Scalar::new(array.with_precision_and_scale(precision, scale).unwrap())
    }

    fn ty(of: &Scalar<Decimal128Array>) -> DataType {
        of.get().0.data_type().clone()
    }

    fn quotient(a: &Scalar<Decimal128Array>, b: &Scalar<Decimal128Array>) -> (i128, DataType) {
        let ty = quotient_type(&ty(a), &ty(b)).unwrap();
        (divide(a, b, &ty).unwrap().as_primitive::<Decimal128Type>().value(0), ty)
    }

    #[test]
    fn quotients_keep_their_digits() {
        let (units, ty) = quotient(&decimal(10, 2, 1), &decimal(300_000, 6, 0));
        assert_eq!((units, ty), (3_333_333_333_333_333_333, DataType::Decimal128(38, 24)));
        let (units, ty) = quotient(&decimal(-2, 38, 2), &decimal(3, 19, 0));
        assert_eq!((units, ty), (-666_666_666_666_666_667, DataType::Decimal128(38, 20)));
    }

    #[test]
    fn quotients_of_large_numbers_pass_through_more_than_38_digits() {
        let (units, _) = quotient(&decimal(10_i128.pow(30), 38, 20), &decimal(4, 38, 0));
        assert_eq!(units, 25 * 10_i128.pow(28));
        let small = decimal(5, 38, 38);
        let ty = quotient_type(&ty(&small), &ty(&small)).unwrap();
        assert!(divide(&decimal(10_i128.pow(37), 38, 0), &small, &ty).is_err());
        assert!(divide(&small, &decimal(0, 38, 38), &ty).is_err());
    }

    #[test]
    fn products_are_exact_while_they_fit() {
        let product = |a: &Scalar<Decimal128Array>, b: &Scalar<Decimal128Array>| {
            let ty = product_type(&ty(a), &ty(b)).unwrap();
            (multiply(a, b, &ty).unwrap().as_primitive::<Decimal128Type>().value(0), ty)
        };
        assert_eq!(
            product(&decimal(125, 12, 2), &decimal(3, 5, 1)),
            (375, DataType::Decimal128(18, 3))
        );
        let third = decimal(333_333_333_333_333_333_333_333, 38, 24);
        let (units, ty) = product(&third, &third);
        assert_eq!(ty, DataType::Decimal128(38, 24));
        assert_eq!(units, 111_111_111_111_111_111_111_111);
        let whole = decimal(-15, 38, 24);
        assert_eq!(product(&whole, &decimal(5 * 10_i128.pow(23), 38, 24)).0, -8);
    }
}
