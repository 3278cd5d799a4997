//! Statements that show something: SHOW, EXPLAIN, VERIFY.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_model::Position;

use super::Session;
use super::read::Reading;
use crate::command::Command;
use crate::error::INTERNAL_ERROR;
use crate::{Response, SqlError, system, translate};

pub(super) fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn position_schema() -> SchemaRef {
    schema(&[("position", DataType::Int64)])
}

pub(super) fn explain_schema() -> SchemaRef {
    schema(&[("QUERY PLAN", DataType::Utf8View)])
}

/// SHOW's one column is named after the setting.
pub(super) fn setting_schema(name: &str) -> SchemaRef {
    match name {
        "all" => schema(&[("name", DataType::Utf8View), ("setting", DataType::Utf8View)]),
        "time zone" => schema(&[("TimeZone", DataType::Utf8View)]),
        "transaction isolation level" => schema(&[("transaction_isolation", DataType::Utf8View)]),
        _ => schema(&[(name, DataType::Utf8View)]),
    }
}

pub(super) fn one(
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    tag: &'static str,
) -> Result<Response, SqlError> {
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns)
        .map_err(|error| translate::planning(&error.into(), ""))?;
    Ok(Response::rows(schema, vec![rows], tag))
}

pub(super) fn text(values: impl IntoIterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

pub(super) fn number(value: u64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![i64::try_from(value).unwrap_or(i64::MAX)]))
}

pub(super) fn position(position: Position) -> Result<Response, SqlError> {
    one(position_schema(), vec![number(position.get())], "SHOW")
}

pub(super) fn explain(lines: impl IntoIterator<Item = String>) -> Result<Response, SqlError> {
    one(explain_schema(), vec![text(lines)], "EXPLAIN")
}

impl Session {
    pub(super) async fn show(&mut self, name: &str) -> Result<Response, SqlError> {
        if let Some(sql) = system::show(name) {
            let statement = self.own_statement(sql)?;
            let Command::Query(query) = &statement.0.command else {
                return Err(SqlError::new(INTERNAL_ERROR, "SHOW is not a SELECT"));
            };
            let reading = Reading { tag: "SHOW", ..Reading::default() };
            return self.select(&statement.0, query, &[], reading).await;
        }
        if name == "all" {
            let (names, values): (Vec<_>, Vec<_>) = self.settings.all().into_iter().unzip();
            return one(setting_schema(name), vec![text(names), text(values)], "SHOW");
        }
        one(setting_schema(name), vec![text([self.settings.get(name)?])], "SHOW")
    }
}
