//! Log time: follows the monotonic clock and slews to the wall clock.
//!
//! Invariants
//! - It never goes back, across restarts included (the order keeps the last one given out).
//! - A jump of the wall clock is approached by at most one part in a hundred of the time that
//!   passes, so that no window empties or stalls because a clock was set.

use std::time::Duration;

use evert_env::Clock;
use evert_model::LogTime;

/// Slewing moves log time by this part of the time passed.
const SLEW_PART: i64 = 100;
/// A distance from the wall clock that is worth a warning.
const JUMP_MICROS: i64 = 1_000_000;

#[derive(Debug)]
pub(crate) struct LogClock {
    last: i64,
    /// Monotonic time, in microseconds, when `last` was computed.
    at: i64,
    /// Time that passed and was too short to slew by.
    slew_credit: i64,
    jumped: bool,
}

impl LogClock {
    /// Starts at the wall clock, or at `persisted` if that is later.
    pub(crate) fn start(clock: &dyn Clock, persisted: LogTime) -> Self {
        let last = clock.wall_micros().max(persisted.get());
        Self { last, at: micros(clock.monotonic()), slew_credit: 0, jumped: false }
    }

    pub(crate) fn now(&mut self, clock: &dyn Clock) -> LogTime {
        let (before, at) = (self.last, micros(clock.monotonic()));
        let passed = (at - self.at).max(0);
        self.at = at.max(self.at);
        let expected = before.saturating_add(passed);
        let drift = clock.wall_micros().saturating_sub(expected);
        self.slew_credit += passed;
        let slew_max = self.slew_credit / SLEW_PART;
        let slew = drift.clamp(-slew_max, slew_max);
        if slew_max > 0 {
            self.slew_credit %= SLEW_PART;
        }
        self.report(drift);
        self.last = expected.saturating_add(slew).max(before);
        LogTime::new(self.last)
    }

    fn report(&mut self, drift: i64) {
        let jumped = drift.abs() >= JUMP_MICROS;
        if jumped != self.jumped {
            self.jumped = jumped;
            if jumped {
                tracing::warn!(
                    drift_ms = drift / 1000,
                    "the wall clock jumped; log time follows slowly"
                );
            } else {
                tracing::info!("log time has reached the wall clock");
            }
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Fake(Mutex<(i64, i64)>);

    impl Fake {
        fn pass(&self, mono: i64, wall: i64) {
            let mut now = self.0.lock().unwrap();
            now.0 += mono;
            now.1 += wall;
        }
    }

    impl Clock for Fake {
        fn monotonic(&self) -> Duration {
            Duration::from_micros(self.0.lock().unwrap().0 as u64)
        }
        fn wall_micros(&self) -> i64 {
            self.0.lock().unwrap().1
        }
    }

    #[test]
    fn a_wall_clock_set_back_or_forward_never_moves_log_time_back_or_far() {
        let fake = Fake(Mutex::new((5, 1_000_000_000)));
        let mut clock = LogClock::start(&fake, LogTime::new(0));
        assert_eq!(clock.now(&fake).get(), 1_000_000_000);
        fake.pass(1_000_000, 86_400_000_000);
        assert_eq!(clock.now(&fake).get(), 1_001_010_000, "a day forward: one part in a hundred");
        fake.pass(1_000_000, -2 * 86_400_000_000);
        assert_eq!(clock.now(&fake).get(), 1_002_000_000, "a day back");
        fake.pass(0, -1);
        assert_eq!(clock.now(&fake).get(), 1_002_000_000);
    }

    #[test]
    fn it_continues_after_the_persisted_time_and_meets_the_wall_clock() {
        let fake = Fake(Mutex::new((0, 1_000_000)));
        let mut clock = LogClock::start(&fake, LogTime::new(1_500_000));
        let mut last = clock.now(&fake);
        assert_eq!(last.get(), 1_500_000);
        for _ in 0..100_000 {
            fake.pass(1_000, 1_000);
            let now = clock.now(&fake);
            assert!(now >= last);
            last = now;
        }
        assert_eq!(last.get(), fake.wall_micros());
    }
}
