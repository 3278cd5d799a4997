//! Rows as the open transaction left them, for updates that leave values out.
//!
//! A value is only ever left out if its row is long enough for Postgres to store parts of it
//! elsewhere (TOAST), so short rows need not be kept.

use std::collections::HashMap;

use crate::row::Cell;

/// Rows of less text than this are never stored in parts. Postgres starts at rows of 2 KB, or at
/// `toast_tuple_target`, which is at least 128 bytes; text can be shorter than what it prints.
const ROW_TEXT_MIN: usize = 64;

/// The long rows that the open transaction wrote, by table and key.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    rows: HashMap<usize, HashMap<String, Vec<Cell>>>,
}

impl Overlay {
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    pub(crate) fn put(&mut self, table: usize, key: String, row: &[Cell]) {
        let bytes: usize = row.iter().flatten().map(|value| value.len()).sum();
        if bytes < ROW_TEXT_MIN {
            return self.remove(table, &key);
        }
        self.rows.entry(table).or_default().insert(key, row.to_vec());
    }

    pub(crate) fn get(&self, table: usize, key: &str) -> Option<&Vec<Cell>> {
        self.rows.get(&table)?.get(key)
    }

    pub(crate) fn remove(&mut self, table: usize, key: &str) {
        if let Some(rows) = self.rows.get_mut(&table) {
            rows.remove(key);
        }
    }

    pub(crate) fn truncate(&mut self, table: usize) {
        self.rows.remove(&table);
    }
}
