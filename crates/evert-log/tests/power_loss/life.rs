//! The lives of one log: opened, used, killed at some call, opened again, under one seed.
//!
//! Owns: the random workload and the mishaps.
//! Not here: what the log owes (`oracle`), how it is read (`audit`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use evert_env::{Call, Env, Forgets, Mishap, SimWorld};
use evert_log::{Log, LogConfig, Planted, Threads};
use fastrand::Rng;

use crate::audit;
use crate::client::Client;
use crate::oracle::{Oracle, State};
use crate::session::Session;
use crate::trouble::{Outcome, Trouble, violation};

pub(crate) const DIR: &str = "/data/log";

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) lives: usize,
    pub(crate) steps_max: usize,
    /// Opens in a row that may be interrupted.
    pub(crate) interrupted_opens_max: usize,
    pub(crate) forgets: Forgets,
    pub(crate) planted: Planted,
}

impl Plan {
    /// Few long lives or many short ones, as the seed has it.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(!seed);
        let steps_max = rng.choice([15, 60, 60, 150]).expect("there is one");
        Self { lives: rng.usize(2..7), steps_max, ..Self::default() }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            lives: 4,
            steps_max: 60,
            interrupted_opens_max: 3,
            forgets: Forgets::default(),
            planted: Planted::default(),
        }
    }
}

/// What a run has been through, to see that it was worth something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) power_losses: usize,
    pub(crate) kills: usize,
    pub(crate) interrupted_opens: usize,
    pub(crate) acknowledged: usize,
    pub(crate) visible: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.power_losses += other.power_losses;
        self.kills += other.kills;
        self.interrupted_opens += other.interrupted_opens;
        self.acknowledged += other.acknowledged;
        self.visible += other.visible;
    }

    /// A harness whose mishaps stopped happening would pass for ever.
    pub(crate) fn is_worth_something(&self, seeds: u64) {
        let per_seed = |count: usize| count as f64 / seeds as f64;
        assert!(per_seed(self.power_losses) > 2.0, "{self:?}");
        assert!(per_seed(self.kills) > 0.5, "{self:?}");
        assert!(per_seed(self.interrupted_opens) > 0.5, "{self:?}");
        assert!(per_seed(self.acknowledged) > 5.0, "{self:?}");
        assert!(per_seed(self.visible) > 5.0, "{self:?}");
    }
}

/// One log and everything around it.
pub(crate) struct Run {
    pub(crate) world: SimWorld,
    pub(crate) rng: Rng,
    pub(crate) oracle: Oracle,
    pub(crate) clients: Vec<Client>,
    pub(crate) tally: Tally,
    plan: Plan,
    config: LogConfig,
    env: Env,
    pub(crate) mishaps: usize,
}

/// Runs a whole history under a seed.
pub(crate) fn run(seed: u64, plan: Plan) -> Outcome<Tally> {
    let mut run = Run::new(seed, plan);
    let result = run.lives();
    if result.is_err() && std::env::var_os("EVERT_TRACE").is_some() {
        run.world.take_trace().iter().for_each(|line| println!("{line}"));
    }
    result.map(|()| run.tally)
}

