//! INSERT, UPDATE and DELETE: which rows change, and to what.
//!
//! Owns: turning a statement into [`RowChange`]s of a transaction.
//! Not here: locks, commits (`session`, `transaction`).

pub(crate) mod defaults;
pub(crate) mod insert;
mod lock;
mod update;
pub(crate) mod values;

pub(crate) use lock::hold;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::session_state::SessionState;
use evert_view::{Catalog, Cut, Name, Relation, RelationKind};
use futures::TryStreamExt;
use sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, TableWithJoins};

use crate::command::Command;
use crate::engine::Inner;
use crate::error::{INTERNAL_ERROR, WRONG_OBJECT_TYPE};
use crate::names::unknown_relation;
use crate::query::{Planned, Scope, conform, plan};
use crate::scan::Rows;
use crate::statement::Parsed;
use crate::text::parse_statements;
use crate::transaction::{Check, Transaction};
use crate::{Description, SqlError, translate};

/// What a statement did.
pub(crate) struct Outcome {
    pub(crate) count: usize,
    /// RETURNING's rows.
    pub(crate) returning: Option<(SchemaRef, Vec<RecordBatch>)>,
}

/// What a DML statement runs in.
pub(crate) struct Evaluation<'a> {
    pub(crate) engine: &'a Inner,
    pub(crate) state: &'a SessionState,
    pub(crate) parsed: &'a Parsed,
    pub(crate) params: &'a [ArrayRef],
    pub(crate) transaction: &'a mut Transaction,
    /// What it reads; a plain INSERT of values reads nothing.
    pub(crate) cut: Option<Arc<Cut>>,
    pub(crate) check: Check,
    pub(crate) scope: Scope,
    /// Rows of names that only this statement has, or has other rows for.
    pub(crate) own_rows: BTreeMap<Name, Vec<RecordBatch>>,
}

/// What a statement needs before it can run.
pub(crate) struct Needs {
    /// The rows of its own table: no other writer may come between reading and writing.
    pub(crate) alone: bool,
    /// Relations that it reads or writes.
    pub(crate) relations: Vec<Name>,
}

/// The relation that a statement changes.
pub(crate) fn target(command: &Command, scope: &Scope) -> Result<Arc<Relation>, SqlError> {
    let name = match command {
        Command::Insert(statement) => insert::target(statement)?,
        Command::Update(statement) => update::update_target(statement)?.0,
        Command::Delete(statement) => update::delete_target(statement)?.0,
        _ => return Err(SqlError::new(INTERNAL_ERROR, "not a statement that changes rows")),
    };
    let relation = writable(&name, &scope.catalog)?;
    if relation.kind != RelationKind::Table && !matches!(command, Command::Insert(_)) {
        let message = format!("cannot change rows of stream \"{name}\"");
        return Err(SqlError::new(WRONG_OBJECT_TYPE, message)
            .hint("A stream's records are facts: they are only added."));
    }
    Ok(relation)
}

/// A relation that clients may add rows to.
pub(crate) fn writable(name: &Name, catalog: &Catalog) -> Result<Arc<Relation>, SqlError> {
    let Some(relation) = catalog.relation(name) else {
        if catalog.views.contains_key(name) {
            let message = format!("cannot change materialized view \"{name}\"");
            return Err(SqlError::new(WRONG_OBJECT_TYPE, message)
                .hint("Change the tables that it is computed from."));
        }
        if crate::system::find(name).is_some() {
            let message = format!("cannot change system relation \"{name}\"");
            return Err(SqlError::new(WRONG_OBJECT_TYPE, message));
        }
        return Err(unknown_relation(name, catalog));
    };
    if let Some(source) = &relation.source {
        let message = format!("cannot change \"{name}\": source \"{source}\" writes it");
        return Err(
            SqlError::new(WRONG_OBJECT_TYPE, message).hint("Change the row where it comes from.")
        );
    }
    Ok(Arc::clone(relation))
}

