//! Taps: what the live cohort leaves for views that fold apart from it.
//!
//! Owns: the ticks and errands kept for one lane, in order, and their bound.
//! Not here: what is done with them (`lane`), who leaves them (`follower`).
//!
//! Invariants
//! - Ticks come out in order, none left out and none twice. Past the bound the tap is cut off: it
//!   keeps the cut of the last tick it took, and the next thing that comes out after that tick is
//!   the jump to a later cut.
//! - An errand is done between the ticks around it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evert_model::{Delta, LogTime, Position, TopicId};

use crate::Name;
use crate::cohort::{Cut, TickDeltas};
use crate::lane::Lane;

/// Rows kept for one lane at most, in bytes; what is behind by more reads on from a later cut.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Rows folded at a time by a lane that is behind, in bytes.
const TAKEN_BYTES: usize = 16 << 20;

/// What the live cohort changed in one tick.
#[derive(Default)]
pub(crate) struct Tick {
    pub(crate) position: Position,
    pub(crate) log_time: LogTime,
    pub(crate) deltas: TickDeltas,
    /// Live views that have failed by now.
    pub(crate) failed: HashMap<Name, Arc<str>>,
    /// Records that the live cohort had folded, by topic.
    pub(crate) done: Arc<HashMap<TopicId, i64>>,
    bytes: usize,
}

/// Something that a lane does between two ticks.
pub(crate) type Errand = Box<dyn FnOnce(&mut Lane) + Send>;

/// What a lane does next.
pub(crate) enum Next {
    /// One tick, or several that nobody wants apart, as one.
    Tick(Tick),
    Errand(Errand),
    /// Ticks were not kept: what changed from the one cut to the other is to be found out.
    Jump(Arc<Cut>, Arc<Cut>),
    /// Nothing more comes before somebody asks the follower to go on.
    CutOff,
    /// Paused: nothing comes before it is resumed.
    Nothing,
    Closed,
}

enum Item {
    Tick(Tick),
    Errand(Errand),
    Jump(Arc<Cut>, Arc<Cut>),
    /// A jump from where the lane arrives.
    FromArrival(Arc<Cut>),
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    inputs: BTreeSet<Name>,
    /// Positions at which somebody waits for a snapshot.
    wanted: BTreeSet<Position>,
    cut_off: Option<Arc<Cut>>,
    paused: bool,
    /// The lane is on its way to a cut that it is to go on from, or to rest at.
    on_its_way: bool,
    /// Where the last errand wants it to be that was left on the way.
    heading: Option<Arc<Cut>>,
    closed: bool,
}

/// The ticks that one lane has yet to fold.
#[derive(Default)]
pub(crate) struct Tap {
    state: Mutex<State>,
    changed: Condvar,
}

