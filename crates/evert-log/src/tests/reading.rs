//! Fetch, replay, finding by time and position: memory and disk give the same.

use evert_model::LogTime;

use super::*;

/// A log of several topics, commits over partitions, and large commits.
fn fill(log: &Log) -> (Arc<Topic>, Arc<Topic>) {
    let (a, b) = (topic(log, "a", 2), topic(log, "b", 1));
    for n in 0..60 {
        let mut parts = vec![
            part(&b, 0, batch_at(&format!("b{n}"), 2, n * 10)),
            part(&a, (n % 2) as i32, batch_at(&format!("a{n}"), 1 + n as usize % 3, n * 10)),
        ];
        if n % 7 == 0 {
            parts.push(part(&b, 0, batch_at(&format!("b{n}+"), 1, n * 10 + 5)));
        }
        if n % 20 == 10 {
            let mut large = log.begin_large();
            for k in 0..80 {
                let tag = format!("large{n}-{k:0>40}");
                large.append(part(&a, 1, batch_at(&tag, 1, n * 10))).unwrap();
            }
            large.append(part(&b, 0, batch_at(&format!("also{n}"), 3, n * 10))).unwrap();
            let receipt = large.commit().unwrap();
            log.pump();
            let appended = receipt.wait().unwrap();
            assert_eq!(appended.base_offsets.len(), 81);
        }
        let receipt = log.append(commit(parts)).unwrap();
        if n % 4 == 0 {
            log.pump();
            receipt.wait().unwrap();
        }
    }
    log.pump();
    (a, b)
}

#[test]
fn memory_disk_and_restarts_tell_the_same_story() {
    let worlds = [World::new(), World::new()];
    let (one, two) = (worlds[0].open(lazy()), worlds[1].open(small()));
    let (a, b) = fill(&one);
    let (a2, b2) = fill(&two);
    let told = story(&one, 0);
    assert_eq!(told.len(), 65);
    assert_eq!(told, story(&two, 0));
    let data = |log: &Log, a: &Topic, b: &Topic| {
        [(a.id, 0), (a.id, 1), (b.id, 0)].map(|(id, p)| fetched(log, id, p, 0, 300))
    };
    let values = data(&one, &a, &b);
    assert_eq!(values, data(&two, &a2, &b2));
    for from in [1, 17, 40, 63, 64] {
        assert_eq!(story(&two, from), told[from as usize..]);
    }
    drop((one, two));
    for config in [small(), lazy(), small()] {
        let (one, two) = (worlds[0].open(config.clone()), worlds[1].open(config));
        assert_eq!(told, story(&one, 0));
        assert_eq!(told, story(&two, 0));
        assert_eq!(values, data(&one, &a, &b));
        assert_eq!(values, data(&two, &a2, &b2));
    }
}

#[test]
fn every_offset_is_found_by_position_and_by_time() {
    for config in [lazy(), small()] {
        let world = World::new();
        let log = world.open(config.clone());
        let (a, _) = fill(&log);
        drop(log);
        let log = world.open(config);
        // What replay says is what the two searches must find.
        let (mut expected, mut times) = (Vec::new(), Vec::new());
        let mut replay = log.replay(Position::ZERO).unwrap();
        while let Some(commit) = replay.next().unwrap() {
            let CommitBody::Data(parts) = commit.body else { continue };
            for part in parts {
                if part.topic == a.id && part.partition == PartitionId::new(1) {
                    let payload = part.batch.payload(1 << 20).unwrap();
                    for record in part.batch.records(&payload) {
                        let record = record.unwrap();
                        expected.push(commit.position);
                        times.push((record.offset, record.timestamp));
                    }
                }
            }
        }
        assert!(expected.len() > 240);
        let one = PartitionId::new(1);
        for (offset, position) in expected.iter().enumerate() {
            let offset = Offset::new(offset as i64);
            assert_eq!(log.position_of(a.id, one, offset).unwrap(), Some(*position));
        }
        let end = log.partition_ends(a.id, one).unwrap().high_watermark;
        assert_eq!(log.position_of(a.id, one, end).unwrap(), None);
        for time in -5..620 {
            let time = TimestampMs::new(time);
            let first = times.iter().find(|(_, t)| *t >= time).copied();
            assert_eq!(log.offset_for_timestamp(a.id, one, time).unwrap(), first, "{time}");
        }
    }
}

