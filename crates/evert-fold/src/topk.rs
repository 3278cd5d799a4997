//! TopK: the first rows of each group in an order.
//!
//! Every row of a group is held, since one that leaves makes room for one that was behind. A tick
//! looks at the rows shown of the groups that it touches, and only where a row comes or goes at
//! or before the last of them.
//!
//! Invariant: what a group shows is a function of its rows: ties break by whole-row bytes.

use std::cmp::Ordering;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use evert_model::Delta;
use hashbrown::HashSet;

use crate::FoldError;
use crate::key_index::KeyIndex;
use crate::keys::KeyRows;
use crate::ordered_rows::{OrderedRows, entry_of, parts_of};
use crate::packed::Packed;
use crate::plan::SortKey;
use crate::rows::batch_of;
use crate::sets::Sets;
use crate::state::entry::{Reader, Writer, malformed};
use crate::state::{StateError, StateSink, Stateful};

/// Rows are put out in batches of so many.
const OUTPUT_ROWS: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct TopK {
    order: OrderedRows,
    schema: SchemaRef,
    skip: usize,
    limit: usize,
    groups: KeyIndex,
    /// By slot of the group.
    rows: Sets<Box<[u8]>>,
    /// By slot: the place among the tick's touched groups.
    places: Vec<Option<u32>>,
    /// The state's entries that have changed since the last save, if anyone wants to know.
    changed: Option<HashSet<Box<[u8]>>>,
    row_count: usize,
}

/// A group that a tick touches.
struct Touched {
    slot: u32,
    /// The last row shown, if rows behind it are not.
    last: Option<Box<[u8]>>,
    /// What was shown, if that may change.
    before: Option<Vec<Shown>>,
}

/// A row that is shown, and how often.
type Shown = (Box<[u8]>, i64);

impl TopK {
    pub(crate) fn new(
        schema: SchemaRef,
        keys: &[usize],
        order: &[SortKey],
        skip: usize,
        limit: Option<usize>,
    ) -> Result<Self, FoldError> {
        Ok(Self {
            order: OrderedRows::new(&schema, keys, order)?,
            schema,
            skip,
            limit: limit.unwrap_or(usize::MAX),
            groups: KeyIndex::default(),
            rows: Sets::default(),
            places: Vec::new(),
            changed: None,
            row_count: 0,
        })
    }

    pub(crate) fn tick(&mut self, input: &[Delta]) -> Vec<Delta> {
        let mut touched = Vec::new();
        let encoded: Vec<(Vec<u32>, KeyRows)> =
            input.iter().map(|delta| self.touch(delta, &mut touched)).collect();
        for (delta, (slots, rows)) in input.iter().zip(&encoded) {
            for (row, (&slot, &weight)) in slots.iter().zip(delta.weights.values()).enumerate() {
                self.change(slot, rows.get(row), weight);
            }
        }
        let mut out = Output::default();
        for group in &touched {
            if let Some(before) = &group.before {
                difference(before, self.shown(group.slot), |row, weight| {
                    out.slots.push(group.slot);
                    out.rows.push(row);
                    out.weights.push(weight);
                });
            }
        }
        let deltas = self.deltas(&out);
        for group in touched {
            self.places[group.slot as usize] = None;
            if self.rows.get(group.slot).is_empty() {
                self.groups.remove(group.slot);
            }
        }
        deltas
    }

    /// The group and the bytes of each row; what the groups show is put aside where it may change.
    fn touch(&mut self, delta: &Delta, touched: &mut Vec<Touched>) -> (Vec<u32>, KeyRows) {
        let keys = self.order.keys(&delta.rows);
        let rows = self.order.encode(&delta.rows);
        let mut slots = Vec::with_capacity(delta.len());
        for row in 0..delta.len() {
            let (slot, _) = self.groups.find_or_insert(keys.get(row));
            if slot as usize >= self.places.len() {
                self.places.resize(self.groups.end(), None);
                self.rows.resize(self.groups.end());
            }
            let place = *self.places[slot as usize].get_or_insert_with(|| {
                touched.push(Touched { slot, last: None, before: None });
                u32::try_from(touched.len() - 1).expect("fewer than 2^32 groups")
            });
            let group = &mut touched[place as usize];
            if group.before.is_none() {
                if group.last.is_none() {
                    group.last = self.last_shown(slot).map(Into::into);
                }
                if group.last.as_ref().is_none_or(|last| rows.get(row) <= &**last) {
                    let shown = self.shown(slot).map(|(row, count)| (row.into(), count));
                    group.before = Some(shown.collect());
                }
            }
            slots.push(slot);
        }
        (slots, rows)
    }

