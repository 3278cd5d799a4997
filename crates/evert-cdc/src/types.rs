//! Postgres's types and the column types they become.

use evert_model::{ColumnType, ItemType};

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const CHAR: u32 = 18;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;

/// Types of arrays and of their items.
const ARRAYS: [(u32, u32); 19] = [
    (199, JSON),
    (1000, BOOL),
    (1001, BYTEA),
    (1002, CHAR),
    (1003, NAME),
    (1005, INT2),
    (1007, INT4),
    (1009, TEXT),
    (1014, BPCHAR),
    (1015, VARCHAR),
    (1016, INT8),
    (1021, FLOAT4),
    (1022, FLOAT8),
    (1115, TIMESTAMP),
    (1182, DATE),
    (1185, TIMESTAMPTZ),
    (1231, NUMERIC),
    (2951, UUID),
    (3807, JSONB),
];

/// Type modifiers of variable-length types are stored with this much added.
const MODIFIER_BASE: i32 = 4;
const DECIMAL_PRECISION_MAX: i32 = 38;

/// What a Postgres type (not a domain) becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// A type that means the same here.
    Same(ColumnType),
    /// A type that only its text stands for, and why.
    AsText(&'static str),
}

impl Mapped {
    pub(crate) fn column_type(self) -> ColumnType {
        match self {
            Self::Same(ty) => ty,
            Self::AsText(_) => ColumnType::Text,
        }
    }
}

/// The column type for type `oid` with modifier `modifier` (-1: none).
pub(crate) fn map(oid: u32, modifier: i32) -> Mapped {
    Mapped::Same(match oid {
        BOOL => ColumnType::Boolean,
        INT2 => ColumnType::Int16,
        INT4 => ColumnType::Int32,
        INT8 => ColumnType::Int64,
        FLOAT4 => ColumnType::Float32,
        FLOAT8 => ColumnType::Float64,
        NUMERIC => return numeric(modifier),
        TEXT | VARCHAR | BPCHAR | CHAR | NAME => ColumnType::Text,
        BYTEA => ColumnType::Bytes,
        DATE => ColumnType::Date,
        TIMESTAMP => ColumnType::Timestamp,
        TIMESTAMPTZ => ColumnType::TimestampTz,
        JSON | JSONB => ColumnType::Json,
        UUID => ColumnType::Uuid,
        _ => return array(oid, modifier),
    })
}

fn array(oid: u32, modifier: i32) -> Mapped {
    let Some((_, item)) = ARRAYS.iter().find(|(array, _)| *array == oid) else {
        return Mapped::AsText("it has no counterpart here");
    };
    match map(*item, modifier) {
        Mapped::Same(ty) => match ItemType::of_column(ty) {
            Some(item) => Mapped::Same(ColumnType::Array(item)),
            None => Mapped::AsText("it holds arrays"),
        },
        as_text @ Mapped::AsText(_) => as_text,
    }
}

fn numeric(modifier: i32) -> Mapped {
    if modifier < MODIFIER_BASE {
        return Mapped::AsText("it has no fixed precision");
    }
    let packed = modifier - MODIFIER_BASE;
    let precision = packed >> 16 & 0xffff;
    // Eleven bits with a sign, since Postgres 15.
    let scale = (packed & 0x7ff ^ 1024) - 1024;
    if precision > DECIMAL_PRECISION_MAX {
        return Mapped::AsText("it has more than 38 digits");
    }
    if scale < 0 || scale > precision {
        return Mapped::AsText("its scale lies outside its precision");
    }
    Mapped::Same(ColumnType::Decimal { precision: precision as u8, scale: scale as i8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modifier(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + MODIFIER_BASE
    }

    #[test]
    fn numeric_keeps_its_precision_where_it_can() {
        let decimal = |precision, scale| Mapped::Same(ColumnType::Decimal { precision, scale });
        assert_eq!(map(NUMERIC, modifier(12, 2)), decimal(12, 2));
        assert_eq!(map(NUMERIC, modifier(38, 0)), decimal(38, 0));
        for text in [-1, modifier(39, 2), modifier(5, -2), modifier(2, 5)] {
            assert_eq!(map(NUMERIC, text).column_type(), ColumnType::Text, "{text}");
        }
    }

    #[test]
    fn unknown_types_are_text() {
        assert!(matches!(map(1186, -1), Mapped::AsText(_)));
        assert_eq!(map(VARCHAR, 24), Mapped::Same(ColumnType::Text));
    }

    #[test]
    fn arrays_are_of_what_their_items_are() {
        let array = |item| Mapped::Same(ColumnType::Array(item));
        assert_eq!(map(1007, -1), array(ItemType::Int32));
        assert_eq!(map(2951, -1), array(ItemType::Text));
        let decimal = ItemType::Decimal { precision: 8, scale: 2 };
        assert_eq!(map(1231, modifier(8, 2)), array(decimal));
        // Numbers of any size, and intervals.
        for text in [1231, 1187] {
            assert_eq!(map(text, -1).column_type(), ColumnType::Text, "{text}");
        }
    }
}
