//! Reading the `aggs` of a request.

use serde_json::{Map, Value, json};
use tantivy::aggregation::agg_req::AggregationVariants;
use tantivy::query::AllQuery;

use super::accepted;
use super::order::Order;
use super::percentiles::{EXACT_ROWS_MAX, Percentiles};
use super::show::double;
use super::{Agg, Calendar, Kind, Shape};
use crate::dates::{DateFormat, DateReader, Unit, Zone, fixed_interval_ms};
use crate::error::EsError;
use crate::mapping::{FieldKind, FieldRef, ID, IndexField, Mapping};
use crate::query::{BoxQuery, Translator};

const DEPTH_MAX: usize = 10;
const AGGS_MAX: usize = 200;
/// Ranges or filters of one aggregation.
const BUCKETS_MAX: usize = 500;
/// Terms of one aggregation.
const TERMS_MAX: usize = 10_000;
const MS_PER_DAY: i64 = 86_400_000;

/// Reads aggregations.
///
/// # Errors
/// When one is not known, or does not fit its field.
pub(crate) fn parse(value: &Value, mapping: &Mapping, now: i64) -> Result<Vec<Agg>, EsError> {
    let mut parser = Parser { mapping, now, count: 0 };
    parser.all(value, 0)
}

struct Parser<'a> {
    mapping: &'a Mapping,
    now: i64,
    count: usize,
}

