//! Changelogs: a view's changes as records of the Kafka topic `<view>.changes`.
//!
//! A view with a key has one record a key: the row, or a tombstone once it is gone. A view
//! without has one a change, with its weight. Each record's header `evert.position` says where
//! the change came from. What one tick changes is one commit.
//!
//! Owns: what is appended, and that it is appended once.
//! Not here: the changes themselves (`subscribe`).
//!
//! Invariants
//! - What the topic's records add up to is the view's rows at some position. So a start, or
//!   another definition, only appends what differs from them: nothing is told twice, and nothing
//!   is kept beside the topic.

use std::collections::HashMap;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use evert_log::{Log, NewCommit, NewPart, ReadError, Topic};
use evert_model::{
    BatchBuilder, Compression, Delta, Header, LogTime, Offset, PartitionId, Position, Record,
    RowSchema, TimestampMs, split_batches,
};
use tokio::sync::watch;

use crate::decode::KeyWriter;
use crate::encode::RowWriter;
use crate::past::PastError;
use crate::subscribe::{Changes, SubscribeFrom, Subscription};
use crate::{CatalogError, Name, PinError, Views};

/// The header that holds the position of a change.
const POSITION_HEADER: &[u8] = b"evert.position";
/// The key of the row whose one key column is NULL: no text is so.
const NULL_KEY: &[u8] = b"\0";
const WEIGHT_MEMBER: &str = "{\"evert_weight\":";
const BATCH_BYTES: usize = 256 << 10;
/// Above this a commit goes into the log in pieces, with a marker.
const FRAME_BYTES_MAX: usize = 4 << 20;
const FETCH_BYTES: usize = 1 << 20;
const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// Between two attempts after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// The topic of a view's changes.
pub(crate) fn topic_name(view: &Name) -> String {
    format!("{view}.changes")
}

/// The thread that appends one view's changes.
pub(crate) struct Changelog {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Changelog {
    /// Begins to append what the topic does not say yet.
    pub(crate) fn start(views: Views, view: Name) -> Result<Self, CatalogError> {
        let (stop, stopped) = watch::channel(false);
        let writer = Writer { views, view, stopped };
        let thread = thread::Builder::new().name(format!("changes {}", writer.view));
        let thread = thread.spawn(move || writer.run());
        let thread = thread.map_err(|e| CatalogError::Invalid(format!("no thread: {e}")))?;
        Ok(Self { stop, thread })
    }

    /// Ends it; what was appended stays.
    pub(crate) fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("a changelog ended in a panic");
        }
    }
}

struct Writer {
    views: Views,
    view: Name,
    stopped: watch::Receiver<bool>,
}

