//! Types: which Postgres type stands for which Arrow type, both ways.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use evert_model::{ColumnType, is_vector};

/// OIDs of Postgres's built-in types (`pg_type.dat`).
pub(super) mod oid {
    pub(in crate::pg) const BOOL: u32 = 16;
    pub(in crate::pg) const BYTEA: u32 = 17;
    pub(in crate::pg) const INT8: u32 = 20;
    pub(in crate::pg) const INT2: u32 = 21;
    pub(in crate::pg) const INT2VECTOR: u32 = 22;
    pub(in crate::pg) const INT4: u32 = 23;
    pub(in crate::pg) const TEXT: u32 = 25;
    pub(in crate::pg) const JSON: u32 = 114;
    pub(in crate::pg) const FLOAT4: u32 = 700;
    pub(in crate::pg) const FLOAT8: u32 = 701;
    pub(in crate::pg) const DATE: u32 = 1082;
    pub(in crate::pg) const TIME: u32 = 1083;
    pub(in crate::pg) const TIMESTAMP: u32 = 1114;
    pub(in crate::pg) const TIMESTAMPTZ: u32 = 1184;
    pub(in crate::pg) const INTERVAL: u32 = 1186;
    pub(in crate::pg) const NUMERIC: u32 = 1700;
    pub(in crate::pg) const UUID: u32 = 2950;
    pub(in crate::pg) const JSONB: u32 = 3802;
}

/// Each element type's array type.
const ARRAYS: [(u32, u32); 21] = [
    (oid::BOOL, 1000),
    (oid::BYTEA, 1001),
    (oid::INT2, 1005),
    (oid::INT4, 1007),
    (oid::TEXT, 1009),
    (oid::INT8, 1016),
    (oid::FLOAT4, 1021),
    (oid::FLOAT8, 1022),
    (oid::TIMESTAMP, 1115),
    (oid::DATE, 1182),
    (oid::TIME, 1183),
    (oid::TIMESTAMPTZ, 1185),
    (oid::INTERVAL, 1187),
    (oid::NUMERIC, 1231),
    (oid::UUID, 2951),
    (oid::JSON, 199),
    (oid::JSONB, 3807),
    (26, 1028),
    // varchar, bpchar and name, which are text here.
    (1043, 1015),
    (1042, 1014),
    (19, 1003),
];

/// Digits after the point that a NUMERIC parameter keeps, unless its context asks for more.
pub(super) const PARAM_SCALE: i8 = 10;

/// A column's type as RowDescription tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PgType {
    pub(super) oid: u32,
    /// Bytes of a value, or -1.
    pub(super) size: i16,
    /// `atttypmod`, or -1.
    pub(super) modifier: i32,
}

impl PgType {
    /// The Postgres type of a result's column. What has none is sent as text.
    pub(super) fn of_field(field: &Field) -> Self {
        let (oid, size) = match ColumnType::of_field(field) {
            Some(ColumnType::Boolean) => (oid::BOOL, 1),
            Some(ColumnType::Int16) => (oid::INT2, 2),
            Some(ColumnType::Int32) => (oid::INT4, 4),
            Some(ColumnType::Int64) => (oid::INT8, 8),
            Some(ColumnType::Float32) => (oid::FLOAT4, 4),
            Some(ColumnType::Float64) => (oid::FLOAT8, 8),
            Some(ColumnType::Decimal { precision, scale }) => {
                return Self::numeric(precision, scale);
            }
            Some(ColumnType::Text) => (oid::TEXT, -1),
            Some(ColumnType::Bytes) => (oid::BYTEA, -1),
            Some(ColumnType::Date) => (oid::DATE, 4),
            Some(ColumnType::Timestamp) => (oid::TIMESTAMP, 8),
            Some(ColumnType::TimestampTz) => (oid::TIMESTAMPTZ, 8),
            Some(ColumnType::Json) => (oid::JSON, -1),
            Some(ColumnType::Uuid) => (oid::UUID, 16),
            Some(ColumnType::Array(item)) => {
                let item = Field::new("", item.column_type().arrow_type(), true);
                (array_of(Self::of_field(&item).oid).unwrap_or(oid::TEXT), -1)
            }
            None if is_vector(field) => (oid::INT2VECTOR, -1),
            None => return Self::of_other(field.data_type()),
        };
        Self { oid, size, modifier: -1 }
    }

    /// The type modifier of NUMERIC(p,s) holds both; a negative scale is written in 11 bits.
    fn numeric(precision: u8, scale: i8) -> Self {
        let modifier = (i32::from(precision) << 16) | (i32::from(scale) & 0x7ff);
        Self { oid: oid::NUMERIC, size: -1, modifier: modifier + 4 }
    }

    /// Types that are no column's type.
    fn of_other(ty: &DataType) -> Self {
        let (oid, size) = match ty {
            DataType::Dictionary(_, value) => {
                return Self::of_field(&Field::new("", value.as_ref().clone(), true));
            }
            DataType::FixedSizeBinary(_) => (oid::BYTEA, -1),
            DataType::Decimal256(precision, scale) => return Self::numeric(*precision, *scale),
            DataType::Time32(_) | DataType::Time64(_) => (oid::TIME, 8),
            DataType::Interval(_) | DataType::Duration(_) => (oid::INTERVAL, 16),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                (array_of(Self::of_field(item).oid).unwrap_or(oid::TEXT), -1)
            }
            _ => (oid::TEXT, -1),
        };
        Self { oid, size, modifier: -1 }
    }
}

/// The array type of an element type.
pub(super) fn array_of(element: u32) -> Option<u32> {
    ARRAYS.iter().find(|(item, _)| *item == element).map(|(_, array)| *array)
}

/// The element type of an array type.
pub(super) fn element_of(array: u32) -> Option<u32> {
    ARRAYS.iter().find(|(_, this)| *this == array).map(|(item, _)| *item)
}

/// The Arrow type that a parameter of a Postgres type is read as; `None` leaves the choice to the
/// statement.
pub(super) fn arrow_type(oid: u32) -> Option<DataType> {
    Some(match oid {
        oid::BOOL => DataType::Boolean,
        oid::INT2 => DataType::Int16,
        oid::INT4 => DataType::Int32,
        // An object identifier is an unsigned four-byte number.
        oid::INT8 | 26 => DataType::Int64,
        oid::FLOAT4 => DataType::Float32,
        oid::FLOAT8 => DataType::Float64,
        oid::NUMERIC => DataType::Decimal128(38, PARAM_SCALE),
        oid::BYTEA => DataType::Binary,
        oid::DATE => DataType::Date32,
        oid::TIME => DataType::Time64(TimeUnit::Microsecond),
        oid::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        oid::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        oid::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        // text, "char", name, json, bpchar, varchar, uuid, jsonb
        oid::TEXT | 18 | 19 | oid::JSON | 1042 | 1043 | oid::UUID | oid::JSONB => {
            DataType::Utf8View
        }
        _ => {
            let item = arrow_type(element_of(oid)?)?;
            DataType::List(Arc::new(Field::new_list_field(item, true)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_sent_can_be_a_parameter() {
        for (element, array) in ARRAYS {
            assert!(arrow_type(element).is_some(), "{element}");
            assert!(matches!(arrow_type(array), Some(DataType::List(_))), "{array}");
        }
        assert_eq!(arrow_type(0), None);
        assert_eq!(arrow_type(705), None, "unknown");
    }

    #[test]
    fn numeric_tells_its_digits() {
        let field = Field::new("n", DataType::Decimal128(10, 2), true);
        assert_eq!(PgType::of_field(&field).modifier, ((10 << 16) | 2) + 4);
    }
}
