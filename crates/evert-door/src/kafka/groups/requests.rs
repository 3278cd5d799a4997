//! FindCoordinator, DescribeGroups, ListGroups and DeleteGroups.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, ListGroupsRequest,
    ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::super::broker::{Broker, NODE_ID, Peer, text};
use super::member_requests::code_of;
use super::state::{GroupState, Member, Phase};

/// Kinds of coordinators: for groups and for transactions.
const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

/// FindCoordinator names several keys from this version on (KIP-699).
const MANY_KEYS_VERSION_MIN: i16 = 4;

/// From this version on a group that does not exist is an error (KIP-1043).
const NOT_FOUND_VERSION_MIN: i16 = 6;

/// The one protocol of groups that is served.
const GROUP_TYPE: &str = "classic";

/// What a group whose members are gone was for: only consumers commit offsets.
const CONSUMERS: &str = "consumer";

impl Broker {
    pub(crate) fn find_coordinator(
        &self,
        version: i16,
        request: FindCoordinatorRequest,
        peer: &Peer,
    ) -> FindCoordinatorResponse {
        let is_known = matches!(request.key_type, KEY_GROUP | KEY_TRANSACTION);
        let (host, port) = peer.advertised.clone();
        if version >= MANY_KEYS_VERSION_MIN {
            let coordinators = request.coordinator_keys.into_iter().map(|key| {
                let coordinator = Coordinator::default().with_key(key);
                if is_known {
                    return coordinator
                        .with_node_id(NODE_ID)
                        .with_host(host.clone())
                        .with_port(port)
                        .with_error_message(Some(text("")));
                }
                coordinator
                    .with_node_id((-1).into())
                    .with_port(-1)
                    .with_error_code(ResponseError::InvalidRequest.code())
                    .with_error_message(Some(text(unknown_kind(request.key_type))))
            });
            return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
        }
        if is_known {
            return FindCoordinatorResponse::default()
                .with_node_id(NODE_ID)
                .with_host(host)
                .with_port(port);
        }
        FindCoordinatorResponse::default()
            .with_node_id((-1).into())
            .with_port(-1)
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(Some(text(unknown_kind(request.key_type))))
    }

    pub(crate) fn describe_groups(
        &self,
        version: i16,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse {
        let groups = request.groups.into_iter().map(|group| {
            let described = DescribedGroup::default().with_group_id(group.clone());
            let live = self.groups.look(&group, describe);
            match live {
                Some(live) => live.with_group_id(group),
                None if self.offsets.has_group(&group) => described
                    .with_group_state(text(Phase::Empty.name()))
                    .with_protocol_type(text(CONSUMERS)),
                None if version >= NOT_FOUND_VERSION_MIN => described
                    .with_group_state(text("Dead"))
                    .with_error_code(ResponseError::GroupIdNotFound.code())
                    .with_error_message(Some(text(format!(
                        "there is no group {}",
                        group.as_str()
                    )))),
                None => described.with_group_state(text("Dead")),
            }
        });
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }

    pub(crate) fn list_groups(&self, request: &ListGroupsRequest) -> ListGroupsResponse {
        let mut groups: BTreeMap<String, (String, &'static str)> = BTreeMap::new();
        for group in self.offsets.group_names() {
            groups.insert(group, (CONSUMERS.to_owned(), Phase::Empty.name()));
        }
        let live = self.groups.look_at_all(|name, state| {
            (name.to_owned(), (state.protocol_type().to_owned(), state.phase().name()))
        });
        groups.extend(live);
        let passes = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|it| it.eq_ignore_ascii_case(value))
        };
        let shown = groups.into_iter().filter(|(_, (_, state))| {
            passes(&request.states_filter, state) && passes(&request.types_filter, GROUP_TYPE)
        });
        let listed = shown.map(|(name, (protocol_type, state))| {
            ListedGroup::default()
                .with_group_id(GroupId(text(name)))
                .with_protocol_type(text(protocol_type))
                .with_group_state(text(state))
                .with_group_type(text(GROUP_TYPE))
        });
        ListGroupsResponse::default().with_groups(listed.collect())
    }

    pub(crate) async fn delete_groups(&self, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group in request.groups_names {
            let code = match self.check_delete(&group) {
                Err(error) => error.code(),
                Ok(()) => {
                    let keys = self.offsets.keys(&group);
                    let tombstones = keys.into_iter().map(|key| (key, None)).collect();
                    match self.offsets.commit(&group, tombstones).await {
                        Ok(()) => code_of(Ok(())),
                        Err(error) => error.coordinator_code(),
                    }
                }
            };
            results
                .push(DeletableGroupResult::default().with_group_id(group).with_error_code(code));
        }
        DeleteGroupsResponse::default().with_results(results)
    }

    fn check_delete(&self, group: &str) -> Result<(), ResponseError> {
        match self.groups.look(group, GroupState::phase) {
            Some(Phase::Empty) => Ok(()),
            Some(_) => Err(ResponseError::NonEmptyGroup),
            None if self.offsets.has_group(group) => Ok(()),
            None => Err(ResponseError::GroupIdNotFound),
        }
    }
}

fn unknown_kind(kind: i8) -> String {
    format!("there are no coordinators of kind {kind}")
}

fn describe(state: &GroupState) -> DescribedGroup {
    let is_stable = state.phase() == Phase::Stable;
    // Before a generation is complete members have nothing to show, as in Kafka.
    let protocol = if is_stable { state.protocol() } else { None };
    let members = state.members().map(|member| describe_member(member, protocol));
    DescribedGroup::default()
        .with_group_state(text(state.phase().name()))
        .with_protocol_type(text(state.protocol_type()))
        .with_protocol_data(text(protocol.unwrap_or_default()))
        .with_members(members.collect())
}

fn describe_member(member: &Member, protocol: Option<&str>) -> DescribedGroupMember {
    let metadata = protocol.and_then(|protocol| member.metadata(protocol));
    let assignment = protocol.map_or_else(Bytes::new, |_| member.assignment.clone());
    DescribedGroupMember::default()
        .with_member_id(text(member.id.clone()))
        .with_group_instance_id(member.instance_id.clone().map(text))
        .with_client_id(text(member.client_id.clone()))
        .with_client_host(text(member.client_host.clone()))
        .with_member_metadata(metadata.cloned().unwrap_or_default())
        .with_member_assignment(assignment)
}
