//! What of a cohort is kept in checkpoints.

use std::collections::{BTreeSet, HashMap};

use evert_fold::StateError;
use evert_model::{LogTime, Offset, Position, TopicId};

use super::Cohort;
use crate::checkpoint::{Entries, Kept, Mark};
use crate::errors::Errors;
use crate::live_view::LiveView;
use crate::sources::{SourceState, SourceStates};
use crate::{Name, STATE_FORMAT};

impl Cohort {
    /// Nothing yet, but as of `position`, and noting changes.
    pub(crate) fn at(position: Position, log_time: LogTime, sources: SourceStates) -> Self {
        let mut cohort = Self::empty(sources);
        (cohort.position, cohort.log_time) = (position, log_time);
        cohort.errors.track();
        cohort
    }

    /// From now on every member notes what changes; nothing has been folded yet.
    pub(crate) fn track(&mut self) {
        self.errors.track();
        self.relations.iter_mut().for_each(crate::relation::RelationInput::track);
        self.views.iter_mut().for_each(LiveView::track);
    }

    /// Everything that has state to keep; failed views have none.
    pub(crate) fn members(&mut self) -> Vec<&mut dyn Kept> {
        let mut members: Vec<&mut dyn Kept> = vec![&mut self.errors];
        members.extend(self.relations.iter_mut().map(|input| input as &mut dyn Kept));
        let views = self.views.iter_mut().filter(|view| view.failure().is_none());
        members.extend(views.map(|view| view as &mut dyn Kept));
        members
    }

    pub(crate) fn sources(&self) -> &SourceStates {
        &self.sources
    }

    pub(crate) fn set_sources(&mut self, states: &[(SourceState, u64)]) {
        self.sources.set(states);
    }

    pub(crate) fn set_next_offsets(&mut self, offsets: HashMap<TopicId, Vec<Offset>>) {
        self.next_offsets = offsets;
    }

    /// Drops the errors of relations and views that are not among `names`.
    pub(crate) fn keep_errors_of(&mut self, names: &BTreeSet<Name>) {
        self.errors.retain(|name| names.iter().any(|kept| kept.to_string() == name));
    }
}

impl Kept for Errors {
    fn label(&self) -> String {
        "errors".to_owned()
    }

    fn definition(&self) -> String {
        STATE_FORMAT.to_string()
    }

    fn mark(&mut self) -> Option<&mut Mark> {
        self.mark.as_mut()
    }

    fn save(&mut self, entries: &mut Entries) {
        self.rows.save(entries);
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.rows.load(key, value)
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        self.rows.loaded()
    }
}
