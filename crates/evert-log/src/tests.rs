//! The log through its outward face, on real files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evert_env::Env;
use evert_model::{
    BatchBuilder, Compression, EncodedBatch, Offset, PartitionId, Position, ProducerEpoch,
    ProducerId, TimestampMs, TopicId,
};
use tempfile::TempDir;

use crate::{
    AppendError, CommitBody, Log, LogConfig, NewCommit, NewPart, NewTopic, OpenError, ReadError,
    Threads, Topic, TopicError,
};

mod durable;
mod reading;
mod topics;

/// Small enough that a few commits roll, checkpoint and recycle everything.
fn small() -> LogConfig {
    LogConfig {
        journal_file_bytes: 8 << 10,
        segment_bytes_max: 4 << 10,
        tail_bytes_max: 4 << 10,
        checkpoint_bytes: 16 << 10,
        large_memory_bytes: 1 << 10,
        threads: Threads::Manual,
        ..LogConfig::default()
    }
}

/// Nothing is written behind or recycled unless a test says so.
fn lazy() -> LogConfig {
    LogConfig { threads: Threads::Manual, ..LogConfig::default() }
}

struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("log")
    }

    fn open(&self, config: LogConfig) -> Log {
        self.try_open(config).unwrap()
    }

    fn try_open(&self, config: LogConfig) -> Result<Log, OpenError> {
        Log::open(Env::real(), self.path(), config)
    }

    /// The newest file of a kind: `journal`, `order` or `segments`.
    fn files(&self, kind: &str) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.path().join(kind))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }
}

fn new_topic(name: &str, partitions: i32, config: &[(&str, &str)]) -> NewTopic {
    let config: BTreeMap<String, String> =
        config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NewTopic { name: name.to_owned(), partitions, config }
}

fn topic(log: &Log, name: &str, partitions: i32) -> Arc<Topic> {
    log.create_topic(new_topic(name, partitions, &[])).unwrap()
}

/// `count` records whose values say `tag`, at times from `time` on.
fn batch_at(tag: &str, count: usize, time: i64) -> EncodedBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    for n in 0..count {
        let value = format!("{tag}/{n}");
        batch.push(TimestampMs::new(time + n as i64), Some(b"k"), Some(value.as_bytes()), &[]);
    }
    batch.build()
}

fn batch(tag: &str, count: usize) -> EncodedBatch {
    batch_at(tag, count, 1000)
}

fn sequenced(id: i64, epoch: i16, sequence: i32, count: usize) -> EncodedBatch {
    let mut batch = BatchBuilder::new(Compression::None).producer(
        ProducerId::new(id),
        ProducerEpoch::new(epoch),
        sequence,
    );
    (0..count).for_each(|_| batch.push(TimestampMs::new(0), None, Some(b"v"), &[]));
    batch.build()
}

fn part(topic: &Topic, partition: i32, batch: EncodedBatch) -> NewPart {
    NewPart { topic: topic.id, partition: PartitionId::new(partition), batch }
}

fn commit(parts: Vec<NewPart>) -> NewCommit {
    NewCommit { parts }
}

/// Appends one batch and waits until it is durable.
fn put(log: &Log, topic: &Topic, partition: i32, batch: EncodedBatch) -> crate::Appended {
    let receipt = log.append(commit(vec![part(topic, partition, batch)])).unwrap();
    log.pump();
    receipt.wait().unwrap()
}

/// One line for each commit: `position topic/partition@offset+count=tag ...`.
fn story(log: &Log, from: u64) -> Vec<String> {
    let mut replay = log.replay(Position::new(from)).unwrap();
    let mut lines = Vec::new();
    while let Some(commit) = replay.next().unwrap() {
        let CommitBody::Data(parts) = commit.body else { panic!("only data is appended") };
        let mut line = commit.position.to_string();
        for part in parts {
            let name = log.topic_by_id(part.topic).unwrap().name.clone();
            let header = *part.batch.header();
            let payload = part.batch.payload(1 << 20).unwrap();
            let first = part.batch.records(&payload).next().unwrap().unwrap();
            let value = String::from_utf8_lossy(first.value.unwrap()).into_owned();
            let tag = value.split('/').next().unwrap();
            let tag = if name.starts_with("__") { "fact" } else { tag };
            line += &format!(
                " {name}/{}@{}+{}={tag}",
                part.partition,
                header.base_offset,
                header.offset_count()
            );
        }
        lines.push(line);
    }
    lines
}

/// The values of a partition, as fetches from `offset` on give them.
fn fetched(log: &Log, topic: TopicId, partition: i32, from: i64, bytes_max: usize) -> Vec<String> {
    let partition = PartitionId::new(partition);
    let (mut values, mut offset) = (Vec::new(), Offset::new(from));
    loop {
        let got = log.fetch(topic, partition, offset, bytes_max, false).unwrap().unwrap();
        if got.batches.is_empty() {
            assert_eq!(offset, got.high_watermark);
            return values;
        }
        for bytes in got.batches {
            let batch = EncodedBatch::new(bytes).unwrap();
            let payload = batch.payload(1 << 20).unwrap();
            for record in batch.records(&payload) {
                let record = record.unwrap();
                if record.offset >= offset {
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
            offset = batch.header().next_offset();
        }
    }
}
