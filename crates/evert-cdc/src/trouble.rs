//! Why a source stopped working, and what follows from it.

use evert_log::{AppendError, ReadError};
use evert_view::PinError;

use crate::decode::DecodeError;
use crate::error::{LinkError, SourceError};

/// What interrupts a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It may pass: try again.
    Retry(String),
    /// A person has to do something.
    Failed(String),
    /// The source was told to stop.
    Stopped,
}

/// SQLSTATEs that do not pass by waiting, though the server was reached.
const LASTING: &[&str] = &[
    "42704", // undefined_object: no such slot or publication
    "42501", // insufficient_privilege
    "42P01", // undefined_table
    "42703", // undefined_column
];

impl From<LinkError> for Trouble {
    fn from(error: LinkError) -> Self {
        match error.sqlstate.as_deref() {
            Some(code) if LASTING.contains(&code) => Self::Failed(error.to_string()),
            _ => Self::Retry(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        LinkError::from(error).into()
    }
}

impl From<pgwire_replication::PgWireError> for Trouble {
    fn from(error: pgwire_replication::PgWireError) -> Self {
        // The same row comes again after every reconnection.
        let lasting = error.is_message_too_large();
        match LinkError::from(error).into() {
            Self::Retry(why) if lasting => Self::Failed(why),
            trouble => trouble,
        }
    }
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Link(error) => error.into(),
            SourceError::Stopping => Self::Stopped,
            SourceError::Log(error) => error.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<AppendError> for Trouble {
    fn from(error: AppendError) -> Self {
        match error {
            // A topic was deleted under the source: the next attempt leaves its table out.
            AppendError::UnknownTopic(_) => Self::Retry(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<DecodeError> for Trouble {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TableChanged { .. } => {
                Self::Failed(format!("{error}: drop the source and create it again"))
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<PinError> for Trouble {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Stopping => Self::Stopped,
            other => Self::Retry(other.to_string()),
        }
    }
}
