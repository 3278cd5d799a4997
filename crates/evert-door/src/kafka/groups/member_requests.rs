//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::super::broker::{Broker, Peer, millis, raised, text};
use super::state::{Answer, Identity, Input, Join, JoinRefused, Joined, Sync, Synced, Ticket};

/// From these versions on: a leader's rebalance timeout, ids that must be known (KIP-394),
/// protocol types, and a leader that may skip its assignment (KIP-814).
const REBALANCE_TIMEOUT_VERSION_MIN: i16 = 1;
const KNOWN_ID_VERSION_MIN: i16 = 4;
const PROTOCOL_TYPE_VERSION_MIN: i16 = 7;
const SKIP_ASSIGNMENT_VERSION_MIN: i16 = 9;

/// LeaveGroup names several members from this version on.
const LEAVE_MANY_VERSION_MIN: i16 = 3;

/// The longest group id that the records of committed offsets can hold.
const GROUP_ID_BYTES_MAX: usize = i16::MAX as usize;

impl Broker {
    pub(crate) async fn join_group(
        &self,
        version: i16,
        request: JoinGroupRequest,
        peer: &Peer,
    ) -> JoinGroupResponse {
        let group = request.group_id.to_string();
        let told_id = request.member_id.clone();
        let joined = match self.check_join(&request) {
            Err(error) => Err(JoinRefused { error, member_id: told_id.to_string() }),
            Ok(()) => {
                let join = |ticket| Input::Join(join_of(ticket, version, request, peer));
                let asked = self.groups.ask(&group, true, join);
                match unless_leaving(peer, asked).await {
                    Some(Answer::Join(joined)) => joined,
                    _ => Err(JoinRefused {
                        error: ResponseError::CoordinatorNotAvailable,
                        member_id: told_id.to_string(),
                    }),
                }
            }
        };
        match joined {
            Ok(joined) => join_response(version, joined),
            Err(refused) => JoinGroupResponse::default()
                .with_error_code(refused.error.code())
                .with_generation_id(-1)
                // Versions before 7 have no null here.
                .with_protocol_name((version < PROTOCOL_TYPE_VERSION_MIN).then(StrBytes::default))
                .with_member_id(text(refused.member_id)),
        }
    }

