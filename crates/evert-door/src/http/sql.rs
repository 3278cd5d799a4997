//! `POST /api/sql`: one statement, its rows as JSON.
//!
//! The body is the statement, or JSON: `{"sql": "..."}`. The answer has the columns with their
//! types, the rows as arrays in the order of the columns, and the command's tag. Numbers are JSON's
//! where they keep their value there; what JSON has no type for is Postgres's text. For large
//! results there is the SQL door.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use evert_model::{ColumnType, is_vector};
use futures::StreamExt;
use serde_json::{Value, json};

use super::after::{Asked, POSITION, refuse};
use super::door::Server;
use crate::pg::{self, Session, SqlError, text};

/// The largest result, in bytes.
const RESULT_BYTES_MAX: usize = 64 << 20;

pub(super) async fn sql(
    State(server): Server,
    Extension(asked): Extension<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let statement = match statement(&headers, &body) {
        Ok(statement) => statement,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    let mut session = server.session();
    if asked.at_least.get() > 0 {
        let set = format!("SET evert.after = '{}'", asked.at_least);
        if let Err(error) = run(session.as_mut(), &set).await {
            return told(&error);
        }
    }
    let mut response = match run(session.as_mut(), &statement).await {
        Ok(answer) => {
            let mut response = Response::new(Body::from(answer));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => return told(&error),
    };
    if let Some(position) = position(session.as_mut()).await {
        response.headers_mut().insert(POSITION, HeaderValue::from(position));
    }
    response
}

fn statement(headers: &HeaderMap, body: &[u8]) -> Result<String, String> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/json")) {
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let sql = body.get("sql").and_then(Value::as_str);
        return sql.map(str::to_owned).ok_or_else(|| "the body is {\"sql\": \"...\"}".to_owned());
    }
    let sql = std::str::from_utf8(body).map_err(|_| "the statement is not UTF-8")?;
    Ok(sql.to_owned())
}

/// Runs one statement; gives the answer's body.
async fn run(session: &mut dyn Session, sql: &str) -> Result<String, SqlError> {
    let statements = session.parse(sql)?;
    let [statement] = statements.as_slice() else {
        return Err(SqlError::new("42601", "one statement at a time"));
    };
    match session.execute(statement, &[]).await? {
        pg::Response::Rows { schema, mut batches, tag } => {
            let mut answer = Answer::new(&schema);
            while let Some(batch) = batches.next().await {
                answer.add(&schema, &batch?)?;
            }
            Ok(answer.end(tag))
        }
        pg::Response::Done { tag } => Ok(json!({ "tag": tag }).to_string()),
        pg::Response::Empty => Ok(json!({ "tag": "" }).to_string()),
        _ => Err(SqlError::new("0A000", "COPY and SUBSCRIBE are for the SQL door")),
    }
}

/// The position of what the session has read or written.
async fn position(session: &mut dyn Session) -> Option<i64> {
    let statements = session.parse("SHOW POSITION").ok()?;
    let response = session.execute(statements.first()?, &[]).await.ok()?;
    let pg::Response::Rows { mut batches, .. } = response else { return None };
    let batch = batches.next().await?.ok()?;
    let positions = batch.column(0).as_primitive_opt::<Int64Type>()?;
    (positions.len() == 1).then(|| positions.value(0))
}

/// An answer in the making.
struct Answer {
    text: String,
    rows: usize,
}

impl Answer {
    fn new(schema: &SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|field| {
            let ty = ColumnType::of_field(field).map_or("text".to_owned(), ColumnType::sql_name);
            json!({ "name": field.name(), "type": ty })
        });
        let columns = Value::Array(columns.collect());
        Self { text: format!("{{\"columns\":{columns},\"rows\":["), rows: 0 }
    }

    fn add(&mut self, schema: &SchemaRef, batch: &RecordBatch) -> Result<(), SqlError> {
        for row in 0..batch.num_rows() {
            self.text.push_str(if self.rows > 0 { ",[" } else { "[" });
            for (index, field) in schema.fields().iter().enumerate() {
                self.text.push_str(if index > 0 { "," } else { "" });
                write_value(field, batch.column(index), row, &mut self.text)?;
            }
            self.text.push(']');
            self.rows += 1;
            if self.text.len() > RESULT_BYTES_MAX {
                let mib = RESULT_BYTES_MAX >> 20;
                let what = format!("the result is larger than {mib} MiB: ask by the SQL door");
                return Err(SqlError::new("54000", what));
            }
        }
        Ok(())
    }

    fn end(mut self, tag: &str) -> String {
        let tag = Value::from(format!("{tag} {}", self.rows));
        write!(self.text, "],\"tag\":{tag}}}").expect("a string takes everything");
        self.text
    }
}

fn write_value(
    field: &Field,
    values: &ArrayRef,
    row: usize,
    out: &mut String,
) -> Result<(), SqlError> {
    if values.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    if let (DataType::List(item), false) = (values.data_type(), is_vector(field)) {
        let items = values.as_list::<i32>().value(row);
        out.push('[');
        for place in 0..items.len() {
            out.push_str(if place > 0 { "," } else { "" });
            write_value(item, &items, place, out)?;
        }
        out.push(']');
        return Ok(());
    }
    let ty = ColumnType::of_field(field).filter(|ty| ty.arrow_type() == *values.data_type());
    let written = match ty {
        Some(ColumnType::Boolean) => write!(out, "{}", values.as_boolean().value(row)),
        Some(ColumnType::Int16) => {
            write!(out, "{}", values.as_primitive::<Int16Type>().value(row))
        }
        Some(ColumnType::Int32) => {
            write!(out, "{}", values.as_primitive::<Int32Type>().value(row))
        }
        Some(ColumnType::Int64) => {
            write!(out, "{}", values.as_primitive::<Int64Type>().value(row))
        }
        Some(ColumnType::Float64)
            if values.as_primitive::<Float64Type>().value(row).is_finite() =>
        {
            write!(out, "{}", values.as_primitive::<Float64Type>().value(row))
        }
        Some(ColumnType::Json) => write!(out, "{}", values.as_string_view().value(row)),
        _ => {
            let mut text = BytesMut::new();
            text::write_any(field, values, row, &mut text)?;
            write!(out, "{}", Value::from(String::from_utf8_lossy(&text)))
        }
    };
    written.expect("a string takes everything");
    Ok(())
}

/// An error with its code, and a status by the code's class.
fn told(error: &SqlError) -> Response {
    let status = match (error.sqlstate, &error.sqlstate[..2]) {
        ("57014", _) => StatusCode::REQUEST_TIMEOUT,
        ("54000", _) => StatusCode::PAYLOAD_TOO_LARGE,
        (_, "40") => StatusCode::CONFLICT,
        (_, "53" | "57") => StatusCode::SERVICE_UNAVAILABLE,
        (_, "58" | "XX") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let body = json!({
        "error": error.message,
        "sqlstate": error.sqlstate,
        "detail": error.detail,
        "hint": error.hint,
    });
    (status, Json(body)).into_response()
}
