//! `pg_catalog.*`: what clients ask for when they connect or list relations.

use evert_model::ColumnType;

use super::SystemTable;
use super::information::{DATABASE, relations, udt_name};
use super::rows::{Builder, Cell, Kind::BigInt, Kind::Bool, Kind::Int, Kind::Text};
use crate::engine::Inner;

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_namespace",
        columns: &[("oid", BigInt), ("nspname", Text), ("nspowner", BigInt)],
        fill: namespaces,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_class",
        columns: &[
            ("oid", BigInt),
            ("relname", Text),
            ("relnamespace", BigInt),
            ("relowner", BigInt),
            ("relam", BigInt),
            ("relkind", Text),
            ("relispartition", Bool),
            ("relpersistence", Text),
            ("reltuples", BigInt),
        ],
        fill: classes,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_attribute",
        columns: &[
            ("attrelid", BigInt),
            ("attname", Text),
            ("atttypid", BigInt),
            ("attnum", Int),
            ("attnotnull", Bool),
            ("attisdropped", Bool),
        ],
        fill: attributes,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_type",
        columns: &[
            ("oid", BigInt),
            ("typname", Text),
            ("typnamespace", BigInt),
            ("typtype", Text),
            ("typelem", BigInt),
            ("typarray", BigInt),
            ("typbasetype", BigInt),
            ("typrelid", BigInt),
        ],
        fill: types,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_database",
        columns: &[("oid", BigInt), ("datname", Text), ("datallowconn", Bool)],
        fill: databases,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_am",
        columns: &[("oid", BigInt), ("amname", Text)],
        fill: |_, _| {},
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_range",
        columns: &[("rngtypid", BigInt), ("rngsubtype", BigInt)],
        fill: |_, _| {},
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_enum",
        columns: &[("enumtypid", BigInt), ("enumlabel", Text)],
        fill: |_, _| {},
    },
];

/// Postgres's own for `pg_catalog` and `public`; the others follow in order of name.
fn schemas(engine: &Inner) -> Vec<(String, i64)> {
    let mut schemas =
        vec![("pg_catalog".to_owned(), 11), ("public".into(), 2200), ("evert".into(), 16_000)];
    for (name, ..) in relations(engine) {
        if !schemas.iter().any(|(schema, _)| *schema == name.schema) {
            schemas.push((name.schema, 16_000 + schemas.len() as i64));
        }
    }
    schemas
}

fn schema_oid(schemas: &[(String, i64)], name: &str) -> i64 {
    schemas.iter().find(|(schema, _)| schema == name).map_or(0, |(_, oid)| *oid)
}

fn namespaces(engine: &Inner, rows: &mut Builder) {
    for (name, oid) in schemas(engine) {
        rows.push(vec![oid.into(), name.into(), 10i64.into()]);
    }
}

/// The first oid that Postgres gives to what users create.
const FIRST_OID: i64 = 16_384;

fn classes(engine: &Inner, rows: &mut Builder) {
    let schemas = schemas(engine);
    for (oid, (name, _, kind, _)) in (FIRST_OID..).zip(relations(engine)) {
        let kind = if kind == "VIEW" { "m" } else { "r" };
        rows.push(vec![
            oid.into(),
            name.name.into(),
            schema_oid(&schemas, &name.schema).into(),
            10i64.into(),
            0i64.into(),
            kind.into(),
            false.into(),
            "p".into(),
            (-1i64).into(),
        ]);
    }
}

fn attributes(engine: &Inner, rows: &mut Builder) {
    for (oid, (_, schema, ..)) in (FIRST_OID..).zip(relations(engine)) {
        for (number, column) in (1i64..).zip(&schema.columns) {
            rows.push(vec![
                oid.into(),
                column.name.clone().into(),
                type_oid(column.ty).into(),
                number.into(),
                (!column.nullable).into(),
                false.into(),
            ]);
        }
    }
}

/// From Postgres's pg_type.dat.
fn type_oid(ty: ColumnType) -> i64 {
    match ty {
        ColumnType::Boolean => 16,
        ColumnType::Bytes => 17,
        ColumnType::Int64 => 20,
        ColumnType::Int16 => 21,
        ColumnType::Int32 => 23,
        ColumnType::Text => 25,
        ColumnType::Json => 114,
        ColumnType::Float32 => 700,
        ColumnType::Float64 => 701,
        ColumnType::Date => 1082,
        ColumnType::Timestamp => 1114,
        ColumnType::TimestampTz => 1184,
        ColumnType::Decimal { .. } => 1700,
        ColumnType::Uuid => 2950,
    }
}

fn types(_: &Inner, rows: &mut Builder) {
    use ColumnType::*;
    let all = [
        Boolean,
        Bytes,
        Int64,
        Int16,
        Int32,
        Text,
        Json,
        Float32,
        Float64,
        Date,
        Timestamp,
        TimestampTz,
        Decimal { precision: 38, scale: 0 },
        Uuid,
    ];
    for ty in all {
        rows.push(vec![
            type_oid(ty).into(),
            udt_name(ty).into(),
            11i64.into(),
            "b".into(),
            0i64.into(),
            0i64.into(),
            0i64.into(),
            Cell::from(0i64),
        ]);
    }
}

fn databases(_: &Inner, rows: &mut Builder) {
    rows.push(vec![1i64.into(), DATABASE.into(), true.into()]);
}
