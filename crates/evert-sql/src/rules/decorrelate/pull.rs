//! Subqueries whose conditions on the query around them can be lifted out: they run once for all
//! rows, and join by the columns that the conditions compare.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, Filter, Join, LogicalPlan, Operator, Projection,
    SubqueryAlias,
};
use datafusion::scalar::ScalarValue;

use super::Names;
use super::free::{free, free_in, has_subquery, lateral};
use crate::rules::order::first_rows;

/// A plan without conditions on what is around it, and those conditions.
pub(super) struct Pulled {
    pub(super) plan: LogicalPlan,
    /// An expression over the columns around, and the plan's column that must equal it.
    pub(super) keys: Vec<(Expr, Column)>,
    /// What else must hold, over the columns around and the plan's.
    pub(super) residual: Vec<Expr>,
    /// Columns of the plan's that only `keys` and `residual` use.
    pub(super) hidden: Vec<Column>,
    /// What the plan's columns are where it gives no row but should give one: the aggregates of
    /// nothing.
    pub(super) defaults: Option<Vec<(Column, Expr)>>,
    /// Whether NULL equals NULL in `keys`.
    pub(super) nulls_equal: bool,
}

/// Lifts the conditions out of a plan, if that does not change what it gives.
pub(super) fn pull(plan: &LogicalPlan, names: &mut Names) -> Result<Option<Pulled>> {
    if free(plan)?.is_empty() {
        return Ok(Some(Pulled::plain(plan.clone())));
    }
    match plan {
        LogicalPlan::Projection(projection) => pull_projection(projection, names),
        LogicalPlan::SubqueryAlias(alias) => pull_alias(alias, names),
        LogicalPlan::Subquery(subquery) => pull(&subquery.subquery, names),
        LogicalPlan::Filter(filter) => pull_filter(filter, names),
        LogicalPlan::Join(join) => pull_join(join, names),
        LogicalPlan::Aggregate(aggregate) => pull_aggregate(aggregate, names),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let Some(mut inner) = pull(input, names)?.filter(Pulled::is_by_keys) else {
                return Ok(None);
            };
            inner.plan = LogicalPlan::Distinct(Distinct::All(Arc::new(inner.plan)));
            Ok(Some(inner))
        }
        // Rows of a subquery have no order.
        LogicalPlan::Sort(sort) => pull(&sort.input, names),
        LogicalPlan::Limit(limit) => {
            let Some((skip, fetch)) = super::bounds(limit)? else { return Ok(None) };
            let (input, order) = match limit.input.as_ref() {
                LogicalPlan::Sort(sort) => (&sort.input, sort.expr.clone()),
                _ => (&limit.input, Vec::new()),
            };
            let Some(mut inner) = pull(input, names)?.filter(Pulled::is_by_keys) else {
                return Ok(None);
            };
            let keys = inner.keys.iter().map(|(_, key)| Expr::Column(key.clone())).collect();
            inner.plan = first_rows(inner.plan, keys, order, skip, fetch)?;
            Ok(Some(inner))
        }
        _ => Ok(None),
    }
}

impl Pulled {
    fn plain(plan: LogicalPlan) -> Self {
        Self {
            plan,
            keys: vec![],
            residual: vec![],
            hidden: vec![],
            defaults: None,
            nulls_equal: false,
        }
    }

    /// Whether equal keys are all that is asked, and rows are given as they are.
    fn is_by_keys(&self) -> bool {
        self.residual.is_empty() && self.defaults.is_none() && !self.keys.is_empty()
    }

    fn hidden_exprs(&self) -> impl Iterator<Item = Expr> {
        self.hidden.iter().cloned().map(Expr::Column)
    }

