//! Rows as Postgres prints them, and the JSON they become.
//!
//! Both the copy and the stream deliver values as text under the same session settings, so one
//! encoder serves both.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use evert_model::{ColumnType, array_elements};
use thiserror::Error;

use crate::definition::Table;

/// A value's text; `None` is NULL.
pub(crate) type Cell = Option<Bytes>;

/// A value that is not what its column's type prints.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("column \"{column}\" of {table}: {what}")]
pub(crate) struct BadValue {
    pub(crate) table: String,
    pub(crate) column: String,
    pub(crate) what: &'static str,
}

/// Writes the rows of one table as JSON.
#[derive(Clone, Debug)]
pub(crate) struct RowWriter {
    table: String,
    columns: Vec<ColumnWriter>,
    key: Vec<usize>,
}

#[derive(Clone, Debug)]
struct ColumnWriter {
    name: String,
    /// The name as JSON, with the colon.
    prefix: String,
    ty: ColumnType,
}

impl RowWriter {
    pub(crate) fn new(table: &Table) -> Self {
        let columns = table.columns.iter().map(|column| {
            let mut prefix = String::new();
            put_string(&mut prefix, &column.name);
            prefix.push(':');
            ColumnWriter { name: column.name.clone(), prefix, ty: column.ty }
        });
        Self { table: table.source_name(), columns: columns.collect(), key: table.key.clone() }
    }

    /// Appends the whole row as an object.
    pub(crate) fn put_row(&self, out: &mut String, row: &[Cell]) -> Result<(), BadValue> {
        self.put(out, 0..self.columns.len(), row)
    }

    /// Appends the key's columns as an object.
    pub(crate) fn put_key(&self, out: &mut String, row: &[Cell]) -> Result<(), BadValue> {
        self.put(out, self.key.iter().copied(), row)
    }

    fn put(
        &self,
        out: &mut String,
        indexes: impl Iterator<Item = usize>,
        row: &[Cell],
    ) -> Result<(), BadValue> {
        out.push('{');
        for (nth, index) in indexes.enumerate() {
            if nth > 0 {
                out.push(',');
            }
            let column = &self.columns[index];
            out.push_str(&column.prefix);
            match &row[index] {
                None => out.push_str("null"),
                Some(value) => put_value(out, column.ty, value).map_err(|what| BadValue {
                    table: self.table.clone(),
                    column: column.name.clone(),
                    what,
                })?,
            }
        }
        out.push('}');
        Ok(())
    }
}

fn put_value(out: &mut String, ty: ColumnType, value: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8")?;
    match ty {
        ColumnType::Boolean => out.push_str(match text {
            "t" => "true",
            "f" => "false",
            _ => return Err("the value is not a boolean"),
        }),
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("the value is not an integer");
            }
            out.push_str(text);
        }
        ColumnType::Float32 | ColumnType::Float64 => match text {
            "NaN" | "Infinity" | "-Infinity" => put_string(out, text),
            _ if text.parse::<f64>().is_ok_and(f64::is_finite) => out.push_str(text),
            // A real beyond a double's range does not exist; what is left is not a number.
            _ => return Err("the value is not a number"),
        },
        ColumnType::Decimal { .. } | ColumnType::Text | ColumnType::Json | ColumnType::Uuid => {
            put_string(out, text)
        }
        ColumnType::Date => put_date(out, text),
        ColumnType::Timestamp => put_timestamp(out, text, ""),
        ColumnType::TimestampTz => put_timestamp(out, text, "Z"),
        ColumnType::Bytes => put_bytes(out, text)?,
        ColumnType::Array(item) => put_array(out, item.column_type(), text)?,
    }
    Ok(())
}

/// `{a,NULL}` as `["a",null]`. Arrays of more dimensions than one, which Postgres's types allow,
/// stay texts: whoever reads the record says that it has no place in the column.
fn put_array(out: &mut String, item: ColumnType, text: &str) -> Result<(), &'static str> {
    let Some(elements) = array_elements(text) else {
        put_string(out, text);
        return Ok(());
    };
    out.push('[');
    for (place, element) in elements.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        match element {
            Some(element) => put_value(out, item, element.as_bytes())?,
            None => out.push_str("null"),
        }
    }
    out.push(']');
    Ok(())
}

/// `0044-03-15 BC` as `-0043-03-15`, in ISO 8601's years; other dates as they are.
fn put_date(out: &mut String, text: &str) {
    match text.strip_suffix(" BC").and_then(iso_date) {
        Some(date) => put_string(out, &date),
        None => put_string(out, text),
    }
}

