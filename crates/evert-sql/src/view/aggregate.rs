//! GROUP BY.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::expr::{AggregateFunction as Call, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate as GroupBy, Expr};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use evert_fold::{Aggregate, AggregateFunction, Node};

use super::relation::{Relation, schema_of};
use super::translate::{Refusal, Result, Translation, cast, fields, unsupported};
use crate::SqlError;
use crate::error::INTERNAL_ERROR;
use crate::functions::{AVG, SUM};

/// The columns that a Reduce reads: keys, arguments and filters.
#[derive(Default)]
struct Prepared {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    fields: Vec<Field>,
}

impl Prepared {
    /// The index of an expression, which is added unless it is there.
    fn column(&mut self, expr: Arc<dyn PhysicalExpr>, ty: DataType) -> usize {
        if let Some(index) = self.exprs.iter().position(|other| other == &expr) {
            return index;
        }
        self.fields.push(Field::new(format!("c{}", self.exprs.len()), ty, true));
        self.exprs.push(expr);
        self.exprs.len() - 1
    }
}

impl Translation<'_> {
    pub(super) fn aggregate(&mut self, group_by: &GroupBy) -> Result<Relation> {
        let input = self.relation(&group_by.input)?;
        let mut prepared = Prepared::default();
        let mut keys = Vec::with_capacity(group_by.group_expr.len());
        for expr in &group_by.group_expr {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(unsupported("GROUPING SETS, CUBE or ROLLUP"));
            }
            keys.push(self.prepare(&mut prepared, expr, group_by)?);
        }
        let mut aggregates = Vec::with_capacity(group_by.aggr_expr.len());
        for expr in &group_by.aggr_expr {
            aggregates.push(self.call(&mut prepared, expr, group_by)?);
        }
        let planned = fields(&group_by.schema);
        let folded = folded_fields(&planned, &keys, &aggregates, &prepared)?;
        let mut rows = self.builder.project(input, prepared.exprs, prepared.fields)?;
        let input = self.builder.place(&mut rows);
        let key = (!keys.is_empty()).then(|| (0..keys.len()).collect());
        let node = Node::Reduce { input, keys, aggregates, schema: schema_of(&folded) };
        let relation = Relation::of_node(self.builder.push(node), folded, key.clone());
        let columns = relation.columns().into_iter().zip(relation.fields.iter().zip(&planned));
        let exprs = columns
            .map(|(column, (have, want))| cast(column, have.data_type(), want.data_type()))
            .collect();
        // Equal groups stay apart when their keys are cast, since only digits are added.
        let mut relation = self.builder.project(relation, exprs, planned)?;
        relation.key = key;
        Ok(relation)
    }

    fn prepare(&self, prepared: &mut Prepared, expr: &Expr, group_by: &GroupBy) -> Result<usize> {
        let schema = group_by.input.schema();
        let expr = self.physical(expr, schema)?;
        let ty = expr.data_type(schema.as_arrow())?;
        Ok(prepared.column(expr, ty))
    }

    fn call(&self, prepared: &mut Prepared, expr: &Expr, group_by: &GroupBy) -> Result<Aggregate> {
        let Expr::AggregateFunction(Call { func, params }) = expr.clone().unalias_nested().data
        else {
            return Err(unsupported(format!("the aggregate {expr}")));
        };
        let AggregateFunctionParams { args, distinct, filter, .. } = params;
        let function = match func.name() {
            "count" => AggregateFunction::Count,
            "min" => AggregateFunction::Min,
            "max" => AggregateFunction::Max,
            SUM => AggregateFunction::Sum,
            AVG => AggregateFunction::Avg,
            other => return Err(unsupported(format!("aggregate {other}()"))),
        };
        let argument = match args.as_slice() {
            [] => None,
            [arg] if function == AggregateFunction::Count && !distinct && is_constant(arg) => None,
            [arg] => Some(self.prepare(prepared, arg, group_by)?),
            _ => return Err(unsupported(format!("{}() of several columns", func.name()))),
        };
        let filter = filter.map(|filter| self.prepare(prepared, &filter, group_by)).transpose()?;
        Ok(Aggregate { function, argument, distinct, filter })
    }
}

/// The Reduce's output: the planned names with the fold's types.
fn folded_fields(
    planned: &[Field],
    keys: &[usize],
    aggregates: &[Aggregate],
    prepared: &Prepared,
) -> Result<Vec<Field>> {
    let key_types = keys.iter().map(|key| Ok(prepared.fields[*key].data_type().clone()));
    let aggregate_types = aggregates.iter().map(|aggregate| {
        let argument = aggregate.argument.map(|column| prepared.fields[column].data_type());
        aggregate
            .function
            .output_type(argument)
            .map_err(|error| Refusal::Sql(SqlError::new(INTERNAL_ERROR, error.to_string())))
    });
    let types = key_types.chain(aggregate_types);
    planned.iter().zip(types).map(|(field, ty)| Ok(field.clone().with_data_type(ty?))).collect()
}

/// A constant that is not NULL, which count() counts as it counts rows.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => *value != ScalarValue::Null && !value.is_null(),
        _ => false,
    }
}
