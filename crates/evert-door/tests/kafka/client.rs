//! A server in this process, and a client that says exactly what it is told to.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use evert_door::kafka::{KafkaConfig, KafkaDoor, TopicUse};
use evert_env::Env;
use evert_log::{Log, LogConfig};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A relation "shop.orders" stands on the topic "orders-of-a-relation".
struct OneRelation;

impl TopicUse for OneRelation {
    fn relation_on(&self, topic: &str) -> Option<String> {
        (topic == "orders-of-a-relation").then(|| "shop.orders".to_owned())
    }
}

/// A log and a door to it.
pub struct Server {
    dir: TempDir,
    log: Log,
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(KafkaConfig::default()).await
    }

    pub async fn start_with(config: KafkaConfig) -> Self {
        Self::open(tempfile::tempdir().expect("a directory"), config).await
    }

    async fn open(dir: TempDir, mut config: KafkaConfig) -> Self {
        config.group_initial_delay = Duration::from_millis(50);
        let path = dir.path().to_owned();
        let open = move || Log::open(Env::real(), path, LogConfig::default());
        let opened = tokio::task::spawn_blocking(open).await.expect("no panic");
        let log = opened.expect("the log opens");
        let door = KafkaDoor::bind("127.0.0.1:0", log.clone(), Arc::new(OneRelation), config);
        let door = door.await.expect("the door opens");
        let address = door.local_addr().expect("it listens");
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(door.serve(stopping));
        Self { dir, log, address, stop, serving }
    }

    /// Stops the server in good order and starts it on the same data.
    pub async fn restart(self) -> Self {
        self.stop.send_replace(true);
        self.serving.await.expect("the door stops");
        let log = self.log;
        tokio::task::spawn_blocking(move || log.close()).await.expect("the log closes");
        Self::open(self.dir, KafkaConfig::default()).await
    }

    pub async fn client(&self) -> Client {
        let socket = TcpStream::connect(self.address).await.expect("it listens");
        Client { socket, last_correlation: 0 }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// One connection.
pub struct Client {
    socket: TcpStream,
    last_correlation: i32,
}

/// What a request needs for its answer to be read.
#[derive(Clone, Copy)]
pub struct Sent {
    api: ApiKey,
    version: i16,
    correlation: i32,
}

impl Client {
    /// Sends a request and reads its answer.
    pub async fn ask(
        &mut self,
        api: ApiKey,
        version: i16,
        request: impl Into<RequestKind>,
    ) -> ResponseKind {
        let sent = self.send(api, version, request).await;
        self.read(sent).await
    }

    pub async fn send(
        &mut self,
        api: ApiKey,
        version: i16,
        request: impl Into<RequestKind>,
    ) -> Sent {
        self.last_correlation += 1;
        let correlation = self.last_correlation;
        let mut body = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(StrBytes::from_static_str("test")))
            .encode(&mut body, api.request_header_version(version))
            .expect("the header is whole");
        request.into().encode(&mut body, version).expect("the request fits its version");
        let mut frame = BytesMut::with_capacity(body.len() + 4);
        frame.put_i32(body.len() as i32);
        frame.put_slice(&body);
        self.send_raw(&frame).await;
        Sent { api, version, correlation }
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("the server reads");
    }

    /// Reads the answer that must come next.
    pub async fn read(&mut self, sent: Sent) -> ResponseKind {
        let mut frame = self.read_raw().await.expect("an answer, not a hang-up");
        let Sent { api, version, correlation } = sent;
        let header = ResponseHeader::decode(&mut frame, api.response_header_version(version));
        assert_eq!(header.expect("a header").correlation_id, correlation, "{api:?}");
        let response = ResponseKind::decode(api, &mut frame, version)
            .unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
        assert!(!frame.has_remaining(), "{api:?} {version}: bytes follow the answer");
        response
    }

    /// The next frame, or `None` if the server hung up.
    pub async fn read_raw(&mut self) -> Option<Bytes> {
        let read = async {
            let len = match self.socket.read_i32().await {
                Ok(len) => usize::try_from(len).expect("a length"),
                Err(_) => return None,
            };
            let mut frame = vec![0; len];
            self.socket.read_exact(&mut frame).await.expect("a whole frame");
            Some(Bytes::from(frame))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time")
    }
}

/// Takes the one kind of response that a request can have.
#[macro_export]
macro_rules! expect {
    ($kind:ident, $response:expr) => {
        match $response {
            kafka_protocol::messages::ResponseKind::$kind(response) => response,
            other => panic!("{other:?}"),
        }
    };
}
