//! Mathematical functions as Postgres has them: with errors where IEEE 754 has NaN or infinity.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, ReturnFieldArgs, ScalarUDF};
use datafusion::scalar::ScalarValue;

use super::rows::{Call, RowFunction, Run, cast, is_decimal, is_integer, is_number, of, types};
use crate::SqlError;
use crate::error::{DIVISION_BY_ZERO, NUMERIC_OUT_OF_RANGE};

type Returned = Result<Option<arrow::datatypes::FieldRef>>;
type Outcome = Result<f64, SqlError>;

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let one: [(&'static str, Run); 9] = [
        ("sqrt", |call| of_one(call, sqrt)),
        ("ln", |call| of_one(call, |x| positive(x).map(f64::ln))),
        ("log10", |call| of_one(call, |x| positive(x).map(f64::log10))),
        ("exp", |call| of_one(call, |x| finite(x.exp(), x.is_finite()))),
        ("asin", |call| of_one(call, |x| unit(x).map(f64::asin))),
        ("acos", |call| of_one(call, |x| unit(x).map(f64::acos))),
        ("sinh", |call| of_one(call, |x| finite(x.sinh(), x.is_finite()))),
        ("cosh", |call| of_one(call, |x| finite(x.cosh(), x.is_finite()))),
        ("round_to_even", |call| of_one(call, |x| Ok(x.round_ties_even()))),
    ];
    let mut functions: Vec<_> =
        one.into_iter().map(|(name, run)| RowFunction::new(name, one_float, run)).collect();
    functions.extend([
        RowFunction::new("power", two_floats, |call| of_two(call, raised)),
        RowFunction::new("atan2", two_floats, |call| of_two(call, |y, x| Ok(y.atan2(x)))),
        RowFunction::new("log", log_type, log),
        RowFunction::new("ceil", whole_type, |call| whole(call, true)),
        RowFunction::new("floor", whole_type, |call| whole(call, false)),
        RowFunction::new("trunc", trunc_type, trunc),
        RowFunction::new("sign", sign_type, sign),
        RowFunction::new("div", div_type, div),
        RowFunction::new("scale", scale_type, scale),
        RowFunction::new("min_scale", scale_type, min_scale),
        RowFunction::new("factorial", factorial_type, factorial),
        RowFunction::new("width_bucket", bucket_type, width_bucket),
    ]);
    functions.into_iter().map(RowFunction::shared).collect()
});

/// The functions, most in the place of DataFusion's of the same name.
pub(crate) fn mathematical_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

fn called(name: &str, args: Vec<Expr>) -> Expr {
    let function = FUNCTIONS.iter().find(|function| function.name() == name);
    let function = function.expect("only functions of the list are called");
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

/// `base ^ exponent`.
pub(super) fn power(base: Expr, exponent: Expr) -> Expr {
    called("power", vec![base, exponent])
}

/// `round(x)` of a float, whose halves go to even; other calls as they are.
pub(crate) fn rounded(call: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    let [x] = call.args.as_slice() else { return None };
    let is_float =
        call.func.name() == "round" && x.get_type(schema).is_ok_and(|ty| ty.is_floating());
    is_float.then(|| called("round_to_even", vec![x.clone()]))
}

fn one_float(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [x] if is_number(x) => of(DataType::Float64),
        _ => Ok(None),
    }
}

fn two_floats(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [x, y] if is_number(x) && is_number(y) => of(DataType::Float64),
        _ => Ok(None),
    }
}

fn log_type(args: &ReturnFieldArgs<'_>) -> Returned {
    if args.arg_fields.len() == 1 { one_float(args) } else { two_floats(args) }
}

fn of_one(call: &Call<'_>, f: fn(f64) -> Outcome) -> Result<ArrayRef, SqlError> {
    let x = call.floats(0)?;
    call.each::<Float64Array, f64>(|row| f(x.value(row)).map(Some))
}

