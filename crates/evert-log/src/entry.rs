//! Entries of the order: what a commit is, without its bytes.
//!
//! Format: a tag, then varints. Journal and order share it; numbers are absolute, so that an
//! entry can be read by itself. Tags not used yet are refused as damage, not skipped.

use evert_model::{LogTime, Offset, Position};

/// One commit in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) log_time: LogTime,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Facts, in the order (topic, partition, offset).
    Data(Box<[Span]>),
    /// Log time passed.
    TimeTick,
    /// The front of a partition was forgotten.
    Trim(Span),
}

/// A run of offsets of one partition; for a trim, what is below `first` is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) slot: Slot,
    pub(crate) first: Offset,
    pub(crate) count: i64,
}

impl Span {
    pub(crate) fn end(&self) -> Offset {
        self.first.plus(self.count)
    }
}

/// A partition, by its topic's number: the how-manieth topic of the log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot {
    pub(crate) topic: u32,
    pub(crate) partition: i32,
}

const TAG_DATA: u8 = 1;
const TAG_TICK: u8 = 2;
const TAG_TRIM: u8 = 3;

impl Entry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.body {
            Body::Data(_) => TAG_DATA,
            Body::TimeTick => TAG_TICK,
            Body::Trim(_) => TAG_TRIM,
        });
        put_varint(out, self.position.get());
        put_varint(out, self.log_time.get() as u64);
        match &self.body {
            Body::Data(spans) => {
                put_varint(out, spans.len() as u64);
                spans.iter().for_each(|span| put_span(out, span));
            }
            Body::TimeTick => {}
            Body::Trim(span) => put_span(out, span),
        }
    }

    /// Takes an entry off the front of `bytes`; `None` if they are not one.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let tag = take(bytes, 1)?[0];
        let position = Position::new(varint(bytes).filter(|n| *n <= i64::MAX as u64)?);
        let log_time = LogTime::new(varint(bytes)? as i64);
        let body = match tag {
            TAG_DATA => Body::Data(decode_spans(bytes)?),
            TAG_TICK => Body::TimeTick,
            TAG_TRIM => Body::Trim(decode_span(bytes)?),
            _ => return None,
        };
        Some(Self { position, log_time, body })
    }
}

fn decode_spans(bytes: &mut &[u8]) -> Option<Box<[Span]>> {
    let count = usize::try_from(varint(bytes)?).ok()?;
    // A span takes four bytes at least, which bounds the reservation by the bytes there are.
    if count > bytes.len() / 4 {
        return None;
    }
    (0..count).map(|_| decode_span(bytes)).collect()
}

fn put_span(out: &mut Vec<u8>, span: &Span) {
    put_varint(out, u64::from(span.slot.topic));
    put_varint(out, span.slot.partition as u64);
    put_varint(out, span.first.get() as u64);
    put_varint(out, span.count as u64);
}

fn decode_span(bytes: &mut &[u8]) -> Option<Span> {
    let topic = u32::try_from(varint(bytes)?).ok()?;
    let partition = i32::try_from(varint(bytes)?).ok()?;
    let first = i64::try_from(varint(bytes)?).ok()?;
    let count = i64::try_from(varint(bytes)?).ok()?;
    first.checked_add(count)?;
    Some(Span { slot: Slot { topic, partition }, first: Offset::new(first), count })
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}

/// CRC-32C, the checksum of everything the log writes itself.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(topic: u32, partition: i32, first: i64, count: i64) -> Span {
        Span { slot: Slot { topic, partition }, first: Offset::new(first), count }
    }

    proptest! {
        #[test]
        fn entries_read_back(position in 0..=i64::MAX as u64, time: i64, tag in 0..3,
                             spans in prop::collection::vec((any::<u32>(), 0..i32::MAX, 0..i64::MAX / 2, 0..i64::MAX / 2), 1..9)) {
            let spans: Box<[Span]> = spans.into_iter().map(|(t, p, f, c)| span(t, p, f, c)).collect();
            let body = match tag { 0 => Body::Data(spans), 1 => Body::TimeTick, _ => Body::Trim(spans[0]) };
            let entry = Entry { position: Position::new(position), log_time: LogTime::new(time), body };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(Entry::decode(&mut rest), Some(entry));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Entry::decode(&mut &bytes[..]);
        }
    }
}
