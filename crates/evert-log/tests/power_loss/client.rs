//! Idempotent producers: they outlive the server, keep what was not acknowledged, and send it
//! again in order until it is.

use std::collections::{BTreeMap, VecDeque};

use evert_model::{PartitionId, ProducerEpoch, ProducerId, TopicId};
use fastrand::Rng;

use crate::facts::{AttemptId, Sequence};
use crate::topics::Topics;

/// As many batches as Kafka lets a producer have in flight, and as a broker remembers.
const IN_FLIGHT_MAX: usize = 5;

pub(crate) struct Client {
    id: ProducerId,
    epoch: ProducerEpoch,
    lanes: BTreeMap<(TopicId, PartitionId), Lane>,
}

#[derive(Default)]
struct Lane {
    next_sequence: i32,
    /// The last batches sent, oldest first, and whether each is acknowledged.
    sent: VecDeque<(AttemptId, bool)>,
}

impl Client {
    pub(crate) fn new(id: ProducerId, epoch: ProducerEpoch) -> Self {
        Self { id, epoch, lanes: BTreeMap::new() }
    }

    /// The sequence of the next batch to a partition, if one may be sent.
    pub(crate) fn next_sequence(&mut self, to: (TopicId, PartitionId)) -> Option<Sequence> {
        let lane = self.lanes.entry(to).or_default();
        let oldest_waits = lane.sent.front().is_some_and(|(_, acknowledged)| !acknowledged);
        let is_full = lane.sent.len() == IN_FLIGHT_MAX && oldest_waits;
        (!is_full).then_some((self.id, self.epoch, lane.next_sequence))
    }

    pub(crate) fn sent(&mut self, to: (TopicId, PartitionId), attempt: AttemptId, records: i64) {
        let lane = self.lanes.entry(to).or_default();
        lane.next_sequence += i32::try_from(records).expect("batches are small");
        lane.sent.push_back((attempt, false));
        while lane.sent.len() > IN_FLIGHT_MAX {
            lane.sent.pop_front();
        }
    }

    pub(crate) fn acknowledged(&mut self, attempt: AttemptId) {
        for lane in self.lanes.values_mut() {
            for (_, acknowledged) in lane.sent.iter_mut().filter(|(id, _)| *id == attempt) {
                *acknowledged = true;
            }
        }
    }

    /// A batch that the server may have already, to be sent again for no reason.
    pub(crate) fn any_sent(&self, rng: &mut Rng) -> Option<AttemptId> {
        let sent = self.lanes.values().flat_map(|lane| &lane.sent);
        rng.choice(sent.map(|(id, _)| *id).collect::<Vec<_>>())
    }

    /// After the server came back: what to send again, in order.
    pub(crate) fn unacknowledged(&mut self, topics: &Topics) -> Vec<AttemptId> {
        self.lanes.retain(|(topic, _), _| topics.must_keep(*topic));
        let sent = self.lanes.values().flat_map(|lane| &lane.sent);
        sent.filter(|(_, acknowledged)| !acknowledged).map(|(id, _)| *id).collect()
    }

    /// A topic went away, and with it what it knew of sequences.
    pub(crate) fn forget(&mut self, topic: TopicId) {
        self.lanes.retain(|(of, _), _| *of != topic);
    }

    /// A sequence that leaves a gap after what was sent to a partition.
    pub(crate) fn sequence_with_gap(&self, to: (TopicId, PartitionId)) -> Option<Sequence> {
        let lane = self.lanes.get(&to)?;
        (lane.next_sequence > 0).then_some((self.id, self.epoch, lane.next_sequence + 3))
    }
}