    /// Takes conditions apart: into keys, into what stays in the plan, and into the rest.
    /// `None` if one cannot be lifted.
    fn add(mut self, conditions: Vec<Expr>, names: &mut Names) -> Result<Option<Self>> {
        let schema = Arc::clone(self.plan.schema());
        let mut kept = Vec::new();
        let mut added: Vec<(Expr, Column)> = Vec::new();
        for condition in conditions {
            if free_in(&condition, &schema)?.is_empty() {
                kept.push(condition);
            } else if has_subquery(&condition) {
                return Ok(None);
            } else if let Some((outer, inner)) = equality(&condition)? {
                let column = self.hide(inner, &mut added, names);
                self.keys.push((outer, column));
            } else {
                let residual = condition.transform_up(|expr| {
                    Ok(match expr {
                        Expr::Column(_) => {
                            let column = self.hide(expr, &mut added, names);
                            Transformed::yes(Expr::Column(column))
                        }
                        other => Transformed::no(other),
                    })
                });
                self.residual.push(residual.data()?);
            }
        }
        if let Some(kept) = conjunction(kept) {
            self.plan = LogicalPlan::Filter(Filter::try_new(kept, Arc::new(self.plan))?);
        }
        if !added.is_empty() {
            let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
            exprs.extend(added.into_iter().map(|(expr, name)| expr.alias(name.name)));
            self.plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(self.plan))?);
        }
        Ok(Some(self))
    }

    /// A hidden column of an expression's value.
    fn hide(&mut self, expr: Expr, added: &mut Vec<(Expr, Column)>, names: &mut Names) -> Column {
        if let Some((_, column)) = added.iter().find(|(other, _)| *other == expr) {
            return column.clone();
        }
        let column = Column::new_unqualified(names.next("hidden"));
        added.push((expr, column.clone()));
        self.hidden.push(column.clone());
        column
    }
}

/// `around = within` or the other way round.
fn equality(condition: &Expr) -> Result<Option<(Expr, Expr)>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return Ok(None);
    };
    let is_outer = |expr: &Expr| expr.column_refs().is_empty();
    let is_inner = |expr: &Expr| free_in(expr, &DFSchema::empty()).map(|free| free.is_empty());
    let (l, r) = (left.as_ref().clone(), right.as_ref().clone());
    Ok(if is_outer(&l) && is_inner(&r)? {
        Some((l, r))
    } else if is_outer(&r) && is_inner(&l)? {
        Some((r, l))
    } else {
        None
    })
}

fn pull_projection(projection: &Projection, names: &mut Names) -> Result<Option<Pulled>> {
    for expr in &projection.expr {
        if !free_in(expr, projection.input.schema())?.is_empty() {
            return Ok(None);
        }
    }
    let Some(mut inner) = pull(&projection.input, names)? else { return Ok(None) };
    if let Some(defaults) = &inner.defaults {
        let mut new = Vec::with_capacity(projection.expr.len());
        for (expr, column) in projection.expr.iter().zip(projection.schema.columns()) {
            new.push((column, with_defaults(expr.clone(), defaults)?));
        }
        inner.defaults = Some(new);
    }
    let exprs = projection.expr.iter().cloned().chain(inner.hidden_exprs()).collect();
    inner.plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(inner.plan))?);
    Ok(Some(inner))
}

fn with_defaults(expr: Expr, defaults: &[(Column, Expr)]) -> Result<Expr> {
    expr.unalias_nested()
        .data
        .transform_up(|expr| {
            let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
            let default = defaults.iter().find(|(of, _)| of == column);
            Ok(match default {
                Some((_, default)) => Transformed::yes(default.clone()),
                None => Transformed::no(expr),
            })
        })
        .data()
}

fn pull_alias(alias: &SubqueryAlias, names: &mut Names) -> Result<Option<Pulled>> {
    let Some(mut inner) = pull(&alias.input, names)? else { return Ok(None) };
    if let Some(defaults) = &mut inner.defaults {
        let renamed = alias.input.schema().columns().into_iter().zip(alias.schema.columns());
        let renamed: Vec<_> = renamed.collect();
        for (column, _) in defaults {
            if let Some((_, to)) = renamed.iter().find(|(from, _)| from == column) {
                *column = to.clone();
            }
        }
    }
    inner.plan = realias(inner.plan, alias, &inner.hidden)?;
    Ok(Some(inner))
}

