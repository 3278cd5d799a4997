//! Subqueries become joins, with SQL's three-valued logic.
//!
//! Owns: EXISTS, IN, scalar subqueries and LATERAL, correlated or not.
//! Not here: `= ANY` and its like, which become EXISTS before.
//!
//! Invariants
//! - `x NOT IN (...)` is true only if no element equals `x` or could.
//! - A scalar subquery that gives more than one row is an error of the rows that it is for.

mod attach;
mod free;
mod lateral;
mod pull;
mod rows;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType, NullEquality, Result};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::{Exists, InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, FetchType, Filter, Join, JoinConstraint,
    Limit, LogicalPlan, Operator, Projection, SkipType, SubqueryAlias, lit, when,
};
use datafusion::scalar::ScalarValue;

use self::attach::Domain;
use self::free::{free, free_in, has_subquery, lateral};
use self::pull::{Pulled, pull};
use self::rows::{always_one_row, at_most_one_row, regardless_of_columns};
use super::order::project_columns;
use crate::SqlError;
use crate::functions::single_row;

/// Puts joins in the place of all subqueries.
pub(super) fn decorrelate(plan: LogicalPlan) -> Result<LogicalPlan> {
    Decorrelator::default().plan(plan)
}

/// Names that no statement has, each given once.
#[derive(Default)]
pub(super) struct Names(usize);

impl Names {
    pub(super) fn next(&mut self, what: &str) -> String {
        self.0 += 1;
        format!("__{what}_{}", self.0)
    }
}

pub(super) fn refused(what: &str) -> DataFusionError {
    DataFusionError::External(Box::new(SqlError::unsupported(what.to_owned())))
}

/// OFFSET and LIMIT, if they are numbers.
pub(super) fn bounds(limit: &Limit) -> Result<Option<(usize, Option<usize>)>> {
    Ok(match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::Literal(skip), FetchType::Literal(fetch)) => Some((skip, fetch)),
        _ => None,
    })
}

#[derive(Default)]
struct Decorrelator {
    names: Names,
}

/// A subquery ready to be joined.
struct Related {
    plan: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    null_equality: NullEquality,
    filter: Option<Expr>,
    /// The columns that were asked for.
    values: Vec<Expr>,
    /// What they are for rows without a match, if not NULL.
    defaults: Option<Vec<Expr>>,
}

impl Related {
    fn join(self, left: LogicalPlan, kind: JoinType) -> Result<LogicalPlan> {
        let (left, right) = (Arc::new(left), Arc::new(self.plan));
        let constraint = JoinConstraint::On;
        Ok(LogicalPlan::Join(Join::try_new(
            left,
            right,
            self.on,
            self.filter,
            kind,
            constraint,
            self.null_equality,
            false,
        )?))
    }
}

