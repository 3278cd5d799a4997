//! What clients send: frames cut out of a stream of bytes, and messages read from frames.
//!
//! Owns: lengths and their bounds, the layout of frontend messages
//! (Postgres documentation, chapter "Message Formats").
//! Not here: sockets (`connection`), values of parameters (`decode`).
//!
//! Invariants
//! - No memory is reserved on the word of a length: the buffer grows with what arrived.
//! - No bytes can panic the reader; a malformed body is an error, the stream stays in step.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// The largest packet before the session starts, as in Postgres.
const STARTUP_BYTES_MAX: usize = 10_000;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// Why a client's bytes are refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum FrameError {
    #[error("a message of {bytes} bytes is longer than {bytes_max}")]
    TooLarge { bytes: u32, bytes_max: usize },
    #[error("a length of {0} is shorter than the length itself")]
    TooShort(u32),
    #[error("unknown message type {0:#04x}")]
    UnknownType(u8),
    #[error("invalid startup packet")]
    BadStartup,
    #[error("unsupported frontend protocol {major}.{minor}: the server supports 3.0")]
    UnsupportedProtocol { major: u16, minor: u16 },
    #[error("invalid message format")]
    BadMessage,
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    NotUtf8,
}

impl FrameError {
    pub(super) fn sqlstate(&self) -> &'static str {
        match self {
            Self::UnsupportedProtocol { .. } => "0A000",
            Self::NotUtf8 => "22021",
            _ => "08P01",
        }
    }

    /// Whether the connection must end, because the next frame's beginning is not known.
    pub(super) fn is_fatal(&self) -> bool {
        !matches!(self, Self::BadMessage | Self::NotUtf8)
    }
}

/// The packets that may open a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Ssl,
    GssEncryption,
    Cancel { process: i32, secret: i32 },
    Startup { minor: u16, parameters: Vec<(String, String)> },
}

/// A statement or a portal, as Describe and Close tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Statement,
    Portal,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) param_formats: Vec<i16>,
    /// `None` is NULL.
    pub(super) params: Vec<Option<Bytes>>,
    pub(super) result_formats: Vec<i16>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        param_oids: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        rows_max: i32,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    /// COPY's messages: dropped outside of a COPY, as Postgres does.
    Copy,
    FunctionCall,
}

/// A frame whose message is not read yet.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    body: Bytes,
}

impl Frame {
    /// What the frame holds, for those that are not read as messages.
    pub(super) fn into_body(self) -> Bytes {
        self.body
    }

    /// Whether this is the frame that ends a series of extended messages.
    pub(super) fn is_sync(&self) -> bool {
        self.kind == b'S'
    }

    /// Whether an error in this frame puts off everything up to the next Sync.
    pub(super) fn is_extended(&self) -> bool {
        matches!(self.kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H')
    }
}

/// The length of the frame that begins in `buffer` (without its type), once it is known.
pub(super) fn frame_length(buffer: &[u8], bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(&kind) = buffer.first() else { return Ok(None) };
    if !b"QPBDECHSXdcfFp".contains(&kind) {
        return Err(FrameError::UnknownType(kind));
    }
    let Some(prefix) = buffer[1..].first_chunk::<4>() else { return Ok(None) };
    bounded(u32::from_be_bytes(*prefix), 4, bytes_max).map(Some)
}

/// Takes the next whole frame from the front of `buffer`.
pub(super) fn next_frame(
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> Result<Option<Frame>, FrameError> {
    let Some(length) = frame_length(buffer, bytes_max)? else { return Ok(None) };
    if buffer.len() < 1 + length {
        return Ok(None);
    }
    let kind = buffer.get_u8();
    let mut body = buffer.split_to(length);
    body.advance(4);
    Ok(Some(Frame { kind, body: body.freeze() }))
}

/// Takes the next whole packet of a connection that has not started.
pub(super) fn next_opening(buffer: &mut BytesMut) -> Result<Option<Opening>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = bounded(u32::from_be_bytes(*prefix), 8, STARTUP_BYTES_MAX)?;
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = buffer.split_to(length);
    body.advance(4);
    read_opening(body.freeze()).map(Some)
}

/// A negative length reads as a huge one, so one check refuses both.
fn bounded(length: u32, least: u32, bytes_max: usize) -> Result<usize, FrameError> {
    if length < least {
        return Err(FrameError::TooShort(length));
    }
    match usize::try_from(length) {
        Ok(bytes) if bytes <= bytes_max => Ok(bytes),
        _ => Err(FrameError::TooLarge { bytes: length, bytes_max }),
    }
}

fn read_opening(body: Bytes) -> Result<Opening, FrameError> {
    let mut fields = Fields(body);
    match fields.u32().map_err(|_| FrameError::BadStartup)? {
        SSL_REQUEST => Ok(Opening::Ssl),
        GSSENC_REQUEST => Ok(Opening::GssEncryption),
        CANCEL_REQUEST => {
            let process = fields.i32().map_err(|_| FrameError::BadStartup)?;
            let secret = fields.i32().map_err(|_| FrameError::BadStartup)?;
            Ok(Opening::Cancel { process, secret })
        }
        version => {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            if major != 3 {
                return Err(FrameError::UnsupportedProtocol { major, minor });
            }
            let parameters = fields.pairs().map_err(|_| FrameError::BadStartup)?;
            Ok(Opening::Startup { minor, parameters })
        }
    }
}

impl Message {
    /// Reads a frame's body.
    pub(super) fn read(frame: Frame) -> Result<Self, FrameError> {
        let mut fields = Fields(frame.body);
        let message = match frame.kind {
            b'Q' => Self::Query(fields.text()?),
            b'P' => Self::Parse {
                name: fields.text()?,
                sql: fields.text()?,
                param_oids: fields.list(4, Fields::u32)?,
            },
            b'B' => Self::Bind(Bind {
                portal: fields.text()?,
                statement: fields.text()?,
                param_formats: fields.list(2, Fields::i16)?,
                params: fields.list(4, Fields::value)?,
                result_formats: fields.list(2, Fields::i16)?,
            }),
            b'D' => Self::Describe { target: fields.target()?, name: fields.text()? },
            b'C' => Self::Close { target: fields.target()?, name: fields.text()? },
            b'E' => Self::Execute { portal: fields.text()?, rows_max: fields.i32()? },
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            b'd' | b'c' | b'f' => return Ok(Self::Copy),
            b'F' => return Ok(Self::FunctionCall),
            // A password that nobody asked for among them.
            kind => return Err(FrameError::UnknownType(kind)),
        };
        if fields.0.is_empty() { Ok(message) } else { Err(FrameError::BadMessage) }
    }
}

/// The fields of a message, taken from its front.
struct Fields(Bytes);

impl Fields {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let array = *self.0.first_chunk::<N>().ok_or(FrameError::BadMessage)?;
        self.0.advance(N);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, FrameError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, FrameError> {
        self.array().map(i16::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, FrameError> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(FrameError::BadMessage)?;
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(FrameError::NotUtf8),
        }
    }

