//! The catalog: relations, views and sources, as a fold of the topic `__evert_catalog`.
//!
//! Each record is one object: the key names it (`relation/shop.orders`), the value describes it
//! in JSON, a null value drops it. The last record of a key wins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evert_model::{EncodedBatch, Position, RowSchema, TopicId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Name;
use crate::lengths::Lengths;
use crate::outlet::OutletDef;
use crate::widen::columns_read;

/// What a relation's records mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelationKind {
    /// Each record is a row.
    Stream,
    /// Each record supersedes the last of its key; a null value deletes.
    Table,
    /// No key: a bag, changed by `before` and `after` images (format debezium only).
    Bag,
}

/// How a record's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object a record, its members the columns.
    Json,
    /// Debezium's envelope in JSON: `{"before":..,"after":..,"op":"c|u|d|r|t","source":{..}}`.
    Debezium,
}

/// What statements give columns of which they say nothing: SQL expressions by the columns' names.
pub type Defaults = BTreeMap<String, String>;

/// A relation: a topic with a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Its name.
    pub name: Name,
    /// What its records mean.
    pub kind: RelationKind,
    /// Its columns and primary key.
    pub schema: RowSchema,
    /// The name of its topic.
    pub topic: String,
    /// The identity of its topic.
    pub topic_id: TopicId,
    /// How its records are read.
    pub format: Format,
    /// INSERT over an existing key is 23505 instead of a replacement.
    #[serde(default)]
    pub conflict_is_error: bool,
    /// How long texts may be that statements write.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lengths: Lengths,
    /// What columns are that a statement leaves out; NULL without one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: Defaults,
    /// The source that writes it; DML is refused then.
    #[serde(default)]
    pub source: Option<String>,
    /// A stream that is the later part of another, for views that START AT a position.
    #[serde(default)]
    pub started_from: Option<StartedFrom>,
}

/// Which part of a stream a stream is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedFrom {
    /// The stream.
    pub stream: Name,
    /// Its records after this position.
    pub position: Position,
}

/// What CREATE TABLE or CREATE STREAM says.
#[derive(Clone, Debug)]
pub struct NewRelation {
    /// Its name.
    pub name: Name,
    /// What its records mean.
    pub kind: RelationKind,
    /// Its columns and primary key.
    pub schema: RowSchema,
    /// The topic; the relation's name if not given.
    pub topic: Option<String>,
    /// Partitions of a topic that does not exist yet.
    pub partitions: i32,
    /// Settings of a topic that does not exist yet, by Kafka name.
    pub topic_config: BTreeMap<String, String>,
    /// How its records are read.
    pub format: Format,
    /// See [`Relation::conflict_is_error`].
    pub conflict_is_error: bool,
    /// See [`Relation::lengths`].
    pub lengths: Lengths,
    /// See [`Relation::defaults`].
    pub defaults: Defaults,
    /// See [`Relation::source`].
    pub source: Option<String>,
}

/// A materialized view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDef {
    /// Its name.
    pub name: Name,
    /// The SELECT's text.
    pub sql: String,
    /// Its columns; the key is GROUP BY's, if the view keeps it.
    pub schema: RowSchema,
    /// The relations and views that it reads, in the order of its plan's inputs.
    pub inputs: Vec<Name>,
    /// How many columns it reads of each: those that a relation had when the view was planned.
    /// 0 is all there are.
    #[serde(default)]
    pub widths: Vec<usize>,
    /// What else CREATE MATERIALIZED VIEW said.
    #[serde(default)]
    pub options: ViewOptions,
}

/// What CREATE MATERIALIZED VIEW may say beside the SELECT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewOptions {
    /// Its changes are appended to the topic `<view>.changes`.
    #[serde(default)]
    pub changes: bool,
    /// Of streams it reads what comes after this position only.
    #[serde(default)]
    pub start: Option<Position>,
}

impl ViewOptions {
    /// The part of a stream that a view with these options reads, or the stream.
    pub(crate) fn input(&self, catalog: &Catalog, name: &Name) -> Name {
        let is_stream = |relation: &Arc<Relation>| {
            relation.kind == RelationKind::Stream && relation.started_from.is_none()
        };
        match self.start.filter(|_| catalog.relations.get(name).is_some_and(is_stream)) {
            Some(position) => Name::new(&name.schema, format!("{}@{position}", name.name)),
            None => name.clone(),
        }
    }
}

