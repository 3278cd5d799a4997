//! What a view may not call.

use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use crate::SqlError;
use crate::functions::{check_windows, convert_value, converted_argument};
use crate::translate;

/// Refuses functions whose results depend on more than their arguments: a view is folded again
/// later, and must come out the same.
pub(super) fn refuse_volatile(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut refusal = None;
    let walked = plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                refusal = refusal.take().or_else(|| volatile(expr));
                Ok(stop_if(refusal.is_some()))
            })
        })?;
        Ok(stop_if(refusal.is_some()))
    });
    walked.map_err(|error| translate::planning(&error, ""))?;
    refusal.map_or(Ok(()), Err)
}

/// Refuses constants that no row could be compared with: what cannot be read as its type, windows of
/// no length.
///
/// # Errors
/// 22007, 22P02, ... as reading the constant gives.
pub(super) fn refuse_unreadable(plan: &LogicalPlan) -> PlanResult<()> {
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    if let Some(Expr::Literal(value, _)) = converted_argument(call) {
                        convert_value(call, value)?;
                    }
                    check_windows(call)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(drop)
}

/// Whether a walk goes on.
pub(super) fn stop_if(stop: bool) -> TreeNodeRecursion {
    if stop { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue }
}

fn volatile(expr: &Expr) -> Option<SqlError> {
    match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            let name = call.func.name();
            let error = SqlError::unsupported(format!("{name}() in a view"));
            Some(error.hint(
                "A view's rows may depend on nothing but the log: read the time from a column, \
                 or filter by it in the query that reads the view.",
            ))
        }
        Expr::Placeholder(_) => Some(SqlError::unsupported("a parameter in a view")),
        _ => None,
    }
}
