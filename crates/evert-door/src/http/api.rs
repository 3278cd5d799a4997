//! The answers in JSON.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use evert_view::{ViewState, ViewStatus};
use serde_json::{Value, json};

use super::door::Server;
use super::observed::TopicFacts;

pub(super) async fn root() -> Json<Value> {
    Json(json!({
        "name": "evert",
        "version": env!("CARGO_PKG_VERSION"),
        "links": {
            "health": "/healthz",
            "readiness": "/readyz",
            "metrics": "/metrics",
            "topics": "/api/topics",
            "views": "/api/views",
            "sql": "/api/sql",
        },
    }))
}

/// The process answers: it is alive.
pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Whether reads are answered, and how far the replay is if they are not.
pub(super) async fn ready(State(server): Server) -> Response {
    let state = server.replay_state();
    let ready = state == ViewState::Live;
    let views: Vec<_> = server.views().iter().map(view).collect();
    let body = json!({
        "ready": ready,
        "replay": replay(&state),
        "position": server.position().get(),
        "log_end": server.log_end().get(),
        "views": views,
    });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

pub(super) async fn topics(State(server): Server) -> Json<Value> {
    Json(Value::Array(server.topics().iter().map(topic).collect()))
}

pub(super) async fn views(State(server): Server) -> Json<Value> {
    Json(Value::Array(server.views().iter().map(view).collect()))
}

pub(super) async fn not_found(uri: Uri) -> Response {
    let error = format!("there is nothing at {}", uri.path());
    (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let error = format!("{method} is not for {}", uri.path());
    (StatusCode::METHOD_NOT_ALLOWED, Json(json!({ "error": error }))).into_response()
}

fn replay(state: &ViewState) -> Value {
    match state {
        ViewState::Rebuilding { percent, eta } => {
            json!({ "percent": percent, "eta_seconds": eta.map(|eta| eta.as_secs()) })
        }
        ViewState::Live | ViewState::Behind | ViewState::Paused => {
            json!({ "percent": 100, "eta_seconds": 0 })
        }
        ViewState::Retrying(why) | ViewState::Failed(why) => json!({ "failed": why }),
    }
}

fn view(view: &ViewStatus) -> Value {
    json!({
        "name": view.name.to_string(),
        "kind": view.outlet.map_or("table", |kind| kind.word()),
        "state": view.state.to_string(),
        "position": view.position.get(),
        "lag_records": view.lag_records,
        "lag_ms": view.lag_ms,
        "rows": view.rows,
        "memory_bytes": view.memory_bytes,
    })
}

fn topic(topic: &TopicFacts) -> Value {
    let partitions = topic.partitions.iter().map(|facts| {
        json!({
            "partition": facts.partition.get(),
            "log_start": facts.log_start.get(),
            "high_watermark": facts.high_watermark.get(),
        })
    });
    json!({ "name": topic.name, "partitions": partitions.collect::<Vec<_>>() })
}
