//! An Iceberg table: its metadata, its files, and how a commit changes both at once.
//!
//! Owns: the layout of a table on its store, as Hadoop's catalog has it
//! (`metadata/v<n>.metadata.json`, `metadata/version-hint.text`, `data/`).
//! Not here: which rows go into it (`follow`), which files are merged (`compact`).
//!
//! Invariants
//! - A snapshot's rows and the position that it states are one commit: the new metadata file.
//!   Everything that it names is durable before it.
//! - Nothing that a kept snapshot names is deleted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use evert_model::RowSchema;
use iceberg::TableCreation;
use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, ManifestFile, PartitionSpec, Schema, Snapshot, TableMetadata,
    TableMetadataBuilder, UnboundPartitionSpec,
};
use uuid::Uuid;

use crate::commit::{Change, Commit};
use crate::days::{self, Day};
use crate::error::{ArchiveError, Result};
use crate::manifest::{self, LiveFile};
use crate::mark::{Mark, Owner};
use crate::schema::{Shape, with_new_columns};
use crate::store::{Store, UNFINISHED};

const HINT: &str = "metadata/version-hint.text";
/// Former metadata files that are kept.
const METADATA_VERSIONS: &str = "30";
const SNAPSHOT_AGE_MS: u64 = 1_800_000;

/// A table and its current snapshot. One process writes it.
pub(crate) struct Table {
    store: Store,
    url: String,
    owner: Owner,
    metadata: Arc<TableMetadata>,
    version: u64,
    mark: Mark,
    shape: Shape,
    manifests: Vec<ManifestFile>,
    files: Vec<LiveFile>,
    /// What no snapshot from this sequence number on names.
    garbage: Vec<(i64, String)>,
    /// How long snapshots are kept for those who read them.
    pub(crate) snapshot_age_ms: u64,
}

/// What a new table is made of.
pub(crate) struct NewTable {
    pub(crate) schema: Schema,
    pub(crate) spec: UnboundPartitionSpec,
}

impl Table {
    /// The table at a place, if there is one.
    pub(crate) async fn load(store: Store, url: String) -> Result<Option<Self>> {
        match Self::head(store, url).await? {
            None => Ok(None),
            Some(head) => head.with_files().await.map(Some),
        }
    }

    /// What the newest metadata of a place says, without the files that it names.
    pub(crate) async fn head(store: Store, url: String) -> Result<Option<Self>> {
        let Some(version) = newest(&store).await? else { return Ok(None) };
        let name = metadata_name(version);
        let bytes = existing(&store, &name).await?;
        let metadata: TableMetadata =
            serde_json::from_slice(&bytes).map_err(|error| ArchiveError::damaged(&name, error))?;
        let foreign = || {
            let what = format!("{url} holds a table that is no archive of Evert's");
            ArchiveError::Foreign(what)
        };
        let owner = Owner::read(metadata.properties()).ok_or_else(foreign)?;
        if metadata.format_version() != FormatVersion::V2 || metadata.location() != url {
            return Err(foreign());
        }
        let mark = match metadata.current_snapshot() {
            None => Mark::zero(),
            Some(snapshot) => Mark::read(&snapshot.summary().additional_properties)
                .ok_or_else(|| ArchiveError::Foreign(format!("{url}: {SOMEONE_ELSE}")))?,
        };
        let shape = Shape::new(metadata.current_schema())?;
        Ok(Some(Self {
            store,
            url,
            owner,
            metadata: Arc::new(metadata),
            version,
            mark,
            shape,
            manifests: Vec::new(),
            files: Vec::new(),
            garbage: Vec::new(),
            snapshot_age_ms: SNAPSHOT_AGE_MS,
        }))
    }

    /// Reads which files there are, of what was loaded as a head.
    pub(crate) async fn with_files(mut self) -> Result<Self> {
        if let Some(snapshot) = self.metadata.current_snapshot().cloned() {
            self.manifests = self.manifests_of(&snapshot).await?;
            for manifest in &self.manifests {
                let bytes = existing(&self.store, self.name_of(&manifest.manifest_path)?).await?;
                self.files.extend(manifest::read_files(manifest, bytes).await?);
            }
        }
        Ok(self)
    }

