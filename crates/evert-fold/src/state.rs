//! State that outlives the process: what an operator knows, as a map of byte strings.
//!
//! Owns: how operators hand out what has changed since the last checkpoint, and take it back.
//! Not here: where it is kept and when (`evert-view`).
//!
//! Invariants
//! - The entries of all checkpoints so far, the newest value of each key, are the whole state.
//! - An operator that has loaded them goes on as the one that saved them would have.

pub(crate) mod entry;

use thiserror::Error;

use crate::plan::NodeId;

/// Where an operator's changed entries go.
pub trait StateSink {
    /// The key has this value now.
    fn put(&mut self, key: &[u8], value: &[u8]);
    /// The key is gone.
    fn delete(&mut self, key: &[u8]);
}

/// Why saved state cannot be used: it is discarded, and the view comes back by replay.
#[derive(Debug, Error)]
#[error("saved state cannot be read: {0}")]
pub struct StateError(pub String);

/// What an operator holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorState {
    /// Its node in the plan.
    pub node: NodeId,
    /// What it is: `join`, `reduce`, ...
    pub operator: &'static str,
    /// Rows, or groups.
    pub rows: usize,
    /// Bytes of memory.
    pub bytes: usize,
}

/// How an operator's state is kept beyond the process.
pub(crate) enum Keeping<'a> {
    /// It has none.
    Nothing,
    /// As entries.
    Entries(&'a mut dyn Stateful),
}

/// An operator whose state can be saved. Entries are small (a group, a row), so that a
/// checkpoint costs what has changed.
pub(crate) trait Stateful {
    /// From now on, changes are noted for [`Stateful::save`]. Not called: none are, and nothing
    /// is paid for it.
    fn track(&mut self);

    /// Gives every entry that has changed since the last call, or since `track`. Of several changes
    /// of one entry the last counts.
    fn save(&mut self, sink: &mut dyn StateSink);

    /// Takes one saved entry; each key comes once, before the first tick, most often in
    /// ascending order.
    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError>;

    /// Every entry has been given to [`Stateful::load`].
    fn loaded(&mut self) -> Result<(), StateError> {
        Ok(())
    }
}
