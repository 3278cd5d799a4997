//! Session windows: rows of a key whose times lie closer than the gap share a session.
//!
//! Owns: the rows by key and time, and where their sessions begin and end.
//!
//! A tick looks at the sessions next to the times it touches. One whose ends stay only gains or
//! loses the tick's rows; one that grows, splits or merges is retracted and put out anew.
//!
//! Invariants
//! - `Group::sessions` is what the times in `Group::rows` give, between ticks.
//! - A late row is as good as any: it lands in its session, which may merge two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, PrimitiveArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use evert_model::Delta;
use hashbrown::HashMap;

use crate::FoldError;
use crate::dataflow::RowError;
use crate::keys::KeyCodec;
use crate::row_text::row_text;
use crate::rows::{batch_of, columns_of};
use crate::state::{StateError, StateSink, Stateful};

/// Rows are put out in batches of so many.
const OUTPUT_ROWS: usize = 16 * 1024;
/// What a row costs beside its bytes, about; a time of its own included.
const ROW_BYTES: usize = 112;

type Row = Box<[u8]>;
/// Rows by time, with their weights.
type Rows = BTreeMap<i64, BTreeMap<Row, i64>>;

#[derive(Debug)]
pub(crate) struct Session {
    keys: Vec<usize>,
    time: usize,
    gap: i64,
    schema: SchemaRef,
    key_codec: KeyCodec,
    row_codec: KeyCodec,
    groups: HashMap<Row, Group>,
    row_bytes: usize,
    rows: usize,
    /// The state's entries that have changed since the last save, if anyone wants to know.
    dirty: Option<BTreeSet<Row>>,
}

#[derive(Debug, Default)]
struct Group {
    rows: Rows,
    /// First time to last time.
    sessions: BTreeMap<i64, i64>,
}

