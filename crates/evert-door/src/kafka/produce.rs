//! Produce: batches in.
//!
//! Owns: what the door itself refuses, and the answer for each partition.
//! Not here: sequences, sizes, order and durability, which are the log's.
//!
//! Invariants
//! - Batches enter the log in the order of the requests of a connection: `produce` appends
//!   before it returns, and only the wait for the disk is left to the future.
//! - Each partition succeeds or fails by itself. acks=1 waits for the disk as acks=all does.

use bytes::Bytes;
use evert_log::{NewCommit, NewPart, Receipt};
use evert_model::{Compression, EncodedBatch, PartitionId, split_batches};
use futures::FutureExt;
use futures::future::BoxFuture;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};

use super::broker::{Broker, is_internal, text};
use super::error::DoorError;

/// The first version in which a client may know zstd (KIP-110).
const ZSTD_VERSION_MIN: i16 = 7;

const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";

/// One partition's batch on its way to the disk.
struct Begun {
    index: i32,
    accepted: Result<Accepted, DoorError>,
}

/// A batch that the log took.
struct Accepted {
    receipt: Receipt,
    log_start: i64,
    /// Whether its records get the log's time rather than keep their own.
    has_log_time: bool,
}

/// What became of a Produce: the response, and whether anything failed.
#[derive(Debug)]
pub(crate) struct Produced {
    pub(crate) response: ProduceResponse,
    pub(crate) failed: bool,
}

impl Broker {
    /// Appends every batch of the request; the future resolves when they are durable.
    pub(crate) fn produce(
        &self,
        version: i16,
        request: ProduceRequest,
    ) -> BoxFuture<'static, Produced> {
        let refusal = refuse_whole(&request);
        let topics: Vec<(TopicName, Vec<Begun>)> = request
            .topic_data
            .into_iter()
            .map(|topic| {
                let parts = topic.partition_data.into_iter().map(|part| Begun {
                    index: part.index,
                    accepted: match &refusal {
                        Some((code, why)) => Err(DoorError::refused(*code, *why)),
                        None => self.begin(version, &topic.name, part.index, part.records),
                    },
                });
                let parts = parts.collect();
                (topic.name, parts)
            })
            .collect();
        finish(topics).boxed()
    }

    fn begin(
        &self,
        version: i16,
        topic: &TopicName,
        partition: i32,
        records: Option<Bytes>,
    ) -> Result<Accepted, DoorError> {
        if is_internal(topic) {
            return Err(DoorError::refused(
                ResponseError::InvalidTopicException,
                format!("topic \"{}\" is the server's own", topic.as_str()),
            ));
        }
        let topic = self.topic(topic)?;
        let batch = one_batch(version, records.unwrap_or_default())?;
        let partition = PartitionId::new(partition);
        let log_start = self.log.partition_ends(topic.id, partition)?.log_start.get();
        let part = NewPart { topic: topic.id, partition, batch };
        let receipt = self.log.append(NewCommit { parts: vec![part] })?;
        let has_log_time = topic.config.get(TIMESTAMP_TYPE).is_some_and(|it| it == LOG_APPEND_TIME);
        Ok(Accepted { receipt, log_start, has_log_time })
    }
}

/// What is wrong with the request as a whole, if anything.
fn refuse_whole(request: &ProduceRequest) -> Option<(ResponseError, &'static str)> {
    if !matches!(request.acks, -1..=1) {
        return Some((ResponseError::InvalidRequiredAcks, "acks must be 0, 1 or -1"));
    }
    if request.transactional_id.is_some() {
        return Some((
            ResponseError::TransactionalIdAuthorizationFailed,
            "transactions are not served",
        ));
    }
    None
}

/// Takes the records of a partition as the one batch that Kafka allows there.
fn one_batch(version: i16, records: Bytes) -> Result<EncodedBatch, DoorError> {
    let invalid = |why: &str| Err(DoorError::refused(ResponseError::InvalidRecord, why));
    // The frame's buffer is larger than the batch, and the log keeps the batch for long: the
    // copy is exact, and since it is not shared the log patches its offset in place.
    let mut batches = split_batches(Bytes::copy_from_slice(&records));
    let Some(batch) = batches.next().transpose()? else {
        return invalid("there is no batch");
    };
    if batches.next().is_some() {
        return invalid("there is more than one batch for one partition");
    }
    let header = batch.header();
    if header.is_control() {
        return invalid("clients cannot write control batches");
    }
    if header.is_transactional() {
        return Err(DoorError::refused(
            ResponseError::TransactionalIdAuthorizationFailed,
            "transactions are not served",
        ));
    }
    if header.record_count == 0 || i64::from(header.record_count) != header.offset_count() {
        return invalid("the batch's record count contradicts its offsets");
    }
    if header.compression() == Compression::Zstd && version < ZSTD_VERSION_MIN {
        return Err(DoorError::refused(
            ResponseError::UnsupportedCompressionType,
            "zstd needs version 7 of Produce",
        ));
    }
    Ok(batch)
}

async fn finish(topics: Vec<(TopicName, Vec<Begun>)>) -> Produced {
    let mut failed = false;
    let mut responses = Vec::with_capacity(topics.len());
    for (name, parts) in topics {
        let mut partitions = Vec::with_capacity(parts.len());
        for part in parts {
            let answer = PartitionProduceResponse::default().with_index(part.index);
            partitions.push(match settle(part.accepted).await {
                Ok(settled) => answer
                    .with_base_offset(settled.base_offset)
                    .with_log_append_time_ms(settled.log_append_time_ms)
                    .with_log_start_offset(settled.log_start),
                Err(error) => {
                    failed = true;
                    tracing::debug!(topic = name.as_str(), partition = part.index, %error, "produce");
                    answer
                        .with_error_code(error.code())
                        .with_base_offset(-1)
                        .with_error_message(Some(text(error.to_string())))
                }
            });
        }
        responses.push(
            TopicProduceResponse::default().with_name(name).with_partition_responses(partitions),
        );
    }
    Produced { response: ProduceResponse::default().with_responses(responses), failed }
}

/// Where and when a batch became durable.
struct Settled {
    base_offset: i64,
    /// -1 where records keep their own time.
    log_append_time_ms: i64,
    log_start: i64,
}

async fn settle(accepted: Result<Accepted, DoorError>) -> Result<Settled, DoorError> {
    let Accepted { receipt, log_start, has_log_time } = accepted?;
    let appended = receipt.await?;
    let base_offset = appended.base_offsets.first().expect("one part was appended").get();
    let log_append_time_ms = if has_log_time { appended.log_time.millis() } else { -1 };
    Ok(Settled { base_offset, log_append_time_ms, log_start })
}
