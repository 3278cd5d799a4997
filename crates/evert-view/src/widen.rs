//! A relation gets more columns.
//!
//! Owns: reading its records again for them, and the change from the narrower rows to the wider.
//! Not here: what a view reads of a wider relation: the columns it was planned with
//! ([`Catalog::seen_by`], `live_view`).
//!
//! Invariants
//! - The rows that views read are the same before and after: a record that was a row is one still,
//!   or nothing changes.
//! - Readers see the narrower rows with the old definition, or the wider with the new one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use evert_fold::Snapshot;
use evert_log::ReadError;
use evert_model::{Column, Delta, Position};

use crate::catalog::{Catalog, CatalogError, Entry, Format, Relation, RelationKind};
use crate::cohort::Cohort;
use crate::follower::{Control, Follower};
use crate::hydrate::RelationHydration;
use crate::progress::Progress;
use crate::relation::RelationInput;
use crate::sources::SourceStates;
use crate::{Lengths, Name, Views, errors, past};

/// A relation that was read again, on its way into the live cohort.
pub(crate) struct Widening {
    relation: Arc<Relation>,
    /// If it is a stream: its parts, with more columns too. They have no rows to be read again.
    parts: Vec<Arc<Relation>>,
    hydration: RelationHydration,
    progress: Arc<Progress>,
}

impl Views {
    /// Gives a relation more columns, after those it has: its records are read again for them, and
    /// a record that does not mention one has NULL there. Views that read the relation go on as
    /// they are. Blocks until readers see the columns. `given_up` ends it early, with everything
    /// as it was.
    ///
    /// # Errors
    /// When there is no such relation, when a source writes it, when a column is there already,
    /// when a record holds something else under a new column's name, or when the log has forgotten
    /// some of the records.
    pub fn add_columns(
        &self,
        name: &Name,
        columns: &[Column],
        lengths: &Lengths,
        given_up: &AtomicBool,
    ) -> Result<Position, CatalogError> {
        loop {
            let before = self.catalog();
            let old = relation_of(&before, name)?;
            let wider = Arc::new(widened(old, columns, lengths)?);
            self.check_outlets(&before, &wider)?;
            let mut widening = self.read_again(&wider, given_up)?;
            let _ddl = self.lock_ddl();
            let now = self.catalog();
            if now.relations.get(name).is_none_or(|now| !Arc::ptr_eq(now, old)) {
                continue;
            }
            self.check_outlets(&now, &wider)?;
            for part in now.parts_of(name) {
                widening.parts.push(Arc::new(widened(part, columns, lengths)?));
            }
            let names: BTreeSet<Name> = widening.names().collect();
            self.shared().begin_replacing(&names);
            let put = self.put_wider(&now, wider, widening);
            self.shared().end_replacing(&names);
            return put;
        }
    }

    /// The rows first and the definition after them: if the server ends in between, the relation
    /// is what it was.
    fn put_wider(
        &self,
        now: &Catalog,
        wider: Arc<Relation>,
        widening: Widening,
    ) -> Result<Position, CatalogError> {
        let (reply, swapped) = channel();
        let wider: Vec<_> = std::iter::once(wider).chain(widening.parts.iter().cloned()).collect();
        self.tell(Control::Widen(Box::new(widening), reply));
        let stopping = || CatalogError::NotReady("the server is stopping".into());
        swapped.recv().map_err(|_| stopping())??;
        let entry = |relation: &Arc<Relation>| Entry::Relation(Relation::clone(relation));
        let entries: Vec<_> = wider.iter().map(entry).collect();
        let keyed: Vec<_> = entries.iter().map(|entry| (entry.key(), Some(entry))).collect();
        let position = self.record(&keyed)?;
        let mut catalog = Catalog::clone(now);
        let named = wider.into_iter().map(|relation| (relation.name.clone(), relation));
        catalog.relations.extend(named);
        self.shared().set_catalog(catalog);
        Ok(position)
    }

    /// Folds the relation's records, apart, up to about where the live views are.
    fn read_again(
        &self,
        relation: &Arc<Relation>,
        given_up: &AtomicBool,
    ) -> Result<Widening, CatalogError> {
        let _spills = evert_env::spill::spills_here();
        let log = self.log();
        let topic = log.topic_by_id(relation.topic_id);
        let topic = topic.ok_or_else(|| CatalogError::Unknown(relation.name.clone()))?;
        past::check_reach_after(log, &topic, Position::ZERO)?;
        let mut input = RelationInput::new(Arc::clone(relation));
        if self.is_kept() {
            input.track();
        }
        let empty = Cohort::empty(SourceStates::new(self.shared().sources_topic));
        let hydration = RelationHydration::new(log, topic.created_at, input, empty)?;
        let mut widening = Widening {
            relation: Arc::clone(relation),
            parts: Vec::new(),
            hydration,
            progress: Arc::new(Progress::default()),
        };
        let shared = self.shared();
        let live = || {
            if given_up.load(Ordering::Relaxed) || shared.stopped().is_some() {
                widening.progress.cancel();
            }
            shared.cut().position
        };
        widening.hydration.catch_up(live, &widening.progress)?;
        if widening.progress.is_cancelled() {
            return Err(CatalogError::NotReady("the statement was given up".into()));
        }
        widening.check(&shared.cut().snapshots)?;
        Ok(widening)
    }
}