/// Puts an alias over a plan that has more columns, which keep their names.
pub(super) fn realias(
    plan: LogicalPlan,
    alias: &SubqueryAlias,
    more: &[Column],
) -> Result<LogicalPlan> {
    let table = alias.alias.clone();
    // By position: below the alias, two columns may differ in their tables only.
    let mut exprs = Vec::with_capacity(alias.schema.fields().len() + more.len());
    let below = alias.input.schema().columns().into_iter().zip(alias.schema.columns());
    for (column, name) in below {
        exprs.push(Expr::Column(column).alias_qualified(Some(table.clone()), name.name));
    }
    exprs.extend(more.iter().cloned().map(Expr::Column));
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

fn pull_filter(filter: &Filter, names: &mut Names) -> Result<Option<Pulled>> {
    let Some(inner) = pull(&filter.input, names)? else { return Ok(None) };
    if inner.defaults.is_some() {
        return Ok(None);
    }
    inner.add(split_conjunction_owned(filter.predicate.clone()), names)
}

fn pull_join(join: &Join, names: &mut Names) -> Result<Option<Pulled>> {
    let both = join.left.schema().join(join.right.schema())?;
    for (left, right) in &join.on {
        if !free_in(left, &both)?.is_empty() || !free_in(right, &both)?.is_empty() {
            return Ok(None);
        }
    }
    if lateral(join)?.is_some() {
        return Ok(None);
    }
    let inner_join = join.join_type == JoinType::Inner;
    if !inner_join && join.join_type != JoinType::Left {
        return Ok(None);
    }
    let Some(left) = pull(&join.left, names)? else { return Ok(None) };
    let Some(right) = pull(&join.right, names)? else { return Ok(None) };
    if left.defaults.is_some() || right.defaults.is_some() {
        return Ok(None);
    }
    let conditions = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
    let mut lifted = Vec::new();
    let mut kept = Vec::new();
    for condition in conditions {
        if free_in(&condition, &both)?.is_empty() {
            kept.push(condition);
        } else {
            lifted.push(condition);
        }
    }
    if !inner_join && (!lifted.is_empty() || !right.keys.is_empty() || !right.residual.is_empty()) {
        return Ok(None);
    }
    let plan = LogicalPlan::Join(Join::try_new(
        Arc::new(left.plan),
        Arc::new(right.plan),
        join.on.clone(),
        conjunction(kept),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?);
    let pulled = Pulled {
        plan,
        keys: left.keys.into_iter().chain(right.keys).collect(),
        residual: left.residual.into_iter().chain(right.residual).collect(),
        hidden: left.hidden.into_iter().chain(right.hidden).collect(),
        defaults: None,
        nulls_equal: false,
    };
    pulled.add(lifted, names)
}

fn pull_aggregate(aggregate: &Aggregate, names: &mut Names) -> Result<Option<Pulled>> {
    let schema = aggregate.input.schema();
    for expr in aggregate.group_expr.iter().chain(&aggregate.aggr_expr) {
        if matches!(expr, Expr::GroupingSet(_)) || !free_in(expr, schema)?.is_empty() {
            return Ok(None);
        }
    }
    let Some(mut inner) = pull(&aggregate.input, names)?.filter(Pulled::is_by_keys) else {
        return Ok(None);
    };
    if aggregate.group_expr.is_empty() {
        inner.defaults = Some(of_nothing(aggregate)?);
    }
    let groups = inner.hidden_exprs().chain(aggregate.group_expr.iter().cloned()).collect();
    let aggregates = aggregate.aggr_expr.clone();
    inner.plan =
        LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(inner.plan), groups, aggregates)?);
    Ok(Some(inner))
}

/// What the aggregates of a plan without groups are over no rows.
pub(super) fn of_nothing(aggregate: &Aggregate) -> Result<Vec<(Column, Expr)>> {
    let first = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let columns = aggregate.schema.columns().into_iter().zip(aggregate.schema.fields()).skip(first);
    columns
        .zip(&aggregate.aggr_expr)
        .map(|((column, field), expr)| {
            let ty = field.data_type();
            let value = match expr.clone().unalias_nested().data {
                Expr::AggregateFunction(call) => call.func.default_value(ty)?,
                _ => ScalarValue::try_from(ty)?,
            };
            Ok((column, Expr::Literal(value, None)))
        })
        .collect()
}
