//! What can go wrong, one enum per family of operations.

use std::io;
use std::path::{Path, PathBuf};

use evert_model::{Offset, PartitionId, Position, ProducerId, TopicId};
use thiserror::Error;

/// Why a log cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Bytes that were durable are not what was written.
    #[error("{path} is damaged at byte {byte}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        byte: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Another process has the log open.
    #[error("another process holds {0}")]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn damaged(path: &Path, byte: u64, what: &'static str) -> Self {
        Self::Damaged { path: path.to_path_buf(), byte, what }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { path, byte, what } => Self::Damaged { path, byte, what },
            ReadError::Io { path, source } => Self::Io { path, source },
            other => Self::Io { path: PathBuf::new(), source: io::Error::other(other) },
        }
    }
}

/// Why a commit is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// No topic has this id (any more).
    #[error("there is no topic {0}")]
    UnknownTopic(TopicId),
    /// The topic has fewer partitions.
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition {
        /// The topic's name.
        topic: String,
        /// The partition asked for.
        partition: PartitionId,
    },
    /// A batch, or a whole commit, is over its limit.
    #[error("a batch of {bytes} bytes is larger than {bytes_max}, the topic's max.message.bytes")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// An idempotent producer skipped ahead, or repeats what is no longer remembered.
    #[error("sequence {got} follows {expected} expected")]
    OutOfOrderSequence {
        /// The sequence number that would continue.
        expected: i32,
        /// The one that came.
        got: i32,
    },
    /// A newer epoch of the producer id has written already.
    #[error("the producer's epoch {got} is older than {current}")]
    FencedProducer {
        /// The epoch in force.
        current: i16,
        /// The one that came.
        got: i16,
    },
    /// The partition knows nothing of this producer, yet its sequence does not start at 0.
    #[error("producer id {0} is not known here")]
    UnknownProducer(ProducerId),
    /// A compacted topic needs keys.
    #[error("a record without a key cannot go to compacted topic {0}")]
    KeylessRecord(String),
    /// The records of a batch could not be read where that is needed.
    #[error("the batch for topic {topic} cannot be read: {why}")]
    Unreadable {
        /// The topic's name.
        topic: String,
        /// What is wrong with the records.
        why: String,
    },
    /// The log's own topics are not for others to write.
    #[error("topic {0} is written by the log alone")]
    Reserved(String),
    /// The pending files of a large commit could not be written. The log goes on.
    #[error("the large commit failed: {0}")]
    Large(String),
    /// The log acknowledges nothing any more: a sync failed, or it was closed.
    #[error("the log stopped: {0}")]
    Stopped(String),
}

/// Why a topic cannot be created, changed or deleted.
#[derive(Debug, Error)]
pub enum TopicError {
    /// The name is taken.
    #[error("topic \"{0}\" exists already")]
    Exists(String),
    /// No topic has the name.
    #[error("there is no topic \"{0}\"")]
    Unknown(String),
    /// Kafka's rules for names do not allow it.
    #[error("\"{0}\" is not a legal topic name")]
    IllegalName(String),
    /// Too few or too many partitions.
    #[error("{0} partitions: a topic has 1 to 10000")]
    IllegalPartitions(i32),
    /// A setting that is not known, or not with this value.
    #[error("configuration {key}={value}: {why}")]
    IllegalConfig {
        /// The setting's name.
        key: String,
        /// The value asked for.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The commit that would record the change failed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why something cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No topic has this id (any more).
    #[error("there is no topic {0}")]
    UnknownTopic(TopicId),
    /// The topic has fewer partitions.
    #[error("no partition {0}")]
    UnknownPartition(PartitionId),
    /// The offset is trimmed already or not visible yet.
    #[error("offset {offset} lies outside {start}..{end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The log start.
        start: Offset,
        /// The high watermark.
        end: Offset,
    },
    /// The order before this position is gone.
    #[error("the log no longer reaches position {0}")]
    Trimmed(Position),
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged at byte {byte}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        byte: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl ReadError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn damaged(path: &Path, byte: u64, what: &'static str) -> Self {
        Self::Damaged { path: path.to_path_buf(), byte, what }
    }
}
