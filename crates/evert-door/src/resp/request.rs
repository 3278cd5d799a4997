//! Requests: bytes to commands, without a socket.
//!
//! Owns: arrays of bulk strings, which clients send, and inline commands, which people type.
//! Not here: what commands mean (`commands`).
//!
//! Invariants
//! - Every length is bounded before memory is reserved for it, and no byte is looked at twice
//!   however slowly a request arrives.
//!
//! Redis serialization protocol specification, "Sending commands to a Redis server".

use std::ops::Range;

use thiserror::Error;

/// The largest argument, in bytes.
const ARGUMENT_BYTES_MAX: usize = 1 << 20;
/// How many arguments a request has at most.
const ARGUMENTS_MAX: usize = 65_536;
/// The largest request, in bytes.
pub(super) const REQUEST_BYTES_MAX: usize = 8 << 20;
/// The longest line: an inline command, or a length.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A request that cannot be read: the connection ends with it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    ArgumentCount,
    #[error("Protocol error: invalid bulk length")]
    ArgumentLength,
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    NoBulk(u8),
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    #[error("Protocol error: too big inline request")]
    LongLine,
    #[error("Protocol error: too big request")]
    LongRequest,
}

/// One command with its arguments.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    bytes: &'a [u8],
    arguments: &'a [Range<usize>],
}

impl<'a> Request<'a> {
    /// The command's name, then its arguments.
    pub(super) fn len(self) -> usize {
        self.arguments.len()
    }

    /// An argument; the name is the first. Empty if there is none.
    pub(super) fn get(self, index: usize) -> &'a [u8] {
        self.arguments.get(index).map_or(&[], |range| &self.bytes[range.clone()])
    }

    /// The arguments from one on.
    pub(super) fn from(self, first: usize) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let rest = self.arguments.get(first..).unwrap_or_default();
        rest.iter().map(move |range| &self.bytes[range.clone()])
    }

    pub(super) fn to_owned(self) -> OwnedRequest {
        let mut owned = OwnedRequest::default();
        for argument in self.from(0) {
            let start = owned.bytes.len();
            owned.bytes.extend_from_slice(argument);
            owned.arguments.push(start..owned.bytes.len());
        }
        owned
    }
}

/// A request that is kept.
#[derive(Default)]
pub(super) struct OwnedRequest {
    bytes: Vec<u8>,
    arguments: Vec<Range<usize>>,
}

impl OwnedRequest {
    pub(super) fn request(&self) -> Request<'_> {
        Request { bytes: &self.bytes, arguments: &self.arguments }
    }

    /// What it holds in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.arguments.len() * size_of::<Range<usize>>()
    }
}

/// Reads one request after the other from bytes that arrive in pieces.
#[derive(Default)]
pub(super) struct Decoder {
    /// Everything before it has been read.
    at: usize,
    /// Arguments still to come; `None` before their number is known.
    left: Option<usize>,
    arguments: Vec<Range<usize>>,
    /// The arguments of an inline command, without their quotes.
    unquoted: Option<Vec<u8>>,
}

