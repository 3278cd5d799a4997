//! Fetch: batches out.
//!
//! Owns: the long poll, and how a response's bytes are shared among partitions.
//! Not here: fetch sessions (KIP-227). Every fetch is a full one, which the protocol allows: the
//! response's session id is 0.
//!
//! Invariants
//! - A batch goes out as it came in; a fetch inside a batch gets the whole batch.
//! - Progress: the first batch of a response is sent whatever its size (KIP-74).
//! - The disk is read on a thread that may wait, memory at once.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use evert_log::{Fetched, Log};
use evert_model::{Offset, PartitionId, TopicId};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};

use super::broker::{Broker, Peer, millis, raised};
use super::epoch::check_epoch;
use super::error::DoorError;

/// The most that one response carries, Kafka's own default of `fetch.max.bytes`.
const RESPONSE_BYTES_MAX: usize = 55 * 1024 * 1024;

/// The first version in which a client may know zstd (KIP-110).
const ZSTD_VERSION_MIN: i16 = 10;

/// Aborted transactions are listed, if only to say that there are none, from this isolation
/// level on.
const READ_COMMITTED: i8 = 1;

/// One partition of a fetch, with what has been read of it.
#[derive(Debug)]
struct Wanted {
    topic: TopicName,
    asked: FetchPartition,
    /// The topic, unless the request is wrong about it.
    id: Result<TopicId, i16>,
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Answer {
    Nothing,
    Failed(i16),
    Read(Fetched),
}

impl Answer {
    fn bytes(&self) -> usize {
        match self {
            Self::Read(fetched) => fetched.batches.iter().map(Bytes::len).sum(),
            Self::Nothing | Self::Failed(_) => 0,
        }
    }
}

impl Broker {
    pub(crate) async fn fetch(
        &self,
        version: i16,
        request: FetchRequest,
        peer: &Peer,
    ) -> FetchResponse {
        if request.session_id != 0 && request.session_epoch > 0 {
            return FetchResponse::default()
                .with_error_code(ResponseError::FetchSessionIdNotFound.code());
        }
        let isolation_level = request.isolation_level;
        let wanted = self.poll(request, peer).await;
        respond(wanted, version, isolation_level)
    }

    /// Reads until there is enough, or time is up.
    async fn poll(&self, request: FetchRequest, peer: &Peer) -> Vec<Wanted> {
        let max_wait = millis(request.max_wait_ms).min(self.config.fetch_wait_max);
        let deadline = Instant::now() + max_wait;
        let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX);
        let mut leaving = peer.leaving.clone();
        let mut end = self.log.watch_end();
        let mut wanted = self.wanted(request);
        loop {
            // What is appended from here on wakes the wait below.
            end.borrow_and_update();
            wanted = self.read(wanted, bytes_max).await;
            if is_enough(&wanted, bytes_min) {
                return wanted;
            }
            loop {
                tokio::select! {
                    changed = end.changed() => if changed.is_err() { return wanted },
                    () = tokio::time::sleep_until(deadline.into()) => return wanted,
                    () = raised(&mut leaving) => return wanted,
                }
                if self.moved(&wanted) {
                    break;
                }
            }
        }
    }

    fn wanted(&self, request: FetchRequest) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for topic in request.topics {
            let id = self.topic(&topic.topic).map(|topic| topic.id).map_err(|error| error.code());
            for asked in topic.partitions {
                let id = check_epoch(asked.current_leader_epoch).and(id);
                wanted.push(Wanted {
                    topic: topic.topic.clone(),
                    asked,
                    id,
                    answer: Answer::Nothing,
                });
            }
        }
        wanted
    }

    /// Reads every partition, from memory if that is possible.
    async fn read(&self, wanted: Vec<Wanted>, bytes_max: usize) -> Vec<Wanted> {
        let (wanted, complete) = read_all(&self.log, wanted, bytes_max, true);
        if complete {
            return wanted;
        }
        self.blocking(move |log| read_all(log, wanted, bytes_max, false).0).await
    }

    /// Whether a partition holds more than what was read of it.
    fn moved(&self, wanted: &[Wanted]) -> bool {
        wanted.iter().any(|part| {
            let (Ok(id), Answer::Read(fetched)) = (part.id, &part.answer) else { return false };
            match self.log.partition_ends(id, PartitionId::new(part.asked.partition)) {
                Ok(ends) => ends.high_watermark > fetched.high_watermark,
                // The next read says what happened.
                Err(_) => true,
            }
        })
    }
}