/// An index: rows found by the values of some columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDef {
    /// Its name, in the schema of what it is over.
    pub name: Name,
    /// The relation or view.
    pub on: Name,
    /// The names of the columns.
    pub columns: Vec<String>,
}

/// A source of facts outside, such as a Postgres database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDef {
    /// Its name, which is also the schema of its relations.
    pub name: String,
    /// What the source's crate needs to run it.
    pub options: serde_json::Value,
}

/// A view that stands still on request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The view.
    pub name: Name,
    /// Where it stands.
    pub position: Position,
}

/// Why the catalog refuses a change.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// The name is taken.
    #[error("\"{0}\" exists already")]
    Exists(Name),
    /// There is nothing of this name.
    #[error("\"{0}\" does not exist")]
    Unknown(Name),
    /// Others read what would be dropped.
    #[error("cannot drop {what} because other objects depend on it")]
    HasDependents {
        /// What was to be dropped: its kind and name.
        what: String,
        /// `materialized view v depends on table t`, for each view that reads it.
        details: Vec<String>,
    },
    /// A view that reads another cannot be planned over the other's new columns.
    #[error("cannot replace view \"{name}\" because view \"{dependent}\" depends on it: {why}")]
    Dependent {
        /// What was to be replaced.
        name: Name,
        /// What reads it.
        dependent: Name,
        /// Why it cannot be planned.
        why: Box<PlanError>,
    },
    /// It is a table or a stream.
    #[error("\"{0}\" is not a materialized view")]
    NotAView(Name),
    /// The definition makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What is asked for cannot be done in this state.
    #[error("{0}")]
    NotReady(String),
    /// A view failed on its way.
    #[error("{0}")]
    Failed(String),
    /// The view's SELECT cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The topic cannot be made.
    #[error(transparent)]
    Topic(#[from] evert_log::TopicError),
    /// The log refused the change.
    #[error(transparent)]
    Append(#[from] evert_log::AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] evert_log::ReadError),
}

/// A view's SELECT that cannot be a view.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct PlanError {
    /// Postgres's code for it.
    pub sqlstate: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would help.
    pub hint: Option<String>,
}

/// The catalog at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Streams, tables and bags.
    pub relations: BTreeMap<Name, Arc<Relation>>,
    /// Materialized views.
    pub views: BTreeMap<Name, Arc<ViewDef>>,
    /// Sources.
    pub sources: BTreeMap<String, Arc<SourceDef>>,
    /// Indexes over the rows of tables, bags and views.
    pub indexes: BTreeMap<Name, Arc<IndexDef>>,
    /// Views that stand still on request, and where. What reads them does so with them.
    pub paused: BTreeMap<Name, Position>,
    /// Search indexes, archives and sinks.
    pub outlets: BTreeMap<Name, Arc<OutletDef>>,
}

/// One object of the catalog, as its record's value holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "definition", rename_all = "lowercase")]
pub(crate) enum Entry {
    Relation(Relation),
    View(ViewDef),
    Source(SourceDef),
    Index(IndexDef),
    Pause(Pause),
    Outlet(OutletDef),
}

/// The key of an object's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
pub(crate) enum EntryKey {
    Relation(Name),
    View(Name),
    Source(String),
    Index(Name),
    Pause(Name),
    Outlet(Name),
}

impl Entry {
    pub(crate) fn key(&self) -> EntryKey {
        match self {
            Self::Relation(relation) => EntryKey::Relation(relation.name.clone()),
            Self::View(view) => EntryKey::View(view.name.clone()),
            Self::Source(source) => EntryKey::Source(source.name.clone()),
            Self::Index(index) => EntryKey::Index(index.name.clone()),
            Self::Pause(pause) => EntryKey::Pause(pause.name.clone()),
            Self::Outlet(outlet) => EntryKey::Outlet(outlet.name.clone()),
        }
    }
}

impl Catalog {
    /// Whether a relation or view has this name.
    pub fn contains(&self, name: &Name) -> bool {
        self.relations.contains_key(name) || self.views.contains_key(name)
    }

    /// A relation that statements can name: no part of a stream.
    pub fn relation(&self, name: &Name) -> Option<&Arc<Relation>> {
        self.relations.get(name).filter(|relation| relation.started_from.is_none())
    }

