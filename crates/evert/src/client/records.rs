//! `evert produce` and `evert consume`: records in and out, by Kafka's protocol.

use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use evert_model::{BatchBuilder, Compression, Record, TimestampMs, split_batches};
use evert_view::partition_of;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse,
};
use serde_json::{Map, Value, json};

use super::broker::{Broker, check};
use super::topics::{offsets_at, partitions_of, topic_name};
use crate::output::Output;

/// Lines that are gathered into one request, and their bytes.
const LINES_MAX: usize = 1000;
const BATCH_BYTES: usize = 512 << 10;
const FETCH_BYTES: i32 = 4 << 20;
const PAYLOAD_BYTES_MAX: usize = 256 << 20;
/// How long a fetch waits for records that are yet to come.
const FETCH_WAIT_MS: i32 = 500;

/// The flags of `evert produce`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProduceArgs {
    /// The topic; each line of standard input is a record
    topic: String,
    /// Where the server's Kafka door is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// What is before this in a line is the record's key
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// The partition; by default that of the key, or one after the other
    #[arg(long)]
    partition: Option<i32>,
}

/// The flags of `evert consume`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Where the server's Kafka door is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// One partition only
    #[arg(long)]
    partition: Option<i32>,
    /// Where to begin in each partition: earliest, latest, or an offset
    #[arg(long, value_name = "OFFSET", default_value = "earliest")]
    from: String,
    /// End after so many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Wait for what is yet to come; without, the end is where the partitions end now
    #[arg(long, short)]
    follow: bool,
    /// Print JSON, an object a record: topic, partition, offset, timestamp, key, value, headers
    #[arg(long)]
    json: bool,
}

/// Runs `evert produce`.
///
/// # Errors
/// When the server cannot be reached, or refuses a record.
pub(crate) async fn produce(args: ProduceArgs) -> Result<()> {
    let mut broker = Broker::connect(&args.kafka).await?;
    let partitions = partitions_of(&mut broker, &args.topic).await?;
    if let Some(partition) = args.partition.filter(|partition| !partitions.contains(partition)) {
        bail!("topic \"{}\" has no partition {partition}", args.topic);
    }
    let (mut lines, mut total) = (Lines::default(), 0_u64);
    for line in std::io::stdin().lock().split(b'\n') {
        let mut line = line?;
        if line.ends_with(b"\r") {
            line.pop();
        }
        let (key, value) = match &args.key_separator {
            None => (None, line),
            Some(separator) => {
                let (key, value) = split(&line, separator.as_bytes())
                    .with_context(|| format!("line {}: no \"{separator}\"", total + 1))?;
                (Some(key.to_vec()), value.to_vec())
            }
        };
        let count = partitions.len() as i32;
        let partition = match (args.partition, &key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, count),
            (None, None) => (total / LINES_MAX as u64 % count as u64) as i32,
        };
        lines.push(partition, key, value);
        total += 1;
        if lines.count >= LINES_MAX || lines.bytes >= BATCH_BYTES {
            send(&mut broker, &args.topic, std::mem::take(&mut lines)).await?;
        }
    }
    if lines.count > 0 {
        send(&mut broker, &args.topic, lines).await?;
    }
    eprintln!("{total} records");
    Ok(())
}

fn split<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(separator.len().max(1)).position(|window| window == separator)?;
    Some((&line[..at], &line[at + separator.len()..]))
}

/// Records to be sent, by partition.
#[derive(Default)]
struct Lines {
    builders: BTreeMap<i32, BatchBuilder>,
    count: usize,
    bytes: usize,
}

impl Lines {
    fn push(&mut self, partition: i32, key: Option<Vec<u8>>, value: Vec<u8>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = TimestampMs::new(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        let builder = self.builders.entry(partition);
        let builder = builder.or_insert_with(|| BatchBuilder::new(Compression::None));
        builder.push(now, key.as_deref(), Some(&value), &[]);
        self.count += 1;
        self.bytes += value.len();
    }
}

async fn send(broker: &mut Broker, topic: &str, lines: Lines) -> Result<()> {
    let partitions = lines.builders.into_iter().map(|(partition, builder)| {
        PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(builder.build().bytes().clone()))
    });
    let data = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(partitions.collect());
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    let answer: ProduceResponse = broker.ask(ApiKey::Produce, 9, &request).await?;
    for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
        let what = format!("topic \"{topic}\", partition {}", partition.index);
        check(&what, partition.error_code, partition.error_message.as_ref())?;
    }
    Ok(())
}

