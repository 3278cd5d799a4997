//! Hydration: a new relation or view catches up on its own before it joins the live cohort.
//!
//! A relation replays its topic. A view starts from the live cohort's snapshots of what it reads
//! (streams: from their records) and then from the changes that a [`Tap`] has kept since. Both
//! hold nobody up: the live cohort only waits for the last few ticks, at the cut of joining.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use evert_log::{Log, ReadError};
use evert_model::{Delta, LogTime, Position};

use crate::cohort::{Cohort, Cut, TickDeltas};
use crate::errors::Errors;
use crate::live_view::LiveView;
use crate::reader::Reader;
use crate::relation::RelationInput;
use crate::{Catalog, Name};

/// Bytes of records folded at a time.
pub(crate) const STEP_BYTES: usize = 8 << 20;
/// Commits that may be left for the cut of joining.
const COMMITS_LEFT: u64 = 1000;
/// Ticks that may be left for the cut of joining.
const TICKS_LEFT: usize = 4;

/// How far a hydration has come; shared with whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    pub(crate) fn percent(&self) -> u8 {
        let total = self.total.load(Ordering::Relaxed).max(1);
        (self.done.load(Ordering::Relaxed).saturating_mul(100) / total).min(99) as u8
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn add_done(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

/// Keeps the changes of some relations and views, tick by tick, for a view that hydrates.
pub(crate) struct Tap {
    inputs: Vec<Name>,
    ticks: Mutex<VecDeque<KeptTick>>,
}

/// The log time at which a tick ended, and the changes of each input.
type KeptTick = (LogTime, Vec<Vec<Delta>>);

impl Tap {
    pub(crate) fn new(inputs: Vec<Name>) -> Self {
        Self { inputs, ticks: Mutex::default() }
    }

    pub(crate) fn push(&self, now: LogTime, tick: &TickDeltas) {
        let inputs = self.inputs.iter().map(|input| tick.get(input).cloned().unwrap_or_default());
        let inputs: Vec<_> = inputs.collect();
        if inputs.iter().any(|deltas| !deltas.is_empty()) {
            self.lock().push_back((now, inputs));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<KeptTick>> {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relation on its way into the live cohort.
pub(crate) struct RelationHydration {
    cohort: Cohort,
    reader: Reader,
}

impl RelationHydration {
    /// Replays from `from`, the position at which the relation's topic was created.
    pub(crate) fn new(
        log: &Log,
        from: Position,
        input: RelationInput,
        mut cohort: Cohort,
    ) -> Result<Self, ReadError> {
        cohort.add_relation(input);
        Ok(Self { cohort, reader: Reader::new(log, from)? })
    }

    /// Folds up to where the live cohort is, until little is left.
    pub(crate) fn catch_up(
        &mut self,
        live: impl Fn() -> Position,
        progress: &Progress,
    ) -> Result<(), ReadError> {
        loop {
            let end = live();
            self.advance(end, progress)?;
            if progress.is_cancelled() || live().get() - end.get() <= COMMITS_LEFT {
                return Ok(());
            }
        }
    }

    /// Folds up to `end`, which the live cohort has reached.
    pub(crate) fn advance(&mut self, end: Position, progress: &Progress) -> Result<(), ReadError> {
        progress.total.store(end.get(), Ordering::Relaxed);
        while !progress.is_cancelled()
            && let Some(commit) = self.reader.next_upto(end)?
        {
            self.cohort.push(&commit);
            if self.cohort.pending_bytes() >= STEP_BYTES {
                self.cohort.fold();
                progress.done.store(commit.position.get(), Ordering::Relaxed);
            }
        }
        self.cohort.fold();
        Ok(())
    }

    /// The relation with its rows, moved into the live cohort.
    pub(crate) fn join(self, live: &mut Cohort) {
        let errors = self.cohort.cut().snapshots.remove(&crate::errors::name());
        for input in self.cohort.into_relations() {
            live.add_relation(input);
        }
        if let Some(errors) = errors {
            live.absorb_errors(&errors);
        }
    }
}

/// A view on its way into the live cohort.
pub(crate) struct ViewHydration {
    view: LiveView,
    tap: Arc<Tap>,
    errors: Errors,
}

impl ViewHydration {
    pub(crate) fn new(view: LiveView, tap: Arc<Tap>) -> Self {
        Self { view, tap, errors: Errors::new() }
    }

    /// The view's definition.
    pub(crate) fn def(&self) -> &Arc<crate::ViewDef> {
        &self.view.def
    }

    /// Where the live cohort leaves the changes that the view has yet to fold.
    pub(crate) fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    /// Folds what the view's inputs held at `start`, the cut at which the tap was set.
    pub(crate) fn load(
        &mut self,
        log: &Log,
        start: &Cut,
        streams: Cohort,
        progress: &Progress,
    ) -> Result<(), ReadError> {
        let inputs = self.view.def.inputs.clone();
        let rows: usize =
            inputs.iter().filter_map(|n| start.snapshots.get(n)).map(|s| s.len()).sum();
        let records = inputs.iter().filter_map(|n| start.streams.get(n)).flatten();
        let records: i64 = records.map(|end| end.get()).sum();
        progress.total.store(rows as u64 + records as u64, Ordering::Relaxed);

        for (index, input) in inputs.iter().enumerate() {
            let Some(snapshot) = start.snapshots.get(input) else { continue };
            for delta in snapshot.as_deltas() {
                if progress.is_cancelled() {
                    return Ok(());
                }
                progress.add_done(delta.len() as u64);
                let mut tick = vec![Vec::new(); inputs.len()];
                tick[index].push(delta);
                self.fold_inputs(start.log_time, &tick);
            }
        }
        self.load_streams(log, start, streams, progress)
    }

    fn load_streams(
        &mut self,
        log: &Log,
        start: &Cut,
        mut streams: Cohort,
        progress: &Progress,
    ) -> Result<(), ReadError> {
        if streams.is_empty() {
            return Ok(());
        }
        let mut reader = Reader::new(log, Position::ZERO)?;
        loop {
            let commit = reader.next_upto(start.position)?;
            let last = commit.is_none() || progress.is_cancelled();
            if let Some(commit) = &commit {
                streams.push(commit);
            }
            if last || streams.pending_bytes() >= STEP_BYTES {
                let tick = streams.fold();
                let count: usize = tick.values().flatten().map(Delta::len).sum();
                progress.add_done(count as u64);
                self.fold(start.log_time, &tick);
            }
            if last {
                return Ok(());
            }
        }
    }

    fn fold(&mut self, now: LogTime, tick: &TickDeltas) {
        let inputs = self.view.inputs_of(tick);
        self.fold_inputs(now, &inputs);
    }

    fn fold_inputs(&mut self, now: LogTime, inputs: &[Vec<Delta>]) {
        let folded = self.view.fold(now, inputs);
        let name = &self.view.def.name;
        folded.errors.iter().for_each(|error| self.errors.row(name, error));
        self.errors.fold();
    }

    /// Folds what the tap has kept, until little is left. Returns whether little is left.
    pub(crate) fn catch_up(&mut self) -> bool {
        let kept = std::mem::take(&mut *self.tap.lock());
        for (now, tick) in kept {
            self.fold_inputs(now, &tick);
        }
        self.tap.lock().len() <= TICKS_LEFT
    }

    /// The view, moved into the live cohort at a cut.
    pub(crate) fn join(mut self, live: &mut Cohort) {
        while let Some((now, tick)) = { self.tap.lock().pop_front() } {
            self.fold_inputs(now, &tick);
        }
        // A view over nothing, or over empty inputs, has its first tick now; and ticks that had
        // nothing for it but their time were not kept.
        let none = vec![Vec::new(); self.view.def.inputs.len()];
        self.fold_inputs(live.log_time(), &none);
        live.absorb_errors(&self.errors.snapshot());
        live.add_view(self.view);
    }
}

/// The streams that a view reads, as a cohort that decodes their records.
pub(crate) fn streams_of(catalog: &Catalog, inputs: &[Name], mut cohort: Cohort) -> Cohort {
    for relation in inputs.iter().filter_map(|input| catalog.relations.get(input)) {
        if relation.kind == crate::RelationKind::Stream {
            cohort.add_relation(RelationInput::new(Arc::clone(relation)));
        }
    }
    cohort
}
