//! INSERT.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use arrow::row::OwnedRow;
use datafusion::execution::session_state::SessionState;
use evert_model::{ColumnType, ItemType};
use evert_view::{Name, Relation, RelationKind, RowChange};
use sqlparser::ast::{
    ArrayElemTypeDef, CastKind, DataType as SqlType, DoUpdate, ExactNumberInfo, Expr, Ident,
    Insert, OnConflictAction, OnInsert, Parens, SelectItem, SetExpr, SetOperator, SetQuantifier,
    Statement, TableObject, TimezoneInfo, UnaryOperator, Value, visit_expressions,
};

use super::{Evaluation, Outcome, defaults, select_mut, update, values};
use crate::casts::NumericText;
use crate::error::{
    CARDINALITY_VIOLATION, DUPLICATE_COLUMN, INTERNAL_ERROR, SYNTAX_ERROR, UNDEFINED_COLUMN,
    UNIQUE_VIOLATION,
};
use crate::names::{parts, relation_name};
use crate::overlay::Keys;
use crate::query::{Planned, Scope, hint_assigned, plan};
use crate::scan::Rows;
use crate::statement::Parsed;
use crate::{SqlError, translate};

/// What happens to a row whose key is there already.
enum Conflict<'a> {
    Replace,
    Error,
    Nothing,
    Update(&'a DoUpdate),
}

pub(super) fn target(statement: &Insert) -> Result<Name, SqlError> {
    match &statement.table {
        TableObject::TableName(name) => relation_name(name),
        _ => Err(SqlError::unsupported("INSERT INTO a function")),
    }
}

fn conflict<'a>(statement: &'a Insert, relation: &Relation) -> Result<Conflict<'a>, SqlError> {
    Ok(match &statement.on {
        None if relation.conflict_is_error => Conflict::Error,
        None => Conflict::Replace,
        Some(OnInsert::OnConflict(on)) => match &on.action {
            OnConflictAction::DoNothing => Conflict::Nothing,
            OnConflictAction::DoUpdate(update) => Conflict::Update(update),
        },
        Some(_) => return Err(SqlError::unsupported("ON DUPLICATE KEY")),
    })
}

/// Whether what an INSERT writes depends on what the table holds.
pub(super) fn reads_target(statement: &Insert, relation: &Relation) -> bool {
    relation.kind == RelationKind::Table && (relation.conflict_is_error || statement.on.is_some())
}

/// The columns that an INSERT gives, in the order of its values.
fn columns(statement: &Insert, relation: &Relation) -> Result<Vec<usize>, SqlError> {
    let names = statement.columns.iter().map(|name| Ok(parts(name)?.pop().unwrap_or_default()));
    listed(relation, &names.collect::<Result<Vec<_>, SqlError>>()?)
}

/// The columns of a list after a relation's name; without one, all.
pub(crate) fn listed(relation: &Relation, names: &[String]) -> Result<Vec<usize>, SqlError> {
    if names.is_empty() {
        return Ok((0..relation.schema.columns.len()).collect());
    }
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let index = column_index(relation, name)?;
        if columns.contains(&index) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(SqlError::new(DUPLICATE_COLUMN, message));
        }
        columns.push(index);
    }
    Ok(columns)
}

pub(super) fn column_index(relation: &Relation, name: &str) -> Result<usize, SqlError> {
    relation.schema.index_of(name).ok_or_else(|| {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", relation.name);
        let error = SqlError::new(UNDEFINED_COLUMN, message);
        let known = relation.schema.columns.iter().map(|column| column.name.clone());
        match crate::names::nearest(name, known) {
            Some(near) => error.hint(format!("Perhaps you meant the column \"{near}\".")),
            None => error,
        }
    })
}

