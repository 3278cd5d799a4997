//! Subscriptions: the changes of one relation or view, in order, from any position.
//!
//! Owns: where a subscription stands, and how it goes from a snapshot or a replay to the live
//! changes without gap or repeat.
//! Not here: how changes are shown to clients (the doors), how many are kept (`history`).
//!
//! Invariants
//! - What a subscription has given up to a complete [`Changes`] at P, added to the rows at its
//!   beginning, is the rows at P.
//! - A subscription holds at most a few steps of changes; one that is too slow for what is kept
//!   replays the log, and holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use evert_fold::Snapshot;
use evert_log::ReadError;
use evert_model::{Delta, LogTime, Position, RowSchema};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;

use crate::catalog::Catalog;
use crate::cohort::Cut;
use crate::history::After;
use crate::past::{PastError, PrivateFold, Step};
use crate::{Name, PinError, Views};

/// Steps of a replay that wait for their reader.
const STEPS_AHEAD: usize = 2;
/// How long a replay waits for its reader before it makes room for another; it is begun again
/// when the reader goes on.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a view that folds apart.
const LANE_PAUSE: Duration = Duration::from_millis(20);

/// Where a subscription begins, and where it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscribeFrom {
    /// Begins with all rows of that moment, each as an insert.
    pub snapshot: bool,
    /// The moment; now if not given.
    pub after: Option<Position>,
    /// Ends once everything up to here was given.
    pub upto: Option<Position>,
}

/// What changed up to a position.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The position of the change.
    pub position: Position,
    /// The log's time there.
    pub log_time: LogTime,
    /// Retractions, then insertions; none if only the position moved.
    pub deltas: Vec<Delta>,
    /// Whether this is all up to that position; otherwise more of the same position follows.
    pub complete: bool,
}

/// The changes of one relation or view. Dropping it ends it.
pub struct Subscription {
    views: Views,
    name: Name,
    schema: RowSchema,
    /// The definitions by which it has told rows so far.
    catalog: Arc<Catalog>,
    /// Everything up to here was given.
    at: Position,
    upto: Option<Position>,
    stage: Stage,
    cuts: watch::Receiver<Arc<Cut>>,
    /// It has begun in the past: each change from there on is told at its own position.
    in_past: bool,
    /// The rows at `at`, where they may be wanted to find out what has changed since.
    held: Option<Snapshot>,
}

type Rows = Box<dyn Iterator<Item = Result<RecordBatch, ReadError>> + Send>;
type NextRows = (Rows, Option<Result<RecordBatch, ReadError>>);

enum Stage {
    /// All rows of a cut, read on a thread that may wait: those of a stream come from files.
    Snapshot(JoinHandle<NextRows>, LogTime),
    /// Steps of a private fold, from a thread of its own.
    Replay(mpsc::Receiver<Result<Changes, PastError>>),
    Live,
    Ended,
}

/// Reads the next rows, to be awaited.
fn read_next(mut rows: Rows) -> JoinHandle<NextRows> {
    tokio::task::spawn_blocking(move || {
        let next = rows.next();
        (rows, next)
    })
}

impl Views {
    /// Begins to follow a relation or view, once it can be read.
    ///
    /// # Errors
    /// When there is none of the name, it cannot be read, or the position is out of reach.
    pub async fn subscribe(
        &self,
        name: &Name,
        from: SubscribeFrom,
    ) -> Result<Subscription, PastError> {
        let catalog = self.catalog();
        let schema = schema_of(&catalog, name)?;
        let end = self.log().end();
        if let Some(after) = from.after.filter(|after| *after > end) {
            return Err(PastError::Future { wanted: after, end });
        }
        let cuts = self.watch();
        let names = std::slice::from_ref(name);
        let cut = self.pin(names, Position::ZERO, Duration::MAX).await?;
        let at = from.after.unwrap_or(cut.position);
        let mut subscription = Subscription {
            views: self.clone(),
            name: name.clone(),
            schema,
            catalog,
            at,
            upto: from.upto,
            stage: Stage::Live,
            cuts,
            in_past: at < cut.position,
            held: None,
        };
        if from.snapshot {
            let cut = match at == cut.position {
                true => cut,
                false => self.cut_at(names, at).await?,
            };
            let rows = read_next(self.rows(name, &cut)?);
            subscription.held = cut.snapshots.get(name).cloned();
            subscription.stage = Stage::Snapshot(rows, cut.log_time);
        }
        Ok(subscription)
    }

