//! Errors in Kafka's words: the one place where the log's errors become Kafka's codes.

use evert_log::{AppendError, ReadError, TopicError};
use evert_model::BatchError;
use kafka_protocol::error::ResponseError;
use thiserror::Error;

/// Whatever a request may fail with below the door.
#[derive(Debug, Error)]
pub(crate) enum DoorError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Refused by the door itself.
    #[error("{why}")]
    Refused { code: ResponseError, why: String },
}

impl DoorError {
    pub(crate) fn refused(code: ResponseError, why: impl Into<String>) -> Self {
        Self::Refused { code, why: why.into() }
    }

    pub(crate) fn unknown_topic(name: &str) -> Self {
        Self::Topic(TopicError::Unknown(name.to_owned()))
    }

    /// Kafka's code for this error where a group's coordinator answers: clients there know no
    /// storage errors, and try again when the coordinator is not available.
    pub(crate) fn coordinator_code(&self) -> i16 {
        match translate(self) {
            ResponseError::KafkaStorageError => ResponseError::CoordinatorNotAvailable.code(),
            ResponseError::MessageTooLarge => ResponseError::InvalidCommitOffsetSize.code(),
            code => code.code(),
        }
    }

    /// Kafka's code for this error.
    pub(crate) fn code(&self) -> i16 {
        translate(self).code()
    }
}

fn translate(error: &DoorError) -> ResponseError {
    use ResponseError as Kafka;
    match error {
        DoorError::Refused { code, .. } => *code,
        DoorError::Batch(error) => match error {
            BatchError::UnsupportedMagic(_) => Kafka::UnsupportedForMessageFormat,
            BatchError::UnknownCompression(_) => Kafka::UnsupportedCompressionType,
            BatchError::TooLarge { .. } => Kafka::MessageTooLarge,
            BatchError::Truncated | BatchError::CrcMismatch { .. } | BatchError::Corrupt(_) => {
                Kafka::CorruptMessage
            }
        },
        DoorError::Append(error) | DoorError::Topic(TopicError::Append(error)) => match error {
            AppendError::UnknownTopic(_) | AppendError::UnknownPartition { .. } => {
                Kafka::UnknownTopicOrPartition
            }
            AppendError::TooLarge { .. } => Kafka::MessageTooLarge,
            AppendError::OutOfOrderSequence { .. } => Kafka::OutOfOrderSequenceNumber,
            AppendError::FencedProducer { .. } => Kafka::InvalidProducerEpoch,
            AppendError::UnknownProducer(_) => Kafka::UnknownProducerId,
            AppendError::KeylessRecord(_) | AppendError::Unreadable { .. } => Kafka::InvalidRecord,
            AppendError::Reserved(_) => Kafka::InvalidTopicException,
            AppendError::Stopped(_) | AppendError::Large(_) => Kafka::KafkaStorageError,
        },
        DoorError::Read(error) => match error {
            ReadError::UnknownTopic(_) | ReadError::UnknownPartition(_) => {
                Kafka::UnknownTopicOrPartition
            }
            ReadError::OutOfRange { .. } | ReadError::Trimmed(_) => Kafka::OffsetOutOfRange,
            ReadError::Damaged { .. } | ReadError::Io { .. } => Kafka::KafkaStorageError,
        },
        DoorError::Topic(error) => match error {
            TopicError::Exists(_) => Kafka::TopicAlreadyExists,
            TopicError::Unknown(_) => Kafka::UnknownTopicOrPartition,
            TopicError::IllegalName(_) => Kafka::InvalidTopicException,
            TopicError::IllegalPartitions(_) => Kafka::InvalidPartitions,
            TopicError::IllegalConfig { .. } => Kafka::InvalidConfig,
            TopicError::Append(_) => unreachable!("an append's error was matched above"),
        },
    }
}
