//! Types: what a type's SQL name means here.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::planner::TypePlanner;
use evert_model::{Column, ColumnType, ItemType, RowSchema};
use evert_view::TextLength;
use sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType as SqlType, ExactNumberInfo, ObjectName,
    TimezoneInfo,
};

use crate::SqlError;
use crate::error::{INVALID_PARAMETER_VALUE, UNDEFINED_OBJECT};
use crate::functions::NUMERIC_SCALE;

/// The largest precision that NUMERIC has here.
const PRECISION_MAX: u64 = 38;

/// The type of a column that a statement declares. Unconstrained NUMERIC gives `None`: it has no
/// fixed scale, so that it cannot be a [`ColumnType::Decimal`].
pub(crate) fn column_type(ty: &SqlType) -> Result<Option<ColumnType>, SqlError> {
    Ok(Some(match ty {
        SqlType::Boolean | SqlType::Bool => ColumnType::Boolean,
        SqlType::SmallInt(None) | SqlType::Int2(None) => ColumnType::Int16,
        SqlType::Int(None) | SqlType::Integer(None) | SqlType::Int4(None) => ColumnType::Int32,
        SqlType::BigInt(None) | SqlType::Int8(None) => ColumnType::Int64,
        SqlType::Real | SqlType::Float4 => ColumnType::Float32,
        SqlType::Float(ExactNumberInfo::Precision(bits)) if *bits <= 24 => ColumnType::Float32,
        SqlType::Float(_) | SqlType::Float8 | SqlType::Double(_) | SqlType::DoublePrecision => {
            ColumnType::Float64
        }
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => {
            return decimal(*info);
        }
        SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::CharVarying(_)
        | SqlType::CharacterVarying(_)
        | SqlType::Char(_)
        | SqlType::Character(_)
        | SqlType::String(_) => ColumnType::Text,
        SqlType::Bytea => ColumnType::Bytes,
        SqlType::Date => ColumnType::Date,
        SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            ColumnType::Timestamp
        }
        SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
            ColumnType::TimestampTz
        }
        SqlType::JSON | SqlType::JSONB => ColumnType::Json,
        SqlType::Uuid => ColumnType::Uuid,
        SqlType::Array(ArrayElemTypeDef::SquareBracket(item, _)) => {
            let hint = match column_type(item)? {
                None => "The numbers of an array have precision and scale: numeric(p,s)[].",
                Some(ColumnType::Json | ColumnType::Uuid) => "They are kept as text[].",
                Some(item) => match ItemType::of_column(item) {
                    Some(item) => return Ok(Some(ColumnType::Array(item))),
                    None => "Arrays have one dimension here; json has any number.",
                },
            };
            return Err(unknown(ty).hint(hint));
        }
        _ if ty.to_string().to_lowercase().ends_with("serial") => {
            return Err(SqlError::unsupported(format!("type {ty}")).hint(
                "There are no sequences: give keys, or use uuid DEFAULT gen_random_uuid().",
            ));
        }
        _ => {
            return Err(unknown(ty).hint(
                "Types are boolean, smallint, integer, bigint, real, double precision, \
                 numeric(p,s), text, bytea, date, timestamp, timestamptz, json, uuid, and arrays \
                 of those but the last two.",
            ));
        }
    }))
}

fn unknown(ty: &SqlType) -> SqlError {
    SqlError::new(UNDEFINED_OBJECT, format!("type {ty} is not known here"))
}

fn decimal(info: ExactNumberInfo) -> Result<Option<ColumnType>, SqlError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(None),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    if precision == 0 || precision > PRECISION_MAX {
        return Err(SqlError::new(
            INVALID_PARAMETER_VALUE,
            format!("NUMERIC precision {precision} must be between 1 and {PRECISION_MAX}"),
        ));
    }
    if scale < 0 || scale as u64 > precision {
        return Err(SqlError::new(
            INVALID_PARAMETER_VALUE,
            format!("NUMERIC scale {scale} must be between 0 and precision {precision}"),
        ));
    }
    Ok(Some(ColumnType::Decimal { precision: precision as u8, scale: scale as i8 }))
}

/// Gives casts in expressions the same physical types that columns have.
#[derive(Debug)]
pub(crate) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, ty: &SqlType) -> PlanResult<Option<FieldRef>> {
        if let SqlType::Custom(name, _) = ty {
            return Ok(catalog_type(&catalog_name(name)).map(nullable));
        }
        let modifier = Modifier::of(ty);
        if modifier == Some(Modifier::Numeric) {
            let any = Field::new("", DataType::Decimal128(38, NUMERIC_SCALE), true);
            return Ok(Some(Arc::new(with_modifier(any, modifier))));
        }
        // What is not a column's type (intervals, arrays, ...) stays DataFusion's business.
        Ok(column_type(ty).ok().flatten().map(|ty| {
            let field = Field::new("", ty.arrow_type(), true).with_metadata(metadata(ty));
            Arc::new(with_modifier(field, modifier))
        }))
    }
}

/// How long a text of a declared type may be; `None` where nothing is said.
///
/// # Errors
/// When the length is zero.
pub(crate) fn text_length(ty: &SqlType) -> Result<Option<TextLength>, SqlError> {
    let (length, name) = match Modifier::of(ty) {
        Some(Modifier::Length(chars)) => (TextLength { chars, blank: false }, "varchar"),
        Some(Modifier::Blank(chars)) => (TextLength { chars, blank: true }, "char"),
        _ => return Ok(None),
    };
    if length.chars == 0 {
        let message = format!("length for type {name} must be at least 1");
        return Err(SqlError::new(INVALID_PARAMETER_VALUE, message));
    }
    Ok(Some(length))
}

