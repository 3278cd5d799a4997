//! A group: views that fold together, each after those it reads, outside the live cohort.
//!
//! Owns: the order of their fold, the errors they meet.
//! Not here: where their inputs come from (`hydrate`, `lane`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use evert_fold::Snapshot;
use evert_model::LogTime;

use crate::Name;
use crate::cohort::{Memory, TickDeltas};
use crate::errors::Errors;
use crate::live_view::{Folded, LiveView};

/// Views with their state.
pub(crate) struct Group {
    pub(crate) views: Vec<LiveView>,
    pub(crate) errors: Errors,
    /// What views have folded of the tick that comes next.
    begun: HashMap<Name, Folded>,
}

impl Group {
    pub(crate) fn new(views: Vec<LiveView>) -> Self {
        Self { views, errors: Errors::new(), begun: HashMap::new() }
    }

    /// The relations and views that it reads from outside.
    pub(crate) fn inputs(&self) -> BTreeSet<Name> {
        let own: BTreeSet<&Name> = self.views.iter().map(|view| &view.def.name).collect();
        let inputs = self.views.iter().flat_map(|view| &view.def.inputs);
        inputs.filter(|input| !own.contains(input)).cloned().collect()
    }

    /// Folds one tick; `failed` names the views outside that have stopped.
    pub(crate) fn fold(
        &mut self,
        now: LogTime,
        mut tick: TickDeltas,
        failed: &HashMap<Name, Arc<str>>,
    ) -> TickDeltas {
        for index in 0..self.views.len() {
            self.check_inputs(index, failed);
            let view = &mut self.views[index];
            let name = view.def.name.clone();
            let folded = match self.begun.remove(&name) {
                Some(folded) => folded,
                None => view.fold(now, &view.inputs_of(&tick)),
            };
            folded.errors.iter().for_each(|error| self.errors.row(&name, error));
            if !folded.changes.is_empty() {
                tick.insert(name, folded.changes);
            }
        }
        tick
    }

    fn check_inputs(&mut self, index: usize, failed: &HashMap<Name, Arc<str>>) {
        let view = &self.views[index];
        if view.failure().is_some() {
            return;
        }
        let has_failed = |input: &&Name| {
            let before = self.views[..index].iter().find(|view| view.def.name == **input);
            failed.contains_key(*input) || before.is_some_and(|view| view.failure().is_some())
        };
        if let Some(input) = view.def.inputs.iter().find(has_failed) {
            let why = format!("it reads \"{input}\", which failed");
            self.views[index].fail(why.into());
        }
    }

    /// Takes views in: each goes before the first that reads it.
    pub(crate) fn adopt(&mut self, views: Vec<LiveView>) {
        for view in views {
            let reads = |other: &LiveView| other.def.inputs.contains(&view.def.name);
            let place = self.views.iter().position(reads).unwrap_or(self.views.len());
            self.views.insert(place, view);
        }
    }

    /// Takes in a view that has folded the tick that comes next.
    pub(crate) fn adopt_begun(&mut self, view: LiveView, folded: Folded) {
        self.begun.insert(view.def.name.clone(), folded);
        self.adopt(vec![view]);
    }

    /// Whether one of them has folded the tick that comes next.
    pub(crate) fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// The log time at which one of them changes without new facts.
    pub(crate) fn due(&self) -> Option<LogTime> {
        self.views.iter().filter_map(LiveView::due).min()
    }

    /// Takes in what views have folded of the tick that comes next.
    pub(crate) fn begin(&mut self, begun: HashMap<Name, Folded>) {
        self.begun.extend(begun);
    }

    /// What the views of these names have folded of the tick that comes next.
    pub(crate) fn take_begun(&mut self, names: &BTreeSet<Name>) -> HashMap<Name, Folded> {
        self.begun.extract_if(|name, _| names.contains(name)).collect()
    }

    /// Lets the views of these names go, and what they have begun.
    pub(crate) fn take(&mut self, names: &BTreeSet<Name>) -> Vec<LiveView> {
        drop(self.take_begun(names));
        let views = std::mem::take(&mut self.views);
        let (gone, stay) = views.into_iter().partition(|view| names.contains(&view.def.name));
        self.views = stay;
        gone
    }

    /// The rows of those that have not failed.
    pub(crate) fn snapshots(&self) -> HashMap<Name, Snapshot> {
        let sound = self.views.iter().filter(|view| view.failure().is_none());
        sound.map(|view| (view.def.name.clone(), view.snapshot())).collect()
    }

    /// Those that have failed, and why.
    pub(crate) fn failed(&self) -> HashMap<Name, Arc<str>> {
        let failed = self.views.iter().filter_map(|view| Some((view, view.failure()?)));
        failed.map(|(view, why)| (view.def.name.clone(), Arc::clone(why))).collect()
    }

    pub(crate) fn memory(&self) -> Memory {
        let each = self.views.iter();
        each.map(|view| (view.def.name.clone(), view.state())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_views_have_begun_goes_where_they_go() {
        let [a, b, c] = ["a", "b", "c"].map(Name::public);
        let begun = |name: &Name| HashMap::from([(name.clone(), Folded::default())]);
        let mut group = Group::new(Vec::new());
        group.begin(begun(&a));
        group.begin(begun(&b));
        group.begin(begun(&c));
        let taken = group.take_begun(&BTreeSet::from([a.clone(), b.clone()]));
        assert!(taken.contains_key(&a) && taken.contains_key(&b));
        assert!(group.has_begun());
        drop(group.take(&BTreeSet::from([c])));
        assert!(!group.has_begun(), "what is dropped has begun nothing");
    }
}
