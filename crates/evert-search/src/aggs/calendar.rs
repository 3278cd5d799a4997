//! Months, quarters and years: buckets of a date histogram that are not equally long.

use chrono::DateTime;
use serde_json::{Map, Value, json};
use tantivy::Searcher;
use tantivy::aggregation::agg_req::Aggregations;
use tantivy::aggregation::{AggContextParams, AggregationCollector};
use tantivy::query::Query;

use super::{Calendar, TOO_MANY_BUCKETS};
use crate::error::EsError;
use crate::mapping::Mapping;
use crate::query::{BoxQuery, Translator};

const NANOS_PER_MICRO: f64 = 1000.0;
/// Buckets of one histogram.
const BUCKETS_MAX: usize = 1500;

/// What a bucket begins with, and the query for what is in it.
pub(super) type Bucket = (Map<String, Value>, BoxQuery);

/// The buckets from the first date to the last of what a query finds, and further where the request
/// extends them.
pub(super) fn buckets(
    calendar: &Calendar,
    searcher: &Searcher,
    mapping: &Mapping,
    query: &dyn Query,
) -> Result<Vec<Bucket>, EsError> {
    let found = ends(calendar, searcher, query)?;
    let (from, to) = calendar.extended;
    let first = found.map(|(first, _)| first).into_iter().chain(from).min();
    let last = found.map(|(_, last)| last).into_iter().chain(to).max();
    let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
    let zone = calendar.format.zone.seconds.saturating_mul(1_000_000);
    let local = |micros: i64| DateTime::from_timestamp_micros(micros.saturating_add(zone));
    let too_far = || EsError::argument("a date is too far away for a calendar");
    let mut at = calendar.unit.floor(local(first).ok_or_else(too_far)?.naive_utc());
    let mut buckets = Vec::new();
    loop {
        let from = at.and_utc().timestamp_micros() - zone;
        if from > last {
            return Ok(buckets);
        }
        if buckets.len() == BUCKETS_MAX {
            let reason = format!("Trying to create too many buckets: more than {BUCKETS_MAX}");
            return Err(EsError::new(400, TOO_MANY_BUCKETS, reason));
        }
        at = calendar.unit.add(at, 1).ok_or_else(too_far)?;
        let to = at.and_utc().timestamp_micros() - zone;
        let (from_ms, to_ms) = (from.div_euclid(1000), to.div_euclid(1000));
        let range =
            json!({ "range": { calendar.field.as_str(): { "gte": from_ms, "lt": to_ms } } });
        let head = Map::from_iter([
            ("key_as_string".to_owned(), calendar.format.show(from).into()),
            ("key".to_owned(), from_ms.into()),
        ]);
        buckets.push((head, Translator::new(mapping, 0).query(&range)?));
    }
}

/// The first and the last date, in microseconds.
fn ends(
    calendar: &Calendar,
    searcher: &Searcher,
    query: &dyn Query,
) -> Result<Option<(i64, i64)>, EsError> {
    let request = json!({
        "min": { "min": { "field": calendar.inner } },
        "max": { "max": { "field": calendar.inner } },
    });
    let request: Aggregations = serde_json::from_value(request)
        .map_err(|error| EsError::new(500, "aggregation_execution_exception", error.to_string()))?;
    let collector = AggregationCollector::from_aggs(request, AggContextParams::default());
    let results = searcher.search(query, &collector)?;
    let results = serde_json::to_value(results).unwrap_or_default();
    let end = |name: &str| results[name]["value"].as_f64();
    let (Some(min), Some(max)) = (end("min"), end("max")) else { return Ok(None) };
    // A 64-bit float is exact to a quarter of a microsecond here.
    Ok(Some(((min / NANOS_PER_MICRO).round() as i64, (max / NANOS_PER_MICRO).round() as i64)))
}
