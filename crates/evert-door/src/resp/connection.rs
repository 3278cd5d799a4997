//! A connection's life: bytes in, commands, bytes out.
//!
//! Invariants
//! - Answers leave in the order of the commands, and all that belong to one read of the socket
//!   leave together, unless they grow large.
//! - A client that does not read holds up only itself, and not for ever.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::client::{Client, Step};
use super::door::Shared;
use super::reply::{Out, Protocol};
use super::request::{Decoder, ProtocolError};

/// Output is written out when it has grown to this.
const OUTPUT_BYTES: usize = 64 << 10;
/// A buffer that has grown to more is given back when it is empty.
const BUFFER_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 16 << 10;

/// Why a connection ends before its client wants it to.
#[derive(Debug, Error)]
enum WireError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("the client did not take its answer in time")]
    Stalled,
    #[error("a request did not arrive whole in time")]
    Unfinished,
}

/// Serves a connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, socket: TcpStream, stopping: watch::Receiver<bool>) {
    let Ok((address, local)) = socket.peer_addr().and_then(|a| Ok((a, socket.local_addr()?)))
    else {
        return;
    };
    let entry = shared.registry.enter(address, local);
    let id = entry.id;
    let client = Client::new(Arc::clone(&shared), entry);
    let outbox = Arc::clone(&client.outbox);
    let connection = Connection {
        shared: Arc::clone(&shared),
        socket,
        client,
        inbox: BytesMut::new(),
        out: Out::new(Protocol::V2),
    };
    tokio::select! {
        ended = connection.converse(stopping) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "resp: a connection ends");
            }
        }
        () = outbox.overflown() => {
            tracing::warn!(%address, "resp: a subscriber does not read: its connection is cut");
        }
    }
    shared.registry.leave(id);
}

struct Connection {
    shared: Arc<Shared>,
    socket: TcpStream,
    client: Client,
    inbox: BytesMut,
    out: Out,
}

impl Connection {
    async fn converse(mut self, stopping: watch::Receiver<bool>) -> Result<(), WireError> {
        let mut decoder = Decoder::default();
        let outbox = Arc::clone(&self.client.outbox);
        let mut stopping = stopping;
        let stop = async move {
            // Without a sender nobody is left who could say otherwise.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let mut stop = std::pin::pin!(stop);
        // When a request that has begun to arrive must be there.
        let mut whole_by: Option<Instant> = None;
        loop {
            let goes_on = match self.answer_all(&mut decoder).await {
                Ok(goes_on) => goes_on,
                Err(WireError::Protocol(error)) => {
                    self.out.error(&format!("ERR {error}"));
                    self.flush().await?;
                    return Err(error.into());
                }
                Err(error) => return Err(error),
            };
            self.flush().await?;
            if !goes_on {
                return Ok(());
            }
            self.client.reader.release();
            self.give_back();
            whole_by = match self.inbox.is_empty() {
                true => None,
                false => {
                    whole_by.or_else(|| Some(Instant::now() + self.shared.config.request_time_max))
                }
            };
            self.inbox.reserve(READ_BYTES);
            let read = self.socket.read_buf(&mut self.inbox);
            let read = async {
                match whole_by {
                    Some(deadline) => {
                        timeout_at(deadline, read).await.map_err(|_| WireError::Unfinished)?
                    }
                    None => read.await,
                }
                .map_err(WireError::from)
            };
            tokio::select! {
                biased;
                read = read => if read? == 0 {
                    return Ok(());
                },
                () = outbox.ready() => outbox.take(&mut self.out.bytes),
                () = &mut stop => return Ok(()),
            }
        }
    }

    /// Answers every request that is there whole; `false` when the client says goodbye.
    async fn answer_all(&mut self, decoder: &mut Decoder) -> Result<bool, WireError> {
        let (mut at, mut answered) = (0, 0);
        let mut goes_on = true;
        while goes_on && let Some(length) = decoder.next(&self.inbox[at..])? {
            let request = decoder.request(&self.inbox[at..]);
            if request.len() > 0 {
                answered += 1;
                match self.client.answer(request, &mut self.out) {
                    Step::Done => {}
                    Step::Close => goes_on = false,
                    Step::Later => {
                        // What was answered before does not wait with it.
                        flush(&self.socket, &mut self.out.bytes, &self.shared).await?;
                        self.client.answer_later(request, &mut self.out).await;
                    }
                }
            }
            decoder.begin();
            at += length;
            if self.out.bytes.len() >= OUTPUT_BYTES {
                flush(&self.socket, &mut self.out.bytes, &self.shared).await?;
            }
        }
        self.inbox.advance(at);
        self.shared.registry.answered(answered);
        Ok(goes_on)
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        flush(&self.socket, &mut self.out.bytes, &self.shared).await
    }

    fn give_back(&mut self) {
        if self.inbox.is_empty() && self.inbox.capacity() > BUFFER_BYTES {
            self.inbox = BytesMut::new();
        }
        if self.out.bytes.capacity() > BUFFER_BYTES {
            self.out.bytes = BytesMut::new();
        }
    }
}

/// Writes out everything.
async fn flush(socket: &TcpStream, out: &mut BytesMut, shared: &Shared) -> Result<(), WireError> {
    while !out.is_empty() {
        match socket.try_write(out) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(written) => out.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let writable = timeout(shared.config.write_time_max, socket.writable()).await;
                writable.map_err(|_| WireError::Stalled)??;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // The room is used again.
    out.clear();
    Ok(())
}
