//! From DataFusion's logical plan to the fold's plan.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Distinct, Expr, Filter, LogicalPlan, Projection, TableScan};
use datafusion::physical_expr::expressions::CastExpr;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use evert_fold::{Node, Plan};
use evert_model::{Column, ColumnType, RowSchema};
use evert_view::{Name, PlannedView};
use std::sync::Arc;

use super::relation::{Builder, Relation};
use super::time::{is_marking, is_session, mentions_now};
use crate::SqlError;
use crate::error::{DUPLICATE_COLUMN, INVALID_TABLE_DEFINITION};
use crate::names::of_reference;
use crate::output_names::shown_name;
use crate::rules::SetOperation;
use crate::types::canonical;

/// Why a SELECT cannot be a view.
pub(super) enum Refusal {
    Sql(SqlError),
    Planning(DataFusionError),
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        Self::Planning(error)
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

pub(super) type Result<T> = std::result::Result<T, Refusal>;

/// `0A000` for something that the fold does not do.
pub(super) fn unsupported(what: impl std::fmt::Display) -> Refusal {
    Refusal::Sql(SqlError::unsupported(format!("{what} in a view")))
}

/// Translates a whole plan. `keys` gives the columns that identify the inputs' rows, `named` are
/// the relations that the SELECT names, whether or not rows of them are needed.
pub(super) fn translate(
    plan: &LogicalPlan,
    keys: &BTreeMap<Name, Vec<usize>>,
    named: &[(Name, SchemaRef)],
) -> Result<PlannedView> {
    let mut translation = Translation::new(keys);
    let relation = translation.whole(plan, named)?;
    translation.finish(relation)
}

impl<'a> Translation<'a> {
    pub(super) fn new(keys: &'a BTreeMap<Name, Vec<usize>>) -> Self {
        Self { builder: Builder::default(), keys, work_tables: Vec::new() }
    }

    /// The rows of a whole plan, which has an input at least.
    pub(super) fn whole(
        &mut self,
        plan: &LogicalPlan,
        named: &[(Name, SchemaRef)],
    ) -> Result<Relation> {
        let relation = self.relation(plan)?;
        if named.is_empty() {
            return Err(unsupported("a SELECT without FROM").hinted(
                "A view is computed from relations; put constants into the query that reads it.",
            ));
        }
        // No row may be needed of some, as under `WHERE false`; the view follows them all the
        // same, since its text cannot be planned without them.
        for (name, schema) in named {
            self.builder.input(name, Arc::clone(schema), None);
        }
        Ok(relation)
    }
}

impl Refusal {
    pub(super) fn hinted(self, hint: &str) -> Self {
        match self {
            Self::Sql(error) => Self::Sql(error.hint(hint)),
            other => other,
        }
    }
}

pub(super) struct Translation<'a> {
    pub(super) builder: Builder,
    pub(super) keys: &'a BTreeMap<Name, Vec<usize>>,
    /// The recursive queries whose step is being translated, by name.
    pub(super) work_tables: Vec<String>,
}

