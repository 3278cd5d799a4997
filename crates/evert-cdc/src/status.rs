//! How sources are doing, for whoever asks.

use std::sync::{Arc, Mutex};

use evert_model::{Lsn, Position};

use crate::definition::Definition;

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePhase {
    /// The initial copy is on its way.
    Copying,
    /// Transactions are taken as they commit.
    Running,
    /// The link is down; it is tried again.
    Retrying,
    /// It needs a person.
    Failed,
    /// It was told to stop.
    Stopped,
}

impl SourcePhase {
    /// The phase as one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// A source as it stands.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// The source's name.
    pub name: String,
    /// What it is doing.
    pub phase: SourcePhase,
    /// Progress (`43%`), or why it is not running, or what it warns of.
    pub detail: Option<String>,
    /// The connection string without its password.
    pub url: String,
    /// The publication it reads.
    pub publication: String,
    /// Its replication slot.
    pub slot: String,
    /// Its tables as they are called over there.
    pub tables: Vec<String>,
    /// Everything committed there up to here is durable in the log.
    pub lsn: Option<Lsn>,
    /// The position of its last durable commit in the log since the start.
    pub position: Option<Position>,
    /// Write-ahead log that the slot keeps the other server from recycling.
    pub retained_wal_bytes: Option<u64>,
    /// Age of the newest transaction when it became durable here; 0 when there is nothing to take.
    pub lag_ms: Option<u64>,
    /// Rows taken by the copy so far.
    pub rows_copied: u64,
    /// Source transactions taken since the start.
    pub transactions: u64,
    /// What a user should know, though the source runs.
    pub warnings: Vec<String>,
}

impl SourceStatus {
    /// The state in one line: `running`, `copying 43%`, `retrying: why`, `failed: why`.
    pub fn state(&self) -> String {
        match (&self.detail, self.phase) {
            (None, phase) => phase.as_str().to_owned(),
            (Some(detail), SourcePhase::Copying) => format!("copying {detail}"),
            (Some(detail), phase) => format!("{}: {detail}", phase.as_str()),
        }
    }
}

/// The status of one source, written by its worker.
#[derive(Clone)]
pub(crate) struct StatusCell(Arc<Mutex<SourceStatus>>);

impl StatusCell {
    pub(crate) fn new(name: &str, definition: &Definition) -> Self {
        Self(Arc::new(Mutex::new(SourceStatus {
            name: name.to_owned(),
            phase: SourcePhase::Copying,
            detail: None,
            url: definition.url.display(),
            publication: definition.publication.clone(),
            slot: definition.slot.clone(),
            tables: definition.tables.iter().map(|table| table.source_name()).collect(),
            lsn: None,
            position: None,
            retained_wal_bytes: None,
            lag_ms: None,
            rows_copied: 0,
            transactions: 0,
            warnings: definition.warnings.clone(),
        })))
    }

    pub(crate) fn get(&self) -> SourceStatus {
        self.0.lock().expect("no writer panics").clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.0.lock().expect("no writer panics"));
    }

    pub(crate) fn phase(&self, phase: SourcePhase, detail: Option<String>) {
        self.update(|status| {
            status.phase = phase;
            status.detail = detail;
        });
    }

    pub(crate) fn warn(&self, warning: String) {
        self.update(|status| {
            if !status.warnings.contains(&warning) {
                status.warnings.push(warning);
            }
        });
    }
}
