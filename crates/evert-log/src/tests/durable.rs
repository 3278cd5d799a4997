//! Recovery, damage, threads. Power loss is simulated in the crate's own test of that name.

use std::os::unix::fs::FileExt;

use super::*;

fn flip(path: &std::path::Path, byte: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut one = [0];
    file.read_exact_at(&mut one, byte).unwrap();
    file.write_all_at(&[one[0] ^ 4], byte).unwrap();
}

/// Where the frames of a journal file that was never recycled begin.
fn frames(path: &std::path::Path) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    (0..bytes.len())
        .step_by(8)
        .filter(|at| bytes[*at..].starts_with(b"EVJ1"))
        .map(|at| at as u64)
        .collect()
}

#[test]
fn a_torn_tail_is_cut_and_what_is_before_it_kept() {
    let world = World::new();
    let log = world.open(lazy());
    let topic = topic(&log, "t", 1);
    (0..3).for_each(|n| drop(put(&log, &topic, 0, batch(&format!("v{n}"), 1))));
    drop(log);
    let journal = world.files("journal").pop().unwrap();
    flip(&journal, frames(&journal).pop().unwrap() + 60);
    let log = world.open(lazy());
    assert_eq!(fetched(&log, topic.id, 0, 0, 100), ["v0/0", "v1/0"]);
    assert_eq!(put(&log, &topic, 0, batch("new", 1)).base_offsets, [Offset::new(2)]);
    drop(log);
    let log = world.open(lazy());
    assert_eq!(fetched(&log, topic.id, 0, 0, 100), ["v0/0", "v1/0", "new/0"]);
}

#[test]
fn damage_below_a_mark_is_named_and_nothing_is_cut() {
    let world = World::new();
    let log = world.open(lazy());
    let topic = topic(&log, "t", 1);
    (0..3).for_each(|n| drop(put(&log, &topic, 0, batch(&format!("v{n}"), 1))));
    drop(log);
    let journal = world.files("journal").pop().unwrap();
    let frames = frames(&journal);
    assert_eq!(frames.len(), 4);
    for (at, frame) in frames[..3].iter().enumerate() {
        for byte in [frame + 9, frame + 30, frame + 60] {
            flip(&journal, byte);
            match world.try_open(lazy()) {
                Err(OpenError::Damaged { path, byte, .. }) => {
                    assert_eq!((path, byte), (journal.clone(), *frame));
                }
                other => panic!("frame {at}: {other:?}"),
            }
            flip(&journal, byte);
        }
    }
    assert_eq!(fetched(&world.open(lazy()), topic.id, 0, 0, 100).len(), 3);
}

#[test]
fn the_idle_mark_covers_the_last_group() {
    let world = World::new();
    let log = world.open(lazy());
    let topic = topic(&log, "t", 1);
    put(&log, &topic, 0, batch("v", 1));
    std::thread::sleep(Duration::from_millis(110));
    log.pump();
    drop(log);
    let journal = world.files("journal").pop().unwrap();
    let frames = frames(&journal);
    flip(&journal, frames[1] + 60);
    assert!(matches!(world.try_open(lazy()), Err(OpenError::Damaged { .. })));
}

#[test]
fn damage_across_journal_files_is_found() {
    let world = World::new();
    let config = LogConfig { journal_file_bytes: 8 << 10, ..lazy() };
    let log = world.open(config.clone());
    let topic = topic(&log, "t", 1);
    (0..20).for_each(|n| drop(put(&log, &topic, 0, batch(&format!("{n:0>1000}"), 1))));
    drop(log);
    let files = world.files("journal");
    assert!(files.len() >= 3);
    let last = frames(&files[0]).pop().unwrap();
    for (path, byte) in [(&files[0], last), (&files[0], last + 60), (&files[1], 60)] {
        flip(path, byte);
        assert!(matches!(world.try_open(config.clone()), Err(OpenError::Damaged { .. })));
        flip(path, byte);
    }
    let hidden = world.path().join("elsewhere");
    std::fs::rename(&files[0], &hidden).unwrap();
    assert!(matches!(world.try_open(config.clone()), Err(OpenError::Damaged { .. })));
    std::fs::rename(&hidden, &files[0]).unwrap();
    assert_eq!(fetched(&world.open(config), topic.id, 0, 0, 100).len(), 20);
}

