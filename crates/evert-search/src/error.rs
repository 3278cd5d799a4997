//! Errors as Elasticsearch words them: a status, a type and a reason.

use evert_view::Name;
use serde_json::{Map, Value, json};
use tantivy::TantivyError;
use tantivy::aggregation::AggregationError;
use thiserror::Error;

/// Why a request was refused or failed. (Elasticsearch reference, "Common options", errors)
#[derive(Clone, Debug, Error, PartialEq)]
#[error("{reason}")]
pub struct EsError {
    /// The HTTP status.
    pub status: u16,
    /// The error's type: `parsing_exception`, `index_not_found_exception`, ...
    pub kind: &'static str,
    /// One fact.
    pub reason: String,
    /// Members beside type and reason.
    extra: Map<String, Value>,
}

impl EsError {
    /// An error of a type.
    pub fn new(status: u16, kind: &'static str, reason: impl Into<String>) -> Self {
        Self { status, kind, reason: reason.into(), extra: Map::new() }
    }

    /// A request that cannot be read: 400.
    pub(crate) fn parsing(reason: impl Into<String>) -> Self {
        Self::new(400, "parsing_exception", reason)
    }

    /// A request that makes no sense: 400.
    pub(crate) fn argument(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    /// A query that does not fit the index: 400.
    pub(crate) fn shard(reason: impl Into<String>) -> Self {
        Self::new(400, "query_shard_exception", reason)
    }

    /// There is no such index: 404.
    pub(crate) fn no_index(name: &str) -> Self {
        let mut error =
            Self::new(404, "index_not_found_exception", format!("no such index [{name}]"));
        for (key, value) in [
            ("resource.type", "index_or_alias"),
            ("resource.id", name),
            ("index_uuid", "_na_"),
            ("index", name),
        ] {
            error.extra.insert(key.into(), value.into());
        }
        error
    }

    /// The index is there and cannot answer now: 503.
    pub(crate) fn unavailable(name: &Name, why: &str) -> Self {
        Self::new(503, "no_shard_available_action_exception", format!("[{name}] {why}"))
    }

    /// The whole body: `{"error": {...}, "status": 400}`.
    pub fn body(&self) -> Value {
        let mut error = Map::new();
        error.insert("type".into(), self.kind.into());
        error.insert("reason".into(), self.reason.clone().into());
        error.extend(self.extra.clone());
        let cause = Value::Object(error.clone());
        error.insert("root_cause".into(), json!([cause]));
        json!({ "error": error, "status": self.status })
    }
}

impl From<TantivyError> for EsError {
    fn from(error: TantivyError) -> Self {
        match error {
            TantivyError::AggregationError(AggregationError::BucketLimitExceeded { .. }) => {
                Self::new(400, "too_many_buckets_exception", error.to_string())
            }
            TantivyError::AggregationError(AggregationError::MemoryExceeded { .. }) => {
                Self::new(429, "circuit_breaking_exception", error.to_string())
            }
            TantivyError::InvalidArgument(reason) => Self::argument(reason),
            TantivyError::AggregationError(error) => Self::argument(error.to_string()),
            error => Self::new(500, "search_phase_execution_exception", error.to_string()),
        }
    }
}
