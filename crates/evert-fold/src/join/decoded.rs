//! Rows of a small side as columns: where every row of it is met again and again, picking them is
//! several times quicker than decoding their bytes each time.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;

use crate::key_index::KeyIndex;
use crate::keys::KeyCodec;

/// Larger sides are not kept twice.
const ROWS_MAX: usize = 64 * 1024;

/// The columns of all rows, from when they have been asked for often enough until one changes.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    columns: Option<Vec<ArrayRef>>,
    /// By row slot: the place in the columns.
    places: Vec<u32>,
    /// Rows asked for since the last change.
    asked: usize,
}

impl Decoded {
    /// A row came or went.
    pub(super) fn forget(&mut self) {
        self.asked = 0;
        if self.columns.is_some() {
            *self = Self::default();
        }
    }

    /// So many rows are about to be asked for: from `slots`, which are all there are.
    pub(super) fn expect(
        &mut self,
        rows: usize,
        slots: impl Iterator<Item = u32>,
        (index, codec): (&KeyIndex, &KeyCodec),
    ) {
        self.asked = self.asked.saturating_add(rows);
        if self.columns.is_some() || index.len() > ROWS_MAX || self.asked < 2 * index.len() {
            return;
        }
        let slots: Vec<u32> = slots.collect();
        self.places = vec![0; index.end()];
        for (place, &slot) in slots.iter().enumerate() {
            self.places[slot as usize] = place as u32;
        }
        self.columns = Some(codec.decode(slots.iter().map(|&slot| index.get(slot))));
    }

    /// The columns of some rows, if they are there.
    pub(super) fn pick(&self, slots: &[u32]) -> Option<Vec<ArrayRef>> {
        let columns = self.columns.as_ref()?;
        let places = slots.iter().map(|&slot| self.places[slot as usize]);
        let places = UInt32Array::from_iter_values(places);
        let picked = columns.iter().map(|column| take(column, &places, None));
        Some(picked.map(|column| column.expect("places lie in the columns")).collect())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().flatten();
        let columns: usize = columns.map(|column| column.get_array_memory_size()).sum();
        columns + self.places.capacity() * size_of::<u32>()
    }
}
