//! Joins: inner joins, and what can be had from them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::scalar::ScalarValue;
use evert_fold::{JoinKind, Node};

use super::relation::{Relation, column_index, schema_of, substitute, type_of};
use super::translate::{Result, Translation, cast, join_name, unsupported};

/// One side of a join: its rows, the columns it had, and which columns are its keys.
struct Side {
    relation: Relation,
    columns: usize,
    keys: Vec<usize>,
}

impl Translation<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<Relation> {
        if join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty() {
            return Err(unsupported("INTERSECT, EXCEPT or IS NOT DISTINCT FROM as a join key"));
        }
        match join.join_type {
            JoinType::Inner => self.inner(join),
            JoinType::LeftSemi if join.filter.is_none() && !join.on.is_empty() => self.semi(join),
            // An uncorrelated scalar subquery: the right side always has exactly one row.
            JoinType::Left
                if join.on.is_empty() && is_true(&join.filter) && one_row(&join.right) =>
            {
                let cross = Join { join_type: JoinType::Inner, filter: None, ..join.clone() };
                self.inner(&cross)
            }
            JoinType::LeftSemi => Err(unsupported("EXISTS or IN with this condition")),
            other => Err(unsupported(join_name(other))),
        }
    }

    fn inner(&mut self, join: &Join) -> Result<Relation> {
        let (left, right) = self.sides(join)?;
        let filter = match &join.filter {
            Some(filter) => {
                let filter = self.physical(filter, &join.schema)?;
                let added = left.relation.fields.len() - left.columns;
                Some(shift(filter, left.columns, added)?)
            }
            None => None,
        };
        self.combine(left, right, filter)
    }

    /// Rows of the left side that have a match: a join with each key of the right side once.
    fn semi(&mut self, join: &Join) -> Result<Relation> {
        let (left, right) = self.sides(join)?;
        let columns = right.relation.columns();
        let exprs: Vec<_> = right.keys.iter().map(|key| Arc::clone(&columns[*key])).collect();
        let fields = right.keys.iter().map(|key| right.relation.fields[*key].clone()).collect();
        let mut keys = self.builder.project(right.relation, exprs, fields)?;
        let input = self.builder.place(&mut keys);
        let distinct = self.builder.push(Node::Distinct { input });
        let right = Side {
            columns: 0,
            keys: (0..keys.fields.len()).collect(),
            relation: Relation::of_node(distinct, keys.fields, None),
        };
        let key = left.relation.key.clone();
        let mut relation = self.combine(left, right, None)?;
        relation.key = key;
        Ok(relation)
    }

    /// Joins two sides and drops the columns that only the keys needed.
    fn combine(
        &mut self,
        left: Side,
        right: Side,
        filter: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Relation> {
        let Side { relation: mut left_rows, columns: left_columns, keys: left_keys } = left;
        let Side { relation: mut right_rows, columns: right_columns, keys: right_keys } = right;
        let (left, right) =
            (self.builder.place(&mut left_rows), self.builder.place(&mut right_rows));
        let width = left_rows.fields.len();
        let fields: Vec<Field> = left_rows.fields.into_iter().chain(right_rows.fields).collect();
        let on = left_keys.into_iter().zip(right_keys).collect();
        let node = Node::Join {
            left,
            right,
            kind: JoinKind::Inner,
            null_equal: false,
            on,
            filter,
            schema: schema_of(&fields),
        };
        let joined = Relation::of_node(self.builder.push(node), fields, None);
        let columns = joined.columns();
        let wanted: Vec<usize> = (0..left_columns).chain(width..width + right_columns).collect();
        let exprs = wanted.iter().map(|index| Arc::clone(&columns[*index])).collect();
        let fields = wanted.iter().map(|index| joined.fields[*index].clone()).collect();
        Ok(self.builder.project(joined, exprs, fields)?)
    }

    fn sides(&mut self, join: &Join) -> Result<(Side, Side)> {
        let left = self.relation(&join.left)?;
        let right = self.relation(&join.right)?;
        let mut left_keys = Vec::with_capacity(join.on.len());
        let mut right_keys = Vec::with_capacity(join.on.len());
        for (left, right) in &join.on {
            let left = self.physical(left, join.left.schema())?;
            let right = self.physical(right, join.right.schema())?;
            let left_type = left.data_type(join.left.schema().as_arrow())?;
            let right_type = right.data_type(join.right.schema().as_arrow())?;
            let ty = common_type(&left_type, &right_type)?;
            left_keys.push(cast(left, &left_type, &ty));
            right_keys.push(cast(right, &right_type, &ty));
        }
        Ok((self.side(left, left_keys)?, self.side(right, right_keys)?))
    }

    /// Adds the keys that are not columns already.
    fn side(&mut self, relation: Relation, keys: Vec<Arc<dyn PhysicalExpr>>) -> Result<Side> {
        let columns = relation.fields.len();
        let mut exprs = relation.columns();
        let mut fields = relation.fields.clone();
        let mut indexes = Vec::with_capacity(keys.len());
        for key in keys {
            indexes.push(match column_index(&key) {
                Some(index) => index,
                None => {
                    let ty = key.data_type(&schema_of(&relation.fields))?;
                    fields.push(Field::new(format!("__key{}", exprs.len()), ty, true));
                    exprs.push(key);
                    exprs.len() - 1
                }
            });
        }
        debug_assert!(indexes.iter().all(|index| *type_of(&fields, *index) != DataType::Null));
        let relation = self.builder.project(relation, exprs, fields)?;
        Ok(Side { relation, columns, keys: indexes })
    }
}

fn common_type(left: &DataType, right: &DataType) -> Result<DataType> {
    if left == right {
        return Ok(left.clone());
    }
    comparison_coercion(left, right)
        .ok_or_else(|| unsupported(format!("a join of {left} with {right}")))
}

/// Moves the right side's columns by the columns that were added to the left side.
fn shift(
    expr: Arc<dyn PhysicalExpr>,
    left_columns: usize,
    added: usize,
) -> Result<Arc<dyn PhysicalExpr>> {
    let moved = |index: usize| if index < left_columns { index } else { index + added };
    Ok(substitute(expr, |index| Arc::new(Column::new("", moved(index))))?)
}

fn is_true(filter: &Option<Expr>) -> bool {
    matches!(filter, None | Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)))
}

/// Whether a plan gives exactly one row, whatever its input.
fn one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => one_row(&alias.input),
        _ => false,
    }
}
