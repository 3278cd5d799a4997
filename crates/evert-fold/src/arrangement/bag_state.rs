//! The rows of a bag as entries.
//!
//! While rows only arrive, an entry is a numbered chunk of rows: what was added since the last
//! save. After the first retraction an entry is a row and how often it is there.

use arrow::array::Int64Array;
use evert_model::Delta;

use super::bag::BagRows;
use crate::key_index::KeyIndex;
use crate::packed::Packed;
use crate::rows::batch_of;
use crate::state::{StateError, StateSink, Stateful};

const CHUNK: u8 = 0;
const ROW: u8 = 1;
/// A chunk ends after this many bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Rows of a loaded run.
const LOAD_ROWS: usize = 1 << 16;

/// What has changed since the last save, and what is being loaded.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Inserted since the last save, while entries are chunks.
    fresh: Vec<Delta>,
    /// Chunks that were saved.
    chunks: u64,
    /// Entries are rows.
    by_row: bool,
    /// Rows that came or went since the last save, when entries are rows.
    touched: KeyIndex,
    touched_slots: Vec<u32>,
    loading: Packed,
    loading_weights: Vec<i64>,
}

impl Changes {
    pub(super) fn memory_bytes(&self) -> usize {
        let fresh: usize = self.fresh.iter().map(|delta| delta.rows.get_array_memory_size()).sum();
        fresh + self.touched.memory_bytes() + self.touched_slots.capacity() * size_of::<u32>()
    }

    fn touch(&mut self, row: &[u8]) {
        let (slot, is_new) = self.touched.find_or_insert(row);
        if is_new {
            self.touched_slots.push(slot);
        }
    }

    fn stage(&mut self, row: &[u8], weight: i64) -> Result<(), StateError> {
        if weight <= 0 {
            return Err(StateError(format!("a row is there {weight} times")));
        }
        self.loading.push(row);
        self.loading_weights.push(weight);
        Ok(())
    }
}

impl BagRows {
    /// Notes rows that are being added.
    pub(super) fn note_inserted(&mut self, delta: &Delta) {
        match &mut self.changes {
            None => {}
            Some(changes) if !changes.by_row => changes.fresh.push(delta.clone()),
            Some(_) => self.note_touched(delta),
        }
    }

    /// Notes rows that are being taken away, before they are.
    pub(super) fn note_retracted(&mut self, delta: &Delta) {
        self.go_by_row();
        self.note_touched(delta);
    }

    /// Notes that every row is being taken away, before they are.
    pub(super) fn note_truncated(&mut self) {
        let Some(changes) = &mut self.changes else { return };
        if changes.chunks == 0 && !changes.by_row {
            changes.fresh.clear();
            return;
        }
        self.go_by_row();
        self.touch_all();
    }

    fn go_by_row(&mut self) {
        let Some(changes) = &mut self.changes else { return };
        if !changes.by_row {
            changes.by_row = true;
            changes.fresh = Vec::new();
            self.touch_all();
        }
    }

    fn touch_all(&mut self) {
        let runs: Vec<_> = self.runs().iter().cloned().collect();
        for live in runs {
            self.note_touched(&live.live_rows_all());
        }
    }

    fn note_touched(&mut self, delta: &Delta) {
        let Some(changes) = &mut self.changes else { return };
        let rows = self.codec.encode(delta.rows.columns(), delta.len());
        for row in 0..delta.len() {
            changes.touch(rows.get(row));
        }
    }

    fn save_rows(&mut self, changes: &mut Changes, sink: &mut dyn StateSink) {
        for number in 0..std::mem::take(&mut changes.chunks) {
            sink.delete(&chunk_key(number));
        }
        let touched = std::mem::take(&mut changes.touched);
        let mut key = vec![ROW];
        for slot in std::mem::take(&mut changes.touched_slots) {
            let row = touched.get(slot);
            key.truncate(1);
            key.extend_from_slice(row);
            match self.multiplicity(row) {
                0 => sink.delete(&key),
                weight => sink.put(&key, &weight.to_le_bytes()),
            }
        }
    }

    fn save_chunks(&self, changes: &mut Changes, sink: &mut dyn StateSink) {
        let mut chunk = Vec::new();
        for delta in std::mem::take(&mut changes.fresh) {
            let rows = self.codec.encode(delta.rows.columns(), delta.len());
            for (row, weight) in delta.weights.values().iter().enumerate() {
                let bytes = rows.get(row);
                let len = u32::try_from(bytes.len()).expect("a row is shorter than 4 GiB");
                chunk.extend_from_slice(&weight.to_le_bytes());
                chunk.extend_from_slice(&len.to_le_bytes());
                chunk.extend_from_slice(bytes);
                if chunk.len() >= CHUNK_BYTES {
                    sink.put(&chunk_key(changes.chunks), &chunk);
                    changes.chunks += 1;
                    chunk.clear();
                }
            }
        }
        if !chunk.is_empty() {
            sink.put(&chunk_key(changes.chunks), &chunk);
            changes.chunks += 1;
        }
    }
}

impl Stateful for BagRows {
    fn track(&mut self) {
        self.changes = Some(Box::default());
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        let Some(mut changes) = self.changes.take() else { return };
        if changes.by_row {
            self.save_rows(&mut changes, sink);
        } else {
            self.save_chunks(&mut changes, sink);
        }
        self.changes = Some(changes);
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let changes = self.changes.as_mut().ok_or_else(|| StateError("not tracked".into()))?;
        match key.split_first() {
            Some((&CHUNK, number)) => {
                let number = number.try_into().map(u64::from_be_bytes);
                let number = number.map_err(|_| StateError("a chunk has no number".into()))?;
                changes.chunks = changes.chunks.max(number.saturating_add(1));
                let mut rest = value;
                while !rest.is_empty() {
                    let (weight, row) = chunk_row(&mut rest)
                        .ok_or_else(|| StateError("a chunk of rows ends early".into()))?;
                    changes.stage(row, weight)?;
                }
            }
            Some((&ROW, row)) => {
                changes.by_row = true;
                let weight = value.try_into().map(i64::from_le_bytes);
                let weight = weight.map_err(|_| StateError("a row has no number".into()))?;
                changes.stage(row, weight)?;
            }
            _ => return Err(StateError("an entry is no row of a bag".into())),
        }
        if changes.loading.len() >= LOAD_ROWS { self.loaded() } else { Ok(()) }
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        let Some(mut changes) = self.changes.take() else { return Ok(()) };
        let rows = std::mem::take(&mut changes.loading);
        let weights = std::mem::take(&mut changes.loading_weights);
        let columns = self.codec.try_decode(rows.iter());
        let inserted = columns.map(|columns| {
            let rows = batch_of(self.schema(), columns, rows.len());
            let inserts = Delta::new(rows, Int64Array::from(weights));
            self.insert(&inserts);
            self.merge(inserts.len());
        });
        self.changes = Some(changes);
        inserted
    }
}

fn chunk_key(number: u64) -> [u8; 9] {
    let mut key = [CHUNK; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn chunk_row<'a>(rest: &mut &'a [u8]) -> Option<(i64, &'a [u8])> {
    let (weight, after) = rest.split_first_chunk::<8>()?;
    let (len, after) = after.split_first_chunk::<4>()?;
    let (row, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Some((i64::from_le_bytes(*weight), row))
}
