//! The world as a whole: fate, time, and what lives through a crash.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::{Forgets, OpenMode};

const DIR: &str = "/d";
const FILE: &str = "/d/a";

fn world() -> (Env, SimWorld) {
    let (env, world) = Env::simulated(1);
    let dir = Path::new(DIR);
    env.files.create_dir_all(dir).expect("creates");
    let file = env.files.open(Path::new(FILE), OpenMode::CreateNew).expect("creates");
    file.write_all_at(b"synced", 0).expect("writes");
    file.sync_data().expect("syncs");
    env.files.sync_dir(dir).expect("syncs");
    env.files.sync_dir(Path::new("/")).expect("syncs");
    (env, world)
}

fn open(env: &Env) -> std::sync::Arc<dyn crate::File> {
    env.files.open(Path::new(FILE), OpenMode::Write).expect("it is there")
}

#[test]
fn what_is_off_stays_off_until_the_reboot() {
    let (env, world) = world();
    let file = open(&env);
    world.schedule(Call::Change, 2, Mishap::PowerOff);
    file.write_all_at(b"first", 0).expect("the power is on");
    assert!(file.write_all_at(b"other", 0).is_err());
    assert!(world.is_off());
    assert!(file.sync_data().is_err());
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    assert!(env.files.exists(Path::new(FILE)).is_err());

    let after = world.crash(3);
    assert!(file.len().is_err(), "the process that had it open is gone");
    assert!(env.files.list(Path::new(DIR)).is_err(), "and so is its world");
    let again = open(&after);
    again.write_all_at(b"again!", 0).expect("the power is back");
    again.sync_data().expect("syncs");
    world.crash(4);
    assert_eq!(world.contents(Path::new(FILE)).expect("reads"), b"again!");
}

