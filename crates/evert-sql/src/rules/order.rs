//! Orders that say which rows come first: LIMIT below what keeps rows apart, DISTINCT ON as
//! numbered rows, and nothing left to chance where an order is not strict.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, Filter, Limit, LogicalPlan, Projection, Sort, SortExpr,
    SubqueryAlias, Window, WindowFrame, WindowFunctionDefinition, lit,
};

use crate::functions::row_number;

/// A name that no column and no table of a plan has.
pub(super) fn fresh(plan: &LogicalPlan, what: &str) -> String {
    let taken = |name: &str| {
        plan.schema().iter().any(|(qualifier, field)| {
            field.name() == name || qualifier.is_some_and(|qualifier| qualifier.table() == name)
        })
    };
    let mut names = (0..).map(|number| format!("__{what}_{number}"));
    names.find(|name| !taken(name)).expect("numbers do not end")
}

/// Settles the orders of a plan and its subqueries.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        Ok(match plan {
            LogicalPlan::Distinct(Distinct::On(distinct)) => {
                Transformed::yes(first_of_each(distinct)?)
            }
            LogicalPlan::Limit(limit) => Transformed::yes(strict_limit(limit)?),
            LogicalPlan::Aggregate(aggregate) => ordered_aggregate(aggregate)?,
            other => Transformed::no(other),
        })
    })
    .data()
}

/// Limits right above their sorts again: columns that nobody reads may have been dropped in
/// between.
pub(crate) fn limits_at_sorts(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|plan| {
        Ok(match plan {
            LogicalPlan::Limit(limit) => Transformed::yes(strict_limit(limit)?),
            other => Transformed::no(other),
        })
    })
    .data()
}

/// A limit stands right above its sort, and the sort tells all rows apart.
fn strict_limit(limit: Limit) -> Result<LogicalPlan> {
    let Limit { skip, fetch, input } = limit;
    let below = |input| strict_limit(Limit { skip: skip.clone(), fetch: fetch.clone(), input });
    match Arc::unwrap_or_clone(input) {
        LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
            let input = Arc::new(below(input)?);
            Ok(LogicalPlan::Projection(Projection::try_new_with_schema(expr, input, schema)?))
        }
        LogicalPlan::SubqueryAlias(alias) if is_sorted(&alias.input) => {
            let input = Arc::new(below(alias.input)?);
            Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, alias.alias)?))
        }
        LogicalPlan::Sort(sort) => {
            let input = Arc::new(LogicalPlan::Sort(strict(sort)?));
            Ok(LogicalPlan::Limit(Limit { skip, fetch, input }))
        }
        other => Ok(LogicalPlan::Limit(Limit { skip, fetch, input: Arc::new(other) })),
    }
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_sorted(&alias.input),
        _ => false,
    }
}

/// Ties break by the other columns, in their order, as the fold breaks them.
fn strict(mut sort: Sort) -> Result<Sort> {
    let ties = ties(&sort.input, &sort.expr);
    sort.expr.extend(ties);
    Ok(sort)
}

/// Each column that an order does not name already.
fn ties(plan: &LogicalPlan, order: &[SortExpr]) -> Vec<SortExpr> {
    let schema = plan.schema();
    schema
        .iter()
        .filter(|(_, field)| is_sortable(field.data_type()))
        .map(|field| Expr::Column(Column::from(field)))
        .filter(|column| order.iter().all(|key| key.expr != *column))
        .map(|column| column.sort(true, true))
        .collect()
}

/// Whether columns of a type break ties between rows.
pub(crate) fn is_sortable(ty: &DataType) -> bool {
    match ty {
        DataType::List(item) => !item.data_type().is_nested() && is_sortable(item.data_type()),
        ty => !ty.is_nested() && *ty != DataType::Null,
    }
}

/// DISTINCT ON: the first row of each group.
fn first_of_each(distinct: DistinctOn) -> Result<LogicalPlan> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, schema } = distinct;
    let mut exprs: Vec<Expr> = select_expr
        .into_iter()
        .zip(schema.iter())
        .map(|(expr, (qualifier, field))| {
            expr.unalias_nested().data.alias_qualified(qualifier.cloned(), field.name())
        })
        .collect();
    let columns = schema.columns();
    let first = fresh(&input, "first");
    let added = |exprs: &mut Vec<Expr>, expr: Expr| {
        // A column that is there anyway, so that what is DISTINCT ON can be seen to be the key.
        let selected = exprs[..columns.len()].iter().position(|it| it.clone().unalias() == expr);
        if let Some(selected) = selected {
            return Expr::Column(columns[selected].clone());
        }
        let name = format!("{first}_{}", exprs.len());
        exprs.push(expr.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    };
    let keys: Vec<Expr> = on_expr.into_iter().map(|on| added(&mut exprs, on)).collect();
    let shown: Vec<SortExpr> = sort_expr
        .unwrap_or_default()
        .into_iter()
        .map(|key| SortExpr { expr: added(&mut exprs, key.expr), ..key })
        .collect();
    let order = shown.iter().skip(keys.len()).cloned().collect();
    let rows = LogicalPlan::Projection(Projection::try_new(exprs, input)?);
    let mut rows = first_rows(rows, keys, order, 0, Some(1))?;
    if !shown.is_empty() {
        // The order is of what is left as well: a LIMIT takes its first rows.
        let input = Arc::new(rows);
        rows = LogicalPlan::Sort(Sort { expr: shown, input, fetch: None });
    }
    project_columns(rows, columns)
}

