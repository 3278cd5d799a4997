//! How many rows a subquery may give.

use datafusion::common::Result;
use datafusion::logical_expr::{Distinct, LogicalPlan};

use super::bounds;

/// What decides whether a subquery gives any row: without its columns, order and DISTINCT.
pub(super) fn regardless_of_columns(plan: &LogicalPlan) -> Result<&LogicalPlan> {
    match plan {
        LogicalPlan::Projection(projection) => regardless_of_columns(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => regardless_of_columns(&alias.input),
        LogicalPlan::Subquery(subquery) => regardless_of_columns(&subquery.subquery),
        LogicalPlan::Sort(sort) => regardless_of_columns(&sort.input),
        LogicalPlan::Distinct(Distinct::All(input)) => regardless_of_columns(input),
        LogicalPlan::Limit(limit)
            if matches!(bounds(limit)?, Some((0, None)) | Some((0, Some(1..)))) =>
        {
            regardless_of_columns(&limit.input)
        }
        other => Ok(other),
    }
}

/// Whether a plan gives exactly one row, whatever its input.
pub(super) fn always_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => always_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => always_one_row(&alias.input),
        LogicalPlan::Subquery(subquery) => always_one_row(&subquery.subquery),
        LogicalPlan::Sort(sort) => always_one_row(&sort.input),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Values(values) => values.values.len() == 1,
        _ => false,
    }
}

/// Whether a plan gives no more than one row, whatever its input.
pub(super) fn at_most_one_row(plan: &LogicalPlan) -> Result<bool> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => at_most_one_row(&projection.input)?,
        LogicalPlan::SubqueryAlias(alias) => at_most_one_row(&alias.input)?,
        LogicalPlan::Subquery(subquery) => at_most_one_row(&subquery.subquery)?,
        LogicalPlan::Sort(sort) => at_most_one_row(&sort.input)?,
        LogicalPlan::Filter(filter) => at_most_one_row(&filter.input)?,
        LogicalPlan::Limit(limit) => {
            matches!(bounds(limit)?, Some((_, Some(0 | 1)))) || at_most_one_row(&limit.input)?
        }
        other => always_one_row(other),
    })
}
