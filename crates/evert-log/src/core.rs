//! The state in memory that appends, reads and the background work share, behind one lock that
//! is held shortly and never across a call to the disk.
//!
//! Owns: topics, what offsets and positions are given out, what is durable, the newest data.
//! Not here: files (`journal`, `behind`), checking what comes in (`append`).
//!
//! Invariants
//! - `end` and every high watermark are durable: they move when a group's sync has returned.
//! - A batch leaves the tail only when its segment has it; an entry, when the order has it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use evert_model::{EncodedBatch, LogTime, Offset, Position, TopicId};
use hashbrown::HashMap;

use crate::clock::LogClock;
use crate::entry::{Body, Entry, Slot, Span};
use crate::journal::{JournalCommit, Payload, Place};
use crate::producer::Producers;
use crate::receipt::Done;
use crate::segment::Segment;
use crate::settings::{self, Settings};
use crate::topic::{CATALOG_NUMBER, Fact, Topic};

/// Producer ids are reserved so many at a time.
pub(crate) const PRODUCER_BLOCK: i64 = 1000;

pub(crate) struct Core {
    topics: HashMap<u32, TopicState>,
    numbers: HashMap<TopicId, u32>,
    names: BTreeMap<String, u32>,
    /// The number that the next topic gets.
    pub(crate) next_number: u32,
    /// Deleted topics whose deletion is not written behind the journal yet.
    pub(crate) gone: Vec<Gone>,
    pub(crate) next_producer: i64,
    pub(crate) producers_below: i64,
    pub(crate) clock: LogClock,
    /// The last position given out.
    pub(crate) assigned: Position,
    /// The last durable commit, and its time.
    pub(crate) end: Position,
    pub(crate) end_time: LogTime,
    /// Groups that gather, oldest first.
    pub(crate) groups: VecDeque<Group>,
    /// The last position of the group that is being written, and who waits for it.
    pub(crate) in_flight: Option<(Position, Arc<Done>)>,
    /// Durable groups that are not in order and segments yet.
    pub(crate) behind: VecDeque<DurableGroup>,
    /// The bytes of `groups`, of what is in flight and of `behind`.
    pub(crate) unwritten_bytes: usize,
    /// The newest entries, without a gap from `entries_floor` on.
    entries: VecDeque<Arc<Entry>>,
    entries_floor: Position,
    /// What the tail holds, oldest first.
    tail_order: VecDeque<(Slot, Position, usize)>,
    tail_bytes: usize,
    pub(crate) stopped: Option<String>,
    pub(crate) closing: bool,
}

pub(crate) struct TopicState {
    pub(crate) topic: Arc<Topic>,
    pub(crate) settings: Settings,
    pub(crate) partitions: Vec<Partition>,
    /// Its deletion is on the way: it takes nothing more.
    pub(crate) deleting: bool,
}

/// What writing behind must know of a topic until its deletion.
#[derive(Clone, Copy)]
pub(crate) struct Gone {
    pub(crate) number: u32,
    pub(crate) id: TopicId,
    pub(crate) segment_bytes: u64,
    pub(crate) deleted_at: Position,
}

#[derive(Default)]
pub(crate) struct Partition {
    pub(crate) log_start: Offset,
    /// The offset that the next record gets.
    pub(crate) next: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) producers: Producers,
    /// By base offset.
    pub(crate) segments: Vec<Arc<Segment>>,
    tail: VecDeque<TailBatch>,
}

pub(crate) struct TailBatch {
    pub(crate) batch: EncodedBatch,
    pub(crate) position: Position,
}

/// Commits that one sync makes durable.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) commits: Vec<Pending>,
    pub(crate) bytes: usize,
    pub(crate) done: Arc<Done>,
}

/// A commit on its way.
pub(crate) struct Pending {
    pub(crate) commit: JournalCommit,
    /// The files of a large commit, one for each span.
    pub(crate) segments: Vec<Arc<Segment>>,
}

pub(crate) struct DurableGroup {
    pub(crate) commits: Vec<Pending>,
    pub(crate) bytes: usize,
    /// Where it ends in the journal.
    pub(crate) end: Place,
}

impl Core {
    pub(crate) fn new(clock: LogClock, end: Position, end_time: LogTime, catalog: Topic) -> Self {
        let mut core = Self {
            topics: HashMap::new(),
            numbers: HashMap::new(),
            names: BTreeMap::new(),
            next_number: CATALOG_NUMBER + 1,
            gone: Vec::new(),
            next_producer: 0,
            producers_below: 0,
            clock,
            assigned: end,
            end,
            end_time,
            groups: VecDeque::new(),
            in_flight: None,
            behind: VecDeque::new(),
            unwritten_bytes: 0,
            entries: VecDeque::new(),
            entries_floor: end,
            tail_order: VecDeque::new(),
            tail_bytes: 0,
            stopped: None,
            closing: false,
        };
        core.add_topic(CATALOG_NUMBER, catalog);
        core
    }

