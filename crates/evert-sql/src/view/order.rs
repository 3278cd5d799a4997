//! The first rows in an order: ORDER BY ... LIMIT, and row_number() that is bounded.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::Column;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, FetchType, Filter, Limit, LogicalPlan, Operator, Projection, SkipType,
    SortExpr, Window,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;
use evert_fold::{Node, SortKey};

use super::relation::{Relation, column_index};
use super::translate::{Result, Translation, fields, unsupported};
use super::window::call;

/// A relation whose first columns are as they were, with the columns that an order needs.
pub(super) struct Ordered {
    pub(super) relation: Relation,
    pub(super) keys: Vec<usize>,
    pub(super) order: Vec<SortKey>,
}

impl Translation<'_> {
    /// `LIMIT`, with the ORDER BY below it if there is one.
    pub(super) fn limit(&mut self, limit: &Limit) -> Result<Relation> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(unsupported("LIMIT or OFFSET of anything but a number"));
        };
        match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => {
                let relation = self.relation(&sort.input)?;
                let width = relation.fields.len();
                let ordered = self.ordered(relation, &[], &sort.expr, &sort.input)?;
                self.top(ordered, width, skip, fetch)
            }
            input => {
                let relation = self.relation(input)?;
                let width = relation.fields.len();
                let ordered = Ordered { relation, keys: Vec::new(), order: Vec::new() };
                self.top(ordered, width, skip, fetch)
            }
        }
    }

    /// Adds columns for what is grouped and sorted by, over the output of `input`.
    pub(super) fn ordered(
        &mut self,
        relation: Relation,
        keys: &[Expr],
        order: &[SortExpr],
        input: &LogicalPlan,
    ) -> Result<Ordered> {
        let mut added = Added::to(&relation);
        let schema = input.schema();
        let mut column = |expr: &Expr| -> Result<usize> {
            let expr = self.physical(expr, schema)?;
            let ty = expr.data_type(schema.as_arrow())?;
            Ok(added.column(expr, ty))
        };
        let keys = keys.iter().map(&mut column).collect::<Result<Vec<_>>>()?;
        let mut sort = Vec::with_capacity(order.len());
        for key in order {
            let (descending, nulls_first) = (!key.asc, key.nulls_first);
            sort.push(SortKey { column: column(&key.expr)?, descending, nulls_first });
        }
        let relation = self.builder.project(relation, added.exprs, added.fields)?;
        Ok(Ordered { relation, keys, order: sort })
    }

    /// The rows of each group from `skip` on, `fetch` of them, of `width` columns.
    fn top(
        &mut self,
        ordered: Ordered,
        width: usize,
        skip: usize,
        fetch: Option<usize>,
    ) -> Result<Relation> {
        let Ordered { mut relation, keys, order } = ordered;
        let input = self.builder.place(&mut relation);
        let order = without_ties(order, relation.fields.len());
        let key = match (&relation.key, fetch) {
            (_, Some(1)) if !keys.is_empty() => Some(keys.clone()),
            (key, _) => key.clone(),
        };
        let node = Node::TopK { input, keys, order, skip, limit: fetch };
        let relation = Relation::of_node(self.builder.push(node), relation.fields, key);
        self.first_columns(relation, width)
    }

    /// Drops all columns but the first.
    pub(super) fn first_columns(&mut self, relation: Relation, width: usize) -> Result<Relation> {
        let mut exprs = relation.columns();
        let mut fields = relation.fields.clone();
        exprs.truncate(width);
        fields.truncate(width);
        Ok(self.builder.project(relation, exprs, fields)?)
    }

    /// A filter that lets only the first rows of each partition through: their number is bounded
    /// before they are numbered. `None` if the filter says no such thing.
    pub(super) fn bounded_window(&mut self, filter: &Filter) -> Result<Option<Relation>> {
        let Some(numbered) = Numbered::of(filter) else { return Ok(None) };
        let Some(last) = numbered.last else { return Ok(None) };
        let relation = self.first_rows(numbered.window, 0, last)?;
        let relation = self.window_over(relation, numbered.window)?;
        Ok(Some(self.shaped(relation, &numbered)?))
    }

    /// A window's rows as the filter over it sees them.
    fn shaped(&mut self, relation: Relation, numbered: &Numbered<'_>) -> Result<Relation> {
        let Some(shape) = numbered.shape else { return Ok(relation) };
        let exprs = self.physical_all(&shape.expr, &numbered.window.schema)?;
        Ok(self.builder.project(relation, exprs, fields(&shape.schema))?)
    }

    /// The same below columns that leave the number out: nothing needs to be numbered.
    pub(super) fn unnumbered(&mut self, projection: &Projection) -> Result<Option<Relation>> {
        let LogicalPlan::Filter(filter) = projection.input.as_ref() else { return Ok(None) };
        let Some(numbered) = Numbered::of(filter) else { return Ok(None) };
        let number = &numbered.number;
        let used = projection.expr.iter().any(|expr| expr.column_refs().contains(number));
        match numbered.last {
            Some(last) if numbered.only && !used => {
                let skip = numbered.first.saturating_sub(1);
                let rows = last.saturating_sub(skip);
                let relation = self.first_rows(numbered.window, skip, rows)?;
                let mut exprs = relation.columns();
                // Nobody reads it.
                exprs.push(Arc::new(Literal::new(ScalarValue::Int64(None))));
                let fields = fields(&numbered.window.schema);
                let relation = self.builder.project(relation, exprs, fields)?;
                Ok(Some(self.shaped(relation, &numbered)?))
            }
            _ => Ok(None),
        }
    }

    /// Rows of each of a window's partitions, in its order.
    fn first_rows(&mut self, window: &Window, skip: usize, rows: usize) -> Result<Relation> {
        let params = &call(&window.window_expr[0])?.params;
        let relation = self.relation(&window.input)?;
        let width = relation.fields.len();
        let ordered =
            self.ordered(relation, &params.partition_by, &params.order_by, &window.input)?;
        self.top(ordered, width, skip, Some(rows))
    }
}

