//! The table that a Postgres target writes: whether it can hold the rows.

use std::collections::BTreeSet;

use evert_model::{ColumnType, RowSchema};
use evert_view::{OutletDef, OutletError};
use tokio_postgres::Client;

use super::retry;
use super::statements::{identifier, make_anew};
use crate::options::PostgresOptions;

/// A table of the other server.
pub(super) struct Table {
    /// `table`, or `schema` and `table`.
    pub(super) parts: Vec<String>,
    columns: Vec<TableColumn>,
}

struct TableColumn {
    name: String,
    ty: String,
    /// A row needs a value for it.
    required: bool,
}

const IS_MISSING: &str = "SELECT to_regclass($1) IS NULL";

const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull AND NOT \
     atthasdef AND attidentity = '' FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum \
     > 0 AND NOT attisdropped ORDER BY attnum";

/// The columns of each unique index that ON CONFLICT can name.
const KEYS: &str = "SELECT ARRAY(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = \
     i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])) FROM pg_index i WHERE \
     i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND \
     i.indexprs IS NULL";

impl Table {
    /// Looks at the table, after making it if that was asked for.
    pub(super) async fn look(
        client: &Client,
        options: &PostgresOptions,
        def: &OutletDef,
        schema: &RowSchema,
    ) -> Result<Self, OutletError> {
        let mut table = Self { parts: options.table.clone(), columns: Vec::new() };
        let quoted = table.quoted();
        if options.create {
            let missing = client.query_one(IS_MISSING, &[&quoted]).await.map_err(retry)?;
            if missing.get::<_, bool>(0) {
                let make = make_anew(&table.definition(schema), &table.parts, def);
                client.batch_execute(&make).await.map_err(retry)?;
            }
        }
        let rows = client.query(COLUMNS, &[&quoted]).await.map_err(retry)?;
        let column = |row: &tokio_postgres::Row| TableColumn {
            name: row.get(0),
            ty: row.get(1),
            required: row.get(2),
        };
        table.columns = rows.iter().map(column).collect();
        table.check_columns(schema)?;
        if !schema.key.is_empty() {
            let rows = client.query(KEYS, &[&quoted]).await.map_err(retry)?;
            let keys: Vec<Vec<String>> = rows.iter().map(|row| row.get(0)).collect();
            table.check_key(schema, &keys)?;
        }
        Ok(table)
    }

    pub(super) fn quoted(&self) -> String {
        self.parts.iter().map(|part| identifier(part)).collect::<Vec<_>>().join(".")
    }

    pub(super) fn shown(&self) -> String {
        format!("\"{}\"", self.parts.join("."))
    }

    pub(super) fn has_no_equality(&self, quoted: &str) -> bool {
        let found = self.columns.iter().find(|column| identifier(&column.name) == quoted);
        found.is_some_and(|column| column.ty == "json")
    }

    fn check_columns(&self, schema: &RowSchema) -> Result<(), OutletError> {
        let shown = self.shown();
        // What is wrong with the table may be put right there: it is looked at again.
        if self.columns.is_empty() {
            return Err(OutletError::Retry(format!(
                "table {shown} does not exist in the target: create it there, or let it be \
                 created WITH (create = 'on')"
            )));
        }
        let there = |name: &str| self.columns.iter().any(|column| column.name == name);
        let missing: Vec<&str> = schema
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .filter(|name| !there(name))
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            let why = format!("table {shown} of the target has no column {missing}");
            return Err(OutletError::Retry(why));
        }
        let written = |name: &str| schema.columns.iter().any(|column| column.name == name);
        let unfed = self.columns.iter().find(|column| column.required && !written(&column.name));
        match unfed {
            None => Ok(()),
            Some(TableColumn { name, .. }) => Err(OutletError::Retry(format!(
                "column {name} of table {shown} is NOT NULL, has no default, and is none of what \
                 the sink writes"
            ))),
        }
    }

    fn check_key(&self, schema: &RowSchema, keys: &[Vec<String>]) -> Result<(), OutletError> {
        let key = schema.key.iter().map(|&index| schema.columns[index].name.as_str());
        let key: BTreeSet<&str> = key.collect();
        let is_it = |index: &Vec<String>| {
            index.len() == key.len() && index.iter().all(|column| key.contains(column.as_str()))
        };
        if keys.iter().any(is_it) {
            return Ok(());
        }
        let list = key.into_iter().collect::<Vec<_>>().join(", ");
        Err(OutletError::Retry(format!(
            "table {} of the target needs a primary key or unique index over exactly ({list})",
            self.shown()
        )))
    }

    /// CREATE TABLE with the view's columns.
    fn definition(&self, schema: &RowSchema) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut key_may_be_null = false;
        for (index, column) in schema.columns.iter().enumerate() {
            let is_key = schema.key.contains(&index);
            key_may_be_null |= is_key && column.nullable;
            let not_null = if column.nullable { "" } else { " NOT NULL" };
            parts.push(format!("{} {}{not_null}", identifier(&column.name), sql_type(column.ty)));
        }
        if !schema.key.is_empty() {
            let key = schema.key.iter().map(|&index| identifier(&schema.columns[index].name));
            let key = key.collect::<Vec<_>>().join(", ");
            parts.push(match key_may_be_null {
                true => format!("UNIQUE NULLS NOT DISTINCT ({key})"),
                false => format!("PRIMARY KEY ({key})"),
            });
        }
        format!("CREATE TABLE IF NOT EXISTS {} ({})", self.quoted(), parts.join(", "))
    }
}