impl Writer {
    fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime else {
            return tracing::error!(view = %self.view, "no runtime for a changelog");
        };
        let mut stopped = self.stopped.clone();
        runtime.block_on(async {
            tokio::select! {
                // Without a sender nobody is left who could say otherwise.
                _ = stopped.wait_for(|stop| *stop) => {}
                () = self.follow() => {}
            }
        });
        // A replay of its own may still be reading; it ends when it sees that nobody listens.
        runtime.shutdown_background();
    }

    /// Appends changes until the views stop; after an error it begins again.
    async fn follow(&mut self) {
        loop {
            match self.write().await {
                Err(PastError::Pin(PinError::Stopping)) | Ok(()) => return,
                Err(error) => tracing::warn!(view = %self.view, %error, "changes wait"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn write(&self) -> Result<(), PastError> {
        let from = SubscribeFrom { snapshot: true, ..SubscribeFrom::default() };
        let mut changes = self.views.subscribe(&self.view, from).await?;
        let log = self.views.log().clone();
        let Some(topic) = log.topic(&topic_name(&self.view)) else {
            tracing::error!(view = %self.view, "the topic of its changes was deleted");
            return Ok(());
        };
        let encoder = Encoder::new(changes.schema());
        let told = {
            let (log, topic, keyed) = (log.clone(), topic.clone(), encoder.is_keyed());
            let read = tokio::task::spawn_blocking(move || Told::read(&log, &topic, keyed));
            read.await.map_err(|_| PinError::Stopping)??
        };
        let (first, at) = difference(&mut changes, &encoder, told).await?;
        self.append(&topic, first, at).await?;
        while let Some(next) = changes.next().await {
            let mut tick = next?;
            let mut records = Records::new(encoder.is_keyed());
            loop {
                tick.deltas.iter().for_each(|delta| encoder.take(delta, &mut records));
                if tick.complete {
                    break;
                }
                tick = changes.next().await.ok_or(PinError::Stopping)??;
            }
            self.append(&topic, records, (tick.position, tick.log_time)).await?;
        }
        Ok(())
    }

    /// Makes records one commit and waits until it is durable.
    async fn append(
        &self,
        topic: &Topic,
        records: Records,
        at: (Position, LogTime),
    ) -> Result<(), PastError> {
        let parts = records.into_parts(topic, at);
        if parts.is_empty() {
            return Ok(());
        }
        let log = self.views.log().clone();
        let bytes: usize = parts.iter().map(|part| part.batch.bytes().len()).sum();
        let append = tokio::task::spawn_blocking(move || {
            let receipt = if bytes <= FRAME_BYTES_MAX {
                log.append(NewCommit { parts })?
            } else {
                let mut large = log.begin_large();
                parts.into_iter().try_for_each(|part| large.append(part))?;
                large.commit()?
            };
            receipt.wait()
        });
        let appended = append.await.map_err(|_| PinError::Stopping)?;
        appended.map(drop).map_err(|error| {
            let (name, why) = (Name::public(topic.name.clone()), error.to_string());
            PinError::Failed { name, why }.into()
        })
    }
}

/// What the rows at the beginning of `changes` say beyond what was told, and where they are.
async fn difference(
    changes: &mut Subscription,
    encoder: &Encoder,
    mut told: Told,
) -> Result<(Records, (Position, LogTime)), PastError> {
    let mut now = Records::new(encoder.is_keyed());
    loop {
        let Changes { position, log_time, deltas, complete } =
            changes.next().await.ok_or(PinError::Stopping)??;
        deltas.iter().for_each(|delta| encoder.take(delta, &mut now));
        if complete {
            now.subtract(&mut told);
            return Ok((now, (position, log_time)));
        }
    }
}

/// Turns rows into keys and values.
struct Encoder {
    key: Option<(KeyWriter, Option<usize>)>,
    row: RowWriter,
}

impl Encoder {
    fn new(schema: &RowSchema) -> Self {
        let all: Vec<_> = (0..schema.columns.len()).collect();
        let lone = match schema.key[..] {
            [column] => Some(column),
            _ => None,
        };
        let key = (!schema.key.is_empty()).then(|| (KeyWriter::new(schema, false), lone));
        Self { key, row: RowWriter::new(schema, &all) }
    }

    fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    fn take(&self, delta: &Delta, records: &mut Records) {
        let mut key_text = String::new();
        for row in 0..delta.len() {
            let weight = delta.weights.value(row);
            let mut value = String::new();
            self.row.write(&delta.rows, row, &mut value);
            match &self.key {
                None => records.add(value.into_bytes(), weight),
                Some((writer, lone)) => {
                    let null = lone.is_some_and(|column| delta.rows.column(column).is_null(row));
                    let key = if null {
                        NULL_KEY.to_vec()
                    } else {
                        writer.write(&delta.rows, row, &mut key_text);
                        key_text.clone().into_bytes()
                    };
                    records.put(key, (weight > 0).then(|| value.into_bytes()));
                }
            }
        }
    }
}

/// Records of one commit, each key or row once, in the order of its first change.
enum Records {
    Keyed { places: HashMap<Vec<u8>, usize>, records: Vec<(Vec<u8>, Option<Vec<u8>>)> },
    Weighted { places: HashMap<Vec<u8>, usize>, records: Vec<(Vec<u8>, i64)> },
}

/// What a topic's records add up to.
enum Told {
    Keyed(HashMap<Vec<u8>, Vec<u8>>),
    Weighted(HashMap<Vec<u8>, i64>),
}

impl Records {
    fn new(keyed: bool) -> Self {
        match keyed {
            true => Self::Keyed { places: HashMap::new(), records: Vec::new() },
            false => Self::Weighted { places: HashMap::new(), records: Vec::new() },
        }
    }

    /// A key's row, or that it has none. What is put in comes after what is taken out.
    fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let Self::Keyed { places, records } = self else { unreachable!("rows have keys") };
        match places.get(&key) {
            Some(&place) => records[place].1 = value,
            None => {
                places.insert(key.clone(), records.len());
                records.push((key, value));
            }
        }
    }

    fn add(&mut self, row: Vec<u8>, weight: i64) {
        let Self::Weighted { places, records } = self else { unreachable!("rows have no keys") };
        match places.get(&row) {
            Some(&place) => records[place].1 += weight,
            None => {
                places.insert(row.clone(), records.len());
                records.push((row, weight));
            }
        }
    }

    /// Leaves what was not told, and adds that what was told and is not there is gone.
    fn subtract(&mut self, told: &mut Told) {
        match (&mut *self, &mut *told) {
            (Self::Keyed { records, .. }, Told::Keyed(told)) => {
                records.retain(|(key, value)| told.remove(key) != *value);
                let mut gone: Vec<_> = told.drain().map(|(key, _)| (key, None)).collect();
                gone.sort_unstable();
                records.extend(gone);
            }
            (Self::Weighted { records, .. }, Told::Weighted(told)) => {
                for (row, weight) in records.iter_mut() {
                    *weight -= told.remove(row).unwrap_or(0);
                }
                let mut gone: Vec<_> = told.drain().map(|(row, weight)| (row, -weight)).collect();
                gone.sort_unstable();
                records.extend(gone);
            }
            _ => unreachable!("both are of one view"),
        }
    }

    fn into_parts(self, topic: &Topic, (position, log_time): (Position, LogTime)) -> Vec<NewPart> {
        let at = position.to_string();
        let headers = [Header { key: POSITION_HEADER, value: Some(at.as_bytes()) }];
        let time = TimestampMs::new(log_time.millis());
        let mut parts =
            Parts { topic, batch: BatchBuilder::new(Compression::None), done: Vec::new() };
        match self {
            Self::Keyed { records, .. } => {
                for (key, value) in records {
                    parts.batch.push(time, Some(&key), value.as_deref(), &headers);
                    parts.close_if_large();
                }
            }
            Self::Weighted { records, .. } => {
                for (row, weight) in records.iter().filter(|(_, weight)| *weight != 0) {
                    let mut value = format!("{WEIGHT_MEMBER}{weight},").into_bytes();
                    value.extend_from_slice(&row[1..]);
                    parts.batch.push(time, None, Some(&value), &headers);
                    parts.close_if_large();
                }
            }
        }
        parts.finish()
    }
}

struct Parts<'a> {
    topic: &'a Topic,
    batch: BatchBuilder,
    done: Vec<NewPart>,
}

impl Parts<'_> {
    fn close_if_large(&mut self) {
        if self.batch.payload_bytes() >= BATCH_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        let batch = std::mem::replace(&mut self.batch, BatchBuilder::new(Compression::None));
        if !batch.is_empty() {
            let (topic, partition) = (self.topic.id, PartitionId::new(0));
            self.done.push(NewPart { topic, partition, batch: batch.build() });
        }
    }

    fn finish(mut self) -> Vec<NewPart> {
        self.close();
        self.done
    }
}

