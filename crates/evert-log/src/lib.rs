//! One durable, totally ordered log of facts (API draft).
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use evert_env::Env;
use evert_model::{
    EncodedBatch, LogTime, Offset, PartitionId, Position, ProducerEpoch, ProducerId, TimestampMs,
    TopicId,
};
use thiserror::Error;
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub journal_file_bytes: u64,
    pub segment_bytes_max: u64,
    pub tail_bytes_max: usize,
    pub batch_bytes_max: usize,
    /// A checkpoint is due after this many journal bytes.
    pub checkpoint_bytes: u64,
    /// A large commit up to this size stays in memory.
    pub large_memory_bytes: usize,
    /// Who runs the background work.
    pub threads: Threads,
    /// Faults planted on purpose, to show that the tests catch them.
    #[cfg(feature = "planted-faults")]
    pub planted: Planted,
}

/// Who runs the log's background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Threads of the log's own.
    Real,
    /// Whoever calls [`Log::pump`]. Nothing becomes durable otherwise, except in calls that
    /// must wait for it (such as `create_topic`), which pump by themselves.
    Manual,
}

/// Faults planted on purpose.
#[cfg(feature = "planted-faults")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// Acknowledges a group before the journal is synced.
    pub ack_before_sync: bool,
    /// Recovery cuts at the first bad frame, whatever later marks say.
    pub cut_at_first_bad_frame: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        unimplemented!()
    }
}

/// Identity of a log, made at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub uuid::Uuid);

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("{path} is damaged at byte {byte}: {what}")]
    Damaged { path: PathBuf, byte: u64, what: &'static str },
    #[error("another process holds {0}")]
    Locked(PathBuf),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    #[error("there is no topic {0}")]
    UnknownTopic(TopicId),
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition { topic: String, partition: PartitionId },
    #[error("a batch of {bytes} bytes is larger than {bytes_max}, the topic's max.message.bytes")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("sequence {got} follows {expected} expected")]
    OutOfOrderSequence { expected: i32, got: i32 },
    #[error("the producer's epoch {got} is older than {current}")]
    FencedProducer { current: i16, got: i16 },
    #[error("producer id {0} is not known here")]
    UnknownProducer(ProducerId),
    #[error("a record without a key cannot go to compacted topic {0}")]
    KeylessRecord(String),
    #[error("topic {0} is written by the log alone")]
    Reserved(String),
    #[error("the log stopped: {0}")]
    Stopped(String),
}

#[derive(Debug, Error)]
pub enum TopicError {
    #[error("topic \"{0}\" exists already")]
    Exists(String),
    #[error("there is no topic \"{0}\"")]
    Unknown(String),
    #[error("\"{0}\" is not a legal topic name")]
    IllegalName(String),
    #[error("{0} partitions: a topic has 1 to 10000")]
    IllegalPartitions(i32),
    #[error("configuration {key}={value}: {why}")]
    IllegalConfig { key: String, value: String, why: String },
    #[error(transparent)]
    Append(#[from] AppendError),
}

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("there is no topic {0}")]
    UnknownTopic(TopicId),
    #[error("no partition {0}")]
    UnknownPartition(PartitionId),
    #[error("offset {offset} lies outside {start}..{end}")]
    OutOfRange { offset: Offset, start: Offset, end: Offset },
    #[error("the log no longer reaches position {0}")]
    Trimmed(Position),
    #[error("{path} is damaged at byte {byte}: {what}")]
    Damaged { path: PathBuf, byte: u64, what: &'static str },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

/// A topic as it stands: a snapshot, replaced when the topic changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub partitions: i32,
    /// Explicit settings only, by Kafka name.
    pub config: BTreeMap<String, String>,
    /// The position of the commit that created it.
    pub created_at: Position,
}

#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub config: BTreeMap<String, String>,
}

/// One setting as DescribeConfigs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub is_default: bool,
    pub read_only: bool,
    pub doc: &'static str,
}

/// One atomic commit. Batches of one partition keep their order.
#[derive(Clone, Debug, Default)]
pub struct NewCommit {
    pub parts: Vec<NewPart>,
}

#[derive(Clone, Debug)]
pub struct NewPart {
    pub topic: TopicId,
    pub partition: PartitionId,
    pub batch: EncodedBatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub position: Position,
    pub log_time: LogTime,
    /// The base offset given to each part, in the order of `NewCommit::parts`.
    pub base_offsets: Vec<Offset>,
}

/// Resolves when the commit is durable (or, on a `evert.durability=buffered` topic, accepted).
#[derive(Debug)]
pub struct Receipt(());

impl Receipt {
    pub fn wait(self) -> Result<Appended, AppendError> {
        unimplemented!()
    }
}

impl Future for Receipt {
    type Output = Result<Appended, AppendError>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        unimplemented!()
    }
}

/// A commit too large for one frame: parts go in as pending, the marker makes them one commit.
/// Dropped without `commit`, it vanishes.
#[derive(Debug)]
pub struct LargeCommit(());

impl LargeCommit {
    /// Blocks while the log is behind with writing.
    pub fn append(&mut self, part: NewPart) -> Result<(), AppendError> {
        let _ = part;
        unimplemented!()
    }
    pub fn commit(self) -> Result<Receipt, AppendError> {
        unimplemented!()
    }
}

