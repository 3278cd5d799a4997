//! Texts where arrays are meant, and arrays where texts are: `'{1,2}'::int[]`, `tags = '{x}'`,
//! `tags::text`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Case, Cast, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, SortExpr, when,
};
use datafusion::scalar::ScalarValue;
use evert_model::{ColumnType, ItemType};

use crate::functions::{OF_ARRAYS, array_in, array_out, in_list_order, items_of};

/// Reads constants that stand beside arrays, in a plan whose types may not be settled yet, and
/// gives casts their meaning.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| rewritten(expr, &schema))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)?
        .transform_data(in_order)
    })
    .data()
}

/// Sorts arrays with NULL elements as the greatest wherever NULL itself goes: Arrow would put both
/// at the same end.
fn in_order(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Sort(mut sort) = plan else { return Ok(Transformed::no(plan)) };
    let schema = Arc::clone(sort.input.schema());
    let is_apart =
        |key: &SortExpr| key.nulls_first == key.asc && items(&key.expr, &schema).is_some();
    if !sort.expr.iter().any(is_apart) {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    }
    let keys = std::mem::take(&mut sort.expr).into_iter();
    sort.expr = keys
        .flat_map(|key| match is_apart(&key) {
            true => vec![
                SortExpr::new(key.expr.clone().is_null(), !key.nulls_first, false),
                SortExpr { nulls_first: !key.asc, ..key },
            ],
            false => vec![key],
        })
        .collect();
    Ok(Transformed::yes(LogicalPlan::Sort(sort)))
}

fn rewritten(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let expr = match expr {
        Expr::Cast(Cast { expr, field }) => {
            return Ok(match (expr.get_type(schema), items_of(field.data_type())) {
                (Ok(from), Some(items)) if is_text(&from) => {
                    let ty = ColumnType::Array(items).arrow_type();
                    Transformed::yes(exactly(array_in(*expr, items)?, &ty, field.data_type()))
                }
                (Ok(from), None) if is_text(field.data_type()) && items_of(&from).is_some() => {
                    let ty = DataType::Utf8View;
                    Transformed::yes(exactly(array_out(*expr), &ty, field.data_type()))
                }
                _ => Transformed::no(Expr::Cast(Cast { expr, field })),
            });
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let mut sides = [*left, *right];
            let found = read_beside(sides.iter_mut().collect(), schema)?;
            let [left, right] = sides;
            // Arrow's order has NULL elements first.
            if is_order(op)
                && let (Ok(one), Ok(other)) = (left.get_type(schema), right.get_type(schema))
                && one == other
                && matches!(one, DataType::List(_))
            {
                return Ok(Transformed::yes(in_list_order(left, op, right)));
            }
            let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
            return Ok(Transformed::new_transformed(expr, found));
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == "nullif" && args.iter().any(|arg| items(arg, schema).is_some()) =>
        {
            return null_if(func, args, schema);
        }
        other => other,
    };
    let mut expr = expr;
    let found = match &mut expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if OF_ARRAYS.contains(&func.name()) => {
            read_beside(args.iter_mut().collect(), schema)?
        }
        Expr::InList(InList { expr, list, .. }) => {
            read_beside(list.iter_mut().chain([expr.as_mut()]).collect(), schema)?
        }
        Expr::Case(Case { when_then_expr, else_expr, .. }) => {
            let thens = when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            read_beside(thens.chain(else_expr.as_deref_mut()).collect(), schema)?
        }
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, found))
}

/// Arrow's `nullif` compares no lists.
fn null_if(
    func: Arc<ScalarUDF>,
    mut args: Vec<Expr>,
    schema: &DFSchema,
) -> Result<Transformed<Expr>> {
    let found = read_beside(args.iter_mut().collect(), schema)?;
    match <[Expr; 2]>::try_from(args) {
        Ok([value, other]) if items(&value, schema).is_some() => {
            let none = ScalarValue::try_from(&value.get_type(schema)?)?;
            let case = when(value.clone().eq(other), Expr::Literal(none, None)).otherwise(value)?;
            Ok(Transformed::yes(case))
        }
        Ok(args) => {
            let call = Expr::ScalarFunction(ScalarFunction::new_udf(func, args.to_vec()));
            Ok(Transformed::new_transformed(call, found))
        }
        Err(args) => {
            let call = Expr::ScalarFunction(ScalarFunction::new_udf(func, args));
            Ok(Transformed::new_transformed(call, found))
        }
    }
}

fn is_order(op: Operator) -> bool {
    matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

/// An expression of a type as one of the type that the plan says.
fn exactly(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to { expr } else { Expr::Cast(Cast::new(Box::new(expr), to.clone())) }
}

/// Constants that are texts, beside an array, become arrays like it; says whether there were any.
fn read_beside(exprs: Vec<&mut Expr>, schema: &DFSchema) -> Result<bool> {
    if !exprs.iter().any(|expr| is_constant_text(expr)) {
        return Ok(false);
    }
    let array = exprs.iter().find_map(|expr| items(expr, schema));
    let Some(items) = array else { return Ok(false) };
    for expr in exprs {
        if is_constant_text(expr) {
            *expr = array_in(expr.clone(), items)?;
        }
    }
    Ok(true)
}

fn items(expr: &Expr, schema: &DFSchema) -> Option<ItemType> {
    items_of(&expr.get_type(schema).ok()?)
}

fn is_constant_text(expr: &Expr) -> bool {
    use ScalarValue::{LargeUtf8, Utf8, Utf8View};
    matches!(expr, Expr::Literal(Utf8(Some(_)) | Utf8View(Some(_)) | LargeUtf8(Some(_)), _))
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
