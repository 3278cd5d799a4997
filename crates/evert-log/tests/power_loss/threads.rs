//! The log's own threads under power loss: not reproducible to the call, and so only a
//! complement of the seeded histories. What they add are the races.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evert_env::{Call, Mishap};
use evert_log::{AppendError, Appended, Commit, Log, Threads};

use crate::facts::AttemptId;
use crate::life::{Plan, Run};
use crate::oracle::Oracle;
use crate::session;
use crate::trouble::{Outcome, violation};

const SEEDS: u64 = 60;
const APPENDERS: usize = 4;
const ATTEMPTS: usize = 120;
/// A receipt that takes longer will never resolve.
const ANSWER_MAX: Duration = Duration::from_secs(30);

#[test]
fn the_logs_own_threads_keep_its_promises() {
    for seed in 0..SEEDS {
        races(seed).unwrap_or_else(|trouble| panic!("seed {seed}: {trouble}"));
    }
}

fn races(seed: u64) -> Outcome {
    let mut run = Run::new(seed, Plan { interrupted_opens_max: 0, ..Plan::default() });
    run.set_threads(Threads::Real);
    let mut session = run.begin()?;
    run.create_topic_named("a", &mut session)?;
    run.create_topic_named("b", &mut session)?;
    for _ in 0..3 {
        let attempts: Vec<_> = (0..ATTEMPTS)
            .map(|_| run.new_attempt(1 + seed as usize % 3))
            .collect::<Option<_>>()
            .expect("there are topics");
        let nth = run.rng.u64(1..600);
        run.world.schedule(Call::Change, nth, Mishap::PowerOff);
        let (acknowledged, seen) = compete(session.log(), &run.oracle, &attempts);
        for (attempt, appended) in acknowledged {
            run.oracle.acknowledged(attempt, appended)?;
        }
        for commit in seen {
            run.oracle.saw(&commit)?;
        }
        drop(session);
        run.power_loss();
        session = run.begin()?;
    }
    Ok(())
}

/// Several threads append, each waiting for its answers, while another follows.
fn compete(
    log: &Log,
    oracle: &Oracle,
    attempts: &[AttemptId],
) -> (Vec<(AttemptId, Appended)>, Vec<Commit>) {
    let acknowledged = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let follower = scope.spawn(|| follow(log, &is_over));
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|which| {
                let mine = attempts.iter().skip(which).step_by(APPENDERS);
                let acknowledged = &acknowledged;
                scope.spawn(move || {
                    for &attempt in mine {
                        let Ok(appended) = append(log, oracle, attempt) else { return };
                        acknowledged.lock().expect("no one panics").push((attempt, appended));
                    }
                })
            })
            .collect();
        appenders.into_iter().for_each(|thread| thread.join().expect("an appender panicked"));
        is_over.store(true, Ordering::SeqCst);
        follower.join().expect("the follower panicked")
    });
    (acknowledged.into_inner().expect("no one panics"), seen)
}

fn append(log: &Log, oracle: &Oracle, attempt: AttemptId) -> Result<Appended, AppendError> {
    let mut receipt = Box::pin(log.append(oracle.commit_of(attempt))?);
    let asked_at = Instant::now();
    loop {
        if let Some(result) = session::poll(&mut receipt) {
            return result;
        }
        assert!(asked_at.elapsed() < ANSWER_MAX, "attempt {attempt} is never answered");
        thread::sleep(Duration::from_micros(20));
    }
}

fn follow(log: &Log, is_over: &AtomicBool) -> Vec<Commit> {
    let mut seen = Vec::new();
    let Ok(mut replay) = log.replay(log.end()) else { return seen };
    loop {
        let was_over = is_over.load(Ordering::SeqCst);
        match replay.next() {
            Ok(Some(commit)) => seen.push(commit),
            Ok(None) if !was_over => thread::yield_now(),
            Ok(None) | Err(_) => return seen,
        }
    }
}

/// A log that is closed has no thread left that writes.
#[test]
fn a_closed_log_is_quiet() {
    let quiet = || -> Outcome {
        let mut run = Run::new(3, Plan { interrupted_opens_max: 0, ..Plan::default() });
        run.set_threads(Threads::Real);
        let mut session = run.begin()?;
        run.create_topic_named("a", &mut session)?;
        run.append_to("a", &mut session)?;
        session.log().close();
        let calls = run.world.count(Call::Change);
        thread::sleep(Duration::from_millis(300));
        if run.world.count(Call::Change) != calls {
            return violation("it goes on writing");
        }
        Ok(())
    };
    quiet().unwrap_or_else(|trouble| panic!("{trouble}"));
}
