//! Leader epochs: there is one leader and it never changes, so that the epoch is always 0.

use evert_model::PartitionId;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};

use super::broker::{Broker, LEADER_EPOCH};
use super::error::DoorError;

/// Refuses a leader epoch that this server never gave out; -1 is none (KIP-320).
pub(crate) fn check_epoch(current: i32) -> Result<(), i16> {
    if current <= LEADER_EPOCH { Ok(()) } else { Err(ResponseError::UnknownLeaderEpoch.code()) }
}

impl Broker {
    pub(crate) fn offset_for_leader_epoch(
        &self,
        request: OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let topics = request.topics.into_iter().map(|topic| {
            let ends = topic.partitions.iter().map(|part| {
                let answer = EpochEndOffset::default().with_partition(part.partition);
                match self.epoch_end(&topic.topic, part) {
                    // An epoch after the last one ends nowhere yet.
                    Ok(_) if part.leader_epoch > LEADER_EPOCH => answer,
                    Ok(end) => answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(end),
                    Err(code) => answer.with_error_code(code),
                }
            });
            let ends = ends.collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(ends)
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }

    fn epoch_end(&self, topic: &TopicName, part: &OffsetForLeaderPartition) -> Result<i64, i16> {
        check_epoch(part.current_leader_epoch)?;
        let topic = self.topic(topic).map_err(|error| error.code())?;
        self.log
            .partition_ends(topic.id, PartitionId::new(part.partition))
            .map(|ends| ends.high_watermark.get())
            .map_err(|error| DoorError::from(error).code())
    }
}
