//! COPY: data from the client into the engine, and rows out as lines of text.
//!
//! Owns: the sub-protocol of COPY FROM STDIN and TO STDOUT, and how values stand in lines.
//! Not here: how lines are cut that come in: that is the engine's.

use arrow::datatypes::SchemaRef;
use bytes::{BufMut, BytesMut};
use tokio::sync::watch;

use super::backend::{CopyFile, CopyForm, Session, SqlError};
use super::frontend::FrameError;
use super::portal::{Cursor, Failure, canceled};
use super::reply::{self, Bare};
use super::wire::{Wire, WireError};

/// A file is written in pieces of this size.
const FILE_BYTES: usize = 256 << 10;

/// A value in COPY's text format: what would end a field or a line is escaped.
pub(super) fn put_text(text: &[u8], delimiter: u8, out: &mut BytesMut) {
    for &byte in text {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            0x08 => b'b',
            0x0b => b'v',
            0x0c => b'f',
            _ if byte == delimiter => byte,
            _ => {
                out.put_u8(byte);
                continue;
            }
        };
        out.put_slice(&[b'\\', escaped]);
    }
}

/// A value in CSV: in quotes where it would be misread without.
pub(super) fn put_csv(text: &[u8], form: &CopyForm, always: bool, alone: bool, out: &mut BytesMut) {
    let special =
        |byte: &u8| *byte == form.delimiter || *byte == form.quote || matches!(byte, b'\n' | b'\r');
    // Alone on its line it would be the end marker.
    let quoted = always
        || text == form.null.as_bytes()
        || text.iter().any(special)
        || (alone && text == b"\\.");
    if !quoted {
        return out.put_slice(text);
    }
    out.put_u8(form.quote);
    for &byte in text {
        if byte == form.quote || byte == form.escape {
            out.put_u8(form.escape);
        }
        out.put_u8(byte);
    }
    out.put_u8(form.quote);
}

/// The line of column names.
fn put_header(schema: &SchemaRef, form: &CopyForm, out: &mut BytesMut) {
    let alone = schema.fields().len() == 1;
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            out.put_u8(form.delimiter);
        }
        let name = field.name().as_bytes();
        match form.csv {
            true => put_csv(name, form, false, alone, out),
            false => put_text(name, form.delimiter, out),
        }
    }
    out.put_u8(b'\n');
}

/// Sends rows as COPY TO STDOUT does.
pub(super) async fn to_client(
    wire: &mut Wire,
    schema: &SchemaRef,
    form: &CopyForm,
    cursor: &mut Cursor,
    cancelled: &mut watch::Receiver<()>,
) -> Result<(), Failure> {
    reply::copy_out(&mut wire.out, schema.fields().len());
    if form.header {
        reply::message(&mut wire.out, b'd', |out| put_header(schema, form, out));
    }
    cursor.copy_out(wire, form, cancelled).await?;
    reply::bare(&mut wire.out, Bare::CopyDone);
    Ok(())
}

/// Writes rows into a file.
pub(super) async fn to_file(
    wire: &Wire,
    schema: &SchemaRef,
    form: &CopyForm,
    cursor: &mut Cursor,
    cancelled: &mut watch::Receiver<()>,
    mut file: Box<dyn CopyFile>,
) -> Result<(), Failure> {
    let mut out = BytesMut::new();
    if form.header {
        put_header(schema, form, &mut out);
    }
    while let Some(rows) = cursor.next_rows(wire, cancelled).await? {
        for row in 0..rows.len() {
            rows.write_copy(row, form, &mut out)?;
            if out.len() >= FILE_BYTES {
                file.write(&out).await?;
                out.clear();
            }
        }
    }
    file.write(&out).await?;
    Ok(file.finish().await?)
}

/// Takes the data of COPY FROM STDIN up to its end; gives the tag. After an error the caller
/// tells the session that it is over.
pub(super) async fn from_client(
    wire: &mut Wire,
    session: &mut dyn Session,
    columns: usize,
    cancelled: &mut watch::Receiver<()>,
) -> Result<String, Failure> {
    reply::copy_in(&mut wire.out, columns);
    let given_up = |error: SqlError| Err(Failure::Sql(error));
    loop {
        let frame = tokio::select! {
            biased;
            _ = cancelled.changed() => return given_up(canceled()),
            frame = wire.frame() => frame?,
        };
        let Some(frame) = frame else {
            let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(WireError::from(gone).into());
        };
        match frame.kind {
            b'd' => session.copy_data(&frame.into_body()).await?,
            b'c' => return Ok(session.copy_end().await?),
            b'f' => {
                let why = reason(&frame.into_body());
                let message = format!("COPY from stdin failed: {why}");
                return given_up(SqlError::new("57014", message));
            }
            // A series of extended messages may have been ended before the data.
            b'H' | b'S' => {}
            kind => {
                let message =
                    format!("unexpected message type 0x{kind:02X} during COPY from stdin");
                return given_up(SqlError::new(FrameError::BadMessage.sqlstate(), message));
            }
        }
        wire.release();
    }
}

/// Why the client fails the COPY: its words up to their end.
fn reason(body: &[u8]) -> String {
    let end = body.iter().position(|&byte| byte == 0).unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> CopyForm {
        CopyForm {
            csv: true,
            delimiter: b',',
            null: String::new(),
            quote: b'"',
            escape: b'"',
            header: false,
            force_quote: Vec::new(),
        }
    }

    fn csv(text: &str, form: &CopyForm, alone: bool) -> String {
        let mut out = BytesMut::new();
        put_csv(text.as_bytes(), form, false, alone, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn csv_quotes_what_would_be_misread() {
        let usual = form();
        for (text, expected) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb", "\"a\nb\""),
            ("a\tb", "a\tb"),
            ("\\.", "\\."),
        ] {
            assert_eq!(csv(text, &usual, false), expected);
        }
        assert_eq!(csv("\\.", &usual, true), "\"\\.\"");
        let own = CopyForm { escape: b'\\', null: "NA".into(), ..form() };
        assert_eq!(csv("NA", &own, false), "\"NA\"");
        assert_eq!(csv("a\"\\,", &own, false), "\"a\\\"\\\\,\"");
    }

    #[test]
    fn text_escapes_its_delimiter() {
        let mut out = BytesMut::new();
        put_text(b"a|b\tc\\", b'|', &mut out);
        assert_eq!(&out[..], b"a\\|b\\tc\\\\");
    }
}
