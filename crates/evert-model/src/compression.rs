//! The four compression codecs of Kafka batches.
//!
//! Decompression is bounded: a batch that claims to be larger than the caller allows is
//! refused before memory is taken for it.

use std::io::{Read, Write};

use bytes::Bytes;

use crate::BatchError;

/// The codec of a batch's records section, bits 0-2 of its attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As is.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, raw or in the framing of xerial's library.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// xerial's snappy framing: magic, two version words, then length-prefixed raw blocks.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

impl Compression {
    pub(crate) fn from_attributes(attributes: i16) -> Option<Self> {
        match attributes & 7 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(crate) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The uncompressed bytes of `data`, at most `bytes_max` of them.
    pub(crate) fn decompress(self, data: &Bytes, bytes_max: usize) -> Result<Bytes, BatchError> {
        match self {
            Self::None if data.len() > bytes_max => Err(BatchError::TooLarge { bytes_max }),
            Self::None => Ok(data.clone()),
            Self::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(&data[..]), bytes_max),
            Self::Snappy => unsnap(data, bytes_max),
            Self::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(&data[..]), bytes_max),
            Self::Zstd => {
                let reader = zstd::stream::read::Decoder::with_buffer(&data[..])
                    .map_err(|_| BatchError::Corrupt("the zstd data cannot be read"))?;
                read_bounded(reader, bytes_max)
            }
        }
    }

    pub(crate) fn compress(self, data: Vec<u8>) -> Vec<u8> {
        // Writing to a Vec cannot fail, and no codec refuses plain bytes.
        const INFALLIBLE: &str = "compressing into memory cannot fail";
        match self {
            Self::None => data,
            Self::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                out.write_all(&data).expect(INFALLIBLE);
                out.finish().expect(INFALLIBLE)
            }
            Self::Snappy => snap::raw::Encoder::new().compress_vec(&data).expect(INFALLIBLE),
            Self::Lz4 => {
                let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
                out.write_all(&data).expect(INFALLIBLE);
                out.finish().expect(INFALLIBLE)
            }
            Self::Zstd => zstd::stream::encode_all(&data[..], 1).expect(INFALLIBLE),
        }
    }
}

fn read_bounded(reader: impl Read, bytes_max: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    reader
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|_| BatchError::Corrupt("the compressed data cannot be read"))?;
    if out.len() > bytes_max {
        return Err(BatchError::TooLarge { bytes_max });
    }
    Ok(out.into())
}

fn unsnap(data: &[u8], bytes_max: usize) -> Result<Bytes, BatchError> {
    if !data.starts_with(XERIAL_MAGIC) {
        let mut out = Vec::new();
        unsnap_block(data, bytes_max, &mut out)?;
        return Ok(out.into());
    }
    let mut rest = data
        .get(XERIAL_HEADER_BYTES..)
        .ok_or(BatchError::Corrupt("the snappy header is cut short"))?;
    let mut out = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (block, tail) = tail
            .split_at_checked(length)
            .ok_or(BatchError::Corrupt("a snappy block is cut short"))?;
        unsnap_block(block, bytes_max, &mut out)?;
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(BatchError::Corrupt("a snappy block is cut short"));
    }
    Ok(out.into())
}

fn unsnap_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let corrupt = |_| BatchError::Corrupt("the snappy data cannot be read");
    let length = snap::raw::decompress_len(block).map_err(corrupt)?;
    let start = out.len();
    if length > bytes_max - start.min(bytes_max) {
        return Err(BatchError::TooLarge { bytes_max });
    }
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(corrupt)?;
    Ok(())
}
