//! Where an archive's table is: a directory below the archives' root, or a prefix of a bucket.
//!
//! Invariants
//! - A directory lies below the root after every link on its way is followed.

use std::path::{Component, Path, PathBuf};

use crate::error::{ArchiveError, Result};

/// A table's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Directory(PathBuf),
    Bucket { bucket: String, prefix: String },
}

impl Location {
    /// Reads `file:///dir`, `s3://bucket/prefix`, or a path relative to `root`.
    pub(crate) fn parse(text: &str, root: &Path) -> Result<Self> {
        let text = text.trim_end_matches('/');
        if let Some(rest) = text.strip_prefix("s3://") {
            return bucket(text, rest);
        }
        let path = match text.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => PathBuf::from(path),
            Some(_) => {
                let what = format!("{text}: a file URL has three slashes: file:///dir");
                return Err(ArchiveError::Invalid(what));
            }
            None if text.contains("://") => {
                let what = format!("{text}: an archive goes to file:///dir or s3://bucket/prefix");
                return Err(ArchiveError::Invalid(what));
            }
            None => root.join(text),
        };
        directory(path, root)
    }

    /// The URL that the table's metadata uses.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Directory(path) => format!("file://{}", path.display()),
            Self::Bucket { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        }
    }
}

fn bucket(text: &str, rest: &str) -> Result<Location> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.=/".contains(c);
    if bucket.is_empty() || prefix.split('/').any(odd) || !prefix.chars().all(plain) {
        let what = format!("{text}: an S3 location is s3://bucket/prefix, of plain characters");
        return Err(ArchiveError::Invalid(what));
    }
    Ok(Location::Bucket { bucket: bucket.into(), prefix: prefix.into() })
}

fn directory(path: PathBuf, root: &Path) -> Result<Location> {
    let refuse = |what: String| Err(ArchiveError::Invalid(what));
    let shown = path.display();
    if path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir)) {
        return refuse(format!("{shown}: an archive's path has no dots in it"));
    }
    // Readers take the path out of URLs, each by its own rules.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=".contains(c);
    if !path.to_str().is_some_and(|path| path.chars().all(plain)) {
        return refuse(format!("{shown}: an archive's path is of letters, digits and -_.="));
    }
    let root = real(root);
    let found = real(&path);
    if found == root || !found.starts_with(&root) {
        let what = format!("{shown}: archives lie below {}", root.display());
        return refuse(what);
    }
    Ok(Location::Directory(found))
}

/// The path with the links in what exists of it followed.
fn real(path: &Path) -> PathBuf {
    let mut existing = path.to_path_buf();
    let mut rest = Vec::new();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return rest.iter().rev().fold(real, |path, part| path.join(part));
        }
        match (existing.file_name().map(ToOwned::to_owned), existing.parent()) {
            (Some(name), Some(parent)) => {
                rest.push(name);
                existing = parent.to_path_buf();
            }
            _ => return path.to_path_buf(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_lie_below_the_root() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("it exists");
        let inside = format!("file://{}/a/b", root.display());
        let parsed = Location::parse(&inside, &root).expect("inside");
        assert_eq!(parsed.url(), inside);
        assert_eq!(Location::parse("a/b/", &root).expect("inside").url(), inside);
        for outside in ["file:///etc/x", "file:///", "/etc", "../x", "a/../../x", "", "."] {
            assert!(Location::parse(outside, &root).is_err(), "{outside}");
        }
        let sibling = format!("file://{}x/a", root.display());
        assert!(Location::parse(&sibling, &root).is_err(), "the name only begins like the root's");
        std::os::unix::fs::symlink("/tmp", root.join("link")).expect("links");
        let linked = format!("file://{}/link/x", root.display());
        assert!(Location::parse(&linked, &root).is_err(), "the link leads out");
    }

    #[test]
    fn buckets_have_a_prefix() {
        let root = Path::new("/nowhere");
        let parsed = Location::parse("s3://lake/pay/archive/", root).expect("good");
        assert_eq!(parsed.url(), "s3://lake/pay/archive");
        for bad in ["s3://", "s3://lake", "s3:///x", "s3://lake/a/../b", "gs://lake/x"] {
            assert!(Location::parse(bad, root).is_err(), "{bad}");
        }
    }
}