impl Decorrelator {
    fn plan(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Filter(filter) if has_subquery(&filter.predicate) => self.filter(filter),
            LogicalPlan::Join(join) if lateral(&join)?.is_some() => self.lateral(join),
            LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(has_subquery) => {
                self.join(join)
            }
            // What it took from around it are columns by now.
            LogicalPlan::Subquery(subquery) => self.plan(Arc::unwrap_or_clone(subquery.subquery)),
            other if other.expressions().iter().any(has_subquery) => self.expressions(other),
            other => other.map_children(|child| Ok(Transformed::yes(self.plan(child)?))).data(),
        }
    }

    fn filter(&mut self, filter: Filter) -> Result<LogicalPlan> {
        let mut input = self.plan(Arc::unwrap_or_clone(filter.input))?;
        let columns = input.schema().columns();
        let mut rest = Vec::new();
        for condition in split_conjunction_owned(filter.predicate) {
            match without_not(condition) {
                Expr::Exists(Exists { subquery, negated }) => {
                    input = self.exists(input, &subquery.subquery, negated, &mut rest)?;
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    let value = self.values(&mut input, *expr, false)?;
                    input = self.membership(input, value, &subquery.subquery, negated)?;
                }
                other => rest.push(self.values(&mut input, other, true)?),
            }
        }
        if let Some(predicate) = conjunction(rest) {
            input = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?);
        }
        only(input, columns)
    }

    /// A node of one input whose expressions hold subqueries.
    fn expressions(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let inputs = plan.inputs();
        let [input] = inputs.as_slice() else {
            return Err(refused("a subquery here"));
        };
        let mut input = self.plan((*input).clone())?;
        let names = NamePreserver::new(&plan);
        let columns = plan.schema().columns();
        let mut exprs = Vec::new();
        for expr in plan.expressions() {
            let name = names.save(&expr);
            exprs.push(name.restore(self.values(&mut input, expr, false)?));
        }
        let plan = plan.with_new_exprs(exprs, vec![input])?;
        only(plan, columns)
    }

    /// A join with subqueries in its condition.
    fn join(&mut self, mut join: Join) -> Result<LogicalPlan> {
        let columns = join.schema.columns();
        let mut left = self.plan(Arc::unwrap_or_clone(join.left))?;
        let mut right = self.plan(Arc::unwrap_or_clone(join.right))?;
        let mut both = Vec::new();
        let mut kept = Vec::new();
        for condition in join.filter.take().map(split_conjunction_owned).unwrap_or_default() {
            if !has_subquery(&condition) {
                kept.push(condition);
                continue;
            }
            match side_of(&condition, left.schema(), right.schema())? {
                Some(Side::Left) => kept.push(self.values(&mut left, condition, false)?),
                Some(Side::Right) => kept.push(self.values(&mut right, condition, false)?),
                None if join.join_type == JoinType::Inner => both.push(condition),
                None => {
                    return Err(refused(
                        "a subquery over both sides in the condition of an outer join",
                    ));
                }
            }
        }
        let joined = LogicalPlan::Join(Join::try_new(
            Arc::new(left),
            Arc::new(right),
            join.on,
            conjunction(kept),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let joined = match conjunction(both) {
            Some(both) => self.filter(Filter::try_new(both, Arc::new(joined))?)?,
            None => joined,
        };
        only(joined, columns)
    }

    /// Rows for which the subquery gives any row, or none.
    fn exists(
        &mut self,
        input: LogicalPlan,
        subquery: &LogicalPlan,
        negated: bool,
        conditions: &mut Vec<Expr>,
    ) -> Result<LogicalPlan> {
        let subquery = regardless_of_columns(subquery)?;
        if always_one_row(subquery) {
            conditions.push(lit(!negated));
            return Ok(input);
        }
        let related = self.relate(&input, subquery, Vec::new(), false)?;
        related.join(input, if negated { JoinType::LeftAnti } else { JoinType::LeftSemi })
    }

    /// Rows for which `value` is, or is not, among the rows of the subquery.
    fn membership(
        &mut self,
        input: LogicalPlan,
        value: Expr,
        subquery: &LogicalPlan,
        negated: bool,
    ) -> Result<LogicalPlan> {
        let element = first_column(subquery);
        let unknown = self.may_be_unknown(&input, &value, subquery)?;
        let input_copy = (negated && unknown).then(|| input.clone());
        let related = self.relate(&input, subquery, vec![element], false)?;
        let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
        let joined = equal(related, value.clone()).join(input, kind)?;
        let Some(input) = input_copy else { return Ok(joined) };
        self.unknown_related(&input, value, subquery)?.join(joined, JoinType::LeftAnti)
    }

    /// Whether `value IN subquery` may be NULL.
    fn may_be_unknown(
        &self,
        input: &LogicalPlan,
        value: &Expr,
        subquery: &LogicalPlan,
    ) -> Result<bool> {
        let (_, element) = subquery.schema().qualified_field(0);
        Ok(element.is_nullable() || value.nullable(input.schema().as_ref())?)
    }

    /// The subquery as what makes a comparison of `value` with its rows unknown: a row if there
    /// is any, saying whether there is a NULL.
    fn unknown_related(
        &mut self,
        input: &LogicalPlan,
        value: Expr,
        subquery: &LogicalPlan,
    ) -> Result<Related> {
        let is_null = first_column(subquery).is_null();
        let mut related = self.relate(input, subquery, vec![is_null], true)?;
        let null = related.values.remove(0);
        related.filter = and(related.filter, value.is_null().or(null));
        Ok(related)
    }

    /// An expression in whose place of subqueries there are columns, which `input` gets.
    /// `as_filter`: the result may be false where it should be NULL.
    fn values(&mut self, input: &mut LogicalPlan, expr: Expr, as_filter: bool) -> Result<Expr> {
        if !has_subquery(&expr) {
            return Ok(expr);
        }
        match expr {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (Operator::And | Operator::Or),
                right,
            }) if as_filter => {
                let left = self.values(input, *left, true)?;
                let right = self.values(input, *right, true)?;
                Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            Expr::InSubquery(membership) if as_filter && !membership.negated => {
                self.membership_value(input, membership, true)
            }
            expr => expr
                .transform_up(|expr| {
                    Ok(match expr {
                        Expr::Exists(Exists { subquery, negated }) => {
                            let value = self.exists_value(input, &subquery.subquery)?;
                            Transformed::yes(if negated { !value } else { value })
                        }
                        Expr::InSubquery(membership) => {
                            Transformed::yes(self.membership_value(input, membership, false)?)
                        }
                        Expr::ScalarSubquery(subquery) => {
                            Transformed::yes(self.scalar(input, &subquery.subquery)?)
                        }
                        other => Transformed::no(other),
                    })
                })
                .data(),
        }
    }

    fn exists_value(&mut self, input: &mut LogicalPlan, subquery: &LogicalPlan) -> Result<Expr> {
        let subquery = regardless_of_columns(subquery)?;
        if always_one_row(subquery) {
            return Ok(lit(true));
        }
        let related = self.relate(input, subquery, Vec::new(), false)?;
        self.mark(input, related)
    }

    fn membership_value(
        &mut self,
        input: &mut LogicalPlan,
        membership: InSubquery,
        as_filter: bool,
    ) -> Result<Expr> {
        let InSubquery { expr, subquery, negated } = membership;
        let subquery = subquery.subquery.as_ref();
        let value = self.values(input, *expr, false)?;
        let unknown = !as_filter && self.may_be_unknown(input, &value, subquery)?;
        let related = self.relate(input, subquery, vec![first_column(subquery)], false)?;
        let found = self.mark(input, equal(related, value.clone()))?;
        let result = if unknown {
            let related = self.unknown_related(input, value, subquery)?;
            let unknown = self.mark(input, related)?;
            let null = Expr::Literal(ScalarValue::Boolean(None), None);
            when(found, lit(true)).when(unknown, null).otherwise(lit(false))?
        } else {
            found
        };
        Ok(if negated { !result } else { result })
    }

    /// Adds a column that says whether a row has a match.
    fn mark(&mut self, input: &mut LogicalPlan, related: Related) -> Result<Expr> {
        let columns = input.schema().columns();
        let joined = related.join(input.clone(), JoinType::LeftMark)?;
        let mark = joined.schema().columns().pop().expect("a mark join adds a column");
        let name = self.names.next("mark");
        let mut exprs: Vec<Expr> = columns.into_iter().map(Expr::Column).collect();
        exprs.push(Expr::Column(mark).alias(&name));
        *input = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(joined))?);
        Ok(Expr::Column(Column::new_unqualified(name)))
    }

    /// Adds the value of a scalar subquery as a column.
    fn scalar(&mut self, input: &mut LogicalPlan, subquery: &LogicalPlan) -> Result<Expr> {
        let value = first_column(subquery);
        if free(subquery)?.is_empty() && always_one_row(subquery) {
            let mut related = self.relate(input, subquery, vec![value], false)?;
            let value = related.values.remove(0);
            *input = related.join(input.clone(), JoinType::Inner)?;
            return Ok(value);
        }
        let once = at_most_one_row(subquery)?;
        let mut related = self.relate_scalar(input, subquery, value, once)?;
        let value = related.values.remove(0);
        let defaults = related.defaults.take();
        let rest = std::mem::take(&mut related.values);
        *input = related.join(input.clone(), JoinType::Left)?;
        if let Some(default) = defaults.and_then(|defaults| defaults.into_iter().next()) {
            let seen = rest.into_iter().next().expect("a flag comes with the defaults");
            return when(seen.is_null(), default).otherwise(value);
        }
        match rest.into_iter().next() {
            Some(count) if !once => {
                let call = ScalarFunction::new_udf(single_row(), vec![value, count]);
                Ok(Expr::ScalarFunction(call))
            }
            _ => Ok(value),
        }
    }

    fn relate_scalar(
        &mut self,
        input: &LogicalPlan,
        subquery: &LogicalPlan,
        value: Expr,
        once: bool,
    ) -> Result<Related> {
        let pulled = pull(subquery, &mut self.names)?.filter(|pulled| pulled.residual.is_empty());
        let mut pulled = match pulled {
            Some(pulled) => pulled,
            None => self.by_domain(input, subquery)?,
        };
        if !once {
            let (value, plan) = counted(pulled.plan, &pulled.hidden, value, &mut self.names)?;
            pulled.plan = plan;
            return self.sealed(pulled, value.into(), false);
        }
        match &pulled.defaults {
            Some(defaults) => {
                let of = |expr: &Expr| match expr {
                    Expr::Column(column) => defaults.iter().find(|(of, _)| of == column),
                    _ => None,
                };
                let Some((_, default)) = of(&value).cloned() else {
                    return Err(refused("this scalar subquery"));
                };
                let mut related = self.sealed(pulled, vec![value, lit(true)], false)?;
                related.defaults = Some(vec![around(default)?]);
                Ok(related)
            }
            None => self.sealed(pulled, vec![value], false),
        }
    }

    /// Gets a subquery ready to be joined, with the values of some expressions over its columns.
    fn relate(
        &mut self,
        input: &LogicalPlan,
        subquery: &LogicalPlan,
        values: Vec<Expr>,
        distinct: bool,
    ) -> Result<Related> {
        let pulled = pull(subquery, &mut self.names)?.filter(|pulled| pulled.defaults.is_none());
        let pulled = match pulled {
            Some(pulled) => pulled,
            None => self.by_domain(input, subquery)?,
        };
        self.sealed(pulled, values, distinct)
    }

    /// A subquery for each combination of values that it takes from `input`.
    fn by_domain(&mut self, input: &LogicalPlan, subquery: &LogicalPlan) -> Result<Pulled> {
        let outer = free(subquery)?;
        if let Some((_, column)) = outer.iter().find(|(_, c)| !input.schema().has_column(c)) {
            return Err(refused(&format!("a subquery that refers to {column} from here")));
        }
        let domain = Domain::new(input, outer, &mut self.names)?;
        let plan = domain.attach(subquery, &mut self.names)?;
        let keys = domain
            .names
            .0
            .iter()
            .map(|((_, column), name)| (Expr::Column(column.clone()), name.clone()));
        let keys = keys.collect();
        let hidden = domain.column_list();
        let (residual, defaults) = (Vec::new(), None);
        Ok(Pulled { plan, keys, residual, hidden, defaults, nulls_equal: true })
    }

    /// Gives a plan's columns names that are its own.
    fn sealed(&mut self, pulled: Pulled, values: Vec<Expr>, distinct: bool) -> Result<Related> {
        let alias = self.names.next("subquery");
        let Pulled { plan, keys, residual, hidden, nulls_equal, .. } = pulled;
        let plan = self.plan(plan)?;
        let qualified =
            |column: &Column| Expr::Column(Column::new(Some(alias.as_str()), &column.name));
        let mut exprs: Vec<Expr> = hidden.iter().cloned().map(Expr::Column).collect();
        let mut columns = Vec::with_capacity(values.len());
        for value in values {
            let name = self.names.next("value");
            exprs.push(value.alias(&name));
            columns.push(qualified(&Column::new_unqualified(name)));
        }
        if exprs.is_empty() {
            exprs.push(lit(true).alias(self.names.next("value")));
        }
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?);
        let plan = match distinct {
            true => LogicalPlan::Distinct(Distinct::All(Arc::new(plan))),
            false => plan,
        };
        let plan =
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.as_str())?);
        let on = keys
            .iter()
            .map(|(outer, key)| Ok((around(outer.clone())?, qualified(key))))
            .collect::<Result<_>>()?;
        let filter = residual
            .into_iter()
            .map(|condition| {
                let inner = condition.transform_up(|expr| {
                    Ok(match &expr {
                        Expr::Column(column) => Transformed::yes(qualified(column)),
                        _ => Transformed::no(expr),
                    })
                });
                around(inner.data()?)
            })
            .collect::<Result<Vec<_>>>()?;
        let null_equality = match nulls_equal {
            true => NullEquality::NullEqualsNull,
            false => NullEquality::NullEqualsNothing,
        };
        let filter = conjunction(filter);
        Ok(Related { plan, on, null_equality, filter, values: columns, defaults: None })
    }
}

