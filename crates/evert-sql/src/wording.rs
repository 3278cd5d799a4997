//! Wording: what the planner and the kernels say of common mistakes, as Postgres says it.
//!
//! Owns: which of their messages are known, and the SQLSTATE and words for each.
//! Not here: everything else about errors (`translate`).

use arrow::datatypes::{DataType, Field};
use evert_model::ColumnType;

use crate::SqlError;
use crate::error::{
    DATATYPE_MISMATCH, DATETIME_FORMAT, GROUPING_ERROR, INVALID_COLUMN_REFERENCE,
    INVALID_PARAMETER_VALUE, INVALID_TEXT, NUMERIC_OUT_OF_RANGE, SYNTAX_ERROR, UNDEFINED_FUNCTION,
    UNDEFINED_OBJECT,
};

/// The error that a message is, if it is a known one.
pub(crate) fn reworded(message: &str) -> Option<SqlError> {
    cast(message)
        .or_else(|| function(message))
        .or_else(|| operator(message))
        .or_else(|| clause(message))
}

/// `2201B`: what is no regular expression, whose error has many lines.
pub(crate) fn bad_expression(message: &str) -> Option<SqlError> {
    let mentions = message.contains("regex parse error")
        || message.contains("Regular expression did not compile");
    if !mentions {
        return None;
    }
    let why = message.rsplit_once("error: ").map_or("", |(_, why)| why);
    let why = why.trim_end_matches(['"', ')']).lines().next().unwrap_or_default().trim();
    let message = format!("invalid regular expression: {why}");
    Some(SqlError::new("2201B", message.trim_end_matches(": ")))
}

/// What is between two texts.
fn between<'a>(message: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = message.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

/// A type as Arrow prints it, by its SQL name.
fn sql_type(name: &str) -> &str {
    match name.trim() {
        "Int8" | "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Boolean" => "boolean",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Binary" | "LargeBinary" | "BinaryView" => "bytea",
        "Date32" | "Date64" => "date",
        "Null" => "unknown",
        name if name.starts_with("Decimal") => "numeric",
        name if name.starts_with("Timestamp") && name.contains("None") => {
            "timestamp without time zone"
        }
        name if name.starts_with("Timestamp(") && !name.contains(',') => {
            "timestamp without time zone"
        }
        name if name.starts_with("Timestamp") => "timestamp with time zone",
        name if name.starts_with("Interval") => "interval",
        name => name,
    }
}

/// `42883`: a function for arguments that it does not take.
pub(crate) fn undefined_function<'a>(
    name: &str,
    types: impl Iterator<Item = &'a DataType>,
) -> SqlError {
    let types: Vec<String> = types.map(|ty| type_name(&Field::new("", ty.clone(), true))).collect();
    missing_function(&format!("{name}({})", types.join(", ")))
}

fn missing_function(call: &str) -> SqlError {
    let message = format!("function {call} does not exist");
    SqlError::new(UNDEFINED_FUNCTION, message).hint(
        "No function matches the given name and argument types. You might need to add explicit \
         type casts.",
    )
}

/// The name of a value's type, as `pg_typeof` gives it.
pub(crate) fn type_name(field: &Field) -> String {
    match (ColumnType::of_field(field), field.data_type()) {
        (Some(ColumnType::Decimal { .. }), _) | (_, DataType::Decimal256(..)) => "numeric".into(),
        (Some(ty), _) => ty.sql_name(),
        (None, DataType::Null) => "unknown".into(),
        (None, DataType::Duration(_) | DataType::Interval(_)) => "interval".into(),
        (None, DataType::Time32(_) | DataType::Time64(_)) => "time without time zone".into(),
        (None, DataType::List(item)) => format!("{}[]", type_name(item)),
        (None, ty) => sql_type(&ty.to_string()).to_owned(),
    }
}

fn cast(message: &str) -> Option<SqlError> {
    if let Some(rest) = message.strip_prefix("Cannot cast string '") {
        let (text, ty) = rest.rsplit_once("' to value of ")?;
        return Some(bad_text(text, sql_type(ty.strip_suffix(" type")?)));
    }
    if let Some(text) = between(message, "Error parsing timestamp from '", "': ") {
        return Some(bad_text(text, "timestamp"));
    }
    let ty = between(message, "Can't cast value ", " to type ").map(|_| message.rsplit_once(' '));
    let ty = sql_type(ty??.1);
    Some(SqlError::new(NUMERIC_OUT_OF_RANGE, format!("{ty} out of range")))
}

/// A text that is no value of a type.
fn bad_text(text: &str, ty: &str) -> SqlError {
    let number = text.trim();
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match ty {
        "smallint" | "integer" | "bigint" if whole => {
            let message = format!("value \"{number}\" is out of range for type {ty}");
            SqlError::new(NUMERIC_OUT_OF_RANGE, message)
        }
        ty => {
            let time = ty == "date" || ty.starts_with("timestamp") || ty == "interval";
            let sqlstate = if time { DATETIME_FORMAT } else { INVALID_TEXT };
            SqlError::new(sqlstate, format!("invalid input syntax for type {ty}: \"{text}\""))
        }
    }
}

fn function(message: &str) -> Option<SqlError> {
    if let Some(name) = between(message, "Invalid function '", "'") {
        return Some(missing_function(name));
    }
    if message.contains("failed to match any signature") {
        return Some(missing_function(between(message, "Function '", "'")?));
    }
    let call = between(message, "argument types '", "'")?;
    let (name, types) = call.strip_suffix(')')?.split_once('(')?;
    let types: Vec<_> = split_types(types).into_iter().map(sql_type).collect();
    Some(missing_function(&format!("{name}({})", types.join(", "))))
}