    /// The relations that statements can name.
    pub fn named_relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.relations.values().filter(|relation| relation.started_from.is_none())
    }

    /// The parts of a stream that views which START AT a position read.
    pub(crate) fn parts_of(&self, stream: &Name) -> impl Iterator<Item = &Arc<Relation>> {
        let is_part = |from: &StartedFrom| from.stream == *stream;
        self.relations
            .values()
            .filter(move |relation| relation.started_from.as_ref().is_some_and(is_part))
    }

    /// The columns of a relation or view.
    pub fn schema_of(&self, name: &Name) -> Option<&RowSchema> {
        let view = self.views.get(name).map(|view| &view.schema);
        view.or_else(|| self.relations.get(name).map(|relation| &relation.schema))
    }

    /// The indexes over a relation's or view's rows, each with the places of its columns. One
    /// whose columns are gone, because the view was replaced, is passed over.
    pub fn indexes_on(&self, name: &Name) -> Vec<(Arc<IndexDef>, Vec<usize>)> {
        let Some(schema) = self.schema_of(name) else { return Vec::new() };
        let place = |column: &String| schema.columns.iter().position(|c| c.name == *column);
        let indexes = self.indexes.values().filter(|index| index.on == *name);
        let placed = indexes.filter_map(|index| {
            let columns = index.columns.iter().map(place).collect::<Option<Vec<_>>>()?;
            Some((Arc::clone(index), columns))
        });
        placed.collect()
    }

    /// The outlets that hold the rows of any of `names`.
    pub fn outlets_on(&self, names: &[Name]) -> Vec<Arc<OutletDef>> {
        let outlets = self.outlets.values().filter(|outlet| names.contains(&outlet.on));
        outlets.map(Arc::clone).collect()
    }

    /// How many columns a view that is planned now reads of its inputs.
    pub(crate) fn widths_of(&self, inputs: &[Name]) -> Vec<usize> {
        inputs.iter().map(|input| columns_read(self, input)).collect()
    }

    /// The catalog as a view's SELECT means it: relations that have got more columns since are
    /// without them.
    pub(crate) fn seen_by(&self, view: &ViewDef) -> Self {
        let mut seen = self.clone();
        for (input, &width) in view.inputs.iter().zip(&view.widths).filter(|(_, width)| **width > 0)
        {
            // A view that starts in the past reads a part of the stream that it names.
            let part = self.relations.get(input).and_then(|part| part.started_from.as_ref());
            let names = [Some(input), part.map(|from| &from.stream)];
            for name in names.into_iter().flatten() {
                if let Some(relation) = seen.relations.get_mut(name)
                    && relation.schema.columns.len() > width
                {
                    Arc::make_mut(relation).schema.columns.truncate(width);
                }
            }
        }
        seen
    }

    pub(crate) fn key_of(&self, name: &Name) -> EntryKey {
        if self.views.contains_key(name) {
            EntryKey::View(name.clone())
        } else {
            EntryKey::Relation(name.clone())
        }
    }

    /// A relation's or view's kind, in Postgres's words, and its name.
    pub fn describe(&self, name: &Name) -> String {
        let kind = match self.relations.get(name).map(|relation| relation.kind) {
            Some(RelationKind::Stream) => "stream",
            Some(RelationKind::Table | RelationKind::Bag) => "table",
            None => "materialized view",
        };
        format!("{kind} {name}")
    }

    /// Which of `dependents` reads what, of those and `name`.
    pub(crate) fn dependencies(&self, name: &Name, dependents: &[Name]) -> Vec<String> {
        let views = dependents.iter().filter_map(|dependent| self.views.get(dependent));
        let reads = views.flat_map(|def| def.inputs.iter().map(move |input| (&def.name, input)));
        let within = reads.filter(|(_, input)| *input == name || dependents.contains(input));
        let told = within.map(|(dependent, input)| {
            format!("{} depends on {}", self.describe(dependent), self.describe(input))
        });
        told.collect()
    }

    /// The views that read `name`, directly or through other views.
    pub fn dependents(&self, name: &Name) -> Vec<Name> {
        let mut found = BTreeSet::from([name.clone()]);
        loop {
            let before = found.len();
            for part in self.relations.values() {
                let stream = part.started_from.as_ref().map(|from| &from.stream);
                if stream.is_some_and(|stream| found.contains(stream)) {
                    found.insert(part.name.clone());
                }
            }
            for view in self.views.values() {
                if view.inputs.iter().any(|input| found.contains(input)) {
                    found.insert(view.name.clone());
                }
            }
            if found.len() == before {
                found.remove(name);
                return found.into_iter().collect();
            }
        }
    }

    /// The views that are paused, and those that read them.
    pub fn paused_closure(&self) -> BTreeSet<Name> {
        let with_dependents = |name: &Name| {
            let dependents = self.dependents(name).into_iter();
            dependents.chain([name.clone()]).collect::<Vec<_>>()
        };
        self.paused.keys().flat_map(with_dependents).collect()
    }

    /// The paused view that keeps this one where it is, if one does.
    pub fn pauser_of(&self, name: &Name) -> Option<&Name> {
        let closure = self.closure(std::slice::from_ref(name));
        let mut pausers = self.paused.keys().filter(|paused| closure.contains(*paused));
        self.paused.get_key_value(name).map(|(name, _)| name).or_else(|| pausers.next())
    }

    /// The views, each after those it reads.
    pub fn views_in_order(&self) -> Vec<Arc<ViewDef>> {
        let mut ordered: Vec<Arc<ViewDef>> = Vec::with_capacity(self.views.len());
        let mut placed = BTreeSet::new();
        while ordered.len() < self.views.len() {
            let before = ordered.len();
            for view in self.views.values() {
                let ready =
                    |input: &Name| !self.views.contains_key(input) || placed.contains(input);
                if !placed.contains(&view.name) && view.inputs.iter().all(ready) {
                    placed.insert(view.name.clone());
                    ordered.push(Arc::clone(view));
                }
            }
            assert!(ordered.len() > before, "a view is created after what it reads: no cycles");
        }
        ordered
    }

    /// `names` and everything they read.
    pub fn closure(&self, names: &[Name]) -> BTreeSet<Name> {
        let mut found: BTreeSet<Name> = names.iter().cloned().collect();
        let mut rest: Vec<Name> = names.to_vec();
        while let Some(name) = rest.pop() {
            let inputs = self.views.get(&name).map_or(&[][..], |view| &view.inputs);
            let part = self.relations.get(&name).and_then(|part| part.started_from.as_ref());
            for input in inputs.iter().chain(part.map(|from| &from.stream)) {
                if found.insert(input.clone()) {
                    rest.push(input.clone());
                }
            }
        }
        found
    }

    /// Only `names` and everything they read.
    pub(crate) fn part(&self, names: &[Name]) -> Self {
        let closure = self.closure(names);
        let mut part = self.clone();
        part.relations.retain(|name, _| closure.contains(name));
        part.views.retain(|name, _| closure.contains(name));
        part
    }

    pub(crate) fn put(&mut self, entry: Entry) {
        match entry {
            Entry::Relation(relation) => {
                self.relations.insert(relation.name.clone(), Arc::new(relation));
            }
            Entry::View(view) => {
                self.views.insert(view.name.clone(), Arc::new(view));
            }
            Entry::Pause(pause) => drop(self.paused.insert(pause.name, pause.position)),
            Entry::Source(source) => {
                self.sources.insert(source.name.clone(), Arc::new(source));
            }
            Entry::Index(index) => {
                self.indexes.insert(index.name.clone(), Arc::new(index));
            }
            Entry::Outlet(outlet) => {
                self.outlets.insert(outlet.name.clone(), Arc::new(outlet));
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &EntryKey) {
        match key {
            EntryKey::Relation(name) => drop(self.relations.remove(name)),
            EntryKey::View(name) => {
                self.views.remove(name);
                self.paused.remove(name);
            }
            EntryKey::Pause(name) => drop(self.paused.remove(name)),
            EntryKey::Source(name) => drop(self.sources.remove(name)),
            EntryKey::Index(name) => drop(self.indexes.remove(name)),
            EntryKey::Outlet(name) => drop(self.outlets.remove(name)),
        }
    }

    /// Folds one batch of the catalog's topic.
    pub(crate) fn apply(&mut self, batch: &EncodedBatch) -> Result<(), CatalogError> {
        let unreadable = |what: &dyn std::fmt::Display| {
            let offset = batch.header().base_offset;
            CatalogError::Invalid(format!("catalog record at offset {offset}: {what}"))
        };
        let payload = batch.payload(usize::MAX).map_err(|e| unreadable(&e))?;
        for record in batch.records(&payload) {
            let record = record.map_err(|e| unreadable(&e))?;
            let key = record.key.ok_or_else(|| unreadable(&"it has no key"))?;
            match record.value {
                Some(value) => {
                    self.put(serde_json::from_slice(value).map_err(|e| unreadable(&e))?);
                }
                None => {
                    self.remove(&serde_json::from_slice(key).map_err(|e| unreadable(&e))?);
                }
            }
        }
        Ok(())
    }
}
