//! The registry: who is connected, and what has been served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A connection as `CLIENT LIST` shows it.
pub(super) struct Entry {
    pub(super) id: u64,
    address: SocketAddr,
    local: SocketAddr,
    since: Instant,
    about: Mutex<About>,
}

#[derive(Default)]
struct About {
    name: String,
    library: String,
    library_version: String,
}

impl Entry {
    fn about(&self) -> MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> String {
        self.about().name.clone()
    }

    pub(super) fn set_name(&self, name: String) {
        self.about().name = name;
    }

    pub(super) fn set_library(&self, name: String) {
        self.about().library = name;
    }

    pub(super) fn set_library_version(&self, version: String) {
        self.about().library_version = version;
    }

    /// One line, as Redis writes it.
    pub(super) fn line(&self) -> String {
        let Self { id, address, local, since, .. } = self;
        let About { name, library, library_version } = &*self.about();
        let age = since.elapsed().as_secs();
        format!(
            "id={id} addr={address} laddr={local} name={name} age={age} idle=0 flags=N db=0 \
             lib-name={library} lib-ver={library_version}\n"
        )
    }
}

/// All connections of the door.
pub(super) struct Registry {
    started: Instant,
    next: AtomicU64,
    entries: Mutex<BTreeMap<u64, Arc<Entry>>>,
    commands: AtomicU64,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(1),
            entries: Mutex::default(),
            commands: AtomicU64::new(0),
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, address: SocketAddr, local: SocketAddr) -> Arc<Entry> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let about = Mutex::default();
        let entry = Arc::new(Entry { id, address, local, since: Instant::now(), about });
        self.entries().insert(id, Arc::clone(&entry));
        entry
    }

    pub(super) fn leave(&self, id: u64) {
        self.entries().remove(&id);
    }

    /// Notes that so many commands were answered.
    pub(super) fn answered(&self, commands: u64) {
        self.commands.fetch_add(commands, Ordering::Relaxed);
    }

    pub(super) fn list(&self) -> Vec<Arc<Entry>> {
        self.entries().values().cloned().collect()
    }

    /// Connections now, connections so far, commands so far, and seconds since the start.
    pub(super) fn figures(&self) -> (usize, u64, u64, u64) {
        let connected = self.entries().len();
        let received = self.next.load(Ordering::Relaxed) - 1;
        let commands = self.commands.load(Ordering::Relaxed);
        (connected, received, commands, self.started.elapsed().as_secs())
    }
}
