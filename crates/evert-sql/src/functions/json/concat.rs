//! `||`: objects become one, in which the right one's members count, and arrays become one.

use super::Invalid;
use super::build::push_quoted;
use super::text::{Json, Kind};

/// Both values as one; `None` where there is no such value.
pub(super) fn concatenated(left: Json<'_>, right: Json<'_>) -> Result<Option<String>, Invalid> {
    let kinds = (left.kind(), right.kind());
    let is_list = |kind| kind == Kind::Array;
    match kinds {
        (Kind::Object, Kind::Object) => objects(left, right).map(Some),
        (Kind::Object, other) | (other, Kind::Object) if !is_list(other) => Ok(None),
        _ => {
            let mut items = parts(left)?;
            items.extend(parts(right)?);
            let items: Vec<&str> = items.into_iter().map(Json::text).collect();
            Ok(Some(format!("[{}]", items.join(", "))))
        }
    }
}

/// An array's elements, or the value itself.
fn parts(value: Json<'_>) -> Result<Vec<Json<'_>>, Invalid> {
    Ok(value.elements()?.unwrap_or_else(|| vec![value]))
}

fn objects(left: Json<'_>, right: Json<'_>) -> Result<String, Invalid> {
    let mut members = left.members()?.unwrap_or_default();
    for (name, value) in right.members()?.unwrap_or_default() {
        match members.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => members.push((name, value)),
        }
    }
    let mut text = String::from("{");
    for (place, (name, value)) in members.iter().enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        push_quoted(&mut text, name);
        text.push_str(": ");
        text.push_str(value.text());
    }
    text.push('}');
    Ok(text)
}
