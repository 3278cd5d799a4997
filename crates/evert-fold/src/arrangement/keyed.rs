//! Rows by key: at most one a key, found by hash, kept in key-sorted runs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, new_empty_array};
use arrow::compute::{concat, interleave};
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use super::keyed_state::Changes;
use super::run::{KeyBytes, LiveRun, Run};
use super::runs::{Place, Runs, compacted, prefix};
use crate::FoldError;
use crate::key_index::{HashIndex, KeyHasher};
use crate::keys::{KeyCodec, KeyRows};
use crate::rows::{batch_of, columns_of, same_values};

/// Runs of more rows are not merged: bounds how long a merge takes.
const RUN_ROWS_MAX: usize = 1 << 20;
/// The place of a row that is being changed: its row is an index into the change.
const CHANGING: u32 = u32::MAX;

/// The writer's side of a keyed arrangement.
#[derive(Debug)]
pub(crate) struct KeyedRows {
    pub(super) schema: SchemaRef,
    pub(super) key: Vec<usize>,
    pub(super) codec: Arc<KeyCodec>,
    pub(super) hasher: KeyHasher,
    pub(super) index: HashIndex,
    pub(super) runs: Runs,
    pub(super) len: usize,
    /// For checkpoints, if there are any.
    pub(super) changes: Option<Box<Changes>>,
}

/// A change in the making: the keys it touches, each with what it had and what it gets.
pub(crate) struct Change<'a> {
    batches: Vec<&'a RecordBatch>,
    keys: Vec<KeyRows>,
    touched: Vec<Touched>,
}

/// A key that a change touches.
pub(crate) struct Touched {
    id: u32,
    hash: u32,
    /// Where its key bytes are: batch and row.
    key: (u32, u32),
    old: Option<Place>,
    fate: Fate,
    /// The sum of the weights of its rows, for changes by deltas.
    net: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Remove,
    /// Batch and row of the new row.
    Put(u32, u32),
}