/// A filter by row_number().
struct Numbered<'a> {
    window: &'a Window,
    /// Which of its columns are left, if not all.
    shape: Option<&'a Projection>,
    /// The number's column.
    number: Column,
    /// The first number that is let through.
    first: usize,
    /// The last one.
    last: Option<usize>,
    /// Whether the filter asks nothing else.
    only: bool,
}

impl<'a> Numbered<'a> {
    fn of(filter: &'a Filter) -> Option<Self> {
        let is_column = |expr: &Expr| matches!(expr, Expr::Column(_));
        let (window, shape) = match filter.input.as_ref() {
            LogicalPlan::Window(window) => (window, None),
            LogicalPlan::Projection(shape) if shape.expr.iter().all(is_column) => {
                let LogicalPlan::Window(window) = shape.input.as_ref() else { return None };
                (window, Some(shape))
            }
            _ => return None,
        };
        let [function] = window.window_expr.as_slice() else { return None };
        if call(function).ok()?.fun.name() != "row_number" {
            return None;
        }
        let number = window.schema.columns().pop()?;
        let mut numbered = Self { window, shape, number, first: 1, last: None, only: true };
        for part in split_conjunction(&filter.predicate) {
            match bounds_of(part, &numbered.number) {
                Some((first, last)) => {
                    numbered.first = numbered.first.max(first);
                    numbered.last = [numbered.last, last].into_iter().flatten().min();
                }
                None => numbered.only = false,
            }
        }
        Some(numbered)
    }
}

/// Columns added to a relation's own.
pub(super) struct Added {
    pub(super) exprs: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) fields: Vec<Field>,
}

impl Added {
    pub(super) fn to(relation: &Relation) -> Self {
        Self { exprs: relation.columns(), fields: relation.fields.clone() }
    }

    /// The index of an expression over the relation's columns, which is added unless it is one.
    pub(super) fn column(
        &mut self,
        expr: Arc<dyn PhysicalExpr>,
        ty: arrow::datatypes::DataType,
    ) -> usize {
        if let Some(index) = column_index(&expr) {
            return index;
        }
        if let Some(index) = self.exprs.iter().position(|other| other == &expr) {
            return index;
        }
        self.fields.push(Field::new(format!("__sort{}", self.exprs.len()), ty, true));
        self.exprs.push(expr);
        self.exprs.len() - 1
    }
}

/// Drops what the order's end only repeats: rows that are equal so far are told apart by all
/// their columns, in their order.
fn without_ties(mut order: Vec<SortKey>, columns: usize) -> Vec<SortKey> {
    let plain = |key: &SortKey| !key.descending && key.nulls_first;
    for kept in 0..order.len() {
        let (head, tail) = order.split_at(kept);
        let rest = (0..columns).filter(|column| head.iter().all(|key| key.column != *column));
        let tail_columns = tail.iter().map(|key| key.column);
        if tail.iter().all(plain) && is_prefix(tail_columns, rest) {
            order.truncate(kept);
            break;
        }
    }
    order
}

fn is_prefix(
    mut short: impl Iterator<Item = usize>,
    mut long: impl Iterator<Item = usize>,
) -> bool {
    short.all(|column| long.next() == Some(column))
}

/// The first and the last number that a condition lets through, if it is about nothing else.
fn bounds_of(part: &Expr, number: &Column) -> Option<(usize, Option<usize>)> {
    let is_number = |expr: &Expr| matches!(expr, Expr::Column(column) if column == number);
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else {
        return match part {
            Expr::Between(between) if !between.negated && is_number(&between.expr) => {
                Some((literal(&between.low)?, Some(literal(&between.high)?)))
            }
            _ => None,
        };
    };
    let (op, value) = if is_number(left) {
        (*op, literal(right)?)
    } else if is_number(right) {
        (op.swap()?, literal(left)?)
    } else {
        return None;
    };
    match op {
        Operator::Eq => Some((value, Some(value))),
        Operator::LtEq => Some((1, Some(value))),
        Operator::Lt => Some((1, Some(value.saturating_sub(1)))),
        Operator::GtEq => Some((value, None)),
        Operator::Gt => Some((value.saturating_add(1), None)),
        _ => None,
    }
}

/// A whole number; one below zero lets as many rows through as zero.
fn literal(expr: &Expr) -> Option<usize> {
    let Expr::Literal(value, _) = expr else { return None };
    match value.cast_to(&arrow::datatypes::DataType::Int64) {
        Ok(ScalarValue::Int64(Some(value))) => Some(usize::try_from(value).unwrap_or(0)),
        _ => None,
    }
}
