//! The log as other crates hold it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use evert_env::Env;
use evert_model::{
    LogTime, Offset, PartitionId, Position, ProducerEpoch, ProducerId, TimestampMs, TopicId,
};
use tokio::sync::watch;

use crate::append::Writer;
use crate::config::Threads;
use crate::core::PRODUCER_BLOCK;
use crate::inner::{IDLE, Inner};
use crate::topic::{Fact, catalog_topic};
use crate::{
    AppendError, ConfigEntry, Fetched, LargeCommit, LogConfig, LogId, NewCommit, NewPart, NewTopic,
    OpenError, PartitionEnds, ReadError, Receipt, Replay, Topic, TopicError, recovery, settings,
};

/// A durable, totally ordered log. Cheap to clone; the last clone to go closes it.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.handle.inner.dir).finish_non_exhaustive()
    }
}

struct Handle {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `dir`, or makes one there, after recovery.
    pub fn open(env: Env, dir: PathBuf, config: LogConfig) -> Result<Self, OpenError> {
        let threads = config.threads;
        let inner = Arc::new(recovery::open(env, dir, config)?);
        let spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(&inner);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&inner))
                .map_err(OpenError::io(std::path::Path::new("thread")))
        };
        let threads = match threads {
            Threads::Manual => Vec::new(),
            Threads::Real => {
                vec![spawn("log-journal", run_journal)?, spawn("log-behind", run_behind)?]
            }
        };
        Ok(Self { handle: Arc::new(Handle { inner, threads: Mutex::new(threads) }) })
    }

    fn inner(&self) -> &Inner {
        &self.handle.inner
    }

    /// Runs what is pending, in the caller's thread: one journal group after another, the idle
    /// mark if it is due by the clock, writing behind, and a checkpoint if it is due.
    pub fn pump(&self) {
        self.inner().pump();
    }

    /// Makes a checkpoint now, whether or not it is due.
    pub fn checkpoint(&self) -> Result<(), AppendError> {
        self.inner().checkpoint()
    }

    /// The identity of the log, made at its creation.
    pub fn id(&self) -> LogId {
        self.inner().id
    }

    /// The last durable commit.
    pub fn end(&self) -> Position {
        self.inner().lock().end
    }

    /// Why the log acknowledges nothing any more, once a journal write or sync has failed. Only
    /// opening it again helps.
    pub fn stopped(&self) -> Option<String> {
        self.inner().lock().stopped.clone()
    }

    /// Changes whenever `end` does.
    pub fn watch_end(&self) -> watch::Receiver<Position> {
        self.inner().end.subscribe()
    }

    /// The log time that a commit would get now.
    pub fn now(&self) -> LogTime {
        self.inner().lock().log_now(&*self.inner().env.clock)
    }

    /// Blocks until the new topic is durable.
    pub fn create_topic(&self, topic: NewTopic) -> Result<Arc<Topic>, TopicError> {
        let inner = self.inner();
        topic.check()?;
        let _catalog = inner.catalog.lock().expect("no holder panics");
        let number = {
            let core = inner.lock();
            if core.number_of_name(&topic.name).is_some() {
                return Err(TopicError::Exists(topic.name));
            }
            core.next_number
        };
        let id = TopicId::new(recovery::random_uuid(&inner.env));
        let NewTopic { name, partitions, config } = topic;
        self.record(&Fact::Created { number, id, name, partitions, config })?;
        let core = inner.lock();
        Ok(Arc::clone(&core.topic(number).expect("a durable topic is there").topic))
    }

    /// Blocks until the deletion is durable. The topic takes nothing more from the start.
    pub fn delete_topic(&self, name: &str) -> Result<Position, TopicError> {
        let inner = self.inner();
        let _catalog = inner.catalog.lock().expect("no holder panics");
        let number = {
            let mut core = inner.lock();
            let number = core.number_of_name(name);
            let unknown = || TopicError::Unknown(name.to_owned());
            let number = number.ok_or_else(unknown)?;
            let state = core.topic_mut(number).ok_or_else(unknown)?;
            if state.topic.id == catalog_topic().id {
                return Err(AppendError::Reserved(name.to_owned()).into());
            }
            state.deleting = true;
            number
        };
        let recorded = self.record(&Fact::Deleted { number });
        if recorded.is_err()
            && let Some(state) = inner.lock().topic_mut(number)
        {
            state.deleting = false;
        }
        Ok(recorded?)
    }

    /// Writes a fact about the log itself, and waits until it is durable.
    fn record(&self, fact: &Fact) -> Result<Position, AppendError> {
        let batch = fact.encode(self.now().millis());
        let part = NewPart { topic: catalog_topic().id, partition: PartitionId::new(0), batch };
        let receipt = self.inner().append(NewCommit { parts: vec![part] }, Writer::Log)?;
        if self.inner().config.threads == Threads::Manual {
            self.pump();
        }
        Ok(receipt.wait()?.position)
    }

    /// Checks a topic specification without creating it.
    pub fn validate_topic(&self, topic: &NewTopic) -> Result<(), TopicError> {
        topic.check()?;
        match self.inner().lock().number_of_name(&topic.name) {
            Some(_) => Err(TopicError::Exists(topic.name.clone())),
            None => Ok(()),
        }
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let core = self.inner().lock();
        let state = core.topic(core.number_of_name(name)?)?;
        Some(Arc::clone(&state.topic))
    }

    /// The topic of this identity.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        let core = self.inner().lock();
        let state = core.topic(core.number_of(id)?)?;
        Some(Arc::clone(&state.topic))
    }

    /// All topics by name, internal ones among them.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.inner().lock().topics().map(|(_, state)| Arc::clone(&state.topic)).collect()
    }

    /// Every setting of a topic, defaults included.
    pub fn topic_config(&self, topic: &Topic) -> Vec<ConfigEntry> {
        settings::describe(&topic.config)
    }

    /// Checks, orders and queues a commit. Does not wait for the disk, unless the log is behind
    /// by more than it may keep in memory. Producer sequences are checked here: a repeated batch
    /// gives a receipt for the original.
    pub fn append(&self, commit: NewCommit) -> Result<Receipt, AppendError> {
        self.inner().append(commit, Writer::Anyone)
    }

    /// Orders and queues a time tick: a commit without facts, whose log time is the time now. For
    /// those to whom the passing of time is a change, when there are no facts to carry it. Does
    /// not wait for the disk, as `append` does not.
    ///
    /// # Errors
    /// When the log takes no commits any more.
    pub fn append_time_tick(&self) -> Result<Receipt, AppendError> {
        self.inner().append_time_tick()
    }

    /// Begins a commit of any size.
    pub fn begin_large(&self) -> LargeCommit {
        LargeCommit::new(Arc::clone(&self.handle.inner))
    }

    /// A new idempotent producer; ids are reserved durably in blocks. May block.
    pub fn new_producer(&self) -> Result<(ProducerId, ProducerEpoch), AppendError> {
        let inner = self.inner();
        let _catalog = inner.catalog.lock().expect("no holder panics");
        let below = {
            let core = inner.lock();
            (core.next_producer >= core.producers_below)
                .then_some(core.next_producer + PRODUCER_BLOCK)
        };
        if let Some(id) = below {
            self.record(&Fact::ProducersBelow { id })?;
        }
        let mut core = inner.lock();
        let id = core.next_producer;
        core.next_producer += 1;
        Ok((ProducerId::new(id), ProducerEpoch::new(0)))
    }

    /// Whole batches from `offset`, up to `bytes_max` bytes (at least one batch if there is any).
    /// Gives `None` rather than touch the disk when `memory_only`.
    pub fn fetch(
        &self,
        topic: TopicId,
        partition: PartitionId,
        offset: Offset,
        bytes_max: usize,
        memory_only: bool,
    ) -> Result<Option<Fetched>, ReadError> {
        self.inner().fetch(topic, partition, offset, bytes_max, memory_only)
    }

    /// Where a partition begins and ends.
    pub fn partition_ends(
        &self,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<PartitionEnds, ReadError> {
        self.inner().partition_ends(topic, partition)
    }

    /// The first record at or after `timestamp`: exact. May block.
    pub fn offset_for_timestamp(
        &self,
        topic: TopicId,
        partition: PartitionId,
        timestamp: TimestampMs,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        self.inner().offset_for_timestamp(topic, partition, timestamp)
    }

    /// The commit that holds a record. May block.
    pub fn position_of(
        &self,
        topic: TopicId,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<Position>, ReadError> {
        self.inner().position_of(topic, partition, offset)
    }

    /// The last durable commit whose log time is at or before `time`; `None` if there is none.
    /// May block.
    pub fn position_at(&self, time: LogTime) -> Result<Option<Position>, ReadError> {
        self.inner().position_at(time)
    }

    /// Commits after `from`, in order. Position 0 is from the beginning.
    pub fn replay(&self, from: Position) -> Result<Replay, ReadError> {
        Ok(Replay::new(Arc::clone(&self.handle.inner), from))
    }

    /// Makes everything appended durable, makes a checkpoint and stops the threads. Appends fail
    /// afterwards; reads go on.
    pub fn close(&self) {
        self.handle.close();
    }
}

impl Handle {
    fn close(&self) {
        let inner = &*self.inner;
        {
            let mut core = inner.lock();
            if core.closing {
                return;
            }
            core.closing = true;
        }
        inner.journal_work.notify_all();
        inner.behind_work.notify_all();
        inner.room.notify_all();
        for thread in self.threads.lock().expect("no holder panics").drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        inner.pump();
        if let Err(error) = inner.checkpoint() {
            tracing::error!(%error, "closing without a checkpoint");
        }
        inner.exclusive.lock().expect("no holder panics").take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Whoever drives a log by hand also decides whether it is closed or left as it is.
        if self.inner.config.threads == Threads::Real {
            self.close();
        }
    }
}

/// The loop around journal groups and idle marks.
fn run_journal(inner: &Inner) {
    let mut mark_due = false;
    loop {
        if inner.journal_step() {
            mark_due = true;
            continue;
        }
        if mark_due {
            mark_due = inner.mark_step();
        }
        let core = inner.lock();
        if core.closing || core.stopped.is_some() {
            return;
        }
        if core.groups.is_empty() {
            let wait = if mark_due { IDLE } else { Duration::from_secs(3600) };
            drop(inner.journal_work.wait_timeout(core, wait));
        }
    }
}

/// The loop around writing behind.
fn run_behind(inner: &Inner) {
    loop {
        if inner.behind_step() {
            continue;
        }
        let core = inner.lock();
        if core.closing || core.stopped.is_some() {
            return;
        }
        if core.behind.is_empty() {
            drop(inner.behind_work.wait(core));
        }
    }
}