impl KeyedRows {
    pub(crate) fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Self, FoldError> {
        let types = key.iter().map(|&column| schema.field(column).data_type());
        let codec = Arc::new(KeyCodec::new(types)?);
        let runs = Runs::new(Arc::clone(&schema), RUN_ROWS_MAX);
        let (hasher, index) = (KeyHasher::default(), HashIndex::default());
        Ok(Self { schema, key, codec, hasher, index, runs, len: 0, changes: None })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn key(&self) -> &[usize] {
        &self.key
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
        self.index.memory_bytes()
            + self.runs.memory_bytes()
            + self.changes.as_ref().map_or(0, |changes| changes.memory_bytes())
    }

    /// The newest row of a key wins; `live` tells rows from deletions. Gives the change.
    pub(crate) fn upsert(&mut self, batches: Vec<&RecordBatch>, live: &[&BooleanArray]) -> Delta {
        let mut change = self.touch(batches, |touched, batch, row| {
            let is_live = live[batch as usize].value(row as usize);
            touched.fate = if is_live { Fate::Put(batch, row) } else { Fate::Remove };
        });
        self.keep_equal_rows(&mut change);
        let retracted = self.retracted(&change);
        let inserted = self.commit(&change);
        signed(&self.schema, retracted, inserted)
    }

    /// Applies consolidated deltas.
    ///
    /// # Panics
    /// If a key would have more than one row, or less than none.
    pub(crate) fn apply(&mut self, changes: &[Delta]) {
        let batches = changes.iter().map(|delta| &delta.rows).collect();
        let mut change = self.touch(batches, |touched, batch, row| {
            let weight = changes[batch as usize].weights.value(row as usize);
            touched.net += weight;
            if weight > 0 {
                touched.fate = Fate::Put(batch, row);
            }
        });
        for touched in &mut change.touched {
            match touched.net + i64::from(touched.old.is_some()) {
                0 => touched.fate = Fate::Remove,
                1 => {}
                n => panic!("a key of a keyed arrangement has {n} rows"),
            }
        }
        self.commit(&change);
    }

    /// Takes every row away and gives them.
    pub(crate) fn truncate(&mut self) -> Vec<RecordBatch> {
        let rows = self.runs.iter().map(|run| run.live_rows_all().rows).collect();
        if let Some(changes) = &mut self.changes {
            changes.clear_numbers();
            for run in self.runs.iter() {
                let live = (0..run.rows()).filter(|&row| run.is_live(row));
                live.for_each(|row| changes.gone(run.key(row)));
            }
        }
        self.index = HashIndex::default();
        self.runs.clear();
        self.len = 0;
        rows
    }

    /// Begins a change by the rows of `batches`: `visit` is called for each row, in order, with
    /// the key it touches.
    fn touch<'a>(
        &mut self,
        batches: Vec<&'a RecordBatch>,
        mut visit: impl FnMut(&mut Touched, u32, u32),
    ) -> Change<'a> {
        let encode = |batch: &&RecordBatch| {
            self.codec.encode_normalised(&columns_of(batch, &self.key), batch.num_rows())
        };
        let keys = batches.iter().map(encode).collect();
        let mut change = Change { batches, keys, touched: Vec::new() };
        for batch in 0..change.batches.len() {
            for row in 0..change.batches[batch].num_rows() {
                let (batch, row) = (batch as u32, row as u32);
                visit(self.touch_row(&mut change, (batch, row)), batch, row);
            }
        }
        change
    }

    fn touch_row<'c>(&mut self, change: &'c mut Change<'_>, at: (u32, u32)) -> &'c mut Touched {
        let key = change.key(at);
        let hash = self.hasher.hash(key);
        let found = self.index.find(hash, |id| match self.runs.place(id) {
            Place { run: CHANGING, row } => change.key(change.touched[row as usize].key) == key,
            Place { run, row } => self.runs.get(run).key(row as usize) == key,
        });
        let next = Place { run: CHANGING, row: change.touched.len() as u32 };
        let (id, old) = match found.map(|id| (id, self.runs.place(id))) {
            Some((_, Place { run: CHANGING, row })) => return &mut change.touched[row as usize],
            Some((id, old)) => {
                self.runs.set_place(id, next);
                (id, Some(old))
            }
            None => {
                let id = self.runs.new_id(next);
                self.index.insert(hash, id);
                (id, None)
            }
        };
        change.touched.push(Touched { id, hash, key: at, old, fate: Fate::Keep, net: 0 });
        change.touched.last_mut().expect("it was pushed")
    }

    /// A new row that equals the old one changes nothing.
    fn keep_equal_rows(&self, change: &mut Change<'_>) {
        let (mut both, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (i, touched) in change.touched.iter().enumerate() {
            if let (Some(place), Fate::Put(batch, row)) = (touched.old, touched.fate) {
                both.push(i);
                old.push(place);
                new.push((batch as usize, row as usize));
            }
        }
        if both.is_empty() {
            return;
        }
        let (old, new) = (self.runs.gather(&old), change.gather(&self.schema, &new));
        let same = old
            .iter()
            .zip(&new)
            .map(|(old, new)| same_values(old, new))
            .reduce(|all, same| BooleanArray::new(all.values() & same.values(), None));
        for (n, &i) in both.iter().enumerate() {
            if same.as_ref().is_none_or(|same| same.value(n)) {
                change.touched[i].fate = Fate::Keep;
            }
        }
    }

    fn retracted(&self, change: &Change<'_>) -> Vec<ArrayRef> {
        let leaving = change.touched.iter().filter(|touched| touched.fate != Fate::Keep);
        let old: Vec<_> = leaving.filter_map(|touched| touched.old).collect();
        self.runs.gather(&old)
    }

    /// Makes the change, and gives the new rows in key order.
    fn commit(&mut self, change: &Change<'_>) -> RecordBatch {
        self.note(change);
        for touched in &change.touched {
            match (touched.fate, touched.old) {
                (Fate::Keep, Some(old)) => self.runs.set_place(touched.id, old),
                (Fate::Keep | Fate::Remove, None) => self.forget(touched),
                (Fate::Remove, Some(old)) => {
                    self.runs.kill(old);
                    self.forget(touched);
                    self.len -= 1;
                }
                (Fate::Put(..), Some(old)) => self.runs.kill(old),
                (Fate::Put(..), None) => self.len += 1,
            }
        }
        let inserted = change.sorted_inserts();
        let rows: Vec<_> = inserted.iter().map(|&(_, at)| at).collect();
        let columns = change.gather(&self.schema, &rows).into_iter().map(compacted).collect();
        let rows = batch_of(&self.schema, columns, rows.len());
        if rows.num_rows() > 0 {
            let touched = inserted.iter().map(|&(i, _)| &change.touched[i]);
            let keys = KeyBytes::collect(touched.clone().map(|touched| change.key(touched.key)));
            let ids = touched.map(|touched| touched.id).collect();
            let run = Run { rows: rows.clone(), weights: None, keys: Some(keys), ids };
            self.runs.push(LiveRun::new(run));
        }
        self.runs.merge(change.touched.len());
        rows
    }

    /// Notes a change for the next checkpoint.
    fn note(&mut self, change: &Change<'_>) {
        let Some(noted) = &mut self.changes else { return };
        for touched in &change.touched {
            match (touched.fate, touched.old) {
                (Fate::Put(..), _) => noted.put(touched.id),
                (Fate::Remove, Some(_)) => noted.gone(change.key(touched.key)),
                _ => {}
            }
        }
    }

    fn forget(&mut self, touched: &Touched) {
        self.index.remove(touched.hash, touched.id);
        self.runs.free_id(touched.id);
    }
}