impl Decoder {
    /// Looks for the end of a request that begins at `bytes`' beginning, and says where it is.
    /// Until then it is to be called with the same bytes and more of them.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.left.is_none() {
            match bytes.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.inline(bytes),
            }
            let Some(count) = self.number(bytes, b'*', ProtocolError::ArgumentCount)? else {
                return Ok(None);
            };
            // A negative number is an empty request, as in Redis.
            let count = usize::try_from(count).unwrap_or(0);
            if count > ARGUMENTS_MAX {
                return Err(ProtocolError::ArgumentCount);
            }
            self.left = Some(count);
        }
        while self.left > Some(0) {
            if !self.argument(bytes)? {
                return Ok(None);
            }
            self.left = self.left.map(|left| left - 1);
        }
        Ok(Some(self.at))
    }

    /// The request that was found in these bytes.
    pub(super) fn request<'a>(&'a self, bytes: &'a [u8]) -> Request<'a> {
        let bytes = self.unquoted.as_deref().unwrap_or(bytes);
        Request { bytes, arguments: &self.arguments }
    }

    /// The request is done with; the next one begins.
    pub(super) fn begin(&mut self) {
        self.at = 0;
        self.left = None;
        self.arguments.clear();
        self.unquoted = None;
    }

    /// One argument; `false` if it is not there whole.
    fn argument(&mut self, bytes: &[u8]) -> Result<bool, ProtocolError> {
        let before = self.at;
        let Some(length) = self.number(bytes, b'$', ProtocolError::ArgumentLength)? else {
            return Ok(false);
        };
        let length = usize::try_from(length).map_err(|_| ProtocolError::ArgumentLength)?;
        if length > ARGUMENT_BYTES_MAX {
            return Err(ProtocolError::ArgumentLength);
        }
        let (start, end) = (self.at, self.at + length);
        if end + 2 > REQUEST_BYTES_MAX {
            return Err(ProtocolError::LongRequest);
        }
        if bytes.len() < end + 2 {
            // The length is short: it is read again with the rest.
            self.at = before;
            return Ok(false);
        }
        self.arguments.push(start..end);
        self.at = end + 2;
        Ok(true)
    }

    /// A line `*3` or `$12`; `None` if it is not there whole.
    fn number(
        &mut self,
        bytes: &[u8],
        mark: u8,
        error: ProtocolError,
    ) -> Result<Option<i64>, ProtocolError> {
        /// As long as the longest number with its mark and its end.
        const LENGTH_BYTES_MAX: usize = 24;
        let Some(&first) = bytes.get(self.at) else { return Ok(None) };
        if first != mark {
            return Err(ProtocolError::NoBulk(first));
        }
        let rest = &bytes[self.at + 1..];
        let Some(end) = rest.iter().take(LENGTH_BYTES_MAX).position(|&byte| byte == b'\n') else {
            return if rest.len() >= LENGTH_BYTES_MAX { Err(error) } else { Ok(None) };
        };
        let number = rest[..end].strip_suffix(b"\r").and_then(integer).ok_or(error)?;
        self.at += end + 2;
        Ok(Some(number))
    }

    /// A command in a line.
    fn inline(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let searched = self.at.min(bytes.len());
        let Some(end) = bytes[searched..].iter().position(|&byte| byte == b'\n') else {
            self.at = bytes.len();
            return if bytes.len() > LINE_BYTES_MAX {
                Err(ProtocolError::LongLine)
            } else {
                Ok(None)
            };
        };
        let end = searched + end;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let mut unquoted = Vec::new();
        self.arguments = split(line, &mut unquoted).ok_or(ProtocolError::Quotes)?;
        self.unquoted = Some(unquoted);
        Ok(Some(end + 1))
    }
}

/// A whole number as Redis writes it.
pub(super) fn integer(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number = 0_i64;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?;
        let digit = i64::from(digit);
        number = if negative { number.checked_sub(digit)? } else { number.checked_add(digit)? };
    }
    Some(number)
}

/// Splits a line into words; quotes hold blanks together, and double ones know escapes.
/// `None` if they are not closed.
fn split(line: &[u8], out: &mut Vec<u8>) -> Option<Vec<Range<usize>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() || words.len() == ARGUMENTS_MAX {
            return Some(words);
        }
        let start = out.len();
        while let Some((&byte, after)) = rest.split_first() {
            match byte {
                b'"' | b'\'' => {
                    rest = quoted(after, byte, out)?;
                    // A closing quote ends the word.
                    if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                        return None;
                    }
                    break;
                }
                byte if byte.is_ascii_whitespace() => break,
                byte => {
                    out.push(byte);
                    rest = after;
                }
            }
        }
        words.push(start..out.len());
    }
}

