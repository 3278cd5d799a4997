//! A search request: its body and its URL's words.
//!
//! (Elasticsearch reference, "Search API")

use serde_json::{Map, Value};

use crate::dates::shows_as_stored;
use crate::error::EsError;
use crate::source::SourceFilter;

/// Hits of one answer, with those it leaves out before them. (`index.max_result_window`)
pub(crate) const WINDOW_MAX: usize = 10_000;
/// How many hits are counted unless more are asked for.
const COUNTED: u64 = 10_000;

/// How far hits are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Track {
    No,
    UpTo(u64),
    All,
}

/// A request to search one index.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) query: Value,
    pub(crate) post_filter: Value,
    pub(crate) from: usize,
    pub(crate) size: usize,
    pub(crate) sort: Value,
    pub(crate) search_after: Option<Vec<Value>>,
    pub(crate) source: SourceFilter,
    pub(crate) track: Track,
    pub(crate) track_scores: bool,
    pub(crate) min_score: Option<f32>,
    pub(crate) highlight: Value,
    pub(crate) aggs: Value,
    /// Columns to be listed under `fields`.
    pub(crate) fields: Vec<String>,
    pub(crate) version: bool,
    pub(crate) typed_keys: bool,
    pub(crate) total_as_int: bool,
}

/// Parts of a body that change nothing here.
const IGNORED: [&str; 9] = [
    "timeout",
    "explain",
    "profile",
    "stored_fields",
    "terminate_after",
    "indices_boost",
    "seq_no_primary_term",
    "stats",
    "docvalue_fields",
];

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// When it has parts that are not known, or asks for too much.
    pub(crate) fn parse(body: &[u8], params: &[(String, String)]) -> Result<Self, EsError> {
        let mut body = body_of(body)?;
        let mut request = Self::of_body(&mut body)?;
        if let Some(unknown) = body.keys().find(|key| !IGNORED.contains(&key.as_str())) {
            return Err(EsError::parsing(format!("unknown key [{unknown}] in a search request")));
        }
        request.apply(params)?;
        if request.from.saturating_add(request.size) > WINDOW_MAX {
            return Err(EsError::argument(format!(
                "Result window is too large, from + size must be less than or equal to: \
                 [{WINDOW_MAX}] but was [{}]. Go on with [search_after] instead.",
                request.from.saturating_add(request.size)
            )));
        }
        if request.search_after.is_some() && request.from > 0 {
            return Err(EsError::argument(
                "`from` parameter must be set to 0 when `search_after` is used",
            ));
        }
        Ok(request)
    }

    fn of_body(body: &mut Map<String, Value>) -> Result<Self, EsError> {
        let mut take = |name: &str| body.remove(name).unwrap_or(Value::Null);
        let aggs = match take("aggs") {
            Value::Null => take("aggregations"),
            aggs => aggs,
        };
        let search_after = match take("search_after") {
            Value::Null => None,
            Value::Array(values) => Some(values),
            other => {
                return Err(EsError::parsing(format!("[search_after] cannot be {other}")));
            }
        };
        let fields = match take("fields") {
            Value::Null => Vec::new(),
            Value::Array(fields) => fields.iter().map(field_of).collect::<Result<Vec<_>, _>>()?,
            other => return Err(EsError::parsing(format!("[fields] cannot be {other}"))),
        };
        Ok(Self {
            query: take("query"),
            post_filter: take("post_filter"),
            from: size("from", &take("from"), 0)?,
            size: size("size", &take("size"), 10)?,
            sort: take("sort"),
            search_after,
            source: SourceFilter::parse(&take("_source"))?,
            track: track(&take("track_total_hits"))?,
            track_scores: take("track_scores") == true,
            min_score: take("min_score").as_f64().map(|score| score as f32),
            highlight: take("highlight"),
            aggs,
            fields,
            version: take("version") == true,
            typed_keys: false,
            total_as_int: false,
        })
    }

    /// The words of a URL come before the body's.
    fn apply(&mut self, params: &[(String, String)]) -> Result<(), EsError> {
        let get = |name: &str| {
            params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        if let Some(text) = get("q") {
            self.query = query_of(text, get);
        }
        if let Some(text) = get("from") {
            self.from = size("from", &Value::from(text), 0)?;
        }
        if let Some(text) = get("size") {
            self.size = size("size", &Value::from(text), 10)?;
        }
        if let Some(text) = get("sort") {
            self.sort = text.split(',').map(Value::from).collect();
        }
        if let Some(text) = get("track_total_hits") {
            self.track = track(&Value::from(text))?;
        }
        let (includes, excludes) = (get("_source_includes"), get("_source_excludes"));
        let (includes, excludes) = (includes.unwrap_or_default(), excludes.unwrap_or_default());
        if let Some(source) = SourceFilter::of_words(get("_source"), includes, excludes) {
            self.source = source;
        }
        self.track_scores |= flag(get("track_scores"));
        self.version |= flag(get("version"));
        self.typed_keys |= flag(get("typed_keys"));
        self.total_as_int |= flag(get("rest_total_hits_as_int"));
        Ok(())
    }
}

