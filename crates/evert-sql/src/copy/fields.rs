//! Cutting: bytes become lines, and lines become fields.
//!
//! Follows Postgres's `copyfromparse.c`: escapes, quotes, the NULL string and the end marker `\.`
//! mean here what they mean there.
//!
//! Invariants
//! - Nothing depends on how the bytes were split when they arrived.
//! - A line is held whole, and never grows beyond [`LINE_BYTES_MAX`].

use std::ops::Range;

use crate::SqlError;
use crate::copy::CopyForm;
use crate::error::{BAD_COPY_FORMAT, CHARACTER_NOT_IN_REPERTOIRE, PROGRAM_LIMIT};

/// The longest line: well above what a record may hold.
pub(super) const LINE_BYTES_MAX: usize = 64 << 20;

/// Bytes that arrive, cut into the fields of one line after the other.
pub(super) struct Lines {
    form: CopyForm,
    buffer: Vec<u8>,
    /// Where the line begins that comes next.
    start: usize,
    /// Up to here no line ends.
    scanned: usize,
    quoted: bool,
    escaped: bool,
    /// The number of the last line that was cut, counted as Postgres counts.
    pub(super) number: u64,
    ended: bool,
}

/// The fields of one line.
#[derive(Default)]
pub(super) struct Fields {
    text: Vec<u8>,
    /// Each field's end in `text`, whether it was quoted, and whether it is the NULL string.
    ends: Vec<(usize, bool, bool)>,
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field's text, whether it was quoted, and whether it is the NULL string.
    pub(super) fn get(&self, index: usize) -> (&[u8], bool, bool) {
        let start = if index == 0 { 0 } else { self.ends[index - 1].0 };
        let (end, quoted, null) = self.ends[index];
        (&self.text[start..end], quoted, null)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn close(&mut self, quoted: bool, null: bool) {
        self.ends.push((self.text.len(), quoted, null));
    }
}

impl Lines {
    pub(super) fn new(form: CopyForm) -> Self {
        Self {
            form,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            quoted: false,
            escaped: false,
            number: 0,
            ended: false,
        }
    }

    /// More bytes. What comes after the end marker is nothing.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Cuts the next line into `fields` and tells where it is; `None` when no whole one is there. With
    /// `last`, what is left is a line too.
    pub(super) fn next(
        &mut self,
        fields: &mut Fields,
        last: bool,
    ) -> Result<Option<Range<usize>>, SqlError> {
        if self.ended {
            return Ok(None);
        }
        let before = self.start;
        let Some(end) = self.line_end(last)? else { return Ok(None) };
        self.number += 1;
        let mut line = before..end;
        if self.buffer[line.clone()].ends_with(b"\r") {
            line.end -= 1;
        }
        let text = &self.buffer[line.clone()];
        if text == b"\\." {
            self.ended = true;
            return Ok(None);
        }
        fields.clear();
        match self.form.csv {
            true => cut_csv(text, &self.form, fields)?,
            false => cut_text(text, &self.form, fields)?,
        }
        Ok(Some(line))
    }

    /// The text of the line that was cut last.
    pub(super) fn text(&self, line: Range<usize>) -> &[u8] {
        &self.buffer[line]
    }

