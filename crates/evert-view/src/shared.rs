//! What the follower, its helpers and the readers share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evert_fold::OperatorState;
use evert_log::Log;
use evert_model::{Offset, PartitionId, Position, TopicId};
use tokio::sync::watch;

use crate::Name;
use crate::catalog::{Catalog, Relation, ViewDef};
use crate::checkpoint::Moments;
use crate::cohort::{Cohort, Cut, Memory};
use crate::face::Face;
use crate::history::History;
use crate::pass::Passes;
use crate::past::PastFolds;
use crate::progress::Progress;

pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) sources_topic: TopicId,
    /// The log's end when the views were opened: no answer is older.
    pub(crate) floor: Position,
    /// For views that catch up.
    pub(crate) passes: Arc<Passes>,
    /// What changed lately.
    pub(crate) history: History,
    /// Checkpoints that the past is folded on from.
    pub(crate) moments: Arc<Moments>,
    cut: watch::Sender<Arc<Cut>>,
    replacing_count: AtomicUsize,
    has_stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    catalog: Arc<Catalog>,
    /// Relations that catch up.
    hydrating: HashMap<Name, Arc<Progress>>,
    /// Views that fold apart from the live cohort.
    lanes: BTreeMap<Name, Arc<Face>>,
    replacing: BTreeSet<Name>,
    /// Builds of views that are there already.
    building: BTreeMap<Name, Arc<Face>>,
    memory: Memory,
    restored: Option<(Position, Vec<Name>)>,
    past_folds: PastFolds,
    /// Set when the follower has ended.
    stopped: Option<Option<String>>,
}

