//! Results as Elasticsearch shows them.

use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::order::Order;
use super::{Agg, Shape};
use crate::dates::DateFormat;
use crate::mapping::FieldKind;

/// Tantivy's result in Elasticsearch's shape; buckets in a list.
pub(super) fn result(agg: &Agg, result: Value) -> Value {
    match &agg.shape {
        Shape::Cardinality { .. } => {
            json!({ "value": result["value"].as_f64().unwrap_or(0.0).round() as i64 })
        }
        Shape::Value { counted } => {
            let value = result["value"].as_f64();
            match (counted, value) {
                (true, value) => json!({ "value": value.unwrap_or(0.0).round() as i64 }),
                (false, value) => json!({ "value": value }),
            }
        }
        Shape::DateValue(format) => date_value(&result["value"], format),
        Shape::Stats { dates } => stats(result, dates.as_ref()),
        Shape::Percentiles(_) => result,
        Shape::Terms { kind, format, size, order, .. } => {
            terms(result, *kind, format, *size, order)
        }
        Shape::Histogram { order, .. } => in_order(result, order.as_ref()),
        Shape::DateHistogram { format, order, .. } => {
            in_order(date_histogram(result, format), order.as_ref())
        }
        Shape::Single | Shape::List | Shape::Keyed => result,
    }
}

/// Buckets in the order that is asked for; otherwise by their keys, as they are.
fn in_order(mut result: Value, order: Option<&Order>) -> Value {
    if let (Some(order), Some(buckets)) = (order, result["buckets"].as_array_mut()) {
        order.sort(buckets);
    }
    result
}

/// Nanoseconds of a date as its milliseconds. A 64-bit float is exact to 256 of them.
pub(super) fn ms_of(nanos: f64) -> i64 {
    (nanos / 1e6 + 2e-4).floor() as i64
}

fn date_value(value: &Value, format: &DateFormat) -> Value {
    match value.as_f64() {
        None => json!({ "value": null }),
        Some(nanos) => {
            let ms = ms_of(nanos);
            json!({ "value": ms as f64, "value_as_string": format.show(ms * 1000) })
        }
    }
}

fn stats(mut result: Value, dates: Option<&DateFormat>) -> Value {
    let Some(format) = dates else { return result };
    for name in ["min", "max", "avg", "sum"] {
        if let Some(nanos) = result[name].as_f64() {
            let ms = ms_of(nanos);
            result[name] = json!(ms as f64);
            result[format!("{name}_as_string")] = format.show(ms.saturating_mul(1000)).into();
        }
    }
    result
}

fn terms(
    mut result: Value,
    kind: FieldKind,
    format: &DateFormat,
    size: usize,
    order: &Order,
) -> Value {
    let Some(buckets) = result["buckets"].as_array_mut() else { return result };
    let mut buckets = std::mem::take(buckets);
    for bucket in &mut buckets {
        match kind {
            FieldKind::Boolean => {
                let flag = bucket["key"].as_f64() == Some(1.0)
                    || bucket["key"] == "true"
                    || bucket["key_as_string"] == "true";
                bucket["key"] = u8::from(flag).into();
                bucket["key_as_string"] = flag.to_string().into();
            }
            FieldKind::Date => {
                let text = bucket["key_as_string"].as_str().or(bucket["key"].as_str());
                let at = text.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
                if let Some(at) = at {
                    bucket["key"] = at.timestamp_millis().into();
                    bucket["key_as_string"] = format.show(at.timestamp_micros()).into();
                }
            }
            FieldKind::Long => {
                if let Some(number) = bucket["key"].as_f64().filter(|it| it.abs() < 9e15) {
                    bucket["key"] = (number as i64).into();
                }
            }
            _ => {}
        }
    }
    let count = |bucket: &Value| bucket["doc_count"].as_u64().unwrap_or_default();
    if !order.is_by_key() {
        order.sort(&mut buckets);
    }
    let rest: u64 = buckets.iter().skip(size).map(count).sum();
    buckets.truncate(size);
    let other = result["sum_other_doc_count"].as_u64().unwrap_or_default() + rest;
    let error = result["doc_count_error_upper_bound"].as_u64().unwrap_or_default();
    json!({
        "doc_count_error_upper_bound": error,
        "sum_other_doc_count": other,
        "buckets": buckets,
    })
}

fn date_histogram(mut result: Value, format: &DateFormat) -> Value {
    if let Some(buckets) = result["buckets"].as_array_mut() {
        for bucket in buckets {
            let ms = bucket["key"].as_f64().unwrap_or_default().round() as i64;
            bucket["key"] = ms.into();
            bucket["key_as_string"] = format.show(ms.saturating_mul(1000)).into();
        }
    }
    result
}

/// Buckets by their key, where the request wants them so.
pub(super) fn keyed(agg: &Agg, mut result: Value) -> Value {
    let wanted = match &agg.shape {
        Shape::Histogram { keyed, .. } | Shape::DateHistogram { keyed, .. } => *keyed,
        _ => false,
    };
    if !wanted {
        return result;
    }
    let Some(buckets) = result["buckets"].as_array_mut() else { return result };
    let by_key = buckets.iter_mut().map(|bucket| {
        let name = match bucket["key_as_string"].as_str() {
            Some(text) => text.to_owned(),
            None => double(bucket["key"].as_f64().unwrap_or_default()),
        };
        (name, bucket.take())
    });
    let by_key: Map<String, Value> = by_key.collect();
    json!({ "buckets": by_key })
}

/// What stands before a bucket: a date's text, or the key, which is taken out.
pub(super) fn take_key(bucket: &mut Value) -> String {
    if let Some(text) = bucket["key_as_string"].as_str() {
        return text.to_owned();
    }
    let key = bucket.as_object_mut().and_then(|bucket| bucket.remove("key"));
    key.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A number as Java shows it.
pub(super) fn double(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{number:.1}")
    } else {
        number.to_string()
    }
}
