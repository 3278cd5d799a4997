//! The follower: the thread that reads the log, cuts ticks and drives the live cohort.
//!
//! Owns: when a tick is cut, what is published.
//! Not here: what a tick does (`cohort`), who is in the cohort (`company`), how a newcomer catches
//! up (`hydrate`).
//!
//! Invariants
//! - Published positions never go back.
//! - Views join and leave between two ticks, with everything up to that cut folded.
//! - A cut is published before the lanes hear of its tick: none of them is ahead of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use evert_fold::Plan;
use evert_log::ReadError;
use evert_model::{Delta, Position};
use tokio::sync::{mpsc, watch};

use crate::Name;
use crate::builds::{Build, BuildOrder, Marked};
use crate::catalog::{Catalog, CatalogError, Relation, ViewDef};
use crate::checkpoint::Checkpoints;
use crate::cohort::{Cohort, Cut, Folding};
use crate::face::Face;
use crate::helm::Helm;
use crate::hydrate::{RelationHydration, STEP_BYTES};
use crate::lane::Lane;
use crate::live_view::LiveView;
use crate::pace::Pace;
use crate::planner::Planner;
use crate::progress::Progress;
use crate::reader::Reader;
use crate::shared::Shared;
use crate::sources::SourceStates;
use crate::views::ViewsConfig;
use crate::widen::Widening;

/// Between two ticks lies at least this many times what ticks cost of late, so that the fixed costs
/// of a tick stay small under load. One slow tick does not put off the next for long.
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
/// One view's fold of a tick may take so many times what reading the tick's records took.
const FOLD_MAX_TIMES: u32 = 20;

/// What others ask of the follower. Each takes effect between two ticks.
pub(crate) enum Control {
    AddRelation(Arc<Relation>, Position),
    AddView(Arc<ViewDef>, Plan),
    /// The sender is dropped when it is done.
    Remove(Name, Sender<()>),
    RelationReady(Arc<Relation>, Box<RelationHydration>, Arc<Progress>),
    /// A relation has more columns; the sender hears whether it could have.
    Widen(Box<Widening>, Sender<Result<(), CatalogError>>),
    /// A lane has caught up and can join.
    LaneReady(Box<Lane>),
    /// A lane's tap was cut off: it can go on from the next cut.
    GoOn(Arc<Face>),
    /// What a lane's views could not evaluate, or can again.
    Errors(Arc<Face>, Vec<Delta>),
    /// Makes views beside those of their names.
    Build(Box<BuildOrder>),
    /// Puts a build in its place; the plans are for when it is not there any more. The sender is
    /// dropped when it is done.
    Swap(Arc<Face>, Vec<(Arc<ViewDef>, Plan)>, Sender<()>),
    /// Gives a build up.
    Abandon(Arc<Face>),
    /// Asks what a build's views are now.
    Mark(Arc<Face>, Sender<Marked>),
    /// Stops a view, and tells where.
    Pause(Name, Sender<Position>),
    /// Lets a view go on. The sender is dropped when it is done.
    Resume(Name, Sender<()>),
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
    pub(crate) shared: Arc<Shared>,
    pub(crate) start: Start,
    pub(crate) checkpoints: Option<Checkpoints>,
    control: mpsc::UnboundedReceiver<Control>,
    /// For the threads that catch up.
    pub(crate) reply: mpsc::UnboundedSender<Control>,
    pub(crate) cohort: Cohort,
    pub(crate) reader: Reader,
    end: watch::Receiver<Position>,
    pub(crate) lanes: Vec<Arc<Face>>,
    pub(crate) builds: Vec<Build>,
    /// Views whose inputs are not there yet.
    pub(crate) waiting: Vec<(Arc<ViewDef>, Plan)>,
    helm: Arc<Helm>,
    /// Whether the cohort was put together.
    has_begun: bool,
    /// A tick on its way through the views.
    folding: Option<Folding>,
    /// Set when what this thread folds is unwanted: when it is lost, its lane takes the flag.
    pub(crate) unwanted: Arc<AtomicBool>,
    /// Whether the last tick ended at the log's end.
    caught_up: bool,
    tick: TickCost,
    /// All that is folded here.
    pace: Pace,
    /// The share of its time that the follower folded lately.
    share: f64,
    /// Live views that were found too slow in this tick.
    pub(crate) slow: Vec<Name>,
    /// How often views were sent away.
    pub(crate) sent_away: HashMap<Name, u32>,
    measured: Option<Instant>,
    /// Something was published since memory was measured.
    measure_due: bool,
    /// When the follower last asked for a time tick.
    time_ticked: Option<Instant>,
    /// Lets go of whoever waits for the end.
    _ended: Sender<()>,
}

/// What ticks cost, and this one so far.
struct TickCost {
    began: Instant,
    ended: Instant,
    /// The cost of ticks of late: a mean in which each weighs an eighth less than the next.
    usual: Duration,
    /// How long reading its records took.
    reading: Duration,
}

