//! What is wrong with a value's text, in Postgres's words.

use evert_model::ColumnType;

use crate::SqlError;
use crate::error::{DATETIME_FORMAT, INVALID_TEXT, NUMERIC_OUT_OF_RANGE};

/// Why a text is no value of a type; `found` is what the cast said.
pub(super) fn of_text(ty: ColumnType, text: &str, found: SqlError) -> SqlError {
    let name = match ty {
        ColumnType::Decimal { .. } => "numeric".to_owned(),
        other => other.sql_name(),
    };
    let syntax = |sqlstate| {
        SqlError::new(sqlstate, format!("invalid input syntax for type {name}: \"{text}\""))
    };
    let number = text.trim();
    match ty {
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 if is_whole(number) => {
            let message = format!("value \"{number}\" is out of range for type {name}");
            SqlError::new(NUMERIC_OUT_OF_RANGE, message)
        }
        ColumnType::Decimal { precision, scale } if number.parse::<f64>().is_ok() => {
            let whole = i16::from(precision) - i16::from(scale);
            SqlError::new(NUMERIC_OUT_OF_RANGE, "numeric field overflow").detail(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute \
                 value less than 10^{whole}."
            ))
        }
        ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz => {
            syntax(DATETIME_FORMAT)
        }
        ColumnType::Text | ColumnType::Bytes | ColumnType::Json | ColumnType::Uuid => found,
        ColumnType::Array(_) => found,
        _ => syntax(INVALID_TEXT),
    }
}

fn is_whole(number: &str) -> bool {
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
