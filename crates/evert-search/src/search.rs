//! Searching one generation of an index.
//!
//! Owns: which hits a request finds, and the answer's shape.
//! Not here: which generation, and waiting for one (`api`).

use std::time::Instant;

use serde_json::{Map, Value, json};
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{AllQuery, Query};
use tantivy::schema::Value as _;
use tantivy::{DocAddress, Score, Searcher, TantivyDocument};

use crate::aggs::{self, Aggregator};
use crate::error::EsError;
use crate::glob;
use crate::highlight::Highlighter;
use crate::mapping::Mapping;
use crate::query::{BoxQuery, Translator, both};
use crate::request::{Request, Track};
use crate::sort::{self, SortCollector, SortKey, SortValue, SortedHit};

/// What is searched.
pub(crate) struct Target<'a> {
    /// As clients call it.
    pub(crate) index: &'a str,
    pub(crate) mapping: &'a Mapping,
    pub(crate) searcher: &'a Searcher,
    /// What `now` is, in microseconds since 1970.
    pub(crate) now: i64,
}

/// A stored document.
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) source: String,
}

/// The hits of a request, before they are read.
struct Found {
    hits: Vec<SortedHit>,
    keys: Vec<SortKey>,
    total: Option<u64>,
    max_score: Option<Score>,
}

pub(crate) fn shards() -> Value {
    json!({ "total": 1, "successful": 1, "skipped": 0, "failed": 0 })
}

impl Target<'_> {
    fn translate(&self, query: &Value) -> Result<(BoxQuery, Translator<'_>), EsError> {
        let mut translator = Translator::new(self.mapping, self.now);
        let query = match query {
            Value::Null => Box::new(AllQuery),
            query => translator.query(query)?,
        };
        Ok((query, translator))
    }

    /// How many documents a query finds.
    ///
    /// # Errors
    /// When the query cannot be read.
    pub(crate) fn count(&self, query: &Value) -> Result<usize, EsError> {
        let (query, _) = self.translate(query)?;
        Ok(self.searcher.search(query.as_ref(), &Count)?)
    }

    /// Answers a request.
    ///
    /// # Errors
    /// When it does not fit the index, or the index cannot be read.
    pub(crate) fn search(&self, request: &Request) -> Result<String, EsError> {
        let begin = Instant::now();
        let (query, mut translator) = self.translate(&request.query)?;
        let marks = translator.take_marks();
        let narrowed = match &request.post_filter {
            Value::Null => None,
            filter => Some(both(query.as_ref(), self.translate(filter)?.0)),
        };
        let aggs = aggs::parse(&request.aggs, self.mapping, self.now)?;
        let found = self.find(request, narrowed.as_deref().unwrap_or(query.as_ref()))?;
        let mut highlighter = match &request.highlight {
            Value::Null => None,
            highlight => Some(Highlighter::parse(highlight, self.mapping, marks)?),
        };
        let mut hits = Vec::with_capacity(found.hits.len());
        for hit in &found.hits {
            hits.push(self.hit(request, hit, &found.keys, highlighter.as_mut())?);
        }
        let mut answer = Map::new();
        let mut shown_hits = Map::new();
        if let Some(total) = found.total {
            let total = total_of(total, request);
            shown_hits.insert("total".into(), total);
        }
        shown_hits.insert("max_score".into(), json!(found.max_score));
        answer.insert("timed_out".into(), false.into());
        answer.insert("_shards".into(), shards());
        if !aggs.is_empty() {
            let mut aggregator =
                Aggregator::new(self.searcher, self.mapping, self.now, request.typed_keys);
            answer.insert("aggregations".into(), aggregator.run(&aggs, query.as_ref())?);
        }
        answer.insert("took".into(), json!(begin.elapsed().as_millis() as u64));
        Ok(written(answer, shown_hits, &hits))
    }

    fn find(&self, request: &Request, query: &dyn Query) -> Result<Found, EsError> {
        let keys = sort::parse(&request.sort, self.mapping)?;
        let after = match &request.search_after {
            None => None,
            Some(values) if values.len() != keys.len().max(1) => {
                return Err(EsError::argument(format!(
                    "search_after has {} value(s) but sort has {}.",
                    values.len(),
                    keys.len()
                )));
            }
            Some(_) if keys.is_empty() => {
                return Err(EsError::argument("Sort must contain at least one field."));
            }
            Some(values) => {
                let values = values.iter().zip(&keys);
                Some(values.map(|(it, key)| SortValue::read(it, key)).collect::<Result<_, _>>()?)
            }
        };
        let limit = request.from + request.size;
        let counted = request.track != Track::No;
        if limit == 0 {
            let total = match counted {
                true => Some(self.searcher.search(query, &Count)? as u64),
                false => None,
            };
            return Ok(Found { hits: Vec::new(), keys, total, max_score: None });
        }
        if keys.is_empty() && request.min_score.is_none() {
            return self.by_score(request, query, limit, counted);
        }
        let by_score = keys.is_empty();
        let sorted = SortCollector {
            keys: match by_score {
                true => vec![sort::by_score()],
                false => keys.clone(),
            },
            limit,
            after,
            scored: request.track_scores || request.min_score.is_some(),
            least_score: request.min_score,
        };
        let sorted = self.searcher.search(query, &sorted)?;
        let total = counted.then_some(sorted.total as u64);
        let mut hits = sorted.hits;
        let max_score = match by_score || request.track_scores {
            true => hits.iter().map(|hit| hit.score).fold(None, |max: Option<Score>, score| {
                Some(max.map_or(score, |max| max.max(score)))
            }),
            false => None,
        };
        hits.drain(..request.from.min(hits.len()));
        Ok(Found { hits, keys, total, max_score })
    }

    /// The usual way, which need not look at every document.
    fn by_score(
        &self,
        request: &Request,
        query: &dyn Query,
        limit: usize,
        counted: bool,
    ) -> Result<Found, EsError> {
        // No more hits can come than there are documents.
        let limit = limit.min((self.searcher.num_docs() as usize).max(1));
        let top = TopDocs::with_limit(limit).order_by_score();
        let (top, total) = match counted {
            true => {
                let (top, total) = self.searcher.search(query, &(top, Count))?;
                (top, Some(total as u64))
            }
            false => (self.searcher.search(query, &top)?, None),
        };
        let max_score = top.first().map(|(score, _)| *score);
        let hits = top.into_iter().skip(request.from).map(|(score, address)| SortedHit {
            address,
            score,
            values: Vec::new(),
        });
        Ok(Found { hits: hits.collect(), keys: Vec::new(), total, max_score })
    }

    fn hit(
        &self,
        request: &Request,
        hit: &SortedHit,
        keys: &[SortKey],
        highlighter: Option<&mut Highlighter>,
    ) -> Result<(Map<String, Value>, Option<String>), EsError> {
        let stored = self.stored(hit.address)?;
        let unreadable = |error: serde_json::Error| {
            EsError::new(500, "search_phase_execution_exception", error.to_string())
        };
        let mut shown = Map::new();
        shown.insert("_index".into(), self.index.into());
        shown.insert("_id".into(), stored.id.into());
        let scored = keys.is_empty() || request.track_scores;
        shown.insert("_score".into(), if scored { json!(hit.score) } else { Value::Null });
        if request.version {
            shown.insert("_version".into(), 1.into());
        }
        if highlighter.is_some() || !request.fields.is_empty() {
            let row: Map<String, Value> =
                serde_json::from_str(&stored.source).map_err(unreadable)?;
            if let Some(highlighter) = highlighter {
                let found = highlighter.of(self.mapping, &row);
                if !found.is_empty() {
                    shown.insert("highlight".into(), Value::Object(found));
                }
            }
            let fields = self.fields(&row, &request.fields);
            if !fields.is_empty() {
                shown.insert("fields".into(), Value::Object(fields));
            }
        }
        if !keys.is_empty() {
            let values = hit.values.iter().zip(keys).map(|(value, key)| value.show(key));
            shown.insert("sort".into(), values.collect());
        }
        let source = request.source.apply(stored.source).map_err(unreadable)?;
        Ok((shown, source))
    }

    /// Columns as lists, as `fields` shows them.
    fn fields(&self, row: &Map<String, Value>, wanted: &[String]) -> Map<String, Value> {
        let mut fields = Map::new();
        for pattern in wanted {
            let named = |name: &str| {
                let column = name.strip_suffix(".keyword").unwrap_or(name);
                row.get(column).filter(|value| !value.is_null()).map(|value| json!([value]))
            };
            if pattern.contains('*') {
                for name in row.keys().filter(|name| glob::matches(pattern, name)) {
                    fields.extend(named(name).map(|value| (name.clone(), value)));
                }
            } else if self.mapping.field(pattern).is_some() {
                fields.extend(named(pattern).map(|value| (pattern.clone(), value)));
            }
        }
        fields
    }

    /// A document's id and row.
    pub(crate) fn stored(&self, address: DocAddress) -> Result<Stored, EsError> {
        stored(self.searcher, self.mapping, address)
    }

    /// The document of an id.
    pub(crate) fn by_id(&self, id: &str) -> Result<Option<Stored>, EsError> {
        let (query, _) = self.translate(&json!({ "term": { "_id": id } }))?;
        let top = self.searcher.search(query.as_ref(), &TopDocs::with_limit(1).order_by_score())?;
        top.first().map(|(_, address)| self.stored(*address)).transpose()
    }
}

