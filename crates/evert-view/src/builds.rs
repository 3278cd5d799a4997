//! Builds: views made beside those whose place they are to take.
//!
//! Owns: starting them, giving them up, the swap; views that pause and go on.
//! Not here: what is built and when it counts (`lifecycle`).
//!
//! Invariants
//! - A build is seen by nobody before its swap, and from then on by everybody.
//! - A build whose inputs are no longer all live starts again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use evert_fold::{Plan, Snapshot};
use evert_model::Position;

use crate::Name;
use crate::catalog::{Catalog, ViewDef};
use crate::cohort::{Cohort, Cut, planned};
use crate::face::Face;
use crate::follower::Follower;
use crate::group::Group;
use crate::lane::{Lane, Purpose, spawn, spawn_behind};
use crate::live_view::LiveView;
use crate::sources::SourceStates;

/// What a build is made of.
pub(crate) enum Material {
    /// Plans, over what their inputs hold now.
    Plans(Vec<(Arc<ViewDef>, Plan)>),
    /// The views and all that they read, before the log's first commit.
    Log(Box<Cohort>),
}

/// What a build has come to.
#[derive(Debug)]
pub(crate) enum News {
    /// It has caught up.
    Ready,
    Failed(String),
    /// One of its inputs is not live, or not any more: start again.
    Restart,
}

/// A build as it is asked for.
pub(crate) struct BuildOrder {
    pub(crate) face: Arc<Face>,
    pub(crate) names: BTreeSet<Name>,
    pub(crate) material: Material,
    pub(crate) news: Sender<News>,
}

/// A build under way.
pub(crate) struct Build {
    pub(crate) face: Arc<Face>,
    inputs: BTreeSet<Name>,
    names: BTreeSet<Name>,
    news: Sender<News>,
}

/// What a build's views are at a cut.
pub(crate) struct Marked {
    pub(crate) cut: Arc<Cut>,
    pub(crate) snapshots: HashMap<Name, Snapshot>,
    pub(crate) failed: HashMap<Name, Arc<str>>,
}

impl Build {
    /// Tells that it ended. Whoever asked may be gone.
    fn end(&self, news: News) {
        drop(self.news.send(news));
        self.face.close();
    }
}

impl Follower {
    pub(crate) fn start_build(&mut self, order: BuildOrder) {
        let BuildOrder { face, names, material, news } = order;
        let inputs = face.tap.inputs();
        let is_live = |name: &Name| self.cohort.contains(name) || *name == crate::errors::name();
        if !inputs.iter().all(is_live) {
            drop(news.send(News::Restart));
            return;
        }
        let views = match &material {
            Material::Log(_) => Ok(Vec::new()),
            Material::Plans(plans) => self.views_of(plans),
        };
        let views = match views {
            Ok(views) => views,
            Err(why) => return drop(news.send(News::Failed(why))),
        };
        let now = self.shared.cut();
        let group = Group::new(views);
        let mut lane =
            Lane::new(Arc::clone(&face), group, Purpose::Replace, &self.shared, &self.reply);
        lane.tell(news.clone());
        self.lanes.push(Arc::clone(&face));
        self.builds.push(Build { face, inputs, names: names.clone(), news });
        let first = names.first().cloned().unwrap_or_else(|| Name::public("build"));
        match material {
            Material::Plans(_) => spawn_behind(&first, move || lane.load_and_run(&now)),
            Material::Log(cohort) => {
                spawn_behind(&first, move || lane.replay_and_run(*cohort, &names, now.position));
            }
        }
    }

    fn views_of(&self, plans: &[(Arc<ViewDef>, Plan)]) -> Result<Vec<LiveView>, String> {
        let view = |(def, plan): &(Arc<ViewDef>, Plan)| {
            let mut view = LiveView::new(Arc::clone(def), plan.clone())
                .map_err(|error| format!("\"{}\": {error}", def.name))?;
            if self.checkpoints.is_some() {
                view.track();
            }
            Ok(view)
        };
        plans.iter().map(view).collect()
    }

    /// Starts the builds again that read any of `names`: they leave the live cohort.
    pub(crate) fn restart_builds_over(&mut self, names: &BTreeSet<Name>) {
        self.end_builds(|build| build.inputs.is_disjoint(names), || News::Restart);
    }

    /// Gives the builds up that make or read `name`: it is dropped.
    pub(crate) fn end_builds_of(&mut self, name: &Name) {
        let why = format!("\"{name}\" was dropped meanwhile");
        let spared = |build: &Build| !build.names.contains(name) && !build.inputs.contains(name);
        self.end_builds(spared, || News::Failed(why.clone()));
    }

    /// The build is not wanted any more.
    pub(crate) fn abandon(&mut self, face: &Arc<Face>) {
        self.end_builds(|build| !Arc::ptr_eq(&build.face, face), || News::Restart);
    }

    fn end_builds(&mut self, spared: impl Fn(&Build) -> bool, news: impl Fn() -> News) {
        let (stay, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.builds).into_iter().partition(spared);
        self.builds = stay;
        for build in gone {
            build.end(news());
            self.lanes.retain(|face| !Arc::ptr_eq(face, &build.face));
        }
    }

