//! How much of its time a view, or a lane, folds: who is too slow for the others' company.

use std::time::{Duration, Instant};

/// Time is looked at in stretches of this length.
const WINDOW: Duration = Duration::from_secs(1);
/// The share of its time that a view in company may take.
const LIGHT_SHARE: f64 = 0.25;
/// The longest fold that is light.
const LIGHT_FOLD: Duration = Duration::from_millis(50);

/// A single long fold is held against a view for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// Time spent folding, over the last stretch and this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    began: Instant,
    spent: Duration,
    longest: Duration,
    folds: u32,
    last: Option<Stretch>,
}

/// A stretch that is over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stretch {
    /// The share of the time that was spent folding.
    pub(crate) share: f64,
    pub(crate) longest: Duration,
    /// The mean time of a fold.
    pub(crate) mean: Duration,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let (spent, longest) = (Duration::ZERO, Duration::ZERO);
        Self { began: Instant::now(), spent, longest, folds: 0, last: None }
    }

    /// Notes a fold; gives the stretch that it ended, if it ended one.
    pub(crate) fn spent(&mut self, time: Duration) -> Option<Stretch> {
        self.spent += time;
        self.longest = self.longest.max(time);
        self.folds += 1;
        let elapsed = self.began.elapsed();
        if elapsed < WINDOW {
            return None;
        }
        let share = self.spent.as_secs_f64() / elapsed.as_secs_f64();
        let mean = self.spent / self.folds;
        let last = Stretch { share, longest: self.longest, mean };
        *self = Self { last: Some(last), ..Self::new() };
        Some(last)
    }

    /// Whether it would be no burden to others, as far as is known.
    pub(crate) fn is_light(&self) -> bool {
        let light = |share: f64, longest: Duration| share <= LIGHT_SHARE && longest <= LIGHT_FOLD;
        let last = self.last.unwrap_or_default();
        if self.began.elapsed() >= WINDOW {
            // A stretch without a fold at its end goes on; a long fold is forgotten in time.
            let elapsed = self.began.elapsed();
            let forgotten = elapsed > FORGOTTEN_AFTER;
            let longest = if forgotten { Duration::ZERO } else { self.longest };
            return light(self.spent.as_secs_f64() / elapsed.as_secs_f64(), longest);
        }
        light(last.share, last.longest)
    }
}
