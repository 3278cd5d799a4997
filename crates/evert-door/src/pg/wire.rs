//! A connection's bytes: reading with bounds, writing with patience but not for ever.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::backend::SqlError;
use super::door::PgConfig;
use super::frontend::{Frame, FrameError, Opening, frame_length, next_frame, next_opening};
use super::reply::{self, Severity};

/// Frames up to this size take no share of the memory for large ones.
const SMALL_FRAME_BYTES: usize = 64 * 1024;
/// Output is written out when it has grown to this.
const OUTPUT_BYTES: usize = 64 * 1024;
/// What a client may send ahead of the end of an answer that has none.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a statement runs before it is looked whether its client is still there.
const GONE_AFTER: Duration = Duration::from_millis(200);

/// Why a connection ends.
#[derive(Debug, Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the client did not take its answer in time")]
    Stalled,
    #[error("a message did not arrive whole in time")]
    Unfinished,
    #[error("too many large messages at once")]
    OutOfMemory,
}

/// A socket with its buffers.
pub(super) struct Wire {
    socket: TcpStream,
    inbox: BytesMut,
    /// Where answers are written.
    pub(super) out: BytesMut,
    config: Arc<PgConfig>,
    large_bytes: Arc<Semaphore>,
    /// This connection's share of the memory for large messages.
    share: Option<OwnedSemaphorePermit>,
    /// When the message that has begun to arrive must be there.
    whole_by: Option<Instant>,
}

impl Wire {
    pub(super) fn new(
        socket: TcpStream,
        config: Arc<PgConfig>,
        large_bytes: Arc<Semaphore>,
    ) -> Self {
        let (inbox, out) = (BytesMut::new(), BytesMut::new());
        Self { socket, inbox, out, config, large_bytes, share: None, whole_by: None }
    }

    /// The next packet before the session starts; `None` when the client has left.
    pub(super) async fn opening(&mut self) -> Result<Option<Opening>, WireError> {
        loop {
            if let Some(opening) = next_opening(&mut self.inbox)? {
                return Ok(Some(opening));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The next frame; `None` when the client has left. What was answered so far goes out before
    /// this waits. Dropping the future loses nothing.
    pub(super) async fn frame(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(frame) = next_frame(&mut self.inbox, self.config.message_bytes_max)? {
                self.whole_by = None;
                return Ok(Some(frame));
            }
            self.flush().await?;
            self.reserve()?;
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The frame before is done with: gives back what it held.
    pub(super) fn release(&mut self) {
        self.share = None;
        if self.inbox.is_empty() && self.inbox.capacity() > SMALL_FRAME_BYTES {
            self.inbox = BytesMut::new();
        }
        if self.out.is_empty() && self.out.capacity() > 2 * OUTPUT_BYTES {
            self.out = BytesMut::new();
        }
    }

    /// Takes this connection's share of the memory for large messages, once it is known that one
    /// is coming.
    fn reserve(&mut self) -> Result<(), WireError> {
        if self.inbox.is_empty() {
            return Ok(());
        }
        self.whole_by.get_or_insert_with(|| Instant::now() + self.config.message_time_max);
        let length = frame_length(&self.inbox, self.config.message_bytes_max)?;
        let Some(length) = length.filter(|length| *length > SMALL_FRAME_BYTES) else {
            return Ok(());
        };
        if self.share.is_none() {
            let permits = u32::try_from(length).map_err(|_| WireError::OutOfMemory)?;
            let share = self.large_bytes.clone().try_acquire_many_owned(permits);
            self.share = Some(share.map_err(|_| WireError::OutOfMemory)?);
        }
        Ok(())
    }

    /// Reads what is there; `false` at the end.
    async fn fill(&mut self) -> Result<bool, WireError> {
        self.inbox.reserve(8 * 1024);
        let read = self.socket.read_buf(&mut self.inbox);
        let read = match self.whole_by {
            Some(deadline) => {
                timeout_at(deadline, read).await.map_err(|_| WireError::Unfinished)?
            }
            None => read.await,
        };
        Ok(read? > 0)
    }

    /// Writes out when enough has gathered.
    pub(super) async fn flush_if_full(&mut self) -> Result<(), WireError> {
        if self.out.len() >= OUTPUT_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Writes out everything. Dropping the future loses nothing.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        while !self.out.is_empty() {
            let write = self.socket.write_buf(&mut self.out);
            let written = timeout(self.config.write_time_max, write).await;
            if written.map_err(|_| WireError::Stalled)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        Ok(())
    }

    /// Tells the client why the connection ends, if it still listens, and closes.
    pub(super) async fn farewell(&mut self, error: &SqlError) {
        reply::error(&mut self.out, Severity::Fatal, error);
        self.close().await;
    }

    pub(super) async fn close(&mut self) {
        // Whoever does not take a farewell within this time does without.
        let goodbye = async {
            let _ = self.flush().await;
            let _ = self.socket.shutdown().await;
        };
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }

    /// Resolves when the client has left, or has said that it does. For answers without an end:
    /// nothing that is sent before the goodbye is waited for, only taken in, up to a bound.
    /// Dropping the future loses nothing.
    pub(super) async fn left(&mut self) {
        while !says_goodbye(&self.inbox) {
            if self.inbox.len() >= AHEAD_BYTES_MAX {
                return std::future::pending().await;
            }
            if !matches!(self.fill().await, Ok(true)) {
                return;
            }
        }
    }

    /// Resolves when the client has left. Looks only after a while, and stops looking when more
    /// messages are waiting: whether a client left after them cannot be seen.
    pub(super) async fn gone(&self) {
        tokio::time::sleep(GONE_AFTER).await;
        if self.inbox.is_empty() && matches!(self.socket.peek(&mut [0]).await, Ok(0) | Err(_)) {
            return;
        }
        std::future::pending().await
    }
}

/// Whether there is a Terminate among these frames.
fn says_goodbye(mut frames: &[u8]) -> bool {
    while let Some((kind, rest)) = frames.split_first() {
        if *kind == b'X' {
            return true;
        }
        let Some(length) = rest.first_chunk::<4>() else { return false };
        let Some(after) = rest.get(u32::from_be_bytes(*length) as usize..) else { return false };
        // A length counts itself; one that does not is refused when its turn comes.
        if after.len() == rest.len() {
            return false;
        }
        frames = after;
    }
    false
}
