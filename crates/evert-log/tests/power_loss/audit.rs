//! The audit: reads a whole log from every side and compares the sides with each other and
//! with the oracle.

use std::collections::BTreeMap;

use evert_log::{Commit, CommitBody, Log, Replay};
use evert_model::{
    EncodedBatch, Offset, PartitionId, Position, TimestampMs, TopicId, split_batches,
};
use fastrand::Rng;

use crate::facts;
use crate::oracle::{Oracle, describe};
use crate::trouble::{Outcome, Trouble, violation};

type Partitions = BTreeMap<(TopicId, PartitionId), Vec<(Position, EncodedBatch)>>;

/// Everything that can be asked of a log at rest.
pub(crate) fn audit(log: &Log, oracle: &mut Oracle, rng: &mut Rng) -> Outcome {
    let commits = replay_all(log, Position::ZERO)?;
    in_order(&commits, log.end(), oracle)?;
    for commit in &commits {
        oracle.saw(commit)?;
    }
    oracle.nothing_is_missing(&commits.iter().map(|commit| commit.position).collect())?;
    suffix(log, &commits, rng)?;
    let partitions = by_partition(log, &commits)?;
    for (&(topic, partition), batches) in &partitions {
        let reader = Reader { log, topic, partition, batches };
        reader.contiguous()?;
        reader.fetches(rng)?;
        reader.positions(rng)?;
        if oracle.topics.is_ours(topic) {
            reader.timestamps(rng)?;
        }
    }
    Ok(())
}

/// What a follower sees next, up to the log's end.
pub(crate) fn follow(replay: &mut Replay, oracle: &mut Oracle) -> Outcome<Option<Position>> {
    let mut last = None;
    while let Some(commit) = replay.next()? {
        if last.is_some_and(|last| last >= commit.position) {
            return violation(format!("{} follows {last:?}", describe(&commit)));
        }
        last = Some(commit.position);
        oracle.saw(&commit)?;
    }
    Ok(last)
}

fn replay_all(log: &Log, from: Position) -> Outcome<Vec<Commit>> {
    let mut replay = log.replay(from)?;
    let mut commits = Vec::new();
    while let Some(commit) = replay.next()? {
        commits.push(commit);
    }
    Ok(commits)
}

fn in_order(commits: &[Commit], end: Position, oracle: &Oracle) -> Outcome {
    for pair in commits.windows(2) {
        if pair[0].position >= pair[1].position || pair[0].log_time > pair[1].log_time {
            return violation(format!("{} before {}", describe(&pair[0]), describe(&pair[1])));
        }
    }
    for commit in commits {
        let CommitBody::Data(parts) = &commit.body else { continue };
        let places: Vec<_> = parts
            .iter()
            .map(|part| {
                let offset = part.batch.header().base_offset;
                (oracle.topics.rank(part.topic), part.topic, part.partition, offset)
            })
            .collect();
        if !places.is_sorted() {
            return violation(format!("a commit's parts are out of order: {}", describe(commit)));
        }
    }
    match commits.last() {
        Some(last) if last.position > end => {
            violation(format!("{} lies beyond the end {end}", describe(last)))
        }
        _ => Ok(()),
    }
}

/// A replay from anywhere is the rest of the replay from zero.
fn suffix(log: &Log, commits: &[Commit], rng: &mut Rng) -> Outcome {
    let from = Position::new(rng.u64(..=log.end().get()));
    let rest = replay_all(log, from)?;
    let expected = commits.iter().filter(|commit| commit.position > from);
    if expected.map(|commit| format!("{commit:?}")).eq(rest.iter().map(|c| format!("{c:?}"))) {
        return Ok(());
    }
    let from_zero = commits.iter().filter(|commit| commit.position > from);
    violation(format!(
        "a replay from {from} gives {:?}, one from zero {:?}",
        rest.iter().map(describe).collect::<Vec<_>>(),
        from_zero.map(describe).collect::<Vec<_>>(),
    ))
}

/// The replayed batches of every partition that there is, empty ones among them.
fn by_partition(log: &Log, commits: &[Commit]) -> Outcome<Partitions> {
    let mut partitions = Partitions::new();
    for topic in log.topics() {
        for partition in 0..topic.partitions {
            partitions.insert((topic.id, PartitionId::new(partition)), Vec::new());
        }
    }
    for commit in commits {
        let CommitBody::Data(parts) = &commit.body else { continue };
        for part in parts {
            match partitions.get_mut(&(part.topic, part.partition)) {
                Some(batches) => batches.push((commit.position, part.batch.clone())),
                None if log.topic_by_id(part.topic).is_none() => {}
                None => return violation(format!("no such partition: {}", describe(commit))),
            }
        }
    }
    Ok(partitions)
}