/// One row for each value of `keys`: a value, and how many there were.
fn counted(
    plan: LogicalPlan,
    keys: &[Column],
    value: Expr,
    names: &mut Names,
) -> Result<([Expr; 2], LogicalPlan)> {
    let (least, count) = (names.next("value"), names.next("count"));
    let calls = vec![
        min_udaf().call(vec![value]).alias(&least),
        count_udaf().call(vec![lit(1_i64)]).alias(&count),
    ];
    let groups = keys.iter().cloned().map(Expr::Column).collect();
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), groups, calls)?);
    let column = |name: String| Expr::Column(Column::new_unqualified(name));
    Ok(([column(least), column(count)], plan))
}

/// The condition that a related subquery's one value equals `value`.
fn equal(mut related: Related, value: Expr) -> Related {
    let element = related.values.remove(0);
    match related.null_equality {
        NullEquality::NullEqualsNothing => related.on.push((value, element)),
        NullEquality::NullEqualsNull => related.filter = and(related.filter, value.eq(element)),
    }
    related
}

fn and(filter: Option<Expr>, condition: Expr) -> Option<Expr> {
    Some(match filter {
        Some(filter) => filter.and(condition),
        None => condition,
    })
}

/// Columns from around the subquery, seen from there.
fn around(expr: Expr) -> Result<Expr> {
    expr.transform_up(|expr| {
        Ok(match expr {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            other => Transformed::no(other),
        })
    })
    .data()
}

