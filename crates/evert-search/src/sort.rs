//! Sorting hits: by score, by columns, after a given hit.
//!
//! Owns: the `sort` of a request, and the collector that keeps the first hits by it.
//!
//! Invariants
//! - Hits that are equal by all keys come in an order that one generation of the index fixes.
//! - Dates compare by their milliseconds, which is what `search_after` can say.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde_json::{Value, json};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Column, StrColumn, TermOrdHit};
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, SegmentReader};

use crate::dates::{DateFormat, DateReader, Zone};
use crate::error::EsError;
use crate::mapping::{FieldKind, ID, Mapping};

const NANOS_PER_MS: i64 = 1_000_000;
/// Keys of one request.
const KEYS_MAX: usize = 8;

/// What hits are sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum By {
    Score,
    /// The order of the index.
    Doc,
    /// A column of values inside the index.
    Column {
        inner: String,
        kind: FieldKind,
    },
    /// A field that the index does not have, and the request says so.
    Nothing,
}

/// Which number stands for the several that an array has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Min,
    Max,
    Avg,
    Sum,
    Median,
}

/// One key of the order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortKey {
    pub(crate) by: By,
    pub(crate) descending: bool,
    /// Rows without a value come first.
    pub(crate) missing_first: bool,
    pub(crate) mode: Mode,
    pub(crate) format: Option<DateFormat>,
}

/// Reads the `sort` of a request. Nothing: by score.
///
/// # Errors
/// When a field is not there or cannot be sorted by.
pub(crate) fn parse(sort: &Value, mapping: &Mapping) -> Result<Vec<SortKey>, EsError> {
    let parts = match sort {
        Value::Null => return Ok(Vec::new()),
        Value::Array(parts) => parts.clone(),
        part => vec![part.clone()],
    };
    if parts.len() > KEYS_MAX {
        return Err(EsError::argument(format!("more than {KEYS_MAX} sort keys")));
    }
    let mut keys = Vec::with_capacity(parts.len());
    for part in &parts {
        match part {
            Value::String(text) => {
                let (name, order) = text.split_once(':').unwrap_or((text, ""));
                keys.push(key(name, &json!({ "order": order }), mapping)?);
            }
            Value::Object(object) => {
                for (name, options) in object {
                    let options = match options {
                        Value::String(order) => json!({ "order": order }),
                        options => options.clone(),
                    };
                    keys.push(key(name, &options, mapping)?);
                }
            }
            other => return Err(EsError::parsing(format!("sort cannot be {other}"))),
        }
    }
    // By score alone is what happens anyway.
    if let [SortKey { by: By::Score, descending: true, .. }] = keys.as_slice() {
        keys.clear();
    }
    Ok(keys)
}

/// Options of a key: those that are read, and `numeric_type`, which is looked at.
const OPTIONS: &[&str] = &["order", "mode", "missing", "unmapped_type", "format", "numeric_type"];

fn key(name: &str, options: &Value, mapping: &Mapping) -> Result<SortKey, EsError> {
    let by_score = name == "_score";
    check_options(by_score, options)?;
    let descending = match &options["order"] {
        Value::Null => by_score,
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "asc" => false,
            "desc" => true,
            "" => by_score,
            _ => return Err(EsError::argument(format!("No enum constant SortOrder.{text}"))),
        },
        other => return Err(EsError::argument(format!("No enum constant SortOrder.{other}"))),
    };
    let missing_first = match &options["missing"] {
        Value::Null => false,
        Value::String(text) if text == "_last" => false,
        Value::String(text) if text == "_first" => true,
        other => {
            return Err(EsError::argument(format!("[missing] is _first or _last, not {other}")));
        }
    };
    let (by, kind) = match (name, mapping.field(name)) {
        ("_score", _) => (By::Score, None),
        ("_doc" | "_shard_doc", _) => (By::Doc, None),
        (_, Some(field)) if field.kind == FieldKind::Text => {
            return Err(EsError::argument(format!(
                "Fielddata is disabled on [{name}]. Text fields are not optimised for operations \
                 that require per-document field data like aggregations and sorting. Please use \
                 [{name}.keyword] instead"
            )));
        }
        (_, Some(field)) => {
            (By::Column { inner: field.inner(), kind: field.kind }, Some(field.kind))
        }
        (ID, None) => (By::Column { inner: ID.into(), kind: FieldKind::Keyword }, None),
        (_, None) if options.get("unmapped_type").is_some() => (By::Nothing, None),
        (_, None) => {
            let reason = format!("No mapping found for [{name}] in order to sort on");
            return Err(EsError::shard(reason));
        }
    };
    let format = match (&options["format"], kind) {
        (Value::Null, _) | (_, None) => None,
        (Value::String(format), Some(FieldKind::Date)) => {
            Some(DateFormat::new(Some(format.as_str()), Zone::default())?)
        }
        (format, Some(kind)) => {
            return Err(EsError::argument(format!(
                "Field [{name}] of type [{}] does not support the [format] {format} in a sort",
                kind.word()
            )));
        }
    };
    if let (Some(wanted), Some(kind)) = (options["numeric_type"].as_str(), kind)
        && wanted != kind.word()
    {
        return Err(EsError::argument(format!(
            "[numeric_type] cannot be [{wanted}] for field [{name}] of type [{}]",
            kind.word()
        )));
    }
    let mode = mode_of(&options["mode"], descending, kind)?;
    Ok(SortKey { by, descending, missing_first, mode, format })
}

