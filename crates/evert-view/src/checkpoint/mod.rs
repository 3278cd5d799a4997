//! Checkpoints: what the live cohort knows, kept on disk by difference, so that a start replays
//! the rest only.
//!
//! Owns: what is kept and under which names, when, and how a cohort is made of it again.
//! Not here: how operators and rows turn into entries (`evert-fold`).
//!
//! Invariants
//! - What is kept is a cache: all of it can be deleted, and comes back by replay.
//! - A checkpoint appears whole: the position and the state at that position in one batch.
//! - What cannot be used is left out, by name; what reads it comes back by replay with it.

mod config;
mod entries;
mod manifest;
mod moments;
mod policy;
mod restore;
mod store;
mod writer;

use evert_fold::StateError;

pub use config::{CheckpointConfig, PlantedCheckpointFaults};
pub(crate) use entries::Entries;
use manifest::Manifest;
pub(crate) use moments::Moments;
pub(crate) use policy::Checkpoints;
pub(crate) use restore::{Restored, restore};
pub(crate) use store::{Store, StoreError};

/// A relation, a view or the errors, as something that is kept.
pub(crate) trait Kept {
    /// Its kind and name: what a start finds it by.
    fn label(&self) -> String;

    /// All that its state depends on but the facts: what differs here is not used.
    fn definition(&self) -> String;

    /// Which entries are its own; `None` if it cannot be kept.
    fn mark(&mut self) -> Option<&mut Mark>;

    /// Gives what has changed since the last call.
    fn save(&mut self, entries: &mut Entries);

    /// Takes one entry of what was saved.
    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError>;

    /// Every entry has been taken.
    fn loaded(&mut self) -> Result<(), StateError>;
}

/// Whose entries are whose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    /// Under which number its entries are; 0: none are yet.
    pub(crate) number: u32,
    /// The checkpoint at which they last changed.
    pub(crate) changed_at: u64,
    /// It has a key longer than the store takes.
    pub(crate) too_long: bool,
}

/// What a checkpoint writes.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) manifest: Manifest,
    pub(crate) members: Vec<FrozenMember>,
}

impl Frozen {
    /// Changes of entries.
    fn changes(&self) -> usize {
        self.members.iter().map(|member| member.entries.len()).sum()
    }

    /// Bytes of their keys and values.
    fn bytes(&self) -> usize {
        self.members.iter().map(|member| member.entries.bytes()).sum()
    }
}

/// What has changed in a member.
#[derive(Debug)]
pub(crate) struct FrozenMember {
    pub(crate) number: u32,
    /// Given at its first checkpoint.
    pub(crate) definition: Option<String>,
    pub(crate) entries: Entries,
}
