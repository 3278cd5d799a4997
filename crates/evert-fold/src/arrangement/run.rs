//! A run: rows that never change, and which of them are dead by now.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, Buffer};
use evert_model::Delta;

use super::run_index::{RunIndex, RunIndexes};
use crate::project::filter_delta;

/// Rows of a bitmap's block: what one change of a pinned bitmap copies is 512 bytes.
const BLOCK_ROWS: usize = 4096;
const BLOCK_WORDS: usize = BLOCK_ROWS / 64;

/// Key bytes in row order.
#[derive(Debug, Default)]
pub(crate) struct KeyBytes {
    data: Vec<u8>,
    /// Where each key ends; empty if all are `width` bytes long.
    ends: Vec<usize>,
    width: usize,
    len: usize,
}

impl KeyBytes {
    pub(crate) fn collect<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let mut this = Self { len: keys.len(), ..Self::default() };
        for (i, key) in keys.enumerate() {
            if i == 0 {
                this.width = key.len();
                this.data.reserve_exact(key.len() * this.len);
            }
            if key.len() != this.width && this.ends.is_empty() {
                this.ends.reserve_exact(this.len);
                this.ends.extend((1..=i).map(|n| n * this.width));
            }
            this.data.extend_from_slice(key);
            if !this.ends.is_empty() || key.len() != this.width {
                this.ends.push(this.data.len());
            }
        }
        this.data.shrink_to_fit();
        this
    }

    pub(crate) fn get(&self, row: usize) -> &[u8] {
        if self.ends.is_empty() {
            return &self.data[row * self.width..(row + 1) * self.width];
        }
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.data[start..self.ends[row]]
    }

    /// The row of a key, if the keys ascend.
    pub(crate) fn search(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The first row whose key is greater, if the keys ascend.
    pub(crate) fn first_after(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn memory_bytes(&self) -> usize {
        self.data.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// Immutable rows.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rows: RecordBatch,
    /// How often each row is there; `None`: once.
    pub(crate) weights: Option<Int64Array>,
    /// Ascending; only in keyed arrangements.
    pub(crate) keys: Option<KeyBytes>,
    /// The writer's number of each row; empty while the writer keeps no index.
    pub(crate) ids: Vec<u32>,
}

impl Run {
    pub(crate) fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().map_or(1, |weights| weights.value(row))
    }
}

/// Which rows of a run are dead, in blocks that snapshots share.
#[derive(Clone, Debug, Default)]
struct Dead {
    blocks: Option<Arc<Vec<Arc<[u64; BLOCK_WORDS]>>>>,
    count: usize,
    /// Grows with each change.
    version: u64,
}

impl Dead {
    fn all(rows: usize) -> Self {
        let block = Arc::new([u64::MAX; BLOCK_WORDS]);
        let blocks = std::iter::repeat_n(block, rows.div_ceil(BLOCK_ROWS)).collect();
        Self { blocks: Some(Arc::new(blocks)), count: rows, version: 0 }
    }

    fn contains(&self, row: usize) -> bool {
        self.blocks.as_ref().is_some_and(|blocks| {
            blocks[row / BLOCK_ROWS][row % BLOCK_ROWS / 64] >> (row % 64) & 1 == 1
        })
    }

    fn insert(&mut self, row: usize, rows: usize) {
        let blocks = self.blocks.get_or_insert_with(|| {
            // All blocks are one until they differ.
            let block = Arc::new([0; BLOCK_WORDS]);
            Arc::new(std::iter::repeat_n(block, rows.div_ceil(BLOCK_ROWS)).collect())
        });
        let block = Arc::make_mut(&mut Arc::make_mut(blocks)[row / BLOCK_ROWS]);
        let word = &mut block[row % BLOCK_ROWS / 64];
        assert!(*word >> (row % 64) & 1 == 0, "a row dies once");
        *word |= 1 << (row % 64);
        self.count += 1;
        self.version += 1;
    }

    fn remove(&mut self, row: usize) {
        let blocks = self.blocks.as_mut().expect("a row that is dead is in the bitmap");
        let block = Arc::make_mut(&mut Arc::make_mut(blocks)[row / BLOCK_ROWS]);
        let word = &mut block[row % BLOCK_ROWS / 64];
        assert!(*word >> (row % 64) & 1 == 1, "a row comes to life once");
        *word &= !(1 << (row % 64));
        self.count -= 1;
        self.version += 1;
    }
}

/// A run at one moment: cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LiveRun {
    pub(crate) run: Arc<Run>,
    dead: Dead,
    indexes: Arc<RunIndexes>,
}

