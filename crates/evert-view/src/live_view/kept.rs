//! What of a view is kept in checkpoints.

use evert_fold::StateError;

use super::LiveView;
use crate::STATE_FORMAT;
use crate::checkpoint::{Entries, Kept, Mark};

/// The parts of a view's entries.
const STARTED: u8 = 0;
const DATAFLOW: u8 = 1;
const ROWS: u8 = 2;

impl LiveView {
    /// From now on changes are noted for checkpoints, if all operators can; nothing has been
    /// folded yet.
    pub(crate) fn track(&mut self) {
        if self.failed.is_none() && self.dataflow.track() {
            if !self.dataflow.knows_output() {
                self.rows.track();
            }
            self.mark = Some(Mark::default());
        }
    }

    /// What checkpoints call a view.
    pub(crate) fn label_of(name: &crate::Name) -> String {
        format!("view {name}")
    }
}

impl Kept for LiveView {
    fn label(&self) -> String {
        Self::label_of(&self.def.name)
    }

    fn definition(&self) -> String {
        self.definition.clone()
    }

    fn mark(&mut self) -> Option<&mut Mark> {
        self.mark.as_mut()
    }

    fn save(&mut self, entries: &mut Entries) {
        use evert_fold::StateSink;
        let is_new = self.mark.is_some_and(|mark| mark.number == 0);
        if is_new || self.started != self.started_saved {
            self.started_saved = self.started;
            entries.under(STARTED).put(&[], &[self.started.into()]);
        }
        self.dataflow.save(entries.under(DATAFLOW));
        // Rows that the state tells are not kept twice.
        if !self.dataflow.knows_output() {
            self.rows.save(entries.under(ROWS));
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match key.split_first() {
            Some((&STARTED, _)) => {
                self.started = value == [1];
                self.started_saved = self.started;
                Ok(())
            }
            Some((&DATAFLOW, key)) => self.dataflow.load(key, value),
            Some((&ROWS, key)) => self.rows.load(key, value),
            _ => Err(StateError("an entry is of no part of a view".into())),
        }
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        self.dataflow.loaded()?;
        if let Some(rows) = self.dataflow.published() {
            self.rows.apply(&rows);
        }
        self.rows.loaded()
    }
}

/// What a view's state depends on.
pub(super) fn definition(def: &crate::ViewDef, plan: &evert_fold::Plan) -> String {
    let schema = serde_json::to_string(&def.schema).expect("a schema is plain data");
    format!("{STATE_FORMAT}\n{}\n{schema}\n{:?}\n{plan:?}", def.sql, def.inputs)
}
