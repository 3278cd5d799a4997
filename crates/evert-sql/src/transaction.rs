//! Transactions: what a session reads and has written between BEGIN and COMMIT.
//!
//! Every statement runs in one; a statement outside BEGIN ... COMMIT has its own.
//!
//! Invariants
//! - All reads of a transaction are of one cut, with its own writes laid over it.
//! - Its writes become one commit. At that moment every key that it touched holds what the
//!   transaction saw there, or nothing is written (40001).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::row::OwnedRow;
use evert_log::{NewCommit, NewPart};
use evert_model::Position;
use evert_view::{Cut, Name, Relation, RelationKind, RowChange, Views};

use crate::engine::Inner;
use crate::error::{INTERNAL_ERROR, SERIALIZATION_FAILURE};
use crate::overlay::{Keys, Overlay};
use crate::scan::Rows;
use crate::{SqlError, system, translate};

/// Above this a commit goes into the log in pieces, with a marker.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// A transaction in progress.
#[derive(Default)]
pub(crate) struct Transaction {
    /// What it reads, from its first read on.
    cut: Option<Arc<Cut>>,
    writes: BTreeMap<Name, Writes>,
    /// SET TRANSACTION READ ONLY.
    pub(crate) read_only: bool,
}

/// What a transaction does to one relation.
#[derive(Clone)]
struct Writes {
    relation: Arc<Relation>,
    changes: Vec<RowChange>,
    /// Tables only.
    table: Option<TableWrites>,
}

#[derive(Clone)]
struct TableWrites {
    keys: Arc<Keys>,
    overlay: Arc<Overlay>,
    /// What the cut held under each key that was touched. Empty where nothing needs a check.
    seen: HashMap<OwnedRow, Seen>,
}

/// A key that was touched, and the row that the transaction's cut held under it.
#[derive(Clone)]
struct Seen {
    key: RecordBatch,
    row: Option<RecordBatch>,
}

/// Whether what a statement wrote over must still be there at COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// BEGIN ... COMMIT.
    AtCommit,
    /// A single statement: it reads at the log's end with writers shut out, or reads nothing.
    No,
}

/// Which of `names` a cut does not hold: views that fold apart, or are newer.
fn missing(cut: &Cut, names: &[Name]) -> Vec<Name> {
    let held = |name: &&Name| cut.snapshots.contains_key(name) || cut.streams.contains_key(name);
    names.iter().filter(|name| !held(name)).cloned().collect()
}

/// A transaction's writes at a savepoint.
pub(crate) struct Savepoint {
    writes: BTreeMap<Name, Writes>,
}

impl Transaction {
    /// One that reads this cut.
    pub(crate) fn at(cut: Arc<Cut>) -> Self {
        Self { cut: Some(cut), ..Self::default() }
    }

