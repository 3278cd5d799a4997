//! SQL text to statements, plans and rows.
//!
//! Owns: the dialect, what each statement does, plans of views, ad-hoc reads over snapshots and
//! the system relations. All of DataFusion's planner and execution lives here.
//! Not here: sockets and wire formats (`evert-door`), how views are kept (`evert-view`).
#![allow(missing_docs)]

mod command;
mod context;
mod error;
mod functions;
mod names;
mod output_names;
mod parse;
mod settings;
mod source;
mod system;
mod text;
mod translate;
mod types;
mod view;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use evert_log::Log;
use evert_model::Position;
use evert_view::Views;
use futures::stream::BoxStream;

pub use error::SqlError;
pub use source::{NewSource, NoSources, SourceControl, SourceRow};
pub use view::SqlPlanner;

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What all queries together may hold in memory.
    pub query_memory_bytes: usize,
    /// The default of `statement_timeout`; zero is none.
    pub statement_timeout: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { query_memory_bytes: 512 << 20, statement_timeout: Duration::from_secs(60) }
    }
}

/// Makes sessions. Cheap to clone.
#[derive(Clone)]
pub struct Engine(());

impl Engine {
    pub fn new(
        log: Log,
        views: Views,
        sources: Arc<dyn SourceControl>,
        config: EngineConfig,
    ) -> Self {
        let _ = (log, views, sources, config);
        unimplemented!()
    }

    pub fn session(&self, user: &str, database: &str) -> Session {
        let _ = (user, database);
        unimplemented!()
    }
}

/// A parsed statement. Cheap to clone.
#[derive(Clone)]
pub struct Statement(Arc<()>);

/// What a statement takes and gives.
#[derive(Clone, Debug)]
pub struct Description {
    /// The type of each parameter `$1`, `$2`, ...
    pub params: Vec<DataType>,
    /// The result's columns; `None` for statements that return no rows.
    pub columns: Option<SchemaRef>,
}

/// The outcome of a statement.
pub enum Response {
    /// Rows; the door's tag counts them ("SELECT 3").
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows as they are computed.
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
        /// The command's tag without the count: "SELECT", "SHOW", "INSERT 0".
        tag: &'static str,
    },
    /// A command's tag: "INSERT 0 3", "CREATE TABLE", "BEGIN", "SET".
    Done {
        /// The whole tag.
        tag: String,
    },
    /// The empty statement.
    Empty,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction.
    Idle,
    /// Between BEGIN and COMMIT.
    InTransaction,
    /// After an error in a transaction, before its end.
    Failed,
}

/// Stops what its session is executing: the statement ends with 57014.
pub type CancelHandle = Arc<dyn Fn() + Send + Sync>;

/// One client's session.
pub struct Session(());

impl Session {
    /// Splits and parses; an empty text gives one empty statement.
    pub fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        let _ = sql;
        unimplemented!()
    }
    /// Types of parameters (hints first, inferred where `None`) and result.
    pub async fn describe(
        &mut self,
        statement: &Statement,
        hints: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        let _ = (statement, hints);
        unimplemented!()
    }
    /// Executes with one-row arrays as parameters, of the described types.
    pub async fn execute(
        &mut self,
        statement: &Statement,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let _ = (statement, params);
        unimplemented!()
    }
    pub fn transaction_status(&self) -> TransactionStatus {
        unimplemented!()
    }
    pub fn cancel_handle(&self) -> CancelHandle {
        unimplemented!()
    }
    /// Settings to report at start and when changed (name, value).
    pub fn parameters(&self) -> Vec<(String, String)> {
        unimplemented!()
    }
    /// NOTICE messages gathered since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        unimplemented!()
    }
    /// The position of the session's last read or write.
    pub fn position(&self) -> Position {
        unimplemented!()
    }
}