    fn check_join(&self, request: &JoinGroupRequest) -> Result<(), ResponseError> {
        check_group_id(&request.group_id)?;
        let session = millis(request.session_timeout_ms);
        if session < self.config.session_timeout_min || session > self.config.session_timeout_max {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        Ok(())
    }

    pub(crate) async fn sync_group(
        &self,
        request: SyncGroupRequest,
        peer: &Peer,
    ) -> SyncGroupResponse {
        let group = request.group_id.to_string();
        let sync = |ticket| Input::Sync(sync_of(ticket, request));
        let asked = self.groups.ask(&group, false, sync);
        let synced = match unless_leaving(peer, asked).await {
            Some(Answer::Sync(synced)) => synced,
            _ if *peer.leaving.borrow() => Err(ResponseError::CoordinatorNotAvailable),
            _ => Err(ResponseError::UnknownMemberId),
        };
        match synced {
            Ok(Synced { protocol_type, protocol, assignment }) => SyncGroupResponse::default()
                .with_protocol_type(Some(text(protocol_type)))
                .with_protocol_name(Some(text(protocol)))
                .with_assignment(assignment),
            Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
        }
    }

    pub(crate) async fn heartbeat(&self, request: HeartbeatRequest) -> HeartbeatResponse {
        let identity = identity(&request.member_id, request.group_instance_id.as_ref());
        let generation = request.generation_id;
        let beat = |ticket| Input::Heartbeat { ticket, identity, generation };
        let alive = match self.groups.ask(&request.group_id, false, beat).await {
            Some(Answer::Heartbeat(alive)) => alive,
            _ => Err(ResponseError::UnknownMemberId),
        };
        HeartbeatResponse::default().with_error_code(code_of(alive))
    }

    pub(crate) async fn leave_group(
        &self,
        version: i16,
        request: LeaveGroupRequest,
    ) -> LeaveGroupResponse {
        let leavers: Vec<Identity> = if version < LEAVE_MANY_VERSION_MIN {
            vec![identity(&request.member_id, None)]
        } else {
            let named = request.members.iter();
            named.map(|it| identity(&it.member_id, it.group_instance_id.as_ref())).collect()
        };
        let members = leavers.clone();
        let leave = |ticket| Input::Leave { ticket, members };
        let left = match self.groups.ask(&request.group_id, false, leave).await {
            Some(Answer::Leave(left)) => left,
            _ => vec![Err(ResponseError::UnknownMemberId); leavers.len()],
        };
        if version < LEAVE_MANY_VERSION_MIN {
            let code = left.into_iter().next().map_or(0, code_of);
            return LeaveGroupResponse::default().with_error_code(code);
        }
        let members = leavers.into_iter().zip(left).map(|(leaver, left)| {
            MemberResponse::default()
                .with_member_id(text(leaver.member_id))
                .with_group_instance_id(leaver.instance_id.map(text))
                .with_error_code(code_of(left))
        });
        LeaveGroupResponse::default().with_members(members.collect())
    }
}

/// Waits for a group's answer, but not while the server stops or when the client is gone.
async fn unless_leaving(
    peer: &Peer,
    asked: impl Future<Output = Option<Answer>>,
) -> Option<Answer> {
    let mut leaving = peer.leaving.clone();
    tokio::select! {
        biased;
        answer = asked => answer,
        () = raised(&mut leaving) => None,
    }
}

/// Whether a name can be a group's.
pub(crate) fn check_group_id(group: &str) -> Result<(), ResponseError> {
    match group.len() {
        1..=GROUP_ID_BYTES_MAX => Ok(()),
        _ => Err(ResponseError::InvalidGroupId),
    }
}

pub(crate) fn identity(member_id: &StrBytes, instance_id: Option<&StrBytes>) -> Identity {
    Identity { member_id: member_id.to_string(), instance_id: instance_id.map(StrBytes::to_string) }
}

pub(crate) fn code_of(result: Result<(), ResponseError>) -> i16 {
    result.err().map_or(0, |error| error.code())
}

fn join_of(ticket: Ticket, version: i16, request: JoinGroupRequest, peer: &Peer) -> Join {
    let session_timeout = millis(request.session_timeout_ms);
    let identity = identity(&request.member_id, request.group_instance_id.as_ref());
    let stem = identity.instance_id.as_deref().unwrap_or(&peer.client_id);
    Join {
        ticket,
        fresh_id: format!("{stem}-{}", Uuid::new_v4()),
        client_id: peer.client_id.to_string(),
        client_host: format!("/{}", peer.address),
        session_timeout,
        rebalance_timeout: match version {
            ..REBALANCE_TIMEOUT_VERSION_MIN => session_timeout,
            _ => millis(request.rebalance_timeout_ms),
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name.to_string(), own(&protocol.metadata)))
            .collect(),
        must_know_id: version >= KNOWN_ID_VERSION_MIN && identity.instance_id.is_none(),
        can_skip_assignment: version >= SKIP_ASSIGNMENT_VERSION_MIN,
        identity,
    }
}

fn sync_of(ticket: Ticket, request: SyncGroupRequest) -> Sync {
    Sync {
        ticket,
        identity: identity(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(|it| it.to_string()),
        protocol: request.protocol_name.map(|it| it.to_string()),
        assignments: request
            .assignments
            .into_iter()
            .map(|it| (it.member_id.to_string(), own(&it.assignment)))
            .collect(),
    }
}

/// A copy that does not hold on to the buffer of a whole connection.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn join_response(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(
            (version >= PROTOCOL_TYPE_VERSION_MIN).then(|| text(joined.protocol_type)),
        )
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(members.collect())
}
