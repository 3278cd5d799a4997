//! `filter_path`: which parts of an answer are sent.
//!
//! (Elasticsearch reference, "Common options", response filtering)

use serde_json::{Map, Value};

use crate::error::EsError;
use crate::glob;

/// Bytes of a filter: they bound the work for each member of an answer.
const FILTER_BYTES_MAX: usize = 1024;
/// Stands for any names, or none.
const ANY_NAMES: &str = "**";

/// The names on the way to a member, each with wildcards.
type Path<'a> = &'a [&'a str];

/// The parts of an answer that a filter names: paths between commas, those to leave out with `-`.
///
/// # Errors
/// When the filter is too long, or the answer nests too deep to be taken apart.
pub(crate) fn filtered(answer: &str, filter: &str) -> Result<String, EsError> {
    if filter.len() > FILTER_BYTES_MAX {
        let reason = format!("[filter_path] is longer than {FILTER_BYTES_MAX} bytes");
        return Err(EsError::argument(reason));
    }
    let read = serde_json::from_str(answer);
    let mut value: Value = read.map_err(|error| EsError::argument(error.to_string()))?;
    let paths = filter.split(',').map(str::trim).filter(|path| !path.is_empty());
    let (excludes, includes): (Vec<&str>, Vec<&str>) =
        paths.partition(|path| path.starts_with('-'));
    let (excludes, includes) = (names(&excludes), names(&includes));
    if !excludes.is_empty() {
        cut(&mut value, &slices(&excludes));
    }
    if !includes.is_empty() {
        value = keep(value, &slices(&includes)).unwrap_or_else(|| Value::Object(Map::new()));
    }
    Ok(value.to_string())
}

fn names<'a>(paths: &[&'a str]) -> Vec<Vec<&'a str>> {
    paths.iter().map(|&path| path.strip_prefix('-').unwrap_or(path).split('.').collect()).collect()
}

fn slices<'a>(paths: &'a [Vec<&'a str>]) -> Vec<Path<'a>> {
    paths.iter().map(Vec::as_slice).collect()
}

/// What is left of the paths below a member; `None` where one of them ends at it.
fn below<'a>(paths: &[Path<'a>], name: &str) -> Option<Vec<Path<'a>>> {
    let mut left: Vec<Path<'a>> = Vec::new();
    let mut open = paths.to_vec();
    while let Some(path) = open.pop() {
        let (first, rest) = path.split_first()?;
        let next = if *first == ANY_NAMES {
            open.push(rest);
            path
        } else if !glob::matches(first, name) {
            continue;
        } else if rest.is_empty() {
            return None;
        } else {
            rest
        };
        // Several `**` come to the same rests again and again.
        if !left.contains(&next) {
            left.push(next);
        }
    }
    Some(left)
}

/// What the paths name of a value; `None` if that is nothing.
fn keep(value: Value, paths: &[Path<'_>]) -> Option<Value> {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter_map(|(name, value)| {
                let value = match below(paths, &name) {
                    None => value,
                    Some(left) => keep(value, &left)?,
                };
                Some((name, value))
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) => {
            let kept: Vec<_> = items.into_iter().filter_map(|item| keep(item, paths)).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => None,
    }
}

/// Takes out what the paths name.
fn cut(value: &mut Value, paths: &[Path<'_>]) {
    match value {
        Value::Object(members) => members.retain(|name, value| match below(paths, name) {
            None => false,
            Some(left) => {
                cut(value, &left);
                true
            }
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| cut(item, paths)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_parts_of_an_answer() {
        let answer =
            r#"{"hits":{"hits":[{"_id":"a","_source":{"x":1,"y":2}}],"total":1},"took":3}"#;
        for (filter, expected) in [
            ("hits.hits._id", r#"{"hits":{"hits":[{"_id":"a"}]}}"#),
            ("took,h*.total", r#"{"hits":{"total":1},"took":3}"#),
            ("**.x", r#"{"hits":{"hits":[{"_source":{"x":1}}]}}"#),
            ("hits.**.**.y", r#"{"hits":{"hits":[{"_source":{"y":2}}]}}"#),
            ("-hits.hits,-took", r#"{"hits":{"total":1}}"#),
            ("hits,-**._source", r#"{"hits":{"hits":[{"_id":"a"}],"total":1}}"#),
            ("nothing", "{}"),
            ("", answer),
        ] {
            assert_eq!(filtered(answer, filter).unwrap(), expected, "{filter}");
        }
        assert_eq!(filtered(answer, &"a.".repeat(600)).unwrap_err().status, 400);
    }
}
