//! `/iceberg`: the archives as an Iceberg REST catalog, for reading.
//!
//! Format: the Iceberg REST catalog's OpenAPI specification, version 1. What would write is
//! refused in its error's shape.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::door::Server;
use super::observed::{Lake, LakeTable, NoLakeTable, Observed};

/// What is served, as the specification names it. There is no prefix.
const ENDPOINTS: [&str; 7] = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
];

/// How far an archive's facts go, which the door's own position may be ahead of.
const ARCHIVED: HeaderName = HeaderName::from_static("evert-archive-position");

pub(super) fn routes() -> Router<Arc<dyn Observed>> {
    let namespace = "/v1/namespaces/{namespace}";
    let table = "/v1/namespaces/{namespace}/tables/{table}";
    Router::new()
        .route("/v1/config", get(config))
        .route("/v1/namespaces", get(namespaces))
        .route(namespace, get(one_namespace).head(has_namespace))
        .route(&format!("{namespace}/tables"), get(tables))
        .route(&format!("{namespace}/views"), get(views))
        .route(table, get(one_table).head(has_table))
        .route(&format!("{table}/metrics"), post(metrics))
        .fallback(not_there)
        .method_not_allowed_fallback(read_only)
}

async fn config() -> Json<Value> {
    Json(json!({ "defaults": {}, "overrides": {}, "endpoints": ENDPOINTS }))
}

async fn namespaces(State(server): Server) -> Json<Value> {
    let names: Vec<[String; 1]> = names(server.lake()).into_iter().map(|name| [name]).collect();
    Json(json!({ "namespaces": names }))
}

/// The namespaces that have tables, and the one that is always there.
fn names(lake: Option<&dyn Lake>) -> Vec<String> {
    let tables = lake.map(Lake::tables).unwrap_or_default();
    let mut names: Vec<_> = tables.into_iter().map(|(namespace, _)| namespace).collect();
    names.push("public".to_owned());
    names.sort();
    names.dedup();
    names
}

async fn one_namespace(State(server): Server, Path(namespace): Path<String>) -> Response {
    match names(server.lake()).contains(&namespace) {
        true => Json(json!({ "namespace": [namespace], "properties": {} })).into_response(),
        false => no_namespace(&namespace),
    }
}

async fn has_namespace(State(server): Server, Path(namespace): Path<String>) -> Response {
    match names(server.lake()).contains(&namespace) {
        true => StatusCode::NO_CONTENT.into_response(),
        false => no_namespace(&namespace),
    }
}

async fn tables(State(server): Server, Path(namespace): Path<String>) -> Response {
    if !names(server.lake()).contains(&namespace) {
        return no_namespace(&namespace);
    }
    let tables = server.lake().map(Lake::tables).unwrap_or_default();
    let here = tables.into_iter().filter(|(of, _)| *of == namespace);
    let identifiers: Vec<_> =
        here.map(|(of, name)| json!({ "namespace": [of], "name": name })).collect();
    Json(json!({ "identifiers": identifiers })).into_response()
}

async fn views(State(server): Server, Path(namespace): Path<String>) -> Response {
    match names(server.lake()).contains(&namespace) {
        true => Json(json!({ "identifiers": [] })).into_response(),
        false => no_namespace(&namespace),
    }
}

async fn one_table(State(server): Server, Path((of, name)): Path<(String, String)>) -> Response {
    let LakeTable { metadata_url, metadata, position } = match find(&server, &of, &name) {
        Ok(table) => table,
        Err(why) => return no_table(&of, &name, &why),
    };
    let body = json!({
        "metadata-location": metadata_url,
        "metadata": metadata,
        // Empty: DuckDB takes anything else for credentials of a bucket.
        "config": {},
    });
    let mut response = Json(body).into_response();
    response.headers_mut().insert(ARCHIVED, HeaderValue::from(position.get()));
    response
}

async fn has_table(State(server): Server, Path((of, name)): Path<(String, String)>) -> Response {
    match find(&server, &of, &name) {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => no_table(&of, &name, &why),
    }
}

fn find(server: &Arc<dyn Observed>, of: &str, name: &str) -> Result<LakeTable, NoLakeTable> {
    server.lake().map_or(Err(NoLakeTable::Unknown), |lake| lake.table(of, name))
}

/// Readers tell how a scan went; nobody here asks.
async fn metrics() -> StatusCode {
    StatusCode::NO_CONTENT
}

fn no_namespace(name: &str) -> Response {
    let message = format!("Namespace does not exist: {name}");
    refuse(StatusCode::NOT_FOUND, "NoSuchNamespaceException", &message)
}

fn no_table(of: &str, name: &str, why: &NoLakeTable) -> Response {
    match why {
        NoLakeTable::Unknown => {
            let message = format!("Table does not exist: {of}.{name}");
            refuse(StatusCode::NOT_FOUND, "NoSuchTableException", &message)
        }
        // A table that is only being opened must not look like one that was dropped.
        NoLakeTable::NotOpen { state } => {
            let message = format!("{of}.{name} cannot be read yet: the archive is {state}");
            refuse(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", &message)
        }
    }
}

async fn not_there(method: Method, uri: Uri) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return read_only(method, uri).await;
    }
    let message = format!("there is nothing at {}", uri.path());
    refuse(StatusCode::NOT_FOUND, "NotFoundException", &message)
}

async fn read_only(method: Method, uri: Uri) -> Response {
    let message = format!(
        "{method} {}: archives are written by Evert only: CREATE ARCHIVE makes one, DROP ARCHIVE \
         drops it",
        uri.path()
    );
    refuse(StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException", &message)
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> Response {
    let error = json!({ "message": message, "type": kind, "code": status.as_u16() });
    (status, Json(json!({ "error": error }))).into_response()
}
