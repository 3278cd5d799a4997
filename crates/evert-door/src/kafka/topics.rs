//! CreateTopics and DeleteTopics.

use std::collections::{BTreeMap, HashMap};

use evert_log::{NewTopic, Topic};
use evert_model::TopicId;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::broker::{Broker, is_internal, text};
use super::configs::source_of;
use super::error::DoorError;

/// What a client says to have the server choose (KIP-464).
const SERVERS_CHOICE: i32 = -1;

/// One server keeps one copy.
const REPLICATION_FACTOR: i16 = 1;

/// The versions from which responses carry messages and topic ids.
const DELETE_MESSAGE_VERSION_MIN: i16 = 5;
const DELETE_BY_ID_VERSION_MIN: i16 = 6;
const CREATED_CONFIGS_VERSION_MIN: i16 = 5;

impl Broker {
    pub(crate) async fn create_topics(
        &self,
        version: i16,
        request: CreateTopicsRequest,
    ) -> CreateTopicsResponse {
        let mut times: HashMap<String, usize> = HashMap::new();
        for topic in &request.topics {
            *times.entry(topic.name.to_string()).or_default() += 1;
        }
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let result = CreatableTopicResult::default().with_name(topic.name.clone());
            let created = if times.get(topic.name.as_str()).is_some_and(|times| *times > 1) {
                Err(DoorError::refused(ResponseError::InvalidRequest, "the topic is named twice"))
            } else {
                self.create_topic(topic, request.validate_only).await
            };
            results.push(match created {
                Ok(topic) => self.created(version, result, &topic, request.validate_only),
                Err(error) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(text(error.to_string()))),
            });
        }
        CreateTopicsResponse::default().with_topics(results)
    }

    async fn create_topic(
        &self,
        asked: CreatableTopic,
        validate_only: bool,
    ) -> Result<Topic, DoorError> {
        let new = self.new_topic(asked)?;
        if validate_only {
            self.log.validate_topic(&new)?;
            return Ok(Topic {
                id: TopicId::new(uuid::Uuid::nil()),
                name: new.name,
                partitions: new.partitions,
                config: new.config,
                created_at: evert_model::Position::ZERO,
            });
        }
        let topic = self.blocking(move |log| log.create_topic(new)).await?;
        Ok(Topic::clone(&topic))
    }

    /// What the client asked for, with what it left to the server filled in.
    fn new_topic(&self, asked: CreatableTopic) -> Result<NewTopic, DoorError> {
        let refuse = |code, why: &str| Err(DoorError::refused(code, why));
        if is_internal(&asked.name) {
            return refuse(ResponseError::InvalidTopicException, "the name is the server's own");
        }
        if !asked.assignments.is_empty() {
            return assigned(asked);
        }
        if !matches!(asked.replication_factor, -1 | REPLICATION_FACTOR) {
            return refuse(
                ResponseError::InvalidReplicationFactor,
                "there is one broker: the replication factor is 1, or -1 for the default",
            );
        }
        let partitions = match asked.num_partitions {
            SERVERS_CHOICE => self.config.default_partitions,
            partitions => partitions,
        };
        Ok(NewTopic { name: asked.name.to_string(), partitions, config: config_of(asked)? })
    }

    fn created(
        &self,
        version: i16,
        result: CreatableTopicResult,
        topic: &Topic,
        validate_only: bool,
    ) -> CreatableTopicResult {
        let result = result
            .with_topic_id(topic.id.uuid())
            .with_num_partitions(topic.partitions)
            .with_replication_factor(REPLICATION_FACTOR);
        // A topic that is only imagined has no configuration to show.
        if validate_only || version < CREATED_CONFIGS_VERSION_MIN {
            return result;
        }
        let configs = self.log.topic_config(topic).into_iter().map(|entry| {
            CreatableTopicConfigs::default()
                .with_name(text(entry.name))
                .with_read_only(entry.read_only)
                .with_config_source(source_of(&entry))
                .with_value(Some(text(entry.value)))
        });
        result.with_configs(Some(configs.collect()))
    }

    pub(crate) async fn delete_topics(
        &self,
        version: i16,
        request: DeleteTopicsRequest,
    ) -> DeleteTopicsResponse {
        let names = request.topic_names.into_iter();
        let named = names.map(|name| DeleteTopicState::default().with_name(Some(name)));
        let mut responses = Vec::new();
        for topic in request.topics.into_iter().chain(named) {
            let result = DeletableTopicResult::default();
            responses.push(match self.delete_topic(&topic).await {
                Ok(deleted) => named_result(version, result, &topic, Some(&deleted)),
                Err(error) => {
                    let result =
                        named_result(version, result, &topic, None).with_error_code(error.code());
                    if version >= DELETE_MESSAGE_VERSION_MIN {
                        result.with_error_message(Some(text(error.to_string())))
                    } else {
                        result
                    }
                }
            });
        }
        DeleteTopicsResponse::default().with_responses(responses)
    }

    async fn delete_topic(&self, asked: &DeleteTopicState) -> Result<Topic, DoorError> {
        let topic = match &asked.name {
            Some(name) => self.topic(name)?,
            None => self.log.topic_by_id(TopicId::new(asked.topic_id)).ok_or_else(|| {
                DoorError::refused(ResponseError::UnknownTopicId, "there is no topic of this id")
            })?,
        };
        if is_internal(&topic.name) {
            return Err(DoorError::refused(
                ResponseError::InvalidTopicException,
                format!("topic \"{}\" is the server's own", topic.name),
            ));
        }
        if let Some(relation) = self.topic_use.relation_on(&topic.name) {
            return Err(DoorError::refused(
                ResponseError::PolicyViolation,
                format!(
                    "relation \"{relation}\" stands on topic \"{}\": drop it first",
                    topic.name
                ),
            ));
        }
        let name = topic.name.clone();
        self.blocking(move |log| log.delete_topic(&name)).await?;
        Ok(Topic::clone(&topic))
    }
}

