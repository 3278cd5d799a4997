//! Consumer groups.

/// The partitions of `__consumer_offsets`, as many as Kafka has by default.
pub(crate) const OFFSETS_PARTITIONS: i32 = 50;