    /// Makes a table without rows, in the place of what is there: at once, so that readers see
    /// either.
    pub(crate) async fn create(
        (store, url): (Store, String),
        owner: Owner,
        new: NewTable,
    ) -> Result<Self> {
        let version = newest(&store).await?.unwrap_or(0);
        let mut properties = HashMap::from([
            ("write.format.default".to_owned(), "parquet".to_owned()),
            ("write.parquet.compression-codec".to_owned(), "zstd".to_owned()),
            ("write.metadata.previous-versions-max".to_owned(), METADATA_VERSIONS.to_owned()),
            ("write.metadata.delete-after-commit.enabled".to_owned(), "true".to_owned()),
        ]);
        owner.write(&mut properties);
        let creation = TableCreation::builder()
            .name(String::new())
            .location(url.clone())
            .schema(new.schema)
            .partition_spec(new.spec)
            .properties(properties)
            .build();
        let metadata = TableMetadataBuilder::from_table_creation(creation)
            .and_then(TableMetadataBuilder::build)
            .map_err(ArchiveError::made)?
            .metadata;
        let shape = Shape::new(metadata.current_schema())?;
        let mut table = Self {
            store,
            url,
            owner,
            metadata: Arc::new(metadata.clone()),
            version,
            mark: Mark::zero(),
            shape,
            manifests: Vec::new(),
            files: Vec::new(),
            garbage: Vec::new(),
            snapshot_age_ms: SNAPSHOT_AGE_MS,
        };
        table.write_metadata(metadata).await?;
        Ok(table)
    }

