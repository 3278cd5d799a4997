//! Changed entries in one piece of memory, on their way to the store.

use evert_fold::StateSink;

/// The store's keys have at most 65,535 bytes; a member's number and part go before these.
const KEY_BYTES_MAX: usize = 65_000;

/// Changes of entries, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    data: Vec<u8>,
    ends: Vec<Ends>,
    part: Option<u8>,
    too_long: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    key: usize,
    /// `None`: deleted.
    value: Option<usize>,
}

impl Entries {
    /// Puts `part` before each key that comes.
    pub(crate) fn under(&mut self, part: u8) -> &mut Self {
        self.part = Some(part);
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether a key came that the store does not take.
    pub(crate) fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// The last change of each key, in the order of keys.
    pub(crate) fn sorted(&self) -> Vec<(&[u8], Option<&[u8]>)> {
        let mut changes: Vec<_> = self.iter().collect();
        // It is stable: of changes of one key the last made is the last.
        changes.sort_by_key(|(key, _)| *key);
        changes.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                *kept = *later;
            }
            is_same
        });
        changes
    }

    /// Keys, each with its new value, or `None` if it is gone.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.ends.iter().map(move |ends| {
            let key = &self.data[start..ends.key];
            let value = ends.value.map(|end| &self.data[ends.key..end]);
            start = ends.value.unwrap_or(ends.key);
            (key, value)
        })
    }

    fn key(&mut self, key: &[u8]) -> usize {
        self.too_long |= key.len() > KEY_BYTES_MAX;
        self.data.extend(self.part);
        self.data.extend_from_slice(key);
        self.data.len()
    }
}

impl StateSink for Entries {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let key = self.key(key);
        self.data.extend_from_slice(value);
        self.ends.push(Ends { key, value: Some(self.data.len()) });
    }

    fn delete(&mut self, key: &[u8]) {
        let key = self.key(key);
        self.ends.push(Ends { key, value: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_in_order() {
        let mut entries = Entries::default();
        entries.under(1).put(b"a", b"first");
        entries.delete(b"b");
        entries.under(2).put(b"", b"");
        let expected: Vec<(&[u8], Option<&[u8]>)> =
            vec![(b"\x01a", Some(b"first")), (b"\x01b", None), (b"\x02", Some(b""))];
        assert_eq!(entries.iter().collect::<Vec<_>>(), expected);
        entries.under(1).put(b"b", b"again");
        let sorted: Vec<(&[u8], Option<&[u8]>)> =
            vec![(b"\x01a", Some(b"first")), (b"\x01b", Some(b"again")), (b"\x02", Some(b""))];
        assert_eq!(entries.sorted(), sorted);
        assert!(!entries.is_too_long());
        entries.delete(&vec![0; KEY_BYTES_MAX + 1]);
        assert!(entries.is_too_long());
    }
}
