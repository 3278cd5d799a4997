//! Planted faults: the harness judged. Each fault is one that a careless change could make, and
//! each has to be reported.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use evert_env::Forgets;
use evert_log::Planted;

use crate::life::{Plan, run};
use crate::rot::{Findings, rot};
use crate::trouble::{Outcome, Trouble};

/// More than this many histories without a report mean that the harness is blind.
const SEEDS_MAX: u64 = 200;

/// The first report of a fault. A panic of the log proves less than a violation, and is passed
/// over.
fn caught(fault: &str, history: impl Fn(u64) -> Outcome) {
    for seed in 0..SEEDS_MAX {
        let report = match catch_unwind(AssertUnwindSafe(|| history(seed))) {
            Ok(Ok(())) => continue,
            Ok(Err(trouble @ (Trouble::Violation(_) | Trouble::Damaged(_)))) => trouble.to_string(),
            Ok(Err(trouble)) => panic!("seed {seed} proves nothing: {trouble}"),
            Err(_) => continue,
        };
        println!("{fault}: caught by seed {seed}\n    {report}");
        return;
    }
    panic!("{fault}: {SEEDS_MAX} histories, and nothing was noticed");
}

#[test]
fn a_skipped_journal_sync_is_caught() {
    let is_journal = |path: &Path| path.components().any(|part| part.as_os_str() == "journal");
    let forgets = Forgets { sync_data: is_journal, ..Forgets::default() };
    let plan = Plan { forgets, ..Plan::default() };
    caught("the journal's sync is skipped", |seed| run(seed, plan).map(drop));
}

#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    let planted = Planted { ack_before_sync: true, ..Planted::default() };
    let plan = Plan { planted, ..Plan::default() };
    caught("acknowledged before the sync", |seed| run(seed, plan).map(drop));
}

#[test]
fn a_skipped_directory_sync_is_caught() {
    let forgets = Forgets { sync_dir: |_| true, ..Forgets::default() };
    let plan = Plan { forgets, ..Plan::default() };
    caught("the directory's sync is skipped", |seed| run(seed, plan).map(drop));
}

#[test]
fn a_cut_at_the_first_bad_frame_is_caught() {
    let planted = Planted { cut_at_first_bad_frame: true, ..Planted::default() };
    caught("cut at the first bad frame", |seed| rot(seed, planted, &mut Findings::new()));
}