    /// Puts a build in the place of the views of its names. If it had to be given up, the views
    /// are made anew, and readers wait for them.
    pub(crate) fn swap(&mut self, face: &Arc<Face>, anew: Vec<(Arc<ViewDef>, Plan)>) {
        let index = self.builds.iter().position(|build| Arc::ptr_eq(&build.face, face));
        let build = index.map(|index| self.builds.swap_remove(index));
        let names = match &build {
            Some(build) => build.names.clone(),
            None => anew.iter().map(|(def, _)| def.name.clone()).collect(),
        };
        // What was read of the old ones is nothing to go on from.
        self.restart_builds_over(&names);
        for name in &names {
            self.let_go_for_good(name);
        }
        self.shared.history.forget(&names);
        match build {
            Some(build) => {
                self.shared.set_lane(names, &build.face);
                let serve = Box::new(|lane: &mut Lane| lane.serve());
                build.face.tap.errand(&self.shared.cut(), serve);
            }
            None => self.waiting.extend(anew),
        }
        self.members_changed();
        self.publish();
        self.start_waiting();
    }

    /// Tells what a build's views are at the cut that was published last.
    pub(crate) fn mark(&mut self, face: &Arc<Face>, reply: Sender<Marked>) {
        let cut = self.shared.cut();
        let here = Arc::clone(&cut);
        let tell = move |lane: &mut Lane| {
            let (snapshots, failed) = (lane.group.snapshots(), lane.group.failed());
            drop(reply.send(Marked { cut: here, snapshots, failed }));
        };
        face.tap.errand(&cut, Box::new(tell));
    }

    /// Stops a view, and what reads it, where it is. Gives the position.
    pub(crate) fn pause(&mut self, name: &Name) -> Position {
        let now = self.shared.cut();
        let catalog = self.shared.catalog();
        if let Some(face) = self.shared.lane_of(name).filter(|face| face.tap.is_paused()) {
            let pauser = catalog.pauser_of(name).and_then(|pauser| catalog.paused.get(pauser));
            let position = face.tap.paused_at().map(|cut| cut.position);
            return position.or(pauser.copied()).unwrap_or(now.position);
        }
        let mut names: BTreeSet<Name> = catalog.dependents(name).into_iter().collect();
        names.insert(name.clone());
        // What is paused already stays where it is.
        names.retain(|name| !self.is_paused(name));
        self.restart_builds_over(&names);
        let is_on_its_way =
            |name: &Name| self.shared.lane_of(name).is_some_and(|face| face.tap.is_on_its_way());
        if self.waiting.iter().any(|(def, _)| names.contains(&def.name))
            || names.iter().any(is_on_its_way)
        {
            // What has not begun, or is not here yet, has no rows to rest with.
            names.iter().for_each(|name| self.let_go(name));
            self.members_leave(&names);
            self.rest(&catalog, names, now.position);
            self.publish();
            return now.position;
        }
        let views = self.cohort.take_views(&names);
        self.members_leave(&names);
        self.set_apart(names, views, &now, Some(&now));
        self.publish();
        now.position
    }

    /// Moves views into a lane of their own: `views` from here, the others from their lanes.
    /// With `rest` they stand still there.
    fn set_apart(
        &mut self,
        names: BTreeSet<Name>,
        views: Vec<LiveView>,
        now: &Arc<Cut>,
        rest: Option<&Arc<Cut>>,
    ) {
        let own = now.of_views(&names);
        let face = Face::new(BTreeSet::new(), Some(Arc::new(own)));
        let adopt = move |lane: &mut Lane| lane.group.adopt(views);
        face.tap.errand(now, Box::new(adopt));
        let mut left: Vec<Arc<Face>> = Vec::new();
        for other in names.iter().filter_map(|name| self.shared.lane_of(name)) {
            if !left.iter().any(|face| Arc::ptr_eq(face, &other)) {
                left.push(other);
            }
        }
        let first = names.first().cloned().unwrap_or_else(|| Name::public("lane"));
        self.shared.set_lane(names.clone(), &face);
        for other in left {
            let (views, handed_over) = channel();
            let released = names.clone();
            let is_empty = self.shared.members_of(&other).is_empty();
            let release = move |lane: &mut Lane| {
                drop(views.send(lane.hand_over(&released)));
                if is_empty {
                    lane.face.close();
                }
            };
            other.tap.errand(now, Box::new(release));
            other.tap.set_inputs(self.inputs_of(&other));
            face.tap.errand(now, Box::new(move |lane| lane.adopt_from(&handed_over)));
            if is_empty {
                self.lanes.retain(|face| !Arc::ptr_eq(face, &other));
            }
        }
        face.tap.set_inputs(self.inputs_of(&face));
        if let Some(rest) = rest {
            face.tap.pause(rest);
            face.wake();
        }
        self.lanes.push(Arc::clone(&face));
        let group = Group::new(Vec::new());
        let mut lane = Lane::new(face, group, Purpose::Serve, &self.shared, &self.reply);
        lane.stand_at(now);
        spawn(&first, move || lane.run());
    }

