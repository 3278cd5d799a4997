//! What SHOW VIEWS tells.

use std::time::Duration;

use evert_model::Position;

use crate::Name;

/// The state of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// Catching up: after a start, or because it is new.
    Rebuilding {
        /// How much is done, 0 to 99.
        percent: u8,
        /// What is left at the pace so far.
        eta: Option<Duration>,
    },
    /// Following the log.
    Live,
    /// Stopped, and why.
    Failed(String),
}

impl std::fmt::Display for ViewState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rebuilding { percent, eta: None } => write!(f, "rebuilding {percent}%"),
            Self::Rebuilding { percent, eta: Some(eta) } => {
                write!(f, "rebuilding {percent}% eta {}s", eta.as_secs())
            }
            Self::Live => f.write_str("live"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// A view as SHOW VIEWS shows it.
#[derive(Clone, Debug)]
pub struct ViewStatus {
    /// The view.
    pub name: Name,
    /// Whether it can be read.
    pub state: ViewState,
    /// The position it has reached.
    pub position: Position,
    /// Records of its relations that it has not folded yet.
    pub lag_records: u64,
    /// How far its position's log time lies back, when records are waiting.
    pub lag_ms: u64,
    /// Its rows.
    pub rows: usize,
    /// Its state and its rows in memory.
    pub memory_bytes: usize,
}

/// A private replay of a view compared with the live one.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The view.
    pub name: Name,
    /// The position at which both were compared.
    pub position: Position,
    /// Rows of the live view.
    pub rows_live: usize,
    /// Rows of the replay.
    pub rows_replayed: usize,
    /// Whether their rows are the same.
    pub equal: bool,
}