    fn change(&mut self, slot: u32, row: &[u8], weight: i64) {
        if let Some(changed) = &mut self.changed {
            changed.insert(entry_of(self.groups.get(slot), row));
        }
        self.put(slot, row, weight);
    }

    fn put(&mut self, slot: u32, row: &[u8], weight: i64) {
        match self.rows.step(slot, row, weight) {
            1 => self.row_count += 1,
            -1 => self.row_count -= 1,
            _ => {}
        }
    }

    /// The rows that a group shows, in order.
    fn shown(&self, slot: u32) -> impl Iterator<Item = (&[u8], i64)> {
        let (mut skip, mut left) = (self.skip, self.limit);
        self.rows
            .get(slot)
            .iter()
            .map(move |(row, count)| {
                let count =
                    usize::try_from(count).expect("no row was retracted without being there");
                let skipped = skip.min(count);
                let shown = left.min(count - skipped);
                (skip, left) = (skip - skipped, left - shown);
                (row.as_ref(), shown, left)
            })
            .scan(false, |done, (row, shown, left)| {
                // The row that fills the limit is the last.
                let was_done = std::mem::replace(done, left == 0);
                (!was_done).then_some((row, shown as i64))
            })
            .filter(|&(_, shown)| shown > 0)
    }

    /// The last row that a group shows, if the limit is reached: rows behind it change nothing.
    fn last_shown(&self, slot: u32) -> Option<&[u8]> {
        let mut left = self.skip.saturating_add(self.limit);
        self.rows.get(slot).iter().find_map(|(row, count)| {
            left = left.saturating_sub(usize::try_from(count).unwrap_or(0));
            (left == 0).then_some(row.as_ref())
        })
    }

    fn deltas(&self, out: &Output) -> Vec<Delta> {
        let all = 0..out.weights.len();
        let chunks = all.clone().step_by(OUTPUT_ROWS);
        let deltas = chunks.map(|start| {
            let chunk = start..all.end.min(start + OUTPUT_ROWS);
            let keys = out.slots[chunk.clone()].iter().map(|&slot| self.groups.get(slot));
            let rows = chunk.clone().map(|row| out.rows.get(row));
            let columns = self.order.decode(keys, rows);
            let rows = batch_of(&self.schema, columns, chunk.len());
            Delta::new(rows, Int64Array::from(out.weights[chunk].to_vec()))
        });
        deltas.collect()
    }

    /// Rows held.
    pub(crate) fn len(&self) -> usize {
        self.row_count
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.groups.memory_bytes()
            + self.rows.memory_bytes()
            + self.places.capacity() * size_of::<Option<u32>>()
    }
}

/// Rows on their way out.
#[derive(Default)]
struct Output {
    slots: Vec<u32>,
    rows: Packed,
    weights: Vec<i64>,
}

/// Puts out what makes one list of rows the other; both are in the order of their bytes.
fn difference<'a>(
    before: &'a [Shown],
    after: impl Iterator<Item = (&'a [u8], i64)>,
    mut put: impl FnMut(&[u8], i64),
) {
    let mut before = before.iter().map(|(row, count)| (row.as_ref(), *count)).peekable();
    let mut after = after.peekable();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        let weight = new.map_or(0, |(_, count)| count) - old.map_or(0, |(_, count)| count);
        if let (Some((row, _)), true) = (old.or(new), weight != 0) {
            put(row, weight);
        }
    }
}

/// Entries: a group's key and a row, to how often it is there.
impl Stateful for TopK {
    fn track(&mut self) {
        self.changed.get_or_insert_default();
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        let Some(changed) = &mut self.changed else { return };
        let mut value = Writer::default();
        for entry in std::mem::take(changed) {
            let (key, row) = parts_of(&entry).expect("it was made here");
            let count = self.groups.find(key).map_or(0, |slot| self.rows.get(slot).count(row));
            if count == 0 {
                sink.delete(&entry);
                continue;
            }
            value.clear();
            value.integer(count.into());
            sink.put(&entry, value.bytes());
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (key, row) = parts_of(key).ok_or_else(malformed)?;
        let mut reader = Reader::new(value);
        let count = reader.count()?;
        reader.end()?;
        if count <= 0 {
            return Err(malformed());
        }
        let (slot, _) = self.groups.find_or_insert(key);
        if slot as usize >= self.places.len() {
            self.places.resize(self.groups.end(), None);
            self.rows.resize(self.groups.end());
        }
        self.put(slot, row, count);
        Ok(())
    }
}
