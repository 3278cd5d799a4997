//! `pg_catalog.*` as far as it shows what is here: relations, columns, keys, schemas, roles.
//!
//! After Postgres 15's system catalogs. What is the same in every database (types, operators,
//! functions, ...) comes from `library`.

use evert_model::{ColumnType, ItemType};

use super::SystemTable;
use super::information::DATABASE;
use super::oids::{self, Class, ClassKind};
use super::rows::{
    Builder, Cell, ColumnSpec, Kind::BigInt, Kind::Bool, Kind::Float, Kind::Int, Kind::Ints,
    Kind::Text, Kind::Texts, Kind::Vector,
};
use crate::engine::Inner;

/// The role that owns everything: Postgres's number for the first one.
pub(super) const OWNER: i64 = 10;

/// The transaction that wrote a row, which clients ask for to tell whether it has changed.
pub(super) const XMIN: i64 = 1;

const USERS: &[ColumnSpec] = &[
    ("usename", Text),
    ("usesysid", BigInt),
    ("usecreatedb", Bool),
    ("usesuper", Bool),
    ("userepl", Bool),
    ("usebypassrls", Bool),
    ("passwd", Text),
    ("valuntil", Text),
    ("useconfig", Texts),
];

const TABLE_STATISTICS: &[ColumnSpec] = &[
    ("relid", BigInt),
    ("schemaname", Text),
    ("relname", Text),
    ("seq_scan", BigInt),
    ("seq_tup_read", BigInt),
    ("idx_scan", BigInt),
    ("idx_tup_fetch", BigInt),
    ("n_tup_ins", BigInt),
    ("n_tup_upd", BigInt),
    ("n_tup_del", BigInt),
    ("n_tup_hot_upd", BigInt),
    ("n_live_tup", BigInt),
    ("n_dead_tup", BigInt),
    ("n_mod_since_analyze", BigInt),
    ("n_ins_since_vacuum", BigInt),
    ("last_vacuum", Text),
    ("last_autovacuum", Text),
    ("last_analyze", Text),
    ("last_autoanalyze", Text),
    ("vacuum_count", BigInt),
    ("autovacuum_count", BigInt),
    ("analyze_count", BigInt),
    ("autoanalyze_count", BigInt),
];

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_namespace",
        columns: &[
            ("oid", BigInt),
            ("nspname", Text),
            ("nspowner", BigInt),
            ("nspacl", Texts),
            ("xmin", BigInt),
        ],
        fill: namespaces,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_class",
        columns: &[
            ("oid", BigInt),
            ("relname", Text),
            ("relnamespace", BigInt),
            ("reltype", BigInt),
            ("reloftype", BigInt),
            ("relowner", BigInt),
            ("relam", BigInt),
            ("relfilenode", BigInt),
            ("reltablespace", BigInt),
            ("relpages", Int),
            ("reltuples", Float),
            ("relallvisible", Int),
            ("reltoastrelid", BigInt),
            ("relhasindex", Bool),
            ("relisshared", Bool),
            ("relpersistence", Text),
            ("relkind", Text),
            ("relnatts", Int),
            ("relchecks", Int),
            ("relhasrules", Bool),
            ("relhastriggers", Bool),
            ("relhassubclass", Bool),
            ("relrowsecurity", Bool),
            ("relforcerowsecurity", Bool),
            ("relispopulated", Bool),
            ("relreplident", Text),
            ("relispartition", Bool),
            ("relrewrite", BigInt),
            ("relacl", Texts),
            ("reloptions", Texts),
            ("relpartbound", Text),
            ("xmin", BigInt),
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
            ("attstattarget", Int),
            ("attlen", Int),
            ("attnum", Int),
            ("attndims", Int),
            ("atttypmod", Int),
            ("attbyval", Bool),
            ("attalign", Text),
            ("attstorage", Text),
            ("attcompression", Text),
            ("attnotnull", Bool),
            ("atthasdef", Bool),
            ("atthasmissing", Bool),
            ("attidentity", Text),
            ("attgenerated", Text),
            ("attisdropped", Bool),
            ("attislocal", Bool),
            ("attinhcount", Int),
            ("attcollation", BigInt),
            ("attacl", Texts),
            ("attoptions", Texts),
            ("attfdwoptions", Texts),
            ("xmin", BigInt),
        ],
        fill: attributes,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_index",
        columns: &[
            ("indexrelid", BigInt),
            ("indrelid", BigInt),
            ("indnatts", Int),
            ("indnkeyatts", Int),
            ("indisunique", Bool),
            ("indnullsnotdistinct", Bool),
            ("indisprimary", Bool),
            ("indisexclusion", Bool),
            ("indimmediate", Bool),
            ("indisclustered", Bool),
            ("indisvalid", Bool),
            ("indcheckxmin", Bool),
            ("indisready", Bool),
            ("indislive", Bool),
            ("indisreplident", Bool),
            ("indkey", Vector),
            ("indcollation", Vector),
            ("indclass", Vector),
            ("indoption", Vector),
            ("indexprs", Text),
            ("indpred", Text),
        ],
        fill: indexes,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_constraint",
        columns: &[
            ("oid", BigInt),
            ("conname", Text),
            ("connamespace", BigInt),
            ("contype", Text),
            ("condeferrable", Bool),
            ("condeferred", Bool),
            ("convalidated", Bool),
            ("conrelid", BigInt),
            ("contypid", BigInt),
            ("conindid", BigInt),
            ("conparentid", BigInt),
            ("confrelid", BigInt),
            ("confupdtype", Text),
            ("confdeltype", Text),
            ("confmatchtype", Text),
            ("conislocal", Bool),
            ("coninhcount", Int),
            ("connoinherit", Bool),
            ("conkey", Ints),
            ("confkey", Ints),
            ("conbin", Text),
            ("xmin", BigInt),
        ],
        fill: constraints,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_database",
        columns: &[
            ("oid", BigInt),
            ("datname", Text),
            ("datdba", BigInt),
            ("encoding", Int),
            ("datlocprovider", Text),
            ("datistemplate", Bool),
            ("datallowconn", Bool),
            ("datconnlimit", Int),
            ("dattablespace", BigInt),
            ("datcollate", Text),
            ("datctype", Text),
            ("daticulocale", Text),
            ("datacl", Texts),
            ("xmin", BigInt),
        ],
        fill: databases,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_roles",
        columns: &[
            ("oid", BigInt),
            ("rolname", Text),
            ("rolsuper", Bool),
            ("rolinherit", Bool),
            ("rolcreaterole", Bool),
            ("rolcreatedb", Bool),
            ("rolcanlogin", Bool),
            ("rolreplication", Bool),
            ("rolconnlimit", Int),
            ("rolpassword", Text),
            ("rolvaliduntil", Text),
            ("rolbypassrls", Bool),
            ("rolconfig", Texts),
            ("xmin", BigInt),
        ],
        fill: roles,
    },
    SystemTable { schema: "pg_catalog", name: "pg_user", columns: USERS, fill: users },
    SystemTable { schema: "pg_catalog", name: "pg_shadow", columns: USERS, fill: users },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_authid",
        columns: &[
            ("oid", BigInt),
            ("rolname", Text),
            ("rolsuper", Bool),
            ("rolinherit", Bool),
            ("rolcreaterole", Bool),
            ("rolcreatedb", Bool),
            ("rolcanlogin", Bool),
            ("rolreplication", Bool),
            ("rolbypassrls", Bool),
            ("rolconnlimit", Int),
            ("rolpassword", Text),
            ("rolvaliduntil", Text),
        ],
        fill: authorized,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_tables",
        columns: &[
            ("schemaname", Text),
            ("tablename", Text),
            ("tableowner", Text),
            ("tablespace", Text),
            ("hasindexes", Bool),
            ("hasrules", Bool),
            ("hastriggers", Bool),
            ("rowsecurity", Bool),
        ],
        fill: tables,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_matviews",
        columns: &[
            ("schemaname", Text),
            ("matviewname", Text),
            ("matviewowner", Text),
            ("tablespace", Text),
            ("hasindexes", Bool),
            ("ispopulated", Bool),
            ("definition", Text),
        ],
        fill: matviews,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_views",
        columns: &[
            ("schemaname", Text),
            ("viewname", Text),
            ("viewowner", Text),
            ("definition", Text),
        ],
        fill: |_, _| {},
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_indexes",
        columns: &[
            ("schemaname", Text),
            ("tablename", Text),
            ("indexname", Text),
            ("tablespace", Text),
            ("indexdef", Text),
        ],
        fill: index_list,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_stat_all_tables",
        columns: TABLE_STATISTICS,
        fill: table_statistics,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_stat_user_tables",
        columns: TABLE_STATISTICS,
        fill: table_statistics,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_stat_user_indexes",
        columns: &[
            ("relid", BigInt),
            ("indexrelid", BigInt),
            ("schemaname", Text),
            ("relname", Text),
            ("indexrelname", Text),
            ("idx_scan", BigInt),
            ("idx_tup_read", BigInt),
            ("idx_tup_fetch", BigInt),
        ],
        fill: index_statistics,
    },
];

