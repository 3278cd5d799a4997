//! Names: directories whose entries become durable apart from the files they name.
//!
//! Invariants
//! - An entry's changes survive a crash in their order; those of different names in any.
//! - A rename within a directory survives whole or not at all; one across directories is an
//!   entry in each, and each has its own fate.
//! - The root is always there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use fastrand::Rng;

use super::content::Content;
use super::taste::Taste;

/// The identity of a file or directory, whatever its names: an inode number.
pub(super) type NodeId = u64;

const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next_id: NodeId,
}

#[derive(Clone, Debug)]
enum Node {
    File(Content),
    Dir(Dir),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    live: BTreeMap<OsString, NodeId>,
    durable: BTreeMap<OsString, NodeId>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Link { name: OsString, id: NodeId },
    Unlink { name: OsString, id: NodeId },
    Rename { from: OsString, to: OsString, id: NodeId },
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]), next_id: ROOT + 1 }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut id = ROOT;
        for name in names(path)? {
            let next = self.dir(id)?.live.get(name);
            id = *next.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    pub(super) fn file(&self, id: NodeId) -> io::Result<&Content> {
        match self.nodes.get(&id) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let (parent, name) = self.parent(path)?;
        if self.dir(parent)?.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.add(Node::File(Content::default()));
        self.change(parent, Change::Link { name: name.to_owned(), id })?;
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut id = ROOT;
        for name in names(path)? {
            id = match self.dir(id)?.live.get(name) {
                Some(&next) => next,
                None => {
                    let next = self.add(Node::Dir(Dir::default()));
                    self.change(id, Change::Link { name: name.to_owned(), id: next })?;
                    next
                }
            };
        }
        self.dir(id).map(drop)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.dir(self.find(path)?)?.live.keys().map(PathBuf::from).collect())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        self.dir_mut(id)?.sync();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        self.file(id)?;
        let (old_parent, old_name) = self.parent(from)?;
        let (new_parent, new_name) = self.parent(to)?;
        if let Some(&replaced) = self.dir(new_parent)?.live.get(new_name) {
            if replaced == id {
                return Ok(());
            }
            self.file(replaced)?;
        }
        let (old_name, new_name) = (old_name.to_owned(), new_name.to_owned());
        if old_parent == new_parent {
            return self.change(old_parent, Change::Rename { from: old_name, to: new_name, id });
        }
        self.change(new_parent, Change::Link { name: new_name, id })?;
        self.change(old_parent, Change::Unlink { name: old_name, id })
    }

    pub(super) fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        match self.find(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        self.file(id)?;
        self.unlink(path, id)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        if !self.dir(id)?.live.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.unlink(path, id)
    }

    fn unlink(&mut self, path: &Path, id: NodeId) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.change(parent, Change::Unlink { name: name.to_owned(), id })
    }

    /// The power failed: what was not synced is kept or lost, what has no name is gone.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let taste = Taste::draw(rng);
        for node in self.nodes.values_mut() {
            match node {
                // Files may fare differently from each other and from their directories.
                Node::File(content) if rng.u8(..4) == 0 => content.crash(Taste::draw(rng), rng),
                Node::File(content) => content.crash(taste, rng),
                Node::Dir(dir) => dir.crash(if rng.bool() { taste } else { Taste::draw(rng) }, rng),
            }
        }
        let mut reachable = BTreeSet::new();
        self.reach(ROOT, &mut reachable);
        self.nodes.retain(|id, _| reachable.contains(id));
    }

    /// Makes everything durable.
    pub(super) fn settle(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(content) => content.sync(),
                Node::Dir(dir) => dir.sync(),
            }
        }
    }

    fn reach(&self, id: NodeId, reached: &mut BTreeSet<NodeId>) {
        if reached.insert(id)
            && let Some(Node::Dir(dir)) = self.nodes.get(&id)
        {
            dir.live.values().for_each(|&child| self.reach(child, reached));
        }
    }

    /// Every file by path, with its contents.
    pub(super) fn files(&self) -> Vec<(PathBuf, &Content)> {
        let mut found = Vec::new();
        self.walk(ROOT, Path::new("/"), &mut found);
        found
    }

    fn walk<'a>(&'a self, id: NodeId, path: &Path, found: &mut Vec<(PathBuf, &'a Content)>) {
        match self.nodes.get(&id) {
            Some(Node::File(content)) => found.push((path.to_owned(), content)),
            Some(Node::Dir(dir)) => {
                dir.live.iter().for_each(|(name, &id)| self.walk(id, &path.join(name), found));
            }
            None => {}
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = self.next_id;
        self.next_id += 1;
        self.nodes.insert(id, node);
        id
    }

    fn change(&mut self, dir: NodeId, change: Change) -> io::Result<()> {
        let dir = self.dir_mut(dir)?;
        change.apply(&mut dir.live);
        dir.pending.push(change);
        Ok(())
    }

    fn dir(&self, id: NodeId) -> io::Result<&Dir> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut Dir> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn parent<'a>(&self, path: &'a Path) -> io::Result<(NodeId, &'a OsStr)> {
        let name = names(path)?.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name))
    }
}

