//! Commits too large for memory: a thread of its own feeds them to the log.

use evert_log::{AppendError, NewPart};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::destination::{Durable, LargeAppend};
use crate::trouble::Trouble;

/// Batches that may wait for the log.
const WAITING_MAX: usize = 16;

/// A large commit on its way. Dropped before `commit`, it vanishes.
pub(crate) struct LargeWriter {
    parts: mpsc::Sender<Message>,
    thread: JoinHandle<Result<Option<Durable>, AppendError>>,
}

enum Message {
    Part(NewPart),
    Commit,
}

impl LargeWriter {
    pub(crate) fn new(commit: Box<dyn LargeAppend>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        // Appends block while the log is behind with writing.
        Self { parts: sender, thread: tokio::task::spawn_blocking(move || write(commit, receiver)) }
    }

    /// Adds a batch; waits while the log is behind.
    pub(crate) async fn append(&mut self, part: NewPart) -> Result<(), Trouble> {
        match self.parts.send(Message::Part(part)).await {
            Ok(()) => Ok(()),
            // The thread ends early only with an error.
            Err(_) => Err(self.outcome().await.err().unwrap_or(Trouble::Stopped)),
        }
    }

    /// Makes all batches one commit.
    pub(crate) async fn commit(mut self) -> Result<Durable, Trouble> {
        // If the thread is gone, its outcome says why.
        let _ = self.parts.send(Message::Commit).await;
        self.outcome().await?.ok_or(Trouble::Stopped)
    }

    async fn outcome(&mut self) -> Result<Option<Durable>, Trouble> {
        match (&mut self.thread).await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => Err(Trouble::Failed(format!("the writer ended: {error}"))),
        }
    }
}

fn write(
    mut commit: Box<dyn LargeAppend>,
    mut parts: mpsc::Receiver<Message>,
) -> Result<Option<Durable>, AppendError> {
    while let Some(message) = parts.blocking_recv() {
        match message {
            Message::Part(part) => commit.append(part)?,
            Message::Commit => return commit.commit().map(Some),
        }
    }
    Ok(None)
}
