//! Connections: sockets, and the order of answers on each.
//!
//! Owns: reading, writing, pipelining, and when to close.
//! Not here: bytes (`frame`, `wire`), meaning (`broker`).
//!
//! Invariants
//! - Requests take effect, and answers leave, in the order in which the requests came.
//! - Only Produce requests overlap: each is appended when it arrives, and its answer waits for
//!   the disk. Any other request runs alone, when all before it are answered.
//! - While answers are not taken, no further request is read: a slow reader costs its requests
//!   under way and no more. An idle connection holds no buffer.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use kafka_protocol::messages::{RequestKind, ResponseKind};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::broker::{Broker, Peer, raised, text};
use super::error::DoorError;
use super::frame::{FrameError, Frames};
use super::wire::{self, Decoded, Request, WireError};

/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// How much is read ahead while a request is under way, to notice that a client hangs up.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Why a connection ends.
#[derive(Debug, Error)]
enum Ended {
    #[error("it was idle")]
    Idle,
    #[error("the server stops")]
    Stopping,
    #[error("the client hung up")]
    HungUp,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Refused(#[from] DoorError),
    #[error("a produce with acks=0 failed, and this is the only way to say so")]
    Unacknowledged,
}

/// A request under way. The future gives the answer's frame, if there is to be one.
struct UnderWay {
    answer: BoxFuture<'static, Result<Option<Bytes>, Ended>>,
    frame_bytes: usize,
    /// Whether nothing else may be begun meanwhile.
    is_alone: bool,
}

struct Connection {
    broker: Arc<Broker>,
    socket: TcpStream,
    peer: Peer,
    frames: Frames,
    under_way: VecDeque<UnderWay>,
    /// A request that must wait until all before it are answered.
    parked: Option<(Box<Request>, usize)>,
    leaving: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
    is_stopping: bool,
    is_hung_up: bool,
}

/// Serves one client until either side ends it.
pub(crate) async fn serve(broker: Arc<Broker>, socket: TcpStream, stopping: watch::Receiver<bool>) {
    let peer_address = socket.peer_addr();
    let ended = match Connection::new(broker, socket, stopping) {
        Ok(mut connection) => connection.run().await,
        Err(error) => Ended::Io(error),
    };
    match ended {
        Ended::Idle | Ended::Stopping | Ended::HungUp => {
            tracing::debug!(client = ?peer_address.ok(), %ended, "kafka: connection closed");
        }
        Ended::Io(error) => {
            tracing::debug!(client = ?peer_address.ok(), %error, "kafka: connection lost");
        }
        ended => {
            tracing::warn!(client = ?peer_address.ok(), %ended, "kafka: connection closed");
        }
    }
}

impl Connection {
    fn new(
        broker: Arc<Broker>,
        socket: TcpStream,
        stopping: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let (leaving, is_leaving) = watch::channel(false);
        let advertised = match &broker.config.advertised {
            Some((host, port)) => (text(host.clone()), i32::from(*port)),
            None => {
                let local = socket.local_addr()?;
                (text(local.ip().to_canonical().to_string()), i32::from(local.port()))
            }
        };
        let peer = Peer {
            address: socket.peer_addr()?.ip().to_canonical(),
            client_id: text(""),
            advertised,
            leaving: is_leaving,
        };
        let frames = Frames::new(broker.config.frame_bytes_max);
        Ok(Self {
            broker,
            socket,
            peer,
            frames,
            under_way: VecDeque::new(),
            parked: None,
            leaving,
            stopping,
            is_stopping: false,
            is_hung_up: false,
        })
    }

