//! Any other subquery: it runs once for each combination of the values that it takes from around
//! it, which it carries along as columns.
//!
//! After T. Neumann and A. Kemper, "Unnesting Arbitrary Queries".

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, ExprSchema, JoinType, NullEquality, Result};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder,
    Projection, Union, Window, when,
};

use super::free::{Outer, Renaming, lateral};
use super::pull::{of_nothing, realias};
use super::{Names, bounds, refused};
use crate::rules::order::{first_rows, project_columns};
use crate::rules::set_operation::SetOperation;

/// The values that a subquery takes from around it.
pub(super) struct Domain {
    /// Each combination once; its columns are `columns`.
    pub(super) rows: LogicalPlan,
    /// The columns around, and their names in `rows`.
    pub(super) names: Renaming,
}

impl Domain {
    /// The combinations of `outer` that there are in `around`.
    pub(super) fn new(around: &LogicalPlan, outer: Vec<Outer>, names: &mut Names) -> Result<Self> {
        let named: Vec<(Outer, Column)> = outer
            .into_iter()
            .map(|outer| (outer, Column::new_unqualified(names.next("outer"))))
            .collect();
        let exprs: Vec<Expr> = named
            .iter()
            .map(|((_, column), name)| Expr::Column(column.clone()).alias(&name.name))
            .collect();
        let rows = LogicalPlanBuilder::from(around.clone()).project(exprs)?.distinct()?.build()?;
        Ok(Self { rows, names: Renaming(named) })
    }

    fn columns(&self) -> impl Iterator<Item = Expr> {
        self.names.0.iter().map(|(_, name)| Expr::Column(name.clone()))
    }

    pub(super) fn column_list(&self) -> Vec<Column> {
        self.names.0.iter().map(|(_, name)| name.clone()).collect()
    }

    /// Every combination of values with every row of a plan.
    fn with_each(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        join(self.rows.clone(), plan, Vec::new(), None, JoinType::Inner)
    }

