//! Topics as the harness knows them: which must be there, which must not.

use std::collections::BTreeMap;

use evert_log::{Log, NewTopic, Topic};
use evert_model::{PartitionId, Position, TopicId};
use fastrand::Rng;

use crate::trouble::{Outcome, violation};

/// Every topic there ever was.
#[derive(Clone, Default)]
pub(crate) struct Topics {
    all: Vec<Known>,
    by_id: BTreeMap<TopicId, usize>,
}

#[derive(Clone)]
struct Known {
    spec: NewTopic,
    id: Option<TopicId>,
    created_at: Position,
    there: There,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Yes,
    No,
    /// Creation was asked for and not acknowledged.
    MaybeCreated,
    /// Deletion was asked for and not acknowledged.
    MaybeDeleted,
}

/// A topic that must be there.
#[derive(Clone, Debug)]
pub(crate) struct Living {
    pub(crate) id: TopicId,
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) is_buffered: bool,
}

impl Topics {
    pub(crate) fn creating(&mut self, spec: &NewTopic) {
        self.all.push(Known {
            spec: spec.clone(),
            id: None,
            created_at: Position::ZERO,
            there: There::MaybeCreated,
        });
    }

    pub(crate) fn created(&mut self, topic: &Topic) -> Outcome {
        let index = self.index_by_name(&topic.name);
        let Some(index) = index else { return violation(format!("nobody made {topic:?}")) };
        let known = &mut self.all[index];
        let same = known.spec.partitions == topic.partitions
            && known.spec.config == topic.config
            && known.id.is_none_or(|id| (id, known.created_at) == (topic.id, topic.created_at));
        if !same {
            return violation(format!("made {:?} ({:?}), got {topic:?}", known.spec, known.id));
        }
        if known.id.is_none() && self.by_id.insert(topic.id, index).is_some() {
            return violation(format!("the id of {topic:?} was another's"));
        }
        known.id = Some(topic.id);
        known.created_at = topic.created_at;
        known.there = There::Yes;
        Ok(())
    }

    pub(crate) fn deleting(&mut self, name: &str) {
        let index = self.index_by_name(name).expect("only living topics are deleted");
        self.all[index].there = There::MaybeDeleted;
    }

    pub(crate) fn deleted(&mut self, name: &str) {
        let index = self.index_by_name(name).expect("only living topics are deleted");
        self.all[index].there = There::No;
    }

    /// Compares with a log that has just been opened: what was open is decided now.
    pub(crate) fn reconcile(&mut self, log: &Log) -> Outcome {
        let there = log.topics();
        for topic in there.iter().filter(|topic| !topic.name.starts_with("__")) {
            self.created(topic)?;
            if log.topic(&topic.name).as_ref() != Some(topic)
                || log.topic_by_id(topic.id).as_ref() != Some(topic)
            {
                return violation(format!("{topic:?} is listed and not found"));
            }
        }
        for known in &mut self.all {
            let found = there.iter().any(|topic| Some(topic.id) == known.id);
            match known.there {
                There::Yes if !found => {
                    return violation(format!("topic {:?} ({:?}) is gone", known.spec, known.id));
                }
                There::MaybeCreated | There::MaybeDeleted if !found => known.there = There::No,
                There::Yes | There::No | There::MaybeCreated | There::MaybeDeleted => {}
            }
        }
        Ok(())
    }

    /// Whether a topic is one of the harness's, dead or alive.
    pub(crate) fn is_ours(&self, id: TopicId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether facts of the topic have to be there. The log's own have to, always.
    pub(crate) fn must_keep(&self, id: TopicId) -> bool {
        self.by_id.get(&id).is_none_or(|&index| self.all[index].there == There::Yes)
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = Living> {
        let there = self.all.iter().filter(|known| known.there == There::Yes);
        there.filter_map(|known| {
            Some(Living {
                id: known.id?,
                name: known.spec.name.clone(),
                partitions: known.spec.partitions,
                is_buffered: known.spec.config.contains_key("evert.durability"),
            })
        })
    }

    /// A topic's place among the topics: they are in the order of their creation, the log's own
    /// first.
    pub(crate) fn rank(&self, id: TopicId) -> Position {
        self.by_id.get(&id).map_or(Position::ZERO, |&index| self.all[index].created_at)
    }

    /// A living topic, if there is one.
    pub(crate) fn pick(&self, rng: &mut Rng) -> Option<Living> {
        rng.choice(self.living().collect::<Vec<_>>())
    }

    /// A name that no topic has or may have. Names of the dead come back.
    pub(crate) fn free_name(&self, rng: &mut Rng) -> Option<String> {
        let names = ["orders", "payments", "a.b_c-d", "x", "shop.public.customers"];
        let free = names.iter().filter(|name| self.index_by_name(name).is_none());
        rng.choice(free.collect::<Vec<_>>()).map(|name| (*name).to_owned())
    }

    fn index_by_name(&self, name: &str) -> Option<usize> {
        self.all.iter().rposition(|known| known.spec.name == name && known.there != There::No)
    }
}

impl Living {
    pub(crate) fn partition(&self, rng: &mut Rng) -> PartitionId {
        PartitionId::new(rng.i32(0..self.partitions))
    }
}
