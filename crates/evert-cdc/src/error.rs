//! What goes wrong with sources, in words a user can act on.

use std::fmt;

use evert_log::AppendError;
use evert_view::CatalogError;
use thiserror::Error;

/// Why a statement about a source could not be carried out.
#[derive(Debug, Error)]
pub enum SourceError {
    /// There is a source of this name already.
    #[error("source \"{0}\" exists already")]
    Exists(String),
    /// There is no source of this name.
    #[error("source \"{0}\" does not exist")]
    Unknown(String),
    /// The statement itself, or something at the source, has to change first.
    #[error("{0}")]
    Refused(Refusal),
    /// The other server could not be reached, or reported an error.
    #[error("{0}")]
    Link(LinkError),
    /// The catalog refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl SourceError {
    /// What to do about it, often the statement that fixes it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.hint.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused(Refusal { message: message.into(), hint: Some(hint.into()) })
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Refused(Refusal { message: message.into(), hint: None })
    }
}

/// Something that has to be changed before the source can work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// The statement that would fix it.
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Trouble with the connection to the other server. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    /// What happened, with the other server's own message where there is one.
    pub message: String,
    /// The other server's SQLSTATE, if it answered.
    pub sqlstate: Option<String>,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.sqlstate {
            Some(code) => write!(f, " (SQLSTATE {code})"),
            None => Ok(()),
        }
    }
}

impl From<tokio_postgres::Error> for LinkError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let sqlstate = Some(db.code().code().to_owned());
            return Self { message: format!("Postgres: {}", db.message()), sqlstate };
        }
        // The library's own text names the step; the cause is what a user needs.
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let message = match cause {
            Some(cause) => format!("Postgres: {error}: {cause}"),
            None => format!("Postgres: {error}"),
        };
        Self { message, sqlstate: None }
    }
}

impl From<tokio_postgres::Error> for SourceError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Link(error.into())
    }
}

impl From<LinkError> for SourceError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<pgwire_replication::PgWireError> for LinkError {
    fn from(error: pgwire_replication::PgWireError) -> Self {
        use pgwire_replication::PgWireError;
        match error {
            PgWireError::Server(text) => {
                // The library folds the code into the text: `message (SQLSTATE 55006)`.
                let found = text.rsplit_once("SQLSTATE ").and_then(|(_, rest)| rest.get(..5));
                let sqlstate = found.map(str::to_owned);
                let message = match text.rsplit_once(" (SQLSTATE ") {
                    Some((message, _)) => format!("Postgres: {message}"),
                    None => format!("Postgres: {text}"),
                };
                Self { message, sqlstate }
            }
            other => Self { message: format!("replication: {other}"), sqlstate: None },
        }
    }
}
