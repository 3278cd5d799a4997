//! Which options each aggregation takes.
//!
//! An option that is not listed is refused: it would change the answer, and does not.

use serde_json::Value;

use crate::error::EsError;
use crate::mapping::{FieldKind, FieldRef};

/// Options that are read, and those that change no answer here: an index has one shard.
fn names(kind: &str) -> Option<&'static [&'static str]> {
    let accepted: &'static [&'static str] = match kind {
        "min" | "max" | "avg" | "sum" | "value_count" | "stats" => {
            &["field", "missing", "format", "time_zone", "value_type"]
        }
        "extended_stats" => &["field", "missing", "format", "time_zone", "value_type", "sigma"],
        "cardinality" => {
            &["field", "missing", "value_type", "precision_threshold", "execution_hint", "rehash"]
        }
        "percentiles" => &[
            "field",
            "missing",
            "format",
            "time_zone",
            "value_type",
            "percents",
            "keyed",
            "tdigest",
        ],
        "terms" => &[
            "field",
            "missing",
            "format",
            "time_zone",
            "value_type",
            "size",
            "order",
            "min_doc_count",
            "include",
            "exclude",
            "shard_size",
            "show_term_doc_count_error",
            "collect_mode",
            "execution_hint",
        ],
        "histogram" => &[
            "field",
            "interval",
            "offset",
            "min_doc_count",
            "extended_bounds",
            "hard_bounds",
            "keyed",
            "order",
        ],
        "date_histogram" => &[
            "field",
            "interval",
            "calendar_interval",
            "fixed_interval",
            "format",
            "time_zone",
            "offset",
            "min_doc_count",
            "extended_bounds",
            "hard_bounds",
            "keyed",
            "order",
        ],
        "range" => &["field", "ranges", "keyed"],
        "date_range" => &["field", "ranges", "keyed", "format", "time_zone"],
        "filters" => &["filters", "other_bucket", "other_bucket_key"],
        "missing" => &["field"],
        "global" => &[],
        _ => return None,
    };
    Some(accepted)
}

/// Looks at the options of an aggregation of a kind; kinds that take a query, and those that are
/// not known, have none.
///
/// # Errors
/// When an option is none that it takes.
pub(super) fn check(name: &str, kind: &str, options: &Value) -> Result<(), EsError> {
    let Some(accepted) = names(kind) else { return Ok(()) };
    let Some(members) = options.as_object() else {
        let reason = format!("Expected [START_OBJECT] under [{kind}] in [{name}]");
        return Err(EsError::parsing(reason));
    };
    match members.keys().find(|member| !accepted.contains(&member.as_str())) {
        None => Ok(()),
        Some(unknown) => Err(unknown_field(kind, unknown)),
    }
}

/// Looks at the members of one of an aggregation's ranges.
///
/// # Errors
/// When it has others than a range has.
pub(super) fn check_range(kind: &str, range: &Value) -> Result<(), EsError> {
    let Some(members) = range.as_object() else {
        return Err(EsError::parsing(format!("[{kind}] a range cannot be {range}")));
    };
    match members.keys().find(|member| !matches!(member.as_str(), "key" | "from" | "to")) {
        None => Ok(()),
        Some(unknown) => Err(unknown_field(kind, unknown)),
    }
}

/// Looks at the options that depend on what the field is.
///
/// # Errors
/// When the field cannot have one of them.
pub(super) fn check_field(field: FieldRef<'_>, options: &Value) -> Result<(), EsError> {
    let is_date = field.kind == FieldKind::Date;
    let given = |option: &str| options.get(option).is_some_and(|value| !value.is_null());
    let refused = [
        ("format", !is_date, "custom formats"),
        ("missing", is_date, "[missing]"),
        ("include", !field.kind.is_text_like(), "[include]"),
        ("exclude", !field.kind.is_text_like(), "[exclude]"),
    ];
    match refused.into_iter().find(|(option, refused, _)| *refused && given(option)) {
        None => Ok(()),
        Some((_, _, what)) => Err(EsError::argument(format!(
            "Field [{}] of type [{}] does not support {what}",
            field.name(),
            field.kind.word()
        ))),
    }
}

fn unknown_field(kind: &str, unknown: &str) -> EsError {
    let reason = format!("[{kind}] unknown field [{unknown}]");
    EsError::new(400, "x_content_parse_exception", reason)
}