/// A plan's columns, and no others.
pub(super) fn project_columns(plan: LogicalPlan, columns: Vec<Column>) -> Result<LogicalPlan> {
    let exprs = columns.into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

/// The rows of each group after the first `skip`, `fetch` of them. Ties break by whole rows.
pub(super) fn first_rows(
    plan: LogicalPlan,
    keys: Vec<Expr>,
    mut order: Vec<SortExpr>,
    skip: usize,
    fetch: Option<usize>,
) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    order.extend(ties(&plan, &order));
    let name = fresh(&plan, "number");
    let plan = numbered(plan, keys, order, &name)?;
    let number = || Expr::Column(Column::new_unqualified(&name));
    let whole = |n: usize| lit(i64::try_from(n).unwrap_or(i64::MAX));
    let mut predicate = number().gt(whole(skip));
    if let Some(fetch) = fetch {
        predicate = number().lt_eq(whole(skip.saturating_add(fetch))).and(predicate);
        if skip == 0 {
            predicate = number().lt_eq(whole(fetch));
        }
    }
    let plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?);
    project_columns(plan, columns)
}

/// Adds each row's number in its group, from one on, as a column.
pub(super) fn numbered(
    plan: LogicalPlan,
    keys: Vec<Expr>,
    order: Vec<SortExpr>,
    name: &str,
) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let call = WindowFunction {
        fun: WindowFunctionDefinition::WindowUDF(row_number()),
        params: WindowFunctionParams {
            args: Vec::new(),
            partition_by: keys,
            window_frame: WindowFrame::new((!order.is_empty()).then_some(false)),
            order_by: order,
            null_treatment: None,
            distinct: false,
            filter: None,
        },
    };
    let call = Expr::WindowFunction(Box::new(call)).alias(fresh(&plan, "row_number"));
    let window = Window::try_new(vec![call], Arc::new(plan))?;
    let added = window.schema.columns().pop().expect("a window adds a column");
    let plan = LogicalPlan::Window(window);
    let number = Expr::Column(added).alias(name);
    let exprs = columns.into_iter().map(Expr::Column).chain([number]).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

/// Aggregates that depend on the order of rows take them in one order always.
fn ordered_aggregate(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    if !aggregate.aggr_expr.iter().any(|expr| strictly_ordered(expr).is_some()) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let first = schema.fields().len() - aggr_expr.len();
    let names = schema.iter().skip(first);
    let aggr_expr = aggr_expr
        .into_iter()
        .zip(names)
        .map(|(expr, (qualifier, field))| match strictly_ordered(&expr) {
            Some(ordered) => ordered.alias_qualified(qualifier.cloned(), field.name()),
            None => expr,
        })
        .collect();
    let aggregate = Aggregate::try_new(input, group_expr, aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// The same aggregate over rows in an order that tells them apart; `None` if it is so already or
/// need not be.
fn strictly_ordered(expr: &Expr) -> Option<Expr> {
    let call = match expr {
        Expr::Alias(alias) => return strictly_ordered(&alias.expr),
        Expr::AggregateFunction(call) => call,
        _ => return None,
    };
    let AggregateFunction { func, params } = call;
    if !matches!(
        func.name(),
        "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value"
    ) {
        return None;
    }
    let mut ordered = params.clone();
    // What comes again orders nothing, and the planner's aggregates stumble over it.
    ordered.order_by = Vec::with_capacity(params.order_by.len());
    for key in &params.order_by {
        if ordered.order_by.iter().all(|other| other.expr != key.expr) {
            ordered.order_by.push(key.clone());
        }
    }
    for arg in &params.args {
        let named = ordered.order_by.iter().any(|key| key.expr == *arg);
        // With DISTINCT, the order is of the values themselves.
        let enough = params.distinct && !ordered.order_by.is_empty();
        if !matches!(arg, Expr::Literal(..)) && !named && !enough {
            ordered.order_by.push(arg.clone().sort(true, true));
        }
    }
    (ordered.order_by != params.order_by).then(|| {
        Expr::AggregateFunction(AggregateFunction { func: Arc::clone(func), params: ordered })
    })
}
