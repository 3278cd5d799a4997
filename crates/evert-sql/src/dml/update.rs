//! UPDATE and DELETE: a SELECT of the rows they touch, and of what becomes of them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::execution::session_state::SessionState;
use evert_view::{Name, Relation, RowChange};
use sqlparser::ast::{
    Assignment, AssignmentTarget, BinaryOperator, Delete, DoUpdate, Expr, FromTable, Ident, Query,
    TableWithJoins, Update, UpdateTableFromKind,
};

use super::insert::{column_index, duplicate_key};
use super::{
    Evaluation, Outcome, column_of, defaults, named, select_from, select_mut, single_table, values,
};
use crate::command::Command;
use crate::error::{DUPLICATE_COLUMN, INTERNAL_ERROR};
use crate::names::parts;
use crate::overlay::Keys;
use crate::query::{Planned, Scope, hint_assigned, plan};
use crate::statement::Parsed;
use crate::{SqlError, translate};

pub(super) fn update_target(statement: &Update) -> Result<(Name, Option<Ident>), SqlError> {
    single_table(&statement.table)
}

pub(super) fn delete_target(statement: &Delete) -> Result<(Name, Option<Ident>), SqlError> {
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &statement.from;
    match tables.as_slice() {
        [table] => single_table(table),
        _ => Err(SqlError::unsupported("DELETE FROM several tables")),
    }
}

/// The columns that are assigned, each with its expression.
fn assignments(
    relation: &Relation,
    assignments: &[Assignment],
) -> Result<Vec<(usize, Expr)>, SqlError> {
    let mut assigned: Vec<(usize, Expr)> = Vec::with_capacity(assignments.len());
    for Assignment { target, value } in assignments {
        let pairs: Vec<(_, Expr)> = match (target, value) {
            (AssignmentTarget::ColumnName(name), value) => vec![(name, value.clone())],
            (AssignmentTarget::Tuple(names), Expr::Tuple(values))
                if names.len() == values.len() =>
            {
                names.iter().zip(values.iter().cloned()).collect()
            }
            _ => return Err(SqlError::unsupported("SET (...) = this expression")),
        };
        for (name, value) in pairs {
            let name = parts(name)?.pop().unwrap_or_default();
            let column = column_index(relation, &name)?;
            if assigned.iter().any(|(other, _)| *other == column) {
                let message = format!("multiple assignments to same column \"{name}\"");
                return Err(SqlError::new(DUPLICATE_COLUMN, message));
            }
            let value = match defaults::is_default(&value) {
                true => defaults::expression(relation, column)?,
                false => value,
            };
            assigned.push((column, value));
        }
    }
    Ok(assigned)
}

/// What the SELECT behind a statement is made of.
struct Change<'a> {
    alias: Option<Ident>,
    assigned: Vec<(usize, Expr)>,
    from: &'a [TableWithJoins],
    selection: Option<Expr>,
}

impl<'a> Change<'a> {
    fn of(command: &'a Command, relation: &Relation) -> Result<Self, SqlError> {
        match command {
            Command::Update(statement) => {
                if !statement.order_by.is_empty() || statement.limit.is_some() {
                    return Err(SqlError::unsupported("UPDATE with ORDER BY or LIMIT"));
                }
                let from = match &statement.from {
                    None => &[][..],
                    Some(
                        UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from),
                    ) => from.as_slice(),
                };
                Ok(Self {
                    alias: update_target(statement)?.1,
                    assigned: assignments(relation, &statement.assignments)?,
                    from,
                    selection: statement.selection.clone(),
                })
            }
            Command::Delete(statement) => {
                if !statement.order_by.is_empty() || statement.limit.is_some() {
                    return Err(SqlError::unsupported("DELETE with ORDER BY or LIMIT"));
                }
                Ok(Self {
                    alias: delete_target(statement)?.1,
                    assigned: Vec::new(),
                    from: statement.using.as_deref().unwrap_or_default(),
                    selection: statement.selection.clone(),
                })
            }
            _ => Err(SqlError::new(INTERNAL_ERROR, "not a statement that changes rows")),
        }
    }

    /// `SELECT every column, then what is assigned FROM the table, others WHERE ...`.
    fn query(self, relation: &Relation) -> Result<Query, SqlError> {
        let (mut query, alias) = select_from(relation, self.alias, Vec::new())?;
        let select = select_mut(&mut query)?;
        for (index, column) in relation.schema.columns.iter().enumerate() {
            select.projection.push(named(column_of(&alias, &column.name), format!("old_{index}")));
        }
        for (index, (_, value)) in self.assigned.into_iter().enumerate() {
            select.projection.push(named(value, format!("new_{index}")));
        }
        select.from.extend_from_slice(self.from);
        select.selection = self.selection;
        Ok(query)
    }
}

