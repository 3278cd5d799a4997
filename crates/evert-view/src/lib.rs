//! Views of the log (API draft).
#![allow(missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use evert_env::Env;
use evert_fold::{Plan, Snapshot};
use evert_log::{Log, NewPart};
use evert_model::{LogTime, Lsn, Offset, Position, PositionToken, RowSchema, TopicId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `schema.name`; schema `public` is not shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    pub schema: String,
    pub name: String,
}

impl Name {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
    pub fn public(name: impl Into<String>) -> Self {
        Self::new("public", name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.schema == "public" {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Json,
    /// Debezium's envelope in JSON: `{"before":..,"after":..,"op":"c|u|d|r|t","source":{..}}`.
    Debezium,
}

/// A relation: a topic with a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    pub name: Name,
    pub kind: RelationKind,
    pub schema: RowSchema,
    pub topic: String,
    pub topic_id: TopicId,
    pub format: Format,
    /// INSERT over an existing key is 23505 instead of a replacement.
    #[serde(default)]
    pub conflict_is_error: bool,
    /// The source that writes it; DML is refused then.
    #[serde(default)]
    pub source: Option<String>,
}

/// What CREATE TABLE or CREATE STREAM says.
#[derive(Clone, Debug)]
pub struct NewRelation {
    pub name: Name,
    pub kind: RelationKind,
    pub schema: RowSchema,
    /// Defaults to the relation's name.
    pub topic: Option<String>,
    /// For a topic that does not exist yet.
    pub partitions: i32,
    pub topic_config: BTreeMap<String, String>,
    pub format: Format,
    pub conflict_is_error: bool,
    pub source: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDef {
    pub name: Name,
    /// The SELECT's text.
    pub sql: String,
    pub schema: RowSchema,
    pub inputs: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDef {
    pub name: String,
    /// What the source's crate needs to run it (connection, publication, slot, tables).
    pub options: serde_json::Value,
}

/// The catalog at one moment: a fold of the topic `__evert_catalog`.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub relations: BTreeMap<Name, Arc<Relation>>,
    pub views: BTreeMap<Name, Arc<ViewDef>>,
    pub sources: BTreeMap<String, Arc<SourceDef>>,
}

#[derive(Debug, Error)]
pub enum CatalogError {
    #[error("\"{0}\" exists already")]
    Exists(Name),
    #[error("\"{0}\" does not exist")]
    Unknown(Name),
    #[error("cannot drop {name}: {dependents:?} depend on it")]
    HasDependents { name: Name, dependents: Vec<Name> },
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Topic(#[from] evert_log::TopicError),
    #[error(transparent)]
    Append(#[from] evert_log::AppendError),
}

#[derive(Debug, Error)]
#[error("{message}")]
pub struct PlanError {
    pub sqlstate: &'static str,
    pub message: String,
    pub hint: Option<String>,
}

/// Turns a view's SQL into a plan. Implemented by `evert-sql`, so that views need no parser.
pub trait Planner: Send + Sync {
    fn plan_view(&self, sql: &str, catalog: &Catalog) -> Result<PlannedView, PlanError>;
}

#[derive(Clone, Debug)]
pub struct PlannedView {
    pub plan: Plan,
    /// Relations and views, in the order of the plan's inputs.
    pub inputs: Vec<Name>,
    pub schema: RowSchema,
}

/// A consistent snapshot over several relations and views.
#[derive(Clone)]
pub struct Cut {
    pub position: Position,
    pub log_time: LogTime,
    /// Tables, bags, views and `evert.errors`.
    pub snapshots: HashMap<Name, Snapshot>,
    /// Streams: what each partition's next offset was.
    pub streams: HashMap<Name, Vec<Offset>>,
}

#[derive(Debug, Error)]
pub enum PinError {
    #[error("\"{0}\" does not exist")]
    Unknown(Name),
    #[error("view \"{name}\" failed: {why}")]
    Failed { name: Name, why: String },
    #[error("position {wanted} was not reached in time: at {reached}")]
    Timeout { wanted: Position, reached: Position },
    #[error("starting: {percent}% replayed")]
    Starting { percent: u8, eta: Option<Duration> },
    #[error("the server is stopping")]
    Stopping,
}

#[derive(Clone, Debug)]
pub enum ViewState {
    Rebuilding { percent: u8, eta: Option<Duration> },
    Live,
    Failed(String),
}

#[derive(Clone, Debug)]
pub struct ViewStatus {
    pub name: Name,
    pub state: ViewState,
    pub position: Position,
    pub lag_records: u64,
    pub lag_ms: u64,
    pub rows: usize,
    pub memory_bytes: usize,
}

/// How far a source has come, from `__evert_sources`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    pub source: String,
    /// Everything committed at the source up to here is in the log.
    pub lsn: Lsn,
    /// Whatever else the source's crate keeps.
    #[serde(default)]
    pub detail: serde_json::Value,
}

#[derive(Clone, Debug)]
pub struct VerifyReport {
    pub name: Name,
    pub position: Position,
    pub rows_live: usize,
    pub rows_replayed: usize,
    pub equal: bool,
}

/// What a DML statement does to one table.
#[derive(Clone, Debug)]
pub enum RowChange {
    /// Whole rows, in the relation's schema.
    Put(RecordBatch),
    /// Rows of which only the key columns matter.
    Delete(RecordBatch),
}

#[derive(Clone)]
pub struct Views(Arc<()>);

impl Views {
    /// Reads the catalog and starts the follower, which replays the log.
    pub fn open(env: Env, log: Log, planner: Arc<dyn Planner>) -> Result<Self, CatalogError> {
        let _ = (env, log, planner);
        unimplemented!()
    }
    pub fn log(&self) -> &Log {
        unimplemented!()
    }
    pub fn catalog(&self) -> Arc<Catalog> {
        unimplemented!()
    }
    // Changes of the catalog block until durable and applied by the follower.
    pub fn create_relation(&self, new: NewRelation) -> Result<Position, CatalogError> {
        let _ = new;
        unimplemented!()
    }
    pub fn create_view(&self, name: Name, sql: String) -> Result<Position, CatalogError> {
        let _ = (name, sql);
        unimplemented!()
    }
    pub fn create_source(&self, source: SourceDef) -> Result<Position, CatalogError> {
        let _ = source;
        unimplemented!()
    }
    /// Drops a relation or view (and with `cascade` what depends on it).
    pub fn drop(&self, name: &Name, cascade: bool) -> Result<Position, CatalogError> {
        let _ = (name, cascade);
        unimplemented!()
    }
    pub fn drop_source(&self, name: &str) -> Result<Position, CatalogError> {
        let _ = name;
        unimplemented!()
    }
    /// Waits until all of `names` can be read at one position at or after `at_least`. An empty
    /// `names` waits for the live cohort.
    pub async fn pin(
        &self,
        names: &[Name],
        at_least: Position,
        timeout: Duration,
    ) -> Result<Cut, PinError> {
        let _ = (names, at_least, timeout);
        unimplemented!()
    }
    /// The position that the live cohort has published.
    pub fn position(&self) -> Position {
        unimplemented!()
    }
    /// The rows of a stream below the cut's offsets, in batches. Blocking iterator.
    pub fn scan_stream(
        &self,
        relation: &Relation,
        ends: &[Offset],
        projection: Option<&[usize]>,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch, evert_log::ReadError>> + Send> {
        let _ = (relation, ends, projection);
        unimplemented!()
    }
    pub fn status(&self) -> Vec<ViewStatus> {
        unimplemented!()
    }
    /// `None` until the source's first commit.
    pub fn source_state(&self, source: &str) -> Option<SourceState> {
        let _ = source;
        unimplemented!()
    }
    /// The part that records a source's state: put it in the same commit as the facts.
    pub fn source_state_part(&self, state: &SourceState) -> NewPart {
        let _ = state;
        unimplemented!()
    }
    /// The position that a token names, waiting for a source's LSN to arrive if it must.
    pub async fn resolve(
        &self,
        token: &PositionToken,
        timeout: Duration,
    ) -> Result<Position, CatalogError> {
        let _ = (token, timeout);
        unimplemented!()
    }
    /// Encodes changes as records of the relation's topic and format.
    pub fn encode(
        &self,
        relation: &Relation,
        changes: &[RowChange],
    ) -> Result<Vec<NewPart>, CatalogError> {
        let _ = (relation, changes);
        unimplemented!()
    }
    /// Folds the view again from the log's beginning, privately, and compares.
    pub fn verify(&self, name: &Name) -> Result<VerifyReport, CatalogError> {
        let _ = name;
        unimplemented!()
    }
    /// Stops the follower.
    pub fn close(&self) {
        unimplemented!()
    }
}
