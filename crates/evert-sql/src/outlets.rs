//! Outlets in SQL: search indexes, archives and sinks made, dropped, verified, shown.
//!
//! Owns: their statements' errors in Postgres's words, and their definitions as text.
//! Not here: parsing (`parse`), what a kind understands of its options (the kind's crate).
//!
//! Invariants
//! - No secret of a definition is ever shown.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringViewArray};
use evert_view::{
    CatalogError, Name, OutletDef, OutletKind, OutletVerdict, is_secret, without_secrets,
};
use serde_json::Value;

use crate::command::CreateOutlet;
use crate::ddl::{Changed, blocking};
use crate::engine::Inner;
use crate::error::{DUPLICATE_TABLE, OBJECT_NOT_READY, UNDEFINED_OBJECT, WRONG_OBJECT_TYPE};
use crate::names::unknown_relation;
use crate::session::only_grows;
use crate::{Response, SqlError};

pub(crate) async fn create(
    engine: &Arc<Inner>,
    create: &CreateOutlet,
) -> Result<Changed, SqlError> {
    let catalog = engine.views.catalog();
    let mut changed = Changed::default();
    if catalog.contains(&create.name) || catalog.outlets.contains_key(&create.name) {
        let message = format!("relation \"{}\" already exists", create.name);
        if create.if_not_exists {
            changed.notices = vec![message + ", skipping"];
            return Ok(changed);
        }
        return Err(SqlError::new(DUPLICATE_TABLE, message));
    }
    if let Some(other) = catalog.outlets.get(&create.on) {
        let (noun, on) = (other.kind.noun(), &create.on);
        let message = format!("\"{on}\" is {}", other.kind.a_noun());
        return Err(SqlError::new(WRONG_OBJECT_TYPE, message)
            .hint(format!("Name what the {noun} reads: \"{}\".", other.on)));
    }
    let Some(schema) = catalog.schema_of(&create.on) else {
        return Err(unknown_relation(&create.on, &catalog));
    };
    let is_sink = create.kind == OutletKind::Sink;
    if is_sink && schema.key.is_empty() && !only_grows(&create.on, &catalog)? {
        let message = format!("\"{}\" has no key, and rows can leave it", create.on);
        return Err(SqlError::new(OBJECT_NOT_READY, message).hint(
            "A sink needs a key to say which row is gone: use a table with a primary key, or a \
             view whose GROUP BY columns are its key.",
        ));
    }
    let (name, on, options) = (create.name.clone(), create.on.clone(), create.options.clone());
    let def = OutletDef::new(name, create.kind, on, options);
    let position = blocking(engine, move |engine| engine.views.create_outlet(def)).await?;
    changed.position = Some(position);
    Ok(changed)
}

/// Whether DROP may go on: the outlet is there and of the kind.
pub(crate) fn check(engine: &Inner, kind: OutletKind, name: &Name) -> Result<(), SqlError> {
    let catalog = engine.views.catalog();
    let noun = kind.noun();
    match catalog.outlets.get(name) {
        Some(def) if def.kind == kind => Ok(()),
        Some(def) => {
            let right = def.kind.noun().to_uppercase();
            Err(SqlError::new(WRONG_OBJECT_TYPE, format!("\"{name}\" is not {}", kind.a_noun()))
                .hint(format!("Use DROP {right}.")))
        }
        None if catalog.contains(name) => {
            let what = catalog.describe(name);
            let right = what.strip_suffix(&format!(" {name}")).unwrap_or(&what).to_uppercase();
            Err(SqlError::new(WRONG_OBJECT_TYPE, format!("\"{name}\" is not {}", kind.a_noun()))
                .hint(format!("Use DROP {right}.")))
        }
        None => Err(SqlError::new(UNDEFINED_OBJECT, format!("{noun} \"{name}\" does not exist"))),
    }
}

pub(crate) fn verify(
    engine: &Inner,
    name: &Name,
    given_up: &AtomicBool,
) -> Result<OutletVerdict, CatalogError> {
    engine.views.verify_outlet(name, given_up)
}

