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
use evert_log::ReadError;
use evert_model::Position;
use tokio::sync::{mpsc, watch};

use crate::catalog::{Relation, ViewDef};
use crate::cohort::Cohort;
use crate::hydrate::{self, Progress, RelationHydration, STEP_BYTES, Tap, ViewHydration};
use crate::live_view::LiveView;
use crate::reader::Reader;
use crate::relation::RelationInput;
use crate::shared::Shared;
use crate::{Name, sources::SourceStates};

/// Between two ticks lies at least this many times the cost of the last, so that the fixed costs
/// of a tick stay small under load.
const SPACING: u32 = 5;
const SPACING_MAX: Duration = Duration::from_millis(50);
/// Between two time ticks lies at least this much.
const TIME_TICK_SPACING: Duration = Duration::from_secs(1);
/// Log time is asked for at least so often while a moment is waited for: it may be slewing.
const TIME_ASKED_EVERY: Duration = Duration::from_secs(10);
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

pub(crate) struct Follower {
    shared: Arc<Shared>,
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
        cohort: Cohort,
        control: mpsc::UnboundedReceiver<Control>,
        reply: mpsc::UnboundedSender<Control>,
    ) -> Result<Self, ReadError> {
        let reader = Reader::new(&shared.log, Position::ZERO)?;
        let end = shared.log.watch_end();
        let (taps, waiting) = (Vec::new(), Vec::new());
        let (measured, measure_due) = (None, false);
        Ok(Self {
            shared,
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
            Ok(runtime) => self.follow(&runtime),
            Err(error) => Err(format!("the follower cannot start: {error}")),
        };
        if let Err(why) = result {
            tracing::error!(%why, "views stopped");
            self.shared.stop(Some(why));
        } else {
            self.shared.stop(None);
        }
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

    /// Waits for something to do, and for the next tick to be due.
    async fn wait(&mut self, due: Instant) -> Option<Control> {
        let time_tick = self.next_time_tick();
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
        let input = RelationInput::new(Arc::clone(&relation));
        // Without records so far there is nothing to catch up with.
        if self.cohort.position() <= topic_created || self.shared.is_empty_topic(&relation) {
            self.cohort.add_relation(input);
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
        let view = match LiveView::new(Arc::clone(&def), plan) {
            Ok(view) => view,
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
        self.shared.hydrated(&def.name);
        self.publish();
        self.start_waiting();
    }

    fn remove(&mut self, name: &Name) {
        self.waiting.retain(|(def, _)| def.name != *name);
        self.shared.cancel(name);
        self.cohort.remove(name);
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

fn spawn(name: &Name, work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(format!("hydrate {name}"));
    if let Err(error) = thread.spawn(work) {
        tracing::error!(%name, %error, "no thread to hydrate with: restart to try again");
    }
}
