//! Who folds in the live cohort, and who apart from it.
//!
//! Owns: how relations and views come in, which view is sent away and when it comes back.
//! Not here: the ticks (`follower`), what a view does apart (`lane`).
//!
//! Invariants
//! - What reads a view in a lane is in the same lane, unless one of them is paused: so a live view's
//!   inputs are live.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use evert_fold::Plan;
use evert_log::ReadError;
use evert_model::{Delta, Position};

use crate::Name;
use crate::catalog::{Relation, ViewDef};
use crate::cohort::{Cohort, Cut};
use crate::face::Face;
use crate::follower::{Control, Follower};
use crate::group::Group;
use crate::helm::Ended;
use crate::hydrate::RelationHydration;
use crate::lane::{Lane, Purpose, spawn, spawn_behind};
use crate::live_view::LiveView;
use crate::progress::Progress;
use crate::relation::RelationInput;
use crate::sources::SourceStates;

/// A view that takes less of the time than this is no burden.
const BURDEN_SHARE: f64 = 0.2;
/// Nor is one whose folds are shorter.
const BURDEN_FOLD: Duration = Duration::from_millis(20);
/// The part of all folding that is far above one view's share.
const BURDEN_PART: f64 = 0.5;
/// A view that is sent away again stays twice as long, and so on.
const AWAY_DOUBLINGS_MAX: u32 = 7;

impl Follower {
    pub(crate) fn add_relation(
        &mut self,
        relation: Arc<Relation>,
        topic_created: Position,
    ) -> Result<(), ReadError> {
        let mut input = RelationInput::new(Arc::clone(&relation));
        if self.checkpoints.is_some() {
            input.track();
        }
        // Without records so far there is nothing to catch up with.
        if self.cohort.position() <= topic_created || self.shared.is_empty_topic(&relation) {
            self.cohort.add_relation(input);
            self.members_changed();
            self.publish();
            self.start_waiting();
            return Ok(());
        }
        let progress = self.shared.hydrating(&relation.name);
        let empty = Cohort::empty(SourceStates::new(self.shared.sources_topic));
        let mut hydration =
            Box::new(RelationHydration::new(&self.shared.log, topic_created, input, empty)?);
        let (shared, reply) = (Arc::clone(&self.shared), self.reply.clone());
        spawn_behind(&relation.name.clone(), move || {
            match hydration.catch_up(|| shared.cut().position, &progress) {
                // The follower is gone only when the server stops.
                Ok(()) => drop(reply.send(Control::RelationReady(relation, hydration, progress))),
                Err(error) => shared.stop(Some(error.to_string())),
            }
        });
        Ok(())
    }

    pub(crate) fn join_relation(
        &mut self,
        relation: Arc<Relation>,
        mut hydration: RelationHydration,
        progress: &Progress,
    ) -> Result<(), ReadError> {
        hydration.advance(self.cohort.position(), progress)?;
        hydration.join(&mut self.cohort);
        self.members_changed();
        self.shared.hydrated(&relation.name);
        self.publish();
        self.start_waiting();
        Ok(())
    }

    /// Starts the views whose inputs are all there.
    pub(crate) fn start_waiting(&mut self) {
        loop {
            let ready = self.waiting.iter().position(|(def, _)| self.can_start(def));
            let Some(index) = ready else { return };
            let (def, plan) = self.waiting.remove(index);
            self.start_view(def, plan);
        }
    }

    fn can_start(&self, def: &ViewDef) -> bool {
        def.inputs.iter().all(|input| match self.shared.lane_of(input) {
            // A paused view says nothing of the present.
            Some(face) => !face.tap.is_paused(),
            None => self.cohort.contains(input),
        })
    }