/// Where the field of a cast holds its type's [`Modifier`].
pub(crate) const MODIFIER_KEY: &str = "evert.modifier";

/// What the name of a type says beyond its Arrow type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modifier {
    /// NUMERIC of any precision.
    Numeric,
    /// `varchar(n)`
    Length(u32),
    /// `char(n)`
    Blank(u32),
    /// `timestamp(n)`
    Digits(u32),
}

impl Modifier {
    fn of(ty: &SqlType) -> Option<Self> {
        let length = |length: &Option<CharacterLength>| match length {
            Some(CharacterLength::IntegerLength { length, .. }) => u32::try_from(*length).ok(),
            _ => None,
        };
        match ty {
            SqlType::Numeric(ExactNumberInfo::None)
            | SqlType::Decimal(ExactNumberInfo::None)
            | SqlType::Dec(ExactNumberInfo::None) => Some(Self::Numeric),
            SqlType::Varchar(n) | SqlType::CharVarying(n) | SqlType::CharacterVarying(n) => {
                length(n).map(Self::Length)
            }
            SqlType::Char(n) | SqlType::Character(n) => {
                Some(Self::Blank(if n.is_none() { 1 } else { length(n)? }))
            }
            SqlType::Timestamp(Some(digits), _) => u32::try_from(*digits).ok().map(Self::Digits),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Numeric => "numeric".into(),
            Self::Length(n) => format!("length {n}"),
            Self::Blank(n) => format!("blank {n}"),
            Self::Digits(n) => format!("digits {n}"),
        }
    }

    /// The modifier that a cast's field holds.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None if text == "numeric" => Some(Self::Numeric),
            Some(("length", n)) => n.parse().ok().map(Self::Length),
            Some(("blank", n)) => n.parse().ok().map(Self::Blank),
            Some(("digits", n)) => n.parse().ok().map(Self::Digits),
            _ => None,
        }
    }
}

fn with_modifier(field: Field, modifier: Option<Modifier>) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.extend(modifier.map(|modifier| (MODIFIER_KEY.to_owned(), modifier.text())));
    field.with_metadata(metadata)
}

/// What a field's metadata says of a column's type.
pub(crate) fn metadata(ty: ColumnType) -> HashMap<String, String> {
    let column = Column { name: String::new(), ty, nullable: true };
    let schema = RowSchema { columns: vec![column], key: Vec::new() }.to_arrow();
    schema.field(0).metadata().clone()
}

/// The type of a parameter that is cast to `ty`: that type, if it is one that columns have or an
/// array of one.
pub(crate) fn parameter_type(ty: &SqlType) -> Option<DataType> {
    if let SqlType::Array(ArrayElemTypeDef::SquareBracket(item, _)) = ty {
        // Those of json and uuid have no column's type.
        let item = parameter_type(item)?;
        return Some(DataType::List(Arc::new(Field::new_list_field(item, true))));
    }
    if let SqlType::Custom(name, _) = ty {
        return catalog_type(&catalog_name(name));
    }
    Some(column_type(ty).ok()??.arrow_type())
}

/// Postgres's OID of `uuid`.
pub(crate) const OID_OF_UUID: u32 = 2950;
const OID_OF_OID: u32 = 26;

/// The OID of a type, or of an array's items, whose Arrow type is that of another.
pub(crate) fn oid_of_items(ty: &SqlType) -> Option<u32> {
    match ty {
        SqlType::Array(ArrayElemTypeDef::SquareBracket(item, _)) => oid_of_items(item),
        SqlType::Uuid => Some(OID_OF_UUID),
        SqlType::Custom(name, _) if catalog_name(name) == "oid" => Some(OID_OF_OID),
        _ => None,
    }
}

/// A catalog type's name without its schema.
fn catalog_name(name: &ObjectName) -> String {
    name.to_string().to_lowercase().trim_start_matches("pg_catalog.").to_owned()
}

fn nullable(ty: DataType) -> FieldRef {
    Arc::new(Field::new("", ty, true))
}

/// Types that clients' catalog queries cast to.
fn catalog_type(name: &str) -> Option<DataType> {
    Some(match name {
        "name" | "regclass" | "regtype" | "regproc" | "regnamespace" | "regrole" | "bpchar"
        | "text" | "varchar" | "\"char\"" | "cstring" => DataType::Utf8View,
        "bool" => DataType::Boolean,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "oid" | "xid" | "int8" => DataType::Int64,
        "int4" => DataType::Int32,
        "int2" => DataType::Int16,
        "timestamptz" => ColumnType::TimestampTz.arrow_type(),
        _ => return None,
    })
}

/// The type that a result column of this type is sent and stored as: one physical type per SQL
/// type. A type without one stays as it is.
pub(crate) fn canonical(field: &Field) -> DataType {
    match field.data_type() {
        DataType::Dictionary(_, value) => {
            canonical(&Field::new(field.name(), value.as_ref().clone(), true))
        }
        DataType::Null => DataType::Utf8View,
        DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Decimal256(_, scale) => DataType::Decimal128(38, *scale),
        ty => ColumnType::of_field(field).map_or_else(|| ty.clone(), ColumnType::arrow_type),
    }
}
