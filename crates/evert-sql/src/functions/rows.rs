//! Functions that are computed row by row: what they take, give and do, in one value each.
//!
//! Owns: how such a function stands in a plan, and reading its arguments as plain values.
//! Not here: what the functions do (`dates`, `strings`, `mathematics`, ...).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, StringViewArray, StringViewBuilder,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::SqlError;
use crate::wording::undefined_function;

/// What a function is called with.
pub(super) struct Call<'a> {
    pub(super) values: &'a [ArrayRef],
    pub(super) fields: &'a [FieldRef],
    pub(super) rows: usize,
    /// What the function gives.
    pub(super) ty: &'a DataType,
}

/// What a function gives for rows.
pub(super) type Run = fn(&Call<'_>) -> Result<ArrayRef, SqlError>;

/// The type of the result for these arguments; `Ok(None)` if there is no such function.
pub(super) type Returns = fn(&ReturnFieldArgs<'_>) -> Result<Option<FieldRef>>;

/// A function.
#[derive(Debug)]
pub(super) struct RowFunction {
    pub(super) name: &'static str,
    pub(super) returns: Returns,
    pub(super) evaluate: Run,
    pub(super) volatility: Volatility,
}

impl RowFunction {
    pub(super) fn new(name: &'static str, returns: Returns, evaluate: Run) -> Self {
        Self { name, returns, evaluate, volatility: Volatility::Immutable }
    }

    pub(super) fn shared(self) -> Arc<ScalarUDF> {
        let signature = Signature::one_of(
            vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
            self.volatility,
        );
        Arc::new(ScalarUDF::from(Planned { function: self, signature }))
    }
}

/// A function as plans hold it. Its name is what it is known by.
#[derive(Debug)]
struct Planned {
    function: RowFunction,
    signature: Signature,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name
    }
}

impl Eq for Planned {}

impl Hash for Planned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl ScalarUDFImpl for Planned {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        datafusion::common::internal_err!("{} has a field", self.function.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match (self.function.returns)(&args)? {
            Some(field) => Ok(Arc::new(field.as_ref().clone().with_name(self.name()))),
            None => {
                let types = args.arg_fields.iter().map(|field| field.data_type());
                Err(external(undefined_function(self.function.name, types)))
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = self.function.volatility != Volatility::Volatile
            && args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let values = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let ty = args.return_field.data_type();
        let call = Call { values: &values, fields: &args.arg_fields, rows, ty };
        let result = (self.function.evaluate)(&call).map_err(external)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

pub(super) fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Values as Arrow casts them; what has none is an error.
pub(super) fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    if values.data_type() == to {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(values, to, &options)
        .map_err(|error| crate::translate::planning(&error.into(), ""))
}

/// Whether a value is NULL. Arrays of no type hold NULLs only, and Arrow does not say so of theirs.
pub(super) fn is_null(values: &ArrayRef, row: usize) -> bool {
    values.data_type().is_null() || values.is_null(row)
}

impl Call<'_> {
    pub(super) fn is_null(&self, row: usize) -> bool {
        self.values.iter().any(|values| is_null(values, row))
    }

    pub(super) fn texts(&self, argument: usize) -> Result<StringViewArray, SqlError> {
        Ok(cast(&self.values[argument], &DataType::Utf8View)?.as_string_view().clone())
    }

    pub(super) fn integers(&self, argument: usize) -> Result<Int64Array, SqlError> {
        Ok(cast(&self.values[argument], &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    }

    pub(super) fn floats(&self, argument: usize) -> Result<Float64Array, SqlError> {
        Ok(cast(&self.values[argument], &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    }

    /// A text for each row in which no argument is NULL.
    pub(super) fn each_text(
        &self,
        text: impl FnMut(usize) -> Result<Option<String>, SqlError>,
    ) -> Result<ArrayRef, SqlError> {
        self.texts_of(true, text)
    }

    /// A text for each row. `strict`: NULL where an argument is.
    pub(super) fn texts_of(
        &self,
        strict: bool,
        mut text: impl FnMut(usize) -> Result<Option<String>, SqlError>,
    ) -> Result<ArrayRef, SqlError> {
        let mut texts = StringViewBuilder::with_capacity(self.rows);
        for row in 0..self.rows {
            match strict && self.is_null(row) {
                true => texts.append_null(),
                false => texts.append_option(text(row)?),
            }
        }
        Ok(Arc::new(texts.finish()))
    }

    /// A value for each row in which no argument is NULL.
    pub(super) fn each<A: FromIterator<Option<T>> + Array + 'static, T>(
        &self,
        mut value: impl FnMut(usize) -> Result<Option<T>, SqlError>,
    ) -> Result<ArrayRef, SqlError> {
        let values = (0..self.rows).map(|row| match self.is_null(row) {
            true => Ok(None),
            false => value(row),
        });
        Ok(Arc::new(values.collect::<Result<A, SqlError>>()?))
    }
}

/// A nullable field of a type.
pub(super) fn of(ty: DataType) -> Result<Option<FieldRef>> {
    Ok(Some(Arc::new(arrow::datatypes::Field::new("", ty, true))))
}

pub(super) fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

pub(super) fn is_number(ty: &DataType) -> bool {
    ty.is_numeric() || ty.is_null()
}

pub(super) fn is_integer(ty: &DataType) -> bool {
    ty.is_integer() || ty.is_null()
}

pub(super) fn is_decimal(ty: &DataType) -> bool {
    matches!(ty, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// The types of a function's arguments.
pub(super) fn types<'a>(args: &ReturnFieldArgs<'a>) -> Vec<&'a DataType> {
    args.arg_fields.iter().map(|field| field.data_type()).collect()
}
