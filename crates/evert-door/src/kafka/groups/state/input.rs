//! What members ask of their group.

use std::time::Duration;

use bytes::Bytes;

/// The number of a request, by which its answer finds it.
pub(crate) type Ticket = u64;

/// Who a member says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The id that the group gave it, or nothing.
    pub(crate) member_id: String,
    /// Its `group.instance.id`, if it is a static member.
    pub(crate) instance_id: Option<String>,
}

/// One request.
#[derive(Debug)]
pub(crate) enum Input {
    Join(Join),
    Sync(Sync),
    Heartbeat { ticket: Ticket, identity: Identity, generation: i32 },
    Leave { ticket: Ticket, members: Vec<Identity> },
}

/// A member wants to be in the next generation.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) ticket: Ticket,
    pub(crate) identity: Identity,
    /// An id that nobody has, for a member without one.
    pub(crate) fresh_id: String,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    /// Assignment protocols and the member's metadata for each, the preferred one first.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// A new member must come back with the id it is given (KIP-394).
    pub(crate) must_know_id: bool,
    /// A leader that came back understands that it need not assign (KIP-814).
    pub(crate) can_skip_assignment: bool,
}

/// A member wants its assignment, and the leader brings everyone's.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) ticket: Ticket,
    pub(crate) identity: Identity,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: Vec<(String, Bytes)>,
}
