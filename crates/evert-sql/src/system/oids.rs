//! Object ids: the numbers by which clients' catalog queries join.
//!
//! Invariants
//! - An object's oid depends on its kind and name, so that it does not change while others come
//!   and go: clients use an oid of one query in the next.
//! - No two objects of one listing share an oid.

use std::collections::BTreeMap;

use evert_model::RowSchema;
use evert_view::{Catalog, Name};

use super::information::relations;

/// The first oid that Postgres gives to what users create.
const FIRST: i64 = 16_384;
/// Oids are unsigned 32-bit numbers; half of them will do, and stay positive everywhere.
const SPAN: u32 = 0x7fff_0000;

/// What has a row in pg_class.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) oid: i64,
    pub(super) name: Name,
    pub(super) kind: ClassKind,
}

/// The kinds of pg_class that there are here.
#[derive(Clone, Debug)]
pub(super) enum ClassKind {
    /// A table, stream or bag, a view, or a system relation; and its columns.
    Relation { relkind: &'static str, schema: RowSchema },
    /// An index: of the relation of this oid, over these columns.
    Index { of: i64, columns: Vec<usize>, primary: bool },
}

/// Everything in pg_class, relations before their indexes.
pub(super) fn classes(catalog: &Catalog) -> Vec<Class> {
    let mut taken = BTreeMap::new();
    let mut classes = Vec::new();
    for (name, schema, kind, _) in relations(catalog) {
        let relkind = if kind == "VIEW" { "m" } else { "r" };
        let oid = oid(&mut taken, "class", &name.to_string());
        // A view's key is of its rows, and no constraint that could be dropped.
        let key = if relkind == "r" { schema.key.clone() } else { Vec::new() };
        let kind = ClassKind::Relation { relkind, schema };
        classes.push(Class { oid, name: name.clone(), kind });
        if !key.is_empty() {
            let index = Name::new(&name.schema, format!("{}_pkey", name.name));
            let number = self::oid(&mut taken, "index", &index.to_string());
            let kind = ClassKind::Index { of: oid, columns: key, primary: true };
            classes.push(Class { oid: number, name: index, kind });
        }
        for (index, columns) in catalog.indexes_on(&name) {
            let number = self::oid(&mut taken, "index", &index.name.to_string());
            let kind = ClassKind::Index { of: oid, columns, primary: false };
            classes.push(Class { oid: number, name: index.name.clone(), kind });
        }
    }
    classes
}

/// Postgres's own numbers for `pg_catalog` and `public`; the others from their names.
pub(super) fn schemas(catalog: &Catalog, created: Vec<String>) -> BTreeMap<String, i64> {
    let mut taken = BTreeMap::new();
    let mut schemas = BTreeMap::from([("pg_catalog".to_owned(), 11), ("public".to_owned(), 2200)]);
    let own = relations(catalog).into_iter().map(|(name, ..)| name.schema);
    for schema in
        ["evert".to_owned(), "information_schema".to_owned()].into_iter().chain(own).chain(created)
    {
        let number = |schema: &String| oid(&mut taken, "schema", schema);
        schemas.entry(schema).or_insert_with_key(number);
    }
    schemas
}

/// The oid of a relation's primary key as a constraint.
pub(super) fn constraint(index: i64) -> i64 {
    // An index and its constraint are in different tables: they may share a number.
    index
}

/// The oid of a relation of the system's, by its name alone.
pub(super) fn of_system(name: &Name) -> i64 {
    oid(&mut BTreeMap::new(), "class", &name.to_string())
}

fn oid(taken: &mut BTreeMap<i64, ()>, kind: &str, name: &str) -> i64 {
    // FNV-1a: short, and the same in every build.
    let mut hash = 0x811c_9dc5_u32;
    for byte in kind.bytes().chain([0]).chain(name.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let mut oid = FIRST + i64::from(hash % SPAN);
    while taken.insert(oid, ()).is_some() {
        oid += 1;
    }
    oid
}
