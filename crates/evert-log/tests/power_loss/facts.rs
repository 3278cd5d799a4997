//! Facts that say whose they are: every record names the attempt, the part and its own place.

use evert_model::{
    BatchBuilder, Compression, EncodedBatch, PartitionId, ProducerEpoch, ProducerId, TimestampMs,
    TopicId,
};
use fastrand::Rng;

/// One call of append (or one large commit), whatever became of it; its number.
pub(crate) type AttemptId = usize;

/// What an idempotent producer puts into a batch's header.
pub(crate) type Sequence = (ProducerId, ProducerEpoch, i32);

const PAYLOAD_BYTES_MAX: usize = 1 << 22;

/// One batch of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) batch: EncodedBatch,
}

impl Part {
    /// Whether these are the part's bytes, wherever the log has put them: only the base offset
    /// and the leader epoch, in the first 16 bytes, are the log's to change.
    pub(crate) fn is(&self, stored: &EncodedBatch) -> bool {
        self.batch.bytes()[8..12] == stored.bytes()[8..12]
            && self.batch.bytes()[16..] == stored.bytes()[16..]
    }

    pub(crate) fn records(&self) -> i64 {
        self.batch.header().offset_count()
    }
}

/// A batch of `records` records, about `bytes` bytes uncompressed.
pub(crate) fn batch(
    rng: &mut Rng,
    attempt: AttemptId,
    part: usize,
    sequence: Option<Sequence>,
    (records, bytes): (usize, usize),
) -> EncodedBatch {
    let codecs = [Compression::None, Compression::None, Compression::Lz4];
    let codec = rng.choice(codecs).expect("there are codecs");
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, epoch, first)) = sequence {
        builder = builder.producer(id, epoch, first);
    }
    for index in 0..records {
        let mut value = Vec::with_capacity(16 + bytes / records);
        value.extend_from_slice(&(attempt as u64).to_be_bytes());
        value.extend_from_slice(&(part as u32).to_be_bytes());
        value.extend_from_slice(&(index as u32).to_be_bytes());
        value.extend((0..bytes / records).map(|_| rng.u8(..)));
        let key = rng.u8(..8).to_string();
        builder.push(
            TimestampMs::new(rng.i64(1_000..3_000)),
            Some(key.as_bytes()),
            Some(&value),
            &[],
        );
    }
    builder.build()
}

/// Whose batch this is: the attempt and the part.
pub(crate) fn identity(batch: &EncodedBatch) -> Option<(AttemptId, usize)> {
    let payload = batch.payload(PAYLOAD_BYTES_MAX).ok()?;
    let first = batch.records(&payload).next()?.ok()?;
    let value = first.value?;
    let attempt = u64::from_be_bytes(*value.first_chunk::<8>()?);
    let part = u32::from_be_bytes(*value.get(8..)?.first_chunk::<4>()?);
    Some((usize::try_from(attempt).ok()?, part as usize))
}

/// The records' timestamps, in order.
pub(crate) fn timestamps(batch: &EncodedBatch) -> Vec<TimestampMs> {
    let payload = batch.payload(PAYLOAD_BYTES_MAX).expect("the harness wrote it");
    batch.records(&payload).map(|record| record.expect("it is whole").timestamp).collect()
}
