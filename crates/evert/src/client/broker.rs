//! A connection to the Kafka door, one request at a time.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer that is read: some fetches, whole.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A connection.
pub(super) struct Broker {
    socket: TcpStream,
    correlation: i32,
}

impl Broker {
    pub(super) async fn connect(address: &str) -> Result<Self> {
        let socket = TcpStream::connect(address).await;
        let socket =
            socket.with_context(|| format!("cannot connect to the Kafka door at {address}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, correlation: 0 })
    }

    /// Sends a request and reads its answer.
    pub(super) async fn ask<Q: Encodable, A: Decodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<A> {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("evert")))
            .encode(&mut frame, api.request_header_version(version))?;
        request.encode(&mut frame, version)?;
        let length = i32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.socket.write_all(&frame).await?;
        let length = usize::try_from(self.socket.read_i32().await?)?;
        ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.socket.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, api.response_header_version(version))?;
        ensure!(header.correlation_id == self.correlation, "an answer to another request");
        let decoded = A::decode(&mut answer, version)?;
        ensure!(!answer.has_remaining(), "an answer with bytes left over");
        Ok(decoded)
    }
}

/// Refuses an answer that is an error, in Kafka's words.
pub(super) fn check(what: &str, code: i16, message: Option<&StrBytes>) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    match (message, ResponseError::try_from_code(code)) {
        (Some(message), _) if !message.is_empty() => bail!("{what}: {message}"),
        (_, Some(error)) => bail!("{what}: {error}"),
        (_, None) => bail!("{what}: error {code}"),
    }
}