fn check_options(by_score: bool, options: &Value) -> Result<(), EsError> {
    let Some(members) = options.as_object() else {
        return Err(EsError::parsing(format!("[field_sort] cannot be {options}")));
    };
    let accepted = if by_score { &OPTIONS[..1] } else { OPTIONS };
    let parser = if by_score { "_score" } else { "field_sort" };
    let Some(other) = members.keys().find(|member| !accepted.contains(&member.as_str())) else {
        return Ok(());
    };
    if matches!(other.as_str(), "nested" | "nested_path" | "nested_filter") {
        let reason = format!("[{parser}] does not support [{other}]: no document is nested");
        return Err(EsError::argument(reason));
    }
    let reason = format!("[{parser}] unknown field [{other}]");
    Err(EsError::new(400, "x_content_parse_exception", reason))
}

/// The mode that is asked for; otherwise the value that comes first in the key's order.
fn mode_of(mode: &Value, descending: bool, kind: Option<FieldKind>) -> Result<Mode, EsError> {
    let mode = match mode {
        Value::Null => return Ok(if descending { Mode::Max } else { Mode::Min }),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "min" => Some(Mode::Min),
            "max" => Some(Mode::Max),
            "avg" => Some(Mode::Avg),
            "sum" => Some(Mode::Sum),
            "median" => Some(Mode::Median),
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| EsError::argument(format!("Unknown SortMode [{}]", unquoted(mode))))?;
    if kind.is_some_and(FieldKind::is_text_like) && !matches!(mode, Mode::Min | Mode::Max) {
        return Err(EsError::argument(
            "we only support AVG, MEDIAN and SUM on number based fields",
        ));
    }
    Ok(mode)
}

fn unquoted(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A hit's value of one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SortValue {
    Missing,
    Long(i64),
    Double(f64),
    Text(String),
}

