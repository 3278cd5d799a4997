//! Power loss: thousands of histories of a log on a simulated disk, each under a seed, and
//! an oracle that knows what the log owes.
//!
//! `EVERT_SEEDS=n` runs n seeds, `EVERT_SEED=x` only that one, `EVERT_TRACE=1` prints the disk's
//! calls of a history that fails.

mod audit;
mod client;
mod facts;
mod life;
mod oracle;
mod planted;
mod rot;
mod scripts;
mod session;
mod steps;
mod threads;
mod topics;
mod trouble;

use life::{Plan, Tally, run};

const SEEDS: u64 = 1_000;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().expect("a seed is a number"))
    };
    match number("EVERT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("EVERT_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_no_position_changes_what_it_names() {
    let mut sum = Tally::default();
    let seeds = seeds();
    for seed in seeds.clone() {
        match run(seed, Plan::of(seed)) {
            Ok(tally) => sum.add(tally),
            Err(trouble) => panic!("EVERT_SEED={seed}: {trouble}"),
        }
    }
    println!("{seeds:?}: {sum:?}");
    if seeds.end - seeds.start >= 100 {
        sum.is_worth_something(seeds.end - seeds.start);
    }
}
