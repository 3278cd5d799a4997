//! Requests, as short as their meaning.

use bytes::{Bytes, BytesMut};
use evert_model::{BatchBuilder, Compression, ProducerEpoch, ProducerId, TimestampMs};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::Client;
use crate::expect;

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A batch of records with these values, a millisecond apart from 1000 on.
pub fn batch(values: &[&str]) -> Bytes {
    batch_with(values, BatchBuilder::new(Compression::None))
}

pub fn batch_with(values: &[&str], mut builder: BatchBuilder) -> Bytes {
    for (i, value) in values.iter().enumerate() {
        builder.push(TimestampMs::new(1000 + i as i64), Some(b"k"), Some(value.as_bytes()), &[]);
    }
    builder.build().bytes().clone()
}

pub fn idempotent(values: &[&str], id: i64, epoch: i16, sequence: i32) -> Bytes {
    let builder = BatchBuilder::new(Compression::None);
    let (id, epoch) = (ProducerId::new(id), ProducerEpoch::new(epoch));
    batch_with(values, builder.producer(id, epoch, sequence))
}

pub fn produce(name: &str, records: Bytes) -> ProduceRequest {
    let part = PartitionProduceData::default().with_records(Some(records));
    let data = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![part]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data])
}

/// A fetch of partition 0 that does not wait.
pub fn fetch(name: &str, offset: i64) -> FetchRequest {
    let part = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1);
    let wanted = FetchTopic::default().with_topic(topic(name)).with_partitions(vec![part]);
    FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(1).with_topics(vec![wanted])
}

pub fn offset_at(name: &str, timestamp: i64) -> ListOffsetsRequest {
    let part =
        ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    let wanted = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![part]);
    ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![wanted])
}

pub fn metadata(name: &str) -> MetadataRequest {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic(name)));
    MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(true)
}

pub fn create(name: &str, partitions: i32) -> CreateTopicsRequest {
    let wanted = CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(-1);
    CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![wanted])
}

impl Client {
    /// Creates a topic of one partition.
    pub async fn create(&mut self, name: &str) {
        let created =
            expect!(CreateTopics, self.ask(ApiKey::CreateTopics, 7, create(name, 1)).await);
        assert_eq!(created.topics[0].error_code, 0, "{created:?}");
    }

    /// Produces to partition 0.
    pub async fn produce(&mut self, name: &str, records: Bytes) -> PartitionProduceResponse {
        let produced = expect!(Produce, self.ask(ApiKey::Produce, 9, produce(name, records)).await);
        produced.responses[0].partition_responses[0].clone()
    }

    /// The values in partition 0 from an offset on.
    pub async fn values(&mut self, name: &str, offset: i64) -> Vec<(i64, String)> {
        let fetched = expect!(Fetch, self.ask(ApiKey::Fetch, 12, fetch(name, offset)).await);
        let part = &fetched.responses[0].partitions[0];
        assert_eq!(part.error_code, 0);
        values_of(part.records.clone().unwrap_or_default())
    }
}

/// The records of what a fetch gave.
pub fn values_of(records: Bytes) -> Vec<(i64, String)> {
    let mut values = Vec::new();
    for batch in evert_model::split_batches(records) {
        let batch = batch.expect("whole batches with good CRCs");
        let payload = batch.payload(1 << 20).expect("it can be read");
        for record in batch.records(&payload) {
            let record = record.expect("a record");
            let value = String::from_utf8(record.value.expect("a value").to_vec());
            values.push((record.offset.get(), value.expect("text")));
        }
    }
    values
}

/// Flips one bit of a batch's last record.
pub fn damaged(batch: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes.freeze()
}
