//! Window functions: each partition a sorted list of rows with what its functions gave.
//!
//! A tick computes each partition that it touches anew, and puts out the rows whose results are
//! others than before. A partition whose functions fail (an overflow) has no rows, and is a
//! [`RowError`] for as long as they do.
//!
//! Invariants
//! - A partition's rows are in order, ties by whole-row bytes, a row that is there twice beside
//!   itself: results are a function of the rows.
//! - Results are of the rows that are held, one for each; or not known, after a load.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DynComparator, Int64Array, make_comparator, new_empty_array};
use arrow::compute::{SortOptions, cast, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_physical_expr::window::WindowExpr;
use evert_model::Delta;
use hashbrown::HashSet;

use crate::FoldError;
use crate::dataflow::RowError;
use crate::key_index::KeyIndex;
use crate::keys::normalise;
use crate::ordered_rows::{OrderedRows, entry_of, parts_of};
use crate::packed::Packed;
use crate::plan::SortKey;
use crate::project::reason;
use crate::row_text::row_text;
use crate::rows::batch_of;
use crate::state::entry::{Reader, Writer, malformed};
use crate::state::{StateError, StateSink, Stateful};

/// Rows are put out in batches of about so many.
const OUTPUT_ROWS: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Window {
    rows: OrderedRows,
    functions: Vec<Arc<dyn WindowExpr>>,
    /// What each function gives.
    types: Vec<DataType>,
    /// The order's columns, whose -0.0 and 0.0 are peers.
    order: Vec<usize>,
    input: SchemaRef,
    key_schema: SchemaRef,
    schema: SchemaRef,
    keys: KeyIndex,
    /// By slot.
    partitions: Vec<Partition>,
    bytes: usize,
    row_count: usize,
    /// The state's entries that have changed since the last save, if anyone wants to know.
    changed: Option<HashSet<Box<[u8]>>>,
    /// How often rows occur, by slot, until all are loaded.
    loading: BTreeMap<u32, Changes>,
}

/// How often rows come or go.
type Changes = BTreeMap<Box<[u8]>, i64>;

#[derive(Clone, Debug, Default)]
struct Partition {
    rows: Packed,
    results: Option<Arc<Results>>,
}

/// What the functions gave, a column each; or why not.
type Results = Result<Vec<ArrayRef>, String>;

impl Partition {
    fn memory_bytes(&self) -> usize {
        let results = self.results.as_ref().map_or(0, |results| match results.as_ref() {
            Ok(columns) => columns.iter().map(|column| column.get_array_memory_size()).sum(),
            Err(reason) => reason.len(),
        });
        self.rows.memory_bytes() + results
    }
}

impl Window {
    pub(crate) fn new(
        input: &SchemaRef,
        partition: &[usize],
        order: &[SortKey],
        functions: Vec<Arc<dyn WindowExpr>>,
        schema: SchemaRef,
    ) -> Result<Self, FoldError> {
        let own = schema.fields().iter().skip(input.fields().len());
        let keys: Vec<Field> = partition.iter().map(|&key| input.field(key).clone()).collect();
        Ok(Self {
            rows: OrderedRows::new(input, partition, order)?,
            functions,
            types: own.map(|field| field.data_type().clone()).collect(),
            order: order.iter().map(|key| key.column).collect(),
            input: Arc::clone(input),
            key_schema: Arc::new(Schema::new(keys)),
            schema,
            keys: KeyIndex::default(),
            partitions: Vec::new(),
            bytes: 0,
            row_count: 0,
            changed: None,
            loading: BTreeMap::new(),
        })
    }

    pub(crate) fn tick(&mut self, input: &[Delta], errors: &mut Vec<RowError>) -> Vec<Delta> {
        let mut changes: BTreeMap<u32, Changes> = BTreeMap::new();
        for delta in input {
            self.collect(delta, &mut changes);
        }
        let mut out = Output::default();
        let mut deltas = Vec::new();
        // What is put out names its partition by slot: they go at the end.
        let mut emptied = Vec::new();
        for (slot, mut changes) in changes {
            changes.retain(|_, weight| *weight != 0);
            if !changes.is_empty() {
                self.change(slot, &changes, &mut out, errors);
            }
            if out.picks.len() >= OUTPUT_ROWS {
                deltas.extend(self.flush(&mut out));
            }
            if self.partitions[slot as usize].rows.len() == 0 {
                emptied.push(slot);
            }
        }
        deltas.extend(self.flush(&mut out));
        for slot in emptied {
            self.keys.remove(slot);
        }
        deltas
    }

    /// Adds up the changes of rows, by partition.
    fn collect(&mut self, delta: &Delta, changes: &mut BTreeMap<u32, Changes>) {
        let keys = self.rows.keys(&delta.rows);
        let rows = self.rows.encode(&delta.rows);
        for (row, &weight) in delta.weights.values().iter().enumerate() {
            let (slot, _) = self.keys.find_or_insert(keys.get(row));
            let of_partition = changes.entry(slot).or_default();
            match of_partition.get_mut(rows.get(row)) {
                Some(sum) => *sum += weight,
                None => drop(of_partition.insert(rows.get(row).into(), weight)),
            }
        }
        self.partitions.resize_with(self.keys.end(), Partition::default);
    }

    /// Changes a partition's rows and puts out what that changes.
    fn change(
        &mut self,
        slot: u32,
        changes: &Changes,
        out: &mut Output,
        errors: &mut Vec<RowError>,
    ) {
        if let Some(changed) = &mut self.changed {
            let key = self.keys.get(slot);
            changed.extend(changes.keys().map(|row| entry_of(key, row)));
        }
        let mut old = std::mem::take(&mut self.partitions[slot as usize]);
        self.bytes -= old.memory_bytes();
        let before = old.results.take().unwrap_or_else(|| self.evaluate(slot, &old.rows));
        let (rows, pairs) = merge(&old.rows, changes);
        let after = self.evaluate(slot, &rows);
        self.row_count = self.row_count + rows.len() - old.rows.len();
        self.report(slot, &before, &after, errors);
        out.difference(slot, (&old.rows, &before), (&rows, &after), &pairs);
        let partition = Partition { rows, results: Some(after) };
        self.bytes += partition.memory_bytes();
        self.partitions[slot as usize] = partition;
    }

    fn evaluate(&self, slot: u32, rows: &Packed) -> Arc<Results> {
        if rows.len() == 0 {
            return Arc::new(Ok(self.types.iter().map(new_empty_array).collect()));
        }
        let key = self.keys.get(slot);
        let mut columns = self.rows.decode((0..rows.len()).map(|_| key), rows.iter());
        for &column in &self.order {
            columns[column] = normalise(&columns[column]);
        }
        let batch = batch_of(&self.input, columns, rows.len());
        let column = |(function, ty): (&Arc<dyn WindowExpr>, &DataType)| {
            // A panic inside a function is the partition's error: it must not stop the others.
            let values = catch_unwind(AssertUnwindSafe(|| function.evaluate(&batch)))
                .map_err(|_| "a window function panicked".to_owned())?
                .map_err(|error| reason(&error))?;
            if values.data_type() == ty {
                return Ok(values);
            }
            cast(&values, ty).map_err(|error| error.to_string())
        };
        Arc::new(self.functions.iter().zip(&self.types).map(column).collect())
    }

    /// A partition whose functions fail now, or no longer do.
    fn report(&self, slot: u32, before: &Results, after: &Results, errors: &mut Vec<RowError>) {
        if before.as_ref().err() == after.as_ref().err() {
            return;
        }
        let key = self.rows.decode_keys(std::iter::once(self.keys.get(slot)));
        let row = row_text(&batch_of(&self.key_schema, key, 1), 0);
        for (results, weight) in [(before, -1), (after, 1)] {
            if let Err(reason) = results {
                errors.push(RowError { reason: reason.clone(), row: row.clone(), weight });
            }
        }
    }

    fn flush(&self, out: &mut Output) -> Option<Delta> {
        let out = std::mem::take(out);
        if out.picks.is_empty() {
            return None;
        }
        let keys = out.slots.iter().map(|&slot| self.keys.get(slot));
        let mut columns = self.rows.decode(keys, out.rows.iter());
        for function in 0..self.functions.len() {
            let sources: Vec<&dyn Array> =
                out.sources.iter().map(|results| results[function].as_ref()).collect();
            columns.push(interleave(&sources, &out.picks).expect("picks lie in their sources"));
        }
        let rows = batch_of(&self.schema, columns, out.picks.len());
        Some(Delta::new(rows, Int64Array::from(out.weights)))
    }

    /// Rows held.
    pub(crate) fn len(&self) -> usize {
        self.row_count
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.partitions.capacity() * size_of::<Partition>() + self.bytes
    }
}

/// A row's place before and after a change.
type Pair = (Option<usize>, Option<usize>);

/// The rows with the changes in them, and which row became which: rows that stay are paired in
/// their order, also where a row is there several times.
fn merge(old: &Packed, changes: &Changes) -> (Packed, Vec<Pair>) {
    let (mut rows, mut pairs) = (Packed::default(), Vec::with_capacity(old.len()));
    let mut at = 0;
    let keep = |at: usize, rows: &mut Packed, pairs: &mut Vec<Pair>| {
        pairs.push((Some(at), Some(rows.len())));
        rows.push(old.get(at));
    };
    for (row, &weight) in changes {
        while at < old.len() && old.get(at) < row.as_ref() {
            keep(at, &mut rows, &mut pairs);
            at += 1;
        }
        // The first of equal rows leave.
        let mut leaving = weight.min(0).unsigned_abs();
        while at < old.len() && old.get(at) == row.as_ref() {
            if leaving > 0 {
                leaving -= 1;
                pairs.push((Some(at), None));
            } else {
                keep(at, &mut rows, &mut pairs);
            }
            at += 1;
        }
        assert_eq!(leaving, 0, "a row was retracted more often than it was there");
        for _ in 0..weight {
            pairs.push((None, Some(rows.len())));
            rows.push(row);
        }
    }
    while at < old.len() {
        keep(at, &mut rows, &mut pairs);
        at += 1;
    }
    (rows, pairs)
}

/// Rows on their way out: their bytes, and where their results are.
#[derive(Default)]
struct Output {
    slots: Vec<u32>,
    rows: Packed,
    weights: Vec<i64>,
    sources: Vec<Vec<ArrayRef>>,
    /// A source and a row in it.
    picks: Vec<(usize, usize)>,
}

impl Output {
    fn difference(
        &mut self,
        slot: u32,
        before: (&Packed, &Results),
        after: (&Packed, &Results),
        pairs: &[Pair],
    ) {
        let same: Option<Vec<DynComparator>> = match (before.1, after.1) {
            (Ok(before), Ok(after)) => Some(before.iter().zip(after).map(comparator).collect()),
            _ => None,
        };
        let is_same = |pair: &Pair| match (pair, &same) {
            ((Some(old), Some(new)), Some(same)) => {
                same.iter().all(|same| same(*old, *new).is_eq())
            }
            _ => false,
        };
        let changed: Vec<Pair> = pairs.iter().filter(|pair| !is_same(pair)).copied().collect();
        let old = changed.iter().filter_map(|(old, _)| *old);
        self.put(slot, before, old, -1);
        let new = changed.iter().filter_map(|(_, new)| *new);
        self.put(slot, after, new, 1);
    }

    /// Rows of a partition that has none in error.
    fn put(
        &mut self,
        slot: u32,
        (rows, results): (&Packed, &Results),
        places: impl Iterator<Item = usize>,
        weight: i64,
    ) {
        let Ok(results) = results else { return };
        let source = self.sources.len();
        self.sources.push(results.clone());
        for place in places {
            self.slots.push(slot);
            self.rows.push(rows.get(place));
            self.weights.push(weight);
            self.picks.push((source, place));
        }
    }
}

fn comparator((before, after): (&ArrayRef, &ArrayRef)) -> DynComparator {
    make_comparator(before, after, SortOptions::default()).expect("results have an order")
}

/// Entries: a partition's key and a row, to how often it is there.
impl Stateful for Window {
    fn track(&mut self) {
        self.changed.get_or_insert_default();
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        let Some(changed) = &mut self.changed else { return };
        let mut value = Writer::default();
        for entry in std::mem::take(changed) {
            let (key, row) = parts_of(&entry).expect("it was made here");
            let slot = self.keys.find(key);
            let count = slot.map_or(0, |slot| self.partitions[slot as usize].rows.count_of(row));
            if count == 0 {
                sink.delete(&entry);
                continue;
            }
            value.clear();
            value.integer(count as i128);
            sink.put(&entry, value.bytes());
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (key, row) = parts_of(key).ok_or_else(malformed)?;
        let mut reader = Reader::new(value);
        let count = reader.count()?;
        reader.end()?;
        // A row that is there often is held as often.
        if !(1..=i64::from(u32::MAX)).contains(&count) {
            return Err(malformed());
        }
        let (slot, _) = self.keys.find_or_insert(key);
        self.loading.entry(slot).or_default().insert(row.into(), count);
        Ok(())
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        self.partitions.resize_with(self.keys.end(), Partition::default);
        for (slot, rows) in std::mem::take(&mut self.loading) {
            let (rows, _) = merge(&Packed::default(), &rows);
            self.row_count += rows.len();
            let partition = Partition { rows, results: None };
            self.bytes += partition.memory_bytes();
            self.partitions[slot as usize] = partition;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_stay_are_paired_in_order() {
        let changes = |list: &[(&str, i64)]| -> Changes {
            list.iter().map(|(row, weight)| (row.as_bytes().into(), *weight)).collect()
        };
        let (rows, pairs) =
            merge(&Packed::default(), &changes(&[("a", 1), ("b", 3), ("c", 1), ("e", 1)]));
        assert_eq!(rows.len(), 6);
        assert!(pairs.iter().enumerate().all(|(i, pair)| *pair == (None, Some(i))));
        let (rows, pairs) =
            merge(&rows, &changes(&[("a", -1), ("b", -2), ("c", 1), ("d", 1), ("f", 1)]));
        let text: Vec<_> = rows.iter().map(|row| String::from_utf8_lossy(row)).collect();
        assert_eq!(text, ["b", "c", "c", "d", "e", "f"]);
        assert_eq!(
            pairs,
            [
                (Some(0), None),
                (Some(1), None),
                (Some(2), None),
                (Some(3), Some(0)),
                (Some(4), Some(1)),
                (None, Some(2)),
                (None, Some(3)),
                (Some(5), Some(4)),
                (None, Some(5)),
            ]
        );
        assert_eq!((rows.count_of(b"c"), rows.count_of(b"x")), (2, 0));
    }
}
