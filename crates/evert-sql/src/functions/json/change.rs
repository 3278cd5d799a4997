//! Functions that change JSON: `jsonb_set`, `jsonb_insert`, `jsonb_strip_nulls`, `jsonb_pretty`, and
//! what the operators `-` and `#-` call. After Postgres's `setPath`.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};

use super::super::lists::is_list;
use super::super::rows::{Call, RowFunction, cast, is_integer, is_null, is_text, types};
use super::text::Json;
use super::tree::Tree;
use super::{Lists, json_field, lists};
use crate::SqlError;
use crate::error::{INVALID_PARAMETER_VALUE, INVALID_TEXT};

type Returned = Result<Option<FieldRef>>;

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = [
        RowFunction::new("jsonb_set", |args| path_type(args, true), |call| put(call, false)),
        RowFunction::new("jsonb_insert", |args| path_type(args, true), |call| put(call, true)),
        RowFunction::new("jsonb_delete_path", |args| path_type(args, false), delete_path),
        RowFunction::new("jsonb_delete", delete_type, delete),
        RowFunction::new("jsonb_strip_nulls", json_type, |call| stripped(call, true)),
        RowFunction::new("json_strip_nulls", json_type, |call| stripped(call, false)),
        RowFunction::new("jsonb_pretty", pretty_type, pretty),
    ];
    functions.into_iter().map(RowFunction::shared).collect()
});

pub(super) fn functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

/// The function of a name.
pub(super) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    FUNCTIONS.iter().find(|function| function.name() == name).cloned()
}

fn json() -> Returned {
    Ok(Some(Arc::new(json_field(""))))
}

fn json_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_text(ty) => json(),
        _ => Ok(None),
    }
}

fn pretty_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_text(ty) => super::super::rows::of(DataType::Utf8View),
        _ => Ok(None),
    }
}

/// JSON and a path; `valued`: a new value, and whether to make or to follow what is there.
fn path_type(args: &ReturnFieldArgs<'_>, valued: bool) -> Returned {
    let types = types(args);
    let is_path = |ty: &DataType| is_list(ty) || is_text(ty);
    let fits = match types.as_slice() {
        [json, path] => !valued && is_text(json) && is_path(path),
        [json, path, new] => valued && is_text(json) && is_path(path) && is_text(new),
        [json, path, new, flag] => {
            valued
                && is_text(json)
                && is_path(path)
                && is_text(new)
                && matches!(flag, DataType::Boolean | DataType::Null)
        }
        _ => false,
    };
    if fits { json() } else { Ok(None) }
}

fn delete_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [json_type, what]
            if is_text(json_type) && (is_text(what) || is_integer(what) || is_list(what)) =>
        {
            json()
        }
        _ => Ok(None),
    }
}

/// What is done at a path's end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Do {
    Replace,
    /// Replaces what is there, and makes what is not.
    Create,
    InsertBefore,
    InsertAfter,
    Delete,
}

fn invalid(_: super::Invalid) -> SqlError {
    SqlError::new(INVALID_TEXT, "invalid input syntax for type json")
}

fn tree(text: &str) -> Result<Tree, SqlError> {
    Json::parse(text).and_then(Tree::read).map_err(invalid)
}

fn wrong(message: impl Into<String>) -> SqlError {
    SqlError::new(INVALID_PARAMETER_VALUE, message.into())
}

fn paths(values: &ArrayRef) -> Result<Lists, SqlError> {
    lists(values).map_err(|error| crate::translate::planning(&error, ""))
}

fn put(call: &Call<'_>, insert: bool) -> Result<ArrayRef, SqlError> {
    let (targets, paths, news) = (call.texts(0)?, paths(&call.values[1])?, call.texts(2)?);
    let flags: Option<BooleanArray> = match call.values.get(3) {
        Some(flags) => Some(cast(flags, &DataType::Boolean)?.as_boolean().clone()),
        None => None,
    };
    call.each_text(|row| {
        let flag = flags.as_ref().map(|flags| flags.value(row));
        let what = match (insert, flag) {
            (false, Some(false)) => Do::Replace,
            (false, _) => Do::Create,
            (true, Some(true)) => Do::InsertAfter,
            (true, _) => Do::InsertBefore,
        };
        let mut target = tree(targets.value(row))?;
        check_container(&target, "cannot set path in scalar")?;
        let new = tree(news.value(row))?;
        let path = paths(row).unwrap_or_default();
        if !path.is_empty() {
            set(&mut target, &path, 0, &new, what)?;
        }
        Ok(Some(target.written()))
    })
}

fn check_container(target: &Tree, message: &str) -> Result<(), SqlError> {
    match target {
        Tree::Array(_) | Tree::Object(_) => Ok(()),
        Tree::Plain(_) | Tree::String(_) => Err(wrong(message)),
    }
}

/// `target #- path`.
fn delete_path(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (targets, paths) = (call.texts(0)?, paths(&call.values[1])?);
    call.each_text(|row| {
        let mut target = tree(targets.value(row))?;
        check_container(&target, "cannot delete path in scalar")?;
        let path = paths(row).unwrap_or_default();
        if !path.is_empty() {
            set(&mut target, &path, 0, &Tree::Plain("null".into()), Do::Delete)?;
        }
        Ok(Some(target.written()))
    })
}

