//! `information_schema.*`, after the SQL standard as Postgres has it.

use evert_model::{ColumnType, RowSchema};
use evert_view::{Catalog, Name};

use super::SystemTable;
use super::rows::{Builder, Cell, Kind::Int, Kind::Text};
use crate::archive;
use crate::engine::Inner;
use crate::schemas::OWN;

/// The one database there is: any name connects to it.
pub(super) const DATABASE: &str = "evert";

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "information_schema",
        name: "schemata",
        columns: &[("catalog_name", Text), ("schema_name", Text), ("schema_owner", Text)],
        fill: schemata,
    },
    SystemTable {
        schema: "information_schema",
        name: "tables",
        columns: &[
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("table_type", Text),
            ("is_insertable_into", Text),
        ],
        fill: tables,
    },
    SystemTable {
        schema: "information_schema",
        name: "columns",
        columns: &[
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("column_name", Text),
            ("ordinal_position", Int),
            ("column_default", Text),
            ("is_nullable", Text),
            ("data_type", Text),
            ("character_maximum_length", Int),
            ("character_octet_length", Int),
            ("numeric_precision", Int),
            ("numeric_precision_radix", Int),
            ("numeric_scale", Int),
            ("datetime_precision", Int),
            ("interval_type", Text),
            ("interval_precision", Int),
            ("collation_catalog", Text),
            ("collation_schema", Text),
            ("collation_name", Text),
            ("domain_catalog", Text),
            ("domain_schema", Text),
            ("domain_name", Text),
            ("udt_catalog", Text),
            ("udt_schema", Text),
            ("udt_name", Text),
            ("dtd_identifier", Text),
            ("is_self_referencing", Text),
            ("is_identity", Text),
            ("identity_generation", Text),
            ("identity_start", Text),
            ("identity_increment", Text),
            ("identity_maximum", Text),
            ("identity_minimum", Text),
            ("identity_cycle", Text),
            ("is_generated", Text),
            ("generation_expression", Text),
            ("is_updatable", Text),
        ],
        fill: columns,
    },
    SystemTable {
        schema: "information_schema",
        name: "key_column_usage",
        columns: &[
            ("constraint_catalog", Text),
            ("constraint_schema", Text),
            ("constraint_name", Text),
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("column_name", Text),
            ("ordinal_position", Int),
            ("position_in_unique_constraint", Int),
        ],
        fill: keys,
    },
    SystemTable {
        schema: "information_schema",
        name: "table_constraints",
        columns: &[
            ("constraint_catalog", Text),
            ("constraint_schema", Text),
            ("constraint_name", Text),
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("constraint_type", Text),
            ("is_deferrable", Text),
            ("initially_deferred", Text),
            ("enforced", Text),
        ],
        fill: constraints,
    },
];

/// Everything that can be selected from: name, columns, kind and whether INSERT may change it.
pub(super) fn relations(catalog: &Catalog) -> Vec<(Name, RowSchema, &'static str, bool)> {
    let relations = catalog.named_relations().map(|relation| {
        let schema = relation.schema.clone();
        (relation.name.clone(), schema, "BASE TABLE", relation.source.is_none())
    });
    let views = catalog.views.values();
    let views = views.map(|view| (view.name.clone(), view.schema.clone(), "VIEW", false));
    let archives = catalog.outlets.keys().filter_map(|name| {
        archive::schema(catalog, name).map(|schema| (name.clone(), schema, "VIEW", false))
    });
    let errors = evert_view::errors_schema();
    let errors = [(evert_view::errors_name(), errors, "VIEW", false)];
    relations.chain(views).chain(archives).chain(errors).collect()
}

fn schemata(engine: &Inner, rows: &mut Builder) {
    let mut schemas = OWN.map(str::to_owned).to_vec();
    let others = relations(&engine.views.catalog()).into_iter().map(|(name, ..)| name.schema);
    for schema in others.chain(engine.schemas.names()) {
        if !schemas.contains(&schema) {
            schemas.push(schema);
        }
    }
    for schema in schemas {
        rows.push(vec![DATABASE.into(), schema.into(), "evert".into()]);
    }
}

fn tables(engine: &Inner, rows: &mut Builder) {
    let own = relations(&engine.views.catalog()).into_iter();
    let own = own.map(|(name, _, kind, insertable)| (name.schema, name.name, kind, insertable));
    let system = super::tables();
    let system = system.map(|table| (table.schema.into(), table.name.into(), "VIEW", false));
    for (schema, name, kind, insertable) in own.chain(system) {
        let insertable = if insertable { "YES" } else { "NO" };
        rows.push(vec![
            DATABASE.into(),
            schema.into(),
            name.into(),
            kind.into(),
            insertable.into(),
        ]);
    }
}

