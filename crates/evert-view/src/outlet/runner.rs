//! The runner: one outlet's thread. It opens the outlet, lets it follow, and opens it again.
//!
//! Invariants
//! - An outlet is used by one call at a time.
//! - A panic in an outlet fails that outlet, by name.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use evert_model::{Position, RowSchema};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use super::board::{Board, Doing};
use super::{Outlet, OutletContext, OutletDef, OutletError, OutletFactory, OutletVerdict};
use crate::{Name, Views};

/// Between an error and the next attempt: the first time, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long an outlet may take to make durable what it has, when it is to stop.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What a runner is asked for. When nobody is left who could ask, it stops.
pub(crate) enum Order {
    Stop,
    Verify(oneshot::Sender<Result<OutletVerdict, OutletError>>),
}

/// One outlet's thread.
pub(crate) struct Runner {
    pub(crate) views: Views,
    pub(crate) name: Name,
    /// What the catalog said when it was started; other words start another runner.
    pub(crate) def: Arc<OutletDef>,
    pub(crate) factory: Option<Arc<dyn OutletFactory>>,
    pub(crate) board: Arc<Board>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    /// Dropped at the end.
    pub(crate) ended: Sender<()>,
}

/// How an attempt ended, if not by an error.
enum End {
    Stopped,
    /// The outlet is to be opened anew.
    Reopen,
}

type Followed = (Box<dyn Outlet>, Result<(), OutletError>);

