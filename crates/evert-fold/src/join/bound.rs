//! The bound of what a join gives in a tick: rows that meet far too many others must not take all
//! memory and disk before anybody can say which view it was.

use evert_model::Delta;

/// Unless told otherwise. A table of a thousand rows that each meet twenty thousand stays within.
const BYTES_MAX: usize = 8 << 30;

/// How much of a tick's bound is left.
#[derive(Debug)]
pub(super) struct Bound {
    bytes_max: usize,
    bytes: usize,
}

impl Default for Bound {
    fn default() -> Self {
        Self::of(BYTES_MAX)
    }
}

impl Bound {
    pub(super) fn of(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0 }
    }

    /// Another tick begins.
    pub(super) fn reset(&mut self) {
        self.bytes = 0;
    }

    /// So much has been given. Values of varying length count as their places in the column.
    pub(super) fn add(&mut self, delta: &Delta) {
        let columns = delta.rows.schema_ref().fields().iter();
        let width = |width: Option<usize>| width.unwrap_or(size_of::<u128>());
        let row: usize = columns.map(|field| width(field.data_type().primitive_width())).sum();
        self.bytes = self.bytes.saturating_add(delta.len() * (row + size_of::<i64>()));
    }

    pub(super) fn is_passed(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Why the tick was given up, if it was.
    pub(super) fn failure(&self) -> Option<String> {
        let why = "the rows of a join in one step take more than";
        self.is_passed().then(|| format!("{why} {} MiB", self.bytes_max.div_ceil(1 << 20)))
    }
}
