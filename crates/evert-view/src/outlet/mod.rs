//! Outlets: views that are kept outside the fold. A search index, an archive, a sink.
//!
//! Owns: what an outlet is to the catalog and to statements, and the threads that outlets run on.
//! Not here: what a kind does with its rows (a crate a kind, behind [`OutletFactory`]).
//!
//! Invariants
//! - An outlet's position is stored with its data: after a crash it goes on from there.
//! - Each outlet has a thread and a small runtime of its own. Nothing waits for it, and its errors
//!   reach nobody else.

mod board;
mod context;
mod runner;
mod secret;
mod statements;
mod supervisor;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use evert_model::{Position, RowSchema};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::catalog::PlanError;
use crate::past::PastError;
use crate::{Name, PinError};

pub use context::OutletContext;
pub use secret::{is_secret, without_secrets};
pub(crate) use supervisor::Outlets;

/// What holds the rows outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutletKind {
    /// A full-text index.
    Search,
    /// A lake table.
    Archive,
    /// Another system.
    Sink,
}

impl OutletKind {
    /// As statements call it: `search index`, `archive`, `sink`.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Search => "search index",
            Self::Archive => "archive",
            Self::Sink => "sink",
        }
    }

    /// With its article: `an archive`.
    pub fn a_noun(self) -> String {
        let article = if matches!(self, Self::Archive) { "an" } else { "a" };
        format!("{article} {}", self.noun())
    }

    /// As SHOW VIEWS calls it: `search`, `archive`, `sink`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Archive => "archive",
            Self::Sink => "sink",
        }
    }
}

/// An outlet, as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutletDef {
    /// Its name, among those of relations and views.
    pub name: Name,
    /// What holds its rows.
    pub kind: OutletKind,
    /// The relation or view whose rows it holds.
    pub on: Name,
    /// What the kind's crate understands. Statements give, each with the pairs of WITH as
    /// strings: for a search index `{"columns":["a"],"with":{}}`; for an archive
    /// `{"to":"url","with":{}}`; for a sink `{"into":"postgres|redis|kafka","url":"url",
    /// "table":"t","topic":"t","with":{}}`. What [`OutletFactory::check`] makes of it keeps these
    /// members, since definitions are shown from them, and may add others.
    pub options: serde_json::Value,
    /// Another one after each CREATE and REBUILD, and after what it reads was replaced. What is
    /// stored under another id is no beginning to go on from.
    pub id: Uuid,
    /// It stands still on request.
    #[serde(default)]
    pub paused: bool,
    /// Where it stood when it was paused. What is stored says so too, once it can be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<Standing>,
}

/// How far an outlet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Everything up to here was stored.
    pub position: u64,
    /// The rows that were stored there.
    pub rows: u64,
}

impl OutletDef {
    /// A definition with a new id.
    pub fn new(name: Name, kind: OutletKind, on: Name, options: serde_json::Value) -> Self {
        Self { name, kind, on, options, id: Uuid::new_v4(), paused: false, stood: None }
    }

    /// The same with another id.
    pub(crate) fn anew(&self) -> Self {
        Self { id: Uuid::new_v4(), stood: None, ..self.clone() }
    }

    /// As errors call it: `sink "k"`.
    pub fn describe(&self) -> String {
        format!("{} \"{}\"", self.kind.noun(), self.name)
    }
}

/// What a kind's crate gives.
#[async_trait]
pub trait OutletFactory: Send + Sync {
    /// At CREATE: looks at columns and options before anything is written. The options it returns
    /// are what the catalog keeps.
    ///
    /// # Errors
    /// What is wrong with the statement, in Postgres's words.
    fn check(&self, def: &OutletDef, schema: &RowSchema) -> Result<serde_json::Value, PlanError>;

    /// At ALTER TABLE: looks at the columns that the relation is to have.
    ///
    /// # Errors
    /// When the outlet could not hold them.
    fn check_columns(&self, def: &OutletDef, schema: &RowSchema) -> Result<(), PlanError> {
        let _ = (def, schema);
        Ok(())
    }

