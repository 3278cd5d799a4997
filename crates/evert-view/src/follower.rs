//! The follower: the thread that reads the log, cuts ticks and drives the live cohort.
//!
//! Owns: when a tick is cut, how new relations and views are brought in, what is published.
//! Not here: what a tick does (`cohort`), how a newcomer catches up (`hydrate`).
//!
//! Invariants
//! - Published positions never go back.
//! - Newcomers join between two ticks, with everything up to that cut folded.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use evert_fold::Plan;
use evert_log::{Log, ReadError};
use evert_model::Position;
use tokio::sync::{mpsc, watch};

use crate::catalog::{Catalog, Relation, ViewDef};
use crate::checkpoint::{CheckpointConfig, Checkpoints, Restored, Store, StoreError, restore};
use crate::cohort::Cohort;
use crate::hydrate::{self, Progress, RelationHydration, STEP_BYTES, Tap, ViewHydration};
use crate::live_view::LiveView;
use crate::planner::Planner;
use crate::reader::Reader;
use crate::relation::RelationInput;
use crate::shared::Shared;
use crate::views::ViewsConfig;
use crate::{Name, sources::SourceStates};

/// Between two ticks lies at least this many times the cost of the last, so that the fixed costs
/// of a tick stay small under load.
const SPACING: u32 = 5;
const SPACING_MAX: Duration = Duration::from_millis(50);
/// Between two time ticks lies at least this much.
const TIME_TICK_SPACING: Duration = Duration::from_secs(1);
/// Log time is asked for at least so often while a moment is waited for: it may be slewing.
const TIME_ASKED_EVERY: Duration = Duration::from_secs(10);
/// While a checkpoint is due and the last is still being written, this long.
const CHECKPOINT_WAIT_MIN: Duration = Duration::from_millis(20);
/// How often memory is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What others ask of the follower. Each takes effect between two ticks.
pub(crate) enum Control {
    AddRelation(Arc<Relation>, Position),
    AddView(Arc<ViewDef>, Plan),
    /// The sender is dropped when it is done.
    Remove(Name, Sender<()>),
    RelationReady(Arc<Relation>, Box<RelationHydration>, Arc<Progress>),
    ViewReady(Box<ViewHydration>),
    Stop,
}

/// What the follower needs to put its cohort together.
pub(crate) struct Start {
    pub(crate) planner: Arc<dyn Planner>,
    pub(crate) config: ViewsConfig,
    /// As the views were opened: what comes later comes as [`Control`].
    pub(crate) catalog: Arc<Catalog>,
}

pub(crate) struct Follower {
    shared: Arc<Shared>,
    start: Start,
    checkpoints: Option<Checkpoints>,
    control: mpsc::UnboundedReceiver<Control>,
    /// For the threads that hydrate.
    reply: mpsc::UnboundedSender<Control>,
    cohort: Cohort,
    reader: Reader,
    end: watch::Receiver<Position>,
    taps: Vec<Arc<Tap>>,
    /// Views whose inputs have not joined yet.
    waiting: Vec<(Arc<ViewDef>, Plan)>,
    measured: Option<Instant>,
    /// Something was published since memory was measured.
    measure_due: bool,
    /// When the follower last asked for a time tick.
    time_ticked: Option<Instant>,
}

impl Follower {
    pub(crate) fn new(
        shared: Arc<Shared>,
        start: Start,
        control: mpsc::UnboundedReceiver<Control>,
        reply: mpsc::UnboundedSender<Control>,
    ) -> Result<Self, ReadError> {
        let cohort = Cohort::empty(SourceStates::new(shared.sources_topic));
        let reader = Reader::new(&shared.log, Position::ZERO)?;
        let end = shared.log.watch_end();
        let (taps, waiting) = (Vec::new(), Vec::new());
        let (measured, measure_due) = (None, false);
        Ok(Self {
            shared,
            start,
            checkpoints: None,
            control,
            reply,
            cohort,
            reader,
            end,
            taps,
            waiting,
            measured,
            measure_due,
            time_ticked: None,
        })
    }

