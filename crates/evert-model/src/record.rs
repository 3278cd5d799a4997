//! Records inside an (uncompressed) batch payload, read in place.
//!
//! Format: Kafka's message format v2, section "Record" of the protocol guide.

use crate::{BatchError, BatchHeader, Offset, TimestampMs};

/// One record, borrowed from its batch's payload.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The record's offset in its partition.
    pub offset: Offset,
    /// The record's own timestamp (or the log's, as the topic is configured).
    pub timestamp: TimestampMs,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: usize,
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's name, UTF-8 by convention.
    pub key: &'a [u8],
    /// The header's value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The headers in their order, duplicates included.
    pub fn headers(&self) -> HeaderIter<'a> {
        HeaderIter { rest: self.headers, left: self.header_count }
    }
}

/// The records of one batch, in order. After an error it yields nothing more.
#[derive(Debug)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    left: i32,
    header: BatchHeader,
}

impl<'a> RecordIter<'a> {
    /// Reads `payload`, the uncompressed records section of the batch of `header`.
    pub fn new(header: BatchHeader, payload: &'a [u8]) -> Self {
        Self { rest: payload, left: header.record_count, header }
    }

    fn read(&mut self) -> Result<Record<'a>, BatchError> {
        let length = varint(&mut self.rest)?;
        let mut body = take(&mut self.rest, length)?;
        let _attributes = take(&mut body, 1)?;
        let timestamp_delta = varint(&mut body)?;
        let offset_delta = varint(&mut body)?;
        if offset_delta < 0 || offset_delta > i64::from(self.header.last_offset_delta) {
            return Err(BatchError::Corrupt("a record's offset lies outside its batch"));
        }
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let header_count = varint(&mut body)?;
        // A header takes two bytes at least, which bounds the count by the bytes there are.
        if header_count < 0 || header_count as usize > body.len() / 2 {
            return Err(BatchError::Corrupt("a record's header count is impossible"));
        }
        let header_count = header_count as usize;
        let headers = body;
        for _ in 0..header_count {
            let length = varint(&mut body)?;
            take(&mut body, length)?;
            nullable(&mut body)?;
        }
        let timestamp = if self.header.is_log_append_time() {
            self.header.max_timestamp
        } else {
            TimestampMs::new(self.header.base_timestamp.get().wrapping_add(timestamp_delta))
        };
        Ok(Record {
            offset: self.header.base_offset.plus(offset_delta),
            timestamp,
            key,
            value,
            headers,
            header_count,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

/// The headers of one record. They were checked when the record was read.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let length = varint(&mut self.rest).ok()?;
        let key = take(&mut self.rest, length).ok()?;
        let value = nullable(&mut self.rest).ok()?;
        Some(Header { key, value })
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: i64) -> Result<&'a [u8], BatchError> {
    let length = usize::try_from(length).map_err(|_| BatchError::Corrupt("a negative length"))?;
    let (head, tail) = bytes
        .split_at_checked(length)
        .ok_or(BatchError::Corrupt("a record runs past the end of its batch"))?;
    *bytes = tail;
    Ok(head)
}

fn nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BatchError> {
    match varint(bytes)? {
        -1 => Ok(None),
        length => take(bytes, length).map(Some),
    }
}

/// A zigzag varint of at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Result<i64, BatchError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) =
            bytes.split_first().ok_or(BatchError::Corrupt("a number runs past the end"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(BatchError::Corrupt("a number of more than ten bytes"))
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