/// A document's id and row.
pub(crate) fn stored(
    searcher: &Searcher,
    mapping: &Mapping,
    address: DocAddress,
) -> Result<Stored, EsError> {
    let document: TantivyDocument = searcher.doc(address)?;
    let text = |field| document.get_first(field).and_then(|it| it.as_str()).unwrap_or_default();
    Ok(Stored { id: text(mapping.id).to_owned(), source: text(mapping.source).to_owned() })
}

fn total_of(total: u64, request: &Request) -> Value {
    if request.total_as_int {
        return total.into();
    }
    match request.track {
        Track::UpTo(limit) if total > limit => json!({ "value": limit, "relation": "gte" }),
        _ => json!({ "value": total, "relation": "eq" }),
    }
}

/// Writes an answer: rows are stored as JSON and go into it as they are.
fn written(
    answer: Map<String, Value>,
    hits_head: Map<String, Value>,
    hits: &[(Map<String, Value>, Option<String>)],
) -> String {
    let mut text = String::from("{");
    for (key, value) in &answer {
        text.push_str(&format!("{}:{value},", Value::from(key.as_str())));
    }
    text.push_str("\"hits\":{");
    for (key, value) in &hits_head {
        text.push_str(&format!("{}:{value},", Value::from(key.as_str())));
    }
    text.push_str("\"hits\":[");
    for (i, (head, source)) in hits.iter().enumerate() {
        text.push_str(if i > 0 { ",{" } else { "{" });
        for (j, (key, value)) in head.iter().enumerate() {
            let comma = if j > 0 { "," } else { "" };
            text.push_str(&format!("{comma}{}:{value}", Value::from(key.as_str())));
        }
        if let Some(source) = source {
            text.push_str(",\"_source\":");
            text.push_str(source);
        }
        text.push('}');
    }
    text.push_str("]}}");
    text
}
