//! Moments: the checkpoints that the past is folded on from: the newest, and some before it.
//!
//! Owns: which of them can still be read, and what that may cost.
//! Not here: what is folded on from one (`past`).
//!
//! Invariants
//! - A moment is read as it was written, whatever is written after it.
//! - What is kept is bounded in number, and in what was written since the oldest of them: the
//!   store keeps all of that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evert_fold::StateError;
use evert_model::Position;
use fjall::{Keyspace, Readable, Snapshot};

use super::manifest::{Manifest, Member};
use super::store::{DEFINITION, ENTRY, STAMP, StoreError, guarded, key};
use super::{Kept, Mark};

/// Moments at a time.
const MOMENTS_MAX: usize = 8;
/// Bytes of entries written since the oldest of them.
const BYTES_MAX: usize = 128 << 20;

/// A checkpoint, to be read for as long as this is held.
pub(crate) struct Moment {
    pub(super) manifest: Manifest,
    entries: Keyspace,
    snapshot: Snapshot,
}

impl Moment {
    /// `snapshot` is of a store whose newest checkpoint is `manifest`.
    pub(super) fn new(manifest: Manifest, entries: Keyspace, snapshot: Snapshot) -> Self {
        Self { manifest, entries, snapshot }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Makes `member` as it was, and returns its number of entries. `None` if it was not kept, or
    /// cannot be used; then it may be left half made.
    pub(super) fn load(&self, member: &mut dyn Kept) -> Option<usize> {
        let label = member.label();
        let saved = self.manifest.member(&label)?;
        let definition = member.definition();
        member.mark()?;
        // Nothing read from a disk may take the process down.
        let loaded = catch_unwind(AssertUnwindSafe(|| -> Result<usize, StoreError> {
            let take = |key: &[u8], value: &[u8]| member.load(key, value);
            let count = self.entries_of(saved, &definition, take)?;
            member.loaded()?;
            Ok(count)
        }));
        let panicked = || StateError("loading panicked".to_owned()).into();
        match loaded.unwrap_or_else(|_| Err(panicked())) {
            Ok(count) => {
                if let Some(mark) = member.mark() {
                    let (number, changed_at) = (saved.number, saved.changed_at);
                    *mark = Mark { number, changed_at, too_long: false };
                }
                Some(count)
            }
            Err(error) => {
                tracing::warn!(%label, %error, "not taken from the checkpoint: replayed");
                None
            }
        }
    }

    /// Gives a member's entries in the order of their keys.
    fn entries_of(
        &self,
        member: &Member,
        definition: &str,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
    ) -> Result<usize, StoreError> {
        guarded(|| {
            let number = member.number;
            let heading = |part| self.snapshot.get(&self.entries, key(number, part, &[]));
            if heading(STAMP)?.as_deref() != Some(&member.changed_at.to_be_bytes()[..]) {
                return Err(StoreError::Entry("its state is not of its checkpoint".to_owned()));
            }
            if heading(DEFINITION)?.as_deref() != Some(definition.as_bytes()) {
                return Err(StoreError::Entry("it was defined otherwise".to_owned()));
            }
            let prefix = key(number, ENTRY, &[]);
            let mut count = 0;
            for entry in self.snapshot.prefix(&self.entries, &prefix) {
                let (key, value) = entry.into_inner()?;
                take(&key[prefix.len()..], &value)?;
                count += 1;
            }
            Ok(count)
        })
    }
}

/// The moments that can be gone back to.
#[derive(Default)]
pub(crate) struct Moments {
    /// The oldest first.
    kept: Mutex<Vec<KeptMoment>>,
}

struct KeptMoment {
    moment: Arc<Moment>,
    taken: Instant,
    /// Of entries that it has over the moment before it.
    bytes: usize,
}

impl Moments {
    fn lock(&self) -> MutexGuard<'_, Vec<KeptMoment>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last one at or before `position`.
    pub(crate) fn upto(&self, position: Position) -> Option<Arc<Moment>> {
        let kept = self.lock();
        let found = kept.iter().rfind(|kept| kept.moment.manifest.position() <= position);
        found.map(|found| Arc::clone(&found.moment))
    }

    /// Keeps a checkpoint that has just been written, with so many `bytes` of entries.
    pub(super) fn keep(&self, moment: Moment, bytes: usize) {
        let mut kept = self.lock();
        kept.push(KeptMoment { moment: Arc::new(moment), taken: Instant::now(), bytes });
        let mut since: usize = kept.iter().skip(1).map(|kept| kept.bytes).sum();
        while since > BYTES_MAX && kept.len() > 1 {
            kept.remove(0);
            since -= kept[0].bytes;
        }
        if kept.len() > MOMENTS_MAX {
            let densest = densest(&kept.iter().map(|kept| kept.taken).collect::<Vec<_>>());
            let gone = kept.remove(densest);
            kept[densest].bytes += gone.bytes;
        }
    }

    /// Lets go of all, so that the store can be closed.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}

/// Which of at least three moments is missed least: the older, the further apart they may lie.
/// Never the first or the last.
fn densest(taken: &[Instant]) -> usize {
    let now = taken[taken.len() - 1];
    let gap_by_age = |&at: &usize| {
        let gap = taken[at + 1].duration_since(taken[at - 1]);
        gap.as_secs_f64() / now.duration_since(taken[at]).as_secs_f64().max(f64::MIN_POSITIVE)
    };
    let inner = 1..taken.len() - 1;
    inner.min_by(|a, b| gap_by_age(a).total_cmp(&gap_by_age(b))).expect("there are three")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_older_the_further_apart() {
        let start = Instant::now();
        let mut taken = Vec::new();
        for second in 0..3_600 {
            taken.push(start + Duration::from_secs(second));
            if taken.len() > MOMENTS_MAX {
                taken.remove(densest(&taken));
            }
        }
        assert_eq!(taken.len(), MOMENTS_MAX);
        assert_eq!(taken[0], start);
        let ages: Vec<u64> = taken.iter().map(|at| 3_599 - (*at - start).as_secs()).collect();
        assert_eq!(ages[MOMENTS_MAX - 1], 0);
        // Each age is at most so many times the next: the way back from any position is short.
        let wide = ages.windows(2).filter(|pair| pair[0] > 8 * pair[1].max(1)).count();
        assert_eq!(wide, 0, "{ages:?}");
    }
}
