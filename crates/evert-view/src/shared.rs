//! What the follower, its helpers and the readers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evert_log::Log;
use evert_model::{Offset, PartitionId, Position, TopicId};
use tokio::sync::watch;

use crate::Name;
use crate::catalog::{Catalog, Relation, ViewDef};
use crate::cohort::Cut;
use crate::hydrate::Progress;

pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) sources_topic: TopicId,
    /// The log's end when the views were opened: no answer is older.
    pub(crate) floor: Position,
    cut: watch::Sender<Arc<Cut>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    catalog: Arc<Catalog>,
    hydrating: HashMap<Name, Arc<Progress>>,
    memory: HashMap<Name, usize>,
    /// Records folded, by topic.
    done: HashMap<TopicId, i64>,
    restored: Option<(Position, Vec<Name>)>,
    /// Set when the follower has ended.
    stopped: Option<Option<String>>,
}

impl Shared {
    pub(crate) fn new(log: Log, sources_topic: TopicId, catalog: Catalog, cut: Cut) -> Self {
        let floor = log.end();
        let state = State { catalog: Arc::new(catalog), ..State::default() };
        let (cut, _) = watch::channel(Arc::new(cut));
        Self { log, sources_topic, floor, cut, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.lock().catalog)
    }

    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        self.lock().catalog = Arc::new(catalog);
    }

    pub(crate) fn is_current_relation(&self, relation: &Arc<Relation>) -> bool {
        let catalog = self.catalog();
        catalog.relations.get(&relation.name).is_some_and(|current| Arc::ptr_eq(current, relation))
    }

    pub(crate) fn is_current_view(&self, view: &Arc<ViewDef>) -> bool {
        let catalog = self.catalog();
        catalog.views.get(&view.name).is_some_and(|current| Arc::ptr_eq(current, view))
    }

    pub(crate) fn is_empty_topic(&self, relation: &Relation) -> bool {
        let Some(topic) = self.log.topic_by_id(relation.topic_id) else { return true };
        (0..topic.partitions).all(|partition| {
            let ends = self.log.partition_ends(topic.id, PartitionId::new(partition));
            ends.is_ok_and(|ends| ends.high_watermark == Offset::default())
        })
    }

    pub(crate) fn cut(&self) -> Arc<Cut> {
        Arc::clone(&self.cut.borrow())
    }

    pub(crate) fn watch_cut(&self) -> watch::Receiver<Arc<Cut>> {
        self.cut.subscribe()
    }

    pub(crate) fn publish(&self, cut: Cut) {
        assert!(cut.position >= self.cut().position, "published positions never go back");
        self.cut.send_replace(Arc::new(cut));
    }

    pub(crate) fn hydrating(&self, name: &Name) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.lock().hydrating.insert(name.clone(), Arc::clone(&progress));
        progress
    }

    pub(crate) fn hydrated(&self, name: &Name) {
        self.lock().hydrating.remove(name);
    }

    pub(crate) fn cancel(&self, name: &Name) {
        if let Some(progress) = self.lock().hydrating.remove(name) {
            progress.cancel();
        }
    }

    pub(crate) fn progress(&self, name: &Name) -> Option<Arc<Progress>> {
        self.lock().hydrating.get(name).cloned()
    }

    pub(crate) fn set_restored(&self, position: Position, names: Vec<Name>) {
        self.lock().restored = Some((position, names));
    }

    pub(crate) fn restored(&self) -> Option<(Position, Vec<Name>)> {
        self.lock().restored.clone()
    }

    pub(crate) fn set_memory(&self, memory: HashMap<Name, usize>) {
        self.lock().memory = memory;
    }

    pub(crate) fn memory_of(&self, name: &Name) -> usize {
        self.lock().memory.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn set_done(&self, offsets: &HashMap<TopicId, Vec<Offset>>) {
        let sums = offsets.iter().map(|(topic, ends)| (*topic, ends.iter().map(|o| o.get()).sum()));
        self.lock().done = sums.collect();
    }

    /// Records of a relation's topic that are in the log and not folded yet.
    pub(crate) fn lag_records(&self, relation: &Relation) -> u64 {
        let Some(topic) = self.log.topic_by_id(relation.topic_id) else { return 0 };
        let ends = (0..topic.partitions).map(|partition| {
            let ends = self.log.partition_ends(topic.id, PartitionId::new(partition));
            ends.map_or(0, |ends| ends.high_watermark.get())
        });
        let end: i64 = ends.sum();
        let done = self.lock().done.get(&topic.id).copied().unwrap_or_default();
        end.saturating_sub(done).max(0) as u64
    }

    /// Notes that the follower has ended, and wakes all who wait for a cut.
    pub(crate) fn stop(&self, why: Option<String>) {
        self.lock().stopped.get_or_insert(why);
        self.cut.send_modify(|_| {});
    }

    /// Whether the follower has ended, and why if it had to.
    pub(crate) fn stopped(&self) -> Option<Option<String>> {
        self.lock().stopped.clone()
    }
}
