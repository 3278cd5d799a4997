//! Law 3: view(P) = fold(log up to P), whatever the ticks, the hydrations and the restarts.
//!
//! Random facts go in (upserts, deletions, commits over several topics, bad records); time passes;
//! relations and views come, go and hydrate at random moments, are replaced, rebuilt, paused and
//! resumed, go apart from the others and come back; the views are closed and opened again. At each
//! look every readable view must equal what a plain evaluation of the facts up to the cut's
//! position gives, at the cut's log time; and so must what followers have gathered from its
//! changes, across starts, and what it was at some position of the past. `EVERT_SEED=n` runs one
//! seed, `EVERT_SEEDS=n` that many.

mod world;

use std::time::{Duration, Instant};

use world::{Relation, World};

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("EVERT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("EVERT_SEEDS").unwrap_or(15)).collect(),
    }
}

#[test]
fn views_equal_the_fold_of_the_log_at_every_look() {
    let (mut restored, mut restored_views, mut from_checkpoint, mut runs) = (0, 0, 0, 0);
    for seed in seeds() {
        println!("seed {seed}");
        let mut world = World::new(seed);
        live(&mut world);
        world.look();
        world.verify_all();
        world.reopen();
        world.look();
        (restored, restored_views) =
            (restored + world.restored, restored_views + world.restored_views);
        from_checkpoint += world.from_checkpoint;
        runs += 1;
    }
    assert!(runs < 10 || restored >= runs, "{restored} starts of {runs} runs from a checkpoint");
    assert!(runs < 10 || restored_views > 0, "{restored_views} views from a checkpoint");
    assert!(runs < 10 || from_checkpoint > 0, "{from_checkpoint} looks back from a checkpoint");
}

/// Facts, definitions and starts in random order.
fn live(world: &mut World) {
    for _ in 0..150 {
        match world.random.u32(..100) {
            0..50 => world.append_random(),
            50..60 => world.pass_time(),
            60..70 => world.create_something(),
            70..73 => world.drop_something(),
            73..77 => world.reopen(),
            77..80 => world.follow_something(),
            80..83 => world.replace_something(),
            83..85 => world.rebuild_something(),
            85..89 => world.pause_or_resume(),
            _ => world.look(),
        }
    }
}

#[test]
fn an_orderly_stop_keeps_everything() {
    let mut world = World::new(11);
    world.lives_on = true;
    world.reopen();
    world.create_all();
    for _ in 0..40 {
        world.append_random();
    }
    world.look();
    world.reopen();
    world.look();
    let began = world.began_whole_at().expect("everything is in the checkpoint");
    assert!(began >= world.last_fact(), "the replay began at {began}");
    world.append_random();
    world.look();
    world.verify_all();
}

/// A position that is written before its state must show as rows that no log explains.
#[test]
fn a_position_before_its_state_is_caught() {
    for torn_after in (1..80).step_by(2) {
        let lived = std::panic::catch_unwind(|| {
            let mut world = World::with_fault(torn_after, Some(torn_after));
            world.create_all();
            // Enough for more checkpoints than it takes until one is torn.
            for _ in 0..2 * torn_after {
                world.append_random();
                world.pass_time();
            }
            world.look();
            world.reopen();
            world.look();
        });
        if lived.is_err() {
            println!("the position is written before the state: torn after {torn_after} writes");
            return;
        }
    }
    panic!("nothing has noticed that positions are written before their state");
}

#[test]
fn a_commit_over_several_topics_is_seen_whole_or_not_at_all() {
    let mut world = World::new(7);
    world.create_all();
    for i in 0..300 {
        // Both sides of a transfer, in one commit over two topics.
        world.append_both(Relation::Accounts, Relation::Events, i);
        world.look();
    }
}

/// Nobody appends anything: the follower itself has the log say what time it is, once a second at
/// most, when a view has something to do.
#[test]
fn a_view_follows_time_while_the_log_is_idle() {
    let mut world = World::new(3);
    world.create_all();
    world.look();
    let quiet = world.end();
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(world.end(), quiet, "nothing is due: no time ticks");
    world.append_lasting(&[300, 600, 2_200]);
    let start = Instant::now();
    let mut ticks = 0;
    let mut end = world.end();
    while start.elapsed() < Duration::from_millis(3_500) {
        std::thread::sleep(Duration::from_millis(5));
        world.look();
        // What is published is never more than a second behind, and the time it takes.
        let behind = world.overdue();
        assert!(behind < Duration::from_millis(1_250), "{behind:?} behind");
        ticks += usize::from(world.end() != end);
        end = world.end();
    }
    assert!((2..=3).contains(&ticks), "three moments, {ticks} time ticks");
    world.verify_all();
}
