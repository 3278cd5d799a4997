//! A snapshot in the making: which manifests it has, what its summary says.
//!
//! Not here: the commit itself, which is the metadata file's appearance (`table`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    DataFile, MAIN_BRANCH, ManifestFile, Operation, Schema, SchemaRef, Snapshot, Summary,
    TableMetadata, TableMetadataBuilder,
};
use uuid::Uuid;

use crate::error::{ArchiveError, Result};
use crate::manifest::{self, LiveFile, NewManifest};
use crate::mark::Mark;
use crate::table::Table;

/// Manifests of fewer files than this are merged once there are many.
const SMALL_MANIFEST_FILES: u32 = 1_000;
const SMALL_MANIFESTS_MAX: usize = 24;
/// Snapshots that are kept however old they are.
const SNAPSHOTS_MIN: usize = 5;

/// What a commit changes.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) added: Vec<DataFile>,
    /// URLs of files whose rows are in the added ones.
    pub(crate) merged: HashSet<String>,
    /// A schema with more columns.
    pub(crate) schema: Option<Schema>,
}

/// A snapshot being made.
pub(crate) struct Commit<'a> {
    table: &'a Table,
    id: i64,
    uuid: Uuid,
    sequence: i64,
    schema: SchemaRef,
    metadata: TableMetadataBuilder,
    manifests: Vec<ManifestFile>,
    files: Vec<LiveFile>,
    removed: Vec<LiveFile>,
    unnamed_from_now: Vec<String>,
    manifests_written: usize,
}

/// A snapshot that is made and not committed.
pub(crate) struct Made {
    pub(crate) metadata: TableMetadata,
    pub(crate) manifests: Vec<ManifestFile>,
    pub(crate) files: Vec<LiveFile>,
    /// Files that this snapshot and later ones do not name.
    pub(crate) unnamed_from_now: Vec<String>,
    /// Files that no snapshot names once this is committed.
    pub(crate) unnamed: Vec<String>,
}

impl<'a> Commit<'a> {
    pub(crate) fn new(table: &'a Table, new_schema: Option<&Schema>) -> Result<Self> {
        let former = TableMetadata::clone(table.metadata());
        let mut metadata = former.into_builder(Some(table.metadata_url()));
        let mut schema = Arc::clone(table.metadata().current_schema());
        if let Some(new) = new_schema {
            metadata = metadata.add_current_schema(new.clone()).map_err(ArchiveError::made)?;
            // The builder has given the schema its number.
            let built = metadata.clone().build().map_err(ArchiveError::made)?;
            schema = Arc::clone(built.metadata.current_schema());
        }
        let mut owner = HashMap::new();
        table.owner().write(&mut owner);
        metadata = metadata.set_properties(owner).map_err(ArchiveError::made)?;
        let uuid = Uuid::new_v4();
        let (high, low) = uuid.as_u64_pair();
        Ok(Self {
            table,
            id: ((high ^ low) & i64::MAX as u64) as i64,
            uuid,
            sequence: table.metadata().next_sequence_number(),
            schema,
            metadata,
            manifests: Vec::new(),
            files: Vec::new(),
            removed: Vec::new(),
            unnamed_from_now: Vec::new(),
            manifests_written: 0,
        })
    }

    /// Writes manifests and their list, and makes the metadata that names them.
    pub(crate) async fn make(mut self, change: &Change, mark: &Mark, now_ms: i64) -> Result<Made> {
        self.write_manifests(change).await?;
        let parent = self.table.metadata().current_snapshot_id();
        let name = format!("metadata/snap-{}-1-{}.avro", self.id, self.uuid);
        let list = format!("{}/{name}", self.table.url());
        let bytes =
            manifest::make_list(&list, self.id, parent, self.sequence, &mut self.manifests).await?;
        self.table.store().put(&name, bytes).await?;
        // Clocks go back; the table's history does not.
        let last = self.table.committed_ms().unwrap_or_default();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(self.sequence)
            .with_timestamp_ms(now_ms.max(last))
            .with_manifest_list(list)
            .with_summary(self.summary(change, mark))
            .with_schema_id(self.schema.schema_id())
            .build();
        let expired = expired(self.table.metadata(), now_ms, self.table.snapshot_age_ms);
        let built = self
            .metadata
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .map(|metadata| metadata.remove_snapshots(&expired))
            .and_then(TableMetadataBuilder::build)
            .map_err(ArchiveError::made)?;
        let former = self.table.metadata();
        let lists = expired.iter().filter_map(|id| former.snapshot_by_id(*id));
        let lists = lists.map(|snapshot| snapshot.manifest_list().to_owned());
        let logs = built.expired_metadata_logs.into_iter().map(|log| log.metadata_file);
        Ok(Made {
            metadata: built.metadata,
            manifests: self.manifests,
            files: self.files,
            unnamed_from_now: self.unnamed_from_now,
            unnamed: lists.chain(logs).collect(),
        })
    }

