//! System relations: what the server knows about itself, as tables.
//!
//! Owns: `evert.*`, `information_schema.*` and as much of `pg_catalog.*` as clients ask for when
//! they connect or list relations.
//! Not here: `evert.errors`, which is a view like any other and is pinned with the rest.

mod absent;
mod catalog;
mod clients;
mod definitions;
mod evert;
mod information;
mod keywords;
mod library;
mod named_oids;
mod oids;
mod privileges;
mod rows;
mod server;
mod settings;
mod sizes;
mod vectors;

pub(crate) use clients::rewrite;
pub(crate) use definitions::functions as definition_functions;
pub(crate) use keywords::needs_quotes;
pub(crate) use library::functions as library_functions;
pub(crate) use named_oids::functions as named_oid_functions;

use arrow::datatypes::SchemaRef;
use evert_view::{Name, errors_name, errors_schema};

use self::rows::Builder;
use crate::engine::Inner;
use crate::error::UNDEFINED_TABLE;
use crate::scan::Rows;
use crate::{SqlError, archive};

/// A system relation: its columns, and how its rows are made.
pub(crate) struct SystemTable {
    schema: &'static str,
    name: &'static str,
    columns: &'static [rows::ColumnSpec],
    fill: fn(&Inner, &mut Builder),
}

fn tables() -> impl Iterator<Item = &'static SystemTable> {
    let standard = information::TABLES.iter().chain(privileges::TABLES);
    let catalogs = catalog::TABLES.iter().chain(keywords::TABLES).chain(absent::TABLES);
    let catalogs = catalogs.chain(settings::TABLES);
    evert::TABLES.iter().chain(standard).chain(catalogs)
}

fn table(name: &Name) -> Option<&'static SystemTable> {
    let schema = schema(name);
    tables().find(|table| table.schema == schema && table.name == name.name)
}

/// Where a name leads: Postgres searches pg_catalog before everything else.
fn schema(name: &Name) -> &str {
    let bare = name.schema == "public" && name.name.starts_with("pg_");
    if bare { "pg_catalog" } else { &name.schema }
}

/// Whether a name is a system relation's.
pub(crate) fn exists(name: &Name) -> bool {
    find(name).is_some()
}

/// A system relation's name in full and its columns.
pub(crate) fn find(name: &Name) -> Option<(Name, SchemaRef)> {
    if *name == errors_name() {
        return Some((name.clone(), errors_schema().to_arrow()));
    }
    if let Some(table) = table(name) {
        return Some((Name::new(table.schema, table.name), Builder::new(table.columns).schema()));
    }
    let (full, table) = library::table(name)?;
    Some((full, table.schema))
}

/// A relation's oid, by its name alone: that of pg_class but where two names share a number.
pub(crate) fn oid_of(name: &Name) -> u32 {
    u32::try_from(oids::of_system(name)).unwrap_or(0)
}

/// Whether a function that returns rows is a relation of this name.
pub(crate) fn is_function(name: &str) -> bool {
    matches!(name, "pg_get_keywords" | "pg_timezone_names")
}

/// Whether a relation's rows are pinned with a cut, rather than made when they are read.
pub(crate) fn is_pinned(name: &Name) -> bool {
    table(name).is_none() && library::table(name).is_none()
}

/// A system relation's rows as of now.
pub(crate) fn rows(engine: &Inner, name: &Name) -> Result<Rows, SqlError> {
    if let (None, Some((_, fixed))) = (table(name), library::table(name)) {
        return Ok(Rows::Batches(fixed.batches));
    }
    let Some(table) = table(name) else {
        if let Some(archives) = engine.archives.get()
            && archive::schema(&engine.views.catalog(), name).is_some()
        {
            return archives.archive(name).map(Rows::Archive).ok_or(archive::not_ready(name));
        }
        let message = format!("relation \"{name}\" does not exist");
        return Err(SqlError::new(UNDEFINED_TABLE, message));
    };
    let mut builder = Builder::new(table.columns);
    (table.fill)(engine, &mut builder);
    Ok(Rows::Batches(vec![builder.finish()?]))
}

/// The SELECT behind `SHOW VIEWS` and its like.
pub(crate) fn show(what: &str) -> Option<&'static str> {
    Some(match what {
        "views" => {
            "SELECT name, kind, state, stage, percent, rate, eta_ms, position, lag_records, lag_ms, \
             rows, memory_bytes FROM evert.views ORDER BY name"
        }
        "sinks" => {
            "SELECT name, state, position, lag_records, lag_ms, rows, definition \
             FROM evert.views WHERE kind = 'sink' ORDER BY name"
        }
        "archives" => {
            "SELECT name, state, position, lag_records, lag_ms, rows, definition \
             FROM evert.views WHERE kind = 'archive' ORDER BY name"
        }
        "search indexes" => {
            "SELECT name, state, position, lag_records, lag_ms, rows, definition \
             FROM evert.views WHERE kind = 'search' ORDER BY name"
        }
        "topics" => {
            "SELECT name, partitions, records, relation FROM evert.topics \
             WHERE NOT internal ORDER BY name"
        }
        "sources" => {
            "SELECT name, state, detail, lsn, position, retained_wal_bytes, lag_ms \
             FROM evert.sources ORDER BY name"
        }
        "tables" | "relations" => {
            "SELECT name, kind, topic, source FROM evert.relations ORDER BY name"
        }
        _ => return None,
    })
}
