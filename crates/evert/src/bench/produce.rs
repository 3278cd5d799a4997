//! Produce through the Kafka door of this process, over loopback, as a client does it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use evert_door::kafka::{KafkaConfig, KafkaDoor, TopicUse};
use evert_log::{Log, Topic};
use evert_model::EncodedBatch;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;

use super::report::Outcome;

pub(super) const CONNECTIONS: usize = 4;
/// As Kafka's own producer has it.
pub(super) const IN_FLIGHT: usize = 5;
/// The last version that names topics.
const VERSION: i16 = 12;
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Produces `count` batches with acks=all.
pub(super) fn run(
    log: &Log,
    topic: &Arc<Topic>,
    batches: &Arc<Vec<EncodedBatch>>,
    count: usize,
) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_and_produce(log, topic, batches, count))
}

/// No relation stands on the benchmark's topic.
struct NoRelations;

impl TopicUse for NoRelations {
    fn relation_on(&self, _topic: &str) -> Option<String> {
        None
    }
}

async fn serve_and_produce(
    log: &Log,
    topic: &Arc<Topic>,
    batches: &Arc<Vec<EncodedBatch>>,
    count: usize,
) -> Result<Outcome> {
    let config = KafkaConfig::default();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let door = KafkaDoor::bind(address, log.clone(), Arc::new(NoRelations), config).await?;
    let address = door.local_addr()?;
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(door.serve(stopping));
    let start = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|client| {
            let (topic, batches) = (Arc::clone(topic), Arc::clone(batches));
            let share = count / CONNECTIONS + usize::from(client < count % CONNECTIONS);
            tokio::spawn(async move { produce(address, &topic, &batches, client, share).await })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    let elapsed = start.elapsed();
    stop.send_replace(true);
    serving.await?;
    Ok(Outcome { elapsed, latencies, ..Outcome::default() })
}

async fn produce(
    address: SocketAddr,
    topic: &Topic,
    batches: &[EncodedBatch],
    client: usize,
    count: usize,
) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let mut waiting = VecDeque::new();
    let mut latencies = Vec::with_capacity(count);
    for n in 0..count {
        let partition = ((client + n) % topic.partitions as usize) as i32;
        let batch = batches[(client * 31 + n) % batches.len()].bytes().clone();
        let request = request(topic, partition, n as i32, batch)?;
        waiting.push_back(Instant::now());
        writer.write_all(&request).await?;
        if waiting.len() >= IN_FLIGHT {
            acknowledged(&mut reader, &mut waiting, &mut latencies).await?;
        }
    }
    while !waiting.is_empty() {
        acknowledged(&mut reader, &mut waiting, &mut latencies).await?;
    }
    Ok(latencies)
}

/// A Produce request with its length in front.
fn request(topic: &Topic, partition: i32, correlation_id: i32, records: Bytes) -> Result<Bytes> {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let name = TopicName(StrBytes::from_string(topic.name.clone()));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::Produce as i16)
        .with_request_api_version(VERSION)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("evert-bench")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, ApiKey::Produce.request_header_version(VERSION))?;
    request.encode(&mut frame, VERSION)?;
    let length = i32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// Reads the next answer, which must be a success.
async fn acknowledged(
    reader: &mut OwnedReadHalf,
    waiting: &mut VecDeque<Instant>,
    latencies: &mut Vec<Duration>,
) -> Result<()> {
    let length = usize::try_from(reader.read_i32().await?)?;
    ensure!(length <= RESPONSE_BYTES_MAX, "an answer of {length} bytes");
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).await?;
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, ApiKey::Produce.response_header_version(VERSION))?;
    let response = ProduceResponse::decode(&mut answer, VERSION)?;
    ensure!(!answer.has_remaining(), "an answer with bytes left over");
    for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
        if partition.error_code != 0 {
            bail!("produce failed with error {}", partition.error_code);
        }
    }
    latencies.push(waiting.pop_front().context("an answer that nobody asked for")?.elapsed());
    Ok(())
}
