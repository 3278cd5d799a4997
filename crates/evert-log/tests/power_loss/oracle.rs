//! The oracle: what was promised, what was seen, and whether a sight breaks a promise.
//!
//! Invariants that it holds the log to
//! - A position that was once visible names the same facts for ever.
//! - An attempt is visible whole, once, or not at all; where it was acknowledged it is.
//! - A time tick that was acknowledged is there, with its time.
//! - What was withdrawn or refused is never visible.
//!
//! Facts of a topic whose deletion was asked for are left out of every comparison: they may
//! still be there or not.

use std::collections::{BTreeMap, BTreeSet};

use evert_log::{Appended, Commit, CommitBody, CommitPart, LogId, NewCommit, NewPart};
use evert_model::{LogTime, Offset, Position, ProducerId, TopicId};

use crate::facts::{self, AttemptId, Part};
use crate::topics::Topics;
use crate::trouble::{Outcome, violation};

/// Everything that is known about one log through all its lives.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    pub(crate) topics: Topics,
    pub(crate) attempts: Vec<Attempt>,
    /// Each commit that was ever visible.
    visible: BTreeMap<Position, Commit>,
    /// The time ticks that were acknowledged.
    ticks: BTreeMap<Position, LogTime>,
    producer_ids: BTreeSet<ProducerId>,
    log_id: Option<LogId>,
}

/// One attempt to append.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) parts: Vec<Part>,
    /// Whether an acknowledgement means that it is durable.
    pub(crate) is_promise: bool,
    pub(crate) state: State,
    /// Where it was seen.
    seen_at: Option<Position>,
}

/// What the log has said of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: it may be there or not.
    Open,
    /// That it is there.
    Acknowledged(Appended),
    /// It was refused, or withdrawn before it was made: it is not there.
    Void,
}

impl Oracle {
    /// Makes a new attempt of these parts, once it has a number to put into them.
    pub(crate) fn attempt(
        &mut self,
        is_promise: bool,
        parts: impl FnOnce(AttemptId) -> Vec<Part>,
    ) -> AttemptId {
        let id = self.attempts.len();
        let parts = parts(id);
        self.attempts.push(Attempt { parts, is_promise, state: State::Open, seen_at: None });
        id
    }

    pub(crate) fn commit_of(&self, id: AttemptId) -> NewCommit {
        NewCommit { parts: self.attempts[id].parts.iter().map(new_part).collect() }
    }

    pub(crate) fn log_is(&mut self, id: LogId) -> Outcome {
        match *self.log_id.get_or_insert(id) {
            known if known == id => Ok(()),
            known => violation(format!("the log's id was {known:?} and is {id:?}")),
        }
    }

    pub(crate) fn new_producer(&mut self, id: ProducerId) -> Outcome {
        if self.producer_ids.insert(id) {
            return Ok(());
        }
        violation(format!("producer id {id} was given out twice"))
    }

    /// The log acknowledged an attempt, which may be a repeated one.
    pub(crate) fn acknowledged(&mut self, id: AttemptId, appended: Appended) -> Outcome {
        let attempt = &mut self.attempts[id];
        if appended.base_offsets.len() != attempt.parts.len() {
            return violation(format!("attempt {id} has other parts than {appended:?}"));
        }
        match &attempt.state {
            State::Void => return violation(format!("attempt {id} is void, yet {appended:?}")),
            State::Acknowledged(first)
                if (first.position, &first.base_offsets)
                    != (appended.position, &appended.base_offsets) =>
            {
                return violation(format!(
                    "attempt {id} was acknowledged as {first:?}, then as {appended:?}"
                ));
            }
            _ => {}
        }
        if attempt.seen_at.is_some_and(|seen| seen != appended.position) {
            return violation(format!(
                "attempt {id} was seen at {:?} and acknowledged as {appended:?}",
                attempt.seen_at
            ));
        }
        attempt.state = State::Acknowledged(appended);
        Ok(())
    }

    /// The log acknowledged a time tick.
    pub(crate) fn ticked(&mut self, appended: &Appended) -> Outcome {
        match self.ticks.insert(appended.position, appended.log_time) {
            None => Ok(()),
            Some(_) => violation(format!("two time ticks are one: {appended:?}")),
        }
    }

    /// The log showed a commit: at a replay, to a follower, anywhere.
    pub(crate) fn saw(&mut self, commit: &Commit) -> Outcome {
        let position = commit.position;
        if let Some(known) = self.visible.get(&position) {
            return self.same(known, commit);
        }
        for (id, parts) in self.by_attempt(commit)? {
            self.saw_attempt(id, position, commit.log_time, &parts)?;
        }
        self.visible.insert(position, commit.clone());
        Ok(())
    }

    fn same(&self, known: &Commit, now: &Commit) -> Outcome {
        let same_body = match (&known.body, &now.body) {
            (CommitBody::Data(known), CommitBody::Data(now)) => {
                self.living(known).eq(self.living(now))
            }
            (known, now) => format!("{known:?}") == format!("{now:?}"),
        };
        if same_body && known.log_time == now.log_time {
            return Ok(());
        }
        violation(format!(
            "position {} named {}, and now {}",
            known.position,
            describe(known),
            describe(now)
        ))
    }

