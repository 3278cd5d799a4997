//! Byte strings one after the other.

/// A list of byte strings in one piece of memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Packed {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.ends.push(self.data.len());
    }

    /// One string of several parts.
    pub(crate) fn push_parts(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.data.extend_from_slice(part));
        self.ends.push(self.data.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.data[start..self.ends[index]]
    }

    /// How often a string is in the list, which is sorted.
    pub(crate) fn count_of(&self, bytes: &[u8]) -> usize {
        let before = partition_point(self.len(), |index| self.get(index) < bytes);
        let after = partition_point(self.len(), |index| self.get(index) <= bytes);
        after - before
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.data.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// The first index below `len` for which `is_before` is false.
fn partition_point(len: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_they_went_in() {
        let mut packed = Packed::default();
        for bytes in [&b"a"[..], b"", b"longer", b""] {
            packed.push(bytes);
        }
        assert_eq!(packed.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"longer", b""]);
    }
}
