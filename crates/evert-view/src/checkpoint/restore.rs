//! A cohort made of a checkpoint, and what has to be replayed beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use evert_fold::Plan;

use super::Kept;
use super::moments::Moment;
use crate::Name;
use crate::catalog::{Catalog, Relation, ViewDef};
use crate::cohort::{Cohort, planned};
use crate::live_view::LiveView;
use crate::planner::Planner;
use crate::relation::RelationInput;
use crate::sources::SourceStates;

/// What a start begins with.
pub(crate) struct Restored {
    /// At the checkpoint's position.
    pub(crate) cohort: Cohort,
    /// What is in it.
    pub(crate) names: Vec<Name>,
    /// Of how many entries it was made.
    pub(crate) entries: usize,
    /// Not in the checkpoint: these come back by replay.
    pub(crate) relations: Vec<Arc<Relation>>,
    /// Not in the checkpoint, or reading what is not.
    pub(crate) views: Vec<(Arc<ViewDef>, Plan)>,
}

/// Makes the cohort of a checkpoint. `None` if nothing of it is of use: then the log is replayed
/// from its beginning.
pub(crate) fn restore(
    moment: &Moment,
    catalog: &Catalog,
    planner: &dyn Planner,
    sources: SourceStates,
) -> Option<Restored> {
    let manifest = moment.manifest();
    let mut cohort = Cohort::at(manifest.position(), manifest.log_time(), sources);
    cohort.set_sources(&manifest.sources);
    cohort.set_next_offsets(manifest.offsets().collect());
    let mut from = From { moment, entries: 0 };
    if !cohort.members().into_iter().all(|errors| from.load(errors)) {
        return None;
    }
    let mut here = BTreeSet::new();
    let (relations, views) = (Vec::new(), Vec::new());
    let mut restored = Restored { cohort, names: Vec::new(), entries: 0, relations, views };
    for relation in catalog.relations.values() {
        let mut input = RelationInput::new(Arc::clone(relation));
        input.track();
        if from.load(&mut input) {
            here.insert(relation.name.clone());
            restored.cohort.add_relation(input);
        } else {
            restored.relations.push(Arc::clone(relation));
        }
    }
    for def in catalog.views_in_order() {
        from.load_view(&def, catalog, planner, &mut here, &mut restored);
    }
    restored.cohort.keep_errors_of(&here);
    restored.entries = from.entries;
    restored.names = here.into_iter().collect();
    (!restored.names.is_empty()).then_some(restored)
}

struct From<'a> {
    moment: &'a Moment,
    entries: usize,
}

impl From<'_> {
    fn load_view(
        &mut self,
        def: &Arc<ViewDef>,
        catalog: &Catalog,
        planner: &dyn Planner,
        here: &mut BTreeSet<Name>,
        restored: &mut Restored,
    ) {
        let view = planned(def, catalog, planner).and_then(|plan| {
            let view = LiveView::new(Arc::clone(def), plan.clone());
            view.map(|view| (view, plan)).map_err(|error| error.to_string())
        });
        let (mut view, plan) = match view {
            Ok(view) => view,
            Err(why) => {
                return restored.cohort.add_view(LiveView::broken(Arc::clone(def), &why));
            }
        };
        view.track();
        let inputs_are_here = def.inputs.iter().all(|input| here.contains(input));
        if inputs_are_here && self.load(&mut view) {
            here.insert(def.name.clone());
            restored.cohort.add_view(view);
        } else {
            restored.views.push((Arc::clone(def), plan));
        }
    }

    /// Whether the member is as the checkpoint has it.
    fn load(&mut self, member: &mut dyn Kept) -> bool {
        let count = self.moment.load(member);
        self.entries += count.unwrap_or_default();
        count.is_some()
    }
}
