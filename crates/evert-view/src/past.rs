//! The past: relations and views as they were at a position, folded again privately.
//!
//! Owns: private replays, what they may cost, why the past may be out of reach.
//! Not here: the recent past, which needs no replay (`history`).
//!
//! Invariants
//! - A private fold shares nothing with the live ones and holds nobody up.
//! - What the log no longer holds whole is an error, never a partial answer.

use std::sync::Arc;

use evert_log::{Log, ReadError, Topic};
use evert_model::{LogTime, Offset, PartitionId, Position};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::catalog::Catalog;
use crate::checkpoint::{Restored, restore};
use crate::cohort::{Cohort, Cut, TickDeltas};
use crate::hydrate::STEP_BYTES;
use crate::planner::Planner;
use crate::reader::Reader;
use crate::shared::Shared;
use crate::sources::SourceStates;
use crate::{CatalogError, Name, PinError, Views, errors};

/// Private folds at a time, over all readers; each holds the state of what it folds.
pub(crate) const REPLAYS_MAX: usize = 2;

/// Why the past cannot be read.
#[derive(Debug, Error)]
pub enum PastError {
    /// The log does not go that far yet.
    #[error("position {wanted} is in the future: the log ends at {end}")]
    Future {
        /// What was asked for.
        wanted: Position,
        /// The log's end.
        end: Position,
    },
    /// The log has forgotten facts that the answer would need.
    #[error(
        "the log no longer reaches back: topic \"{topic}\", partition {partition} begins at \
         offset {log_start}"
    )]
    Forgotten {
        /// The topic.
        topic: String,
        /// The partition of it.
        partition: PartitionId,
        /// The first offset that is still there.
        log_start: Offset,
    },
    /// There was no moment of the log at or before this time.
    #[error("the log begins after that time")]
    BeforeBeginning,
    /// The relation or view changed its columns, or was dropped.
    #[error("\"{0}\" was dropped or replaced")]
    Replaced(Name),
    /// It cannot be read, now or then.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// How often the past was folded so far, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PastFolds {
    /// On from a checkpoint.
    pub from_checkpoint: u64,
    /// From the log's beginning.
    pub from_beginning: u64,
}

/// What is folded at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Many commits: only where they end up is asked for.
    Large,
    /// One commit, so that each change has its position.
    Commit,
}

/// Relations and views being folded from a checkpoint, or from the log's beginning.
pub(crate) struct PrivateFold {
    cohort: Cohort,
    reader: Reader,
}

impl PrivateFold {
    /// `names` and all that they read, somewhere at or before `position`: at the nearest
    /// checkpoint that has them all, or before the first commit.
    pub(crate) fn towards(
        position: Position,
        shared: &Shared,
        planner: &dyn Planner,
        catalog: &Catalog,
        names: &[Name],
    ) -> Result<Self, PastError> {
        let part = catalog.part(names);
        let sources = || SourceStates::new(shared.sources_topic);
        let moment = shared.moments.upto(position);
        let restored = moment.and_then(|moment| restore(&moment, &part, planner, sources()));
        let cohort = match restored {
            Some(Restored { cohort, relations, views, .. })
                if relations.is_empty() && views.is_empty() =>
            {
                shared.count_past_fold(|folds| folds.from_checkpoint += 1);
                cohort
            }
            _ => {
                shared.count_past_fold(|folds| folds.from_beginning += 1);
                let mut cohort = Cohort::of_catalog(&part, planner, sources());
                // Aggregates without groups have a row before the first commit already.
                cohort.fold();
                cohort
            }
        };
        check_reach(&shared.log, &part, &cohort)?;
        let reader = Reader::new(&shared.log, cohort.position())?;
        Ok(Self { cohort, reader })
    }

    /// Folds all commits up to `end`, a step at a time. `each` gets the changes of every step and
    /// says whether to go on.
    pub(crate) fn advance(
        &mut self,
        end: Position,
        step: Step,
        mut each: impl FnMut(Position, LogTime, &TickDeltas) -> bool,
    ) -> Result<(), ReadError> {
        let _spills = evert_env::spill::spills_here();
        loop {
            let commit = self.reader.next_upto(end)?;
            let last = commit.is_none();
            let mut log_time = None;
            if let Some(commit) = &commit {
                log_time = Some(commit.log_time);
                self.cohort.push(commit);
            }
            if last || self.is_due(step) {
                let tick = self.cohort.fold();
                let log_time = log_time.unwrap_or_else(|| self.cohort.log_time());
                if !each(self.cohort.position(), log_time, &tick) || last {
                    return Ok(());
                }
            }
        }
    }

