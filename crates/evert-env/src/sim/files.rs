//! The calls: each passes fate first, then changes the tree or a file's content.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::fate::{Fate, Kind, Mishap};
use super::taste::Taste;
use super::tree::{NodeId, Tree};
use crate::{File, Files, OpenMode};

/// Everything that a world's calls share.
pub(super) struct Disk {
    pub(super) tree: Tree,
    pub(super) fate: Fate,
    pub(super) trace: Option<Vec<String>>,
    locks: BTreeSet<NodeId>,
    /// Counts the boots: what an earlier boot opened is of no use to a later one.
    boot: u64,
    rng: Rng,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self::with_tree(Tree::new(), seed)
    }

    fn with_tree(tree: Tree, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { tree, fate: Fate::default(), trace: None, locks: BTreeSet::new(), boot: 0, rng }
    }

    pub(super) fn fork(&self, seed: u64) -> Self {
        let mut tree = self.tree.clone();
        tree.settle();
        Self::with_tree(tree, seed)
    }

    pub(super) fn crash(&mut self, seed: u64) {
        self.tree.crash(&mut Rng::with_seed(seed));
        self.fate.power_on();
        self.end_processes(&format!("-- crash {seed} --"));
    }

    pub(super) fn kill(&mut self) {
        self.end_processes("-- kill --");
    }

    fn end_processes(&mut self, how: &str) {
        self.locks.clear();
        self.boot += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(how.to_owned());
        }
    }

    /// A call announces itself: an error if it comes from before the last crash or the power
    /// is off, else what shall happen to it.
    fn enter(
        &mut self,
        boot: u64,
        kind: Kind,
        call: impl FnOnce() -> String,
    ) -> io::Result<Option<Mishap>> {
        if boot != self.boot {
            return Err(Mishap::PowerOff.error());
        }
        let mishap = self.fate.decide(kind)?;
        if let Some(trace) = &mut self.trace {
            let happens = mishap.map_or(String::new(), |mishap| format!(" !! {mishap:?}"));
            trace.push(format!("{}{happens}", call()));
        }
        Ok(mishap)
    }

    /// A call that either happens or fails: only when the power goes may it be either.
    fn change(
        &mut self,
        boot: u64,
        kind: Kind,
        call: impl FnOnce() -> String,
        change: impl FnOnce(&mut Tree) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.enter(boot, kind, call)? {
            None => change(&mut self.tree),
            Some(mishap) => {
                if mishap == Mishap::PowerOff && kind != Kind::SyncDir {
                    // Not durable: the crash decides whether it happened.
                    change(&mut self.tree)?;
                }
                Err(mishap.error())
            }
        }
    }
}

pub(super) struct SimFiles {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
}

impl SimFiles {
    pub(super) fn new(disk: Arc<Mutex<Disk>>) -> Self {
        let boot = lock(&disk).boot;
        Self { disk, boot }
    }

    fn look<T>(
        &self,
        call: impl FnOnce() -> String,
        look: impl FnOnce(&Tree) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut disk = lock(&self.disk);
        match disk.enter(self.boot, Kind::Look, call)? {
            None => look(&disk.tree),
            Some(mishap) => Err(mishap.error()),
        }
    }

    fn change(
        &self,
        kind: Kind,
        call: impl FnOnce() -> String,
        change: impl FnOnce(&mut Tree) -> io::Result<()>,
    ) -> io::Result<()> {
        lock(&self.disk).change(self.boot, kind, call, change)
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        let call = || format!("create {}", path.display());
        self.change(Kind::Grow, call, |tree| tree.create_file(path).map(drop))
    }
}

