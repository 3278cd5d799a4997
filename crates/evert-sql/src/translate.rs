//! Translation of the errors of everything below into Postgres's words. The one place for it.

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use evert_log::{AppendError, ReadError, TopicError};
use evert_view::{CatalogError, PastError, PinError, PlanError};
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::Location;

use crate::SqlError;
use crate::error::*;
use crate::names::nearest;
use crate::wording::{bad_expression, reworded};

/// What planning or execution refused, as the client sees it. `text` is what the client sent.
pub(crate) fn planning(error: &DataFusionError, text: &str) -> SqlError {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let at = diagnostic.span.and_then(|span| {
                let start = span.start;
                character(text, Location { line: start.line, column: start.column })
            });
            planning(inner, text).at(at)
        }
        DataFusionError::Context(_, inner) => planning(inner, text),
        DataFusionError::Shared(inner) => planning(inner, text),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => planning(first, text),
            None => SqlError::new(INTERNAL_ERROR, error.to_string()),
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => planning(inner, text),
                None => SqlError::new(INTERNAL_ERROR, inner.to_string()),
            },
        },
        DataFusionError::SQL(inner, _) => syntax(inner, text),
        DataFusionError::SchemaError(inner, _) => schema(inner),
        DataFusionError::ArrowError(inner, _) => arrow(inner),
        DataFusionError::NotImplemented(message) => {
            SqlError::new(FEATURE_NOT_SUPPORTED, first_line(message))
        }
        DataFusionError::ResourcesExhausted(message) => {
            SqlError::new(OUT_OF_MEMORY, first_line(message))
                .hint("Ask for fewer rows at once, or start the server with more --memory.")
        }
        DataFusionError::Plan(message) => plan(message),
        DataFusionError::Execution(message) => execution(message),
        // An archive's files, or their bucket, cannot be read now.
        DataFusionError::ObjectStore(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::IoError(_) => SqlError::new(IO_ERROR, first_line(&error.to_string())),
        other => SqlError::new(INTERNAL_ERROR, first_line(&other.to_string())),
    }
}

/// A syntax error, at its character.
pub(crate) fn syntax(error: &ParserError, text: &str) -> SqlError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return SqlError::new("54001", "the statement is nested too deeply");
        }
    };
    let (message, location) = split_location(message);
    let message = message.strip_prefix("Expected: ").map_or_else(
        || message.to_owned(),
        |rest| match rest.rsplit_once(", found: ") {
            Some((expected, "EOF")) => format!("syntax error at end of input: expected {expected}"),
            Some((expected, found)) => {
                format!("syntax error at or near \"{found}\": expected {expected}")
            }
            None => format!("syntax error: expected {rest}"),
        },
    );
    let place = match location {
        Some(at) => character(text, at),
        // The end of the text has no place of its own.
        None if message.contains("end of input") => Some(text.trim_end().chars().count() + 1),
        None => None,
    };
    SqlError::new(SYNTAX_ERROR, message).at(place)
}

/// Takes " at Line: 1, Column: 8" off a parser's message.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((head, tail)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let location = tail.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location { line: line.parse().ok()?, column: column.trim().parse().ok()? })
    });
    (head, location)
}

/// The 1-based character of a line and column.
pub(crate) fn character(text: &str, at: Location) -> Option<usize> {
    if at.line == 0 {
        return None;
    }
    let mut before = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let characters = line.chars().count();
        if number == at.line {
            return Some(before + (at.column as usize).clamp(1, characters + 1));
        }
        before += characters;
    }
    Some(before + 1)
}

fn schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let of = field.relation.as_ref().map(|relation| relation.table());
            let known = |table| {
                let relations = valid_fields.iter().filter_map(|column| column.relation.as_ref());
                relations.map(|relation| relation.table()).any(|name| name == table)
            };
            if let Some(table) = of.filter(|table| !valid_fields.is_empty() && !known(*table)) {
                let message = format!("missing FROM-clause entry for table \"{table}\"");
                return SqlError::new(UNDEFINED_TABLE, message);
            }
            let message = match &field.relation {
                Some(relation) => format!("column {relation}.{} does not exist", field.name),
                None => format!("column \"{}\" does not exist", field.name),
            };
            let error = SqlError::new(UNDEFINED_COLUMN, message);
            match nearest(&field.name, valid_fields.iter().map(|column| column.name.clone())) {
                Some(near) => error.hint(format!("Perhaps you meant the column \"{near}\".")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => SqlError::new(
            AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        ),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new(DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
                .hint("Give the columns different names with AS.")
        }
    }
}