fn named_result(
    version: i16,
    result: DeletableTopicResult,
    asked: &DeleteTopicState,
    deleted: Option<&Topic>,
) -> DeletableTopicResult {
    let known = deleted.map(|topic| text(topic.name.clone()).into());
    let result = result.with_name(asked.name.clone().or(known));
    if version < DELETE_BY_ID_VERSION_MIN {
        return result;
    }
    result.with_topic_id(deleted.map_or(asked.topic_id, |topic| topic.id.uuid()))
}

/// Takes an assignment of partitions to brokers: it must name each partition once, and the one
/// broker.
fn assigned(asked: CreatableTopic) -> Result<NewTopic, DoorError> {
    let refuse = |why: &str| Err(DoorError::refused(ResponseError::InvalidReplicaAssignment, why));
    if asked.num_partitions != SERVERS_CHOICE || asked.replication_factor != -1 {
        return Err(DoorError::refused(
            ResponseError::InvalidRequest,
            "an assignment replaces the number of partitions and the replication factor",
        ));
    }
    let mut indexes: Vec<i32> = asked.assignments.iter().map(|it| it.partition_index).collect();
    indexes.sort_unstable();
    if indexes.iter().enumerate().any(|(at, index)| *index != at as i32) {
        return refuse("the partitions are not numbered from 0 without gaps");
    }
    if asked.assignments.iter().any(|it| it.broker_ids != [super::broker::NODE_ID]) {
        return refuse("there is one broker, number 1");
    }
    let partitions = indexes.len() as i32;
    Ok(NewTopic { name: asked.name.to_string(), partitions, config: config_of(asked)? })
}

fn config_of(asked: CreatableTopic) -> Result<BTreeMap<String, String>, DoorError> {
    let mut config = BTreeMap::new();
    for entry in asked.configs {
        let Some(value) = entry.value else {
            return Err(DoorError::refused(
                ResponseError::InvalidConfig,
                format!("configuration {} has no value", entry.name),
            ));
        };
        config.insert(entry.name.to_string(), value.to_string());
    }
    Ok(config)
}
