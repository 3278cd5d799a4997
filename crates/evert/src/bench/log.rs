//! The log: append in process, produce through the Kafka door, replay.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use evert_env::Env;
use evert_log::{CommitBody, Log, LogConfig, NewCommit, NewPart, NewTopic, Topic};
use evert_model::{BatchBuilder, Compression, EncodedBatch, PartitionId, Position, TimestampMs};

use super::produce;
use super::report::{Durability, Outcome, Report};
use super::{Bench, Scratch};

/// Records of a batch, and bytes of a record's value.
const BATCH_RECORDS: usize = 100;
const RECORD_BYTES: usize = 100;
const PARTITIONS: i32 = 8;
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
const TOPIC: &str = "bench";
/// Different batches, so that no cache holds them all.
const BATCHES: usize = 256;

pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    let batches = batches();
    for (producers, in_flight, records) in [(1, 1, 200_000), (4, 8, 4_000_000)] {
        let name = format!(
            "append in process: {producers} producer{}, {in_flight} in flight, \
             {BATCH_RECORDS} x {RECORD_BYTES} B",
            if producers == 1 { "" } else { "s" }
        );
        let records = bench.records(records);
        report.item(bench, &name, Durability::Synced, true, || {
            with_log(&bench.scratch, |log, topic| {
                append(log, topic, &batches, Appenders { producers, in_flight, records })
            })
        })?;
    }
    let records = bench.records(2_000_000);
    let name = format!(
        "produce over loopback: {} connections, {} in flight, {BATCH_RECORDS} x {RECORD_BYTES} B",
        produce::CONNECTIONS,
        produce::IN_FLIGHT
    );
    report.item(bench, &name, Durability::Synced, true, || {
        with_log(&bench.scratch, |log, topic| {
            let count = records / BATCH_RECORDS;
            let mut outcome = produce::run(log, topic, &batches, count)?;
            outcome.records = count * BATCH_RECORDS;
            outcome.bytes = Some(payload_bytes(outcome.records));
            Ok(outcome)
        })
    })?;
    let records = bench.records(4_000_000);
    let name = "replay after reopening, every record read";
    report.item(bench, name, Durability::Read, true, || {
        let appenders = Appenders { producers: 4, in_flight: 8, records };
        with_log(&bench.scratch, |log, topic| append(log, topic, &batches, appenders))?;
        let log = Log::open(Env::real(), dir(&bench.scratch), LogConfig::default())?;
        let topic = log.topic(TOPIC).context("the topic is in the log")?;
        let outcome = replay(&log, &topic);
        log.close();
        outcome
    })
}

fn dir(scratch: &Scratch) -> PathBuf {
    scratch.path().join("log")
}

fn payload_bytes(records: usize) -> u64 {
    (records * RECORD_BYTES) as u64
}

fn batches() -> Arc<Vec<EncodedBatch>> {
    let mut random = fastrand::Rng::with_seed(1);
    let timestamp = TimestampMs::new(1_700_000_000_000);
    let batch = |_| {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..BATCH_RECORDS {
            let value: Vec<u8> = (0..RECORD_BYTES).map(|_| random.u8(..)).collect();
            builder.push(timestamp, None, Some(&value), &[]);
        }
        builder.build()
    };
    Arc::new((0..BATCHES).map(batch).collect())
}

/// Runs over a new log, which stays until the next one.
fn with_log(
    scratch: &Scratch,
    run: impl FnOnce(&Log, &Arc<Topic>) -> Result<Outcome>,
) -> Result<Outcome> {
    let dir = dir(scratch);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let log = Log::open(Env::real(), dir, LogConfig::default())?;
    let outcome = log
        .create_topic(NewTopic {
            name: TOPIC.to_owned(),
            partitions: PARTITIONS,
            config: BTreeMap::new(),
        })
        .context("cannot make the topic")
        .and_then(|topic| run(&log, &topic));
    log.close();
    outcome
}

/// How many append, how many batches each has on the way, and how many records in all.
#[derive(Clone, Copy)]
struct Appenders {
    producers: usize,
    in_flight: usize,
    records: usize,
}

fn append(
    log: &Log,
    topic: &Arc<Topic>,
    batches: &Arc<Vec<EncodedBatch>>,
    appenders: Appenders,
) -> Result<Outcome> {
    let each = (appenders.records / BATCH_RECORDS / appenders.producers).max(1);
    let start = Instant::now();
    let threads: Vec<_> = (0..appenders.producers)
        .map(|producer| {
            let (log, topic, batches) = (log.clone(), Arc::clone(topic), Arc::clone(batches));
            std::thread::spawn(move || {
                append_some(&log, &topic, &batches, producer, each, appenders.in_flight)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().expect("a producer does not panic")?);
    }
    let records = each * appenders.producers * BATCH_RECORDS;
    let bytes = Some(payload_bytes(records));
    Ok(Outcome { latencies, bytes, ..Outcome::since(start, records) })
}

fn append_some(
    log: &Log,
    topic: &Topic,
    batches: &[EncodedBatch],
    producer: usize,
    count: usize,
    in_flight: usize,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(count);
    let mut waiting = VecDeque::new();
    for n in 0..count {
        let partition = PartitionId::new(((producer + n) % PARTITIONS as usize) as i32);
        let batch = batches[(producer * 31 + n) % batches.len()].clone();
        let sent = Instant::now();
        let parts = vec![NewPart { topic: topic.id, partition, batch }];
        waiting.push_back((sent, log.append(NewCommit { parts })?));
        while waiting.len() >= in_flight {
            let Some((sent, receipt)) = waiting.pop_front() else { break };
            receipt.wait()?;
            latencies.push(sent.elapsed());
        }
    }
    for (sent, receipt) in waiting {
        receipt.wait()?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

fn replay(log: &Log, topic: &Topic) -> Result<Outcome> {
    let start = Instant::now();
    let mut replay = log.replay(Position::new(0))?;
    let (mut records, mut bytes) = (0, 0);
    while let Some(commit) = replay.next()? {
        let CommitBody::Data(parts) = commit.body else { continue };
        for part in parts.iter().filter(|part| part.topic == topic.id) {
            let payload = part.batch.payload(PAYLOAD_BYTES_MAX)?;
            for record in part.batch.records(&payload) {
                records += 1;
                bytes += record?.value.map_or(0, |value| value.len() as u64);
            }
        }
    }
    Ok(Outcome { bytes: Some(bytes), ..Outcome::since(start, records) })
}