/// One partition, seen through everything but the replay, compared with the replay.
struct Reader<'a> {
    log: &'a Log,
    topic: TopicId,
    partition: PartitionId,
    batches: &'a [(Position, EncodedBatch)],
}

impl Reader<'_> {
    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::new(0), |(_, batch)| batch.header().next_offset())
    }

    fn contiguous(&self) -> Outcome {
        let mut next = Offset::new(0);
        for (position, batch) in self.batches {
            if batch.header().base_offset != next {
                let got = batch.header().base_offset;
                return self.differs(format!("{got} at position {position} instead of {next}"));
            }
            next = batch.header().next_offset();
        }
        let ends = self.log.partition_ends(self.topic, self.partition)?;
        if (ends.log_start, ends.high_watermark) != (Offset::new(0), next) {
            return self.differs(format!("{ends:?} instead of 0..{next}"));
        }
        Ok(())
    }

    fn fetches(&self, rng: &mut Rng) -> Outcome {
        self.fetch_from(Offset::new(0), rng)?;
        if self.end() > Offset::new(0) {
            self.fetch_from(Offset::new(rng.i64(0..self.end().get())), rng)?;
        }
        self.fetch_from(self.end(), rng)
    }

    fn fetch_from(&self, from: Offset, rng: &mut Rng) -> Outcome {
        let mut expected =
            self.batches.iter().map(|(_, batch)| batch).filter(|b| b.header().next_offset() > from);
        let mut offset = from;
        while offset < self.end() {
            let bytes_max = rng.usize(1..20_000);
            for batch in self.fetch(offset, bytes_max, rng)? {
                if expected.next() != Some(&batch) {
                    let got = batch.header().base_offset;
                    return self.differs(format!("fetch from {from} gives another batch at {got}"));
                }
                offset = batch.header().next_offset();
            }
        }
        if !self.fetch(self.end(), 1000, rng)?.is_empty() {
            return self.differs("there is something at the end".to_owned());
        }
        Ok(())
    }

    fn fetch(&self, offset: Offset, bytes_max: usize, rng: &mut Rng) -> Outcome<Vec<EncodedBatch>> {
        let fetch = |memory_only| {
            self.log.fetch(self.topic, self.partition, offset, bytes_max, memory_only)
        };
        let found = match fetch(rng.bool())? {
            Some(found) => found,
            None => match fetch(false)? {
                Some(found) => found,
                None => return self.differs(format!("nothing is fetched at {offset}")),
            },
        };
        if found.high_watermark != self.end() || (found.batches.is_empty() && offset < self.end()) {
            return self.differs(format!("fetch at {offset} gives {found:?}"));
        }
        let mut batches = Vec::new();
        for bytes in found.batches {
            for batch in split_batches(bytes) {
                batches.push(batch.map_err(|e| Trouble::Violation(format!("fetched: {e}")))?);
            }
        }
        Ok(batches)
    }

    fn positions(&self, rng: &mut Rng) -> Outcome {
        let find = |offset| self.log.position_of(self.topic, self.partition, offset);
        if let Some((position, batch)) = rng.choice(self.batches) {
            let offset = batch.header().base_offset.plus(rng.i64(0..batch.header().offset_count()));
            let found = find(offset)?;
            if found != Some(*position) {
                return self.differs(format!("{offset} is at {position}, not at {found:?}"));
            }
        }
        match find(self.end())? {
            None => Ok(()),
            Some(position) => self.differs(format!("the end has position {position}")),
        }
    }

    fn timestamps(&self, rng: &mut Rng) -> Outcome {
        let wanted = TimestampMs::new(rng.i64(900..3_100));
        let mut records = self.batches.iter().flat_map(|(_, batch)| {
            let base = batch.header().base_offset;
            let times = facts::timestamps(batch).into_iter().enumerate();
            times.map(move |(index, time)| (base.plus(index as i64), time))
        });
        let expected = records.find(|&(_, time)| time >= wanted);
        let found = self.log.offset_for_timestamp(self.topic, self.partition, wanted)?;
        if found == expected {
            return Ok(());
        }
        self.differs(format!("the first record from {wanted} is {expected:?}, not {found:?}"))
    }

    fn differs<T>(&self, how: String) -> Outcome<T> {
        violation(format!("{}/{}: {how}", self.topic, self.partition))
    }
}
