//! A hash index over byte strings: key bytes to slot number.
//!
//! The hash seed differs from run to run; nothing that is put out follows the table's order.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::slots::ByteSlots;

/// Hashes of keys, cut to what an index keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyHasher(DefaultHashBuilder);

impl KeyHasher {
    pub(crate) fn hash(&self, bytes: &[u8]) -> u32 {
        let hash = self.0.hash_one(bytes);
        (hash ^ (hash >> 32)) as u32
    }
}

/// Hash to slot number; who asks compares the keys.
#[derive(Debug, Default)]
pub(crate) struct HashIndex {
    table: HashTable<(u32, u32)>,
}

/// The table wants the high bits filled too.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl HashIndex {
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.table.find(spread(hash), |&(h, slot)| h == hash && is_it(slot)).map(|&(_, slot)| slot)
    }

    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        self.table.insert_unique(spread(hash), (hash, slot), |&(h, _)| spread(h));
    }

    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let found = self.table.find_entry(spread(hash), |&(_, s)| s == slot);
        found.expect("what is removed was indexed").remove();
    }

    pub(crate) fn reserve(&mut self, additional: usize) {
        self.table.reserve(additional, |&(h, _)| spread(h));
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.table.allocation_size()
    }
}

/// Distinct byte strings, each in a slot of its own.
#[derive(Debug, Default)]
pub(crate) struct KeyIndex {
    hasher: KeyHasher,
    index: HashIndex,
    slots: ByteSlots,
}

impl KeyIndex {
    pub(crate) fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.find(self.hasher.hash(key), |slot| self.slots.get(slot) == key)
    }

    /// The key's slot, and whether it is new.
    pub(crate) fn find_or_insert(&mut self, key: &[u8]) -> (u32, bool) {
        let hash = self.hasher.hash(key);
        if let Some(slot) = self.index.find(hash, |slot| self.slots.get(slot) == key) {
            return (slot, false);
        }
        let slot = self.slots.insert(key);
        self.index.insert(hash, slot);
        (slot, true)
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        let hash = self.hasher.hash(self.slots.get(slot));
        self.index.remove(hash, slot);
        self.slots.remove(slot);
    }

    pub(crate) fn get(&self, slot: u32) -> &[u8] {
        self.slots.get(slot)
    }

    /// Keys.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slot numbers lie below this.
    pub(crate) fn end(&self) -> usize {
        self.slots.end()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.slots.memory_bytes()
    }
}