impl Run {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (env, world) = Env::simulated(seed);
        if std::env::var_os("EVERT_TRACE").is_some() {
            world.trace();
        }
        let config = small_config(&mut rng, plan.planted);
        Self {
            world,
            rng,
            oracle: Oracle::default(),
            clients: Vec::new(),
            tally: Tally::default(),
            plan,
            config,
            env,
            mishaps: 0,
        }
    }

    /// Who runs the background work of the logs opened from here on.
    pub(crate) fn set_threads(&mut self, threads: Threads) {
        self.config.threads = threads;
    }

    fn lives(&mut self) -> Outcome {
        for _ in 0..self.plan.lives {
            let mut session = self.begin()?;
            let result = self.live(&mut session);
            self.end(session, result)?;
        }
        self.power_loss();
        let session = self.begin()?;
        session.log().close();
        drop(session);
        self.env = self.world.kill();
        let session = self.begin()?;
        drop(session);
        self.tally.acknowledged = self.oracle.acknowledgements();
        self.tally.visible = self.oracle.visible_positions().count();
        Ok(())
    }

    /// Opens a log for the first time, with whatever is scheduled.
    pub(crate) fn first_open(&mut self) -> Outcome<Session> {
        let log = self.try_open()?;
        self.oracle.log_is(log.id())?;
        let follower = log.replay(log.end())?;
        Ok(Session::new(log, follower))
    }

    /// Opens the log, through interruptions, and audits what it holds.
    pub(crate) fn begin(&mut self) -> Outcome<Session> {
        let log = self.open()?;
        self.world.clear_schedule();
        self.mishaps = 0;
        self.oracle.log_is(log.id())?;
        self.oracle.topics.reconcile(&log)?;
        audit::audit(&log, &mut self.oracle, &mut self.rng)?;
        let follower = log.replay(log.end())?;
        Ok(Session::new(log, follower))
    }

    fn open(&mut self) -> Outcome<Log> {
        for _ in 0..self.rng.usize(..=self.plan.interrupted_opens_max) {
            let nth = self.rng.u64(1..40);
            let mishap = self.rng.choice([Mishap::PowerOff, Mishap::PowerOff, Mishap::IoError]);
            self.world.schedule(Call::Change, nth, mishap.expect("there is one"));
            match self.try_open() {
                Ok(log) if !self.world.is_off() => return Ok(log),
                Ok(_) | Err(Trouble::Disk(_)) => self.tally.interrupted_opens += 1,
                Err(other) => return Err(other),
            }
            if self.world.is_off() {
                self.power_loss();
            } else {
                self.kill();
            }
        }
        self.world.clear_schedule();
        self.try_open()
    }

    pub(crate) fn try_open(&mut self) -> Outcome<Log> {
        let env = self.env.clone().forgetful(self.plan.forgets);
        Ok(Log::open(env, PathBuf::from(DIR), self.config.clone())?)
    }

    fn live(&mut self, session: &mut Session) -> Outcome {
        self.schedule_mishap();
        self.send_again(session)?;
        let steps = self.rng.usize(1..=self.plan.steps_max);
        self.steps(session, steps)
    }

    /// Lives until the steps are done or the power is gone.
    pub(crate) fn steps(&mut self, session: &mut Session, steps: usize) -> Outcome {
        for _ in 0..steps {
            self.step(session)?;
            session.settle(&mut self.oracle, &mut self.clients)?;
            if self.world.is_off() {
                break;
            }
        }
        Ok(())
    }

    fn schedule_mishap(&mut self) {
        let nth = if self.rng.bool() { self.rng.u64(1..40) } else { self.rng.u64(1..400) };
        let (call, mishap) = match self.rng.u8(..12) {
            0 => return,
            1 => (Call::Any, Mishap::IoError),
            2 => (Call::SyncData, Mishap::IoError),
            3 => (Call::Change, Mishap::NoSpace),
            _ => (Call::Change, Mishap::PowerOff),
        };
        self.world.schedule(call, nth, mishap);
        self.mishaps = 1;
    }

    /// Whether the disk has disobeyed in this life.
    pub(crate) fn had_a_mishap(&self) -> bool {
        self.world.is_off() || self.world.scheduled() < self.mishaps
    }

    /// A life ends as it may: closed, killed, or without power.
    pub(crate) fn end(&mut self, mut session: Session, result: Outcome) -> Outcome {
        match result {
            Err(Trouble::Disk(_)) if self.had_a_mishap() => {}
            Err(Trouble::Disk(what)) => return violation(format!("for no reason: {what}")),
            other => other?,
        }
        session.settle(&mut self.oracle, &mut self.clients)?;
        if self.rng.u8(..6) == 0 {
            session.log().close();
            session.settle(&mut self.oracle, &mut self.clients)?;
        }
        self.withdraw(&mut session);
        drop(session);
        if self.world.is_off() || self.rng.bool() {
            self.power_loss();
        } else {
            self.kill();
        }
        Ok(())
    }

    /// Large commits that were not committed vanish with their process.
    pub(crate) fn withdraw(&mut self, session: &mut Session) {
        for (attempt, _) in session.large.drain(..) {
            self.oracle.attempts[attempt].state = State::Void;
        }
    }

    pub(crate) fn power_loss(&mut self) {
        self.env = self.world.crash(self.rng.u64(..));
        self.oracle.forget_unsynced_promises();
        self.tally.power_losses += 1;
    }

    pub(crate) fn kill(&mut self) {
        self.env = self.world.kill();
        self.world.clear_schedule();
        self.oracle.forget_unsynced_promises();
        self.tally.kills += 1;
    }

    pub(crate) fn send_again(&mut self, session: &mut Session) -> Outcome {
        for client in &mut self.clients {
            for attempt in client.unacknowledged(&self.oracle.topics) {
                session.append(attempt, &self.oracle)?;
            }
        }
        Ok(())
    }

    /// Opens a copy of the disk in which one bit of a file is flipped, and reads everything.
    pub(crate) fn open_rotten(&self, file: &Path, byte: u64, bit: u32) -> Outcome {
        let (env, world) = self.world.fork(byte);
        world.flip_bit(file, byte, bit).expect("the file is there");
        let mut oracle = self.oracle.clone();
        let mut rng = self.rng.clone();
        for _ in 0..2 {
            let log = Log::open(env.clone(), PathBuf::from(DIR), self.config.clone())?;
            oracle.log_is(log.id())?;
            oracle.topics.reconcile(&log)?;
            audit::audit(&log, &mut oracle, &mut rng)?;
            log.close();
        }
        Ok(())
    }

    /// Passes on what is the harness's own doing, and nothing else.
    pub(crate) fn excuse<T>(&self, result: Outcome<T>) -> Outcome<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Trouble::Disk(_)) if self.had_a_mishap() => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub(crate) fn pass_time(&mut self) {
        let by = Duration::from_millis(self.rng.u64(1..300));
        self.world.advance(by);
        if self.rng.u8(..8) == 0 {
            self.world.jump_wall(self.rng.i64(-100_000_000_000..100_000_000_000));
        }
    }
}

/// Limits so small that every mechanism is at work within a few commits.
pub(crate) fn small_config(rng: &mut Rng, planted: Planted) -> LogConfig {
    LogConfig {
        journal_file_bytes: rng.u64(8..64) << 10,
        segment_bytes_max: rng.u64(4..64) << 10,
        tail_bytes_max: rng.usize(8..256) << 10,
        checkpoint_bytes: rng.u64(8..128) << 10,
        large_memory_bytes: rng.usize(1..32) << 10,
        threads: Threads::Manual,
        planted,
        ..LogConfig::default()
    }
}
