//! Metadata and DescribeCluster: what there is and where to find it.

use std::sync::Arc;

use evert_log::{NewTopic, Topic, TopicError};
use evert_model::TopicId;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, MetadataRequest, MetadataResponse, TopicName,
};

use super::broker::{Broker, LEADER_EPOCH, NODE_ID, Peer, is_internal, text};
use super::error::DoorError;

/// DescribeCluster's endpoint type for brokers, the only kind there is here.
const ENDPOINT_BROKERS: i8 = 1;

impl Broker {
    pub(crate) async fn metadata(
        &self,
        version: i16,
        request: MetadataRequest,
        peer: &Peer,
    ) -> MetadataResponse {
        let may_create =
            self.config.auto_create_topics && (version < 4 || request.allow_auto_topic_creation);
        let topics = match request.topics {
            None => self.all_topics(),
            // Version 0 has no null: an empty list asks for everything.
            Some(topics) if version == 0 && topics.is_empty() => self.all_topics(),
            Some(topics) => {
                let mut answers = Vec::with_capacity(topics.len());
                for topic in topics {
                    answers.push(self.topic_metadata(topic, may_create).await);
                }
                answers
            }
        };
        let (host, port) = peer.advertised.clone();
        let broker =
            MetadataResponseBroker::default().with_node_id(NODE_ID).with_host(host).with_port(port);
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(self.cluster_id.clone()))
            .with_controller_id(NODE_ID)
            .with_topics(topics)
    }

    fn all_topics(&self) -> Vec<MetadataResponseTopic> {
        self.log.topics().iter().map(|topic| describe(topic)).collect()
    }

    async fn topic_metadata(
        &self,
        asked: MetadataRequestTopic,
        may_create: bool,
    ) -> MetadataResponseTopic {
        let failed = |code: i16| {
            MetadataResponseTopic::default()
                .with_error_code(code)
                .with_name(asked.name.clone())
                .with_topic_id(asked.topic_id)
        };
        let Some(name) = &asked.name else {
            return match self.log.topic_by_id(TopicId::new(asked.topic_id)) {
                Some(topic) => describe(&topic),
                None => failed(ResponseError::UnknownTopicId.code()),
            };
        };
        match self.log.topic(name) {
            Some(topic) => describe(&topic),
            None if may_create && !is_internal(name) => match self.auto_create(name).await {
                Ok(topic) => describe(&topic),
                Err(error) => failed(error.code()),
            },
            None => failed(DoorError::unknown_topic(name).code()),
        }
    }

    async fn auto_create(&self, name: &str) -> Result<Arc<Topic>, DoorError> {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: self.config.default_partitions,
            config: Default::default(),
        };
        match self.blocking(move |log| log.create_topic(new)).await {
            // Another client was quicker.
            Err(TopicError::Exists(name)) => self.topic(&name),
            created => Ok(created?),
        }
    }

    pub(crate) fn describe_cluster(
        &self,
        request: &DescribeClusterRequest,
        peer: &Peer,
    ) -> DescribeClusterResponse {
        if request.endpoint_type != ENDPOINT_BROKERS {
            return DescribeClusterResponse::default()
                .with_error_code(ResponseError::MismatchedEndpointType.code())
                .with_error_message(Some(text("this is a broker: ask for endpoint type 1")));
        }
        let (host, port) = peer.advertised.clone();
        let broker = DescribeClusterBroker::default()
            .with_broker_id(NODE_ID)
            .with_host(host)
            .with_port(port);
        DescribeClusterResponse::default()
            .with_cluster_id(self.cluster_id.clone())
            .with_controller_id(NODE_ID)
            .with_brokers(vec![broker])
    }
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions).map(|partition| {
        MetadataResponsePartition::default()
            .with_partition_index(partition)
            .with_leader_id(NODE_ID)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![NODE_ID])
            .with_isr_nodes(vec![NODE_ID])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.clone()))))
        .with_topic_id(topic.id.uuid())
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(partitions.collect())
}
