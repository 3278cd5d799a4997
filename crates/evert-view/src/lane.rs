//! Lanes: views that fold apart from the live cohort, in a thread of their own.
//!
//! Owns: a new view's way to the present, a slow view's own pace, a paused view's rest.
//! Not here: which views get a lane and when they go back (`follower`), what others see (`face`).
//!
//! Invariants
//! - A lane folds the live cohort's ticks in order; what it publishes is the fold of the log up to
//!   a cut of the live cohort.
//! - It holds nobody up: what it cannot take in time it finds out later, from cuts and the log.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use evert_fold::net_change;
use evert_model::{LogTime, Position, TopicId};
use tokio::sync::mpsc::UnboundedSender;

use crate::Name;
use crate::builds::News;
use crate::cohort::{Cohort, Cut, TickDeltas};
use crate::face::Face;
use crate::follower::Control;
use crate::group::Group;
use crate::hydrate;
use crate::live_view::{Folded, LiveView};
use crate::pace::Pace;
use crate::progress::{Progress, Stage};
use crate::reader::Reader;
use crate::shared::Shared;
use crate::sources::SourceStates;
use crate::tap::{Next, Tick};

/// How long a lane without work sleeps before it looks whether it can go back.
const PATIENCE: Duration = Duration::from_millis(100);
/// Ticks that may be left for the cut of joining.
const TICKS_LEFT: usize = 4;
/// How often memory is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What becomes of a lane's views when they have caught up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Readers read them here meanwhile; they join the live cohort when they are quick enough.
    Serve,
    /// Nobody sees them before they take the place of others.
    Replace,
}

/// Views, and what some of them have folded of the tick that comes next.
pub(crate) type HandedOver = (Vec<LiveView>, HashMap<Name, Folded>);

/// Views that fold apart, with their state.
pub(crate) struct Lane {
    pub(crate) face: Arc<Face>,
    pub(crate) group: Group,
    purpose: Purpose,
    shared: Arc<Shared>,
    control: UnboundedSender<Control>,
    position: Position,
    log_time: LogTime,
    /// Records that its views have folded, by topic.
    done: Arc<HashMap<TopicId, i64>>,
    pace: Pace,
    /// It does not ask to join before.
    stays_until: Option<Instant>,
    /// Who waits until a build has caught up.
    news: Option<Sender<News>>,
    measured: Option<Instant>,
}

impl Lane {
    pub(crate) fn new(
        face: Arc<Face>,
        group: Group,
        purpose: Purpose,
        shared: &Arc<Shared>,
        control: &UnboundedSender<Control>,
    ) -> Box<Self> {
        Box::new(Self {
            face,
            group,
            purpose,
            shared: Arc::clone(shared),
            control: control.clone(),
            position: Position::ZERO,
            log_time: LogTime::default(),
            done: Arc::default(),
            pace: Pace::new(),
            stays_until: None,
            news: None,
            measured: None,
        })
    }

    /// Where its views stand.
    pub(crate) fn stand_at(&mut self, cut: &Cut) {
        self.position = cut.position;
        self.log_time = cut.log_time;
        self.done = Arc::clone(&cut.done);
    }

    fn stand_after(&mut self, tick: &Tick) {
        self.position = tick.position;
        self.log_time = tick.log_time;
        self.done = Arc::clone(&tick.done);
    }

    /// Keeps it from joining for a while.
    pub(crate) fn stay_for(&mut self, time: Duration) {
        self.stays_until = Some(Instant::now() + time);
    }

    /// Loads what its views' inputs hold at `start`, then follows.
    pub(crate) fn load_and_run(mut self: Box<Self>, start: &Cut) {
        let _unless = evert_env::works_unless(self.face.progress.cancelled());
        let (shared, face) = (Arc::clone(&self.shared), Arc::clone(&self.face));
        let loaded = hydrate::load(&mut self.group, &shared, start, &face.progress);
        if let Err(why) = loaded {
            self.fail_all(&why);
        }
        self.stand_at(start);
        self.publish();
        self.run();
    }

    /// Folds its views from the log's beginning, with all that they read, then follows.
    pub(crate) fn replay_and_run(
        mut self: Box<Self>,
        cohort: Cohort,
        names: &BTreeSet<Name>,
        position: Position,
    ) {
        self.replay(cohort, names, position);
        self.publish();
        self.run();
    }

    /// Folds its views up to where they are paused, and rests there.
    pub(crate) fn replay_and_rest(
        mut self: Box<Self>,
        cohort: Cohort,
        names: &BTreeSet<Name>,
        position: Position,
    ) {
        let cut = Arc::new(self.replay(cohort, names, position));
        self.publish();
        self.face.tap.arrive(&cut);
        self.face.wake();
        self.run();
    }

