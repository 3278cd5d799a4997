//! What the SQL door asks of the engine behind it. Arrow in, Arrow out: no planner in sight.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;

/// Makes sessions.
pub trait Backend: Send + Sync {
    fn session(&self, user: &str, database: &str) -> Box<dyn Session>;
}

/// A parsed statement: opaque to the door.
pub type Statement = Arc<dyn Any + Send + Sync>;

#[derive(Clone, Debug)]
pub struct Description {
    /// The type of each parameter `$1`, `$2`, ...
    pub params: Vec<DataType>,
    /// The result's columns; `None` for statements that return no rows.
    pub columns: Option<SchemaRef>,
}

pub enum Response {
    /// Rows; the tag counts them ("SELECT 3").
    Rows { schema: SchemaRef, batches: BoxStream<'static, Result<RecordBatch, SqlError>> },
    /// A command's tag: "INSERT 0 3", "CREATE TABLE", "BEGIN", "SET".
    Done { tag: String },
    /// The empty statement.
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

/// An error in Postgres's words.
#[derive(Clone, Debug)]
pub struct SqlError {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based character in the statement's text.
    pub position: Option<usize>,
}

/// Stops what its session is executing: the statement ends with 57014.
pub type CancelHandle = Arc<dyn Fn() + Send + Sync>;

/// One client's session.
#[async_trait]
pub trait Session: Send {
    /// Splits and parses; an empty text gives one empty statement.
    fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, SqlError>;
    /// Types of parameters (hints first, inferred where `None`) and result.
    async fn describe(
        &mut self,
        statement: &Statement,
        hints: &[Option<DataType>],
    ) -> Result<Description, SqlError>;
    /// Executes with one-row arrays as parameters, of the described types.
    async fn execute(
        &mut self,
        statement: &Statement,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError>;
    fn transaction_status(&self) -> TransactionStatus;
    fn cancel_handle(&self) -> CancelHandle;
    /// Session settings to report at start and when changed (name, value): server_version,
    /// client_encoding, DateStyle, TimeZone, standard_conforming_strings, ...
    fn parameters(&self) -> Vec<(String, String)>;
    /// NOTICE messages gathered since the last call.
    fn take_notices(&mut self) -> Vec<String>;
}
