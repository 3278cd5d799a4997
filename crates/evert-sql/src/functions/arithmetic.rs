//! Checked arithmetic: `+`, `-`, `*`, `/` and `%` of numbers, as Postgres does them.
//! Comparisons of floats (`floats`) and intervals (`moments`) and casts (`conversions`) pass by on the
//! way.
//!
//! DataFusion's operators wrap around on integers and give infinity for a float divided by zero;
//! here both are errors. An analyzer rule puts these functions in the operators' place once types
//! are settled, so that views and ad-hoc reads evaluate alike.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Datum, Scalar};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::analyzer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::{converted, decimals, floats, mathematics, moments};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// One operation on two numbers of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl Checked {
    fn shared(operation: Operation) -> Arc<ScalarUDF> {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::from(Self { operation, signature }))
    }
}

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 5]> = LazyLock::new(|| {
    use Operation::{Add, Divide, Modulo, Multiply, Subtract};
    [Add, Subtract, Multiply, Divide, Modulo].map(Checked::shared)
});

fn function(operator: Operator) -> Option<&'static Arc<ScalarUDF>> {
    let index = match operator {
        Operator::Plus => 0,
        Operator::Minus => 1,
        Operator::Multiply => 2,
        Operator::Divide => 3,
        Operator::Modulo => 4,
        _ => return None,
    };
    Some(&FUNCTIONS[index])
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
            Operation::Divide => "checked_divide",
            Operation::Modulo => "checked_modulo",
        }
    }

    /// A digest of the expression: the planner asks at every level, and spelled out names would
    /// take time in the cube of the levels. What results are called comes from the statement.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let digest = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            (seed, args).hash(&mut hasher);
            hasher.finish()
        };
        Ok(format!("{}({:016x}{:016x})", self.name(), digest(0), digest(1)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        let [left, right] = args else {
            return exec_err!("{} takes two arguments", self.name());
        };
        let operator = match self.operation {
            Operation::Add => Operator::Plus,
            Operation::Subtract => Operator::Minus,
            Operation::Multiply => Operator::Multiply,
            Operation::Divide => Operator::Divide,
            Operation::Modulo => Operator::Modulo,
        };
        let own = match self.operation {
            Operation::Divide => decimals::quotient_type(left, right),
            Operation::Multiply => decimals::product_type(left, right),
            _ => None,
        };
        match own {
            Some(own) => Ok(own),
            None => BinaryTypeCoercer::new(left, &operator, right).get_result_type(),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return exec_err!("{} takes two arguments", self.name());
        };
        let both_scalar =
            matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let result = self.evaluate(datum(left)?.as_ref(), datum(right)?.as_ref())?;
        if both_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Checked {
    fn evaluate(&self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef> {
        if matches!(self.operation, Operation::Divide | Operation::Modulo) {
            refuse_float_zero(right.get().0, left.get().0, left.get().1, right.get().1)?;
        }
        let (a, b) = (left.get().0.data_type(), right.get().0.data_type());
        if self.operation == Operation::Divide
            && let Some(ty) = decimals::quotient_type(a, b)
        {
            return decimals::divide(left, right, &ty);
        }
        if self.operation == Operation::Multiply
            && let Some(ty) = decimals::product_type(a, b)
        {
            return decimals::multiply(left, right, &ty);
        }
        Ok(match self.operation {
            Operation::Add => numeric::add(left, right)?,
            Operation::Subtract => numeric::sub(left, right)?,
            Operation::Multiply => numeric::mul(left, right)?,
            Operation::Divide => numeric::div(left, right)?,
            Operation::Modulo => numeric::rem(left, right)?,
        })
    }
}

fn datum(value: &ColumnarValue) -> Result<Box<dyn Datum>> {
    Ok(match value {
        ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => Box::new(Scalar::new(scalar.to_array()?)),
    })
}

/// Arrow's kernels refuse an integer or decimal divisor of zero; this does so for floats, where
/// both sides hold a value.
fn refuse_float_zero(
    divisor: &dyn Array,
    dividend: &dyn Array,
    dividend_is_scalar: bool,
    divisor_is_scalar: bool,
) -> Result<()> {
    let zero_at: Box<dyn Fn(usize) -> bool> = match divisor.data_type() {
        DataType::Float32 => {
            let values = divisor.as_primitive::<Float32Type>();
            Box::new(|row| values.is_valid(row) && values.value(row) == 0.0)
        }
        DataType::Float64 => {
            let values = divisor.as_primitive::<Float64Type>();
            Box::new(|row| values.is_valid(row) && values.value(row) == 0.0)
        }
        _ => return Ok(()),
    };
    let rows = if divisor_is_scalar { dividend.len() } else { divisor.len() };
    for row in 0..rows {
        let dividend_row = if dividend_is_scalar { 0 } else { row };
        if zero_at(if divisor_is_scalar { 0 } else { row }) && dividend.is_valid(dividend_row) {
            return Err(ArrowError::DivideByZero.into());
        }
    }
    Ok(())
}

/// Puts checked functions in the place of arithmetic operators on numbers.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|expr| rewrite(expr, &schema))?;
                Ok(expr.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })
        .map(|plan| plan.data)
    }
}

/// `*` or `/` of two decimals.
pub(crate) fn checked_decimals(operator: Operator, left: Expr, right: Expr) -> Expr {
    let function = function(operator).expect("an operator of arithmetic");
    let call = ScalarFunction::new_udf(Arc::clone(function), vec![left, right]);
    Expr::ScalarFunction(call)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let other = match &expr {
        Expr::Cast(cast) => match moments::cast_of_difference(cast, schema) {
            Some(other) => Some(other),
            None => converted(cast, schema)?,
        },
        Expr::ScalarFunction(call) => mathematics::rounded(call, schema),
        _ => None,
    };
    if let Some(other) = other {
        return Ok(Transformed::yes(other));
    }
    let compares = match &expr {
        Expr::Between(_) | Expr::InList(_) => true,
        Expr::Case(case) => case.expr.is_some(),
        Expr::ScalarFunction(call) => call.func.name() == "nullif",
        _ => false,
    };
    if compares {
        return Ok(Transformed::yes(compared(expr, schema)));
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let number = |side: &Expr| side.get_type(schema).is_ok_and(|ty| ty.is_numeric());
    match function(op) {
        Some(function) if number(&left) && number(&right) => {
            let call = ScalarFunction::new_udf(Arc::clone(function), vec![*left, *right]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        _ => {
            let expr = Expr::BinaryExpr(BinaryExpr { left, op, right });
            Ok(Transformed::yes(compared(expr, schema)))
        }
    }
}

fn compared(expr: Expr, schema: &DFSchema) -> Expr {
    moments::by_length(floats::compared(expr, schema), schema)
}
