//! The supervisor: which outlets run, and with what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::board::{Board, Doing};
use super::runner::{Order, Runner, STOP_WITHIN};
use super::{OutletDef, OutletFactory, OutletKind};
use crate::catalog::CatalogError;
use crate::{Name, Views};

/// Beyond what an outlet may take to stop, for its runtime to end.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The outlets that run, and what the kinds' crates give.
#[derive(Default)]
pub(crate) struct Outlets {
    factories: Mutex<BTreeMap<OutletKind, Arc<dyn OutletFactory>>>,
    running: Mutex<BTreeMap<Name, Running>>,
    is_closed: AtomicBool,
}

struct Running {
    orders: mpsc::UnboundedSender<Order>,
    board: Arc<Board>,
    /// Ends when the thread has ended.
    ended: Receiver<()>,
}

impl Outlets {
    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, kind: OutletKind, factory: Arc<dyn OutletFactory>) {
        self.factories.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, factory);
    }

    pub(crate) fn factory(&self, kind: OutletKind) -> Option<Arc<dyn OutletFactory>> {
        let factories = self.factories.lock().unwrap_or_else(PoisonError::into_inner);
        factories.get(&kind).map(Arc::clone)
    }

    /// Starts an outlet's thread. Nothing happens while or after the views are closed.
    pub(crate) fn start(&self, views: &Views, def: Arc<OutletDef>) -> Result<(), CatalogError> {
        let mut running = self.running();
        if self.is_closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (orders, asked) = mpsc::unbounded_channel();
        let (end, ended) = channel();
        let board = Arc::new(Board::new());
        if def.paused {
            board.set(Doing::Paused);
            if let Some(stood) = def.stood {
                board.stands(stood);
            }
        }
        let name = def.name.clone();
        let runner = Runner {
            views: views.clone(),
            name: name.clone(),
            factory: self.factory(def.kind),
            def,
            board: Arc::clone(&board),
            orders: asked,
            ended: end,
        };
        let thread = thread::Builder::new().name(format!("outlet {name}"));
        let thread = thread.spawn(move || runner.run());
        thread.map_err(|e| CatalogError::Invalid(format!("no thread: {e}")))?;
        running.insert(name, Running { orders, board, ended });
        Ok(())
    }

    /// Stops an outlet, with all that it took made durable, and waits for it.
    pub(crate) fn stop(&self, name: &Name) {
        let running = self.running().remove(name);
        if let Some(running) = running {
            running.tell_to_stop();
            running.wait(name);
        }
    }

    /// Stops all, at once, and lets none start any more.
    pub(crate) fn close(&self) {
        let running = {
            let mut running = self.running();
            self.is_closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *running)
        };
        running.values().for_each(Running::tell_to_stop);
        running.iter().for_each(|(name, running)| running.wait(name));
    }

    pub(crate) fn board(&self, name: &Name) -> Option<Arc<Board>> {
        self.running().get(name).map(|running| Arc::clone(&running.board))
    }

    pub(crate) fn ask(&self, name: &Name, order: Order) {
        if let Some(running) = self.running().get(name) {
            // A runner that has ended drops the order, and whoever waits learns of it.
            drop(running.orders.send(order));
        }
    }
}

impl Running {
    fn tell_to_stop(&self) {
        // It may have ended by itself.
        drop(self.orders.send(Order::Stop));
    }

    fn wait(&self, name: &Name) {
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(STOP_WITHIN + END_WITHIN) {
            tracing::error!(outlet = %name, "an outlet did not stop in time: left behind");
        }
    }
}
