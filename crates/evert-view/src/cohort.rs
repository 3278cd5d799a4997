//! A cohort: relations and views that fold the same log together and publish one cut.
//!
//! Owns: which record goes to which relation, the order in which views are folded, and what a
//! cut holds.
//! Not here: threads, waiting, the catalog's durability (`follower`, `views`).
//!
//! Invariants
//! - What a cohort holds after commits up to P depends on its members and the log up to P alone,
//!   not on how `push` and `fold` alternate.
//! - A cut is made between commits, never inside one.

mod kept;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use evert_fold::{OperatorState, Plan, Snapshot};
use evert_log::{Commit, CommitBody, CommitPart};
use evert_model::{Delta, LogTime, Offset, Position, TopicId};

use crate::catalog::{Catalog, PlanError, Relation, ViewDef, ViewOptions};
use crate::errors::Errors;
use crate::live_view::{Folded, LiveView};
use crate::planner::{PlannedView, Planner};
use crate::relation::RelationInput;
use crate::sources::SourceStates;
use crate::{Name, errors};

/// A consistent snapshot over all relations and views of a cohort.
#[derive(Clone)]
pub struct Cut {
    /// Every commit up to here is in it, none after.
    pub position: Position,
    /// The log's time at that position.
    pub log_time: LogTime,
    /// Tables, bags, views and `evert.errors`.
    pub snapshots: HashMap<Name, Snapshot>,
    /// Streams: each partition's next offset.
    pub streams: HashMap<Name, Vec<Offset>>,
    /// Views that stopped, and why.
    pub failed: HashMap<Name, Arc<str>>,
    pub(crate) sources: SourceStates,
    /// Records folded, by topic.
    pub(crate) done: Arc<HashMap<TopicId, i64>>,
}

impl Cut {
    /// The views of these names alone, as they are here.
    pub(crate) fn of_views(&self, names: &BTreeSet<Name>) -> Self {
        let mut own = self.clone();
        own.snapshots.retain(|name, _| names.contains(name));
        own.failed.retain(|name, _| names.contains(name));
        own.streams.clear();
        own
    }
}

/// The changes of one tick, by relation or view.
pub(crate) type TickDeltas = HashMap<Name, Vec<Delta>>;

/// What relations and views hold in memory, operator by operator.
pub(crate) type Memory = HashMap<Name, Vec<OperatorState>>;

/// A fold on its way through the views.
pub(crate) struct Folding {
    deltas: TickDeltas,
    /// The view that is next.
    next: usize,
}

/// A view taken out of its cohort, to fold one tick.
pub(crate) struct Job {
    pub(crate) view: LiveView,
    inputs: Vec<Vec<Delta>>,
    now: LogTime,
}

impl Job {
    pub(crate) fn run(&mut self) -> Folded {
        self.view.fold(self.now, &self.inputs)
    }
}

/// Relations and views with their state.
pub(crate) struct Cohort {
    relations: Vec<RelationInput>,
    by_topic: HashMap<TopicId, Vec<usize>>,
    /// Each after those it reads.
    views: Vec<LiveView>,
    errors: Errors,
    sources: SourceStates,
    /// The next offset of each partition that had records.
    next_offsets: HashMap<TopicId, Vec<Offset>>,
    position: Position,
    log_time: LogTime,
    pending_bytes: usize,
}

impl Cohort {
    pub(crate) fn empty(sources: SourceStates) -> Self {
        Self {
            relations: Vec::new(),
            by_topic: HashMap::new(),
            views: Vec::new(),
            errors: Errors::new(),
            sources,
            next_offsets: HashMap::new(),
            position: Position::ZERO,
            log_time: LogTime::default(),
            pending_bytes: 0,
        }
    }