    fn start_view(&mut self, def: Arc<ViewDef>, plan: Plan) {
        let view = match LiveView::new(Arc::clone(&def), plan) {
            Ok(mut view) => {
                if self.checkpoints.is_some() {
                    view.track();
                }
                view
            }
            Err(error) => {
                let why = error.to_string();
                tracing::error!(view = %def.name, %why, "view failed");
                self.cohort.add_view(LiveView::broken(def, &why));
                self.publish();
                return;
            }
        };
        let now = self.shared.cut();
        let company: BTreeSet<Name> = def.inputs.iter().cloned().collect();
        if let Some(face) = self.one_lane_of(&company, &now) {
            self.shared.set_lane([def.name.clone()], &face);
            let start = Arc::clone(&now);
            face.tap.errand(&now, Box::new(move |lane| lane.adopt_new(view, &start)));
            face.tap.set_inputs(self.inputs_of(&face));
            return;
        }
        let group = Group::new(vec![view]);
        let face = Face::new(group.inputs(), None);
        self.lanes.push(Arc::clone(&face));
        self.shared.set_lane([def.name.clone()], &face);
        let lane = Lane::new(face, group, Purpose::Serve, &self.shared, &self.reply);
        spawn_behind(&def.name, move || lane.load_and_run(&now));
    }

    /// The lane that any of `names` are in. Lanes that have to fold together become one.
    fn one_lane_of(&mut self, names: &BTreeSet<Name>, now: &Arc<Cut>) -> Option<Arc<Face>> {
        let mut faces: Vec<Arc<Face>> = Vec::new();
        for face in names.iter().filter_map(|name| self.shared.lane_of(name)) {
            if !faces.iter().any(|other| Arc::ptr_eq(other, &face)) {
                faces.push(face);
            }
        }
        let (first, others) = faces.split_first()?;
        for other in others {
            let names = self.shared.members_of(other);
            let (views, handed_over) = channel();
            let released = names.clone();
            let release = move |lane: &mut Lane| {
                // The other lane is gone if its views were dropped meanwhile.
                drop(views.send(lane.hand_over(&released)));
                lane.face.close();
            };
            other.tap.errand(now, Box::new(release));
            first.tap.errand(now, Box::new(move |lane| lane.adopt_from(&handed_over)));
            self.shared.set_lane(names, first);
            self.lanes.retain(|face| !Arc::ptr_eq(face, other));
        }
        first.tap.set_inputs(self.inputs_of(first));
        Some(Arc::clone(first))
    }

    /// What a lane's views read from outside.
    pub(crate) fn inputs_of(&self, face: &Arc<Face>) -> BTreeSet<Name> {
        let catalog = self.shared.catalog();
        let members = self.shared.members_of(face);
        let inputs = members.iter().filter_map(|name| catalog.views.get(name));
        let inputs = inputs.flat_map(|def| &def.inputs);
        inputs.filter(|input| !members.contains(input)).cloned().collect()
    }

    /// A lane has caught up: its views join.
    pub(crate) fn join_lane(&mut self, mut lane: Box<Lane>) {
        let face = Arc::clone(&lane.face);
        if face.tap.is_closed() {
            return;
        }
        if !lane.drain() || lane.cut().position != self.cohort.position() {
            let name = lane.group.views.first().map(|view| view.def.name.clone());
            return spawn(&name.unwrap_or_else(|| Name::public("lane")), move || lane.run());
        }
        let Group { views, mut errors, .. } = lane.group;
        if let Some(errors) = errors.take_all() {
            self.cohort.add_errors(errors);
        }
        for view in views {
            if self.shared.is_current_view(&view.def) {
                self.cohort.add_view(view);
            }
        }
        self.members_changed();
        self.publish();
        let members = self.shared.members_of(&face);
        self.shared.leave_lane(&members);
        self.close(&face);
        self.start_waiting();
    }

    fn close(&mut self, face: &Arc<Face>) {
        self.lanes.retain(|other| !Arc::ptr_eq(other, face));
        face.close();
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        self.shared.cancel(name);
        self.end_builds_of(name);
        self.let_go_for_good(name);
        self.sent_away.remove(name);
        self.cohort.remove(name);
        self.members_changed();
        self.publish();
    }

    /// Lets go of a view that is dropped or replaced: nor do paused lanes keep rows of it.
    pub(crate) fn let_go_for_good(&mut self, name: &Name) {
        self.let_go(name);
        self.lanes.iter().for_each(|face| face.tap.forget(name));
    }

