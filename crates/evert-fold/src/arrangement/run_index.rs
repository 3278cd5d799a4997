//! Secondary indexes: which rows of a run have some values in some columns.
//!
//! A run never changes, so its index is made once, by whoever first wants it, and found by all
//! snapshots that hold the run. When runs are merged, the new run's index is made anew.
//!
//! Invariant: an index names every row with the values, and perhaps a few with others.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;

use super::snapshot::row_hash;
use crate::keys::KeyCodec;

/// The indexes of one run, by their columns.
#[derive(Debug, Default)]
pub(super) struct RunIndexes {
    made: Mutex<Vec<(Vec<usize>, Arc<RunIndex>)>>,
}

/// Hash and row, in ascending order.
#[derive(Debug)]
pub(super) struct RunIndex(Vec<(u32, u32)>);

impl RunIndexes {
    /// The index over these columns of the run's rows.
    pub(super) fn get(&self, columns: &[usize], rows: &RecordBatch) -> Arc<RunIndex> {
        // Whoever else wants it waits rather than making it a second time.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, index)) = made.iter().find(|(known, _)| known == columns) {
            return Arc::clone(index);
        }
        let index = Arc::new(RunIndex::new(columns, rows));
        made.push((columns.to_vec(), Arc::clone(&index)));
        index
    }
}

impl RunIndex {
    fn new(columns: &[usize], rows: &RecordBatch) -> Self {
        let types = columns.iter().map(|&column| rows.column(column).data_type());
        let codec = KeyCodec::new(types).expect("the row has been arranged, so its columns can be");
        let values: Vec<_> = columns.iter().map(|&column| rows.column(column).clone()).collect();
        let keys = codec.encode_normalised(&values, rows.num_rows());
        let mut entries: Vec<_> =
            (0..rows.num_rows()).map(|row| (hash(keys.get(row)), row as u32)).collect();
        entries.sort_unstable();
        Self(entries)
    }

    /// The rows that may have the values whose key bytes these are.
    pub(super) fn rows(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        let hash = hash(key);
        let first = self.0.partition_point(|(other, _)| *other < hash);
        let found = self.0[first..].iter().take_while(move |(other, _)| *other == hash);
        found.map(|(_, row)| *row as usize)
    }
}

fn hash(key: &[u8]) -> u32 {
    row_hash(key) as u32
}