    /// Where the line ends that begins at `start`; `start` moves behind it.
    fn line_end(&mut self, last: bool) -> Result<Option<usize>, SqlError> {
        let (quote, escape) = (self.form.quote, self.form.escape);
        while let Some(&byte) = self.buffer.get(self.scanned) {
            if self.form.csv {
                // An escape that is no quote hides the quote after it.
                if byte == quote && !self.escaped {
                    self.quoted = !self.quoted;
                }
                self.escaped = self.quoted && escape != quote && byte == escape && !self.escaped;
                if byte == b'\n' && self.quoted {
                    self.number += 1;
                }
            } else if self.escaped {
                self.escaped = false;
                self.number += u64::from(byte == b'\n');
                self.scanned += 1;
                continue;
            } else if byte == b'\\' {
                self.escaped = true;
            }
            self.scanned += 1;
            if byte == b'\n' && !self.quoted {
                self.start = self.scanned;
                return Ok(Some(self.scanned - 1));
            }
            if self.scanned - self.start > LINE_BYTES_MAX {
                let message = format!("a line is longer than {LINE_BYTES_MAX} bytes");
                return Err(SqlError::new(PROGRAM_LIMIT, message));
            }
        }
        if !last || self.start == self.buffer.len() {
            return Ok(None);
        }
        self.start = self.buffer.len();
        Ok(Some(self.buffer.len()))
    }
}

/// Postgres's own format: escapes begin with a backslash, NULL is told before they are undone.
fn cut_text(line: &[u8], form: &CopyForm, fields: &mut Fields) -> Result<(), SqlError> {
    if line.contains(&b'\r') {
        return Err(SqlError::new(BAD_COPY_FORMAT, "literal carriage return found in data")
            .hint("Use \"\\r\" to represent carriage return."));
    }
    let mut at = 0;
    loop {
        let start = at;
        while at < line.len() && line[at] != form.delimiter {
            let byte = line[at];
            at += 1;
            if byte == b'\\' && at < line.len() {
                at = unescape(line, at, &mut fields.text);
            } else {
                fields.text.push(byte);
            }
        }
        fields.close(false, &line[start..at] == form.null.as_bytes());
        if at == line.len() {
            return Ok(());
        }
        at += 1;
    }
}

/// Undoes the escape whose letter is at `at`; gives the place behind it.
fn unescape(line: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let digits = |from: usize, most: usize, radix: u32| {
        let digit = |byte: &u8| (*byte as char).to_digit(radix);
        let digits: Vec<u32> = line[from..].iter().take(most).map_while(digit).collect();
        let value = digits.iter().fold(0, |value, digit| value * radix + digit);
        // As in Postgres, only the low eight bits of an octal number count.
        (digits.len(), value as u8)
    };
    let plain = match line[at] {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'0'..=b'7' => {
            let (count, value) = digits(at, 3, 8);
            out.push(value);
            return at + count;
        }
        b'x' if digits(at + 1, 2, 16).0 > 0 => {
            let (count, value) = digits(at + 1, 2, 16);
            out.push(value);
            return at + 1 + count;
        }
        other => other,
    };
    out.push(plain);
    at + 1
}

/// CSV: fields may be quoted, and an unquoted NULL string is NULL.
fn cut_csv(line: &[u8], form: &CopyForm, fields: &mut Fields) -> Result<(), SqlError> {
    let mut at = 0;
    loop {
        let (start, begin) = (at, fields.text.len());
        let mut quoted = false;
        while at < line.len() && line[at] != form.delimiter {
            if line[at] == form.quote {
                quoted = true;
                at = cut_quoted(line, at + 1, form, &mut fields.text)?;
            } else {
                if line[at] == b'\r' {
                    return Err(SqlError::new(
                        BAD_COPY_FORMAT,
                        "unquoted carriage return found in data",
                    )
                    .hint("Use quoted CSV field to represent carriage return."));
                }
                fields.text.push(line[at]);
                at += 1;
            }
        }
        // Between the quotes the NULL string counts only where FORCE_NULL says so.
        let null = match quoted {
            true => fields.text[begin..] == *form.null.as_bytes(),
            false => line[start..at] == *form.null.as_bytes(),
        };
        fields.close(quoted, null);
        if at == line.len() {
            return Ok(());
        }
        at += 1;
    }
}

/// The rest of a quoted part, from behind its quote; gives the place behind the closing one.
fn cut_quoted(
    line: &[u8],
    mut at: usize,
    form: &CopyForm,
    out: &mut Vec<u8>,
) -> Result<usize, SqlError> {
    while let Some(&byte) = line.get(at) {
        let next = line.get(at + 1).copied();
        if byte == form.escape && next.is_some_and(|next| next == form.escape || next == form.quote)
        {
            out.extend(next);
            at += 2;
        } else if byte == form.quote {
            return Ok(at + 1);
        } else {
            out.push(byte);
            at += 1;
        }
    }
    Err(SqlError::new(BAD_COPY_FORMAT, "unterminated CSV quoted field"))
}

/// A field's bytes as text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, SqlError> {
    let refuse = |byte: u8| {
        let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}");
        SqlError::new(CHARACTER_NOT_IN_REPERTOIRE, message)
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err(refuse(0)),
        Ok(text) => Ok(text),
        Err(error) => Err(refuse(bytes[error.valid_up_to()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv() -> CopyForm {
        CopyForm { csv: true, delimiter: b',', null: String::new(), ..CopyForm::default() }
    }

    /// Every line's fields, `NULL` where they are, with the line's number; bytes come in pieces.
    fn cut(form: &CopyForm, text: &[u8], piece: usize) -> Result<Vec<String>, String> {
        let mut lines = Lines::new(form.clone());
        let (mut fields, mut found) = (Fields::default(), Vec::new());
        let mut take = |lines: &mut Lines, last| -> Result<(), SqlError> {
            while lines.next(&mut fields, last)?.is_some() {
                let shown = (0..fields.len()).map(|index| match fields.get(index) {
                    (_, false, true) => "NULL".to_owned(),
                    (bytes, ..) => String::from_utf8_lossy(bytes).into_owned(),
                });
                found.push(format!("{}:{}", lines.number, shown.collect::<Vec<_>>().join("|")));
            }
            Ok(())
        };
        let mut run = || {
            for bytes in text.chunks(piece) {
                lines.push(bytes);
                take(&mut lines, false)?;
            }
            take(&mut lines, true)
        };
        run().map_err(|error: SqlError| error.message)?;
        Ok(found)
    }

    fn check(form: &CopyForm, text: &[u8], expected: Result<&[&str], &str>) {
        for piece in [1, 2, 3, 7, text.len().max(1)] {
            let found = cut(form, text, piece);
            let shown = String::from_utf8_lossy(text);
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{shown} by {piece}"),
                (Err(found), Err(expected)) => assert_eq!(found, expected, "{shown}"),
                _ => panic!("{shown}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn text_is_cut_as_postgres_does() {
        let form = CopyForm::default();
        check(&form, b"1\ta\\tb\n2\t\\N\n", Ok(&["1:1|a\tb", "2:2|NULL"]));
        check(&form, b"\\x41\\101\\n\\q\\\\\n", Ok(&["1:AA\nq\\"]));
        check(&form, b"a\\\nb\nc", Ok(&["2:a\nb", "3:c"]));
        check(&form, b"a\r\nb\r\n", Ok(&["1:a", "2:b"]));
        check(&form, b"a\n\\.\nnever\n", Ok(&["1:a"]));
        check(&form, b"\n", Ok(&["1:"]));
        check(&form, b"", Ok(&[]));
        check(&form, b"\\\\N\tx\\", Ok(&["1:\\N|x\\"]));
        check(&form, b"a\rb\n", Err("literal carriage return found in data"));
    }

    #[test]
    fn csv_is_cut_as_postgres_does() {
        check(&csv(), b"1,\"a,\"\"b\",\n,\"\",x\n", Ok(&["1:1|a,\"b|NULL", "2:NULL||x"]));
        check(&csv(), b"\"two\nlines\",1\r\nnext,2", Ok(&["2:two\nlines|1", "3:next|2"]));
        check(&csv(), b"ab\"c,d\"e\n", Ok(&["1:abc,de"]));
        check(&csv(), b"\"open\n", Err("unterminated CSV quoted field"));
        check(&csv(), b"a\rb,c\n", Err("unquoted carriage return found in data"));
        let escaped = CopyForm { escape: b'\\', ..csv() };
        check(&escaped, b"\"a\\\"b\\\\\",\"c\\d\"\n", Ok(&["1:a\"b\\|c\\d"]));
        check(&escaped, b"\"a\\\n\\\"b\"\nc\n", Ok(&["2:a\\\n\"b", "3:c"]));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert!(text("é".as_bytes()).is_ok());
        let error = text(b"a\xff").expect_err("not UTF-8");
        assert_eq!(error.message, "invalid byte sequence for encoding \"UTF8\": 0xff");
        assert!(text(b"a\0").is_err());
    }
}
