//! Percentiles: of few rows exact, between values as Elasticsearch does; of many by a sketch.
//!
//! Beside the sketch each request asks for more, under a name of its own: of few rows for the
//! values themselves, of many for the least and the greatest, which no percentile lies beyond.
//!
//! (Elasticsearch's `SortingDigest`: linear between the two ranks around `p / 100 * (n - 1)`)

use chrono::DateTime;
use serde_json::{Map, Value, json};
use tantivy::aggregation::agg_req::AggregationVariants;

use super::show::{double, ms_of};
use crate::dates::DateFormat;
use crate::error::EsError;

/// Of up to so many rows all values are looked at.
pub(super) const EXACT_ROWS_MAX: usize = 10_000;
/// What Elasticsearch gives if nothing is asked for.
const DEFAULT: [f64; 7] = [1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0];
/// The percentiles of one request.
const PERCENTS_MAX: usize = 1_000;

/// What a request wants to know.
#[derive(Clone, Debug)]
pub(super) struct Percentiles {
    /// The column inside the index, and what stands for a value that is missing.
    inner: String,
    missing: Option<Value>,
    percents: Vec<f64>,
    /// Answers by name; otherwise in a list.
    keyed: bool,
    dates: Option<DateFormat>,
}

/// The name of what is asked for beside the sketch. No client's name has a NUL in it.
pub(super) fn beside(name: &str) -> String {
    format!("{name}\0")
}

impl Percentiles {
    pub(super) fn parse(
        inner: &str,
        options: &Value,
        dates: Option<DateFormat>,
    ) -> Result<Self, EsError> {
        let percents = match &options["percents"] {
            Value::Null => DEFAULT.to_vec(),
            Value::Array(percents) if (1..=PERCENTS_MAX).contains(&percents.len()) => {
                let wrong = || {
                    EsError::argument(
                        "percent must be in [0,100] for the [percentiles] aggregation",
                    )
                };
                let number = |percent: &Value| {
                    percent.as_f64().filter(|it| (0.0..=100.0).contains(it)).ok_or_else(wrong)
                };
                let mut percents = percents.iter().map(number).collect::<Result<Vec<_>, _>>()?;
                percents.sort_by(f64::total_cmp);
                percents
            }
            _ => return Err(EsError::argument("[percents] must be an array that is not empty")),
        };
        Ok(Self {
            inner: inner.to_owned(),
            missing: options.get("missing").cloned(),
            percents,
            keyed: options["keyed"] != false,
            dates,
        })
    }

    /// The sketch.
    pub(super) fn request(&self) -> Value {
        let mut request = json!({ "field": self.inner, "percents": self.percents });
        self.add_missing(&mut request);
        request
    }

    /// What is asked for beside it.
    pub(super) fn beside(&self, exact: bool) -> Option<AggregationVariants> {
        let mut request = json!({ "field": self.inner });
        self.add_missing(&mut request);
        if exact {
            request["size"] = EXACT_ROWS_MAX.into();
            request["segment_size"] = EXACT_ROWS_MAX.into();
        }
        let kind = if exact { "terms" } else { "stats" };
        serde_json::from_value(json!({ kind: request })).ok()
    }

    fn add_missing(&self, request: &mut Value) {
        if let Some(missing) = &self.missing {
            request["missing"] = missing.clone();
        }
    }

    /// As Elasticsearch shows them.
    pub(super) fn show(&self, sketch: &Value, beside: &Value) -> Value {
        let values: Vec<_> = match beside["buckets"].as_array() {
            Some(buckets) => {
                let counted = self.counted(buckets);
                self.percents.iter().map(|percent| between(&counted, *percent)).collect()
            }
            None => self.of_sketch(sketch, beside),
        };
        self.answer(&values)
    }

    /// Where no row has a value.
    pub(super) fn nothing(&self) -> Value {
        self.answer(&vec![None; self.percents.len()])
    }

    fn of_sketch(&self, sketch: &Value, beside: &Value) -> Vec<Option<f64>> {
        let (least, greatest) = (beside["min"].as_f64(), beside["max"].as_f64());
        let value = |percent: &f64| {
            let value = sketch["values"][double(*percent)].as_f64()?;
            let value = value.max(least.unwrap_or(value)).min(greatest.unwrap_or(value));
            Some(if self.dates.is_some() { ms_of(value) as f64 } else { value })
        };
        self.percents.iter().map(value).collect()
    }

    /// The values that there are, in order, and how often each is there.
    fn counted(&self, buckets: &[Value]) -> Vec<(f64, u64)> {
        let value = |bucket: &Value| match &self.dates {
            None => bucket["key"].as_f64(),
            Some(_) => {
                let text = bucket["key_as_string"].as_str().or(bucket["key"].as_str())?;
                let at = DateTime::parse_from_rfc3339(text).ok()?;
                Some(at.timestamp_millis() as f64)
            }
        };
        let counted = buckets.iter().filter_map(|bucket| {
            let count = bucket["doc_count"].as_u64()?;
            Some((value(bucket)?, count))
        });
        let mut counted: Vec<_> = counted.collect();
        counted.sort_by(|a, b| a.0.total_cmp(&b.0));
        counted
    }

    fn answer(&self, values: &[Option<f64>]) -> Value {
        let text = |value: Option<f64>| {
            let format = self.dates.as_ref()?;
            Some(format.show((value? as i64).saturating_mul(1000)))
        };
        let pairs = self.percents.iter().zip(values);
        if self.keyed {
            let mut named = Map::new();
            for (percent, value) in pairs {
                let name = double(*percent);
                if let Some(text) = text(*value) {
                    named.insert(format!("{name}_as_string"), text.into());
                }
                named.insert(name, json!(value));
            }
            return json!({ "values": named });
        }
        let listed = pairs.map(|(percent, value)| {
            let mut entry = json!({ "key": percent, "value": value });
            if let Some(text) = text(*value) {
                entry["value_as_string"] = text.into();
            }
            entry
        });
        json!({ "values": listed.collect::<Vec<_>>() })
    }
}

/// The value at a percentile of values that are in order.
fn between(counted: &[(f64, u64)], percent: f64) -> Option<f64> {
    let n: u64 = counted.iter().map(|(_, count)| count).sum();
    let rank = percent / 100.0 * n.checked_sub(1)? as f64;
    let at = |place: u64| {
        let mut passed = 0;
        counted.iter().find_map(|(value, count)| {
            passed += count;
            (place < passed).then_some(*value)
        })
    };
    let low = at(rank.floor() as u64)?;
    let high = at(rank.ceil() as u64)?;
    Some(low + (high - low) * rank.fract())
}