fn of_two(call: &Call<'_>, f: fn(f64, f64) -> Outcome) -> Result<ArrayRef, SqlError> {
    let (x, y) = (call.floats(0)?, call.floats(1)?);
    call.each::<Float64Array, f64>(|row| f(x.value(row), y.value(row)).map(Some))
}

/// `2201F`: what a power or root has no value for.
fn no_power(message: &str) -> SqlError {
    SqlError::new("2201F", message)
}

fn sqrt(x: f64) -> Outcome {
    match x < 0.0 {
        true => Err(no_power("cannot take square root of a negative number")),
        false => Ok(x.sqrt()),
    }
}

fn positive(x: f64) -> Outcome {
    let message = match x {
        0.0 => "cannot take logarithm of zero",
        x if x < 0.0 => "cannot take logarithm of a negative number",
        x => return Ok(x),
    };
    Err(SqlError::new("2201E", message))
}

fn unit(x: f64) -> Outcome {
    match x.abs() > 1.0 {
        true => Err(SqlError::new(NUMERIC_OUT_OF_RANGE, "input is out of range")),
        false => Ok(x),
    }
}

/// A result, which overflowed if it is infinite and nothing that it was made of is.
fn finite(result: f64, of_finite: bool) -> Outcome {
    match result.is_infinite() && of_finite {
        true => Err(SqlError::new(NUMERIC_OUT_OF_RANGE, "value out of range: overflow")),
        false => Ok(result),
    }
}

fn raised(base: f64, exponent: f64) -> Outcome {
    if base == 0.0 && exponent < 0.0 {
        return Err(no_power("zero raised to a negative power is undefined"));
    }
    if base < 0.0 && exponent.is_finite() && exponent.fract() != 0.0 {
        let message = "a negative number raised to a non-integer power yields a complex result";
        return Err(no_power(message));
    }
    finite(base.powf(exponent), base.is_finite() && exponent.is_finite())
}

/// `log(x)` to the base of 10, or `log(base, x)`.
fn log(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    if call.values.len() == 1 {
        return of_one(call, |x| positive(x).map(f64::log10));
    }
    of_two(call, |base, x| {
        let (base, x) = (positive(base)?, positive(x)?);
        // Exact where both are powers of one number.
        let log = if base == 2.0 { x.log2() } else { x.ln() / base.ln() };
        match base == 1.0 {
            true => Err(SqlError::new(DIVISION_BY_ZERO, "division by zero")),
            false => Ok(log),
        }
    })
}

/// `ceil` and `floor`: of a decimal a decimal without digits after the point.
fn whole_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [DataType::Decimal128(precision, scale)] if *scale > 0 => {
            let digits = i16::from(*precision) - i16::from(*scale) + 1;
            of(DataType::Decimal128(u8::try_from(digits.clamp(1, 38)).unwrap_or(38), 0))
        }
        [ty] if is_decimal(ty) => of((*ty).clone()),
        [ty] if is_number(ty) => of(DataType::Float64),
        _ => Ok(None),
    }
}

fn whole(call: &Call<'_>, up: bool) -> Result<ArrayRef, SqlError> {
    let DataType::Decimal128(_, scale) = *call.values[0].data_type() else {
        if is_decimal(call.ty) {
            return cast(&call.values[0], call.ty);
        }
        return match up {
            true => of_one(call, |x| Ok(x.ceil())),
            false => of_one(call, |x| Ok(x.floor())),
        };
    };
    if scale <= 0 {
        return cast(&call.values[0], call.ty);
    }
    let units = call.values[0].as_primitive::<Decimal128Type>().clone();
    let one = 10_i128.pow(u32::from(scale.unsigned_abs()));
    decimals(call, |row| {
        let units = units.value(row);
        let more = up && units.rem_euclid(one) != 0;
        Ok(units.div_euclid(one) + i128::from(more))
    })
}

/// Decimals of the call's type.
fn decimals(
    call: &Call<'_>,
    mut units: impl FnMut(usize) -> Result<i128, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let values = call.each::<Decimal128Array, i128>(|row| units(row).map(Some))?;
    let values = values.as_primitive::<Decimal128Type>().clone();
    Ok(Arc::new(values.with_data_type(call.ty.clone())))
}