impl SortValue {
    /// As `sort` of a hit shows it, and `search_after` takes it.
    pub(crate) fn show(&self, key: &SortKey) -> Value {
        match self {
            Self::Missing => Value::Null,
            Self::Long(ms) => match &key.format {
                Some(format) => format.show(ms.saturating_mul(1000)).into(),
                None => (*ms).into(),
            },
            Self::Double(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
        }
    }

    /// Reads one value of `search_after`.
    pub(crate) fn read(value: &Value, key: &SortKey) -> Result<Self, EsError> {
        let refuse = || EsError::argument(format!("[search_after] cannot be {value} here"));
        let long = || match value {
            Value::String(text) => text.parse().map_err(|_| refuse()),
            value => value.as_i64().ok_or_else(refuse),
        };
        if value.is_null() {
            return Ok(Self::Missing);
        }
        Ok(match &key.by {
            By::Nothing => Self::Missing,
            By::Doc => Self::Long(long()?),
            By::Score => Self::Double(value.as_f64().ok_or_else(refuse)?),
            By::Column { kind, .. } => match kind {
                FieldKind::Text | FieldKind::Keyword => {
                    Self::Text(value.as_str().ok_or_else(refuse)?.to_owned())
                }
                FieldKind::Double => Self::Double(value.as_f64().ok_or_else(refuse)?),
                FieldKind::Boolean => match value {
                    Value::Bool(flag) => Self::Long((*flag).into()),
                    _ => Self::Long(long()?),
                },
                FieldKind::Long => Self::Long(long()?),
                FieldKind::Date => match long() {
                    Ok(ms) => Self::Long(ms),
                    Err(_) => Self::Long(DateReader::default().read(value)?.first / 1000),
                },
            },
        })
    }

    fn compare(&self, other: &Self, key: &SortKey) -> Ordering {
        let missing = if key.missing_first { Ordering::Less } else { Ordering::Greater };
        let order = match (self, other) {
            (Self::Missing, Self::Missing) => return Ordering::Equal,
            (Self::Missing, _) => return missing,
            (_, Self::Missing) => return missing.reverse(),
            (Self::Long(a), Self::Long(b)) => a.cmp(b),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        if key.descending { order.reverse() } else { order }
    }
}

/// A hit, and what it was sorted by.
#[derive(Clone, Debug)]
pub(crate) struct SortedHit {
    pub(crate) address: DocAddress,
    pub(crate) score: Score,
    pub(crate) values: Vec<SortValue>,
}

/// Keeps the first `limit` hits by some keys.
pub(crate) struct SortCollector {
    pub(crate) keys: Vec<SortKey>,
    pub(crate) limit: usize,
    pub(crate) after: Option<Vec<SortValue>>,
    pub(crate) scored: bool,
    /// Hits with a lower score are none.
    pub(crate) least_score: Option<Score>,
}

/// The first hits, and how many there are in all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sorted {
    pub(crate) hits: Vec<SortedHit>,
    pub(crate) total: usize,
}

/// Where a segment's values of one key come from.
enum Values {
    Score,
    Doc,
    Nothing,
    /// Numbers in the order of their column's 64 bits.
    Number(Column<u64>, FieldKind),
    Text(Option<StrColumn>),
}

/// A value inside a segment: a rank that is the same for equal values, smaller for those that come
/// first.
type Ranks = Vec<(u8, u64)>;

pub(crate) struct SortSegment {
    keys: Vec<SortKey>,
    values: Vec<Values>,
    limit: usize,
    /// What hits must come after, in this segment's ranks.
    after: Option<Ranks>,
    /// The last of those kept so far is on top.
    kept: BinaryHeap<(Ranks, DocId, u32)>,
    ranks: Ranks,
    segment: SegmentOrdinal,
    least_score: Option<Score>,
    total: usize,
}

impl Collector for SortCollector {
    type Fruit = Sorted;
    type Child = SortSegment;

    fn for_segment(
        &self,
        segment: SegmentOrdinal,
        reader: &SegmentReader,
    ) -> tantivy::Result<SortSegment> {
        let mut values = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            values.push(match &key.by {
                By::Score => Values::Score,
                By::Doc => Values::Doc,
                By::Nothing => Values::Nothing,
                By::Column { inner, kind } if kind.is_text_like() => {
                    Values::Text(reader.fast_fields().str(inner)?)
                }
                By::Column { inner, kind } => match reader.fast_fields().u64_lenient(inner)? {
                    Some((column, _)) => Values::Number(column, *kind),
                    None => Values::Nothing,
                },
            });
        }
        let mut child = SortSegment {
            keys: self.keys.clone(),
            values,
            limit: self.limit,
            after: None,
            kept: BinaryHeap::new(),
            ranks: Vec::with_capacity(self.keys.len()),
            segment,
            least_score: self.least_score,
            total: 0,
        };
        if let Some(after) = &self.after {
            child.after = Some(child.ranks_of(after)?);
        }
        Ok(child)
    }

    fn requires_scoring(&self) -> bool {
        self.scored || self.keys.iter().any(|key| key.by == By::Score)
    }

    fn merge_fruits(&self, children: Vec<tantivy::Result<Sorted>>) -> tantivy::Result<Sorted> {
        let mut hits = Vec::new();
        let mut total = 0;
        for child in children {
            let child = child?;
            total += child.total;
            hits.extend(child.hits);
        }
        hits.sort_by(|a: &SortedHit, b| {
            let keys = self.keys.iter().enumerate();
            let order = keys.fold(Ordering::Equal, |order, (i, key)| {
                order.then_with(|| a.values[i].compare(&b.values[i], key))
            });
            order.then_with(|| a.address.cmp(&b.address))
        });
        hits.truncate(self.limit);
        Ok(Sorted { hits, total })
    }
}

impl SegmentCollector for SortSegment {
    type Fruit = tantivy::Result<Sorted>;

