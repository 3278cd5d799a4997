//! What a group tells its members.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::Ticket;

/// An answer and the request it belongs to.
#[derive(Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) ticket: Ticket,
    pub(crate) answer: Answer,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Join(Result<Joined, JoinRefused>),
    Sync(Result<Synced, ResponseError>),
    Heartbeat(Result<(), ResponseError>),
    /// One result for each member that was to leave.
    Leave(Vec<Result<(), ResponseError>>),
}

/// A member is part of a generation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    pub(crate) skip_assignment: bool,
    /// Everyone, for the leader; nobody, for the others.
    pub(crate) members: Vec<JoinedMember>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) metadata: Bytes,
}

#[derive(Debug, PartialEq)]
pub(crate) struct JoinRefused {
    pub(crate) error: ResponseError,
    /// The id to come back with, where the error is that there was none.
    pub(crate) member_id: String,
}

/// A member's share.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) assignment: Bytes,
}
