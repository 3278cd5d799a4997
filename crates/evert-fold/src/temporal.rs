//! Temporal filter: rows that are there while log time is in their interval.
//!
//! Owns: which rows are yet to come and which are to leave, in the order of time.
//! Not here: what time it is; each tick says so.
//!
//! Invariants
//! - What has been put out so far sums to the rows whose interval holds the last tick's time,
//!   however the way there was cut into ticks.
//! - A row is held before its interval and in it, never after: what is late for good costs
//!   nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use evert_model::{Delta, LogTime};

use crate::FoldError;
use crate::dataflow::RowError;
use crate::journal::Journal;
use crate::keys::KeyCodec;
use crate::project::Projection;
use crate::rows::{batch_of, take_rows};
use crate::state::{StateError, StateSink, Stateful};

/// Rows that come and go by themselves are put out in batches of so many.
const OUTPUT_ROWS: usize = 16 * 1024;
/// What a B-tree's entry costs beside its key's bytes, about.
const ENTRY_BYTES: usize = 64;

/// A moment, in bytes that compare as moments do, and the row's bytes.
type Moment = Box<[u8]>;

#[derive(Debug)]
pub(crate) struct TemporalFilter {
    schema: SchemaRef,
    codec: KeyCodec,
    /// The input's columns, then a column for each bound there is.
    bounds: Projection,
    has_from: bool,
    has_until: bool,
    /// Rows by the moment from which they are there.
    coming: BTreeMap<Moment, Coming>,
    /// Rows that are there, by the first moment at which they are not; with their weights.
    leaving: BTreeMap<Moment, i64>,
    key_bytes: usize,
    /// What has changed since the last save, if anyone wants to know.
    changed: Option<Journal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Coming {
    until: Option<i64>,
    weight: i64,
}

impl TemporalFilter {
    pub(crate) fn new(
        schema: SchemaRef,
        from: Option<&Arc<dyn PhysicalExpr>>,
        until: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Result<Self, FoldError> {
        let mut fields: Vec<Field> =
            schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let mut exprs: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(fields.len() + 2);
        for (index, field) in fields.iter().enumerate() {
            exprs.push(Arc::new(Column::new(field.name(), index)));
        }
        for (name, bound) in [("from", from), ("until", until)] {
            let Some(bound) = bound else { continue };
            check_type(bound, &schema)?;
            fields.push(Field::new(name, DataType::Int64, true));
            exprs.push(Arc::clone(bound));
        }
        Ok(Self {
            codec: KeyCodec::of_schema(&schema)?,
            bounds: Projection::new(None, exprs, Arc::new(Schema::new(fields))),
            schema,
            has_from: from.is_some(),
            has_until: until.is_some(),
            coming: BTreeMap::new(),
            leaving: BTreeMap::new(),
            key_bytes: 0,
            changed: None,
        })
    }

    pub(crate) fn tick(
        &mut self,
        now: LogTime,
        input: &[Delta],
        errors: &mut Vec<RowError>,
    ) -> Vec<Delta> {
        let now = now.get();
        let mut out = Vec::new();
        for delta in input {
            if let Some(bounded) = self.bounds.apply(delta, errors) {
                out.extend(self.take(now, &bounded));
            }
        }
        self.pass_time(now, &mut out);
        out
    }

    /// The next moment at which rows come or go.
    pub(crate) fn due(&self) -> Option<LogTime> {
        let coming = self.coming.first_key_value().map(|(moment, _)| time_of(moment));
        let leaving = self.leaving.first_key_value().map(|(moment, _)| time_of(moment));
        coming.into_iter().chain(leaving).min().map(LogTime::new)
    }

    pub(crate) fn len(&self) -> usize {
        self.coming.len() + self.leaving.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let changed = self.changed.as_ref().map_or(0, Journal::memory_bytes);
        self.len() * ENTRY_BYTES + self.key_bytes + changed
    }

    /// Keeps the rows that come or go later, and gives those that are there now.
    fn take(&mut self, now: i64, bounded: &Delta) -> Option<Delta> {
        let width = self.schema.fields().len();
        let columns: Vec<ArrayRef> = bounded.rows.columns()[..width].to_vec();
        let rows = batch_of(&self.schema, columns, bounded.len());
        let mut bounds = bounded.rows.columns()[width..].iter();
        let from = self.has_from.then(|| bounds.next()).flatten().map(times);
        let until = self.has_until.then(|| bounds.next()).flatten().map(times);
        let is_null = |times: &Option<&Int64Array>, row| times.is_some_and(|t| t.is_null(row));
        let later: Vec<u32> = (0..bounded.len() as u32)
            .filter(|&row| {
                let row = row as usize;
                let is_over = until.is_some_and(|until| until.value(row) <= now);
                let is_nothing = bounded.weights.value(row) == 0;
                !is_null(&from, row) && !is_null(&until, row) && !is_over && !is_nothing
            })
            .collect();
        if later.is_empty() {
            return None;
        }
        let later = UInt32Array::from(later);
        let rows = take_rows(&rows, &later);
        let keys = self.codec.encode(rows.columns(), rows.num_rows());
        let mut there = Vec::new();
        for (index, row) in later.values().iter().map(|row| *row as usize).enumerate() {
            let weight = bounded.weights.value(row);
            // What leaves at the end of time stays.
            let until = until.map(|until| until.value(row)).filter(|until| *until < i64::MAX);
            match from.map(|from| from.value(row)).filter(|from| *from > now) {
                // What comes at the end of time does not come.
                Some(i64::MAX) => {}
                Some(from) if until.is_some_and(|until| until <= from) => {}
                Some(from) => self.comes(moment(from, keys.get(index)), until, weight),
                None => {
                    there.push((index as u32, weight));
                    if let Some(until) = until {
                        self.leaves(moment(until, keys.get(index)), weight);
                    }
                }
            }
        }
        let weights = Int64Array::from_iter_values(there.iter().map(|(_, weight)| *weight));
        let there = UInt32Array::from_iter_values(there.iter().map(|(index, _)| *index));
        (!there.is_empty()).then(|| Delta::new(take_rows(&rows, &there), weights))
    }

    fn comes(&mut self, moment: Moment, until: Option<i64>, weight: i64) {
        let bytes = moment.len();
        match self.coming.entry(moment) {
            Entry::Vacant(entry) => {
                self.key_bytes += bytes;
                let coming = Coming { until, weight };
                note(&mut self.changed, TAG_COMING, entry.key(), &coming.value());
                entry.insert(coming);
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().weight += weight;
                let coming = *entry.get();
                if coming.weight == 0 {
                    note(&mut self.changed, TAG_COMING, entry.key(), GONE);
                    self.key_bytes -= bytes;
                    entry.remove();
                } else {
                    note(&mut self.changed, TAG_COMING, entry.key(), &coming.value());
                }
            }
        }
    }

    fn leaves(&mut self, moment: Moment, weight: i64) {
        let bytes = moment.len();
        match self.leaving.entry(moment) {
            Entry::Vacant(entry) => {
                self.key_bytes += bytes;
                note(&mut self.changed, TAG_LEAVING, entry.key(), &weight.to_le_bytes());
                entry.insert(weight);
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += weight;
                let weight = *entry.get();
                if weight == 0 {
                    note(&mut self.changed, TAG_LEAVING, entry.key(), GONE);
                    self.key_bytes -= bytes;
                    entry.remove();
                } else {
                    note(&mut self.changed, TAG_LEAVING, entry.key(), &weight.to_le_bytes());
                }
            }
        }
    }

    /// Puts out the rows whose interval has begun, and retracts those whose interval is over.
    fn pass_time(&mut self, now: i64, out: &mut Vec<Delta>) {
        let mut changes = Changes::default();
        while let Some(entry) = self.coming.first_entry()
            && time_of(entry.key()) <= now
        {
            let (moment_from, coming) = entry.remove_entry();
            self.key_bytes -= moment_from.len();
            note(&mut self.changed, TAG_COMING, &moment_from, GONE);
            let row = &moment_from[TIME_BYTES..];
            match coming.until {
                // It came and went between two ticks.
                Some(until) if until <= now => continue,
                Some(until) => self.leaves(moment(until, row), coming.weight),
                None => {}
            }
            changes.push(row, coming.weight);
            if changes.weights.len() >= OUTPUT_ROWS {
                out.push(changes.take(&self.codec, &self.schema));
            }
        }
        while let Some(entry) = self.leaving.first_entry()
            && time_of(entry.key()) <= now
        {
            let (moment, weight) = entry.remove_entry();
            self.key_bytes -= moment.len();
            note(&mut self.changed, TAG_LEAVING, &moment, GONE);
            changes.push(&moment[TIME_BYTES..], -weight);
            if changes.weights.len() >= OUTPUT_ROWS {
                out.push(changes.take(&self.codec, &self.schema));
            }
        }
        if !changes.weights.is_empty() {
            out.push(changes.take(&self.codec, &self.schema));
        }
    }
}

/// Rows as bytes, with weights, on their way out.
#[derive(Default)]
struct Changes {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    weights: Vec<i64>,
}

impl Changes {
    fn push(&mut self, row: &[u8], weight: i64) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
        self.weights.push(weight);
    }

