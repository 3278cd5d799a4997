//! Facts in from Postgres: the tables of a running database as relations that stay true.
//!
//! Owns: sources. A source copies its tables once, from the snapshot that its replication slot
//! starts at, and then takes every transaction as it commits, as one commit of the log.
//! Not here: what relations and views make of the facts (`evert-view`).
//!
//! Invariants
//! - The log itself says how far a source has come, in the commit that brought it there: after a
//!   crash of either side nothing is lost and nothing is repeated.
//! - The source is told to forget only what is durable here.
//! - Passwords are stored in the catalog, and neither logged nor shown.

mod address;
mod copy;
mod copy_text;
mod decode;
mod definition;
mod destination;
mod envelope;
mod error;
mod inspect;
mod large;
mod overlay;
mod progress;
mod row;
mod slot;
mod sources;
mod state_row;
mod status;
mod stream;
mod trouble;
mod types;
mod worker;

#[cfg(test)]
mod tests;

pub use error::{LinkError, Refusal, SourceError};
pub use sources::{NewSource, Sources};
pub use status::{SourcePhase, SourceStatus};
