//! State beyond the memory budget, in a process whose allocator spills.

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use evert_env::spill::{self, Spilling};

#[global_allocator]
static ALLOCATOR: Spilling<System> = Spilling::over(System);

const BUDGET: u64 = 48 << 20;

/// What the process holds is one: its tests come one after the other.
fn begin() -> (MutexGuard<'static, ()>, tempfile::TempDir) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("it is there");
    spill::begin(dir.path(), BUDGET).expect("it is there");
    (turn, dir)
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().strip_suffix(" kB").expect("it is there").parse::<u64>().expect("it is there")
        * 1024
}

/// A table of numbers, a tree and many small boxes: the shapes of state.
type State = (Vec<u64>, BTreeMap<u64, u64>, Vec<Box<[u8]>>);

fn build(rows: u64) -> State {
    let mut state = (Vec::new(), BTreeMap::new(), Vec::new());
    for row in 0..rows {
        state.0.extend([row; 8]);
        state.1.insert(row.wrapping_mul(0x9E37_79B9_7F4A_7C15), row);
        state.2.push(vec![row as u8; 40 + (row % 50) as usize].into_boxed_slice());
    }
    state
}

#[test]
fn a_state_of_four_budgets_is_whole_and_memory_stays_near_the_budget() {
    let (_turn, dir) = begin();
    const ROWS: u64 = 1_100_000;
    // Without a word of the thread nothing is spilled, nor within the budget.
    let large = vec![1_u8; (2 * BUDGET) as usize];
    drop(large);
    // What the process holds is looked at every few milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let spills = spill::spills_here();
    let small = vec![1_u8; (BUDGET / 8) as usize];
    assert_eq!(spill::spilled().bytes, 0);
    drop(small);
    let state = build(ROWS);
    drop(spills);
    let spilled = spill::spilled();
    assert!(spilled.bytes >= 2 * BUDGET, "{spilled:?}");
    assert_eq!(spilled.refused_bytes, 0);
    assert!(spill::is_spilled(state.0.as_ptr() as usize));
    // The file has no name.
    assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0);
    let mut peak = 0;
    let (mut numbers, mut boxes) = (state.0.chunks_exact(8), state.2.iter());
    for row in 0..ROWS {
        assert_eq!(numbers.next().expect("it is there"), [row; 8]);
        assert_eq!(state.1[&row.wrapping_mul(0x9E37_79B9_7F4A_7C15)], row);
        let held = boxes.next().expect("it is there");
        assert!(held.len() == 40 + (row % 50) as usize && held.iter().all(|&b| b == row as u8));
        if row % 10_000 == 0 {
            peak = peak.max(resident_bytes());
        }
    }
    // On a busy machine what the process holds is looked at late.
    assert!(peak < BUDGET * 2, "{} MiB are resident", peak >> 20);
    // Freed by another thread, which does not spill.
    std::thread::spawn(move || drop(state)).join().expect("it is there");
    let left = spill::spilled();
    assert_eq!(left.bytes, 0, "{left:?}");
    assert!(left.disk_bytes < spilled.disk_bytes);
}

#[test]
fn blocks_keep_their_bytes_through_churn_on_many_threads() {
    let (_turn, _dir) = begin();
    // So much is held that everything that may spill does.
    let held = vec![1_u8; BUDGET as usize];
    std::thread::sleep(std::time::Duration::from_millis(200));
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            std::thread::spawn(move || {
                let _spills = spill::spills_here();
                churn(seed)
            })
        })
        .collect();
    for thread in threads {
        assert!(thread.join().expect("it is there") > 1000, "little was spilled");
    }
    drop(held);
    assert_eq!(spill::spilled().bytes, 0);
}

/// Allocates, grows, shrinks and frees at random; gives how many of the blocks were spilled.
fn churn(seed: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut blocks: Vec<(Vec<u8>, u8)> = Vec::new();
    let mut spilled = 0;
    for step in 0..20_000_u32 {
        let shrinking = (step / 4000) % 2 == 1;
        if !blocks.is_empty() && rng.u8(0..10) < if shrinking { 7 } else { 3 } {
            let (block, byte) = blocks.swap_remove(rng.usize(0..blocks.len()));
            assert!(block.iter().all(|&b| b == byte));
            continue;
        }
        if !blocks.is_empty() && rng.u8(0..10) == 0 {
            let at = rng.usize(0..blocks.len());
            let (block, byte) = &mut blocks[at];
            block.resize(block.len() * 2 / (1 + rng.usize(0..4)), *byte);
            block.shrink_to_fit();
            continue;
        }
        let len = match rng.u8(..) {
            0 => rng.usize(0..3_000_000),
            1..20 => rng.usize(0..200_000),
            _ => rng.usize(0..2000),
        };
        let byte = rng.u8(..);
        // Zeroed, then filled: a block that was used before must be zero again.
        let mut block = vec![0; len];
        assert!(block.iter().all(|&b| b == 0));
        block.fill(byte);
        spilled += usize::from(len > 0 && spill::is_spilled(block.as_ptr() as usize));
        blocks.push((block, byte));
    }
    spilled
}