/// One commit, as replay yields it. `parts` are in the order (topic, partition, offset).
#[derive(Clone, Debug)]
pub struct Commit {
    pub position: Position,
    pub log_time: LogTime,
    pub body: CommitBody,
}

#[derive(Clone, Debug)]
pub enum CommitBody {
    Data(Vec<CommitPart>),
    TimeTick,
    Trim { topic: TopicId, partition: PartitionId, log_start: Offset },
}

#[derive(Clone, Debug)]
pub struct CommitPart {
    pub topic: TopicId,
    pub partition: PartitionId,
    pub batch: EncodedBatch,
}

/// Walks the order. Blocking: use it from a thread of its own.
#[derive(Debug)]
pub struct Replay(());

impl Replay {
    /// The next durable commit, or `None` when the log's durable end is reached. It can be
    /// called again after more was appended.
    pub fn next(&mut self) -> Result<Option<Commit>, ReadError> {
        unimplemented!()
    }
}

#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, the first of which may begin before the offset asked for.
    pub batches: Vec<Bytes>,
    pub high_watermark: Offset,
    pub log_start: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    pub log_start: Offset,
    /// Everything below is durable and visible.
    pub high_watermark: Offset,
}

#[derive(Clone)]
pub struct Log(Arc<()>);

impl Log {
    pub fn open(env: Env, dir: PathBuf, config: LogConfig) -> Result<Self, OpenError> {
        let _ = (env, dir, config);
        unimplemented!()
    }
    /// Runs what is pending, in the caller's thread: one journal group after another, the idle
    /// mark if it is due by the clock, writing behind, and a checkpoint if it is due.
    pub fn pump(&self) {
        unimplemented!()
    }
    /// Makes a checkpoint now, whether or not it is due.
    pub fn checkpoint(&self) -> Result<(), AppendError> {
        unimplemented!()
    }
    pub fn id(&self) -> LogId {
        unimplemented!()
    }
    /// The last durable commit.
    pub fn end(&self) -> Position {
        unimplemented!()
    }
    /// Changes whenever `end` does.
    pub fn watch_end(&self) -> watch::Receiver<Position> {
        unimplemented!()
    }
    /// The log time that a commit would get now.
    pub fn now(&self) -> LogTime {
        unimplemented!()
    }
    /// Blocks until the new topic is durable.
    pub fn create_topic(&self, topic: NewTopic) -> Result<Arc<Topic>, TopicError> {
        let _ = topic;
        unimplemented!()
    }
    pub fn delete_topic(&self, name: &str) -> Result<Position, TopicError> {
        let _ = name;
        unimplemented!()
    }
    /// Checks a topic specification without creating it.
    pub fn validate_topic(&self, topic: &NewTopic) -> Result<(), TopicError> {
        let _ = topic;
        unimplemented!()
    }
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let _ = name;
        unimplemented!()
    }
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        let _ = id;
        unimplemented!()
    }
    /// All topics by name, internal ones among them.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        unimplemented!()
    }
    /// Every setting of a topic, defaults included.
    pub fn topic_config(&self, topic: &Topic) -> Vec<ConfigEntry> {
        let _ = topic;
        unimplemented!()
    }
    /// Checks, orders and queues a commit; does not block on the disk. Producer sequences are
    /// checked here: a repeated batch gives a receipt for the original.
    pub fn append(&self, commit: NewCommit) -> Result<Receipt, AppendError> {
        let _ = commit;
        unimplemented!()
    }
    pub fn begin_large(&self) -> LargeCommit {
        unimplemented!()
    }
    /// A new idempotent producer; ids are reserved durably in blocks. May block.
    pub fn new_producer(&self) -> Result<(ProducerId, ProducerEpoch), AppendError> {
        unimplemented!()
    }
    /// Whole batches from `offset`, up to `bytes_max` bytes (at least one batch if there is any).
    /// Gives `None` rather than touch the disk when `memory_only`.
    pub fn fetch(
        &self,
        topic: TopicId,
        partition: PartitionId,
        offset: Offset,
        bytes_max: usize,
        memory_only: bool,
    ) -> Result<Option<Fetched>, ReadError> {
        let _ = (topic, partition, offset, bytes_max, memory_only);
        unimplemented!()
    }
    pub fn partition_ends(
        &self,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<PartitionEnds, ReadError> {
        let _ = (topic, partition);
        unimplemented!()
    }
    /// The first record at or after `timestamp`: exact. May block.
    pub fn offset_for_timestamp(
        &self,
        topic: TopicId,
        partition: PartitionId,
        timestamp: TimestampMs,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        let _ = (topic, partition, timestamp);
        unimplemented!()
    }
    /// The commit that holds a record. May block.
    pub fn position_of(
        &self,
        topic: TopicId,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<Position>, ReadError> {
        let _ = (topic, partition, offset);
        unimplemented!()
    }
    /// Commits after `from`, in order. Position 0 is from the beginning.
    pub fn replay(&self, from: Position) -> Result<Replay, ReadError> {
        let _ = from;
        unimplemented!()
    }
    /// Syncs order and segments, stops the threads. Appends fail afterwards.
    pub fn close(&self) {
        unimplemented!()
    }
}
