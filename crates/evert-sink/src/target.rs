//! Targets: what a system outside has to be able to do to hold the rows of a sink.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use evert_model::Position;
use evert_view::{OutletContext, OutletError, OutletVerdict};

use crate::changeset::Changeset;

/// Why changes were not written.
pub(crate) enum WriteError {
    /// The target will not take one of them. Nothing was written, and the connection is as it was:
    /// what comes later may mend it.
    Refused(String),
    Other(OutletError),
}

impl From<OutletError> for WriteError {
    fn from(error: OutletError) -> Self {
        Self::Other(error)
    }
}

impl From<WriteError> for OutletError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(why) => Self::Retry(why),
            WriteError::Other(error) => error,
        }
    }
}

/// An open connection to where the rows go.
///
/// A call that is given up leaves the target as it was or as it is to be, and the connection of
/// no more use.
#[async_trait]
pub(crate) trait Target: Send {
    /// It holds the rows of this position; `None`: it is to begin with a copy of all rows.
    fn position(&self) -> Option<Position>;

    /// How many rows it holds.
    fn rows(&self) -> u64;

    /// Adds to the copy that it begins with.
    async fn copy(&mut self, rows: &RecordBatch) -> Result<(), OutletError>;

    /// All rows were copied: they, and no others, are what it holds at this position.
    async fn end_copy(&mut self, position: Position) -> Result<(), OutletError>;

    /// Moves on to a position; without changes the position alone.
    async fn write(&mut self, changes: &Changeset, position: Position) -> Result<(), WriteError>;

    /// After changes were refused: which row it is that will not be taken, if it is a single one.
    async fn find_refused(&mut self, changes: &Changeset) -> Result<Option<String>, OutletError> {
        let _ = changes;
        Ok(None)
    }

    /// Compares what it holds with the rows at its position.
    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError>;
}
