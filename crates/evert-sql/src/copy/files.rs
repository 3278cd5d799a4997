//! Files that COPY may name: those under one directory, if the server was given one.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use crate::SqlError;
use crate::error::{INSUFFICIENT_PRIVILEGE, IO_ERROR, UNDEFINED_FILE, WRONG_OBJECT_TYPE};

/// A file of the directory, by a path relative to it or absolute, open for reading.
pub(crate) async fn file_to_read(root: Option<&Path>, path: &str) -> Result<File, SqlError> {
    let doing = "reading";
    let (root, wanted) = under(root, path).await?;
    let found = tokio::fs::canonicalize(&wanted).await;
    let found = found.map_err(|error| trouble(path, doing, &error))?;
    // Links were followed: wherever they led, it must be here.
    if !found.starts_with(&root) {
        return Err(outside(path));
    }
    let metadata = tokio::fs::metadata(&found).await;
    if !metadata.map_err(|error| trouble(path, doing, &error))?.is_file() {
        return Err(SqlError::new(WRONG_OBJECT_TYPE, format!("\"{path}\" is not a file")));
    }
    File::open(&found).await.map_err(|error| trouble(path, doing, &error))
}

/// A file of the directory to be written anew: it is there once it is whole.
pub(crate) async fn file_to_write(root: Option<&Path>, path: &str) -> Result<CopyFile, SqlError> {
    let doing = "writing";
    let (root, wanted) = under(root, path).await?;
    let (Some(name), Some(parent)) = (wanted.file_name(), wanted.parent()) else {
        return Err(SqlError::new(WRONG_OBJECT_TYPE, format!("\"{path}\" is not a file")));
    };
    let parent = tokio::fs::canonicalize(parent).await;
    let parent = parent.map_err(|error| trouble(path, doing, &error))?;
    if !parent.starts_with(&root) {
        return Err(outside(path));
    }
    let target = parent.join(name);
    if target.is_dir() {
        return Err(SqlError::new(WRONG_OBJECT_TYPE, format!("\"{path}\" is a directory")));
    }
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let unfinished = parent.join(unfinished);
    let file = OpenOptions::new().write(true).create_new(true).open(&unfinished).await;
    let file = file.map_err(|error| trouble(path, doing, &error))?;
    let shown = path.to_owned();
    Ok(CopyFile { file, unfinished: Unfinished(Some(unfinished)), target, shown })
}

/// The directory and the path in it, links not yet followed.
async fn under(root: Option<&Path>, path: &str) -> Result<(PathBuf, PathBuf), SqlError> {
    const CLIENT: &str =
        "COPY to stdout and from stdin, and psql's \\copy, move files of the client.";
    let Some(root) = root else {
        let message = "COPY with files is off: the server was started without --files DIR";
        return Err(SqlError::new(INSUFFICIENT_PRIVILEGE, message).hint(CLIENT));
    };
    let canonical = tokio::fs::canonicalize(root).await;
    let root = canonical.map_err(|error| trouble(&root.to_string_lossy(), "reading", &error))?;
    let wanted = root.join(path);
    Ok((root, wanted))
}

fn outside(path: &str) -> SqlError {
    let message = format!("\"{path}\" is not under the server's directory for files");
    SqlError::new(INSUFFICIENT_PRIVILEGE, message)
        .hint("Name a file relative to the directory given by --files.")
}

fn trouble(path: &str, doing: &str, error: &io::Error) -> SqlError {
    let sqlstate = match error.kind() {
        io::ErrorKind::NotFound => UNDEFINED_FILE,
        io::ErrorKind::PermissionDenied => INSUFFICIENT_PRIVILEGE,
        _ => IO_ERROR,
    };
    // Without the number that the standard library adds.
    let why = error.to_string();
    let why = why.split(" (os error").next().unwrap_or_default();
    SqlError::new(sqlstate, format!("could not open file \"{path}\" for {doing}: {why}"))
}

/// A file being written. Dropped before its end, it leaves nothing behind.
pub struct CopyFile {
    file: File,
    unfinished: Unfinished,
    target: PathBuf,
    shown: String,
}

struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an unfinished COPY's file stays");
        }
    }
}

impl CopyFile {
    /// Appends bytes.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        let written = self.file.write_all(bytes).await;
        written.map_err(|error| self.failed(&error))
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn finish(mut self) -> Result<(), SqlError> {
        let named = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            if let Some(path) = &self.unfinished.0 {
                tokio::fs::rename(path, &self.target).await?;
            }
            match self.target.parent() {
                Some(parent) => File::open(parent).await?.sync_all().await,
                None => Ok(()),
            }
        };
        let named = named.await;
        named.map_err(|error| self.failed(&error))?;
        self.unfinished.0 = None;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> SqlError {
        SqlError::new(IO_ERROR, format!("could not write to file \"{}\": {error}", self.shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_path_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, other) = (dir.path().join("files"), dir.path().join("secret"));
        std::fs::create_dir(&root).expect("made");
        std::fs::write(&other, "s").expect("written");
        std::fs::write(root.join("in"), "x").expect("written");
        std::os::unix::fs::symlink(&other, root.join("link")).expect("linked");
        std::os::unix::fs::symlink(dir.path(), root.join("up")).expect("linked");
        let inside = root.join("in");
        let root = Some(root.as_path());
        let absolute = other.to_string_lossy().into_owned();
        for path in ["../secret", "link", "up/secret", "/etc/passwd", &absolute] {
            let error = file_to_read(root, path).await.expect_err(path);
            assert_eq!(error.sqlstate, INSUFFICIENT_PRIVILEGE, "{path}");
        }
        for path in ["../new", "up/new", "/tmp/new"] {
            let error = file_to_write(root, path).await.map(|_| ()).expect_err(path);
            assert_eq!(error.sqlstate, INSUFFICIENT_PRIVILEGE, "{path}");
        }
        assert!(file_to_read(root, "in").await.is_ok());
        assert!(file_to_read(root, &inside.to_string_lossy()).await.is_ok());
        assert_eq!(file_to_read(None, "in").await.expect_err("off").sqlstate, "42501");
        assert_eq!(file_to_read(root, "none").await.expect_err("none").sqlstate, UNDEFINED_FILE);
        assert_eq!(file_to_read(root, ".").await.expect_err("no file").sqlstate, "42809");
    }

    #[tokio::test]
    async fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = || {
            let names = std::fs::read_dir(dir.path()).expect("listed");
            names.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>()
        };
        let mut file = file_to_write(Some(dir.path()), "out").await.expect("opened");
        file.write(b"half").await.expect("written");
        assert_eq!(files().len(), 1);
        drop(file);
        assert!(files().is_empty());
        // A link in its place is replaced, not followed.
        std::os::unix::fs::symlink("/dev/full", dir.path().join("out")).expect("linked");
        let mut file = file_to_write(Some(dir.path()), "out").await.expect("opened");
        file.write(b"whole").await.expect("written");
        file.finish().await.expect("finished");
        assert_eq!(files(), ["out"]);
        assert_eq!(std::fs::read(dir.path().join("out")).expect("read"), b"whole");
    }
}