/// `trunc(x)` and `trunc(x, digits)`. Digits that are constant are all that a decimal keeps.
fn trunc_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [DataType::Decimal128(precision, scale)] => of(cut_type(*precision, *scale, Some(0))),
        [DataType::Decimal128(precision, scale), digits] if is_integer(digits) => {
            of(cut_type(*precision, *scale, constant_digits(args)))
        }
        [x, digits] if x.is_integer() && is_integer(digits) => of(WHOLE),
        [x] if is_number(x) => of(DataType::Float64),
        [x, digits] if is_number(x) && is_integer(digits) => of(DataType::Float64),
        _ => Ok(None),
    }
}

/// What holds each integer.
const WHOLE: DataType = DataType::Decimal128(20, 0);

/// The second argument, if it is the same in every row.
fn constant_digits(args: &ReturnFieldArgs<'_>) -> Option<i64> {
    let digits = args.scalar_arguments.get(1).copied().flatten()?;
    match digits.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(digits) => Some(digits.unwrap_or(0)),
        _ => None,
    }
}

/// The type of a decimal that is cut after so many digits.
fn cut_type(precision: u8, scale: i8, digits: Option<i64>) -> DataType {
    let most = i64::from(scale);
    let kept = digits.map_or(most, |digits| digits.max(0).min(most));
    let kept = i8::try_from(kept).unwrap_or(scale);
    let precision = i16::from(precision) - (i16::from(scale) - i16::from(kept));
    DataType::Decimal128(u8::try_from(precision.max(1)).unwrap_or(38), kept)
}

fn trunc(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let digits = if call.values.len() == 2 { Some(call.integers(1)?) } else { None };
    let digits = |row: usize| digits.as_ref().map_or(0, |digits| digits.value(row));
    let DataType::Decimal128(_, kept) = *call.ty else {
        let x = call.floats(0)?;
        return call.each::<Float64Array, f64>(|row| Ok(Some(cut(x.value(row), digits(row)))));
    };
    let values = match call.values[0].data_type() {
        DataType::Decimal128(..) => Arc::clone(&call.values[0]),
        _ => cast(&call.values[0], &WHOLE)?,
    };
    let DataType::Decimal128(_, scale) = *values.data_type() else {
        unreachable!("decimals are decimals")
    };
    let units = values.as_primitive::<Decimal128Type>().clone();
    let fewer = 10_i128.pow(u32::try_from(scale - kept).unwrap_or(0));
    decimals(call, |row| {
        let cut = i64::from(scale).saturating_sub(digits(row)).max(0);
        let one = u32::try_from(cut).ok().and_then(|cut| 10_i128.checked_pow(cut));
        let units = units.value(row);
        Ok(one.map_or(0, |one| (units - units % one) / fewer))
    })
}

/// A float without what comes after so many digits.
fn cut(x: f64, digits: i64) -> f64 {
    if digits == 0 {
        return x.trunc();
    }
    let by = 10_f64.powi(digits.clamp(-300, 300) as i32);
    let scaled = x * by;
    if scaled.is_finite() { scaled.trunc() / by } else { x }
}

fn sign_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_decimal(ty) => of(DataType::Decimal128(1, 0)),
        [ty] if is_number(ty) => of(DataType::Float64),
        _ => Ok(None),
    }
}

fn sign(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    if let DataType::Decimal128(..) = call.values[0].data_type() {
        let units = call.values[0].as_primitive::<Decimal128Type>().clone();
        return decimals(call, |row| Ok(units.value(row).signum()));
    }
    let x = call.floats(0)?;
    let sign = |x: f64| if x == 0.0 || x.is_nan() { x } else { x.signum() };
    match is_decimal(call.ty) {
        true => decimals(call, |row| Ok(sign(x.value(row)) as i128)),
        false => call.each::<Float64Array, f64>(|row| Ok(Some(sign(x.value(row))))),
    }
}

