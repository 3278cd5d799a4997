//! A Reduce's state in entries: one a group, and one for each value of a group's multisets.
//!
//! A group's entry is named by its key and holds its number, its rows and its sums. A value's is
//! named by the store, the group's number and the value, and holds how often it occurs.

use hashbrown::{HashMap, HashSet};

use super::Reduce;
use crate::state::entry::{Reader, Writer, malformed};
use crate::state::{StateError, StateSink, Stateful};

const GROUP: u8 = 0;
const VALUE: u8 = 1;

/// The number of no group.
const NO_GROUP: u64 = u64::MAX;

/// The groups' numbers: names for saved values that outlive slots.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// By slot; empty if no values are kept.
    ids: Vec<u64>,
    next: u64,
}

impl Numbers {
    pub(super) fn give(&mut self, slot: u32) {
        let slot = slot as usize;
        if slot >= self.ids.len() {
            self.ids.resize(slot + 1, NO_GROUP);
        }
        self.ids[slot] = self.next;
        self.next += 1;
    }

    pub(super) fn take(&mut self, slot: u32) {
        if let Some(id) = self.ids.get_mut(slot as usize) {
            *id = NO_GROUP;
        }
    }

    /// By slot.
    pub(super) fn ids(&self) -> &[u64] {
        &self.ids
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u64>()
    }
}

/// Groups that have changed since the last save.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    /// By slot.
    is_changed: Vec<bool>,
    changed: Vec<u32>,
    /// Keys of groups that were removed; they may be back.
    gone: HashSet<Box<[u8]>>,
}

impl Tracking {
    pub(super) fn change(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.is_changed.len() {
            self.is_changed.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.is_changed[at], true) {
            self.changed.push(slot);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.gone.insert(key.into());
    }
}

/// What is known while entries are loaded.
#[derive(Debug, Default)]
pub(super) struct Loading {
    slots: HashMap<u64, u32>,
    /// Values whose groups have not been met.
    waiting: Vec<(u16, u64, Box<[u8]>, i64)>,
}

impl Reduce {
    fn save_groups(&mut self, sink: &mut dyn StateSink) {
        let Some(mut tracking) = self.tracking.take() else { return };
        let mut value = Writer::default();
        let name = |group: &[u8]| [&[GROUP], group].concat();
        for slot in tracking.changed.drain(..) {
            tracking.is_changed[slot as usize] = false;
            if self.rows[slot as usize] == 0 && !self.is_global {
                continue;
            }
            value.clear();
            value.integer(self.numbers.ids.get(slot as usize).copied().unwrap_or(0).into());
            value.integer(self.rows[slot as usize].into());
            self.accumulators.write(slot, &mut value);
            sink.put(&name(self.groups.get(slot)), value.bytes());
        }
        for group in tracking.gone.drain() {
            if self.groups.find(&group).is_none() {
                sink.delete(&name(&group));
            }
        }
        self.tracking = Some(tracking);
    }

    fn load_group(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (slot, is_new) = self.groups.find_or_insert(key);
        if !is_new && !self.is_global {
            return Err(malformed());
        }
        self.make_room();
        let mut reader = Reader::new(value);
        let id = u64::try_from(reader.integer()?).map_err(|_| malformed())?;
        self.rows[slot as usize] = reader.count()?;
        if self.rows[slot as usize] <= 0 && !self.is_global {
            return Err(malformed());
        }
        self.accumulators.read(slot, &mut reader)?;
        reader.end()?;
        self.global_shown = true;
        if self.accumulators.hold_values() {
            self.numbers.give(slot);
            self.numbers.ids[slot as usize] = id;
            self.numbers.next = self.numbers.next.max(id.checked_add(1).ok_or_else(malformed)?);
            self.loading.get_or_insert_default().slots.insert(id, slot);
        }
        Ok(())
    }

    fn load_value(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (store, key) = key.split_first_chunk().ok_or_else(malformed)?;
        let (id, kept) = key.split_first_chunk().ok_or_else(malformed)?;
        let (store, id) = (u16::from_be_bytes(*store), u64::from_be_bytes(*id));
        let mut reader = Reader::new(value);
        let count = reader.count()?;
        reader.end()?;
        let loading = self.loading.get_or_insert_default();
        match loading.slots.get(&id) {
            Some(&slot) => self.accumulators.load_value(store, slot, kept, count),
            None => {
                loading.waiting.push((store, id, kept.into(), count));
                Ok(())
            }
        }
    }
}

impl Stateful for Reduce {
    fn track(&mut self) {
        self.tracking.get_or_insert_default();
        self.accumulators.track();
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        self.save_groups(sink);
        let (mut name, mut value) = (Vec::new(), Writer::default());
        let numbers = (self.numbers.ids(), self.numbers.next);
        self.accumulators.save_values(numbers, |store, id, kept, count| {
            name.clear();
            name.push(VALUE);
            name.extend_from_slice(&store.to_be_bytes());
            name.extend_from_slice(&id.to_be_bytes());
            name.extend_from_slice(kept);
            if count == 0 {
                sink.delete(&name);
                return;
            }
            value.clear();
            value.integer(count.into());
            sink.put(&name, value.bytes());
        });
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match key.split_first() {
            Some((&GROUP, key)) => self.load_group(key, value),
            Some((&VALUE, key)) => self.load_value(key, value),
            _ => Err(malformed()),
        }
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        let Some(loading) = self.loading.take() else { return Ok(()) };
        for (store, id, kept, count) in loading.waiting {
            let slot = *loading.slots.get(&id).ok_or_else(malformed)?;
            self.accumulators.load_value(store, slot, &kept, count)?;
        }
        self.accumulators.loaded(self.numbers.next);
        Ok(())
    }
}
