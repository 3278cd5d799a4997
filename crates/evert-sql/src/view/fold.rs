//! Custom folds: a Reduce by the key whose aggregate is the code, and its columns taken apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column as Place, IsNotNullExpr};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};
use evert_fold::{Aggregate, AggregateFunction, GeneralAggregate};
use evert_model::{Column, ColumnType, RowSchema};
use evert_script::{Definition, Script, ScriptError};
use evert_view::{Name, PlannedView};

use super::relation::{Relation, schema_of};
use super::translate::{Refusal, Result, Translation, cast};
use crate::SqlError;
use crate::command::FoldDefinition;
use crate::error::{
    DATATYPE_MISMATCH, DUPLICATE_COLUMN, INTERNAL_ERROR, INVALID_TABLE_DEFINITION, PROGRAM_LIMIT,
    SYNTAX_ERROR, UNDEFINED_COLUMN,
};
use crate::functions::{fold_column, fold_function};
use crate::types::canonical;

/// The name of the packed rows between Reduce and projection.
const PACKED: &str = "fold";

/// Translates a fold over the rows of `plan`; see [`super::translate::translate`].
pub(super) fn translate(
    definition: &FoldDefinition,
    plan: &LogicalPlan,
    keys: &BTreeMap<Name, Vec<usize>>,
    named: &[(Name, SchemaRef)],
) -> Result<PlannedView> {
    let mut translation = Translation::new(keys);
    let input = translation.whole(plan, named)?;
    let rows = columns_of(&input.fields)?;
    let shape = Shape::new(definition, &rows)?;
    let script = Script::new(Definition {
        source: definition.source.clone(),
        input: rows,
        output: shape.given.iter().map(|place| definition.columns[*place].clone()).collect(),
    });
    let script = script.map_err(|error| refused(definition, &error))?;
    let relation = translation.fold(input, definition, &shape, &Arc::new(script))?;
    translation.finish(relation)
}

/// The columns of the rows that are folded.
fn columns_of(fields: &[Field]) -> Result<Vec<Column>> {
    let column = |field: &Field| {
        let ty = ColumnType::of_field(&field.clone().with_data_type(canonical(field)));
        let name = field.name();
        let Some(ty) = ty else {
            let message =
                format!("column \"{name}\" has type {}, which no fold reads", field.data_type());
            return Err(SqlError::new(DATATYPE_MISMATCH, message)
                .hint("Leave it out or cast it: ON (SELECT ... FROM ...).")
                .into());
        };
        Ok(Column { name: name.clone(), ty, nullable: true })
    };
    let columns = fields.iter().map(column).collect::<Result<Vec<_>>>()?;
    match first_double(columns.iter().map(|column| column.name.as_str())) {
        Some(name) => Err(twice(name)),
        None => Ok(columns),
    }
}

/// How a fold's columns lie to each other, all by their places.
struct Shape {
    /// The key among the rows' columns.
    key: Vec<usize>,
    /// The order among the rows' columns.
    order: Vec<(usize, SortOptions)>,
    /// Those of the view's columns that the code gives.
    given: Vec<usize>,
    /// For each of the view's columns its place in the key, if it is one of the key's.
    keyed: Vec<Option<usize>>,
}

impl Shape {
    fn new(definition: &FoldDefinition, rows: &[Column]) -> Result<Self> {
        let columns = &definition.columns;
        if let Some(name) = first_double(columns.iter().map(|column| column.name.as_str())) {
            return Err(twice(name));
        }
        if let Some(name) = first_double(definition.key.iter().map(String::as_str)) {
            return Err(twice(name));
        }
        let key =
            definition.key.iter().map(|name| place(rows, name)).collect::<Result<Vec<_>>>()?;
        for (name, place) in definition.key.iter().zip(&key) {
            let (Some(column), own) =
                (columns.iter().find(|column| column.name == *name), rows[*place].ty)
            else {
                let message =
                    format!("column \"{name}\" of the key is not among the view's columns");
                return Err(invalid(INVALID_TABLE_DEFINITION, message));
            };
            if column.ty != own {
                let (ty, own) = (column.ty.sql_name(), own.sql_name());
                let message = format!("column \"{name}\" of the key is {own}, not {ty}");
                return Err(invalid(DATATYPE_MISMATCH, message));
            }
        }
        let order = definition.order.iter().map(|by| {
            let options = SortOptions { descending: by.descending, nulls_first: by.nulls_first };
            Ok((place(rows, &by.column)?, options))
        });
        let order = order.collect::<Result<Vec<_>>>()?;
        let keyed: Vec<_> = columns
            .iter()
            .map(|column| definition.key.iter().position(|name| *name == column.name))
            .collect();
        let given: Vec<_> = (0..columns.len()).filter(|place| keyed[*place].is_none()).collect();
        if given.is_empty() {
            let message = "a fold gives at least one column that is not of its key";
            return Err(invalid(INVALID_TABLE_DEFINITION, message.to_owned()));
        }
        Ok(Self { key, order, given, keyed })
    }
}