    fn is_due(&self, step: Step) -> bool {
        match step {
            Step::Large => self.cohort.pending_bytes() >= STEP_BYTES,
            Step::Commit => {
                let by_time = self.cohort.due().is_some_and(|due| due <= self.cohort.log_time());
                self.cohort.pending_bytes() > 0 || by_time
            }
        }
    }

    /// What it holds. Positions between two commits show what the earlier one left.
    pub(crate) fn cut(&self) -> Cut {
        self.cohort.cut()
    }
}

/// Refuses when a topic of `catalog` has lost records that `cohort` has yet to fold.
fn check_reach(log: &Log, catalog: &Catalog, cohort: &Cohort) -> Result<(), PastError> {
    for relation in catalog.relations.values() {
        let Some(topic) = log.topic_by_id(relation.topic_id) else { continue };
        let folded = cohort.next_offsets().get(&topic.id);
        for partition in 0..topic.partitions {
            let next = folded.and_then(|ends| ends.get(partition as usize)).copied();
            let partition = PartitionId::new(partition);
            let log_start = log.partition_ends(topic.id, partition)?.log_start;
            if log_start > next.unwrap_or_default() {
                let topic = topic.name.clone();
                return Err(PastError::Forgotten { topic, partition, log_start });
            }
        }
    }
    Ok(())
}

/// Refuses when a topic has lost records that were committed after `position`.
pub(crate) fn check_reach_after(
    log: &Log,
    topic: &Topic,
    position: Position,
) -> Result<(), CatalogError> {
    for partition in (0..topic.partitions).map(PartitionId::new) {
        let log_start = log.partition_ends(topic.id, partition)?.log_start;
        let first = log.position_of(topic.id, partition, log_start)?;
        // Nothing can be said of what came before the first record that is left.
        if log_start > Offset::default() && first.is_none_or(|first| first > position) {
            let topic = topic.name.clone();
            let forgotten = PastError::Forgotten { topic, partition, log_start };
            return Err(CatalogError::Invalid(forgotten.to_string()));
        }
    }
    Ok(())
}

impl Views {
    /// All of `names` exactly at `position`: from the cuts that are kept, or folded again.
    /// Dropping the future ends the work.
    ///
    /// # Errors
    /// See [`PastError`].
    pub async fn cut_at(&self, names: &[Name], position: Position) -> Result<Arc<Cut>, PastError> {
        let shared = Arc::clone(self.shared());
        let end = shared.log.end();
        if position > end {
            return Err(PastError::Future { wanted: position, end });
        }
        let kept = shared.history.cut_at(position);
        let holds =
            |cut: &Cut, name| cut.snapshots.contains_key(name) || cut.streams.contains_key(name);
        if let Some(kept) = kept
            && let Some(cut) = self.with_lanes(&kept, names).await?
        {
            return Ok(cut);
        }
        let catalog = shared.catalog();
        let mut folded = names.to_vec();
        if names.contains(&errors::name()) {
            folded.extend(catalog.relations.keys().chain(catalog.views.keys()).cloned());
        }
        let _permit = self.replay_permit().await?;
        let planner = Arc::clone(self.planner());
        let (sender, receiver) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let planner = planner.as_ref();
            let fold = PrivateFold::towards(position, &shared, planner, &catalog, &folded);
            let cut = fold.and_then(|mut fold| {
                fold.advance(position, Step::Large, |_, _, _| !sender.is_closed())?;
                Ok(fold.cut())
            });
            // Nobody waits any more if it cannot be sent.
            drop(sender.send(cut));
        });
        let mut cut = receiver.await.map_err(|_| PinError::Stopping)??;
        cut.position = position;
        for name in names {
            if let Some(why) = cut.failed.get(name) {
                let (name, why) = (name.clone(), why.to_string());
                return Err(PinError::Failed { name, why }.into());
            }
            if !holds(&cut, name) {
                return Err(PinError::Unknown(name.clone()).into());
            }
        }
        Ok(Arc::new(cut))
    }

    /// Lets go of the cuts of the last seconds: reads of the past have to fold it. For tests.
    #[doc(hidden)]
    pub fn forget_cuts(&self) {
        self.shared().history.forget_cuts();
    }

    /// How often a read of the past had to fold it.
    pub fn past_folds(&self) -> PastFolds {
        self.shared().past_folds()
    }

    /// The last position whose log time is at or before `time`. Blocks.
    ///
    /// # Errors
    /// When the log begins after it, or cannot be read.
    pub fn position_at(&self, time: LogTime) -> Result<Position, PastError> {
        self.log().position_at(time)?.ok_or(PastError::BeforeBeginning)
    }
}
