//! INTERSECT and EXCEPT, with and without ALL.
//!
//! DataFusion plans them as semi and anti joins, which lose ALL's multiplicities and the common
//! type of the sides. They are recognised while nothing else looks like them.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{
    Column, DFSchemaRef, JoinType, NullEquality, Result, exec_datafusion_err,
};
use datafusion::logical_expr::{
    Distinct, Expr, Extension, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Projection,
    UserDefinedLogicalNodeCore, cast,
};

use super::numbers::unified;
use super::order::{fresh, numbered};

/// Which set operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) enum SetOperator {
    Intersect,
    Except,
}

/// `left INTERSECT | EXCEPT [ALL] right`, by whole rows; NULL equals NULL. Its columns are the
/// left side's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SetOperation {
    pub(crate) left: Arc<LogicalPlan>,
    pub(crate) right: Arc<LogicalPlan>,
    pub(crate) operator: SetOperator,
    pub(crate) all: bool,
    pub(crate) schema: DFSchemaRef,
}

impl SetOperation {
    /// An operation on sides with the same number of columns.
    pub(crate) fn plan(
        left: LogicalPlan,
        right: LogicalPlan,
        operator: SetOperator,
        all: bool,
    ) -> Result<LogicalPlan> {
        let (left, right) = common_types(left, right)?;
        let schema = Arc::clone(left.schema());
        let (left, right) = (Arc::new(left), Arc::new(right));
        let node = Arc::new(Self { left, right, operator, all, schema });
        Ok(LogicalPlan::Extension(Extension { node }))
    }

    /// The operation that a plan is.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// The same as joins.
    fn joined(&self) -> Result<LogicalPlan> {
        let join_type = match self.operator {
            SetOperator::Intersect => JoinType::LeftSemi,
            SetOperator::Except => JoinType::LeftAnti,
        };
        let (left, right) = (self.left.as_ref().clone(), self.right.as_ref().clone());
        if !self.all {
            let left = LogicalPlanBuilder::from(left).distinct()?.build()?;
            return whole_rows(left, right, join_type);
        }
        // The first, second, ... of equal rows meets the first, second, ... on the other side.
        let columns = self.schema.columns();
        let number = |side: LogicalPlan| {
            let keys: Vec<Expr> = side.schema().columns().into_iter().map(Expr::Column).collect();
            let name = fresh(&side, "number");
            numbered(side, keys, Vec::new(), &name)
        };
        let joined = whole_rows(number(left)?, number(right)?, join_type)?;
        LogicalPlanBuilder::from(joined).project(columns.into_iter().map(Expr::Column))?.build()
    }
}

/// A join on all columns, side by side.
fn whole_rows(left: LogicalPlan, right: LogicalPlan, kind: JoinType) -> Result<LogicalPlan> {
    let right = LogicalPlanBuilder::from(right).alias(fresh(&left, "right"))?.build()?;
    let columns = left.schema().columns().into_iter().zip(right.schema().columns());
    let on = columns.map(|(left, right)| (Expr::Column(left), Expr::Column(right))).collect();
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?))
}

impl PartialOrd for SetOperation {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let key = |node: &Self| (node.operator, node.all);
        let order = key(self).partial_cmp(&key(other))?;
        (order.is_ne() || self == other).then_some(order)
    }
}

impl UserDefinedLogicalNodeCore for SetOperation {
    fn name(&self) -> &str {
        "SetOperation"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.operator, if self.all { " All" } else { "" })
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(right), Some(left), None) = (inputs.pop(), inputs.pop(), inputs.pop()) else {
            return Err(exec_datafusion_err!("a set operation has two sides"));
        };
        let schema = Arc::clone(left.schema());
        Ok(Self { left: Arc::new(left), right: Arc::new(right), schema, ..self.clone() })
    }
}

/// Finds the set operations in a plan that comes straight from SQL.
pub(super) fn recognise(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) if is_set_operation(&join) => {
            let operator = match join.join_type {
                JoinType::LeftSemi => SetOperator::Intersect,
                _ => SetOperator::Except,
            };
            let right = Arc::unwrap_or_clone(join.right);
            let (left, all) = match Arc::unwrap_or_clone(join.left) {
                LogicalPlan::Distinct(Distinct::All(left)) => (Arc::unwrap_or_clone(left), false),
                left => (left, true),
            };
            Ok(Transformed::yes(SetOperation::plan(left, right, operator, all)?))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

pub(super) fn is_set_operation(join: &Join) -> bool {
    let side_by_side = |(index, (left, right)): (usize, &(Expr, Expr))| {
        let column = |plan: &LogicalPlan| Column::from(plan.schema().qualified_field(index));
        *left == Expr::Column(column(&join.left)) && *right == Expr::Column(column(&join.right))
    };
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && join.on.len() == join.left.schema().fields().len()
        && join.on.iter().enumerate().all(side_by_side)
}

/// Casts columns whose types differ from side to side.
fn common_types(left: LogicalPlan, right: LogicalPlan) -> Result<(LogicalPlan, LogicalPlan)> {
    let types: Vec<_> = left
        .schema()
        .fields()
        .iter()
        .zip(right.schema().fields())
        .map(|(left, right)| {
            unified(left.data_type(), right.data_type()).unwrap_or_else(|| left.data_type().clone())
        })
        .collect();
    Ok((with_types(left, &types)?, with_types(right, &types)?))
}

pub(super) fn with_types(plan: LogicalPlan, types: &[DataType]) -> Result<LogicalPlan> {
    let fields = plan.schema().fields();
    if fields.iter().zip(types).all(|(field, ty)| field.data_type() == ty) {
        return Ok(plan);
    }
    let schema = Arc::clone(plan.schema());
    let exprs = schema.iter().zip(types).map(|((qualifier, field), ty)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        if field.data_type() == ty {
            return column;
        }
        cast(column, ty.clone()).alias_qualified(qualifier.cloned(), field.name())
    });
    Ok(LogicalPlan::Projection(Projection::try_new(exprs.collect(), Arc::new(plan))?))
}

/// Gives the sides of each operation one type a column, where what is below them has found others;
/// says whether that changed anything.
pub(super) fn common(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_up_with_subqueries(|plan| {
        let Some(operation) = SetOperation::of(&plan) else { return Ok(Transformed::no(plan)) };
        let types = |plan: &LogicalPlan| -> Vec<DataType> {
            plan.schema().fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if types(&operation.left) == types(&operation.right) {
            return Ok(Transformed::no(plan));
        }
        let SetOperation { left, right, operator, all, .. } = operation.clone();
        let (left, right) = (Arc::unwrap_or_clone(left), Arc::unwrap_or_clone(right));
        Ok(Transformed::yes(SetOperation::plan(left, right, operator, all)?))
    })
}

/// Puts joins in the place of set operations.
pub(super) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match SetOperation::of(&plan) {
        Some(operation) => Ok(Transformed::yes(operation.joined()?)),
        None => Ok(Transformed::no(plan)),
    })
    .data()
}