/// What a statement reads and whether it must run alone.
pub(crate) fn needs(
    state: &SessionState,
    parsed: &Parsed,
    scope: &Scope,
    hints: &[Option<DataType>],
) -> Result<Needs, SqlError> {
    let relation = target(&parsed.command, scope)?;
    let (source, alone) = match &parsed.command {
        Command::Insert(statement) => {
            let source = insert::source(state, parsed, statement, &relation, scope, hints)?;
            (source, insert::reads_target(statement, &relation))
        }
        command => (update::source(state, parsed, command, &relation, scope, hints)?, true),
    };
    let mut relations = source.relations.clone();
    relations.push(relation.name.clone());
    Ok(Needs { alone, relations })
}

/// Types of a statement's parameters and of what RETURNING gives.
pub(crate) fn describe(
    state: &SessionState,
    parsed: &Parsed,
    scope: &Scope,
    hints: &[Option<DataType>],
) -> Result<Description, SqlError> {
    let relation = target(&parsed.command, scope)?;
    let (source, returning) = match &parsed.command {
        Command::Insert(statement) => {
            let source = insert::source(state, parsed, statement, &relation, scope, hints)?;
            (source, returning_query(statement.returning.as_deref(), &relation, None)?)
        }
        Command::Update(statement) => {
            let alias = update::update_target(statement)?.1;
            let source = update::source(state, parsed, &parsed.command, &relation, scope, hints)?;
            (source, returning_query(statement.returning.as_deref(), &relation, alias)?)
        }
        Command::Delete(statement) => {
            let alias = update::delete_target(statement)?.1;
            let source = update::source(state, parsed, &parsed.command, &relation, scope, hints)?;
            (source, returning_query(statement.returning.as_deref(), &relation, alias)?)
        }
        _ => return Err(SqlError::new(INTERNAL_ERROR, "not a statement that changes rows")),
    };
    let (mut params, mut oids) = (source.params.clone(), source.oids.clone());
    let columns = match returning {
        Some(query) => {
            let known: Vec<_> = params.iter().cloned().map(Some).collect();
            let planned = plan(state, &query, &parsed.text, scope, &known)?;
            params = planned.params;
            oids.extend(planned.oids);
            Some(planned.schema)
        }
        None => None,
    };
    Ok(Description { params, oids, columns })
}

/// Runs a statement.
pub(crate) async fn run(mut evaluation: Evaluation<'_>) -> Result<Outcome, SqlError> {
    let parsed = evaluation.parsed;
    let relation = target(&parsed.command, &evaluation.scope)?;
    match &parsed.command {
        Command::Insert(statement) => insert::run(&mut evaluation, statement, &relation).await,
        Command::Update(statement) => update::update(&mut evaluation, statement, &relation).await,
        _ => update::delete(&mut evaluation, &relation).await,
    }
}

