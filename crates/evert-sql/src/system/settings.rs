//! `pg_settings`: a session's settings, in their units.

use std::sync::Arc;

use arrow::array::{AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use sqlparser::ast::{Ident, SetExpr, Statement, TableAlias, TableFactor};

use super::SystemTable;
use super::clients::bare;
use super::rows::{Builder, Cell, Kind::Bool, Kind::Int, Kind::Text, Kind::Texts};
use crate::engine::Inner;
use crate::settings::{Settings, in_unit, is_read_only, unit};

pub(super) const TABLES: &[SystemTable] = &[SystemTable {
    schema: "pg_catalog",
    name: "pg_settings",
    columns: &[
        ("name", Text),
        ("setting", Text),
        ("unit", Text),
        ("category", Text),
        ("short_desc", Text),
        ("extra_desc", Text),
        ("context", Text),
        ("vartype", Text),
        ("source", Text),
        ("min_val", Text),
        ("max_val", Text),
        ("enumvals", Texts),
        ("boot_val", Text),
        ("reset_val", Text),
        ("sourcefile", Text),
        ("sourceline", Int),
        ("pending_restart", Bool),
    ],
    fill: at_start,
}];

/// The settings that a session begins with.
fn at_start(engine: &Inner, rows: &mut Builder) {
    for (name, value) in Settings::new("evert", engine.config.statement_timeout).all() {
        let unit = unit(&name);
        let value = match unit {
            Some(unit) => in_unit(&value, unit),
            None => value,
        };
        rows.push(vec![
            name.as_str().into(),
            value.clone().into(),
            unit.into(),
            "Client Connection Defaults".into(),
            "".into(),
            Cell::Null,
            if is_read_only(&name) { "internal" } else { "user" }.into(),
            kind(&value).into(),
            "default".into(),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            value.clone().into(),
            value.into(),
            Cell::Null,
            Cell::Null,
            false.into(),
        ]);
    }
}

/// What a setting is, by its value at the start.
fn kind(value: &str) -> &'static str {
    match value {
        "on" | "off" => "bool",
        _ if value.parse::<i64>().is_ok() => "integer",
        _ if value.parse::<f64>().is_ok() => "real",
        _ => "string",
    }
}

/// What a session reads of `pg_settings`.
const OF_SESSION: &str = "
    SELECT * FROM (
        SELECT name, shown AS setting, unit, category, short_desc, extra_desc, context, vartype,
            CASE WHEN shown = reset_val THEN source ELSE 'session' END AS source, min_val, max_val,
            enumvals, boot_val, reset_val, sourcefile, sourceline, pending_restart
        FROM (
            SELECT *, coalesce(setting_in_unit(current_setting(name, true), unit), setting)
                AS shown
            FROM pg_catalog.pg_settings
        ) AS s
    ) AS pg_settings";

/// `pg_settings` with the values that the session has set. `None` for other relations.
pub(super) fn of_session(factor: &TableFactor) -> Option<TableFactor> {
    let TableFactor::Table { name, args: None, alias, .. } = factor else { return None };
    if bare(name) != "pg_settings" {
        return None;
    }
    let own_name = || {
        let name = Ident::new("pg_settings");
        TableAlias { explicit: true, name, columns: Vec::new(), at: None }
    };
    let parsed = crate::text::parse_statements(OF_SESSION).ok()?;
    let [Statement::Query(query)] = parsed.as_slice() else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let mut rows = select.from.first()?.relation.clone();
    if let TableFactor::Derived { alias: rows_alias, .. } = &mut rows {
        *rows_alias = Some(alias.clone().unwrap_or_else(own_name));
    }
    Some(rows)
}

/// `setting_in_unit(value, unit)`: a number of units, or the value if it has none.
pub(super) fn function() -> ScalarUDF {
    create_udf(
        "setting_in_unit",
        vec![DataType::Utf8View, DataType::Utf8View],
        DataType::Utf8View,
        Volatility::Immutable,
        Arc::new(|args| {
            let arrays = ColumnarValue::values_to_arrays(args)?;
            let (values, units) =
                (cast(&arrays[0], &DataType::Utf8View)?, cast(&arrays[1], &DataType::Utf8View)?);
            let pairs = values.as_string_view().iter().zip(units.as_string_view());
            let told = pairs.map(|(value, unit)| match (value, unit) {
                (Some(value), Some(unit)) => Some(in_unit(value, unit)),
                (value, _) => value.map(str::to_owned),
            });
            Ok(ColumnarValue::Array(Arc::new(told.collect::<StringViewArray>())))
        }),
    )
}
