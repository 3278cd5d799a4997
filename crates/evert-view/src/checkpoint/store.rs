//! The store: entries by member in one keyspace of fjall.
//!
//! A key is the member's number (four bytes, big-endian), its part (stamp, definition, entry) and
//! the entry's own key. Number 0 has the manifest.
//!
//! Invariants
//! - The manifest appears in one step with the entries of its members.
//! - A member's stamp is the checkpoint at which its entries last changed, as in the manifest; if
//!   not, the member is not used.

use evert_fold::StateError;
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use thiserror::Error;

use super::manifest::Manifest;
use super::moments::Moment;
use super::{CheckpointConfig, Frozen, FrozenMember};

const MANIFEST: [u8; 4] = [0; 4];
pub(super) const STAMP: u8 = 0;
pub(super) const DEFINITION: u8 = 1;
pub(super) const ENTRY: u8 = 2;
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
    /// Batches, and tables at once, that were begun.
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

    /// The newest checkpoint, as it stays to be read.
    pub(crate) fn moment(&self) -> Option<Moment> {
        let manifest = self.manifest.clone()?;
        Some(Moment::new(manifest, self.entries.clone(), self.db.snapshot()))
    }

    /// Writes a checkpoint. It is there whole, or not at all.
    pub(crate) fn write(&mut self, frozen: &Frozen) -> Result<(), StoreError> {
        guarded(|| {
            if frozen.changes() >= self.config.table_changes() {
                self.not_stopped()?;
                self.write_tables(frozen)?;
            } else {
                self.write_batch(frozen)?;
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

    fn write_batch(&mut self, frozen: &Frozen) -> Result<(), StoreError> {
        let changes = changes(frozen);
        if self.config.writes_position_first() {
            let is_state = |(key, _): &Change| key.get(4) == Some(&ENTRY);
            let (state, position): (Vec<_>, Vec<_>) = changes.partition(is_state);
            self.not_stopped()?;
            self.commit(position)?;
            self.not_stopped()?;
            return self.commit(state);
        }
        self.not_stopped()?;
        self.commit(changes)
    }

    /// Counts a write that begins.
    fn not_stopped(&mut self) -> Result<(), StoreError> {
        if self.config.stops_after(self.written) {
            return Err(StoreError::Entry("stopped by a planted fault".to_owned()));
        }
        self.written += 1;
        Ok(())
    }

    /// Writes everything in the order of its keys, past the journal.
    fn write_tables(&mut self, frozen: &Frozen) -> Result<(), StoreError> {
        let mut tables = self.entries.start_ingestion()?;
        tables.write(MANIFEST, manifest_json(&frozen.manifest))?;
        let mut members: Vec<_> = frozen.members.iter().collect();
        members.sort_by_key(|member| member.number);
        for member in members {
            let headings = headings_of(member, frozen.manifest.serial);
            for (key, value) in headings {
                tables.write(key, value.unwrap_or_default())?;
            }
            for (entry, value) in member.entries.sorted() {
                let key = key(member.number, ENTRY, entry);
                match value {
                    Some(value) => tables.write(key, value)?,
                    None => tables.write_tombstone(key)?,
                }
            }
        }
        Ok(tables.finish()?)
    }

    /// Makes what was written survive a loss of power.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        guarded(|| Ok(self.db.persist(PersistMode::SyncAll)?))
    }

    fn commit(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.entries, key, value),
                None => batch.remove(&self.entries, key),
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
            self.commit(gone)?;
        }
    }
}

/// What a checkpoint changes.
fn changes(frozen: &Frozen) -> impl Iterator<Item = Change> {
    let serial = frozen.manifest.serial;
    let headings = frozen.members.iter().flat_map(move |member| headings_of(member, serial));
    let manifest = (MANIFEST.to_vec(), Some(manifest_json(&frozen.manifest)));
    let entries = frozen.members.iter().flat_map(entries_of);
    entries.chain(headings).chain(std::iter::once(manifest))
}

fn manifest_json(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("a manifest is plain data")
}

fn entries_of(member: &FrozenMember) -> impl Iterator<Item = Change> {
    // Each key once: what comes in one batch has no order.
    let entries = member.entries.sorted().into_iter();
    entries.map(|(entry, value)| (key(member.number, ENTRY, entry), value.map(<[u8]>::to_vec)))
}

fn headings_of(member: &FrozenMember, serial: u64) -> impl Iterator<Item = Change> {
    let stamp = (key(member.number, STAMP, &[]), Some(serial.to_be_bytes().to_vec()));
    let definition = member.definition.as_ref().map(|definition| {
        (key(member.number, DEFINITION, &[]), Some(definition.clone().into_bytes()))
    });
    std::iter::once(stamp).chain(definition)
}

pub(super) fn key(number: u32, part: u8, key: &[u8]) -> Vec<u8> {
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
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(StoreError::Panic))
}
