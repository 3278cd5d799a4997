//! When a checkpoint is taken, and what goes into it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evert_log::LogId;
use evert_model::Position;

use super::manifest::{Manifest, Member};
use super::moments::Moments;
use super::store::Store;
use super::writer::Writer;
use super::{Entries, Frozen, FrozenMember, Kept};
use crate::cohort::Cohort;

/// Between two checkpoints lies at least this many times what freezing the last one took.
const SPACING: u32 = 40;

/// The follower's side of checkpoints.
pub(crate) struct Checkpoints {
    writer: Writer,
    log: LogId,
    every: Duration,
    serial: u64,
    next_number: u32,
    /// The numbers of the last checkpoint's members, by label.
    numbers: BTreeMap<String, u32>,
    /// Of members that fold apart for a while. They go on noting what changes, so that their
    /// entries need not be written anew when they are back.
    away: BTreeMap<String, u32>,
    /// What the last checkpoint was taken at.
    position: Option<Position>,
    taken: Instant,
    cost: Duration,
}

impl Checkpoints {
    /// Goes on after what the store holds. `moments` hears of every checkpoint that is there.
    pub(crate) fn new(
        store: Store,
        moments: Arc<Moments>,
        log: LogId,
        every: Duration,
    ) -> std::io::Result<Self> {
        let (mut serial, mut next_number) = (0, 1);
        if let Some(manifest) = store.manifest() {
            let numbers = manifest.members.iter().map(|member| member.number);
            let numbers = numbers.chain(manifest.away.iter().copied());
            serial = manifest.serial;
            next_number = numbers.max().map_or(1, |last| last.saturating_add(1));
        }
        let writer = Writer::start(store, moments)?;
        let (taken, cost) = (Instant::now(), Duration::ZERO);
        let (numbers, away) = (BTreeMap::new(), BTreeMap::new());
        let position = None;
        Ok(Self { writer, log, every, serial, next_number, numbers, away, position, taken, cost })
    }

    /// Another member has joined, or one has left: the last checkpoint does not say so.
    pub(crate) fn members_changed(&mut self) {
        self.position = None;
    }

    /// A member goes on apart, and may come back.
    pub(crate) fn leaves(&mut self, label: &str) {
        if let Some((label, number)) = self.numbers.remove_entry(label) {
            self.away.insert(label, number);
        }
    }

    /// A member that went apart will not come back.
    pub(crate) fn is_gone(&mut self, label: &str) {
        self.away.remove(label);
    }

    /// How long until the next one is due; `None` if nothing has happened since the last.
    pub(crate) fn due_in(&self, position: Position) -> Option<Duration> {
        if self.position == Some(position) {
            return None;
        }
        let spacing = self.every.max(self.cost * SPACING);
        Some(spacing.saturating_sub(self.taken.elapsed()))
    }

    /// Takes one if it is due and the last has been written.
    pub(crate) fn take_if_due(&mut self, cohort: &mut Cohort) {
        if self.due_in(cohort.position()) == Some(Duration::ZERO) && !self.writer.is_busy() {
            self.take(cohort);
        }
    }

    fn take(&mut self, cohort: &mut Cohort) {
        let started = Instant::now();
        self.serial += 1;
        let position = cohort.position();
        let manifest = Manifest::new(self.log, self.serial, position, cohort.log_time());
        let mut frozen = Frozen { manifest, members: Vec::new() };
        frozen.manifest.next_offsets = cohort
            .next_offsets()
            .iter()
            .map(|(topic, ends)| (*topic, ends.iter().map(|end| end.get()).collect()))
            .collect();
        frozen.manifest.sources = cohort.sources().all();
        for member in cohort.members() {
            self.freeze(member, &mut frozen);
        }
        frozen.manifest.away = self.away.values().copied().collect();
        let members = frozen.manifest.members.iter();
        self.numbers = members.map(|member| (member.label.clone(), member.number)).collect();
        self.writer.write(frozen);
        self.position = Some(position);
        self.taken = Instant::now();
        self.cost = started.elapsed();
    }

    fn freeze(&mut self, member: &mut dyn Kept, frozen: &mut Frozen) {
        let Some(mark) = member.mark().copied() else { return };
        if mark.too_long {
            return;
        }
        let mut entries = Entries::default();
        member.save(&mut entries);
        let (label, is_new) = (member.label(), mark.number == 0);
        let definition = is_new.then(|| member.definition());
        let mark = member.mark().expect("it was there");
        if entries.is_too_long() {
            tracing::warn!(%label, "has keys too long for checkpoints: it will be replayed");
            mark.too_long = true;
            return;
        }
        if is_new {
            mark.number = self.next_number;
            self.next_number = self.next_number.checked_add(1).expect("fewer than 2^32 members");
        }
        if is_new || !entries.is_empty() {
            mark.changed_at = self.serial;
            let number = mark.number;
            frozen.members.push(FrozenMember { number, definition, entries });
        }
        let (number, changed_at) = (mark.number, mark.changed_at);
        self.away.remove(&label);
        frozen.manifest.members.push(Member { label, number, changed_at });
    }

    /// Takes the last one, of where the cohort is, and waits until it is on disk.
    pub(crate) fn finish(mut self, cohort: &mut Cohort) {
        if self.position != Some(cohort.position()) {
            self.writer.wait();
            if !self.writer.is_busy() {
                self.take(cohort);
            }
        }
        self.writer.finish();
    }
}
