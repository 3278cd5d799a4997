//! Record batches in Kafka's message format v2, kept as the bytes they arrived in.
//!
//! Invariants
//! - An [`EncodedBatch`] is complete, of magic 2, and its CRC has been checked.
//! - Only the base offset and the leader epoch are ever patched; both lie outside the CRC.
//!
//! Format: the Kafka protocol guide, section "Record Batch".

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::{Compression, Offset, ProducerEpoch, ProducerId, RecordIter, TimestampMs, record};

/// The bytes before the records section.
pub const HEADER_BYTES: usize = 61;
/// The bytes before `partition_leader_epoch`, which `batch_length` does not count.
const PREFIX_BYTES: usize = 12;
const CRC_START: usize = 21;
const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// Why bytes are not a record batch.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// There are fewer bytes than the batch says it has.
    #[error("the batch is cut short")]
    Truncated,
    /// An older message format, which Kafka brokers since 4.0 refuse as well.
    #[error("message format v{0} is not supported: produce with format v2")]
    UnsupportedMagic(i8),
    /// The checksum differs from the contents.
    #[error("the batch's CRC is {computed:#010x}, its header says {stored:#010x}")]
    CrcMismatch {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// An unknown codec.
    #[error("compression codec {0} is not known")]
    UnknownCompression(i16),
    /// The uncompressed records are larger than allowed.
    #[error("the batch holds more than {bytes_max} bytes")]
    TooLarge {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// A field contradicts another.
    #[error("the batch is corrupt: {0}")]
    Corrupt(&'static str),
}

/// The fixed fields of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// Bytes after this field: the whole batch less 12.
    pub batch_length: i32,
    /// The leader epoch under which the batch was written.
    pub leader_epoch: i32,
    /// CRC-32C of everything from `attributes` on.
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// The last record's offset less the base offset.
    pub last_offset_delta: i32,
    /// The timestamp that the records' deltas start from.
    pub base_timestamp: TimestampMs,
    /// The largest timestamp in the batch.
    pub max_timestamp: TimestampMs,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// The sequence number of the first record.
    pub base_sequence: i32,
    /// How many records there are.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes` and checks what it says against itself. The
    /// records need not be there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(&magic) = bytes.get(16) else { return Err(BatchError::Truncated) };
        if magic != 2 {
            return Err(BatchError::UnsupportedMagic(magic as i8));
        }
        let fixed = bytes.first_chunk::<HEADER_BYTES>().ok_or(BatchError::Truncated)?;
        let header = Self {
            base_offset: Offset::new(i64_at(fixed, 0)),
            batch_length: i32_at(fixed, 8),
            leader_epoch: i32_at(fixed, 12),
            crc: i32_at(fixed, 17) as u32,
            attributes: i16_at(fixed, 21),
            last_offset_delta: i32_at(fixed, 23),
            base_timestamp: TimestampMs::new(i64_at(fixed, 27)),
            max_timestamp: TimestampMs::new(i64_at(fixed, 35)),
            producer_id: ProducerId::new(i64_at(fixed, 43)),
            producer_epoch: ProducerEpoch::new(i16_at(fixed, 51)),
            base_sequence: i32_at(fixed, 53),
            record_count: i32_at(fixed, 57),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        if self.batch_length < (HEADER_BYTES - PREFIX_BYTES) as i32 {
            return Err(BatchError::Corrupt("its length is shorter than its header"));
        }
        if self.last_offset_delta < 0 || self.record_count < 0 {
            return Err(BatchError::Corrupt("a negative count"));
        }
        if self.record_count > self.last_offset_delta.saturating_add(1) {
            return Err(BatchError::Corrupt("more records than offsets"));
        }
        if Compression::from_attributes(self.attributes).is_none() {
            return Err(BatchError::UnknownCompression(self.attributes & 7));
        }
        Ok(())
    }

    /// The bytes of the whole batch.
    pub fn total_bytes(&self) -> usize {
        self.batch_length as usize + PREFIX_BYTES
    }

    /// The offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// How many offsets the batch takes.
    pub fn offset_count(&self) -> i64 {
        i64::from(self.last_offset_delta) + 1
    }

    /// The codec of the records section.
    pub fn compression(&self) -> Compression {
        Compression::from_attributes(self.attributes).unwrap_or_default()
    }

    /// Whether timestamps are the log's rather than the producer's.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & TIMESTAMP_TYPE_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch is a marker rather than data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }
}

/// One complete, checked batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl EncodedBatch {
    /// Takes `bytes` as exactly one batch and checks its header and CRC.
    pub fn new(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.total_bytes() > bytes.len() {
            return Err(BatchError::Truncated);
        }
        if header.total_bytes() < bytes.len() {
            return Err(BatchError::Corrupt("bytes follow the batch"));
        }
        let computed = crc(&bytes[CRC_START..]);
        if computed != header.crc {
            return Err(BatchError::CrcMismatch { stored: header.crc, computed });
        }
        Ok(Self { header, bytes })
    }

    /// The fixed fields.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch as it goes over the wire and into a segment.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same batch at another offset. Copies the bytes unless they are not shared.
    #[must_use]
    pub fn at(self, base_offset: Offset, leader_epoch: i32) -> Self {
        if self.header.base_offset == base_offset && self.header.leader_epoch == leader_epoch {
            return self;
        }
        let mut bytes = match self.bytes.try_into_mut() {
            Ok(bytes) => bytes,
            Err(shared) => BytesMut::from(&shared[..]),
        };
        bytes[0..8].copy_from_slice(&base_offset.get().to_be_bytes());
        bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        let header = BatchHeader { base_offset, leader_epoch, ..self.header };
        Self { header, bytes: bytes.freeze() }
    }

    /// The uncompressed records section, at most `bytes_max` bytes of it.
    pub fn payload(&self, bytes_max: usize) -> Result<Bytes, BatchError> {
        self.header.compression().decompress(&self.bytes.slice(HEADER_BYTES..), bytes_max)
    }

    /// Reads the records of `payload`, which [`EncodedBatch::payload`] returned.
    pub fn records<'a>(&self, payload: &'a [u8]) -> RecordIter<'a> {
        record::RecordIter::new(self.header, payload)
    }
}

