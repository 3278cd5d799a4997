//! Aggregations: numbers over all that a query finds.
//!
//! Owns: how they are computed and shown. What tantivy's own aggregations can do in one pass they
//! do; for the rest (filters, ranges that overlap, calendar months) each bucket is a query of its
//! own.
//! Not here: reading a request (`parse`).
//!
//! (Elasticsearch reference, "Aggregations")

mod accepted;
mod calendar;
mod order;
mod parse;
mod percentiles;
mod show;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};
use tantivy::Searcher;
use tantivy::aggregation::agg_req::{Aggregation, AggregationVariants, Aggregations};
use tantivy::aggregation::{AggContextParams, AggregationCollector, AggregationLimitsGuard};
use tantivy::collector::Count;
use tantivy::query::{AllQuery, Query};

use order::Order;
pub(crate) use parse::parse;
use percentiles::Percentiles;

use crate::dates::{DateFormat, Unit};
use crate::error::EsError;
use crate::mapping::{FieldKind, Mapping};
use crate::query::{BoxQuery, Translator, both};

/// Buckets of one answer. (`search.max_buckets`)
const BUCKETS_MAX: u32 = 65_535;
/// Memory of one request's aggregations.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const TOO_MANY_BUCKETS: &str = "too_many_buckets_exception";
/// Passes over what a query finds.
const PASSES_MAX: usize = 2000;

/// One aggregation of a request.
pub(crate) struct Agg {
    pub(crate) name: String,
    kind: Kind,
    shape: Shape,
    subs: Vec<Agg>,
    /// The type before the name, where the client asked for it.
    typed: &'static str,
    meta: Option<Value>,
}

enum Kind {
    /// Computed by tantivy.
    Native(AggregationVariants),
    /// Buckets that are queries: what each shows, and its query.
    Filters(Vec<(Map<String, Value>, BoxQuery)>),
    Calendar(Calendar),
    /// The field is not in the index.
    Nothing,
}

/// Buckets of different lengths, by the calendar.
#[derive(Clone, Debug)]
struct Calendar {
    /// The column inside the index.
    inner: String,
    field: String,
    unit: Unit,
    format: DateFormat,
    least: u64,
    /// Dates up to which there are buckets without rows, in microseconds.
    extended: (Option<i64>, Option<i64>),
    order: Option<Order>,
}

/// How results are shown.
#[derive(Clone, Debug)]
enum Shape {
    /// One number; `counted` ones are whole.
    Value {
        counted: bool,
    },
    /// How many values there are: of few rows counted, of many by a sketch.
    Cardinality {
        exact: Box<AggregationVariants>,
    },
    /// One date.
    DateValue(DateFormat),
    Stats {
        dates: Option<DateFormat>,
    },
    Percentiles(Percentiles),
    Terms {
        field: String,
        kind: FieldKind,
        format: DateFormat,
        size: usize,
        order: Order,
    },
    Histogram {
        field: String,
        interval: f64,
        keyed: bool,
        order: Option<Order>,
    },
    DateHistogram {
        field: String,
        interval_ms: i64,
        keyed: bool,
        format: DateFormat,
        order: Option<Order>,
    },
    /// One bucket.
    Single,
    /// Buckets in a list.
    List,
    /// Buckets by their key.
    Keyed,
}

impl Agg {
    fn is_native(&self) -> bool {
        matches!(self.kind, Kind::Native(_)) && self.subs.iter().all(Agg::is_native)
    }

    fn shown_name(&self, typed: bool) -> String {
        if typed { format!("{}#{}", self.typed, self.name) } else { self.name.clone() }
    }

    fn is_global(&self) -> bool {
        self.typed == "global"
    }
}

/// Computes aggregations over one generation of an index.
pub(crate) struct Aggregator<'a> {
    pub(crate) searcher: &'a Searcher,
    pub(crate) mapping: &'a Mapping,
    pub(crate) now: i64,
    /// Names are shown with their types.
    pub(crate) typed: bool,
    passes: usize,
    limits: AggregationLimitsGuard,
}

impl<'a> Aggregator<'a> {
    pub(crate) fn new(searcher: &'a Searcher, mapping: &'a Mapping, now: i64, typed: bool) -> Self {
        let limits = AggregationLimitsGuard::new(Some(MEMORY_BYTES_MAX), Some(BUCKETS_MAX));
        Self { searcher, mapping, now, typed, passes: 0, limits }
    }