fn arrow(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::new(DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(message) => {
            SqlError::new(NUMERIC_OUT_OF_RANGE, format!("value out of range: {message}"))
        }
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::InvalidArgumentError(message) => execution(message),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<SqlError>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => planning(inner, ""),
                None => SqlError::new(INTERNAL_ERROR, inner.to_string()),
            },
        },
        other => SqlError::new(INTERNAL_ERROR, first_line(&other.to_string())),
    }
}

/// What evaluating a row refused. DataFusion and Arrow tell these apart by their text only.
pub(crate) fn execution(message: &str) -> SqlError {
    if let Some(error) = bad_expression(message) {
        return error;
    }
    let message = first_line(message);
    if let Some(error) = reworded(&message) {
        return error;
    }
    let lower = message.to_lowercase();
    let has = |part: &str| lower.contains(part);
    let sqlstate = if has("divide by zero") || has("division by zero") {
        return SqlError::new(DIVISION_BY_ZERO, "division by zero");
    } else if has("overflow")
        || has("out of range")
        || has("too large to store")
        || has("can't cast value")
        || has("is too small to store")
    {
        NUMERIC_OUT_OF_RANGE
    } else if has("cannot cast") || has("parse") || has("invalid") {
        INVALID_TEXT
    } else if has("more than one row") || has("expected one row") {
        CARDINALITY_VIOLATION
    } else {
        INTERNAL_ERROR
    };
    SqlError::new(sqlstate, message)
}

fn plan(message: &str) -> SqlError {
    let message = first_line(message);
    if let Some(error) = reworded(&message) {
        return error;
    }
    let lower = message.to_lowercase();
    let has = |part: &str| lower.contains(part);
    let sqlstate = if has("invalid function") || has("no function matches") {
        UNDEFINED_FUNCTION
    } else if has("must appear in the group by") || has("group by clause") {
        GROUPING_ERROR
    } else if has("cannot coerce") || has("type_coercion") || has("cannot infer common") {
        DATATYPE_MISMATCH
    } else if has("not supported") || has("unsupported") {
        FEATURE_NOT_SUPPORTED
    } else {
        SYNTAX_OR_ACCESS
    };
    SqlError::new(sqlstate, message)
}

/// DataFusion appends backtraces and lists of candidates to some messages.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.trim_start_matches("Error during planning: ")
        .trim_start_matches("Execution error: ")
        .trim_start_matches("Arrow error: ")
        .to_owned()
}

/// A view's or relation's refusal.
pub(crate) fn catalog(error: &CatalogError) -> SqlError {
    match error {
        CatalogError::Exists(name) => {
            SqlError::new(DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))
        }
        CatalogError::Unknown(name) => {
            SqlError::new(UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
        }
        CatalogError::HasDependents { what, details } => SqlError::new(
            DEPENDENT_OBJECTS,
            format!("cannot drop {what} because other objects depend on it"),
        )
        .detail(details.join("\n"))
        .hint("Use DROP ... CASCADE to drop the dependent objects too."),
        CatalogError::Dependent { name, dependent, why } => SqlError::new(
            DEPENDENT_OBJECTS,
            format!("cannot replace view {name} because other objects depend on it"),
        )
        .detail(format!("view {dependent} cannot be planned over its new columns: {why}"))
        .hint(format!("Replace or drop {dependent} first.")),
        CatalogError::NotAView(name) => {
            SqlError::new(WRONG_OBJECT_TYPE, format!("\"{name}\" is not a materialized view"))
        }
        CatalogError::NotReady(why) | CatalogError::Failed(why) => {
            SqlError::new(OBJECT_NOT_READY, why)
        }
        CatalogError::Invalid(message) => SqlError::new(INVALID_TABLE_DEFINITION, message),
        CatalogError::Plan(error) => view_plan(error),
        CatalogError::Topic(error) => topic(error),
        CatalogError::Append(error) => append(error),
        #[allow(unreachable_patterns, reason = "variants that a later catalog may add")]
        other => SqlError::new(INTERNAL_ERROR, other.to_string()),
    }
}

