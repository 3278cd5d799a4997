//! The door itself: a listening socket and the connections that came in by it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evert_log::Log;
use evert_view::Views;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::broker::{Broker, raised};
use super::connection;

/// How long a stopping server waits for answers on their way.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be accepted, for want of file handles say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the Kafka door.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// The host and port that clients are told to connect to; without it, the address that a
    /// client's own connection came to.
    pub advertised: Option<(String, u16)>,
    /// Whether Metadata creates topics that a client asks for.
    pub auto_create_topics: bool,
    /// The partitions of a topic created without a number of them.
    pub default_partitions: i32,
    /// The largest request, in bytes.
    pub frame_bytes_max: u32,
    /// How many requests of one connection may be under way at once.
    pub in_flight_max: usize,
    /// No further request of a connection is begun while those under way hold more bytes.
    pub in_flight_bytes_max: usize,
    /// How many clients may be connected at once.
    pub connections_max: usize,
    /// A connection on which nothing happens for so long is closed.
    pub idle_max: Duration,
    /// The longest that a Fetch waits, whatever it asks for.
    pub fetch_wait_max: Duration,
    /// The shortest session timeout of a group's member.
    pub session_timeout_min: Duration,
    /// The longest session timeout of a group's member.
    pub session_timeout_max: Duration,
    /// How long a new group waits for more members before its first generation.
    pub group_initial_delay: Duration,
    /// The most bytes of metadata committed with an offset.
    pub offset_metadata_bytes_max: usize,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            advertised: None,
            auto_create_topics: true,
            default_partitions: 1,
            frame_bytes_max: 100 * 1024 * 1024,
            in_flight_max: 64,
            in_flight_bytes_max: 16 * 1024 * 1024,
            connections_max: 20_000,
            idle_max: Duration::from_secs(600),
            fetch_wait_max: Duration::from_secs(60),
            session_timeout_min: Duration::from_secs(1),
            session_timeout_max: Duration::from_secs(1800),
            group_initial_delay: Duration::from_millis(500),
            offset_metadata_bytes_max: 4096,
        }
    }
}

/// Tells which relation stands on a topic, so that the topic is not deleted under it.
pub trait TopicUse: Send + Sync {
    /// The name of a relation that reads the topic, if there is one.
    fn relation_on(&self, topic: &str) -> Option<String>;
}

impl TopicUse for Views {
    fn relation_on(&self, topic: &str) -> Option<String> {
        let catalog = self.catalog();
        let relation = catalog.named_relations().find(|relation| relation.topic == topic);
        relation.map(|relation| relation.name.to_string())
    }
}

/// Why the door does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The address cannot be listened on.
    #[error("the Kafka door cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// The committed offsets cannot be read back.
    #[error("the topic of committed offsets: {0}")]
    Offsets(String),
}

/// An open door: it listens, and serves once [`KafkaDoor::serve`] runs.
pub struct KafkaDoor {
    listener: TcpListener,
    broker: Arc<Broker>,
}

impl KafkaDoor {
    /// Listens on `address`. Reads the committed offsets back, which takes as long as reading
    /// their topic.
    pub async fn bind(
        address: impl ToSocketAddrs,
        log: Log,
        topic_use: Arc<dyn TopicUse>,
        config: KafkaConfig,
    ) -> Result<Self, OpenError> {
        let listener = TcpListener::bind(address).await?;
        let broker = Broker::open(log, topic_use, config)
            .await
            .map_err(|error| OpenError::Offsets(error.to_string()))?;
        Ok(Self { listener, broker: Arc::new(broker) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves clients until `stopping` turns true (or its sender is gone), then lets answers
    /// that are on their way leave.
    pub async fn serve(self, mut stopping: watch::Receiver<bool>) {
        let told = stopping.clone();
        let mut connections = JoinSet::new();
        let places = Arc::new(Semaphore::new(self.config().connections_max));
        loop {
            tokio::select! {
                () = raised(&mut stopping) => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => self.welcome(socket, &mut connections, &places, &told),
                    Err(error) => {
                        tracing::warn!(%error, "kafka: cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => report(ended),
            }
        }
        drop(self.listener);
        let drain = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, drain).await.is_err() {
            tracing::warn!("kafka: clients did not take their answers in time");
        }
    }

    fn config(&self) -> &KafkaConfig {
        &self.broker.config
    }

    fn welcome(
        &self,
        socket: TcpStream,
        connections: &mut JoinSet<()>,
        places: &Arc<Semaphore>,
        stopping: &watch::Receiver<bool>,
    ) {
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("kafka: too many connections, one was refused");
            return;
        };
        let broker = self.broker.clone();
        let stopping = stopping.clone();
        connections.spawn(async move {
            connection::serve(broker, socket, stopping).await;
            drop(place);
        });
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "kafka: a connection failed");
    }
}