    fn replay(&mut self, mut cohort: Cohort, names: &BTreeSet<Name>, position: Position) -> Cut {
        let progress = Arc::clone(&self.face.progress);
        let _unless = evert_env::works_unless(progress.cancelled());
        let total = self.shared.records_of(&cohort);
        progress.begin(Stage::Replaying, total);
        let read = (|| {
            let mut reader = Reader::new(&self.shared.log, Position::ZERO)?;
            while let Some(commit) = reader.next_upto(position)? {
                if progress.is_cancelled() {
                    break;
                }
                cohort.push(&commit);
                if cohort.pending_bytes() >= hydrate::STEP_BYTES {
                    cohort.fold();
                    progress.set_done(cohort.records(), total);
                }
            }
            cohort.fold();
            Ok::<(), evert_log::ReadError>(())
        })();
        let cut = cohort.cut();
        let errors = cohort.take_errors();
        self.group.adopt(cohort.take_views(names));
        let names = names.iter().map(ToString::to_string).collect();
        self.group.errors.add_of(&names, errors);
        if let Err(error) = read {
            self.fail_all(&error.to_string());
        }
        self.stand_at(&cut);
        cut
    }

    /// Tells `news` when it has caught up.
    pub(crate) fn tell(&mut self, news: Sender<News>) {
        self.news = Some(news);
    }

    /// From now on readers read its views here.
    pub(crate) fn serve(&mut self) {
        self.purpose = Purpose::Serve;
    }

    fn tell_if_ready(&mut self) {
        let left = self.face.tap.ticks_left();
        if left.is_none_or(|left| left > TICKS_LEFT) {
            return;
        }
        if let Some(news) = self.news.take() {
            let failed = self.group.failed().into_iter().next();
            let outcome = match failed {
                Some((name, why)) => News::Failed(format!("\"{name}\": {why}")),
                None => News::Ready,
            };
            // Whoever asked may have given up.
            drop(news.send(outcome));
        }
    }

    /// Follows until its views are wanted elsewhere, or not at all.
    pub(crate) fn run(mut self: Box<Self>) {
        let _unless = evert_env::works_unless(self.face.progress.cancelled());
        self.face.progress.begin(Stage::CatchingUp, self.behind());
        loop {
            self.tell_if_ready();
            if self.may_join() {
                let control = self.control.clone();
                drop(control.send(Control::LaneReady(self)));
                return;
            }
            match self.face.tap.next(PATIENCE) {
                Next::Closed => return,
                Next::Nothing => {}
                Next::Tick(tick) => self.fold(tick),
                Next::Errand(errand) => self.attempt(errand),
                Next::Jump(from, to) => self.jump(&from, &to),
                Next::CutOff => {
                    // The follower is gone only when the server stops.
                    if self.control.send(Control::GoOn(Arc::clone(&self.face))).is_err() {
                        return;
                    }
                    thread::sleep(PATIENCE);
                }
            }
        }
    }

    fn attempt(&mut self, errand: crate::tap::Errand) {
        let done = catch_unwind(AssertUnwindSafe(|| errand(self)));
        if done.is_err() {
            self.fail_all("internal error: an errand ended in a panic");
        }
        // A view that has begun the next tick is not at this position any more.
        if !self.group.has_begun() {
            self.publish();
        }
    }

    fn fold(&mut self, tick: Tick) {
        let started = Instant::now();
        self.stand_after(&tick);
        let net = |(name, deltas)| (name, net_change(deltas));
        let deltas = tick.deltas.into_iter().map(net).collect();
        self.group.fold(tick.log_time, deltas, &tick.failed);
        self.pace.spent(started.elapsed());
        self.publish();
    }

    /// Finds out what has changed from one cut to another, and folds that.
    fn jump(&mut self, from: &Cut, to: &Cut) {
        let started = Instant::now();
        let (inputs, shared) = (self.group.inputs(), Arc::clone(&self.shared));
        let progress = Arc::clone(&self.face.progress);
        progress.begin(Stage::CatchingUp, to.position.get() - from.position.get());
        let group = &mut self.group;
        let fold = |changes: TickDeltas| {
            group.fold(to.log_time, changes, &to.failed);
        };
        let done = hydrate::changes_between(&shared, &inputs, from, to, &progress, fold);
        if let Err(why) = done {
            self.fail_all(&why);
        }
        self.stand_at(to);
        self.pace.spent(started.elapsed());
        self.publish();
    }

