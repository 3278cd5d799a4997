//! A group's frame: header, payload, padding.
//!
//! ```text
//!  0 magic "EVJ1"      8 generation       24 mark: generation   40 payload bytes u32
//!  4 CRC-32C of 8..48 16 byte in the file 32 mark: byte         44 CRC-32C of the payload
//! ```
//! Numbers are little-endian. The header has a CRC of its own, so that marks count even where
//! payloads are lost.

use crate::entry::crc;

pub(crate) const HEADER_BYTES: usize = 48;
/// Frames begin at multiples of this, which is where a scan looks for them.
pub(crate) const FRAME_ALIGN: usize = 8;
const MAGIC: [u8; 4] = *b"EVJ1";

/// A place in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) byte: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where the frame itself begins.
    pub(crate) place: Place,
    /// Up to where the journal was durable when the frame was written.
    pub(crate) mark: Place,
    pub(crate) payload_bytes: u32,
}

impl Header {
    /// Fills in the first bytes of `frame`, whose payload is in place.
    pub(crate) fn write_to(&self, frame: &mut [u8]) {
        let payload = &frame[HEADER_BYTES..HEADER_BYTES + self.payload_bytes as usize];
        let payload_crc = crc(payload);
        frame[0..4].copy_from_slice(&MAGIC);
        frame[8..16].copy_from_slice(&self.place.generation.to_le_bytes());
        frame[16..24].copy_from_slice(&self.place.byte.to_le_bytes());
        frame[24..32].copy_from_slice(&self.mark.generation.to_le_bytes());
        frame[32..40].copy_from_slice(&self.mark.byte.to_le_bytes());
        frame[40..44].copy_from_slice(&self.payload_bytes.to_le_bytes());
        frame[44..48].copy_from_slice(&payload_crc.to_le_bytes());
        let header_crc = crc(&frame[8..HEADER_BYTES]);
        frame[4..8].copy_from_slice(&header_crc.to_le_bytes());
    }

    /// The header at `place` of a file that holds `bytes`, if there is a good one.
    pub(crate) fn read(bytes: &[u8], place: Place) -> Option<Self> {
        let fixed = bytes.get(place.byte as usize..)?.first_chunk::<HEADER_BYTES>()?;
        if fixed[0..4] != MAGIC || u32_at(fixed, 4) != crc(&fixed[8..]) {
            return None;
        }
        let found = Place { generation: u64_at(fixed, 8), byte: u64_at(fixed, 16) };
        let mark = Place { generation: u64_at(fixed, 24), byte: u64_at(fixed, 32) };
        (found == place).then_some(Self { place, mark, payload_bytes: u32_at(fixed, 40) })
    }

    /// The payload of this header, if it is all there and good.
    pub(crate) fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.place.byte as usize;
        let payload = bytes.get(start + HEADER_BYTES..)?.get(..self.payload_bytes as usize)?;
        let stored = u32::from_le_bytes(std::array::from_fn(|i| bytes[start + 44 + i]));
        (crc(payload) == stored).then_some(payload)
    }

    /// Where the next frame begins.
    pub(crate) fn end(&self) -> Place {
        let bytes = (HEADER_BYTES + self.payload_bytes as usize).next_multiple_of(FRAME_ALIGN);
        Place { byte: self.place.byte + bytes as u64, ..self.place }
    }
}

/// The largest mark among the good headers of `bytes` from `from` on.
pub(crate) fn largest_mark(bytes: &[u8], from: Place) -> Option<Place> {
    (from.byte as usize..bytes.len())
        .step_by(FRAME_ALIGN)
        .filter(|at| bytes[*at..].starts_with(&MAGIC))
        .filter_map(|at| Header::read(bytes, Place { byte: at as u64, ..from }))
        .map(|header| header.mark)
        .max()
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
