//! Commits as the journal holds them: an entry of the order and the facts themselves, or where
//! a large commit has put them.

use bytes::Bytes;
use evert_model::{BatchHeader, EncodedBatch};

use crate::entry::{Entry, put_varint, take, varint};

const INLINE: u8 = 1;
const COPIES: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalCommit {
    pub(crate) entry: Entry,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// The batches of the entry's spans, in their order, at their offsets.
    Inline(Vec<EncodedBatch>),
    /// One synced file for each span of the entry.
    Copies(Vec<Copy>),
}

/// A file of pending batches that a large commit has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Names the file.
    pub(crate) number: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// The largest timestamp in it.
    pub(crate) max_timestamp: i64,
}

impl JournalCommit {
    /// About the bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Inline(batches) => batches.iter().map(|b| b.bytes().len()).sum::<usize>() + 32,
            Payload::Copies(copies) => copies.len() * 64 + 32,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match &self.payload {
            Payload::Inline(batches) => {
                out.push(INLINE);
                self.entry.encode(out);
                put_varint(out, batches.len() as u64);
                batches.iter().for_each(|batch| out.extend_from_slice(batch.bytes()));
            }
            Payload::Copies(copies) => {
                out.push(COPIES);
                self.entry.encode(out);
                put_varint(out, copies.len() as u64);
                for copy in copies {
                    put_varint(out, copy.number);
                    put_varint(out, copy.bytes);
                    put_varint(out, copy.max_timestamp as u64);
                }
            }
        }
    }

    /// Takes a commit off the front of `bytes`; `None` if they are not one.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let kind = take(bytes, 1)?[0];
        let entry = Entry::decode(bytes)?;
        let count = usize::try_from(varint(bytes)?).ok()?;
        // No batch and no reference is smaller than a few bytes.
        if count > bytes.len() {
            return None;
        }
        let payload = match kind {
            INLINE => Payload::Inline((0..count).map(|_| batch(bytes)).collect::<Option<_>>()?),
            COPIES => Payload::Copies((0..count).map(|_| copy(bytes)).collect::<Option<_>>()?),
            _ => return None,
        };
        Some(Self { entry, payload })
    }
}

fn batch(bytes: &mut &[u8]) -> Option<EncodedBatch> {
    let header = BatchHeader::parse(bytes).ok()?;
    EncodedBatch::new(Bytes::copy_from_slice(take(bytes, header.total_bytes())?)).ok()
}

fn copy(bytes: &mut &[u8]) -> Option<Copy> {
    let (number, length) = (varint(bytes)?, varint(bytes)?);
    Some(Copy { number, bytes: length, max_timestamp: varint(bytes)? as i64 })
}