fn namespaces(engine: &Inner, rows: &mut Builder) {
    for (name, oid) in oids::schemas(&engine.views.catalog(), engine.schemas.names()) {
        rows.push(vec![oid.into(), name.into(), OWNER.into(), Cell::Null, XMIN.into()]);
    }
}

/// How many rows a relation has, as of its last cut; -1 where that is not kept.
fn row_count(engine: &Inner, class: &Class) -> i64 {
    let cut = engine.views.watch();
    let cut = cut.borrow();
    cut.snapshots.get(&class.name).map_or(-1, |snapshot| snapshot.len() as i64)
}

/// Whether something is an index of the relation of this oid.
fn has_index(classes: &[Class], oid: i64) -> bool {
    classes.iter().any(|class| matches!(class.kind, ClassKind::Index { of, .. } if of == oid))
}

fn classes(engine: &Inner, rows: &mut Builder) {
    let schemas = oids::schemas(&engine.views.catalog(), engine.schemas.names());
    let classes = oids::classes(&engine.views.catalog());
    for class in &classes {
        let (relkind, columns) = match &class.kind {
            ClassKind::Relation { relkind, schema } => (*relkind, schema.columns.len()),
            ClassKind::Index { columns, .. } => ("i", columns.len()),
        };
        // heap and btree, by Postgres's numbers.
        let access_method: i64 = if relkind == "i" { 403 } else { 2 };
        rows.push(vec![
            class.oid.into(),
            class.name.name.clone().into(),
            schemas.get(&class.name.schema).copied().into(),
            0i64.into(),
            0i64.into(),
            OWNER.into(),
            access_method.into(),
            class.oid.into(),
            0i64.into(),
            0i64.into(),
            row_count(engine, class).into(),
            0i64.into(),
            0i64.into(),
            has_index(&classes, class.oid).into(),
            false.into(),
            "p".into(),
            relkind.into(),
            columns.into(),
            0i64.into(),
            false.into(),
            false.into(),
            false.into(),
            false.into(),
            false.into(),
            true.into(),
            "d".into(),
            false.into(),
            0i64.into(),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            XMIN.into(),
        ]);
    }
}

