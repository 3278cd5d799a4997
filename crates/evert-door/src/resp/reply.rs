//! Replies: values to bytes, in RESP2 and RESP3.
//!
//! Redis serialization protocol specification. What RESP2 has no type for goes out as the nearest
//! it has: a map as an array of its keys and values, a push as an array.

use bytes::{BufMut, BytesMut};

/// The largest reply to one command, in bytes.
pub(super) const REPLY_BYTES_MAX: usize = 64 << 20;

/// Which version of the protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    V2,
    V3,
}

/// Where replies are gathered.
pub(super) struct Out {
    pub(super) bytes: BytesMut,
    pub(super) protocol: Protocol,
}

impl Out {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { bytes: BytesMut::new(), protocol }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn line(&mut self, mark: u8, number: i64) {
        self.bytes.put_u8(mark);
        let mut digits = [0; 20];
        self.bytes.extend_from_slice(decimal(number, &mut digits));
        self.put(b"\r\n");
    }

    pub(super) fn simple(&mut self, text: &str) {
        self.bytes.put_u8(b'+');
        self.put(text.as_bytes());
        self.put(b"\r\n");
    }

    pub(super) fn ok(&mut self) {
        self.put(b"+OK\r\n");
    }

    /// An error: its first word tells programs what it is.
    pub(super) fn error(&mut self, text: &str) {
        self.bytes.put_u8(b'-');
        // A line's end would end the error.
        self.bytes.extend(text.bytes().map(|byte| if byte < b' ' { b' ' } else { byte }));
        self.put(b"\r\n");
    }

    pub(super) fn integer(&mut self, number: i64) {
        self.line(b':', number);
    }

    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        self.line(b'$', bytes.len() as i64);
        self.put(bytes);
        self.put(b"\r\n");
    }

    /// Bytes that are a whole reply already.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.put(bytes);
    }

    pub(super) fn null(&mut self) {
        self.put(if self.protocol == Protocol::V3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Where an array could be.
    pub(super) fn null_array(&mut self) {
        self.put(if self.protocol == Protocol::V3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    pub(super) fn array(&mut self, length: usize) {
        self.line(b'*', length as i64);
    }

    /// A map of so many pairs; each key and its value follow.
    pub(super) fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::V3 => self.line(b'%', pairs as i64),
            Protocol::V2 => self.line(b'*', 2 * pairs as i64),
        }
    }

    pub(super) fn set(&mut self, length: usize) {
        self.line(if self.protocol == Protocol::V3 { b'~' } else { b'*' }, length as i64);
    }

    /// A message that no command has asked for.
    pub(super) fn push(&mut self, length: usize) {
        self.line(if self.protocol == Protocol::V3 { b'>' } else { b'*' }, length as i64);
    }

    /// A text for people.
    pub(super) fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::V2 => self.bulk(text.as_bytes()),
            Protocol::V3 => {
                self.line(b'=', text.len() as i64 + 4);
                self.put(b"txt:");
                self.put(text.as_bytes());
                self.put(b"\r\n");
            }
        }
    }
}

/// A number's digits, at the end of the buffer.
pub(super) fn decimal(number: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

/// The digits of a number with `places` of them after the point, at the end of the buffer.
pub(super) fn scaled(number: i64, places: usize, buffer: &mut [u8; 64]) -> &[u8] {
    let mut at = buffer.len();
    let mut rest = number.unsigned_abs();
    let mut written = 0;
    // There is a digit before the point, whatever the number. Places are at most 38.
    while rest > 0 || written <= places {
        if written == places && places > 0 {
            at -= 1;
            buffer[at] = b'.';
        }
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        written += 1;
    }
    if number < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(protocol: Protocol, write: impl Fn(&mut Out)) -> String {
        let mut out = Out::new(protocol);
        write(&mut out);
        String::from_utf8(out.bytes.to_vec()).expect("text")
    }

    #[test]
    fn both_versions() {
        let write = |out: &mut Out| {
            out.map(1);
            out.bulk(b"a");
            out.null();
            out.null_array();
            out.set(1);
            out.integer(-12);
            out.push(0);
            out.verbatim("x");
            out.error("ERR a\nb");
        };
        let v2 = "*2\r\n$1\r\na\r\n$-1\r\n*-1\r\n*1\r\n:-12\r\n*0\r\n$1\r\nx\r\n-ERR a b\r\n";
        let v3 = "%1\r\n$1\r\na\r\n_\r\n_\r\n~1\r\n:-12\r\n>0\r\n=5\r\ntxt:x\r\n-ERR a b\r\n";
        assert_eq!(shown(Protocol::V2, write), v2);
        assert_eq!(shown(Protocol::V3, write), v3);
    }

    #[test]
    fn numbers_with_a_point() {
        let cases = [
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (12_345, 2, "123.45"),
            (7, 0, "7"),
            (0, 0, "0"),
            (1, 38, "0.00000000000000000000000000000000000001"),
            (i64::MIN, 1, "-922337203685477580.8"),
        ];
        for (number, places, text) in cases {
            assert_eq!(scaled(number, places, &mut [0; 64]), text.as_bytes());
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, -1, 123_456_789, i64::MAX, i64::MIN] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
