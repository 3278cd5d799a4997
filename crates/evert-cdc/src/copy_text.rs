//! The text format of COPY: one line a row.
//!
//! Source: the Postgres manual, COPY, "Text Format".

use bytes::{Bytes, BytesMut};

use crate::row::Cell;

/// Cuts COPY's output into lines, however it was cut into messages.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: BytesMut,
    searched: usize,
}

impl Lines {
    /// Adds output.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.rest.extend_from_slice(data);
    }

    /// The next whole line, without its end.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let found = self.rest[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(at) = found else {
            self.searched = self.rest.len();
            return None;
        };
        let mut line = self.rest.split_to(self.searched + at + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        Some(line.freeze())
    }

    /// Whether the output ended with a whole line.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The cells of one line, of which there must be `columns`, at least one.
pub(crate) fn cells(line: &Bytes, columns: usize) -> Result<Vec<Cell>, &'static str> {
    let mut cells = Vec::with_capacity(columns);
    let mut start = 0;
    loop {
        let end = line[start..].iter().position(|&byte| byte == b'\t').map(|at| start + at);
        cells.push(cell(line.slice(start..end.unwrap_or(line.len())))?);
        let Some(end) = end else { break };
        if cells.len() == columns {
            return Err("COPY printed more columns than were asked for");
        }
        start = end + 1;
    }
    if cells.len() == columns { Ok(cells) } else { Err("COPY printed too few columns") }
}

fn cell(raw: Bytes) -> Result<Cell, &'static str> {
    if &raw[..] == b"\\N" {
        return Ok(None);
    }
    if !raw.contains(&b'\\') {
        return Ok(Some(raw));
    }
    let mut plain = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next() {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0b,
            Some(&other) => other,
            None => return Err("COPY printed a lone backslash"),
        });
    }
    Ok(Some(plain.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cells: &[Cell]) -> Vec<Option<&str>> {
        cells.iter().map(|cell| cell.as_deref().map(|b| str::from_utf8(b).unwrap())).collect()
    }

    #[test]
    fn lines_in_any_cut() {
        let output = b"1\ta\n2\tb\\n\n\n";
        for size in 1..output.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in output.chunks(size) {
                lines.push(chunk);
                while let Some(line) = lines.next() {
                    got.push(line);
                }
            }
            assert_eq!(got, ["1\ta", "2\tb\\n", ""], "chunks of {size}");
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn escapes_and_nulls() {
        let line = Bytes::from_static(b"\\N\t\ta\\tb\\\\N\\x\t\\\\N");
        let got = cells(&line, 4).unwrap();
        assert_eq!(text(&got), [None, Some(""), Some("a\tb\\Nx"), Some("\\N")]);
    }

    #[test]
    fn wrong_column_counts() {
        assert!(cells(&Bytes::from_static(b"1\t2"), 3).is_err());
        assert!(cells(&Bytes::from_static(b"1\t2\t3"), 2).is_err());
        assert!(cells(&Bytes::from_static(b"1\\"), 1).is_err());
        assert_eq!(cells(&Bytes::new(), 1), Ok(vec![Some(Bytes::new())]));
    }
}
