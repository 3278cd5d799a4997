//! The nouns of Evert.
//!
//! Owns: identifiers ([`Offset`], [`Position`], ...), Kafka record batches (format v2),
//! relation schemas, and deltas (rows with weights).
//! Not here: any input or output, any clock, any async code.

mod array;
mod batch;
mod builder;
mod compression;
mod delta;
mod ids;
mod origin;
mod record;
mod schema;
mod token;

pub use array::{ItemType, array_element, array_elements};
pub use batch::{BatchError, BatchHeader, EncodedBatch, HEADER_BYTES, split_batches};
pub use builder::BatchBuilder;
pub use compression::Compression;
pub use delta::Delta;
pub use ids::{
    LogTime, Lsn, Offset, PartitionId, Position, ProducerEpoch, ProducerId, TimestampMs, TopicId,
};
pub use origin::Origin;
pub use record::{Header, HeaderIter, Record, RecordIter};
pub use schema::{Column, ColumnType, RowSchema, is_vector, vector_field};
pub use token::{PositionToken, TokenError};
