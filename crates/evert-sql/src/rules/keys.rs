//! What rows are grouped, sorted, joined and kept apart by, made ready for DataFusion's operators:
//! floats in one form, since -0.0 equals 0.0, and nothing but columns where an order is asked for.
//!
//! DataFusion takes an order for absent if it cannot tell how an expression in it moves, as with
//! `abs` of some calls, and then refuses the plan that it has made itself.
//!
//! Not here: views, since the fold compares floats so by itself.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, GroupingSet, Join, LogicalPlan, Projection, Sort,
    SortExpr, Window,
};

use super::order::{fresh, project_columns};
use crate::functions::{compared, has_floats, in_one_form, in_order};

/// Settles the keys of a plan.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|plan| {
        Ok(match comparisons(plan)? {
            LogicalPlan::Aggregate(aggregate) => Transformed::yes(grouped(aggregate)?),
            LogicalPlan::Distinct(Distinct::All(input)) => Transformed::yes(distinct(input)?),
            LogicalPlan::Window(window) => Transformed::yes(windowed(window)?),
            LogicalPlan::Sort(sort) => Transformed::yes(sorted(sort)?),
            LogicalPlan::Join(join) => Transformed::yes(joined(join)?),
            other => Transformed::yes(other),
        })
    })
    .data()
}

/// Comparisons that came from subqueries after all others were settled.
fn comparisons(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::Join(_)) {
        return Ok(plan);
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform_up(|expr| Ok(Transformed::yes(compared(expr, &schema))))?;
        Ok(expr.update_data(|expr| name.restore(expr)))
    })
    .data()
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|ty| has_floats(&ty))
}

/// A float in one form under the name that it had; anything else as it is.
fn key(expr: Expr, schema: &DFSchema) -> Expr {
    if !is_float(&expr, schema) {
        return expr;
    }
    let (qualifier, name) = expr.qualified_name();
    in_one_form(expr.unalias()).alias_qualified(qualifier, name)
}

fn grouped(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let below = Arc::clone(input.schema());
    let keys = |exprs: Vec<Expr>| exprs.into_iter().map(|expr| key(expr, &below)).collect();
    let all = |sets: Vec<Vec<Expr>>| sets.into_iter().map(keys).collect();
    let group_expr: Vec<Expr> = group_expr
        .into_iter()
        .map(|expr| match expr {
            Expr::GroupingSet(GroupingSet::Rollup(exprs)) => {
                Expr::GroupingSet(GroupingSet::Rollup(keys(exprs)))
            }
            Expr::GroupingSet(GroupingSet::Cube(exprs)) => {
                Expr::GroupingSet(GroupingSet::Cube(keys(exprs)))
            }
            Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
                Expr::GroupingSet(GroupingSet::GroupingSets(all(sets)))
            }
            expr => key(expr, &below),
        })
        .collect();
    let plainly = plainly_ordered(&aggr_expr, &below);
    let first = schema.fields().len() - aggr_expr.len();
    let aggr_expr = aggr_expr
        .into_iter()
        .zip(schema.iter().skip(first))
        .map(|(expr, (qualifier, field))| match bare(&expr) {
            Expr::AggregateFunction(call) if is_unsettled(call, &below, plainly) => {
                let call = Expr::AggregateFunction(called(call.clone(), &below, plainly));
                call.alias_qualified(qualifier.cloned(), field.name())
            }
            _ => expr,
        })
        .collect();
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, aggr_expr)?))
}

/// Whether one order by columns does for all aggregates.
fn plainly_ordered(aggregates: &[Expr], schema: &DFSchema) -> bool {
    let mut order: Option<&[SortExpr]> = None;
    let is_plain =
        |key: &SortExpr| matches!(key.expr, Expr::Column(_)) && !is_float(&key.expr, schema);
    aggregates.iter().all(|expr| {
        let Expr::AggregateFunction(call) = bare(expr) else { return true };
        let own = call.params.order_by.as_slice();
        if own.is_empty() {
            return true;
        }
        let same = order.is_none_or(|other| other == own);
        order = Some(own);
        same && own.iter().all(is_plain)
    })
}

/// An expression below its names.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        expr => expr,
    }
}

fn is_unsettled(call: &AggregateFunction, schema: &DFSchema, plainly_ordered: bool) -> bool {
    let AggregateFunction { params, .. } = call;
    let takes_floats = || params.args.iter().any(|arg| is_float(arg, schema));
    (params.distinct && takes_floats()) || (!plainly_ordered && !params.order_by.is_empty())
}

