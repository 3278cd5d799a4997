//! The rows of a keyed arrangement as entries: key bytes to the row's other columns.

use arrow::array::{ArrayRef, RecordBatch};

use super::keyed::KeyedRows;
use super::run::{KeyBytes, LiveRun, Run};
use super::runs::{NOWHERE, compacted};
use crate::keys::KeyCodec;
use crate::packed::Packed;
use crate::rows::{batch_of, columns_of};
use crate::state::{StateError, StateSink, Stateful};

/// Rows encoded, or decoded, at a time.
const STEP_ROWS: usize = 8192;
/// Rows of a loaded run.
const LOAD_ROWS: usize = 1 << 18;

/// What has changed since the last save, and what is being loaded.
#[derive(Debug)]
pub(super) struct Changes {
    /// Row numbers that got a row; some may be free again.
    put: Vec<u32>,
    /// By row number: whether it is in `put`.
    is_put: Vec<bool>,
    /// Keys that lost their row; some may have one again.
    gone: Packed,
    /// Of the columns that a value holds.
    codec: KeyCodec,
    /// Those columns: all but the key's, or all where a key's bytes do not tell its values.
    columns: Vec<usize>,
    loading_keys: Packed,
    loading_values: Packed,
}

impl Changes {
    pub(super) fn put(&mut self, id: u32) {
        let at = id as usize;
        if self.is_put.len() <= at {
            self.is_put.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.is_put[at], true) {
            self.put.push(id);
        }
    }

    pub(super) fn gone(&mut self, key: &[u8]) {
        self.gone.push(key);
    }

    /// Forgets row numbers: all have been given back.
    pub(super) fn clear_numbers(&mut self) {
        self.put.clear();
        self.is_put.clear();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.put.capacity() * size_of::<u32>() + self.is_put.capacity() + self.gone.memory_bytes()
    }
}

impl Stateful for KeyedRows {
    fn track(&mut self) {
        let all = 0..self.schema.fields().len();
        let columns: Vec<usize> = if self.codec.is_lossless() {
            all.filter(|column| !self.key.contains(column)).collect()
        } else {
            all.collect()
        };
        let types = columns.iter().map(|&column| self.schema.field(column).data_type());
        let codec = KeyCodec::new(types).expect("rows have types that can be ordered");
        self.changes = Some(Box::new(Changes {
            put: Vec::new(),
            is_put: Vec::new(),
            gone: Packed::default(),
            codec,
            columns,
            loading_keys: Packed::default(),
            loading_values: Packed::default(),
        }));
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        let Some(mut changes) = self.changes.take() else { return };
        let mut gone: Vec<&[u8]> = changes.gone.iter().collect();
        gone.sort_unstable();
        gone.dedup();
        for key in gone {
            if !self.contains_key(key) {
                sink.delete(key);
            }
        }
        for ids in changes.put.chunks(STEP_ROWS) {
            let places: Vec<_> = ids
                .iter()
                .map(|&id| self.runs().place(id))
                .filter(|place| *place != NOWHERE)
                .collect();
            let columns = self.runs().gather(&places);
            let columns: Vec<ArrayRef> =
                changes.columns.iter().map(|&column| columns[column].clone()).collect();
            let values = changes.codec.encode(&columns, places.len());
            for (row, place) in places.iter().enumerate() {
                let key = self.runs().get(place.run).key(place.row as usize);
                sink.put(key, values.get(row));
            }
        }
        changes.put = Vec::new();
        changes.is_put = Vec::new();
        changes.gone = Packed::default();
        self.changes = Some(changes);
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let changes = self.changes.as_mut().ok_or_else(|| StateError("not tracked".into()))?;
        changes.loading_keys.push(key);
        changes.loading_values.push(value);
        if changes.loading_keys.len() >= LOAD_ROWS { self.loaded() } else { Ok(()) }
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        let Some(changes) = self.changes.as_mut() else { return Ok(()) };
        let keys = std::mem::take(&mut changes.loading_keys);
        let values = std::mem::take(&mut changes.loading_values);
        if keys.len() == 0 {
            return Ok(());
        }
        let decoded = changes.codec.try_decode(values.iter())?;
        let value_columns = changes.columns.clone();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        if value_columns.len() < columns.len() {
            let keys = self.codec.try_decode(keys.iter())?;
            for (&column, values) in self.key.iter().zip(keys) {
                columns[column] = Some(values);
            }
        }
        for (column, values) in value_columns.into_iter().zip(decoded) {
            columns[column] = Some(values);
        }
        let columns = columns.into_iter().collect::<Option<Vec<_>>>();
        let columns = columns.ok_or_else(|| StateError("columns are missing".into()))?;
        let rows = batch_of(&self.schema, columns, keys.len());
        self.take_run(rows, &keys)
    }
}

impl KeyedRows {
    /// Takes over loaded rows: as one run if their keys ascend, which they do when entries come
    /// in the order of their keys.
    fn take_run(&mut self, rows: RecordBatch, keys: &Packed) -> Result<(), StateError> {
        let encoded = self.codec.encode_normalised(&columns_of(&rows, &self.key), rows.num_rows());
        if keys.iter().enumerate().any(|(row, key)| encoded.get(row) != key) {
            return Err(StateError("a row is not its key's".into()));
        }
        let ascending = keys.iter().is_sorted_by(|a, b| a < b);
        let mut sorted: Vec<&[u8]> = keys.iter().collect();
        if !ascending {
            sorted.sort_unstable();
        }
        if !sorted.is_sorted_by(|a, b| a < b) || keys.iter().any(|key| self.contains_key(key)) {
            return Err(StateError("a key is there twice".into()));
        }
        if !ascending {
            let changes = self.changes.take();
            let inserts = evert_model::Delta::inserts(rows);
            self.apply(std::slice::from_ref(&inserts));
            self.changes = changes;
            return Ok(());
        }
        let len = rows.num_rows();
        self.index.reserve(len);
        let mut ids = Vec::with_capacity(len);
        for key in keys.iter() {
            let id = self.runs.new_id(NOWHERE);
            self.index.insert(self.hasher.hash(key), id);
            ids.push(id);
        }
        let columns = rows.columns().iter().cloned().map(compacted).collect();
        let rows = batch_of(&self.schema, columns, len);
        let keys = KeyBytes::collect(keys.iter());
        self.runs.push(LiveRun::new(Run { rows, weights: None, keys: Some(keys), ids }));
        self.runs.merge(len);
        self.len += len;
        Ok(())
    }

    fn contains_key(&self, key: &[u8]) -> bool {
        let hash = self.hasher.hash(key);
        let found = self.index.find(hash, |id| {
            let place = self.runs.place(id);
            self.runs.get(place.run).key(place.row as usize) == key
        });
        found.is_some()
    }
}
