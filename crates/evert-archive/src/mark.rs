//! What a snapshot says of the log: how far its rows go, and of which log.

use std::collections::{BTreeMap, HashMap};

use evert_model::{LogTime, Offset, PartitionId, Position, TopicId};
use uuid::Uuid;

use crate::error::{ArchiveError, Result};

const LOG_ID: &str = "evert.log-id";
const TOPIC_ID: &str = "evert.topic-id";
const ARCHIVE_ID: &str = "evert.archive-id";
const POSITION: &str = "evert.position";
const LOG_TIME: &str = "evert.log-time";
const OFFSETS: &str = "evert.next-offsets";

/// How far a table's rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) log_time: LogTime,
    /// The first offset after the rows, by partition.
    pub(crate) next_offsets: BTreeMap<PartitionId, Offset>,
}

impl Mark {
    /// Before the first commit.
    pub(crate) fn zero() -> Self {
        let (position, log_time) = (Position::ZERO, LogTime::new(0));
        Self { position, log_time, next_offsets: BTreeMap::new() }
    }

    /// As a snapshot's summary holds it.
    pub(crate) fn write(&self, owner: &Owner, summary: &mut HashMap<String, String>) {
        let offsets: Vec<_> = self
            .next_offsets
            .iter()
            .map(|(partition, next)| format!("{partition}={next}"))
            .collect();
        owner.write(summary);
        summary.insert(POSITION.into(), self.position.to_string());
        summary.insert(LOG_TIME.into(), self.log_time.to_string());
        summary.insert(OFFSETS.into(), offsets.join(","));
    }

    /// `None` if something is missing or odd.
    pub(crate) fn read(summary: &HashMap<String, String>) -> Option<Self> {
        let number = |key: &str| summary.get(key)?.parse::<i64>().ok();
        let offsets = summary.get(OFFSETS)?;
        let offsets = offsets.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (partition, next) = part.split_once('=')?;
            Some((PartitionId::new(partition.parse().ok()?), Offset::new(next.parse().ok()?)))
        });
        Some(Self {
            position: Position::new(u64::try_from(number(POSITION)?).ok()?),
            log_time: LogTime::new(number(LOG_TIME)?),
            next_offsets: offsets.collect::<Option<_>>()?,
        })
    }
}

/// Whose facts a table holds, and which archive writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) log_id: String,
    pub(crate) topic_id: String,
    pub(crate) archive_id: String,
}

impl Owner {
    pub(crate) fn write(&self, into: &mut HashMap<String, String>) {
        into.insert(LOG_ID.into(), self.log_id.clone());
        into.insert(TOPIC_ID.into(), self.topic_id.clone());
        into.insert(ARCHIVE_ID.into(), self.archive_id.clone());
    }

    pub(crate) fn read(from: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            log_id: from.get(LOG_ID)?.clone(),
            topic_id: from.get(TOPIC_ID)?.clone(),
            archive_id: from.get(ARCHIVE_ID)?.clone(),
        })
    }

    /// The topic whose facts they are.
    pub(crate) fn topic(&self) -> Result<TopicId> {
        let id = Uuid::parse_str(&self.topic_id);
        let odd = |error| ArchiveError::damaged(TOPIC_ID, error);
        id.map(TopicId::new).map_err(odd)
    }

    /// Whether both are of the same facts.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (&self.log_id, &self.topic_id) == (&other.log_id, &other.topic_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let owner = Owner { log_id: "l".into(), topic_id: "t".into(), archive_id: "a".into() };
        let next_offsets = [(0, 5), (3, 9)].map(|(p, o)| (PartitionId::new(p), Offset::new(o)));
        let mark = Mark {
            position: Position::new(7),
            log_time: LogTime::new(-4),
            next_offsets: BTreeMap::from(next_offsets),
        };
        let mut summary = HashMap::new();
        mark.write(&owner, &mut summary);
        assert_eq!(Mark::read(&summary), Some(mark));
        assert_eq!(Owner::read(&summary), Some(owner));
        summary.insert(OFFSETS.into(), "0:5".into());
        assert_eq!(Mark::read(&summary), None);
    }
}
