//! OffsetCommit and OffsetFetch.

use std::collections::BTreeMap;

use evert_log::Topic;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};

use super::super::broker::{Broker, text};
use super::super::error::DoorError;
use super::member_requests::{check_group_id, identity};
use super::offset_record::{OffsetKey, OffsetValue};

/// OffsetFetch asks for several groups from this version on (KIP-709).
const MANY_GROUPS_VERSION_MIN: i16 = 8;

/// From this version on no list of topics means all of them, and there is an error for the whole.
const ALL_TOPICS_VERSION_MIN: i16 = 2;

/// The leader's epoch of an offset is told from this version on.
const EPOCH_VERSION_MIN: i16 = 5;

/// No offset is committed.
const NONE: i64 = -1;
const NO_EPOCH: i32 = -1;

/// What is known of one partition: its number and its committed offset.
type Found = (i32, Option<OffsetValue>);

impl Broker {
    pub(crate) async fn offset_commit(&self, request: OffsetCommitRequest) -> OffsetCommitResponse {
        let group = request.group_id.to_string();
        let member = identity(&request.member_id, request.group_instance_id.as_ref());
        let generation = request.generation_id_or_member_epoch;
        let allowed = check_group_id(&group)
            .and_then(|()| self.groups.check_commit(&group, &member, generation));
        let refusal = allowed.err().map(|error| error.code());
        let now_ms = self.log.now().millis();
        let mut changes = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for asked in request.topics {
            let topic = self.topic(&asked.name);
            let answers = asked.partitions.into_iter().map(|part| {
                let answer = OffsetCommitResponsePartition::default()
                    .with_partition_index(part.partition_index);
                let checked = match (refusal, &topic) {
                    (Some(code), _) => Err(code),
                    (None, Err(error)) => Err(error.code()),
                    (None, Ok(topic)) => self.check_offset(topic, &part),
                };
                if let Err(code) = checked {
                    return answer.with_error_code(code);
                }
                changes.push(change(&group, &asked.name, part, now_ms));
                answer
            });
            let answers = answers.collect();
            topics.push(
                OffsetCommitResponseTopic::default().with_name(asked.name).with_partitions(answers),
            );
        }
        if let Err(error) = self.offsets.commit(&group, changes).await {
            tracing::warn!(group, %error, "kafka: offsets could not be committed");
            let code = error.coordinator_code();
            for part in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                if part.error_code == 0 {
                    part.error_code = code;
                }
            }
        }
        OffsetCommitResponse::default().with_topics(topics)
    }

    fn check_offset(&self, topic: &Topic, part: &OffsetCommitRequestPartition) -> Result<(), i16> {
        if !(0..topic.partitions).contains(&part.partition_index) {
            return Err(DoorError::unknown_topic(&topic.name).code());
        }
        // The record's strings have lengths of 16 bits.
        let bytes_max = self.config.offset_metadata_bytes_max.min(i16::MAX as usize);
        if part.committed_metadata.as_ref().is_some_and(|it| it.len() > bytes_max) {
            return Err(ResponseError::OffsetMetadataTooLarge.code());
        }
        Ok(())
    }

    pub(crate) fn offset_fetch(
        &self,
        version: i16,
        request: OffsetFetchRequest,
    ) -> OffsetFetchResponse {
        if version < MANY_GROUPS_VERSION_MIN {
            let topics = request.topics.map(|topics| {
                topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
            });
            if topics.is_none() && version < ALL_TOPICS_VERSION_MIN {
                return OffsetFetchResponse::default();
            }
            let found = self.committed(&request.group_id, topics).into_iter();
            let topics = found.map(|(name, parts)| topic_of_one(version, name, parts));
            return OffsetFetchResponse::default().with_topics(topics.collect());
        }
        let groups = request.groups.into_iter().map(|group| {
            let topics = group.topics.map(|topics| {
                topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
            });
            let found = self.committed(&group.group_id, topics).into_iter();
            let topics = found.map(|(name, parts)| topic_of_many(name, parts)).collect();
            OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics)
        });
        OffsetFetchResponse::default().with_groups(groups.collect())
    }

    /// The committed offsets of the partitions asked for, or of all that have one.
    fn committed(
        &self,
        group: &str,
        asked: Option<Vec<(TopicName, Vec<i32>)>>,
    ) -> Vec<(TopicName, Vec<Found>)> {
        let Some(asked) = asked else {
            let mut topics: BTreeMap<String, Vec<Found>> = BTreeMap::new();
            for ((topic, partition), value) in self.offsets.of_group(group) {
                topics.entry(topic).or_default().push((partition, Some(value)));
            }
            let named = |(topic, parts)| (TopicName(text(topic)), parts);
            return topics.into_iter().map(named).collect();
        };
        let look_up = |(name, partitions): (TopicName, Vec<i32>)| {
            let topic = self.log.topic(&name);
            let found = partitions.into_iter().map(|partition| {
                let topic = topic.as_ref();
                (partition, topic.and_then(|it| self.offsets.get(group, it, partition)))
            });
            let found = found.collect();
            (name, found)
        };
        asked.into_iter().map(look_up).collect()
    }
}

fn change(
    group: &str,
    topic: &TopicName,
    part: OffsetCommitRequestPartition,
    now_ms: i64,
) -> (OffsetKey, Option<OffsetValue>) {
    let key = OffsetKey {
        group: group.to_owned(),
        topic: topic.to_string(),
        partition: part.partition_index,
    };
    let value = OffsetValue {
        offset: part.committed_offset,
        leader_epoch: part.committed_leader_epoch,
        metadata: part.committed_metadata.unwrap_or_default().to_string(),
        committed_ms: now_ms,
    };
    (key, Some(value))
}

fn topic_of_one(version: i16, name: TopicName, parts: Vec<Found>) -> OffsetFetchResponseTopic {
    let parts = parts.into_iter().map(|(partition, value)| {
        let epoch = value.as_ref().map_or(NO_EPOCH, |value| value.leader_epoch);
        let answer = OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_committed_leader_epoch(if version < EPOCH_VERSION_MIN {
                NO_EPOCH
            } else {
                epoch
            });
        match value {
            Some(value) => {
                answer.with_committed_offset(value.offset).with_metadata(Some(text(value.metadata)))
            }
            None => answer.with_committed_offset(NONE).with_metadata(Some(text(""))),
        }
    });
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(parts.collect())
}

fn topic_of_many(name: TopicName, parts: Vec<Found>) -> OffsetFetchResponseTopics {
    let parts = parts.into_iter().map(|(partition, value)| {
        let answer = OffsetFetchResponsePartitions::default().with_partition_index(partition);
        match value {
            Some(value) => answer
                .with_committed_offset(value.offset)
                .with_committed_leader_epoch(value.leader_epoch)
                .with_metadata(Some(text(value.metadata))),
            None => answer
                .with_committed_offset(NONE)
                .with_committed_leader_epoch(NO_EPOCH)
                .with_metadata(Some(text(""))),
        }
    });
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(parts.collect())
}
