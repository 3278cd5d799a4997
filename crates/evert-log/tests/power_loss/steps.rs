//! The workload: what a life does, one step after another.

use std::collections::BTreeMap;

use evert_log::{AppendError, NewCommit, NewTopic};
use evert_model::{PartitionId, TopicId};
use fastrand::Rng;

use crate::audit;
use crate::client::Client;
use crate::facts::{self, AttemptId, Part};
use crate::life::Run;
use crate::oracle::{State, new_part};
use crate::session::Session;
use crate::topics::Living;
use crate::trouble::{Outcome, violation};

impl Run {
    /// Does one thing.
    pub(crate) fn step(&mut self, session: &mut Session) -> Outcome {
        let has_topics = self.oracle.topics.living().next().is_some();
        let result = match self.rng.u8(..100) {
            _ if !has_topics => self.create_topic(session),
            0..31 => self.append(session),
            31..35 => session.append_time_tick(),
            35..50 => self.append_idempotent(session),
            50..54 => self.append_again(session),
            54..56 => self.append_with_gap(session),
            56..62 => self.large(session),
            62..82 => self.pump(session),
            82..85 => session.log().checkpoint().map_err(Into::into),
            85..89 => self.create_topic(session),
            89..91 => self.delete_topic(session),
            91..93 => self.new_client(session),
            93..97 => {
                self.pass_time();
                Ok(())
            }
            _ => self.look(session),
        };
        self.excuse(result).map(drop)
    }

    fn pump(&mut self, session: &mut Session) -> Outcome {
        session.log().pump();
        if self.rng.bool() {
            self.follow(session)?;
        }
        Ok(())
    }

    fn follow(&mut self, session: &mut Session) -> Outcome {
        let last = audit::follow(&mut session.follower, &mut self.oracle)?;
        let end = session.log().end();
        if last.is_some_and(|last| last > end) {
            return violation(format!("a follower sees {last:?}, beyond the end {end}"));
        }
        Ok(())
    }

    /// Audits a log in the middle of its life: what is visible has to agree from all sides,
    /// whatever is still on its way.
    fn look(&mut self, session: &mut Session) -> Outcome {
        session.log().pump();
        self.follow(session)?;
        session.settle(&mut self.oracle, &mut self.clients)?;
        audit::audit(session.log(), &mut self.oracle, &mut self.rng)
    }

    fn append(&mut self, session: &mut Session) -> Outcome {
        let count = if self.rng.bool() { 1 } else { self.rng.usize(2..6) };
        let Some(attempt) = self.new_attempt(count) else { return Ok(()) };
        session.append_new(attempt, &mut self.oracle)
    }

    /// Makes a topic for a test that needs one to be there.
    pub(crate) fn create_topic_named(&mut self, name: &str, session: &mut Session) -> Outcome {
        let topic = NewTopic { name: name.to_owned(), partitions: 1, config: BTreeMap::new() };
        self.oracle.topics.creating(&topic);
        let created = session.log().create_topic(topic)?;
        self.oracle.topics.created(&created)
    }

    /// Appends a small fact to a topic.
    pub(crate) fn append_to(&mut self, name: &str, session: &mut Session) -> Outcome {
        let topic = self.oracle.topics.living().find(|topic| topic.name == name);
        let topic = topic.expect("the test made it").id;
        let rng = &mut self.rng;
        let attempt = self.oracle.attempt(true, |id| {
            let batch = facts::batch(rng, id, 0, None, (1, 100));
            vec![Part { topic, partition: PartitionId::new(0), batch }]
        });
        session.append_new(attempt, &mut self.oracle)
    }

    /// An attempt of some parts on living topics, if there are any.
    pub(crate) fn new_attempt(&mut self, count: usize) -> Option<AttemptId> {
        let (topics, rng) = (&self.oracle.topics, &mut self.rng);
        let mut place = |_| topics.pick(rng).map(|topic| (topic.partition(rng), topic));
        let places: Vec<_> = (0..count).map(&mut place).collect::<Option<_>>()?;
        let is_promise = places.iter().any(|(_, topic)| !topic.is_buffered);
        let parts = |id| {
            let part = |(index, (partition, topic)): (usize, &(PartitionId, Living))| {
                let size = size(rng);
                let batch = facts::batch(rng, id, index, None, size);
                Part { topic: topic.id, partition: *partition, batch }
            };
            places.iter().enumerate().map(part).collect()
        };
        Some(self.oracle.attempt(is_promise, parts))
    }

    fn append_idempotent(&mut self, session: &mut Session) -> Outcome {
        let Some((client, topic, partition)) = self.pick_client() else { return Ok(()) };
        let Some(sequence) = self.clients[client].next_sequence((topic.id, partition)) else {
            return Ok(());
        };
        let rng = &mut self.rng;
        let attempt = self.oracle.attempt(true, |id| {
            let size = size(rng);
            let batch = facts::batch(rng, id, 0, Some(sequence), size);
            vec![Part { topic: topic.id, partition, batch }]
        });
        let records = self.oracle.attempts[attempt].parts[0].records();
        self.clients[client].sent((topic.id, partition), attempt, records);
        session.append(attempt, &self.oracle)
    }

