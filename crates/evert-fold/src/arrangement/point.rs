//! Rows by their key's bytes: one, or some in the order of their keys.
//!
//! Owns: finding rows without making batches of them.
//! Not here: how key bytes are made (`key_bytes`, `keys`).

use arrow::array::{ArrayRef, RecordBatch};

use super::Snapshot;

/// A row where it lies: it is not copied.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    /// The rows it is one of.
    pub rows: &'a RecordBatch,
    /// Which of them.
    pub row: usize,
    /// Its key's bytes, in the order of keys.
    pub key: &'a [u8],
}

impl Snapshot {
    /// The row with these key bytes; `None` if there is none, or the rows have no key.
    pub fn row(&self, key: &[u8]) -> Option<RowRef<'_>> {
        self.key()?;
        self.runs().iter().find_map(|live| {
            let keys = live.run.keys.as_ref()?;
            let row = keys.search(key)?;
            live.is_live(row).then(|| RowRef { rows: &live.run.rows, row, key: keys.get(row) })
        })
    }

    /// Up to `count` rows whose keys come after `after`, in the order of their key bytes.
    pub fn rows_after(&self, after: Option<&[u8]>, count: usize) -> Vec<RowRef<'_>> {
        if self.key().is_none() {
            return Vec::new();
        }
        let next_live = |run: usize, mut row: usize| {
            let live = &self.runs()[run];
            while row < live.rows() && !live.is_live(row) {
                row += 1;
            }
            (row < live.rows()).then_some((run, row))
        };
        let first = |run: usize| {
            let begin = after.map_or(0, |after| {
                self.runs()[run].run.keys.as_ref().map_or(0, |keys| keys.first_after(after))
            });
            next_live(run, begin)
        };
        let mut heads: Vec<(usize, usize)> = (0..self.runs().len()).filter_map(first).collect();
        let mut found = Vec::new();
        while found.len() < count {
            let least = (0..heads.len()).min_by_key(|&head| {
                let (run, row) = heads[head];
                self.runs()[run].key(row)
            });
            let Some(least) = least else { break };
            let (run, row) = heads[least];
            let live = &self.runs()[run];
            found.push(RowRef { rows: &live.run.rows, row, key: live.key(row) });
            match next_live(run, row + 1) {
                Some(head) => heads[least] = head,
                None => drop(heads.swap_remove(least)),
            }
        }
        found
    }

    /// The key bytes of values, one array of one row for each column of the key, in its order.
    /// `None` if the rows have no key or the values are not of its types.
    pub fn key_bytes(&self, values: &[ArrayRef]) -> Option<Vec<u8>> {
        let key = self.key()?;
        let fields = self.schema().fields();
        let fit = key.len() == values.len()
            && key.iter().zip(values).all(|(&column, value)| {
                value.len() == 1 && fields[column].data_type() == value.data_type()
            });
        fit.then(|| {
            self.codec().expect("it has a key").encode_normalised(values, 1).get(0).to_vec()
        })
    }
}
