//! Joins of every kind.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::Join;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use evert_fold::{JoinKind, Node};

use super::relation::{Relation, column_index, schema_of, substitute, type_of};
use super::translate::{Result, Translation, cast, unsupported};

/// One side of a join: its rows, the columns it had, and which columns are its keys.
struct Side {
    relation: Relation,
    columns: usize,
    keys: Vec<usize>,
}

impl Side {
    /// Whether a row of the other side can match no more than one row of this side.
    fn is_unique(&self) -> bool {
        let key = self.relation.key.as_deref().filter(|key| !key.is_empty());
        key.is_some_and(|key| key.iter().all(|column| self.keys.contains(column)))
    }
}

impl Translation<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<Relation> {
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            JoinType::LeftSemi => JoinKind::Semi,
            JoinType::LeftAnti if !join.null_aware => JoinKind::Anti,
            JoinType::LeftMark => JoinKind::Mark,
            other => return Err(unsupported(format!("a {other} join"))),
        };
        let null_equal = join.null_equality == NullEquality::NullEqualsNull;
        let (left, right) = self.sides(join)?;
        let filter = match &join.filter {
            Some(filter) => {
                let both = join.left.schema().join(join.right.schema())?;
                let filter = self.physical(filter, &both)?;
                let added = left.relation.fields.len() - left.columns;
                Some(shift(filter, both.as_arrow(), left.columns, added)?)
            }
            None => None,
        };
        self.combine(left, right, kind, null_equal, filter)
    }

    /// Joins two sides and drops the columns that only the keys needed.
    fn combine(
        &mut self,
        mut left: Side,
        mut right: Side,
        kind: JoinKind,
        null_equal: bool,
        filter: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Relation> {
        let inputs =
            (self.builder.place(&mut left.relation), self.builder.place(&mut right.relation));
        let width = left.relation.fields.len();
        let key = joined_key(&left, &right, kind);
        let mut fields = left.relation.fields;
        let mut wanted: Vec<usize> = (0..left.columns).collect();
        match kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
                fields.extend(right.relation.fields);
                wanted.extend(width..width + right.columns);
            }
            JoinKind::Mark => {
                fields.push(Field::new("mark", DataType::Boolean, false));
                wanted.push(width);
            }
            JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => {}
        }
        let node = Node::Join {
            left: inputs.0,
            right: inputs.1,
            kind,
            null_equal,
            on: left.keys.into_iter().zip(right.keys).collect(),
            filter,
            schema: schema_of(&fields),
        };
        let joined = Relation::of_node(self.builder.push(node), fields, key);
        let columns = joined.columns();
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

/// What identifies a joined row, over the columns of the join's node.
fn joined_key(left: &Side, right: &Side, kind: JoinKind) -> Option<Vec<usize>> {
    let own = left.relation.key.clone();
    let width = left.relation.fields.len();
    let shifted = || right.relation.key.as_ref().map(|key| key.iter().map(|c| c + width));
    match kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti | JoinKind::Mark => own,
        JoinKind::Inner | JoinKind::Left if right.is_unique() && own.is_some() => own,
        JoinKind::Inner | JoinKind::Right if left.is_unique() => shifted().map(Iterator::collect),
        JoinKind::Inner | JoinKind::Left | JoinKind::Right => {
            let mut key = own?;
            key.extend(shifted()?);
            Some(key)
        }
        // Two rows of NULL keys, one from each side, would have one key.
        JoinKind::Full => None,
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
    both: &Schema,
    left_columns: usize,
    added: usize,
) -> Result<Arc<dyn PhysicalExpr>> {
    let moved = |index: usize| if index < left_columns { index } else { index + added };
    let column = |index: usize| Column::new(both.field(index).name(), moved(index));
    Ok(substitute(expr, |index| Arc::new(column(index)))?)
}
