//! The Kafka target: a record for each change of a key, a tombstone once the row is gone.
//!
//! The topic itself says what was told: at each start it is read, and only what the rows are
//! beyond that is sent. So nothing is told twice, and no position is needed beside it; each
//! record's header `evert.position` says where its change came from.
//!
//! Invariants
//! - What the topic's records add up to, once a position is reported, is the rows there.
//! - A topic with records of something else is not written.
//! - Once a target is given up, none of its records is on its way any more.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use async_trait::async_trait;
use evert_log::LogId;
use evert_model::{Position, RowSchema};
use evert_view::{
    KeyWriter, OutletContext, OutletDef, OutletError, OutletVerdict, RowWriter, SubscribeFrom,
};
use krafka::producer::{Acks, DeliveryHandle, Producer};
use krafka::{CloseOptions, Kafka, KrafkaError, Record};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::changeset::Changeset;
use crate::options::KafkaOptions;
use crate::target::{Target, WriteError};

const POSITION_HEADER: &str = "evert.position";
/// The log and the name of the sink that wrote a record.
const SINK_HEADER: &str = "evert.sink";
/// The key of the row whose one key column is NULL: no text is so.
const NULL_KEY: &str = "\0";
const POLL: Duration = Duration::from_millis(200);
/// A broker that gives no records that it says it has is down.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long without an answer it is looked whether there is a broker that could give one.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Characters of a key that are shown.
const SHOWN_CHARS: usize = 60;
/// Records under way at once.
const IN_FLIGHT_MAX: usize = 10_000;

/// Rows as records of a topic.
pub(crate) struct KafkaTarget {
    brokers: Vec<String>,
    kafka: Kafka,
    producer: Producer,
    topic: String,
    sink: String,
    schema: RowSchema,
    keys: KeyWriter,
    values: RowWriter,
    position: Option<Position>,
    rows: u64,
    /// Until the first copy has ended: what the topic says and the rows have not said yet.
    told: HashMap<String, u128>,
    /// What is sent once the copy's position is known.
    copied: Vec<(String, String)>,
    /// Records under way, by their keys as errors show them.
    handles: Vec<(String, DeliveryHandle)>,
}

fn retry(error: KrafkaError) -> OutletError {
    OutletError::Retry(format!("Kafka: {error}"))
}

fn fingerprint(value: &[u8]) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        value.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