#[test]
fn the_write_during_which_the_power_fails_may_be_on_the_disk_or_not() {
    let mut seen = [false; 2];
    for seed in 0..100 {
        let (env, world) = world();
        let file = open(&env);
        world.schedule(Call::Any, 1, Mishap::PowerOff);
        assert!(file.write_all_at(b"SYNCED", 0).is_err());
        world.crash(seed);
        match &world.contents(Path::new(FILE)).expect("reads")[..] {
            b"synced" => seen[0] = true,
            b"SYNCED" => seen[1] = true,
            other => panic!("half a sector: {other:?}"),
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn a_kill_leaves_the_page_cache_and_nothing_more() {
    let mut lost = 0;
    for seed in 0..50 {
        let (env, world) = world();
        let file = open(&env);
        let held = env.files.lock(Path::new("/d/lock")).expect("it is free");
        file.write_all_at(b"SYNCED", 0).expect("writes");
        world.schedule(Call::SyncData, 1, Mishap::IoError);
        let after = world.kill();
        assert!(file.len().is_err(), "the process is gone");
        after.files.lock(Path::new("/d/lock")).expect("so is its lock");
        drop(held);
        assert_eq!(world.contents(Path::new(FILE)).expect("reads"), b"SYNCED");
        assert_eq!(world.scheduled(), 1);
        world.crash(seed);
        assert_eq!(world.scheduled(), 0);
        lost += usize::from(world.contents(Path::new(FILE)).expect("reads") == b"synced");
    }
    assert!((5..50).contains(&lost), "a kill synced what nobody synced: lost {lost} of 50");
}

#[test]
fn a_crash_is_final() {
    for seed in 0..200 {
        let (env, world) = world();
        open(&env).write_all_at(&[9; 5000], 3).expect("writes");
        env.files.open(Path::new("/d/b"), OpenMode::CreateNew).expect("creates");
        world.crash(seed);
        let (files, bytes) = (world.files(), world.contents(Path::new(FILE)).expect("reads"));
        world.crash(seed + 1);
        assert_eq!(world.files(), files);
        assert_eq!(world.contents(Path::new(FILE)).expect("reads"), bytes);
    }
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let run = |seed| {
        let (env, world) = world();
        let file = open(&env);
        for i in 0..20 {
            file.write_all_at(&[i; 700], u64::from(i) * 300).expect("writes");
        }
        world.crash(seed);
        world.contents(Path::new(FILE)).expect("reads")
    };
    for seed in 0..50 {
        assert_eq!(run(seed), run(seed));
    }
    assert!((0..50).any(|seed| run(seed) != run(seed + 1)));
}

#[test]
fn calls_fail_as_scheduled_and_once() {
    let (env, world) = world();
    let file = open(&env);
    world.schedule(Call::SyncData, 2, Mishap::IoError);
    world.schedule(Call::Any, 1, Mishap::NoSpace);
    let full = file.write_all_at(b"x", 0).expect_err("no space");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.write_all_at(b"x", 0).expect("once only");
    file.sync_data().expect("the second fails, not the first");
    assert_eq!(file.sync_data().expect_err("fails").raw_os_error(), Some(5));
    file.sync_data().expect("once only");
    world.schedule(Call::SyncDir, 1, Mishap::IoError);
    assert!(env.files.sync_dir(Path::new(DIR)).is_err());
    world.schedule(Call::Any, 1, Mishap::IoError);
    assert!(env.files.exists(Path::new(FILE)).is_err());
    world.schedule(Call::Any, 1, Mishap::IoError);
    world.clear_schedule();
    assert!(env.files.exists(Path::new(FILE)).expect("nothing is scheduled"));
}

#[test]
fn a_directory_sync_that_fails_syncs_nothing() {
    let lost = (0..50).any(|seed| {
        let (env, world) = world();
        env.files.open(Path::new("/d/b"), OpenMode::CreateNew).expect("creates");
        world.schedule(Call::SyncDir, 1, Mishap::IoError);
        assert!(env.files.sync_dir(Path::new(DIR)).is_err());
        world.crash(seed);
        world.contents(Path::new("/d/b")).is_err()
    });
    assert!(lost);
}

#[test]
fn two_mishaps_at_one_call_happen_one_after_the_other() {
    let (env, world) = world();
    let file = open(&env);
    world.schedule(Call::Any, 1, Mishap::NoSpace);
    world.schedule(Call::SyncData, 1, Mishap::IoError);
    assert_eq!(file.sync_data().expect_err("fails").raw_os_error(), Some(28));
    assert_eq!(file.sync_data().expect_err("fails again").raw_os_error(), Some(5));
    file.sync_data().expect("nothing is left");
}

#[test]
fn a_failed_sync_may_lose_bytes_that_a_later_sync_does_not_bring_back() {
    let mut lost = 0;
    for seed in 0..100 {
        let (env, world) = Env::simulated(seed);
        let file = env.files.open(Path::new("/a"), OpenMode::CreateNew).expect("creates");
        env.files.sync_dir(Path::new("/")).expect("syncs");
        file.write_all_at(b"fragile", 0).expect("writes");
        world.schedule(Call::SyncData, 1, Mishap::IoError);
        assert!(file.sync_data().is_err());
        let mut seen = [0; 7];
        file.read_exact_at(&mut seen, 0).expect("memory still has it");
        assert_eq!(&seen, b"fragile");
        file.sync_data().expect("claims to be fine");
        world.crash(seed);
        lost += usize::from(world.contents(Path::new("/a")).expect("reads") != b"fragile");
    }
    assert!((10..100).contains(&lost), "lost {lost} of 100");
}

#[test]
fn a_full_disk_refuses_to_grow() {
    let (env, world) = world();
    let file = open(&env);
    world.set_disk_full(true);
    assert_eq!(kind(file.write_all_at(b"more than there is", 0)), io::ErrorKind::StorageFull);
    assert_eq!(kind(file.allocate(1 << 20)), io::ErrorKind::StorageFull);
    let new = env.files.open(Path::new("/d/b"), OpenMode::CreateNew);
    assert_eq!(kind(new.map(drop)), io::ErrorKind::StorageFull);
    file.write_all_at(b"SYN", 0).expect("this space is its own");
    file.sync_data().expect("syncs");
    world.set_disk_full(false);
    file.write_all_at(b"more than there was", 0).expect("there is space again");
}

#[test]
fn allocation_grows_by_zeros_and_never_cuts() {
    let (env, _) = world();
    let file = open(&env);
    file.allocate(1000).expect("allocates");
    file.allocate(10).expect("allocates");
    assert_eq!(file.len().expect("has a length"), 1000);
    let mut buf = [1; 1000];
    file.read_exact_at(&mut buf, 0).expect("reads");
    assert_eq!(&buf[..6], b"synced");
    assert_eq!(buf[6..], [0; 994]);
}

#[test]
fn a_file_opened_for_reading_cannot_be_written() {
    let (env, _) = world();
    let file = env.files.open(Path::new(FILE), OpenMode::Read).expect("opens");
    assert_eq!(kind(file.write_all_at(b"x", 0)), io::ErrorKind::PermissionDenied);
    assert_eq!(kind(file.set_len(0)), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_removed_file_lives_while_it_is_open() {
    let (env, _) = world();
    let file = open(&env);
    env.files.remove(Path::new(FILE)).expect("removes");
    assert_eq!(file.len().expect("is still open"), 6);
    assert!(!env.files.exists(Path::new(FILE)).expect("answers"));
}

#[test]
fn locks_exclude_and_end_with_the_process() {
    let (env, world) = world();
    let path = Path::new("/d/lock");
    let held = env.files.lock(path).expect("it is free");
    assert_eq!(kind(env.files.lock(path).map(drop)), io::ErrorKind::WouldBlock);
    drop(held);
    let held = env.files.lock(path).expect("it is free again");
    let after = world.crash(1);
    let next = after.files.lock(path).expect("a crash frees it");
    drop(held);
    assert_eq!(kind(after.files.lock(path).map(drop)), io::ErrorKind::WouldBlock);
    drop(next);
}

#[test]
fn a_fork_goes_its_own_way() {
    let (env, world) = world();
    open(&env).write_all_at(b"SYN", 0).expect("writes");
    let (forked_env, fork) = world.fork(1);
    open(&forked_env).write_all_at(b"forked", 0).expect("writes");
    assert_eq!(world.contents(Path::new(FILE)).expect("reads"), b"SYNced");
    assert_eq!(fork.contents(Path::new(FILE)).expect("reads"), b"forked");
    fork.flip_bit(Path::new(FILE), 0, 0).expect("rots");
    fork.flip_bit(Path::new(FILE), 6, 0).expect("there is nothing there");
    assert!(fork.contents(Path::new(FILE)).expect("reads").ends_with(b"orked"));
    assert_eq!(fork.files(), [(PathBuf::from(FILE), 6)]);
}

#[test]
fn time_moves_by_hand_and_may_jump() {
    let (env, world) = Env::simulated(1);
    let (monotonic, wall) = (env.clock.monotonic(), env.clock.wall_micros());
    world.advance(Duration::from_secs(10));
    assert!(env.clock.monotonic() - monotonic >= Duration::from_secs(10));
    assert!(env.clock.wall_micros() - wall >= 10_000_000);
    world.jump_wall(-3_600_000_000);
    assert!(env.clock.wall_micros() < wall, "the machine's clock was set back");
    assert!(env.clock.monotonic() - monotonic >= Duration::from_secs(10));
    let after = world.crash(1);
    assert!(after.clock.monotonic() < Duration::from_secs(1), "it starts at the boot");
}

#[test]
fn randomness_follows_the_seed() {
    let draw = |seed| {
        let mut buf = [0; 16];
        Env::simulated(seed).0.random.fill(&mut buf);
        buf
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn calls_are_counted_by_kind_and_traced() {
    let (env, world) = Env::simulated(1);
    world.trace();
    let file = env.files.open(Path::new("/a"), OpenMode::CreateNew).expect("creates");
    file.write_all_at(b"xy", 4).expect("writes");
    file.sync_data().expect("syncs");
    file.len().expect("has a length");
    env.files.sync_dir(Path::new("/")).expect("syncs");
    let counts = [Call::Any, Call::Change, Call::SyncData, Call::SyncDir].map(|c| world.count(c));
    assert_eq!(counts, [5, 4, 1, 1]);
    let trace = ["create /a", "write 2@4 /a", "sync /a", "len /a", "sync_dir /"];
    assert_eq!(world.take_trace(), trace);
    assert!(world.take_trace().is_empty());
}

#[test]
fn a_forgetful_world_skips_the_syncs_it_forgets() {
    let forgets = Forgets { sync_data: |path| path.ends_with("a"), ..Forgets::default() };
    let (mut files_lost, mut names_lost) = (0, 0);
    for seed in 0..100 {
        let (env, world) = world();
        let env = env.forgetful(forgets);
        let file = open(&env);
        file.write_all_at(b"SYNCED", 0).expect("writes");
        file.sync_data().expect("says so");
        env.files.open(Path::new("/d/b"), OpenMode::CreateNew).expect("creates");
        env.files.sync_dir(Path::new(DIR)).expect("this one is done");
        let nameless = Forgets { sync_dir: |path| path.ends_with("d"), ..Forgets::default() };
        let env = env.forgetful(nameless);
        env.files.open(Path::new("/d/c"), OpenMode::CreateNew).expect("creates");
        env.files.sync_dir(Path::new(DIR)).expect("says so");
        world.crash(seed);
        files_lost += usize::from(world.contents(Path::new(FILE)).expect("reads") == b"synced");
        world.contents(Path::new("/d/b")).expect("its name was synced");
        names_lost += usize::from(world.contents(Path::new("/d/c")).is_err());
    }
    assert!(files_lost > 10 && names_lost > 10, "{files_lost} and {names_lost}");
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("this fails").kind()
}