/// The planned SELECT behind UPDATE or DELETE.
pub(super) fn source(
    state: &SessionState,
    parsed: &Parsed,
    command: &Command,
    relation: &Relation,
    scope: &Scope,
    hints: &[Option<DataType>],
) -> Result<Arc<Planned>, SqlError> {
    if let Some(planned) = parsed.cached(&scope.catalog, hints) {
        return Ok(planned);
    }
    let mut change = Change::of(command, relation)?;
    let mut types = hints.to_vec();
    for (column, value) in &mut change.assigned {
        hint_assigned(&mut types, value, relation.schema.columns[*column].ty);
    }
    let query = change.query(relation)?;
    let planned = Arc::new(plan(state, &query, &parsed.text, scope, &types)?);
    if planned.reusable {
        parsed.cache(&scope.catalog, hints, &planned);
    }
    Ok(planned)
}

/// The rows that a statement touches: as they are, and the values assigned. Each row once, even
/// if a join finds it several times.
async fn touched(
    evaluation: &Evaluation<'_>,
    relation: &Relation,
) -> Result<(RecordBatch, Vec<ArrayRef>), SqlError> {
    let hints = evaluation.hints();
    let (parsed, scope) = (evaluation.parsed, &evaluation.scope);
    let planned = source(evaluation.state, parsed, &parsed.command, relation, scope, &hints)?;
    let found = evaluation.collect(&planned).await?;
    once(relation, &found)
}

/// Splits `old columns, new values` and keeps the first of each key.
fn once(
    relation: &Relation,
    found: &RecordBatch,
) -> Result<(RecordBatch, Vec<ArrayRef>), SqlError> {
    let internal = |error| translate::planning(&error, "");
    let width = relation.schema.columns.len();
    let columns: Vec<usize> = (0..width).collect();
    let old = found.project(&columns).map_err(|error| internal(error.into()))?;
    let keys = Keys::of(&relation.schema).and_then(|keys| keys.of_rows(&old)).map_err(internal)?;
    let mut met = HashSet::new();
    let first = (0u32..).zip(keys.iter()).filter(|(_, key)| met.insert(key.owned()));
    let first: Vec<u32> = first.map(|(row, _)| row).collect();
    let kept = values::take(found, first)?;
    let old = kept.columns()[..width].to_vec();
    let old = RecordBatch::try_new(relation.schema.to_arrow(), old)
        .map_err(|error| internal(error.into()))?;
    Ok((old, kept.columns()[width..].to_vec()))
}

/// The old rows with the assigned columns replaced.
fn assign(
    relation: &Relation,
    old: &RecordBatch,
    assigned: &[(usize, Expr)],
    new: Vec<ArrayRef>,
) -> Result<RecordBatch, SqlError> {
    let mut arrays: Vec<Option<ArrayRef>> = old.columns().iter().cloned().map(Some).collect();
    for ((column, _), array) in assigned.iter().zip(new) {
        arrays[*column] = Some(array);
    }
    values::rows(relation, arrays, old.num_rows())
}

/// Runs an UPDATE.
pub(super) async fn update(
    evaluation: &mut Evaluation<'_>,
    statement: &Update,
    relation: &Arc<Relation>,
) -> Result<Outcome, SqlError> {
    let assigned = assignments(relation, &statement.assignments)?;
    let (old, new) = touched(evaluation, relation).await?;
    let rows = assign(relation, &old, &assigned, new)?;
    if assigned.iter().any(|(column, _)| relation.schema.key.contains(column)) {
        move_keys(evaluation, relation, &old, &rows)?;
    }
    let check = evaluation.check;
    evaluation.transaction.write(relation, RowChange::Put(rows.clone()), check)?;
    let alias = update_target(statement)?.1;
    let returning =
        evaluation.returning(statement.returning.as_deref(), relation, alias, &rows).await?;
    Ok(Outcome { count: rows.num_rows(), returning })
}

