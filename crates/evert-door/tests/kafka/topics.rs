//! Metadata, and the making and unmaking of topics.

use evert_door::kafka::KafkaConfig;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    MetadataRequest, OffsetForLeaderEpochRequest,
};

use crate::client::{Client, Server};
use crate::expect;
use crate::requests::{batch, create, metadata, text, topic};

async fn delete(client: &mut Client, name: &str) -> (i16, String) {
    let wanted = DeleteTopicState::default().with_name(Some(topic(name)));
    let request = DeleteTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
    let deleted = expect!(DeleteTopics, client.ask(ApiKey::DeleteTopics, 6, request).await);
    let message = deleted.responses[0].error_message.clone().unwrap_or_default();
    (deleted.responses[0].error_code, message.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_when_a_client_asks_for_it_and_allows_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let quiet = metadata("t").with_allow_auto_topic_creation(false);
    let answer = expect!(Metadata, client.ask(ApiKey::Metadata, 12, quiet).await);
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(answer.topics[0].error_code, unknown);
    let answer = expect!(Metadata, client.ask(ApiKey::Metadata, 12, metadata("t")).await);
    assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (0, 1));
    let broker = &answer.brokers[0];
    assert_eq!((broker.host.as_str(), broker.port), ("127.0.0.1", i32::from(server.port())));
    assert_eq!(answer.cluster_id.expect("an id").len(), 22);
    let by_id =
        MetadataRequestTopic::default().with_topic_id(answer.topics[0].topic_id).with_name(None);
    let by_id = MetadataRequest::default().with_topics(Some(vec![by_id]));
    let answer = expect!(Metadata, client.ask(ApiKey::Metadata, 12, by_id).await);
    assert_eq!(answer.topics[0].name, Some(topic("t")));
    for bad in ["no spaces", "", ".."] {
        let answer = expect!(Metadata, client.ask(ApiKey::Metadata, 12, metadata(bad)).await);
        let code = ResponseError::InvalidTopicException.code();
        assert_eq!(answer.topics[0].error_code, code, "{bad:?}");
    }
    let answer = expect!(Metadata, client.ask(ApiKey::Metadata, 12, metadata("__evert_x")).await);
    assert_eq!(answer.topics[0].error_code, unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_not_created_unasked_where_that_is_switched_off() {
    let config = KafkaConfig {
        auto_create_topics: false,
        advertised: Some(("kafka.example".to_owned(), 9999)),
        ..KafkaConfig::default()
    };
    let server = Server::start_with(config).await;
    let mut client = server.client().await;
    let answer = expect!(Metadata, client.ask(ApiKey::Metadata, 1, metadata("t")).await);
    assert_eq!(answer.topics[0].error_code, ResponseError::UnknownTopicOrPartition.code());
    assert_eq!((answer.brokers[0].host.as_str(), answer.brokers[0].port), ("kafka.example", 9999));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_come_and_go() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut ask = async |request| {
        let created = expect!(CreateTopics, client.ask(ApiKey::CreateTopics, 7, request).await);
        created.topics.into_iter().map(|topic| topic.error_code).collect::<Vec<_>>()
    };
    assert_eq!(ask(create("dry", 3).with_validate_only(true)).await, [0]);
    assert_eq!(ask(create("t", 3)).await, [0]);
    assert_eq!(ask(create("t", 3)).await, [ResponseError::TopicAlreadyExists.code()]);
    assert_eq!(ask(create("default", -1)).await, [0]);
    assert_eq!(ask(create("none", 0)).await, [ResponseError::InvalidPartitions.code()]);
    assert_eq!(ask(create("a/b", 1)).await, [ResponseError::InvalidTopicException.code()]);
    let mut three = create("three", 1);
    three.topics[0].replication_factor = 3;
    assert_eq!(ask(three).await, [ResponseError::InvalidReplicationFactor.code()]);
    let mut twice = create("twice", 1);
    twice.topics.push(twice.topics[0].clone());
    let invalid = ResponseError::InvalidRequest.code();
    assert_eq!(ask(twice).await, [invalid, invalid]);
    let mut odd = create("odd", 1);
    let config = CreatableTopicConfig::default().with_name(text("retention.ms"));
    odd.topics[0].configs = vec![config.clone().with_value(Some(text("soon")))];
    assert_eq!(ask(odd).await, [ResponseError::InvalidConfig.code()]);
    let mut long = create("long", 1);
    long.topics[0].configs = vec![config.with_value(Some(text("9223372036854775807")))];
    assert_eq!(ask(long).await, [0]);
    let mut assigned = create("assigned", -1);
    let place = |index| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(vec![BrokerId(1)])
    };
    assigned.topics[0].assignments = vec![place(1), place(0)];
    assert_eq!(ask(assigned.clone()).await, [0]);
    assigned.topics[0].name = topic("gaps");
    assigned.topics[0].assignments[0].partition_index = 5;
    assert_eq!(ask(assigned).await, [ResponseError::InvalidReplicaAssignment.code()]);

    let all = MetadataRequest::default().with_topics(None);
    let answer = expect!(Metadata, client.ask(ApiKey::Metadata, 12, all).await);
    let topics = answer
        .topics
        .iter()
        .map(|topic| (topic.name.clone().expect("a name").to_string(), topic.partitions.len()));
    let own = |(name, _): &(String, usize)| !name.starts_with("__");
    let topics: Vec<(String, usize)> = topics.filter(own).collect();
    let expected = [("assigned", 2), ("default", 1), ("long", 1), ("t", 3)];
    assert_eq!(topics, expected.map(|(name, count)| (name.to_owned(), count)));

    assert_eq!(delete(&mut client, "t").await.0, 0);
    assert_eq!(delete(&mut client, "t").await.0, ResponseError::UnknownTopicOrPartition.code());
    client.create("t").await;
    assert_eq!(client.values("t", 0).await, [], "a new topic under an old name is empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_under_a_relation_is_not_deleted() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("orders-of-a-relation").await;
    let (code, message) = delete(&mut client, "orders-of-a-relation").await;
    assert_eq!(code, ResponseError::PolicyViolation.code());
    assert!(message.contains("shop.orders"), "{message}");
    assert_eq!(client.produce("orders-of-a-relation", batch(&["a"])).await.error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_listed_with_their_defaults() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut new = create("t", 1);
    new.topics[0].configs = vec![
        CreatableTopicConfig::default()
            .with_name(text("max.message.bytes"))
            .with_value(Some(text("2000"))),
    ];
    expect!(CreateTopics, client.ask(ApiKey::CreateTopics, 7, new).await);
    let about = |kind, name: &str| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![about(2, "t"), about(4, "1"), about(2, "nowhere"), about(4, "7")])
        .with_include_documentation(true);
    let answer = expect!(DescribeConfigs, client.ask(ApiKey::DescribeConfigs, 4, request).await);
    let codes: Vec<i16> = answer.results.iter().map(|result| result.error_code).collect();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(codes, [0, 0, unknown, ResponseError::InvalidRequest.code()]);
    let of_topic = |name: &str| {
        let found = answer.results[0].configs.iter().find(|config| &*config.name == name);
        let found = found.unwrap_or_else(|| panic!("no {name}"));
        (found.value.clone().expect("a value").to_string(), found.config_source)
    };
    assert_eq!(of_topic("max.message.bytes"), ("2000".to_owned(), 1));
    assert_eq!(of_topic("retention.ms"), ("-1".to_owned(), 5));
    assert_eq!(of_topic("cleanup.policy"), ("delete".to_owned(), 5));
    let broker = &answer.results[1].configs;
    assert!(broker.iter().any(|config| &*config.name == "num.partitions"));
    let refused = client.produce("t", batch(&[&"x".repeat(3000)])).await;
    assert_eq!(refused.error_code, ResponseError::MessageTooLarge.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_write_what_is_the_servers() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let invalid = ResponseError::InvalidTopicException.code();
    assert_eq!(client.produce("__consumer_offsets", batch(&["a"])).await.error_code, invalid);
    let created =
        expect!(CreateTopics, client.ask(ApiKey::CreateTopics, 7, create("__evert_x", 1)).await);
    assert_eq!(created.topics[0].error_code, invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_epoch_and_one_broker() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    client.produce("t", batch(&["a", "b"])).await;
    let mut end_of = async |current, epoch| {
        let part = OffsetForLeaderPartition::default()
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch);
        let about =
            OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![part]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![about]);
        let answer = client.ask(ApiKey::OffsetForLeaderEpoch, 3, request).await;
        let end = expect!(OffsetForLeaderEpoch, answer).topics[0].partitions[0].clone();
        (end.error_code, end.leader_epoch, end.end_offset)
    };
    assert_eq!(end_of(-1, 0).await, (0, 0, 2));
    assert_eq!(end_of(0, 3).await, (0, -1, -1));
    assert_eq!(end_of(1, 0).await.0, ResponseError::UnknownLeaderEpoch.code());

    let about = DescribeClusterRequest::default();
    let answer =
        expect!(DescribeCluster, client.ask(ApiKey::DescribeCluster, 1, about.clone()).await);
    assert_eq!((answer.brokers.len(), answer.controller_id), (1, BrokerId(1)));
    let controllers = about.with_endpoint_type(2);
    let answer =
        expect!(DescribeCluster, client.ask(ApiKey::DescribeCluster, 1, controllers).await);
    assert_eq!(answer.error_code, ResponseError::MismatchedEndpointType.code());
}