    /// What [`Transaction::return_to`] goes back to.
    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint { writes: self.writes.clone() }
    }

    /// Forgets what was written since the savepoint. Reads stay those of the same cut.
    pub(crate) fn return_to(&mut self, savepoint: &Savepoint) {
        self.writes = savepoint.writes.clone();
    }

    /// The cut that this transaction reads, pinned at its first read.
    pub(crate) async fn pin(
        &mut self,
        engine: &Inner,
        names: &[Name],
        at_least: Position,
        timeout: Duration,
    ) -> Result<Arc<Cut>, SqlError> {
        if let Some(cut) = &self.cut {
            let cut = match missing(cut, names) {
                missing if missing.is_empty() => Arc::clone(cut),
                missing => {
                    let more = engine.views.cut_at(&missing, cut.position);
                    let more = more.await.map_err(|error| translate::past(&error))?;
                    let mut whole = Cut::clone(cut);
                    whole.snapshots.extend(more.snapshots.clone());
                    whole.streams.extend(more.streams.clone());
                    Arc::new(whole)
                }
            };
            self.cut = Some(Arc::clone(&cut));
            return Ok(cut);
        }
        let cut = engine.pin(names, at_least, timeout).await?;
        self.cut = Some(Arc::clone(&cut));
        Ok(cut)
    }

    /// Reads from now on are of a newer cut, unless the transaction has written already.
    pub(crate) fn renew(&mut self) {
        if !self.has_written() {
            self.cut = None;
        }
    }

    /// Counts rows of a table as touched, by their keys. The transaction has pinned the table.
    pub(crate) fn hold(
        &mut self,
        relation: &Arc<Relation>,
        keys: &RecordBatch,
    ) -> Result<(), SqlError> {
        let Some(snapshot) = self.cut.as_ref().and_then(|cut| cut.snapshots.get(&relation.name))
        else {
            return Ok(());
        };
        let before = |key: &RecordBatch, row| snapshot.get(key, row);
        let writes = match self.writes.entry(relation.name.clone()) {
            Entry::Occupied(writes) => writes.into_mut(),
            Entry::Vacant(place) => place.insert(Writes::new(relation)?),
        };
        match &mut writes.table {
            Some(table) => {
                table.remember(keys, &before).map_err(|error| translate::planning(&error, ""))
            }
            None => Ok(()),
        }
    }

    /// Whether there is anything to commit.
    pub(crate) fn has_written(&self) -> bool {
        self.writes.values().any(|writes| !writes.changes.is_empty())
    }

    /// The cut that it reads, if it has read.
    pub(crate) fn cut(&self) -> Option<&Cut> {
        self.cut.as_deref()
    }

    /// The same, to be held on to.
    pub(crate) fn shared_cut(&self) -> Option<Arc<Cut>> {
        self.cut.clone()
    }

    /// The rows of a relation as this transaction sees them.
    pub(crate) fn rows(&self, engine: &Inner, cut: &Cut, name: &Name) -> Result<Rows, SqlError> {
        if let Some(ends) = cut.streams.get(name)
            && let Some(relation) = engine.views.catalog().relations.get(name)
        {
            return Ok(Rows::Stream {
                views: engine.views.clone(),
                relation: Arc::clone(relation),
                ends: ends.clone(),
            });
        }
        let Some(snapshot) = cut.snapshots.get(name) else {
            return system::rows(engine, name);
        };
        match self.writes.get(name).and_then(|writes| writes.table.as_ref()) {
            Some(table) => Ok(Rows::Overlaid(snapshot.clone(), Arc::clone(&table.overlay))),
            None => Ok(Rows::Snapshot(snapshot.clone())),
        }
    }

    /// Writes a change. With [`Check::AtCommit`] the transaction has pinned the relation before.
    pub(crate) fn write(
        &mut self,
        relation: &Arc<Relation>,
        change: RowChange,
        check: Check,
    ) -> Result<(), SqlError> {
        let (RowChange::Put(rows) | RowChange::Delete(rows)) = &change;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let writes = match self.writes.entry(relation.name.clone()) {
            Entry::Occupied(writes) => writes.into_mut(),
            Entry::Vacant(place) => place.insert(Writes::new(relation)?),
        };
        if let Some(table) = &mut writes.table {
            let snapshot = match check {
                Check::AtCommit => {
                    self.cut.as_ref().and_then(|cut| cut.snapshots.get(&relation.name))
                }
                Check::No => None,
            };
            let internal = |error| translate::planning(&error, "");
            if let Some(snapshot) = snapshot {
                let before = |key: &RecordBatch, row| snapshot.get(key, row);
                let keys = table.keys.project(rows).map_err(internal)?;
                table.remember(&keys, &before).map_err(internal)?;
            }
            if check == Check::AtCommit {
                Arc::make_mut(&mut table.overlay).apply(&change).map_err(internal)?;
            }
        }
        writes.changes.push(change);
        Ok(())
    }

    /// Makes the writes one commit and waits until it is durable. Gives its position, if there
    /// was anything to write.
    pub(crate) async fn commit(
        self,
        engine: &Inner,
        timeout: Duration,
    ) -> Result<Option<Position>, SqlError> {
        if !self.has_written() {
            return Ok(None);
        }
        let must_check = self.writes.values().any(Writes::must_check);
        if must_check {
            let _alone = engine.dml.write().await;
            self.check(engine, timeout).await?;
            return self.append(engine).await.map(Some);
        }
        let _shared = engine.dml.read().await;
        self.append(engine).await.map(Some)
    }

    /// The same for a statement whose caller holds the lock already.
    pub(crate) async fn commit_locked(self, engine: &Inner) -> Result<Option<Position>, SqlError> {
        if self.writes.is_empty() {
            return Ok(None);
        }
        self.append(engine).await.map(Some)
    }

    /// Compares what the touched keys hold now with what the transaction saw.
    async fn check(&self, engine: &Inner, timeout: Duration) -> Result<(), SqlError> {
        let checked: Vec<_> =
            self.writes.iter().filter(|(_, writes)| writes.must_check()).collect();
        let names: Vec<_> = checked.iter().map(|(name, _)| (*name).clone()).collect();
        let now = engine.pin(&names, engine.log.end(), timeout).await?;
        for (name, writes) in checked {
            let gone = || {
                SqlError::new(SERIALIZATION_FAILURE, format!("\"{name}\" was dropped or replaced"))
            };
            let snapshot = now.snapshots.get(name).ok_or_else(gone)?;
            let current = engine.views.catalog();
            let current = current.relations.get(name).ok_or_else(gone)?;
            if current.topic_id != writes.relation.topic_id {
                return Err(gone());
            }
            let seen = writes.table.iter().flat_map(|table| table.seen.values());
            for Seen { key, row } in seen {
                if !same(&snapshot.get(key, 0), row) {
                    return Err(SqlError::new(
                        SERIALIZATION_FAILURE,
                        "could not serialize access due to concurrent update",
                    )
                    .detail(format!("A row of \"{name}\" changed after this transaction read it."))
                    .hint("Run the transaction again."));
                }
            }
        }
        Ok(())
    }

    async fn append(self, engine: &Inner) -> Result<Position, SqlError> {
        let refused = |error| translate::append(&error);
        let changes = self.writes.values().flat_map(|writes| &writes.changes);
        let bytes: usize = changes.map(bytes_of).sum();
        let mut parts = Vec::new();
        // What is encoded is larger than the rows, by their columns' names mostly.
        if bytes <= FRAME_BYTES_MAX {
            for writes in self.writes.values() {
                let encoded = engine.views.encode(&writes.relation, &writes.changes);
                parts.extend(encoded.map_err(|error| translate::catalog(&error))?);
            }
        }
        let bytes: usize = parts.iter().map(|part: &NewPart| part.batch.bytes().len()).sum();
        let receipt = if !parts.is_empty() && bytes <= FRAME_BYTES_MAX {
            engine.log.append(NewCommit { parts }).map_err(refused)?
        } else {
            let (log, views) = (engine.log.clone(), engine.views.clone());
            let appended = tokio::task::spawn_blocking(move || {
                let mut large = log.begin_large();
                let mut put = |part| large.append(part).map_err(refused);
                if parts.is_empty() {
                    self.encode_each(&views, &mut put)?;
                } else {
                    parts.into_iter().try_for_each(put)?;
                }
                large.commit().map_err(refused)
            });
            let stopped = |error| SqlError::new(INTERNAL_ERROR, format!("{error}"));
            appended.await.map_err(stopped)??
        };
        Ok(receipt.await.map_err(refused)?.position)
    }

    /// Encodes change by change, so that never all of it is there twice.
    fn encode_each(
        self,
        views: &Views,
        put: &mut dyn FnMut(NewPart) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        for writes in self.writes.into_values() {
            for change in writes.changes {
                let encoded = views.encode(&writes.relation, &[change]);
                encoded
                    .map_err(|error| translate::catalog(&error))?
                    .into_iter()
                    .try_for_each(&mut *put)?;
            }
        }
        Ok(())
    }
}

