//! Traces a plan's output to the relations' columns that it consists of.

use arrow::datatypes::Field;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};
use evert_model::Origin;

use crate::scan::Table;
use crate::system;

/// A field of a plan's output that tells where it comes from.
pub(crate) fn with_origin(field: Field, plan: &LogicalPlan, index: usize) -> Field {
    let Some((table, column)) = traced(plan, index) else { return field };
    match i16::try_from(column + 1) {
        Ok(column) => Origin { relation: system::oid_of(&table.name), column }.tell(field),
        Err(_) => field,
    }
}

fn traced(plan: &LogicalPlan, index: usize) -> Option<(Table, usize)> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let mut expr = projection.expr.get(index)?;
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            let Expr::Column(column) = expr else { return None };
            traced(&projection.input, projection.input.schema().maybe_index_of_column(column)?)
        }
        LogicalPlan::SubqueryAlias(alias) => traced(&alias.input, index),
        LogicalPlan::Filter(filter) => traced(&filter.input, index),
        LogicalPlan::Sort(sort) => traced(&sort.input, index),
        LogicalPlan::Limit(limit) => traced(&limit.input, index),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti => traced(&join.right, index),
                _ if index < left => traced(&join.left, index),
                _ => traced(&join.right, index - left),
            }
        }
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let table = provider.downcast_ref::<Table>()?;
            let name = scan.projected_schema.fields().get(index)?.name();
            let (column, _) = table.columns().column_with_name(name)?;
            Some((table.clone(), column))
        }
        _ => None,
    }
}
