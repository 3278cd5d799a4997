//! RANGE frames. Those whose both ends lie on one side of the current row are refused: such a frame
//! may be empty between others that are not, and DataFusion's sliding aggregates then take in and
//! let go of the wrong rows. Those over integers are over decimals, which reach beyond: an end that
//! overflows would be taken for none.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits, cast,
};

use crate::SqlError;

/// `0A000` if a plan or one of its subqueries has such a frame.
pub(super) fn refuse(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| match expr {
                Expr::WindowFunction(call) if is_aside(&call.params.window_frame) => Err(refusal()),
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(())
}

/// Gives RANGE frames with offsets over integers decimals to sort by.
pub(super) fn widen(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        if !matches!(plan, LogicalPlan::Window(_)) {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| match expr {
                Expr::WindowFunction(call) => Ok(widened(call, &schema)),
                other => Ok(Transformed::no(other)),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .data()
}

fn widened(mut call: Box<WindowFunction>, schema: &DFSchema) -> Transformed<Expr> {
    let frame = &call.params.window_frame;
    let reaches = frame.units == WindowFrameUnits::Range
        && (has_offset(&frame.start_bound) || has_offset(&frame.end_bound));
    if let (true, [key]) = (reaches, call.params.order_by.as_mut_slice())
        && let Ok(DataType::Int16 | DataType::Int32 | DataType::Int64) = key.expr.get_type(schema)
    {
        key.expr = cast(key.expr.clone(), DataType::Decimal128(38, 0));
        return Transformed::yes(Expr::WindowFunction(call));
    }
    Transformed::no(Expr::WindowFunction(call))
}

/// Whether a bound is some whole number away.
fn has_offset(bound: &WindowFrameBound) -> bool {
    match bound {
        WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
            !offset.is_null() && offset.to_string().parse::<i64>().is_ok()
        }
        WindowFrameBound::CurrentRow => false,
    }
}

fn is_aside(frame: &WindowFrame) -> bool {
    use WindowFrameBound::{Following, Preceding};
    let bounded = |bound: &WindowFrameBound| match bound {
        Preceding(offset) | Following(offset) => !offset.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    let one_side = matches!(
        (&frame.start_bound, &frame.end_bound),
        (Preceding(_), Preceding(_)) | (Following(_), Following(_))
    );
    let both = bounded(&frame.start_bound) && bounded(&frame.end_bound);
    frame.units == WindowFrameUnits::Range && one_side && both
}

fn refusal() -> DataFusionError {
    let error =
        SqlError::unsupported("a RANGE frame whose ends both precede or both follow its row")
            .hint("Let the frame reach to CURRENT ROW, or use ROWS or GROUPS.");
    DataFusionError::External(Box::new(error))
}
