//! Direct evaluation: plans over one looked-up row, or over values in the statement.
//!
//! A lookup by key, an INSERT of values and `SELECT 1` are most of what applications send; they
//! are evaluated without making a physical plan.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection, TableScan, Values};
use datafusion::physical_expr::create_physical_expr;
use datafusion::scalar::ScalarValue;

use crate::scan::Table;

/// More values than this are worth a plan.
const VALUES_MAX: usize = 64;

/// Whether a plan can be evaluated here.
pub(crate) fn is_direct(plan: &LogicalPlan) -> bool {
    !needs_more(plan) && is_direct_node(plan)
}

/// Whether the node's expressions need other plans, or wait.
fn needs_more(plan: &LogicalPlan) -> bool {
    let waits = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) => call.func.as_async().is_some(),
        _ => false,
    };
    let mut found = false;
    let walked = plan.apply_expressions(|expr| {
        found |= expr.exists(|expr| {
            let subquery = matches!(
                expr,
                Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::SetComparison(_)
            );
            Ok(subquery || waits(expr))
        })?;
        Ok(TreeNodeRecursion::Continue)
    });
    found || walked.is_err()
}

fn is_direct_node(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_direct(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_direct(&alias.input),
        LogicalPlan::Filter(filter) => is_direct(&filter.input),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= VALUES_MAX,
        LogicalPlan::TableScan(scan) => {
            scan.fetch.is_none() && with_table(scan, |table| table.is_lookup(&scan.filters))
        }
        _ => false,
    }
}

/// The rows of a plan that [`is_direct`], bound to its tables.
pub(crate) fn evaluate(plan: &LogicalPlan, props: &ExecutionProps) -> Result<RecordBatch> {
    match plan {
        LogicalPlan::Projection(projection) => project(projection, props),
        LogicalPlan::SubqueryAlias(alias) => evaluate(&alias.input, props),
        LogicalPlan::Filter(filter) => keep(filter, props),
        LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => {
            Ok(RecordBatch::new_empty(Arc::new(empty.schema.as_arrow().clone())))
        }
        LogicalPlan::EmptyRelation(_) => batch(&Arc::new(Schema::empty()), Vec::new(), 1),
        LogicalPlan::Values(values) => values_batch(values, props),
        LogicalPlan::TableScan(scan) => lookup(scan),
        other => exec_err!("{} is not evaluated directly", other.display()),
    }
}

/// So many rows of a plan that [`is_direct`], reads nothing and would give one; `None` for others.
pub(crate) fn repeated(
    plan: &LogicalPlan,
    props: &ExecutionProps,
    count: usize,
) -> Result<Option<RecordBatch>> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let rows = repeated(&projection.input, props, count)?;
            rows.map(|rows| projected(projection, &rows, props)).transpose()
        }
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => {
            batch(&Arc::new(Schema::empty()), Vec::new(), count).map(Some)
        }
        _ => Ok(None),
    }
}

fn with_table(scan: &TableScan, check: impl Fn(&Table) -> bool) -> bool {
    let Ok(provider) = source_as_provider(&scan.source) else { return false };
    provider.downcast_ref::<Table>().is_some_and(check)
}

fn lookup(scan: &TableScan) -> Result<RecordBatch> {
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<Table>() else {
        return exec_err!("{} is not a table of this server", scan.table_name);
    };
    let found = table.find(&scan.filters)?;
    match &scan.projection {
        Some(projection) => Ok(found.project(projection)?),
        None => Ok(found),
    }
}

fn values_batch(values: &Values, props: &ExecutionProps) -> Result<RecordBatch> {
    let one_row = batch(&Arc::new(Schema::empty()), Vec::new(), 1)?;
    let no_columns = DFSchema::empty();
    let schema = Arc::new(values.schema.as_arrow().clone());
    let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::new(); schema.fields().len()];
    for row in &values.values {
        for (column, expr) in columns.iter_mut().zip(row) {
            column.push(scalar(expr, &no_columns, &one_row, props)?);
        }
    }
    let count = values.values.len();
    let arrays = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(cells, field)| {
            let cast = cells.into_iter().map(|cell| cell.cast_to(field.data_type()));
            ScalarValue::iter_to_array(cast.collect::<Result<Vec<_>>>()?)
        })
        .collect::<Result<Vec<_>>>()?;
    batch(&schema, arrays, count)
}

fn scalar(
    expr: &Expr,
    schema: &DFSchema,
    rows: &RecordBatch,
    props: &ExecutionProps,
) -> Result<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return Ok(value.clone());
    }
    let value = create_physical_expr(expr, schema, props)?.evaluate(rows)?;
    ScalarValue::try_from_array(&value.into_array(1)?, 0)
}

fn keep(filter: &Filter, props: &ExecutionProps) -> Result<RecordBatch> {
    let rows = evaluate(&filter.input, props)?;
    if rows.num_rows() == 0 {
        return Ok(rows);
    }
    let predicate = create_physical_expr(&filter.predicate, filter.input.schema(), props)?;
    let kept = predicate.evaluate(&rows)?.into_array(rows.num_rows())?;
    Ok(filter_record_batch(&rows, kept.as_boolean())?)
}

fn project(projection: &Projection, props: &ExecutionProps) -> Result<RecordBatch> {
    projected(projection, &evaluate(&projection.input, props)?, props)
}

fn projected(
    projection: &Projection,
    rows: &RecordBatch,
    props: &ExecutionProps,
) -> Result<RecordBatch> {
    let input = projection.input.schema();
    let schema = Arc::new(projection.schema.as_arrow().clone());
    if rows.num_rows() == 0 {
        return Ok(RecordBatch::new_empty(schema));
    }
    let arrays = projection
        .expr
        .iter()
        .map(|expr| {
            create_physical_expr(expr, input, props)?.evaluate(rows)?.into_array(rows.num_rows())
        })
        .collect::<Result<Vec<_>>>()?;
    let count = rows.num_rows();
    batch(&schema, arrays, count)
}

/// A batch whose fields are what the arrays are: nullability as planned is not theirs.
fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, count: usize) -> Result<RecordBatch> {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
}
