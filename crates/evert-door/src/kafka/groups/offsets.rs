//! Committed offsets: a fold of the topic `__consumer_offsets`.
//!
//! Owns: the topic, and what its records add up to.
//! Not here: who may commit (`state`).
//!
//! Invariants
//! - A commit is acknowledged, and can be read, only when its records are durable.
//! - For each key the record with the highest offset in the topic counts: a commit that was
//!   overtaken by a later one changes nothing.
//! - An offset does not outlive its topic: one committed before the topic was created belongs to
//!   an earlier topic of that name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use evert_log::{Log, NewCommit, NewPart, NewTopic, ReadError, Topic, TopicError};
use evert_model::{
    BatchBuilder, BatchError, Compression, EncodedBatch, Offset, PartitionId, Position,
    TimestampMs, split_batches,
};
use thiserror::Error;

use super::super::error::DoorError;
use super::offset_record::{OffsetKey, OffsetValue, RecordError};

/// The topic's name, which is Kafka's.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partitions of `__consumer_offsets`, as many as Kafka has by default. A group's partition
/// is found by Kafka's rule, so that tools that read the topic find it too.
pub(crate) const OFFSETS_PARTITIONS: i32 = 50;

/// How much is read at a time when offsets are restored.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// A commit's records are cut into batches of about this size.
const BATCH_BYTES: usize = 256 * 1024;

/// No batch of the topic is larger.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The topic of offsets cannot be read back.
#[derive(Debug, Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("partition {partition}: {source}")]
    Batch { partition: i32, source: BatchError },
}

/// A committed offset, and where it is in the log.
#[derive(Clone, Debug)]
struct Committed {
    value: OffsetValue,
    /// The record's offset in its partition.
    at: Offset,
    /// The commit that holds it, if the log still knows.
    position: Option<Position>,
}

type OfGroup = BTreeMap<(String, i32), Committed>;

/// All committed offsets.
pub(crate) struct Offsets {
    log: Log,
    groups: RwLock<HashMap<String, OfGroup>>,
}

impl Offsets {
    /// Reads back what was committed. Blocking.
    pub(crate) fn restore(log: Log) -> Result<Self, RestoreError> {
        let mut groups = HashMap::new();
        if let Some(topic) = log.topic(OFFSETS_TOPIC) {
            for partition in 0..topic.partitions {
                read_partition(&log, &topic, PartitionId::new(partition), &mut groups)?;
            }
            find_positions(&log, &topic, &mut groups)?;
        }
        Ok(Self { log, groups: RwLock::new(groups) })
    }

    /// Commits offsets of one group: one commit of the log. A value of `None` forgets the offset.
    pub(crate) async fn commit(&self, group: &str, changes: Vec<Change>) -> Result<(), DoorError> {
        if changes.is_empty() {
            return Ok(());
        }
        let topic = self.topic().await?;
        let partition = PartitionId::new(partition_of(group, topic.partitions));
        let parts = encode(&changes, TimestampMs::new(self.log.now().millis()))
            .into_iter()
            .map(|batch| NewPart { topic: topic.id, partition, batch })
            .collect();
        let appended = self.log.append(NewCommit { parts })?.await?;
        // The batches of one partition follow each other without a gap.
        let base = *appended.base_offsets.first().expect("there is something to append");
        let mut groups = self.groups.write().expect("no panic happens under this lock");
        for (i, (key, value)) in changes.into_iter().enumerate() {
            let at = base.plus(i as i64);
            apply(&mut groups, key, value, at, Some(appended.position));
        }
        Ok(())
    }

    /// The offset that a group committed for a partition of a topic that exists.
    pub(crate) fn get(&self, group: &str, topic: &Topic, partition: i32) -> Option<OffsetValue> {
        let groups = self.groups.read().expect("no panic happens under this lock");
        let committed = groups.get(group)?.get(&(topic.name.clone(), partition))?;
        is_of(committed, topic).then(|| committed.value.clone())
    }

    /// Everything that a group committed, for topics that exist, by topic and partition.
    pub(crate) fn of_group(&self, group: &str) -> BTreeMap<(String, i32), OffsetValue> {
        let groups = self.groups.read().expect("no panic happens under this lock");
        let Some(of_group) = groups.get(group) else { return BTreeMap::new() };
        let current = |(topic, _): &(String, i32), committed: &Committed| {
            self.log.topic(topic).is_some_and(|topic| is_of(committed, &topic))
        };
        let current = of_group.iter().filter(|(key, committed)| current(key, committed));
        current.map(|(key, committed)| (key.clone(), committed.value.clone())).collect()
    }

    /// Every key that a group committed, of topics that are gone too.
    pub(crate) fn keys(&self, group: &str) -> Vec<OffsetKey> {
        let groups = self.groups.read().expect("no panic happens under this lock");
        let keys = groups.get(group).into_iter().flat_map(BTreeMap::keys);
        keys.map(|(topic, partition)| OffsetKey {
            group: group.to_owned(),
            topic: topic.clone(),
            partition: *partition,
        })
        .collect()
    }

    /// The groups that have committed something.
    pub(crate) fn group_names(&self) -> Vec<String> {
        self.groups.read().expect("no panic happens under this lock").keys().cloned().collect()
    }

