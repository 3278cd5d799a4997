//! What can go wrong with a log under test, by what it means.

use std::fmt;

use evert_log::{AppendError, OpenError, ReadError, TopicError};

/// Why a run did not go on.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A promise is broken: what the harness exists to find.
    Violation(String),
    /// The log says that its files are damaged. Right if they are, a violation otherwise.
    Damaged(String),
    /// The disk did not obey, and the log says so. Right if the harness made it disobey.
    Disk(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Trouble>;

/// A broken promise.
pub(crate) fn violation<T>(what: impl fmt::Display) -> Outcome<T> {
    Err(Trouble::Violation(what.to_string()))
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(what) => write!(f, "violation: {what}"),
            Self::Damaged(what) => write!(f, "reported damage: {what}"),
            Self::Disk(what) => write!(f, "reported a failing disk: {what}"),
        }
    }
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Damaged { .. } => Self::Damaged(error.to_string()),
            OpenError::Io { .. } => Self::Disk(error.to_string()),
            OpenError::Locked(_) => Self::Violation(format!("at open: {error}")),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { .. } => Self::Damaged(error.to_string()),
            ReadError::Io { .. } => Self::Disk(error.to_string()),
            _ => Self::Violation(format!("at a read: {error}")),
        }
    }
}

impl From<AppendError> for Trouble {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Stopped(_) | AppendError::Large(_) => Self::Disk(error.to_string()),
            _ => Self::Violation(format!("at an append: {error}")),
        }
    }
}

impl From<TopicError> for Trouble {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Append(error) => error.into(),
            _ => Self::Violation(format!("at a topic: {error}")),
        }
    }
}
