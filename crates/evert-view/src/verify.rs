//! Verification: a private replay from the log's beginning, compared with what is served.
//!
//! Owns: the comparison and the search for the facts behind a row that differs.
//! Not here: mending it (`lifecycle`: REBUILD).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use evert_fold::Snapshot;
use evert_log::{CommitBody, CommitPart, Log};
use evert_model::Position;

use crate::catalog::{Catalog, CatalogError, Relation};
use crate::cohort::{Cohort, Cut};
use crate::difference::{Difference, RowDifference, difference, row_text};
use crate::hydrate::STEP_BYTES;
use crate::reader::Reader;
use crate::relation::RelationInput;
use crate::sources::SourceStates;
use crate::{Name, Views};

/// How long a view that is on its way to a lane is waited for, and between two looks.
const MOVE_TIME_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Rows whose facts are looked for.
const ROWS_TRACED: usize = 10;
/// Facts told of a row: the last ones.
const FACTS_TOLD: usize = 5;

/// A private replay of a view compared with the live one.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The view.
    pub name: Name,
    /// The position at which both were compared.
    pub position: Position,
    /// Rows of the live view.
    pub rows_live: usize,
    /// Rows of the replay.
    pub rows_replayed: usize,
    /// An order-independent digest of the live rows.
    pub digest_live: u128,
    /// And of the replayed rows.
    pub digest_replayed: u128,
    /// Whether their rows are the same.
    pub equal: bool,
    /// What differs, from the live rows to the replayed ones.
    pub difference: Difference,
    /// For the first of the differing rows: `topic/partition@offset` of the last records that
    /// have the row's key.
    pub facts: Vec<Vec<String>>,
}

impl Views {
    /// Folds a relation or view again from the log's beginning, privately, and compares the rows.
    /// Blocks.
    ///
    /// # Errors
    /// When there is nothing of the name to compare, or the log cannot be read.
    pub fn verify(&self, name: &Name) -> Result<VerifyReport, CatalogError> {
        let catalog = self.catalog();
        let live = self.cut_of(name);
        let Some(rows) = live.snapshots.get(name) else {
            return Err(self.why_nothing(&catalog, &live, name));
        };
        let (digest_live, rows_live) = (rows.digest(), rows.len());
        let replayed = self.replayed(&catalog, name, live.position)?;
        let difference = difference(name, rows, &replayed);
        let digest_replayed = replayed.digest();
        let facts = match difference.is_empty() {
            true => Vec::new(),
            false => self.facts(&catalog, name, &difference.rows, live.position)?,
        };
        Ok(VerifyReport {
            name: name.clone(),
            position: live.position,
            rows_live,
            rows_replayed: replayed.len(),
            digest_live,
            digest_replayed,
            equal: difference.is_empty() && digest_live == digest_replayed,
            difference,
            facts,
        })
    }

