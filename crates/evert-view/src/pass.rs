//! Passes: views that catch up at the same time share one reading of the log.
//!
//! Owns: the thread that reads and decodes streams, and who rides along on which stretch.
//! Not here: what the riders do with the rows (`hydrate`).
//!
//! Invariants
//! - A rider gets each commit up to its end exactly once. It may board in the middle of a pass:
//!   then it has the log's beginning after its end, which is the same to a sum of changes.
//! - A rider that cannot keep up is given a pass of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use evert_log::{Log, ReadError};
use evert_model::{Position, TopicId};

use crate::catalog::Relation;
use crate::cohort::{Cohort, TickDeltas};
use crate::hydrate::STEP_BYTES;
use crate::reader::Reader;
use crate::relation::RelationInput;
use crate::sources::SourceStates;
use crate::{Name, RelationKind};

#[cfg(test)]
mod tests;

/// Chunks that a rider may leave unread.
const CHUNKS_AHEAD: usize = 2;
/// How long others wait for a rider.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

/// What a rider gets: rows, or why there are no more.
type Chunk = Result<Arc<TickDeltas>, Arc<ReadError>>;

/// Rows on their way to a rider.
pub(crate) struct Ride {
    rows: Receiver<Chunk>,
    complete: Arc<AtomicBool>,
}

impl Ride {
    /// The next rows; nothing once there are no more.
    pub(crate) fn next(&self) -> Result<Option<Arc<TickDeltas>>, String> {
        match self.rows.recv() {
            Ok(Ok(rows)) => Ok(Some(rows)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) if self.complete.load(Ordering::Acquire) => Ok(None),
            Err(_) => Err("the reading of the log ended early".into()),
        }
    }
}

/// The streams of one log, read by as few passes as there can be.
pub(crate) struct Passes {
    log: Log,
    sources_topic: TopicId,
    /// Those who wait to board the shared pass; `None`: there is none.
    boarding: Mutex<Option<Vec<Rider>>>,
    /// Commits read, by all passes.
    commits_read: AtomicU64,
}

/// Someone who reads streams up to a position.
struct Rider {
    streams: BTreeMap<Name, Arc<Relation>>,
    end: Position,
    /// What it has yet to get: after the first position, up to and with the second.
    stretches: Vec<(Position, Position)>,
    chunks: SyncSender<Chunk>,
    /// Set when it has everything.
    complete: Arc<AtomicBool>,
}