fn relation_of<'a>(catalog: &'a Catalog, name: &Name) -> Result<&'a Arc<Relation>, CatalogError> {
    let refuse = |why: &str| Err(CatalogError::Invalid(format!("\"{name}\" {why}")));
    let Some(relation) = catalog.relations.get(name) else {
        return match catalog.views.contains_key(name) {
            true => refuse("is a view: its columns are those of its SELECT"),
            false => Err(CatalogError::Unknown(name.clone())),
        };
    };
    match (&relation.source, &relation.started_from, relation.format) {
        (Some(source), ..) => refuse(&format!("has the columns that source \"{source}\" gives it")),
        (None, Some(_), _) => Err(CatalogError::Unknown(name.clone())),
        (None, None, Format::Json) => Ok(relation),
        (None, None, _) => refuse("has records whose columns are not by name"),
    }
}

fn widened(
    old: &Relation,
    columns: &[Column],
    lengths: &Lengths,
) -> Result<Relation, CatalogError> {
    let mut wider = old.clone();
    wider.lengths.extend(lengths.clone());
    for column in columns {
        let (name, to) = (&column.name, &old.name);
        if wider.schema.index_of(name).is_some() {
            let why = format!("column \"{name}\" of relation \"{to}\" already exists");
            return Err(CatalogError::Invalid(why));
        }
        if !column.nullable {
            let why = format!("column \"{name}\" of relation \"{to}\" contains null values");
            return Err(CatalogError::Invalid(why));
        }
        wider.schema.columns.push(column.clone());
    }
    Ok(wider)
}

impl Widening {
    /// What gets the columns.
    fn names(&self) -> impl Iterator<Item = Name> {
        std::iter::once(&self.relation).chain(&self.parts).map(|relation| relation.name.clone())
    }

    /// Refuses if a record is bad now that was not.
    fn check(&self, live: &HashMap<Name, Snapshot>) -> Result<(), CatalogError> {
        let known: HashSet<(i32, i64)> = live
            .get(&errors::name())
            .map(|errors| bad_records(errors, &self.relation).map(|(at, _)| at).collect())
            .unwrap_or_default();
        let now = self.hydration.errors();
        let Some(((partition, offset), why)) =
            bad_records(&now, &self.relation).find(|(at, _)| !known.contains(at))
        else {
            return Ok(());
        };
        let topic = &self.relation.topic;
        let why = format!(
            "a record does not have the new column's type: {topic}/{partition}@{offset}: {why}"
        );
        Err(CatalogError::Invalid(why))
    }
}

/// The places of a relation's records that could not be read, and why.
fn bad_records(
    errors: &Snapshot,
    relation: &Relation,
) -> impl Iterator<Item = ((i32, i64), String)> {
    let (name, topic) = (relation.name.to_string(), relation.topic.clone());
    errors.as_deltas().flat_map(move |delta| {
        let text = |column: usize| delta.rows.column(column).as_string_view().clone();
        let (relations, topics, reasons) = (text(0), text(1), text(6));
        let partitions = delta.rows.column(2).as_primitive::<Int32Type>().clone();
        let offsets = delta.rows.column(3).as_primitive::<Int64Type>().clone();
        let of_relation = |row: &usize| {
            topics.is_valid(*row) && topics.value(*row) == topic && relations.value(*row) == name
        };
        let rows: Vec<usize> = (0..delta.len()).filter(of_relation).collect();
        rows.into_iter().map(move |row| {
            ((partitions.value(row), offsets.value(row)), reasons.value(row).to_owned())
        })
    })
}

impl Follower {
    /// Puts the wider rows in the place of the narrower.
    pub(crate) fn widen(
        &mut self,
        mut widening: Widening,
        reply: &Sender<Result<(), CatalogError>>,
    ) -> Result<(), ReadError> {
        widening.hydration.advance(self.cohort.position(), &widening.progress)?;
        let checked = widening.check(&self.cohort.cut().snapshots);
        if checked.is_ok() {
            let names = widening.names().collect();
            let is_kept = self.checkpoints.is_some();
            let parts = widening.parts.into_iter().map(|part| {
                let mut input = RelationInput::new(part);
                if is_kept {
                    input.track();
                }
                input
            });
            // Bad records were met before, and are told already.
            for input in widening.hydration.into_relations().into_iter().chain(parts) {
                self.cohort.replace_relation(input);
            }
            // Until now it had other columns.
            self.shared.history.forget(&names);
            self.restart_builds_over(&names);
            self.members_changed();
            self.publish();
        }
        // Whoever asked waits for the answer.
        drop(reply.send(checked));
        Ok(())
    }
}

/// Changes of a relation's rows as a reader knows them who knows its first columns only.
pub(crate) fn narrowed(deltas: &[Delta], columns: usize) -> Vec<Delta> {
    let narrow = |delta: &Delta| {
        if delta.rows.num_columns() <= columns {
            return delta.clone();
        }
        let first: Vec<usize> = (0..columns).collect();
        let rows = delta.rows.project(&first).expect("there are more columns than these");
        Delta::new(rows, delta.weights.clone())
    };
    deltas.iter().map(narrow).collect()
}

/// How many columns a view that is planned now reads of an input; 0 of what never gets more.
pub(crate) fn columns_read(catalog: &Catalog, input: &Name) -> usize {
    match catalog.relations.get(input) {
        Some(relation) if relation.kind != RelationKind::Bag => relation.schema.columns.len(),
        _ => 0,
    }
}