impl Evaluation<'_> {
    fn hints(&self) -> Vec<Option<DataType>> {
        self.params.iter().map(|param| Some(param.data_type().clone())).collect()
    }

    /// A plan's rows, all of them, as one batch.
    async fn collect(&self, planned: &Planned) -> Result<RecordBatch, SqlError> {
        let rows = |name: &Name| self.rows(name);
        let text = &self.parsed.text;
        if let Some(found) = planned.evaluate(self.state, self.params, &rows, text)? {
            return Ok(found);
        }
        let stream = planned.execute(self.state, self.params, &rows).await?;
        let batches: Vec<RecordBatch> = stream
            .try_collect()
            .await
            .map_err(|error| translate::planning(&error, &self.parsed.text))?;
        let conformed = batches.iter().map(|batch| conform(batch, &planned.schema));
        let batches = conformed.collect::<Result<Vec<_>, _>>()?;
        concat_batches(&planned.schema, &batches)
            .map_err(|error| translate::planning(&error.into(), &self.parsed.text))
    }

    fn rows(&self, name: &Name) -> Result<Rows, SqlError> {
        if let Some(rows) = self.own_rows.get(name) {
            return Ok(Rows::Batches(rows.clone()));
        }
        match &self.cut {
            Some(cut) => self.transaction.rows(self.engine, cut, name),
            None => crate::system::rows(self.engine, name),
        }
    }

    /// The rows that a relation has now, for lookups by key.
    fn table_rows(&self, relation: &Relation) -> Result<Rows, SqlError> {
        self.rows(&relation.name)
    }

    /// RETURNING's rows, over the rows that the statement changed.
    async fn returning(
        &mut self,
        items: Option<&[SelectItem]>,
        relation: &Relation,
        alias: Option<Ident>,
        rows: &RecordBatch,
    ) -> Result<Option<(SchemaRef, Vec<RecordBatch>)>, SqlError> {
        let Some(query) = returning_query(items, relation, alias)? else { return Ok(None) };
        let hints = self.hints();
        let planned = plan(self.state, &query, &self.parsed.text, &self.scope, &hints)?;
        let before = self.own_rows.insert(relation.name.clone(), vec![rows.clone()]);
        let result = self.collect(&planned).await;
        match before {
            Some(before) => self.own_rows.insert(relation.name.clone(), before),
            None => self.own_rows.remove(&relation.name),
        };
        Ok(Some((planned.schema, vec![result?])))
    }
}

/// `SELECT items FROM relation AS alias`.
fn returning_query(
    items: Option<&[SelectItem]>,
    relation: &Relation,
    alias: Option<Ident>,
) -> Result<Option<Query>, SqlError> {
    let Some(items) = items else { return Ok(None) };
    let (query, _) = select_from(relation, alias, items.to_vec())?;
    Ok(Some(query))
}

/// A SELECT over one relation, to be filled in. Gives the name by which its columns are called.
fn select_from(
    relation: &Relation,
    alias: Option<Ident>,
    items: Vec<SelectItem>,
) -> Result<(Query, Ident), SqlError> {
    let quoted = |name: &str| Ident::with_quote('"', name);
    let alias = alias.unwrap_or_else(|| quoted(&relation.name.name));
    let (schema, name) = (quoted(&relation.name.schema), quoted(&relation.name.name));
    let text = format!("SELECT 1 FROM {schema}.{name} AS {alias}");
    let broken = || SqlError::new(INTERNAL_ERROR, "a SELECT could not be made");
    let statement = parse_statements(&text)?.pop().ok_or_else(broken)?;
    let sqlparser::ast::Statement::Query(mut query) = statement else { return Err(broken()) };
    select_mut(&mut query)?.projection = items;
    Ok((*query, alias))
}

fn select_mut(query: &mut Query) -> Result<&mut Select, SqlError> {
    match query.body.as_mut() {
        sqlparser::ast::SetExpr::Select(select) => Ok(select),
        _ => Err(SqlError::new(INTERNAL_ERROR, "a SELECT could not be made")),
    }
}

/// The name and alias of the one table that UPDATE or DELETE changes.
fn single_table(table: &TableWithJoins) -> Result<(Name, Option<Ident>), SqlError> {
    match &table.relation {
        // `UPDATE ONLY t`: no table here has others that inherit from it.
        sqlparser::ast::TableFactor::Table { name, alias: Some(alias), .. }
            if table.joins.is_empty()
                && !alias.explicit
                && name.to_string().eq_ignore_ascii_case("only") =>
        {
            Ok((crate::names::relation_name(&vec![alias.name.clone()].into())?, None))
        }
        sqlparser::ast::TableFactor::Table { name, alias, .. } if table.joins.is_empty() => {
            let alias = alias.as_ref().map(|alias| alias.name.clone());
            Ok((crate::names::relation_name(name)?, alias))
        }
        _ => Err(SqlError::unsupported("changing anything but one table")),
    }
}

/// A column of the relation, by the alias it is selected with.
fn column_of(alias: &Ident, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![alias.clone(), Ident::with_quote('"', name)])
}

fn named(expr: Expr, name: String) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
}