fn first_column(subquery: &LogicalPlan) -> Expr {
    Expr::Column(Column::from(subquery.schema().qualified_field(0)))
}

/// NOT in front of EXISTS and IN is theirs.
fn without_not(condition: Expr) -> Expr {
    let Expr::Not(inner) = condition else { return condition };
    match without_not(*inner) {
        Expr::Exists(Exists { subquery, negated }) => {
            Expr::Exists(Exists { subquery, negated: !negated })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            Expr::InSubquery(InSubquery { expr, subquery, negated: !negated })
        }
        other => Expr::Not(Box::new(other)),
    }
}

/// A plan's columns, if it has others too.
fn only(plan: LogicalPlan, columns: Vec<Column>) -> Result<LogicalPlan> {
    if plan.schema().columns() == columns {
        return Ok(plan);
    }
    project_columns(plan, columns)
}

enum Side {
    Left,
    Right,
}

/// The one side of a join that a condition is about, if it is one: the left, if it is none.
fn side_of(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Result<Option<Side>> {
    let mut columns: Vec<Column> = condition.column_refs().into_iter().cloned().collect();
    columns.extend(free_in(condition, &DFSchema::empty())?.into_iter().map(|(_, column)| column));
    Ok(if columns.iter().all(|column| !right.has_column(column)) {
        Some(Side::Left)
    } else if columns.iter().all(|column| !left.has_column(column)) {
        Some(Side::Right)
    } else {
        None
    })
}