/// The column, or pattern of columns, that an element of `fields` names.
fn field_of(field: &Value) -> Result<String, EsError> {
    let refuse = || EsError::parsing(format!("[fields] cannot hold {field}"));
    let members = match field {
        Value::String(name) => return Ok(name.clone()),
        Value::Object(members) => members,
        _ => return Err(refuse()),
    };
    for (name, value) in members {
        match name.as_str() {
            "field" | "include_unmapped" => {}
            "format" if value.is_null() || value.as_str().is_some_and(shows_as_stored) => {}
            "format" => {
                return Err(EsError::argument(format!(
                    "[fields] does not support [format] {value}: a value is shown as it is stored"
                )));
            }
            other => {
                let reason = format!("[fields] unknown field [{other}]");
                return Err(EsError::new(400, "x_content_parse_exception", reason));
            }
        }
    }
    members.get("field").and_then(Value::as_str).map(str::to_owned).ok_or_else(refuse)
}

pub(crate) fn flag(value: Option<&str>) -> bool {
    matches!(value, Some("" | "true"))
}

/// The query of a URL's `q`.
pub(crate) fn query_of<'a>(text: &str, get: impl Fn(&str) -> Option<&'a str>) -> Value {
    let mut options = serde_json::json!({ "query": text });
    for (name, option) in
        [("df", "default_field"), ("default_operator", "default_operator"), ("lenient", "lenient")]
    {
        if let Some(value) = get(name) {
            options[option] = value.into();
        }
    }
    serde_json::json!({ "query_string": options })
}

/// A body: a JSON object, or nothing.
pub(crate) fn body_of(body: &[u8]) -> Result<Map<String, Value>, EsError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(EsError::parsing("Expected [START_OBJECT] but found another value")),
        Err(error) => Err(EsError::new(400, "x_content_parse_exception", error.to_string())),
    }
}

fn size(name: &str, value: &Value, default: usize) -> Result<usize, EsError> {
    let refuse =
        || EsError::argument(format!("[{name}] parameter cannot be negative, found [{value}]"));
    match value {
        Value::Null => Ok(default),
        Value::String(text) => text.parse().map_err(|_| refuse()),
        value => value.as_u64().and_then(|it| usize::try_from(it).ok()).ok_or_else(refuse),
    }
}

fn track(value: &Value) -> Result<Track, EsError> {
    let refuse = || EsError::argument(format!("[track_total_hits] cannot be {value}"));
    match value {
        Value::Null => Ok(Track::UpTo(COUNTED)),
        Value::Bool(true) => Ok(Track::All),
        Value::Bool(false) => Ok(Track::No),
        Value::String(text) => match text.as_str() {
            "true" | "" => Ok(Track::All),
            "false" => Ok(Track::No),
            text => text.parse().map(Track::UpTo).map_err(|_| refuse()),
        },
        value => value.as_u64().map(Track::UpTo).ok_or_else(refuse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str, params: &[(&str, &str)]) -> Result<Request, EsError> {
        let params: Vec<_> = params.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        Request::parse(body.as_bytes(), &params)
    }

    #[test]
    fn the_url_comes_before_the_body() {
        let request = parse(r#"{"size": 3, "from": 1}"#, &[("size", "5"), ("q", "riya")]).unwrap();
        assert_eq!((request.size, request.from), (5, 1));
        assert_eq!(request.query["query_string"]["query"], "riya");
        assert_eq!(request.track, Track::UpTo(10_000));
    }

    #[test]
    fn what_is_too_much_or_unknown_is_refused() {
        for body in [
            r#"{"size": 10001}"#,
            r#"{"from": 9999, "size": 2}"#,
            r#"{"size": -1}"#,
            r#"{"sizes": 1}"#,
            r#"{"from": 1, "search_after": [1]}"#,
            r#"{"size": "#,
            "[]",
        ] {
            let error = parse(body, &[]).unwrap_err();
            assert_eq!(error.status, 400, "{body}");
        }
    }
}