type Parsed = Result<(Kind, Shape, &'static str), EsError>;

impl Parser<'_> {
    fn all(&mut self, value: &Value, depth: usize) -> Result<Vec<Agg>, EsError> {
        let object = match value {
            Value::Null => return Ok(Vec::new()),
            Value::Object(object) => object,
            _ => return Err(EsError::parsing("[aggregations] is no object")),
        };
        self.count += object.len();
        if depth > DEPTH_MAX || self.count > AGGS_MAX {
            let reason =
                format!("more than {AGGS_MAX} aggregations, or nested deeper than {DEPTH_MAX}");
            return Err(EsError::argument(reason));
        }
        object.iter().map(|(name, body)| self.one(name, body, depth)).collect()
    }

    fn one(&mut self, name: &str, body: &Value, depth: usize) -> Result<Agg, EsError> {
        if name.is_empty() || name.contains(['[', ']', '>']) {
            return Err(EsError::parsing(format!("Invalid aggregation name [{name}]")));
        }
        let object = body.as_object().ok_or_else(|| {
            EsError::parsing(format!("Aggregation definition for [{name}] is no object"))
        })?;
        let mut subs = Vec::new();
        let mut found = None;
        let mut meta = None;
        for (key, value) in object {
            match key.as_str() {
                "aggs" | "aggregations" => subs = self.all(value, depth + 1)?,
                "meta" => meta = Some(value.clone()),
                _ if found.is_some() => {
                    return Err(EsError::parsing(format!(
                        "Found two aggregation type definitions in [{name}]"
                    )));
                }
                _ => found = Some((key, value)),
            }
        }
        let (kind, options) = found.ok_or_else(|| {
            EsError::parsing(format!("Missing definition for aggregation [{name}]"))
        })?;
        let (kind, shape, typed) = self.kind(name, kind, options)?;
        let metric = matches!(
            shape,
            Shape::Value { .. }
                | Shape::Cardinality { .. }
                | Shape::DateValue(_)
                | Shape::Stats { .. }
                | Shape::Percentiles(_)
        );
        if metric && !subs.is_empty() {
            return Err(EsError::new(
                400,
                "aggregation_initialization_exception",
                format!("Aggregator [{name}] of type [{typed}] cannot accept sub-aggregations"),
            ));
        }
        Ok(Agg { name: name.to_owned(), kind, shape, subs, typed, meta })
    }

    fn kind(&self, name: &str, kind: &str, options: &Value) -> Parsed {
        accepted::check(name, kind, options)?;
        match kind {
            "min" => self.metric("min", options, false),
            "max" => self.metric("max", options, false),
            "avg" => self.metric("avg", options, false),
            "sum" => self.metric("sum", options, false),
            "value_count" => self.metric("value_count", options, true),
            "cardinality" => self.cardinality(options),
            "stats" => self.metric("stats", options, false),
            "extended_stats" => self.metric("extended_stats", options, false),
            "percentiles" => self.percentiles(options),
            "terms" => self.terms(options),
            "histogram" => self.histogram(options),
            "date_histogram" => self.date_histogram(options),
            "range" => self.range(options),
            "date_range" => self.date_range(options),
            "filter" => {
                let filter = (Map::new(), self.query(options)?);
                Ok((Kind::Filters(vec![filter]), Shape::Single, "filter"))
            }
            "filters" => self.filters(options),
            "missing" => {
                let field = field_name(options)?;
                let query = json!({ "bool": { "must_not": { "exists": { "field": field } } } });
                let filter = (Map::new(), self.query(&query)?);
                Ok((Kind::Filters(vec![filter]), Shape::Single, "missing"))
            }
            "global" => {
                let all: BoxQuery = Box::new(AllQuery);
                Ok((Kind::Filters(vec![(Map::new(), all)]), Shape::Single, "global"))
            }
            other => {
                Err(EsError::parsing(format!("Unknown aggregation type [{other}] of [{name}]")))
            }
        }
    }

    fn query(&self, query: &Value) -> Result<BoxQuery, EsError> {
        Translator::new(self.mapping, self.now).query(query)
    }

    /// The field an aggregation is over; nothing if the index does not have it.
    fn field(&self, options: &Value) -> Result<Option<FieldRef<'_>>, EsError> {
        let name = field_name(options)?;
        match self.mapping.field(name) {
            Some(field) if field.kind == FieldKind::Text => Err(EsError::argument(format!(
                "Fielddata is disabled on [{name}]. Text fields are not optimised for operations \
                 that require per-document field data like aggregations and sorting. Please use \
                 [{name}.keyword] instead"
            ))),
            None => Ok(None),
            Some(field) => {
                accepted::check_field(field, options)?;
                Ok(Some(field))
            }
        }
    }

    fn metric(&self, kind: &'static str, options: &Value, counted: bool) -> Parsed {
        let shape = |dates: Option<DateFormat>| match (kind, dates) {
            ("stats" | "extended_stats", dates) => Shape::Stats { dates },
            (_, Some(format)) if !counted => Shape::DateValue(format),
            _ => Shape::Value { counted },
        };
        let inner = match self.field(options)? {
            Some(field) => {
                if field.kind.is_text_like() && !counted {
                    return Err(EsError::argument(format!(
                        "Field [{}] of type [{}] is not supported for aggregation [{kind}]",
                        field.name(),
                        field.kind.word()
                    )));
                }
                let dates = (field.kind == FieldKind::Date).then(|| date_format(options));
                (field.inner(), shape(dates.transpose()?))
            }
            None if field_name(options)? == ID => (ID.to_owned(), shape(None)),
            None => return Ok((Kind::Nothing, shape(None), kind)),
        };
        let (inner, shape) = inner;
        let mut request = json!({ "field": inner });
        for name in ["missing", "sigma"] {
            if let Some(value) = options.get(name) {
                request[name] = value.clone();
            }
        }
        Ok((native(kind, request)?, shape, kind))
    }

    fn cardinality(&self, options: &Value) -> Parsed {
        let (kind, nothing) = ("cardinality", Shape::Value { counted: true });
        let inner = match self.field(options)? {
            Some(field) => field.inner(),
            None if field_name(options)? == ID => ID.to_owned(),
            None => return Ok((Kind::Nothing, nothing, kind)),
        };
        let mut request = json!({ "field": inner });
        if let Some(missing) = options.get("missing") {
            request["missing"] = missing.clone();
        }
        let sketch = native(kind, request.clone())?;
        request["size"] = EXACT_ROWS_MAX.into();
        request["segment_size"] = EXACT_ROWS_MAX.into();
        let exact = Box::new(variant("terms", request)?);
        Ok((sketch, Shape::Cardinality { exact }, kind))
    }

    fn percentiles(&self, options: &Value) -> Parsed {
        let typed = "tdigest_percentiles";
        let Some(field) = self.field(options)? else {
            let shape = Shape::Percentiles(Percentiles::parse("", options, None)?);
            return Ok((Kind::Nothing, shape, typed));
        };
        if field.kind.is_text_like() {
            return Err(wrong_field(field, "percentiles"));
        }
        let dates = (field.kind == FieldKind::Date).then(|| date_format(options)).transpose()?;
        let percentiles = Percentiles::parse(&field.inner(), options, dates)?;
        let sketch = native("percentiles", percentiles.request())?;
        Ok((sketch, Shape::Percentiles(percentiles), typed))
    }

    fn terms(&self, options: &Value) -> Parsed {
        let size = size_of(options, "size", 10)?;
        if size == 0 || size > TERMS_MAX {
            return Err(EsError::argument(format!(
                "[size] must be greater than 0 and at most {TERMS_MAX}. Found [{size}] in [terms]"
            )));
        }
        let order = Order::parse("terms", &options["order"])?.unwrap_or_else(Order::by_count);
        let Some(field) = self.field(options)? else {
            let (field, kind, format) = (String::new(), FieldKind::Keyword, DateFormat::default());
            let shape = Shape::Terms { field, kind, format, size, order };
            return Ok((Kind::Nothing, shape, "umterms"));
        };
        // More than wanted are asked for, so that equal buckets can be put in order.
        let asked = if order.is_by_key() { size } else { size * 2 + 100 };
        let mut request = json!({
            "field": field.inner(),
            "size": asked,
            "segment_size": (asked * 10).max(5000),
            "order": order.first(),
        });
        for name in ["min_doc_count", "missing", "include", "exclude"] {
            if let Some(value) = options.get(name) {
                request[name] = value.clone();
            }
        }
        let format = date_format(options)?;
        let typed = match field.kind {
            FieldKind::Text | FieldKind::Keyword => "sterms",
            FieldKind::Double => "dterms",
            _ => "lterms",
        };
        let (name, kind) = (field.name(), field.kind);
        let shape = Shape::Terms { field: name, kind, format, size, order };
        Ok((native("terms", request)?, shape, typed))
    }

    fn histogram(&self, options: &Value) -> Parsed {
        let interval = options["interval"].as_f64().filter(|interval| *interval > 0.0);
        let Some(interval) = interval else {
            return Err(EsError::argument("[interval] must be >0 for histogram aggregation"));
        };
        let keyed = options["keyed"] == true;
        let order = Order::of_histogram("histogram", &options["order"])?;
        let Some(field) = self.field(options)? else {
            let shape = if keyed { Shape::Keyed } else { Shape::List };
            return Ok((Kind::Nothing, shape, "histogram"));
        };
        if !matches!(field.kind, FieldKind::Long | FieldKind::Double) {
            return Err(wrong_field(field, "histogram"));
        }
        let mut request = json!({ "field": field.inner(), "interval": interval });
        for name in ["offset", "min_doc_count", "extended_bounds", "hard_bounds"] {
            if let Some(value) = options.get(name) {
                request[name] = value.clone();
            }
        }
        if options["min_doc_count"].as_u64() > Some(0) {
            without_empty_buckets(&mut request);
        }
        let shape = Shape::Histogram { field: field.name(), interval, keyed, order };
        Ok((native("histogram", request)?, shape, "histogram"))
    }

    fn date_histogram(&self, options: &Value) -> Parsed {
        let typed = "date_histogram";
        let keyed = options["keyed"] == true;
        let format = date_format(options)?;
        let text = |name: &str| options.get(name).and_then(Value::as_str);
        let order = Order::of_histogram(typed, &options["order"])?;
        let (calendar, fixed) = (text("calendar_interval"), text("fixed_interval"));
        if calendar.is_some() && fixed.is_some() {
            return Err(EsError::argument(
                "Cannot use [fixed_interval] with [calendar_interval] configuration option.",
            ));
        }
        let unit = match (calendar, text("interval")) {
            (Some(interval), _) => Some(Unit::of_calendar(interval).ok_or_else(|| {
                EsError::argument(format!(
                    "The supplied interval [{interval}] could not be parsed as a calendar interval."
                ))
            })?),
            (None, Some(interval)) if fixed.is_none() => Unit::of_calendar(interval),
            _ => None,
        };
        let Some(field) = self.field(options)? else {
            let shape = if keyed { Shape::Keyed } else { Shape::List };
            return Ok((Kind::Nothing, shape, typed));
        };
        if field.kind != FieldKind::Date {
            return Err(wrong_field(field, typed));
        }
        let least = size_of(options, "min_doc_count", 0)? as u64;
        let (interval_ms, shift) = match unit {
            Some(unit @ (Unit::Month | Unit::Quarter | Unit::Year)) => {
                let (inner, field) = (field.inner(), field.name());
                let extended = self.extended(options, format.zone, unit)?;
                let extended = if least > 0 { (None, None) } else { extended };
                let calendar = Calendar { inner, field, unit, format, least, extended, order };
                let shape = if keyed { Shape::Keyed } else { Shape::List };
                return Ok((Kind::Calendar(calendar), shape, typed));
            }
            // 1970 began on a Thursday; weeks begin on Monday.
            Some(Unit::Week) => (7 * MS_PER_DAY, 4 * MS_PER_DAY),
            Some(Unit::Day) => (MS_PER_DAY, 0),
            Some(Unit::Hour) => (3_600_000, 0),
            Some(Unit::Minute) => (60_000, 0),
            Some(Unit::Second) => (1000, 0),
            None => {
                let interval = fixed.or(text("interval")).ok_or_else(|| {
                    EsError::argument(
                        "Required one of fields [interval, calendar_interval, fixed_interval], \
                         but none were specified. ",
                    )
                })?;
                let parsed = fixed_interval_ms(interval).ok_or_else(|| {
                    EsError::argument(format!("failed to parse setting with value [{interval}]"))
                })?;
                (parsed, 0)
            }
        };
        let offset = match text("offset") {
            None => 0,
            Some(text) => {
                let (sign, length) = match text.strip_prefix('-') {
                    Some(rest) => (-1, rest),
                    None => (1, text.strip_prefix('+').unwrap_or(text)),
                };
                let refuse = || EsError::argument(format!("offset [{text}] cannot be read"));
                sign * fixed_interval_ms(length).ok_or_else(refuse)?
            }
        };
        let shift = (shift + offset - format.zone.seconds * 1000).rem_euclid(interval_ms);
        let mut request = json!({
            "field": field.inner(),
            "fixed_interval": format!("{interval_ms}ms"),
            "min_doc_count": least,
        });
        if shift != 0 {
            request["offset"] = format!("{shift}ms").into();
        }
        for name in ["extended_bounds", "hard_bounds"] {
            if let Some(bounds) = options.get(name) {
                let end =
                    |end: &str| Ok::<_, EsError>(self.date(&bounds[end], format.zone)?.0 / 1000);
                request[name] = json!({ "min": end("min")?, "max": end("max")? });
            }
        }
        if least > 0 {
            without_empty_buckets(&mut request);
        }
        let shape = Shape::DateHistogram { field: field.name(), interval_ms, keyed, format, order };
        Ok((native(typed, request)?, shape, typed))
    }

    /// The `extended_bounds` of months, quarters and years, in microseconds; other options that
    /// move their buckets are refused.
    fn extended(
        &self,
        options: &Value,
        zone: Zone,
        unit: Unit,
    ) -> Result<(Option<i64>, Option<i64>), EsError> {
        let is_given = |name: &&str| options.get(*name).is_some_and(|value| !value.is_null());
        if let Some(name) = ["hard_bounds", "offset"].into_iter().find(is_given) {
            return Err(EsError::argument(format!(
                "[date_histogram] does not support [{name}] with intervals of a month or more: \
                 [{unit:?}]"
            )));
        }
        let bounds = match options.get("extended_bounds") {
            None | Some(Value::Null) => return Ok((None, None)),
            Some(bounds) if bounds.is_object() => bounds,
            Some(other) => {
                return Err(EsError::parsing(format!("[extended_bounds] cannot be {other}")));
            }
        };
        let end = |name: &str| match &bounds[name] {
            Value::Null => Ok(None),
            value => Ok::<_, EsError>(Some(self.date(value, zone)?.0)),
        };
        match (end("min")?, end("max")?) {
            (Some(min), Some(max)) if min > max => Err(EsError::argument(format!(
                "[extended_bounds.min][{}] cannot be greater than [extended_bounds.max][{}]",
                bounds["min"], bounds["max"]
            ))),
            ends => Ok(ends),
        }
    }

    /// The first and last microsecond of a date.
    fn date(&self, value: &Value, zone: Zone) -> Result<(i64, i64), EsError> {
        let reader = DateReader { zone, seconds: false, now: self.now };
        let span = reader.read(value)?;
        Ok((span.first, span.last))
    }

    fn range(&self, options: &Value) -> Parsed {
        let keyed = if options["keyed"] == true { Shape::Keyed } else { Shape::List };
        let Some(field) = self.field(options)? else { return Ok((Kind::Nothing, keyed, "range")) };
        if !matches!(field.kind, FieldKind::Long | FieldKind::Double) {
            return Err(wrong_field(field, "range"));
        }
        let mut buckets = Vec::new();
        for range in ranges_of(options)? {
            accepted::check_range("range", range)?;
            let end = |name: &str| match &range[name] {
                Value::Null => Ok(None),
                Value::Number(number) => Ok(number.as_f64()),
                Value::String(text) if text.parse::<f64>().is_ok() => Ok(text.parse().ok()),
                other => Err(EsError::parsing(format!("[range] [{name}] cannot be {other}"))),
            };
            let (from, to) = (end("from")?, end("to")?);
            let name = |end: Option<f64>| end.map_or_else(|| "*".to_owned(), double);
            let key = format!("{}-{}", name(from), name(to));
            let key = range["key"].as_str().map_or(key, str::to_owned);
            let mut head = Map::from_iter([("key".to_owned(), key.into())]);
            let mut query = Map::new();
            if let Some(from) = from {
                head.insert("from".into(), from.into());
                query.insert("gte".into(), from.into());
            }
            if let Some(to) = to {
                head.insert("to".into(), to.into());
                query.insert("lt".into(), to.into());
            }
            let query = json!({ "range": { field.name(): query } });
            buckets.push((head, self.query(&query)?));
        }
        Ok((Kind::Filters(buckets), keyed, "range"))
    }

    fn date_range(&self, options: &Value) -> Parsed {
        let typed = "date_range";
        let keyed = if options["keyed"] == true { Shape::Keyed } else { Shape::List };
        let format = date_format(options)?;
        let Some(field) = self.field(options)? else { return Ok((Kind::Nothing, keyed, typed)) };
        if field.kind != FieldKind::Date {
            return Err(wrong_field(field, typed));
        }
        let mut buckets = Vec::new();
        for range in ranges_of(options)? {
            accepted::check_range(typed, range)?;
            let end = |name: &str| match &range[name] {
                Value::Null => Ok(None),
                value => Ok::<_, EsError>(Some(self.date(value, format.zone)?.0)),
            };
            let (from, to) = (end("from")?, end("to")?);
            let name = |end: Option<i64>| end.map_or_else(|| "*".to_owned(), |at| format.show(at));
            let key = format!("{}-{}", name(from), name(to));
            let key = range["key"].as_str().map_or(key, str::to_owned);
            let mut head = Map::from_iter([("key".to_owned(), key.into())]);
            let mut query = Map::new();
            for (name, op, at) in [("from", "gte", from), ("to", "lt", to)] {
                let Some(at) = at else { continue };
                let ms = at.div_euclid(1000);
                head.insert(name.into(), (ms as f64).into());
                head.insert(format!("{name}_as_string"), format.show(at).into());
                query.insert(op.into(), ms.into());
            }
            let query = json!({ "range": { field.name(): query } });
            buckets.push((head, self.query(&query)?));
        }
        Ok((Kind::Filters(buckets), keyed, typed))
    }

    fn filters(&self, options: &Value) -> Parsed {
        let mut buckets = Vec::new();
        let mut listed = Vec::new();
        let shape = match &options["filters"] {
            Value::Object(filters) => {
                for (name, query) in filters {
                    let head = Map::from_iter([("key".to_owned(), name.as_str().into())]);
                    buckets.push((head, self.query(query)?));
                    listed.push(query.clone());
                }
                Shape::Keyed
            }
            Value::Array(filters) => {
                for query in filters {
                    buckets.push((Map::new(), self.query(query)?));
                    listed.push(query.clone());
                }
                Shape::List
            }
            _ => return Err(EsError::parsing("[filters] cannot be empty.")),
        };
        let other = options["other_bucket_key"].as_str();
        if other.is_some() || options["other_bucket"] == true {
            let key = other.unwrap_or("_other_");
            let query = json!({ "bool": { "must_not": listed } });
            let head = match shape {
                Shape::Keyed => Map::from_iter([("key".to_owned(), key.into())]),
                _ => Map::new(),
            };
            buckets.push((head, self.query(&query)?));
        }
        if buckets.len() > BUCKETS_MAX {
            return Err(EsError::argument(format!("more than {BUCKETS_MAX} filters")));
        }
        Ok((Kind::Filters(buckets), shape, "filters"))
    }
}

