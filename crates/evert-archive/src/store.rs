//! Files of one table, by their names below its location.
//!
//! Owns: what makes a file durable, and a commit exclusive.
//!
//! Invariants
//! - What `put` has answered is there after a power loss: the file is synced before its name
//!   appears, its name before the answer.
//! - `put_new` never replaces anything: of two that commit the same version one is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use crate::error::{ArchiveError, Result};
use crate::location::Location;

/// Names of files on their way; whoever opens the table deletes those that were left.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Where a table's files are.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Directory(PathBuf),
    Objects { store: Arc<dyn ObjectStore>, prefix: ObjectPath },
}

impl Store {
    /// The store of a location. Keys and endpoint of a bucket come from the environment, under
    /// AWS's names.
    pub(crate) fn open(location: &Location) -> Result<Self> {
        match location {
            Location::Directory(path) => Ok(Self::Directory(path.clone())),
            Location::Bucket { bucket, prefix } => {
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                let store = builder.build().map_err(|error| place(bucket, &error))?;
                let prefix = ObjectPath::from(prefix.as_str());
                Ok(Self::Objects { store: Arc::new(store), prefix })
            }
        }
    }

    /// What reads a bucket's objects; `None` for files.
    pub(crate) fn objects(&self) -> Option<&Arc<dyn ObjectStore>> {
        match self {
            Self::Directory(_) => None,
            Self::Objects { store, .. } => Some(store),
        }
    }

    /// Writes a file, durably, whether or not there is one of the name.
    pub(crate) async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self {
            Self::Directory(dir) => {
                let (dir, name) = (dir.clone(), name.to_owned());
                blocking(move || write(&dir, &name, &bytes, true)).await
            }
            Self::Objects { store, prefix } => {
                let put = store.put(&object(prefix, name), bytes.into()).await;
                put.map(drop).map_err(|error| place(name, &error))
            }
        }
    }

    /// Writes a file, durably, unless there is one of the name: then `false`.
    pub(crate) async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        match self {
            Self::Directory(dir) => {
                let (dir, name) = (dir.clone(), name.to_owned());
                let wrote = blocking(move || match write(&dir, &name, &bytes, false) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                    other => other.map(|()| true),
                });
                wrote.await
            }
            Self::Objects { store, prefix } => {
                let options = PutOptions::from(PutMode::Create);
                match store.put_opts(&object(prefix, name), bytes.into(), options).await {
                    Ok(_) => Ok(true),
                    Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                    Err(error) => Err(place(name, &error)),
                }
            }
        }
    }

    /// A file's bytes; `None` if there is none of the name.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                blocking(move || match fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes.into())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(named(&path, &error)),
                })
                .await
            }
            Self::Objects { store, prefix } => match store.get(&object(prefix, name)).await {
                Ok(found) => found.bytes().await.map(Some).map_err(|error| place(name, &error)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(place(name, &error)),
            },
        }
    }

    /// The names of all files below a directory of the table.
    pub(crate) async fn list(&self, under: &str) -> Result<Vec<String>> {
        match self {
            Self::Directory(dir) => {
                let (dir, under) = (dir.clone(), under.to_owned());
                blocking(move || {
                    let mut found = Vec::new();
                    walk(&dir.join(&under), &under, &mut found)?;
                    Ok(found)
                })
                .await
            }
            Self::Objects { store, prefix } => {
                let below = object(prefix, under);
                let listed: Vec<_> = store
                    .list(Some(&below))
                    .try_collect()
                    .await
                    .map_err(|error| place(under, &error))?;
                let own = |path: &ObjectPath| {
                    path.as_ref().strip_prefix(prefix.as_ref()).map(|n| n[1..].to_owned())
                };
                Ok(listed.iter().filter_map(|meta| own(&meta.location)).collect())
            }
        }
    }

    /// Deletes a file. One that is not there is no error.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                blocking(move || match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(named(&path, &error))
                    }
                    _ => Ok(()),
                })
                .await
            }
            Self::Objects { store, prefix } => match store.delete(&object(prefix, name)).await {
                Err(error) if !matches!(error, object_store::Error::NotFound { .. }) => {
                    Err(place(name, &error))
                }
                _ => Ok(()),
            },
        }
    }
}

fn object(prefix: &ObjectPath, name: &str) -> ObjectPath {
    ObjectPath::from(format!("{prefix}/{name}"))
}

fn place(name: &str, error: &dyn std::fmt::Display) -> ArchiveError {
    ArchiveError::Place(format!("{name}: {error}"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| ArchiveError::Place(error.to_string())),
        Err(error) => Err(ArchiveError::Place(error.to_string())),
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8], replace: bool) -> io::Result<()> {
    let path = dir.join(name);
    let parent = path.parent().unwrap_or(dir);
    make_dirs(parent).map_err(|error| named(parent, &error))?;
    let unfinished = parent.join(format!("{UNFINISHED}{}", Uuid::new_v4()));
    let written = (|| {
        let mut file = File::create_new(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if replace {
            fs::rename(&unfinished, &path)?;
        } else {
            // A link, unlike a renaming, fails when the name is taken.
            fs::hard_link(&unfinished, &path)?;
            fs::remove_file(&unfinished)?;
        }
        File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        // What is left is deleted when the table is opened again.
        drop(fs::remove_file(&unfinished));
    }
    written.map_err(|error| named(&path, &error))
}

/// Makes a directory and those above it, each durable in its parent.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let Some(parent) = dir.parent() else { return Ok(()) };
    make_dirs(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

fn walk(dir: &Path, under: &str, found: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(named(dir, &error)),
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        let name = format!("{under}/{name}");
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &name, found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    async fn behaves(store: &Store) {
        assert_eq!(store.read("metadata/a").await.expect("reads"), None);
        assert!(store.put_new("metadata/a", "1".into()).await.expect("writes"));
        assert!(!store.put_new("metadata/a", "2".into()).await.expect("is told"));
        assert_eq!(store.read("metadata/a").await.expect("reads"), Some("1".into()));
        store.put("metadata/a", "3".into()).await.expect("writes");
        store.put("data/d=1/b", "4".into()).await.expect("writes");
        assert_eq!(store.list("metadata").await.expect("lists"), ["metadata/a"]);
        assert_eq!(store.list("data").await.expect("lists"), ["data/d=1/b"]);
        assert_eq!(store.read("metadata/a").await.expect("reads"), Some("3".into()));
        store.delete("metadata/a").await.expect("deletes");
        store.delete("metadata/a").await.expect("it is gone, as wanted");
        assert_eq!(store.list("metadata").await.expect("lists"), [""; 0]);
    }

    #[tokio::test]
    async fn files_and_objects_behave_alike() {
        let dir = tempfile::tempdir().expect("a directory");
        behaves(&Store::Directory(dir.path().join("t"))).await;
        let prefix = ObjectPath::from("lake/t");
        behaves(&Store::Objects { store: Arc::new(InMemory::new()), prefix }).await;
    }
}
