//! `JSON.GET`: a row as a JSON object, whole or by paths.
//!
//! Paths are the simple ones: `$`, `$.column`, `$.column.member[0]`, `$['column']`; the older
//! form without `$` gives the value itself where the newer gives an array of what was found.

use evert_view::{RowRef, RowWriter};
use serde_json::Value;

use super::commands::Answer;
use super::hash::{syntax, too_large};
use super::layout::Layout;
use super::reader::{Miss, Reader};
use super::reply::{Out, REPLY_BYTES_MAX};
use super::request::Request;

/// Steps of a path.
const STEPS_MAX: usize = 64;

/// A step into a value.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Item(i64),
}

/// A path as it was written, and its steps.
struct Path<'a> {
    text: &'a str,
    /// Begins with `$`: the answer is an array.
    new: bool,
    steps: Vec<Step>,
}

pub(super) fn get(reader: &mut Reader, request: Request<'_>, out: &mut Out) -> Answer {
    let paths = paths(request)?;
    let (layout, found) = reader.find(request.get(1))?;
    let Some(found) = found else {
        out.null();
        return Ok(());
    };
    let Some(schema) = layout.row_schema() else {
        return Err(Miss::Error("ERR the row has a column that JSON cannot show".to_owned()));
    };
    let mut text = String::new();
    match paths.as_slice() {
        [] => {
            let all: Vec<_> = (0..schema.columns.len()).collect();
            RowWriter::new(&schema, &all).write(found.rows, found.row, &mut text);
        }
        [path] => value_at(path, layout, &schema, found, &mut text)?,
        paths => {
            let new = paths.iter().any(|path| path.new);
            text.push('{');
            for (index, path) in paths.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                text.push_str(&Value::from(path.text).to_string());
                text.push(':');
                let path = Path { new, text: path.text, steps: steps(path.text)? };
                value_at(&path, layout, &schema, found, &mut text)?;
                if text.len() > REPLY_BYTES_MAX {
                    return Err(too_large());
                }
            }
            text.push('}');
        }
    }
    out.bulk(text.as_bytes());
    Ok(())
}

fn paths(request: Request<'_>) -> Result<Vec<Path<'_>>, Miss> {
    let mut paths = Vec::new();
    let mut arguments = request.from(2);
    while let Some(argument) = arguments.next() {
        // How it is laid out is not for the server: it is accepted and not followed.
        if ["INDENT", "NEWLINE", "SPACE"]
            .iter()
            .any(|o| argument.eq_ignore_ascii_case(o.as_bytes()))
        {
            arguments.next().ok_or_else(syntax)?;
            continue;
        }
        let text = std::str::from_utf8(argument).map_err(|_| syntax())?;
        paths.push(Path { text, new: text.starts_with('$'), steps: steps(text)? });
    }
    Ok(paths)
}

fn steps(text: &str) -> Result<Vec<Step>, Miss> {
    let bad =
        || Miss::Error(format!("ERR the path {text} is not understood: $.column.member[0] is"));
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    let mut steps = Vec::new();
    if rest == "." {
        return Ok(steps);
    }
    // The older form may begin with a name.
    let mut bare = !text.starts_with(['$', '.', '[']);
    while !rest.is_empty() {
        if steps.len() == STEPS_MAX {
            return Err(bad());
        }
        if let Some(inside) = rest.strip_prefix('[') {
            let (step, after) = bracket(inside).ok_or_else(bad)?;
            steps.push(step);
            rest = after;
        } else {
            let name = match rest.strip_prefix('.') {
                Some(name) => name,
                None if bare => rest,
                None => return Err(bad()),
            };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 || name[..end].contains('*') {
                return Err(bad());
            }
            steps.push(Step::Member(name[..end].to_owned()));
            rest = &name[end..];
        }
        bare = false;
    }
    Ok(steps)
}

/// `'name']`, `"name"]` or `3]`, and what comes after.
fn bracket(inside: &str) -> Option<(Step, &str)> {
    for quote in ['\'', '"'] {
        if let Some(name) = inside.strip_prefix(quote) {
            let end = name.find(quote)?;
            let after = name[end + 1..].strip_prefix(']')?;
            return Some((Step::Member(name[..end].to_owned()), after));
        }
    }
    let (index, after) = inside.split_once(']')?;
    Some((Step::Item(index.trim().parse().ok()?), after))
}

/// Appends what a path leads to.
fn value_at(
    path: &Path<'_>,
    layout: &Layout,
    schema: &evert_model::RowSchema,
    found: RowRef<'_>,
    text: &mut String,
) -> Result<(), Miss> {
    let mut value = String::new();
    let there = match path.steps.split_first() {
        None => {
            let all: Vec<_> = (0..schema.columns.len()).collect();
            RowWriter::new(schema, &all).write(found.rows, found.row, &mut value);
            true
        }
        Some((Step::Item(_), _)) => false,
        Some((Step::Member(name), rest)) => match layout.field(name.as_bytes()) {
            Some(column) => {
                let writer = RowWriter::new(schema, &[column]);
                inside(&writer, found, name, rest, &mut value)
            }
            None => false,
        },
    };
    match (there, path.new) {
        (true, true) => text.extend(["[", &value, "]"]),
        (true, false) => text.push_str(&value),
        (false, true) => text.push_str("[]"),
        (false, false) => {
            return Err(Miss::Error(format!("ERR Path '{}' does not exist", path.text)));
        }
    }
    Ok(())
}

/// Appends a column's value, or what the steps lead to in it; `false` if there is nothing.
fn inside(
    writer: &RowWriter,
    found: RowRef<'_>,
    name: &str,
    steps: &[Step],
    out: &mut String,
) -> bool {
    let mut object = String::new();
    writer.write(found.rows, found.row, &mut object);
    if steps.is_empty() {
        let label = Value::from(name).to_string().len() + 2;
        out.push_str(&object[label..object.len() - 1]);
        return true;
    }
    let Ok(mut parsed) = serde_json::from_str::<Value>(&object) else { return false };
    let mut at = parsed[name].take();
    for step in steps {
        let next = match step {
            Step::Member(name) => at.get_mut(name.as_str()).map(Value::take),
            Step::Item(index) => at.as_array_mut().and_then(|items| {
                let from_end = index.checked_neg().and_then(|back| usize::try_from(back).ok());
                let index = match usize::try_from(*index) {
                    Ok(index) => index,
                    Err(_) => items.len().checked_sub(from_end?)?,
                };
                items.get_mut(index).map(Value::take)
            }),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    out.push_str(&at.to_string());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let member = |name: &str| Step::Member(name.to_owned());
        let good = [
            ("$", vec![]),
            (".", vec![]),
            ("$.a", vec![member("a")]),
            ("a.b", vec![member("a"), member("b")]),
            (".a[0]", vec![member("a"), Step::Item(0)]),
            ("$['a.b'][\"c\"][-1]", vec![member("a.b"), member("c"), Step::Item(-1)]),
        ];
        for (text, expected) in good {
            assert!(steps(text).is_ok_and(|steps| steps == expected), "{text}");
        }
        for text in ["$..a", "$.*", "$a", "$.a[", "$.a[x]", "$['a", "a..b"] {
            assert!(steps(text).is_err(), "{text}");
        }
        assert!(steps(&"[0]".repeat(STEPS_MAX + 1)).is_err());
    }
}