impl Told {
    /// Adds up a topic's records. Blocks.
    fn read(log: &Log, topic: &Topic, keyed: bool) -> Result<Self, ReadError> {
        let mut told = match keyed {
            true => Self::Keyed(HashMap::new()),
            false => Self::Weighted(HashMap::new()),
        };
        for partition in (0..topic.partitions).map(PartitionId::new) {
            let ends = log.partition_ends(topic.id, partition)?;
            let mut next: Offset = ends.log_start;
            while next < ends.high_watermark {
                let before = next;
                let fetched = log.fetch(topic.id, partition, next, FETCH_BYTES, false)?;
                let batches = fetched.into_iter().flat_map(|fetched| fetched.batches);
                for batch in batches.flat_map(split_batches).flatten() {
                    next = batch.header().next_offset();
                    let Ok(payload) = batch.payload(PAYLOAD_BYTES_MAX) else { continue };
                    batch.records(&payload).flatten().for_each(|record| told.add(&record));
                }
                if next == before {
                    break;
                }
            }
        }
        Ok(told)
    }

    fn add(&mut self, record: &Record<'_>) {
        match self {
            Self::Keyed(rows) => match (record.key, record.value) {
                (Some(key), Some(value)) => drop(rows.insert(key.to_vec(), value.to_vec())),
                (Some(key), None) => drop(rows.remove(key)),
                (None, _) => {}
            },
            Self::Weighted(rows) => {
                let Some((row, weight)) = record.value.and_then(weighted) else { return };
                let sum = rows.entry(row).or_default();
                *sum += weight;
            }
        }
    }
}