    fn collect(&mut self, doc: DocId, score: Score) {
        if self.least_score.is_some_and(|least| score < least) {
            return;
        }
        self.total += 1;
        let mut ranks = std::mem::take(&mut self.ranks);
        ranks.clear();
        for (key, values) in self.keys.iter().zip(&self.values) {
            let value = self.value(key, values, doc, score);
            ranks.push(rank(key, value));
        }
        self.ranks = ranks;
        if self.after.as_ref().is_some_and(|after| self.ranks <= *after) {
            return;
        }
        if self.kept.len() < self.limit {
            self.kept.push((self.ranks.clone(), doc, score.to_bits()));
        } else if let Some(mut last) = self.kept.peek_mut()
            && self.ranks < last.0
        {
            *last = (self.ranks.clone(), doc, score.to_bits());
        }
    }

    fn harvest(mut self) -> tantivy::Result<Sorted> {
        let kept = std::mem::take(&mut self.kept).into_sorted_vec();
        let hits = kept.into_iter().map(|(ranks, doc, score)| {
            let values = ranks.iter().zip(&self.keys).zip(&self.values);
            let values = values.map(|((rank, key), values)| shown(*rank, key, values));
            Ok(SortedHit {
                address: DocAddress::new(self.segment, doc),
                score: Score::from_bits(score),
                values: values.collect::<tantivy::Result<_>>()?,
            })
        });
        Ok(Sorted { hits: hits.collect::<tantivy::Result<_>>()?, total: self.total })
    }
}

fn rank(key: &SortKey, value: Option<u64>) -> (u8, u64) {
    match value {
        None => (if key.missing_first { 0 } else { 2 }, 0),
        Some(value) if key.descending => (1, !value),
        Some(value) => (1, value),
    }
}

/// The least or the greatest.
fn foremost(key: &SortKey, mut values: impl Iterator<Item = u64>) -> Option<u64> {
    match key.mode {
        Mode::Min => values.min(),
        Mode::Max => values.max(),
        // Only numbers have these, and go another way.
        Mode::Avg | Mode::Sum | Mode::Median => values.next(),
    }
}

/// The bits of the number that stands for some, which are given by theirs. Dates are in
/// nanoseconds and stay so.
fn number(key: &SortKey, kind: FieldKind, values: impl Iterator<Item = u64>) -> Option<u64> {
    if matches!(key.mode, Mode::Min | Mode::Max) {
        return foremost(key, values);
    }
    match kind {
        FieldKind::Double => {
            let mut numbers: Vec<f64> = values.map(tantivy::u64_to_f64).collect();
            numbers.sort_by(f64::total_cmp);
            Some(bits(of_doubles(key.mode, &numbers)?))
        }
        FieldKind::Boolean => {
            let mut numbers: Vec<i64> = values.map(|value| value as i64).collect();
            numbers.sort_unstable();
            Some(of_longs(key.mode, &numbers)? as u64)
        }
        FieldKind::Date => {
            let ms = |value| tantivy::u64_to_i64(value).div_euclid(NANOS_PER_MS);
            let mut numbers: Vec<i64> = values.map(ms).collect();
            numbers.sort_unstable();
            let ms = of_longs(key.mode, &numbers)?;
            Some(tantivy::i64_to_u64(ms.saturating_mul(NANOS_PER_MS)))
        }
        _ => {
            let mut numbers: Vec<i64> = values.map(tantivy::u64_to_i64).collect();
            numbers.sort_unstable();
            Some(tantivy::i64_to_u64(of_longs(key.mode, &numbers)?))
        }
    }
}

/// One number for some that are in order.
fn of_doubles(mode: Mode, numbers: &[f64]) -> Option<f64> {
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    let sum = || numbers.iter().sum::<f64>();
    Some(match mode {
        Mode::Min => first,
        Mode::Max => last,
        Mode::Sum => sum(),
        Mode::Avg => sum() / numbers.len() as f64,
        Mode::Median => {
            let (low, high) = middle(numbers)?;
            if numbers.len().is_multiple_of(2) { low / 2.0 + high / 2.0 } else { low }
        }
    })
}

