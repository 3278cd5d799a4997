//! The store: entries by member in one keyspace of fjall.
//!
//! A key is the member's number (four bytes, big-endian), its part (stamp, definition, entry) and
//! the entry's own key. Number 0 has the manifest.
//!
//! Invariants
//! - The manifest is written in one batch with the entries of the members that were in the last
//!   one. A newcomer's entries may come before: nothing refers to them until then.
//! - A member's stamp is the checkpoint at which its entries last changed, as in the manifest; if
//!   not, the member is not used.

use evert_fold::StateError;
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use thiserror::Error;

use super::manifest::{Manifest, Member};
use super::{CheckpointConfig, Frozen, FrozenMember};

const MANIFEST: [u8; 4] = [0; 4];
const STAMP: u8 = 0;
const DEFINITION: u8 = 1;
const ENTRY: u8 = 2;
/// Deletions in one batch.
const BATCH_DELETIONS: usize = 20_000;
const CACHE_BYTES: u64 = 4 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: u32 = 16 << 10;

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The store failed.
    #[error("{0}")]
    Fjall(#[from] fjall::Error),
    /// The store panicked over what it found.
    #[error("the store panicked")]
    Panic,
    /// An entry is not what was written.
    #[error("{0}")]
    Entry(String),
}

impl From<StateError> for StoreError {
    fn from(error: StateError) -> Self {
        Self::Entry(error.to_string())
    }
}

/// Entries on disk.
pub(crate) struct Store {
    config: CheckpointConfig,
    db: Database,
    entries: Keyspace,
    manifest: Option<Manifest>,
    /// Batches written.
    written: u64,
}

/// One change of the store: its key, and its value if it has one.
type Change = (Vec<u8>, Option<Vec<u8>>);

impl Store {
    /// Opens what is there, or begins anew if it cannot be read.
    pub(crate) fn open_or_discard(config: &CheckpointConfig) -> Result<Self, StoreError> {
        match Self::open(config) {
            Ok(store) => Ok(store),
            Err(error) => {
                tracing::warn!(%error, "the checkpoint cannot be read and is discarded");
                Self::anew(config)
            }
        }
    }

    /// Begins anew, whatever was there.
    pub(crate) fn anew(config: &CheckpointConfig) -> Result<Self, StoreError> {
        if config.dir.exists() {
            std::fs::remove_dir_all(&config.dir).map_err(fjall::Error::Io)?;
        }
        Self::open(config)
    }

    pub(crate) fn open(config: &CheckpointConfig) -> Result<Self, StoreError> {
        guarded(|| {
            let db = Database::builder(&config.dir)
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNAL_BYTES)
                .worker_threads(1)
                .open()?;
            // Entries are only ever scanned: filters would cost and never serve.
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE_BYTES)
                    .filter_policy(FilterPolicy::disabled())
                    .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
            };
            let entries = db.keyspace("entries", options)?;
            let manifest = match entries.get(MANIFEST)? {
                None => None,
                Some(json) => Some(
                    serde_json::from_slice(&json)
                        .map_err(|error| StoreError::Entry(format!("manifest: {error}")))?,
                ),
            };
            let mut store = Self { config: config.clone(), db, entries, manifest, written: 0 };
            store.remove_strays()?;
            Ok(store)
        })
    }

    pub(crate) fn config(&self) -> &CheckpointConfig {
        &self.config
    }

    /// The newest checkpoint, if there is one.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Gives a member's entries in the order of their keys.
    pub(crate) fn load(
        &self,
        member: &Member,
        definition: &str,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
    ) -> Result<usize, StoreError> {
        guarded(|| {
            let number = member.number;
            let stamp = self.entries.get(key(number, STAMP, &[]))?;
            if stamp.as_deref() != Some(&member.changed_at.to_be_bytes()[..]) {
                return Err(StoreError::Entry("its state is not of its checkpoint".to_owned()));
            }
            let saved = self.entries.get(key(number, DEFINITION, &[]))?;
            if saved.as_deref() != Some(definition.as_bytes()) {
                return Err(StoreError::Entry("it was defined otherwise".to_owned()));
            }
            let prefix = key(number, ENTRY, &[]);
            let mut count = 0;
            for entry in self.entries.prefix(&prefix) {
                let (key, value) = entry.into_inner()?;
                take(&key[prefix.len()..], &value)?;
                count += 1;
            }
            Ok(count)
        })
    }

    /// Writes a checkpoint. It is there whole, or not at all.
    pub(crate) fn write(&mut self, frozen: &Frozen) -> Result<(), StoreError> {
        guarded(|| {
            for batch in self.ordered(frozen) {
                if self.config.stops_after(self.written) {
                    return Err(StoreError::Entry("stopped by a planted fault".to_owned()));
                }
                self.commit(&batch)?;
                self.written += 1;
            }
            let kept: BTreeSet<u32> = held_numbers(&frozen.manifest).collect();
            let before = self.manifest.replace(frozen.manifest.clone());
            for number in
                before.iter().flat_map(held_numbers).filter(|number| !kept.contains(number))
            {
                self.remove_member(number)?;
            }
            Ok(())
        })
    }

    /// Makes what was written survive a loss of power.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        guarded(|| Ok(self.db.persist(PersistMode::SyncAll)?))
    }

    fn ordered<'a>(&self, frozen: &'a Frozen) -> Box<dyn Iterator<Item = Vec<Change>> + 'a> {
        let batches = batches(frozen, self.config.batch_changes());
        if self.config.writes_position_first() {
            return Box::new(position_first(batches).into_iter());
        }
        Box::new(batches)
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.entries, key.as_slice(), value.as_slice()),
                None => batch.remove(&self.entries, key.as_slice()),
            }
        }
        Ok(batch.commit()?)
    }

    /// Removes entries of members that no manifest refers to: what a crash has left.
    fn remove_strays(&mut self) -> Result<(), StoreError> {
        let kept: BTreeSet<u32> = self.manifest.iter().flat_map(numbers).collect();
        let mut from = 1_u32;
        loop {
            let Some(found) = self.entries.range(from.to_be_bytes()..).next() else {
                return Ok(());
            };
            let key = found.key()?;
            let number = key.first_chunk::<4>().map(|number| u32::from_be_bytes(*number));
            let number = number.ok_or_else(|| StoreError::Entry("a key is too short".into()))?;
            if !kept.contains(&number) {
                self.remove_member(number)?;
            }
            let Some(next) = number.checked_add(1) else { return Ok(()) };
            from = next;
        }
    }

    fn remove_member(&self, number: u32) -> Result<(), StoreError> {
        // One pass over what was there at its beginning: a second would meet every deletion.
        let mut found = self.entries.prefix(number.to_be_bytes());
        loop {
            let gone: Vec<Change> = found
                .by_ref()
                .take(BATCH_DELETIONS)
                .map(|entry| entry.key().map(|key| (key.to_vec(), None)))
                .collect::<Result<_, _>>()?;
            if gone.is_empty() {
                return Ok(());
            }
            self.commit(&gone)?;
        }
    }
}

