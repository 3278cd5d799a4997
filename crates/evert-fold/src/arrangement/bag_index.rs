//! The index of a bag: equal rows to the numbers of their entries.

use super::runs::{Place, Runs};
use crate::key_index::{HashIndex, KeyHasher};
use crate::keys::{KeyCodec, KeyRows};
use crate::matches::Matches;

/// Finds the entries of a row by the row's bytes.
#[derive(Debug, Default)]
pub(super) struct BagIndex {
    hasher: KeyHasher,
    /// Hash of the row to its group.
    index: HashIndex,
    groups: Vec<Group>,
    free: Vec<u32>,
    list_bytes: usize,
}

/// The entries of equal rows.
#[derive(Debug, Default)]
struct Group {
    entries: Matches,
    /// Of all entries.
    weight: i64,
}

impl BagIndex {
    pub(super) fn reserve(&mut self, rows: usize) {
        self.index.reserve(rows);
    }

    /// How often the row is there.
    pub(super) fn weight(&self, row: &[u8], runs: &Runs, codec: &KeyCodec) -> i64 {
        let hash = self.hasher.hash(row);
        self.group(hash, row, runs, codec).map_or(0, |group| self.groups[group as usize].weight)
    }

    /// Adds entry `id`; `row` may be at no place yet if it is a row that no other entry equals.
    pub(super) fn insert(
        &mut self,
        row: &[u8],
        id: u32,
        weight: i64,
        runs: &Runs,
        codec: &KeyCodec,
    ) {
        let hash = self.hasher.hash(row);
        let group = self.group(hash, row, runs, codec).unwrap_or_else(|| self.new_group(hash));
        let group = &mut self.groups[group as usize];
        self.list_bytes -= group.entries.heap_bytes();
        group.entries.push(id);
        self.list_bytes += group.entries.heap_bytes();
        group.weight += weight;
    }

    /// Takes the latest entry of a row out and gives its number, if there is one.
    pub(super) fn take(&mut self, row: &[u8], runs: &Runs, codec: &KeyCodec) -> Option<u32> {
        let hash = self.hasher.hash(row);
        let number = self.group(hash, row, runs, codec)?;
        let group = &mut self.groups[number as usize];
        let entries = group.entries.as_slice();
        let (id, last) = (*entries.last()?, entries.len() - 1);
        self.list_bytes -= group.entries.heap_bytes();
        group.entries.remove(last as u32);
        self.list_bytes += group.entries.heap_bytes();
        let Place { run, row } = runs.place(id);
        group.weight -= runs.get(run).run.weight(row as usize);
        if last == 0 {
            self.index.remove(hash, number);
            self.free.push(number);
        }
        Some(id)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.groups.capacity() * size_of::<Group>()
            + self.free.capacity() * size_of::<u32>()
            + self.list_bytes
    }

    fn group(&self, hash: u32, row: &[u8], runs: &Runs, codec: &KeyCodec) -> Option<u32> {
        self.index.find(hash, |group| {
            let first = self.groups[group as usize].entries.as_slice()[0];
            bytes_at(runs.place(first), runs, codec).get(0) == row
        })
    }

    fn new_group(&mut self, hash: u32) -> u32 {
        let group = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Group::default());
            u32::try_from(self.groups.len() - 1).expect("fewer than 2^32 rows of state")
        });
        self.index.insert(hash, group);
        group
    }
}

fn bytes_at(place: Place, runs: &Runs, codec: &KeyCodec) -> KeyRows {
    let rows = &runs.get(place.run).run.rows;
    let columns: Vec<_> =
        rows.columns().iter().map(|column| column.slice(place.row as usize, 1)).collect();
    codec.encode(&columns, 1)
}
