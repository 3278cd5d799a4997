//! Points: columns of one row, found by its key, without a plan.
//!
//! Owns: `SELECT columns FROM relation WHERE key = $1`, the statement that applications send most.
//! Not here: lookups with anything more to them (`direct`).
//!
//! Invariants
//! - A point gives what its plan gives: it is one only if the key's values are compared as they
//!   are stored, without a cast.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, TableScan};
use evert_view::Name;

use crate::SqlError;
use crate::functions::has_floats;
use crate::query::parameter_index;
use crate::scan::{Rows, Table};

/// A lookup of one row.
pub(crate) struct Point {
    name: Name,
    /// The key's columns as they are looked up.
    key: SchemaRef,
    values: Vec<Value>,
    /// The table's columns that are given.
    columns: Vec<usize>,
}

enum Value {
    /// The parameter at an index.
    Parameter(usize),
    /// One value.
    Literal(ArrayRef),
}

impl Point {
    /// The plan as a point, if it is one that gives rows of `schema`.
    pub(crate) fn of(plan: &LogicalPlan, schema: &Schema, params: &[DataType]) -> Option<Self> {
        let (selected, plan) = match plan {
            LogicalPlan::Projection(projection) => {
                (Some(projection.expr.as_slice()), unaliased(&projection.input))
            }
            other => (None, unaliased(other)),
        };
        let LogicalPlan::Filter(filter) = plan else { return None };
        let LogicalPlan::TableScan(scan) = unaliased(&filter.input) else { return None };
        let provider = source_as_provider(&scan.source).ok()?;
        let table = provider.downcast_ref::<Table>()?;
        let own = table.columns();
        let columns: Vec<usize> = match selected {
            Some(exprs) => exprs.iter().map(|expr| column(expr, own)).collect::<Option<_>>()?,
            None => projected(scan, own),
        };
        let same = |(column, field): (&usize, &arrow::datatypes::FieldRef)| {
            own.field(*column).data_type() == field.data_type()
        };
        if columns.len() != schema.fields().len() || !columns.iter().zip(schema.fields()).all(same)
        {
            return None;
        }
        let mut given = Vec::new();
        terms(&filter.predicate, &mut given);
        let key_columns = table.key();
        if scan.fetch.is_some() || key_columns.is_empty() || given.len() != key_columns.len() {
            return None;
        }
        let value = |key: &usize| {
            let ty = own.field(*key).data_type();
            // Floats are equal that are not the same: zeros.
            if has_floats(ty) {
                return None;
            }
            given.iter().find_map(|term| value_of(term, *key, own, ty, params))
        };
        let values = key_columns.iter().map(value).collect::<Option<Vec<_>>>()?;
        let fields: Vec<_> = key_columns.iter().map(|key| own.field(*key).clone()).collect();
        Some(Self { name: table.name.clone(), key: Arc::new(Schema::new(fields)), values, columns })
    }

    /// The row, if it is there, as rows of `schema`; nothing if it has to be found by the plan.
    pub(crate) fn find(
        &self,
        schema: &SchemaRef,
        params: &[ArrayRef],
        rows: &dyn Fn(&Name) -> Result<Rows, SqlError>,
    ) -> Result<Option<RecordBatch>, DataFusionError> {
        let mut key = Vec::with_capacity(self.values.len());
        for (value, field) in self.values.iter().zip(self.key.fields()) {
            let array = match value {
                Value::Literal(array) => array,
                Value::Parameter(index) => match params.get(*index) {
                    Some(param) if param.len() == 1 => param,
                    _ => return Ok(None),
                },
            };
            if array.data_type() != field.data_type() {
                return Ok(None);
            }
            // Nothing equals NULL.
            if array.is_null(0) {
                return Ok(Some(RecordBatch::new_empty(Arc::clone(schema))));
            }
            key.push(Arc::clone(array));
        }
        let rows = rows(&self.name).map_err(|error| DataFusionError::External(error.into()))?;
        if !matches!(rows, Rows::Snapshot(_) | Rows::Overlaid(..)) {
            return Ok(None);
        }
        let key = RecordBatch::try_new(Arc::clone(&self.key), key)?;
        let Some(row) = rows.get(&key, 0) else {
            return Ok(Some(RecordBatch::new_empty(Arc::clone(schema))));
        };
        let columns = self.columns.iter().map(|column| Arc::clone(row.column(*column)));
        let options = RecordBatchOptions::new().with_row_count(Some(row.num_rows()));
        let schema = Arc::clone(schema);
        Ok(Some(RecordBatch::try_new_with_options(schema, columns.collect(), &options)?))
    }
}

fn unaliased(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => unaliased(&alias.input),
        other => other,
    }
}

/// The table's column that an expression is.
fn column(expr: &Expr, own: &Schema) -> Option<usize> {
    match expr {
        Expr::Column(column) => own.index_of(&column.name).ok(),
        Expr::Alias(alias) => column(&alias.expr, own),
        _ => None,
    }
}

fn projected(scan: &TableScan, own: &Schema) -> Vec<usize> {
    scan.projection.clone().unwrap_or_else(|| (0..own.fields().len()).collect())
}

/// The parts of a condition that must all hold.
fn terms<'a>(expr: &'a Expr, found: &mut Vec<&'a Expr>) {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            terms(left, found);
            terms(right, found);
        }
        other => found.push(other),
    }
}

/// What a condition says that a key's column is.
fn value_of(
    term: &Expr,
    key: usize,
    own: &Schema,
    ty: &DataType,
    params: &[DataType],
) -> Option<Value> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = term else { return None };
    let value = match (column(left, own), column(right, own)) {
        (Some(found), None) if found == key => right,
        (None, Some(found)) if found == key => left,
        _ => return None,
    };
    match value.as_ref() {
        Expr::Placeholder(placeholder) => {
            let index = parameter_index(&placeholder.id)?;
            (params.get(index)? == ty).then_some(Value::Parameter(index))
        }
        Expr::Literal(literal, _) if literal.data_type() == *ty => {
            Some(Value::Literal(literal.to_array().ok()?))
        }
        _ => None,
    }
}
