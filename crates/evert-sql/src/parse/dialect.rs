//! Statements of the dialect: which are understood, and as what.

use evert_view::Name;
use sqlparser::ast::{
    self, ContextModifier, Expr, Query, Set, SetExpr, Statement, TransactionAccessMode,
    TransactionMode, Value,
};

use super::inlined::inlined;
use crate::SqlError;
use crate::command::{Command, CreateIndex};
use crate::names;

/// What a statement of the dialect asks for.
pub(super) fn command(statement: Statement, text: &str) -> Result<Command, SqlError> {
    let _ = text;
    Ok(match statement {
        Statement::Query(query) => match (query.with, *query.body) {
            (
                Some(with),
                SetExpr::Insert(changing) | SetExpr::Update(changing) | SetExpr::Delete(changing),
            ) => return command(inlined(with, changing)?, text),
            (with, body) => {
                Command::Query(Box::new(Query { with, body: Box::new(body), ..*query }))
            }
        },
        Statement::Insert(insert) => Command::Insert(Box::new(insert)),
        Statement::Update(update) => Command::Update(Box::new(update)),
        Statement::Delete(delete) => Command::Delete(Box::new(delete)),
        Statement::CreateIndex(index) => create_index(index)?,
        Statement::StartTransaction { modes, .. } => {
            Command::Begin { read_only: read_only(&modes) == Some(true) }
        }
        Statement::Commit { chain: false, .. } => Command::Commit,
        Statement::Rollback { chain: false, savepoint: None } => Command::Rollback,
        Statement::Savepoint { name } => Command::Savepoint(names::fold(&name)),
        Statement::ReleaseSavepoint { name } => Command::ReleaseSavepoint(names::fold(&name)),
        Statement::Rollback { savepoint: Some(name), .. } => {
            Command::RollbackTo(names::fold(&name))
        }
        Statement::Set(set) => return self::set(set),
        Statement::Discard { .. } => Command::DiscardAll,
        Statement::Deallocate { .. } => Command::Nothing { tag: "DEALLOCATE" },
        Statement::Analyze(_) => Command::Nothing { tag: "ANALYZE" },
        Statement::Vacuum(_) => Command::Nothing { tag: "VACUUM" },
        other => return Err(SqlError::unsupported(words(&other))),
    })
}

/// `CREATE INDEX [IF NOT EXISTS] [name] ON relation [USING btree | hash] (column, ...)`.
fn create_index(index: ast::CreateIndex) -> Result<Command, SqlError> {
    if index.unique {
        return Err(SqlError::unsupported("CREATE UNIQUE INDEX")
            .hint("A table's rows are unique by its PRIMARY KEY."));
    }
    if index.predicate.is_some() || !index.include.is_empty() {
        return Err(SqlError::unsupported("an index with WHERE or INCLUDE"));
    }
    let on = names::relation_name(&index.table_name)?;
    let mut columns = Vec::new();
    for column in &index.columns {
        match &column.column.expr {
            Expr::Identifier(ident) => columns.push(names::fold(ident)),
            other => {
                return Err(SqlError::unsupported(format!("an index over {other}"))
                    .hint("Index columns; a view may compute what is to be found."));
            }
        }
    }
    let name = match &index.name {
        Some(name) => names::relation_name(name)?.name,
        None => format!("{}_{}_idx", on.name, columns.join("_")),
    };
    let name = Name::new(&on.schema, name);
    Ok(Command::CreateIndex(CreateIndex { name, on, columns, if_not_exists: index.if_not_exists }))
}

/// The first words of a statement that is refused: `ALTER TABLE`, `COPY`, ...
fn words(statement: &Statement) -> String {
    let text = statement.to_string();
    let capitals = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
    let words: Vec<_> = text.split_whitespace().take_while(capitals).take(3).collect();
    if words.is_empty() { "this statement".to_owned() } else { words.join(" ") }
}

fn read_only(modes: &[TransactionMode]) -> Option<bool> {
    modes.iter().rev().find_map(|mode| match mode {
        TransactionMode::AccessMode(access) => Some(*access == TransactionAccessMode::ReadOnly),
        TransactionMode::IsolationLevel(_) => None,
    })
}

fn set(set: Set) -> Result<Command, SqlError> {
    Ok(match set {
        Set::SingleAssignment { scope, variable, values, .. } => Command::Set {
            name: names::parts(&variable)?.join(".").to_lowercase(),
            value: setting_value(&values),
            local: scope == Some(ContextModifier::Local),
        },
        Set::SetTimeZone { local, value } => {
            Command::Set { name: "timezone".into(), value: setting_value(&[value]), local }
        }
        Set::SetNames { charset_name, .. } => Command::Set {
            name: "client_encoding".into(),
            value: Some(charset_name.value),
            local: false,
        },
        Set::SetTransaction { modes, session, .. } => {
            // Any isolation level is served by the one there is: a snapshot with checked writes.
            let read_only = read_only(&modes);
            match (session, read_only) {
                (true, Some(read_only)) => Command::Set {
                    name: "default_transaction_read_only".into(),
                    value: Some(if read_only { "on" } else { "off" }.into()),
                    local: false,
                },
                (true, None) => Command::Nothing { tag: "SET" },
                (false, read_only) => Command::SetTransaction { read_only },
            }
        }
        Set::SetRole { .. } | Set::SetSessionAuthorization(_) => {
            return Err(SqlError::unsupported("SET ROLE"));
        }
        other => return Err(SqlError::unsupported(format!("{other}"))),
    })
}

/// A setting's value as text; `None` for DEFAULT.
fn setting_value(values: &[Expr]) -> Option<String> {
    let text = |value: &Expr| match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(ident) => ident.value.clone(),
        other => other.to_string(),
    };
    let joined = values.iter().map(text).collect::<Vec<_>>().join(", ");
    (!joined.eq_ignore_ascii_case("default")).then_some(joined)
}
