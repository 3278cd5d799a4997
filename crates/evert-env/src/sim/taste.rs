//! What a crash keeps of what was not synced: one manner a crash, drawn from its seed.

use fastrand::Rng;

/// The manner in which one crash treats what was not synced.
///
/// Purely random losses seldom make the clean extremes, and bugs live in both: so they are
/// drawn as often as the mixtures.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taste {
    /// Nothing that was not synced survives.
    Nothing,
    /// Everything survives, as if the power had failed a little later.
    Everything,
    /// What was done up to some moment survives, in order, and nothing later.
    Prefix,
    /// Each piece survives with this chance, in per cent.
    Each(u8),
}

impl Taste {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..6) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::Prefix,
            3 => Self::Each(95),
            4 => Self::Each(10),
            _ => Self::Each(rng.u8(20..80)),
        }
    }

    /// How many of `count` changes survive whose order the disk keeps.
    pub(super) fn prefix(self, count: usize, rng: &mut Rng) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Everything => count,
            Self::Prefix => rng.usize(..=count),
            Self::Each(percent) if rng.u8(..100) < percent => count,
            Self::Each(_) => rng.usize(..=count),
        }
    }

    /// Whether one change survives whose order the disk does not keep.
    pub(super) fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Prefix => rng.bool(),
            Self::Each(percent) => rng.u8(..100) < percent,
        }
    }
}
