//! DEFAULT: what a statement gives a column of which it says nothing.
//!
//! Statements give it (INSERT, COPY FROM, `= DEFAULT`); records of other writers are taken as
//! they are.

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use evert_model::RowSchema;
use evert_view::{Defaults, Relation};
use sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Statement, TableFactor, Value};

use super::{named, select_mut, values};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, INTERNAL_ERROR};
use crate::names::fold;
use crate::query::{Planned, Scope, plan};
use crate::text::{at_text, parse_statements, parser};

/// Whether an expression is the word DEFAULT.
pub(super) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident)
        if ident.quote_style.is_none() && fold(ident) == "default")
}

/// What DEFAULT is for a column: NULL where none was declared.
pub(super) fn expression(relation: &Relation, column: usize) -> Result<Expr, SqlError> {
    match relation.defaults.get(&relation.schema.columns[column].name) {
        Some(text) => read(text),
        None => Ok(Expr::value(Value::Null)),
    }
}

fn read(text: &str) -> Result<Expr, SqlError> {
    at_text(parser(text)?.parse_expr(), text).map_err(without_place)
}

/// Its place would be one in the default's own text.
fn without_place(error: SqlError) -> SqlError {
    SqlError { position: None, ..error }
}

/// Columns with a default that are not among those that a statement gives.
pub(super) fn left_out(relation: &Relation, given: &[usize]) -> Vec<usize> {
    let columns = relation.schema.columns.iter().enumerate();
    let left_out = columns.filter(|(index, column)| {
        !given.contains(index) && relation.defaults.contains_key(&column.name)
    });
    left_out.map(|(index, _)| index).collect()
}

/// The columns that a plan of so many columns gives, of which those left out come last.
pub(super) fn filled(relation: &Relation, listed: &[usize], planned: usize) -> Vec<usize> {
    let with_defaults = |given: usize| {
        let given = &listed[..given];
        [given, &left_out(relation, given)].concat()
    };
    let all = (0..=listed.len()).rev().map(with_defaults);
    all.into_iter().find(|columns| columns.len() == planned).unwrap_or_else(|| listed.to_vec())
}

/// The rows of a query, followed by the defaults of columns.
pub(super) fn beside(
    query: Query,
    relation: &Relation,
    columns: &[usize],
) -> Result<Query, SqlError> {
    let broken = || SqlError::new(INTERNAL_ERROR, "a SELECT could not be made");
    let text = "SELECT * FROM (SELECT 1) AS evert_given";
    let Some(Statement::Query(mut all)) = parse_statements(text)?.pop() else {
        return Err(broken());
    };
    let select = select_mut(&mut all)?;
    for &column in columns {
        let name = relation.schema.columns[column].name.clone();
        select.projection.push(named(expression(relation, column)?, format!("default of {name}")));
    }
    match select.from.first_mut().map(|from| &mut from.relation) {
        Some(TableFactor::Derived { subquery, .. }) => **subquery = query,
        _ => return Err(broken()),
    }
    Ok(*all)
}

/// `VALUES (DEFAULT)`, which INSERT ... DEFAULT VALUES is.
pub(super) fn only() -> Result<Query, SqlError> {
    let broken = || SqlError::new(INTERNAL_ERROR, "VALUES could not be made");
    let Some(Statement::Query(mut query)) = parse_statements("VALUES (NULL)")?.pop() else {
        return Err(broken());
    };
    let SetExpr::Values(values) = query.body.as_mut() else { return Err(broken()) };
    for cell in values.rows.iter_mut().flat_map(|row| row.iter_mut()) {
        *cell = Expr::Identifier(Ident::new("default"));
    }
    Ok(*query)
}

/// The defaults of columns that a COPY leaves out.
pub(crate) struct Filling {
    columns: Vec<(usize, Planned)>,
    props: ExecutionProps,
}

impl Filling {
    /// For the columns that are not among those given.
    pub(crate) fn new(
        state: &SessionState,
        scope: &Scope,
        relation: &Relation,
        given: &[usize],
    ) -> Result<Self, SqlError> {
        let columns = left_out(relation, given).into_iter().map(|column| {
            let name = &relation.schema.columns[column].name;
            Ok((column, planned(state, scope, &relation.defaults[name])?))
        });
        let columns = columns.collect::<Result<_, SqlError>>()?;
        Ok(Self { columns, props: state.execution_props().clone() })
    }

    pub(crate) fn fills(&self, column: usize) -> bool {
        self.columns.iter().any(|(other, _)| *other == column)
    }

    /// Puts the defaults of so many rows among arrays in the columns' order.
    pub(crate) fn fill(
        &self,
        arrays: &mut [Option<ArrayRef>],
        count: usize,
    ) -> Result<(), SqlError> {
        for (column, planned) in &self.columns {
            arrays[*column] = Some(values_of(planned, &self.props, count)?);
        }
        Ok(())
    }
}

/// Refuses defaults that are no values by themselves, or none of their columns.
///
/// # Errors
/// 0A000 for columns and subqueries, and whatever a SELECT of the expression would say.
pub(crate) fn check(
    state: &SessionState,
    scope: &Scope,
    schema: &RowSchema,
    defaults: &Defaults,
) -> Result<(), SqlError> {
    for (name, text) in defaults {
        if let Some(column) = schema.columns.iter().find(|column| column.name == *name) {
            let value = values_of(&planned(state, scope, text)?, state.execution_props(), 1)?;
            values::assign(column, &value).map_err(without_place)?;
        }
    }
    Ok(())
}

fn planned(state: &SessionState, scope: &Scope, text: &str) -> Result<Planned, SqlError> {
    let text = format!("SELECT {text}");
    let Some(Statement::Query(mut query)) = parse_statements(&text)?.pop() else {
        return Err(SqlError::new(INTERNAL_ERROR, "a SELECT could not be made"));
    };
    if let [SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_))] =
        select_mut(&mut query)?.projection.as_slice()
    {
        return Err(not_a_value());
    }
    plan(state, &query, &text, scope, &[]).map_err(without_place)
}

fn values_of(
    planned: &Planned,
    props: &ExecutionProps,
    count: usize,
) -> Result<ArrayRef, SqlError> {
    match planned.repeated(props, count)? {
        Some(rows) if rows.num_columns() == 1 => Ok(Arc::clone(rows.column(0))),
        _ => Err(not_a_value()),
    }
}

fn not_a_value() -> SqlError {
    SqlError::new(FEATURE_NOT_SUPPORTED, "cannot use columns, subqueries or sets in DEFAULT")
        .hint("A default is a value by itself, such as 0, now() or gen_random_uuid().")
}