fn place(rows: &[Column], name: &str) -> Result<usize> {
    let place = rows.iter().position(|column| column.name == name);
    place.ok_or_else(|| invalid(UNDEFINED_COLUMN, format!("column \"{name}\" does not exist")))
}

fn first_double<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

fn twice(name: &str) -> Refusal {
    invalid(DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

fn invalid(code: &'static str, message: String) -> Refusal {
    SqlError::new(code, message).into()
}

/// Why code is refused, at its place in the statement.
fn refused(definition: &FoldDefinition, error: &ScriptError) -> Refusal {
    let code = match error {
        ScriptError::TooLong => PROGRAM_LIMIT,
        ScriptError::Engine(_) => INTERNAL_ERROR,
        ScriptError::Syntax { .. } | ScriptError::Missing(_) | ScriptError::Throws(_) => {
            SYNTAX_ERROR
        }
    };
    let within = |(line, column): (usize, usize)| {
        let before: usize = definition
            .source
            .split_inclusive('\n')
            .take(line - 1)
            .map(|line| line.chars().count())
            .sum();
        Some(definition.starts_at? + before + column.saturating_sub(1))
    };
    let refused = SqlError::new(code, error.to_string());
    let refused = match error {
        ScriptError::Missing(_) => refused.hint(
            "A fold is ({ init: () => state, step: (state, row) => state, row: (state) => row }).",
        ),
        _ => refused,
    };
    refused.at(error.place().and_then(within).or(definition.at)).into()
}

impl Translation<'_> {
    fn fold(
        &mut self,
        input: Relation,
        definition: &FoldDefinition,
        shape: &Shape,
        script: &Arc<Script>,
    ) -> Result<Relation> {
        let rows = RowSchema { columns: script.definition().input.clone(), key: Vec::new() };
        let fields: Vec<Field> =
            rows.to_arrow().fields().iter().map(|field| field.as_ref().clone()).collect();
        let plain = input.columns();
        let exprs = plain.into_iter().zip(&input.fields).zip(&fields);
        let exprs = exprs.map(|((expr, from), to)| cast(expr, from.data_type(), to.data_type()));
        let exprs = exprs.collect();
        let mut rows = self.builder.project(input, exprs, fields.clone())?;
        let input = self.builder.place(&mut rows);
        let function = aggregate(&fields, shape, script)?;
        let aggregate = Aggregate { function, argument: None, distinct: false, filter: None };
        let mut planned: Vec<Field> =
            shape.key.iter().map(|place| fields[*place].clone()).collect();
        planned.push(Field::new(PACKED, DataType::Binary, true));
        let groups = self.reduce(input, &fields, shape.key.clone(), vec![aggregate], planned)?;
        self.unpacked(groups, definition, shape, script)
    }

    /// The view's columns, of the groups that have a row.
    fn unpacked(
        &mut self,
        groups: Relation,
        definition: &FoldDefinition,
        shape: &Shape,
        script: &Arc<Script>,
    ) -> Result<Relation> {
        let packed = shape.key.len();
        let is_row = IsNotNullExpr::new(Arc::new(Place::new(PACKED, packed)));
        let groups = self.builder.filter(groups, Arc::new(is_row))?;
        let schema = schema_of(&groups.fields);
        let settings = Arc::new(ConfigOptions::default());
        let keys = groups.columns();
        let mut exprs: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(shape.keyed.len());
        for (place, keyed) in shape.keyed.iter().enumerate() {
            exprs.push(match keyed {
                Some(key) => Arc::clone(&keys[*key]),
                None => {
                    let column = shape.given.iter().position(|given| *given == place);
                    let column = column.expect("what is not of the key is given");
                    let function = fold_column(script, column);
                    let packed: Arc<dyn PhysicalExpr> = Arc::new(Place::new(PACKED, packed));
                    let settings = Arc::clone(&settings);
                    let call =
                        ScalarFunctionExpr::try_new(function, vec![packed], &schema, settings)?;
                    Arc::new(call)
                }
            });
        }
        let schema = RowSchema { columns: definition.columns.clone(), key: Vec::new() }.to_arrow();
        let fields = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        Ok(self.builder.project(groups, exprs, fields)?)
    }
}

/// The code as an aggregate of all columns. Rows that are equal in the order come in the order of
/// their bytes.
fn aggregate(fields: &[Field], shape: &Shape, script: &Arc<Script>) -> Result<AggregateFunction> {
    let column = |place: usize| -> Arc<dyn PhysicalExpr> {
        Arc::new(Place::new(fields[place].name(), place))
    };
    let order = shape.order.iter();
    let order = order.map(|(place, options)| PhysicalSortExpr::new(column(*place), *options));
    let built =
        AggregateExprBuilder::new(fold_function(script), (0..fields.len()).map(column).collect())
            .schema(schema_of(fields))
            .alias(PACKED)
            .order_by(order.collect())
            .build()?;
    Ok(AggregateFunction::General(GeneralAggregate(Arc::new(built))))
}