fn set(
    target: &mut Tree,
    path: &[String],
    level: usize,
    new: &Tree,
    what: Do,
) -> Result<(), SqlError> {
    let Some(step) = path.get(level) else { return Ok(()) };
    let is_last = level + 1 == path.len();
    match target {
        Tree::Object(members) => {
            let found = members.iter().position(|(name, _)| name == step);
            match (found, is_last) {
                (Some(place), false) => set(&mut members[place].1, path, level + 1, new, what),
                (None, false) => Ok(()),
                (Some(place), true) => match what {
                    Do::InsertBefore | Do::InsertAfter => Err(wrong("cannot replace existing key")
                        .hint("Try using the function jsonb_set to replace key value.")),
                    Do::Delete => {
                        members.remove(place);
                        Ok(())
                    }
                    Do::Replace | Do::Create => {
                        members[place].1 = new.clone();
                        Ok(())
                    }
                },
                (None, true) => {
                    if !matches!(what, Do::Replace | Do::Delete) {
                        Tree::insert(members, step, new.clone());
                    }
                    Ok(())
                }
            }
        }
        Tree::Array(elements) => {
            let place: i32 = step.trim().parse().map_err(|_| {
                let at = level + 1;
                let message =
                    format!("path element at position {at} is not an integer: \"{step}\"");
                SqlError::new(INVALID_TEXT, message)
            })?;
            let count = elements.len();
            let back = usize::try_from(place.unsigned_abs()).unwrap_or(usize::MAX);
            let makes = !matches!(what, Do::Replace | Do::Delete);
            let place = match usize::try_from(place) {
                Ok(place) => place,
                Err(_) if back <= count => count - back,
                // Before the first: a new element comes there.
                Err(_) => {
                    if makes && is_last {
                        elements.insert(0, new.clone());
                    }
                    return Ok(());
                }
            };
            match (elements.get_mut(place), is_last) {
                (Some(element), false) => set(element, path, level + 1, new, what),
                (None, false) => Ok(()),
                (Some(element), true) => {
                    match what {
                        Do::InsertBefore => elements.insert(place, new.clone()),
                        Do::InsertAfter => elements.insert(place + 1, new.clone()),
                        Do::Delete => drop(elements.remove(place)),
                        Do::Replace | Do::Create => *element = new.clone(),
                    }
                    Ok(())
                }
                (None, true) => {
                    if makes {
                        elements.push(new.clone());
                    }
                    Ok(())
                }
            }
        }
        Tree::Plain(_) | Tree::String(_) => Ok(()),
    }
}

/// `json - name`, `json - place`, `json - names`.
fn delete(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let targets = call.texts(0)?;
    let what = call.values[1].data_type();
    if is_integer(what) && !what.is_null() {
        let places = call.integers(1)?;
        return call.each_text(|row| {
            let mut target = tree(targets.value(row))?;
            delete_element(&mut target, places.value(row))?;
            Ok(Some(target.written()))
        });
    }
    let (lists, one) = match is_list(what) {
        true => (Some(paths(&call.values[1])?), None),
        false => (None, Some(call.texts(1)?)),
    };
    call.each_text(|row| {
        let names = match (&lists, &one) {
            (Some(lists), _) => lists(row).unwrap_or_default(),
            (None, Some(names)) if !is_null(&call.values[1], row) => {
                vec![names.value(row).to_owned()]
            }
            _ => return Ok(None),
        };
        let mut target = tree(targets.value(row))?;
        match &mut target {
            Tree::Object(members) => members.retain(|(name, _)| !names.contains(name)),
            Tree::Array(elements) => elements.retain(
                |element| !matches!(element, Tree::String(string) if names.contains(string)),
            ),
            Tree::Plain(_) | Tree::String(_) => return Err(wrong("cannot delete from scalar")),
        }
        Ok(Some(target.written()))
    })
}

fn delete_element(target: &mut Tree, place: i64) -> Result<(), SqlError> {
    let elements = match target {
        Tree::Array(elements) => elements,
        Tree::Object(_) => return Err(wrong("cannot delete from object using integer index")),
        Tree::Plain(_) | Tree::String(_) => return Err(wrong("cannot delete from scalar")),
    };
    let place = match place {
        0.. => usize::try_from(place).ok(),
        _ => usize::try_from(place.unsigned_abs())
            .ok()
            .and_then(|back| elements.len().checked_sub(back)),
    };
    if let Some(place) = place.filter(|place| *place < elements.len()) {
        elements.remove(place);
    }
    Ok(())
}

/// `binary`: written as `jsonb` is, else as `json`.
fn stripped(call: &Call<'_>, binary: bool) -> Result<ArrayRef, SqlError> {
    let texts = call.texts(0)?;
    call.each_text(|row| {
        let mut tree = match binary {
            true => tree(texts.value(row))?,
            false => Json::parse(texts.value(row)).and_then(Tree::read_as_is).map_err(invalid)?,
        };
        tree.strip_nulls();
        Ok(Some(if binary { tree.written() } else { tree.dense() }))
    })
}

fn pretty(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let texts = call.texts(0)?;
    call.each_text(|row| Ok(Some(tree(texts.value(row))?.pretty())))
}
