//! One side of a join: its rows by key.
//!
//! Invariants
//! - A row is held once, with its multiplicity, in the list of its key.
//! - Rows whose key matches nothing are not held.
//! - A key's slot is freed at the end of a step at the earliest.

use arrow::array::{ArrayRef, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;

use super::decoded::Decoded;
use super::shape::Matching;
use super::tally::Tally;
use crate::FoldError;
use crate::key_index::KeyIndex;
use crate::keys::{KeyCodec, KeyRows};
use crate::matches::Matches;
use crate::rows::columns_of;
use crate::unsaved::Unsaved;

/// What a side has to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeps {
    /// The rows, and not only how many each key has.
    pub(super) rows: bool,
    /// How many rows each key has.
    pub(super) totals: bool,
    /// How many matches each row has.
    pub(super) counts: bool,
}

/// The rows of one side that may have a match.
#[derive(Debug)]
pub(super) struct Side {
    key: Vec<usize>,
    key_codec: KeyCodec,
    null_key: Vec<u8>,
    row_codec: KeyCodec,
    matching: Matching,
    pub(super) keys: KeyIndex,
    /// By key slot.
    matches: Vec<Matches>,
    /// Held by lists of matches.
    list_bytes: usize,
    /// Keys that have lost their last row.
    emptied: Vec<u32>,
    pub(super) keeps_rows: bool,
    pub(super) rows: KeyIndex,
    /// By row slot.
    held: Vec<Held>,
    decoded: Decoded,
    /// By key slot: how many rows the key has.
    pub(super) totals: Option<Tally>,
    /// Of all rows, and of those whose key is NULL; only if there are totals.
    pub(super) total: Totals,
    /// By row slot: how many matches the row has.
    pub(super) counts: Option<Tally>,
    /// Of rows, or of keys if only keys are held.
    pub(super) unsaved: Option<Unsaved>,
}

/// Rows of a side by what a NULL matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) all: i64,
    pub(super) null: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    weight: i64,
    key: u32,
    /// The place in the key's list.
    at: u32,
}

/// A delta with its keys encoded.
pub(super) struct Keyed<'a> {
    pub(super) delta: &'a Delta,
    keys: KeyRows,
    /// Where no key column is NULL.
    valid: Option<NullBuffer>,
    matching: Matching,
}

impl Keyed<'_> {
    pub(super) fn key(&self, row: usize) -> &[u8] {
        self.keys.get(row)
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.valid.as_ref().is_some_and(|valid| valid.is_null(row))
    }

    /// Whether the row could match anything.
    pub(super) fn may_match(&self, row: usize) -> bool {
        self.matching != Matching::Equal || !self.is_null(row)
    }
}

impl Side {
    pub(super) fn new(
        schema: &SchemaRef,
        key: Vec<usize>,
        matching: Matching,
        keeps: Keeps,
    ) -> Result<Self, FoldError> {
        let types: Vec<_> = key.iter().map(|&column| schema.field(column).data_type()).collect();
        let key_codec = KeyCodec::new(types.iter().copied())?;
        let nulls: Vec<_> = types.iter().map(|&data_type| new_null_array(data_type, 1)).collect();
        Ok(Self {
            null_key: key_codec.encode(&nulls, 1).get(0).to_vec(),
            key_codec,
            row_codec: KeyCodec::of_schema(schema)?,
            key,
            matching,
            keys: KeyIndex::default(),
            matches: Vec::new(),
            list_bytes: 0,
            emptied: Vec::new(),
            keeps_rows: keeps.rows,
            rows: KeyIndex::default(),
            held: Vec::new(),
            decoded: Decoded::default(),
            totals: keeps.totals.then(Tally::default),
            total: Totals::default(),
            counts: keeps.counts.then(Tally::default),
            unsaved: None,
        })
    }

