//! Where checkpoints are kept and how often; and the faults that tests plant in their writing.

use std::path::PathBuf;
use std::time::Duration;

/// Changes of a newcomer in one batch.
const BATCH_CHANGES: usize = 20_000;

/// Where checkpoints are kept, and how often they are taken.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    /// A directory of its own; all in it can be deleted while no server runs.
    pub dir: PathBuf,
    /// The least time between two. It grows when taking one is expensive.
    pub every: Duration,
    /// Faults planted on purpose, to show that the tests catch them.
    #[cfg(feature = "planted-faults")]
    pub planted: PlantedCheckpointFaults,
}

/// Faults in the writing of checkpoints.
#[cfg(feature = "planted-faults")]
#[derive(Clone, Debug, Default)]
pub struct PlantedCheckpointFaults {
    /// The position is written before the state.
    pub position_first: bool,
    /// After so many batches nothing more is written, as if the process had been killed.
    pub stop_after_batches: Option<u64>,
    /// Changes of a newcomer in one batch, instead of the usual many.
    pub batch_changes: Option<usize>,
}

impl CheckpointConfig {
    /// In `dir`, no more often than `every`.
    pub fn new(dir: PathBuf, every: Duration) -> Self {
        Self {
            dir,
            every,
            #[cfg(feature = "planted-faults")]
            planted: PlantedCheckpointFaults::default(),
        }
    }

    pub(super) fn writes_position_first(&self) -> bool {
        #[cfg(feature = "planted-faults")]
        return self.planted.position_first;
        #[cfg(not(feature = "planted-faults"))]
        false
    }

    pub(super) fn stops_after(&self, batches: u64) -> bool {
        #[cfg(feature = "planted-faults")]
        return self.planted.stop_after_batches.is_some_and(|stop| batches >= stop);
        #[cfg(not(feature = "planted-faults"))]
        {
            let _ = batches;
            false
        }
    }

    pub(super) fn batch_changes(&self) -> usize {
        #[cfg(feature = "planted-faults")]
        return self.planted.batch_changes.unwrap_or(BATCH_CHANGES);
        #[cfg(not(feature = "planted-faults"))]
        BATCH_CHANGES
    }
}