impl Tap {
    /// Keeps the changes of `inputs`.
    pub(crate) fn new(inputs: BTreeSet<Name>) -> Self {
        Self { state: Mutex::new(State { inputs, ..State::default() }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves one tick, of which `cut` is the outcome.
    pub(crate) fn push(&self, deltas: &TickDeltas, cut: &Arc<Cut>) {
        let mut state = self.lock();
        if state.cut_off.is_some() || state.paused || state.on_its_way || state.closed {
            return;
        }
        let tick = Tick::new(deltas, &state.inputs, cut);
        state.bytes += tick.bytes;
        let State { items, wanted, .. } = &mut *state;
        match items.back_mut() {
            // A tick without changes only moves the one before.
            Some(Item::Tick(last)) if tick.bytes == 0 && !wanted.contains(&last.position) => {
                last.append(tick);
            }
            _ => items.push_back(Item::Tick(tick)),
        }
        if state.bytes > KEPT_BYTES_MAX {
            state.cut_off = Some(Arc::clone(cut));
        }
        self.changed.notify_all();
    }

    /// Leaves an errand, to be done at `now`, the cut that was pushed last.
    pub(crate) fn errand(&self, now: &Arc<Cut>, errand: Errand) {
        let mut state = self.lock();
        match (state.paused, state.on_its_way) {
            (true, _) => {}
            (false, true) => state.head_for(now),
            (false, false) => state.go_on(now),
        }
        state.items.push_back(Item::Errand(errand));
        self.changed.notify_all();
    }

    /// What it keeps the changes of.
    pub(crate) fn inputs(&self) -> BTreeSet<Name> {
        self.lock().inputs.clone()
    }

    /// Keeps the changes of other inputs from the next tick on.
    pub(crate) fn set_inputs(&self, inputs: BTreeSet<Name>) {
        self.lock().inputs = inputs;
    }

    /// After [`Next::CutOff`]: goes on from `now`, the cut that was pushed last.
    pub(crate) fn go_on(&self, now: &Arc<Cut>) {
        let mut state = self.lock();
        if !state.paused {
            state.go_on(now);
        }
        self.changed.notify_all();
    }

    /// Keeps nothing after `cut`, the cut that was pushed last, until resumed.
    pub(crate) fn pause(&self, cut: &Arc<Cut>) {
        let mut state = self.lock();
        state.go_on(cut);
        state.cut_off = Some(Arc::clone(cut));
        state.paused = true;
        self.changed.notify_all();
    }

    /// Keeps nothing: the lane is on its way to where it is paused, and says so by
    /// [`Tap::arrive`].
    pub(crate) fn pause_later(&self) {
        let mut state = self.lock();
        state.paused = true;
        state.on_its_way = true;
    }

    /// The lane has come to `cut`: it is paused there, or goes on if it was resumed meanwhile.
    pub(crate) fn arrive(&self, cut: &Arc<Cut>) {
        let mut state = self.lock();
        state.on_its_way = false;
        for item in &mut state.items {
            if let Item::FromArrival(to) = item {
                *item = Item::Jump(Arc::clone(cut), Arc::clone(to));
            }
        }
        let last = state.heading.take().unwrap_or_else(|| Arc::clone(cut));
        state.cut_off = Some(last);
        self.changed.notify_all();
    }

    /// Whether its lane is on its way still.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.lock().on_its_way
    }

    /// Whether it is paused, or will be when its lane arrives.
    pub(crate) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// The end of a pause.
    pub(crate) fn resume(&self, now: &Arc<Cut>) {
        let mut state = self.lock();
        state.paused = false;
        state.go_on(now);
        self.changed.notify_all();
    }

    /// The cut at which it is paused.
    pub(crate) fn paused_at(&self) -> Option<Arc<Cut>> {
        let state = self.lock();
        state.cut_off.as_ref().filter(|_| state.paused).map(Arc::clone)
    }

    /// The rows that a paused lane keeps of a view that is gone, or has another definition, are
    /// nothing to read with its own.
    pub(crate) fn forget(&self, name: &Name) {
        let mut state = self.lock();
        if let Some(cut) = &mut state.cut_off
            && (cut.snapshots.contains_key(name) || cut.streams.contains_key(name))
        {
            let cut = Arc::make_mut(cut);
            cut.snapshots.remove(name);
            cut.streams.remove(name);
        }
    }

    /// Nothing comes out any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.items.clear();
        state.cut_off = None;
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Asks that the tick of this position is folded apart from those after it.
    pub(crate) fn want(&self, position: Position) {
        self.lock().wanted.insert(position);
    }

    /// How many ticks wait, if there is nothing else in the tap.
    pub(crate) fn ticks_left(&self) -> Option<usize> {
        let state = self.lock();
        let only_ticks = state.items.iter().all(|item| matches!(item, Item::Tick(_)));
        (only_ticks && state.cut_off.is_none() && !state.closed).then_some(state.items.len())
    }

    /// What is next; waits up to `patience` for it.
    pub(crate) fn next(&self, patience: Duration) -> Next {
        let state = self.lock();
        let nothing = |state: &mut State| {
            state.items.is_empty() && !state.closed && (state.cut_off.is_none() || state.paused)
        };
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, patience, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        state.take()
    }
}

impl State {
    fn go_on(&mut self, now: &Arc<Cut>) {
        if let Some(from) = self.cut_off.take() {
            self.items.push_back(Item::Jump(from, Arc::clone(now)));
        }
    }

    /// Goes on to `now` once it has arrived.
    fn head_for(&mut self, now: &Arc<Cut>) {
        let item = match self.heading.replace(Arc::clone(now)) {
            Some(from) => Item::Jump(from, Arc::clone(now)),
            None => Item::FromArrival(Arc::clone(now)),
        };
        self.items.push_back(item);
    }

    fn take(&mut self) -> Next {
        if self.closed {
            return Next::Closed;
        }
        match self.items.pop_front() {
            None if self.paused || self.cut_off.is_none() => Next::Nothing,
            None => Next::CutOff,
            Some(Item::Errand(errand)) => Next::Errand(errand),
            Some(Item::Jump(from, to)) => Next::Jump(from, to),
            Some(Item::FromArrival(_)) => unreachable!("a lane takes nothing before it arrives"),
            Some(Item::Tick(mut tick)) => {
                while tick.bytes < TAKEN_BYTES
                    && !self.wanted.contains(&tick.position)
                    && let Some(Item::Tick(_)) = self.items.front()
                {
                    let Some(Item::Tick(more)) = self.items.pop_front() else { break };
                    tick.append(more);
                }
                self.bytes -= tick.bytes;
                self.wanted.retain(|position| *position > tick.position);
                Next::Tick(tick)
            }
        }
    }
}

impl Tick {
    fn new(deltas: &TickDeltas, inputs: &BTreeSet<Name>, cut: &Cut) -> Self {
        let of_input = |name: &Name| deltas.get(name).map(|found| (name.clone(), found.clone()));
        let deltas: TickDeltas = inputs.iter().filter_map(of_input).collect();
        let bytes = deltas.values().flatten().map(delta_bytes).sum();
        let (position, log_time) = (cut.position, cut.log_time);
        Self {
            position,
            log_time,
            deltas,
            failed: cut.failed.clone(),
            done: Arc::clone(&cut.done),
            bytes,
        }
    }

    fn append(&mut self, later: Self) {
        self.position = later.position;
        self.log_time = later.log_time;
        self.failed = later.failed;
        self.done = later.done;
        self.bytes += later.bytes;
        for (name, deltas) in later.deltas {
            self.deltas.entry(name).or_default().extend(deltas);
        }
    }
}

/// Never zero, so that a tick of zero bytes has no rows.
fn delta_bytes(delta: &Delta) -> usize {
    delta.rows.get_array_memory_size() + size_of::<i64>() * delta.len() + 1
}
