//! The order of answers, and clients that misbehave.

use std::time::Duration;

use evert_door::kafka::KafkaConfig;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use tokio::io::AsyncWriteExt;

use crate::client::Server;
use crate::expect;
use crate::requests::{batch, fetch, metadata, produce, values_of};

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_requests() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let mut sent = Vec::new();
    for i in 0..100 {
        let records = batch(&[&i.to_string()]);
        sent.push(client.send(ApiKey::Produce, 9, produce("t", records)).await);
        if i % 10 == 9 {
            sent.push(client.send(ApiKey::Fetch, 12, fetch("t", i)).await);
            sent.push(client.send(ApiKey::Metadata, 9, metadata("t")).await);
        }
    }
    let mut produced = 0;
    for sent in sent {
        match client.read(sent).await {
            kafka_protocol::messages::ResponseKind::Produce(answer) => {
                assert_eq!(answer.responses[0].partition_responses[0].base_offset, produced);
                produced += 1;
            }
            kafka_protocol::messages::ResponseKind::Fetch(answer) => {
                let records = answer.responses[0].partitions[0].records.clone();
                let seen = values_of(records.unwrap_or_default());
                assert_eq!(seen[0].0, produced - 1, "it sees the produce before it");
            }
            _ => {}
        }
    }
    assert_eq!(produced, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_requests_end_their_connection_and_no_other() {
    let server = Server::start().await;
    let mut good = server.client().await;
    good.create("t").await;
    let hostile: [&[u8]; 6] = [
        &i32::MAX.to_be_bytes(),
        &(-1i32).to_be_bytes(),
        b"\0\0\0\x03abc",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        // Metadata for two thousand million topics.
        b"\0\0\0\x0e\0\x03\0\x01\0\0\0\0\xff\xff\x7f\xff\xff\xff",
        // An API that is not served.
        b"\0\0\0\x0a\0\x07\0\0\0\0\0\0\xff\xff",
    ];
    for bytes in hostile {
        let mut bad = server.client().await;
        bad.send_raw(bytes).await;
        assert_eq!(bad.read_raw().await, None, "{bytes:?}");
    }
    assert_eq!(good.produce("t", batch(&["still here"])).await.error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_never_kills_the_server() {
    let server = Server::start().await;
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let mut bad = server.client().await;
        let len = random.usize(1..300);
        let mut frame = (len as i32).to_be_bytes().to_vec();
        frame.extend([0, random.u8(..70), 0, random.u8(..13)]);
        frame.extend(std::iter::repeat_with(|| random.u8(..)).take(len));
        bad.send_raw(&frame).await;
    }
    let mut good = server.client().await;
    good.create("t").await;
    assert_eq!(good.produce("t", batch(&["still here"])).await.error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_come_byte_by_byte() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for byte in b"\0\0\0\x0a\0\x12\0\0\0\0\0\x07\xff\xff" {
        client.send_raw(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = client.read_raw().await.expect("an answer");
    assert_eq!(answer[..6], [0, 0, 0, 7, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sent_before_it_hung_up_counts() {
    let server = Server::start().await;
    let mut reader = server.client().await;
    reader.create("t").await;
    {
        let mut writer = server.client().await;
        for _ in 0..50 {
            writer.send(ApiKey::Produce, 9, produce("t", batch(&["a"])).with_acks(0)).await;
        }
    }
    let wanting = fetch("t", 49).with_max_wait_ms(10_000);
    let mut last = 0;
    for _ in 0..100 {
        let fetched = expect!(Fetch, reader.ask(ApiKey::Fetch, 12, wanting.clone()).await);
        last = fetched.responses[0].partitions[0].high_watermark;
        if last >= 50 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(last, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_hung_up_on() {
    let config = KafkaConfig { idle_max: Duration::from_millis(200), ..KafkaConfig::default() };
    let server = Server::start_with(config).await;
    let mut client = server.client().await;
    assert_eq!(client.read_raw().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_places() {
    let config = KafkaConfig { connections_max: 2, ..KafkaConfig::default() };
    let server = Server::start_with(config).await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    let versions = ApiVersionsRequest::default;
    first.ask(ApiKey::ApiVersions, 0, versions()).await;
    second.ask(ApiKey::ApiVersions, 0, versions()).await;
    let mut third = server.client().await;
    assert_eq!(third.read_raw().await, None);
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.client().await.ask(ApiKey::ApiVersions, 0, versions()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_long_polls_and_answers_them() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let waiting = fetch("t", 0).with_max_wait_ms(30_000);
    let sent = client.send(ApiKey::Fetch, 12, waiting).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop();
    expect!(Fetch, client.read(sent).await);
    assert_eq!(client.read_raw().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_holds_up_nobody() {
    let server = Server::start().await;
    let mut stalled = server.client().await;
    stalled.create("t").await;
    let value = "x".repeat(900_000);
    for _ in 0..8 {
        stalled.produce("t", batch(&[&value])).await;
    }
    // It asks for far more than the sockets between can hold, and never reads.
    for _ in 0..64 {
        let much = fetch("t", 0).with_max_bytes(16 << 20);
        stalled.send(ApiKey::Fetch, 12, much).await;
    }
    let mut good = server.client().await;
    for _ in 0..20 {
        assert_eq!(good.produce("t", batch(&["a"])).await.error_code, 0);
    }
    drop(stalled);
    assert_eq!(good.produce("t", batch(&["b"])).await.error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_waited_for() {
    let server = Server::start().await;
    let mut socket =
        tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.expect("it listens");
    socket.write_all(b"\0\0\x10\0half").await.expect("it reads");
    let mut good = server.client().await;
    good.create("t").await;
    assert_eq!(good.produce("t", batch(&["a"])).await.error_code, 0);
}