    fn add_topic(&mut self, number: u32, topic: Topic) {
        let settings = settings::resolve(&topic.config).unwrap_or_else(|error| {
            // Settings are checked before they are written, so an older or newer program wrote
            // this one. The log must open all the same.
            tracing::warn!(topic = topic.name, %error, "the topic's settings are left at their defaults");
            settings::resolve(&BTreeMap::new()).expect("defaults are legal")
        });
        self.numbers.insert(topic.id, number);
        self.names.insert(topic.name.clone(), number);
        let partitions = (0..topic.partitions).map(|_| Partition::default()).collect();
        let state = TopicState { topic: Arc::new(topic), settings, partitions, deleting: false };
        self.topics.insert(number, state);
        self.next_number = self.next_number.max(number + 1);
    }

    pub(crate) fn apply_fact(&mut self, fact: Fact, position: Position) {
        match fact {
            Fact::Created { number, id, name, partitions, config } => {
                let topic = Topic { id, name, partitions, config, created_at: position };
                self.add_topic(number, topic);
            }
            Fact::Deleted { number } => {
                if let Some(state) = self.topics.remove(&number) {
                    self.numbers.remove(&state.topic.id);
                    self.names.remove(&state.topic.name);
                    self.gone.push(Gone {
                        number,
                        id: state.topic.id,
                        segment_bytes: state.settings.segment_bytes,
                        deleted_at: position,
                    });
                }
            }
            Fact::ProducersBelow { id } => {
                self.producers_below = self.producers_below.max(id);
            }
        }
    }

    /// Identity and `segment.bytes` of a topic that commits still to be written may name.
    pub(crate) fn topic_files(&self, number: u32) -> Option<(TopicId, u64)> {
        let topic = self.topics.get(&number);
        let live = topic.map(|state| (state.topic.id, state.settings.segment_bytes));
        let gone = || self.gone.iter().find(|gone| gone.number == number);
        live.or_else(|| gone().map(|gone| (gone.id, gone.segment_bytes)))
    }

    pub(crate) fn number_of(&self, id: TopicId) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    pub(crate) fn number_of_name(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(crate) fn topic(&self, number: u32) -> Option<&TopicState> {
        self.topics.get(&number)
    }

    pub(crate) fn topic_mut(&mut self, number: u32) -> Option<&mut TopicState> {
        self.topics.get_mut(&number)
    }

    /// All topics by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (u32, &TopicState)> {
        self.names.values().filter_map(|number| Some((*number, self.topics.get(number)?)))
    }

    pub(crate) fn partition(&self, slot: Slot) -> Option<&Partition> {
        let at = usize::try_from(slot.partition).ok()?;
        self.topics.get(&slot.topic)?.partitions.get(at)
    }

    pub(crate) fn partition_mut(&mut self, slot: Slot) -> Option<&mut Partition> {
        let at = usize::try_from(slot.partition).ok()?;
        self.topics.get_mut(&slot.topic)?.partitions.get_mut(at)
    }

    pub(crate) fn log_now(&mut self, clock: &dyn evert_env::Clock) -> LogTime {
        self.clock.now(clock)
    }

    /// Who resolves the commit at `position`; `None` if it is durable.
    pub(crate) fn done_of(&self, position: Position) -> Option<Arc<Done>> {
        if position <= self.end {
            return None;
        }
        match &self.in_flight {
            Some((last, done)) if position <= *last => Some(Arc::clone(done)),
            _ => self
                .groups
                .iter()
                .find(|group| {
                    group.commits.last().is_some_and(|c| position <= c.commit.entry.position)
                })
                .map(|group| Arc::clone(&group.done)),
        }
    }

    /// Adds a commit to the group that gathers.
    pub(crate) fn enqueue(&mut self, pending: Pending, group_bytes_max: usize) -> Arc<Done> {
        let bytes = pending.commit.bytes();
        self.unwritten_bytes += bytes;
        let full =
            |group: &Group| !group.commits.is_empty() && group.bytes + bytes > group_bytes_max;
        if self.groups.back().is_none_or(full) {
            self.groups.push_back(Group::default());
        }
        let group = self.groups.back_mut().expect("there is one now");
        group.bytes += bytes;
        group.commits.push(pending);
        Arc::clone(&group.done)
    }

    /// Makes a durable group visible. Returns whether its catalog facts could all be read.
    pub(crate) fn publish(&mut self, group: Vec<Pending>, bytes: usize, end: Place) -> bool {
        let mut readable = true;
        for pending in &group {
            let entry = &pending.commit.entry;
            self.end = entry.position;
            self.end_time = entry.log_time;
            self.entries.push_back(Arc::new(entry.clone()));
            match (&entry.body, &pending.commit.payload) {
                (Body::Data(spans), Payload::Inline(batches)) => {
                    readable &= self.publish_batches(entry.position, spans, batches);
                }
                (Body::Data(spans), Payload::Copies(_)) => {
                    for (span, segment) in spans.iter().zip(&pending.segments) {
                        self.add_segment(span.slot, Arc::clone(segment));
                        if let Some(partition) = self.partition_mut(span.slot) {
                            partition.high_watermark = span.end();
                        }
                    }
                }
                (Body::TimeTick, _) => {}
                (Body::Trim(span), _) => {
                    if let Some(partition) = self.partition_mut(span.slot) {
                        partition.log_start = partition.log_start.max(span.first);
                    }
                }
            }
        }
        self.behind.push_back(DurableGroup { commits: group, bytes, end });
        readable
    }

