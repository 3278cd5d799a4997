//! Which entries of an index have changed since the last save.

use crate::key_index::KeyIndex;
use crate::packed::Packed;
use crate::state::{StateError, StateSink};

/// Slots of a [`KeyIndex`] whose entries have to be saved, and keys that have lost their slots.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    slots: Vec<u32>,
    is_unsaved: Vec<bool>,
    gone: Packed,
}

impl Unsaved {
    /// The slot's entry has another value, or is new.
    pub(crate) fn change(&mut self, slot: u32) {
        let slot_index = slot as usize;
        if slot_index >= self.is_unsaved.len() {
            self.is_unsaved.resize(slot_index + 1, false);
        }
        if !std::mem::replace(&mut self.is_unsaved[slot_index], true) {
            self.slots.push(slot);
        }
    }

    /// The slot is about to lose its key.
    pub(crate) fn remove(&mut self, slot: u32, key: &[u8]) {
        if let Some(is_unsaved) = self.is_unsaved.get_mut(slot as usize) {
            *is_unsaved = false;
        }
        self.gone.push(key);
    }

    /// Gives each changed entry once: its key after `prefix`, and what `value` writes.
    pub(crate) fn save(
        &mut self,
        keys: &KeyIndex,
        prefix: u8,
        sink: &mut dyn StateSink,
        mut value: impl FnMut(u32, &mut Vec<u8>),
    ) {
        let (mut key, mut bytes) = (vec![prefix], Vec::new());
        for gone in std::mem::take(&mut self.gone).iter() {
            // It may have come back meanwhile, and is saved below then.
            if keys.find(gone).is_none() {
                key.truncate(1);
                key.extend_from_slice(gone);
                sink.delete(&key);
            }
        }
        for slot in std::mem::take(&mut self.slots) {
            if !std::mem::take(&mut self.is_unsaved[slot as usize]) {
                continue;
            }
            key.truncate(1);
            key.extend_from_slice(keys.get(slot));
            bytes.clear();
            value(slot, &mut bytes);
            sink.put(&key, &bytes);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
            + self.is_unsaved.capacity()
            + self.gone.memory_bytes()
    }
}

/// Takes a number off the front of a saved value.
pub(crate) fn split_number(value: &[u8]) -> Result<(i64, &[u8]), StateError> {
    let (number, rest) =
        value.split_first_chunk::<8>().ok_or_else(|| StateError("an entry ends early".into()))?;
    Ok((i64::from_le_bytes(*number), rest))
}
