//! Rows as the open transaction left them, for updates that leave values out.
//!
//! A value is only ever left out if its row is long enough for Postgres to store parts of it
//! elsewhere (TOAST), so short rows need not be kept. What is kept is bounded: of the rows beyond
//! it only their keys' hashes are, so that it is always known what is not known.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::row::Cell;

/// Rows of less text than this are never stored in parts. Postgres starts at rows of 2 KB, or at
/// `toast_tuple_target`, which is at least 128 bytes; text can be shorter than what it prints.
const ROW_TEXT_MIN: usize = 64;
/// The bytes of rows that are kept at most.
const BYTES_MAX: usize = 256 << 20;

/// The long rows that the open transaction wrote, by table and key.
#[derive(Debug)]
pub(crate) struct Overlay {
    rows: HashMap<usize, HashMap<String, Vec<Cell>>>,
    bytes: usize,
    bytes_max: usize,
    /// Rows for which there was no room.
    left_out: HashSet<u64>,
    hasher: RandomState,
}

/// What the open transaction has done to a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// It wrote this.
    Row(&'a [Cell]),
    /// It wrote something that there was no room for.
    LeftOut,
    /// It did not touch the row.
    Untouched,
}

impl Default for Overlay {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl Overlay {
    fn new(bytes_max: usize) -> Self {
        Self {
            rows: HashMap::new(),
            bytes: 0,
            bytes_max,
            left_out: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
        self.left_out.clear();
    }

    pub(crate) fn put(&mut self, table: usize, key: String, row: &[Cell]) {
        self.remove(table, &key);
        let bytes = text_bytes(row);
        if bytes < ROW_TEXT_MIN {
            return;
        }
        if self.bytes + bytes > self.bytes_max {
            self.left_out.insert(self.hasher.hash_one((table, &key)));
            return;
        }
        self.bytes += bytes;
        self.rows.entry(table).or_default().insert(key, row.to_vec());
    }

    pub(crate) fn get(&self, table: usize, key: &str) -> Known<'_> {
        if let Some(row) = self.rows.get(&table).and_then(|rows| rows.get(key)) {
            return Known::Row(row);
        }
        if self.left_out.is_empty() || !self.left_out.contains(&self.hasher.hash_one((table, key)))
        {
            return Known::Untouched;
        }
        Known::LeftOut
    }

    pub(crate) fn remove(&mut self, table: usize, key: &str) {
        if let Some(row) = self.rows.get_mut(&table).and_then(|rows| rows.remove(key)) {
            self.bytes -= text_bytes(&row);
        }
        if !self.left_out.is_empty() {
            self.left_out.remove(&self.hasher.hash_one((table, key)));
        }
    }

    pub(crate) fn truncate(&mut self, table: usize) {
        let rows = self.rows.remove(&table).unwrap_or_default();
        self.bytes -= rows.values().map(|row| text_bytes(row)).sum::<usize>();
    }
}

fn text_bytes(row: &[Cell]) -> usize {
    row.iter().flatten().map(|value| value.len()).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_known_to_be_unknown() {
        let mut overlay = Overlay::new(1000);
        let row = |bytes: usize| [Some(Bytes::from(vec![b'x'; bytes]))];
        overlay.put(0, "a".into(), &row(600));
        overlay.put(0, "b".into(), &row(600));
        overlay.put(0, "c".into(), &row(10));
        assert_eq!(overlay.get(0, "a"), Known::Row(&row(600)));
        assert_eq!(overlay.get(0, "b"), Known::LeftOut);
        assert_eq!(overlay.get(0, "c"), Known::Untouched);
        assert_eq!(overlay.get(1, "b"), Known::Untouched);
        // Room comes back, and with it what is written next.
        overlay.put(0, "a".into(), &row(100));
        overlay.put(0, "b".into(), &row(600));
        assert_eq!(overlay.get(0, "b"), Known::Row(&row(600)));
        overlay.remove(0, "b");
        assert_eq!(overlay.get(0, "b"), Known::Untouched);
        overlay.truncate(0);
        assert_eq!(overlay.bytes, 0);
        overlay.put(0, "d".into(), &row(900));
        overlay.clear();
        assert_eq!((overlay.get(0, "d"), overlay.bytes), (Known::Untouched, 0));
    }
}