/// VERIFY's answer: the verdict, then a row for each of the first that differ.
pub(crate) fn verified(name: &Name, verdict: &OutletVerdict) -> Result<Response, SqlError> {
    let equal = verdict.rows_differing == 0;
    let summary = (!equal).then(|| format!("{} rows differ", verdict.rows_differing));
    let differences = verdict.differences.iter().cloned().map(Some);
    let difference: Vec<_> = std::iter::once(summary).chain(differences).collect();
    let rows = difference.len();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let first = |value: u64| -> ArrayRef {
        let values = (0..rows).map(|row| (row == 0).then_some(number(value)));
        Arc::new(Int64Array::from_iter(values))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(vec![name.to_string(); rows])),
        Arc::new(Int64Array::from(vec![number(verdict.position.get()); rows])),
        first(verdict.rows_stored),
        first(verdict.rows_expected),
        Arc::new(BooleanArray::from(vec![equal; rows])),
        Arc::new(StringViewArray::from_iter(difference)),
    ];
    crate::session::verify_response(columns)
}

/// An outlet's statement, without what is secret in it.
pub(crate) fn definition(def: &OutletDef) -> String {
    let of = |member: &str| def.options.get(member);
    let text = |member: &str| of(member).and_then(Value::as_str).unwrap_or_default();
    let list = |member: &str| -> Vec<&str> {
        let values = of(member).and_then(Value::as_array);
        values.into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let noun = def.kind.noun().to_uppercase();
    let mut sql = format!("CREATE {noun} {} ON {}", def.name, def.on);
    let url = |member: &str| quoted(&without_secrets(text(member)));
    let more = match def.kind {
        OutletKind::Search => format!(" ({})", list("columns").join(", ")),
        OutletKind::Archive => format!(" TO {}", url("to")),
        OutletKind::Sink => {
            let (into, url) = (text("into").to_uppercase(), url("url"));
            match text("into") {
                "postgres" => format!(" INTO {into} {url} TABLE {}", list("table").join(".")),
                "kafka" => format!(" INTO {into} {url} TOPIC {}", quoted(text("topic"))),
                _ => format!(" INTO {into} {url}"),
            }
        }
    };
    sql.push_str(&more);
    let with = of("with").and_then(Value::as_object);
    for (index, (key, value)) in with.into_iter().flatten().enumerate() {
        let value = if is_secret(key) { "***" } else { value.as_str().unwrap_or_default() };
        let begin = if index == 0 { " WITH (" } else { ", " };
        // Writing into a String does not fail.
        let _ = write!(sql, "{begin}\"{key}\" = {}", quoted(value));
    }
    if with.is_some_and(|with| !with.is_empty()) {
        sql.push(')');
    }
    sql
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::parse::parse;

    fn shown(sql: &str) -> String {
        let commands = parse(sql).expect("it parses");
        let [Command::CreateOutlet(create)] = commands.as_slice() else { panic!("{commands:?}") };
        let (name, on) = (create.name.clone(), create.on.clone());
        definition(&OutletDef::new(name, create.kind, on, create.options.clone()))
    }

    #[test]
    fn definitions_are_shown_as_they_were_written_without_secrets() {
        for (sql, expected) in [
            (
                "create search index s on payments (email, Status) with (email = 'text')",
                "CREATE SEARCH INDEX s ON payments (email, status) WITH (\"email\" = 'text')",
            ),
            (
                "CREATE ARCHIVE a ON shop.orders TO 's3://lake/o' WITH (s3.secret_key = 'x', flush = '5s')",
                "CREATE ARCHIVE a ON shop.orders TO 's3://lake/o' WITH (\"flush\" = '5s', \"s3.secret_key\" = '***')",
            ),
            (
                "CREATE SINK k FROM v INTO POSTGRES 'postgres://u:pw@h/d' TABLE public.t",
                "CREATE SINK k ON v INTO POSTGRES 'postgres://u:***@h/d' TABLE public.t",
            ),
            (
                "CREATE SINK IF NOT EXISTS k ON v INTO KAFKA 'h:9092' TOPIC 'a-b'",
                "CREATE SINK k ON v INTO KAFKA 'h:9092' TOPIC 'a-b'",
            ),
            (
                "CREATE SINK k ON v INTO REDIS 'redis://h' WITH (prefix = 'p:')",
                "CREATE SINK k ON v INTO REDIS 'redis://h' WITH (\"prefix\" = 'p:')",
            ),
        ] {
            assert_eq!(shown(sql), expected);
        }
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        for (sql, message) in [
            ("CREATE SINK k ON v INTO MYSQL 'x'", "CREATE SINK INTO MYSQL is not supported"),
            ("CREATE SEARCH INDEX s ON v (a, a)", "column \"a\" specified more than once"),
            ("CREATE ARCHIVE a ON v", "syntax error"),
        ] {
            let error = parse(sql).expect_err("it is refused");
            assert!(error.message.contains(message), "{sql}: {}", error.message);
            assert!(error.position.is_some(), "{sql}");
        }
    }
}