#[test]
fn damaged_segments_order_and_checkpoint_are_noticed() {
    let world = World::new();
    let log = world.open(small());
    let topic = topic(&log, "t", 1);
    (0..40).for_each(|n| drop(put(&log, &topic, 0, batch(&format!("{n:0>200}"), 1))));
    log.close();
    drop(log);
    let sound = story(&world.open(small()), 0);
    let mut found = 0;
    for kind in ["segments", "order", "."] {
        for path in world.files(kind).into_iter().filter(|path| path.is_file()) {
            let length = path.metadata().unwrap().len();
            for byte in (0..length).step_by(13) {
                flip(&path, byte);
                match world.try_open(small()) {
                    Err(OpenError::Damaged { .. }) => found += 1,
                    Err(other) => panic!("{}: {other}", path.display()),
                    Ok(log) => {
                        let mut replay = log.replay(Position::ZERO).unwrap();
                        let outcome = loop {
                            match replay.next() {
                                Ok(None) => break Ok(()),
                                Ok(Some(_)) => {}
                                Err(error) => break Err(error),
                            }
                        };
                        match outcome {
                            Err(ReadError::Damaged { .. }) => found += 1,
                            Err(other) => panic!("{}: {other}", path.display()),
                            Ok(()) => assert_eq!(story(&log, 0), sound, "{}", path.display()),
                        }
                    }
                }
                if path.exists() && path.metadata().unwrap().len() == length {
                    flip(&path, byte);
                }
            }
        }
    }
    assert!(found > 100, "{found}");
}

#[test]
fn one_process_at_a_time() {
    let world = World::new();
    let log = world.open(lazy());
    assert!(matches!(world.try_open(lazy()), Err(OpenError::Locked(_))));
    drop(log);
    world.open(lazy());
}

#[test]
fn a_missing_checkpoint_is_not_an_empty_log() {
    let world = World::new();
    let log = world.open(lazy());
    topic(&log, "t", 1);
    drop(log);
    std::fs::remove_file(world.path().join("checkpoint")).unwrap();
    assert!(matches!(world.try_open(lazy()), Err(OpenError::Damaged { .. })));
}

#[test]
fn journal_files_are_recycled() {
    let world = World::new();
    let log = world.open(small());
    let topic = topic(&log, "t", 1);
    (0..400).for_each(|n| drop(put(&log, &topic, 0, batch(&format!("{n:0>200}"), 1))));
    assert!(world.files("journal").len() <= 8, "{:?}", world.files("journal"));
    drop(log);
    assert_eq!(story(&world.open(small()), 1).len(), 400);
}

#[test]
fn many_writers_share_syncs_and_lose_nothing() {
    let world = World::new();
    let config = LogConfig { threads: Threads::Real, ..small() };
    let log = world.open(config.clone());
    let topic = topic(&log, "t", 4);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (log, topic) = (&log, &topic);
            scope.spawn(move || {
                for n in 0..200 {
                    let tag = format!("w{writer}-{n}");
                    let receipt =
                        log.append(commit(vec![part(topic, writer, batch(&tag, 3))])).unwrap();
                    if n % 10 == 0 {
                        receipt.wait().unwrap();
                    }
                }
            });
        }
        let mut replay = log.replay(Position::ZERO).unwrap();
        let mut seen = 0;
        while seen < 801 {
            match replay.next().unwrap() {
                Some(commit) => {
                    seen += 1;
                    assert_eq!(commit.position, Position::new(seen));
                }
                None => std::thread::yield_now(),
            }
        }
    });
    log.close();
    assert!(matches!(
        log.append(commit(vec![part(&topic, 0, batch("x", 1))])),
        Err(AppendError::Stopped(_))
    ));
    let told = story(&log, 0);
    drop(log);
    let log = world.open(config);
    assert_eq!(story(&log, 0), told);
    for writer in 0..4 {
        let expected: Vec<String> =
            (0..200).flat_map(|n| (0..3).map(move |k| format!("w{writer}-{n}/{k}"))).collect();
        assert_eq!(fetched(&log, topic.id, writer, 0, 1000), expected);
    }
}
