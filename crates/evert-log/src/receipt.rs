//! Receipts: what an append hands back, resolved a group at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};

use evert_model::{LogTime, Offset, Position};

use crate::AppendError;

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the order.
    pub position: Position,
    /// Its log time.
    pub log_time: LogTime,
    /// The base offset given to each part, in the order of `NewCommit::parts`.
    pub base_offsets: Vec<Offset>,
}

/// Resolves when the commit is durable (or, on `evert.durability=buffered` topics, accepted).
#[derive(Debug)]
pub struct Receipt {
    appended: Appended,
    group: Option<Arc<Done>>,
}

impl Receipt {
    /// A receipt that has resolved already when `group` is `None`.
    pub(crate) fn new(appended: Appended, group: Option<Arc<Done>>) -> Self {
        Self { appended, group }
    }

    /// Blocks until it resolves.
    pub fn wait(self) -> Result<Appended, AppendError> {
        if let Some(group) = &self.group {
            group.wait()?;
        }
        Ok(self.appended)
    }
}

impl Future for Receipt {
    type Output = Result<Appended, AppendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &self.group {
            None => Ok(()),
            Some(group) => match group.poll(context.waker()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => outcome,
            },
        };
        Poll::Ready(outcome.map(|()| self.appended.clone()))
    }
}

/// The outcome that all commits of one journal group share.
#[derive(Debug, Default)]
pub(crate) struct Done {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<(), AppendError>>,
    wakers: Vec<Waker>,
}

impl Done {
    pub(crate) fn resolve(&self, outcome: Result<(), AppendError>) {
        let wakers = {
            let mut state = self.state.lock().expect("no holder panics");
            // The first outcome stands: an acknowledged group cannot fail later.
            state.outcome.get_or_insert(outcome);
            std::mem::take(&mut state.wakers)
        };
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wait(&self) -> Result<(), AppendError> {
        let mut state = self.state.lock().expect("no holder panics");
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = self.changed.wait(state).expect("no holder panics");
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<(), AppendError>> {
        let mut state = self.state.lock().expect("no holder panics");
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        // A future polled again with its old waker must not be kept twice.
        if !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}
