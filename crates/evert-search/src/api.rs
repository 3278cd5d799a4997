//! Elasticsearch's requests, answered: without a socket in sight.
//!
//! Owns: what each operation answers, and waiting for positions.
//! Not here: routes, media types and headers (`evert-door`).

use std::time::Duration;

use bytes::Bytes;
use evert_model::Position;
use evert_view::{Name, ViewState};
use serde_json::{Map, Value, json};

use crate::error::EsError;
use crate::filter_path;
use crate::glob;
use crate::mapping::FieldKind;
use crate::params;
use crate::registry::{Generation, OpenIndex, SearchIndexes};
use crate::request::{Request, body_of, query_of};
use crate::search::{Target, shards};
use crate::source::SourceFilter;

/// Searches of one `_msearch`.
const SEARCHES_MAX: usize = 100;
/// The version whose shapes these are.
const VERSION: &str = "8.15.0";

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET /`
    Root,
    /// `GET|POST /{index}/_search`
    Search,
    /// `GET|POST /{index}/_count`
    Count,
    /// `GET /{index}/_mapping`
    Mapping,
    /// `GET /{index}`
    Index,
    /// `GET /{index}/_doc/{id}`
    Document,
    /// `GET /{index}/_source/{id}`
    Source,
    /// `GET /_cat/indices`
    CatIndices,
    /// `GET|POST /_msearch`
    MultiSearch,
    /// `POST /{index}/_refresh`
    Refresh,
    /// `GET /_cluster/health`
    Health,
    /// `GET|POST /{index}/_field_caps`
    FieldCaps,
    /// Whatever would write.
    Write,
    /// What is not known.
    Unknown,
}

/// A request, as the door has read it.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// The index's name, where there is one: `name` or `schema.name`.
    pub index: String,
    /// The document's id, where there is one.
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

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// JSON, or plain text.
    pub body: String,
    /// The body is plain text.
    pub is_text: bool,
    /// The position that the answer is of.
    pub position: Option<Position>,
}

impl Answer {
    pub(crate) fn json(body: String, position: Option<Position>) -> Self {
        Self { status: 200, body, is_text: false, position }
    }
}

pub(crate) type Answered = Result<Answer, EsError>;

/// `schema.name`, or a name in schema `public`.
fn named(name: &str) -> Name {
    match name.split_once('.') {
        Some((schema, name)) => Name::new(schema, name),
        None => Name::public(name),
    }
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

impl Call {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl SearchIndexes {
    /// Answers a request; errors are answers too.
    pub async fn answer(&self, call: Call) -> Answer {
        let answered = match params::check(&call) {
            Ok(()) => self.perform(&call).await,
            Err(error) => Err(error),
        };
        let answered = match (answered, call.param("filter_path")) {
            (Ok(answer), Some(filter)) if !answer.is_text => self.filtered(answer, filter).await,
            (answered, _) => answered,
        };
        answered.unwrap_or_else(|error| Answer {
            status: error.status,
            body: error.body().to_string(),
            is_text: false,
            position: None,
        })
    }

    async fn perform(&self, call: &Call) -> Answered {
        match call.operation {
            Operation::Root => Ok(Answer::json(root().to_string(), None)),
            Operation::Search => self.search(call).await,
            Operation::Count => self.count(call).await,
            Operation::Mapping | Operation::Index | Operation::FieldCaps => self.describe(call),
            Operation::Document | Operation::Source => self.document(call).await,
            Operation::CatIndices => self.cat_indices(call),
            Operation::MultiSearch => self.multi_search(call).await,
            Operation::Refresh => self.refresh(call).await,
            Operation::Health => self.health(),
            Operation::Write => Err(EsError::new(
                405,
                "unsupported_operation_exception",
                "search indexes follow the log and take no writes: facts go in by SQL, the Kafka \
                 protocol or a source",
            )),
            Operation::Unknown => {
                Err(EsError::argument("no handler found for this method and path"))
            }
        }
    }

    async fn filtered(&self, answer: Answer, filter: &str) -> Answered {
        let (body, filter) = (answer.body, filter.to_owned());
        let body = self.run(move || filter_path::filtered(&body, &filter)).await?;
        Ok(Answer { body, ..answer })
    }

    /// The one index that a name or pattern means.
    fn resolve_name(&self, text: &str) -> Result<Name, EsError> {
        if !text.contains(['*', ',']) && text != "_all" && !text.is_empty() {
            return Ok(named(text));
        }
        let patterns: Vec<&str> = text.split(',').collect();
        let all = text.is_empty() || text == "_all";
        let mut found = self.names()?.into_iter().filter(|name| {
            let name = name.to_string();
            all || patterns.iter().any(|pattern| glob::matches(pattern, &name))
        });
        match (found.next(), found.next()) {
            (Some(name), None) => Ok(name),
            (None, _) => Err(EsError::no_index(text)),
            (Some(_), Some(_)) => Err(EsError::argument(format!(
                "[{text}] means several indexes: they are searched one at a time"
            ))),
        }
    }

    /// What a request searches, once it has come as far as the request wants.
    async fn target(
        &self,
        call: &Call,
        index: &str,
    ) -> Result<(Name, std::sync::Arc<OpenIndex>, Generation), EsError> {
        let name = self.resolve_name(index)?;
        // A name that does not exist is told before a wait.
        let exists = self.index(&name);
        if let Err(error) = exists
            && error.status == 404
        {
            return Err(error);
        }
        let after = match call.after.as_deref().or(call.param("after")) {
            Some(token) => self.position_of(token, call.timeout).await?,
            None => Position::ZERO,
        };
        let (index, generation) = self.generation(&name, after, call.timeout).await?;
        Ok((name, index, generation))
    }

    async fn search(&self, call: &Call) -> Answered {
        // Nothing waits for a position whose request cannot be read.
        let request = Request::parse(&call.body, &call.params)?;
        self.search_in(call, &call.index, request).await
    }

    async fn search_in(&self, call: &Call, index: &str, request: Request) -> Answered {
        let (name, index, generation) = self.target(call, index).await?;
        let position = generation.position;
        let search = move || {
            let name = name.to_string();
            let (mapping, searcher) = (&*index.mapping, &generation.searcher);
            Target { index: &name, mapping, searcher, now: now() }.search(&request)
        };
        let body = self.run(search).await?;
        Ok(Answer::json(body, Some(position)))
    }

    async fn count(&self, call: &Call) -> Answered {
        let mut body = body_of(&call.body)?;
        let mut query = body.remove("query").unwrap_or(Value::Null);
        if let Some(unknown) = body.keys().next() {
            return Err(EsError::parsing(format!("request does not support [{unknown}]")));
        }
        if let Some(text) = call.param("q") {
            query = query_of(text, |name| call.param(name));
        }
        let (name, index, generation) = self.target(call, &call.index).await?;
        let position = generation.position;
        let count = move || {
            let name = name.to_string();
            let (mapping, searcher) = (&*index.mapping, &generation.searcher);
            Target { index: &name, mapping, searcher, now: now() }.count(&query)
        };
        let count = self.run(count).await?;
        let body = json!({ "count": count, "_shards": shards() });
        Ok(Answer::json(body.to_string(), Some(position)))
    }

    async fn document(&self, call: &Call) -> Answered {
        let (name, index, generation) = self.target(call, &call.index).await?;
        let (position, id) = (generation.position, call.id.clone());
        let shown = name.to_string();
        let read = move || {
            let name = name.to_string();
            let (mapping, searcher) = (&*index.mapping, &generation.searcher);
            Target { index: &name, mapping, searcher, now: now() }.by_id(&id)
        };
        let stored = self.run(read).await?;
        let source_only = call.operation == Operation::Source;
        let Some(stored) = stored else {
            if source_only {
                let reason = format!("Document not found [{shown}]/[{}]", call.id);
                return Err(EsError::new(404, "resource_not_found_exception", reason));
            }
            let body = json!({ "_index": shown, "_id": call.id, "found": false });
            let body = body.to_string();
            return Ok(Answer { status: 404, ..Answer::json(body, Some(position)) });
        };
        let includes = call.param("_source_includes").unwrap_or_default();
        let excludes = call.param("_source_excludes").unwrap_or_default();
        let filter = SourceFilter::of_words(call.param("_source"), includes, excludes);
        let source = filter.unwrap_or(SourceFilter::All).apply(stored.source);
        let source = source.map_err(|error| {
            EsError::new(500, "search_phase_execution_exception", error.to_string())
        })?;
        if source_only {
            return Ok(Answer::json(source.unwrap_or_else(|| "{}".into()), Some(position)));
        }
        let head = json!({
            "_index": shown, "_id": stored.id, "_version": 1, "_seq_no": 0, "_primary_term": 1,
            "found": true });
        let mut body = head.to_string();
        if let Some(source) = source {
            body.pop();
            body.push_str(&format!(",\"_source\":{source}}}"));
        }
        Ok(Answer::json(body, Some(position)))
    }

    /// The indexes that a name or pattern means.
    pub(crate) fn matching(&self, text: &str) -> Result<Vec<Name>, EsError> {
        let all = text.is_empty() || text == "_all" || text == "*";
        let patterns: Vec<&str> = text.split(',').collect();
        let names = self.names()?;
        let named = |name: &Name| {
            all || patterns.iter().any(|pattern| glob::matches(pattern, &name.to_string()))
        };
        let found: Vec<Name> = names.into_iter().filter(named).collect();
        if found.is_empty() && !all && !text.contains('*') {
            return Err(EsError::no_index(text));
        }
        Ok(found)
    }

    /// Mappings, and what fields can do.
    fn describe(&self, call: &Call) -> Answered {
        let mut shown = Map::new();
        let mut fields: Map<String, Value> = Map::new();
        let mut names = Vec::new();
        for name in self.matching(&call.index)? {
            let index = self.index(&name)?;
            let mappings = index.mapping.show();
            let described = match call.operation {
                Operation::Index => json!({
                    "aliases": {},
                    "mappings": mappings,
                    "settings": { "index": {
                        "number_of_shards": "1", "number_of_replicas": "0",
                        "provided_name": name.to_string() } } }),
                _ => json!({ "mappings": mappings }),
            };
            for field in &index.mapping.fields {
                let caps = |kind: FieldKind| {
                    let word = kind.word();
                    json!({ word: {
                        "type": word, "metadata_field": false, "searchable": true,
                        "aggregatable": kind != FieldKind::Text } })
                };
                fields.insert(field.name.clone(), caps(field.kind));
                if field.keyword.is_some() {
                    fields.insert(format!("{}.keyword", field.name), caps(FieldKind::Keyword));
                }
            }
            names.push(name.to_string());
            shown.insert(name.to_string(), described);
        }
        if let Some(patterns) = call.param("fields") {
            fields.retain(|name, _| patterns.split(',').any(|it| glob::matches(it, name)));
        }
        let body = match call.operation {
            Operation::FieldCaps => json!({ "indices": names, "fields": fields }),
            _ => Value::Object(shown),
        };
        Ok(Answer::json(body.to_string(), None))
    }

    pub(crate) fn states(&self) -> Result<Vec<(Name, ViewState, u64)>, EsError> {
        let names = self.names()?;
        let status = self.views()?.status().into_iter();
        let ours = status.filter(|status| names.contains(&status.name));
        Ok(ours.map(|status| (status.name, status.state, status.rows as u64)).collect())
    }

    async fn multi_search(&self, call: &Call) -> Answered {
        let mut answers = Vec::new();
        let mut position: Option<Position> = None;
        let mut lines = call.body.split(|byte| *byte == b'\n');
        while let Some(head) = lines.next() {
            if head.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if answers.len() == SEARCHES_MAX {
                return Err(EsError::argument(format!("more than {SEARCHES_MAX} searches")));
            }
            let head = body_of(head)?;
            let body = lines.next().unwrap_or_default();
            let index = match head.get("index") {
                Some(Value::String(index)) => index.clone(),
                Some(Value::Array(names)) => {
                    names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
                }
                _ => call.index.clone(),
            };
            let answered = match Request::parse(body, &call.params) {
                Ok(request) => self.search_in(call, &index, request).await,
                Err(error) => Err(error),
            };
            answers.push(match answered {
                Ok(answer) => {
                    // All of them are at or after the earliest.
                    position = position.map_or(answer.position, |it| answer.position.min(Some(it)));
                    let mut body = answer.body;
                    body.pop();
                    format!("{body},\"status\":200}}")
                }
                Err(error) => error.body().to_string(),
            });
        }
        if answers.is_empty() {
            return Err(EsError::new(
                400,
                "action_request_validation_exception",
                "Validation Failed: 1: no requests added;",
            ));
        }
        let body = format!("{{\"took\":0,\"responses\":[{}]}}", answers.join(","));
        Ok(Answer::json(body, position))
    }

    /// Waits until an index has all that the log holds now.
    async fn refresh(&self, call: &Call) -> Answered {
        let end = self.views()?.log().end();
        let mut position = None;
        for name in self.matching(&call.index)? {
            let (_, generation) = self.generation(&name, end, call.timeout).await?;
            let at = generation.position;
            position = Some(position.map_or(at, |it: Position| it.min(at)));
        }
        Ok(Answer::json(json!({ "_shards": shards() }).to_string(), position))
    }

    fn health(&self) -> Answered {
        let states = self.states()?;
        let failed = states.iter().any(|(_, state, _)| matches!(state, ViewState::Failed(_)));
        let building =
            states.iter().any(|(_, state, _)| matches!(state, ViewState::Rebuilding { .. }));
        let status = match (failed, building) {
            (true, _) => "red",
            (_, true) => "yellow",
            _ => "green",
        };
        let body = json!({
            "cluster_name": "evert", "status": status, "timed_out": false, "number_of_nodes": 1,
            "number_of_data_nodes": 1, "active_primary_shards": states.len(),
            "active_shards": states.len(), "relocating_shards": 0, "initializing_shards": 0,
            "unassigned_shards": 0 });
        Ok(Answer::json(body.to_string(), None))
    }
}

/// What Elasticsearch says about itself. (Elasticsearch reference, "Info API")
fn root() -> Value {
    json!({
        "name": "evert",
        "cluster_name": "evert",
        "cluster_uuid": "evert",
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "build_type": "evert",
            "build_hash": env!("CARGO_PKG_VERSION"),
            "build_date": "1970-01-01T00:00:00.000Z",
            "build_snapshot": false,
            "lucene_version": "9.11.1",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    })
}
