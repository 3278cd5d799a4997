//! Cursors: where scans stand, between one `SCAN` and the next.
//!
//! A cursor is a number that stands for the last key that was given. Any connection may go on
//! with it, more than once, until many later ones have been given.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use evert_view::Name;

/// Cursors that are kept, and what their keys may hold together.
const KEPT_MAX: usize = 10_000;
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Where a scan goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The relation or view.
    pub(super) name: Name,
    /// The last key that was given; the scan begins at the first if there is none.
    pub(super) after: Option<Vec<u8>>,
}

/// The cursors of all connections.
pub(super) struct Cursors(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    next: u64,
    places: BTreeMap<u64, Place>,
    bytes: usize,
}

impl Cursors {
    pub(super) fn new() -> Self {
        // A cursor from before a restart must not be taken for another. Numbers stay below 2^53,
        // which JavaScript's clients can count to.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let next = (seconds & ((1 << 33) - 1)) << 20 | 1;
        Self(Mutex::new(Kept { next, ..Kept::default() }))
    }

    /// Keeps a place and gives the cursor for it.
    pub(super) fn keep(&self, place: Place) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cursor = kept.next;
        kept.next += 1;
        kept.bytes += bytes_of(&place);
        kept.places.insert(cursor, place);
        while kept.places.len() > KEPT_MAX || kept.bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = kept.places.pop_first() else { break };
            kept.bytes -= bytes_of(&oldest);
        }
        cursor
    }

    /// The place that a cursor stands for, if it is kept.
    pub(super) fn place(&self, cursor: u64) -> Option<Place> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.places.get(&cursor).cloned()
    }
}

fn bytes_of(place: &Place) -> usize {
    place.after.as_ref().map_or(0, Vec::len) + place.name.schema.len() + place.name.name.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let cursors = Cursors::new();
        let place = |key: usize| Place { name: Name::public("v"), after: Some(vec![0; key]) };
        let first = cursors.keep(place(1));
        assert_eq!(cursors.place(first), Some(place(1)));
        assert_eq!(cursors.place(first), Some(place(1)), "a client may ask again");
        let large = cursors.keep(place(KEPT_BYTES_MAX - 10));
        assert!(cursors.place(first).is_none());
        assert!(cursors.place(large).is_some());
        for _ in 0..=KEPT_MAX {
            cursors.keep(place(0));
        }
        assert!(cursors.place(large).is_none());
        assert!(cursors.place(0).is_none());
    }
}
