//! Archives: Iceberg tables folded from the log.
//!
//! Owns: tables of a relation's facts, written once and for good, and how far each goes.
//! Not here: which records are facts (`evert-view`), reading them in SQL (`evert-sql`), the REST
//! catalog's sockets (`evert-door`).
//!
//! Invariants
//! - A snapshot's rows are exactly the relation's facts up to the position that it states.
//! - What was committed stays; only files are merged, never rows.

mod archives;
mod commit;
mod compact;
mod datafile;
mod days;
mod error;
mod follow;
mod location;
mod manifest;
mod mark;
mod options;
mod schema;
mod store;
mod table;
mod verify;
mod writer;

pub use archives::{ArchiveFile, ArchiveTable, Archives};
pub use error::ArchiveError;