/// An aggregate's call over floats in one form where it looks for different ones, and with an
/// order of its own unless all have one.
fn called(call: AggregateFunction, schema: &DFSchema, plainly_ordered: bool) -> AggregateFunction {
    let AggregateFunction { func, mut params } = call;
    if params.distinct {
        let in_form = |arg: Expr| if is_float(&arg, schema) { in_one_form(arg) } else { arg };
        params.args = params.args.into_iter().map(in_form).collect();
        for key in &mut params.order_by {
            if is_float(&key.expr, schema) {
                key.expr = in_one_form(key.expr.clone());
            }
        }
    }
    if plainly_ordered || params.order_by.is_empty() {
        return AggregateFunction { func, params };
    }
    let order = std::mem::take(&mut params.order_by);
    let options = order.iter().map(|key| (!key.asc, key.nulls_first)).collect();
    let func = in_order(func, params.args.len(), options, params.distinct);
    params.distinct = false;
    params.args.extend(order.into_iter().map(|key| match is_float(&key.expr, schema) {
        true => in_one_form(key.expr),
        false => key.expr,
    }));
    AggregateFunction { func, params }
}

fn distinct(input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    if !schema.fields().iter().any(|field| has_floats(field.data_type())) {
        return Ok(LogicalPlan::Distinct(Distinct::All(input)));
    }
    let keys = schema.columns().into_iter().map(|column| key(Expr::Column(column), &schema));
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(input, keys.collect(), Vec::new())?))
}

fn joined(join: Join) -> Result<LogicalPlan> {
    let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
    let key = |expr: Expr, schema: &DFSchema| match is_float(&expr, schema) {
        true => in_one_form(expr),
        false => expr,
    };
    let on = join.on.into_iter().map(|(l, r)| (key(l, &left), key(r, &right))).collect();
    Ok(LogicalPlan::Join(Join { on, ..join }))
}

/// Columns that are added to a plan, to order its rows by.
struct Added {
    input: Arc<LogicalPlan>,
    name: String,
    exprs: Vec<Expr>,
}

impl Added {
    fn to(input: Arc<LogicalPlan>) -> Self {
        let name = fresh(&input, "key");
        Self { input, name, exprs: Vec::new() }
    }

    /// An expression as a column.
    fn column(&mut self, expr: Expr) -> Expr {
        let schema = self.input.schema();
        let expr = expr.unalias();
        let is_float = is_float(&expr, schema);
        if matches!(expr, Expr::Literal(..)) || (matches!(expr, Expr::Column(_)) && !is_float) {
            return expr;
        }
        let expr = if is_float { in_one_form(expr) } else { expr };
        let known = self.exprs.iter().position(|other| *other == expr);
        let place = known.unwrap_or_else(|| {
            self.exprs.push(expr);
            self.exprs.len() - 1
        });
        Expr::Column(Column::new_unqualified(format!("{}_{place}", self.name)))
    }

    fn key(&mut self, key: SortExpr) -> SortExpr {
        SortExpr { expr: self.column(key.expr), ..key }
    }

    fn plan(self) -> Result<LogicalPlan> {
        if self.exprs.is_empty() {
            return Ok(Arc::unwrap_or_clone(self.input));
        }
        let own = self.input.schema().columns().into_iter().map(Expr::Column);
        let added = self.exprs.into_iter().enumerate();
        let added = added.map(|(place, expr)| expr.alias(format!("{}_{place}", self.name)));
        let exprs = own.chain(added).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, self.input)?))
    }
}

fn windowed(window: Window) -> Result<LogicalPlan> {
    let Window { input, window_expr, schema, .. } = window;
    let first = input.schema().fields().len();
    let mut added = Added::to(Arc::clone(&input));
    let mut exprs = Vec::with_capacity(window_expr.len());
    for (expr, (qualifier, field)) in window_expr.iter().zip(schema.iter().skip(first)) {
        let Expr::WindowFunction(mut call) = expr.clone().unalias_nested().data else {
            exprs.push(expr.clone());
            continue;
        };
        let params = &mut call.params;
        let keys = std::mem::take(&mut params.partition_by);
        params.partition_by = keys.into_iter().map(|key| added.column(key)).collect();
        let keys = std::mem::take(&mut params.order_by);
        params.order_by = keys.into_iter().map(|key| added.key(key)).collect();
        let call = Expr::WindowFunction(call);
        exprs.push(call.alias_qualified(qualifier.cloned(), field.name()));
    }
    if added.exprs.is_empty() {
        return Ok(LogicalPlan::Window(Window::try_new(window_expr, input)?));
    }
    let window = Window::try_new(exprs, Arc::new(added.plan()?))?;
    project_columns(LogicalPlan::Window(window), schema.columns())
}

fn sorted(sort: Sort) -> Result<LogicalPlan> {
    let columns = sort.input.schema().columns();
    let mut added = Added::to(sort.input);
    let mut ties = Vec::new();
    let mut keys = Vec::with_capacity(sort.expr.len());
    for key in sort.expr {
        // Zeros of either sign are peers for all that follows, and apart in the end.
        if is_float(&key.expr, added.input.schema()) {
            ties.push(key.clone());
        }
        keys.push(added.key(key));
    }
    let changed = !added.exprs.is_empty();
    keys.extend(ties.into_iter().filter(|key| matches!(key.expr, Expr::Column(_))));
    let input = Arc::new(added.plan()?);
    let sort = LogicalPlan::Sort(Sort { expr: keys, input, fetch: sort.fetch });
    if changed { project_columns(sort, columns) } else { Ok(sort) }
}