    pub(super) fn keyed<'a>(&self, delta: &'a Delta) -> Keyed<'a> {
        let columns = columns_of(&delta.rows, &self.key);
        let valid = columns
            .iter()
            .fold(None, |valid, column| NullBuffer::union(valid.as_ref(), column.nulls()));
        let keys = self.key_codec.encode_normalised(&columns, delta.len());
        Keyed { delta, keys, valid, matching: self.matching }
    }

    /// The held rows that may match a row of the other side, in lists.
    pub(super) fn candidates(&self, keyed: &Keyed<'_>, row: usize) -> Candidates<'_> {
        if !keyed.may_match(row) {
            return Candidates::default();
        }
        if self.matching != Matching::NotDifferent {
            return Candidates { equal: self.rows_of(keyed.key(row)), ..Candidates::default() };
        }
        if keyed.is_null(row) {
            return Candidates { all: Some(self), ..Candidates::default() };
        }
        let null = self.rows_of(&self.null_key);
        Candidates { equal: self.rows_of(keyed.key(row)), null, all: None }
    }

    /// How many rows match a key of the other side. Only if there are totals.
    pub(super) fn total_of(&self, keyed: &Keyed<'_>, row: usize) -> i64 {
        match self.matching {
            _ if !keyed.may_match(row) => 0,
            Matching::NotDifferent if keyed.is_null(row) => self.total.all,
            Matching::NotDifferent => self.key_total(keyed.key(row)) + self.total.null,
            Matching::Equal | Matching::NullEqual => self.key_total(keyed.key(row)),
        }
    }

    /// How many rows have exactly this key.
    pub(super) fn key_total(&self, key: &[u8]) -> i64 {
        let totals = self.totals.as_ref().expect("who asks had totals kept");
        self.keys.find(key).map_or(0, |slot| totals.get(slot))
    }

    /// The slots of the rows of a key.
    pub(super) fn rows_of(&self, key: &[u8]) -> &[u32] {
        self.keys.find(key).map_or(&[], |slot| self.matches[slot as usize].as_slice())
    }

    pub(super) fn key_slot(&self, key: &[u8]) -> Option<u32> {
        self.keys.find(key)
    }

    pub(super) fn key_at(&self, slot: u32) -> &[u8] {
        self.keys.get(slot)
    }

    /// Keys that have rows, each with them.
    pub(super) fn rows_by_key(&self) -> impl Iterator<Item = (&[u8], &[u32])> {
        let lists = self.matches.iter().enumerate().filter(|(_, m)| !m.as_slice().is_empty());
        lists.map(|(slot, matches)| (self.keys.get(slot as u32), matches.as_slice()))
    }

    /// The bytes of a key that is NULL.
    pub(super) fn null_key(&self) -> &[u8] {
        &self.null_key
    }

    pub(super) fn weight(&self, row: u32) -> i64 {
        self.held[row as usize].weight
    }

    /// The key of a held row.
    pub(super) fn key_of(&self, row: u32) -> &[u8] {
        self.keys.get(self.held[row as usize].key)
    }

    /// How many matches a held row has.
    pub(super) fn match_count(&self, row: u32) -> i64 {
        self.counts.as_ref().map_or(0, |counts| counts.get(row))
    }

    /// Rows whose matches were counted anew since the last call, with their counts before.
    pub(super) fn take_recounted(&mut self) -> Vec<(u32, i64)> {
        let Some(counts) = &mut self.counts else { return Vec::new() };
        let changed = counts.take_changed();
        if let Some(unsaved) = &mut self.unsaved {
            changed.iter().for_each(|&(row, _)| unsaved.change(row));
        }
        changed
    }

    /// The columns of held rows.
    pub(super) fn decode(&self, rows: &[u32]) -> Vec<ArrayRef> {
        let decode = || self.row_codec.decode(rows.iter().map(|&row| self.rows.get(row)));
        self.decoded.pick(rows).unwrap_or_else(decode)
    }

    /// So many rows of the other side are about to be met.
    pub(super) fn expect(&mut self, rows: usize) {
        // Without a key each of them meets every row.
        let pairs = if self.key.is_empty() { rows.saturating_mul(self.rows.len()) } else { rows };
        let held = self.held.iter().enumerate().filter(|(_, held)| held.weight != 0);
        let slots = held.map(|(slot, _)| slot as u32);
        self.decoded.expect(pairs, slots, (&self.rows, &self.row_codec));
    }

    /// Takes a delta in; `counts` are its rows' matches, if they are counted by row.
    pub(super) fn update(&mut self, keyed: &Keyed<'_>, counts: Option<&[i64]>) {
        let delta = keyed.delta;
        let rows =
            self.keeps_rows.then(|| self.row_codec.encode(delta.rows.columns(), delta.len()));
        for (row, &weight) in delta.weights.values().iter().enumerate() {
            if weight == 0 || !keyed.may_match(row) {
                continue;
            }
            if self.totals.is_some() {
                self.count(keyed.key(row), keyed.is_null(row), weight);
            }
            if let Some(rows) = &rows {
                let count = counts.map_or(0, |counts| counts[row]);
                self.change(keyed.key(row), rows.get(row), weight, count);
            }
        }
    }

    /// Counts rows of a key.
    pub(super) fn count(&mut self, key: &[u8], is_null: bool, weight: i64) {
        let slot = self.find_or_insert_key(key);
        let totals = self.totals.as_mut().expect("totals are kept");
        totals.add(slot, weight);
        self.total.all += weight;
        if is_null {
            self.total.null += weight;
        }
        if totals.get(slot) == 0 {
            self.emptied.push(slot);
        }
        if !self.keeps_rows
            && let Some(unsaved) = &mut self.unsaved
        {
            unsaved.change(slot);
        }
    }

    fn find_or_insert_key(&mut self, key: &[u8]) -> u32 {
        let (slot, is_new) = self.keys.find_or_insert(key);
        if is_new && slot as usize >= self.matches.len() {
            self.matches.resize(self.keys.end(), Matches::None);
        }
        slot
    }

    /// Changes how often a row is held; a new row has `count` matches.
    pub(super) fn change(&mut self, key: &[u8], row: &[u8], weight: i64, count: i64) {
        let (row, is_new) = self.rows.find_or_insert(row);
        self.decoded.forget();
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.change(row);
        }
        if is_new {
            let key = self.find_or_insert_key(key);
            let at = self.with_matches(key, |matches| matches.push(row));
            if row as usize >= self.held.len() {
                self.held.resize(self.rows.end(), Held::default());
            }
            self.held[row as usize] = Held { weight, key, at };
            if let Some(counts) = &mut self.counts {
                counts.set(row, count);
            }
            return;
        }
        let held = &mut self.held[row as usize];
        held.weight += weight;
        if held.weight == 0 {
            let Held { key, at, .. } = *held;
            if let Some(unsaved) = &mut self.unsaved {
                unsaved.remove(row, self.rows.get(row));
            }
            self.rows.remove(row);
            if let Some(moved) = self.with_matches(key, |matches| matches.remove(at)) {
                self.held[moved as usize].at = at;
            }
            if self.matches[key as usize].as_slice().is_empty() {
                self.emptied.push(key);
            }
        }
    }

    fn with_matches<T>(&mut self, key: u32, change: impl FnOnce(&mut Matches) -> T) -> T {
        let matches = &mut self.matches[key as usize];
        self.list_bytes -= matches.heap_bytes();
        let result = change(matches);
        self.list_bytes += matches.heap_bytes();
        result
    }

    /// Ends a step that has changed this side's rows.
    ///
    /// # Panics
    /// If a key has lost more rows than it had.
    pub(super) fn settle(&mut self) {
        let mut emptied = std::mem::take(&mut self.emptied);
        emptied.sort_unstable();
        emptied.dedup();
        for slot in emptied {
            let has_rows = !self.matches[slot as usize].as_slice().is_empty();
            if !has_rows && self.totals.as_ref().is_none_or(|totals| totals.get(slot) == 0) {
                if !self.keeps_rows
                    && let Some(unsaved) = &mut self.unsaved
                {
                    unsaved.remove(slot, self.keys.get(slot));
                }
                self.keys.remove(slot);
            }
        }
    }

    /// Rows held, or keys if only keys are.
    pub(super) fn len(&self) -> usize {
        if self.keeps_rows { self.rows.len() } else { self.keys.len() }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes()
            + self.rows.memory_bytes()
            + self.held.capacity() * size_of::<Held>()
            + self.matches.capacity() * size_of::<Matches>()
            + self.list_bytes
            + self.decoded.memory_bytes()
            + self.totals.as_ref().map_or(0, Tally::memory_bytes)
            + self.counts.as_ref().map_or(0, Tally::memory_bytes)
            + self.unsaved.as_ref().map_or(0, Unsaved::memory_bytes)
    }
}

/// The rows that may match one row.
#[derive(Default)]
pub(super) struct Candidates<'a> {
    equal: &'a [u32],
    null: &'a [u32],
    all: Option<&'a Side>,
}

impl Candidates<'_> {
    pub(super) fn for_each(&self, mut visit: impl FnMut(u32)) {
        self.equal.iter().chain(self.null).for_each(|&row| visit(row));
        if let Some(side) = self.all {
            let rows = side.matches.iter().flat_map(Matches::as_slice);
            rows.for_each(|&row| visit(row));
        }
    }
}
