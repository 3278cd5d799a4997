//! What the SQL door asks of the engine behind it: Arrow in, Arrow out, no planner in sight.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;

/// Makes sessions.
pub trait Backend: Send + Sync {
    /// A session for a client that gave these names at its start.
    fn session(&self, user: &str, database: &str) -> Box<dyn Session>;
}

/// A parsed statement: opaque to the door.
pub type Statement = Arc<dyn Any + Send + Sync>;

/// What a statement takes and gives.
#[derive(Clone, Debug)]
pub struct Description {
    /// The type of each parameter `$1`, `$2`, ...
    pub params: Vec<DataType>,
    /// Parameters, by index, whose Arrow type does not tell Postgres's, with its OID, or that of an
    /// array's items: `uuid`, `oid`.
    pub oids: Vec<(usize, u32)>,
    /// The result's columns; `None` for statements that return no rows.
    pub columns: Option<SchemaRef>,
}

/// The outcome of a statement.
pub enum Response {
    /// Rows.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows as they are computed. Dropping the stream ends the computation.
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
        /// The command's tag without the count: "SELECT", "SHOW", "INSERT 0".
        tag: &'static str,
    },
    /// Rows that are sent as COPY TO does, each as soon as it is there.
    CopyOut {
        /// The columns.
        schema: SchemaRef,
        /// The rows as they come. Dropping the stream ends them.
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
        /// How they are written.
        form: CopyForm,
        /// Where to; without one, to the client.
        file: Option<Box<dyn CopyFile>>,
        /// The rows have no end of their own: they are not waited for when the server stops.
        endless: bool,
    },
    /// COPY FROM STDIN waits for data: [`Session::copy_data`] takes it.
    CopyIn {
        /// How many columns it is for.
        columns: usize,
    },
    /// A command's tag: "INSERT 0 3", "CREATE TABLE", "BEGIN", "SET".
    Done {
        /// The whole tag.
        tag: String,
    },
    /// The empty statement.
    Empty,
}

/// How text that COPY sends is laid out.
#[derive(Clone, Debug)]
pub struct CopyForm {
    /// CSV rather than Postgres's own text format.
    pub csv: bool,
    /// Between fields.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// Around fields, in CSV.
    pub quote: u8,
    /// Before a quote within quotes, in CSV.
    pub escape: u8,
    /// A line with the columns' names comes first.
    pub header: bool,
    /// Which columns' values are quoted always, in CSV.
    pub force_quote: Vec<bool>,
}

/// A file that COPY TO writes. Dropped before its end, it leaves nothing behind.
#[async_trait]
pub trait CopyFile: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), SqlError>;
    /// Makes the file durable and gives it its name.
    async fn finish(self: Box<Self>) -> Result<(), SqlError>;
}

/// Where a session stands, as ReadyForQuery reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction.
    Idle,
    /// Between BEGIN and COMMIT.
    InTransaction,
    /// After an error in a transaction, before its end.
    Failed,
}

/// An error in Postgres's words.
#[derive(Clone, Debug)]
pub struct SqlError {
    /// The five-character code of Postgres's appendix A.
    pub sqlstate: &'static str,
    /// One fact, without a full stop.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// 1-based character in the text given to `parse`.
    pub position: Option<usize>,
    /// Where it came up: `COPY t, line 3`.
    pub context: Option<Box<str>>,
}

impl SqlError {
    /// An error with a code and a message.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

/// Stops what its session is executing: the statement ends with 57014.
pub type CancelHandle = Arc<dyn Fn() + Send + Sync>;

/// One client's session.
#[async_trait]
pub trait Session: Send {
    /// Splits and parses; an empty text gives no statement or one empty statement.
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
    /// More of the data of COPY FROM STDIN, after [`Response::CopyIn`]. After an error the COPY is
    /// over.
    async fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError>;
    /// The data's end: gives the tag.
    async fn copy_end(&mut self) -> Result<String, SqlError>;
    /// COPY FROM STDIN has ended in an error, here or at the client.
    fn copy_abandon(&mut self);
    /// Where the session stands now.
    fn transaction_status(&self) -> TransactionStatus;
    /// How long an open transaction may wait for its client; `None` is for ever.
    /// (`idle_in_transaction_session_timeout`)
    fn idle_in_transaction_max(&self) -> Option<Duration>;
    /// An error that the session did not see itself (a parameter that cannot be read, a result
    /// that broke off): an open transaction has failed.
    fn fail_transaction(&mut self);
    /// Stops what this session is executing, from elsewhere.
    fn cancel_handle(&self) -> CancelHandle;
    /// Session settings to report at start and when changed (name, value): server_version,
    /// client_encoding, DateStyle, TimeZone, standard_conforming_strings, ...
    fn parameters(&self) -> Vec<(String, String)>;
    /// NOTICE messages gathered since the last call.
    fn take_notices(&mut self) -> Vec<String>;
}