/// What is written, batch by batch: newcomers in as many as they need, then everything else and
/// the manifest in the last.
fn batches(frozen: &Frozen, changes_max: usize) -> impl Iterator<Item = Vec<Change>> {
    let is_large = move |member: &&FrozenMember| {
        member.definition.is_some() && member.entries.len() > changes_max
    };
    let early = frozen.members.iter().filter(is_large).flat_map(move |member| {
        let mut entries = entries_of(member);
        std::iter::from_fn(move || {
            let batch: Vec<Change> = entries.by_ref().take(changes_max).collect();
            (!batch.is_empty()).then_some(batch)
        })
    });
    early.chain(std::iter::once_with(move || {
        let small = frozen.members.iter().filter(|member| !is_large(member));
        let mut last: Vec<Change> = small.flat_map(entries_of).collect();
        let serial = frozen.manifest.serial;
        last.extend(frozen.members.iter().flat_map(|member| headings_of(member, serial)));
        let manifest = serde_json::to_vec(&frozen.manifest).expect("a manifest is plain data");
        last.push((MANIFEST.to_vec(), Some(manifest)));
        last
    }))
}

/// The fault that [`CheckpointConfig`] can be told to make: position and stamps in a batch of
/// their own, before the state.
fn position_first(batches: impl Iterator<Item = Vec<Change>>) -> Vec<Vec<Change>> {
    let is_state = |(key, _): &Change| key.get(4) == Some(&ENTRY);
    let (state, position) = batches.flatten().partition(is_state);
    vec![position, state]
}

fn entries_of(member: &FrozenMember) -> impl Iterator<Item = Change> {
    let entries = member.entries.iter();
    entries.map(|(entry, value)| (key(member.number, ENTRY, entry), value.map(<[u8]>::to_vec)))
}

fn headings_of(member: &FrozenMember, serial: u64) -> impl Iterator<Item = Change> {
    let stamp = (key(member.number, STAMP, &[]), Some(serial.to_be_bytes().to_vec()));
    let definition = member.definition.as_ref().map(|definition| {
        (key(member.number, DEFINITION, &[]), Some(definition.clone().into_bytes()))
    });
    std::iter::once(stamp).chain(definition)
}

fn key(number: u32, part: u8, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + key.len());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.push(part);
    bytes.extend_from_slice(key);
    bytes
}

fn numbers(manifest: &Manifest) -> impl Iterator<Item = u32> {
    manifest.members.iter().map(|member| member.number)
}

/// Those of members, and of those that are away.
fn held_numbers(manifest: &Manifest) -> impl Iterator<Item = u32> {
    numbers(manifest).chain(manifest.away.iter().copied())
}

/// Damaged files must not take the process down, whatever the store makes of them.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(StoreError::Panic))
}
