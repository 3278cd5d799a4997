//! Building batches: for facts that do not arrive as Kafka batches.

use bytes::Bytes;

use crate::batch::{HEADER_BYTES, crc};
use crate::record::put_varint;
use crate::{Compression, EncodedBatch, Header, ProducerEpoch, ProducerId, TimestampMs};

/// Collects records and encodes them as one batch at base offset 0.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    producer: Option<(ProducerId, ProducerEpoch, i32)>,
    payload: Vec<u8>,
    scratch: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            producer: None,
            payload: Vec::new(),
            scratch: Vec::new(),
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
        }
    }

    /// Makes the batch idempotent: its first record has sequence number `base_sequence`.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.producer = Some((id, epoch, base_sequence));
        self
    }

    /// Adds a record; a `value` of `None` is a tombstone.
    pub fn push(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp.get();
        }
        self.max_timestamp = self.max_timestamp.max(timestamp.get());
        let body = &mut self.scratch;
        body.clear();
        body.push(0);
        put_varint(body, timestamp.get() - self.base_timestamp);
        put_varint(body, i64::from(self.count));
        put_nullable(body, key);
        put_nullable(body, value);
        put_varint(body, headers.len() as i64);
        for header in headers {
            put_varint(body, header.key.len() as i64);
            body.extend_from_slice(header.key);
            put_nullable(body, header.value);
        }
        put_varint(&mut self.payload, body.len() as i64);
        self.payload.extend_from_slice(body);
        self.count += 1;
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The uncompressed bytes of the records so far.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Encodes the batch.
    ///
    /// # Panics
    /// If there is no record: an empty batch cannot be written.
    pub fn build(self) -> EncodedBatch {
        assert!(self.count > 0, "a batch holds at least one record");
        let (id, epoch, sequence) =
            self.producer.unwrap_or((ProducerId::NONE, ProducerEpoch::new(-1), -1));
        let payload = self.compression.compress(self.payload);
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.extend_from_slice(&0i64.to_be_bytes());
        let length = i32::try_from(HEADER_BYTES - 12 + payload.len())
            .expect("callers keep batches far below 2 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&0i32.to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.compression.bits().to_be_bytes());
        out.extend_from_slice(&(self.count - 1).to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&id.get().to_be_bytes());
        out.extend_from_slice(&epoch.get().to_be_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&payload);
        let checksum = crc(&out[21..]);
        out[17..21].copy_from_slice(&checksum.to_be_bytes());
        EncodedBatch::new(Bytes::from(out)).expect("what was just built is well formed")
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
