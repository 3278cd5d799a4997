//! A bag of rows with multiplicities. While rows only arrive, runs are kept as they came; the
//! first retraction makes an index of whole rows, which is kept up from then on.

use std::sync::Arc;

use arrow::array::{Int64Array, UInt32Array, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use super::bag_index::BagIndex;
use super::bag_state::Changes;
use super::run::{LiveRun, Run};
use super::runs::{NOWHERE, Runs, compacted, run_weights};
use crate::FoldError;
use crate::keys::KeyCodec;
use crate::project::filter_delta;
use crate::rows::{batch_of, take_rows};

/// Nothing is gained by larger runs: a bag is not searched by key.
const RUN_ROWS_MAX: usize = 1 << 16;

/// The writer's side of a bag.
#[derive(Debug)]
pub(crate) struct BagRows {
    schema: SchemaRef,
    pub(super) codec: Arc<KeyCodec>,
    /// Made by the first retraction.
    index: Option<BagIndex>,
    runs: Runs,
    len: usize,
    /// For checkpoints, if there are any.
    pub(super) changes: Option<Box<Changes>>,
}

impl BagRows {
    pub(crate) fn new(schema: SchemaRef) -> Result<Self, FoldError> {
        let codec = Arc::new(KeyCodec::of_schema(&schema)?);
        let runs = Runs::new(Arc::clone(&schema), RUN_ROWS_MAX);
        Ok(Self { schema, codec, index: None, runs, len: 0, changes: None })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn codec(&self) -> &Arc<KeyCodec> {
        &self.codec
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.as_ref().map_or(0, BagIndex::memory_bytes)
            + self.runs.memory_bytes()
            + self.changes.as_ref().map_or(0, |changes| changes.memory_bytes())
    }

    /// Applies deltas: all insertions, then all retractions.
    ///
    /// # Panics
    /// If a row is retracted more often than it is there.
    pub(crate) fn apply(&mut self, changes: &[Delta]) {
        let retracts = |delta: &Delta| delta.weights.values().iter().any(|&weight| weight < 0);
        if self.index.is_none() && changes.iter().any(retracts) {
            self.make_index();
        }
        for delta in changes {
            let inserts = delta.weights.values().iter().map(|&weight| Some(weight > 0)).collect();
            self.add(&filter_delta(delta, &inserts));
        }
        for delta in changes.iter().filter(|delta| retracts(delta)) {
            let retracted = delta.weights.values().iter().map(|&w| Some(w < 0)).collect();
            let retracted = filter_delta(delta, &retracted);
            self.note_retracted(&retracted);
            self.retract(&retracted);
        }
        self.merge(changes.iter().map(Delta::len).sum());
    }

    /// After a tick of `rows` rows.
    pub(super) fn merge(&mut self, rows: usize) {
        self.runs.merge(rows);
    }

    /// Takes every row away and gives the change.
    pub(crate) fn truncate(&mut self) -> Delta {
        self.note_truncated();
        let parts: Vec<_> = self
            .runs
            .iter()
            .map(|live| {
                let Delta { rows, weights } = live.live_rows_all();
                let weights = weights.values().iter().map(|weight| -weight);
                Delta::new(rows, Int64Array::from_iter_values(weights))
            })
            .collect();
        let change = joined(&self.schema, &parts);
        self.runs.clear();
        (self.index, self.len) = (None, 0);
        change
    }

    /// How often the row with these bytes is there.
    pub(crate) fn multiplicity(&mut self, row: &[u8]) -> i64 {
        if self.index.is_none() {
            self.make_index();
        }
        self.index.as_ref().map_or(0, |index| index.weight(row, &self.runs, &self.codec))
    }

    /// Adds rows and notes them.
    fn add(&mut self, delta: &Delta) {
        if !delta.is_empty() {
            let columns = delta.rows.columns().iter().cloned().map(compacted).collect();
            let rows = batch_of(&self.schema, columns, delta.len());
            let delta = Delta::new(rows, delta.weights.clone());
            self.note_inserted(&delta);
            self.insert(&delta);
        }
    }

    /// Adds rows.
    pub(super) fn insert(&mut self, delta: &Delta) {
        if delta.is_empty() {
            return;
        }
        self.len += weight_sum(&delta.weights);
        let columns = delta.rows.columns().iter().cloned().map(compacted).collect();
        let rows = batch_of(&self.schema, columns, delta.len());
        let ids = match self.index {
            None => Vec::new(),
            Some(_) => (0..delta.len()).map(|_| self.runs.new_id(NOWHERE)).collect(),
        };
        let run = Run { rows, weights: run_weights(&delta.weights), keys: None, ids };
        let slot = self.runs.push(LiveRun::new(run));
        self.index_run(slot);
    }

    fn retract(&mut self, delta: &Delta) {
        let rows = self.codec.encode(delta.rows.columns(), delta.len());
        // What is left of entries that stood for more rows than are retracted.
        let (mut left, mut left_weights) = (Vec::new(), Vec::new());
        for (row, &weight) in delta.weights.values().iter().enumerate() {
            let mut wanted = -weight;
            while wanted > 0 {
                let Some(taken) = self.take(rows.get(row)) else {
                    assert!(!left.is_empty(), "a row is retracted that is not there");
                    self.put_back(delta, &mut left, &mut left_weights);
                    continue;
                };
                if taken > wanted {
                    left.push(row as u32);
                    left_weights.push(taken - wanted);
                }
                wanted -= taken.min(wanted);
            }
        }
        self.put_back(delta, &mut left, &mut left_weights);
    }

    fn put_back(&mut self, delta: &Delta, rows: &mut Vec<u32>, weights: &mut Vec<i64>) {
        let rows = take_rows(&delta.rows, &UInt32Array::from(std::mem::take(rows)));
        self.insert(&Delta::new(rows, Int64Array::from(std::mem::take(weights))));
    }

    /// Takes one entry of a row away and gives how often it stood for the row.
    fn take(&mut self, row: &[u8]) -> Option<i64> {
        let index = self.index.as_mut().expect("a retraction makes the index first");
        let id = index.take(row, &self.runs, &self.codec)?;
        let place = self.runs.place(id);
        let weight = self.runs.get(place.run).run.weight(place.row as usize);
        self.runs.kill(place);
        self.runs.free_id(id);
        self.len -= weight as usize;
        Some(weight)
    }

    fn make_index(&mut self) {
        self.index = Some(BagIndex::default());
        for slot in self.runs.number_rows() {
            self.index_run(slot);
        }
    }

    /// Adds a run's rows to the index, if there is one.
    fn index_run(&mut self, slot: u32) {
        let Some(index) = &mut self.index else { return };
        let live = self.runs.get(slot);
        let rows = self.codec.encode(live.run.rows.columns(), live.rows());
        index.reserve(live.rows());
        for (row, &id) in live.run.ids.iter().enumerate() {
            index.insert(rows.get(row), id, live.run.weight(row), &self.runs, &self.codec);
        }
    }
}

fn weight_sum(weights: &Int64Array) -> usize {
    let sum: i64 = weights.values().iter().sum();
    usize::try_from(sum).expect("insertions have positive weights")
}

/// Several deltas in one.
pub(crate) fn joined(schema: &SchemaRef, parts: &[Delta]) -> Delta {
    let rows = parts.iter().map(Delta::len).sum();
    let columns = (0..schema.fields().len()).map(|column| {
        if parts.is_empty() {
            return new_empty_array(schema.field(column).data_type());
        }
        let parts: Vec<_> = parts.iter().map(|part| part.rows.column(column).as_ref()).collect();
        concat(&parts).expect("parts of one schema")
    });
    let weights = parts.iter().flat_map(|part| part.weights.values().iter().copied());
    let weights = Int64Array::from_iter_values(weights);
    Delta::new(batch_of(schema, columns.collect(), rows), weights)
}