    /// Lets go of a view, wherever it is, and of its errors.
    pub(crate) fn let_go(&mut self, name: &Name) {
        self.waiting.retain(|(def, _)| def.name != *name);
        let gone = BTreeSet::from([name.clone()]);
        drop(self.cohort.take_views(&gone));
        self.member_is_gone(name);
        self.cohort.forget_errors(name);
        let Some(face) = self.shared.lane_of(name) else { return };
        self.shared.leave_lane(&gone);
        if self.shared.members_of(&face).is_empty() {
            return self.close(&face);
        }
        let release = move |lane: &mut Lane| drop(lane.release(&gone));
        face.tap.errand(&self.shared.cut(), Box::new(release));
        face.tap.set_inputs(self.inputs_of(&face));
    }

    /// Takes in what a lane's views could not evaluate, unless they were dropped meanwhile.
    pub(crate) fn add_errors(&mut self, face: &Arc<Face>, errors: Vec<Delta>) {
        let members = self.shared.members_of(face);
        let members: BTreeSet<String> = members.iter().map(ToString::to_string).collect();
        self.cohort.add_errors_of(&members, errors);
        self.publish();
    }

    /// Notes what a live view's fold cost.
    pub(crate) fn note_cost(&mut self, view: &mut LiveView, cost: Duration) {
        let Some(stretch) = view.pace.spent(cost) else { return };
        let burden = stretch.share >= BURDEN_SHARE && stretch.mean >= BURDEN_FOLD;
        let above = stretch.share >= self.share() * BURDEN_PART;
        // While everything is replayed nobody waits for anybody's freshness.
        if burden && above && self.cohort.position() > self.shared.floor {
            self.slow.push(view.def.name.clone());
        }
    }

    /// Sends the views away that take far more than their share.
    pub(crate) fn send_slow_away(&mut self) {
        for name in std::mem::take(&mut self.slow) {
            if self.cohort.contains(&name) {
                tracing::info!(view = %name, "view takes far more than its share: it goes on apart");
                self.detach(&name, None);
                self.publish();
            }
        }
    }

    /// A view is still folding the tick that is on its way: the others go on without it.
    pub(crate) fn lose(&mut self, view: &ViewDef, ended: Receiver<Ended>) {
        let unwanted = std::mem::take(&mut self.unwanted);
        self.detach(&view.name, Some(ended));
        if let Some(face) = self.shared.lane_of(&view.name) {
            // The view has folded this tick and no other: its lane must see it apart.
            face.tap.want(self.cohort.position());
            // Nobody waits for the fold if the view is dropped meanwhile.
            face.folds_elsewhere(unwanted);
        }
    }

    /// Moves a view and what reads it into a lane, as of the cut that was published last.
    fn detach(&mut self, name: &Name, begun: Option<Receiver<Ended>>) {
        let now = self.shared.cut();
        let mut names: BTreeSet<Name> =
            self.shared.catalog().dependents(name).into_iter().collect();
        names.insert(name.clone());
        // What is paused stays where it is.
        names.retain(|name| !self.is_paused(name));
        self.restart_builds_over(&names);
        let views = self.cohort.take_views(&names);
        self.members_leave(&names);
        let stay = self.next_stay(name);
        let adopt = move |lane: &mut Lane| {
            lane.group.adopt(views);
            if let Some(ended) = begun {
                lane.adopt_begun(&ended);
            }
            lane.stay_for(stay);
        };
        if let Some(face) = self.one_lane_of(&names, &now) {
            self.shared.set_lane(names, &face);
            face.tap.errand(&now, Box::new(adopt));
            face.tap.set_inputs(self.inputs_of(&face));
            return;
        }
        let own = now.of_views(&names);
        let face = Face::new(BTreeSet::new(), Some(Arc::new(own)));
        self.lanes.push(Arc::clone(&face));
        self.shared.set_lane(names, &face);
        face.tap.set_inputs(self.inputs_of(&face));
        face.tap.errand(&now, Box::new(adopt));
        let group = Group::new(Vec::new());
        let mut lane = Lane::new(face, group, Purpose::Serve, &self.shared, &self.reply);
        lane.stand_at(&now);
        lane.stay_for(stay);
        spawn(name, move || lane.run());
    }

    fn next_stay(&mut self, name: &Name) -> Duration {
        let times = self.sent_away.entry(name.clone()).or_default();
        let away_min = self.start.config.isolation.away_min;
        let stay = away_min * 2_u32.pow((*times).min(AWAY_DOUBLINGS_MAX));
        *times += 1;
        stay
    }
}
