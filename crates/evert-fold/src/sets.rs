//! Multisets of values by group, and which of them have changed since the last save.

use std::borrow::Borrow;
use std::hash::Hash;

use hashbrown::HashSet;

use crate::multiset::Multiset;
use crate::state::StateError;
use crate::state::entry::malformed;

/// A value that a multiset holds.
pub(crate) trait SetValue: Clone + Ord + Hash + Borrow<Self::Borrowed> {
    /// What a value is looked up by.
    type Borrowed: Ord + ?Sized;

    /// The value to keep.
    fn own(value: &Self::Borrowed) -> Self;
    /// Bytes that the kept value holds outside its struct.
    fn heap_bytes(value: &Self::Borrowed) -> usize;
    fn write(&self, out: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl SetValue for i64 {
    type Borrowed = Self;

    fn own(value: &Self) -> Self {
        *value
    }

    fn heap_bytes(_: &Self) -> usize {
        0
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_be_bytes(bytes.try_into().ok()?))
    }
}

impl SetValue for i128 {
    type Borrowed = Self;

    fn own(value: &Self) -> Self {
        *value
    }

    fn heap_bytes(_: &Self) -> usize {
        0
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_be_bytes(bytes.try_into().ok()?))
    }
}

impl SetValue for Box<[u8]> {
    type Borrowed = [u8];

    fn own(value: &[u8]) -> Self {
        value.into()
    }

    fn heap_bytes(value: &[u8]) -> usize {
        value.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(bytes.into())
    }
}

/// Takes a group's number, a value's bytes, and how often it occurs; 0: it has gone.
pub(crate) type ValueSink<'a> = dyn FnMut(u64, &[u8], i64) + 'a;

/// A multiset for each group.
#[derive(Debug)]
pub(crate) struct Sets<T> {
    sets: Vec<Multiset<T>>,
    heap_bytes: usize,
    /// Group number, slot and value, if anyone wants to know.
    changed: Option<HashSet<(u64, u32, T)>>,
    /// Groups of lower numbers may have values that were saved; others have none.
    saved_below: u64,
}

impl<T> Default for Sets<T> {
    fn default() -> Self {
        Self { sets: Vec::new(), heap_bytes: 0, changed: None, saved_below: 0 }
    }
}

impl<T: SetValue> Sets<T> {
    /// Changes a count; gives 1 if the value has come, -1 if it has gone. `ids` are the groups'
    /// numbers by slot, needed once changes are tracked.
    pub(crate) fn add(&mut self, slot: u32, ids: &[u64], value: &T::Borrowed, weight: i64) -> i64 {
        if weight == 0 {
            return 0;
        }
        let step = self.step(slot, value, weight);
        if let Some(changed) = &mut self.changed {
            let id = ids[slot as usize];
            let entry = (id, slot, T::own(value));
            // What has come and gone since the last save is no change.
            match step < 0 && id >= self.saved_below {
                true => changed.remove(&entry),
                false => changed.insert(entry),
            };
        }
        step
    }

    /// As `add`, but not noted as a change.
    pub(crate) fn step(&mut self, slot: u32, value: &T::Borrowed, weight: i64) -> i64 {
        let set = &mut self.sets[slot as usize];
        self.heap_bytes -= set.heap_bytes();
        let after = set.add(value, weight, T::own);
        if after == weight {
            self.heap_bytes += T::heap_bytes(value);
        } else if after == 0 {
            self.heap_bytes -= T::heap_bytes(value);
        }
        self.heap_bytes += set.heap_bytes();
        i64::from(after > 0) - i64::from(after - weight > 0)
    }

    pub(crate) fn get(&self, slot: u32) -> &Multiset<T> {
        &self.sets[slot as usize]
    }

    pub(crate) fn resize(&mut self, end: usize) {
        self.sets.resize_with(end, Multiset::default);
    }

    pub(crate) fn clear(&mut self, slot: u32) {
        let old = std::mem::take(&mut self.sets[slot as usize]);
        self.heap_bytes -= old.heap_bytes();
        self.heap_bytes -=
            old.iter().map(|(value, _)| T::heap_bytes(value.borrow())).sum::<usize>();
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.sets.capacity() * size_of::<Multiset<T>>() + self.heap_bytes
    }

    pub(crate) fn track(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// All values of groups with numbers below `next` have been loaded.
    pub(crate) fn loaded(&mut self, next: u64) {
        self.saved_below = next;
    }

    /// Gives the values that have changed since the last call. The next group gets the number
    /// `next`.
    pub(crate) fn save(&mut self, ids: &[u64], next: u64, sink: &mut ValueSink<'_>) {
        let Some(changed) = &mut self.changed else { return };
        let mut bytes = Vec::new();
        for (id, slot, value) in std::mem::take(changed) {
            let is_same = ids.get(slot as usize) == Some(&id);
            let count = if is_same { self.sets[slot as usize].count(value.borrow()) } else { 0 };
            if count == 0 && id >= self.saved_below {
                continue;
            }
            bytes.clear();
            value.write(&mut bytes);
            sink(id, &bytes, count);
        }
        self.saved_below = next;
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<T, StateError> {
        T::read(bytes).ok_or_else(malformed)
    }
}
