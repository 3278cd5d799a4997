//! `information_schema` on views, who may do what, and what constraints are over.

use evert_view::Name;

use super::SystemTable;
use super::information::{DATABASE, relations};
use super::rows::{Builder, Cell, ColumnSpec, Kind::Text};
use crate::engine::Inner;

/// The one role, which owns everything.
const OWNER: &str = "evert";

const TABLE_PRIVILEGES: &[ColumnSpec] = &[
    ("grantor", Text),
    ("grantee", Text),
    ("table_catalog", Text),
    ("table_schema", Text),
    ("table_name", Text),
    ("privilege_type", Text),
    ("is_grantable", Text),
    ("with_hierarchy", Text),
];

const fn table(
    name: &'static str,
    columns: &'static [ColumnSpec],
    fill: fn(&Inner, &mut Builder),
) -> SystemTable {
    SystemTable { schema: "information_schema", name, columns, fill }
}

pub(super) const TABLES: &[SystemTable] = &[
    table("table_privileges", TABLE_PRIVILEGES, table_privileges),
    table("role_table_grants", TABLE_PRIVILEGES, table_privileges),
    table(
        "column_privileges",
        &[
            ("grantor", Text),
            ("grantee", Text),
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("column_name", Text),
            ("privilege_type", Text),
            ("is_grantable", Text),
        ],
        column_privileges,
    ),
    table(
        "views",
        &[
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("view_definition", Text),
            ("check_option", Text),
            ("is_updatable", Text),
            ("is_insertable_into", Text),
            ("is_trigger_updatable", Text),
            ("is_trigger_deletable", Text),
            ("is_trigger_insertable_into", Text),
        ],
        views,
    ),
    table(
        "constraint_column_usage",
        &[
            ("table_catalog", Text),
            ("table_schema", Text),
            ("table_name", Text),
            ("column_name", Text),
            ("constraint_catalog", Text),
            ("constraint_schema", Text),
            ("constraint_name", Text),
        ],
        constrained_columns,
    ),
    table("enabled_roles", &[("role_name", Text)], |_, rows| rows.push(vec![OWNER.into()])),
    table("information_schema_catalog_name", &[("catalog_name", Text)], |_, rows| {
        rows.push(vec![DATABASE.into()]);
    }),
];

/// What may be done with a relation.
fn privileges(insertable: bool) -> &'static [&'static str] {
    if insertable { &["INSERT", "SELECT", "UPDATE", "DELETE"] } else { &["SELECT"] }
}

fn cells(name: &Name) -> [Cell; 3] {
    [DATABASE.into(), name.schema.clone().into(), name.name.clone().into()]
}

fn table_privileges(engine: &Inner, rows: &mut Builder) {
    for (name, _, _, insertable) in relations(&engine.views.catalog()) {
        for privilege in privileges(insertable) {
            let mut row = vec![OWNER.into(), OWNER.into()];
            row.extend(cells(&name));
            let hierarchy = if *privilege == "SELECT" { "YES" } else { "NO" };
            row.extend([(*privilege).into(), "YES".into(), hierarchy.into()]);
            rows.push(row);
        }
    }
}

fn column_privileges(engine: &Inner, rows: &mut Builder) {
    for (name, schema, _, insertable) in relations(&engine.views.catalog()) {
        for column in &schema.columns {
            for privilege in privileges(insertable).iter().filter(|name| **name != "DELETE") {
                let mut row = vec![OWNER.into(), OWNER.into()];
                row.extend(cells(&name));
                row.extend([column.name.clone().into(), (*privilege).into(), "YES".into()]);
                rows.push(row);
            }
        }
    }
}

fn views(engine: &Inner, rows: &mut Builder) {
    for view in engine.views.catalog().views.values() {
        let mut row = cells(&view.name).to_vec();
        row.extend([view.sql.clone().into(), "NONE".into()]);
        row.extend(std::iter::repeat_n(Cell::from("NO"), 5));
        rows.push(row);
    }
}

fn constrained_columns(engine: &Inner, rows: &mut Builder) {
    for relation in engine.views.catalog().relations.values() {
        for column in &relation.schema.key {
            let mut row = cells(&relation.name).to_vec();
            row.push(relation.schema.columns[*column].name.clone().into());
            row.extend([DATABASE.into(), relation.name.schema.clone().into()]);
            row.push(format!("{}_pkey", relation.name.name).into());
            rows.push(row);
        }
    }
}
