//! SQL's values as JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_err};

use super::super::rows::{external, is_null};
use super::is_json;
use super::tree::Tree;
use crate::SqlError;
use crate::error::INVALID_PARAMETER_VALUE;

/// `json_build_object`: names and values in turn. `spaced`: as `json` writes it, not `jsonb`.
pub(super) fn object(
    args: &[ArrayRef],
    fields: &[FieldRef],
    rows: usize,
    spaced: bool,
) -> Result<ArrayRef> {
    let colon = if spaced { " : " } else { ": " };
    let mut objects = StringViewBuilder::with_capacity(rows);
    for row in 0..rows {
        let mut text = String::from("{");
        for (place, (pair, fields)) in args.chunks(2).zip(fields.chunks(2)).enumerate() {
            if is_null(&pair[0], row) {
                return exec_err!("invalid argument: a name in an object is NULL");
            }
            if place > 0 {
                text.push_str(", ");
            }
            push_quoted(&mut text, &plain(&pair[0], row)?);
            text.push_str(colon);
            push(&mut text, &pair[1], &fields[1], row)?;
        }
        text.push('}');
        objects.append_value(text);
    }
    Ok(Arc::new(objects.finish()))
}

/// `json_build_array`.
pub(super) fn array(args: &[ArrayRef], fields: &[FieldRef], rows: usize) -> Result<ArrayRef> {
    let mut arrays = StringViewBuilder::with_capacity(rows);
    for row in 0..rows {
        let mut text = String::from("[");
        for (place, (value, field)) in args.iter().zip(fields).enumerate() {
            if place > 0 {
                text.push_str(", ");
            }
            push(&mut text, value, field, row)?;
        }
        text.push(']');
        arrays.append_value(text);
    }
    Ok(Arc::new(arrays.finish()))
}

/// Lists of JSON values as JSON arrays.
pub(super) fn list(lists: &ArrayRef) -> Result<ArrayRef> {
    let Some(lists) = lists.as_list_opt::<i32>() else {
        return exec_err!("invalid argument: not a list of JSON values");
    };
    let mut arrays = StringViewBuilder::with_capacity(lists.len());
    for list in lists.iter() {
        let Some(list) = list else {
            arrays.append_null();
            continue;
        };
        let mut text = String::from("[");
        for row in 0..list.len() {
            if row > 0 {
                text.push_str(", ");
            }
            match list.is_null(row) {
                true => text.push_str("null"),
                false => text.push_str(&plain(&list, row)?),
            }
        }
        text.push(']');
        arrays.append_value(text);
    }
    Ok(Arc::new(arrays.finish()))
}

/// A name and a value as they stand in an object.
pub(super) fn member(args: &[ArrayRef], fields: &[FieldRef], rows: usize) -> Result<ArrayRef> {
    let mut members = StringViewBuilder::with_capacity(rows);
    for row in 0..rows {
        if is_null(&args[0], row) {
            let message = "field name must not be null";
            return Err(external(SqlError::new(INVALID_PARAMETER_VALUE, message)));
        }
        let mut text = String::new();
        push_quoted(&mut text, &plain(&args[0], row)?);
        text.push_str(" : ");
        push(&mut text, &args[1], &fields[1], row)?;
        members.append_value(text);
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
        let members: Result<Vec<String>> =
            (0..list.len()).map(|place| plain(&list, place)).collect();
        let text = format!("{{ {} }}", members?.join(", "));
        objects.append_value(match binary {
            true => Tree::read(super::parse(&text)?).map_err(super::invalid)?.written(),
            false => text,
        });
    }
    Ok(Arc::new(objects.finish()))
}

/// `to_json`.
pub(super) fn value(values: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let mut texts = StringViewBuilder::with_capacity(values.len());
    for row in 0..values.len() {
        if is_null(values, row) {
            texts.append_null();
            continue;
        }
        let mut text = String::new();
        push(&mut text, values, field, row)?;
        texts.append_value(text);
    }
    Ok(Arc::new(texts.finish()))
}

/// Writes one value.
fn push(text: &mut String, values: &ArrayRef, field: &Field, row: usize) -> Result<()> {
    if is_null(values, row) {
        text.push_str("null");
        return Ok(());
    }
    match values.data_type() {
        DataType::List(item) => {
            let list = values.as_list::<i32>().value(row);
            text.push('[');
            for element in 0..list.len() {
                if element > 0 {
                    text.push(',');
                }
                push(text, &list, item, element)?;
            }
            text.push(']');
        }
        DataType::Boolean => text.push_str(&plain(values, row)?),
        ty if ty.is_floating() => {
            let written = plain(values, row)?;
            // JSON has no word for these.
            match written.as_str() {
                "NaN" | "inf" | "-inf" => push_quoted(text, &written.replace("inf", "Infinity")),
                _ => text.push_str(written.strip_suffix(".0").unwrap_or(&written)),
            }
        }
        ty if ty.is_numeric() => text.push_str(&plain(values, row)?),
        _ if is_json(field) => text.push_str(&plain(values, row)?),
        _ => push_quoted(text, &plain(values, row)?),
    }
    Ok(())
}

fn plain(values: &ArrayRef, row: usize) -> Result<String> {
    let options = FormatOptions::default();
    Ok(ArrayFormatter::try_new(values.as_ref(), &options)?.value(row).try_to_string()?)
}

pub(super) fn push_quoted(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}
