//! Hydration: a new relation or view catches up on its own before it joins the live cohort.
//!
//! A relation replays its topic. A view starts from a cut's snapshots of what it reads (streams:
//! from their records) and then from the changes that its lane's tap has kept since. Both hold
//! nobody up: the live cohort only waits for the last few ticks, at the cut of joining.

use std::collections::BTreeSet;

use evert_fold::Snapshot;
use evert_log::{Log, ReadError};
use evert_model::{Delta, Position};

use crate::Name;
use crate::cohort::{Cohort, Cut, TickDeltas};
use crate::group::Group;
use crate::pass::streams_among;
use crate::progress::{Progress, Stage};
use crate::reader::Reader;
use crate::relation::RelationInput;
use crate::shared::Shared;
use crate::sources::SourceStates;

/// Bytes of records folded at a time.
pub(crate) const STEP_BYTES: usize = 8 << 20;
/// Commits that may be left for the cut of joining.
const COMMITS_LEFT: u64 = 1000;

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
        progress.begin(Stage::Replaying, end.get() - self.cohort.position().get());
        let from = self.cohort.position().get();
        while !progress.is_cancelled()
            && let Some(commit) = self.reader.next_upto(end)?
        {
            self.cohort.push(&commit);
            if self.cohort.pending_bytes() >= STEP_BYTES {
                self.cohort.fold();
                progress.set_done(commit.position.get() - from, end.get() - from);
            }
        }
        self.cohort.fold();
        Ok(())
    }

    /// The records that could not be read so far.
    pub(crate) fn errors(&self) -> Snapshot {
        self.cohort.cut().snapshots.remove(&crate::errors::name()).expect("every cut has errors")
    }

    /// The relation with its rows.
    pub(crate) fn into_relations(self) -> Vec<RelationInput> {
        self.cohort.into_relations()
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

/// Folds into new views what their inputs hold at `start`: rows from its snapshots, streams from
/// the log. Ends early when cancelled.
pub(crate) fn load(
    group: &mut Group,
    shared: &Shared,
    start: &Cut,
    progress: &Progress,
) -> Result<(), String> {
    let inputs = group.inputs();
    let snapshots = || inputs.iter().filter_map(|name| Some((name, start.snapshots.get(name)?)));
    let rows: usize = snapshots().map(|(_, snapshot)| snapshot.len()).sum();
    progress.begin(Stage::Loading, rows as u64);
    for (name, snapshot) in snapshots() {
        for delta in snapshot.as_deltas() {
            if progress.is_cancelled() {
                return Ok(());
            }
            progress.add_done(delta.len() as u64);
            let tick = TickDeltas::from([(name.clone(), vec![delta])]);
            group.fold(start.log_time, tick, &start.failed);
            group.errors.fold();
        }
    }
    load_streams(group, shared, &inputs, start, progress)?;
    // Views over nothing, or over empty inputs, have their first tick now.
    group.fold(start.log_time, TickDeltas::new(), &start.failed);
    group.errors.fold();
    Ok(())
}

fn load_streams(
    group: &mut Group,
    shared: &Shared,
    inputs: &BTreeSet<Name>,
    start: &Cut,
    progress: &Progress,
) -> Result<(), String> {
    let catalog = shared.catalog();
    let streams = streams_among(inputs.iter().filter_map(|input| catalog.relations.get(input)));
    if streams.is_empty() {
        return Ok(());
    }
    let records = inputs.iter().filter_map(|input| start.streams.get(input)).flatten();
    let records: i64 = records.map(|end| end.get()).sum();
    progress.begin(Stage::Replaying, records as u64);
    let ride = shared.passes.ride(streams, start.position);
    while let Some(chunk) = ride.next()? {
        if progress.is_cancelled() {
            return Ok(());
        }
        // Only what is read here: others may ride along for other streams.
        let wanted = chunk.iter().filter(|(name, _)| inputs.contains(*name));
        let tick: TickDeltas = wanted.map(|(name, rows)| (name.clone(), rows.clone())).collect();
        progress.add_done(tick.values().flatten().map(|delta| delta.len() as u64).sum());
        group.fold(start.log_time, tick, &start.failed);
        group.errors.fold();
    }
    Ok(())
}

fn retracted(snapshot: &Snapshot) -> impl Iterator<Item = Delta> {
    snapshot.as_deltas().map(|delta| {
        let weights = delta.weights.unary(|weight: i64| -weight);
        Delta::new(delta.rows, weights)
    })
}

/// What has changed in `inputs` from one cut to a later one: rows by comparing snapshots, streams
/// from the log. Each chunk is handed to `fold`.
pub(crate) fn changes_between(
    shared: &Shared,
    inputs: &BTreeSet<Name>,
    from: &Cut,
    to: &Cut,
    progress: &Progress,
    mut fold: impl FnMut(TickDeltas),
) -> Result<(), String> {
    for name in inputs {
        let (Some(before), Some(after)) = (from.snapshots.get(name), to.snapshots.get(name)) else {
            continue;
        };
        // With more columns than before all rows are others.
        let changes = match before.schema() == after.schema() {
            true => after.changes_since(before),
            false => retracted(before).chain(after.as_deltas()).collect(),
        };
        fold(TickDeltas::from([(name.clone(), changes)]));
    }
    let catalog = shared.catalog();
    let streams = streams_among(inputs.iter().filter_map(|input| catalog.relations.get(input)));
    if streams.is_empty() {
        return Ok(());
    }
    let mut cohort = Cohort::empty(SourceStates::new(shared.sources_topic));
    for stream in streams {
        cohort.add_relation(RelationInput::new(stream));
    }
    let mut reader = Reader::new(&shared.log, from.position).map_err(|error| error.to_string())?;
    while let Some(commit) = reader.next_upto(to.position).map_err(|error| error.to_string())? {
        if progress.is_cancelled() {
            return Ok(());
        }
        cohort.push(&commit);
        if cohort.pending_bytes() >= STEP_BYTES {
            fold(cohort.fold());
        }
    }
    fold(cohort.fold());
    Ok(())
}