fn attributes(engine: &Inner, rows: &mut Builder) {
    let classes = oids::classes(&engine.views.catalog());
    for class in &classes {
        let (schema, columns): (_, Vec<usize>) = match &class.kind {
            ClassKind::Relation { schema, .. } => (schema, (0..schema.columns.len()).collect()),
            ClassKind::Index { of, columns, .. } => match relation(&classes, *of) {
                Some(schema) => (schema, columns.clone()),
                None => continue,
            },
        };
        for (number, column) in (1i64..).zip(columns) {
            let column = &schema.columns[column];
            rows.push(vec![
                class.oid.into(),
                column.name.clone().into(),
                type_oid(column.ty).into(),
                (-1i64).into(),
                type_length(column.ty).into(),
                number.into(),
                i64::from(matches!(column.ty, ColumnType::Array(_))).into(),
                type_modifier(column.ty).into(),
                (type_length(column.ty) > 0).into(),
                "i".into(),
                if type_length(column.ty) > 0 { "p" } else { "x" }.into(),
                "".into(),
                (!column.nullable).into(),
                false.into(),
                false.into(),
                "".into(),
                "".into(),
                false.into(),
                true.into(),
                0i64.into(),
                collation(column.ty).into(),
                Cell::Null,
                Cell::Null,
                Cell::Null,
                XMIN.into(),
            ]);
        }
    }
}

fn relation(classes: &[Class], oid: i64) -> Option<&evert_model::RowSchema> {
    classes.iter().find(|class| class.oid == oid).and_then(|class| match &class.kind {
        ClassKind::Relation { schema, .. } => Some(schema),
        ClassKind::Index { .. } => None,
    })
}

fn indexes(engine: &Inner, rows: &mut Builder) {
    for class in oids::classes(&engine.views.catalog()) {
        let ClassKind::Index { of, columns, primary } = class.kind else { continue };
        let numbers: Vec<i64> = columns.iter().map(|column| *column as i64 + 1).collect();
        let zeros = vec![0i64; columns.len()];
        rows.push(vec![
            class.oid.into(),
            of.into(),
            columns.len().into(),
            columns.len().into(),
            primary.into(),
            false.into(),
            primary.into(),
            false.into(),
            true.into(),
            false.into(),
            true.into(),
            false.into(),
            true.into(),
            true.into(),
            false.into(),
            numbers.into(),
            zeros.clone().into(),
            zeros.clone().into(),
            zeros.into(),
            Cell::Null,
            Cell::Null,
        ]);
    }
}

