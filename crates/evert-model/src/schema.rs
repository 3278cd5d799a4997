//! Relation schemas: SQL types and the one Arrow type each has at every border.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::ItemType;

/// A column's SQL type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
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
    /// NUMERIC(precision, scale), precision at most 38
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// TEXT, VARCHAR, CHAR
    Text,
    /// BYTEA
    Bytes,
    /// DATE
    Date,
    /// TIMESTAMP, in microseconds
    Timestamp,
    /// TIMESTAMP WITH TIME ZONE, in microseconds, UTC
    TimestampTz,
    /// JSON, JSONB: kept as its text
    Json,
    /// UUID: kept as its canonical text
    Uuid,
    /// An array of any of the others
    Array(ItemType),
}

/// The key of an Arrow field's metadata that tells JSON and UUID from plain text, and vectors from
/// other lists.
const TYPE_KEY: &str = "evert.type";
const VECTOR: &str = "int2vector";

impl ColumnType {
    /// The one physical type of this SQL type.
    pub fn arrow_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Text | Self::Json | Self::Uuid => DataType::Utf8View,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Array(item) => {
                let item = item.column_type().arrow_type();
                DataType::List(Arc::new(Field::new_list_field(item, true)))
            }
        }
    }

    /// The SQL type of an Arrow field at one of Evert's borders, if it has one.
    pub fn of_field(field: &Field) -> Option<Self> {
        match field.metadata().get(TYPE_KEY).map(String::as_str) {
            Some("json") => return Some(Self::Json),
            Some("uuid") => return Some(Self::Uuid),
            Some(VECTOR) => return None,
            _ => {}
        }
        Some(match field.data_type() {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Self::Int16,
            DataType::UInt16 | DataType::Int32 => Self::Int32,
            DataType::UInt32 | DataType::Int64 => Self::Int64,
            DataType::UInt64 => Self::Decimal { precision: 20, scale: 0 },
            DataType::Float16 | DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                Self::Decimal { precision: *p, scale: *s }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Bytes,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::TimestampTz,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                match item.data_type() {
                    DataType::Null => Self::Array(ItemType::Text),
                    _ => Self::Array(ItemType::of_column(Self::of_field(item)?)?),
                }
            }
            _ => return None,
        })
    }

    /// The type's name in Postgres, as information_schema and error messages show it.
    pub fn sql_name(self) -> String {
        match self {
            Self::Boolean => "boolean".into(),
            Self::Int16 => "smallint".into(),
            Self::Int32 => "integer".into(),
            Self::Int64 => "bigint".into(),
            Self::Float32 => "real".into(),
            Self::Float64 => "double precision".into(),
            Self::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
            Self::Text => "text".into(),
            Self::Bytes => "bytea".into(),
            Self::Date => "date".into(),
            Self::Timestamp => "timestamp without time zone".into(),
            Self::TimestampTz => "timestamp with time zone".into(),
            Self::Json => "json".into(),
            Self::Uuid => "uuid".into(),
            Self::Array(item) => format!("{}[]", item.column_type().sql_name()),
        }
    }
}

/// A field of Postgres's `int2vector`, which its catalogs have: a list of integers that is written
/// as its numbers with blanks between.
pub fn vector_field(name: &str) -> Field {
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    Field::new(name, DataType::List(item), true).with_metadata(type_metadata(VECTOR))
}

/// Whether a field is one of [`vector_field`].
pub fn is_vector(field: &Field) -> bool {
    field.metadata().get(TYPE_KEY).is_some_and(|name| name == VECTOR)
}

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name, as it is written in the catalog (folded to lower case unless quoted).
    pub name: String,
    /// The SQL type.
    #[serde(rename = "type")]
    pub ty: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
}

/// The columns of a relation, and which of them are its primary key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSchema {
    /// The columns in order.
    pub columns: Vec<Column>,
    /// Indexes of the key's columns, in key order; empty if there is no key.
    pub key: Vec<usize>,
}

impl RowSchema {
    /// The index of a column by name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The Arrow schema of the rows.
    ///
    /// Every field is nullable, since a deletion carries nothing but its key; NOT NULL is checked
    /// where facts become rows.
    pub fn to_arrow(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|column| {
            let field = Field::new(&column.name, column.ty.arrow_type(), true);
            match column.ty {
                ColumnType::Json => field.with_metadata(type_metadata("json")),
                ColumnType::Uuid => field.with_metadata(type_metadata("uuid")),
                _ => field,
            }
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

fn type_metadata(name: &str) -> HashMap<String, String> {
    HashMap::from([(TYPE_KEY.to_owned(), name.to_owned())])
}
