//! Identifiers: numbers that must not be mixed up.

use std::fmt;

use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a raw number.
            pub const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The raw number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The place of a record in its partition: 0, 1, 2, ... without reuse.
    Offset(i64)
}
number! {
    /// The place of a commit in the one order of the whole log, from 1 and below 2^63.
    ///
    /// Position 0 is "before the first commit". Positions increase from commit to commit,
    /// not always by one.
    Position(u64)
}
number! {
    /// The number of a partition in its topic, from 0.
    PartitionId(i32)
}
number! {
    /// A Kafka producer id; [`ProducerId::NONE`] is a producer without idempotence.
    ProducerId(i64)
}
number! {
    /// The epoch of a Kafka producer id.
    ProducerEpoch(i16)
}
number! {
    /// A Kafka timestamp: milliseconds since 1970-01-01 UTC; -1 is none.
    TimestampMs(i64)
}
number! {
    /// The log's own time, in microseconds since 1970-01-01 UTC. It never goes back.
    LogTime(i64)
}
number! {
    /// A place in a Postgres write-ahead log.
    Lsn(u64)
}

impl Offset {
    /// The offset `count` records further.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }
}

impl Position {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);

    /// The next number in the order.
    ///
    /// # Panics
    /// If positions run out (2^63 commits).
    #[must_use]
    pub const fn next(self) -> Self {
        assert!(self.0 < i64::MAX as u64, "positions have run out");
        Self(self.0 + 1)
    }
}

impl ProducerId {
    /// No producer id: the batch is not idempotent.
    pub const NONE: Self = Self(-1);
}

impl LogTime {
    /// The same instant in milliseconds, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl Lsn {
    /// Reads Postgres's own notation: two hexadecimal halves, `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(Self(u64::from(high) << 32 | u64::from(low)))
    }

    /// Postgres's notation of this place.
    pub fn to_postgres(self) -> String {
        format!("{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The identity of a topic: it stays when names are reused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct TopicId(Uuid);

impl TopicId {
    /// Wraps a UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
