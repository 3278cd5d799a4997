//! The records of `__consumer_offsets`, in Kafka's own layout.
//!
//! Source: `OffsetCommitKey.json` and `OffsetCommitValue.json` of Apache Kafka. Keys are written
//! in version 1 and values in version 3, as Kafka does; older ones are read.

use bytes::{Buf, BufMut};
use thiserror::Error;

const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 3;
const NO_EPOCH: i32 = -1;

/// What an offset is committed for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OffsetKey {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

/// What was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetValue {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    pub(crate) committed_ms: i64,
}

/// A record that is not what this topic holds.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum RecordError {
    #[error("it is cut short")]
    Short,
    #[error("version {0} is not known")]
    Version(i16),
    #[error("a string is not UTF-8")]
    Text,
}

impl OffsetKey {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10 + self.group.len() + self.topic.len());
        out.put_i16(KEY_VERSION);
        put_text(&mut out, &self.group);
        put_text(&mut out, &self.topic);
        out.put_i32(self.partition);
        out
    }

    /// Reads a key; `None` is a key of another kind, such as Kafka's group metadata.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        match bytes.try_get_i16().map_err(|_| RecordError::Short)? {
            0 | 1 => {}
            2 => return Ok(None),
            other => return Err(RecordError::Version(other)),
        }
        Ok(Some(Self {
            group: get_text(&mut bytes)?,
            topic: get_text(&mut bytes)?,
            partition: bytes.try_get_i32().map_err(|_| RecordError::Short)?,
        }))
    }
}

impl OffsetValue {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.metadata.len());
        out.put_i16(VALUE_VERSION);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_text(&mut out, &self.metadata);
        out.put_i64(self.committed_ms);
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let version = bytes.try_get_i16().map_err(|_| RecordError::Short)?;
        if !(0..=VALUE_VERSION).contains(&version) {
            return Err(RecordError::Version(version));
        }
        let offset = bytes.try_get_i64().map_err(|_| RecordError::Short)?;
        let leader_epoch = match version {
            VALUE_VERSION => bytes.try_get_i32().map_err(|_| RecordError::Short)?,
            _ => NO_EPOCH,
        };
        let metadata = get_text(&mut bytes)?;
        let committed_ms = bytes.try_get_i64().map_err(|_| RecordError::Short)?;
        Ok(Self { offset, leader_epoch, metadata, committed_ms })
    }
}

/// Kafka's strings have lengths of 16 bits; what a client sends cannot be longer, but for
/// flexible versions, whose longer strings are refused before they come here.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = i16::try_from(text.len()).expect("long strings are refused at the door");
    out.put_i16(len);
    out.put_slice(text.as_bytes());
}

fn get_text(bytes: &mut &[u8]) -> Result<String, RecordError> {
    let len = bytes.try_get_i16().map_err(|_| RecordError::Short)?;
    let len = usize::try_from(len).map_err(|_| RecordError::Short)?;
    let (text, rest) = bytes.split_at_checked(len).ok_or(RecordError::Short)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).map_err(|_| RecordError::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> OffsetKey {
        OffsetKey { group: "g".into(), topic: "orders".into(), partition: 7 }
    }

    fn value() -> OffsetValue {
        OffsetValue {
            offset: 42,
            leader_epoch: 0,
            metadata: "\u{e9}t\u{e9}".into(),
            committed_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn keys_and_values_come_back() {
        assert_eq!(OffsetKey::decode(&key().encode()), Ok(Some(key())));
        assert_eq!(OffsetValue::decode(&value().encode()), Ok(value()));
    }

    #[test]
    fn the_layout_is_kafkas() {
        assert_eq!(key().encode(), b"\0\x01\0\x01g\0\x06orders\0\0\0\x07");
        let head = b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\0\0\x05";
        assert!(value().encode().starts_with(head));
    }

    #[test]
    fn cut_records_are_errors() {
        let (key, value) = (key().encode(), value().encode());
        for len in 0..key.len() {
            assert!(OffsetKey::decode(&key[..len]).is_err(), "{len}");
        }
        for len in 0..value.len() {
            assert!(OffsetValue::decode(&value[..len]).is_err(), "{len}");
        }
        assert_eq!(OffsetKey::decode(b"\0\x02\0\x01g"), Ok(None));
        assert_eq!(OffsetKey::decode(b"\0\x09"), Err(RecordError::Version(9)));
    }

    #[test]
    fn older_values_are_read() {
        let old = b"\0\x01\0\0\0\0\0\0\0\x2a\0\x01m\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06";
        let value = OffsetValue::decode(old).expect("version 1");
        assert_eq!((value.offset, value.leader_epoch, &*value.metadata), (42, -1, "m"));
        assert_eq!(value.committed_ms, 5);
    }
}