    /// At CREATE, after [`OutletFactory::check`]: looks at what is stored where the rows are to be.
    ///
    /// # Errors
    /// [`OutletError::Failed`] when it makes the outlet impossible. A place that cannot be reached
    /// is none that refuses.
    async fn look(&self, def: &OutletDef, schema: &RowSchema) -> Result<(), OutletError> {
        let _ = (def, schema);
        Ok(())
    }

    /// The URL that an outlet of these options, as [`OutletFactory::check`] returned them, has for
    /// itself: no other may be there, above or below.
    fn place<'a>(&self, options: &'a serde_json::Value) -> Option<&'a str> {
        let _ = options;
        None
    }

    /// Opens what is stored, or begins empty; also when what is stored has another id.
    ///
    /// # Errors
    /// See [`OutletError`].
    async fn open(
        &self,
        def: &OutletDef,
        schema: &RowSchema,
    ) -> Result<Box<dyn Outlet>, OutletError>;

    /// At DROP and REBUILD: forgets what is stored. It is not open then.
    ///
    /// # Errors
    /// See [`OutletError`]. A DROP has happened whatever this says.
    async fn remove(&self, def: &OutletDef) -> Result<(), OutletError>;

    /// At REBUILD, before the outlet is opened under another id.
    ///
    /// # Errors
    /// See [`OutletError`]. The outlet goes on as it was then.
    async fn begin_anew(&self, def: &OutletDef) -> Result<(), OutletError> {
        self.remove(def).await
    }
}

/// One open outlet.
#[async_trait]
pub trait Outlet: Send {
    /// Up to here everything is stored durably; `None`: nothing is.
    fn position(&self) -> Option<Position>;

    /// The rows that are stored there.
    fn rows(&self) -> u64;

    /// Follows the log until [`OutletContext::stopping`]; returns once all it took is durable. May
    /// be called again after it has returned.
    ///
    /// # Errors
    /// See [`OutletError`]. The outlet is opened anew then.
    async fn follow(&mut self, context: &OutletContext) -> Result<(), OutletError>;

    /// Compares what is stored, at its position, with the relation's rows there. Not called while
    /// it follows.
    ///
    /// # Errors
    /// When either cannot be read.
    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError>;
}

/// What VERIFY has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutletVerdict {
    /// Where both were compared.
    pub position: Position,
    /// Rows that ought to be stored.
    pub rows_expected: u64,
    /// Rows that are stored.
    pub rows_stored: u64,
    /// Rows that are missing, too many or other than they ought to be.
    pub rows_differing: u64,
    /// The first of them, each a line for people.
    pub differences: Vec<String>,
}

impl OutletVerdict {
    /// Differences told at most.
    pub const TOLD_MAX: usize = 20;

    /// The verdict with all that differs, in any order.
    #[must_use]
    pub fn with(mut self, mut differences: Vec<String>) -> Self {
        differences.sort_unstable();
        self.rows_differing = differences.len() as u64;
        differences.truncate(Self::TOLD_MAX);
        self.differences = differences;
        self
    }
}

/// Why an outlet does not go on.
#[derive(Clone, Debug, Error)]
pub enum OutletError {
    /// The target is down, a disk is full: it is tried again, less and less often.
    #[error("{0}")]
    Retry(String),
    /// It makes no sense to try again before a REBUILD.
    #[error("{0}")]
    Failed(String),
}

impl From<PinError> for OutletError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Failed { .. } => Self::Failed(error.to_string()),
            _ => Self::Retry(error.to_string()),
        }
    }
}

impl From<PastError> for OutletError {
    fn from(error: PastError) -> Self {
        match error {
            PastError::Pin(error) => error.into(),
            PastError::Forgotten { .. } => Self::Failed(format!("lost its place: {error}")),
            PastError::Future { .. } => Self::Failed(error.to_string()),
            // It is opened again over the new columns.
            _ => Self::Retry(error.to_string()),
        }
    }
}