/// Deletes rows whose keys change, after checking that no two rows end up under one key.
fn move_keys(
    evaluation: &mut Evaluation<'_>,
    relation: &Arc<Relation>,
    old: &RecordBatch,
    new: &RecordBatch,
) -> Result<(), SqlError> {
    let internal = |error| translate::planning(&error, "");
    let keys = Keys::of(&relation.schema).map_err(internal)?;
    let left: HashSet<_> =
        keys.of_rows(old).map_err(internal)?.iter().map(|key| key.owned()).collect();
    let projected = keys.project(new).map_err(internal)?;
    let arriving = keys.of_keys(&projected).map_err(internal)?;
    let table = evaluation.table_rows(relation)?;
    let mut met = HashSet::new();
    for row in 0..new.num_rows() {
        let key = arriving.row(row).owned();
        let taken = !left.contains(&key) && table.get(&projected, row).is_some();
        if taken || !met.insert(key) {
            return Err(duplicate_key(relation, new, row));
        }
    }
    evaluation.transaction.write(relation, RowChange::Delete(old.clone()), evaluation.check)
}

/// Runs a DELETE.
pub(super) async fn delete(
    evaluation: &mut Evaluation<'_>,
    relation: &Arc<Relation>,
) -> Result<Outcome, SqlError> {
    let Command::Delete(statement) = &evaluation.parsed.command else {
        return Err(SqlError::new(INTERNAL_ERROR, "not a DELETE"));
    };
    let (old, _) = touched(evaluation, relation).await?;
    let check = evaluation.check;
    evaluation.transaction.write(relation, RowChange::Delete(old.clone()), check)?;
    let alias = delete_target(statement)?.1;
    let returning =
        evaluation.returning(statement.returning.as_deref(), relation, alias, &old).await?;
    Ok(Outcome { count: old.num_rows(), returning })
}

/// ON CONFLICT DO UPDATE: an UPDATE of the rows that are there, from those that were proposed.
pub(super) async fn upsert(
    evaluation: &mut Evaluation<'_>,
    relation: &Arc<Relation>,
    (update, alias): (&DoUpdate, Option<Ident>),
    existing: Vec<RecordBatch>,
    proposed: RecordBatch,
) -> Result<RecordBatch, SqlError> {
    let excluded = Ident::new("excluded");
    let called = alias.clone().unwrap_or_else(|| Ident::with_quote('"', &relation.name.name));
    let same_key = relation.schema.key.iter().map(|column| {
        let name = &relation.schema.columns[*column].name;
        let (left, right) = (column_of(&called, name), column_of(&excluded, name));
        equal(left, right)
    });
    let condition = same_key.chain(update.selection.clone().map(|e| Expr::Nested(Box::new(e))));
    let from = excluded_table()?;
    let change = Change {
        alias,
        assigned: assignments(relation, &update.assignments)?,
        from: &from,
        selection: condition.reduce(and),
    };
    let assigned = change.assigned.clone();
    let query = change.query(relation)?;

    let name = Name::public("excluded");
    evaluation.scope.extra.insert(name.clone(), relation.schema.to_arrow());
    let hints = evaluation.hints();
    let text = &evaluation.parsed.text;
    let planned = plan(evaluation.state, &query, text, &evaluation.scope, &hints)?;
    evaluation.own_rows.insert(name.clone(), vec![proposed]);
    evaluation.own_rows.insert(relation.name.clone(), existing);
    let found = evaluation.collect(&planned).await;
    evaluation.own_rows.remove(&name);
    evaluation.own_rows.remove(&relation.name);
    let (old, new) = once(relation, &found?)?;
    assign(relation, &old, &assigned, new)
}

fn excluded_table() -> Result<Vec<TableWithJoins>, SqlError> {
    let statements = crate::text::parse_statements("SELECT 1 FROM excluded")?;
    match statements.into_iter().next() {
        Some(sqlparser::ast::Statement::Query(mut query)) => {
            Ok(select_mut(&mut query)?.from.clone())
        }
        _ => Err(SqlError::new(INTERNAL_ERROR, "a SELECT could not be made")),
    }
}

fn equal(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right: Box::new(right) }
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}
