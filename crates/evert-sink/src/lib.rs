//! Sinks: the rows of a relation or view, kept equal in another system.
//!
//! Owns: what each target is told, and that it is told once: the position is stored there with
//! the rows.
//! Not here: threads, retries and states (`evert-view`, outlets), statements (`evert-sql`).
//!
//! Invariants
//! - What a target holds is the rows at the position that it holds, whatever was killed when.
//! - A target that another log has written, or that is ahead of this one, is left alone.

mod cells;
mod changeset;
mod kafka;
mod options;
mod postgres;
mod redis;
mod sink;
mod sinks;
mod target;

pub use sinks::Sinks;
