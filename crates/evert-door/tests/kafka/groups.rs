//! Groups and their offsets, over sockets and through restarts.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest,
};

use crate::client::{Client, Sent, Server};
use crate::expect;
use crate::requests::{batch, text, topic};

fn group() -> GroupId {
    GroupId(text("readers"))
}

fn join(member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"subscription"));
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(6000)
        .with_rebalance_timeout_ms(6000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

async fn send_join(client: &mut Client, member: &str) -> Sent {
    client.send(ApiKey::JoinGroup, 9, join(member)).await
}

async fn joined(client: &mut Client, sent: Sent) -> JoinGroupResponse {
    let joined = expect!(JoinGroup, client.read(sent).await);
    assert_eq!(joined.error_code, 0, "{joined:?}");
    joined
}

/// Gets an id, as clients since KIP-394 do.
async fn new_id(client: &mut Client) -> String {
    let refused = expect!(JoinGroup, client.ask(ApiKey::JoinGroup, 9, join("")).await);
    assert_eq!(refused.error_code, ResponseError::MemberIdRequired.code());
    refused.member_id.to_string()
}

fn sync(member: &str, generation: i32, shares: &[(&str, &'static str)]) -> SyncGroupRequest {
    let shares = shares.iter().map(|(member, share)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member))
            .with_assignment(Bytes::from_static(share.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_assignments(shares.collect())
}

async fn beat(client: &mut Client, member: &str, generation: i32) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(member));
    expect!(Heartbeat, client.ask(ApiKey::Heartbeat, 4, request).await).error_code
}

async fn commit(client: &mut Client, who: (&str, i32), offset: i64, metadata: &str) -> i16 {
    let part = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_leader_epoch(0)
        .with_committed_metadata(Some(text(metadata)));
    let about =
        OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![part]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_member_id(text(who.0))
        .with_generation_id_or_member_epoch(who.1)
        .with_topics(vec![about]);
    let answer = expect!(OffsetCommit, client.ask(ApiKey::OffsetCommit, 8, request).await);
    answer.topics[0].partitions[0].error_code
}

/// A consumer outside any generation.
const ALONE: (&str, i32) = ("", -1);

async fn committed(client: &mut Client) -> (i64, String) {
    let about =
        OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let asked =
        OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![about]));
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let answer = expect!(OffsetFetch, client.ask(ApiKey::OffsetFetch, 8, request).await);
    let part = answer.groups[0].topics[0].partitions[0].clone();
    (part.committed_offset, part.metadata.unwrap_or_default().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_and_one_takes_over() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.client().await, server.client().await);
    one.create("t").await;
    let id_one = new_id(&mut one).await;
    let id_two = new_id(&mut two).await;
    assert!(id_one.starts_with("test-"), "{id_one}");
    let sent_one = send_join(&mut one, &id_one).await;
    let sent_two = send_join(&mut two, &id_two).await;
    let (joined_one, joined_two) =
        (joined(&mut one, sent_one).await, joined(&mut two, sent_two).await);
    assert_eq!((joined_one.generation_id, joined_two.generation_id), (1, 1));
    assert_eq!(joined_one.leader, joined_two.leader);
    assert_eq!(joined_one.members.len() + joined_two.members.len(), 2);
    let shares = [(id_one.as_str(), "first"), (id_two.as_str(), "second")];
    let leads_one = *joined_one.leader == *id_one;
    let (of_one, of_two): (&[_], &[_]) = if leads_one { (&shares, &[]) } else { (&[], &shares) };
    let sent_one = one.send(ApiKey::SyncGroup, 5, sync(&id_one, 1, of_one)).await;
    let sent_two = two.send(ApiKey::SyncGroup, 5, sync(&id_two, 1, of_two)).await;
    assert_eq!(expect!(SyncGroup, one.read(sent_one).await).assignment, "first");
    assert_eq!(expect!(SyncGroup, two.read(sent_two).await).assignment, "second");
    assert_eq!(beat(&mut one, &id_one, 1).await, 0);

    let described = DescribeGroupsRequest::default().with_groups(vec![group()]);
    let answer = expect!(DescribeGroups, one.ask(ApiKey::DescribeGroups, 5, described).await);
    assert_eq!(answer.groups[0].group_state.as_str(), "Stable");
    assert_eq!(answer.groups[0].members[0].client_host.as_str(), "/127.0.0.1");
    assert_eq!(answer.groups[0].members.len(), 2);

    let leaver = kafka_protocol::messages::leave_group_request::MemberIdentity::default()
        .with_member_id(text(&id_one));
    let leave = LeaveGroupRequest::default().with_group_id(group()).with_members(vec![leaver]);
    let left = expect!(LeaveGroup, one.ask(ApiKey::LeaveGroup, 5, leave).await);
    assert_eq!(left.members[0].error_code, 0);
    let rebalancing = ResponseError::RebalanceInProgress.code();
    assert_eq!(beat(&mut two, &id_two, 1).await, rebalancing);
    let sent = send_join(&mut two, &id_two).await;
    let again = joined(&mut two, sent).await;
    assert_eq!((again.generation_id, again.members.len()), (2, 1));
    let fenced = ResponseError::IllegalGeneration.code();
    assert_eq!(commit(&mut two, (&id_two, 1), 5, "").await, fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_vanishes_is_replaced() {
    let server = Server::start().await;
    let mut one = server.client().await;
    let vanishing = {
        let mut client = server.client().await;
        let mut request = join("").with_session_timeout_ms(1000);
        let refused = expect!(JoinGroup, client.ask(ApiKey::JoinGroup, 9, request.clone()).await);
        request.member_id = refused.member_id.clone();
        expect!(JoinGroup, client.ask(ApiKey::JoinGroup, 9, request).await);
        refused.member_id.to_string()
    };
    let id = new_id(&mut one).await;
    let sent = send_join(&mut one, &id).await;
    let joined = joined(&mut one, sent).await;
    assert_eq!(joined.members.len(), 1, "{vanishing} is gone");
    assert_eq!(joined.leader.as_str(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_timeouts_have_limits() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for ms in [0, -1, 10, i32::MAX] {
        let request = join("").with_session_timeout_ms(ms);
        let refused = expect!(JoinGroup, client.ask(ApiKey::JoinGroup, 9, request).await);
        assert_eq!(refused.error_code, ResponseError::InvalidSessionTimeout.code(), "{ms}");
    }
    let nameless = join("").with_group_id(GroupId(text("")));
    let refused = expect!(JoinGroup, client.ask(ApiKey::JoinGroup, 9, nameless).await);
    assert_eq!(refused.error_code, ResponseError::InvalidGroupId.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_come_back_as_sent_even_after_a_restart() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    assert_eq!(committed(&mut client).await, (-1, String::new()));
    assert_eq!(commit(&mut client, ALONE, 3, "caf\u{e9}").await, 0);
    assert_eq!(commit(&mut client, ALONE, 7, "seven").await, 0);
    assert_eq!(committed(&mut client).await, (7, "seven".to_owned()));
    let long = "m".repeat(5000);
    let too_large = ResponseError::OffsetMetadataTooLarge.code();
    assert_eq!(commit(&mut client, ALONE, 8, &long).await, too_large);
    let stale = ResponseError::IllegalGeneration.code();
    assert_eq!(commit(&mut client, ("ghost", 4), 9, "").await, stale);
    drop(client);
    let server = server.restart().await;
    let mut client = server.client().await;
    assert_eq!(committed(&mut client).await, (7, "seven".to_owned()));
    let listed =
        expect!(ListGroups, client.ask(ApiKey::ListGroups, 5, ListGroupsRequest::default()).await);
    assert_eq!(listed.groups.len(), 1);
    assert_eq!(listed.groups[0].group_state.as_str(), "Empty");
    let stable = ListGroupsRequest::default().with_states_filter(vec![text("Stable")]);
    let listed = expect!(ListGroups, client.ask(ApiKey::ListGroups, 5, stable).await);
    assert!(listed.groups.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_offsets_of_a_group_can_be_asked_for() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    commit(&mut client, ALONE, 3, "").await;
    let all = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
    let answer = expect!(OffsetFetch, client.ask(ApiKey::OffsetFetch, 5, all).await);
    assert_eq!(answer.topics.len(), 1);
    assert_eq!(answer.topics[0].partitions[0].committed_offset, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_do_not_outlive_their_topic() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    assert_eq!(commit(&mut client, ALONE, 3, "").await, 0);
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic("t")]);
    expect!(DeleteTopics, client.ask(ApiKey::DeleteTopics, 5, delete).await);
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(commit(&mut client, ALONE, 4, "").await, unknown);
    client.create("t").await;
    assert_eq!(committed(&mut client).await.0, -1, "the offset was the earlier topic's");
    drop(client);
    let server = server.restart().await;
    let mut client = server.client().await;
    assert_eq!(committed(&mut client).await.0, -1, "and so it is after a restart");
    assert_eq!(commit(&mut client, ALONE, 5, "").await, 0);
    assert_eq!(committed(&mut client).await.0, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_is_gone_for_good() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    commit(&mut client, ALONE, 3, "").await;
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let answer = expect!(DeleteGroups, client.ask(ApiKey::DeleteGroups, 2, delete.clone()).await);
    assert_eq!(answer.results[0].error_code, 0);
    let answer = expect!(DeleteGroups, client.ask(ApiKey::DeleteGroups, 2, delete.clone()).await);
    assert_eq!(answer.results[0].error_code, ResponseError::GroupIdNotFound.code());
    let id = new_id(&mut client).await;
    let sent = send_join(&mut client, &id).await;
    joined(&mut client, sent).await;
    let answer = expect!(DeleteGroups, client.ask(ApiKey::DeleteGroups, 2, delete).await);
    assert_eq!(answer.results[0].error_code, ResponseError::NonEmptyGroup.code());
    drop(client);
    let server = server.restart().await;
    let mut client = server.client().await;
    assert_eq!(committed(&mut client).await.0, -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_join_holds_up_nobody_else() {
    let server = Server::start().await;
    let mut one = server.client().await;
    one.create("t").await;
    let id = new_id(&mut one).await;
    // A second id is given out and never used, so that the first join waits for it.
    new_id(&mut server.client().await).await;
    let sent = send_join(&mut one, &id).await;
    let mut other = server.client().await;
    assert_eq!(other.produce("t", batch(&["a"])).await.error_code, 0);
    let early = tokio::time::timeout(Duration::from_millis(500), one.read_raw()).await;
    assert!(early.is_err(), "it waits");
    // The id lapses with its session, six seconds after it was given.
    joined(&mut one, sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn this_broker_coordinates_everything() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let one = FindCoordinatorRequest::default().with_key(text("readers"));
    let found = expect!(FindCoordinator, client.ask(ApiKey::FindCoordinator, 2, one).await);
    assert_eq!((found.error_code, found.port), (0, i32::from(server.port())));
    let many = FindCoordinatorRequest::default()
        .with_key_type(9)
        .with_coordinator_keys(vec![text("a"), text("b")]);
    let found = expect!(FindCoordinator, client.ask(ApiKey::FindCoordinator, 4, many).await);
    let invalid = ResponseError::InvalidRequest.code();
    let codes: Vec<i16> = found.coordinators.iter().map(|found| found.error_code).collect();
    assert_eq!(codes, [invalid, invalid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_waits_for_no_group() {
    let server = Server::start().await;
    let mut one = server.client().await;
    let id = new_id(&mut one).await;
    new_id(&mut server.client().await).await;
    let sent = send_join(&mut one, &id).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stop();
    let told = expect!(JoinGroup, one.read(sent).await);
    assert_eq!(told.error_code, ResponseError::CoordinatorNotAvailable.code());
    assert_eq!(one.read_raw().await, None);
}
