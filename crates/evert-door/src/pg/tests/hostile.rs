//! Clients that mean harm, or do it: the server stays up and small.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::TestDoor;
use crate::pg::PgConfig;

const STARTUP: &[u8] = b"\0\0\0\x1f\0\x03\0\0user\0me\0database\0test\0\0";
/// A session that runs one statement, to see that the server is up.
const QUERY: &[u8] = b"Q\0\0\0\x0bINSERT\0";

async fn connected(door: &TestDoor) -> TcpStream {
    TcpStream::connect(door.address).await.expect("connects")
}

async fn started(door: &TestDoor) -> TcpStream {
    let mut socket = connected(door).await;
    socket.write_all(STARTUP).await.expect("writes");
    read_until(&mut socket, b"Z\0\0\0\x05I").await;
    socket
}

async fn read_until(socket: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let read = async {
        while !seen.ends_with(end) {
            seen.push(socket.read_u8().await.expect("the server answers"));
        }
    };
    let whole = timeout(Duration::from_secs(5), read).await.is_ok();
    assert!(whole, "saw {:?}", String::from_utf8_lossy(&seen));
    seen
}

/// What the server says before it closes the connection, which it must do soon.
async fn last_words(mut socket: TcpStream) -> String {
    let mut words = Vec::new();
    // A reset is a way to close, too.
    let _ = timeout(Duration::from_secs(5), socket.read_to_end(&mut words)).await.expect("closes");
    String::from_utf8_lossy(&words).into_owned()
}

async fn assert_up(door: &TestDoor) {
    let mut socket = started(door).await;
    socket.write_all(QUERY).await.expect("writes");
    read_until(&mut socket, b"Z\0\0\0\x05I").await;
}

#[tokio::test]
async fn lengths_that_lie_close_the_connection() {
    let door = TestDoor::open().await;
    for length in [i32::MAX, -1, i32::MIN, 0, 7, 10_001] {
        let mut socket = connected(&door).await;
        socket.write_all(&length.to_be_bytes()).await.expect("writes");
        assert!(last_words(socket).await.contains("FATAL"), "{length}");
    }
    for length in [i32::MAX, -1, 0, 3, (64 << 20) + 1] {
        let mut socket = started(&door).await;
        socket.write_all(b"Q").await.expect("writes");
        socket.write_all(&length.to_be_bytes()).await.expect("writes");
        assert!(last_words(socket).await.contains("08P01"), "{length}");
    }
    assert_up(&door).await;
}

#[tokio::test]
async fn other_protocols_are_turned_away() {
    let door = TestDoor::open().await;
    for opening in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"*1\r\n$4\r\n"]
    {
        let mut socket = connected(&door).await;
        socket.write_all(opening).await.expect("writes");
        assert!(last_words(socket).await.contains("08P01"));
    }
    assert_up(&door).await;
}

#[tokio::test]
async fn malformed_bodies_end_in_an_error_and_the_session_goes_on() {
    let door = TestDoor::open().await;
    let mut socket = started(&door).await;
    // A Query without its terminator: an error at once.
    socket.write_all(b"Q\0\0\0\x05x").await.expect("writes");
    let answer = read_until(&mut socket, b"Z\0\0\0\x05I").await;
    assert!(String::from_utf8_lossy(&answer).contains("invalid message format"));
    // A Bind that promises 65535 parameters: everything up to Sync is skipped.
    socket.write_all(b"B\0\0\0\x0a\0\0\0\0\xff\xff").await.expect("writes");
    socket.write_all(QUERY).await.expect("writes");
    socket.write_all(b"S\0\0\0\x04").await.expect("writes");
    let answer = read_until(&mut socket, b"Z\0\0\0\x05I").await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("08P01") && !answer.contains("INSERT"), "{answer}");
    socket.write_all(QUERY).await.expect("writes");
    read_until(&mut socket, b"INSERT 0 3\0Z\0\0\0\x05I").await;
}

