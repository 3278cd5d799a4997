//! Reading the log up to a position, and no further.

use evert_log::{Commit, Log, ReadError, Replay};
use evert_model::Position;

/// A replay that can stop between two commits and go on later.
pub(crate) struct Reader {
    replay: Replay,
    /// A commit that was read and lies beyond what was asked for.
    held: Option<Commit>,
}

impl Reader {
    /// Reads what comes after `from`.
    pub(crate) fn new(log: &Log, from: Position) -> Result<Self, ReadError> {
        Ok(Self { replay: log.replay(from)?, held: None })
    }

    /// The next commit at or before `end`, if the log has it.
    pub(crate) fn next_upto(&mut self, end: Position) -> Result<Option<Commit>, ReadError> {
        if self.held.is_none() {
            self.held = self.replay.next()?;
        }
        let due = self.held.as_ref().is_some_and(|commit| commit.position <= end);
        Ok(if due { self.held.take() } else { None })
    }
}