impl Translation<'_> {
    /// The rows that a part of the plan gives, column by column as in its schema.
    pub(super) fn relation(&mut self, plan: &LogicalPlan) -> Result<Relation> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.relation(&alias.input),
            LogicalPlan::Projection(marks) if is_marking(marks) => self.marking(marks),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Union(union) => self.union(union),
            // A view has no order of its own.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.relation(&sort.input),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) if is_session(window) => self.session(window),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::RecursiveQuery(query) => self.recursive(query),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::EmptyRelation(empty) => self.empty(empty),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Subquery(_) => Err(unsupported("this subquery")),
            LogicalPlan::Extension(extension) => {
                match extension.node.as_any().downcast_ref::<SetOperation>() {
                    Some(operation) => self.set_operation(operation),
                    None => Err(unsupported(extension.node.name())),
                }
            }
            other => Err(unsupported(other.display())),
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Relation> {
        let name = match self.work_table(scan)? {
            Some(name) => name,
            None => of_reference(&scan.table_name),
        };
        assert!(scan.filters.is_empty() && scan.fetch.is_none(), "tables of views only scan");
        let key = self.keys.get(&name).cloned();
        let relation = self.builder.input(&name, scan.source.schema(), key);
        match &scan.projection {
            None => Ok(relation),
            Some(projection) => {
                let columns = relation.columns();
                let exprs = projection.iter().map(|index| Arc::clone(&columns[*index])).collect();
                Ok(self.builder.project(relation, exprs, fields(&scan.projected_schema))?)
            }
        }
    }

    /// The name that a recursive query's own rows have as an input of its step.
    fn work_table(&self, scan: &TableScan) -> Result<Option<Name>> {
        let provider = source_as_provider(&scan.source)?;
        let Some(table) = provider.downcast_ref::<CteWorkTable>() else { return Ok(None) };
        if self.work_tables.last().is_none_or(|innermost| innermost != table.name()) {
            return Err(unsupported("a recursive query that reads an outer one's rows"));
        }
        Ok(Some(Name::new("", table.name())))
    }

    fn projection(&mut self, projection: &Projection) -> Result<Relation> {
        let relation = match self.unnumbered(projection)? {
            Some(relation) => relation,
            None => self.relation(&projection.input)?,
        };
        let input = projection.input.schema();
        let fields = fields(&projection.schema);
        let exprs = self.physical_all(&projection.expr, input)?;
        let exprs = exprs
            .into_iter()
            .zip(&fields)
            .map(|(expr, field)| {
                let ty = expr.data_type(input.as_arrow())?;
                Ok(cast(expr, &ty, field.data_type()))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(self.builder.project(relation, exprs, fields)?)
    }

    fn filter(&mut self, filter: &Filter) -> Result<Relation> {
        let relation = match self.bounded_window(filter)? {
            Some(relation) => relation,
            None => self.relation(&filter.input)?,
        };
        if mentions_now(&filter.predicate) {
            return self.filter_by_time(relation, &filter.predicate, filter.input.schema());
        }
        let predicate = self.physical(&filter.predicate, filter.input.schema())?;
        Ok(self.builder.filter(relation, predicate)?)
    }

    pub(super) fn physical_all(
        &self,
        exprs: &[Expr],
        schema: &DFSchema,
    ) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        exprs.iter().map(|expr| self.physical(expr, schema)).collect()
    }

    /// An expression over the columns of `schema`.
    pub(super) fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        match expr {
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                Err(unsupported("this subquery"))
            }
            _ => Ok(create_physical_expr(expr, schema, &self.builder.props)?),
        }
    }

    pub(super) fn finish(mut self, mut relation: Relation) -> Result<PlannedView> {
        let key = relation.key.take();
        let columns = relation.fields.iter().map(output_column).collect::<Result<Vec<_>>>()?;
        for (index, column) in columns.iter().enumerate() {
            if columns[..index].iter().any(|other| other.name == column.name) {
                let message = format!("column \"{}\" specified more than once", column.name);
                return Err(SqlError::new(DUPLICATE_COLUMN, message)
                    .hint("Give the columns different names with AS.")
                    .into());
            }
        }
        let schema = RowSchema { columns, key: key.clone().unwrap_or_default() };
        let arrow = schema.to_arrow();
        let same_types = relation
            .fields
            .iter()
            .zip(arrow.fields())
            .all(|(have, want)| have.data_type() == want.data_type());
        if !same_types {
            relation.project_all();
        }
        relation.fields = arrow.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut output = self.builder.place(&mut relation);
        if !has_names(&self.builder.nodes, output, &arrow)
            && !rename(&mut self.builder.nodes[output], &arrow)
        {
            relation.project_all();
            output = self.builder.place(&mut relation);
        }
        let plan = Plan { nodes: self.builder.nodes, output, key };
        Ok(PlannedView { plan, inputs: self.builder.inputs, schema })
    }
}

/// Whether a node's output is of a schema already.
fn has_names(nodes: &[Node], output: usize, wanted: &arrow::datatypes::SchemaRef) -> bool {
    let plan = Plan { nodes: nodes.to_vec(), output, key: None };
    plan.output_schema().is_ok_and(|schema| schema == *wanted)
}

/// Gives a node's output the names of `schema`. Some kinds have their names from their input.
fn rename(node: &mut Node, to: &arrow::datatypes::SchemaRef) -> bool {
    match node {
        Node::FilterProject { schema, .. }
        | Node::Join { schema, .. }
        | Node::Reduce { schema, .. }
        | Node::Union { schema, .. } => {
            *schema = Arc::clone(to);
            true
        }
        _ => false,
    }
}

fn output_column(field: &Field) -> Result<Column> {
    let canonical = field.clone().with_data_type(canonical(field));
    match ColumnType::of_field(&canonical) {
        Some(ty) => Ok(Column { name: shown_name(field.name()).to_owned(), ty, nullable: true }),
        None => Err(SqlError::new(
            INVALID_TABLE_DEFINITION,
            format!(
                "column \"{}\" has type {}, which no view can hold",
                field.name(),
                field.data_type()
            ),
        )
        .hint(match field.data_type().is_nested() {
            true => "Turn it into text with array_to_string(), or into JSON with to_json().",
            false => "Cast it to a type that a table's column can have.",
        })
        .into()),
    }
}

/// An expression of the type that the plan says. The digits of a decimal may have been settled
/// after the plan's types were: `round(d, 1)`.
pub(super) fn cast(
    expr: Arc<dyn PhysicalExpr>,
    from: &DataType,
    to: &DataType,
) -> Arc<dyn PhysicalExpr> {
    if from == to { expr } else { Arc::new(CastExpr::new(expr, to.clone(), None)) }
}

/// A planned schema's columns.
pub(super) fn fields(schema: &DFSchema) -> Vec<Field> {
    schema.fields().iter().map(|field| field.as_ref().clone()).collect()
}