/// Why a thread is the follower no longer.
enum End {
    Stopped,
    Failed(String),
    /// Another thread is.
    Replaced,
}

impl Follower {
    /// The receiver's channel ends with the follower.
    pub(crate) fn new(
        shared: Arc<Shared>,
        start: Start,
        control: mpsc::UnboundedReceiver<Control>,
        reply: mpsc::UnboundedSender<Control>,
    ) -> Result<(Box<Self>, Receiver<()>), ReadError> {
        let cohort = Cohort::empty(SourceStates::new(shared.sources_topic));
        let reader = Reader::new(&shared.log, Position::ZERO)?;
        let isolation = start.config.isolation;
        let end = shared.log.watch_end();
        let now = Instant::now();
        let (ended, end_of_follower) = std::sync::mpsc::channel();
        let follower = Self {
            shared,
            start,
            checkpoints: None,
            has_begun: false,
            control,
            reply,
            cohort,
            reader,
            end,
            lanes: Vec::new(),
            builds: Vec::new(),
            waiting: Vec::new(),
            helm: Helm::new(isolation.fold_max),
            folding: None,
            unwanted: Arc::default(),
            caught_up: false,
            tick: TickCost {
                began: now,
                ended: now,
                usual: Duration::ZERO,
                reading: Duration::ZERO,
            },
            pace: Pace::new(),
            share: 0.0,
            slow: Vec::new(),
            sent_away: HashMap::new(),
            measured: None,
            measure_due: false,
            time_ticked: None,
            _ended: ended,
        };
        Ok((Box::new(follower), end_of_follower))
    }

    /// Runs until told to stop, until the log cannot be read, or until another thread goes on.
    pub(crate) fn run(self: Box<Self>) {
        let _spills = evert_env::spill::spills_here();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let shared = Arc::clone(&self.shared);
        let end = match runtime {
            Ok(runtime) => self.follow(&runtime),
            Err(error) => End::Failed(format!("the follower cannot start: {error}")),
        };
        match end {
            End::Replaced => {}
            End::Stopped => shared.stop(None),
            End::Failed(why) => {
                tracing::error!(%why, "views stopped");
                shared.stop(Some(why));
            }
        }
    }

    fn follow(mut self: Box<Self>, runtime: &tokio::runtime::Runtime) -> End {
        if !std::mem::replace(&mut self.has_begun, true)
            && let Err(why) = self.begin()
        {
            return End::Failed(why);
        }
        loop {
            if self.folding.is_some() {
                match self.fold_views() {
                    Some(follower) => self = follower,
                    None => return End::Replaced,
                }
                self.end_tick();
            }
            self.checkpoint();
            while let Ok(control) = self.control.try_recv() {
                if matches!(control, Control::Stop) {
                    return self.stop();
                }
                if let Err(error) = self.obey(control) {
                    return End::Failed(error.to_string());
                }
            }
            self.end.mark_unchanged();
            if let Err(error) = self.begin_tick() {
                return End::Failed(error.to_string());
            }
            if self.folding.is_some() || !self.caught_up {
                continue;
            }
            let due = self.tick.ended + (self.tick.usual * SPACING).min(SPACING_MAX);
            match runtime.block_on(self.wait(due)) {
                None => {}
                Some(Control::Stop) => return self.stop(),
                Some(control) => {
                    if let Err(error) = self.obey(control) {
                        return End::Failed(error.to_string());
                    }
                }
            }
        }
    }

    /// The last checkpoint. After an error none is taken: a log that has failed may not hold what
    /// the views have seen.
    fn stop(mut self: Box<Self>) -> End {
        if let Some(checkpoints) = self.checkpoints.take() {
            checkpoints.finish(&mut self.cohort);
        }
        End::Stopped
    }

