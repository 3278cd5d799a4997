//! The log's moving parts and the work that goes on behind appends and reads.
//!
//! Each kind of work is a step that runs to its end in the caller's thread; the log's threads are
//! loops around the steps, and [`Inner::pump`] runs them for whoever drives a log by hand.
//!
//! Locks are taken in the order: catalog, behind, journal, core.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use evert_env::Env;
use evert_model::Position;
use tokio::sync::watch;

use crate::behind::Behind;
use crate::core::Core;
use crate::journal::Journal;
use crate::order::OrderIndex;
use crate::{AppendError, LogConfig, LogId};

/// When idle for so long, the journal's durable mark is written.
pub(crate) const IDLE: Duration = Duration::from_millis(100);

pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) dir: PathBuf,
    pub(crate) config: LogConfig,
    pub(crate) id: LogId,
    pub(crate) core: Mutex<Core>,
    pub(crate) journal: Mutex<JournalState>,
    pub(crate) behind: Mutex<Behind>,
    /// Held while the catalog of topics is changed, until the change is durable.
    pub(crate) catalog: Mutex<()>,
    pub(crate) order: Arc<OrderIndex>,
    pub(crate) journal_work: Condvar,
    pub(crate) behind_work: Condvar,
    pub(crate) room: Condvar,
    pub(crate) end: watch::Sender<Position>,
    /// Keeps other processes out while it lives.
    pub(crate) exclusive: Mutex<Option<Box<dyn Send + Sync>>>,
}

pub(crate) struct JournalState {
    pub(crate) journal: Journal,
    /// When the last group was written.
    pub(crate) last: Duration,
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("no holder of the core panics")
    }

    /// Writes, syncs, publishes and acknowledges one group. Says whether there was one.
    pub(crate) fn journal_step(&self) -> bool {
        let mut state = self.journal.lock().expect("no holder panics");
        let group = {
            let mut core = self.lock();
            if core.stopped.is_some() {
                return false;
            }
            let Some(group) = core.groups.pop_front() else { return false };
            let last = group.commits.last().expect("a group is never empty");
            core.in_flight = Some((last.commit.entry.position, Arc::clone(&group.done)));
            group
        };
        let mut outcome = state.journal.write(group.commits.iter().map(|pending| &pending.commit));
        if self.config.acks_before_sync() {
            group.done.resolve(Ok(()));
        }
        if outcome.is_ok() {
            outcome = state.journal.sync();
        }
        if let Err(error) = outcome {
            self.stop(&format!("the journal: {error}"));
            return false;
        }
        state.last = self.env.clock.monotonic();
        let end = {
            let mut core = self.lock();
            core.in_flight = None;
            if !core.publish(group.commits, group.bytes, state.journal.end()) {
                tracing::error!("a record of the topic catalog cannot be read");
            }
            core.end
        };
        self.end.send_replace(end);
        group.done.resolve(Ok(()));
        self.behind_work.notify_one();
        true
    }

    /// Writes the durable mark if the journal has been idle long enough and lacks one.
    pub(crate) fn mark_step(&self) -> bool {
        let mut state = self.journal.lock().expect("no holder panics");
        if self.lock().stopped.is_some() || !state.journal.needs_mark() {
            return false;
        }
        if self.env.clock.monotonic().saturating_sub(state.last) < IDLE {
            return true;
        }
        if let Err(error) = state.journal.write_mark() {
            self.stop(&format!("the journal: {error}"));
        }
        false
    }

    /// Stops acknowledging, for good: what fails to sync once may be lost, whatever a second try
    /// says. Reads go on.
    pub(crate) fn stop(&self, why: &str) {
        tracing::error!(why, "the log stops taking commits");
        let (waiting, why) = {
            let mut core = self.lock();
            let why = core.stopped.get_or_insert_with(|| why.to_owned()).clone();
            let mut waiting: Vec<_> = core.groups.drain(..).map(|group| group.done).collect();
            waiting.extend(core.in_flight.take().map(|(_, done)| done));
            (waiting, why)
        };
        for done in waiting {
            done.resolve(Err(AppendError::Stopped(why.clone())));
        }
        self.room.notify_all();
        self.journal_work.notify_all();
        self.behind_work.notify_all();
    }

    /// Runs everything that is pending.
    pub(crate) fn pump(&self) {
        while self.journal_step() {}
        self.mark_step();
        while self.behind_step() {}
    }

    /// Moves durable groups into order and segments, and makes a checkpoint if one is due. Says
    /// whether there was anything to do.
    pub(crate) fn behind_step(&self) -> bool {
        let mut behind = self.behind.lock().expect("no holder panics");
        if behind.failed {
            return false;
        }
        let outcome = behind.step(self).and_then(|moved| {
            let due = behind.since_checkpoint >= self.config.checkpoint_bytes;
            match due {
                true => self.checkpoint_with(&mut behind).map(|()| moved),
                false => Ok(moved),
            }
        });
        outcome.unwrap_or_else(|error| {
            behind.failed = true;
            self.stop(&format!("writing segments: {error}"));
            false
        })
    }

    /// Makes a checkpoint of everything that is durable now.
    pub(crate) fn checkpoint(&self) -> Result<(), AppendError> {
        let mut behind = self.behind.lock().expect("no holder panics");
        let mut outcome = Ok(true);
        while !behind.failed && matches!(outcome, Ok(true)) {
            outcome = behind.step(self);
        }
        let outcome = match behind.failed {
            true => Err(io::Error::other("it failed before")),
            false => outcome.and_then(|_| self.checkpoint_with(&mut behind)),
        };
        outcome.map_err(|error| {
            behind.failed = true;
            let why = format!("writing segments: {error}");
            self.stop(&why);
            AppendError::Stopped(why)
        })
    }

    fn checkpoint_with(&self, behind: &mut Behind) -> io::Result<()> {
        behind.checkpoint(self, None)?;
        let start = behind.journal_start();
        self.journal.lock().expect("no holder panics").journal.recycle(start)
    }
}
