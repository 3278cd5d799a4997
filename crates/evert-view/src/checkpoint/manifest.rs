//! The manifest: what a checkpoint says of itself.

use evert_log::LogId;
use evert_model::{LogTime, Offset, Position, TopicId};
use serde::{Deserialize, Serialize};

use crate::SourceState;

/// Of the entries' layout: another is not read.
const FORMAT: u32 = 1;

/// A checkpoint's position and members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    log: uuid::Uuid,
    /// Counts the checkpoints.
    pub(crate) serial: u64,
    position: u64,
    log_time: i64,
    pub(crate) members: Vec<Member>,
    /// Members that fold apart for a while: their entries stay as they were, of no use to a start,
    /// for the differences that come when they are back.
    #[serde(default)]
    pub(crate) away: Vec<u32>,
    pub(crate) next_offsets: Vec<(TopicId, Vec<i64>)>,
    /// Each with the position of its last commit.
    pub(crate) sources: Vec<(SourceState, u64)>,
}

/// A member of the cohort.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) label: String,
    pub(crate) number: u32,
    /// The checkpoint at which its entries last changed; they say the same.
    pub(crate) changed_at: u64,
}

impl Manifest {
    pub(crate) fn new(log: LogId, serial: u64, position: Position, log_time: LogTime) -> Self {
        Self {
            format: FORMAT,
            log: log.0,
            serial,
            position: position.get(),
            log_time: log_time.get(),
            members: Vec::new(),
            away: Vec::new(),
            next_offsets: Vec::new(),
            sources: Vec::new(),
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position::new(self.position)
    }

    pub(crate) fn log_time(&self) -> LogTime {
        LogTime::new(self.log_time)
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = (TopicId, Vec<Offset>)> {
        let offsets = |ends: &Vec<i64>| ends.iter().map(|&end| Offset::new(end)).collect();
        self.next_offsets.iter().map(move |(topic, ends)| (*topic, offsets(ends)))
    }

    pub(crate) fn member(&self, label: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.label == label)
    }

    /// Why a log is not this checkpoint's, if it is not.
    pub(crate) fn misfit(&self, log: LogId, end: Position) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("it has format {}, not {FORMAT}", self.format));
        }
        if self.log != log.0 {
            return Some("it is of another log".to_owned());
        }
        if self.position > end.get() {
            return Some(format!("it is at {}, ahead of the log's end {end}", self.position));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_fits_its_own_log_only() {
        let (own, other) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        let at = Position::new(7);
        let mut manifest = Manifest::new(LogId(own), 1, at, LogTime::new(0));
        assert_eq!(manifest.misfit(LogId(own), Position::new(7)), None);
        assert_eq!(manifest.misfit(LogId(own), Position::new(8)), None);
        assert!(manifest.misfit(LogId(own), Position::new(6)).is_some());
        assert!(manifest.misfit(LogId(other), Position::new(7)).is_some());
        manifest.format += 1;
        assert!(manifest.misfit(LogId(own), Position::new(7)).is_some());
    }
}
