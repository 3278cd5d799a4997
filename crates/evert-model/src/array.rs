//! Arrays: the type of what a column of them holds, and Postgres's text of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ColumnType;

/// The type of an array's items: [`ColumnType`] without arrays, and without what only a column's
/// name for it tells from text. A type of its own, since one that is copied cannot hold itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemType {
    /// BOOLEAN
    Boolean,
    /// SMALLINT
    Int16,
    /// INTEGER
    Int32,
    /// BIGINT
    Int64,
    /// REAL
    Float32,
    /// DOUBLE PRECISION
    Float64,
    /// NUMERIC(precision, scale)
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// TEXT, and what is kept as text: JSON and UUID
    Text,
    /// BYTEA
    Bytes,
    /// DATE
    Date,
    /// TIMESTAMP
    Timestamp,
    /// TIMESTAMP WITH TIME ZONE
    TimestampTz,
}

impl ItemType {
    /// The type that a column of items has.
    pub fn column_type(self) -> ColumnType {
        match self {
            Self::Boolean => ColumnType::Boolean,
            Self::Int16 => ColumnType::Int16,
            Self::Int32 => ColumnType::Int32,
            Self::Int64 => ColumnType::Int64,
            Self::Float32 => ColumnType::Float32,
            Self::Float64 => ColumnType::Float64,
            Self::Decimal { precision, scale } => ColumnType::Decimal { precision, scale },
            Self::Text => ColumnType::Text,
            Self::Bytes => ColumnType::Bytes,
            Self::Date => ColumnType::Date,
            Self::Timestamp => ColumnType::Timestamp,
            Self::TimestampTz => ColumnType::TimestampTz,
        }
    }

    /// The items of arrays of a column's values; nothing for arrays of arrays.
    pub fn of_column(ty: ColumnType) -> Option<Self> {
        Some(match ty {
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Int16 => Self::Int16,
            ColumnType::Int32 => Self::Int32,
            ColumnType::Int64 => Self::Int64,
            ColumnType::Float32 => Self::Float32,
            ColumnType::Float64 => Self::Float64,
            ColumnType::Decimal { precision, scale } => Self::Decimal { precision, scale },
            ColumnType::Text | ColumnType::Json | ColumnType::Uuid => Self::Text,
            ColumnType::Bytes => Self::Bytes,
            ColumnType::Date => Self::Date,
            ColumnType::Timestamp => Self::Timestamp,
            ColumnType::TimestampTz => Self::TimestampTz,
            ColumnType::Array(_) => return None,
        })
    }
}

/// The elements of an array's text, `{1,NULL,"a \\"b\\""}`; `None` is NULL. Nothing if it is no
/// array, or one of arrays.
pub fn array_elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Some(elements);
    }
    let mut chars = inner.chars();
    loop {
        let (mut element, mut quoted, mut more) = (String::new(), false, false);
        let mut in_quotes = false;
        while let Some(next) = chars.next() {
            match next {
                '\\' => element.push(chars.next()?),
                '"' => {
                    in_quotes = !in_quotes;
                    quoted = true;
                }
                ',' if !in_quotes => {
                    more = true;
                    break;
                }
                // Arrays of arrays have no type here.
                '{' | '}' if !in_quotes => return None,
                _ => element.push(next),
            }
        }
        if in_quotes {
            return None;
        }
        if !quoted {
            element = element.trim().to_owned();
            if element.is_empty() {
                return None;
            }
        }
        let is_null = !quoted && element.eq_ignore_ascii_case("null");
        elements.push((!is_null).then_some(element));
        if !more {
            return Some(elements);
        }
    }
}

/// An element as an array's text has it: in quotes where it would otherwise mean something else.
pub fn array_element(text: &str) -> Cow<'_, str> {
    let special = |c: char| "{}\",\\ \t\n\r\u{b}\u{c}".contains(c);
    if !text.is_empty() && !text.contains(special) && !text.eq_ignore_ascii_case("null") {
        return text.into();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted.into()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::vector_field;

    #[test]
    fn arrays_keep_their_items_type() {
        let decimal = ItemType::Decimal { precision: 9, scale: 2 };
        for item in [ItemType::Boolean, ItemType::Int64, ItemType::Text, ItemType::Date, decimal] {
            let ty = ColumnType::Array(item);
            let field = Field::new("a", ty.arrow_type(), true);
            assert_eq!(ColumnType::of_field(&field), Some(ty));
            assert_eq!(ItemType::of_column(item.column_type()), Some(item));
            let text = serde_json::to_string(&ty).unwrap();
            assert_eq!(serde_json::from_str::<ColumnType>(&text).unwrap(), ty, "{text}");
        }
        assert_eq!(ColumnType::Array(ItemType::Int32).sql_name(), "integer[]");
    }

    #[test]
    fn texts_are_read_as_they_were_written() {
        let elements = ["a", "", "NULL", "a b", "a,b", "{", "\"\\", "\u{b}", "é", "\n"];
        let texts: Vec<_> = elements.iter().map(|element| array_element(element)).collect();
        let text = format!("{{{},NULL}}", texts.join(","));
        let expected = elements.iter().map(|&element| Some(element.to_owned())).chain([None]);
        assert_eq!(array_elements(&text), Some(expected.collect()), "{text}");
        assert_eq!(array_element("é"), "é");
        assert_eq!(array_elements(" { } "), Some(Vec::new()));
        let spaced = vec![Some("1".to_owned()), None];
        assert_eq!(array_elements("{ 1 , null }"), Some(spaced));
        for wrong in ["", "1", "{1", "{1,}", "{{1}}", "{\"a}", "{a\\"] {
            assert_eq!(array_elements(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lists_of_any_form_are_arrays_unless_they_are_nested_or_vectors() {
        let of = |ty| ColumnType::of_field(&Field::new("a", ty, true));
        let item = |ty| Field::new("element", ty, false).into();
        let texts = Some(ColumnType::Array(ItemType::Text));
        assert_eq!(of(DataType::LargeList(item(DataType::Utf8))), texts);
        assert_eq!(of(DataType::FixedSizeList(item(DataType::Utf8View), 2)), texts);
        assert_eq!(of(DataType::List(item(DataType::Null))), texts, "ARRAY[NULL]");
        let nested = ColumnType::Array(ItemType::Int32).arrow_type();
        assert_eq!(of(DataType::List(item(nested))), None);
        assert_eq!(ColumnType::of_field(&vector_field("v")), None);
    }
}
