//! Where checkpoints are kept and how often; and the faults that tests plant in their writing.

use std::path::PathBuf;
use std::time::Duration;

/// A checkpoint of so many changes is written as tables of its own: the journal, whose entries a
/// start replays one by one, stays short.
const TABLE_CHANGES: usize = 50_000;

/// Where checkpoints are kept, and how often they are taken.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    /// A directory of its own; all in it can be deleted while no server runs.
    pub dir: PathBuf,
    /// The least time between two. It grows when taking one is expensive.
    pub every: Duration,
    /// Faults planted on purpose, to show that the tests catch them. Nothing but tests sets them.
    #[doc(hidden)]
    pub planted: PlantedCheckpointFaults,
}

/// Faults in the writing of checkpoints.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct PlantedCheckpointFaults {
    /// The position is written before the state.
    pub position_first: bool,
    /// After so many writes nothing more is written, as if the process had been killed.
    pub stop_after_writes: Option<u64>,
    /// A checkpoint of so many changes, instead of the usual many, is written as tables.
    pub table_changes: Option<usize>,
}

impl CheckpointConfig {
    /// In `dir`, no more often than `every`.
    pub fn new(dir: PathBuf, every: Duration) -> Self {
        Self { dir, every, planted: PlantedCheckpointFaults::default() }
    }

    pub(super) fn writes_position_first(&self) -> bool {
        self.planted.position_first
    }

    pub(super) fn stops_after(&self, writes: u64) -> bool {
        self.planted.stop_after_writes.is_some_and(|stop| writes >= stop)
    }

    pub(super) fn table_changes(&self) -> usize {
        self.planted.table_changes.unwrap_or(TABLE_CHANGES)
    }
}