    /// The plan, its columns and the domain's, for each combination of the domain's values.
    pub(super) fn attach(&self, plan: &LogicalPlan, fresh: &mut Names) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => {
                return Ok(self.rows.clone());
            }
            _ if !self.names.touches(plan)? => return self.with_each(plan.clone()),
            _ => {}
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.attach(&projection.input, fresh)?;
                let mut exprs = self.renamed(plan, &projection.expr, projection.input.schema())?;
                exprs.extend(self.columns());
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.attach(&filter.input, fresh)?;
                let predicate =
                    self.names.apply(filter.predicate.clone(), filter.input.schema())?;
                Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.attach(&alias.input, fresh)?;
                realias(input, alias, &self.column_list())
            }
            // The first LATERAL of a FROM clause: what it takes is what the whole clause takes.
            LogicalPlan::Subquery(subquery) => self.attach(&subquery.subquery, fresh),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(plan, aggregate, fresh),
            LogicalPlan::Join(join) => self.join(join, fresh),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.attach(input, fresh)?;
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
            }
            // Rows of a subquery have no order.
            LogicalPlan::Sort(sort) => self.attach(&sort.input, fresh),
            LogicalPlan::Limit(limit) => {
                let Some((skip, fetch)) = bounds(limit)? else {
                    return Err(refused("LIMIT by an expression in a correlated subquery"));
                };
                let (input, order) = match limit.input.as_ref() {
                    LogicalPlan::Sort(sort) => (&sort.input, sort.expr.clone()),
                    _ => (&limit.input, Vec::new()),
                };
                let input = self.attach(input, fresh)?;
                first_rows(input, self.columns().collect(), order, skip, fetch)
            }
            LogicalPlan::Window(window) => self.window(plan, window, fresh),
            LogicalPlan::Union(union) => self.union(union, fresh),
            LogicalPlan::Unnest(unnest) => {
                let input = self.attach(&unnest.input, fresh)?;
                LogicalPlanBuilder::from(input)
                    .unnest_columns_with_options(
                        unnest.exec_columns.clone(),
                        unnest.options.clone(),
                    )?
                    .build()
            }
            LogicalPlan::Values(values) => {
                let mut inputs = Vec::with_capacity(values.values.len());
                for row in &values.values {
                    let columns = values.schema.columns().into_iter();
                    let mut exprs = Vec::with_capacity(row.len() + self.names.0.len());
                    for ((expr, field), column) in
                        row.iter().zip(values.schema.fields()).zip(columns)
                    {
                        let expr = self.names.apply(expr.clone(), &DFSchema::empty())?;
                        let expr = datafusion::logical_expr::cast(expr, field.data_type().clone());
                        exprs.push(expr.alias(column.name));
                    }
                    exprs.extend(self.columns());
                    let row = Projection::try_new(exprs, Arc::new(self.rows.clone()))?;
                    inputs.push(Arc::new(LogicalPlan::Projection(row)));
                }
                Ok(LogicalPlan::Union(Union::try_new(inputs)?))
            }
            other => match SetOperation::of(other) {
                Some(operation) => {
                    let mut side = |side: &LogicalPlan| {
                        let columns = side.schema().columns();
                        let attached = self.attach(side, fresh)?;
                        project_columns(attached, [columns, self.column_list()].concat())
                    };
                    let (left, right) = (side(&operation.left)?, side(&operation.right)?);
                    SetOperation::plan(left, right, operation.operator, operation.all)
                }
                None => Err(refused(&format!("{} in a correlated subquery", other.display()))),
            },
        }
    }

    /// A node's expressions over `schema`, with their names.
    fn renamed(&self, plan: &LogicalPlan, exprs: &[Expr], schema: &DFSchema) -> Result<Vec<Expr>> {
        let names = NamePreserver::new(plan);
        let renamed = exprs.iter().map(|expr| {
            let name = names.save(expr);
            Ok(name.restore(self.names.apply(expr.clone(), schema)?))
        });
        renamed.collect()
    }

    /// A group for each combination of values, also for those over no rows if there is no
    /// GROUP BY.
    fn aggregate(
        &self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        fresh: &mut Names,
    ) -> Result<LogicalPlan> {
        if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) {
            return Err(refused("GROUPING SETS in a correlated subquery"));
        }
        let schema = aggregate.input.schema();
        let input = self.attach(&aggregate.input, fresh)?;
        let groups = self.renamed(plan, &aggregate.group_expr, schema)?;
        let aggregates = self.renamed(plan, &aggregate.aggr_expr, schema)?;
        let all = self.columns().chain(groups).collect();
        let grouped = Aggregate::try_new(Arc::new(input), all, aggregates)?;
        let grouped = LogicalPlan::Aggregate(grouped);
        if !aggregate.group_expr.is_empty() {
            return Ok(grouped);
        }
        let seen = fresh.next("seen");
        let (grouped, own) = self.apart(grouped, Some(&seen), fresh)?;
        let on = self.columns().zip(own).collect();
        let joined = join(self.rows.clone(), grouped, on, None, JoinType::Left)?;
        let missing = Expr::Column(Column::new_unqualified(&seen)).is_null();
        let mut exprs = Vec::with_capacity(joined.schema().fields().len());
        for (column, default) in of_nothing(aggregate)? {
            let value = Expr::Column(column.clone());
            let value = when(missing.clone(), default).otherwise(value)?;
            exprs.push(value.alias_qualified(column.relation, column.name));
        }
        exprs.extend(self.columns());
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(joined))?))
    }

    /// A plan whose columns of the domain have other names, which are given, and if `flag` is
    /// there a column of it that is true.
    fn apart(
        &self,
        plan: LogicalPlan,
        flag: Option<&str>,
        fresh: &mut Names,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let own: Vec<Column> =
            self.names.0.iter().map(|_| Column::new_unqualified(fresh.next("outer"))).collect();
        let exprs = plan.schema().columns().into_iter().map(|column| {
            let place = self.names.0.iter().position(|(_, name)| *name == column);
            match place {
                Some(place) => Expr::Column(column).alias(&own[place].name),
                None => Expr::Column(column),
            }
        });
        let flag = flag.map(|flag| datafusion::logical_expr::lit(true).alias(flag));
        let exprs = exprs.chain(flag).collect();
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?);
        Ok((plan, own.into_iter().map(Expr::Column).collect()))
    }

    fn join(&self, original: &Join, fresh: &mut Names) -> Result<LogicalPlan> {
        let both = original.left.schema().join(original.right.schema())?;
        let mut conditions = Vec::with_capacity(original.on.len() + 1);
        if let Some(filter) = &original.filter {
            conditions.push(self.names.apply(filter.clone(), &both)?);
        }
        if lateral(original)?.is_some() {
            let left = self.attach(&original.left, fresh)?;
            let inner = Renaming(
                self.names
                    .0
                    .iter()
                    .filter(|((_, outer), _)| !original.left.schema().has_column(outer))
                    .cloned()
                    .collect(),
            );
            let right = inner.outer(original.right.as_ref().clone())?;
            return Ok(LogicalPlan::Join(Join::try_new(
                Arc::new(left),
                Arc::new(right),
                original.on.clone(),
                conditions.pop(),
                original.join_type,
                original.join_constraint,
                original.null_equality,
                original.null_aware,
            )?));
        }
        for (left, right) in &original.on {
            let left = self.names.apply(left.clone(), &both)?;
            let right = self.names.apply(right.clone(), &both)?;
            conditions.push(match original.null_equality {
                NullEquality::NullEqualsNothing => left.eq(right),
                NullEquality::NullEqualsNull => is_not_distinct(left, right),
            });
        }
        // A side that takes nothing joins as it is, where its rows without a match are not kept.
        let kind = original.join_type;
        let (left_takes, right_takes) =
            (self.names.touches(&original.left)?, self.names.touches(&original.right)?);
        let keeps_left = !matches!(kind, JoinType::Inner | JoinType::Right);
        let keeps_right = matches!(kind, JoinType::Right | JoinType::Full);
        if !matches!(kind, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) {
            return Err(refused(&format!("a {kind} join in a correlated subquery")));
        }
        let condition = conditions.into_iter().reduce(Expr::and);
        if !right_takes && !keeps_right {
            let left = self.attach(&original.left, fresh)?;
            return join(left, original.right.as_ref().clone(), Vec::new(), condition, kind);
        }
        if !left_takes && !keeps_left {
            let right = self.attach(&original.right, fresh)?;
            return join(original.left.as_ref().clone(), right, Vec::new(), condition, kind);
        }
        let left = self.attach(&original.left, fresh)?;
        let right = self.attach(&original.right, fresh)?;
        let (right, own) = self.apart(right, None, fresh)?;
        let equal = self.columns().zip(own.iter().cloned());
        let equal = equal.map(|(left, right)| is_not_distinct(left, right));
        let condition = equal.chain(condition).reduce(Expr::and);
        let joined = join(left, right, Vec::new(), condition, kind)?;
        let mut exprs: Vec<Expr> =
            original.schema.columns().into_iter().map(Expr::Column).collect();
        for (left, right) in self.columns().zip(own) {
            let name = left.schema_name().to_string();
            exprs.push(match kind {
                JoinType::Right => right.alias(name),
                JoinType::Full => when(left.clone().is_null(), right).otherwise(left)?.alias(name),
                _ => left,
            });
        }
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(joined))?))
    }

    fn window(
        &self,
        plan: &LogicalPlan,
        window: &Window,
        fresh: &mut Names,
    ) -> Result<LogicalPlan> {
        let input = self.attach(&window.input, fresh)?;
        let names = NamePreserver::new(plan);
        let mut exprs = Vec::with_capacity(window.window_expr.len());
        for expr in &window.window_expr {
            let name = names.save(expr);
            let renamed = self.names.apply(expr.clone(), window.input.schema())?;
            let Expr::WindowFunction(mut call) = renamed.unalias_nested().data else {
                return Err(refused("this window function in a correlated subquery"));
            };
            let WindowFunction { params, .. } = call.as_mut();
            params.partition_by.extend(self.columns());
            exprs.push(name.restore(Expr::WindowFunction(call)));
        }
        Ok(LogicalPlan::Window(Window::try_new(exprs, Arc::new(input))?))
    }

    fn union(&self, union: &Union, fresh: &mut Names) -> Result<LogicalPlan> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let columns = input.schema().columns().into_iter();
            let attached = self.attach(input, fresh)?;
            let mut exprs = Vec::new();
            for (column, (qualifier, field)) in columns.zip(union.schema.iter()) {
                let have = attached.schema().field_from_column(&column)?.data_type().clone();
                let expr = to_type(Expr::Column(column), &have, field.data_type());
                exprs.push(expr.alias_qualified(qualifier.cloned(), field.name()));
            }
            exprs.extend(self.columns());
            let input = Projection::try_new(exprs, Arc::new(attached))?;
            inputs.push(Arc::new(LogicalPlan::Projection(input)));
        }
        Ok(LogicalPlan::Union(Union::try_new(inputs)?))
    }
}

fn to_type(expr: Expr, have: &DataType, want: &DataType) -> Expr {
    if have == want { expr } else { datafusion::logical_expr::cast(expr, want.clone()) }
}

fn is_not_distinct(left: Expr, right: Expr) -> Expr {
    datafusion::logical_expr::binary_expr(
        left,
        datafusion::logical_expr::Operator::IsNotDistinctFrom,
        right,
    )
}

/// A join in whose `on` NULL equals NULL.
pub(super) fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
    kind: JoinType,
) -> Result<LogicalPlan> {
    let equality = match on.is_empty() {
        true => NullEquality::NullEqualsNothing,
        false => NullEquality::NullEqualsNull,
    };
    let (left, right) = (Arc::new(left), Arc::new(right));
    let constraint = JoinConstraint::On;
    Ok(LogicalPlan::Join(Join::try_new(
        left, right, on, filter, kind, constraint, equality, false,
    )?))
}
