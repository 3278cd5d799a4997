//! The door itself: a listening socket, and threads that serve the connections.
//!
//! Each connection stays on one thread with a small runtime of its own: a command takes about a
//! microsecond, which is less than handing it from thread to thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use evert_view::Views;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::connection;
use super::cursors::Cursors;
use super::feeds::Feeds;
use super::registry::Registry;

/// How long commands under way may take once the server was told to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait when no connection can be accepted, for want of file handles say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the key-value door.
#[derive(Clone, Debug)]
pub struct RespConfig {
    /// Threads that serve connections.
    pub threads: usize,
    /// How many clients may be connected at once.
    pub connections_max: usize,
    /// How long a request may take from its first byte to its last.
    pub request_time_max: Duration,
    /// How long a client may take before it reads some more of an answer.
    pub write_time_max: Duration,
    /// What may wait for a subscriber, in bytes; then its connection is cut.
    pub outbox_bytes_max: usize,
}

impl Default for RespConfig {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: (cores / 2).clamp(1, 8),
            connections_max: 10_000,
            request_time_max: Duration::from_secs(60),
            write_time_max: Duration::from_secs(60),
            outbox_bytes_max: 8 << 20,
        }
    }
}

/// What every connection shares.
pub(super) struct Shared {
    pub(super) views: Views,
    pub(super) config: RespConfig,
    pub(super) port: u16,
    pub(super) cursors: Cursors,
    pub(super) feeds: Feeds,
    pub(super) registry: Registry,
}

/// An open door: it listens, and serves once [`RespDoor::serve`] runs.
pub struct RespDoor {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// A connection on its way to its thread.
type Newcomer = (std::net::TcpStream, OwnedSemaphorePermit);

impl RespDoor {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(
        address: impl ToSocketAddrs,
        views: Views,
        config: RespConfig,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let shared = Shared {
            feeds: Feeds::new(views.clone(), Handle::current()),
            views,
            config,
            port: listener.local_addr()?.port(),
            cursors: Cursors::new(),
            registry: Registry::new(),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves clients until `stopping` turns true (or its sender is gone). Commands under way
    /// then have a moment to finish.
    pub async fn serve(self, mut stopping: watch::Receiver<bool>) {
        let Self { listener, shared } = self;
        let mut threads = Vec::new();
        for number in 0..shared.config.threads.max(1) {
            match spawn(number, Arc::clone(&shared), stopping.clone()) {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::error!(%error, "resp: no thread"),
            }
        }
        let places = Arc::new(Semaphore::new(shared.config.connections_max));
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted.and_then(|(socket, _)| prepared(socket)) {
                Ok(socket) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        refuse(&socket);
                        continue;
                    };
                    next = (next + 1) % threads.len().max(1);
                    let sent = threads.get(next).map(|(sender, _)| sender.send((socket, place)));
                    if !matches!(sent, Some(Ok(()))) {
                        tracing::error!("resp: no thread serves connections any more");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "resp: cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        shared.feeds.stop();
        let ended = tokio::task::spawn_blocking(move || {
            for (sender, thread) in threads {
                drop(sender);
                if thread.join().is_err() {
                    tracing::error!("resp: a thread failed");
                }
            }
        });
        // A failure has been told where it happened.
        let _ = ended.await;
    }
}

fn prepared(socket: TcpStream) -> io::Result<std::net::TcpStream> {
    // Answers are gathered here, so that the kernel need not.
    socket.set_nodelay(true)?;
    socket.into_std()
}

fn refuse(mut socket: &std::net::TcpStream) {
    tracing::warn!("resp: too many connections, one was refused");
    // The socket does not block: the farewell goes out now or not at all.
    let _ = io::Write::write(&mut socket, b"-ERR max number of clients reached\r\n");
}

fn spawn(
    number: usize,
    shared: Arc<Shared>,
    stopping: watch::Receiver<bool>,
) -> io::Result<(mpsc::UnboundedSender<Newcomer>, thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, newcomers) = mpsc::unbounded_channel();
    let thread = thread::Builder::new()
        .name(format!("resp-{number}"))
        .spawn(move || runtime.block_on(run(shared, newcomers, stopping)))?;
    Ok((sender, thread))
}

/// Serves connections until no more come and all have ended.
async fn run(
    shared: Arc<Shared>,
    mut newcomers: mpsc::UnboundedReceiver<Newcomer>,
    stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            newcomer = newcomers.recv() => {
                let Some((socket, place)) = newcomer else { break };
                let socket = match TcpStream::from_std(socket) {
                    Ok(socket) => socket,
                    Err(error) => {
                        tracing::debug!(%error, "resp: a client left at once");
                        continue;
                    }
                };
                let (shared, stopping) = (Arc::clone(&shared), stopping.clone());
                connections.spawn(async move {
                    connection::serve(shared, socket, stopping).await;
                    drop(place);
                });
            }
            Some(ended) = connections.join_next() => report(ended),
        }
    }
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(FINISH_WITHIN, drain).await.is_err() {
        tracing::warn!("resp: {} connections were cut", connections.len());
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "resp: a connection failed");
    }
}