    /// Whether a group has committed something.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.groups.read().expect("no panic happens under this lock").contains_key(group)
    }

    /// The topic, which is created by the first commit.
    async fn topic(&self) -> Result<Arc<Topic>, DoorError> {
        if let Some(topic) = self.log.topic(OFFSETS_TOPIC) {
            return Ok(topic);
        }
        let new = NewTopic {
            name: OFFSETS_TOPIC.to_owned(),
            partitions: OFFSETS_PARTITIONS,
            config: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        };
        let log = self.log.clone();
        let created = tokio::task::spawn_blocking(move || log.create_topic(new)).await;
        match created.expect("creating a topic does not panic") {
            // Another commit was quicker.
            Err(TopicError::Exists(name)) => {
                self.log.topic(&name).ok_or_else(|| DoorError::unknown_topic(&name))
            }
            created => Ok(created?),
        }
    }
}

/// Encodes changes in batches of a size that the topic takes.
fn encode(changes: &[Change], now: TimestampMs) -> Vec<EncodedBatch> {
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(Compression::None);
    for (key, value) in changes {
        if builder.payload_bytes() >= BATCH_BYTES {
            let full = std::mem::replace(&mut builder, BatchBuilder::new(Compression::None));
            batches.push(full.build());
        }
        let value = value.as_ref().map(OffsetValue::encode);
        builder.push(now, Some(&key.encode()), value.as_deref(), &[]);
    }
    if !builder.is_empty() {
        batches.push(builder.build());
    }
    batches
}

/// Whether an offset was committed to this topic, rather than to an earlier one of its name.
fn is_of(committed: &Committed, topic: &Topic) -> bool {
    committed.position.is_none_or(|position| position > topic.created_at)
}

fn apply(
    groups: &mut HashMap<String, OfGroup>,
    key: OffsetKey,
    value: Option<OffsetValue>,
    at: Offset,
    position: Option<Position>,
) {
    let OffsetKey { group, topic, partition } = key;
    let place = (topic, partition);
    let is_overtaken = |of_group: &OfGroup| of_group.get(&place).is_some_and(|old| old.at > at);
    if groups.get(&group).is_some_and(is_overtaken) {
        return;
    }
    match value {
        Some(value) => {
            let committed = Committed { value, at, position };
            groups.entry(group).or_default().insert(place, committed);
        }
        None => {
            let Some(of_group) = groups.get_mut(&group) else { return };
            of_group.remove(&place);
            if of_group.is_empty() {
                groups.remove(&group);
            }
        }
    }
}

fn read_partition(
    log: &Log,
    topic: &Topic,
    partition: PartitionId,
    groups: &mut HashMap<String, OfGroup>,
) -> Result<(), RestoreError> {
    let ends = log.partition_ends(topic.id, partition)?;
    let mut next = ends.log_start;
    while next < ends.high_watermark {
        let fetched = log.fetch(topic.id, partition, next, READ_BYTES, false)?;
        let batches = fetched.map(|fetched| fetched.batches).unwrap_or_default();
        let before = next;
        for batch in batches.into_iter().flat_map(split_batches) {
            let batch = batch
                .map_err(|source| RestoreError::Batch { partition: partition.get(), source })?;
            next = batch.header().next_offset();
            read_batch(&batch, partition, groups)
                .map_err(|source| RestoreError::Batch { partition: partition.get(), source })?;
        }
        assert!(next > before, "a fetch below the high watermark gives a batch");
    }
    Ok(())
}

fn read_batch(
    batch: &EncodedBatch,
    partition: PartitionId,
    groups: &mut HashMap<String, OfGroup>,
) -> Result<(), BatchError> {
    let payload = batch.payload(PAYLOAD_BYTES_MAX)?;
    for record in batch.records(&payload) {
        let record = record?;
        match read_record(record.key, record.value) {
            Ok(Some((key, value))) => apply(groups, key, value, record.offset, None),
            Ok(None) => {}
            Err(error) => {
                let offset = record.offset.get();
                tracing::warn!(%partition, offset, %error, "kafka: a record of {OFFSETS_TOPIC} is skipped");
            }
        }
    }
    Ok(())
}

/// A key and what it now stands for.
type Change = (OffsetKey, Option<OffsetValue>);

fn read_record(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<Change>, RecordError> {
    let Some(key) = OffsetKey::decode(key.ok_or(RecordError::Short)?)? else { return Ok(None) };
    Ok(Some((key, value.map(OffsetValue::decode).transpose()?)))
}

/// Finds the commits of the offsets that were restored.
fn find_positions(
    log: &Log,
    topic: &Topic,
    groups: &mut HashMap<String, OfGroup>,
) -> Result<(), ReadError> {
    for (group, of_group) in groups {
        let partition = PartitionId::new(partition_of(group, topic.partitions));
        for committed in of_group.values_mut() {
            committed.position = log.position_of(topic.id, partition, committed.at)?;
        }
    }
    Ok(())
}

/// A group's partition: Java's `String.hashCode`, as Kafka has it.
fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hash_as_java_strings_do() {
        // The last one's hash is the smallest integer, which has no absolute value.
        assert_eq!(partition_of("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
    }

    #[test]
    fn an_overtaken_commit_changes_nothing() {
        let key = OffsetKey { group: "g".into(), topic: "t".into(), partition: 0 };
        let value = |offset| {
            Some(OffsetValue { offset, leader_epoch: -1, metadata: String::new(), committed_ms: 0 })
        };
        let mut groups = HashMap::new();
        apply(&mut groups, key.clone(), value(10), Offset::new(5), None);
        apply(&mut groups, key.clone(), value(3), Offset::new(4), None);
        assert_eq!(groups["g"][&("t".to_owned(), 0)].value.offset, 10);
        apply(&mut groups, key.clone(), None, Offset::new(6), None);
        assert!(groups.is_empty(), "a group without offsets is gone");
    }
}