    /// The rows that a relation or view has in a cut, as batches. Blocks where they are a
    /// stream's.
    fn rows(&self, name: &Name, cut: &Cut) -> Result<Rows, PastError> {
        if let Some(snapshot) = cut.snapshots.get(name) {
            return Ok(Box::new(snapshot.scan(None).map(Ok)));
        }
        let catalog = self.catalog();
        let relation = catalog.relations.get(name);
        let relation = relation.ok_or_else(|| PinError::Unknown(name.clone()))?;
        let ends = cut.streams.get(name).map_or(&[][..], Vec::as_slice);
        Ok(Box::new(self.scan_stream(relation, ends, None)))
    }
}

fn schema_of(catalog: &Catalog, name: &Name) -> Result<RowSchema, PinError> {
    let view = catalog.views.get(name).map(|view| view.schema.clone());
    let schema =
        view.or_else(|| catalog.relations.get(name).map(|relation| relation.schema.clone()));
    schema.ok_or_else(|| PinError::Unknown(name.clone()))
}

/// Whether a view, and all views that it reads, are by the same definitions in both.
fn same_views(before: &Catalog, now: &Catalog, name: &Name) -> bool {
    let same = |name: &Name| match (before.views.get(name), now.views.get(name)) {
        (Some(before), Some(now)) => before.sql == now.sql && before.inputs == now.inputs,
        (None, None) => true,
        _ => false,
    };
    before.closure(std::slice::from_ref(name)).iter().all(same)
}

impl Subscription {
    /// The columns of the rows.
    pub fn schema(&self) -> &RowSchema {
        &self.schema
    }

