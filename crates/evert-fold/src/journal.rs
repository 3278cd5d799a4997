//! Changes of entries as they were made, for state most of whose entries change once or twice.
//!
//! To save it costs no look-up: what a key's value became was at hand when it did.

use crate::packed::Packed;
use crate::state::StateSink;

/// Keys and what became of them. Of several changes of one key the last counts.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    keys: Packed,
    /// Empty: the key is gone.
    values: Packed,
}

impl Journal {
    /// The key that begins with `tag` has this value now; an empty one says that it is gone.
    pub(crate) fn note(&mut self, tag: u8, key: &[u8], value: &[u8]) {
        self.keys.push_parts(&[&[tag], key]);
        self.values.push(value);
    }

    /// Gives what was noted, and begins anew.
    pub(crate) fn save(&mut self, sink: &mut dyn StateSink) {
        let Self { keys, values } = std::mem::take(self);
        for (key, value) in keys.iter().zip(values.iter()) {
            match value {
                [] => sink.delete(key),
                value => sink.put(key, value),
            }
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.values.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl StateSink for Vec<(Vec<u8>, Option<Vec<u8>>)> {
        fn put(&mut self, key: &[u8], value: &[u8]) {
            self.push((key.to_vec(), Some(value.to_vec())));
        }

        fn delete(&mut self, key: &[u8]) {
            self.push((key.to_vec(), None));
        }
    }

    #[test]
    fn changes_are_given_once_and_in_order() {
        let mut journal = Journal::default();
        journal.note(1, b"a", b"first");
        journal.note(1, b"a", b"");
        journal.note(2, b"", b"second");
        let mut saved = Vec::new();
        journal.save(&mut saved);
        let put = |key: &[u8], value: &[u8]| (key.to_vec(), Some(value.to_vec()));
        let expected =
            [put(b"\x01a", b"first"), (b"\x01a".to_vec(), None), put(b"\x02", b"second")];
        assert_eq!(saved, expected);
        journal.save(&mut saved);
        assert_eq!(saved.len(), 3);
    }
}