    /// A counted list of items that take at least `item_bytes` each.
    fn list<T>(
        &mut self,
        item_bytes: usize,
        item: impl Fn(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count * item_bytes > self.0.len() {
            return Err(FrameError::BadMessage);
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn value(&mut self) -> Result<Option<Bytes>, FrameError> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(length) if length <= self.0.len() => Ok(Some(self.0.split_to(length))),
            _ => Err(FrameError::BadMessage),
        }
    }

    fn target(&mut self) -> Result<Target, FrameError> {
        match self.array()? {
            [b'S'] => Ok(Target::Statement),
            [b'P'] => Ok(Target::Portal),
            _ => Err(FrameError::BadMessage),
        }
    }

    /// Names and values up to an empty name.
    fn pairs(&mut self) -> Result<Vec<(String, String)>, FrameError> {
        let mut pairs = Vec::new();
        loop {
            let name = self.text()?;
            if name.is_empty() {
                return Ok(pairs);
            }
            pairs.push((name, self.text()?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn read(kind: u8, body: &[u8]) -> Result<Message, FrameError> {
        Message::read(next_frame(&mut framed(kind, body), BYTES_MAX)?.expect("a whole frame"))
    }

    #[test]
    fn a_frame_comes_out_only_when_it_is_whole() {
        let whole = framed(b'Q', b"SELECT 1\0");
        for length in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..length]);
            assert!(next_frame(&mut part, BYTES_MAX).expect("legal").is_none());
            assert_eq!(part.len(), length, "nothing is taken from a partial frame");
        }
        assert_eq!(read(b'Q', b"SELECT 1\0"), Ok(Message::Query("SELECT 1".into())));
    }

    #[test]
    fn lengths_are_refused_before_the_body_arrives() {
        for length in [0_u32, 3, BYTES_MAX as u32 + 1, i32::MAX as u32, u32::MAX] {
            let mut bytes = BytesMut::from(&b"Q"[..]);
            bytes.extend_from_slice(&length.to_be_bytes());
            assert!(next_frame(&mut bytes, BYTES_MAX).is_err(), "{length}");
            assert!(next_opening(&mut BytesMut::from(&length.to_be_bytes()[..])).is_err());
        }
        assert_eq!(
            next_frame(&mut BytesMut::from(&b"\x16\x03\x01"[..]), BYTES_MAX).expect_err("TLS"),
            FrameError::UnknownType(0x16)
        );
    }

    #[test]
    fn bodies_that_lie_about_their_contents_are_errors() {
        let bodies: [(u8, &[u8]); 8] = [
            (b'Q', b"no end"),
            (b'Q', b"two\0ends\0"),
            (b'P', b"\0\0\xff\xff"),
            (b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff"),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            (b'D', b"Xname\0"),
            (b'E', b"\0\0"),
            (b'S', b"more"),
        ];
        for (kind, body) in bodies {
            assert_eq!(read(kind, body), Err(FrameError::BadMessage), "{body:?}");
        }
        assert_eq!(read(b'Q', b"\xff\0"), Err(FrameError::NotUtf8));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..200_000 {
            let kind = b"QPBDECHSXdcfFp"[random() as usize % 14];
            // Small bytes make for counts and lengths that nearly fit.
            let body: Vec<u8> = (0..random() % 40)
                .map(|_| if random() % 3 == 0 { random() as u8 } else { (random() % 4) as u8 })
                .collect();
            let _ = read(kind, &body);
            let _ = read_opening(Bytes::from(body));
        }
    }

    #[test]
    fn openings() {
        let mut ssl = BytesMut::from(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f][..]);
        assert_eq!(next_opening(&mut ssl), Ok(Some(Opening::Ssl)));
        let startup = b"\0\x03\0\0user\0me\0database\0d\0\0";
        let expected = vec![("user".into(), "me".into()), ("database".into(), "d".into())];
        assert_eq!(
            read_opening(Bytes::from_static(startup)),
            Ok(Opening::Startup { minor: 0, parameters: expected })
        );
        assert_eq!(
            read_opening(Bytes::from_static(b"\0\x02\0\0")),
            Err(FrameError::UnsupportedProtocol { major: 2, minor: 0 })
        );
    }
}