/// The row and the weight of a record of a view without a key.
fn weighted(value: &[u8]) -> Option<(Vec<u8>, i64)> {
    let rest = value.strip_prefix(WEIGHT_MEMBER.as_bytes())?;
    let comma = rest.iter().position(|byte| *byte == b',')?;
    let weight = std::str::from_utf8(&rest[..comma]).ok()?.parse().ok()?;
    Some(([b"{", &rest[comma + 1..]].concat(), weight))
}

/// Whether a topic is a changelog, as far as its first record tells; an empty one may become one.
pub(crate) fn may_be_changelog(log: &Log, topic: &Topic) -> Result<bool, ReadError> {
    let partition = PartitionId::new(0);
    let ends = log.partition_ends(topic.id, partition)?;
    if ends.log_start == ends.high_watermark {
        return Ok(true);
    }
    let fetched = log.fetch(topic.id, partition, ends.log_start, 1, false)?;
    let batches = fetched.into_iter().flat_map(|fetched| fetched.batches);
    let Some(Ok(batch)) = batches.flat_map(split_batches).next() else { return Ok(false) };
    let Ok(payload) = batch.payload(PAYLOAD_BYTES_MAX) else { return Ok(false) };
    let first = batch.records(&payload).flatten().next();
    Ok(first.is_some_and(|record| record.headers().any(|header| header.key == POSITION_HEADER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(rows: &[(&str, Option<&str>)]) -> Records {
        let mut records = Records::new(true);
        for (key, value) in rows {
            records.put((*key).into(), value.map(Into::into));
        }
        records
    }

    #[test]
    fn a_key_is_told_once_a_commit() {
        let records = keyed(&[("a", None), ("b", None), ("a", Some("2")), ("c", Some("3"))]);
        let Records::Keyed { records, .. } = records else { panic!("keyed") };
        let shown: Vec<_> =
            records.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        let expected: [(&[u8], Option<&[u8]>); 3] =
            [(b"a", Some(b"2")), (b"b", None), (b"c", Some(b"3"))];
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_what_differs_from_what_was_told_is_left() {
        let mut records = keyed(&[("same", Some("1")), ("new", Some("2")), ("other", Some("3"))]);
        let told = [("same", "1"), ("other", "0"), ("gone", "5")];
        let mut told = Told::Keyed(told.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        records.subtract(&mut told);
        let Records::Keyed { records, .. } = records else { panic!("keyed") };
        let keys: Vec<_> = records.iter().map(|(key, value)| (&key[..], value.is_some())).collect();
        let expected: [(&[u8], bool); 3] = [(b"new", true), (b"other", true), (b"gone", false)];
        assert_eq!(keys, expected);

        let mut records = Records::new(false);
        for row in ["{\"n\":1}", "{\"n\":1}", "{\"n\":2}"] {
            records.add(row.into(), 1);
        }
        let told = [("{\"n\":1}", 2), ("{\"n\":3}", 1)];
        records.subtract(&mut Told::Weighted(
            told.iter().map(|(row, weight)| ((*row).into(), *weight)).collect(),
        ));
        let Records::Weighted { records, .. } = records else { panic!("weighted") };
        let weights: Vec<_> = records.iter().map(|(_, weight)| *weight).collect();
        assert_eq!(weights, [0, 1, -1]);
    }

    #[test]
    fn weights_are_read_as_they_are_written() {
        assert_eq!(weighted(b"{\"evert_weight\":-2,\"n\":1}"), Some((b"{\"n\":1}".to_vec(), -2)));
        assert_eq!(weighted(b"{\"n\":1}"), None);
    }
}