    /// Takes all rows out, for them to be written anew. It stays the same table to its readers,
    /// and what it held stays for those who read its snapshots, until these expire; unless some
    /// of it is lost.
    pub(crate) async fn emptied(mut self, owner: Owner, columns: &RowSchema) -> Result<Self> {
        let held = match self.named_files().await {
            Ok(named) => Some(named),
            Err(ArchiveError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let former = TableMetadata::clone(&self.metadata);
        let snapshots: Vec<i64> = former.snapshots().map(|it| it.snapshot_id()).collect();
        let last_id = former.last_column_id();
        let mut properties = HashMap::new();
        owner.write(&mut properties);
        let mut metadata = former
            .into_builder(Some(self.metadata_url()))
            .set_properties(properties)
            .map_err(ArchiveError::made)?
            .remove_ref(MAIN_BRANCH);
        if held.is_none() {
            metadata = metadata.remove_snapshots(&snapshots);
        }
        if let Some(schema) = with_new_columns(&self.shape.iceberg, columns, last_id)? {
            metadata = metadata.add_current_schema(schema).map_err(ArchiveError::made)?;
        }
        let metadata = metadata.build().map_err(ArchiveError::made)?.metadata;
        self.shape = Shape::new(metadata.current_schema())?;
        (self.owner, self.mark) = (owner, Mark::zero());
        self.write_metadata(metadata).await?;
        let sequence = self.metadata.next_sequence_number();
        // Lists of manifests go with their snapshots, metadata by its own count.
        let files = held.into_iter().flatten().filter(|name| {
            name.ends_with(".parquet") || (name.ends_with(".avro") && !name.contains("/snap-"))
        });
        self.garbage = files.map(|name| (sequence, format!("{}/{name}", self.url))).collect();
        Ok(self)
    }

    pub(crate) fn metadata(&self) -> &Arc<TableMetadata> {
        &self.metadata
    }

    pub(crate) fn metadata_url(&self) -> String {
        format!("{}/{}", self.url, metadata_name(self.version))
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// From the next commit on, another archive of the same facts writes it.
    pub(crate) fn adopt(&mut self, owner: Owner) {
        self.owner = owner;
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn manifests(&self) -> &[ManifestFile] {
        &self.manifests
    }

    pub(crate) fn files(&self) -> &[LiveFile] {
        &self.files
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn spec(&self) -> &PartitionSpec {
        self.metadata.default_partition_spec()
    }

    /// The column whose day parts the rows.
    pub(crate) fn parted_by(&self) -> Option<&str> {
        let [field] = self.spec().fields() else { return None };
        self.shape.iceberg.name_by_field_id(field.source_id)
    }

    /// When the current snapshot was made, in milliseconds since 1970; `None` if there is none.
    pub(crate) fn committed_ms(&self) -> Option<i64> {
        self.metadata.current_snapshot().map(|snapshot| snapshot.timestamp_ms())
    }

    /// A new data file's URL.
    pub(crate) fn new_file_url(&self, day: Day) -> String {
        let field = self.spec().fields().first().map_or("day", |field| field.name.as_str());
        format!("{}/data/{field}={}/{}.parquet", self.url, days::named(day), Uuid::new_v4())
    }

    /// The name on the store of a file of this table.
    pub(crate) fn name_of<'a>(&self, url: &'a str) -> Result<&'a str> {
        let name = url.strip_prefix(self.url.as_str()).and_then(|name| name.strip_prefix('/'));
        let name = name.filter(|name| !name.split('/').any(|part| part == ".."));
        name.ok_or_else(|| ArchiveError::damaged(url, "it lies outside of its table"))
    }

    /// A data file's bytes.
    pub(crate) async fn read_file(&self, url: &str) -> Result<Bytes> {
        existing(&self.store, self.name_of(url)?).await
    }

    async fn manifests_of(&self, snapshot: &Snapshot) -> Result<Vec<ManifestFile>> {
        let url = snapshot.manifest_list();
        let bytes = existing(&self.store, self.name_of(url)?).await?;
        manifest::read_list(url, &bytes)
    }

    /// Makes a new snapshot. On an error nothing has changed here; on the store the commit may
    /// have come through, which loading the table again finds out.
    pub(crate) async fn commit(&mut self, change: Change, mark: Mark, now_ms: i64) -> Result<()> {
        self.check().await?;
        let sequence = self.metadata.next_sequence_number();
        let made = Commit::new(self, change.schema.as_ref())?.make(&change, &mark, now_ms).await?;
        let shape = Shape::new(made.metadata.current_schema())?;
        self.write_metadata(made.metadata).await?;
        self.shape = shape;
        self.mark = mark;
        self.manifests = made.manifests;
        self.files = made.files;
        self.garbage.extend(made.unnamed_from_now.into_iter().map(|url| (sequence, url)));
        self.sweep(made.unnamed).await;
        Ok(())
    }

    /// Whether the table is still where it was: somebody may have deleted it.
    pub(crate) async fn check(&self) -> Result<()> {
        match self.store.exists(&metadata_name(self.version)).await? {
            true => Ok(()),
            false => Err(ArchiveError::damaged(
                &self.url,
                "the table is gone; REBUILD ARCHIVE writes it anew from what the log holds",
            )),
        }
    }

    /// Deletes what no snapshot names any more. What cannot be deleted now is when the table is
    /// opened again.
    async fn sweep(&mut self, mut gone: Vec<String>) {
        let oldest = self.metadata.snapshots().map(|snapshot| snapshot.sequence_number()).min();
        let oldest = oldest.unwrap_or_default();
        let unnamed = self.garbage.extract_if(.., |(since, _)| *since <= oldest);
        gone.extend(unnamed.map(|(_, url)| url));
        for url in gone {
            let Ok(name) = self.name_of(&url) else { continue };
            if let Err(error) = self.store.delete(name).await {
                tracing::warn!(%error, "an archive's old file stays");
            }
        }
    }

    async fn write_metadata(&mut self, metadata: TableMetadata) -> Result<()> {
        let (version, bytes) = (self.version + 1, serde_json::to_vec(&metadata));
        let bytes = bytes.map_err(ArchiveError::made)?;
        if !self.store.put_new(&metadata_name(version), bytes.into()).await? {
            return Err(ArchiveError::Overtaken(version));
        }
        self.version = version;
        self.metadata = Arc::new(metadata);
        // Readers that follow the hint come a commit late if it cannot be written.
        if let Err(error) = self.store.put(HINT, version.to_string().into()).await {
            tracing::warn!(%error, "an archive's version hint stays behind");
        }
        Ok(())
    }

    /// Deletes the files that no kept snapshot names: what a commit that did not come through
    /// has left, and what could not be deleted when its time came.
    pub(crate) async fn clean(&self) -> Result<usize> {
        let named = self.named_files().await?;
        let mut deleted = 0;
        for under in ["data", "metadata"] {
            for name in self.store.list(under).await? {
                let own = [".parquet", ".avro", ".metadata.json"].iter().any(|e| name.ends_with(e));
                let newer = version_of(&name).is_some_and(|version| version > self.version);
                if (own || name.contains(UNFINISHED)) && !named.contains(&name) && !newer {
                    self.store.delete(&name).await?;
                    deleted += 1;
                }
            }
        }
        Ok(deleted)
    }

    async fn named_files(&self) -> Result<HashSet<String>> {
        let mut named = HashSet::from([metadata_name(self.version)]);
        for log in self.metadata.metadata_log() {
            named.insert(self.name_of(&log.metadata_file)?.to_owned());
        }
        for snapshot in self.metadata.snapshots() {
            named.insert(self.name_of(snapshot.manifest_list())?.to_owned());
            for manifest in self.manifests_of(snapshot).await? {
                let name = self.name_of(&manifest.manifest_path)?.to_owned();
                if named.contains(&name) {
                    continue;
                }
                let bytes = existing(&self.store, &name).await?;
                for live in manifest::read_files(&manifest, bytes).await? {
                    named.insert(self.name_of(live.file.file_path())?.to_owned());
                }
                named.insert(name);
            }
        }
        Ok(named)
    }
}

const SOMEONE_ELSE: &str = "the newest snapshot does not say its position: something else than \
                            Evert has written to the table";

/// The newest version of the table's metadata.
async fn newest(store: &Store) -> Result<Option<u64>> {
    let names = store.list("metadata").await?;
    Ok(names.iter().filter_map(|name| version_of(name)).max())
}

fn metadata_name(version: u64) -> String {
    format!("metadata/v{version}.metadata.json")
}

fn version_of(name: &str) -> Option<u64> {
    name.strip_prefix("metadata/v")?.strip_suffix(".metadata.json")?.parse().ok()
}

async fn existing(store: &Store, name: &str) -> Result<Bytes> {
    let found = store.read(name).await?;
    found.ok_or_else(|| ArchiveError::damaged(name, "it is gone"))
}