fn columns(engine: &Inner, rows: &mut Builder) {
    let catalog = engine.views.catalog();
    for (name, schema, _, insertable) in relations(&catalog) {
        let relation = catalog.relation(&name);
        for (index, column) in (1i64..).zip(&schema.columns) {
            let (precision, scale, datetime) = sizes(column.ty);
            let octets = (column.ty == ColumnType::Text).then_some(1_i64 << 30);
            let radix = match column.ty {
                ColumnType::Decimal { .. } => Some(10_i64),
                _ => precision.map(|_| 2),
            };
            let (no, none) = (|| Cell::from("NO"), || Cell::Null);
            let default = relation.and_then(|relation| relation.defaults.get(&column.name));
            rows.push(vec![
                DATABASE.into(),
                name.schema.clone().into(),
                name.name.clone().into(),
                column.name.clone().into(),
                index.into(),
                default.map_or(Cell::Null, |default| default.clone().into()),
                if column.nullable { "YES" } else { "NO" }.into(),
                base_name(column.ty).into(),
                none(),
                octets.into(),
                precision.into(),
                radix.into(),
                scale.into(),
                datetime.into(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                DATABASE.into(),
                "pg_catalog".into(),
                udt_name(column.ty).into(),
                index.to_string().into(),
                no(),
                no(),
                none(),
                none(),
                none(),
                none(),
                none(),
                no(),
                "NEVER".into(),
                none(),
                if insertable { "YES" } else { "NO" }.into(),
            ]);
        }
    }
}

/// Precision, scale and digits of seconds.
fn sizes(ty: ColumnType) -> (Option<i64>, Option<i64>, Option<i64>) {
    match ty {
        ColumnType::Int16 => (Some(16), Some(0), None),
        ColumnType::Int32 => (Some(32), Some(0), None),
        ColumnType::Int64 => (Some(64), Some(0), None),
        ColumnType::Float32 => (Some(24), None, None),
        ColumnType::Float64 => (Some(53), None, None),
        ColumnType::Decimal { precision, scale } => {
            (Some(precision.into()), Some(scale.into()), None)
        }
        ColumnType::Date => (None, None, Some(0)),
        ColumnType::Timestamp | ColumnType::TimestampTz => (None, None, Some(6)),
        _ => (None, None, None),
    }
}

/// The type's name without its sizes.
fn base_name(ty: ColumnType) -> String {
    if let ColumnType::Array(_) = ty {
        return "ARRAY".into();
    }
    let name = ty.sql_name();
    name.split('(').next().unwrap_or_default().to_owned()
}

/// The type's name in pg_type.
pub(super) fn udt_name(ty: ColumnType) -> String {
    let name = match ty {
        ColumnType::Boolean => "bool",
        ColumnType::Int16 => "int2",
        ColumnType::Int32 => "int4",
        ColumnType::Int64 => "int8",
        ColumnType::Float32 => "float4",
        ColumnType::Float64 => "float8",
        ColumnType::Decimal { .. } => "numeric",
        ColumnType::Text => "text",
        ColumnType::Bytes => "bytea",
        ColumnType::Date => "date",
        ColumnType::Timestamp => "timestamp",
        ColumnType::TimestampTz => "timestamptz",
        ColumnType::Json => "json",
        ColumnType::Uuid => "uuid",
        ColumnType::Array(item) => return format!("_{}", udt_name(item.column_type())),
    };
    name.into()
}

fn keys(engine: &Inner, rows: &mut Builder) {
    for relation in engine.views.catalog().relations.values() {
        for (index, column) in (1i64..).zip(&relation.schema.key) {
            rows.push(vec![
                DATABASE.into(),
                relation.name.schema.clone().into(),
                format!("{}_pkey", relation.name.name).into(),
                DATABASE.into(),
                relation.name.schema.clone().into(),
                relation.name.name.clone().into(),
                relation.schema.columns[*column].name.clone().into(),
                index.into(),
                Cell::Null,
            ]);
        }
    }
}

fn constraints(engine: &Inner, rows: &mut Builder) {
    for relation in engine.views.catalog().relations.values() {
        if relation.schema.key.is_empty() {
            continue;
        }
        rows.push(vec![
            DATABASE.into(),
            relation.name.schema.clone().into(),
            format!("{}_pkey", relation.name.name).into(),
            DATABASE.into(),
            relation.name.schema.clone().into(),
            relation.name.name.clone().into(),
            "PRIMARY KEY".into(),
            "NO".into(),
            "NO".into(),
            "YES".into(),
        ]);
    }
}
