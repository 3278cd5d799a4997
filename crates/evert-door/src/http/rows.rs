//! `GET /api/views/{name}` and `/api/views/{name}/{key}`: rows of a table, bag or view as JSON.
//!
//! Keys are those of the key-value door: the values of the key's columns, with colons between.
//! Rows that have a key come in the order of their keys, a page at a time: `next` of one page is
//! `after` of the next. Rows without one come as far as `limit`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use evert_model::{Column, ColumnType, RowSchema};
use evert_view::{Cut, Name, PinError, RowWriter, Snapshot};
use serde_json::Value;

use super::after::{Asked, POSITION, refuse};
use super::changes::named;
use super::door::Server;
use super::query;
use crate::resp::Layout;

/// Rows of a page if the request does not say, and at most.
const LIMIT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
/// A page ends when it has grown to this.
const PAGE_BYTES: usize = 8 << 20;

/// What may follow the question mark.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    limit: usize,
    /// The key before the first row.
    after: Option<String>,
    /// The only key that is wanted.
    key: Option<String>,
}

fn wish(text: &str) -> Result<Wish, String> {
    let mut wish = Wish { limit: LIMIT, after: None, key: None };
    for (name, value) in query::pairs(text) {
        match name.as_str() {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                wish.limit = limit.ok_or_else(|| format!("limit is 1 to {LIMIT_MAX}"))?;
            }
            "after" => wish.after = Some(value),
            "key" => wish.key = Some(value),
            _ => return Err(format!("\"{name}\" is not known: use limit, after and key")),
        }
    }
    Ok(wish)
}

pub(super) async fn rows(
    State(server): Server,
    Extension(asked): Extension<Asked>,
    Path(name): Path<String>,
    RawQuery(text): RawQuery,
) -> Response {
    let wish = match wish(text.as_deref().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    let name = named(&name);
    let (cut, snapshot) = match server.pin(&name, asked.at_least, asked.left()).await {
        Ok(cut) => match cut.snapshots.get(&name).cloned() {
            Some(snapshot) => (cut, snapshot),
            None => return refuse(StatusCode::BAD_REQUEST, &no_rows(&name)),
        },
        Err(error) => return refuse(status(&error), &error.to_string()),
    };
    if let Some(key) = &wish.key {
        return one(&name, &cut, &snapshot, key);
    }
    // A page may be a few megabytes: that is not for a thread that serves others.
    let page = tokio::task::spawn_blocking(move || page(&name, &cut, &snapshot, &wish));
    page.await
        .unwrap_or_else(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR, "the rows could not be read"))
}

pub(super) async fn row(
    State(server): Server,
    Extension(asked): Extension<Asked>,
    Path((name, key)): Path<(String, String)>,
) -> Response {
    let name = named(&name);
    match server.pin(&name, asked.at_least, asked.left()).await {
        Ok(cut) => match cut.snapshots.get(&name) {
            Some(snapshot) => one(&name, &cut, snapshot, &key),
            None => refuse(StatusCode::BAD_REQUEST, &no_rows(&name)),
        },
        Err(error) => refuse(status(&error), &error.to_string()),
    }
}

fn no_rows(name: &Name) -> String {
    format!("\"{name}\" is a stream: it keeps no rows; read its topic, or ask by SQL")
}

fn status(error: &PinError) -> StatusCode {
    match error {
        PinError::Unknown(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The row of a key.
fn one(name: &Name, cut: &Arc<Cut>, snapshot: &Snapshot, key: &str) -> Response {
    let Some(layout) = Layout::new(name.clone(), snapshot) else {
        return refuse(StatusCode::BAD_REQUEST, &format!("\"{name}\" has no key"));
    };
    let Some(found) = layout.find(snapshot, key.as_bytes(), &mut Vec::new()) else {
        let error = format!("\"{name}\" has no row of the key {key}");
        return at(cut, refuse(StatusCode::NOT_FOUND, &error));
    };
    let mut text = String::new();
    match writer(snapshot) {
        Some(writer) => writer.write(found.rows, found.row, &mut text),
        None => return refuse(StatusCode::INTERNAL_SERVER_ERROR, NOT_SHOWN),
    }
    at(cut, json(text))
}

const NOT_SHOWN: &str = "a column is of a type that JSON cannot show: ask by SQL";

fn page(name: &Name, cut: &Arc<Cut>, snapshot: &Snapshot, wish: &Wish) -> Response {
    let Some(writer) = writer(snapshot) else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, NOT_SHOWN);
    };
    let label = Value::from(name.to_string());
    let mut text = format!("{{\"view\":{label},\"position\":{},\"rows\":[", cut.position);
    let begin = text.len();
    let mut next = None;
    match Layout::new(name.clone(), snapshot) {
        Some(layout) => {
            let mut after = Vec::new();
            if let Some(key) = &wish.after
                && layout.key_of(snapshot, key.as_bytes(), &mut after).is_none()
            {
                let error = format!("{key} is no key of \"{name}\"");
                return refuse(StatusCode::BAD_REQUEST, &error);
            }
            let after = wish.after.is_some().then_some(after.as_slice());
            let found = snapshot.rows_after(after, wish.limit + 1);
            let mut last = None;
            for (index, row) in found.iter().enumerate() {
                if index == wish.limit || text.len() - begin > PAGE_BYTES {
                    next = last.map(|row: &evert_view::RowRef<'_>| key_text(&layout, *row));
                    break;
                }
                text.push_str(if index > 0 { "," } else { "" });
                writer.write(row.rows, row.row, &mut text);
                last = Some(row);
            }
        }
        None => {
            let mut count = 0;
            'all: for batch in snapshot.scan(None) {
                for row in 0..batch.num_rows() {
                    if count == wish.limit || text.len() - begin > PAGE_BYTES {
                        break 'all;
                    }
                    text.push_str(if count > 0 { "," } else { "" });
                    writer.write(&batch, row, &mut text);
                    count += 1;
                }
            }
        }
    }
    let next = next.map_or(Value::Null, Value::from);
    text.push_str(&format!("],\"next\":{next},\"count\":{}}}", snapshot.len()));
    at(cut, json(text))
}

/// A row's key without the name before it.
fn key_text(layout: &Layout, row: evert_view::RowRef<'_>) -> String {
    let mut key = Vec::new();
    layout.write_key(row.rows, row.row, &mut key);
    String::from_utf8_lossy(&key[layout.prefix().len()..]).into_owned()
}

/// Writes whole rows, if all columns are of types that JSON can show.
fn writer(snapshot: &Snapshot) -> Option<RowWriter> {
    let columns = snapshot.schema().fields().iter().map(|field| {
        let ty = ColumnType::of_field(field).filter(|ty| ty.arrow_type() == *field.data_type())?;
        Some(Column { name: field.name().clone(), ty, nullable: true })
    });
    let schema = RowSchema { columns: columns.collect::<Option<_>>()?, key: Vec::new() };
    let all: Vec<_> = (0..schema.columns.len()).collect();
    Some(RowWriter::new(&schema, &all))
}

fn json(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The answer is of exactly this position.
fn at(cut: &Cut, mut response: Response) -> Response {
    response.headers_mut().insert(POSITION, HeaderValue::from(cut.position.get()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes() {
        let found = wish("limit=7&after=a%3Ab+c").expect("known");
        assert_eq!(found, Wish { limit: 7, after: Some("a:b c".into()), key: None });
        for text in ["limit=0", "limit=10001", "limit=x", "before=1"] {
            assert!(wish(text).is_err(), "{text}");
        }
    }
}