    /// Runs until told to stop, or until the log cannot be read.
    pub(crate) fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let result = match runtime {
            Ok(runtime) => self.begin().and_then(|()| self.follow(&runtime)),
            Err(error) => Err(format!("the follower cannot start: {error}")),
        };
        // A log that has failed may not hold what the views have seen.
        if let Some(checkpoints) = self.checkpoints.take()
            && result.is_ok()
        {
            checkpoints.finish(&mut self.cohort);
        }
        if let Err(why) = result {
            tracing::error!(%why, "views stopped");
            self.shared.stop(Some(why));
        } else {
            self.shared.stop(None);
        }
    }

    /// Puts the cohort together: from the checkpoint, or before the log's first commit.
    fn begin(&mut self) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let sources = || SourceStates::new(shared.sources_topic);
        let store = self.start.config.checkpoints.as_ref().and_then(|config| {
            let fitting = fitting_store(config, &shared.log);
            fitting.inspect_err(|error| tracing::warn!(%error, "no checkpoints are kept")).ok()
        });
        let catalog = Arc::clone(&self.start.catalog);
        let planner = self.start.planner.as_ref();
        let restored =
            store.as_ref().and_then(|store| restore(store, &catalog, planner, sources()));
        let rest = match restored {
            Some(Restored { cohort, names, relations, views }) => {
                self.reader = Reader::new(&shared.log, cohort.position())
                    .map_err(|error| error.to_string())?;
                shared.set_restored(cohort.position(), names);
                self.cohort = cohort;
                (relations, views)
            }
            None => {
                self.cohort = Cohort::of_catalog(&catalog, planner, sources());
                if store.is_some() {
                    self.cohort.track();
                }
                // Aggregates without groups have a row before the first commit already.
                self.cohort.fold();
                (Vec::new(), Vec::new())
            }
        };
        if let (Some(store), Some(config)) = (store, &self.start.config.checkpoints) {
            let checkpoints = Checkpoints::new(store, shared.log.id(), config.every);
            self.checkpoints = Some(checkpoints.map_err(|error| error.to_string())?);
        }
        // Newcomers catch up to what is published.
        self.publish();
        self.add_rest(rest).map_err(|error| error.to_string())
    }

    /// Brings in what was not in the checkpoint.
    fn add_rest(
        &mut self,
        (relations, views): (Vec<Arc<Relation>>, Vec<(Arc<ViewDef>, Plan)>),
    ) -> Result<(), ReadError> {
        for relation in relations {
            let topic = self.shared.log.topic_by_id(relation.topic_id);
            let created = topic.map_or(Position::ZERO, |topic| topic.created_at);
            self.add_relation(relation, created)?;
        }
        self.waiting.extend(views);
        self.start_waiting();
        Ok(())
    }

    fn follow(&mut self, runtime: &tokio::runtime::Runtime) -> Result<(), String> {
        self.publish();
        let mut last_tick = Instant::now();
        let mut cost = Duration::ZERO;
        loop {
            while let Ok(control) = self.control.try_recv() {
                if matches!(control, Control::Stop) {
                    return Ok(());
                }
                self.obey(control).map_err(|error| error.to_string())?;
            }
            self.end.mark_unchanged();
            let caught_up = self.tick(&mut last_tick, &mut cost)?;
            self.checkpoint();
            if !caught_up {
                continue;
            }
            let due = last_tick + (cost * SPACING).min(SPACING_MAX);
            let stop = runtime.block_on(self.wait(due));
            if let Some(control) = stop {
                if matches!(control, Control::Stop) {
                    return Ok(());
                }
                self.obey(control).map_err(|error| error.to_string())?;
            }
        }
    }

    fn checkpoint(&mut self) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.take_if_due(&mut self.cohort);
        }
    }

    /// A member has joined or left.
    fn members_changed(&mut self) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.members_changed();
        }
    }

    /// Waits for something to do, and for the next tick to be due.
    async fn wait(&mut self, due: Instant) -> Option<Control> {
        let time_tick = self.next_time_tick();
        let position = self.cohort.position();
        let checkpoint = self.checkpoints.as_ref().and_then(|kept| kept.due_in(position));
        let checkpoint_in = checkpoint.unwrap_or_default().max(CHECKPOINT_WAIT_MIN);
        tokio::select! {
            control = self.control.recv() => return Some(control.unwrap_or(Control::Stop)),
            () = tokio::time::sleep(MEASURE_EVERY), if self.measure_due => {
                self.measure();
                return None;
            }
            () = sleep_until(time_tick) => {
                self.pass_time();
                return None;
            }
            () = tokio::time::sleep(checkpoint_in), if checkpoint.is_some() => return None,
            changed = self.end.changed() => {
                if changed.is_err() {
                    return Some(Control::Stop);
                }
            }
        }
        tokio::select! {
            control = self.control.recv() => Some(control.unwrap_or(Control::Stop)),
            () = tokio::time::sleep_until(due.into()) => None,
        }
    }

    /// When to look whether a time tick is wanted, if the log stays idle. `None`: no view changes
    /// by the passing of time.
    fn next_time_tick(&self) -> Option<Instant> {
        let due = self.cohort.due()?;
        let left = due.get().saturating_sub(self.shared.log.now().get()).max(0) as u64;
        let due = Instant::now() + Duration::from_micros(left).min(TIME_ASKED_EVERY);
        Some(due.max(self.time_ticked.map_or(due, |last| last + TIME_TICK_SPACING)))
    }

    /// Lets the log say what time it is, if a view has something to do at that time.
    fn pass_time(&mut self) {
        let log = &self.shared.log;
        if self.cohort.due().is_none_or(|due| due > log.now()) {
            return;
        }
        self.time_ticked = Some(Instant::now());
        // The tick comes back by the log, as every commit does.
        if let Err(error) = log.append_time_tick() {
            tracing::error!(%error, "views by time stand still");
        }
    }

    /// Reads a run of commits, folds and publishes it. Returns whether the log's end was reached.
    fn tick(&mut self, last: &mut Instant, cost: &mut Duration) -> Result<bool, String> {
        let started = Instant::now();
        let before = self.cohort.position();
        let caught_up = loop {
            let commit = self.reader.next_upto(Position::new(i64::MAX as u64));
            match commit.map_err(|error| error.to_string())? {
                None => break true,
                Some(commit) => self.cohort.push(&commit),
            }
            if self.cohort.pending_bytes() >= STEP_BYTES {
                break false;
            }
        };
        if self.cohort.position() > before {
            let tick = self.cohort.fold();
            for tap in &self.taps {
                tap.push(self.cohort.log_time(), &tick);
            }
            self.publish();
            *last = Instant::now();
            *cost = started.elapsed();
        }
        Ok(caught_up)
    }

    fn publish(&mut self) {
        self.measure_due = true;
        if self.measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            self.measure();
        }
        self.shared.set_done(self.cohort.next_offsets());
        self.shared.publish(self.cohort.cut());
    }

    fn measure(&mut self) {
        self.shared.set_memory(self.cohort.memory());
        self.measured = Some(Instant::now());
        self.measure_due = false;
    }

    fn obey(&mut self, control: Control) -> Result<(), ReadError> {
        match control {
            Control::AddRelation(relation, topic_created) => {
                self.add_relation(relation, topic_created)?;
            }
            Control::AddView(def, plan) => {
                self.waiting.push((def, plan));
                self.start_waiting();
            }
            Control::Remove(name, _done) => self.remove(&name),
            Control::RelationReady(relation, hydration, progress) => {
                if self.shared.is_current_relation(&relation) {
                    self.join_relation(relation, *hydration, &progress)?;
                }
            }
            Control::ViewReady(hydration) => self.join_view(*hydration),
            Control::Stop => {}
        }
        Ok(())
    }

    fn add_relation(
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
        spawn(&relation.name.clone(), move || {
            match hydration.catch_up(|| shared.cut().position, &progress) {
                // The follower is gone only when the server stops.
                Ok(()) => drop(reply.send(Control::RelationReady(relation, hydration, progress))),
                Err(error) => shared.stop(Some(error.to_string())),
            }
        });
        Ok(())
    }

    fn join_relation(
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

    /// Starts the views whose inputs are all live.
    fn start_waiting(&mut self) {
        let ready = |cohort: &Cohort, def: &ViewDef| def.inputs.iter().all(|i| cohort.contains(i));
        let waiting = std::mem::take(&mut self.waiting);
        let (go, stay): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(def, _)| ready(&self.cohort, def));
        self.waiting = stay;
        for (def, plan) in go {
            self.start_view(def, plan);
        }
    }

    fn start_view(&mut self, def: Arc<ViewDef>, plan: Plan) {
        let is_kept = self.checkpoints.is_some();
        let view = match LiveView::new(Arc::clone(&def), plan) {
            Ok(mut view) => {
                if is_kept {
                    view.track();
                }
                view
            }
            Err(error) => {
                let why = error.to_string();
                tracing::error!(view = %def.name, %why, "view failed");
                self.cohort.add_view(LiveView::broken(def, &why));
                return self.publish();
            }
        };
        let tap = Arc::new(Tap::new(def.inputs.clone()));
        self.taps.push(Arc::clone(&tap));
        let progress = self.shared.hydrating(&def.name);
        let start = self.cohort.cut();
        let (shared, reply) = (Arc::clone(&self.shared), self.reply.clone());
        spawn(&def.name, move || {
            let mut hydration = Box::new(ViewHydration::new(view, tap));
            let catalog = shared.catalog();
            let empty = Cohort::empty(SourceStates::new(shared.sources_topic));
            let streams = hydrate::streams_of(&catalog, &hydration.def().inputs, empty);
            if let Err(error) = hydration.load(&shared.log, &start, streams, &progress) {
                return shared.stop(Some(error.to_string()));
            }
            while !progress.is_cancelled() && !hydration.catch_up() {}
            // The follower is gone only when the server stops.
            drop(reply.send(Control::ViewReady(hydration)));
        });
    }

    fn join_view(&mut self, hydration: ViewHydration) {
        self.taps.retain(|tap| !Arc::ptr_eq(tap, hydration.tap()));
        let def = Arc::clone(hydration.def());
        if !self.shared.is_current_view(&def) {
            return;
        }
        hydration.join(&mut self.cohort);
        self.members_changed();
        self.shared.hydrated(&def.name);
        self.publish();
        self.start_waiting();
    }

    fn remove(&mut self, name: &Name) {
        self.waiting.retain(|(def, _)| def.name != *name);
        self.shared.cancel(name);
        self.cohort.remove(name);
        self.members_changed();
        self.publish();
    }
}

/// Never, without a moment.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// The store of checkpoints; what it holds is discarded if it is not of this log.
fn fitting_store(config: &CheckpointConfig, log: &Log) -> Result<Store, StoreError> {
    let store = Store::open_or_discard(config)?;
    match store.manifest().and_then(|manifest| manifest.misfit(log.id(), log.end())) {
        None => Ok(store),
        Some(why) => {
            tracing::warn!(%why, "the checkpoint is discarded");
            drop(store);
            Store::anew(config)
        }
    }
}

fn spawn(name: &Name, work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(format!("hydrate {name}"));
    if let Err(error) = thread.spawn(work) {
        tracing::error!(%name, %error, "no thread to hydrate with: restart to try again");
    }
}
