//! Commands for a running server: what its views, topics and groups are, and records in and out.
//!
//! Owns: `evert view`, `topic`, `group`, `produce`, `consume`.
//! Not here: what the server does: views are asked for by SQL, the rest by Kafka's protocol.

mod broker;
mod groups;
mod records;
mod shown;
mod topics;
mod views;

pub(crate) use groups::GroupArgs;
pub(crate) use records::{ConsumeArgs, ProduceArgs};
pub(crate) use topics::TopicArgs;
pub(crate) use views::ViewArgs;

pub(crate) use groups::run as group;
pub(crate) use records::{consume, produce};
pub(crate) use topics::run as topic;
pub(crate) use views::run as view;
