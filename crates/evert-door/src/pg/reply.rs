//! What the server sends: messages appended to an output buffer.

use arrow::datatypes::Schema;
use bytes::{BufMut, BytesMut};
use evert_model::Origin;

use super::backend::{SqlError, TransactionStatus};
use super::types::PgType;

/// The server answers SSL and GSS requests with this: not here.
pub(super) const REFUSED: u8 = b'N';

/// How bad an error or notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Notice,
    Error,
    /// The connection ends.
    Fatal,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Notice => "NOTICE",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// Appends a message: its type, its length, and what `body` writes.
pub(super) fn message(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let start = out.len();
    out.put_i32(0);
    body(out);
    set_length(out, start, out.len() - start);
}

/// Writes a length over the four bytes at `start`.
pub(super) fn set_length(out: &mut BytesMut, start: usize, length: usize) {
    // Callers bound what they write: the largest is one row, which `rows` checks.
    let length = i32::try_from(length).expect("a message is shorter than 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A string with its terminator. A zero byte inside would end it early, so it is dropped.
fn put_text(out: &mut BytesMut, text: &str) {
    out.extend(text.bytes().filter(|&byte| byte != 0));
    out.put_u8(0);
}

pub(super) fn authentication_ok(out: &mut BytesMut) {
    message(out, b'R', |out| out.put_i32(0));
}

/// Tells a client that asked for a newer minor version or for options of one that this is 3.0.
pub(super) fn negotiate_version(out: &mut BytesMut, refused: &[&str]) {
    message(out, b'v', |out| {
        out.put_i32(3 << 16);
        out.put_i32(refused.len() as i32);
        for option in refused {
            put_text(out, option);
        }
    });
}

pub(super) fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    message(out, b'S', |out| {
        put_text(out, name);
        put_text(out, value);
    });
}

pub(super) fn backend_key(out: &mut BytesMut, process: i32, secret: i32) {
    message(out, b'K', |out| {
        out.put_i32(process);
        out.put_i32(secret);
    });
}

pub(super) fn ready(out: &mut BytesMut, status: TransactionStatus) {
    message(out, b'Z', |out| {
        out.put_u8(match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        });
    });
}

/// One of the messages that have no body.
pub(super) fn bare(out: &mut BytesMut, kind: Bare) {
    message(out, kind as u8, |_| ());
}

/// The messages that have no body.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Bare {
    ParseComplete = b'1',
    BindComplete = b'2',
    CloseComplete = b'3',
    NoData = b'n',
    PortalSuspended = b's',
    CopyDone = b'c',
    EmptyQuery = b'I',
}

/// COPY TO STDOUT begins: text, of so many columns.
pub(super) fn copy_out(out: &mut BytesMut, columns: usize) {
    copy(out, b'H', columns);
}

/// COPY FROM STDIN begins: text, of so many columns.
pub(super) fn copy_in(out: &mut BytesMut, columns: usize) {
    copy(out, b'G', columns);
}

fn copy(out: &mut BytesMut, kind: u8, columns: usize) {
    message(out, kind, |out| {
        out.put_u8(0);
        out.put_u16(columns as u16);
        (0..columns).for_each(|_| out.put_i16(0));
    });
}

pub(super) fn command_complete(out: &mut BytesMut, tag: &str) {
    message(out, b'C', |out| put_text(out, tag));
}

/// The parameters' types, as many as a message can count.
pub(super) fn parameter_description(out: &mut BytesMut, oids: &[u32]) {
    message(out, b't', |out| {
        out.put_u16(oids.len() as u16);
        oids.iter().for_each(|&oid| out.put_u32(oid));
    });
}

/// The result's columns; `format` gives each column's format code.
pub(super) fn row_description(out: &mut BytesMut, schema: &Schema, format: impl Fn(usize) -> i16) {
    message(out, b'T', |out| {
        out.put_u16(schema.fields().len() as u16);
        for (index, field) in schema.fields().iter().enumerate() {
            let ty = PgType::of_field(field);
            put_text(out, field.name());
            // Zeros: no relation's column.
            let Origin { relation, column } = Origin::of_field(field).unwrap_or_default();
            out.put_u32(relation);
            out.put_i16(column);
            out.put_u32(ty.oid);
            out.put_i16(ty.size);
            out.put_i32(ty.modifier);
            out.put_i16(format(index));
        }
    });
}

pub(super) fn error(out: &mut BytesMut, severity: Severity, error: &SqlError) {
    let kind = if severity == Severity::Notice { b'N' } else { b'E' };
    message(out, kind, |out| {
        let position = error.position.map(|position| position.to_string());
        let fields = [
            (b'S', Some(severity.name())),
            (b'V', Some(severity.name())),
            (b'C', Some(error.sqlstate)),
            (b'M', Some(&*error.message)),
            (b'D', error.detail.as_deref()),
            (b'H', error.hint.as_deref()),
            (b'P', position.as_deref()),
            (b'W', error.context.as_deref()),
        ];
        for (field, text) in fields {
            if let Some(text) = text {
                out.put_u8(field);
                put_text(out, text);
            }
        }
        out.put_u8(0);
    });
}

pub(super) fn notice(out: &mut BytesMut, text: &str) {
    error(out, Severity::Notice, &SqlError::new("00000", text));
}
