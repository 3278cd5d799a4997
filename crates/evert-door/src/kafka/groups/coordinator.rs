//! The coordinator: the loop around the groups' state machines.
//!
//! Owns: time, identities, and the way of an answer to the request that waits for it.
//! Not here: what is answered (`state`).
//!
//! Invariants
//! - No lock is held while anything waits.
//! - A group without members, or ids given out, is forgotten; its offsets are not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::state::{Answer, GroupState, Identity, Input, Now, Output, Ticket};

/// How long the loop sleeps when no group has a deadline.
const IDLE: Duration = Duration::from_secs(60);

/// All groups.
pub(crate) struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    initial_delay: Duration,
    groups: Mutex<Groups>,
    /// Rung when a deadline may have come nearer, and when the coordinator is dropped.
    changed: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

#[derive(Default)]
struct Groups {
    by_name: HashMap<String, GroupState>,
    waiting: HashMap<Ticket, oneshot::Sender<Answer>>,
    last_ticket: Ticket,
}

impl Coordinator {
    /// Starts the loop that lets time pass; it ends when the coordinator is dropped.
    pub(crate) fn start(initial_delay: Duration) -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            initial_delay,
            groups: Mutex::new(Groups::default()),
            changed: Arc::new(Notify::new()),
        });
        tokio::spawn(keep_time(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// Hands a request to its group and waits for the answer. `None` is a group that does not
    /// exist, unless `may_create`.
    pub(crate) async fn ask(
        &self,
        group: &str,
        may_create: bool,
        input: impl FnOnce(Ticket) -> Input,
    ) -> Option<Answer> {
        let answer = {
            let mut groups = self.shared.lock();
            if may_create && !groups.by_name.contains_key(group) {
                let state = GroupState::new(self.shared.initial_delay);
                groups.by_name.insert(group.to_owned(), state);
            }
            groups.last_ticket += 1;
            let ticket = groups.last_ticket;
            let (sender, answer) = oneshot::channel();
            groups.waiting.insert(ticket, sender);
            let now = self.shared.now();
            let Some(state) = groups.by_name.get_mut(group) else {
                groups.waiting.remove(&ticket);
                return None;
            };
            let outputs = state.step(input(ticket), now);
            groups.deliver(outputs);
            groups.forget_if_idle(group);
            answer
        };
        self.shared.changed.notify_one();
        // A sender is only dropped with the coordinator, and then nobody asks any more.
        answer.await.ok()
    }

    /// Whether a member may commit offsets to a group.
    pub(crate) fn check_commit(
        &self,
        group: &str,
        identity: &Identity,
        generation: i32,
    ) -> Result<(), ResponseError> {
        let now = self.shared.now();
        match self.shared.lock().by_name.get_mut(group) {
            Some(state) => state.check_commit(identity, generation, now),
            None if generation < 0 => Ok(()),
            None => Err(ResponseError::IllegalGeneration),
        }
    }

    /// Looks at one group, if it has members or ids given out.
    pub(crate) fn look<T>(&self, group: &str, look: impl FnOnce(&GroupState) -> T) -> Option<T> {
        self.shared.lock().by_name.get(group).map(look)
    }

    /// Looks at every group that has members or ids given out.
    pub(crate) fn look_at_all<T>(&self, mut look: impl FnMut(&str, &GroupState) -> T) -> Vec<T> {
        self.shared.lock().by_name.iter().map(|(name, state)| look(name, state)).collect()
    }
}

impl Shared {
    fn now(&self) -> Now {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().expect("no panic happens under the groups' lock")
    }

    /// Lets time pass in every group; gives the next deadline.
    fn tick(&self) -> Now {
        let now = self.now();
        let mut groups = self.lock();
        let mut outputs = Vec::new();
        let mut next = now + IDLE;
        for state in groups.by_name.values_mut() {
            if state.next_deadline().is_some_and(|deadline| deadline <= now) {
                outputs.extend(state.tick(now));
            }
            next = next.min(state.next_deadline().unwrap_or(next));
        }
        groups.deliver(outputs);
        groups.by_name.retain(|_, state| !state.is_forgettable());
        // A request whose client hung up is answered by nobody's wish.
        groups.waiting.retain(|_, sender| !sender.is_closed());
        next
    }
}

impl Groups {
    fn deliver(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if let Some(sender) = self.waiting.remove(&output.ticket) {
                // It fails if the client hung up, who then needs no answer.
                let _ = sender.send(output.answer);
            }
        }
    }

    fn forget_if_idle(&mut self, group: &str) {
        if self.by_name.get(group).is_some_and(GroupState::is_forgettable) {
            self.by_name.remove(group);
        }
    }
}

async fn keep_time(shared: Weak<Shared>) {
    loop {
        let (next, changed) = match shared.upgrade() {
            Some(shared) => (shared.started + shared.tick(), shared.changed.clone()),
            None => return,
        };
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