    /// The results over what `query` finds.
    ///
    /// # Errors
    /// When there are too many buckets, or the index cannot be read.
    pub(crate) fn run(&mut self, aggs: &[Agg], query: &dyn Query) -> Result<Value, EsError> {
        let exact = match aggs.iter().any(has_sketch) {
            true => self.searcher.search(query, &Count)? <= percentiles::EXACT_ROWS_MAX,
            false => false,
        };
        let mut results = match self.native(aggs, query, exact) {
            // Buckets that the client did not ask for are no reason to refuse.
            Err(error) if exact && error.kind == TOO_MANY_BUCKETS => {
                self.native(aggs, query, false)?
            }
            results => results?,
        };
        let mut shown = Map::new();
        for agg in aggs {
            let mut result = match &agg.kind {
                Kind::Native(_) => {
                    let result = taken(agg, &mut results);
                    self.finish(agg, result, query)?
                }
                Kind::Filters(_) | Kind::Calendar(_) => self.by_query(agg, query)?,
                Kind::Nothing => self.nothing(agg),
            };
            if let Some(meta) = &agg.meta {
                result["meta"] = meta.clone();
            }
            shown.insert(agg.shown_name(self.typed), result);
        }
        Ok(Value::Object(shown))
    }

    fn pass(&mut self) -> Result<(), EsError> {
        self.passes += 1;
        if self.passes <= PASSES_MAX {
            return Ok(());
        }
        let reason = format!("Trying to create too many buckets: more than {PASSES_MAX} passes");
        Err(EsError::new(400, TOO_MANY_BUCKETS, reason))
    }

    /// The results of those that tantivy computes, in one pass; without what it cannot.
    fn native(
        &mut self,
        aggs: &[Agg],
        query: &dyn Query,
        exact: bool,
    ) -> Result<Map<String, Value>, EsError> {
        let request = request_of(aggs, exact);
        if request.is_empty() {
            return Ok(Map::new());
        }
        self.pass()?;
        let context =
            AggContextParams::new(self.limits.clone(), self.searcher.index().tokenizers().clone());
        let collector = AggregationCollector::from_aggs(request, context);
        let results = self.searcher.search(query, &collector)?;
        match serde_json::to_value(results) {
            Ok(Value::Object(results)) => Ok(results),
            Ok(_) => Ok(Map::new()),
            Err(error) => {
                Err(EsError::new(500, "aggregation_execution_exception", error.to_string()))
            }
        }
    }

    /// Shows tantivy's result, with the sub-aggregations that are not tantivy's added.
    fn finish(&mut self, agg: &Agg, result: Value, query: &dyn Query) -> Result<Value, EsError> {
        let mut shown = show::result(agg, result);
        let Some(buckets) = shown.get_mut("buckets").and_then(Value::as_array_mut) else {
            return Ok(shown);
        };
        for bucket in buckets.iter_mut() {
            self.finish_bucket(agg, bucket, query)?;
        }
        Ok(show::keyed(agg, shown))
    }

    fn finish_bucket(
        &mut self,
        agg: &Agg,
        bucket: &mut Value,
        query: &dyn Query,
    ) -> Result<(), EsError> {
        let mut narrowed: Option<BoxQuery> = None;
        for sub in &agg.subs {
            let result = match sub.kind {
                Kind::Native(_) if !has_query_parts(sub) => {
                    let result = bucket.as_object_mut().map(|bucket| taken(sub, bucket));
                    self.finish(sub, result.unwrap_or_default(), query)?
                }
                _ => {
                    if narrowed.is_none() {
                        let filter = self.query_of_bucket(agg, bucket)?;
                        narrowed = Some(both(query, filter));
                    }
                    let narrowed = narrowed.as_ref().expect("it was just made");
                    let results = self.run(std::slice::from_ref(sub), narrowed.as_ref())?;
                    results[sub.shown_name(self.typed)].clone()
                }
            };
            if let Some(object) = bucket.as_object_mut() {
                object.remove(&sub.name);
                object.insert(sub.shown_name(self.typed), result);
            }
        }
        Ok(())
    }

    /// What finds a bucket's rows.
    fn query_of_bucket(&self, agg: &Agg, bucket: &Value) -> Result<BoxQuery, EsError> {
        let key = &bucket["key"];
        let query = match &agg.shape {
            Shape::Terms { field, kind: FieldKind::Boolean, .. } => {
                json!({ "term": { field: bucket["key_as_string"] } })
            }
            Shape::Terms { field, .. } => json!({ "term": { field: key } }),
            Shape::Histogram { field, interval, .. } => {
                let from = key.as_f64().unwrap_or_default();
                json!({ "range": { field: { "gte": from, "lt": from + interval } } })
            }
            Shape::DateHistogram { field, interval_ms, .. } => {
                let from = key.as_i64().unwrap_or_default();
                json!({ "range": { field: { "gte": from, "lt": from + interval_ms } } })
            }
            _ => json!({ "match_all": {} }),
        };
        Translator::new(self.mapping, self.now).query(&query)
    }