/// Types with commas between them; some have commas within brackets.
fn split_types(types: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0_i32, 0, Vec::new());
    for (at, c) in types.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(types[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !types[start..].trim().is_empty() {
        found.push(types[start..].trim());
    }
    found
}

fn operator(message: &str) -> Option<SqlError> {
    let expression = between(message, "Cannot coerce arithmetic expression ", " to valid types")
        .or_else(|| {
            message.strip_prefix("Cannot infer common argument type for comparison operation ")
        });
    if let Some(expression) = expression {
        let mut parts = expression.rsplitn(2, ' ');
        let (right, rest) = (parts.next()?, parts.next()?);
        let (left, operator) = rest.rsplit_once(' ')?;
        let message =
            format!("operator does not exist: {} {operator} {}", sql_type(left), sql_type(right));
        return Some(SqlError::new(UNDEFINED_FUNCTION, message).hint(
            "No operator matches the given name and argument types. You might need to add \
             explicit type casts.",
        ));
    }
    let logical = "Cannot infer common argument type for logical boolean operation ";
    let mut words = message.strip_prefix(logical)?.split(' ');
    let (left, operator, right) = (words.next()?, words.next()?, words.next()?);
    let other = if left == "Boolean" { right } else { left };
    let message =
        format!("argument of {operator} must be type boolean, not type {}", sql_type(other));
    Some(SqlError::new(DATATYPE_MISMATCH, message))
}

fn clause(message: &str) -> Option<SqlError> {
    if let Some(rest) = message.strip_prefix("Cannot create filter with non-boolean predicate ") {
        let ty = sql_type(rest.rsplit_once(" returning ")?.1);
        let message = format!("argument of WHERE must be type boolean, not type {ty}");
        return Some(SqlError::new(DATATYPE_MISMATCH, message));
    }
    if let Some(rest) = message.strip_prefix("Order by column out of bounds, specified: ") {
        let position = rest.split(',').next()?;
        let message = format!("ORDER BY position {position} is not in select list");
        return Some(SqlError::new(INVALID_COLUMN_REFERENCE, message));
    }
    if message.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        let message = "aggregate functions are not allowed in WHERE";
        return Some(SqlError::new(GROUPING_ERROR, message).hint("HAVING may use them."));
    }
    if message.starts_with("Too many columns! The subquery should only return one column") {
        return Some(SqlError::new(SYNTAX_ERROR, "subquery has too many columns"));
    }
    if message.starts_with("unrecognized configuration parameter ") {
        return Some(SqlError::new(UNDEFINED_OBJECT, message));
    }
    if message.starts_with("a window ") || message.starts_with("a time in ") {
        return Some(SqlError::new(INVALID_PARAMETER_VALUE, message));
    }
    if message.contains("field position must not be zero") {
        let message = "field position must not be zero";
        return Some(SqlError::new(INVALID_PARAMETER_VALUE, message));
    }
    if let Some(set) = message.strip_suffix(" queries have different number of columns") {
        let message = format!("each {set} query must have the same number of columns");
        return Some(SqlError::new(SYNTAX_ERROR, message));
    }
    let column = between(message, "column \"", "\" must appear in the GROUP BY clause")?;
    let message = format!(
        "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
    );
    Some(SqlError::new(GROUPING_ERROR, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_as_postgres_tells_them() {
        for (message, sqlstate, words) in [
            (
                "Cannot cast string 'abc' to value of Int32 type",
                "22P02",
                "invalid input syntax for type integer: \"abc\"",
            ),
            (
                "Cannot cast string '99999' to value of Int16 type",
                "22003",
                "value \"99999\" is out of range for type smallint",
            ),
            (
                "Cannot cast string 'x' to value of Date32 type",
                "22007",
                "invalid input syntax for type date: \"x\"",
            ),
            ("Can't cast value 99999999999 to type Int32", "22003", "integer out of range"),
            ("Invalid function 'nofunc'.", "42883", "function nofunc does not exist"),
            (
                "Function 'f' ... argument types 'f(Int64, Decimal128(3, 1))'. You might",
                "42883",
                "function f(bigint, numeric) does not exist",
            ),
            (
                "Cannot coerce arithmetic expression Int64 + Utf8 to valid types",
                "42883",
                "operator does not exist: bigint + text",
            ),
            (
                "Cannot infer common argument type for logical boolean operation Boolean AND Int64",
                "42804",
                "argument of AND must be type boolean, not type bigint",
            ),
            (
                "Cannot create filter with non-boolean predicate 't.a' returning Int32",
                "42804",
                "argument of WHERE must be type boolean, not type integer",
            ),
            (
                "Order by column out of bounds, specified: 99, max: 4",
                "42P10",
                "ORDER BY position 99 is not in select list",
            ),
            (
                "UNION queries have different number of columns",
                "42601",
                "each UNION query must have the same number of columns",
            ),
            (
                "Column in SELECT must be in GROUP BY or an aggregate function: While expanding \
                 wildcard, column \"t.b\" must appear in the GROUP BY clause or must be part of",
                "42803",
                "column \"t.b\" must appear in the GROUP BY clause or be used in an aggregate \
                 function",
            ),
        ] {
            let error = reworded(message).unwrap_or_else(|| panic!("{message}"));
            assert_eq!((error.sqlstate, error.message.as_str()), (sqlstate, words));
        }
        assert!(reworded("Something else happened").is_none());
    }
}