/// The planned query that gives the values.
pub(super) fn source(
    state: &SessionState,
    parsed: &Parsed,
    statement: &Insert,
    relation: &Relation,
    scope: &Scope,
    hints: &[Option<DataType>],
) -> Result<Arc<Planned>, SqlError> {
    if let Some(planned) = parsed.cached(&scope.catalog, hints) {
        return Ok(planned);
    }
    let columns = columns(statement, relation)?;
    let mut query = match &statement.source {
        Some(query) => query.as_ref().clone(),
        None => defaults::only()?,
    };
    let all_listed = !statement.columns.is_empty();
    let mut types = hints.to_vec();
    if let SetExpr::Values(values) = query.body.as_mut() {
        let given = values.rows.first().map_or(0, |row| row.len());
        check_count(given, &columns, all_listed)?;
        let columns = [&columns[..given], &defaults::left_out(relation, &columns[..given])];
        prepare_values(&mut values.rows, relation, &columns.concat(), given, &mut types)?;
    }
    if let SetExpr::Values(values) = query.body.as_ref()
        && values.rows.iter().any(|row| row.iter().any(has_subquery))
    {
        *query.body = selects(&values.rows)?;
    }
    let is_values = matches!(query.body.as_ref(), SetExpr::Values(_));
    let mut planned = plan(state, &query, &parsed.text, scope, &types)?;
    if !is_values {
        let given = planned.schema.fields().len();
        check_count(given, &columns, all_listed)?;
        let left_out = defaults::left_out(relation, &columns[..given]);
        if !left_out.is_empty() {
            let query = defaults::beside(query, relation, &left_out)?;
            planned = plan(state, &query, &parsed.text, scope, &types)?;
        }
    }
    let planned = Arc::new(planned);
    if planned.reusable {
        parsed.cache(&scope.catalog, hints, &planned);
    }
    Ok(planned)
}

/// As in Postgres, trailing columns may be left out when no columns are listed.
fn check_count(given: usize, columns: &[usize], all_listed: bool) -> Result<(), SqlError> {
    let (more, fewer) = if given > columns.len() {
        ("expressions", "target columns")
    } else if given < columns.len() && all_listed {
        ("target columns", "expressions")
    } else {
        return Ok(());
    };
    Err(SqlError::new(SYNTAX_ERROR, format!("INSERT has more {more} than {fewer}")))
}

fn has_subquery(cell: &Expr) -> bool {
    let is_one = |expr: &Expr| match expr {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    visit_expressions(cell, is_one).is_break()
}

/// Rows of VALUES as SELECTs, in which subqueries may stand.
fn selects(rows: &[Parens<Vec<Expr>>]) -> Result<SetExpr, SqlError> {
    let mut all: Option<SetExpr> = None;
    for row in rows {
        let broken = || SqlError::new(INTERNAL_ERROR, "a SELECT could not be made");
        let statement = crate::text::parse_statements("SELECT 1")?.pop().ok_or_else(broken)?;
        let Statement::Query(mut query) = statement else { return Err(broken()) };
        select_mut(&mut query)?.projection =
            row.iter().cloned().map(SelectItem::UnnamedExpr).collect();
        all = Some(match all {
            None => *query.body,
            Some(left) => SetExpr::SetOperation {
                op: SetOperator::Union,
                set_quantifier: SetQuantifier::All,
                left: Box::new(left),
                right: query.body,
            },
        });
    }
    all.ok_or_else(|| SqlError::new(SYNTAX_ERROR, "VALUES has no rows"))
}

/// In VALUES, DEFAULT is what was declared, also for columns beyond those `given`, and a parameter
/// has its column's type.
fn prepare_values(
    rows: &mut [Parens<Vec<Expr>>],
    relation: &Relation,
    columns: &[usize],
    given: usize,
    hints: &mut Vec<Option<DataType>>,
) -> Result<(), SqlError> {
    for row in &mut *rows {
        // Rows of other lengths than the first are refused by the planner.
        if row.len() == given {
            for &column in &columns[given..] {
                row.content.push(defaults::expression(relation, column)?);
            }
        }
        for (cell, &column) in row.iter_mut().zip(columns) {
            if defaults::is_default(cell) {
                *cell = defaults::expression(relation, column)?;
            }
            hint_assigned(hints, cell, relation.schema.columns[column].ty);
        }
    }
    for (index, column) in columns.iter().enumerate() {
        read_apart(rows, index, relation.schema.columns[*column].ty);
    }
    Ok(())
}

/// In VALUES each value takes its column's type by itself, where the rows together would give all
/// of them another one: 0 beside 'NaN', or 1e-30 beside 1e10.
fn read_apart(rows: &mut [Parens<Vec<Expr>>], index: usize, ty: ColumnType) {
    let Some(ty) = cell_type(ty) else { return };
    let cells = || rows.iter().filter_map(|row| row.get(index)).filter(|cell| !is_null(cell));
    let kinds: Vec<Kind> = cells().map(Kind::of).collect();
    let size = kinds.iter().fold((0, 0), |(whole, fraction), kind| match kind {
        Kind::Number { whole: w, fraction: f } => (whole.max(*w), fraction.max(*f)),
        _ => (whole, fraction),
    });
    let text = kinds.iter().all(|kind| *kind == Kind::Text);
    let numbers = kinds.iter().all(|kind| matches!(kind, Kind::Number { .. }));
    if kinds.len() < 2 || text || (numbers && size.0 + size.1 <= DIGITS_MAX && ty != SqlType::Text)
    {
        return;
    }
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(index)) {
        if !is_null(cell) && Kind::of(cell) != Kind::Parameter {
            *cell = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(cell.clone()),
                data_type: ty.clone(),
                array: false,
                format: None,
            };
        }
    }
}