    /// Buckets that are queries of their own.
    fn by_query(&mut self, agg: &Agg, query: &dyn Query) -> Result<Value, EsError> {
        let mut shown = Vec::new();
        let made;
        let buckets = match &agg.kind {
            Kind::Filters(buckets) => buckets,
            Kind::Calendar(calendar) => {
                self.pass()?;
                made = calendar::buckets(calendar, self.searcher, self.mapping, query)?;
                &made
            }
            _ => return Ok(Value::Null),
        };
        for (head, filter) in buckets {
            self.pass()?;
            let narrowed = match agg.is_global() {
                true => Box::new(AllQuery),
                false => both(query, filter.box_clone()),
            };
            let count = self.searcher.search(narrowed.as_ref(), &Count)?;
            if let Kind::Calendar(calendar) = &agg.kind
                && (count as u64) < calendar.least
            {
                continue;
            }
            let mut bucket = head.clone();
            bucket.insert("doc_count".into(), count.into());
            if let Value::Object(subs) = self.run(&agg.subs, narrowed.as_ref())? {
                bucket.extend(subs);
            }
            shown.push(Value::Object(bucket));
        }
        if let Kind::Calendar(Calendar { order: Some(order), .. }) = &agg.kind {
            order.sort(&mut shown);
        }
        Ok(match &agg.shape {
            Shape::Single => shown.pop().unwrap_or(Value::Null),
            Shape::Keyed => {
                let by_key = shown.into_iter().map(|mut bucket| {
                    let key = show::take_key(&mut bucket);
                    (key, bucket)
                });
                json!({ "buckets": by_key.collect::<Map<_, _>>() })
            }
            _ => json!({ "buckets": shown }),
        })
    }

    /// The result over a field that is not there.
    fn nothing(&self, agg: &Agg) -> Value {
        match &agg.shape {
            Shape::Value { counted: true } | Shape::Cardinality { .. } => json!({ "value": 0 }),
            Shape::Value { .. } | Shape::DateValue(_) if agg.typed == "sum" => {
                json!({ "value": 0.0 })
            }
            Shape::Value { .. } | Shape::DateValue(_) => json!({ "value": null }),
            Shape::Stats { .. } => {
                json!({ "count": 0, "min": null, "max": null, "avg": null, "sum": 0.0 })
            }
            Shape::Percentiles(percentiles) => percentiles.nothing(),
            Shape::Terms { .. } => json!({
                "doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [] }),
            Shape::Keyed => json!({ "buckets": {} }),
            _ => json!({ "buckets": [] }),
        }
    }
}

/// Whether a part of it is computed by queries of their own.
fn has_query_parts(agg: &Agg) -> bool {
    let own = |sub: &Agg| match sub.kind {
        Kind::Native(_) => has_query_parts(sub),
        _ => true,
    };
    agg.subs.iter().any(own)
}

/// Whether it is what a sketch gives of many rows, or has some within.
fn has_sketch(agg: &Agg) -> bool {
    matches!(agg.shape, Shape::Percentiles(_) | Shape::Cardinality { .. })
        || agg.subs.iter().any(has_sketch)
}

/// Takes an aggregation's result out of those of one bucket.
fn taken(agg: &Agg, results: &mut Map<String, Value>) -> Value {
    let result = results.remove(&agg.name).unwrap_or_default();
    match &agg.shape {
        Shape::Percentiles(percentiles) => {
            let beside = results.remove(&percentiles::beside(&agg.name)).unwrap_or_default();
            percentiles.show(&result, &beside)
        }
        Shape::Cardinality { .. } => {
            let beside = results.remove(&percentiles::beside(&agg.name)).unwrap_or_default();
            match beside["buckets"].as_array() {
                Some(values) if beside["sum_other_doc_count"] == 0 => {
                    json!({ "value": values.len() })
                }
                _ => result,
            }
        }
        _ => result,
    }
}

/// What tantivy computes of these. `exact`: they are over few rows.
fn request_of(aggs: &[Agg], exact: bool) -> Aggregations {
    let mut request = Aggregations::default();
    for agg in aggs {
        let subs = agg.subs.iter().filter(|sub| sub.is_native());
        add(&mut request, agg, request_of_all(subs, exact), exact);
    }
    request
}

fn request_of_all<'a>(aggs: impl Iterator<Item = &'a Agg>, exact: bool) -> Aggregations {
    let mut request = Aggregations::default();
    for agg in aggs {
        add(&mut request, agg, request_of_all(agg.subs.iter(), exact), exact);
    }
    request
}

fn add(request: &mut Aggregations, agg: &Agg, sub_aggregation: Aggregations, exact: bool) {
    let Kind::Native(variant) = &agg.kind else { return };
    request.insert(agg.name.clone(), Aggregation { agg: variant.clone(), sub_aggregation });
    let beside = match &agg.shape {
        Shape::Percentiles(percentiles) => percentiles.beside(exact),
        Shape::Cardinality { exact: counted } => exact.then(|| (**counted).clone()),
        _ => None,
    };
    if let Some(variant) = beside {
        let beside = Aggregation { agg: variant, sub_aggregation: Aggregations::default() };
        request.insert(percentiles::beside(&agg.name), beside);
    }
}