impl Files for SimFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode == OpenMode::CreateNew {
            self.create(path)?;
        } else {
            self.look(|| format!("open {}", path.display()), |tree| tree.find(path))?;
        }
        let disk = lock(&self.disk);
        let id = disk.tree.find(path)?;
        disk.tree.file(id)?;
        Ok(Arc::new(SimFile {
            disk: Arc::clone(&self.disk),
            boot: self.boot,
            id,
            path: path.to_owned(),
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let call = || format!("create_dir_all {}", path.display());
        self.change(Kind::Grow, call, |tree| tree.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.look(|| format!("list {}", path.display()), |tree| tree.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let call = || format!("sync_dir {}", path.display());
        self.change(Kind::SyncDir, call, |tree| tree.sync_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = || format!("rename {} -> {}", from.display(), to.display());
        self.change(Kind::Change, call, |tree| tree.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = || format!("rename_new {} -> {}", from.display(), to.display());
        self.change(Kind::Change, call, |tree| tree.rename_new(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let call = || format!("remove {}", path.display());
        self.change(Kind::Change, call, |tree| tree.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let call = || format!("remove_dir {}", path.display());
        self.change(Kind::Change, call, |tree| tree.remove_dir(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.look(
            || format!("exists {}", path.display()),
            |tree| match tree.find(path) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
        )
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.exists(path)? {
            self.create(path)?;
        }
        let mut disk = lock(&self.disk);
        let id = disk.tree.find(path)?;
        if !disk.locks.insert(id) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: Arc::clone(&self.disk), boot: self.boot, id }))
    }
}

/// Releases its lock when dropped, if no crash has done so.
struct SimLock {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
    id: NodeId,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        if disk.boot == self.boot {
            disk.locks.remove(&self.id);
        }
    }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
    id: NodeId,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    /// The disk, once fate has been asked.
    fn enter(
        &self,
        kind: Kind,
        call: fmt::Arguments<'_>,
    ) -> io::Result<(MutexGuard<'_, Disk>, Option<Mishap>)> {
        if !self.writable && kind != Kind::Look && kind != Kind::SyncData {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut disk = lock(&self.disk);
        let mishap = disk.enter(self.boot, kind, || format!("{} {}", call, self.path.display()))?;
        Ok((disk, mishap))
    }

    fn resize(&self, kind: Kind, bytes: u64, call: fmt::Arguments<'_>) -> io::Result<()> {
        let (mut disk, mishap) = self.enter(kind, call)?;
        match mishap {
            None => disk.tree.file_mut(self.id)?.resize(bytes),
            Some(mishap) => {
                if mishap == Mishap::PowerOff {
                    disk.tree.file_mut(self.id)?.resize(bytes)?;
                }
                Err(mishap.error())
            }
        }
    }
}

impl File for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let call = format_args!("read {}@{offset}", buf.len());
        let (disk, mishap) = self.enter(Kind::Look, call)?;
        match mishap {
            None => disk.tree.file(self.id)?.read(buf, offset),
            Some(mishap) => Err(mishap.error()),
        }
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        let kind = if end > self.live_len()? { Kind::Grow } else { Kind::Change };
        let (mut disk, mishap) = self.enter(kind, format_args!("write {}@{offset}", data.len()))?;
        let Some(mishap) = mishap else {
            return disk.tree.file_mut(self.id)?.write(data, offset);
        };
        let done = match mishap {
            Mishap::PowerOff => data.len(),
            Mishap::IoError | Mishap::NoSpace => disk.rng.usize(..=data.len()),
        };
        disk.tree.file_mut(self.id)?.write(&data[..done], offset)?;
        Err(mishap.error())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut disk, mishap) = self.enter(Kind::SyncData, format_args!("sync"))?;
        let disk = &mut *disk;
        let content = disk.tree.file_mut(self.id)?;
        match mishap {
            None => {
                content.sync();
                Ok(())
            }
            // The crash decides how far the sync came.
            Some(Mishap::PowerOff) => Err(Mishap::PowerOff.error()),
            Some(mishap) => {
                content.sync_losing_pages(Taste::draw(&mut disk.rng), &mut disk.rng);
                Err(mishap.error())
            }
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.max(self.live_len()?);
        self.resize(Kind::Grow, bytes, format_args!("allocate {bytes}"))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.resize(Kind::Change, bytes, format_args!("set_len {bytes}"))
    }

    fn len(&self) -> io::Result<u64> {
        let (disk, mishap) = self.enter(Kind::Look, format_args!("len"))?;
        match mishap {
            None => Ok(disk.tree.file(self.id)?.live().len() as u64),
            Some(mishap) => Err(mishap.error()),
        }
    }
}

impl SimFile {
    fn live_len(&self) -> io::Result<u64> {
        let disk = lock(&self.disk);
        if disk.boot != self.boot {
            return Err(Mishap::PowerOff.error());
        }
        Ok(disk.tree.file(self.id)?.live().len() as u64)
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}