    /// The manifests that stay; one of what those that do not have left and lost; one of what is
    /// added.
    async fn write_manifests(&mut self, change: &Change) -> Result<()> {
        let table = self.table;
        let small = table.manifests().iter().filter(|manifest| is_small(manifest)).count();
        let merges = small >= SMALL_MANIFESTS_MAX;
        let mut by_manifest: HashMap<&str, Vec<&LiveFile>> = HashMap::new();
        for live in table.files() {
            by_manifest.entry(&live.manifest).or_default().push(live);
        }
        let mut kept = Vec::new();
        for manifest in table.manifests() {
            let files = by_manifest.remove(manifest.manifest_path.as_str()).unwrap_or_default();
            let (lost, stay): (Vec<_>, Vec<_>) =
                files.into_iter().partition(|l| change.merged.contains(l.file.file_path()));
            // One without files said what an earlier snapshot has lost.
            let has_files = !stay.is_empty() || !lost.is_empty();
            if has_files && lost.is_empty() && !(merges && is_small(manifest)) {
                self.files.extend(stay.into_iter().cloned());
                self.manifests.push(manifest.clone());
                continue;
            }
            self.unnamed_from_now.push(manifest.manifest_path.clone());
            kept.extend(stay.into_iter().cloned());
            self.removed.extend(lost.into_iter().cloned());
        }
        if self.removed.len() != change.merged.len() {
            return Err(ArchiveError::Invalid("a file to be merged is not there".into()));
        }
        let lost = self.removed.iter().map(|live| live.file.file_path().to_owned());
        self.unnamed_from_now.extend(lost);
        let removed = std::mem::take(&mut self.removed);
        if !kept.is_empty() || !removed.is_empty() {
            self.write_manifest(&[], &kept, &removed).await?;
        }
        if !change.added.is_empty() {
            self.write_manifest(&change.added, &[], &[]).await?;
        }
        self.removed = removed;
        Ok(())
    }

    async fn write_manifest(
        &mut self,
        added: &[DataFile],
        kept: &[LiveFile],
        removed: &[LiveFile],
    ) -> Result<()> {
        let table = self.table;
        let name = format!("metadata/{}-m{}.avro", self.uuid, self.manifests_written);
        self.manifests_written += 1;
        let url = format!("{}/{name}", table.url());
        let new = NewManifest {
            url: url.clone(),
            snapshot_id: self.id,
            schema: &self.schema,
            spec: table.spec(),
            added,
            kept,
            removed,
        };
        let (bytes, manifest) = new.make().await?;
        table.store().put(&name, bytes).await?;
        self.manifests.push(manifest);
        let moved = |live: &LiveFile| LiveFile { manifest: url.clone(), ..live.clone() };
        self.files.extend(kept.iter().map(moved));
        self.files.extend(added.iter().map(|file| LiveFile {
            file: file.clone(),
            snapshot_id: self.id,
            sequence: self.sequence,
            file_sequence: self.sequence,
            manifest: url.clone(),
        }));
        Ok(())
    }

    fn summary(&self, change: &Change, mark: &Mark) -> Summary {
        let added: Vec<&DataFile> = change.added.iter().collect();
        let removed: Vec<&DataFile> = self.removed.iter().map(|live| &live.file).collect();
        let parts: HashSet<_> = added.iter().chain(&removed).map(|file| file.partition()).collect();
        let rows = |files: &[&DataFile]| files.iter().map(|file| file.record_count()).sum();
        let bytes = |files: &[&DataFile]| files.iter().map(|file| file.file_size_in_bytes()).sum();
        // The library's own collector names parts by their dates, and knows no infinity.
        let changed: [(&str, u64); 7] = [
            ("added-data-files", added.len() as u64),
            ("added-records", rows(&added)),
            ("added-files-size", bytes(&added)),
            ("deleted-data-files", removed.len() as u64),
            ("deleted-records", rows(&removed)),
            ("removed-files-size", bytes(&removed)),
            ("changed-partition-count", parts.len() as u64),
        ];
        let changed = changed.into_iter().filter(|(_, count)| *count > 0);
        let changed = changed.map(|(name, count)| (name.to_owned(), count.to_string()));
        let mut properties: HashMap<_, _> = changed.collect();
        let files = || self.files.iter().map(|live| &live.file);
        let totals = [
            ("total-data-files", self.files.len() as u64),
            ("total-records", files().map(DataFile::record_count).sum()),
            ("total-files-size", files().map(DataFile::file_size_in_bytes).sum()),
            ("total-delete-files", 0),
            ("total-position-deletes", 0),
            ("total-equality-deletes", 0),
        ];
        properties.extend(totals.map(|(name, value)| (name.to_owned(), value.to_string())));
        mark.write(self.table.owner(), &mut properties);
        let operation =
            if self.removed.is_empty() { Operation::Append } else { Operation::Replace };
        Summary { operation, additional_properties: properties }
    }
}

fn is_small(manifest: &ManifestFile) -> bool {
    let files = [manifest.added_files_count, manifest.existing_files_count];
    files.iter().map(|count| count.unwrap_or(0)).sum::<u32>() < SMALL_MANIFEST_FILES
}

/// Snapshots that need not be kept any longer.
fn expired(metadata: &TableMetadata, now_ms: i64, age_ms: u64) -> Vec<i64> {
    let since = now_ms.saturating_sub_unsigned(age_ms);
    let mut snapshots: Vec<_> = metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence_number()));
    let rest = snapshots.into_iter().skip(SNAPSHOTS_MIN);
    let old = rest.filter(|snapshot| snapshot.timestamp_ms() < since);
    old.map(|snapshot| snapshot.snapshot_id()).collect()
}