#[tokio::test]
async fn random_bytes_do_no_harm() {
    let door = TestDoor::open().await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let garbage: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        let mut socket = if round % 2 == 0 { connected(&door).await } else { started(&door).await };
        if round % 4 == 3 {
            // Frames that are whole, with a body of noise.
            let mut frame = vec![b"QPBDECHSF"[random() as usize % 9]];
            frame.extend_from_slice(&(garbage.len() as u32 + 4).to_be_bytes());
            frame.extend_from_slice(&garbage);
            let _ = socket.write_all(&frame).await;
        } else {
            let _ = socket.write_all(&garbage).await;
        }
        let _ = socket.shutdown().await;
        last_words(socket).await;
    }
    assert_up(&door).await;
}

#[tokio::test]
async fn half_a_message_does_not_hold_its_place_for_ever() {
    let config = PgConfig {
        message_time_max: Duration::from_millis(200),
        startup_time_max: Duration::from_millis(200),
        ..PgConfig::default()
    };
    let door = TestDoor::with(config).await;
    let (mut begun, silent) = (started(&door).await, connected(&door).await);
    begun.write_all(b"Q\0\x10\0\0SELECT").await.expect("writes");
    let since = Instant::now();
    assert!(last_words(begun).await.contains("did not arrive whole"));
    assert_eq!(last_words(silent).await, "");
    assert!(since.elapsed() < Duration::from_secs(3));
    // An idle session is no half message.
    let mut idle = started(&door).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    idle.write_all(QUERY).await.expect("writes");
    read_until(&mut idle, b"Z\0\0\0\x05I").await;
}

#[tokio::test]
async fn large_messages_share_a_bound() {
    let config = PgConfig { large_bytes_max: 1 << 20, ..PgConfig::default() };
    let door = TestDoor::with(config).await;
    let (mut first, mut second) = (started(&door).await, started(&door).await);
    let length = (700_u32 << 10).to_be_bytes();
    for socket in [&mut first, &mut second] {
        socket.write_all(b"Q").await.expect("writes");
        socket.write_all(&length).await.expect("writes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(last_words(second).await.contains("53200"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = started(&door).await;
    let mut message = b"Q".to_vec();
    message.extend_from_slice(&length);
    // The statement after spaces that fill the message up to its length.
    message.resize((700 << 10) + 1 - 7, b' ');
    message.extend_from_slice(b"INSERT\0");
    third.write_all(&message).await.expect("writes");
    read_until(&mut third, b"Z\0\0\0\x05I").await;
}

#[tokio::test]
async fn connections_and_statements_are_bounded() {
    let config = PgConfig { connections_max: 2, statements_max: 3, ..PgConfig::default() };
    let door = TestDoor::with(config).await;
    let _first = started(&door).await;
    let second = door.client().await;
    assert!(last_words(connected(&door).await).await.contains("53300"));
    let mut statements = Vec::new();
    for _ in 0..3 {
        statements.push(second.prepare("INSERT").await.expect("prepares"));
    }
    let error = second.prepare("INSERT").await.expect_err("one too many");
    assert_eq!(error.code().map(|code| code.code()), Some("54000"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let config = PgConfig { write_time_max: Duration::from_millis(300), ..PgConfig::default() };
    let door = TestDoor::with(config).await;
    let mut stalled = started(&door).await;
    // 30 million rows take far more than any socket holds.
    stalled.write_all(b"Q\0\0\0\x14SERIES 30000000\0").await.expect("writes");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(read @ 1..) = stalled.read(&mut buffer).await {
        bytes += read;
    }
    assert!(bytes < 200 << 20, "the answer was cut off: {bytes}");
    assert_up(&door).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_statement() {
    let door = TestDoor::open().await;
    let mut leaving = started(&door).await;
    leaving.write_all(b"Q\0\0\0\x0aSLEEP\0").await.expect("writes");
    drop(leaving);
    let until = Instant::now() + Duration::from_secs(5);
    while door.engine.cancelled.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "the statement still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
