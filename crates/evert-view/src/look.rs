//! Looks: reads that do not wait.
//!
//! Owns: whether what has been published answers a reader of single rows.
//! Not here: waiting for what has not (`pin`).

use evert_fold::Snapshot;
use evert_model::Position;

use crate::cohort::Cut;
use crate::{Name, Views};

impl Views {
    /// Whether a published cut may be read by itself, as [`Views::pin`] would give it. Takes no
    /// lock while no view is being replaced.
    pub fn may_read(&self, cut: &Cut, name: &Name, at_least: Position) -> bool {
        let shared = self.shared();
        cut.position >= at_least.max(shared.floor)
            && !shared.has_stopped()
            && !cut.failed.contains_key(name)
            && !shared.is_replacing(std::slice::from_ref(name))
    }

    /// The rows that a table, bag or view has published last, wherever it folds: for readers who
    /// do not ask at which position.
    pub fn published(&self, name: &Name) -> Option<Snapshot> {
        let shared = self.shared();
        let live = shared.cut().snapshots.get(name).cloned();
        live.or_else(|| shared.lane_of(name)?.cut()?.snapshots.get(name).cloned())
    }
}