impl Dir {
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn crash(&mut self, taste: Taste, rng: &mut Rng) {
        let mut kept: Vec<bool> = match taste {
            Taste::Prefix => {
                let count = taste.prefix(self.pending.len(), rng);
                (0..self.pending.len()).map(|index| index < count).collect()
            }
            _ => self.pending.iter().map(|_| taste.keeps(rng)).collect(),
        };
        // What survives of a name implies what came before it under that name.
        for later in (0..kept.len()).rev().filter(|&index| kept[index]).collect::<Vec<_>>() {
            self.keep_earlier(later, &mut kept);
        }
        for (change, _) in self.pending.drain(..).zip(kept).filter(|(_, kept)| *kept) {
            change.apply(&mut self.durable);
        }
        self.live.clone_from(&self.durable);
    }

    fn keep_earlier(&self, later: usize, kept: &mut [bool]) {
        for earlier in (0..later).rev() {
            if !kept[earlier] && self.pending[earlier].shares_a_name(&self.pending[later]) {
                kept[earlier] = true;
                self.keep_earlier(earlier, kept);
            }
        }
    }
}

impl Change {
    fn apply(&self, entries: &mut BTreeMap<OsString, NodeId>) {
        match self {
            Self::Link { name, id } => {
                entries.insert(name.clone(), *id);
            }
            Self::Unlink { name, id } => {
                if entries.get(name) == Some(id) {
                    entries.remove(name);
                }
            }
            Self::Rename { from, to, id } => {
                if entries.get(from) == Some(id) {
                    entries.remove(from);
                }
                entries.insert(to.clone(), *id);
            }
        }
    }

    fn names(&self) -> [&OsStr; 2] {
        match self {
            Self::Link { name, .. } | Self::Unlink { name, .. } => [name, name],
            Self::Rename { from, to, .. } => [from, to],
        }
    }

    fn shares_a_name(&self, other: &Self) -> bool {
        self.names().iter().any(|name| other.names().contains(name))
    }
}

fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(tree: &Tree) -> Vec<Tree> {
        (0..2000)
            .map(|seed| {
                let mut after = tree.clone();
                after.crash(&mut Rng::with_seed(seed));
                after
            })
            .collect()
    }

    fn list(tree: &Tree, path: &str) -> Vec<String> {
        let names = tree.list(Path::new(path)).expect("the directory is there");
        names.iter().map(|name| name.display().to_string()).collect()
    }

    /// A tree whose `/d` holds these files, durable, each containing its name.
    fn tree_with(files: &[&str]) -> Tree {
        let mut tree = Tree::new();
        tree.create_dir_all(Path::new("/d")).expect("creates");
        for name in files {
            let id = tree.create_file(&Path::new("/d").join(name)).expect("creates");
            let content = tree.file_mut(id).expect("it is a file");
            content.write(name.as_bytes(), 0).expect("writes");
            content.sync();
        }
        for dir in ["/", "/d"] {
            tree.sync_dir(Path::new(dir)).expect("syncs");
        }
        tree
    }

    fn contents(tree: &Tree, path: &str) -> Option<String> {
        let id = tree.find(Path::new(path)).ok()?;
        let bytes = tree.file(id).expect("it is a file").live();
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    #[test]
    fn synced_names_survive_and_unsynced_ones_may_not() {
        let mut tree = tree_with(&["old"]);
        tree.create_file(Path::new("/d/a")).expect("creates");
        tree.create_file(Path::new("/d/b")).expect("creates");
        let after: Vec<_> = outcomes(&tree).iter().map(|tree| list(tree, "/d")).collect();
        assert!(after.iter().all(|names| names.contains(&"old".into())));
        for wanted in [&["old"][..], &["a", "old"], &["b", "old"], &["a", "b", "old"]] {
            assert!(after.iter().any(|names| names == wanted), "{wanted:?} happens");
        }
    }

    #[test]
    fn syncing_a_file_does_not_sync_its_name() {
        let mut tree = tree_with(&[]);
        let id = tree.create_file(Path::new("/d/a")).expect("creates");
        tree.file_mut(id).expect("it is a file").write(b"x", 0).expect("writes");
        tree.file_mut(id).expect("it is a file").sync();
        assert!(outcomes(&tree).iter().any(|tree| contents(tree, "/d/a").is_none()));
        tree.sync_dir(Path::new("/d")).expect("syncs");
        assert!(outcomes(&tree).iter().all(|tree| contents(tree, "/d/a").as_deref() == Some("x")));
    }

    #[test]
    fn a_directory_is_lost_with_all_in_it_unless_its_parent_is_synced() {
        let mut tree = Tree::new();
        tree.create_dir_all(Path::new("/x/y")).expect("creates");
        tree.create_file(Path::new("/x/y/a")).expect("creates");
        tree.sync_dir(Path::new("/x/y")).expect("syncs");
        assert!(outcomes(&tree).iter().any(|tree| tree.find(Path::new("/x")).is_err()));
        tree.sync_dir(Path::new("/x")).expect("syncs");
        tree.sync_dir(Path::new("/")).expect("syncs");
        assert!(outcomes(&tree).iter().all(|tree| tree.find(Path::new("/x/y/a")).is_ok()));
    }

    #[test]
    fn a_rename_is_whole_or_not_at_all() {
        let mut tree = tree_with(&["old", "new"]);
        tree.rename(Path::new("/d/new"), Path::new("/d/old")).expect("renames");
        assert_eq!(contents(&tree, "/d/old").as_deref(), Some("new"));
        let after = outcomes(&tree);
        let (mut kept, mut lost) = (0, 0);
        for tree in &after {
            match (contents(tree, "/d/old").as_deref(), contents(tree, "/d/new").as_deref()) {
                (Some("old"), Some("new")) => lost += 1,
                (Some("new"), None) => kept += 1,
                other => panic!("half a rename: {other:?}"),
            }
        }
        assert!(kept > 100 && lost > 100, "kept {kept}, lost {lost}");
    }

    #[test]
    fn removals_are_kept_or_lost() {
        let mut tree = tree_with(&["a", "b"]);
        tree.remove_file(Path::new("/d/a")).expect("removes");
        tree.remove_file(Path::new("/d/b")).expect("removes");
        let after: Vec<_> = outcomes(&tree).iter().map(|tree| list(tree, "/d")).collect();
        for wanted in [&["a", "b"][..], &["a"], &["b"], &[]] {
            assert!(after.iter().any(|names| names == wanted), "{wanted:?} happens");
        }
    }

    #[test]
    fn the_changes_of_one_name_survive_in_order() {
        let mut tree = tree_with(&["a"]);
        tree.rename(Path::new("/d/a"), Path::new("/d/b")).expect("renames");
        tree.create_file(Path::new("/d/a")).expect("the name is free");
        for tree in outcomes(&tree) {
            let names = [contents(&tree, "/d/a"), contents(&tree, "/d/b")];
            assert!(names.contains(&Some("a".into())), "the renamed file is gone: {names:?}");
        }
    }

    #[test]
    fn a_move_across_directories_has_two_fates() {
        let mut tree = tree_with(&["a"]);
        tree.create_dir_all(Path::new("/e")).expect("creates");
        tree.sync_dir(Path::new("/")).expect("syncs");
        tree.rename(Path::new("/d/a"), Path::new("/e/a")).expect("moves");
        let after: Vec<_> = outcomes(&tree)
            .iter()
            .map(|tree| (contents(tree, "/d/a").is_some(), contents(tree, "/e/a").is_some()))
            .collect();
        for wanted in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(after.contains(&wanted), "{wanted:?} happens");
        }
    }

    #[test]
    fn wrong_uses_are_errors() {
        let mut tree = tree_with(&["a"]);
        let kind = |result: io::Result<()>| result.expect_err("this fails").kind();
        let path = Path::new;
        assert_eq!(kind(tree.create_file(path("/d/a")).map(drop)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(tree.create_file(path("/x/a")).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(tree.create_dir_all(path("/d/a/b"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind(tree.rename(path("/d/x"), path("/d/y"))), io::ErrorKind::NotFound);
        assert_eq!(kind(tree.remove_file(path("/d"))), io::ErrorKind::IsADirectory);
        assert_eq!(kind(tree.remove_dir(path("/d"))), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind(tree.remove_dir(path("/d/a"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind(tree.sync_dir(path("/d/a"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind(tree.list(path("/d/..")).map(drop)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(tree.remove_dir(path("/"))), io::ErrorKind::DirectoryNotEmpty);
    }
}