    /// Whether a view stands still in a lane, or will when the lane arrives.
    pub(crate) fn is_paused(&self, name: &Name) -> bool {
        self.shared.lane_of(name).is_some_and(|face| face.tap.is_paused())
    }

    /// Lets a view go on that is paused no longer, and those that it has kept where they are.
    pub(crate) fn resume(&mut self, name: &Name) {
        let catalog = self.shared.catalog();
        let paused = catalog.paused_closure();
        let mut going = vec![name.clone()];
        going.extend(catalog.dependents(name));
        going.retain(|name| !paused.contains(name));
        let mut faces: Vec<Arc<Face>> = Vec::new();
        for face in going.iter().filter_map(|name| self.shared.lane_of(name)) {
            if face.tap.is_paused() && !faces.iter().any(|other| Arc::ptr_eq(other, &face)) {
                faces.push(face);
            }
        }
        for face in &faces {
            let mut stay = self.shared.members_of(face);
            stay.retain(|name| paused.contains(name));
            self.leave_resting(&catalog, face, stay);
        }
        // First those that read live ones only: the others join their lanes.
        let (go_on, begin_again): (Vec<_>, Vec<_>) =
            faces.into_iter().partition(|face| self.can_go_on(face));
        let now = self.shared.cut();
        go_on.iter().for_each(|face| face.tap.resume(&now));
        let members = begin_again.iter().flat_map(|face| self.shared.members_of(face));
        self.begin_again(&catalog, &members.collect());
        // Some may have been waiting for another one.
        self.start_waiting();
    }

    /// Parts those of a paused lane's views from it that stay where they are.
    fn leave_resting(&mut self, catalog: &Catalog, face: &Arc<Face>, stay: BTreeSet<Name>) {
        if stay.is_empty() {
            return;
        }
        match face.tap.paused_at() {
            Some(paused) => self.set_apart(stay, Vec::new(), &paused, Some(&paused)),
            None => {
                // The lane is not there yet: those that stay go there in another.
                stay.iter().for_each(|name| self.let_go(name));
                self.rest_paused(catalog, &stay);
            }
        }
        face.tap.set_inputs(self.inputs_of(face));
    }

    /// Whether what a paused lane reads is known where it is paused, and now.
    fn can_go_on(&self, face: &Arc<Face>) -> bool {
        let paused = face.tap.paused_at();
        let was_known = |name: &Name| {
            // A lane on its way brings along what it reads.
            paused.as_ref().is_none_or(|cut| {
                cut.snapshots.contains_key(name) || cut.streams.contains_key(name)
            })
        };
        let inputs = self.inputs_of(face);
        inputs.iter().all(|name| {
            *name == crate::errors::name() || self.cohort.contains(name) && was_known(name)
        })
    }

    /// Folds views anew from what they read: nobody has kept what changed since they were paused.
    fn begin_again(&mut self, catalog: &Catalog, names: &BTreeSet<Name>) {
        names.iter().for_each(|name| self.let_go(name));
        for def in catalog.views_in_order().into_iter().filter(|def| names.contains(&def.name)) {
            match planned(&def, catalog, self.start.planner.as_ref()) {
                Ok(plan) => self.waiting.push((def, plan)),
                Err(why) => self.cohort.add_view(LiveView::broken(def, &why)),
            }
        }
    }

    /// Brings back those of `names` that are paused, each as of where it was paused.
    pub(crate) fn rest_paused(&mut self, catalog: &Catalog, names: &BTreeSet<Name>) {
        let mut paused: Vec<_> = catalog.paused.iter().collect();
        paused.sort_by_key(|(_, position)| **position);
        let mut left = names.clone();
        for (name, position) in paused {
            let dependents = catalog.dependents(name).into_iter();
            let resting: BTreeSet<Name> =
                dependents.chain([name.clone()]).filter(|name| left.remove(name)).collect();
            if !resting.is_empty() {
                self.rest(catalog, resting, *position);
            }
        }
    }

    /// Views as of where they are paused, by replay: after a start, or before they began.
    fn rest(&mut self, catalog: &Catalog, names: BTreeSet<Name>, position: Position) {
        let wanted: Vec<Name> = names.iter().cloned().collect();
        let sources = SourceStates::new(self.shared.sources_topic);
        let mut cohort = Cohort::of_names(catalog, &wanted, self.start.planner.as_ref(), sources);
        cohort.fold();
        let face = Face::new(BTreeSet::new(), None);
        face.tap.pause_later();
        self.shared.set_lane(names.clone(), &face);
        face.tap.set_inputs(self.inputs_of(&face));
        self.lanes.push(Arc::clone(&face));
        let group = Group::new(Vec::new());
        let lane = Lane::new(face, group, Purpose::Serve, &self.shared, &self.reply);
        let first = names.first().cloned().unwrap_or_else(|| Name::public("lane"));
        spawn_behind(&first, move || lane.replay_and_rest(cohort, &names, position));
    }
}