/// The type that values are cast to; none where rows of VALUES do not differ.
fn cell_type(ty: ColumnType) -> Option<SqlType> {
    Some(match ty {
        ColumnType::Int16 => SqlType::SmallInt(None),
        ColumnType::Int32 => SqlType::Integer(None),
        ColumnType::Int64 => SqlType::BigInt(None),
        ColumnType::Float32 => SqlType::Real,
        ColumnType::Float64 => SqlType::DoublePrecision,
        ColumnType::Decimal { precision, scale } => SqlType::Numeric(
            ExactNumberInfo::PrecisionAndScale(u64::from(precision), i64::from(scale)),
        ),
        ColumnType::Text => SqlType::Text,
        ColumnType::Array(item) => {
            let item = match item {
                ItemType::Boolean => SqlType::Boolean,
                ItemType::Bytes => SqlType::Bytea,
                ItemType::Date => SqlType::Date,
                ItemType::Timestamp => SqlType::Timestamp(None, TimezoneInfo::None),
                ItemType::TimestampTz => SqlType::Timestamp(None, TimezoneInfo::Tz),
                item => cell_type(item.column_type())?,
            };
            SqlType::Array(ArrayElemTypeDef::SquareBracket(Box::new(item), None))
        }
        _ => return None,
    })
}

/// The most digits that a decimal has.
const DIGITS_MAX: usize = 38;

fn is_null(cell: &Expr) -> bool {
    matches!(cell, Expr::Value(value) if value.value == Value::Null)
}

/// What a value in VALUES is.
#[derive(PartialEq)]
enum Kind {
    Text,
    /// A number of so many digits before and after its point.
    Number {
        whole: usize,
        fraction: usize,
    },
    /// It has its column's type already.
    Parameter,
    Other,
}