    /// A producer that did not hear the answer sends once more.
    fn append_again(&mut self, session: &mut Session) -> Outcome {
        let Some(client) = self.rng.choice(&self.clients) else { return Ok(()) };
        let Some(attempt) = client.any_sent(&mut self.rng) else { return Ok(()) };
        if !self.oracle.topics.must_keep(self.oracle.attempts[attempt].parts[0].topic) {
            return Ok(());
        }
        session.append(attempt, &self.oracle)
    }

    /// A batch after a lost one must be refused.
    fn append_with_gap(&mut self, session: &mut Session) -> Outcome {
        let Some((client, topic, partition)) = self.pick_client() else { return Ok(()) };
        let Some(sequence) = self.clients[client].sequence_with_gap((topic.id, partition)) else {
            return Ok(());
        };
        let rng = &mut self.rng;
        let attempt = self.oracle.attempt(true, |id| {
            let batch = facts::batch(rng, id, 0, Some(sequence), (1, 10));
            vec![Part { topic: topic.id, partition, batch }]
        });
        self.oracle.attempts[attempt].state = State::Void;
        match session.log().append(self.oracle.commit_of(attempt)) {
            Err(AppendError::OutOfOrderSequence { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => violation(format!("attempt {attempt} was taken, with a gap before it")),
        }
    }

    fn pick_client(&mut self) -> Option<(usize, Living, PartitionId)> {
        if self.clients.is_empty() {
            return None;
        }
        let client = self.rng.usize(..self.clients.len());
        let durable: Vec<_> = self.oracle.topics.living().filter(|t| !t.is_buffered).collect();
        let topic = self.rng.choice(durable)?;
        let partition = topic.partition(&mut self.rng);
        Some((client, topic, partition))
    }

    fn new_client(&mut self, session: &mut Session) -> Outcome {
        let (id, epoch) = session.log().new_producer()?;
        self.oracle.new_producer(id)?;
        if self.clients.len() >= 3 {
            let old = self.rng.usize(..self.clients.len());
            self.clients.swap_remove(old);
        }
        self.clients.push(Client::new(id, epoch));
        Ok(())
    }

    /// Begins a large commit, or goes on with one, or ends one.
    fn large(&mut self, session: &mut Session) -> Outcome {
        if session.large.is_empty() || self.rng.u8(..3) == 0 {
            return self.begin_large(session);
        }
        let index = self.rng.usize(..session.large.len());
        let (attempt, large) = session.large.swap_remove(index);
        if self.rng.u8(..3) == 0 {
            drop(large);
            self.oracle.attempts[attempt].state = State::Void;
            return Ok(());
        }
        let after = session.log().end();
        // Its topic may have been deleted meanwhile: refused then, and void.
        match large.commit() {
            Ok(receipt) => session.wait_for(attempt, receipt, Some(after)),
            Err(AppendError::Stopped(why)) => return Err(AppendError::Stopped(why).into()),
            Err(_) => self.oracle.attempts[attempt].state = State::Void,
        }
        Ok(())
    }

    fn begin_large(&mut self, session: &mut Session) -> Outcome {
        let count = self.rng.usize(1..12);
        let Some(attempt) = self.new_attempt(count) else { return Ok(()) };
        let mut large = session.log().begin_large();
        for part in &self.oracle.attempts[attempt].parts {
            if let Err(error) = large.append(new_part(part)) {
                self.oracle.attempts[attempt].state = State::Void;
                return Err(error.into());
            }
        }
        session.large.push((attempt, large));
        Ok(())
    }

    fn create_topic(&mut self, session: &mut Session) -> Outcome {
        let Some(name) = self.oracle.topics.free_name(&mut self.rng) else { return Ok(()) };
        let mut config = BTreeMap::new();
        if self.rng.u8(..4) == 0 {
            config.insert("evert.durability".to_owned(), "buffered".to_owned());
        }
        if self.rng.bool() {
            let bytes = self.rng.u32(2_000..40_000);
            config.insert("segment.bytes".to_owned(), bytes.to_string());
        }
        let topic = NewTopic { name, partitions: self.rng.i32(1..4), config };
        self.oracle.topics.creating(&topic);
        let created = session.log().create_topic(topic)?;
        self.oracle.topics.created(&created)
    }

    fn delete_topic(&mut self, session: &mut Session) -> Outcome {
        let Some(topic) = self.oracle.topics.pick(&mut self.rng) else { return Ok(()) };
        self.oracle.topics.deleting(&topic.name);
        session.log().delete_topic(&topic.name)?;
        self.oracle.topics.deleted(&topic.name);
        self.clients.iter_mut().for_each(|client| client.forget(topic.id));
        self.refused_after_deletion(session, topic.id)
    }

    fn refused_after_deletion(&mut self, session: &mut Session, topic: TopicId) -> Outcome {
        let batch = facts::batch(&mut self.rng, 0, 0, None, (1, 1));
        let part = Part { topic, partition: PartitionId::new(0), batch };
        match session.log().append(NewCommit { parts: vec![new_part(&part)] }) {
            Err(AppendError::UnknownTopic(_)) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => violation("a deleted topic takes facts"),
        }
    }
}

/// How many records and bytes: mostly few, sometimes many sectors, rarely a whole file's worth.
fn size(rng: &mut Rng) -> (usize, usize) {
    match rng.u8(..20) {
        0 => (rng.usize(1..50), rng.usize(8_000..30_000)),
        1..5 => (rng.usize(1..20), rng.usize(500..6_000)),
        _ => (rng.usize(1..4), rng.usize(1..300)),
    }
}
