//! Topics, what they refuse, producers.

use super::*;

#[test]
fn topics_come_and_go_and_come_back_after_a_restart() {
    let world = World::new();
    let (orders, id) = {
        let log = world.open(lazy());
        let orders = log.create_topic(new_topic("orders", 2, &[("retention.ms", "1000")])).unwrap();
        let gone = topic(&log, "gone", 1);
        put(&log, &gone, 0, batch("lost", 1));
        assert_eq!(log.delete_topic("gone").unwrap(), Position::new(4));
        assert!(log.topic_by_id(gone.id).is_none());
        assert!(matches!(
            log.append(commit(vec![part(&gone, 0, batch("x", 1))])),
            Err(AppendError::UnknownTopic(_))
        ));
        assert!(matches!(
            log.create_topic(new_topic("orders", 1, &[])),
            Err(TopicError::Exists(_))
        ));
        (orders, log.id())
    };
    for config in [lazy(), small(), lazy()] {
        let log = world.open(config);
        assert_eq!(log.id(), id);
        assert_eq!(log.topic("orders"), Some(Arc::clone(&orders)));
        assert_eq!(log.topic("gone"), None);
        assert_eq!(story(&log, 2), ["3", "4 __evert_topics/0@2+1=fact"]);
        assert_eq!(log.end(), Position::new(4));
    }
    let log = world.open(lazy());
    let again = topic(&log, "gone", 1);
    assert_eq!(put(&log, &again, 0, batch("new", 1)).base_offsets, [Offset::new(0)]);
    let names: Vec<_> = log.topics().iter().map(|topic| topic.name.clone()).collect();
    assert_eq!(names, ["__evert_topics", "gone", "orders"]);
}

#[test]
fn deleted_files_go_with_a_checkpoint_and_no_earlier() {
    let world = World::new();
    let log = world.open(small());
    let topic = topic(&log, "t", 1);
    (0..100).for_each(|n| drop(put(&log, &topic, 0, batch(&format!("{n:0>200}"), 1))));
    log.checkpoint().unwrap();
    let of_topic = || {
        let id = topic.id.to_string();
        let files = world.files("segments");
        files.iter().filter(|path| path.to_str().unwrap().contains(&id)).count()
    };
    assert!(of_topic() > 5);
    log.delete_topic("t").unwrap();
    assert!(of_topic() > 5);
    log.checkpoint().unwrap();
    assert_eq!(of_topic(), 0);
    assert_eq!(story(&log, 50).len(), 52);
}