    fn checkpoint(&mut self) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.take_if_due(&mut self.cohort);
        }
    }

    /// A member has joined or left.
    pub(crate) fn members_changed(&mut self) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.members_changed();
        }
    }

    /// Members go on apart: they may come back.
    pub(crate) fn members_leave(&mut self, names: &BTreeSet<Name>) {
        if let Some(checkpoints) = &mut self.checkpoints {
            names.iter().for_each(|name| checkpoints.leaves(&LiveView::label_of(name)));
        }
        self.members_changed();
    }

    /// A view will not come back.
    pub(crate) fn member_is_gone(&mut self, name: &Name) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.is_gone(&LiveView::label_of(name));
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

    /// The log time at which a view, here or in a lane, changes without new facts.
    fn due(&self) -> Option<evert_model::LogTime> {
        let lanes = self.lanes.iter().filter_map(|face| face.due());
        self.cohort.due().into_iter().chain(lanes).min()
    }

    /// When to look whether a time tick is wanted, if the log stays idle. `None`: no view changes
    /// by the passing of time.
    fn next_time_tick(&self) -> Option<Instant> {
        let due = self.due()?;
        let left = due.get().saturating_sub(self.shared.log.now().get()).max(0) as u64;
        let due = Instant::now() + Duration::from_micros(left).min(TIME_ASKED_EVERY);
        Some(due.max(self.time_ticked.map_or(due, |last| last + TIME_TICK_SPACING)))
    }

    /// Lets the log say what time it is, if a view has something to do at that time.
    fn pass_time(&mut self) {
        let log = &self.shared.log;
        if self.due().is_none_or(|due| due > log.now()) {
            return;
        }
        self.time_ticked = Some(Instant::now());
        // The tick comes back by the log, as every commit does.
        if let Err(error) = log.append_time_tick() {
            tracing::error!(%error, "views by time stand still");
        }
    }

    /// Reads a run of commits into the relations. Leaves a tick to fold if there was any.
    fn begin_tick(&mut self) -> Result<(), ReadError> {
        self.tick.began = Instant::now();
        let before = self.cohort.position();
        self.caught_up = loop {
            match self.reader.next_upto(Position::new(i64::MAX as u64))? {
                None => break true,
                Some(commit) => self.cohort.push(&commit),
            }
            if self.cohort.pending_bytes() >= STEP_BYTES {
                break false;
            }
        };
        if self.cohort.position() > before {
            self.folding = Some(self.cohort.begin_fold());
            self.tick.reading = self.tick.began.elapsed();
        }
        Ok(())
    }

    /// Takes the tick through the views. Nothing is left to this thread if another one has gone
    /// on as the follower, because a view took too long.
    fn fold_views(mut self: Box<Self>) -> Option<Box<Self>> {
        let fold_max = self.start.config.isolation.fold_max;
        // Without patience at all, reading gives none either.
        let times = if fold_max.is_zero() { 0 } else { FOLD_MAX_TIMES };
        let patience = fold_max + self.tick.reading * times;
        let mut folding = self.folding.take().expect("a tick was begun");
        while let Some(mut job) = self.cohort.next_job(&mut folding) {
            let (helm, def) = (Arc::clone(&self.helm), Arc::clone(&job.view.def));
            let unless = evert_env::works_unless(&self.unwanted);
            self.folding = Some(folding);
            let turn = helm.leave(self, def, patience);
            let started = Instant::now();
            let folded = job.run();
            drop(unless);
            match helm.take_back(turn) {
                Ok(follower) => self = follower,
                Err(lane) => {
                    // The lane is gone if the view was dropped meanwhile.
                    drop(lane.send((job.view, folded)));
                    return None;
                }
            }
            self.note_cost(&mut job.view, started.elapsed());
            folding = self.folding.take().expect("it was put there for the fold");
            self.cohort.finish_job(&mut folding, job, folded);
        }
        self.folding = Some(folding);
        Some(self)
    }

    fn end_tick(&mut self) {
        let folding = self.folding.take().expect("a tick was begun");
        let tick = self.cohort.end_fold(folding);
        self.shared.history.record(&self.cohort, &tick);
        let cut = self.publish();
        for face in &self.lanes {
            face.tap.push(&tick, &cut);
        }
        self.tick.ended = Instant::now();
        let cost = self.tick.ended - self.tick.began;
        self.tick.usual = (self.tick.usual * 7 + cost) / 8;
        if let Some(stretch) = self.pace.spent(cost) {
            self.share = stretch.share;
        }
        self.send_slow_away();
    }

    pub(crate) fn publish(&mut self) -> Arc<Cut> {
        self.measure_due = true;
        if self.measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            self.measure();
        }
        self.shared.publish(self.cohort.cut())
    }

    fn measure(&mut self) {
        self.shared.set_memory(self.cohort.memory());
        self.measured = Some(Instant::now());
        self.measure_due = false;
    }

    /// The share of its time that the follower folded lately.
    pub(crate) fn share(&self) -> f64 {
        self.share
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
            Control::Widen(widening, reply) => self.widen(*widening, &reply)?,
            Control::LaneReady(lane) => self.join_lane(lane),
            Control::GoOn(face) => face.tap.go_on(&self.shared.cut()),
            Control::Errors(face, errors) => self.add_errors(&face, errors),
            Control::Build(order) => self.start_build(*order),
            Control::Swap(face, anew, _done) => self.swap(&face, anew),
            Control::Abandon(face) => self.abandon(&face),
            Control::Mark(face, reply) => self.mark(&face, reply),
            // Whoever asked waits for the answer.
            Control::Pause(name, reply) => drop(reply.send(self.pause(&name))),
            Control::Resume(name, _done) => self.resume(&name),
            Control::Stop => {}
        }
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.helm.stop();
        self.lanes.iter().for_each(|face| face.close());
        if std::thread::panicking() {
            self.shared.stop(Some("internal error: the follower ended in a panic".into()));
        }
    }
}

/// Never, without a moment.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