impl Change<'_> {
    fn key(&self, (batch, row): (u32, u32)) -> &[u8] {
        self.keys[batch as usize].get(row as usize)
    }

    /// The touched keys that get a row, in key order, with batch and row.
    fn sorted_inserts(&self) -> Vec<(usize, (usize, usize))> {
        let mut inserts: Vec<_> = self
            .touched
            .iter()
            .enumerate()
            .filter_map(|(i, touched)| match touched.fate {
                Fate::Put(batch, row) => {
                    Some((prefix(self.key(touched.key)), i, (batch as usize, row as usize)))
                }
                _ => None,
            })
            .collect();
        let key = |i: usize| self.key(self.touched[i].key);
        inserts.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
        inserts.into_iter().map(|(_, i, at)| (i, at)).collect()
    }

    fn gather(&self, schema: &SchemaRef, rows: &[(usize, usize)]) -> Vec<ArrayRef> {
        let columns = schema.fields().iter().enumerate().map(|(column, field)| {
            if rows.is_empty() {
                return new_empty_array(field.data_type());
            }
            let arrays: Vec<_> =
                self.batches.iter().map(|batch| batch.column(column).as_ref()).collect();
            interleave(&arrays, rows).expect("rows lie in the batches")
        });
        columns.collect()
    }
}

/// Retractions, then insertions, in one delta.
fn signed(schema: &SchemaRef, retracted: Vec<ArrayRef>, inserted: RecordBatch) -> Delta {
    let gone = retracted.first().map_or(0, |column| column.len());
    if gone == 0 {
        return Delta::inserts(inserted);
    }
    let rows = gone + inserted.num_rows();
    let columns = retracted.iter().zip(inserted.columns());
    let columns =
        columns.map(|(old, new)| concat(&[old, new]).expect("columns of one type")).collect();
    let weights = (0..rows).map(|i| if i < gone { -1 } else { 1 });
    Delta::new(batch_of(schema, columns, rows), Int64Array::from_iter_values(weights))
}
