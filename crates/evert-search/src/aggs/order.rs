//! The order of buckets.
//!
//! Equal buckets are in the order of their keys.

use std::cmp::{Ordering, Reverse};

use serde_json::{Value, json};

use crate::error::EsError;

/// What buckets are in order of; the first that differs decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    target: Target,
    descending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Count,
    Key,
    /// A number of an aggregation within: `name`, or `name.avg`.
    Metric(String),
}

impl Order {
    /// Reads the `order` of an aggregation of a kind: one, or several in a list. Nothing if there
    /// is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn parse(kind: &str, order: &Value) -> Result<Option<Self>, EsError> {
        let parts: Result<Vec<Part>, EsError> = match order {
            Value::Null => return Ok(None),
            Value::Array(parts) if parts.is_empty() => return Ok(None),
            Value::Array(parts) => parts.iter().map(|part| Part::parse(kind, part)).collect(),
            part => Part::parse(kind, part).map(|part| vec![part]),
        };
        parts.map(|parts| Some(Self(parts)))
    }

    /// The order of histograms, which is not by what is within the buckets.
    pub(super) fn of_histogram(kind: &str, order: &Value) -> Result<Option<Self>, EsError> {
        let parsed = Self::parse(kind, order)?;
        let metric = parsed.iter().flat_map(|order| &order.0).find_map(|part| match &part.target {
            Target::Metric(name) => Some(name.clone()),
            Target::Count | Target::Key => None,
        });
        match metric {
            None => Ok(parsed),
            Some(name) => Err(EsError::argument(format!(
                "[{kind}] does not support [order] by [{name}]: by [_key] or [_count] only"
            ))),
        }
    }

    /// By falling counts.
    pub(super) fn by_count() -> Self {
        Self(vec![Part { target: Target::Count, descending: true }])
    }

    /// Whether no two buckets are equal by what comes first.
    pub(super) fn is_by_key(&self) -> bool {
        self.0.first().is_some_and(|part| part.target == Target::Key)
    }

    /// What comes first, as tantivy reads it.
    pub(super) fn first(&self) -> Value {
        let Some(part) = self.0.first() else { return Value::Null };
        let name = match &part.target {
            Target::Count => "_count",
            Target::Key => "_key",
            Target::Metric(name) => name.as_str(),
        };
        let direction = if part.descending { "desc" } else { "asc" };
        json!({ name: direction })
    }

    /// Puts buckets in this order.
    pub(super) fn sort(&self, buckets: &mut [Value]) {
        if let Some(Part { target: Target::Metric(name), .. }) = self.0.first()
            && buckets.iter().all(|bucket| number(bucket, name).is_none())
        {
            // Not every number can be found here: tantivy has sorted by it.
            return;
        }
        buckets.sort_by(|a, b| {
            let parts = self.0.iter().map(|part| part.compare(a, b));
            let order = parts.fold(Ordering::Equal, Ordering::then);
            order.then_with(|| by_key(a, b))
        });
    }
}

impl Part {
    fn parse(kind: &str, part: &Value) -> Result<Self, EsError> {
        let refuse = || EsError::parsing(format!("[{kind}] [order] cannot be {part}"));
        let object = part.as_object().filter(|object| object.len() == 1).ok_or_else(refuse)?;
        let (name, direction) = object.iter().next().ok_or_else(refuse)?;
        let direction = direction.as_str().ok_or_else(refuse)?;
        let descending = match direction.to_ascii_lowercase().as_str() {
            "asc" => false,
            "desc" => true,
            _ => return Err(EsError::parsing(format!("Unknown order direction [{direction}]"))),
        };
        let target = match name.as_str() {
            "_count" => Target::Count,
            "_key" => Target::Key,
            name => Target::Metric(name.to_owned()),
        };
        Ok(Self { target, descending })
    }

    fn compare(&self, a: &Value, b: &Value) -> Ordering {
        let order = match &self.target {
            Target::Count => count(a).cmp(&count(b)),
            Target::Key => by_key(a, b),
            Target::Metric(name) => return self.compare_metrics(number(a, name), number(b, name)),
        };
        if self.descending { order.reverse() } else { order }
    }

    /// Buckets without a number come last.
    fn compare_metrics(&self, a: Option<f64>, b: Option<f64>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if self.descending => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => Reverse(a.is_some()).cmp(&Reverse(b.is_some())),
        }
    }
}

fn count(bucket: &Value) -> u64 {
    bucket["doc_count"].as_u64().unwrap_or_default()
}

fn number(bucket: &Value, name: &str) -> Option<f64> {
    let (name, property) = name.split_once('.').unwrap_or((name, "value"));
    bucket[name][property].as_f64()
}

fn by_key(a: &Value, b: &Value) -> Ordering {
    let (a, b) = (&a["key"], &b["key"]);
    match (a.as_str(), b.as_str(), a.as_f64(), b.as_f64()) {
        (Some(a), Some(b), ..) => a.cmp(b),
        (.., Some(a), Some(b)) => a.total_cmp(&b),
        _ => Ordering::Equal,
    }
}