fn constraints(engine: &Inner, rows: &mut Builder) {
    let schemas = oids::schemas(&engine.views.catalog(), engine.schemas.names());
    for class in oids::classes(&engine.views.catalog()) {
        let ClassKind::Index { of, columns, primary: true, .. } = class.kind else { continue };
        let numbers: Vec<i64> = columns.iter().map(|column| *column as i64 + 1).collect();
        rows.push(vec![
            oids::constraint(class.oid).into(),
            class.name.name.clone().into(),
            schemas.get(&class.name.schema).copied().into(),
            "p".into(),
            false.into(),
            false.into(),
            true.into(),
            of.into(),
            0i64.into(),
            class.oid.into(),
            0i64.into(),
            0i64.into(),
            " ".into(),
            " ".into(),
            " ".into(),
            true.into(),
            0i64.into(),
            true.into(),
            numbers.into(),
            Cell::Null,
            Cell::Null,
            XMIN.into(),
        ]);
    }
}

/// From Postgres's pg_type.dat.
pub(super) fn type_oid(ty: ColumnType) -> i64 {
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
        ColumnType::Array(item) => array_oid(item),
    }
}

/// From Postgres's pg_type.dat: each type's `array_type_oid`.
fn array_oid(item: ItemType) -> i64 {
    match item {
        ItemType::Boolean => 1000,
        ItemType::Bytes => 1001,
        ItemType::Int16 => 1005,
        ItemType::Int32 => 1007,
        ItemType::Text => 1009,
        ItemType::Int64 => 1016,
        ItemType::Float32 => 1021,
        ItemType::Float64 => 1022,
        ItemType::Timestamp => 1115,
        ItemType::Date => 1182,
        ItemType::TimestampTz => 1185,
        ItemType::Decimal { .. } => 1231,
    }
}

/// Bytes of a value, or -1 where they vary.
fn type_length(ty: ColumnType) -> i64 {
    match ty {
        ColumnType::Boolean => 1,
        ColumnType::Int16 => 2,
        ColumnType::Int32 | ColumnType::Float32 | ColumnType::Date => 4,
        ColumnType::Int64
        | ColumnType::Float64
        | ColumnType::Timestamp
        | ColumnType::TimestampTz => 8,
        ColumnType::Uuid => 16,
        ColumnType::Text
        | ColumnType::Bytes
        | ColumnType::Json
        | ColumnType::Decimal { .. }
        | ColumnType::Array(_) => -1,
    }
}

/// As Postgres packs `numeric(p,s)`: precision and scale in one number, four more.
fn type_modifier(ty: ColumnType) -> i64 {
    match ty {
        ColumnType::Decimal { precision, scale } => {
            ((i64::from(precision) << 16) | i64::from(scale)) + 4
        }
        ColumnType::Array(item) => type_modifier(item.column_type()),
        _ => -1,
    }
}

/// The default collation for texts.
fn collation(ty: ColumnType) -> i64 {
    let texts = [ColumnType::Text, ColumnType::Array(ItemType::Text)];
    if texts.contains(&ty) { 100 } else { 0 }
}

fn databases(_: &Inner, rows: &mut Builder) {
    rows.push(vec![
        1i64.into(),
        DATABASE.into(),
        OWNER.into(),
        // UTF8, by Postgres's number.
        6i64.into(),
        "c".into(),
        false.into(),
        true.into(),
        (-1i64).into(),
        1663i64.into(),
        "C.UTF-8".into(),
        "C.UTF-8".into(),
        Cell::Null,
        Cell::Null,
        XMIN.into(),
    ]);
}

fn roles(_: &Inner, rows: &mut Builder) {
    rows.push(vec![
        OWNER.into(),
        "evert".into(),
        true.into(),
        true.into(),
        true.into(),
        true.into(),
        true.into(),
        true.into(),
        (-1i64).into(),
        "********".into(),
        Cell::Null,
        true.into(),
        Cell::Null,
        XMIN.into(),
    ]);
}

fn users(_: &Inner, rows: &mut Builder) {
    let may = Cell::from(true);
    let mut row: Vec<Cell> =
        vec!["evert".into(), OWNER.into(), may.clone(), may.clone(), may.clone(), may];
    row.resize(USERS.len(), Cell::Null);
    rows.push(row);
}

