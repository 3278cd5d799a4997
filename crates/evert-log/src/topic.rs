//! Topics and the records of the internal topic that they are a fold of.

use std::collections::BTreeMap;

use bytes::Bytes;
use evert_model::{BatchBuilder, Compression, EncodedBatch, Position, TimestampMs, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{TopicError, settings};

/// The internal topic that holds the catalog of topics and what else the log remembers.
pub(crate) const CATALOG_NAME: &str = "__evert_topics";
/// Its number; other topics count on from it.
pub(crate) const CATALOG_NUMBER: u32 = 0;
const PARTITIONS_MAX: i32 = 10_000;
const NAME_BYTES_MAX: usize = 249;
/// A record of the catalog is far smaller.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// A topic as it stands: a snapshot, replaced when the topic changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its identity, which no other topic ever has.
    pub id: TopicId,
    /// Its name, which a later topic may take.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Explicit settings only, by Kafka name.
    pub config: BTreeMap<String, String>,
    /// The position of the commit that created it.
    pub created_at: Position,
}

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it shall have.
    pub partitions: i32,
    /// Explicit settings, by Kafka name.
    pub config: BTreeMap<String, String>,
}

impl NewTopic {
    pub(crate) fn check(&self) -> Result<(), TopicError> {
        if !is_legal_name(&self.name) {
            return Err(TopicError::IllegalName(self.name.clone()));
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(TopicError::IllegalPartitions(self.partitions));
        }
        settings::resolve(&self.config).map(drop)
    }
}

/// Kafka's rule: 1 to 249 of ASCII letters, digits, `.`, `_` and `-`, and neither `.` nor `..`.
fn is_legal_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

pub(crate) fn catalog_topic() -> Topic {
    Topic {
        id: TopicId::new(Uuid::from_u128(1)),
        name: CATALOG_NAME.to_owned(),
        partitions: 1,
        config: BTreeMap::from([("max.message.bytes".to_owned(), (16 << 20).to_string())]),
        created_at: Position::ZERO,
    }
}

/// A fact about the log itself: a record of the catalog topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Fact {
    /// A topic came to be.
    Created {
        number: u32,
        id: TopicId,
        name: String,
        partitions: i32,
        config: BTreeMap<String, String>,
    },
    /// A topic went.
    Deleted { number: u32 },
    /// Producer ids below this may have been given out.
    ProducersBelow { id: i64 },
}

impl Fact {
    pub(crate) fn encode(&self, now_ms: i64) -> EncodedBatch {
        let key = match self {
            Self::Created { number, .. } | Self::Deleted { number } => format!("topic/{number}"),
            Self::ProducersBelow { .. } => "producers".to_owned(),
        };
        let value = serde_json::to_vec(self).expect("a fact is plain data");
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(TimestampMs::new(now_ms), Some(key.as_bytes()), Some(&value), &[]);
        batch.build()
    }

    /// The facts of one batch of the catalog topic; `None` if they cannot be read.
    pub(crate) fn decode(batch: &EncodedBatch) -> Option<Vec<Self>> {
        let payload: Bytes = batch.payload(PAYLOAD_BYTES_MAX).ok()?;
        batch
            .records(&payload)
            .map(|record| serde_json::from_slice(record.ok()?.value?).ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for legal in ["a", "shop.public.orders", "__x-1", &"n".repeat(249)] {
            assert!(is_legal_name(legal), "{legal}");
        }
        for illegal in ["", ".", "..", "a/b", "a b", "zürich", &"n".repeat(250)] {
            assert!(!is_legal_name(illegal), "{illegal}");
        }
    }

    #[test]
    fn facts_read_back() {
        let fact = Fact::Created {
            number: 7,
            id: TopicId::new(Uuid::from_u128(9)),
            name: "t".into(),
            partitions: 3,
            config: BTreeMap::from([("segment.bytes".into(), "1000".into())]),
        };
        assert_eq!(Fact::decode(&fact.encode(5)), Some(vec![fact]));
        let junk = {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(TimestampMs::new(0), None, Some(b"{}"), &[]);
            batch.build()
        };
        assert_eq!(Fact::decode(&junk), None);
    }
}
