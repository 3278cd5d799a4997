//! Responses: rows as they are computed, or a tag.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::SqlError;
use crate::copy::{CopyFile, CopyForm};

/// The outcome of a statement.
pub enum Response {
    /// Rows.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows as they are computed.
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
        /// The tag without the count of rows that follows it: `SELECT`, `INSERT 0`, `SHOW`.
        tag: &'static str,
    },
    /// Rows that are sent as COPY TO does, each as soon as it is there.
    CopyOut {
        /// The columns.
        schema: SchemaRef,
        /// The rows as they come.
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
        /// How they are written.
        form: CopyForm,
        /// Where to; without one, to the client.
        file: Option<Box<CopyFile>>,
        /// The rows have no end of their own: those of SUBSCRIBE.
        endless: bool,
    },
    /// COPY FROM STDIN waits for data: see `Session::copy_data`.
    CopyIn {
        /// How many columns it is for.
        columns: usize,
    },
    /// A command's tag: `INSERT 0 3`, `CREATE TABLE`, `BEGIN`, `SET`.
    Done {
        /// The whole tag.
        tag: String,
    },
    /// The empty statement.
    Empty,
}

impl Response {
    /// Rows that are there already.
    pub(crate) fn rows(schema: SchemaRef, rows: Vec<RecordBatch>, tag: &'static str) -> Self {
        let batches = futures::stream::iter(rows.into_iter().map(Ok)).boxed();
        Self::Rows { schema, batches, tag }
    }
}