/// As [`of_doubles`]; halves are rounded up, as Java does.
fn of_longs(mode: Mode, numbers: &[i64]) -> Option<i64> {
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    let sum = || numbers.iter().map(|number| i128::from(*number)).sum::<i128>();
    let rounded = |sum: i128, count: i128| (2 * sum + count).div_euclid(2 * count);
    let number = match mode {
        Mode::Min => i128::from(first),
        Mode::Max => i128::from(last),
        Mode::Sum => sum(),
        Mode::Avg => rounded(sum(), numbers.len() as i128),
        Mode::Median => {
            let (low, high) = middle(numbers)?;
            rounded(i128::from(low) + i128::from(high), 2)
        }
    };
    Some(number.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// The two numbers in the middle; twice the same if their count is odd.
fn middle<T: Copy>(numbers: &[T]) -> Option<(T, T)> {
    let half = numbers.len() / 2;
    let high = *numbers.get(half)?;
    let low =
        if numbers.len().is_multiple_of(2) { *numbers.get(half.checked_sub(1)?)? } else { high };
    Some((low, high))
}

fn place(segment: SegmentOrdinal, doc: DocId) -> u64 {
    u64::from(segment) << 32 | u64::from(doc)
}

/// 64 bits that compare as the number does.
fn bits(number: f64) -> u64 {
    tantivy::f64_to_u64(number)
}

impl SortSegment {
    /// Of several values, as arrays have, the one that comes first in the key's order.
    fn value(&self, key: &SortKey, values: &Values, doc: DocId, score: Score) -> Option<u64> {
        match values {
            Values::Score => Some(bits(score.into())),
            Values::Doc => Some(place(self.segment, doc)),
            Values::Nothing => None,
            Values::Number(column, FieldKind::Date) => {
                let nanos = number(key, FieldKind::Date, column.values_for_doc(doc))?;
                let nanos = tantivy::u64_to_i64(nanos);
                Some(tantivy::i64_to_u64(nanos.div_euclid(NANOS_PER_MS)))
            }
            Values::Number(column, kind) => number(key, *kind, column.values_for_doc(doc)),
            Values::Text(column) => {
                foremost(key, column.as_ref()?.ords().values_for_doc(doc)).map(rank_of_term)
            }
        }
    }

    /// The ranks that the values have, or would have, in this segment.
    fn ranks_of(&self, after: &[SortValue]) -> tantivy::Result<Ranks> {
        let mut ranks = Ranks::with_capacity(after.len());
        for ((value, key), values) in after.iter().zip(&self.keys).zip(&self.values) {
            let value = match (value, values) {
                (SortValue::Missing, _) => None,
                (SortValue::Long(place), Values::Doc) => Some(*place as u64),
                (SortValue::Long(flag), Values::Number(_, FieldKind::Boolean)) => {
                    Some(*flag as u64)
                }
                (SortValue::Long(number), _) => Some(tantivy::i64_to_u64(*number)),
                (SortValue::Double(number), _) => Some(bits(*number)),
                (SortValue::Text(text), Values::Text(Some(column))) => {
                    Some(match column.dictionary().term_ord_or_next(text.as_bytes())? {
                        TermOrdHit::Exact(ord) => rank_of_term(ord),
                        TermOrdHit::Next(ord) => rank_of_term(ord) - 1,
                    })
                }
                (SortValue::Text(_), _) => None,
            };
            ranks.push(rank(key, value));
        }
        Ok(ranks)
    }
}

/// Terms have odd ranks: what lies between two of them has an even one.
fn rank_of_term(ord: u64) -> u64 {
    ord * 2 + 1
}

/// A rank as the value it stands for.
fn shown(rank: (u8, u64), key: &SortKey, values: &Values) -> tantivy::Result<SortValue> {
    let (1, value) = rank else { return Ok(SortValue::Missing) };
    let value = if key.descending { !value } else { value };
    Ok(match values {
        Values::Score => SortValue::Double(tantivy::u64_to_f64(value)),
        Values::Doc => SortValue::Long(value as i64),
        Values::Nothing => SortValue::Missing,
        Values::Number(_, FieldKind::Double) => SortValue::Double(tantivy::u64_to_f64(value)),
        Values::Number(_, FieldKind::Boolean) => SortValue::Long(value as i64),
        Values::Number(..) => SortValue::Long(tantivy::u64_to_i64(value)),
        Values::Text(column) => {
            let mut text = String::new();
            if let Some(column) = column {
                column.ord_to_str(value / 2, &mut text)?;
            }
            SortValue::Text(text)
        }
    })
}

/// By falling score.
pub(crate) fn by_score() -> SortKey {
    let mode = Mode::Max;
    SortKey { by: By::Score, descending: true, missing_first: false, mode, format: None }
}
