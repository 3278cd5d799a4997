//! Keys of grouping sets as columns, computed below: what settles an expression later may give it
//! another name, by which nothing above would find it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, Projection};

/// Computes the keys of grouping sets in a plan that comes straight from SQL.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => by_columns(aggregate),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn by_columns(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let computed: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?
        .into_iter()
        .filter(|key| !matches!(key, Expr::Column(_) | Expr::Alias(_)))
        .cloned()
        .collect();
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let column = |expr: &Expr| match computed.contains(expr) {
        true => Expr::Column(Column::new_unqualified(expr.schema_name().to_string())),
        false => expr.clone(),
    };
    let columns = |exprs: &[Expr]| exprs.iter().map(column).collect::<Vec<_>>();
    let sets = match sets {
        GroupingSet::Rollup(keys) => GroupingSet::Rollup(columns(keys)),
        GroupingSet::Cube(keys) => GroupingSet::Cube(columns(keys)),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.iter().map(|keys| columns(keys)).collect())
        }
    };
    let calls = aggregate.aggr_expr.into_iter().map(|expr| asked(expr, &columns)).collect();
    let own = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let named = computed.iter().map(|expr| {
        let name = expr.schema_name().to_string();
        expr.clone().alias(name)
    });
    let exprs = own.chain(named).collect();
    let input = LogicalPlan::Projection(Projection::try_new(exprs, aggregate.input)?);
    let keys = vec![Expr::GroupingSet(sets)];
    let aggregate = Aggregate::try_new(Arc::new(input), keys, calls)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// `grouping(key)` asks for the column that the key is now.
fn asked(expr: Expr, columns: &dyn Fn(&[Expr]) -> Vec<Expr>) -> Expr {
    match expr {
        Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
            call.params.args = columns(&call.params.args);
            Expr::AggregateFunction(call)
        }
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(asked(*alias.expr, columns));
            Expr::Alias(alias)
        }
        other => other,
    }
}
