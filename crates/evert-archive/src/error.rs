//! What goes wrong with archives.

use thiserror::Error;

/// Why an archive cannot go on, or cannot be read.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The place cannot be reached or takes nothing: trying again may help.
    #[error("{0}")]
    Place(String),
    /// What is stored there cannot be read as a table.
    #[error("{path}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The table there is another's.
    #[error("{0}")]
    Foreign(String),
    /// Someone else has committed to the table meanwhile.
    #[error("version {0} of the table was written by someone else")]
    Overtaken(u64),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl ArchiveError {
    pub(crate) fn damaged(path: &str, what: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_string() }
    }

    /// Of bytes that are made here, in memory: the library's complaint about them.
    pub(crate) fn made(error: impl std::fmt::Display) -> Self {
        Self::Invalid(error.to_string())
    }

    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Place(_))
    }
}

/// What most of the crate's functions give.
pub(crate) type Result<T> = std::result::Result<T, ArchiveError>;
