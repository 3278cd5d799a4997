//! Manifests and manifest lists: which files a snapshot has. Bytes only, no storage.
//!
//! Format: the Iceberg specification, version 2, sections "Manifests" and "Snapshots".

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, ManifestFile, ManifestList, ManifestListWriter, ManifestWriterBuilder,
    PartitionSpec, SchemaRef, UNASSIGNED_SEQUENCE_NUMBER,
};

use crate::error::{ArchiveError, Result};

/// A file of the current snapshot.
#[derive(Clone, Debug)]
pub(crate) struct LiveFile {
    pub(crate) file: DataFile,
    /// The snapshot that added it.
    pub(crate) snapshot_id: i64,
    pub(crate) sequence: i64,
    pub(crate) file_sequence: i64,
    /// The manifest that lists it.
    pub(crate) manifest: String,
}

/// What a manifest is to say.
pub(crate) struct NewManifest<'a> {
    pub(crate) url: String,
    pub(crate) snapshot_id: i64,
    pub(crate) schema: &'a SchemaRef,
    pub(crate) spec: &'a PartitionSpec,
    pub(crate) added: &'a [DataFile],
    pub(crate) kept: &'a [LiveFile],
    pub(crate) removed: &'a [LiveFile],
}

impl NewManifest<'_> {
    /// Its bytes, and its entry in a list.
    pub(crate) async fn make(self) -> Result<(Bytes, ManifestFile)> {
        let files = FileIO::new_with_memory();
        let output = files.new_output(&self.url).map_err(ArchiveError::made)?;
        let (schema, spec) = (self.schema.clone(), self.spec.clone());
        let builder = ManifestWriterBuilder::new(output, Some(self.snapshot_id), schema, spec);
        let mut writer = builder.build_v2_data();
        for live in self.kept {
            let LiveFile { file, snapshot_id, sequence, file_sequence, .. } = live.clone();
            writer
                .add_existing_file(file, snapshot_id, sequence, Some(file_sequence))
                .map_err(ArchiveError::made)?;
        }
        for live in self.removed {
            let LiveFile { file, sequence, file_sequence, .. } = live.clone();
            writer
                .add_delete_file(file, sequence, Some(file_sequence))
                .map_err(ArchiveError::made)?;
        }
        for file in self.added {
            writer
                .add_file(file.clone(), UNASSIGNED_SEQUENCE_NUMBER)
                .map_err(ArchiveError::made)?;
        }
        let entry = writer.write_manifest_file().await.map_err(ArchiveError::made)?;
        let input = files.new_input(&self.url).map_err(ArchiveError::made)?;
        Ok((input.read().await.map_err(ArchiveError::made)?, entry))
    }
}

/// A list's bytes. Manifests that are new get the snapshot's sequence number.
pub(crate) async fn make_list(
    url: &str,
    snapshot_id: i64,
    parent: Option<i64>,
    sequence: i64,
    manifests: &mut [ManifestFile],
) -> Result<Bytes> {
    for manifest in manifests.iter_mut() {
        if manifest.sequence_number == UNASSIGNED_SEQUENCE_NUMBER {
            manifest.sequence_number = sequence;
        }
        if manifest.min_sequence_number == UNASSIGNED_SEQUENCE_NUMBER {
            manifest.min_sequence_number = sequence;
        }
    }
    let files = FileIO::new_with_memory();
    let output = files.new_output(url).map_err(ArchiveError::made)?;
    let output = output.writer().await.map_err(ArchiveError::made)?;
    let mut writer = ManifestListWriter::v2(output, snapshot_id, parent, sequence);
    writer.add_manifests(manifests.iter().cloned()).map_err(ArchiveError::made)?;
    writer.close().await.map_err(ArchiveError::made)?;
    let input = files.new_input(url).map_err(ArchiveError::made)?;
    input.read().await.map_err(ArchiveError::made)
}

/// The manifests of a list.
pub(crate) fn read_list(url: &str, bytes: &[u8]) -> Result<Vec<ManifestFile>> {
    let list = ManifestList::parse_with_version(bytes, FormatVersion::V2);
    let list = list.map_err(|error| ArchiveError::damaged(url, error))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// The files that a manifest lists as being there.
pub(crate) async fn read_files(manifest: &ManifestFile, bytes: Bytes) -> Result<Vec<LiveFile>> {
    let url = &manifest.manifest_path;
    let damaged = |error: iceberg::Error| ArchiveError::damaged(url, error);
    let files = FileIO::new_with_memory();
    files.new_output(url).map_err(damaged)?.write(bytes).await.map_err(damaged)?;
    let manifest = manifest.load_manifest(&files).await.map_err(damaged)?;
    let live = manifest.entries().iter().filter(|entry| entry.is_alive()).map(|entry| {
        let sequence = entry.sequence_number().unwrap_or_default();
        LiveFile {
            file: entry.data_file().clone(),
            snapshot_id: entry.snapshot_id().unwrap_or_default(),
            sequence,
            file_sequence: entry.file_sequence_number.unwrap_or(sequence),
            manifest: url.clone(),
        }
    });
    Ok(live.collect())
}