    fn fail_all(&mut self, why: &str) {
        for view in self.group.views.iter_mut().filter(|view| view.failure().is_none()) {
            view.fail(why.into());
        }
    }

    /// Folds what is left in the tap, if that is ticks only.
    pub(crate) fn drain(&mut self) -> bool {
        if self.face.tap.ticks_left().is_none() {
            return false;
        }
        while let Next::Tick(tick) = self.face.tap.next(Duration::ZERO) {
            self.stand_after(&tick);
            self.group.fold(tick.log_time, tick.deltas, &tick.failed);
        }
        true
    }

    fn behind(&self) -> u64 {
        self.shared.cut().position.get().saturating_sub(self.position.get())
    }

    fn may_join(&self) -> bool {
        let left = self.face.tap.ticks_left();
        let near =
            left.is_some_and(|left| left <= TICKS_LEFT) && self.face.tap.paused_at().is_none();
        let stays = self.stays_until.is_some_and(|until| Instant::now() < until);
        self.purpose == Purpose::Serve && near && !stays && self.pace.is_light()
    }

    fn publish(&mut self) {
        match self.purpose {
            Purpose::Serve => self.hand_over_errors(),
            Purpose::Replace => return self.group.errors.fold(),
        }
        if self.face.tap.is_closed() {
            return;
        }
        let due = self.measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY);
        let memory = due.then(|| self.group.memory());
        if due {
            self.measured = Some(Instant::now());
        }
        self.face.publish(self.cut(), self.group.due(), memory);
    }

    fn hand_over_errors(&mut self) {
        if let Some(errors) = self.group.errors.take_all() {
            drop(self.control.send(Control::Errors(Arc::clone(&self.face), errors)));
        }
    }

    /// Its views as they are.
    pub(crate) fn cut(&self) -> Cut {
        Cut {
            position: self.position,
            log_time: self.log_time,
            snapshots: self.group.snapshots(),
            streams: HashMap::new(),
            failed: self.group.failed(),
            sources: SourceStates::new(self.shared.sources_topic),
            done: Arc::clone(&self.done),
        }
    }

    // Errands.

    /// Takes in a new view, whose inputs hold at `now` what that cut and this lane's views say.
    pub(crate) fn adopt_new(&mut self, view: LiveView, now: &Cut) {
        let mut start = now.clone();
        start.snapshots.extend(self.group.snapshots());
        start.failed.extend(self.group.failed());
        let mut newcomer = Group::new(vec![view]);
        // Its own progress would hide that of the lane.
        let loaded = hydrate::load(&mut newcomer, &self.shared, &start, &Progress::default());
        let mut views = std::mem::take(&mut newcomer.views);
        if let Err(why) = loaded {
            views.iter_mut().for_each(|view| view.fail(why.as_str().into()));
        }
        if let Some(errors) = newcomer.errors.take_all() {
            self.group.errors.add(errors);
        }
        self.group.adopt(views);
    }

    /// Takes in views that another lane hands over at the same position.
    pub(crate) fn adopt_from(&mut self, other: &Receiver<HandedOver>) {
        // Nothing comes if the other lane was closed meanwhile.
        if let Ok((views, begun)) = other.recv() {
            self.group.adopt(views);
            self.group.begin(begun);
        }
    }

    /// Lets go of views for another lane.
    pub(crate) fn hand_over(&mut self, names: &BTreeSet<Name>) -> HandedOver {
        let begun = self.group.take_begun(names);
        (self.group.take(names), begun)
    }

    /// Takes in a view that is still folding the next tick.
    pub(crate) fn adopt_begun(&mut self, other: &Receiver<(LiveView, Folded)>) {
        if let Ok((view, folded)) = other.recv() {
            self.group.adopt_begun(view, folded);
        }
    }

    /// Lets go of views that were dropped or go elsewhere.
    pub(crate) fn release(&mut self, names: &BTreeSet<Name>) -> Vec<LiveView> {
        self.group.take(names)
    }
}

/// A thread for what has much to catch up with, while others are read: it gives way to theirs. A
/// lane that stays apart afterwards goes on doing so.
pub(crate) fn spawn_behind(name: &Name, work: impl FnOnce() + Send + 'static) {
    spawn(name, move || {
        evert_env::give_way();
        work();
    });
}

/// A thread for a lane or for a relation that hydrates.
pub(crate) fn spawn(name: &Name, work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(format!("lane {name}"));
    let work = move || {
        let _spills = evert_env::spill::spills_here();
        work();
    };
    if let Err(error) = thread.spawn(work) {
        tracing::error!(%name, %error, "no thread for a view: restart to try again");
    }
}
