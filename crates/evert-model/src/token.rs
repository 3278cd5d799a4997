//! Position tokens: the ways in which a reader may name a position.

use std::fmt;

use thiserror::Error;

use crate::{Lsn, Offset, PartitionId, Position};

/// A position as a user writes it: `41`, `payments/0@17` or `shop:0/16B3748`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PositionToken {
    /// The number itself.
    Position(Position),
    /// The commit that holds this record.
    Record {
        /// The topic's name.
        topic: String,
        /// The partition in the topic.
        partition: PartitionId,
        /// The record's offset in the partition.
        offset: Offset,
    },
    /// The commit that holds everything that a source had committed at this LSN.
    Source {
        /// The source's name.
        source: String,
        /// A place in the source's write-ahead log.
        lsn: Lsn,
    },
}

impl fmt::Display for PositionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => write!(f, "position {position}"),
            Self::Record { topic, partition, offset } => {
                write!(f, "record {topic}/{partition}@{offset}")
            }
            Self::Source { source, lsn } => write!(f, "{source}:{}", lsn.to_postgres()),
        }
    }
}

/// A position token that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{0}\" is not a position: write a number, topic/partition@offset or source:LSN")]
pub struct TokenError(String);

impl std::str::FromStr for PositionToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let refuse = || TokenError(text.to_owned());
        let text = text.trim();
        if let Ok(number) = text.parse::<u64>() {
            if number > i64::MAX as u64 {
                return Err(refuse());
            }
            return Ok(Self::Position(Position::new(number)));
        }
        if let Some((record, offset)) = text.rsplit_once('@') {
            let (topic, partition) = record.rsplit_once('/').ok_or_else(refuse)?;
            let partition: i32 = partition.parse().map_err(|_| refuse())?;
            let offset: i64 = offset.parse().map_err(|_| refuse())?;
            if topic.is_empty() || partition < 0 || offset < 0 {
                return Err(refuse());
            }
            return Ok(Self::Record {
                topic: topic.to_owned(),
                partition: PartitionId::new(partition),
                offset: Offset::new(offset),
            });
        }
        let (source, lsn) = text.rsplit_once(':').ok_or_else(refuse)?;
        let lsn = Lsn::parse(lsn).ok_or_else(refuse)?;
        if source.is_empty() {
            return Err(refuse());
        }
        Ok(Self::Source { source: source.to_owned(), lsn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_forms() {
        assert_eq!("41".parse(), Ok(PositionToken::Position(Position::new(41))));
        assert_eq!(
            "shop.public.orders/2@17".parse(),
            Ok(PositionToken::Record {
                topic: "shop.public.orders".into(),
                partition: PartitionId::new(2),
                offset: Offset::new(17),
            })
        );
        assert_eq!(
            "shop:0/16B3748".parse(),
            Ok(PositionToken::Source { source: "shop".into(), lsn: Lsn::new(0x16B_3748) })
        );
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "-1", "9223372036854775808", "a@b", "/0@1", "t/-1@0", ":0/1", "s:xyz"] {
            assert!(text.parse::<PositionToken>().is_err(), "{text}");
        }
    }
}