#[test]
fn illegal_topics_and_parts_are_refused() {
    let world = World::new();
    let log = world.open(lazy());
    assert!(matches!(log.create_topic(new_topic("a b", 1, &[])), Err(TopicError::IllegalName(_))));
    assert!(matches!(
        log.create_topic(new_topic("a", 0, &[])),
        Err(TopicError::IllegalPartitions(0))
    ));
    assert!(matches!(
        log.validate_topic(&new_topic("a", 1, &[("no.such", "1")])),
        Err(TopicError::IllegalConfig { .. })
    ));
    assert!(matches!(
        log.delete_topic("__evert_topics"),
        Err(TopicError::Append(AppendError::Reserved(_)))
    ));
    let catalog = log.topic("__evert_topics").unwrap();
    assert!(matches!(
        log.append(commit(vec![part(&catalog, 0, batch("x", 1))])),
        Err(AppendError::Reserved(_))
    ));
    let small = log.create_topic(new_topic("s", 1, &[("max.message.bytes", "200")])).unwrap();
    assert!(matches!(
        log.append(commit(vec![part(&small, 0, batch("x", 100))])),
        Err(AppendError::TooLarge { bytes_max: 200, .. })
    ));
    assert!(matches!(
        log.append(commit(vec![part(&small, 1, batch("x", 1))])),
        Err(AppendError::UnknownPartition { .. })
    ));
    let keyed = log.create_topic(new_topic("c", 1, &[("cleanup.policy", "compact")])).unwrap();
    assert!(matches!(
        log.append(commit(vec![part(&keyed, 0, sequenced(1, 0, 0, 1))])),
        Err(AppendError::KeylessRecord(_))
    ));
    put(&log, &keyed, 0, batch("with a key", 1));
    // One record that claims two billion offsets.
    let mut bytes = batch("x", 1).bytes().to_vec();
    bytes[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    let checksum = crate::entry::crc(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    let greedy = EncodedBatch::new(bytes.into()).unwrap();
    assert!(matches!(
        log.append(commit(vec![part(&small, 0, greedy)])),
        Err(AppendError::Unreadable { .. })
    ));
}

#[test]
fn the_log_stamps_batches_where_a_topic_says_so() {
    let world = World::new();
    let log = world.open(lazy());
    let config = [("message.timestamp.type", "LogAppendTime")];
    let topic = log.create_topic(new_topic("t", 1, &config)).unwrap();
    let appended = put(&log, &topic, 0, batch("x", 3));
    let zero = PartitionId::new(0);
    let found = log.offset_for_timestamp(topic.id, zero, TimestampMs::new(2000)).unwrap().unwrap();
    assert_eq!(found.0, Offset::new(0));
    assert!((found.1.get() - appended.log_time.millis()).abs() < 60_000);
    assert_eq!(fetched(&log, topic.id, 0, 0, 100), ["x/0", "x/1", "x/2"]);
}

#[test]
fn a_repeated_batch_is_acknowledged_with_the_original_and_not_before_it() {
    let world = World::new();
    let log = world.open(lazy());
    let topic = topic(&log, "t", 1);
    let send = |sequence| log.append(commit(vec![part(&topic, 0, sequenced(5, 0, sequence, 2))]));
    let first = send(0).unwrap();
    let mut repeated = Box::pin(send(0).unwrap());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(repeated.as_mut().poll(&mut context).is_pending());
    log.pump();
    let first = first.wait().unwrap();
    assert_eq!(repeated.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(first.clone())));
    assert_eq!(send(0).unwrap().wait(), Ok(first.clone()));
    assert_eq!(send(4).unwrap_err(), AppendError::OutOfOrderSequence { expected: 2, got: 4 });
    drop(send(2).unwrap());
    log.pump();
    drop(log);
    for config in [small(), lazy()] {
        let log = world.open(config);
        let send =
            |sequence| log.append(commit(vec![part(&topic, 0, sequenced(5, 0, sequence, 2))]));
        assert_eq!(send(0).unwrap().wait(), Ok(first.clone()));
        assert_eq!(send(9).unwrap_err(), AppendError::OutOfOrderSequence { expected: 4, got: 9 });
    }
}

#[test]
fn several_sequences_of_a_producer_fit_in_one_commit() {
    let world = World::new();
    let log = world.open(lazy());
    let topic = topic(&log, "t", 2);
    let parts = |sequences: &[i32]| {
        commit(sequences.iter().map(|s| part(&topic, 0, sequenced(5, 0, *s, 2))).collect())
    };
    let receipt = log.append(parts(&[0, 2])).unwrap();
    log.pump();
    let appended = receipt.wait().unwrap();
    assert_eq!(appended.base_offsets, [Offset::new(0), Offset::new(2)]);
    assert_eq!(log.append(parts(&[0, 2])).unwrap().wait().unwrap(), appended);
    assert!(matches!(log.append(parts(&[2, 4])), Err(AppendError::OutOfOrderSequence { .. })));
    assert!(matches!(log.append(parts(&[4, 8])), Err(AppendError::OutOfOrderSequence { .. })));
    drop(log.append(parts(&[4])).unwrap());
}

#[test]
fn producer_ids_are_never_given_twice() {
    let world = World::new();
    let mut given = std::collections::BTreeSet::new();
    for config in [lazy(), small(), lazy()] {
        let log = world.open(config);
        for _ in 0..3 {
            let (id, epoch) = log.new_producer().unwrap();
            assert!(given.insert(id), "{id} again");
            assert_eq!(epoch, ProducerEpoch::new(0));
        }
    }
    assert!(given.last().unwrap().get() < 3000);
}