    fn take(&mut self, codec: &KeyCodec, schema: &SchemaRef) -> Delta {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let rows = starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end]);
        let rows = batch_of(schema, codec.decode(rows), self.weights.len());
        self.bytes.clear();
        self.ends.clear();
        Delta::new(rows, Int64Array::from(std::mem::take(&mut self.weights)))
    }
}

fn check_type(bound: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<(), FoldError> {
    let ty = bound.data_type(schema).map_err(|e| FoldError::InvalidPlan(e.to_string()))?;
    match ty {
        DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(()),
        other => Err(FoldError::InvalidPlan(format!("a bound in time that is {other}"))),
    }
}

fn times(column: &ArrayRef) -> &Int64Array {
    column.as_primitive::<Int64Type>()
}

const TIME_BYTES: usize = 8;

fn moment(time: i64, row: &[u8]) -> Moment {
    let mut bytes = Vec::with_capacity(TIME_BYTES + row.len());
    bytes.extend_from_slice(&(time ^ i64::MIN).to_be_bytes());
    bytes.extend_from_slice(row);
    bytes.into_boxed_slice()
}

fn time_of(moment: &[u8]) -> i64 {
    let bytes = moment.first_chunk().expect("a moment begins with its time");
    i64::from_be_bytes(*bytes) ^ i64::MIN
}

const TAG_COMING: u8 = 0;
const TAG_LEAVING: u8 = 1;

/// The value of an entry that is not there any more.
const GONE: &[u8] = &[];

fn note(changed: &mut Option<Journal>, tag: u8, moment: &[u8], value: &[u8]) {
    if let Some(changed) = changed {
        changed.note(tag, moment, value);
    }
}

impl Coming {
    /// As it is saved: its weight, then its end if it has one.
    fn value(&self) -> Vec<u8> {
        let mut value = self.weight.to_le_bytes().to_vec();
        value.extend(self.until.iter().flat_map(|until| until.to_le_bytes()));
        value
    }
}

/// Entries: a tag and a moment, to the weight; of rows yet to come, also to their end if they
/// have one.
impl Stateful for TemporalFilter {
    fn track(&mut self) {
        self.changed.get_or_insert_default();
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        if let Some(changed) = &mut self.changed {
            changed.save(sink);
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let malformed = || StateError("an entry of a temporal filter is malformed".to_owned());
        let (tag, moment) = key.split_first().ok_or_else(malformed)?;
        let number = |bytes: Option<&[u8; 8]>| bytes.map(|b| i64::from_le_bytes(*b));
        let weight = number(value.first_chunk()).ok_or_else(malformed)?;
        let rest = &value[TIME_BYTES..];
        if moment.len() < TIME_BYTES || !(rest.is_empty() || rest.len() == TIME_BYTES) {
            return Err(malformed());
        }
        match *tag {
            TAG_LEAVING => {
                self.leaving.insert(moment.into(), weight);
            }
            TAG_COMING => {
                let until = number(rest.first_chunk());
                self.coming.insert(moment.into(), Coming { until, weight });
            }
            _ => return Err(malformed()),
        }
        self.key_bytes += moment.len();
        Ok(())
    }
}