/// Runs `evert consume`.
///
/// # Errors
/// When the server cannot be reached, or refuses.
pub(crate) async fn consume(args: ConsumeArgs) -> Result<()> {
    let mut broker = Broker::connect(&args.kafka).await?;
    let mut partitions = partitions_of(&mut broker, &args.topic).await?;
    if let Some(wanted) = args.partition {
        partitions.retain(|partition| *partition == wanted);
        if partitions.is_empty() {
            bail!("topic \"{}\" has no partition {wanted}", args.topic);
        }
    }
    let mut next = match args.from.as_str() {
        "earliest" => offsets_at(&mut broker, &args.topic, &partitions, -2).await?,
        "latest" => offsets_at(&mut broker, &args.topic, &partitions, -1).await?,
        offset => {
            let offset: i64 = offset
                .parse()
                .with_context(|| format!("--from {offset}: not earliest, latest or an offset"))?;
            partitions.iter().map(|partition| (*partition, offset)).collect()
        }
    };
    let ends = offsets_at(&mut broker, &args.topic, &partitions, -1).await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut out = BufWriter::new(Output::new());
    loop {
        if !args.follow {
            next.retain(|partition, offset| ends.get(partition).is_some_and(|end| *offset < *end));
        }
        if next.is_empty() || left == 0 {
            return Ok(());
        }
        let answer = fetch(&mut broker, &args.topic, &next).await?;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let index = partition.partition_index;
            check(
                &format!("topic \"{}\", partition {index}", args.topic),
                partition.error_code,
                None,
            )?;
            let Some(records) = &partition.records else { continue };
            let Some(offset) = next.get_mut(&index) else { continue };
            for batch in split_batches(records.clone()) {
                let batch = batch?;
                let payload = batch.payload(PAYLOAD_BYTES_MAX)?;
                for record in batch.records(&payload) {
                    let record = record?;
                    // A batch is sent whole, from its beginning.
                    if record.offset.get() < *offset || batch.header().is_control() || left == 0 {
                        continue;
                    }
                    print(&mut out, &args, index, &record)?;
                    left -= 1;
                }
                *offset = batch.header().next_offset().get().max(*offset);
            }
        }
        out.flush()?;
    }
}

async fn fetch(
    broker: &mut Broker,
    topic: &str,
    next: &BTreeMap<i32, i64>,
) -> Result<FetchResponse> {
    let partitions = next.iter().map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(FETCH_BYTES)
    });
    let topic =
        FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions.collect());
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(FETCH_WAIT_MS)
        .with_min_bytes(1)
        .with_max_bytes(FETCH_BYTES)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer: FetchResponse = broker.ask(ApiKey::Fetch, 12, &request).await?;
    check("fetch", answer.error_code, None)?;
    Ok(answer)
}

fn print(
    out: &mut impl Write,
    args: &ConsumeArgs,
    partition: i32,
    record: &Record<'_>,
) -> Result<()> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !args.json {
        out.write_all(record.value.unwrap_or_default())?;
        out.write_all(b"\n")?;
        return Ok(());
    }
    let headers: Map<String, Value> =
        record.headers().map(|header| (text(header.key), header.value.map(text).into())).collect();
    let shown = json!({
        "topic": args.topic,
        "partition": partition,
        "offset": record.offset.get(),
        "timestamp": record.timestamp.get(),
        "key": record.key.map(text),
        "value": record.value.map(text),
        "headers": headers,
    });
    writeln!(out, "{shown}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_key_ends_at_the_first_separator() {
        assert_eq!(split(b"k::v::w", b"::"), Some((&b"k"[..], &b"v::w"[..])));
        assert_eq!(split(b"kv", b"::"), None);
        assert_eq!(split(b"", b":"), None);
    }
}