fn bytes_of(change: &RowChange) -> usize {
    let (RowChange::Put(rows) | RowChange::Delete(rows)) = change;
    rows.get_array_memory_size()
}

impl Writes {
    fn new(relation: &Arc<Relation>) -> Result<Self, SqlError> {
        let table = match relation.kind {
            RelationKind::Table => {
                let keys = Keys::of(&relation.schema);
                let keys = Arc::new(keys.map_err(|error| translate::planning(&error, ""))?);
                let overlay = Arc::new(Overlay::new(Arc::clone(&keys)));
                Some(TableWrites { keys, overlay, seen: HashMap::new() })
            }
            RelationKind::Stream | RelationKind::Bag => None,
        };
        Ok(Self { relation: Arc::clone(relation), changes: Vec::new(), table })
    }

    fn must_check(&self) -> bool {
        self.table.as_ref().is_some_and(|table| !table.seen.is_empty())
    }
}

impl TableWrites {
    /// Notes what the cut holds under `projected` keys, where that is not known yet.
    fn remember(
        &mut self,
        projected: &RecordBatch,
        before: &dyn Fn(&RecordBatch, usize) -> Option<RecordBatch>,
    ) -> datafusion::common::Result<()> {
        let keys = self.keys.of_keys(projected)?;
        for row in 0..projected.num_rows() {
            self.seen.entry(keys.row(row).owned()).or_insert_with(|| Seen {
                key: projected.slice(row, 1),
                row: before(projected, row),
            });
        }
        Ok(())
    }
}

/// Whether two rows of one table are equal.
fn same(a: &Option<RecordBatch>, b: &Option<RecordBatch>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.columns() == b.columns(),
        _ => false,
    }
}
