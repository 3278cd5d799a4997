//! A log in memory that can hold back durability and lose what is not durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use evert_log::{AppendError, NewPart, ReadError};
use evert_model::{
    BatchBuilder, Compression, LogTime, Lsn, PartitionId, Position, TimestampMs, TopicId,
};
use evert_view::{PinError, SourceState};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

use crate::SourceError;
use crate::definition::{SourceColumn, Table};
use crate::destination::{Destination, Durable, LargeAppend, Rows};
use crate::row::{Cell, RowWriter};

/// What the topics of one relation hold, folded.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Folded {
    /// Rows by key; for a bag, by themselves.
    pub(super) rows: BTreeMap<String, (Value, i64)>,
}

pub(super) struct Memory {
    commits: Mutex<Vec<Vec<NewPart>>>,
    topics: Mutex<BTreeMap<String, TopicId>>,
    /// How many of the commits are durable; `None` after a crash.
    durable: watch::Sender<Option<usize>>,
    held: Mutex<bool>,
    /// Lookups find nothing.
    forgotten: Mutex<bool>,
}

const STATES: &str = "states";

impl Memory {
    pub(super) fn new() -> Arc<Self> {
        let topics = BTreeMap::from([(STATES.to_owned(), topic_id(0))]);
        Arc::new(Self {
            commits: Mutex::default(),
            topics: Mutex::new(topics),
            durable: watch::channel(Some(0)).0,
            held: Mutex::new(false),
            forgotten: Mutex::new(false),
        })
    }

    /// From now on commits are queued and do not become durable.
    pub(super) fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    /// From now on lookups of rows find nothing.
    pub(super) fn forget_rows(&self) {
        *self.forgotten.lock().unwrap() = true;
    }

    /// How many commits there are, durable or not.
    pub(super) fn commits(&self) -> usize {
        self.commits.lock().unwrap().len()
    }

    /// How many commits hold records of a topic.
    pub(super) fn commits_of(&self, topic: &str) -> usize {
        let id = self.topics.lock().unwrap()[topic];
        let commits = self.commits.lock().unwrap();
        commits.iter().filter(|parts| parts.iter().any(|part| part.topic == id)).count()
    }

    /// What a crash leaves: the durable commits.
    pub(super) fn crash(&self) -> Arc<Self> {
        let survivor = Self::new();
        let durable = self.durable.send_replace(None).unwrap();
        let commits = self.commits.lock().unwrap()[..durable].to_vec();
        survivor.durable.send_replace(Some(commits.len()));
        *survivor.commits.lock().unwrap() = commits;
        *survivor.topics.lock().unwrap() = self.topics.lock().unwrap().clone();
        survivor
    }

    fn push(&self, parts: Vec<NewPart>) -> Durable {
        let mut commits = self.commits.lock().unwrap();
        commits.push(parts);
        let number = commits.len();
        if !*self.held.lock().unwrap() {
            self.durable.send_replace(Some(number));
        }
        let mut durable = self.durable.subscribe();
        Box::pin(async move {
            let reached = durable.wait_for(|d| d.is_none_or(|d| d >= number)).await;
            match reached.map(|d| *d) {
                Ok(Some(_)) => Ok(Position::new(number as u64)),
                _ => Err(AppendError::Stopped("crashed".into())),
            }
        })
    }

    /// Every record of a topic: key, envelope.
    pub(super) fn records(&self, topic: &str) -> Vec<(Option<String>, Value)> {
        let id = self.topics.lock().unwrap()[topic];
        let mut found = Vec::new();
        for part in self.commits.lock().unwrap().iter().flatten().filter(|p| p.topic == id) {
            let payload = part.batch.payload(usize::MAX).unwrap();
            for record in part.batch.records(&payload) {
                let record = record.unwrap();
                let key = record.key.map(|key| String::from_utf8(key.to_vec()).unwrap());
                found.push((key, serde_json::from_slice(record.value.unwrap()).unwrap()));
            }
        }
        found
    }

