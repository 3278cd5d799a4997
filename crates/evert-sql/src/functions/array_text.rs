//! Arrays to and from Postgres's text of them: `{1,NULL,"a b"}`.
//!
//! Arrow's casts would make a list of one element of a text, and write a list as `[1, , a b]`.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use evert_model::{Column, ColumnType, ItemType, array_element};

use crate::dml::values;

/// A text as an array of a type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayIn {
    items: ItemType,
    signature: Signature,
}

/// An array as its text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayOut {
    signature: Signature,
}

static ARRAY_OUT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(ArrayOut { signature }))
});

/// The array that a text is, evaluated if the text is a constant.
///
/// # Errors
/// When a constant is no array of such items.
pub(crate) fn array_in(text: Expr, items: ItemType) -> Result<Expr> {
    if let Expr::Literal(value, _) = &text {
        let array = read(&value.to_array()?, items)?;
        return Ok(Expr::Literal(ScalarValue::try_from_array(&array, 0)?, None));
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let function = Arc::new(ScalarUDF::from(ArrayIn { items, signature }));
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![text])))
}

/// The text of an array.
pub(crate) fn array_out(array: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&ARRAY_OUT), vec![array]))
}

fn read(texts: &ArrayRef, items: ItemType) -> Result<ArrayRef> {
    let name = "array".to_owned();
    let column = Column { name, ty: ColumnType::Array(items), nullable: true };
    values::assign(&column, texts).map_err(|mut error| {
        error.context = None;
        DataFusionError::External(error.into())
    })
}

fn write(arrays: &ArrayRef) -> Result<ArrayRef> {
    let lists = match arrays.data_type() {
        DataType::List(_) => Arc::clone(arrays),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            cast(arrays, &DataType::List(Arc::clone(item)))?
        }
        _ => return exec_err!("array_out takes an array"),
    };
    let lists = lists.as_list::<i32>();
    let items = cast(lists.values(), &DataType::Utf8View)?;
    let items = items.as_string_view();
    let is_boolean = *lists.values().data_type() == DataType::Boolean;
    let mut texts = StringViewBuilder::with_capacity(lists.len());
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        if lists.is_null(row) {
            texts.append_null();
            continue;
        }
        let items = (ends[0] as usize..ends[1] as usize).map(|item| match items.is_null(item) {
            true => "NULL".into(),
            false if is_boolean => items.value(item)[..1].into(),
            false => array_element(items.value(item)),
        });
        texts.append_value(format!("{{{}}}", items.collect::<Vec<_>>().join(",")));
    }
    Ok(Arc::new(texts.finish()))
}

fn each(
    args: &ScalarFunctionArgs,
    f: impl FnOnce(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    match args.args.as_slice() {
        [ColumnarValue::Array(values)] => Ok(ColumnarValue::Array(f(values)?)),
        [ColumnarValue::Scalar(value)] => {
            let value = f(&value.to_array()?)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&value, 0)?))
        }
        _ => exec_err!("one argument"),
    }
}

impl ScalarUDFImpl for ArrayIn {
    fn name(&self) -> &str {
        "array_in"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(ColumnType::Array(self.items).arrow_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        each(&args, |texts| read(texts, self.items))
    }
}

impl ScalarUDFImpl for ArrayOut {
    fn name(&self) -> &str {
        "array_out"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        each(&args, write)
    }
}

/// The items of a type of arrays.
pub(crate) fn items_of(ty: &DataType) -> Option<ItemType> {
    match ColumnType::of_field(&Field::new("", ty.clone(), true)) {
        Some(ColumnType::Array(items)) => Some(items),
        _ => None,
    }
}