fn authorized(_: &Inner, rows: &mut Builder) {
    let mut row: Vec<Cell> = vec![OWNER.into(), "evert".into()];
    row.resize(row.len() + 7, true.into());
    row.extend([(-1i64).into(), Cell::Null, Cell::Null]);
    rows.push(row);
}

fn tables(engine: &Inner, rows: &mut Builder) {
    let catalog = engine.views.catalog();
    for relation in catalog.relations.values() {
        let has_index =
            !relation.schema.key.is_empty() || !catalog.indexes_on(&relation.name).is_empty();
        rows.push(vec![
            relation.name.schema.clone().into(),
            relation.name.name.clone().into(),
            "evert".into(),
            Cell::Null,
            has_index.into(),
            false.into(),
            false.into(),
            false.into(),
        ]);
    }
}

fn matviews(engine: &Inner, rows: &mut Builder) {
    let catalog = engine.views.catalog();
    for view in catalog.views.values() {
        rows.push(vec![
            view.name.schema.clone().into(),
            view.name.name.clone().into(),
            "evert".into(),
            Cell::Null,
            (!catalog.indexes_on(&view.name).is_empty()).into(),
            true.into(),
            view.sql.clone().into(),
        ]);
    }
}

/// An index as the statement that would make it.
pub(super) fn index_definition(classes: &[Class], index: &Class) -> Option<String> {
    let ClassKind::Index { of, columns, primary } = &index.kind else { return None };
    let unique = if *primary { "UNIQUE " } else { "" };
    let table = classes.iter().find(|class| class.oid == *of)?;
    let schema = relation(classes, *of)?;
    let columns: Vec<_> =
        columns.iter().map(|column| quote(&schema.columns[*column].name)).collect();
    Some(format!(
        "CREATE {unique}INDEX {} ON {}.{} USING btree ({})",
        quote(&index.name.name),
        quote(&table.name.schema),
        quote(&table.name.name),
        columns.join(", ")
    ))
}

/// The name of an index's column, by its place from one.
pub(super) fn index_column(classes: &[Class], index: &Class, place: i64) -> Option<String> {
    let ClassKind::Index { of, columns, .. } = &index.kind else { return None };
    let column = columns.get(usize::try_from(place).ok()?.checked_sub(1)?)?;
    Some(quote(&relation(classes, *of)?.columns[*column].name))
}

/// A primary key as a table's constraint.
pub(super) fn constraint_definition(classes: &[Class], index: &Class) -> Option<String> {
    let ClassKind::Index { of, columns, primary: true, .. } = &index.kind else { return None };
    let schema = relation(classes, *of)?;
    let columns: Vec<_> =
        columns.iter().map(|column| quote(&schema.columns[*column].name)).collect();
    Some(format!("PRIMARY KEY ({})", columns.join(", ")))
}

fn quote(name: &str) -> String {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.as_bytes()[0].is_ascii_digit();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn index_list(engine: &Inner, rows: &mut Builder) {
    let classes = oids::classes(&engine.views.catalog());
    for index in &classes {
        let ClassKind::Index { of, .. } = &index.kind else { continue };
        let Some(table) = classes.iter().find(|class| class.oid == *of) else { continue };
        rows.push(vec![
            index.name.schema.clone().into(),
            table.name.name.clone().into(),
            index.name.name.clone().into(),
            Cell::Null,
            index_definition(&classes, index).into(),
        ]);
    }
}

/// Tables and their rows; nothing else is counted.
fn table_statistics(engine: &Inner, rows: &mut Builder) {
    for class in oids::classes(&engine.views.catalog()) {
        let ClassKind::Relation { relkind: "r", .. } = class.kind else { continue };
        let cell = |(name, _): &ColumnSpec| -> Cell {
            match *name {
                "relid" => class.oid.into(),
                "schemaname" => class.name.schema.clone().into(),
                "relname" => class.name.name.clone().into(),
                "n_live_tup" => row_count(engine, &class).into(),
                _ => Cell::Null,
            }
        };
        rows.push(TABLE_STATISTICS.iter().map(cell).collect());
    }
}

fn index_statistics(engine: &Inner, rows: &mut Builder) {
    let classes = oids::classes(&engine.views.catalog());
    for index in &classes {
        let ClassKind::Index { of, .. } = &index.kind else { continue };
        let Some(table) = classes.iter().find(|class| class.oid == *of) else { continue };
        rows.push(vec![
            table.oid.into(),
            index.oid.into(),
            index.name.schema.clone().into(),
            table.name.name.clone().into(),
            index.name.name.clone().into(),
            Cell::Null,
            Cell::Null,
            Cell::Null,
        ]);
    }
}