    /// Everything in the catalog, before the log's first commit. A view that can no longer be
    /// planned is there as failed.
    pub(crate) fn of_catalog(
        catalog: &Catalog,
        planner: &dyn Planner,
        sources: SourceStates,
    ) -> Self {
        let mut cohort = Self::empty(sources);
        for relation in catalog.relations.values() {
            cohort.add_relation(RelationInput::new(Arc::clone(relation)));
        }
        for def in catalog.views_in_order() {
            match planned(&def, catalog, planner) {
                Ok(plan) => match LiveView::new(Arc::clone(&def), plan) {
                    Ok(view) => cohort.views.push(view),
                    Err(error) => cohort.views.push(LiveView::broken(def, &error.to_string())),
                },
                Err(why) => cohort.views.push(LiveView::broken(def, &why)),
            }
        }
        cohort
    }

    /// `names` and all they read, before the log's first commit.
    pub(crate) fn of_names(
        catalog: &Catalog,
        names: &[Name],
        planner: &dyn Planner,
        sources: SourceStates,
    ) -> Self {
        Self::of_catalog(&catalog.part(names), planner, sources)
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The log time at which a view changes without new facts: the next moment at which a time
    /// tick is wanted.
    pub(crate) fn due(&self) -> Option<LogTime> {
        self.views.iter().filter_map(LiveView::due).min()
    }

    /// The log time at [`Cohort::position`].
    pub(crate) fn log_time(&self) -> LogTime {
        self.log_time
    }

    /// Bytes of records read and not yet folded.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    pub(crate) fn into_relations(self) -> Vec<RelationInput> {
        self.relations
    }

    pub(crate) fn add_relation(&mut self, input: RelationInput) {
        let index = self.relations.len();
        self.by_topic.entry(input.relation.topic_id).or_default().push(index);
        self.relations.push(input);
    }

    /// Puts a relation with more columns in the place of the one of its name, if it is here.
    pub(crate) fn replace_relation(&mut self, input: RelationInput) {
        let same = |other: &&mut RelationInput| other.relation.name == input.relation.name;
        if let Some(place) = self.relations.iter_mut().find(same) {
            *place = input;
        }
    }

    pub(crate) fn add_view(&mut self, view: LiveView) {
        self.views.push(view);
    }

    /// Takes in the errors that another cohort met on the way here.
    pub(crate) fn absorb_errors(&mut self, errors: &Snapshot) {
        self.errors.absorb(errors);
    }

    /// Lets views go, each after those it reads.
    pub(crate) fn take_views(&mut self, names: &BTreeSet<Name>) -> Vec<LiveView> {
        let views = std::mem::take(&mut self.views);
        let (gone, stay) = views.into_iter().partition(|view| names.contains(&view.def.name));
        self.views = stay;
        gone
    }

    /// From now on its views note what changes, for checkpoints; nothing has been folded yet.
    pub(crate) fn track_views(&mut self) {
        self.views.iter_mut().for_each(LiveView::track);
    }

    /// Takes out the errors that were met so far.
    pub(crate) fn take_errors(&mut self) -> Vec<Delta> {
        self.errors.take_all().unwrap_or_default()
    }

    /// Takes in errors that views met elsewhere.
    pub(crate) fn add_errors(&mut self, errors: Vec<Delta>) {
        self.errors.add(errors);
        self.errors.fold();
    }

    /// Takes in the errors of the named views only.
    pub(crate) fn add_errors_of(&mut self, names: &BTreeSet<String>, errors: Vec<Delta>) {
        self.errors.add_of(names, errors);
        self.errors.fold();
    }

    /// Drops the errors of a view whose place another one takes.
    pub(crate) fn forget_errors(&mut self, name: &Name) {
        self.errors.forget(name);
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        self.views.retain(|view| view.def.name != *name);
        self.relations.retain(|input| input.relation.name != *name);
        self.by_topic.clear();
        for (index, input) in self.relations.iter().enumerate() {
            self.by_topic.entry(input.relation.topic_id).or_default().push(index);
        }
        self.errors.forget(name);
    }

    /// The relations and views in it.
    pub(crate) fn names(&self) -> BTreeSet<Name> {
        let relations = self.relations.iter().map(|input| input.relation.name.clone());
        relations.chain(self.views.iter().map(|view| view.def.name.clone())).collect()
    }

