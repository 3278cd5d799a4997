//! Inner join: both sides indexed by key, and the change of their product.
//!
//! A tick's change is dL x R before, then L after x dR: each pair of rows is met once.
//!
//! Invariants
//! - A row is held once a side, with its multiplicity, in the list of its key.
//! - Rows with a NULL in the key match nothing and are not held.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use crate::FoldError;
use crate::dataflow::RowError;
use crate::key_index::KeyIndex;
use crate::keys::KeyCodec;
use crate::matches::Matches;
use crate::project::Projection;
use crate::rows::{batch_of, columns_of, take_rows};

/// Output batches have about this many rows.
const OUTPUT_ROWS: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Join {
    left: Side,
    right: Side,
    filter: Option<Projection>,
    schema: SchemaRef,
}

impl Join {
    pub(crate) fn new(
        left: &SchemaRef,
        right: &SchemaRef,
        on: &[(usize, usize)],
        filter: Option<Projection>,
        schema: SchemaRef,
    ) -> Result<Self, FoldError> {
        let left = Side::new(left, on.iter().map(|&(l, _)| l).collect())?;
        let right = Side::new(right, on.iter().map(|&(_, r)| r).collect())?;
        Ok(Self { left, right, filter, schema })
    }

    pub(crate) fn tick(
        &mut self,
        left: &[Delta],
        right: &[Delta],
        errors: &mut Vec<RowError>,
    ) -> Vec<Delta> {
        let mut out = Vec::new();
        let mut emit = |rows: RecordBatch, weights: Vec<i64>| {
            let delta = Delta::new(rows, Int64Array::from(weights));
            match &self.filter {
                Some(filter) => out.extend(filter.apply(&delta, errors)),
                None => out.push(delta),
            }
        };
        for delta in left {
            let keyed = self.left.keyed(delta);
            self.right.probe(&keyed, |own, theirs, weights| {
                let columns = own.into_iter().chain(theirs).collect();
                emit(batch_of(&self.schema, columns, weights.len()), weights);
            });
            self.left.update(&keyed);
        }
        for delta in right {
            let keyed = self.right.keyed(delta);
            self.left.probe(&keyed, |own, theirs, weights| {
                let columns = theirs.into_iter().chain(own).collect();
                emit(batch_of(&self.schema, columns, weights.len()), weights);
            });
            self.right.update(&keyed);
        }
        out
    }

    /// Rows held.
    pub(crate) fn len(&self) -> usize {
        self.left.rows.len() + self.right.rows.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.left.memory_bytes() + self.right.memory_bytes()
    }
}

/// The rows of one side that have a key.
#[derive(Debug)]
struct Side {
    key: Vec<usize>,
    key_codec: KeyCodec,
    row_codec: KeyCodec,
    keys: KeyIndex,
    /// By key slot.
    matches: Vec<Matches>,
    rows: KeyIndex,
    /// By row slot.
    held: Vec<Held>,
    /// Held by lists of matches.
    list_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    weight: i64,
    key: u32,
    /// The place in the key's list.
    at: u32,
}

/// A delta with its keys encoded.
struct Keyed<'a> {
    delta: &'a Delta,
    keys: crate::keys::KeyRows,
    /// Where no key column is NULL.
    valid: Option<NullBuffer>,
}

impl Keyed<'_> {
    fn has_key(&self, row: usize) -> bool {
        self.valid.as_ref().is_none_or(|valid| valid.is_valid(row))
    }
}

impl Side {
    fn new(schema: &SchemaRef, key: Vec<usize>) -> Result<Self, FoldError> {
        let types = key.iter().map(|&column| schema.field(column).data_type());
        Ok(Self {
            key_codec: KeyCodec::new(types)?,
            row_codec: KeyCodec::of_schema(schema)?,
            key,
            keys: KeyIndex::default(),
            matches: Vec::new(),
            rows: KeyIndex::default(),
            held: Vec::new(),
            list_bytes: 0,
        })
    }

