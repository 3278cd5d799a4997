//! Batches in and out.

use std::time::{Duration, Instant};

use evert_model::{BatchBuilder, Compression};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest};

use crate::client::{PATIENCE, Server};
use crate::expect;
use crate::requests::{
    batch, batch_with, create, damaged, fetch, idempotent, offset_at, produce, text, values_of,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_is_fetched() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    assert_eq!(client.produce("t", batch(&["a", "b"])).await.base_offset, 0);
    assert_eq!(client.produce("t", batch(&["c", "d", "e"])).await.base_offset, 2);
    let all = client.values("t", 0).await;
    let values: Vec<&str> = all.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["a", "b", "c", "d", "e"]);
    // An offset inside a batch gives the whole batch.
    assert_eq!(client.values("t", 3).await.first(), Some(&(2, "c".to_owned())));
    assert_eq!(client.values("t", 5).await, []);
    let beyond = expect!(Fetch, client.ask(ApiKey::Fetch, 12, fetch("t", 6)).await);
    let code = ResponseError::OffsetOutOfRange.code();
    assert_eq!(beyond.responses[0].partitions[0].error_code, code);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_passes_through() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    use Compression::{Gzip, Lz4, None, Snappy, Zstd};
    for codec in [None, Gzip, Snappy, Lz4, Zstd] {
        let sent = batch_with(&["x", "y"], BatchBuilder::new(codec));
        assert_eq!(client.produce("t", sent).await.error_code, 0, "{codec:?}");
    }
    assert_eq!(client.values("t", 0).await.len(), 10);
    // A client too old to know zstd is told so, in either direction.
    let zstd = batch_with(&["x"], BatchBuilder::new(Zstd));
    let refused = expect!(Produce, client.ask(ApiKey::Produce, 6, produce("t", zstd)).await);
    let code = ResponseError::UnsupportedCompressionType.code();
    assert_eq!(refused.responses[0].partition_responses[0].error_code, code);
    let refused = expect!(Fetch, client.ask(ApiKey::Fetch, 9, fetch("t", 0)).await);
    assert_eq!(refused.responses[0].partitions[0].error_code, code);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_batches_are_refused_and_leave_nothing() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let good = batch(&["a"]);
    let two = [good.clone(), good.clone()].concat().into();
    let old = {
        let mut bytes = good.to_vec();
        bytes[16] = 1;
        bytes.into()
    };
    let large = batch(&[&"x".repeat(2 << 20)]);
    for (records, error) in [
        (damaged(&good), ResponseError::CorruptMessage),
        (good.slice(..good.len() - 1), ResponseError::CorruptMessage),
        (two, ResponseError::InvalidRecord),
        (old, ResponseError::UnsupportedForMessageFormat),
        (Default::default(), ResponseError::InvalidRecord),
        (large, ResponseError::MessageTooLarge),
    ] {
        let refused = client.produce("t", records).await;
        assert_eq!((refused.error_code, refused.base_offset), (error.code(), -1), "{error:?}");
        assert!(refused.error_message.is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(client.values("t", 0).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_succeed_and_fail_by_themselves() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let mut request = produce("t", batch(&["a"]));
    request.topic_data[0]
        .partition_data
        .push(PartitionProduceData::default().with_index(9).with_records(Some(batch(&["lost"]))));
    request.topic_data.push(produce("nowhere", batch(&["lost"])).topic_data.remove(0));
    let produced = expect!(Produce, client.ask(ApiKey::Produce, 12, request).await);
    let codes: Vec<i16> = produced
        .responses
        .iter()
        .flat_map(|topic| topic.partition_responses.iter().map(|part| part.error_code))
        .collect();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(codes, [0, unknown, unknown]);
    assert_eq!(client.values("t", 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_produce_without_acks_gets_no_answer() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    client.send(ApiKey::Produce, 9, produce("t", batch(&["a"])).with_acks(0)).await;
    assert_eq!(client.values("t", 0).await.len(), 1, "the next answer is the fetch's");
    client.send(ApiKey::Produce, 9, produce("t", damaged(&batch(&["b"]))).with_acks(0)).await;
    assert_eq!(client.read_raw().await, None, "hanging up is the only way to say that it failed");
    let mut client = server.client().await;
    let odd = produce("t", batch(&["c"])).with_acks(2);
    let refused = expect!(Produce, client.ask(ApiKey::Produce, 9, odd).await);
    let code = ResponseError::InvalidRequiredAcks.code();
    assert_eq!(refused.responses[0].partition_responses[0].error_code, code);
    assert_eq!(client.values("t", 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_is_acknowledged_and_kept_once() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let init = InitProducerIdRequest::default().with_transactional_id(None);
    let given = expect!(InitProducerId, client.ask(ApiKey::InitProducerId, 4, init).await);
    assert_eq!(given.error_code, 0);
    let (id, epoch) = (given.producer_id.0, given.producer_epoch);
    assert_eq!(client.produce("t", idempotent(&["a", "b"], id, epoch, 0)).await.base_offset, 0);
    assert_eq!(client.produce("t", idempotent(&["c"], id, epoch, 2)).await.base_offset, 2);
    let again = client.produce("t", idempotent(&["c"], id, epoch, 2)).await;
    assert_eq!((again.error_code, again.base_offset), (0, 2));
    let gap = client.produce("t", idempotent(&["e"], id, epoch, 9)).await;
    assert_eq!(gap.error_code, ResponseError::OutOfOrderSequenceNumber.code());
    assert_eq!(client.values("t", 0).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_may_keep_the_logs_time() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut new = create("t", 1);
    new.topics[0].configs = vec![
        CreatableTopicConfig::default()
            .with_name(text("message.timestamp.type"))
            .with_value(Some(text("LogAppendTime"))),
    ];
    expect!(CreateTopics, client.ask(ApiKey::CreateTopics, 7, new).await);
    let given = client.produce("t", batch(&["a"])).await.log_append_time_ms;
    assert!(given > 1_600_000_000_000, "{given} is today");
    let found = client.ask(ApiKey::ListOffsets, 8, offset_at("t", -3)).await;
    assert_eq!(expect!(ListOffsets, found).topics[0].partitions[0].timestamp, given);
    client.create("own").await;
    assert_eq!(client.produce("own", batch(&["a"])).await.log_append_time_ms, -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_refused_clearly() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let id = kafka_protocol::messages::TransactionalId("pay".to_owned().into());
    let init = InitProducerIdRequest::default().with_transactional_id(Some(id));
    let refused = expect!(InitProducerId, client.ask(ApiKey::InitProducerId, 4, init).await);
    assert_eq!(refused.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());
    assert_eq!(refused.producer_id.0, -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_what_is_not_there_yet() {
    let server = Server::start().await;
    let mut reader = server.client().await;
    reader.create("t").await;
    let waiting = fetch("t", 0).with_max_wait_ms(15_000);
    let sent = reader.send(ApiKey::Fetch, 12, waiting).await;
    let early = tokio::time::timeout(Duration::from_millis(200), reader.read_raw()).await;
    assert!(early.is_err(), "there is nothing to answer with");

    // Other connections are served meanwhile, and other topics do not end the wait.
    let mut writer = server.client().await;
    writer.create("other").await;
    writer.produce("other", batch(&["x"])).await;
    let early = tokio::time::timeout(Duration::from_millis(200), reader.read_raw()).await;
    assert!(early.is_err(), "nothing came to this topic");
    let start = Instant::now();
    writer.produce("t", batch(&["a"])).await;
    let fetched = expect!(Fetch, reader.read(sent).await);
    assert!(start.elapsed() < Duration::from_secs(5), "the produce ended the wait");
    let records = fetched.responses[0].partitions[0].records.clone();
    assert_eq!(values_of(records.unwrap_or_default()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_enough_bytes_but_not_for_ever() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    client.produce("t", batch(&["a"])).await;
    let start = Instant::now();
    let wanting = fetch("t", 0).with_min_bytes(1 << 20).with_max_wait_ms(400);
    let fetched = expect!(Fetch, client.ask(ApiKey::Fetch, 12, wanting).await);
    assert!(start.elapsed() >= Duration::from_millis(400));
    let records = fetched.responses[0].partitions[0].records.clone();
    assert_eq!(values_of(records.unwrap_or_default()).len(), 1, "what there is comes anyway");
    // An error does not wait.
    let start = Instant::now();
    let wrong = fetch("nowhere", 0).with_max_wait_ms(10_000);
    let failed = expect!(Fetch, client.ask(ApiKey::Fetch, 12, wrong).await);
    assert!(start.elapsed() < Duration::from_secs(5));
    let code = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(failed.responses[0].partitions[0].error_code, code);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_but_for_the_first_batch() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    client.create("u").await;
    let value = "x".repeat(10_000);
    for name in ["t", "u"] {
        for _ in 0..3 {
            client.produce(name, batch(&[&value])).await;
        }
    }
    let mut small = fetch("t", 0);
    small.topics[0].partitions[0].partition_max_bytes = 1;
    small.topics.push(fetch("u", 0).topics.remove(0));
    small.topics[1].partitions[0].partition_max_bytes = 25_000;
    let fetched = expect!(Fetch, client.ask(ApiKey::Fetch, 12, small.clone()).await);
    let counts = |fetched: kafka_protocol::messages::FetchResponse| -> Vec<usize> {
        let parts = fetched.responses.into_iter().map(|mut topic| topic.partitions.remove(0));
        parts.map(|part| values_of(part.records.unwrap_or_default()).len()).collect()
    };
    assert_eq!(counts(fetched), [1, 2], "progress for the first, the limit for the second");
    let fetched = expect!(Fetch, client.ask(ApiKey::Fetch, 12, small.with_max_bytes(1)).await);
    assert_eq!(counts(fetched), [1, 0], "one batch in all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_session_is_never_kept() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let begin = fetch("t", 0).with_session_epoch(0);
    let full = expect!(Fetch, client.ask(ApiKey::Fetch, 12, begin).await);
    assert_eq!((full.session_id, full.responses.len()), (0, 1));
    let resume = fetch("t", 0).with_session_id(5).with_session_epoch(1);
    let unknown = expect!(Fetch, client.ask(ApiKey::Fetch, 12, resume).await);
    assert_eq!(unknown.error_code, ResponseError::FetchSessionIdNotFound.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_name_and_by_time() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let mut ask = async |timestamp| {
        let found = expect!(
            ListOffsets,
            client.ask(ApiKey::ListOffsets, 8, offset_at("t", timestamp)).await
        );
        let part = found.topics[0].partitions[0].clone();
        (part.error_code, part.offset, part.timestamp)
    };
    assert_eq!(ask(-1).await, (0, 0, -1));
    assert_eq!(ask(-3).await, (0, -1, -1));
    let mut writer = server.client().await;
    writer.produce("t", batch(&["a", "b", "c"])).await;
    assert_eq!(ask(-1).await, (0, 3, -1));
    assert_eq!(ask(-2).await, (0, 0, -1));
    assert_eq!(ask(-3).await, (0, 2, 1002));
    assert_eq!(ask(0).await, (0, 0, 1000));
    assert_eq!(ask(1001).await, (0, 1, 1001), "exact, inside a batch");
    assert_eq!(ask(1003).await, (0, -1, -1));
    assert_eq!(ask(-9).await.0, ResponseError::UnsupportedVersion.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    for i in 0..20 {
        client.produce("t", batch(&[&i.to_string()])).await;
    }
    drop(client);
    let server = tokio::time::timeout(PATIENCE, server.restart()).await.expect("a restart");
    let mut client = server.client().await;
    assert_eq!(client.values("t", 0).await.len(), 20);
    assert_eq!(client.produce("t", batch(&["next"])).await.base_offset, 20);
}