    /// Folds a relation's records, and checks that no (LSN, ordinal) is there twice and that
    /// bags are never asked to give what they do not have.
    pub(super) fn fold(&self, topic: &str) -> Folded {
        let mut folded = Folded::default();
        let mut seen = BTreeSet::new();
        for (key, envelope) in self.records(topic) {
            let source = &envelope["source"];
            let origin = (source["lsn"].to_string(), source["ordinal"].to_string());
            let copied = envelope["op"] == "r" || envelope["op"] == "t";
            assert!(seen.insert((copied, origin.clone())), "{topic}: {origin:?} twice");
            if envelope["op"] == "t" {
                folded.rows.clear();
                continue;
            }
            let (before, after) = (&envelope["before"], &envelope["after"]);
            match key {
                Some(key) if after.is_null() => {
                    assert_eq!(envelope["op"], "d", "{envelope}");
                    assert!(folded.rows.remove(&key).is_some(), "{key} was not there");
                }
                Some(key) => {
                    folded.rows.insert(key, (after.clone(), 1));
                }
                None => {
                    for (image, weight) in [(before, -1), (after, 1)] {
                        if !image.is_null() {
                            let entry = folded.rows.entry(image.to_string());
                            entry.or_insert((image.clone(), 0)).1 += weight;
                        }
                    }
                    folded.rows.retain(|row, (_, weight)| {
                        assert!(*weight >= 0, "{row} was not there");
                        *weight > 0
                    });
                }
            }
        }
        folded
    }

    fn part(&self, topic: &str, value: &[u8]) -> NewPart {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(TimestampMs::new(0), None, Some(value), &[]);
        let topic = self.topics.lock().unwrap()[topic];
        NewPart { topic, partition: PartitionId::new(0), batch: batch.build() }
    }

    fn newest_state(&self) -> Option<SourceState> {
        let (_, state) = self.records(STATES).pop()?;
        Some(serde_json::from_value(state).unwrap())
    }

    /// The LSN that the log holds the source up to.
    pub(super) fn lsn(&self) -> Option<Lsn> {
        self.newest_state().map(|state| state.lsn)
    }
}

fn topic_id(n: usize) -> TopicId {
    let mut bytes = [0; 16];
    bytes[0] = u8::try_from(n).unwrap();
    serde_json::from_value(Value::String(format!(
        "{:02x}000000-0000-0000-0000-000000000000",
        bytes[0]
    )))
    .unwrap()
}

impl Destination for Arc<Memory> {
    fn state<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<SourceState>, PinError>> {
        Box::pin(async move { Ok(self.newest_state()) })
    }

    fn state_part(&self, state: &SourceState) -> NewPart {
        self.part(STATES, &serde_json::to_vec(state).unwrap())
    }

    fn ensure_topic(&self, source: &str, table: &Table) -> Result<TopicId, SourceError> {
        let mut topics = self.topics.lock().unwrap();
        let next = topics.len();
        Ok(*topics.entry(table.topic(source)).or_insert_with(|| topic_id(next)))
    }

    fn topic(&self, source: &str, table: &Table) -> Option<TopicId> {
        self.topics.lock().unwrap().get(&table.topic(source)).copied()
    }

    fn append(&self, parts: Vec<NewPart>) -> Result<Durable, AppendError> {
        Ok(self.push(parts))
    }

    fn begin_large(&self) -> Box<dyn LargeAppend> {
        Box::new(Large { memory: self.clone(), parts: Vec::new() })
    }

    fn now(&self) -> LogTime {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        LogTime::new(i64::try_from(now.as_micros()).unwrap())
    }

    fn end(&self) -> Position {
        Position::new(self.commits() as u64)
    }

    fn is_empty(&self, topic: TopicId) -> Result<bool, ReadError> {
        Ok(self.commits.lock().unwrap().iter().flatten().all(|part| part.topic != topic))
    }

    fn rows<'a>(
        &'a self,
        source: &'a str,
        table: &'a Table,
    ) -> BoxFuture<'a, Result<Box<dyn Rows>, PinError>> {
        Box::pin(async move {
            if *self.forgotten.lock().unwrap() {
                return Ok(Box::new(Folded::default()) as Box<dyn Rows>);
            }
            Ok(Box::new(self.fold(&table.topic(source))) as Box<dyn Rows>)
        })
    }
}

impl Rows for Folded {
    fn get(&self, table: &Table, key: &[Cell]) -> Option<Vec<Cell>> {
        let mut name = String::new();
        RowWriter::new(table).put_key(&mut name, key).unwrap();
        let (row, _) = self.rows.get(&name)?;
        let cell = |column: &SourceColumn| {
            row[&column.name].as_str().map(|text| Bytes::from(text.to_owned()))
        };
        Some(table.columns.iter().map(cell).collect())
    }
}

struct Large {
    memory: Arc<Memory>,
    parts: Vec<NewPart>,
}

impl LargeAppend for Large {
    fn append(&mut self, part: NewPart) -> Result<(), AppendError> {
        self.parts.push(part);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<Durable, AppendError> {
        Ok(self.memory.push(self.parts))
    }
}
