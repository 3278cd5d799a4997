//! Scripts: one fixed history in which the first, the second, ... call fails, and the failures
//! of a sync.

use evert_env::{Call, Mishap};

use crate::life::{Plan, Run};
use crate::session::Session;
use crate::trouble::{Outcome, Trouble, violation};

const SCRIPT_STEPS: usize = 40;
const SCRIPTS: [u64; 2] = [11, 12];

/// One script with a mishap at its `nth` call. Gives whether the script has that many calls.
fn script(seed: u64, call: Call, nth: u64, mishap: Mishap, loses_power: bool) -> Outcome<bool> {
    let quiet = Plan { interrupted_opens_max: 0, ..Plan::default() };
    let mut run = Run::new(seed, quiet);
    run.world.schedule(call, nth, mishap);
    run.mishaps = 1;
    let opened = run.first_open();
    if let Some(mut session) = run.excuse(opened)? {
        let result = run.steps(&mut session, SCRIPT_STEPS);
        run.excuse(result)?;
        session.settle(&mut run.oracle, &mut run.clients)?;
        run.withdraw(&mut session);
    }
    let happened = run.had_a_mishap();
    if loses_power || run.world.is_off() {
        run.power_loss();
    } else {
        run.kill();
    }
    // What a killed process left in memory only must not be served before it is durable.
    drop(run.begin()?);
    run.power_loss();
    let mut session = run.begin()?;
    run.send_again(&mut session)?;
    session.log().pump();
    session.settle(&mut run.oracle, &mut run.clients)?;
    if !session.is_settled() {
        return violation("a log that was pumped has not answered");
    }
    Ok(happened)
}

fn every_call(call: Call, mishap: Mishap) {
    for seed in SCRIPTS {
        let mut nth = 1;
        loop {
            let mut happened = false;
            for loses_power in [false, true] {
                happened |= script(seed, call, nth, mishap, loses_power).unwrap_or_else(|trouble| {
                    panic!("script {seed}, {mishap:?} at {call:?} {nth}, power {loses_power}: {trouble}")
                });
            }
            if !happened {
                break;
            }
            nth += 1;
        }
        assert!(nth > 20, "script {seed} makes only {nth} calls");
    }
}

#[test]
fn the_power_may_go_at_any_call() {
    every_call(Call::Change, Mishap::PowerOff);
}

#[test]
fn any_call_may_fail() {
    every_call(Call::Any, Mishap::IoError);
}

#[test]
fn the_disk_may_be_full_at_any_call() {
    every_call(Call::Change, Mishap::NoSpace);
}

/// Once a sync has failed nothing is acknowledged, not even by a later sync that succeeds.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    for seed in 0..50 {
        failed_sync(seed).unwrap_or_else(|trouble| panic!("seed {seed}: {trouble}"));
    }
}

fn failed_sync(seed: u64) -> Outcome {
    let mut run = Run::new(seed, Plan { interrupted_opens_max: 0, ..Plan::default() });
    let mut session = run.begin()?;
    run.steps(&mut session, 30)?;
    session.log().pump();
    session.settle(&mut run.oracle, &mut run.clients)?;
    run.create_topic_named("late", &mut session)?;
    let acknowledged = run.oracle.acknowledgements();
    run.world.schedule(Call::SyncData, 1, Mishap::IoError);
    run.mishaps = 1;
    for _ in 0..20 {
        append_and_pump(&mut run, &mut session)?;
    }
    if run.world.scheduled() != 0 {
        return violation("twenty commits were not synced once");
    }
    let late = run.oracle.acknowledgements() - acknowledged;
    if late != 0 {
        return violation(format!("{late} acknowledgements came after a sync had failed"));
    }
    run.withdraw(&mut session);
    drop(session);
    run.kill();
    drop(run.begin()?);
    run.power_loss();
    run.begin().map(drop)
}

fn append_and_pump(run: &mut Run, session: &mut Session) -> Outcome {
    match run.append_to("late", session) {
        Ok(()) | Err(Trouble::Disk(_)) => {}
        Err(other) => return Err(other),
    }
    session.log().pump();
    session.settle(&mut run.oracle, &mut run.clients)
}
