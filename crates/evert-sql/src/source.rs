//! What SQL asks of the machinery that follows other databases.

use async_trait::async_trait;
use evert_model::{Lsn, Position};

use crate::SqlError;

/// What CREATE SOURCE says.
#[derive(Clone, Debug)]
pub struct NewSource {
    /// The source's name, also the schema of its relations.
    pub name: String,
    /// The connection string, password included.
    pub url: String,
    /// The publication; the source picks a name when there is none.
    pub publication: Option<String>,
    /// The replication slot; the source picks a name when there is none.
    pub slot: Option<String>,
    /// Tables as they were written (`public.orders`); empty for all that are published.
    pub tables: Vec<String>,
    /// A source of this name may exist already.
    pub if_not_exists: bool,
}

/// A row of `evert.sources`.
#[derive(Clone, Debug)]
pub struct SourceRow {
    /// The source's name.
    pub name: String,
    /// One word: `copying`, `running`, `retrying`, `failed`.
    pub state: String,
    /// More about the state: progress, or why.
    pub detail: Option<String>,
    /// The connection string without its password.
    pub url: String,
    /// The publication it reads.
    pub publication: Option<String>,
    /// Its replication slot.
    pub slot: Option<String>,
    /// Its tables as they are called over there.
    pub tables: Vec<String>,
    /// Everything committed there up to here is in the log.
    pub lsn: Option<Lsn>,
    /// The position of its last commit in the log.
    pub position: Option<Position>,
    /// Write-ahead log that the slot keeps the other server from recycling.
    pub retained_wal_bytes: Option<u64>,
    /// Age of the newest commit taken.
    pub lag_ms: Option<u64>,
}

/// Creates, drops and reports sources. The binary implements it over `evert-cdc`.
#[async_trait]
pub trait SourceControl: Send + Sync {
    /// Checks the other side, registers relations and source, and starts copying. Gives notices.
    async fn create(&self, new: NewSource) -> Result<Vec<String>, SqlError>;
    /// Drops a source, its slot, and with `cascade` its relations and what depends on them.
    /// Gives notices.
    async fn drop(
        &self,
        name: &str,
        if_exists: bool,
        cascade: bool,
    ) -> Result<Vec<String>, SqlError>;
    /// Every source as it stands.
    fn status(&self) -> Vec<SourceRow>;
}

/// A server without sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSources;

#[async_trait]
impl SourceControl for NoSources {
    async fn create(&self, _: NewSource) -> Result<Vec<String>, SqlError> {
        Err(SqlError::unsupported("CREATE SOURCE in this server"))
    }

    async fn drop(&self, name: &str, if_exists: bool, _: bool) -> Result<Vec<String>, SqlError> {
        let message = format!("source \"{name}\" does not exist");
        if if_exists {
            return Ok(vec![message + ", skipping"]);
        }
        Err(SqlError::new(crate::error::UNDEFINED_OBJECT, message))
    }

    fn status(&self) -> Vec<SourceRow> {
        Vec::new()
    }
}