    /// Everything up to here was given.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The next changes, as soon as there are some; `None` after the end. An error ends it too.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Changes, PastError>> {
        let next = self.advance().await;
        match &next {
            Some(Ok(changes)) if changes.complete => {
                self.at = changes.position;
                if self.upto.is_some_and(|upto| upto <= self.at) {
                    self.stage = Stage::Ended;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => self.stage = Stage::Ended,
        }
        next
    }

    async fn advance(&mut self) -> Option<Result<Changes, PastError>> {
        loop {
            match &mut self.stage {
                Stage::Ended => return None,
                Stage::Snapshot(reading, log_time) => {
                    let (position, log_time) = (self.at, *log_time);
                    let (deltas, complete) = match (&mut *reading).await {
                        Ok((rows, Some(Ok(batch)))) => {
                            *reading = read_next(rows);
                            (vec![Delta::inserts(batch)], false)
                        }
                        Ok((_, Some(Err(error)))) => return Some(Err(error.into())),
                        Ok((_, None)) => (Vec::new(), true),
                        Err(_) => return Some(Err(PinError::Stopping.into())),
                    };
                    if complete {
                        self.stage = Stage::Live;
                    }
                    return Some(Ok(Changes { position, log_time, deltas, complete }));
                }
                Stage::Replay(steps) => match steps.recv().await {
                    Some(step) => return Some(step),
                    None => self.stage = Stage::Live,
                },
                Stage::Live => {
                    if self.upto.is_some_and(|upto| upto <= self.at) {
                        return None;
                    }
                    match self.live().await {
                        Ok(None) => {}
                        Ok(Some(changes)) => return Some(Ok(changes)),
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
    }

    /// The next live tick; `None` when something has happened and it is to be looked again.
    async fn live(&mut self) -> Result<Option<Changes>, PastError> {
        self.cuts.borrow_and_update();
        self.check()?;
        let now = self.views.catalog();
        if !Arc::ptr_eq(&now, &self.catalog) {
            if !same_views(&self.catalog, &now, &self.name) {
                return self.change_over(now).await;
            }
            self.catalog = now;
        }
        let history = &self.views.shared().history;
        if self.at > history.reached() {
            self.cuts.changed().await.map_err(|_| PinError::Stopping)?;
            return Ok(None);
        }
        match history.after(&self.name, self.at) {
            After::Tick(tick) if self.upto.is_none_or(|upto| tick.upto <= upto) => {
                self.held = None;
                let deltas = signed(tick.changes_of(&self.name));
                let (position, log_time) = (tick.upto, tick.log_time);
                Ok(Some(Changes { position, log_time, deltas, complete: true }))
            }
            // A tick that goes past the end is cut there.
            After::Tick(_) => self.replay().await.map(|()| None),
            After::NotKept => self.catch_up().await,
            After::Nothing => {
                self.cuts.changed().await.map_err(|_| PinError::Stopping)?;
                Ok(None)
            }
        }
    }

    /// The view, or one that it reads, has another SELECT: tells by which rows it differs from
    /// what was told so far.
    async fn change_over(&mut self, now: Arc<Catalog>) -> Result<Option<Changes>, PastError> {
        let names = std::slice::from_ref(&self.name);
        let cut = self.views.pin(names, self.at, Duration::MAX).await?;
        let cut = match self.upto.filter(|upto| cut.position > *upto) {
            Some(upto) => self.views.cut_at(names, upto).await?,
            None => cut,
        };
        // What was replaced meanwhile again is told next.
        if !same_views(&now, &self.views.catalog(), &self.name) {
            return Ok(None);
        }
        let before = match self.held.take() {
            Some(held) => held,
            None => self.told_so_far().await?,
        };
        let gone = || PinError::Unknown(self.name.clone());
        let after = cut.snapshots.get(&self.name).cloned().ok_or_else(gone)?;
        if before.schema() != after.schema() {
            return Err(PastError::Replaced(self.name.clone()));
        }
        let held = after.clone();
        let compare = tokio::task::spawn_blocking(move || signed(after.changes_since(&before)));
        let deltas = compare.await.map_err(|_| PinError::Stopping)?;
        (self.held, self.catalog) = (Some(held), now);
        let (position, log_time) = (cut.position.max(self.at), cut.log_time);
        Ok(Some(Changes { position, log_time, deltas, complete: true }))
    }

    /// The rows where it stands, by the definitions of before.
    async fn told_so_far(&self) -> Result<Snapshot, PastError> {
        let permit = self.views.replay_permit().await?;
        let (views, catalog) = (self.views.clone(), Arc::clone(&self.catalog));
        let (name, at) = (self.name.clone(), self.at);
        let fold = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let _spills = evert_env::spill::spills_here();
            let names = std::slice::from_ref(&name);
            let planner = views.planner().as_ref();
            let mut fold = PrivateFold::towards(at, views.shared(), planner, &catalog, names)?;
            fold.advance(at, Step::Large, |_, _, _| true)?;
            let held = fold.cut().snapshots.remove(&name);
            held.ok_or_else(|| PastError::from(PinError::Unknown(name)))
        });
        fold.await.map_err(|_| PinError::Stopping)?
    }

    /// Goes on from where no tick does: with a view that folds apart by comparing what it
    /// publishes, with anything else by a replay.
    async fn catch_up(&mut self) -> Result<Option<Changes>, PastError> {
        if std::mem::take(&mut self.in_past) {
            return self.replay().await.map(|()| None);
        }
        let lane = self.views.shared().lane_of(&self.name);
        let cut = match &lane {
            Some(face) => face.cut(),
            None => Some(self.views.shared().cut()),
        };
        let near = |cut: &Arc<Cut>| self.upto.is_none_or(|upto| cut.position <= upto);
        let cut = match (cut, &lane) {
            (Some(cut), _) if cut.position > self.at && near(&cut) => cut,
            (Some(cut), Some(_)) if cut.position > self.at => {
                return self.replay().await.map(|()| None);
            }
            (_, Some(_)) => {
                let pause = tokio::time::timeout(LANE_PAUSE, self.cuts.changed());
                // Whatever has happened, it is looked again.
                drop(pause.await);
                return Ok(None);
            }
            _ => return self.replay().await.map(|()| None),
        };
        let before = match (&self.held, &lane) {
            (Some(held), _) => Some(held.clone()),
            (None, Some(_)) => {
                let past = self.views.cut_at(std::slice::from_ref(&self.name), self.at).await?;
                past.snapshots.get(&self.name).cloned()
            }
            (None, None) => None,
        };
        let (Some(before), Some(after)) = (before, cut.snapshots.get(&self.name).cloned()) else {
            return self.replay().await.map(|()| None);
        };
        if before.schema() != after.schema() {
            return Err(PastError::Replaced(self.name.clone()));
        }
        let held = after.clone();
        let compare = tokio::task::spawn_blocking(move || signed(after.changes_since(&before)));
        let deltas = compare.await.map_err(|_| PinError::Stopping)?;
        self.held = Some(held);
        let (position, log_time) = (cut.position, cut.log_time);
        Ok(Some(Changes { position, log_time, deltas, complete: true }))
    }

    /// Whether it is still what it was when the subscription began.
    fn check(&self) -> Result<(), PastError> {
        let shared = self.views.shared();
        if let Some(why) = shared.stopped() {
            let name = self.name.clone();
            return Err(match why {
                Some(why) => PinError::Failed { name, why }.into(),
                None => PinError::Stopping.into(),
            });
        }
        let lane = shared.lane_of(&self.name).and_then(|face| face.cut());
        for cut in lane.into_iter().chain([shared.cut()]) {
            if let Some(why) = cut.failed.get(&self.name) {
                let (name, why) = (self.name.clone(), why.to_string());
                return Err(PinError::Failed { name, why }.into());
            }
        }
        match schema_of(&self.views.catalog(), &self.name) {
            Ok(schema) if schema.columns == self.schema.columns => Ok(()),
            _ => Err(PastError::Replaced(self.name.clone())),
        }
    }

    /// Folds the log privately up to where the subscription stands, and on to where live changes
    /// take over.
    async fn replay(&mut self) -> Result<(), PastError> {
        let permit = self.views.replay_permit().await?;
        let (sender, receiver) = mpsc::channel(STEPS_AHEAD);
        let (views, name) = (self.views.clone(), self.name.clone());
        let (from, upto) = (self.at, self.upto);
        let catalog = Arc::clone(&self.catalog);
        let job = Replay { views, catalog, name, from, upto, sender, _permit: permit };
        self.held = None;
        tokio::task::spawn_blocking(move || job.run());
        self.stage = Stage::Replay(receiver);
        Ok(())
    }
}

/// A replay for one subscription.
struct Replay {
    views: Views,
    catalog: Arc<Catalog>,
    name: Name,
    /// A position that the live views have reached.
    from: Position,
    upto: Option<Position>,
    sender: mpsc::Sender<Result<Changes, PastError>>,
    _permit: OwnedSemaphorePermit,
}

impl Replay {
    fn run(self) {
        if let Err(error) = self.fold() {
            // A reader that is gone need not be told.
            self.send(Err(error));
        }
    }

    fn fold(&self) -> Result<(), PastError> {
        let (shared, catalog) = (self.views.shared(), &*self.catalog);
        let names = std::slice::from_ref(&self.name);
        let planner = self.views.planner().as_ref();
        let mut fold = PrivateFold::towards(self.from, shared, planner, catalog, names)?;
        fold.advance(self.from, Step::Large, |_, _, _| !self.sender.is_closed())?;
        loop {
            let reached = shared.history.reached();
            let end = self.upto.map_or(reached, |upto| upto.min(reached)).max(self.from);
            let mut listens = true;
            fold.advance(end, Step::Commit, |position, log_time, tick| {
                let deltas = signed(tick.get(&self.name).cloned().unwrap_or_default());
                if deltas.is_empty() {
                    return !self.sender.is_closed();
                }
                let position = position.max(self.from);
                listens = self.send(Ok(Changes { position, log_time, deltas, complete: true }));
                listens
            })?;
            let Cut { log_time, failed, .. } = fold.cut();
            if let Some(why) = failed.get(&self.name) {
                let (name, why) = (self.name.clone(), why.to_string());
                return Err(PinError::Failed { name, why }.into());
            }
            // Between two commits nothing changes: the last step reaches the end.
            let last = Changes { position: end, log_time, deltas: Vec::new(), complete: true };
            if !listens || !self.send(Ok(last)) || self.upto == Some(end) {
                return Ok(());
            }
            if !matches!(shared.history.after(&self.name, end), After::NotKept) {
                return Ok(());
            }
        }
    }

    /// Says whether to go on. Not when the reader is gone or does not read.
    fn send(&self, step: Result<Changes, PastError>) -> bool {
        let send = self.sender.send_timeout(step, READER_PATIENCE);
        tokio::runtime::Handle::current().block_on(send).is_ok()
    }
}

/// The same changes, what is retracted before what is inserted.
fn signed(deltas: Vec<Delta>) -> Vec<Delta> {
    let of_sign = |delta: &Delta, sign: i64| {
        let mask: BooleanArray =
            delta.weights.values().iter().map(|weight| Some(weight.signum() == sign)).collect();
        if mask.true_count() == delta.len() {
            return delta.clone();
        }
        let rows = filter_record_batch(&delta.rows, &mask).expect("one bit a row");
        let weights = filter(&delta.weights, &mask).expect("one bit a row");
        Delta::new(rows, weights.as_primitive().clone())
    };
    let mut ordered: Vec<_> = deltas.iter().map(|delta| of_sign(delta, -1)).collect();
    ordered.extend(deltas.iter().map(|delta| of_sign(delta, 1)));
    ordered.retain(|delta| !delta.is_empty());
    ordered
}
