//! A world that skips syncs: faults planted to see whether a test would notice.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Env, File, Files, OpenMode};

/// Which syncs are answered with success and not done.
#[derive(Clone, Copy)]
pub struct Forgets {
    /// By the path under which the file was opened: its `sync_data`.
    pub sync_data: fn(&Path) -> bool,
    /// By the directory: its `sync_dir`.
    pub sync_dir: fn(&Path) -> bool,
}

impl Default for Forgets {
    /// Nothing is forgotten.
    fn default() -> Self {
        Self { sync_data: |_| false, sync_dir: |_| false }
    }
}

impl fmt::Debug for Forgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forgets").finish_non_exhaustive()
    }
}

impl Env {
    /// The same world, but for the syncs that it forgets.
    #[must_use]
    pub fn forgetful(mut self, forgets: Forgets) -> Self {
        self.files = Arc::new(ForgetfulFiles { inner: self.files, forgets });
        self
    }
}

struct ForgetfulFiles {
    inner: Arc<dyn Files>,
    forgets: Forgets,
}

impl Files for ForgetfulFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.inner.open(path, mode)?;
        if (self.forgets.sync_data)(path) {
            return Ok(Arc::new(ForgetfulFile(file)));
        }
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if (self.forgets.sync_dir)(path) {
            return Ok(());
        }
        self.inner.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }
}

struct ForgetfulFile(Arc<dyn File>);

impl File for ForgetfulFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}