/// Cuts `bytes` into the batches it holds, checking each. After an error it yields nothing
/// more.
pub fn split_batches(mut bytes: Bytes) -> impl Iterator<Item = Result<EncodedBatch, BatchError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let batch = BatchHeader::parse(&bytes).and_then(|header| {
            if header.total_bytes() > bytes.len() {
                return Err(BatchError::Truncated);
            }
            EncodedBatch::new(bytes.split_to(header.total_bytes()))
        });
        if batch.is_err() {
            bytes.clear();
        }
        Some(batch)
    })
}

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    // CRC-32C: the polynomial that Kafka's specification calls Castagnoli.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn i64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn i32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn i16_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuilder;

    const PAYLOAD_MAX: usize = 1 << 20;

    fn sample(compression: Compression) -> EncodedBatch {
        let mut builder = BatchBuilder::new(compression);
        for i in 0..100 {
            let value = format!("{{\"id\":{i},\"city\":\"Bengaluru\"}}");
            let headers =
                [Header { key: b"h", value: Some(b"1") }, Header { key: b"h", value: None }];
            builder.push(
                TimestampMs::new(1_000 + i),
                Some(i.to_string().as_bytes()),
                (i % 10 != 9).then_some(value.as_bytes()),
                &headers,
            );
        }
        builder.build()
    }

    use crate::Header;

    #[test]
    fn every_codec_gives_back_its_records() {
        use Compression::{Gzip, Lz4, None, Snappy, Zstd};
        for codec in [None, Gzip, Snappy, Lz4, Zstd] {
            let batch = sample(codec).at(Offset::new(500), 3);
            let batch = EncodedBatch::new(batch.bytes().clone()).expect("the CRC still holds");
            let payload = batch.payload(PAYLOAD_MAX).expect("decompresses");
            let records: Vec<_> = batch.records(&payload).map(|r| r.expect("reads")).collect();
            assert_eq!(records.len(), 100, "{codec:?}");
            assert_eq!(records[7].offset, Offset::new(507));
            assert_eq!(records[7].timestamp, TimestampMs::new(1_007));
            assert_eq!(records[7].key, Some(&b"7"[..]));
            assert_eq!(records[9].value, Option::None);
            assert_eq!(records[7].headers().count(), 2);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let mut builder = BatchBuilder::new(codec);
            builder.push(TimestampMs::new(0), Option::None, Some(&vec![0; 1 << 20]), &[]);
            let batch = builder.build();
            assert_eq!(batch.payload(1000), Err(BatchError::TooLarge { bytes_max: 1000 }));
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let good = sample(Compression::None).bytes().to_vec();
        for at in CRC_START..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(EncodedBatch::new(bad.into()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn splits_a_sequence() {
        let mut bytes = sample(Compression::None).bytes().to_vec();
        bytes.extend_from_slice(sample(Compression::Lz4).bytes());
        assert_eq!(split_batches(bytes.clone().into()).filter(Result::is_ok).count(), 2);
        bytes.pop();
        let results: Vec<_> = split_batches(bytes.into()).collect();
        assert_eq!(results.len(), 2);
        assert_eq!(results[1], Err(BatchError::Truncated));
    }

    #[test]
    fn hostile_payloads_end_in_errors() {
        let mut seed = fastrand::Rng::with_seed(7);
        let batch = sample(Compression::None);
        let payload = batch.payload(PAYLOAD_MAX).expect("reads").to_vec();
        for _ in 0..20_000 {
            let mut bad = payload.clone();
            for _ in 0..seed.usize(1..4) {
                let at = seed.usize(..bad.len());
                bad[at] = seed.u8(..);
            }
            for record in batch.records(&bad).flatten() {
                let _ = record.headers().count();
            }
        }
    }
}
