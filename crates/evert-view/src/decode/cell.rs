//! One value on its way from JSON to a column.

use std::borrow::Cow;

use evert_model::{ColumnType, ItemType};

use super::text;

/// A JSON scalar, or the raw text of anything.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    /// A number, as written.
    Number(&'a str),
    /// A string with its quotes and escapes.
    String(&'a str),
    /// An object or array, as written.
    Nested(&'a str),
}

/// A typed value, ready for its column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    /// SMALLINT, INTEGER, BIGINT, DATE (days) and timestamps (microseconds): range-checked.
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
    List(Vec<Cell<'a>>),
}

impl Cell<'_> {
    /// Whether two values are one key. As in SQL, NaN is the same as itself.
    pub(crate) fn is(&self, other: &Cell<'_>) -> bool {
        match (self, other) {
            (Self::Float(a), Cell::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (a, b) => a == b,
        }
    }

    /// Whether it is or holds a text with U+0000 in it.
    pub(super) fn has_nul(&self) -> bool {
        match self {
            Self::Text(text) => text.as_bytes().contains(&0),
            Self::List(items) => items.iter().any(Self::has_nul),
            _ => false,
        }
    }
}

/// How a format writes JSON columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonColumns {
    /// The value itself.
    Inline,
    /// A string that holds the value's text.
    Quoted,
}

impl<'a> Json<'a> {
    pub(crate) fn of(raw: &'a str) -> Self {
        match raw.as_bytes().first() {
            Some(b'"') => Self::String(raw),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') | None => Self::Null,
            Some(b'{' | b'[') => Self::Nested(raw),
            Some(_) => Self::Number(raw),
        }
    }

    fn describe(self) -> String {
        let (what, raw) = match self {
            Self::Null => return "null".into(),
            Self::Bool(value) => return format!("boolean {value}"),
            Self::Number(raw) => ("number", raw),
            Self::String(raw) => ("string", raw),
            Self::Nested(raw) if raw.starts_with('{') => ("object", raw),
            Self::Nested(raw) => ("array", raw),
        };
        format!("{what} {}", text::shorten(raw))
    }

    /// The value as column type `ty`, or why it is not one.
    pub(crate) fn to_cell(self, ty: ColumnType, columns: JsonColumns) -> Result<Cell<'a>, String> {
        if let (Self::Null, false) =
            (self, ty == ColumnType::Json && columns == JsonColumns::Inline)
        {
            return Ok(Cell::Null);
        }
        let wrong = || format!("{} is not {}", self.describe(), ty.sql_name());
        match (ty, self) {
            (ColumnType::Json, Self::Null) => Ok(Cell::Null),
            (ColumnType::Json, Self::String(raw)) if columns == JsonColumns::Quoted => {
                Ok(Cell::Text(unquote(raw)?))
            }
            (ColumnType::Json, Self::Bool(value)) => {
                Ok(Cell::Text(if value { "true" } else { "false" }.into()))
            }
            (ColumnType::Json, Self::Number(raw) | Self::String(raw) | Self::Nested(raw)) => {
                Ok(Cell::Text(raw.into()))
            }
            (ColumnType::Boolean, Self::Bool(value)) => Ok(Cell::Bool(value)),
            (ColumnType::Array(item), Self::Nested(raw)) if raw.starts_with('[') => {
                items(raw, item, columns).map_err(|why| format!("{}: {why}", wrong()))
            }
            (ColumnType::Text, Self::String(raw)) => Ok(Cell::Text(unquote(raw)?)),
            (ColumnType::Timestamp | ColumnType::TimestampTz, Self::Number(raw)) => {
                let millis: i64 = raw.parse().map_err(|_| wrong())?;
                millis.checked_mul(1000).map(Cell::Int).ok_or_else(wrong)
            }
            (
                ColumnType::Int16
                | ColumnType::Int32
                | ColumnType::Int64
                | ColumnType::Float32
                | ColumnType::Float64
                | ColumnType::Decimal { .. },
                Self::Number(raw),
            ) => text::parse(raw.into(), ty).ok_or_else(wrong),
            (
                ColumnType::Float32
                | ColumnType::Float64
                | ColumnType::Decimal { .. }
                | ColumnType::Bytes
                | ColumnType::Date
                | ColumnType::Timestamp
                | ColumnType::TimestampTz
                | ColumnType::Uuid,
                Self::String(raw),
            ) => text::parse(unquote(raw)?, ty).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// The contents of a JSON string: borrowed unless it has escapes.
pub(crate) fn unquote(raw: &str) -> Result<Cow<'_, str>, String> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => sonic_rs::from_str::<String>(raw)
            .map(Cow::Owned)
            .map_err(|_| format!("{} is not a JSON string", text::shorten(raw))),
    }
}

/// A JSON array's elements as items of one type, or why they are not.
pub(super) fn items(
    raw: &str,
    item: ItemType,
    columns: JsonColumns,
) -> Result<Cell<'static>, String> {
    let malformed = || format!("{} is not a JSON array", text::shorten(raw));
    let Some(mut rest) = raw.strip_prefix('[') else { return Err(malformed()) };
    let ty = item.column_type();
    let mut items = Vec::new();
    for element in sonic_rs::to_array_iter(raw) {
        let element = element.map_err(|_| malformed())?;
        let Cow::Borrowed(text) = element.as_raw_cow() else { return Err(malformed()) };
        rest = &raw[text.as_ptr() as usize - raw.as_ptr() as usize + text.len()..];
        items.push(Json::of(text).to_cell(ty, columns)?.into_owned());
    }
    if rest.trim_ascii() != "]" {
        return Err(malformed());
    }
    Ok(Cell::List(items))
}

impl Cell<'_> {
    fn into_owned(self) -> Cell<'static> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(value),
            Self::Int(value) => Cell::Int(value),
            Self::Float(value) => Cell::Float(value),
            Self::Decimal(value) => Cell::Decimal(value),
            Self::Text(text) => Cell::Text(text.into_owned().into()),
            Self::Bytes(bytes) => Cell::Bytes(bytes),
            Self::List(items) => Cell::List(items.into_iter().map(Cell::into_owned).collect()),
        }
    }
}
