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
        self.is_current(cut, at_least)
            && !shared.has_stopped()
            && !cut.failed.contains_key(name)
            && !shared.is_replacing(std::slice::from_ref(name))
    }

    /// Whether a published cut is at or after a position, and after the last start.
    pub fn is_current(&self, cut: &Cut, at_least: Position) -> bool {
        cut.position >= at_least.max(self.shared().floor)
    }

    /// The rows that a table, bag or view has published last, wherever it folds: for readers who
    /// do not ask at which position.
    pub fn published(&self, name: &Name) -> Option<Snapshot> {
        let shared = self.shared();
        let live = shared.cut().snapshots.get(name).cloned();
        live.or_else(|| shared.lane_of(name)?.cut()?.snapshots.get(name).cloned())
    }
}