fn field_name(options: &Value) -> Result<&str, EsError> {
    let missing =
        || EsError::argument("Required one of fields [field, script], but none were specified. ");
    options["field"].as_str().ok_or_else(missing)
}

fn wrong_field(field: FieldRef<'_>, kind: &str) -> EsError {
    let column: &IndexField = field.column;
    EsError::argument(format!(
        "Field [{}] of type [{}] is not supported for aggregation [{kind}]",
        column.name,
        field.kind.word()
    ))
}

fn native(kind: &str, request: Value) -> Result<Kind, EsError> {
    variant(kind, request).map(Kind::Native)
}

/// An aggregation as tantivy reads it.
fn variant(kind: &str, request: Value) -> Result<AggregationVariants, EsError> {
    let refuse = |error: serde_json::Error| EsError::parsing(format!("[{kind}] {error}"));
    serde_json::from_value(json!({ kind: request })).map_err(refuse)
}

/// Where only buckets with rows are wanted, bounds add none, and tantivy takes no such bounds.
fn without_empty_buckets(request: &mut Value) {
    if let Some(request) = request.as_object_mut() {
        request.remove("extended_bounds");
    }
}

fn date_format(options: &Value) -> Result<DateFormat, EsError> {
    let zone = options["time_zone"].as_str().map(Zone::parse).transpose()?.unwrap_or_default();
    DateFormat::new(options["format"].as_str(), zone)
}

fn size_of(options: &Value, name: &str, default: usize) -> Result<usize, EsError> {
    match options.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| EsError::parsing(format!("[{name}] cannot be {value}"))),
    }
}

fn ranges_of(options: &Value) -> Result<&Vec<Value>, EsError> {
    match options["ranges"].as_array() {
        Some(ranges) if ranges.is_empty() => {
            Err(EsError::argument("No [ranges] specified for the aggregation"))
        }
        Some(ranges) if ranges.len() <= BUCKETS_MAX => Ok(ranges),
        Some(_) => Err(EsError::argument(format!("more than {BUCKETS_MAX} ranges"))),
        None => Err(EsError::argument("No [ranges] specified for the aggregation")),
    }
}
