//! Search as Elasticsearch's clients ask for it: at the root and under `/es`.
//!
//! Owns: routes, media types, headers.
//! Not here: queries and answers (behind [`Search`]).
//!
//! Invariants
//! - Every answer of these routes names the product, and is of the media type that the client
//!   accepts; errors are in Elasticsearch's shape.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use evert_model::Position;
use serde_json::json;

use super::after;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 10 << 20;
const PRODUCT: HeaderName = HeaderName::from_static("x-elastic-product");
const POSITION: HeaderName = HeaderName::from_static("evert-position");

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchOperation {
    /// `GET /`
    Root,
    /// `_search`
    Search,
    /// `_count`
    Count,
    /// `_mapping`
    Mapping,
    /// An index itself.
    Index,
    /// `_doc/{id}`
    Document,
    /// `_source/{id}`
    Source,
    /// `_cat/indices`
    CatIndices,
    /// `_msearch`
    MultiSearch,
    /// `_refresh`
    Refresh,
    /// `_cluster/health`
    Health,
    /// `_field_caps`
    FieldCaps,
    /// Whatever would write.
    Write,
    /// What is not known.
    Unknown,
}

/// A request about search indexes.
#[derive(Clone, Debug)]
pub struct SearchCall {
    /// What is asked for.
    pub operation: SearchOperation,
    /// The index's name; empty where there is none.
    pub index: String,
    /// The document's id; empty where there is none.
    pub id: String,
    /// The URL's words after the question mark.
    pub params: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The position to wait for, as the client writes it.
    pub after: Option<String>,
    /// How long to wait for it.
    pub timeout: Duration,
}

/// An answer about search indexes.
#[derive(Clone, Debug)]
pub struct SearchAnswer {
    /// The HTTP status.
    pub status: u16,
    /// JSON, or plain text.
    pub body: String,
    /// The body is plain text.
    pub is_text: bool,
    /// The position that the answer is of.
    pub position: Option<Position>,
}

/// The search indexes behind the door.
#[async_trait]
pub trait Search: Send + Sync {
    /// Answers a request; errors are answers too.
    async fn answer(&self, call: SearchCall) -> SearchAnswer;
}

type Indexes = State<Arc<dyn Search>>;
type Words = RawQuery;

/// The routes, at the root and under `/es`.
pub(super) fn routes(search: Arc<dyn Search>) -> Router {
    let under = indexes().route("/", get(root)).fallback(unknown);
    Router::new()
        .merge(indexes())
        .nest("/es", under)
        .route("/es/", get(root))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(as_accepted))
        .with_state(search)
}

fn indexes() -> Router<Arc<dyn Search>> {
    Router::new()
        .route("/_search", any(search_all))
        .route("/_count", any(count_all))
        .route("/_msearch", any(multi_search_all))
        .route("/_mapping", any(mapping_all))
        .route("/_field_caps", any(field_caps_all))
        .route("/_refresh", any(refresh_all))
        .route("/_bulk", any(write_all))
        .route("/_cat/indices", get(cat_all))
        .route("/_cat/indices/{index}", get(cat))
        .route("/_cluster/health", get(health))
        .route("/{index}/_search", any(search))
        .route("/{index}/_count", any(count))
        .route("/{index}/_msearch", any(multi_search))
        .route("/{index}/_mapping", any(mapping))
        .route("/{index}/_field_caps", any(field_caps))
        .route("/{index}/_refresh", any(refresh))
        .route("/{index}/_bulk", any(write))
        .route("/{index}/_doc", any(write))
        .route("/{index}/_doc/{id}", any(document))
        .route("/{index}/_create/{id}", any(write_id))
        .route("/{index}/_update/{id}", any(write_id))
        .route("/{index}/_source/{id}", any(source))
        .route("/{index}/_update_by_query", any(write))
        .route("/{index}/_delete_by_query", any(write))
        .route("/{index}", any(index))
}

/// Whether a request is an Elasticsearch client's.
pub(super) fn is_client(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, what: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.to_ascii_lowercase().contains(what))
    };
    says(header::ACCEPT, "vnd.elasticsearch")
        || says(header::USER_AGENT, "elasticsearch")
        || headers.contains_key("x-elastic-client-meta")
}

/// What Elasticsearch answers at `/`.
pub(super) async fn answer_root(search: &dyn Search, headers: &HeaderMap) -> Response {
    let answer = search.answer(call(SearchOperation::Root, "", "", None, headers)).await;
    let mut response = shown(answer);
    mark(&mut response, accepted(headers));
    response
}

fn call(
    operation: SearchOperation,
    index: &str,
    id: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> SearchCall {
    // Headers that cannot be read were refused on the way here.
    let after = after::after(headers).ok().flatten().map(str::to_owned);
    let timeout = after::timeout(headers).unwrap_or_default();
    let (index, id) = (index.to_owned(), id.to_owned());
    SearchCall { operation, index, id, params: params(query), body: Bytes::new(), after, timeout }
}

/// The words after a URL's question mark, decoded.
fn params(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    });
    pairs.collect()
}

/// Percent-decoded; what is no UTF-8 then is replaced. (WHATWG URL, `urlencoded` parsing)
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn shown(answer: SearchAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    let media = if answer.is_text { "text/plain; charset=UTF-8" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    if let Some(position) = answer.position {
        response.headers_mut().insert(POSITION, HeaderValue::from(position.get()));
    }
    response
}

/// The version that a client wants to be compatible with.
fn accepted(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?.replace(' ', "");
    if !accept.contains("application/vnd.elasticsearch+") {
        return None;
    }
    Some(match accept.contains("compatible-with=9") {
        true => "application/vnd.elasticsearch+json;compatible-with=9",
        false => "application/vnd.elasticsearch+json;compatible-with=8",
    })
}

fn mark(response: &mut Response, media: Option<&'static str>) {
    let headers = response.headers_mut();
    headers.insert(PRODUCT, HeaderValue::from_static("Elasticsearch"));
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_none_or(|media| media.to_str().is_ok_and(|media| media.contains("json")));
    if let Some(media) = media.filter(|_| is_json) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    }
}

