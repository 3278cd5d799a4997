//! Frames that are refused: of a RANGE whose both ends lie on one side of the current row.
//!
//! Such a frame may be empty between others that are not, and DataFusion's sliding aggregates then
//! take in and let go of the wrong rows.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    Expr, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits,
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