fn view_plan(error: &PlanError) -> SqlError {
    let sql = SqlError::new(error.sqlstate, &error.message);
    match &error.hint {
        Some(hint) => sql.hint(hint),
        None => sql,
    }
}

/// An error as the view catalog carries it.
pub(crate) fn to_plan_error(error: SqlError) -> PlanError {
    PlanError { sqlstate: error.sqlstate, message: error.message, hint: error.hint }
}

pub(crate) fn topic(error: &TopicError) -> SqlError {
    match error {
        TopicError::Exists(_) => SqlError::new("42710", error.to_string()),
        TopicError::Unknown(_) => SqlError::new(UNDEFINED_OBJECT, error.to_string()),
        TopicError::Append(error) => append(error),
        _ => SqlError::new(INVALID_PARAMETER_VALUE, error.to_string()),
    }
}

pub(crate) fn append(error: &AppendError) -> SqlError {
    match error {
        AppendError::Stopped(_) => SqlError::new(IO_ERROR, error.to_string())
            .hint("The server must be restarted before it can take writes again."),
        AppendError::TooLarge { .. } => SqlError::new("54000", error.to_string())
            .hint("Raise max.message.bytes of the topic, or write smaller rows."),
        AppendError::UnknownTopic(_) => SqlError::new(SERIALIZATION_FAILURE, error.to_string()),
        _ => SqlError::new(INTERNAL_ERROR, error.to_string()),
    }
}

pub(crate) fn read(error: &ReadError) -> SqlError {
    match error {
        ReadError::Trimmed(_) | ReadError::OutOfRange { .. } => {
            SqlError::new(OBJECT_NOT_READY, error.to_string())
        }
        ReadError::Damaged { .. } => SqlError::new("XX001", error.to_string()),
        ReadError::Io { .. } => SqlError::new(IO_ERROR, error.to_string()),
        _ => SqlError::new(UNDEFINED_OBJECT, error.to_string()),
    }
}

/// Why a cut could not be had.
pub(crate) fn pin(error: &PinError) -> SqlError {
    match error {
        PinError::Unknown(name) => {
            SqlError::new(UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
        }
        PinError::Failed { name, why } => {
            SqlError::new(OBJECT_NOT_READY, format!("view \"{name}\" failed: {why}"))
                .hint("REBUILD VIEW folds it again; CREATE OR REPLACE gives it another SELECT.")
        }
        PinError::Paused { .. } => SqlError::new(OBJECT_NOT_READY, error.to_string())
            .hint("Read the paused view alone, or RESUME VIEW."),
        PinError::Timeout { .. } => SqlError::new(QUERY_CANCELED, error.to_string())
            .hint("Raise statement_timeout to wait longer; SHOW VIEWS shows how far each view is."),
        PinError::Starting { eta, .. } => {
            let hint = match eta {
                Some(eta) => format!("Try again in {} s.", eta.as_secs().max(1)),
                None => "Try again in a moment.".to_owned(),
            };
            SqlError::new(CANNOT_CONNECT_NOW, error.to_string()).hint(hint)
        }
        PinError::Stopping => SqlError::new(ADMIN_SHUTDOWN, "the server is stopping"),
    }
}

/// Why the past, or changes since then, could not be had.
pub(crate) fn past(error: &PastError) -> SqlError {
    match error {
        PastError::Future { .. } => SqlError::new(INVALID_PARAMETER_VALUE, error.to_string())
            .hint("WAIT FOR POSITION waits for one that is to come."),
        PastError::BeforeBeginning => SqlError::new(INVALID_PARAMETER_VALUE, error.to_string()),
        PastError::Forgotten { .. } => SqlError::new(OBJECT_NOT_READY, error.to_string())
            .hint("Only what the log still holds from its beginning can be read AS OF the past."),
        PastError::Replaced(_) => SqlError::new(OBJECT_NOT_READY, error.to_string())
            .hint("Subscribe again, with a snapshot."),
        PastError::Pin(error) => pin(error),
        PastError::Read(error) => read(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_over_lines() {
        let text = "SELECT é,\n  x\nFROM t";
        assert_eq!(character(text, Location { line: 1, column: 8 }), Some(8));
        assert_eq!(character(text, Location { line: 2, column: 3 }), Some(13));
        assert_eq!(character(text, Location { line: 3, column: 6 }), Some(20));
        assert_eq!(character(text, Location { line: 0, column: 0 }), None);
    }
}
