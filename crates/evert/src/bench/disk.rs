//! The disk by itself: what an append cannot be faster than.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// Bytes of a write in sequence.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes written before each sync, the least that a journal writes.
const SYNC_BYTES: usize = 4096;

/// What the disk does.
#[derive(Debug, Serialize)]
pub(super) struct Disk {
    /// Megabytes a second, written in sequence and synced at the end.
    pub(super) sequential_write_mb_s: f64,
    /// Microseconds for 4 KiB into a preallocated file and fdatasync.
    pub(super) fdatasync_p50_us: f64,
    pub(super) fdatasync_p99_us: f64,
}

pub(super) fn probe(dir: &Path, quick: bool) -> Result<Disk> {
    let path = dir.join("probe");
    let probed = (|| {
        let sequential_write_mb_s = sequential(&path, if quick { 64 } else { 512 })?;
        let mut syncs = syncs(&path, if quick { 100 } else { 1000 })?;
        let [p50, p99] = [50, 99].map(|p| percentile(&mut syncs, p).as_secs_f64() * 1e6);
        anyhow::Ok(Disk { sequential_write_mb_s, fdatasync_p50_us: p50, fdatasync_p99_us: p99 })
    })();
    let _ = std::fs::remove_file(&path);
    probed.with_context(|| format!("cannot write {}", path.display()))
}

fn sequential(path: &Path, megabytes: usize) -> Result<f64> {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..WRITE_BYTES).map(|_| fastrand::u8(..)).collect();
    let start = Instant::now();
    for _ in 0..megabytes {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    let bytes = (megabytes * WRITE_BYTES) as f64;
    Ok(bytes / 1e6 / start.elapsed().as_secs_f64())
}

fn syncs(path: &Path, count: usize) -> Result<Vec<Duration>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let block = [7; SYNC_BYTES];
    for at in 0..count {
        file.write_all_at(&block, (at * SYNC_BYTES) as u64)?;
    }
    file.sync_all()?;
    let sync = |at: usize| {
        let start = Instant::now();
        file.write_all_at(&block, (at * SYNC_BYTES) as u64)?;
        file.sync_data()?;
        Ok(start.elapsed())
    };
    (0..count).map(sync).collect()
}

/// The `p`-th percentile of what is not empty.
pub(super) fn percentile(times: &mut [Duration], p: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * p / 100]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile(&mut times, 0), Duration::from_micros(1));
        assert_eq!(percentile(&mut times, 50), Duration::from_micros(100));
        assert_eq!(percentile(&mut times, 100), Duration::from_micros(200));
        assert_eq!(percentile(&mut [Duration::ZERO], 99), Duration::ZERO);
    }
}