/// The whole quotient of two numbers.
fn div_type(args: &ReturnFieldArgs<'_>) -> Returned {
    let exact = |ty: &DataType| is_integer(ty) || matches!(ty, DataType::Decimal128(..));
    match types(args).as_slice() {
        [x, y] if exact(x) && exact(y) => of(DataType::Decimal128(38, 0)),
        _ => Ok(None),
    }
}

fn div(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let scale = |argument: usize| match call.values[argument].data_type() {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    };
    let scale = scale(0).max(scale(1));
    let side = |argument: usize| -> Result<Decimal128Array, SqlError> {
        let values = cast(&call.values[argument], &DataType::Decimal128(38, scale))?;
        Ok(values.as_primitive::<Decimal128Type>().clone())
    };
    let (x, y) = (side(0)?, side(1)?);
    decimals(call, |row| match y.value(row) {
        0 => Err(SqlError::new(DIVISION_BY_ZERO, "division by zero")),
        y => Ok(x.value(row) / y),
    })
}

fn scale_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_decimal(ty) || is_integer(ty) => of(DataType::Int32),
        _ => Ok(None),
    }
}

fn scale(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let scale = match call.values[0].data_type() {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => i32::from(*scale).max(0),
        _ => 0,
    };
    call.each::<Int32Array, i32>(|_| Ok(Some(scale)))
}

/// The digits after the point that a number needs.
fn min_scale(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let DataType::Decimal128(_, scale) = *call.values[0].data_type() else {
        return call.each::<Int32Array, i32>(|_| Ok(Some(0)));
    };
    let units = call.values[0].as_primitive::<Decimal128Type>().clone();
    call.each::<Int32Array, i32>(|row| {
        let (mut units, mut needed) = (units.value(row), i32::from(scale).max(0));
        while needed > 0 && units % 10 == 0 {
            units /= 10;
            needed -= 1;
        }
        Ok(Some(needed))
    })
}

fn factorial_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_integer(ty) => of(DataType::Decimal128(38, 0)),
        _ => Ok(None),
    }
}

fn factorial(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let numbers = call.integers(0)?;
    decimals(call, |row| {
        let out = |message: &str| SqlError::new(NUMERIC_OUT_OF_RANGE, message);
        let number = numbers.value(row);
        if number < 0 {
            return Err(out("factorial of a negative number is undefined"));
        }
        let too_great = || out("value overflows numeric format");
        // 33! has 37 digits, 34! 39.
        if number > 33 {
            return Err(too_great());
        }
        Ok((1..=i128::from(number)).product())
    })
}

fn bucket_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [x, low, high, count]
            if [x, low, high].iter().all(|ty| is_number(ty)) && is_integer(count) =>
        {
            of(DataType::Int32)
        }
        _ => Ok(None),
    }
}

/// In which of so many buckets of one size a number lies; 0 below them, one more above.
fn width_bucket(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let wrong = |message: &str| SqlError::new("2201G", message);
    let (x, low, high) = (call.floats(0)?, call.floats(1)?, call.floats(2)?);
    let counts = call.integers(3)?;
    call.each::<Int32Array, i32>(|row| {
        let (x, low, high) = (x.value(row), low.value(row), high.value(row));
        let count = i32::try_from(counts.value(row)).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| wrong("count must be greater than zero"))?;
        if x.is_nan() || low.is_nan() || high.is_nan() {
            return Err(wrong("operand, lower bound, and upper bound cannot be NaN"));
        }
        if low == high {
            return Err(wrong("lower bound cannot equal upper bound"));
        }
        if !low.is_finite() || !high.is_finite() {
            return Err(wrong("lower and upper bounds must be finite"));
        }
        let (x, low, high) = if low < high { (x, low, high) } else { (-x, -low, -high) };
        Ok(Some(match x {
            x if x < low => 0,
            x if x >= high => count
                .checked_add(1)
                .ok_or_else(|| SqlError::new(NUMERIC_OUT_OF_RANGE, "integer out of range"))?,
            x => ((x - low) / (high - low) * f64::from(count)) as i32 + 1,
        }))
    })
}
