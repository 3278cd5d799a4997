//! The loop around one source: copy once, then stream, and again after every failure.

use std::sync::Arc;
use std::time::Duration;

use evert_model::{Lsn, TopicId};
use tokio::sync::watch;

use crate::definition::Definition;
use crate::destination::Destination;
use crate::error::SourceError;
use crate::progress::Progress;
use crate::slot::NewSlot;
use crate::status::{SourcePhase, StatusCell};
use crate::trouble::Trouble;
use crate::{copy, stream};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A run of this length was a good one: the next pause is short again.
const GOOD_RUN: Duration = Duration::from_secs(30);

/// A source and what it needs to run.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) definition: Definition,
    pub(crate) destination: Arc<dyn Destination>,
    pub(crate) status: StatusCell,
    /// Planted by a test that has to notice.
    #[cfg(test)]
    pub(crate) confirms_early: bool,
}

impl Source {
    /// The tables' topics, with what is missing made. Only before the copy: afterwards a missing
    /// relation was dropped.
    pub(crate) async fn ensure_topics(&self) -> Result<Vec<TopicId>, Trouble> {
        let destination = Arc::clone(&self.destination);
        let (name, tables) = (self.name.clone(), self.definition.tables.clone());
        let topics: Result<Vec<_>, SourceError> = blocking(move || {
            tables.iter().map(|table| destination.ensure_topic(&name, table)).collect()
        })
        .await?;
        Ok(topics?)
    }

    /// The tables' topics as far as their relations are still there.
    pub(crate) fn topics(&self) -> Vec<Option<TopicId>> {
        let topic = |table| {
            let found = self.destination.topic(&self.name, table);
            if found.is_none() {
                let table = table.source_name();
                self.status.warn(format!("{table}: its relation was dropped, it is not taken"));
            }
            found
        };
        self.definition.tables.iter().map(topic).collect()
    }

    /// A stream's progress from `resume` on.
    pub(crate) fn progress(&self, resume: Lsn) -> Progress {
        #[cfg(test)]
        return Progress::new(resume).confirm_early(self.confirms_early);
        #[cfg(not(test))]
        Progress::new(resume)
    }

    /// How far the source has come by what is in the log.
    async fn resume(&self) -> Result<Option<Lsn>, Trouble> {
        let state = self.destination.state(&self.name).await?;
        let resume = state.and_then(|state| self.definition.resume(&state));
        self.status.update(|status| status.lsn = resume);
        Ok(resume)
    }

    async fn attempt(&self, slot: Option<NewSlot>) -> Result<(), Trouble> {
        let resume = match self.resume().await? {
            Some(resume) => resume,
            None => copy::run(self, slot).await?,
        };
        stream::run(self, resume).await
    }
}

/// Runs the source until it is told to stop. `slot` is a new one that was just made for it.
pub(crate) async fn run(source: Source, slot: Option<NewSlot>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        // Whatever is dropped here is not confirmed to the source and comes again.
        () = keep_running(&source, slot) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    source.status.phase(SourcePhase::Stopped, None);
}

async fn keep_running(source: &Source, mut slot: Option<NewSlot>) {
    let mut pause = PAUSE_MIN;
    loop {
        let started = tokio::time::Instant::now();
        let Err(trouble) = source.attempt(slot.take()).await else { continue };
        if started.elapsed() >= GOOD_RUN {
            pause = PAUSE_MIN;
        }
        match trouble {
            Trouble::Stopped => return,
            Trouble::Retry(why) => {
                tracing::warn!(source = source.name, why, "interrupted");
                source.status.phase(SourcePhase::Retrying, Some(why));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Trouble::Failed(why) => {
                tracing::error!(source = source.name, why, "failed");
                source.status.phase(SourcePhase::Failed, Some(why));
                return std::future::pending().await;
            }
        }
    }
}

/// Runs what may block on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Trouble> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Trouble::Failed(format!("a task ended: {error}")))
}