impl KafkaTarget {
    pub(crate) async fn open(
        options: &KafkaOptions,
        def: &OutletDef,
        schema: &RowSchema,
        log_id: LogId,
    ) -> Result<Self, OutletError> {
        if schema.key.is_empty() {
            let why = format!("\"{}\" has no key to name its records by", def.on);
            return Err(OutletError::Failed(why));
        }
        let builder = Kafka::builder(options.brokers.clone())
            .client_id(format!("evert-sink-{}", def.name))
            .connect_timeout(CONNECT_TIMEOUT)
            .connect();
        let connected = timeout(CONNECT_TIMEOUT * 2, builder).await;
        let no_answer = |_| OutletError::Retry("Kafka did not answer in time".into());
        let kafka = connected.map_err(no_answer)?.map_err(retry)?;
        let producer = kafka.producer().acks(Acks::All).idempotent(true).build();
        let all: Vec<usize> = (0..schema.columns.len()).collect();
        let brokers = options.brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty());
        let mut target = Self {
            brokers: brokers.map(str::to_owned).collect(),
            producer: producer.await.map_err(retry)?,
            kafka,
            topic: options.topic.clone(),
            sink: format!("{}/{}", log_id.0, def.name),
            schema: schema.clone(),
            keys: KeyWriter::new(schema, false),
            values: RowWriter::new(schema, &all),
            position: None,
            rows: 0,
            told: HashMap::new(),
            copied: Vec::new(),
            handles: Vec::new(),
        };
        target.told = target.read().await?;
        Ok(target)
    }

    /// What the topic's records add up to: keys and fingerprints of their values.
    async fn read(&self) -> Result<HashMap<String, u128>, OutletError> {
        let consumer = self.kafka.consumer_without_group().build().await.map_err(retry)?;
        let metadata = consumer.fetch_metadata(Some(&self.topic)).await.map_err(retry)?;
        let Some(topic) = metadata.topics.first().filter(|topic| !topic.partitions.is_empty())
        else {
            let why = format!("topic \"{}\" does not exist in the target: create it", self.topic);
            return Err(OutletError::Retry(why));
        };
        let mut partitions: Vec<i32> = topic.partitions.keys().copied().collect();
        partitions.sort_unstable();
        let mut left = HashMap::new();
        for &partition in &partitions {
            let (low, high) =
                consumer.fetch_watermarks(&self.topic, partition).await.map_err(retry)?;
            if low < high {
                left.insert(partition, high);
            }
        }
        let read: Vec<i32> = left.keys().copied().collect();
        let mut told = HashMap::new();
        if read.is_empty() {
            consumer.close().await.map_err(retry)?;
            return Ok(told);
        }
        consumer.assign(&self.topic, read.clone()).await.map_err(retry)?;
        for &partition in &read {
            consumer.seek_to_beginning(&self.topic, partition).await.map_err(retry)?;
        }
        let mut silence = Duration::ZERO;
        while !left.is_empty() {
            let records = consumer.poll(POLL).await.map_err(retry)?;
            silence = if records.is_empty() { silence + POLL } else { Duration::ZERO };
            if silence > SILENCE_MAX {
                let why = format!("Kafka gives no records of topic \"{}\"", self.topic);
                return Err(OutletError::Retry(why));
            }
            for record in &records {
                self.take(record, &mut told)?;
            }
            for &partition in &read {
                // Markers and what was compacted away move the position without a record.
                let at = consumer.position(&self.topic, partition).await;
                if let (Some(at), Some(&end)) = (at, left.get(&partition))
                    && at >= end
                {
                    left.remove(&partition);
                }
            }
        }
        consumer.close().await.map_err(retry)?;
        Ok(told)
    }

    fn take(
        &self,
        record: &krafka::consumer::ConsumerRecord,
        told: &mut HashMap<String, u128>,
    ) -> Result<(), OutletError> {
        let key = record.key_str().filter(|_| record.header_str(SINK_HEADER) == Some(&self.sink));
        let Some(key) = key else {
            return Err(OutletError::Failed(format!(
                "topic \"{}\" holds records that this sink has not written, such as {}@{}",
                self.topic, record.partition, record.offset
            )));
        };
        match &record.value {
            Some(value) => drop(told.insert(key.to_owned(), fingerprint(value))),
            None => drop(told.remove(key)),
        }
        Ok(())
    }

    fn key(&self, rows: &RecordBatch, row: usize) -> String {
        if let [column] = self.schema.key[..]
            && rows.column(column).is_null(row)
        {
            return NULL_KEY.to_owned();
        }
        let mut key = String::new();
        self.keys.write(rows, row, &mut key);
        key
    }

    fn value(&self, rows: &RecordBatch, row: usize) -> String {
        let mut value = String::new();
        self.values.write(rows, row, &mut value);
        value
    }

    /// Sends one record; it is not there before [`KafkaTarget::settle`].
    async fn send(
        &mut self,
        key: String,
        value: Option<String>,
        position: Position,
    ) -> Result<(), OutletError> {
        let shown = key.escape_debug().take(SHOWN_CHARS).collect();
        let record = match value {
            Some(value) => Record::new(&self.topic, value).key(key),
            None => Record::tombstone(&self.topic, key),
        };
        let record = record
            .header(POSITION_HEADER, position.to_string())
            .header(SINK_HEADER, self.sink.clone());
        let handle = self.unless_gone(self.producer.enqueue(record)).await?;
        self.handles.push((shown, handle));
        if self.handles.len() >= IN_FLIGHT_MAX {
            self.settle().await?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), OutletError> {
        self.unless_gone(self.producer.flush()).await?;
        for (key, handle) in std::mem::take(&mut self.handles) {
            // Where it went does not matter.
            if let Err(error) = handle.await {
                let why = format!("Kafka: {error} (the record of key {key})");
                return Err(OutletError::Retry(why));
            }
        }
        Ok(())
    }

    /// Waits for the brokers as long as there may be one. The producer would for two minutes, and
    /// say nothing.
    async fn unless_gone<T>(
        &self,
        work: impl Future<Output = krafka::Result<T>> + Send,
    ) -> Result<T, OutletError> {
        tokio::pin!(work);
        loop {
            if let Ok(done) = timeout(ANSWER_WITHIN, &mut work).await {
                return done.map_err(retry);
            }
            if let Some(why) = self.gone().await {
                // What is queued must not arrive after what the next attempt sends. The close
                // itself says only that it was cut short.
                let now = CloseOptions::new().timeout(Duration::ZERO);
                drop(self.producer.close_with(now).await);
                return Err(why);
            }
        }
    }

    /// Why no broker can be reached. One that says neither yes nor no may be slow.
    async fn gone(&self) -> Option<OutletError> {
        let mut gone = None;
        for broker in &self.brokers {
            match timeout(ANSWER_WITHIN, TcpStream::connect(broker)).await {
                Ok(Err(error)) => gone = Some(format!("Kafka: {broker}: {error}")),
                Ok(Ok(_)) | Err(_) => return None,
            }
        }
        gone.map(OutletError::Retry)
    }
}

