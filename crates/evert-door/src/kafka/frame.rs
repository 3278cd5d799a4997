//! Frames: a length of four bytes, then that many bytes.
//!
//! Owns: cutting what a socket gave into frames, and the bound on a frame's length.
//! Not here: what a frame says (`wire`), sockets (`connection`).
//!
//! Invariants
//! - Memory grows with the bytes that arrived, never with a length that was only claimed.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

const PREFIX_BYTES: usize = 4;

/// Bytes that can be no frame.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The length is negative or larger than allowed.
    #[error("a request of {len} bytes is larger than {bytes_max}, socket.request.max.bytes")]
    TooLarge { len: u32, bytes_max: u32 },
}

/// The bytes of one connection that are not requests yet.
#[derive(Debug)]
pub(crate) struct Frames {
    buf: BytesMut,
    frame_bytes_max: u32,
}

impl Frames {
    pub(crate) fn new(frame_bytes_max: u32) -> Self {
        Self { buf: BytesMut::new(), frame_bytes_max }
    }

    /// Where a socket's bytes go.
    pub(crate) fn buf_mut(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// How many bytes wait here.
    pub(crate) fn len(&self) -> usize {
        self.buf.len()
    }

    /// The next complete frame, without its length. Once it failed, the stream has lost its
    /// place and must be closed.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.buf.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        // A negative length reads as a huge one, so one check refuses both.
        let len = u32::from_be_bytes(*prefix);
        if len > self.frame_bytes_max {
            return Err(FrameError::TooLarge { len, bytes_max: self.frame_bytes_max });
        }
        let len = len as usize;
        if self.buf.len() < PREFIX_BYTES + len {
            return Ok(None);
        }
        self.buf.advance(PREFIX_BYTES);
        Ok(Some(self.buf.split_to(len).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_frames_however_the_bytes_arrive() {
        let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01z";
        for step in 1..=stream.len() {
            let mut frames = Frames::new(3);
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                frames.buf_mut().extend_from_slice(piece);
                while let Some(frame) = frames.next_frame().expect("all are short") {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, [&b"abc"[..], b"", b"z"], "{step} bytes at a time");
        }
    }

    #[test]
    fn refuses_impossible_lengths_before_reserving() {
        for len in [4, i32::MAX as u32, -1i32 as u32, i32::MIN as u32] {
            let mut frames = Frames::new(3);
            frames.buf_mut().extend_from_slice(&len.to_be_bytes());
            assert_eq!(frames.next_frame(), Err(FrameError::TooLarge { len, bytes_max: 3 }));
            assert!(frames.buf_mut().capacity() < 1024);
        }
    }
}