    pub(crate) fn contains(&self, name: &Name) -> bool {
        self.views.iter().any(|view| view.def.name == *name)
            || self.relations.iter().any(|input| input.relation.name == *name)
    }

    /// Reads one commit. Its rows show after the next [`Cohort::fold`].
    pub(crate) fn push(&mut self, commit: &Commit) {
        assert!(commit.position > self.position, "commits come in order");
        if let CommitBody::Data(parts) = &commit.body {
            for part in parts {
                self.push_part(part, commit.position, commit.log_time);
            }
        }
        self.position = commit.position;
        self.log_time = commit.log_time;
    }

    fn push_part(&mut self, part: &CommitPart, position: Position, log_time: LogTime) {
        let ends = self.next_offsets.entry(part.topic).or_default();
        let partition = part.partition.get() as usize;
        if ends.len() <= partition {
            ends.resize(partition + 1, Offset::default());
        }
        ends[partition] = part.batch.header().next_offset();
        self.sources.push(part, position);
        for &index in self.by_topic.get(&part.topic).map_or(&[][..], Vec::as_slice) {
            let input = &mut self.relations[index];
            let relation = Arc::clone(&input.relation);
            if relation.started_from.as_ref().is_some_and(|from| position <= from.position) {
                continue;
            }
            let errors = &mut self.errors;
            input.push(part, |bad| {
                // The stream itself tells of its records.
                if relation.started_from.is_some() {
                    return;
                }
                errors.record(&relation.name, &relation.topic, part, (position, log_time), &bad);
            });
            self.pending_bytes += part.batch.bytes().len();
        }
    }

    /// Folds what was read since the last call through every view, and gives the changes of each
    /// relation and view that had any.
    pub(crate) fn fold(&mut self) -> TickDeltas {
        let mut tick = self.begin_fold();
        while let Some(mut job) = self.next_job(&mut tick) {
            let folded = job.run();
            self.finish_job(&mut tick, job, folded);
        }
        self.end_fold(tick)
    }

    /// Folds what was read into the relations. The views are next: [`Cohort::next_job`].
    pub(crate) fn begin_fold(&mut self) -> Folding {
        self.pending_bytes = 0;
        let mut deltas = TickDeltas::new();
        for input in &mut self.relations {
            let name = input.relation.name.clone();
            let errors = &mut self.errors;
            let changes = input.fold(|error| errors.row(&name, &error));
            if !changes.is_empty() {
                deltas.insert(name, changes);
            }
        }
        Folding { deltas, next: 0 }
    }

    /// Takes the next view that has something to fold out of the cohort.
    pub(crate) fn next_job(&mut self, tick: &mut Folding) -> Option<Job> {
        while tick.next < self.views.len() {
            let index = tick.next;
            self.check_inputs(index);
            let inputs = self.views[index].inputs_of(&tick.deltas);
            if self.views[index].is_idle(self.log_time, &inputs) {
                tick.next += 1;
                continue;
            }
            let view = self.views.remove(index);
            return Some(Job { view, inputs, now: self.log_time });
        }
        None
    }

    /// Puts a view back where it was taken from, and hands on what it changed.
    pub(crate) fn finish_job(&mut self, tick: &mut Folding, job: Job, folded: Folded) {
        let name = job.view.def.name.clone();
        self.views.insert(tick.next, job.view);
        tick.next += 1;
        folded.errors.iter().for_each(|error| self.errors.row(&name, error));
        if !folded.changes.is_empty() {
            tick.deltas.insert(name, folded.changes);
        }
    }

    /// Ends a fold all of whose views are done.
    pub(crate) fn end_fold(&mut self, tick: Folding) -> TickDeltas {
        self.errors.fold();
        tick.deltas
    }

