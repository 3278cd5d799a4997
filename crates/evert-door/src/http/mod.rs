//! The HTTP door: is the server alive, is it ready, how far is it; and rows for who speaks HTTP.
//!
//! Owns: `/healthz`, `/readyz`, `/metrics`, `/api/topics`, `/api/views`, the rows and the changes
//! of a view, `/api/sql` and `/`.
//! Not here: what a statement means. That is the SQL door's session, behind its trait.
//!
//! Invariants
//! - Every answer carries `Evert-Position`: what it shows is at or after that position, and at or
//!   after `Evert-After` if the request has it.
//! - Every error is JSON: `{"error": "..."}`.
//! - No answer waits for the log or for a view but that of rows, changes and statements, unless it
//!   is asked to.

mod after;
mod api;
mod changes;
mod door;
mod lake;
mod metrics;
mod observed;
pub(crate) mod process;
mod query;
mod rows;
mod search;
mod sql;
#[cfg(test)]
mod tests;

pub use door::HttpDoor;
pub use observed::{
    Lake, LakeTable, NoLakeTable, Observed, PartitionFacts, ReachError, TopicFacts, topics_of,
};
pub use search::{Search, SearchAnswer, SearchCall, SearchOperation};
