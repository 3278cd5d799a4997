//! Rows that come from no relation: VALUES, and the one row of a SELECT without FROM.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::{EmptyRelation, Expr, Unnest, Values};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;
use evert_fold::{Aggregate, AggregateFunction, Node};

use super::relation::{Relation, schema_of};
use super::translate::{Result, Translation, fields, unsupported};

impl Translation<'_> {
    pub(super) fn empty(&mut self, empty: &EmptyRelation) -> Result<Relation> {
        let fields = fields(&empty.schema);
        if empty.produce_one_row {
            let row = self.one_row();
            return Ok(self.builder.project(row, Vec::new(), fields)?);
        }
        let node = Node::Union { inputs: Vec::new(), schema: schema_of(&fields) };
        Ok(Relation::of_node(self.builder.push(node), fields, None))
    }

    /// One row, always: the count of no rows.
    fn one_row(&mut self) -> Relation {
        let nothing = Node::Union { inputs: Vec::new(), schema: schema_of(&[]) };
        let input = self.builder.push(nothing);
        let fields = vec![Field::new("count", DataType::Int64, true)];
        let count = Aggregate {
            function: AggregateFunction::Count,
            argument: None,
            distinct: false,
            filter: None,
        };
        let node = Node::Reduce {
            input,
            keys: Vec::new(),
            aggregates: vec![count],
            schema: schema_of(&fields),
        };
        Relation::of_node(self.builder.push(node), fields, None)
    }

    /// The rows of VALUES: lists of each column's values, side by side, unnested.
    pub(super) fn values(&mut self, values: &Values) -> Result<Relation> {
        let planned = fields(&values.schema);
        let mut lists = Vec::with_capacity(planned.len());
        for (column, field) in planned.iter().enumerate() {
            let cells = values.values.iter().map(|row| constant(&row[column], field.data_type()));
            let cells = cells.collect::<Result<Vec<_>>>()?;
            let list = ScalarValue::List(ScalarValue::new_list(&cells, field.data_type(), true));
            lists.push(Arc::new(Literal::new(list)) as Arc<dyn PhysicalExpr>);
        }
        let list_fields = planned.iter().zip(&lists).map(|(field, list)| {
            Ok(field.clone().with_data_type(list.data_type(&schema_of(&[]))?))
        });
        let list_fields = list_fields.collect::<Result<Vec<_>>>()?;
        let row = self.one_row();
        let mut rows = self.builder.project(row, lists, list_fields)?;
        let input = self.builder.place(&mut rows);
        let node = Node::Unnest {
            input,
            columns: (0..planned.len()).collect(),
            keep_empty: false,
            schema: schema_of(&planned),
        };
        Ok(Relation::of_node(self.builder.push(node), planned, None))
    }

    /// A row for each element of list columns.
    pub(super) fn unnest(&mut self, unnest: &Unnest) -> Result<Relation> {
        if !unnest.struct_type_columns.is_empty() {
            return Err(unsupported("unnest() of a composite value"));
        }
        if unnest.options.preserve_nulls {
            return Err(unsupported("unnest() that keeps empty lists"));
        }
        let mut columns: Vec<usize> = Vec::new();
        for (column, list) in &unnest.list_type_columns {
            if list.depth != 1 || columns.contains(column) {
                return Err(unsupported("unnest() of lists within lists").hinted(
                    "Unnest one level in a subquery, and the next in the query around it.",
                ));
            }
            columns.push(*column);
        }
        let mut relation = self.relation(&unnest.input)?;
        let input = self.builder.place(&mut relation);
        let fields = fields(&unnest.schema);
        let node = Node::Unnest { input, columns, keep_empty: false, schema: schema_of(&fields) };
        Ok(Relation::of_node(self.builder.push(node), fields, None))
    }
}

/// The value of an expression over nothing.
fn constant(expr: &Expr, ty: &DataType) -> Result<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Ok(value.cast_to(ty)?),
        Expr::Alias(alias) => constant(&alias.expr, ty),
        other => Err(unsupported(format!("{other} in VALUES"))),
    }
}
