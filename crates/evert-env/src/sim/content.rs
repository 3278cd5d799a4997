//! One file's bytes: as the program sees them, as the disk holds them, and what lies between.
//!
//! Invariants
//! - Applying `pending` to `durable` in order is what a sync does, and all that it does.
//! - After a crash `live` is `durable` and nothing is pending.
//! - A sector is written whole or not at all; anything larger can tear.

use std::collections::BTreeMap;
use std::io;

use fastrand::Rng;

use super::taste::Taste;

pub(super) const SECTOR_BYTES: usize = 512;
/// A simulated file lives in memory, in two copies.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Box<[u8]> },
    Resize { bytes: usize },
}

impl Content {
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.live.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        let offset = in_bounds(offset, data.len())?;
        if !data.is_empty() {
            self.change(Change::Write { offset, data: data.into() });
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = in_bounds(bytes, 0)?;
        if bytes != self.live.len() {
            self.change(Change::Resize { bytes });
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that fails as Linux's does: some pages reached the disk, and those that did not
    /// count as clean from now on, so that no later sync writes them.
    pub(super) fn sync_losing_pages(&mut self, taste: Taste, rng: &mut Rng) {
        self.durable = self.survivor(taste, rng);
        self.pending.clear();
    }

    pub(super) fn crash(&mut self, taste: Taste, rng: &mut Rng) {
        self.durable = self.survivor(taste, rng);
        self.live.clone_from(&self.durable);
        self.pending.clear();
    }

    pub(super) fn flip_bit(&mut self, byte: usize, bit: u32) {
        for image in [&mut self.live, &mut self.durable] {
            if let Some(byte) = image.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// One of the images that the disk may hold when the power fails now.
    ///
    /// Lengths change in order, as in a journaling file system: the first `resized` changes of
    /// length survive. Sectors are written back in any order: each is at some version of its
    /// own, though never older than a surviving cut of the file through it, nor newer than one
    /// that did not survive.
    fn survivor(&self, taste: Taste, rng: &mut Rng) -> Vec<u8> {
        let resized = taste.prefix(self.pending.len(), rng);
        let mut image = self.durable.clone();
        let mut lengths = vec![image.len()];
        for change in &self.pending {
            lengths.push(change.length_after(lengths[lengths.len() - 1]));
        }
        let length = lengths[resized];
        image.resize(length.max(image.len()), 0);
        for (sector, touching) in self.touched_sectors(&lengths) {
            let start = sector * SECTOR_BYTES;
            if start >= image.len() {
                continue;
            }
            let cut = self.sector_version(&touching, resized, taste, rng);
            let end = image.len().min(start + SECTOR_BYTES);
            for &index in touching.iter().take_while(|&&index| index < cut) {
                self.pending[index].apply_to(&mut image[start..end], start);
            }
        }
        image.truncate(length);
        image
    }

    /// For each sector that pending changes touch, the changes by index, in order.
    fn touched_sectors(&self, lengths: &[usize]) -> BTreeMap<usize, Vec<usize>> {
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        for (index, change) in self.pending.iter().enumerate() {
            let (start, end) = match change {
                Change::Write { offset, data } => (*offset, offset + data.len()),
                Change::Resize { bytes } if *bytes < lengths[index] => (*bytes, longest),
                Change::Resize { .. } => continue,
            };
            for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
                touched.entry(sector).or_default().push(index);
            }
        }
        touched
    }

    /// Before which change a sector stopped being written back.
    fn sector_version(
        &self,
        touching: &[usize],
        resized: usize,
        taste: Taste,
        rng: &mut Rng,
    ) -> usize {
        let is_cut = |index: &&usize| matches!(self.pending[**index], Change::Resize { .. });
        let oldest = touching.iter().filter(is_cut).rfind(|&&index| index < resized);
        let newest = touching.iter().filter(is_cut).find(|&&index| index >= resized);
        let oldest = oldest.map_or(0, |index| index + 1);
        let newest = newest.copied().unwrap_or(self.pending.len());
        if matches!(taste, Taste::Prefix) {
            return resized.clamp(oldest, newest);
        }
        let mut versions = vec![oldest];
        versions.extend(
            touching.iter().filter(|&&at| (oldest..newest).contains(&at)).map(|index| index + 1),
        );
        versions[taste.prefix(versions.len() - 1, rng)]
    }
}

impl Change {
    fn length_after(&self, length: usize) -> usize {
        match self {
            Self::Write { offset, data } => length.max(offset + data.len()),
            Self::Resize { bytes } => *bytes,
        }
    }

    fn apply(&self, image: &mut Vec<u8>) {
        image.resize(self.length_after(image.len()), 0);
        self.apply_to(image, 0);
    }

    /// Applies the change to `part`, the bytes from `start` on; the length is not its concern.
    fn apply_to(&self, part: &mut [u8], start: usize) {
        match self {
            Self::Write { offset, data } => {
                let from = (*offset).max(start);
                let to = (offset + data.len()).min(start + part.len());
                if from < to {
                    part[from - start..to - start]
                        .copy_from_slice(&data[from - offset..to - offset]);
                }
            }
            Self::Resize { bytes } => {
                let from = bytes.saturating_sub(start).min(part.len());
                part[from..].fill(0);
            }
        }
    }
}

fn in_bounds(offset: u64, bytes: usize) -> io::Result<usize> {
    match offset.checked_add(bytes as u64) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(offset as usize),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: usize = SECTOR_BYTES;

    fn outcomes(content: &Content) -> Vec<Vec<u8>> {
        (0..3000)
            .map(|seed| {
                let mut rng = Rng::with_seed(seed);
                let mut after = content.clone();
                after.crash(Taste::draw(&mut rng), &mut rng);
                assert_eq!(after.live, after.durable);
                after.live
            })
            .collect()
    }

    fn synced(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(bytes, 0).expect("in bounds");
        content.sync();
        content
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        let content = synced(&[7; 3 * S + 11]);
        for image in outcomes(&content) {
            assert_eq!(image, [7; 3 * S + 11]);
        }
    }

    #[test]
    fn a_write_tears_at_sectors_and_only_there() {
        let mut content = synced(&[1; 4 * S]);
        content.write(&[2; 3 * S], 100).expect("in bounds");
        let images = outcomes(&content);
        for image in &images {
            assert_eq!(image.len(), 4 * S);
            assert!(image[..100].iter().all(|&b| b == 1), "bytes before the write are safe");
            assert!(image[100 + 3 * S..].iter().all(|&b| b == 1), "and those after it");
            for piece in [100..S, S..2 * S, 2 * S..3 * S, 3 * S..3 * S + 100] {
                let first = image[piece.start];
                assert!(image[piece].iter().all(|&b| b == first), "a sector is whole");
            }
        }
        let pattern = |image: &[u8]| [image[100], image[S], image[2 * S], image[3 * S]];
        for bits in 0..16u8 {
            let wanted = std::array::from_fn(|i| 1 + (bits >> i & 1));
            assert!(images.iter().any(|image| pattern(image) == wanted), "{wanted:?} happens");
        }
    }

    #[test]
    fn any_version_of_an_overwritten_sector_may_survive() {
        let mut content = synced(&[1; S]);
        content.write(&[2; S], 0).expect("in bounds");
        content.write(&[3; S], 0).expect("in bounds");
        let images = outcomes(&content);
        for version in 1..=3 {
            assert!(images.iter().any(|image| image[0] == version), "version {version}");
        }
    }

    #[test]
    fn a_later_write_may_survive_an_earlier_one() {
        let mut content = synced(&[0; 2 * S]);
        content.write(&[1; S], 0).expect("in bounds");
        content.write(&[1; S], S as u64).expect("in bounds");
        let images = outcomes(&content);
        assert!(images.iter().any(|image| (image[0], image[S]) == (0, 1)));
        assert!(images.iter().any(|image| (image[0], image[S]) == (1, 0)));
    }

    #[test]
    fn an_unsynced_length_may_be_lost_or_stand_over_zeros() {
        let mut content = synced(b"abc");
        content.write(&[5; 2 * S], 3).expect("in bounds");
        let images = outcomes(&content);
        assert!(images.iter().any(|image| image == b"abc"), "nothing survived");
        assert!(images.iter().any(|image| image.len() > S && image[S] == 0), "length, no bytes");
        assert!(images.iter().all(|image| image.starts_with(b"abc")));
    }

    #[test]
    fn a_cut_is_kept_or_lost_but_never_lets_old_bytes_into_new_space() {
        let mut content = synced(&[1; 3 * S]);
        content.resize(S as u64).expect("in bounds");
        content.write(&[2; 2 * S], S as u64).expect("in bounds");
        let images = outcomes(&content);
        for image in &images {
            let tail: Vec<u8> = image[S..].to_vec();
            assert!(
                !(tail.contains(&1) && tail.contains(&2)),
                "old bytes next to new ones: the cut was neither kept nor lost"
            );
        }
        assert!(images.iter().any(|image| image.len() == S), "the cut alone");
        assert!(images.iter().any(|image| image.len() == 3 * S && image[S] == 1), "no cut");
        assert!(images.iter().any(|image| image.len() == 3 * S && image[S] == 2), "all of it");
    }

    #[test]
    fn extended_space_reads_as_zeros() {
        let mut content = synced(&[1; 2 * S]);
        content.resize(10).expect("in bounds");
        content.resize(2 * S as u64).expect("in bounds");
        assert!(content.live()[10..].iter().all(|&byte| byte == 0));
        content.sync();
        assert_eq!(content.live, content.durable);
        assert!(content.resize(u64::MAX).is_err());
        assert!(content.write(b"x", u64::MAX).is_err());
    }

    #[test]
    fn a_sync_that_loses_pages_loses_them_for_good() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut rng = Rng::with_seed(seed);
            let mut content = synced(&[1; 4 * S]);
            content.write(&[2; 4 * S], 0).expect("in bounds");
            content.sync_losing_pages(Taste::Each(50), &mut rng);
            assert_eq!(content.live, [2; 4 * S], "the page cache still shows the new bytes");
            content.sync();
            content.crash(Taste::Everything, &mut rng);
            lost += usize::from(content.live.contains(&1));
        }
        assert!(lost > 50, "a later sync that succeeds must not bring them back: {lost}");
    }

    #[test]
    fn reads_end_at_the_end() {
        let content = synced(b"abcdef");
        let mut buf = [0; 3];
        content.read(&mut buf, 3).expect("within the file");
        assert_eq!(&buf, b"def");
        for offset in [4, 6, u64::MAX] {
            let error = content.read(&mut buf, offset).expect_err("past the end");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