    /// A view over a failed view fails too, by name.
    fn check_inputs(&mut self, index: usize) {
        if self.views[index].failure().is_some() {
            return;
        }
        let failed_input = self.views[..index].iter().find(|input| {
            input.failure().is_some() && self.views[index].def.inputs.contains(&input.def.name)
        });
        if let Some(input) = failed_input {
            let why = format!("it reads \"{}\", which failed", input.def.name);
            self.views[index].fail(why.into());
        }
    }

    /// The rows of everything as of the last fold.
    pub(crate) fn cut(&self) -> Cut {
        let mut snapshots = HashMap::with_capacity(self.relations.len() + self.views.len() + 1);
        let mut streams = HashMap::new();
        let mut failed = HashMap::new();
        for input in &self.relations {
            let relation = &input.relation;
            match input.snapshot() {
                Some(snapshot) => drop(snapshots.insert(relation.name.clone(), snapshot)),
                None => drop(streams.insert(relation.name.clone(), self.ends_of(relation))),
            }
        }
        for view in &self.views {
            match view.failure() {
                Some(why) => drop(failed.insert(view.def.name.clone(), Arc::clone(why))),
                None => drop(snapshots.insert(view.def.name.clone(), view.snapshot())),
            }
        }
        snapshots.insert(errors::name(), self.errors.snapshot());
        Cut {
            position: self.position,
            log_time: self.log_time,
            snapshots,
            streams,
            failed,
            sources: self.sources.clone(),
            done: Arc::new(self.done()),
        }
    }

    /// The next offset of every partition that had records, by topic.
    pub(crate) fn next_offsets(&self) -> &HashMap<TopicId, Vec<Offset>> {
        &self.next_offsets
    }

    /// Records of its relations' topics that it has read.
    pub(crate) fn records(&self) -> u64 {
        let ends = self.by_topic.keys().filter_map(|topic| self.next_offsets.get(topic));
        ends.flatten().map(|end| u64::try_from(end.get()).unwrap_or(0)).sum()
    }

    /// The topics of its relations.
    pub(crate) fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.by_topic.keys().copied()
    }

    fn done(&self) -> HashMap<TopicId, i64> {
        let sum = |ends: &Vec<Offset>| ends.iter().map(|end| end.get()).sum();
        self.next_offsets.iter().map(|(topic, ends)| (*topic, sum(ends))).collect()
    }

    fn ends_of(&self, relation: &Relation) -> Vec<Offset> {
        self.next_offsets.get(&relation.topic_id).cloned().unwrap_or_default()
    }

    /// What each member holds in memory, operator by operator.
    pub(crate) fn memory(&self) -> Memory {
        let relations =
            self.relations.iter().map(|input| (input.relation.name.clone(), input.state()));
        let views = self.views.iter().map(|view| (view.def.name.clone(), view.state()));
        relations.chain(views).collect()
    }
}

/// The plan of a SELECT as a view with these options.
pub(crate) fn plan(
    sql: &str,
    options: &ViewOptions,
    catalog: &Catalog,
    planner: &dyn Planner,
) -> Result<PlannedView, PlanError> {
    let mut planned = planner.plan_view(sql, catalog)?;
    planned.inputs.iter_mut().for_each(|input| *input = options.input(catalog, input));
    Ok(planned)
}

/// The plan of a view, if it still has one that gives the columns it was created with.
pub(crate) fn planned(
    def: &ViewDef,
    catalog: &Catalog,
    planner: &dyn Planner,
) -> Result<Plan, String> {
    let planned = plan(&def.sql, &def.options, &catalog.seen_by(def), planner);
    let planned = planned.map_err(|error| error.to_string())?;
    check_unchanged(def, &planned)?;
    Ok(planned.plan)
}

/// A view whose SQL now means other columns than when it was created would lie to its readers.
fn check_unchanged(def: &ViewDef, planned: &PlannedView) -> Result<(), String> {
    if def.schema.columns == planned.schema.columns && def.inputs == planned.inputs {
        return Ok(());
    }
    Err("its definition gives other columns than when it was created: create it again".into())
}
