//! Requests of every served API and version, whole, cut and garbled.

use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, TopicName,
    TransactionalId,
};

use super::*;

fn s(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(s("orders"))
}

fn group() -> GroupId {
    GroupId(s("group"))
}

/// A request of the API with something in every field that the version has.
fn sample(api: ApiKey, version: i16) -> RequestKind {
    let from = |since: i16| version >= since;
    let instance = |since: i16| from(since).then(|| s("instance"));
    match api {
        ApiKey::Produce => ProduceRequest::default()
            .with_transactional_id(Some(TransactionalId(s("t"))))
            .with_acks(-1)
            .with_topic_data(vec![
                TopicProduceData::default().with_name(topic()).with_partition_data(vec![
                    PartitionProduceData::default().with_records(Some(Bytes::from_static(b"abc"))),
                    PartitionProduceData::default().with_index(1).with_records(None),
                ]),
            ])
            .into(),
        ApiKey::Fetch => FetchRequest::default()
            .with_topics(vec![FetchTopic::default().with_topic(topic()).with_partitions(vec![
                FetchPartition::default().with_fetch_offset(3),
                FetchPartition::default().with_partition(1),
            ])])
            .with_forgotten_topics_data(if from(7) {
                vec![ForgottenTopic::default().with_topic(topic()).with_partitions(vec![1, 2])]
            } else {
                vec![]
            })
            .with_rack_id(if from(11) { s("rack") } else { s("") })
            .with_cluster_id(if from(12) { Some(s("cluster")) } else { None })
            .into(),
        ApiKey::ListOffsets => ListOffsetsRequest::default()
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(topic())
                    .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]),
            ])
            .into(),
        ApiKey::Metadata => MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic()))]))
            .into(),
        ApiKey::OffsetCommit => OffsetCommitRequest::default()
            .with_group_id(group())
            .with_member_id(s("member"))
            .with_group_instance_id(instance(7))
            .with_topics(vec![
                OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![
                    OffsetCommitRequestPartition::default().with_committed_metadata(Some(s("m"))),
                ]),
            ])
            .into(),
        ApiKey::OffsetFetch if from(8) => OffsetFetchRequest::default()
            .with_groups(vec![
                OffsetFetchRequestGroup::default()
                    .with_group_id(group())
                    .with_member_id(from(9).then(|| s("member")))
                    .with_topics(Some(vec![
                        OffsetFetchRequestTopics::default()
                            .with_name(topic())
                            .with_partition_indexes(vec![0, 1]),
                    ])),
            ])
            .into(),
        ApiKey::OffsetFetch => OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics(Some(vec![
                OffsetFetchRequestTopic::default()
                    .with_name(topic())
                    .with_partition_indexes(vec![0, 1]),
            ]))
            .into(),
        ApiKey::FindCoordinator if from(4) => {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![s("a"), s("b")]).into()
        }
        ApiKey::FindCoordinator => FindCoordinatorRequest::default().with_key(s("a")).into(),
        ApiKey::JoinGroup => JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(6000)
            .with_member_id(s("member"))
            .with_group_instance_id(instance(5))
            .with_protocol_type(s("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default()
                    .with_name(s("range"))
                    .with_metadata(Bytes::from_static(b"meta")),
            ])
            .with_reason(from(8).then(|| s("because")))
            .into(),
        ApiKey::Heartbeat => HeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(s("member"))
            .with_group_instance_id(instance(3))
            .into(),
        ApiKey::LeaveGroup if from(3) => LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(vec![
                MemberIdentity::default()
                    .with_member_id(s("member"))
                    .with_group_instance_id(instance(3))
                    .with_reason(from(5).then(|| s("because"))),
            ])
            .into(),
        ApiKey::LeaveGroup => {
            LeaveGroupRequest::default().with_group_id(group()).with_member_id(s("member")).into()
        }
        ApiKey::SyncGroup => SyncGroupRequest::default()
            .with_group_id(group())
            .with_member_id(s("member"))
            .with_group_instance_id(instance(3))
            .with_protocol_type(from(5).then(|| s("consumer")))
            .with_protocol_name(from(5).then(|| s("range")))
            .with_assignments(vec![
                SyncGroupRequestAssignment::default()
                    .with_member_id(s("member"))
                    .with_assignment(Bytes::from_static(b"share")),
            ])
            .into(),
        ApiKey::DescribeGroups => {
            DescribeGroupsRequest::default().with_groups(vec![group(), group()]).into()
        }
        ApiKey::ListGroups => ListGroupsRequest::default()
            .with_states_filter(if from(4) { vec![s("Stable")] } else { vec![] })
            .with_types_filter(if from(5) { vec![s("classic")] } else { vec![] })
            .into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default()
            .with_client_software_name(if from(3) { s("test") } else { s("") })
            .with_client_software_version(if from(3) { s("1") } else { s("") })
            .into(),
        ApiKey::CreateTopics => CreateTopicsRequest::default()
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(topic())
                    .with_assignments(vec![
                        CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]),
                    ])
                    .with_configs(vec![
                        CreatableTopicConfig::default()
                            .with_name(s("retention.ms"))
                            .with_value(Some(s("-1"))),
                    ]),
            ])
            .into(),
        ApiKey::DeleteTopics if from(6) => DeleteTopicsRequest::default()
            .with_topics(vec![DeleteTopicState::default().with_name(Some(topic()))])
            .into(),
        ApiKey::DeleteTopics => {
            DeleteTopicsRequest::default().with_topic_names(vec![topic(), topic()]).into()
        }
        ApiKey::InitProducerId => InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(s("t"))))
            .into(),
        ApiKey::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::default()
            .with_topics(vec![
                OffsetForLeaderTopic::default()
                    .with_topic(topic())
                    .with_partitions(vec![OffsetForLeaderPartition::default()]),
            ])
            .into(),
        ApiKey::DescribeConfigs => DescribeConfigsRequest::default()
            .with_resources(vec![
                DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(s("orders"))
                    .with_configuration_keys(Some(vec![s("retention.ms")])),
            ])
            .into(),
        ApiKey::DeleteGroups => {
            DeleteGroupsRequest::default().with_groups_names(vec![group()]).into()
        }
        ApiKey::DescribeCluster => DescribeClusterRequest::default().into(),
        other => panic!("no sample of {other:?}"),
    }
}