/// What follows an opening quote, up to the closing one; gives what comes after it.
fn quoted<'a>(mut rest: &'a [u8], quote: u8, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let hex = |digit: u8| char::from(digit).to_digit(16);
    loop {
        rest = match rest {
            [byte, after @ ..] if *byte == quote => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && hex(*high).is_some() && hex(*low).is_some() =>
            {
                out.push((hex(*high)? * 16 + hex(*low)?) as u8);
                after
            }
            [b'\\', byte, after @ ..] if quote == b'"' => {
                out.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [b'\\', b'\'', after @ ..] => {
                out.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(request: Request<'_>) -> Vec<String> {
        request.from(0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// All requests in the bytes, given in pieces of some size.
    fn all(bytes: &[u8], piece: usize) -> Result<Vec<Vec<String>>, ProtocolError> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        let (mut start, mut have) = (0, 0);
        loop {
            match decoder.next(&bytes[start..have])? {
                Some(end) => {
                    found.push(words(decoder.request(&bytes[start..have])));
                    decoder.begin();
                    start += end;
                }
                None if have == bytes.len() => return Ok(found),
                None => have = (have + piece).min(bytes.len()),
            }
        }
    }

    #[test]
    fn pipelined_requests_in_any_pieces() {
        let bytes = b"*2\r\n$4\r\nHGET\r\n$3\r\na\r\n\r\nPING\r\n*0\r\n*1\r\n$0\r\n\r\n\r\n";
        for piece in 1..=bytes.len() {
            let found = all(bytes, piece).expect("requests");
            let expected: [&[&str]; 5] = [&["HGET", "a\r\n"], &["PING"], &[], &[""], &[]];
            assert_eq!(found, expected, "{piece}");
        }
    }

    #[test]
    fn inline_commands_have_quotes() {
        let line = b"GET  'a b' \"c\\x41\\n\\\"\" d\n";
        assert_eq!(all(line, 3).expect("a request"), [["GET", "a b", "cA\n\"", "d"]]);
        assert_eq!(all(b"GET \"a\n", 9), Err(ProtocolError::Quotes));
        assert_eq!(all(b"GET \"a\"b\n", 9), Err(ProtocolError::Quotes));
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(all(b"*65537\r\n", 99), Err(ProtocolError::ArgumentCount));
        assert_eq!(all(b"*9999999999999999999999999\r\n", 99), Err(ProtocolError::ArgumentCount));
        assert_eq!(all(b"*x\r\n", 99), Err(ProtocolError::ArgumentCount));
        assert_eq!(all(b"*1\r\n$1048577\r\n", 99), Err(ProtocolError::ArgumentLength));
        assert_eq!(all(b"*1\r\n$-1\r\n", 99), Err(ProtocolError::ArgumentLength));
        assert_eq!(
            all(b"*1\r\n$111111111111111111111111111", 5),
            Err(ProtocolError::ArgumentLength)
        );
        assert_eq!(all(b"*1\r\n:1\r\n", 99), Err(ProtocolError::NoBulk(b':')));
        assert_eq!(all(&[b'a'; LINE_BYTES_MAX + 1], 4096), Err(ProtocolError::LongLine));
        let mut large = b"*9\r\n".to_vec();
        for _ in 0..9 {
            large.extend_from_slice(b"$1048576\r\n");
            large.resize(large.len() + (1 << 20), b'a');
            large.extend_from_slice(b"\r\n");
        }
        assert_eq!(all(&large, 1 << 16), Err(ProtocolError::LongRequest));
    }

    #[test]
    fn garbage_never_panics() {
        let mut random = fastrand::Rng::with_seed(7);
        let alphabet = b"*$\r\n0123459-'\"\\xa :";
        for _ in 0..20_000 {
            let bytes: Vec<u8> =
                (0..random.usize(0..40)).map(|_| *random.choice(alphabet).expect("some")).collect();
            // Whether it is understood does not matter here.
            drop(all(&bytes, random.usize(1..8)));
        }
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer(b"9223372036854775808"), None);
    }
}
