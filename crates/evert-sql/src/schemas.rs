//! Schemas: CREATE SCHEMA and DROP SCHEMA.
//!
//! A schema is the first part of relations' names, and is there as long as a relation is in it.
//! One that was created is there too, until it is dropped or the server stops.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use evert_view::Catalog;

use crate::SqlError;
use crate::ddl::Changed;
use crate::engine::Inner;
use crate::error::DEPENDENT_OBJECTS;

/// The schemas that are always there.
pub(crate) const OWN: [&str; 4] = ["public", "evert", "information_schema", "pg_catalog"];

/// Schemas that were created, with relations or without.
#[derive(Debug, Default)]
pub(crate) struct Schemas(Mutex<BTreeSet<String>>);

/// CREATE SCHEMA.
#[derive(Clone, Debug)]
pub(crate) struct CreateSchema {
    pub(crate) name: String,
    pub(crate) if_not_exists: bool,
}

/// DROP SCHEMA.
#[derive(Clone, Debug)]
pub(crate) struct DropSchema {
    pub(crate) names: Vec<String>,
    pub(crate) if_exists: bool,
    pub(crate) cascade: bool,
}

impl Schemas {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of those that were created.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }
}

/// What is in a schema, by name.
fn members(catalog: &Catalog, schema: &str) -> Vec<String> {
    let relations = catalog.relations.keys().chain(catalog.views.keys());
    let all = relations.chain(catalog.outlets.keys()).chain(catalog.indexes.keys());
    all.filter(|name| name.schema == schema).map(ToString::to_string).collect()
}

fn exists(engine: &Inner, name: &str) -> bool {
    OWN.contains(&name)
        || engine.schemas.lock().contains(name)
        || !members(&engine.views.catalog(), name).is_empty()
}

pub(crate) fn create(engine: &Inner, create: &CreateSchema) -> Result<Changed, SqlError> {
    let name = &create.name;
    let mut changed = Changed::default();
    if exists(engine, name) {
        let message = format!("schema \"{name}\" already exists");
        if !create.if_not_exists {
            return Err(SqlError::new("42P06", message));
        }
        changed.notices.push(message + ", skipping");
        return Ok(changed);
    }
    if name.starts_with("pg_") {
        let message = format!("unacceptable schema name \"{name}\"");
        return Err(SqlError::new("42939", message));
    }
    engine.schemas.lock().insert(name.clone());
    Ok(changed)
}

pub(crate) fn drop(engine: &Inner, drop: &DropSchema) -> Result<Changed, SqlError> {
    let mut changed = Changed::default();
    for name in &drop.names {
        let members = members(&engine.views.catalog(), name);
        if OWN.contains(&name.as_str()) {
            let message = format!("cannot drop schema {name} because it is the server's own");
            return Err(SqlError::new(DEPENDENT_OBJECTS, message));
        }
        if !exists(engine, name) {
            let message = format!("schema \"{name}\" does not exist");
            if !drop.if_exists {
                return Err(SqlError::new("3F000", message));
            }
            changed.notices.push(message + ", skipping");
            continue;
        }
        if !members.is_empty() {
            let message = format!("cannot drop schema {name} because other objects depend on it");
            let hint = match drop.cascade {
                true => "CASCADE does not drop what is in a schema: DROP it by name first.",
                false => "DROP what is in it by name first.",
            };
            return Err(SqlError::new(DEPENDENT_OBJECTS, message)
                .detail(format!("In the schema: {}.", members.join(", ")))
                .hint(hint));
        }
    }
    let mut schemas = engine.schemas.lock();
    for name in &drop.names {
        schemas.remove(name);
    }
    Ok(changed)
}