#[async_trait]
impl Target for KafkaTarget {
    fn position(&self) -> Option<Position> {
        self.position
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    async fn copy(&mut self, rows: &RecordBatch) -> Result<(), OutletError> {
        for row in 0..rows.num_rows() {
            let (key, value) = (self.key(rows, row), self.value(rows, row));
            let known = self.told.remove(&key);
            if known != Some(fingerprint(value.as_bytes())) {
                self.copied.push((key, value));
            }
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    async fn end_copy(&mut self, position: Position) -> Result<(), OutletError> {
        for (key, value) in std::mem::take(&mut self.copied) {
            self.send(key, Some(value), position).await?;
        }
        for (key, _) in std::mem::take(&mut self.told) {
            self.send(key, None, position).await?;
        }
        self.settle().await?;
        self.position = Some(position);
        Ok(())
    }

    async fn write(&mut self, changes: &Changeset, position: Position) -> Result<(), WriteError> {
        for change in changes.iter() {
            let key = self.key(change.rows, change.row);
            let value = (!change.gone).then(|| self.value(change.rows, change.row));
            let before = change.before.map(|(rows, row)| self.value(rows, row));
            // Of what has come and gone again, or gone and come again, there is nothing to tell.
            if value == before {
                continue;
            }
            self.send(key, value, position).await?;
        }
        // Where there is nothing to send, nothing else would tell.
        if changes.is_empty()
            && let Some(gone) = self.gone().await
        {
            return Err(gone.into());
        }
        self.settle().await?;
        self.position = Some(position);
        self.rows = self.rows.saturating_add_signed(changes.weight);
        Ok(())
    }

    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError> {
        let Some(position) = self.position else {
            return Err(OutletError::Retry("the target has no copy of the rows yet".into()));
        };
        let mut told = self.read().await?;
        let mut verdict =
            OutletVerdict { position, rows_stored: told.len() as u64, ..OutletVerdict::default() };
        let from = SubscribeFrom { snapshot: true, after: Some(position), upto: Some(position) };
        let mut all = context.views().subscribe(context.on(), from).await?;
        let mut differences = Vec::new();
        while let Some(changes) = all.next().await {
            for delta in changes?.deltas {
                verdict.rows_expected += delta.len() as u64;
                for row in 0..delta.len() {
                    let key = self.key(&delta.rows, row);
                    let value = fingerprint(self.value(&delta.rows, row).as_bytes());
                    match told.remove(&key) {
                        Some(stored) if stored == value => {}
                        Some(_) => differences.push(format!("other {key}")),
                        None => differences.push(format!("missing {key}")),
                    }
                }
            }
        }
        differences.extend(told.into_keys().map(|key| format!("unexpected {key}")));
        Ok(verdict.with(differences))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_values_apart() {
        assert_eq!(fingerprint(b"{\"n\":1}"), fingerprint(b"{\"n\":1}"));
        assert_ne!(fingerprint(b"{\"n\":1}"), fingerprint(b"{\"n\":2}"));
    }
}