impl Kind {
    fn of(cell: &Expr) -> Self {
        match cell {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(_) => Self::Text,
                Value::Placeholder(_) => Self::Parameter,
                Value::Number(text, _) => match NumericText::read(text).and_then(|n| n.size()) {
                    Some((precision, scale)) => {
                        let fraction = usize::from(scale.unsigned_abs());
                        Self::Number { whole: usize::from(precision) - fraction, fraction }
                    }
                    None => Self::Other,
                },
                _ => Self::Other,
            },
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => {
                match Self::of(expr) {
                    number @ Self::Number { .. } => number,
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

/// Runs an INSERT.
pub(super) async fn run(
    evaluation: &mut Evaluation<'_>,
    statement: &Insert,
    relation: &Arc<Relation>,
) -> Result<Outcome, SqlError> {
    let conflict = conflict(statement, relation)?;
    let rows = new_rows(evaluation, statement, relation).await?;
    let (changed, count) = match (relation.kind, conflict) {
        (RelationKind::Table, Conflict::Error) => {
            refuse_existing(&evaluation.table_rows(relation)?, relation, &rows)?;
            (rows.clone(), rows.num_rows())
        }
        (RelationKind::Table, Conflict::Nothing) => {
            let (new, _) = split(&evaluation.table_rows(relation)?, relation, &rows)?;
            let rows = values::take(&rows, new)?;
            (rows.clone(), rows.num_rows())
        }
        (RelationKind::Table, Conflict::Update(update)) => {
            let alias = statement.table_alias.as_ref().map(|alias| alias.alias.clone());
            let rows = upsert(evaluation, relation, (update, alias), &rows).await?;
            (rows.clone(), rows.num_rows())
        }
        _ => (rows.clone(), rows.num_rows()),
    };
    evaluation.transaction.write(relation, RowChange::Put(changed.clone()), evaluation.check)?;
    let alias = statement.table_alias.as_ref().map(|alias| alias.alias.clone());
    let returning =
        evaluation.returning(statement.returning.as_deref(), relation, alias, &changed).await?;
    Ok(Outcome { count, returning })
}

/// The values, as whole rows of the table.
async fn new_rows(
    evaluation: &Evaluation<'_>,
    statement: &Insert,
    relation: &Relation,
) -> Result<RecordBatch, SqlError> {
    let hints = evaluation.hints();
    let (state, scope) = (evaluation.state, &evaluation.scope);
    let planned = source(state, evaluation.parsed, statement, relation, scope, &hints)?;
    let given = evaluation.collect(&planned).await?;
    let mut arrays: Vec<Option<ArrayRef>> = vec![None; relation.schema.columns.len()];
    let listed = columns(statement, relation)?;
    let filled = defaults::filled(relation, &listed, given.num_columns());
    for (column, array) in filled.into_iter().zip(given.columns()) {
        arrays[column] = Some(Arc::clone(array));
    }
    values::rows(relation, arrays, given.num_rows())
}

/// Rows whose keys are new, and rows whose keys the table has. A key that comes twice is new once.
fn split(
    table: &Rows,
    relation: &Relation,
    rows: &RecordBatch,
) -> Result<(Vec<u32>, Vec<u32>), SqlError> {
    let internal = |error| translate::planning(&error, "");
    let keys = Keys::of(&relation.schema).map_err(internal)?;
    let projected = keys.project(rows).map_err(internal)?;
    let encoded = keys.of_keys(&projected).map_err(internal)?;
    let mut met: HashMap<OwnedRow, ()> = HashMap::new();
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for row in 0..rows.num_rows() {
        let index = u32::try_from(row)
            .map_err(|_| SqlError::new(INTERNAL_ERROR, "too many rows in one statement"))?;
        match met.entry(encoded.row(row).owned()) {
            Entry::Occupied(_) => known.push(index),
            Entry::Vacant(entry) => {
                entry.insert(());
                match table.get(&projected, row) {
                    Some(_) => known.push(index),
                    None => new.push(index),
                }
            }
        }
    }
    Ok((new, known))
}

/// Refuses rows whose keys the table has, or that have a key twice.
pub(crate) fn refuse_existing(
    table: &Rows,
    relation: &Relation,
    rows: &RecordBatch,
) -> Result<(), SqlError> {
    let (_, known) = split(table, relation, rows)?;
    match known.first() {
        Some(row) => Err(duplicate_key(relation, rows, *row as usize)),
        None => Ok(()),
    }
}

/// `23505`, with the key.
pub(super) fn duplicate_key(relation: &Relation, rows: &RecordBatch, row: usize) -> SqlError {
    let name = &relation.name;
    let key = &relation.schema.key;
    let text = |column: &usize| {
        arrow::util::display::array_value_to_string(rows.column(*column), row).unwrap_or_default()
    };
    let columns: Vec<_> =
        key.iter().map(|column| relation.schema.columns[*column].name.as_str()).collect();
    let values: Vec<_> = key.iter().map(text).collect();
    SqlError::new(
        UNIQUE_VIOLATION,
        format!("duplicate key value violates unique constraint \"{}_pkey\"", name.name),
    )
    .detail(format!("Key ({})=({}) already exists.", columns.join(", "), values.join(", ")))
}

/// ON CONFLICT DO UPDATE: the new rows, and the existing ones with the assignments made.
async fn upsert(
    evaluation: &mut Evaluation<'_>,
    relation: &Arc<Relation>,
    update: (&DoUpdate, Option<Ident>),
    rows: &RecordBatch,
) -> Result<RecordBatch, SqlError> {
    let (new, known) = split(&evaluation.table_rows(relation)?, relation, rows)?;
    let inserted = values::take(rows, new)?;
    if known.is_empty() {
        return Ok(inserted);
    }
    let proposed = values::take(rows, known)?;
    let internal = |error| translate::planning(&error, "");
    let keys = Keys::of(&relation.schema).map_err(internal)?;
    let projected = keys.project(&proposed).map_err(internal)?;
    let table = evaluation.table_rows(relation)?;
    let mut existing = Vec::with_capacity(proposed.num_rows());
    for row in 0..proposed.num_rows() {
        match table.get(&projected, row) {
            Some(found) => existing.push(found),
            None => {
                return Err(SqlError::new(
                    CARDINALITY_VIOLATION,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .hint("Ensure that no rows proposed for insertion have the same key."));
            }
        }
    }
    let updated = update::upsert(evaluation, relation, update, existing, proposed).await?;
    concat_batches(&inserted.schema(), [&inserted, &updated])
        .map_err(|error| internal(error.into()))
}