impl Session {
    pub(crate) fn new(
        input: &SchemaRef,
        keys: Vec<usize>,
        time: usize,
        gap: i64,
        schema: SchemaRef,
    ) -> Result<Self, FoldError> {
        let ty = input.field(time).data_type();
        if !matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return Err(FoldError::InvalidPlan(format!("sessions by a column of {ty}")));
        }
        let width = input.fields().len();
        let ends = schema.fields().iter().skip(width);
        if schema.fields().len() != width + 2 || !ends.clone().all(|end| end.data_type() == ty) {
            return Err(FoldError::InvalidPlan("sessions without their two ends".to_owned()));
        }
        Ok(Self {
            key_codec: KeyCodec::new(keys.iter().map(|&key| input.field(key).data_type()))?,
            row_codec: KeyCodec::of_schema(input)?,
            keys,
            time,
            gap,
            schema,
            groups: HashMap::new(),
            row_bytes: 0,
            rows: 0,
            dirty: None,
        })
    }

    pub(crate) fn tick(&mut self, input: &[Delta], errors: &mut Vec<RowError>) -> Vec<Delta> {
        let mut changes: BTreeMap<Row, Rows> = BTreeMap::new();
        for delta in input {
            self.collect(delta, &mut changes, errors);
        }
        let mut out = Output { deltas: Vec::new(), gap: self.gap, ..Output::default() };
        for (key, mut changes) in changes {
            changes.retain(|_, rows| {
                rows.retain(|_, weight| *weight != 0);
                !rows.is_empty()
            });
            let mut group = self.groups.remove(&key).unwrap_or_default();
            self.apply(&key, &mut group, &changes);
            let mut put = |row: &[u8], session, weight| {
                out.push(row, session, weight);
                if out.weights.len() >= OUTPUT_ROWS {
                    out.flush(&self.row_codec, &self.schema);
                }
            };
            group.resettle(&changes, self.gap, &mut put);
            if !group.rows.is_empty() {
                self.groups.insert(key, group);
            }
        }
        out.flush(&self.row_codec, &self.schema);
        out.deltas
    }

    /// Adds up the changes of rows, by key and time.
    fn collect(
        &self,
        delta: &Delta,
        changes: &mut BTreeMap<Row, Rows>,
        errors: &mut Vec<RowError>,
    ) {
        let times = delta.rows.column(self.time).as_primitive::<TimestampMicrosecondType>();
        let keys = columns_of(&delta.rows, &self.keys);
        let keys = self.key_codec.encode_normalised(&keys, delta.len());
        let rows = self.row_codec.encode(delta.rows.columns(), delta.len());
        for (row, time) in times.iter().enumerate() {
            let Some(time) = time else { continue };
            let weight = delta.weights.value(row);
            if time.checked_add(self.gap).is_none() || time.checked_sub(self.gap).is_none() {
                let reason = "the session's end is out of range".to_owned();
                errors.push(RowError { reason, row: row_text(&delta.rows, row), weight });
                continue;
            }
            let of_key = changes.entry(keys.get(row).into()).or_default();
            *of_key.entry(time).or_default().entry(rows.get(row).into()).or_default() += weight;
        }
    }

    /// Changes the group's rows, not its sessions.
    fn apply(&mut self, key: &[u8], group: &mut Group, changes: &Rows) {
        for (time, rows) in changes {
            let at_time = group.rows.entry(*time).or_default();
            for (row, change) in rows {
                if let Some(dirty) = &mut self.dirty {
                    dirty.insert(entry_of(key, *time, row));
                }
                let weight = at_time.get(row).copied().unwrap_or_default() + change;
                let is_new = match weight {
                    0 => at_time.remove(row).map(|_| false),
                    _ => at_time.insert(row.clone(), weight).is_none().then_some(true),
                };
                match is_new {
                    Some(true) => {
                        (self.rows, self.row_bytes) = (self.rows + 1, self.row_bytes + row.len())
                    }
                    Some(false) => {
                        (self.rows, self.row_bytes) = (self.rows - 1, self.row_bytes - row.len())
                    }
                    None => {}
                }
            }
            if at_time.is_empty() {
                group.rows.remove(time);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.rows * ROW_BYTES + self.row_bytes + self.groups.allocation_size()
    }
}

impl Group {
    /// Finds the sessions again around the times that have changed, and puts out what that
    /// changes. The changes are in the rows already.
    fn resettle(&mut self, changes: &Rows, gap: i64, put: &mut impl FnMut(&[u8], (i64, i64), i64)) {
        let mut touched: BTreeSet<(i64, i64)> = changes.keys().map(|time| (*time, *time)).collect();
        for time in changes.keys() {
            touched.extend(self.sessions_near(*time, gap));
        }
        for (first, last) in merged(touched.into_iter(), gap) {
            let before: BTreeMap<i64, i64> =
                self.sessions.range(first..=last).map(|(s, e)| (*s, *e)).collect();
            // Where no time has gone, all that was touched is one session now.
            let is_whole =
                changes.range(first..=last).all(|(time, _)| self.rows.contains_key(time));
            let after: BTreeMap<i64, i64> = match is_whole {
                true => BTreeMap::from([(first, last)]),
                false => sessions_of(self.rows.range(first..=last).map(|(t, _)| *t), gap).collect(),
            };
            for (&first, &last) in &before {
                if after.get(&first) == Some(&last) {
                    each(changes, (first, last), |row, weight| put(row, (first, last), weight));
                } else {
                    // What was there is what is there without the changes.
                    each(&self.rows, (first, last), |row, w| put(row, (first, last), -w));
                    each(changes, (first, last), |row, weight| put(row, (first, last), weight));
                    self.sessions.remove(&first);
                }
            }
            for (first, last) in after {
                if before.get(&first) != Some(&last) {
                    each(&self.rows, (first, last), |row, weight| put(row, (first, last), weight));
                    self.sessions.insert(first, last);
                }
            }
        }
    }

    /// The sessions that a time lies in or closer to than the gap: two at most.
    fn sessions_near(&self, time: i64, gap: i64) -> impl Iterator<Item = (i64, i64)> {
        let before = self.sessions.range(..=time).next_back();
        let before = before.filter(|(_, last)| time - **last < gap);
        let after = self.sessions.range(time..).next();
        let after = after.filter(|(first, _)| **first - time < gap);
        before.into_iter().chain(after).map(|(first, last)| (*first, *last))
    }
}

fn each(rows: &Rows, (first, last): (i64, i64), mut visit: impl FnMut(&[u8], i64)) {
    for (row, weight) in rows.range(first..=last).flat_map(|(_, rows)| rows) {
        visit(row, *weight);
    }
}

fn sessions_of(times: impl Iterator<Item = i64>, gap: i64) -> impl Iterator<Item = (i64, i64)> {
    merged(times.map(|time| (time, time)), gap)
}

/// Spans in the order of their beginnings, those closer than the gap made one.
fn merged(
    mut spans: impl Iterator<Item = (i64, i64)>,
    gap: i64,
) -> impl Iterator<Item = (i64, i64)> {
    let mut current = spans.next();
    std::iter::from_fn(move || {
        let (first, mut last) = current.take()?;
        for (next_first, next_last) in spans.by_ref() {
            if next_first.saturating_sub(last) >= gap {
                current = Some((next_first, next_last));
                break;
            }
            last = last.max(next_last);
        }
        Some((first, last))
    })
}

/// Rows on their way out, each with the ends of its session.
#[derive(Default)]
struct Output {
    gap: i64,
    bytes: Vec<u8>,
    row_ends: Vec<usize>,
    starts: Vec<i64>,
    ends: Vec<i64>,
    weights: Vec<i64>,
    deltas: Vec<Delta>,
}

impl Output {
    fn push(&mut self, row: &[u8], (first, last): (i64, i64), weight: i64) {
        self.bytes.extend_from_slice(row);
        self.row_ends.push(self.bytes.len());
        self.starts.push(first);
        self.ends.push(last + self.gap);
        self.weights.push(weight);
    }

    fn flush(&mut self, codec: &KeyCodec, schema: &SchemaRef) {
        if self.weights.is_empty() {
            return;
        }
        let starts = std::iter::once(0).chain(self.row_ends.iter().copied());
        let rows = starts.zip(&self.row_ends).map(|(start, end)| &self.bytes[start..*end]);
        let mut columns = codec.decode(rows);
        let ty = schema.field(schema.fields().len() - 1).data_type();
        let ends = [std::mem::take(&mut self.starts), std::mem::take(&mut self.ends)];
        columns.extend(ends.map(|times| -> ArrayRef {
            let times = PrimitiveArray::<TimestampMicrosecondType>::from(times);
            Arc::new(times.with_data_type(ty.clone()))
        }));
        let weights = std::mem::take(&mut self.weights);
        let rows = batch_of(schema, columns, weights.len());
        self.deltas.push(Delta::new(rows, Int64Array::from(weights)));
        self.bytes.clear();
        self.row_ends.clear();
    }
}

const LENGTH_BYTES: usize = 4;
const TIME_BYTES: usize = 8;

fn entry_of(key: &[u8], time: i64, row: &[u8]) -> Row {
    let length = u32::try_from(key.len()).expect("keys are far smaller than 4 GB");
    [&length.to_be_bytes(), key, &time.to_be_bytes(), row].concat().into_boxed_slice()
}

/// The parts of an entry's key: the session's key, time and row.
fn parts_of(entry: &[u8]) -> Option<(&[u8], i64, &[u8])> {
    let (length, rest) = entry.split_first_chunk::<LENGTH_BYTES>()?;
    let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (time, row) = rest.split_first_chunk::<TIME_BYTES>()?;
    Some((key, i64::from_be_bytes(*time), row))
}

/// Entries: key, time and row, to the weight.
impl Stateful for Session {
    fn track(&mut self) {
        self.dirty.get_or_insert_default();
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        let Some(dirty) = &mut self.dirty else { return };
        for entry in std::mem::take(dirty) {
            let (key, time, row) = parts_of(&entry).expect("it was made here");
            let group = self.groups.get(key).and_then(|group| group.rows.get(&time));
            match group.and_then(|rows| rows.get(row)) {
                Some(weight) => sink.put(&entry, &weight.to_le_bytes()),
                None => sink.delete(&entry),
            }
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let malformed = || StateError("an entry of a session window is malformed".to_owned());
        let (key, time, row) = parts_of(key).ok_or_else(malformed)?;
        let weight = <[u8; 8]>::try_from(value).map_err(|_| malformed())?;
        let weight = i64::from_le_bytes(weight);
        self.rows += 1;
        self.row_bytes += row.len();
        let group = self.groups.entry_ref(key).or_default();
        group.rows.entry(time).or_default().insert(row.into(), weight);
        Ok(())
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        for group in self.groups.values_mut() {
            group.sessions = sessions_of(group.rows.keys().copied(), self.gap).collect();
        }
        Ok(())
    }
}