impl Shared {
    pub(crate) fn new(log: Log, sources_topic: TopicId, catalog: Catalog, cut: Cut) -> Self {
        let floor = log.end();
        let state = State { catalog: Arc::new(catalog), ..State::default() };
        let history = History::new(cut.position);
        let (cut, _) = watch::channel(Arc::new(cut));
        let passes = Passes::new(log.clone(), sources_topic);
        Self {
            log,
            sources_topic,
            floor,
            passes,
            history,
            moments: Arc::default(),
            cut,
            replacing_count: AtomicUsize::new(0),
            has_stopped: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_past_fold(&self, count: impl FnOnce(&mut PastFolds)) {
        count(&mut self.lock().past_folds);
    }

    pub(crate) fn past_folds(&self) -> PastFolds {
        self.lock().past_folds
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

    pub(crate) fn publish(&self, cut: Cut) -> Arc<Cut> {
        assert!(cut.position >= self.cut().position, "published positions never go back");
        let cut = Arc::new(cut);
        self.index(&cut);
        self.history.keep_cut(&cut);
        self.cut.send_replace(Arc::clone(&cut));
        cut
    }

    /// Brings the indexes up to date with a cut.
    fn index(&self, cut: &Cut) {
        let catalog = self.catalog();
        let indexed: BTreeSet<_> = catalog.indexes.values().map(|index| &index.on).collect();
        for name in indexed {
            let Some(snapshot) = cut.snapshots.get(name) else { continue };
            for (_, columns) in catalog.indexes_on(name) {
                snapshot.index(&columns);
            }
        }
    }

    /// Where a view folds, if not in the live cohort.
    pub(crate) fn lane_of(&self, name: &Name) -> Option<Arc<Face>> {
        self.lock().lanes.get(name).map(Arc::clone)
    }

    /// The views in a lane.
    pub(crate) fn members_of(&self, face: &Arc<Face>) -> BTreeSet<Name> {
        let state = self.lock();
        let members = state.lanes.iter().filter(|(_, other)| Arc::ptr_eq(other, face));
        members.map(|(name, _)| name.clone()).collect()
    }

    /// Readers look for these views in the lane, unless the live cut has them.
    pub(crate) fn set_lane(&self, names: impl IntoIterator<Item = Name>, face: &Arc<Face>) {
        let names = names.into_iter().map(|name| (name, Arc::clone(face)));
        self.lock().lanes.extend(names);
        // Readers may be waiting for any of them, and no cut tells that they can be read now.
        self.cut.send_modify(|_| {});
    }

    pub(crate) fn leave_lane(&self, names: &BTreeSet<Name>) {
        self.lock().lanes.retain(|name, _| !names.contains(name));
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

    /// The progress of a relation or view that has not been published yet.
    pub(crate) fn newcomer(&self, name: &Name) -> Option<Arc<Progress>> {
        let state = self.lock();
        if let Some(progress) = state.hydrating.get(name) {
            return Some(Arc::clone(progress));
        }
        let face = state.lanes.get(name).filter(|face| face.cut().is_none());
        face.map(|face| Arc::clone(&face.progress))
    }

    /// Notes that a view is being built anew.
    pub(crate) fn set_building(&self, name: &Name, face: &Arc<Face>) {
        self.lock().building.insert(name.clone(), Arc::clone(face));
    }

    pub(crate) fn end_building(&self, face: &Arc<Face>) {
        self.lock().building.retain(|_, other| !Arc::ptr_eq(other, face));
    }

    /// The progress of a view that is built anew beside the one that is read.
    pub(crate) fn building(&self, name: &Name) -> Option<Arc<Progress>> {
        self.lock().building.get(name).map(|face| Arc::clone(&face.progress))
    }

    /// Whether readers of these have to wait until a new definition takes the place of the old.
    pub(crate) fn is_replacing(&self, names: &[Name]) -> bool {
        // Most of the time nothing is replaced, and no lock is taken.
        self.replacing_count.load(Ordering::Acquire) > 0 && {
            let state = self.lock();
            names.iter().any(|name| state.replacing.contains(name))
        }
    }

    /// From now on the catalog has new definitions of these views, and the cuts have the old.
    pub(crate) fn begin_replacing(&self, names: &BTreeSet<Name>) {
        self.replacing_count.fetch_add(1, Ordering::AcqRel);
        self.lock().replacing.extend(names.iter().cloned());
    }

    pub(crate) fn end_replacing(&self, names: &BTreeSet<Name>) {
        self.lock().replacing.retain(|name| !names.contains(name));
        self.replacing_count.fetch_sub(1, Ordering::AcqRel);
        // Readers have seen the new cut already, and wait for this.
        self.cut.send_modify(|_| {});
    }

    pub(crate) fn set_restored(&self, position: Position, names: Vec<Name>) {
        self.lock().restored = Some((position, names));
    }

    pub(crate) fn restored(&self) -> Option<(Position, Vec<Name>)> {
        self.lock().restored.clone()
    }

    pub(crate) fn set_memory(&self, memory: Memory) {
        self.lock().memory = memory;
    }

    /// What a relation or view holds, operator by operator, as last measured.
    pub(crate) fn state_of(&self, name: &Name) -> Vec<OperatorState> {
        let live = self.lock().memory.get(name).cloned();
        let in_lane = || self.lane_of(name).map(|face| face.state_of(name));
        live.or_else(in_lane).unwrap_or_default()
    }

    /// Records of a view's or relation's topics that are in the log and not folded at a cut.
    pub(crate) fn lag_records(&self, catalog: &Catalog, name: &Name, cut: Option<&Cut>) -> u64 {
        let closure = catalog.closure(std::slice::from_ref(name));
        let relations = closure.iter().filter_map(|name| catalog.relations.get(name));
        let lag = relations.filter_map(|relation| {
            let topic = self.log.topic_by_id(relation.topic_id)?;
            let ends = (0..topic.partitions).map(|partition| {
                let ends = self.log.partition_ends(topic.id, PartitionId::new(partition));
                ends.map_or(0, |ends| ends.high_watermark.get())
            });
            let end: i64 = ends.sum();
            let done = cut.and_then(|cut| cut.done.get(&topic.id)).copied().unwrap_or_default();
            Some(end.saturating_sub(done).max(0) as u64)
        });
        lag.sum()
    }

    /// Records that a cohort reads on its way from the log's beginning to its end now.
    pub(crate) fn records_of(&self, cohort: &Cohort) -> u64 {
        let topics = cohort.topics().filter_map(|id| self.log.topic_by_id(id));
        let ends = topics.flat_map(|topic| {
            let partitions = (0..topic.partitions).map(PartitionId::new);
            partitions.map(move |partition| self.log.partition_ends(topic.id, partition))
        });
        let ends = ends.filter_map(Result::ok).map(|ends| ends.high_watermark.get());
        ends.map(|end| u64::try_from(end).unwrap_or(0)).sum()
    }

    /// Records of a view's or relation's topics that were committed after a position.
    pub(crate) fn records_after(&self, catalog: &Catalog, name: &Name, after: Position) -> u64 {
        let closure = catalog.closure(std::slice::from_ref(name));
        let relations = closure.iter().filter_map(|name| catalog.relations.get(name));
        let topics: BTreeSet<TopicId> = relations.map(|relation| relation.topic_id).collect();
        let topics = topics.into_iter().filter_map(|id| self.log.topic_by_id(id));
        let counts = topics.map(|topic| {
            let partitions = (0..topic.partitions).map(PartitionId::new);
            partitions.map(|partition| self.offsets_after(topic.id, partition, after)).sum::<u64>()
        });
        counts.sum()
    }

    /// How long ago the first commit after a position was made, in milliseconds.
    pub(crate) fn waiting_ms(&self, position: Position) -> u64 {
        let first = self.log.replay(position).and_then(|mut replay| replay.next());
        let Ok(Some(commit)) = first else { return 0 };
        let waited = self.log.now().get().saturating_sub(commit.log_time.get());
        u64::try_from(waited / 1000).unwrap_or(0)
    }

    /// Offsets of a partition that were committed after a position; none if they cannot be read.
    fn offsets_after(&self, topic: TopicId, partition: PartitionId, after: Position) -> u64 {
        let Ok(ends) = self.log.partition_ends(topic, partition) else { return 0 };
        let (mut low, mut high) = (ends.log_start.get(), ends.high_watermark.get());
        let end = high;
        // Positions rise with offsets: the first offset after it is found by halving.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.log.position_of(topic, partition, Offset::new(middle)) {
                Ok(Some(position)) if position > after => high = middle,
                Ok(_) => low = middle + 1,
                Err(_) => return 0,
            }
        }
        u64::try_from(end - low).unwrap_or(0)
    }

    /// Notes that the follower has ended, and wakes all who wait for a cut.
    pub(crate) fn stop(&self, why: Option<String>) {
        self.lock().stopped.get_or_insert(why);
        self.has_stopped.store(true, Ordering::Release);
        // Whoever waits for a lane looks again, and learns of it.
        for face in std::mem::take(&mut self.lock().lanes).into_values() {
            face.close();
        }
        self.cut.send_modify(|_| {});
    }

    /// Whether the follower has ended; no lock is taken.
    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Acquire)
    }

    /// Whether the follower has ended, and why if it had to.
    pub(crate) fn stopped(&self) -> Option<Option<String>> {
        self.lock().stopped.clone()
    }
}

#[cfg(test)]
mod tests {
    use evert_env::Env;
    use evert_log::LogConfig;

    use super::*;
    use crate::sources::SourceStates;

    #[test]
    fn who_waits_for_a_view_hears_of_its_lane() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let log = Log::open(Env::real(), path, LogConfig::default()).expect("a log");
        let topic = TopicId::new(uuid::Uuid::nil());
        let cut = Cohort::empty(SourceStates::new(topic)).cut();
        let shared = Shared::new(log.clone(), topic, Catalog::default(), cut);
        let waits = shared.watch_cut();
        shared.set_lane([Name::public("v")], &Face::new(BTreeSet::new(), None));
        assert!(waits.has_changed().expect("it is open"), "no commit need come");
        log.close();
    }
}