/// The type that holds every value of a column's type.
fn sql_type(ty: ColumnType) -> String {
    match ty {
        ColumnType::Boolean => "boolean".into(),
        ColumnType::Int16 => "smallint".into(),
        ColumnType::Int32 => "integer".into(),
        ColumnType::Int64 => "bigint".into(),
        ColumnType::Float32 => "real".into(),
        ColumnType::Float64 => "double precision".into(),
        ColumnType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        ColumnType::Text => "text".into(),
        ColumnType::Bytes => "bytea".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Timestamp => "timestamp".into(),
        ColumnType::TimestampTz => "timestamptz".into(),
        ColumnType::Json => "json".into(),
        ColumnType::Uuid => "uuid".into(),
        ColumnType::Array(item) => format!("{}[]", sql_type(item.column_type())),
    }
}

#[cfg(test)]
mod tests {
    use evert_model::Column;

    use super::*;

    fn schema() -> RowSchema {
        let column = |name: &str, ty, nullable| Column { name: name.into(), ty, nullable };
        let total = ColumnType::Decimal { precision: 12, scale: 2 };
        let columns = vec![column("city", ColumnType::Text, true), column("total", total, true)];
        RowSchema { columns, key: vec![0] }
    }

    fn table(columns: &[(&str, bool)]) -> Table {
        let column = |&(name, required): &(&str, bool)| TableColumn {
            name: name.into(),
            ty: "text".into(),
            required,
        };
        Table { parts: vec!["s".into(), "t".into()], columns: columns.iter().map(column).collect() }
    }

    #[test]
    fn a_table_is_made_with_the_key_that_may_be_null() {
        assert_eq!(
            table(&[]).definition(&schema()),
            "CREATE TABLE IF NOT EXISTS \"s\".\"t\" (\"city\" text, \"total\" numeric(12,2), \
             UNIQUE NULLS NOT DISTINCT (\"city\"))"
        );
    }

    #[test]
    fn what_is_wrong_with_a_table_is_told() {
        let why = |columns: &[(&str, bool)]| {
            table(columns).check_columns(&schema()).expect_err("refused").to_string()
        };
        assert!(why(&[]).contains("does not exist in the target"));
        assert!(why(&[("city", false)]).contains("has no column total"));
        let unfed = [("city", false), ("total", false), ("n", true)];
        assert!(why(&unfed).contains("column n of table \"s.t\" is NOT NULL"));
        let fine = table(&[("city", false), ("total", false)]);
        assert!(fine.check_columns(&schema()).is_ok());
        let keys = |keys: &[&[&str]]| -> Vec<Vec<String>> {
            keys.iter().map(|key| key.iter().map(|&name| name.into()).collect()).collect()
        };
        assert!(fine.check_key(&schema(), &keys(&[&["total"], &["city"]])).is_ok());
        let error = fine.check_key(&schema(), &keys(&[&["city", "total"]])).expect_err("refused");
        assert!(error.to_string().contains("over exactly (city)"));
    }
}
