//! Consumer groups: members who share a topic's partitions, and the offsets they commit.
//!
//! Owns: the classic group protocol, committed offsets and their topic.
//! Not here: which member reads what, which the members decide among themselves.
//!
//! `state` is the machine, `coordinator` drives it, `requests` speaks Kafka; `offsets` keeps what
//! is committed in the topic `__consumer_offsets`, whose records `offset_record` reads and
//! writes.

mod coordinator;
mod member_requests;
mod offset_record;
mod offset_requests;
mod offsets;
mod requests;
mod state;

pub(crate) use coordinator::Coordinator;
pub(crate) use offsets::{OFFSETS_PARTITIONS, Offsets, RestoreError};
