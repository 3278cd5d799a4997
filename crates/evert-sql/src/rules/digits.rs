//! How many digits `round` and `trunc` leave: a constant that is cast is a constant.
//!
//! Their types depend on it, and would otherwise change when the plan is simplified, under
//! expressions that were settled before.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Puts constants in the place of their casts; says whether there were any.
pub(super) fn settle(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| Ok(with_digits(expr)))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    })
}

fn with_digits(expr: Expr) -> Transformed<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, mut args }) = expr else {
        return Transformed::no(expr);
    };
    let mut found = false;
    if matches!(func.name(), "round" | "trunc")
        && let [_, digits] = args.as_mut_slice()
        && let Some(value) = constant(digits)
    {
        *digits = value;
        found = true;
    }
    let call = Expr::ScalarFunction(ScalarFunction { func, args });
    if found { Transformed::yes(call) } else { Transformed::no(call) }
}

/// The constant that a cast of a constant is.
fn constant(expr: &Expr) -> Option<Expr> {
    let Expr::Cast(Cast { expr, field }) = expr else { return None };
    let Expr::Literal(value, metadata) = expr.as_ref() else { return None };
    let value = value.cast_to(field.data_type()).ok()?;
    Some(Expr::Literal(value, metadata.clone()))
}