    /// The parts whose topics still have to be there, in a form that can be compared.
    fn living<'a>(
        &'a self,
        parts: &'a [CommitPart],
    ) -> impl Iterator<Item = (TopicId, i32, &'a [u8])> {
        parts
            .iter()
            .filter(|part| self.topics.must_keep(part.topic))
            .map(|part| (part.topic, part.partition.get(), &part.batch.bytes()[..]))
    }

    /// A commit's parts by the attempt that they say they belong to.
    fn by_attempt(&self, commit: &Commit) -> Outcome<BTreeMap<AttemptId, Vec<CommitPart>>> {
        let mut attempts: BTreeMap<AttemptId, Vec<CommitPart>> = BTreeMap::new();
        let CommitBody::Data(parts) = &commit.body else { return Ok(attempts) };
        for part in parts.iter().filter(|part| self.topics.is_ours(part.topic)) {
            match facts::identity(&part.batch) {
                Some((id, _)) if id < self.attempts.len() => {
                    attempts.entry(id).or_default().push(part.clone());
                }
                _ => return violation(format!("nobody wrote {}", describe(commit))),
            }
        }
        Ok(attempts)
    }

    fn saw_attempt(
        &mut self,
        id: AttemptId,
        position: Position,
        log_time: LogTime,
        seen: &[CommitPart],
    ) -> Outcome {
        let topics = &self.topics;
        let attempt = &mut self.attempts[id];
        if let Some(before) = attempt.seen_at {
            return violation(format!("attempt {id} is at {before} and again at {position}"));
        }
        let mut expected: Vec<usize> = (0..attempt.parts.len()).collect();
        expected.sort_by_key(|&index| {
            (topics.rank(attempt.parts[index].topic), attempt.parts[index].partition)
        });
        expected.retain(|&index| topics.must_keep(attempt.parts[index].topic));
        let seen: Vec<_> = seen.iter().filter(|part| topics.must_keep(part.topic)).collect();
        let whole = expected.len() == seen.len()
            && expected.iter().zip(&seen).all(|(&index, seen)| {
                let part = &attempt.parts[index];
                (part.topic, part.partition) == (seen.topic, seen.partition) && part.is(&seen.batch)
            });
        if !whole {
            return violation(format!(
                "attempt {id} at {position} shows {} of its {} parts, or in another order",
                seen.len(),
                expected.len()
            ));
        }
        match &attempt.state {
            State::Void => return violation(format!("attempt {id} is void, yet at {position}")),
            State::Acknowledged(appended) => {
                let offsets = expected.iter().map(|&index| appended.base_offsets[index]);
                let offsets_now = seen.iter().map(|part| part.batch.header().base_offset);
                let moved = !offsets.eq(offsets_now)
                    || appended.position != position
                    || appended.log_time != log_time;
                if moved {
                    return violation(format!(
                        "attempt {id} was acknowledged as {appended:?} and is at {position}, {log_time}"
                    ));
                }
            }
            State::Open => {}
        }
        attempt.seen_at = Some(position);
        Ok(())
    }

    /// Nothing that was promised or seen is missing from `commits`, all that there is.
    pub(crate) fn nothing_is_missing(&self, commits: &BTreeSet<Position>) -> Outcome {
        for (id, attempt) in self.attempts.iter().enumerate() {
            let State::Acknowledged(appended) = &attempt.state else { continue };
            if !attempt.parts.iter().any(|part| self.topics.must_keep(part.topic)) {
                continue;
            }
            if attempt.is_promise && attempt.seen_at != Some(appended.position) {
                return violation(format!(
                    "attempt {id}, acknowledged as {appended:?}, is missing"
                ));
            }
        }
        for (position, time) in &self.ticks {
            let is_it = |commit: &&Commit| {
                matches!(commit.body, CommitBody::TimeTick) && commit.log_time == *time
            };
            if self.visible.get(position).filter(is_it).is_none() {
                return violation(format!("the time tick at {position}, {time}, is missing"));
            }
        }
        for (position, commit) in &self.visible {
            let has_to_stay = match &commit.body {
                CommitBody::Data(parts) => self.living(parts).next().is_some(),
                _ => true,
            };
            if has_to_stay && !commits.contains(position) {
                return violation(format!("position {position} is missing: {}", describe(commit)));
            }
        }
        Ok(())
    }

    /// After a loss of power the log owes nothing of what it only accepted.
    pub(crate) fn forget_unsynced_promises(&mut self) {
        for attempt in &mut self.attempts {
            let kept = attempt.is_promise || attempt.seen_at.is_some();
            if !kept && matches!(attempt.state, State::Acknowledged(_)) {
                attempt.state = State::Open;
            }
        }
    }

    pub(crate) fn visible_positions(&self) -> impl DoubleEndedIterator<Item = Position> {
        self.visible.keys().copied()
    }

    /// How many acknowledgements there were.
    pub(crate) fn acknowledgements(&self) -> usize {
        let is_acknowledged = |a: &&Attempt| matches!(a.state, State::Acknowledged(_));
        self.attempts.iter().filter(is_acknowledged).count()
    }
}

pub(crate) fn new_part(part: &Part) -> NewPart {
    NewPart { topic: part.topic, partition: part.partition, batch: part.batch.clone() }
}

/// A commit in a few words.
pub(crate) fn describe(commit: &Commit) -> String {
    let CommitBody::Data(parts) = &commit.body else {
        return format!("{} {:?}", commit.position, commit.body);
    };
    let parts: Vec<String> = parts
        .iter()
        .map(|part| {
            let offset: Offset = part.batch.header().base_offset;
            let whose = facts::identity(&part.batch);
            let topic = part.topic.to_string();
            let bytes = part.batch.bytes().len();
            format!("{}/{}@{offset} {bytes}B of {whose:?}", &topic[..8], part.partition)
        })
        .collect();
    format!("{} [{}] t={}", commit.position, parts.join(", "), commit.log_time)
}
