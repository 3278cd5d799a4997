//! Floats compared as Postgres compares them: -0.0 equals 0.0, and all NaNs are one value above
//! every other.
//!
//! Arrow's comparisons follow IEEE 754's total order, in which -0.0 is below 0.0 and a NaN with a
//! sign below everything. What is compared is therefore brought into one form first.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::expr::{Case, InList, ScalarFunction};
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

/// A float's one form: no sign on zero, one NaN.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OneForm {
    signature: Signature,
}

static ONE_FORM: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(OneForm { signature }))
});

impl ScalarUDFImpl for OneForm {
    fn name(&self) -> &str {
        "float_in_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [ty] => Ok(ty.clone()),
            _ => exec_err!("{} takes one argument", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(values)] => Ok(ColumnarValue::Array(formed(values))),
            [ColumnarValue::Scalar(value)] => {
                let value = formed(&value.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&value, 0)?))
            }
            _ => exec_err!("{} takes one argument", self.name()),
        }
    }
}

/// Floats, and those in arrays, in their one form; other values as they are.
pub(super) fn formed(values: &ArrayRef) -> ArrayRef {
    // Adding zero takes the sign off zero and leaves every other number as it is.
    match values.data_type() {
        DataType::Float64 => {
            let form = |x: f64| if x.is_nan() { f64::NAN } else { x + 0.0 };
            Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(form))
        }
        DataType::Float32 => {
            let form = |x: f32| if x.is_nan() { f32::NAN } else { x + 0.0 };
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(form))
        }
        DataType::List(item) if has_floats(item.data_type()) => {
            let lists = values.as_list::<i32>();
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            Arc::new(ListArray::new(Arc::clone(item), offsets, formed(lists.values()), nulls))
        }
        _ => Arc::clone(values),
    }
}

/// Whether values of a type are floats, or arrays of floats.
pub(crate) fn has_floats(ty: &DataType) -> bool {
    match ty {
        DataType::List(item) => has_floats(item.data_type()),
        ty => ty.is_floating(),
    }
}

pub(super) fn is_comparison(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// A float in its one form.
pub(crate) fn in_one_form(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(call) if call.func.as_ref() == ONE_FORM.as_ref() => {
            Expr::ScalarFunction(call)
        }
        expr => Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&ONE_FORM), vec![expr])),
    }
}

/// Brings the sides of a comparison of floats into one form.
pub(crate) fn compared(expr: Expr, schema: &DFSchema) -> Expr {
    let is_float = |side: &Expr| side.get_type(schema).is_ok_and(|ty| has_floats(&ty));
    let form = |side: Box<Expr>| match *side {
        Expr::Literal(..) => side,
        side => Box::new(in_one_form(side)),
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_comparison(op) && (is_float(&left) || is_float(&right)) =>
        {
            Expr::BinaryExpr(BinaryExpr { left: form(left), op, right: form(right) })
        }
        Expr::Between(Between { expr, negated, low, high }) if is_float(&expr) => {
            let (expr, low, high) = (form(expr), form(low), form(high));
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::InList(InList { expr, list, negated }) if is_float(&expr) => {
            let list = list.into_iter().map(|item| *form(Box::new(item))).collect();
            Expr::InList(InList { expr: form(expr), list, negated })
        }
        // `nullif(x, y)` and `CASE x WHEN y` compare too.
        Expr::ScalarFunction(call) if call.func.name() == "nullif" => match call.args.as_slice() {
            [x, y] if is_float(x) => {
                let equal = equal(x.clone(), y.clone());
                let none = x.get_type(schema).and_then(|ty| ScalarValue::try_from(&ty));
                match none {
                    Ok(none) => case(vec![(equal, Expr::Literal(none, None))], Some(x.clone())),
                    Err(_) => Expr::ScalarFunction(call),
                }
            }
            _ => Expr::ScalarFunction(call),
        },
        Expr::Case(Case { expr: Some(x), when_then_expr, else_expr }) if is_float(&x) => {
            let cases = when_then_expr.into_iter();
            let cases = cases.map(|(y, then)| (equal((*x).clone(), *y), *then));
            case(cases.collect(), else_expr.map(|other| *other))
        }
        other => other,
    }
}

/// Whether two floats are equal, each in its one form.
fn equal(left: Expr, right: Expr) -> Expr {
    let form = |side: Expr| Box::new(in_one_form(side));
    Expr::BinaryExpr(BinaryExpr { left: form(left), op: Operator::Eq, right: form(right) })
}

fn case(cases: Vec<(Expr, Expr)>, other: Option<Expr>) -> Expr {
    let cases = cases.into_iter().map(|(when, then)| (Box::new(when), Box::new(then)));
    Expr::Case(Case { expr: None, when_then_expr: cases.collect(), else_expr: other.map(Box::new) })
}
