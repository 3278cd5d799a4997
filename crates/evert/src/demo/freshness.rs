//! Freshness: how long a fact takes from being sent to being visible in the views.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evert_model::Position;

/// Commits that are on their way to the views, and how long the earlier ones took.
#[derive(Default)]
pub(super) struct Freshness {
    under_way: VecDeque<(Position, Instant)>,
    micros: Vec<u32>,
}

impl Freshness {
    /// A commit was sent at `at` and acknowledged as `position`.
    pub(super) fn sent(&mut self, position: Position, at: Instant) {
        self.under_way.push_back((position, at));
    }

    /// The views have reached `position` at `at`.
    pub(super) fn visible(&mut self, position: Position, at: Instant) {
        while let Some((_, sent)) = self.under_way.pop_front_if(|(sent, _)| *sent <= position) {
            self.took(at.saturating_duration_since(sent));
        }
    }

    /// A commit became visible so long after it was sent.
    pub(super) fn took(&mut self, time: Duration) {
        self.micros.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// The quantiles asked for, each between 0 and 1; zero before the first commit is visible.
    pub(super) fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [Duration; N] {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        quantiles.map(|q| {
            let last = sorted.len().saturating_sub(1);
            let micros = sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(0);
            Duration::from_micros(micros.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_became_visible() {
        let start = Instant::now();
        let mut freshness = Freshness::default();
        for i in 1..=100u64 {
            freshness.sent(Position::new(i), start);
        }
        for i in 1..=50u64 {
            freshness.visible(Position::new(i), start + Duration::from_millis(i));
        }
        let [p50, p100] = freshness.quantiles([0.5, 1.0]);
        assert_eq!(p100, Duration::from_millis(50));
        assert!(p50 >= Duration::from_millis(25) && p50 <= Duration::from_millis(26), "{p50:?}");
    }
}
