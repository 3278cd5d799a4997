//! The HTTP door: is the server alive, is it ready, how far is it.
//!
//! Owns: `/healthz`, `/readyz`, `/metrics`, `/api/topics`, `/api/views`, the changes of a view and `/`.
//! Not here: facts and queries; they go by the Kafka door and the SQL door.
//!
//! Invariants
//! - Every answer carries `Evert-Position`: what it shows is at or after that position.
//! - Every error is JSON: `{"error": "..."}`.
//! - No answer but that of changes waits for the log or for a view.

mod api;
mod changes;
mod door;
mod lake;
mod metrics;
mod observed;
pub(crate) mod process;
mod search;
#[cfg(test)]
mod tests;

pub use door::HttpDoor;
pub use observed::{Lake, LakeTable, Observed, PartitionFacts, TopicFacts, topics_of};
pub use search::{Search, SearchAnswer, SearchCall, SearchOperation};