/// Enough is an error, which the client should hear of, or the bytes it wants.
fn is_enough(wanted: &[Wanted], bytes_min: usize) -> bool {
    let failed = wanted.iter().any(|part| matches!(part.answer, Answer::Failed(_)));
    failed || wanted.iter().map(|part| part.answer.bytes()).sum::<usize>() >= bytes_min
}

/// Reads the partitions in the order asked for. Gives false if the disk would be needed and
/// `memory_only` forbids it.
fn read_all(
    log: &Log,
    mut wanted: Vec<Wanted>,
    bytes_max: usize,
    memory_only: bool,
) -> (Vec<Wanted>, bool) {
    let mut left = bytes_max;
    let mut is_empty = true;
    for part in &mut wanted {
        let part_max = usize::try_from(part.asked.partition_max_bytes).unwrap_or(0).min(left);
        let mut fetched = match read_one(log, part, part_max, memory_only) {
            Ok(Some(fetched)) => fetched,
            Ok(None) => return (wanted, false),
            Err(code) => {
                part.answer = Answer::Failed(code);
                continue;
            }
        };
        // The log gives one batch however large it is; only the first may exceed the limits.
        if !is_empty && fetched.batches.first().is_some_and(|first| first.len() > part_max) {
            fetched.batches.clear();
        }
        is_empty &= fetched.batches.is_empty();
        part.answer = Answer::Read(fetched);
        left = left.saturating_sub(part.answer.bytes());
    }
    (wanted, true)
}

fn read_one(
    log: &Log,
    part: &Wanted,
    bytes_max: usize,
    memory_only: bool,
) -> Result<Option<Fetched>, i16> {
    let id = part.id?;
    let partition = PartitionId::new(part.asked.partition);
    let offset = Offset::new(part.asked.fetch_offset);
    log.fetch(id, partition, offset, bytes_max, memory_only)
        .map_err(|error| DoorError::from(error).code())
}

fn respond(wanted: Vec<Wanted>, version: i16, isolation_level: i8) -> FetchResponse {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for part in wanted {
        let data = partition_data(&part, version, isolation_level);
        match topics.last_mut() {
            Some(last) if last.topic == part.topic => last.partitions.push(data),
            _ => topics.push(
                FetchableTopicResponse::default()
                    .with_topic(part.topic)
                    .with_partitions(vec![data]),
            ),
        }
    }
    FetchResponse::default().with_responses(topics)
}

fn partition_data(part: &Wanted, version: i16, isolation_level: i8) -> PartitionData {
    let data = PartitionData::default()
        .with_partition_index(part.asked.partition)
        .with_high_watermark(-1)
        .with_aborted_transactions((isolation_level == READ_COMMITTED).then(Vec::new))
        .with_records(Some(Bytes::new()));
    match &part.answer {
        Answer::Nothing => data.with_error_code(part.id.err().unwrap_or(0)),
        Answer::Failed(code) => data.with_error_code(*code),
        Answer::Read(fetched) => {
            let data = data
                .with_high_watermark(fetched.high_watermark.get())
                .with_last_stable_offset(fetched.high_watermark.get())
                .with_log_start_offset(fetched.log_start.get());
            if version < ZSTD_VERSION_MIN && fetched.batches.iter().any(is_zstd) {
                return data.with_error_code(ResponseError::UnsupportedCompressionType.code());
            }
            data.with_records(Some(join(&fetched.batches)))
        }
    }
}

fn is_zstd(batch: &Bytes) -> bool {
    evert_model::BatchHeader::parse(batch)
        .is_ok_and(|header| header.compression() == evert_model::Compression::Zstd)
}

fn join(batches: &[Bytes]) -> Bytes {
    match batches {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => {
            let mut out = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|batch| out.extend_from_slice(batch));
            out.freeze()
        }
    }
}
