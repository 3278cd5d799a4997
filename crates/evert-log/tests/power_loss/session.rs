//! One life's handles: what a process holds while it runs and loses when it ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use evert_log::{AppendError, Appended, LargeCommit, Log, Receipt, Replay};
use evert_model::Position;

use crate::client::Client;
use crate::facts::AttemptId;
use crate::oracle::{Oracle, State};
use crate::trouble::{Outcome, violation};

pub(crate) struct Session {
    log: Log,
    pub(crate) follower: Replay,
    /// Large commits begun, not yet committed.
    pub(crate) large: Vec<(AttemptId, LargeCommit)>,
    waiting: Vec<Waiting>,
    /// Time ticks that are not acknowledged yet.
    ticks: Vec<Pin<Box<Receipt>>>,
}

struct Waiting {
    attempt: AttemptId,
    receipt: Pin<Box<Receipt>>,
    /// The log's end when the attempt was made, unless it had been made before.
    after: Option<Position>,
}

impl Session {
    pub(crate) fn new(log: Log, follower: Replay) -> Self {
        let (large, waiting, ticks) = (Vec::new(), Vec::new(), Vec::new());
        Self { log, follower, large, waiting, ticks }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Appends an attempt, for the first time or again.
    pub(crate) fn append(&mut self, attempt: AttemptId, oracle: &Oracle) -> Outcome {
        let receipt = self.log.append(oracle.commit_of(attempt))?;
        self.wait_for(attempt, receipt, None);
        Ok(())
    }

    /// Appends an attempt that was never made before.
    pub(crate) fn append_new(&mut self, attempt: AttemptId, oracle: &mut Oracle) -> Outcome {
        let after = self.log.end();
        match self.log.append(oracle.commit_of(attempt)) {
            Ok(receipt) => {
                self.wait_for(attempt, receipt, Some(after));
                Ok(())
            }
            Err(error) => {
                oracle.attempts[attempt].state = State::Void;
                Err(error.into())
            }
        }
    }

    /// Lets the log say what time it is.
    pub(crate) fn append_time_tick(&mut self) -> Outcome {
        self.ticks.push(Box::pin(self.log.append_time_tick()?));
        Ok(())
    }

    pub(crate) fn wait_for(
        &mut self,
        attempt: AttemptId,
        receipt: Receipt,
        after: Option<Position>,
    ) {
        self.waiting.push(Waiting { attempt, receipt: Box::pin(receipt), after });
    }

    /// Takes the acknowledgements that have come.
    pub(crate) fn settle(&mut self, oracle: &mut Oracle, clients: &mut [Client]) -> Outcome {
        for mut waiting in std::mem::take(&mut self.waiting) {
            match poll(&mut waiting.receipt) {
                None => self.waiting.push(waiting),
                Some(Ok(appended)) => {
                    self.acknowledged(&waiting, &appended, oracle)?;
                    oracle.acknowledged(waiting.attempt, appended)?;
                    clients.iter_mut().for_each(|client| client.acknowledged(waiting.attempt));
                }
                Some(Err(AppendError::Stopped(_))) => {}
                Some(Err(error)) => {
                    return violation(format!("attempt {} failed late: {error}", waiting.attempt));
                }
            }
        }
        for mut receipt in std::mem::take(&mut self.ticks) {
            match poll(&mut receipt) {
                None => self.ticks.push(receipt),
                Some(Ok(appended)) => oracle.ticked(&appended)?,
                Some(Err(AppendError::Stopped(_))) => {}
                Some(Err(error)) => return violation(format!("a time tick failed late: {error}")),
            }
        }
        Ok(())
    }

    fn acknowledged(&self, waiting: &Waiting, appended: &Appended, oracle: &Oracle) -> Outcome {
        let attempt = &oracle.attempts[waiting.attempt];
        if waiting.after.is_some_and(|after| appended.position <= after) {
            return violation(format!(
                "attempt {} was made after {:?} and is {appended:?}",
                waiting.attempt, waiting.after
            ));
        }
        if attempt.is_promise && self.log.end() < appended.position {
            return violation(format!(
                "attempt {} is acknowledged as {appended:?} and not visible at {}",
                waiting.attempt,
                self.log.end()
            ));
        }
        Ok(())
    }

    /// Whether nothing waits for an acknowledgement.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.ticks.is_empty()
    }
}

/// The answer, if it has come.
pub(crate) fn poll(receipt: &mut Pin<Box<Receipt>>) -> Option<Result<Appended, AppendError>> {
    match receipt.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