/// Names the product, and answers in the media type that the client accepts.
async fn as_accepted(request: Request, next: Next) -> Response {
    let media = accepted(request.headers());
    let is_head = request.method() == Method::HEAD;
    let headers = request.headers();
    let unread = after::after(headers).err().or_else(|| after::timeout(headers).err());
    let mut response = match unread {
        None => next.run(request).await,
        Some(reason) => refuse(StatusCode::BAD_REQUEST, "illegal_argument_exception", &reason),
    };
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let reason = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        response = refuse(StatusCode::PAYLOAD_TOO_LARGE, "content_too_long_exception", &reason);
    }
    mark(&mut response, media);
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response
}

fn refuse(status: StatusCode, kind: &str, reason: &str) -> Response {
    let cause = json!({ "type": kind, "reason": reason });
    let error = json!({ "root_cause": [cause], "type": kind, "reason": reason });
    let body = json!({ "error": error, "status": status.as_u16() }).to_string();
    shown(SearchAnswer { status: status.as_u16(), body, is_text: false, position: None })
}

/// A request that a reader may send.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::POST | Method::HEAD)
}

/// What all routes do: an operation on what the path names.
async fn answer(
    search: &dyn Search,
    operation: SearchOperation,
    names: (&str, &str),
    query: Option<&str>,
    request: (&Method, &HeaderMap, Bytes),
) -> Response {
    let (method, headers, body) = request;
    let operation = if reads(method) { operation } else { SearchOperation::Write };
    let mut call = call(operation, names.0, names.1, query, headers);
    call.body = match call.params.iter().find(|(key, _)| key == "source") {
        // A body in the URL, for clients that cannot send one with GET.
        Some((_, source)) if body.is_empty() => Bytes::from(source.clone()),
        _ => body,
    };
    shown(search.answer(call).await)
}

/// Routes of an index, and of all of them.
macro_rules! operations {
    ($($one:ident, $all:ident: $operation:ident;)*) => {$(
        async fn $one(
            State(search): Indexes,
            Path(index): Path<String>,
            RawQuery(query): Words,
            method: Method,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response {
            let request = (&method, &headers, body);
            let operation = SearchOperation::$operation;
            answer(search.as_ref(), operation, (&index, ""), query.as_deref(), request).await
        }

        async fn $all(
            State(search): Indexes,
            RawQuery(query): Words,
            method: Method,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response {
            let request = (&method, &headers, body);
            let operation = SearchOperation::$operation;
            answer(search.as_ref(), operation, ("", ""), query.as_deref(), request).await
        }
    )*};
}

operations! {
    search, search_all: Search;
    count, count_all: Count;
    multi_search, multi_search_all: MultiSearch;
    mapping, mapping_all: Mapping;
    field_caps, field_caps_all: FieldCaps;
    refresh, refresh_all: Refresh;
    write, write_all: Write;
    cat, cat_all: CatIndices;
}

/// Routes of a document.
macro_rules! of_document {
    ($($name:ident: $operation:ident;)*) => {$(
        async fn $name(
            State(search): Indexes,
            Path((index, id)): Path<(String, String)>,
            RawQuery(query): Words,
            method: Method,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response {
            let operation = match method {
                Method::GET | Method::HEAD => SearchOperation::$operation,
                _ => SearchOperation::Write,
            };
            let request = (&method, &headers, body);
            answer(search.as_ref(), operation, (&index, &id), query.as_deref(), request).await
        }
    )*};
}

of_document! {
    document: Document;
    source: Source;
    write_id: Write;
}

async fn index(
    State(search): Indexes,
    Path(index): Path<String>,
    RawQuery(query): Words,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let operation = match method {
        Method::GET | Method::HEAD => SearchOperation::Index,
        _ => SearchOperation::Write,
    };
    let request = (&method, &headers, body);
    answer(search.as_ref(), operation, (&index, ""), query.as_deref(), request).await
}

async fn root(State(search): Indexes, headers: HeaderMap) -> Response {
    shown(search.answer(call(SearchOperation::Root, "", "", None, &headers)).await)
}

async fn health(State(search): Indexes, headers: HeaderMap) -> Response {
    shown(search.answer(call(SearchOperation::Health, "", "", None, &headers)).await)
}

async fn unknown(State(search): Indexes, headers: HeaderMap) -> Response {
    shown(search.answer(call(SearchOperation::Unknown, "", "", None, &headers)).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_decoded() {
        let words = params(Some("q=a%20b+c&size=5&v&bad=%zz&%C3%A9=1"));
        let expected = [("q", "a b c"), ("size", "5"), ("v", ""), ("bad", "%zz"), ("é", "1")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(words, expected);
    }

    #[test]
    fn the_version_is_the_client_s() {
        let accept = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(text))]);
            accepted(&headers)
        };
        let nine = accept("application/vnd.elasticsearch+json; compatible-with=9");
        assert_eq!(nine, Some("application/vnd.elasticsearch+json;compatible-with=9"));
        assert!(accept("application/vnd.elasticsearch+json;compatible-with=8").is_some());
        assert_eq!(accept("application/json"), None);
    }
}