    async fn run(&mut self) -> Ended {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    /// Begins what can be begun, then waits for whatever happens next.
    async fn step(&mut self) -> Result<(), Ended> {
        self.begin_requests()?;
        let is_busy = !self.under_way.is_empty();
        if !is_busy && self.is_stopping {
            return Err(Ended::Stopping);
        }
        if !is_busy && self.is_hung_up {
            return Err(Ended::HungUp);
        }
        let may_read = !self.is_hung_up
            && !self.is_stopping
            && (!is_busy || self.frames.len() < READ_AHEAD_BYTES);
        let idle_max = self.broker.config.idle_max;
        tokio::select! {
            biased;
            answer = first_answer(&mut self.under_way), if is_busy => {
                self.under_way.pop_front();
                if let Some(frame) = answer? {
                    let write = self.socket.write_all(&frame);
                    tokio::time::timeout(idle_max, write).await.map_err(|_| Ended::Idle)??;
                }
            }
            readable = self.socket.readable(), if may_read => {
                readable?;
                self.read()?;
            }
            () = raised(&mut self.stopping), if !self.is_stopping => {
                self.is_stopping = true;
                self.leaving.send_replace(true);
            }
            () = tokio::time::sleep(idle_max), if !is_busy => return Err(Ended::Idle),
        }
        Ok(())
    }

    /// Takes what the socket has.
    fn read(&mut self) -> Result<(), Ended> {
        self.frames.buf_mut().reserve(READ_BYTES);
        match self.socket.try_read_buf(self.frames.buf_mut()) {
            Ok(0) => {
                self.is_hung_up = true;
                self.leaving.send_replace(true);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn begin_requests(&mut self) -> Result<(), Ended> {
        while self.may_begin() {
            if let Some((request, frame_bytes)) = self.parked.take() {
                self.begin(request, frame_bytes);
                continue;
            }
            let Some(frame) = self.frames.next_frame()? else { break };
            let frame_bytes = frame.len();
            match wire::decode(frame)? {
                Decoded::Answered(answer) => {
                    let answer = std::future::ready(Ok(Some(answer))).boxed();
                    self.under_way.push_back(UnderWay { answer, frame_bytes, is_alone: false });
                }
                Decoded::Request(request) => self.begin(request, frame_bytes),
            }
        }
        if self.frames.len() == 0 {
            *self.frames.buf_mut() = BytesMut::new();
        }
        Ok(())
    }

    fn may_begin(&self) -> bool {
        let config = &self.broker.config;
        let bytes: usize = self.under_way.iter().map(|it| it.frame_bytes).sum();
        match self.under_way.back() {
            None => true,
            Some(last) => {
                !last.is_alone
                    && self.parked.is_none()
                    && self.under_way.len() < config.in_flight_max
                    && bytes < config.in_flight_bytes_max
            }
        }
    }

    fn begin(&mut self, request: Box<Request>, frame_bytes: usize) {
        let is_produce = matches!(request.body, RequestKind::Produce(_));
        if !is_produce && !self.under_way.is_empty() {
            self.parked = Some((request, frame_bytes));
            return;
        }
        let answer = self.answer(request);
        self.under_way.push_back(UnderWay { answer, frame_bytes, is_alone: !is_produce });
    }

    fn answer(&self, request: Box<Request>) -> BoxFuture<'static, Result<Option<Bytes>, Ended>> {
        let Request { head, client_id, body } = *request;
        if let RequestKind::Produce(produce) = body {
            let is_silent = produce.acks == 0;
            let produced = self.broker.produce(head.version, produce);
            return async move {
                let produced = produced.await;
                if is_silent {
                    return if produced.failed { Err(Ended::Unacknowledged) } else { Ok(None) };
                }
                Ok(Some(wire::encode(head, &ResponseKind::Produce(produced.response))?))
            }
            .boxed();
        }
        let broker = self.broker.clone();
        let mut peer = self.peer.clone();
        peer.client_id = client_id.unwrap_or_default();
        async move {
            let response = broker.handle(head.version, body, &peer).await?;
            Ok(Some(wire::encode(head, &response)?))
        }
        .boxed()
    }
}

/// The answer to the oldest request under way.
async fn first_answer(under_way: &mut VecDeque<UnderWay>) -> Result<Option<Bytes>, Ended> {
    match under_way.front_mut() {
        Some(first) => (&mut first.answer).await,
        None => std::future::pending().await,
    }
}