impl Runner {
    pub(crate) fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("outlet {}", self.name))
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(self.live());
                // A replay of its own may still be reading; it ends when it sees that nobody
                // listens.
                runtime.shutdown_background();
            }
            Err(error) => self.board.set(Doing::Failed(format!("no runtime: {error}"))),
        }
        drop(self.ended);
    }

    async fn live(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.board.reached();
            let Some(schema) = self.schema() else { return };
            let error = match self.attempt(&schema).await {
                Ok(End::Stopped) => return,
                Ok(End::Reopen) => continue,
                Err(error) => error,
            };
            if self.board.reached() > before {
                pause = PAUSE_MIN;
            }
            match error {
                // What it reads has other columns now: it is opened over those.
                _ if self.schema().as_ref().is_some_and(|now| *now != schema) => {}
                OutletError::Retry(why) => {
                    tracing::warn!(outlet = %self.name, error = %why, "tried again in {pause:?}");
                    // One that stands still misses nothing.
                    if !self.def.paused {
                        self.board.set(Doing::Retrying(why));
                    }
                }
                OutletError::Failed(why) => {
                    tracing::error!(outlet = %self.name, error = %why, "an outlet failed");
                    self.board.set(Doing::Failed(why));
                    self.wait(None).await;
                    return;
                }
            }
            if self.wait(Some(pause)).await {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn schema(&self) -> Option<Arc<RowSchema>> {
        let catalog = self.views.catalog();
        catalog.schema_of(&self.def.on).cloned().map(Arc::new)
    }

    /// Opens the outlet and lets it follow.
    async fn attempt(&mut self, schema: &Arc<RowSchema>) -> Result<End, OutletError> {
        let Some(factory) = self.factory.clone() else {
            return Err(OutletError::Failed(format!("no {} here", self.def.kind.noun())));
        };
        let (def, columns) = (Arc::clone(&self.def), Arc::clone(schema));
        let open = tokio::spawn(async move { factory.open(&def, &columns).await });
        let Some(opened) = self.unless_stopped(open).await else { return Ok(End::Stopped) };
        let mut outlet = opened??;
        let from = outlet.position().unwrap_or(Position::ZERO);
        self.board.begin(from, outlet.rows(), self.views.position());
        if self.def.paused {
            self.board.set(Doing::Paused);
        }
        loop {
            let (stop, stopping) = watch::channel(false);
            let context = self.context(schema, stopping);
            let (order, followed) = if self.def.paused {
                (self.orders.recv().await, (outlet, Ok(())))
            } else {
                let mut following = tokio::spawn(follow(outlet, context));
                let order = tokio::select! {
                    followed = &mut following => return self.why_ended(followed?.1),
                    order = self.orders.recv() => order,
                };
                stop.send_replace(true);
                let is_stop = !matches!(order, Some(Order::Verify(_)));
                match stopped(following).await {
                    Err(_) if is_stop => return Ok(End::Stopped),
                    followed => (order, followed?),
                }
            };
            let (it, result) = followed;
            let Some(Order::Verify(reply)) = order else {
                if let Err(error) = result {
                    tracing::warn!(outlet = %self.name, %error, "stopped");
                }
                return Ok(End::Stopped);
            };
            result?;
            match self.verify(it, schema, reply).await? {
                Ok(it) => outlet = it,
                Err(end) => return Ok(end),
            }
        }
    }

    /// An outlet that has stopped by itself: the views are closing, or it has a mistake.
    fn why_ended(&self, result: Result<(), OutletError>) -> Result<End, OutletError> {
        result?;
        match self.views.shared().stopped() {
            Some(_) => Ok(End::Stopped),
            None => Err(OutletError::Retry("it stopped following".into())),
        }
    }

    /// Gives the outlet back unless it is to be stopped or opened anew.
    async fn verify(
        &mut self,
        outlet: Box<dyn Outlet>,
        schema: &Arc<RowSchema>,
        mut reply: oneshot::Sender<Result<OutletVerdict, OutletError>>,
    ) -> Result<Result<Box<dyn Outlet>, End>, OutletError> {
        // Kept until the end of this: without it the outlet would think that it is to stop.
        let (_stop, stopping) = watch::channel(false);
        let context = self.context(schema, stopping);
        let verifying = tokio::spawn(verify(outlet, context));
        let abort = verifying.abort_handle();
        tokio::select! {
            () = reply.closed() => {
                abort.abort();
                Ok(Err(End::Reopen))
            }
            verified = self.unless_stopped(verifying) => {
                let Some(verified) = verified else { return Ok(Err(End::Stopped)) };
                let (outlet, verdict) = verified?;
                // Whoever asked may be gone.
                drop(reply.send(verdict));
                Ok(Ok(outlet))
            }
        }
    }

    fn context(&self, schema: &Arc<RowSchema>, stop: watch::Receiver<bool>) -> OutletContext {
        let (views, def) = (self.views.clone(), Arc::clone(&self.def));
        OutletContext::new(views, def, Arc::clone(schema), stop, Arc::clone(&self.board))
    }

    /// What a task gives; nothing if the runner is to stop before, and then the task is ended.
    async fn unless_stopped<T>(&mut self, mut task: JoinHandle<T>) -> Option<Result<T, JoinError>> {
        loop {
            tokio::select! {
                result = &mut task => return Some(result),
                order = self.orders.recv() => match order {
                    Some(Order::Verify(reply)) => self.not_now(reply),
                    Some(Order::Stop) | None => {
                        task.abort();
                        return None;
                    }
                },
            }
        }
    }

    /// Waits, for ever if no time is given. Says whether the runner is to stop.
    async fn wait(&mut self, time: Option<Duration>) -> bool {
        let until = time.map(|time| tokio::time::Instant::now() + time);
        loop {
            let order = match until {
                None => self.orders.recv().await,
                Some(until) => match tokio::time::timeout_at(until, self.orders.recv()).await {
                    Ok(order) => order,
                    Err(_) => return false,
                },
            };
            match order {
                Some(Order::Verify(reply)) => self.not_now(reply),
                Some(Order::Stop) | None => return true,
            }
        }
    }

    fn not_now(&self, reply: oneshot::Sender<Result<OutletVerdict, OutletError>>) {
        let state = self.board.view_state();
        let why = format!("{} cannot be verified now: {state}", self.def.describe());
        // Whoever asked may be gone.
        drop(reply.send(Err(OutletError::Retry(why))));
    }
}

async fn follow(mut outlet: Box<dyn Outlet>, context: OutletContext) -> Followed {
    let result = outlet.follow(&context).await;
    (outlet, result)
}

async fn verify(
    mut outlet: Box<dyn Outlet>,
    context: OutletContext,
) -> (Box<dyn Outlet>, Result<OutletVerdict, OutletError>) {
    let verdict = outlet.verify(&context).await;
    (outlet, verdict)
}

/// Waits until an outlet that was told to stop has stopped.
async fn stopped(following: JoinHandle<Followed>) -> Result<Followed, OutletError> {
    let abort = following.abort_handle();
    match tokio::time::timeout(STOP_WITHIN, following).await {
        Ok(followed) => Ok(followed?),
        Err(_) => {
            abort.abort();
            Err(OutletError::Retry(format!("it did not stop within {STOP_WITHIN:?}")))
        }
    }
}

impl From<JoinError> for OutletError {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::Failed(format!("it ended in a panic: {}", text_of(&*panic))),
            Err(error) => Self::Retry(error.to_string()),
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
