//! SQL's values as JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err};

use super::super::rows::external;
use super::super::texts::texts_of;
use super::tree::Tree;
use super::{ObjectForm, is_json};
use crate::SqlError;
use crate::error::INVALID_PARAMETER_VALUE;

/// `json_build_object`: names and values in turn.
pub(super) fn object(
    args: &[ArrayRef],
    fields: &[FieldRef],
    rows: usize,
    form: ObjectForm,
) -> Result<ArrayRef> {
    let (colon, comma) = match form {
        ObjectForm::Json => (" : ", ", "),
        ObjectForm::Binary => (": ", ", "),
        ObjectForm::Row => (":", ","),
    };
    let mut members = Vec::with_capacity(args.len() / 2);
    for (pair, fields) in args.chunks(2).zip(fields.chunks(2)) {
        members.push((texts(&pair[0])?, written(&pair[1], &fields[1])?));
    }
    let mut objects = StringViewBuilder::with_capacity(rows);
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        text.push('{');
        for (place, (names, values)) in members.iter().enumerate() {
            if names.is_null(row) {
                return exec_err!("invalid argument: a name in an object is NULL");
            }
            if place > 0 {
                text.push_str(comma);
            }
            push_quoted(&mut text, names.value(row));
            text.push_str(colon);
            text.push_str(or_null(values, row));
        }
        text.push('}');
        objects.append_value(&text);
    }
    Ok(Arc::new(objects.finish()))
}

/// `json_build_array`.
pub(super) fn array(args: &[ArrayRef], fields: &[FieldRef], rows: usize) -> Result<ArrayRef> {
    let columns = args.iter().zip(fields).map(|(values, field)| written(values, field));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let mut arrays = StringViewBuilder::with_capacity(rows);
    for row in 0..rows {
        arrays.append_value(bracketed(columns.iter().map(|column| or_null(column, row)), ", "));
    }
    Ok(Arc::new(arrays.finish()))
}

/// Lists of JSON values as JSON arrays.
pub(super) fn list(lists: &ArrayRef) -> Result<ArrayRef> {
    each_list(lists, &texts, ", ").map(|arrays| Arc::new(arrays) as ArrayRef)
}

/// A name and a value as they stand in an object.
pub(super) fn member(args: &[ArrayRef], fields: &[FieldRef], rows: usize) -> Result<ArrayRef> {
    let (names, values) = (texts(&args[0])?, written(&args[1], &fields[1])?);
    let mut members = StringViewBuilder::with_capacity(rows);
    let mut text = String::new();
    for row in 0..rows {
        if names.is_null(row) {
            let message = "field name must not be null";
            return Err(external(SqlError::new(INVALID_PARAMETER_VALUE, message)));
        }
        text.clear();
        push_quoted(&mut text, names.value(row));
        text.push_str(" : ");
        text.push_str(or_null(&values, row));
        members.append_value(&text);
    }
    Ok(Arc::new(members.finish()))
}

/// Lists of members as objects. `binary`: as `jsonb` writes them.
pub(super) fn members(lists: &ArrayRef, binary: bool) -> Result<ArrayRef> {
    let Some(lists) = lists.as_list_opt::<i32>() else {
        return exec_err!("invalid argument: not a list of members");
    };
    let mut objects = StringViewBuilder::with_capacity(lists.len());
    for list in lists.iter() {
        let Some(list) = list else {
            objects.append_null();
            continue;
        };
        let members = texts(&list)?;
        let members: Vec<&str> = members.iter().flatten().collect();
        let text = format!("{{ {} }}", members.join(", "));
        objects.append_value(match binary {
            true => Tree::read(super::parse(&text)?).map_err(super::invalid)?.written(),
            false => text,
        });
    }
    Ok(Arc::new(objects.finish()))
}

/// `to_json`.
pub(super) fn value(values: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    Ok(Arc::new(written(values, field)?))
}

fn texts(values: &ArrayRef) -> Result<StringViewArray> {
    Ok(texts_of(values).map_err(external)?.as_string_view().clone())
}

fn or_null(values: &StringViewArray, row: usize) -> &str {
    if values.is_null(row) { "null" } else { values.value(row) }
}

fn bracketed<'a>(values: impl Iterator<Item = &'a str>, comma: &str) -> String {
    let mut text = String::from("[");
    for (place, value) in values.enumerate() {
        if place > 0 {
            text.push_str(comma);
        }
        text.push_str(value);
    }
    text.push(']');
    text
}

/// Lists as JSON arrays of what `write` makes of their values.
fn each_list(
    lists: &ArrayRef,
    write: &dyn Fn(&ArrayRef) -> Result<StringViewArray>,
    comma: &str,
) -> Result<StringViewArray> {
    let Some(lists) = lists.as_list_opt::<i32>() else {
        return exec_err!("invalid argument: not a list of JSON values");
    };
    let values = write(lists.values())?;
    let array = |row: usize| {
        let places = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
        bracketed(places.map(|place| or_null(&values, place)), comma)
    };
    Ok((0..lists.len()).map(|row| lists.is_valid(row).then(|| array(row))).collect())
}

/// Each value as JSON; NULL for NULL.
///
/// As Postgres writes them (`datum_to_json`): numbers and JSON as they are, times as ISO 8601 has
/// them, all else as texts.
fn written(values: &ArrayRef, field: &Field) -> Result<StringViewArray> {
    let ty = values.data_type();
    match ty {
        DataType::List(item) => {
            return each_list(values, &|items| written(items, item), ",");
        }
        DataType::Boolean => return texts(values),
        ty if is_json(field) || ty.is_numeric() && !ty.is_floating() => return texts(values),
        _ => {}
    }
    // Infinity is no number of JSON's, nor a time of ISO's.
    let is_finite = |text: &str| text.ends_with(|last: char| last.is_ascii_digit());
    let texts = texts(values)?;
    let mut out = StringViewBuilder::with_capacity(texts.len());
    let mut quoted = String::new();
    for text in &texts {
        let Some(text) = text else {
            out.append_null();
            continue;
        };
        quoted.clear();
        match ty {
            ty if ty.is_floating() && is_finite(text) => quoted.push_str(text),
            DataType::Timestamp(_, zone) if is_finite(text) => {
                let text = text.replacen(' ', "T", 1);
                push_quoted(&mut quoted, &if zone.is_some() { text + ":00" } else { text });
            }
            _ => push_quoted(&mut quoted, text),
        }
        out.append_value(&quoted);
    }
    Ok(out.finish())
}

pub(super) fn push_quoted(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}
