//! The real world: the operating system's files, clock and randomness.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::{Clock, Env, File, Files, OpenMode, Random};

/// Zeros that a file system without `fallocate` is given at once.
const ZEROS_BYTES: usize = 1 << 18;
const RANDOM_DEVICE: &str = "/dev/urandom";

impl Env {
    /// The real world.
    ///
    /// # Panics
    /// If the operating system has no source of randomness.
    pub fn real() -> Self {
        Self {
            files: Arc::new(RealFiles),
            clock: Arc::new(RealClock { start: Instant::now() }),
            random: Arc::new(RealRandom::new()),
        }
    }
}

struct RealFiles;

impl Files for RealFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::Write => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(path)?
            .map(|entry| Ok(PathBuf::from(entry?.file_name())))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // A file system without such a call: a link fails as well when the name is taken.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            }
            other => Ok(other?),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // The lock belongs to the open file, so it also keeps out a second opener in this
        // process, and it goes when the process does, however it ends.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.extend_by_zeros(bytes),
                other => return Ok(other?),
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl RealFile {
    /// What `allocate` does where the file system cannot: real zeros take real space.
    fn extend_by_zeros(&self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = self.len()?;
        while at < bytes {
            let count = (bytes - at).min(ZEROS_BYTES as u64);
            self.0.write_all_at(&zeros[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }
}

struct RealClock {
    start: Instant,
}

impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_micros(&self) -> i64 {
        let now = SystemTime::now();
        match now.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        }
    }
}

struct RealRandom {
    device: Mutex<fs::File>,
}

impl RealRandom {
    fn new() -> Self {
        let device = fs::File::open(RANDOM_DEVICE).expect("every Unix has /dev/urandom");
        Self { device: Mutex::new(device) }
    }
}

impl Random for RealRandom {
    fn fill(&self, buf: &mut [u8]) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.read_exact(buf).expect("/dev/urandom neither ends nor fails once it is open");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let mut name = [0; 8];
            RealRandom::new().fill(&mut name);
            let dir =
                std::env::temp_dir().join(format!("evert-env-{:x}", u64::from_ne_bytes(name)));
            fs::create_dir(&dir).expect("the name is free");
            Self(dir)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_keeps_what_is_written() {
        let scratch = Scratch::new();
        let files = Env::real().files;
        let path = scratch.path("a");
        assert_eq!(kind(files.open(&path, OpenMode::Write)), io::ErrorKind::NotFound);
        let file = files.open(&path, OpenMode::CreateNew).expect("creates");
        assert_eq!(kind(files.open(&path, OpenMode::CreateNew)), io::ErrorKind::AlreadyExists);
        file.write_all_at(b"world", 5).expect("writes past the end");
        file.write_all_at(b"hello", 0).expect("writes");
        file.sync_data().expect("syncs");
        files.sync_dir(&scratch.0).expect("syncs the directory");
        let again = files.open(&path, OpenMode::Read).expect("opens");
        assert_eq!(again.len().expect("has a length"), 10);
        let mut buf = [0; 10];
        again.read_exact_at(&mut buf, 0).expect("reads");
        assert_eq!(&buf, b"helloworld");
        assert_eq!(kind(again.read_exact_at(&mut buf, 1)), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn allocated_space_reads_as_zeros_and_keeps_what_was_there() {
        let scratch = Scratch::new();
        let file = RealFile(
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(scratch.path("a"))
                .expect("creates"),
        );
        file.write_all_at(b"xyz", 0).expect("writes");
        file.allocate(0).expect("nothing to do");
        for (allocate, bytes) in [
            (RealFile::allocate as fn(&RealFile, u64) -> io::Result<()>, 10_000),
            (RealFile::extend_by_zeros, 600_000),
        ] {
            allocate(&file, bytes).expect("allocates");
            allocate(&file, 10).expect("never shrinks");
            assert_eq!(file.len().expect("has a length"), bytes);
            let mut buf = vec![1; bytes as usize];
            file.read_exact_at(&mut buf, 0).expect("reads");
            assert_eq!(&buf[..3], b"xyz");
            assert!(buf[3..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn directories_list_their_names_sorted() {
        let scratch = Scratch::new();
        let files = Env::real().files;
        let dir = scratch.path("x/y");
        files.create_dir_all(&dir).expect("creates");
        for name in ["b", "a", "c"] {
            files.open(&dir.join(name), OpenMode::CreateNew).expect("creates");
        }
        files.rename(&dir.join("c"), &dir.join("a")).expect("replaces");
        assert_eq!(files.list(&dir).expect("lists"), [PathBuf::from("a"), PathBuf::from("b")]);
        let taken = files.rename_new(&dir.join("b"), &dir.join("a"));
        assert_eq!(kind(taken), io::ErrorKind::AlreadyExists);
        files.rename_new(&dir.join("b"), &dir.join("c")).expect("the name is free");
        files.rename(&dir.join("c"), &dir.join("b")).expect("renames");
        assert!(files.remove_dir(&dir).is_err(), "it is not empty");
        files.remove(&dir.join("a")).expect("removes");
        files.remove(&dir.join("b")).expect("removes");
        files.remove_dir(&dir).expect("it is empty");
        assert!(!files.exists(&dir).expect("answers"));
        assert_eq!(kind(files.list(&dir)), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_lock_keeps_others_out_while_it_lives() {
        let scratch = Scratch::new();
        let files = Env::real().files;
        let held = files.lock(&scratch.path("lock")).expect("it is free");
        assert_eq!(kind(files.lock(&scratch.path("lock"))), io::ErrorKind::WouldBlock);
        drop(held);
        files.lock(&scratch.path("lock")).expect("it is free again");
    }

    #[test]
    fn time_passes_and_randomness_differs() {
        let env = Env::real();
        let (then, wall) = (env.clock.monotonic(), env.clock.wall_micros());
        std::thread::sleep(Duration::from_millis(2));
        assert!(env.clock.monotonic() >= then + Duration::from_millis(2));
        assert!(wall > 1_700_000_000_000_000, "microseconds since 1970");
        let (mut a, mut b) = ([0; 16], [0; 16]);
        env.random.fill(&mut a);
        env.random.fill(&mut b);
        assert_ne!(a, b);
    }

    fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
        result.err().expect("this fails").kind()
    }
}