#[test]
fn fetch_keeps_to_its_bounds() {
    let world = World::new();
    let log = world.open(lazy());
    let topic = topic(&log, "t", 1);
    let zero = PartitionId::new(0);
    for _ in 0..3 {
        put(&log, &topic, 0, batch("x", 10));
    }
    let size = batch("x", 10).bytes().len();
    let fetch = |offset, bytes| log.fetch(topic.id, zero, Offset::new(offset), bytes, true);
    let count = |offset, bytes| fetch(offset, bytes).unwrap().unwrap().batches.len();
    assert_eq!(count(0, 1), 1, "at least one batch");
    assert_eq!(count(5, 2 * size), 2, "the batch that holds the offset");
    assert_eq!(count(0, 2 * size - 1), 1);
    assert_eq!(count(0, 1 << 20), 3);
    assert_eq!(count(30, 1 << 20), 0);
    assert!(matches!(fetch(31, 1), Err(ReadError::OutOfRange { .. })));
    assert!(matches!(fetch(-1, 1), Err(ReadError::OutOfRange { .. })));
    let nine = PartitionId::new(9);
    assert!(matches!(log.partition_ends(topic.id, nine), Err(ReadError::UnknownPartition(_))));
    drop(log);
    // What recovery takes from the journal is in memory once more; the next one finds none.
    drop(world.open(small()));
    let log = world.open(small());
    let got = log.fetch(topic.id, zero, Offset::new(0), 1 << 20, true).unwrap();
    assert!(got.is_none(), "memory holds nothing of it after a restart");
    let got = log.fetch(topic.id, zero, Offset::new(25), 1 << 20, false).unwrap().unwrap();
    assert_eq!(got.batches.len(), 1);
}

#[test]
fn nothing_is_visible_before_it_is_durable() {
    let world = World::new();
    let log = world.open(lazy());
    let config = [("evert.durability", "buffered")];
    let topic = log.create_topic(new_topic("t", 1, &config)).unwrap();
    let zero = PartitionId::new(0);
    let receipt = log.append(commit(vec![part(&topic, 0, batch("x", 1))])).unwrap();
    assert_eq!(receipt.wait().unwrap().position, Position::new(2));
    assert_eq!(log.end(), Position::new(1));
    assert_eq!(log.partition_ends(topic.id, zero).unwrap().high_watermark, Offset::new(0));
    assert_eq!(story(&log, 1), [""; 0]);
    log.pump();
    assert_eq!(story(&log, 1), ["2 t/0@0+1=x"]);
}

#[test]
fn a_replay_at_the_end_goes_on_when_more_comes() {
    let world = World::new();
    let log = world.open(small());
    let topic = topic(&log, "t", 1);
    let mut replay = log.replay(Position::new(1)).unwrap();
    let mut end = log.watch_end();
    for n in 0..50 {
        assert!(replay.next().unwrap().is_none());
        put(&log, &topic, 0, batch(&format!("{n:0>300}"), 1));
        assert!(end.has_changed().unwrap());
        assert_eq!(*end.borrow_and_update(), Position::new(n + 2));
        assert_eq!(replay.next().unwrap().unwrap().position, Position::new(n + 2));
    }
}

