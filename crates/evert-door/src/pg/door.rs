//! The door itself: a listening socket and the connections that came in by it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::backend::{Backend, SqlError};
use super::cancel::Registry;
use super::connection;
use super::wire::Wire;

/// How long statements go on after the server was told to stop, before they are cancelled.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// How long cancelled statements may take to end.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait when no connection can be accepted, for want of file handles say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the SQL door.
#[derive(Clone, Debug)]
pub struct PgConfig {
    /// How many clients may be connected at once.
    pub connections_max: usize,
    /// The largest message of a client, in bytes.
    pub message_bytes_max: usize,
    /// What messages larger than 64 KiB may hold together, over all connections.
    pub large_bytes_max: usize,
    /// How long a message may take from its first byte to its last.
    pub message_time_max: Duration,
    /// How long a client may take to start its session.
    pub startup_time_max: Duration,
    /// How long a client may take before it reads some more of an answer.
    pub write_time_max: Duration,
    /// Prepared statements of a connection.
    pub statements_max: usize,
    /// Open portals of a connection.
    pub portals_max: usize,
    /// What a connection's statements and parameters may hold together, in bytes.
    pub prepared_bytes_max: usize,
}

impl Default for PgConfig {
    fn default() -> Self {
        Self {
            connections_max: 2_000,
            message_bytes_max: 64 << 20,
            large_bytes_max: 256 << 20,
            message_time_max: Duration::from_secs(120),
            startup_time_max: Duration::from_secs(30),
            write_time_max: Duration::from_secs(600),
            statements_max: 10_000,
            portals_max: 1_000,
            prepared_bytes_max: 128 << 20,
        }
    }
}

/// What every connection shares.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) config: Arc<PgConfig>,
    pub(super) registry: Arc<Registry>,
    /// Memory for large messages, in bytes.
    pub(super) large_bytes: Arc<Semaphore>,
}

/// An open door: it listens, and serves once [`PgDoor::serve`] runs.
pub struct PgDoor {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl PgDoor {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(
        address: impl ToSocketAddrs,
        backend: Arc<dyn Backend>,
        config: PgConfig,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let large_bytes = config.large_bytes_max.min(Semaphore::MAX_PERMITS);
        let shared = Shared {
            backend,
            config: Arc::new(config),
            registry: Arc::default(),
            large_bytes: Arc::new(Semaphore::new(large_bytes)),
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

    /// Serves clients until `stopping` turns true (or its sender is gone). Statements under way
    /// then have a moment to finish.
    pub async fn serve(self, mut stopping: watch::Receiver<bool>) {
        let Self { listener, shared } = self;
        let for_connections = stopping.clone();
        let mut connections = JoinSet::new();
        let places = Arc::new(Semaphore::new(shared.config.connections_max));
        loop {
            tokio::select! {
                () = told(&mut stopping) => break,
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        welcome(&shared, socket, &mut connections, &places, &for_connections);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "sql: cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => report(ended),
            }
        }
        drop(listener);
        if !drained(&mut connections, FINISH_WITHIN).await {
            shared.registry.cancel_all();
            if !drained(&mut connections, CANCEL_WITHIN).await {
                tracing::warn!("sql: {} connections were cut", connections.len());
            }
        }
    }
}

fn welcome(
    shared: &Arc<Shared>,
    socket: TcpStream,
    connections: &mut JoinSet<()>,
    places: &Arc<Semaphore>,
    stopping: &watch::Receiver<bool>,
) {
    // Answers are gathered here, so that the kernel need not.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "sql: a client left at once");
        return;
    }
    let mut wire = Wire::new(socket, shared.config.clone(), shared.large_bytes.clone());
    let Ok(place) = places.clone().try_acquire_owned() else {
        tracing::warn!("sql: too many connections, one was refused");
        // A flood must not gather tasks: the farewell goes out now or not at all.
        connections.spawn(async move {
            wire.farewell(&SqlError::new("53300", "sorry, too many clients already")).await;
        });
        return;
    };
    let (shared, stopping) = (shared.clone(), stopping.clone());
    connections.spawn(async move {
        connection::serve(&shared, wire, stopping).await;
        drop(place);
    });
}

/// Resolves when the server is told to stop.
pub(super) async fn told(stopping: &mut watch::Receiver<bool>) {
    // Without a sender nobody is left who could say otherwise.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn drained(connections: &mut JoinSet<()>, within: Duration) -> bool {
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    tokio::time::timeout(within, drain).await.is_ok()
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "sql: a connection failed");
    }
}