/// The frame of a sample, and where its body begins.
fn frame(api: ApiKey, version: i16) -> (Vec<u8>, usize) {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(s("client")))
        .encode(&mut out, api.request_header_version(version))
        .expect("the header is whole");
    let body = out.len();
    sample(api, version).encode(&mut out, version).expect("the sample fits its version");
    (out.to_vec(), body)
}

/// Every served API with each version that carries message format v2.
fn versions() -> impl Iterator<Item = (&'static shape::Api, i16)> {
    shape::SERVED.iter().flat_map(|api| {
        let min = if api.key == ApiKey::Produce { PRODUCE_VERSION_MIN } else { api.min };
        (min..=api.max).map(move |version| (api, version))
    })
}

#[test]
fn every_request_of_every_version_is_read() {
    for (api, version) in versions() {
        let (frame, body) = frame(api.key, version);
        assert_eq!(api.check(version, &frame[body..]), Ok(0), "{:?} {version}", api.key);
        match decode(Bytes::from(frame)).expect("it is well formed") {
            Decoded::Request(request) => {
                let head = Head { api: api.key, version, correlation: 7 };
                assert_eq!(request.head, head);
                assert_eq!(request.client_id, Some(s("client")));
                assert_eq!(request.body, sample(api.key, version));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_cut_request_is_an_error() {
    for (api, version) in versions() {
        let (frame, body) = frame(api.key, version);
        for len in body..frame.len() {
            let checked = api.check(version, &frame[body..len]);
            assert!(checked.is_err(), "{:?} {version}, {len} bytes", api.key);
        }
        for len in 0..frame.len() {
            let cut = Bytes::copy_from_slice(&frame[..len]);
            assert!(decode(cut).is_err(), "{:?} {version}, {len} bytes", api.key);
        }
    }
}

#[test]
fn huge_arrays_are_refused_before_memory_is_reserved() {
    // A Metadata request of version 1 for two thousand million topics.
    let mut frame = b"\0\x03\0\x01\0\0\0\0\xff\xff".to_vec();
    frame.extend_from_slice(&i32::MAX.to_be_bytes());
    let error = decode(Bytes::from(frame)).expect_err("it is impossible");
    assert!(error.to_string().contains("2147483647 elements"), "{error}");
}

#[test]
fn what_is_described_at_length_is_described_for_fewer() {
    for (key, text) in [(ApiKey::DescribeConfigs, false), (ApiKey::DescribeGroups, true)] {
        let api = shape::served(key as i16).expect("it is served");
        let mut body = 20_000i32.to_be_bytes().to_vec();
        for _ in 0..20_000 {
            body.extend_from_slice(if text {
                &b"\0\x01g"[..]
            } else {
                b"\x02\0\x01t\xff\xff\xff\xff"
            });
        }
        body.extend_from_slice(&[0; 2]);
        let checked = api.check(api.min, &body);
        assert!(matches!(checked, Err(ShapeError::LongArray { .. })), "{key:?} {checked:?}");
    }
}

#[test]
fn garbled_requests_never_panic() {
    let mut random = fastrand::Rng::with_seed(1);
    for (api, version) in versions() {
        let (frame, _) = frame(api.key, version);
        for _ in 0..2000 {
            let mut garbled = frame.clone();
            for _ in 0..random.usize(1..5) {
                // The key and the version stay, so that the same decoder is reached.
                let at = random.usize(4..garbled.len());
                garbled[at] = match random.u8(0..3) {
                    0 => 0xff,
                    1 => 0x7f,
                    _ => random.u8(..),
                };
            }
            garbled.truncate(random.usize(4..=garbled.len()));
            let _ = decode(Bytes::from(garbled));
        }
    }
    for _ in 0..50_000 {
        let noise: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
        let _ = decode(Bytes::from(noise));
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let answer = match decode(Bytes::from_static(b"\0\x12\0\x63\0\0\0\x05\0\0")) {
        Ok(Decoded::Answered(answer)) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer[..4], (answer.len() as i32 - 4).to_be_bytes());
    assert_eq!(answer[4..8], 5i32.to_be_bytes());
    assert_eq!(answer[8..10], 35i16.to_be_bytes());
    let count = i32::from_be_bytes([answer[10], answer[11], answer[12], answer[13]]);
    assert_eq!(count as usize, shape::SERVED.len());
    assert_eq!(answer.len(), 14 + 6 * shape::SERVED.len(), "nothing of later versions follows");
}

#[test]
fn the_answer_to_api_versions_has_a_plain_header() {
    for version in 0..=4 {
        let head = Head { api: ApiKey::ApiVersions, version, correlation: 5 };
        let frame = encode(head, &ResponseKind::ApiVersions(api_versions())).expect("it fits");
        // Right after the correlation id comes the error code, without tagged fields.
        assert_eq!(frame[4..10], [0, 0, 0, 5, 0, 0], "version {version}");
    }
}

#[test]
fn other_unknown_versions_end_the_connection() {
    let unknown = decode(Bytes::from_static(b"\0\x01\0\x63\0\0\0\x05\0\0"));
    assert!(matches!(unknown, Err(WireError::UnknownVersion { version: 99, .. })));
    let unserved = decode(Bytes::from_static(b"\0\x04\0\0\0\0\0\x05\0\0"));
    assert!(matches!(unserved, Err(WireError::UnknownApi(4))));
}

#[test]
fn old_produce_is_answered_with_an_error_for_each_partition() {
    let mut frame = b"\0\0\0\x02\0\0\0\x09\xff\xff".to_vec();
    frame.extend_from_slice(b"\0\x01\0\0\0\x64\0\0\0\x01\0\x01t\0\0\0\x02");
    frame.extend_from_slice(b"\0\0\0\0\0\0\0\x02hi\0\0\0\x01\0\0\0\0");
    let answer = match decode(Bytes::from(frame.clone())) {
        Ok(Decoded::Answered(answer)) => answer,
        other => panic!("{other:?}"),
    };
    let mut expected = b"\0\0\0\x09\0\0\0\x01\0\x01t\0\0\0\x02".to_vec();
    for partition in [0, 1] {
        expected.extend([0, 0, 0, partition, 0, 35]);
        expected.extend([0xff; 16]);
    }
    expected.extend([0; 4]);
    assert_eq!(answer[4..], expected);
    frame.truncate(frame.len() - 1);
    assert!(decode(Bytes::from(frame)).is_err());
}
