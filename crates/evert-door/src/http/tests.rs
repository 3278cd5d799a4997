//! The door over real sockets, before a server that is made up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use evert_model::{Offset, PartitionId, Position, PositionToken};
use evert_view::{
    CatalogError, Cut, Name, PastError, PastFolds, PinError, SubscribeFrom, Subscription,
    ViewState, ViewStatus,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{HttpDoor, Observed, PartitionFacts, ReachError, TopicFacts};
use crate::pg;

struct MadeUp {
    replayed: Arc<AtomicBool>,
}

#[async_trait]
impl Observed for MadeUp {
    fn queries_coalesced(&self) -> u64 {
        3
    }

    fn past_folds(&self) -> PastFolds {
        PastFolds { from_checkpoint: 2, from_beginning: 1 }
    }

    async fn subscribe(&self, name: Name, _: SubscribeFrom) -> Result<Subscription, PastError> {
        Err(PinError::Unknown(name).into())
    }

    async fn reach(&self, token: &PositionToken, _: Duration) -> Result<Position, ReachError> {
        match token {
            PositionToken::Position(position) if position.get() <= 41 => Ok(*position),
            PositionToken::Position(wanted) => {
                let (wanted, reached) = (*wanted, self.position());
                Err(PinError::Timeout { wanted, reached }.into())
            }
            _ => Err(CatalogError::Unknown(Name::public("shop")).into()),
        }
    }

    async fn pin(&self, name: &Name, _: Position, _: Duration) -> Result<Arc<Cut>, PinError> {
        Err(PinError::Unknown(name.clone()))
    }

    fn session(&self) -> Box<dyn pg::Session> {
        Box::new(NoStatements)
    }

    fn position(&self) -> Position {
        Position::new(41)
    }

    fn log_end(&self) -> Position {
        Position::new(42)
    }

    fn replay_state(&self) -> ViewState {
        if self.replayed.load(Ordering::SeqCst) {
            return ViewState::Live;
        }
        ViewState::Rebuilding { percent: 43, eta: Some(Duration::from_secs(12)) }
    }

    fn views(&self) -> Vec<ViewStatus> {
        vec![ViewStatus {
            name: Name::public("to\"tals"),
            outlet: None,
            state: self.replay_state(),
            progress: None,
            position: Position::new(40),
            lag_records: 7,
            lag_ms: 250,
            rows: 3,
            memory_bytes: 4096,
        }]
    }

    fn topics(&self) -> Vec<TopicFacts> {
        let partition = PartitionFacts {
            partition: PartitionId::new(0),
            log_start: Offset::new(5),
            high_watermark: Offset::new(9),
        };
        vec![TopicFacts { name: "payments".into(), partitions: vec![partition] }]
    }
}

/// Understands nothing.
struct NoStatements;

#[async_trait]
impl pg::Session for NoStatements {
    fn idle_in_transaction_max(&self) -> Option<Duration> {
        None
    }

    fn parse(&mut self, sql: &str) -> Result<Vec<pg::Statement>, pg::SqlError> {
        Err(pg::SqlError::new("42601", format!("syntax error at \"{sql}\"")))
    }

    async fn describe(
        &mut self,
        _: &pg::Statement,
        _: &[Option<DataType>],
    ) -> Result<pg::Description, pg::SqlError> {
        Err(pg::SqlError::new("XX000", "there is no statement"))
    }

    async fn execute(
        &mut self,
        _: &pg::Statement,
        _: &[ArrayRef],
    ) -> Result<pg::Response, pg::SqlError> {
        Err(pg::SqlError::new("XX000", "there is no statement"))
    }

    async fn copy_data(&mut self, _: &[u8]) -> Result<(), pg::SqlError> {
        Err(pg::SqlError::new("XX000", "there is no COPY"))
    }

    async fn copy_end(&mut self) -> Result<String, pg::SqlError> {
        Err(pg::SqlError::new("XX000", "there is no COPY"))
    }

    fn copy_abandon(&mut self) {}

    fn transaction_status(&self) -> pg::TransactionStatus {
        pg::TransactionStatus::Idle
    }

    fn fail_transaction(&mut self) {}

    fn cancel_handle(&self) -> pg::CancelHandle {
        Arc::new(|| {})
    }

    fn parameters(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn take_notices(&mut self) -> Vec<String> {
        Vec::new()
    }
}

struct TestDoor {
    address: SocketAddr,
    replayed: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

async fn open() -> TestDoor {
    let replayed = Arc::new(AtomicBool::new(true));
    let server = MadeUp { replayed: replayed.clone() };
    let door = HttpDoor::bind("127.0.0.1:0", server).await.expect("binds");
    let address = door.local_addr().expect("bound");
    let (stop, stopped) = watch::channel(false);
    TestDoor { address, replayed, stop, serving: tokio::spawn(door.serve(stopped)) }
}

impl TestDoor {
    /// Status line and headers, and the body.
    async fn ask(&self, method: &str, path: &str) -> (String, String) {
        self.ask_with(method, path, "", "").await
    }

    /// The same with more headers, each with its line's end, and a body.
    async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (String, String) {
        let mut socket = TcpStream::connect(self.address).await.expect("connects");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.ask("GET", path).await.1).expect("JSON")
    }
}

#[tokio::test]
async fn health_and_readiness() {
    let door = open().await;
    assert!(door.ask("GET", "/healthz").await.0.starts_with("HTTP/1.1 200"));
    assert!(door.ask("GET", "/readyz").await.0.starts_with("HTTP/1.1 200"));
    door.replayed.store(false, Ordering::SeqCst);
    let (head, body) = door.ask("GET", "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(head.to_lowercase().contains("evert-position: 41"), "{head}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["replay"], json!({ "percent": 43, "eta_seconds": 12 }));
    assert_eq!(body["views"][0]["state"], "rebuilding 43% eta 12s");
    assert!(door.ask("GET", "/healthz").await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn lists_and_errors_are_json() {
    let door = open().await;
    assert_eq!(door.json("/").await["name"], "evert");
    let topics = json!([{
        "name": "payments",
        "partitions": [{ "partition": 0, "log_start": 5, "high_watermark": 9 }],
    }]);
    assert_eq!(door.json("/api/topics").await, topics);
    assert_eq!(door.json("/api/views").await[0]["lag_records"], 7);
    assert_eq!(door.json("/nowhere").await, json!({ "error": "there is nothing at /nowhere" }));
    let (head, body) = door.ask("DELETE", "/api/views").await;
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    assert!(body.contains("DELETE is not for /api/views"), "{body}");
}

#[tokio::test]
async fn changes_that_cannot_be_followed_are_refused_in_json() {
    let door = open().await;
    let (head, body) = door.ask("GET", "/api/views/shop.nothing/changes").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert_eq!(body, "{\"error\":\"\\\"shop.nothing\\\" does not exist\"}");
    let (head, body) = door.ask("GET", "/api/views/v/changes?before=1").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert!(body.contains("before"), "{body}");
}

#[tokio::test]
async fn a_position_is_waited_for_on_request() {
    let door = open().await;
    let after = |position: &str| format!("Evert-After: {position}\r\n");
    let (head, _) = door.ask_with("GET", "/api/views", &after("41"), "").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (head, body) = door.ask_with("GET", "/api/views", &after("42"), "").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(body.contains("position 42 was not reached in time"), "{body}");
    for bad in ["soon", "shop:0/1"] {
        let (head, body) = door.ask_with("GET", "/api/topics", &after(bad), "").await;
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        assert!(body.contains("\"error\""), "{body}");
    }
}

#[tokio::test]
async fn rows_and_statements_that_are_not_there_are_refused_in_json() {
    let door = open().await;
    for path in ["/api/views/nothing", "/api/views/shop.nothing/a%3Ab"] {
        let (head, body) = door.ask("GET", path).await;
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
        assert!(body.contains("does not exist"), "{body}");
    }
    let (head, _) = door.ask("GET", "/api/views/v?limit=0").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let (head, body) = door.ask_with("POST", "/api/sql", "", "SELEC").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["sqlstate"], "42601");
    assert_eq!(body["error"], "syntax error at \"SELEC\"");
    let json = "Content-Type: application/json\r\n";
    let (_, body) = door.ask_with("POST", "/api/sql", json, "{\"sql\":\"X\"}").await;
    assert!(body.contains("syntax error at \\\"X\\\""), "{body}");
    let (head, _) = door.ask_with("POST", "/api/sql", json, "{}").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
}

#[tokio::test]
async fn metrics_in_prometheus_words() {
    let door = open().await;
    let (_, page) = door.ask("GET", "/metrics").await;
    for line in [
        "evert_log_end_position 42",
        "evert_ready 1",
        "evert_queries_coalesced_total 3",
        "evert_past_folds_total{from=\"checkpoint\"} 2",
        "evert_partition_high_watermark{topic=\"payments\",partition=\"0\"} 9",
        "evert_view_lag_ms{view=\"to\\\"tals\"} 250",
        "evert_view_state{view=\"to\\\"tals\",state=\"live\"} 1",
        "evert_view_state{view=\"to\\\"tals\",state=\"failed\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    let number = |name: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse().expect("a number")
    };
    assert!(number("process_resident_memory_bytes ") > 1e6);
    assert!(number("process_cpu_seconds_total ") >= 0.0);
}

#[tokio::test]
async fn garbage_is_refused_and_stopping_is_quick() {
    let door = open().await;
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"\xff\xff\xff\xff\xff\xff\r\n\r\n", b"GET / HT"]
    {
        let mut socket = TcpStream::connect(door.address).await.expect("connects");
        socket.write_all(garbage).await.expect("writes");
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
    }
    assert!(door.ask("GET", "/healthz").await.0.starts_with("HTTP/1.1 200"));
    // A request that never ends does not keep the door from closing.
    let mut half = TcpStream::connect(door.address).await.expect("connects");
    half.write_all(b"GET / HTTP/1.1\r\n").await.expect("writes");
    door.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(6), door.serving).await.expect("ends").expect("ends");
}
