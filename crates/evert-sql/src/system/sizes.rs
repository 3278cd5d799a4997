//! `pg_size_pretty(bytes)`: sizes as Postgres words them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(SizePretty { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SizePretty {
    signature: Signature,
}

/// Up to this, bytes are told one by one.
const BYTES_MAX: u128 = 10 * 1024;
/// A unit is told below this many halves of it; the next one is 1024 times as large.
const HALVES_MAX: u128 = 20 * 1024 - 1;

/// A size in the smallest unit that makes a short number of it, rounded from halves.
fn pretty(bytes: i128) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    let bytes = bytes.unsigned_abs();
    if bytes < BYTES_MAX {
        return format!("{sign}{bytes} bytes");
    }
    let mut halves = bytes >> 9;
    let mut units = ["kB", "MB", "GB", "TB"].into_iter();
    loop {
        match units.next() {
            Some(_) if halves >= HALVES_MAX => halves >>= 10,
            unit => return format!("{sign}{} {}", halves.div_ceil(2), unit.unwrap_or("PB")),
        }
    }
}

fn pretty_numeric(numbers: &ArrayRef, scale: i8) -> Result<StringViewArray> {
    let texts = cast(numbers, &DataType::Utf8View)?;
    let unit = 10_i128.pow(u32::try_from(scale).unwrap_or(0));
    let numbers = numbers.as_primitive::<Decimal128Type>();
    let told = numbers.iter().zip(texts.as_string_view()).map(|(number, text)| {
        let bytes = number? / unit;
        // Few bytes keep their fraction.
        Some(match bytes.unsigned_abs() < BYTES_MAX {
            true => format!("{} bytes", text?),
            false => pretty(bytes),
        })
    });
    Ok(told.collect())
}

impl ScalarUDFImpl for SizePretty {
    fn name(&self) -> &str {
        "pg_size_pretty"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [ty] if ty.is_numeric() || ty.is_null() => Ok(DataType::Utf8View),
            _ => plan_err!("pg_size_pretty() takes a number of bytes"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sizes = args.args[0].to_array(args.number_rows)?;
        let told = match sizes.data_type() {
            DataType::Decimal128(_, scale) => pretty_numeric(&sizes, *scale)?,
            _ => {
                let sizes = cast(&sizes, &DataType::Int64)?;
                let sizes: &Int64Array = sizes.as_primitive::<Int64Type>();
                sizes.iter().map(|bytes| bytes.map(|bytes| pretty(i128::from(bytes)))).collect()
            }
        };
        Ok(ColumnarValue::Array(Arc::new(told)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_worded_as_postgres_does() {
        for (bytes, worded) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (-10_240, "-10 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (1_000_000_000, "954 MB"),
            (i128::from(i64::MAX), "8192 PB"),
        ] {
            assert_eq!(pretty(bytes), worded);
        }
    }
}