/// `2026-11-21 02:00:00.5+00` as `2026-11-21T02:00:00.5Z`; `infinity` as it is.
fn put_timestamp(out: &mut String, text: &str, zone: &str) {
    let (instant, ancient) = match text.strip_suffix(" BC") {
        Some(instant) => (instant, true),
        None => (text, false),
    };
    let Some((date, time)) = instant.split_once(' ') else { return put_string(out, text) };
    let ancient_date = if ancient { iso_date(date) } else { None };
    out.push('"');
    out.push_str(ancient_date.as_deref().unwrap_or(date));
    out.push('T');
    let _ = match time.strip_suffix("+00") {
        Some(time) => write!(out, "{time}{zone}\""),
        None => write!(out, "{time}\""),
    };
}

/// A date before Christ in ISO 8601's years, in which 1 BC is year 0.
fn iso_date(date: &str) -> Option<String> {
    let (year, rest) = date.split_once('-')?;
    let year: i32 = year.parse().ok()?;
    Some(match year {
        1 => format!("0000-{rest}"),
        _ => format!("-{:04}-{rest}", year - 1),
    })
}

/// `\x0102` as base64.
fn put_bytes(out: &mut String, text: &str) -> Result<(), &'static str> {
    let bytes = from_hex(text).ok_or("the value is not bytea in hex")?;
    out.push('"');
    BASE64.encode_string(bytes, out);
    out.push('"');
    Ok(())
}

/// The bytes of bytea's hex format.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// bytea's hex format.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Appends `text` as a JSON string.
pub(crate) fn put_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..index]);
        plain_from = index + 1;
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(ty: ColumnType, text: &str) -> Result<String, &'static str> {
        let mut out = String::new();
        put_value(&mut out, ty, text.as_bytes()).map(|()| out)
    }

    #[test]
    fn values_as_the_views_read_them() {
        let decimal = ColumnType::Decimal { precision: 10, scale: 2 };
        for (ty, text, want) in [
            (ColumnType::Boolean, "t", "true"),
            (ColumnType::Int64, "-9223372036854775808", "-9223372036854775808"),
            (ColumnType::Float64, "1e+20", "1e+20"),
            (ColumnType::Float64, "NaN", "\"NaN\""),
            (ColumnType::Float32, "-Infinity", "\"-Infinity\""),
            (decimal, "12.50", "\"12.50\""),
            (ColumnType::Text, "a\"\\\n\u{1}é", "\"a\\\"\\\\\\n\\u0001é\""),
            (ColumnType::Bytes, "\\x00ff", "\"AP8=\""),
            (ColumnType::Date, "infinity", "\"infinity\""),
            (ColumnType::Date, "0044-03-15 BC", "\"-0043-03-15\""),
            (ColumnType::Date, "0001-12-31 BC", "\"0000-12-31\""),
            (ColumnType::TimestampTz, "0044-03-15 01:02:03+00 BC", "\"-0043-03-15T01:02:03Z\""),
            (ColumnType::Timestamp, "2026-11-21 02:00:00.5", "\"2026-11-21T02:00:00.5\""),
            (ColumnType::TimestampTz, "2026-11-21 02:00:00+00", "\"2026-11-21T02:00:00Z\""),
            (ColumnType::TimestampTz, "-infinity", "\"-infinity\""),
            (ColumnType::Json, "{\"a\": [1]}", "\"{\\\"a\\\": [1]}\""),
        ] {
            assert_eq!(json(ty, text).as_deref(), Ok(want), "{ty:?} {text}");
        }
    }

    #[test]
    fn values_that_are_not_of_their_type() {
        for (ty, text) in [
            (ColumnType::Boolean, "yes"),
            (ColumnType::Int32, "1,2"),
            (ColumnType::Int32, "-"),
            (ColumnType::Float64, "1}"),
            (ColumnType::Bytes, "\\x0"),
            (ColumnType::Bytes, "\\xzz"),
        ] {
            assert!(json(ty, text).is_err(), "{ty:?} {text}");
        }
        assert!(put_value(&mut String::new(), ColumnType::Text, &[0xff]).is_err());
    }

    #[test]
    fn hex_there_and_back() {
        assert_eq!(from_hex(&to_hex(&[0, 171, 255])), Some(vec![0, 171, 255]));
        assert_eq!(from_hex("\\x"), Some(vec![]));
    }
}