#[test]
fn a_large_commit_that_is_dropped_leaves_nothing() {
    let world = World::new();
    let log = world.open(small());
    let topic = topic(&log, "t", 1);
    let before = world.files("segments");
    let mut large = log.begin_large();
    (0..50).for_each(|_| large.append(part(&topic, 0, batch("pending", 20))).unwrap());
    assert!(world.files("segments").len() > before.len());
    log.pump();
    assert_eq!(fetched(&log, topic.id, 0, 0, 100), [""; 0]);
    drop(large);
    assert_eq!(world.files("segments"), before);
    let mut killed = log.begin_large();
    (0..50).for_each(|_| killed.append(part(&topic, 0, batch("pending", 20))).unwrap());
    std::mem::forget(killed);
    put(&log, &topic, 0, batch("kept", 1));
    log.close();
    drop(log);
    let log = world.open(small());
    assert_eq!(fetched(&log, topic.id, 0, 0, 100), ["kept/0"]);
    let copies = |path: &std::path::PathBuf| path.to_str().unwrap().contains("copy");
    assert_eq!(world.files("segments").iter().filter(|path| copies(path)).count(), 0);
}

#[test]
fn sealed_segments_are_searched_by_a_thinner_index() {
    let world = World::new();
    let config = LogConfig { segment_bytes_max: 256 << 10, tail_bytes_max: 64 << 10, ..lazy() };
    let log = world.open(config.clone());
    let topic = topic(&log, "t", 1);
    for n in 0..600 {
        drop(log.append(commit(vec![part(&topic, 0, batch_at(&format!("{n:0>900}"), 1, n))])));
        if n == 400 {
            log.checkpoint().unwrap();
        }
    }
    log.pump();
    let zero = PartitionId::new(0);
    let search = |log: &Log| {
        for n in (0..600).step_by(7) {
            let offset = Offset::new(n);
            let position = Position::new(n as u64 + 2);
            assert_eq!(log.position_of(topic.id, zero, offset).unwrap(), Some(position));
            let time = TimestampMs::new(n);
            let found = log.offset_for_timestamp(topic.id, zero, time).unwrap();
            assert_eq!(found, Some((offset, time)));
            let first = log.fetch(topic.id, zero, offset, 1, false).unwrap().unwrap();
            let first = EncodedBatch::new(first.batches[0].clone()).unwrap();
            assert_eq!(first.header().base_offset, offset);
        }
    };
    search(&log);
    log.checkpoint().unwrap();
    search(&log);
    drop(log);
    search(&world.open(config));
}

#[test]
fn a_time_tick_is_a_commit_with_a_time_and_no_facts() {
    let world = World::new();
    let log = world.open(small());
    let topic = topic(&log, "t", 1);
    let mut ticks = Vec::new();
    for n in 0..200 {
        put(&log, &topic, 0, batch(&format!("v{n}"), 1));
        let receipt = log.append_time_tick().unwrap();
        log.pump();
        let appended = receipt.wait().unwrap();
        assert_eq!(appended.position, log.end());
        ticks.push((appended.position, appended.log_time));
    }
    let replayed = |log: &Log| {
        let mut found = Vec::new();
        let mut replay = log.replay(Position::ZERO).unwrap();
        while let Some(commit) = replay.next().unwrap() {
            if matches!(commit.body, CommitBody::TimeTick) {
                found.push((commit.position, commit.log_time));
            }
        }
        found
    };
    assert!(ticks.is_sorted());
    assert_eq!(replayed(&log), ticks);
    drop(log);
    let log = world.open(small());
    assert_eq!(replayed(&log), ticks, "after a restart");
    assert!(log.now() >= ticks[199].1);
    assert_eq!(fetched(&log, topic.id, 0, 0, 300).len(), 200);
}

#[test]
fn a_time_names_the_last_commit_up_to_it() {
    let world = World::new();
    for filled in [false, true] {
        let log = world.open(small());
        if !filled {
            fill(&log);
        }
        let mut commits = Vec::new();
        let mut replay = log.replay(Position::ZERO).unwrap();
        while let Some(commit) = replay.next().unwrap() {
            commits.push((commit.log_time, commit.position));
        }
        let first = commits[0].0;
        assert_eq!(log.position_at(LogTime::new(first.get() - 1)).unwrap(), None);
        for (time, _) in &commits {
            let last = commits.iter().rfind(|(other, _)| other <= time).unwrap().1;
            assert_eq!(log.position_at(*time).unwrap(), Some(last));
        }
        assert_eq!(log.position_at(LogTime::new(i64::MAX)).unwrap(), Some(log.end()));
    }
}
