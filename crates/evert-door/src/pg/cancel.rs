//! Cancel requests: they come on connections of their own and name another one by a secret.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::backend::CancelHandle;

/// Every running connection, by the process id it was told.
#[derive(Default)]
pub(super) struct Registry {
    next: AtomicI32,
    running: Mutex<HashMap<i32, Arc<Cancel>>>,
}

/// Cancels what one connection is executing.
pub(super) struct Cancel {
    secret: i32,
    session: CancelHandle,
    asked: watch::Sender<()>,
}

impl Cancel {
    pub(super) fn ask(&self) {
        (self.session)();
        self.asked.send_replace(());
    }

    /// Changes when someone asks.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.asked.subscribe()
    }
}

/// A connection's entry, gone when the connection is.
pub(super) struct Registered {
    registry: Arc<Registry>,
    pub(super) process: i32,
    pub(super) secret: i32,
    pub(super) cancel: Arc<Cancel>,
}

impl Registry {
    pub(super) fn register(self: &Arc<Self>, session: CancelHandle) -> Registered {
        let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
        let secret = i32::from_be_bytes([a, b, c, d]);
        let cancel = Arc::new(Cancel { secret, session, asked: watch::Sender::new(()) });
        let mut running = self.running();
        let process = loop {
            let process = self.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
            if process != 0 && !running.contains_key(&process) {
                break process;
            }
        };
        running.insert(process, cancel.clone());
        Registered { registry: self.clone(), process, secret, cancel }
    }

    /// Cancels what a connection executes, if the secret is its own.
    pub(super) fn cancel(&self, process: i32, secret: i32) {
        let cancel = self.running().get(&process).filter(|cancel| cancel.secret == secret).cloned();
        if let Some(cancel) = cancel {
            cancel.ask();
        }
    }

    pub(super) fn cancel_all(&self) {
        let all: Vec<_> = self.running().values().cloned().collect();
        all.iter().for_each(|cancel| cancel.ask());
    }

    fn running(&self) -> MutexGuard<'_, HashMap<i32, Arc<Cancel>>> {
        self.running.lock().expect("nothing panics while it holds the lock")
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.running().remove(&self.process);
    }
}
