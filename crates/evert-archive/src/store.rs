//! Files of one table, by their names below its location.
//!
//! Owns: what makes a file durable, and a commit exclusive.
//!
//! Invariants
//! - What `put` has answered is there after a power loss: the file is synced before its name
//!   appears, its name before the answer.
//! - `put_new` never replaces anything: of two that commit the same version one is told.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evert_env::{Files, OpenMode};
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
    Directory(Directory),
    Objects { store: Arc<dyn ObjectStore>, prefix: ObjectPath },
}

/// A directory of this machine.
#[derive(Clone)]
pub(crate) struct Directory {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl Store {
    /// The store of a location. Keys and endpoint of a bucket come from the environment, under
    /// AWS's names.
    pub(crate) fn open(files: &Arc<dyn Files>, location: &Location) -> Result<Self> {
        match location {
            Location::Directory(path) => {
                let (files, path) = (Arc::clone(files), path.clone());
                Ok(Self::Directory(Directory { files, path }))
            }
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
                blocking(move || dir.write(&name, &bytes, true)).await
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
                let wrote = blocking(move || match dir.write(&name, &bytes, false) {
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
                let (dir, name) = (dir.clone(), name.to_owned());
                blocking(move || dir.read(&name)).await
            }
            Self::Objects { store, prefix } => match store.get(&object(prefix, name)).await {
                Ok(found) => found.bytes().await.map(Some).map_err(|error| place(name, &error)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(place(name, &error)),
            },
        }
    }

    /// Whether there is a file of the name.
    pub(crate) async fn exists(&self, name: &str) -> Result<bool> {
        match self {
            Self::Directory(dir) => {
                let (dir, path) = (dir.clone(), dir.path.join(name));
                blocking(move || dir.files.exists(&path).map_err(|error| named(&path, &error)))
                    .await
            }
            Self::Objects { store, prefix } => match store.head(&object(prefix, name)).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
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
                    dir.walk(&under, &mut found)?;
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
                let (dir, name) = (dir.clone(), name.to_owned());
                blocking(move || dir.delete(&name)).await
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

impl Directory {
    fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        let path = self.path.join(name);
        let read = || {
            let file = self.files.open(&path, OpenMode::Read)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Bytes::from(bytes))
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(named(&path, &error)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8], replace: bool) -> io::Result<()> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        self.make_dirs(parent).map_err(|error| named(parent, &error))?;
        let unfinished = parent.join(format!("{UNFINISHED}{}", Uuid::new_v4()));
        let written = (|| {
            let file = self.files.open(&unfinished, OpenMode::CreateNew)?;
            file.write_all_at(bytes, 0)?;
            file.sync_data()?;
            match replace {
                true => self.files.rename(&unfinished, &path)?,
                false => self.files.rename_new(&unfinished, &path)?,
            }
            self.files.sync_dir(parent)
        })();
        if written.is_err() {
            // What is left is deleted when the table is opened again.
            drop(self.files.remove(&unfinished));
        }
        written.map_err(|error| named(&path, &error))
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        match self.files.remove(&path) {
            Err(error) if !is_absent(&error) => Err(named(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Makes a directory and those above it, each durable in its parent.
    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        if self.files.exists(dir)? {
            return Ok(());
        }
        let Some(parent) = dir.parent() else { return Ok(()) };
        self.make_dirs(parent)?;
        self.files.create_dir_all(dir)?;
        self.files.sync_dir(parent)
    }

    /// Adds the names of all files below a directory.
    fn walk(&self, under: &str, found: &mut Vec<String>) -> io::Result<()> {
        let dir = self.path.join(under);
        let entries = match self.files.list(&dir) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(named(&dir, &error)),
        };
        for entry in entries {
            let Some(entry) = entry.to_str() else { continue };
            let name = format!("{under}/{entry}");
            match self.walk(&name, found) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => found.push(name),
                walked => walked?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use evert_env::{Call, Env, Forgets, Mishap};

    use super::*;

    fn directory(env: &Env, path: &Path) -> Store {
        let (files, path) = (Arc::clone(&env.files), path.to_owned());
        Store::Directory(Directory { files, path })
    }

    /// Writes files as commits do, until the power goes: gives those that were answered.
    async fn written(env: &Env) -> Vec<(String, Bytes)> {
        let store = directory(env, Path::new("/lake/t"));
        let mut answered = Vec::new();
        for commit in 0..3 {
            for name in [format!("data/d={commit}/a"), format!("metadata/v{commit}")] {
                let bytes = Bytes::from(name.repeat(1000));
                let done = match name.starts_with("data") {
                    true => store.put(&name, bytes.clone()).await.map(|()| true),
                    false => store.put_new(&name, bytes.clone()).await,
                };
                match done {
                    Ok(new) => {
                        assert!(new, "{name} is new");
                        answered.push((name, bytes));
                    }
                    Err(_) => return answered,
                }
            }
        }
        answered
    }

    /// What a loss of power at every call takes away; `forgets` are syncs that are not done.
    async fn lost(forgets: Forgets) -> Vec<String> {
        let (env, world) = Env::simulated(0);
        written(&env).await;
        let mut lost = Vec::new();
        for nth in 1..=world.count(Call::Any) {
            let (env, world) = Env::simulated(nth);
            world.schedule(Call::Any, nth, Mishap::PowerOff);
            let answered = written(&env.forgetful(forgets)).await;
            let store = directory(&world.crash(nth), Path::new("/lake/t"));
            for (name, bytes) in answered {
                if store.read(&name).await.expect("reads") != Some(bytes) {
                    lost.push(format!("{name} at call {nth}"));
                }
            }
            // A name that appears stands for the whole file.
            for name in store.list("metadata").await.expect("lists") {
                let whole = Bytes::from(name.repeat(1000));
                let is_own = !name.contains(UNFINISHED);
                if is_own && store.read(&name).await.expect("reads") != Some(whole) {
                    lost.push(format!("part of {name} at call {nth}"));
                }
            }
        }
        lost
    }

    #[tokio::test]
    async fn what_was_answered_survives_a_loss_of_power() {
        assert_eq!(lost(Forgets::default()).await, [""; 0]);
        let no_data = Forgets { sync_data: |_| true, ..Forgets::default() };
        assert!(!lost(no_data).await.is_empty(), "a file's sync that is skipped is noticed");
        let no_names = Forgets { sync_dir: |dir| dir.ends_with("metadata"), ..Forgets::default() };
        assert!(!lost(no_names).await.is_empty(), "a directory's sync that is skipped is noticed");
        let no_dirs = Forgets { sync_dir: |dir| dir.ends_with("data"), ..Forgets::default() };
        assert!(!lost(no_dirs).await.is_empty(), "so is that of a directory's own name");
    }

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
        behaves(&directory(&Env::real(), &dir.path().join("t"))).await;
        let (env, _) = Env::simulated(1);
        behaves(&directory(&env, Path::new("/lake/t"))).await;
        let prefix = ObjectPath::from("lake/t");
        behaves(&Store::Objects { store: Arc::new(InMemory::new()), prefix }).await;
    }
}