    /// The newest cut that has the view. One that is on its way to a lane is waited for.
    fn cut_of(&self, name: &Name) -> Arc<Cut> {
        let shared = self.shared();
        let has = |cut: &Cut| cut.snapshots.contains_key(name) || cut.failed.contains_key(name);
        let deadline = Instant::now() + MOVE_TIME_MAX;
        loop {
            let own = shared.lane_of(name).and_then(|face| face.cut());
            let live = shared.cut();
            if has(&live) {
                return live;
            }
            if let Some(own) = own.filter(|own| has(own)) {
                return own;
            }
            // Between two places a view is in neither for a moment.
            let is_gone = live.streams.contains_key(name) || !shared.catalog().contains(name);
            if is_gone || Instant::now() >= deadline {
                return live;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn why_nothing(&self, catalog: &Catalog, live: &Cut, name: &Name) -> CatalogError {
        if let Some(why) = live.failed.get(name) {
            return CatalogError::Failed(format!("view \"{name}\" failed: {why}"));
        }
        match catalog.contains(name) {
            true if live.streams.contains_key(name) => {
                CatalogError::Invalid(format!("stream \"{name}\" keeps no rows to verify"))
            }
            true => CatalogError::NotReady(format!("\"{name}\" has not caught up yet")),
            false => CatalogError::Unknown(name.clone()),
        }
    }

    fn replayed(
        &self,
        catalog: &Catalog,
        name: &Name,
        end: Position,
    ) -> Result<Snapshot, CatalogError> {
        let _spills = evert_env::spill::spills_here();
        let sources = SourceStates::new(self.shared().sources_topic);
        let names = std::slice::from_ref(name);
        let mut cohort = Cohort::of_names(catalog, names, self.planner().as_ref(), sources);
        cohort.fold();
        let mut reader = Reader::new(self.log(), Position::ZERO)?;
        while let Some(commit) = reader.next_upto(end)? {
            cohort.push(&commit);
            if cohort.pending_bytes() >= STEP_BYTES {
                cohort.fold();
            }
        }
        cohort.fold();
        let mut replayed = cohort.cut();
        replayed.snapshots.remove(name).ok_or_else(|| {
            let why = replayed.failed.get(name).map_or("it failed", |why| why);
            CatalogError::Failed(format!("the replay of \"{name}\": {why}"))
        })
    }

    /// The last records that have the key of each of the first rows.
    fn facts(
        &self,
        catalog: &Catalog,
        name: &Name,
        rows: &[RowDifference],
        end: Position,
    ) -> Result<Vec<Vec<String>>, CatalogError> {
        let wanted: Vec<BTreeMap<&str, &str>> = rows.iter().take(ROWS_TRACED).map(cells).collect();
        let closure = catalog.closure(std::slice::from_ref(name));
        let relations: Vec<_> =
            closure.iter().filter_map(|name| catalog.relations.get(name)).collect();
        facts_of(self.log(), &relations, &wanted, end)
    }
}

/// The columns that tell a row's facts: its key, or else all of it.
fn cells(row: &RowDifference) -> BTreeMap<&str, &str> {
    let all = row.before.as_ref().or(row.after.as_ref());
    let told = if row.key.is_empty() { all } else { Some(&row.key) };
    told.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// For each of `wanted`, the last records of the relations whose columns of the same names have
/// the same values. A relation without such a column has none.
fn facts_of(
    log: &Log,
    relations: &[&Arc<Relation>],
    wanted: &[BTreeMap<&str, &str>],
    end: Position,
) -> Result<Vec<Vec<String>>, CatalogError> {
    let mut found = vec![Vec::new(); wanted.len()];
    let mut reader = Reader::new(log, Position::ZERO)?;
    while let Some(commit) = reader.next_upto(end)? {
        let CommitBody::Data(parts) = &commit.body else { continue };
        for part in parts {
            for relation in relations.iter().filter(|r| r.topic_id == part.topic) {
                note_facts(relation, part, wanted, &mut found);
            }
        }
    }
    Ok(found)
}

fn note_facts(
    relation: &Arc<Relation>,
    part: &CommitPart,
    wanted: &[BTreeMap<&str, &str>],
    found: &mut [Vec<String>],
) {
    let names: BTreeSet<&str> = relation.schema.columns.iter().map(|c| c.name.as_str()).collect();
    for (offset, rows) in RelationInput::rows_by_record(relation, part) {
        for row in 0..rows.num_rows() {
            let text = row_text(&rows, row);
            let text: BTreeMap<&str, &str> =
                text.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            for (cells, found) in wanted.iter().zip(found.iter_mut()) {
                let mut common = cells.iter().filter(|(name, _)| names.contains(*name)).peekable();
                if common.peek().is_none() || !common.all(|(name, v)| text.get(name) == Some(v)) {
                    continue;
                }
                if found.len() == FACTS_TOLD {
                    found.remove(0);
                }
                found.push(format!("{}/{}@{offset}", relation.topic, part.partition.get()));
            }
        }
    }
}
