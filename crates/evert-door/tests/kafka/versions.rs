//! Every version that ApiVersions promises can be asked and answered, and its answer be read.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
    GroupId, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, RequestKind, ResponseKind, SyncGroupRequest,
};

use crate::client::Server;
use crate::expect;
use crate::requests::{batch, fetch, offset_at, produce, text, topic};

/// Names a topic of which there is none when it is deleted, so that errors are answered too.
fn request(api: ApiKey, version: i16, name: &str) -> RequestKind {
    let group = GroupId(text("g"));
    let from = |since: i16| version >= since;
    match api {
        ApiKey::Produce => produce(name, batch(&["a"])).into(),
        ApiKey::Fetch => fetch(name, 0).into(),
        ApiKey::ListOffsets => offset_at(name, -1).into(),
        ApiKey::Metadata => MetadataRequest::default()
            .with_topics(if from(1) { None } else { Some(vec![]) })
            .with_allow_auto_topic_creation(true)
            .into(),
        ApiKey::OffsetCommit => OffsetCommitRequest::default()
            .with_group_id(group)
            .with_topics(vec![
                OffsetCommitRequestTopic::default()
                    .with_name(topic(name))
                    .with_partitions(vec![OffsetCommitRequestPartition::default()]),
            ])
            .into(),
        ApiKey::OffsetFetch if from(8) => {
            let about = OffsetFetchRequestTopics::default()
                .with_name(topic(name))
                .with_partition_indexes(vec![0, 1]);
            let asked = OffsetFetchRequestGroup::default()
                .with_group_id(group)
                .with_topics(Some(vec![about]));
            OffsetFetchRequest::default().with_groups(vec![asked]).into()
        }
        ApiKey::OffsetFetch => OffsetFetchRequest::default()
            .with_group_id(group)
            .with_topics(Some(vec![
                OffsetFetchRequestTopic::default()
                    .with_name(topic(name))
                    .with_partition_indexes(vec![0, 1]),
            ]))
            .into(),
        ApiKey::FindCoordinator if from(4) => {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]).into()
        }
        ApiKey::FindCoordinator => FindCoordinatorRequest::default().with_key(text("g")).into(),
        ApiKey::JoinGroup => JoinGroupRequest::default()
            .with_group_id(group)
            .with_session_timeout_ms(if name == "t" { 1000 } else { 0 })
            .with_rebalance_timeout_ms(if from(1) { 1000 } else { -1 })
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![JoinGroupRequestProtocol::default().with_name(text("range"))])
            .into(),
        ApiKey::Heartbeat => HeartbeatRequest::default().with_group_id(group).into(),
        ApiKey::LeaveGroup if from(3) => LeaveGroupRequest::default()
            .with_group_id(group)
            .with_members(vec![MemberIdentity::default().with_member_id(text("m"))])
            .into(),
        ApiKey::LeaveGroup => LeaveGroupRequest::default().with_group_id(group).into(),
        ApiKey::SyncGroup => SyncGroupRequest::default().with_group_id(group).into(),
        ApiKey::DescribeGroups => {
            DescribeGroupsRequest::default().with_groups(vec![group, text(name).into()]).into()
        }
        ApiKey::ListGroups => ListGroupsRequest::default().into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default().into(),
        ApiKey::CreateTopics => CreateTopicsRequest::default()
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(topic(&format!("new-{name}-{version}")))
                    .with_num_partitions(1)
                    .with_replication_factor(if name == "t" { 1 } else { 9 }),
            ])
            .into(),
        ApiKey::DeleteTopics if from(6) => DeleteTopicsRequest::default()
            .with_topics(vec![
                DeleteTopicState::default().with_name(Some(topic("nowhere"))),
                DeleteTopicState::default().with_topic_id(uuid::Uuid::from_u128(5)),
            ])
            .into(),
        ApiKey::DeleteTopics => {
            DeleteTopicsRequest::default().with_topic_names(vec![topic("nowhere")]).into()
        }
        ApiKey::InitProducerId => InitProducerIdRequest::default()
            .with_transactional_id((name != "t").then(|| text("t").into()))
            .into(),
        ApiKey::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::default()
            .with_topics(vec![
                OffsetForLeaderTopic::default()
                    .with_topic(topic(name))
                    .with_partitions(vec![OffsetForLeaderPartition::default()]),
            ])
            .into(),
        ApiKey::DescribeConfigs => DescribeConfigsRequest::default()
            .with_resources(vec![
                DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(name))
                    .with_configuration_keys(None),
                DescribeConfigsResource::default().with_resource_type(4),
            ])
            .with_include_synonyms(true)
            .into(),
        ApiKey::DeleteGroups => {
            DeleteGroupsRequest::default().with_groups_names(vec![text("nobody").into()]).into()
        }
        ApiKey::DescribeCluster => DescribeClusterRequest::default().into(),
        other => panic!("no request for {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_promised_is_answered() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let versions = client.ask(ApiKey::ApiVersions, 3, ApiVersionsRequest::default()).await;
    let promised = expect!(ApiVersions, versions);
    assert_eq!(promised.api_keys.len(), 21);
    for name in ["t", "nowhere"] {
        for api in &promised.api_keys {
            let key = ApiKey::try_from(api.api_key).expect("a known API");
            // Versions of Produce below 3 carry formats that are refused.
            let min = if key == ApiKey::Produce { 3 } else { api.min_version };
            for version in min..=api.max_version {
                let answer = client.ask(key, version, request(key, version, name)).await;
                check(&answer, name == "t");
            }
        }
    }
}

/// Looks into the answers whose success depends on the topic.
fn check(answer: &ResponseKind, exists: bool) {
    let code = match answer {
        ResponseKind::Produce(it) => it.responses[0].partition_responses[0].error_code,
        ResponseKind::Fetch(it) => it.responses[0].partitions[0].error_code,
        ResponseKind::ListOffsets(it) => it.topics[0].partitions[0].error_code,
        ResponseKind::OffsetCommit(it) => it.topics[0].partitions[0].error_code,
        ResponseKind::CreateTopics(it) => it.topics[0].error_code,
        ResponseKind::InitProducerId(it) => it.error_code,
        ResponseKind::OffsetForLeaderEpoch(it) => it.topics[0].partitions[0].error_code,
        ResponseKind::DescribeConfigs(it) => it.results[0].error_code,
        _ => return,
    };
    assert_eq!(code == 0, exists, "{answer:?}");
}
