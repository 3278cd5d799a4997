//! A member of a group.

use std::time::Duration;

use bytes::Bytes;

use super::{Join, Now, Ticket};

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// Assignment protocols and the metadata for each, the preferred one first.
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    /// When its silence has lasted too long.
    pub(crate) expires: Now,
    /// The join that waits for the next generation.
    pub(crate) awaits_join: Option<Ticket>,
    /// The sync that waits for the leader's assignments.
    pub(crate) awaits_sync: Option<Ticket>,
}

impl Member {
    /// A member whose join waits.
    pub(crate) fn new(id: String, join: Join, now: Now) -> Self {
        Self {
            id,
            instance_id: join.identity.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            expires: now + join.session_timeout,
            awaits_join: Some(join.ticket),
            awaits_sync: None,
        }
    }

    /// Takes what a member says when it joins again. Gives the join that waited before, if one
    /// did.
    pub(crate) fn update(&mut self, join: Join, now: Now) -> Option<Ticket> {
        self.client_id = join.client_id;
        self.client_host = join.client_host;
        self.session_timeout = join.session_timeout;
        self.rebalance_timeout = join.rebalance_timeout;
        self.protocols = join.protocols;
        self.expires = now + self.session_timeout;
        self.awaits_join.replace(join.ticket)
    }

    /// Whether one of its requests waits for an answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.awaits_join.is_some() || self.awaits_sync.is_some()
    }

    /// What it says under a protocol.
    pub(crate) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata)
    }
}