    fn publish_batches(
        &mut self,
        position: Position,
        spans: &[Span],
        batches: &[EncodedBatch],
    ) -> bool {
        let mut readable = true;
        for (slot, batch) in slots_of(spans, batches) {
            if slot.topic == CATALOG_NUMBER {
                match Fact::decode(batch) {
                    Some(facts) => facts.into_iter().for_each(|f| self.apply_fact(f, position)),
                    None => readable = false,
                }
            }
            let Some(partition) = self.partition_mut(slot) else { continue };
            partition.high_watermark = batch.header().next_offset();
            partition.tail.push_back(TailBatch { batch: batch.clone(), position });
            let bytes = batch.bytes().len();
            self.tail_bytes += bytes;
            self.tail_order.push_back((slot, position, bytes));
        }
        readable
    }

    pub(crate) fn add_segment(&mut self, slot: Slot, segment: Arc<Segment>) {
        if let Some(partition) = self.partition_mut(slot) {
            let at = partition.segments.partition_point(|known| known.base <= segment.base);
            partition.segments.insert(at, segment);
        }
    }

    /// Lets go of the oldest data in memory: `written` is in segments, `ordered` in the order.
    pub(crate) fn evict(&mut self, written: Position, ordered: Position, tail_bytes_max: usize) {
        while self.tail_bytes > tail_bytes_max {
            let Some((slot, position, bytes)) = self.tail_order.front().copied() else { break };
            if position > written {
                break;
            }
            self.tail_order.pop_front();
            self.tail_bytes -= bytes;
            if let Some(partition) = self.partition_mut(slot) {
                partition.tail.pop_front();
            }
        }
        self.ordered(ordered);
    }

    /// Lets go of entries that the order's files hold, unless the tail has batches of them.
    pub(crate) fn ordered(&mut self, ordered: Position) {
        let oldest = self.tail_order.front().map_or(self.end, |(_, position, _)| *position);
        while let Some(entry) = self.entries.front() {
            if entry.position > ordered || entry.position >= oldest {
                break;
            }
            self.entries_floor = entry.position;
            self.entries.pop_front();
        }
    }

    /// Forgets producers that wrote nothing since `time`.
    pub(crate) fn forget_producers(&mut self, time: LogTime) {
        for state in self.topics.values_mut() {
            state.partitions.iter_mut().for_each(|p| p.producers.forget_before(time));
        }
    }

    /// The durable entries after `after` that memory holds; `None` if some of them are on disk
    /// only.
    pub(crate) fn entries_after(
        &self,
        after: Position,
    ) -> Option<impl Iterator<Item = &Arc<Entry>>> {
        if after < self.entries_floor {
            return None;
        }
        let at = self.entries.partition_point(|entry| entry.position <= after);
        Some(self.entries.range(at..))
    }
}

impl Partition {
    /// The batches from the one that holds `offset` on, as far as memory has them without a gap.
    pub(crate) fn in_memory(&self, offset: Offset) -> impl Iterator<Item = &TailBatch> {
        let at = self.tail.partition_point(|held| held.batch.header().next_offset() <= offset);
        let mut expected = offset;
        self.tail.range(at..).take_while(move |held| {
            let follows = held.batch.header().base_offset <= expected;
            expected = held.batch.header().next_offset();
            follows
        })
    }

    /// The segment that holds `offset`.
    pub(crate) fn segment_at(&self, offset: Offset) -> Option<&Arc<Segment>> {
        let at = self.segments.partition_point(|segment| segment.base <= offset);
        self.segments[..at].last().filter(|segment| offset < segment.end())
    }
}

/// Each batch with the partition that its commit's spans give it. Ends early where a batch does
/// not go on where the one before it ended.
pub(crate) fn slots_of<'a>(
    spans: &'a [Span],
    batches: &'a [EncodedBatch],
) -> impl Iterator<Item = (Slot, &'a EncodedBatch)> {
    let mut spans = spans.iter().copied();
    let mut left: Option<Span> = None;
    batches.iter().map_while(move |batch| {
        let header = batch.header();
        let span = left.take().or_else(|| spans.next())?;
        let count = span.count - header.offset_count();
        if header.base_offset != span.first || count < 0 {
            return None;
        }
        left = (count > 0).then(|| Span { first: header.next_offset(), count, ..span });
        Some((span.slot, batch))
    })
}