impl LiveRun {
    pub(crate) fn new(run: Run) -> Self {
        Self { run: Arc::new(run), dead: Dead::default(), indexes: Arc::default() }
    }

    /// A run whose rows are all dead as yet.
    pub(crate) fn dead(run: Run) -> Self {
        let dead = Dead::all(run.rows.num_rows());
        Self { run: Arc::new(run), dead, indexes: Arc::default() }
    }

    /// Whether this is the same run at a moment when the same rows were alive.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.run, &other.run) && self.dead.version == other.dead.version
    }

    /// A row's key bytes.
    ///
    /// # Panics
    /// If the run belongs to a bag.
    pub(crate) fn key(&self, row: usize) -> &[u8] {
        self.run.keys.as_ref().expect("runs of keyed arrangements have keys").get(row)
    }

    /// Its index over these columns, made now if nobody has wanted it yet.
    pub(super) fn index(&self, columns: &[usize]) -> Arc<RunIndex> {
        self.indexes.get(columns, &self.run.rows)
    }

    /// Rows alive.
    pub(crate) fn live_rows(&self) -> usize {
        self.rows() - self.dead.count
    }

    pub(crate) fn rows(&self) -> usize {
        self.run.rows.num_rows()
    }

    pub(crate) fn is_live(&self, row: usize) -> bool {
        !self.dead.contains(row)
    }

    pub(crate) fn kill(&mut self, row: usize) {
        self.dead.insert(row, self.run.rows.num_rows());
    }

    pub(crate) fn revive(&mut self, row: usize) {
        self.dead.remove(row);
    }

    /// Adds the writer's numbers, which nothing has needed so far.
    pub(crate) fn with_ids(&self, ids: Vec<u32>) -> Self {
        let Run { rows, weights, .. } = &*self.run;
        let run = Run { rows: rows.clone(), weights: weights.clone(), keys: None, ids };
        Self { run: Arc::new(run), dead: self.dead.clone(), indexes: Arc::clone(&self.indexes) }
    }

    /// The rows that are alive.
    pub(crate) fn live_rows_all(&self) -> Delta {
        self.live_delta(0, self.rows(), None)
    }

    /// The rows from `start` that are alive, `len` rows looked at, with the columns that
    /// `projection` names.
    ///
    /// # Panics
    /// If a column does not exist.
    pub(crate) fn live_delta(
        &self,
        start: usize,
        len: usize,
        projection: Option<&[usize]>,
    ) -> Delta {
        let rows = self.run.rows.slice(start, len);
        let rows = match projection {
            Some(columns) => rows.project(columns).expect("the columns exist"),
            None => rows,
        };
        let delta = match &self.run.weights {
            Some(weights) => Delta::new(rows, weights.slice(start, len)),
            None => Delta::inserts(rows),
        };
        let Some(blocks) = &self.dead.blocks else { return delta };
        let words = blocks.iter().flat_map(|block| block.iter().map(|word| !word));
        let first = start / 64;
        let words: Vec<u64> = words.skip(first).take((start + len).div_ceil(64) - first).collect();
        let live = BooleanBuffer::new(Buffer::from_vec(words), start % 64, len);
        filter_delta(&delta, &BooleanArray::new(live, None))
    }

    /// Bytes of the rows, which do not change as rows die.
    pub(crate) fn memory_bytes(&self) -> usize {
        let columns = self.run.rows.columns().iter();
        let columns: usize = columns.map(|column| column.get_array_memory_size()).sum();
        let weights = self.run.weights.as_ref().map_or(0, |w| w.get_array_memory_size());
        let keys = self.run.keys.as_ref().map_or(0, KeyBytes::memory_bytes);
        columns + weights + keys + self.run.ids.capacity() * size_of::<u32>()
    }
}
