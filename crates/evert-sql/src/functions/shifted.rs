//! `lag` and `lead` with IGNORE NULLS: the n-th value before or after a row that is not NULL.
//!
//! DataFusion's own look in the wrong direction when a partition is evaluated at once, and lose
//! count of NULLs when it is evaluated piece by piece.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;

static FUNCTIONS: LazyLock<[Arc<WindowUDF>; 2]> = LazyLock::new(|| {
    [(lag_udwf(), -1), (lead_udwf(), 1)]
        .map(|(inner, direction)| Arc::new(WindowUDF::from(Shifted { inner, direction })))
});

/// The functions, each under the name that DataFusion's has.
pub(crate) fn shifted_functions() -> impl Iterator<Item = &'static Arc<WindowUDF>> {
    FUNCTIONS.iter()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shifted {
    inner: Arc<WindowUDF>,
    /// -1 looks back, 1 ahead.
    direction: i64,
}

impl WindowUDFImpl for Shifted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.inner().expressions(args)
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        if !args.ignore_nulls() {
            return self.inner.inner().partition_evaluator(args);
        }
        let by = match constant(args.input_exprs(), 1)? {
            Some(by) => match by.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(by) => by.unwrap_or(0),
                other => return exec_err!("{} rows are no number of rows", other),
            },
            None => 1,
        };
        let default = constant(args.input_exprs(), 2)?.unwrap_or(ScalarValue::Null);
        Ok(Box::new(Values { by: by.saturating_mul(self.direction), default }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        self.inner.field(args)
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        // How far NULLs reach nobody knows.
        match self.inner.inner().limit_effect(args) {
            LimitEffect::Relative(_) => LimitEffect::Unknown,
            other => other,
        }
    }
}

/// A constant argument, if it is there.
fn constant(args: &[Arc<dyn PhysicalExpr>], place: usize) -> Result<Option<ScalarValue>> {
    let Some(arg) = args.get(place) else { return Ok(None) };
    match arg.downcast_ref::<Literal>() {
        Some(literal) => Ok(Some(literal.value().clone())),
        None => exec_err!("the distance and the default of lag() and lead() are constants"),
    }
}

/// Values that are not NULL, at a distance from each row.
#[derive(Debug)]
struct Values {
    /// How many of them ahead; below zero, back.
    by: i64,
    default: ScalarValue,
}

impl Values {
    /// The place among `valid`, which are the rows with a value, that is wanted for a row.
    fn place(&self, valid: &[usize], row: usize) -> Option<usize> {
        let distance = usize::try_from(self.by.unsigned_abs()).ok()?;
        match self.by.signum() {
            0 => valid.binary_search(&row).ok(),
            1 => {
                // Those up to and with the row.
                let behind = valid.partition_point(|other| *other <= row);
                behind.checked_add(distance - 1).filter(|place| *place < valid.len())
            }
            _ => valid.partition_point(|other| *other < row).checked_sub(distance),
        }
    }
}

impl PartitionEvaluator for Values {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let Some(array) = values.first() else { return exec_err!("there is nothing to look at") };
        let default = match self.default.is_null() {
            true => ScalarValue::try_from(array.data_type())?,
            false => self.default.cast_to(array.data_type())?,
        };
        let valid: Vec<usize> = (0..rows).filter(|row| array.is_valid(*row)).collect();
        let shifted = (0..rows).map(|row| match self.place(&valid, row) {
            Some(place) => ScalarValue::try_from_array(array, valid[place]),
            None => Ok(default.clone()),
        });
        ScalarValue::iter_to_array(shifted.collect::<Result<Vec<_>>>()?)
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }

    fn uses_window_frame(&self) -> bool {
        false
    }
}
