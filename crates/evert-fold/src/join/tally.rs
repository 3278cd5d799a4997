//! Counts by slot, and which of them a step has changed.

/// Counts by slot. Within a step they may be negative.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Vec<i64>,
    is_changed: Vec<bool>,
    /// Slots and their counts before.
    changed: Vec<(u32, i64)>,
}

impl Tally {
    /// The count of a slot, 0 if it was never changed.
    pub(super) fn get(&self, slot: u32) -> i64 {
        self.counts.get(slot as usize).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, slot: u32, weight: i64) {
        self.reach(slot);
        let count = &mut self.counts[slot as usize];
        if !std::mem::replace(&mut self.is_changed[slot as usize], true) {
            self.changed.push((slot, *count));
        }
        *count += weight;
    }

    /// Gives a slot that begins a new life its count.
    pub(super) fn set(&mut self, slot: u32, count: i64) {
        self.reach(slot);
        self.counts[slot as usize] = count;
    }

    /// The slots whose counts were changed since the last call, with their counts before.
    pub(super) fn take_changed(&mut self) -> Vec<(u32, i64)> {
        for &(slot, _) in &self.changed {
            self.is_changed[slot as usize] = false;
        }
        std::mem::take(&mut self.changed)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>() + self.is_changed.capacity()
    }

    fn reach(&mut self, slot: u32) {
        if slot as usize >= self.counts.len() {
            self.counts.resize(slot as usize + 1, 0);
            self.is_changed.resize(slot as usize + 1, false);
        }
    }
}