    fn keyed<'a>(&self, delta: &'a Delta) -> Keyed<'a> {
        let columns = columns_of(&delta.rows, &self.key);
        let valid = columns
            .iter()
            .fold(None, |valid, column| NullBuffer::union(valid.as_ref(), column.nulls()));
        let keys = self.key_codec.encode_normalised(&columns, delta.len());
        Keyed { delta, keys, valid }
    }

    /// Joins another side's delta with the rows held here: gives its columns, this side's columns
    /// and the weights, batch by batch.
    fn probe(
        &self,
        other: &Keyed<'_>,
        mut emit: impl FnMut(Vec<ArrayRef>, Vec<ArrayRef>, Vec<i64>),
    ) {
        let (mut theirs, mut ours, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let mut flush = |theirs: &mut Vec<u32>, ours: &mut Vec<u32>, weights: &mut Vec<i64>| {
            let indices = UInt32Array::from(std::mem::take(theirs));
            let columns = take_rows(&other.delta.rows, &indices).columns().to_vec();
            let held = self.row_codec.decode(ours.iter().map(|&row| self.rows.get(row)));
            ours.clear();
            emit(columns, held, std::mem::take(weights));
        };
        for (row, &weight) in other.delta.weights.values().iter().enumerate() {
            if !other.has_key(row) {
                continue;
            }
            let Some(key) = self.keys.find(other.keys.get(row)) else { continue };
            for &held in self.matches[key as usize].as_slice() {
                theirs.push(row as u32);
                ours.push(held);
                weights.push(weight * self.held[held as usize].weight);
                if weights.len() == OUTPUT_ROWS {
                    flush(&mut theirs, &mut ours, &mut weights);
                }
            }
        }
        if !weights.is_empty() {
            flush(&mut theirs, &mut ours, &mut weights);
        }
    }

    fn update(&mut self, keyed: &Keyed<'_>) {
        let delta = keyed.delta;
        let rows = self.row_codec.encode(delta.rows.columns(), delta.len());
        for (row, &weight) in delta.weights.values().iter().enumerate() {
            if keyed.has_key(row) && weight != 0 {
                self.change(keyed.keys.get(row), rows.get(row), weight);
            }
        }
    }

    fn change(&mut self, key: &[u8], row: &[u8], weight: i64) {
        let (row, is_new) = self.rows.find_or_insert(row);
        if is_new {
            let (key, key_is_new) = self.keys.find_or_insert(key);
            if key_is_new {
                self.matches.resize(self.keys.end(), Matches::None);
            }
            let at = self.with_matches(key, |matches| matches.push(row));
            self.held.resize(self.rows.end(), Held::default());
            self.held[row as usize] = Held { weight, key, at };
            return;
        }
        let held = &mut self.held[row as usize];
        held.weight += weight;
        if held.weight == 0 {
            let Held { key, at, .. } = *held;
            self.rows.remove(row);
            if let Some(moved) = self.with_matches(key, |matches| matches.remove(at)) {
                self.held[moved as usize].at = at;
            }
            if self.matches[key as usize].as_slice().is_empty() {
                self.keys.remove(key);
            }
        }
    }

    fn with_matches<T>(&mut self, key: u32, change: impl FnOnce(&mut Matches) -> T) -> T {
        let matches = &mut self.matches[key as usize];
        self.list_bytes -= matches.heap_bytes();
        let result = change(matches);
        self.list_bytes += matches.heap_bytes();
        result
    }

    fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes()
            + self.rows.memory_bytes()
            + self.held.capacity() * size_of::<Held>()
            + self.matches.capacity() * size_of::<Matches>()
            + self.list_bytes
    }
}

/// The residual filter of a join.
pub(crate) fn residual(
    filter: Option<&Arc<dyn datafusion_physical_expr::PhysicalExpr>>,
    schema: &SchemaRef,
) -> Option<Projection> {
    filter.map(|filter| Projection::filter(Arc::clone(filter), Arc::clone(schema)))
}