impl Passes {
    pub(crate) fn new(log: Log, sources_topic: TopicId) -> Arc<Self> {
        Arc::new(Self {
            log,
            sources_topic,
            boarding: Mutex::new(None),
            commits_read: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Rider>>> {
        self.boarding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits that were read for views that catch up, each as often as it was read.
    pub(crate) fn commits_read(&self) -> u64 {
        self.commits_read.load(Ordering::Relaxed)
    }

    /// The rows of `streams` up to `end`, in any order; the channel ends after the last.
    pub(crate) fn ride(self: &Arc<Self>, streams: Vec<Arc<Relation>>, end: Position) -> Ride {
        let (rider, ride) = rider(streams, end);
        let mut boarding = self.lock();
        match &mut *boarding {
            Some(waiting) => waiting.push(rider),
            None => {
                *boarding = Some(vec![rider]);
                self.start(true, Vec::new());
            }
        }
        ride
    }

    fn start(self: &Arc<Self>, shared: bool, riders: Vec<Rider>) {
        let passes = Arc::clone(self);
        let pass = Pass { passes, shared, riders, position: Position::ZERO };
        let thread = thread::Builder::new().name("pass".into()).spawn(move || {
            evert_env::give_way();
            pass.run();
        });
        if let Err(error) = thread {
            // Whoever rides finds its channel ended before its rows are complete.
            tracing::error!(%error, "no thread to read the log with");
        }
    }
}

/// Someone who wants the rows of `streams` up to `end`, and where they come out.
fn rider(streams: Vec<Arc<Relation>>, end: Position) -> (Rider, Ride) {
    let (chunks, rows) = sync_channel(CHUNKS_AHEAD);
    let complete = Arc::new(AtomicBool::new(false));
    let named = |stream: Arc<Relation>| (stream.name.clone(), stream);
    let streams = streams.into_iter().map(named).collect();
    let (stretches, done) = (Vec::new(), Arc::clone(&complete));
    (Rider { streams, end, stretches, chunks, complete: done }, Ride { rows, complete })
}

struct Pass {
    passes: Arc<Passes>,
    /// Whether others may board.
    shared: bool,
    riders: Vec<Rider>,
    position: Position,
}

impl Pass {
    fn run(mut self) {
        if let Err(error) = self.read() {
            let error = Arc::new(error);
            let waiting = if self.shared { self.passes.lock().take() } else { None };
            for rider in self.riders.iter().chain(waiting.iter().flatten()) {
                // A rider that has gone needs no answer.
                drop(rider.chunks.send(Err(Arc::clone(&error))));
            }
        }
    }

    fn read(&mut self) -> Result<(), ReadError> {
        let mut reader = Reader::new(&self.passes.log, self.position)?;
        loop {
            self.board();
            if self.riders.is_empty() && self.ends() {
                return Ok(());
            }
            let Some(stop) = self.next_stop() else {
                // All that is left lies before: once more from the beginning.
                self.position = Position::ZERO;
                reader = Reader::new(&self.passes.log, self.position)?;
                continue;
            };
            let from = self.position;
            let tick = self.read_chunk(&mut reader, stop)?;
            self.hand_out(from, &Arc::new(tick));
        }
    }

    /// Takes in those who wait.
    fn board(&mut self) {
        if !self.shared {
            return;
        }
        let waiting = self.passes.lock().as_mut().map(std::mem::take).unwrap_or_default();
        for mut rider in waiting {
            let (here, end) = (self.position.min(rider.end), rider.end);
            rider.stretches = vec![(here, end), (Position::ZERO, here)];
            rider.stretches.retain(|(from, to)| from < to);
            self.riders.push(rider);
        }
        self.riders.retain(Rider::needs_more);
    }

    /// Whether nobody waits either; nobody can board after that.
    fn ends(&self) -> bool {
        if !self.shared {
            return true;
        }
        let mut boarding = self.passes.lock();
        let ends = boarding.as_ref().is_none_or(Vec::is_empty);
        if ends {
            *boarding = None;
        }
        ends
    }

    /// Where the next chunk must end at the latest; nothing if nobody wants what lies ahead.
    fn next_stop(&self) -> Option<Position> {
        let stretches = self.riders.iter().flat_map(|rider| &rider.stretches);
        let ahead = stretches.clone().any(|(from, _)| *from >= self.position)
            || stretches.clone().any(|(from, to)| (*from..*to).contains(&self.position));
        let borders = stretches.flat_map(|(from, to)| [*from, *to]);
        borders.filter(|border| *border > self.position).min().filter(|_| ahead)
    }

    fn read_chunk(&mut self, reader: &mut Reader, stop: Position) -> Result<TickDeltas, ReadError> {
        let mut streams = Cohort::empty(SourceStates::new(self.passes.sources_topic));
        let mut wanted: BTreeMap<&Name, &Arc<Relation>> = BTreeMap::new();
        self.riders.iter().for_each(|rider| wanted.extend(&rider.streams));
        for relation in wanted.into_values() {
            streams.add_relation(RelationInput::new(Arc::clone(relation)));
        }
        self.position = loop {
            let Some(commit) = reader.next_upto(stop)? else { break stop };
            self.passes.commits_read.fetch_add(1, Ordering::Relaxed);
            streams.push(&commit);
            if streams.pending_bytes() >= STEP_BYTES {
                break commit.position;
            }
        };
        Ok(streams.fold())
    }

    fn hand_out(&mut self, from: Position, tick: &Arc<TickDeltas>) {
        let deadline = Instant::now() + PATIENCE;
        for mut rider in std::mem::take(&mut self.riders) {
            let wants = |(a, b): &(Position, Position)| *a <= from && self.position <= *b;
            if !rider.stretches.iter().any(wants) {
                self.riders.push(rider);
                continue;
            }
            match self.send(&rider, tick, deadline) {
                Sent::Taken => {
                    rider.advance(from, self.position);
                    if rider.needs_more() {
                        self.riders.push(rider);
                    }
                }
                Sent::TooSlow => self.passes.start(false, vec![rider]),
                Sent::Gone => {}
            }
        }
    }

    fn send(&self, rider: &Rider, tick: &Arc<TickDeltas>, deadline: Instant) -> Sent {
        loop {
            match rider.chunks.try_send(Ok(Arc::clone(tick))) {
                Ok(()) => return Sent::Taken,
                Err(TrySendError::Disconnected(_)) => return Sent::Gone,
                Err(TrySendError::Full(_)) if self.shared && Instant::now() > deadline => {
                    return Sent::TooSlow;
                }
                Err(TrySendError::Full(_)) => thread::sleep(PAUSE),
            }
        }
    }
}

enum Sent {
    Taken,
    TooSlow,
    Gone,
}

impl Rider {
    /// It has what lies between the two positions.
    fn advance(&mut self, from: Position, to: Position) {
        for stretch in &mut self.stretches {
            if stretch.0 == from {
                stretch.0 = to;
            }
        }
        self.stretches.retain(|(from, to)| from < to);
    }

    fn needs_more(&self) -> bool {
        let more = !self.stretches.is_empty();
        if !more {
            self.complete.store(true, Ordering::Release);
        }
        more
    }
}

/// Those of `relations` that keep no rows, so that their past is in the log only.
pub(crate) fn streams_among<'a>(
    relations: impl Iterator<Item = &'a Arc<Relation>>,
) -> Vec<Arc<Relation>> {
    relations.filter(|relation| relation.kind == RelationKind::Stream).map(Arc::clone).collect()
}
