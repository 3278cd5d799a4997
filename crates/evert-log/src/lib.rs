//! One durable, totally ordered log of facts.
//!
//! Three parts: the *journal* makes commits durable, the *order* says which facts came when, the
//! *segments* hold the facts by partition. The journal is the front of the other two: they are
//! written behind it, and at a checkpoint they are synced and the journal before it is recycled.
//!
//! Owns: topics, offsets, positions, log time, producers, recovery, replay.
//! Not here: what records mean, consumer groups, views, sockets. Files, clock and randomness are
//! reached through [`evert_env::Env`] only.
//!
//! Invariants
//! - What is acknowledged is synced, but on topics that chose `evert.durability=buffered`.
//! - What can be read is synced, on every topic.
//! - A position, and an offset of a partition, never changes what it names once it can be read.

mod append;
mod behind;
mod checkpoint;
mod clock;
mod config;
mod core;
mod entry;
mod error;
mod inner;
mod journal;
mod large;
mod log;
mod order;
mod producer;
mod read;
mod receipt;
mod recovery;
mod replay;
mod segment;
mod settings;
#[cfg(test)]
mod tests;
mod topic;

pub use append::{NewCommit, NewPart};
pub use config::{LogConfig, Planted, Threads};
pub use error::{AppendError, OpenError, ReadError, TopicError};
pub use large::LargeCommit;
pub use log::Log;
pub use read::{Fetched, PartitionEnds};
pub use receipt::{Appended, Receipt};
pub use replay::{Commit, CommitBody, CommitPart, Replay};
pub use settings::ConfigEntry;
pub use topic::{NewTopic, Topic};

/// One machine has one leader: its epoch never changes.
const LEADER_EPOCH: i32 = 0;

/// Identity of a log, made at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub uuid::Uuid);
