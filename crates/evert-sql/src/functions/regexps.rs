//! Functions of regular expressions: what they match, how often, where, and what is between.
//!
//! The expressions are those of the crate `regex`; which matches count is after Postgres's
//! `setup_regexp_matches`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use regex::{Captures, Regex, RegexBuilder};

use super::rows::{Call, RowFunction, is_integer, is_text, of, types};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, INVALID_PARAMETER_VALUE};

type Returned = Result<Option<FieldRef>>;

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = [
        RowFunction::new("regexp_match", |args| taken(args, "", list()), first_match),
        RowFunction::new("regexp_all_matches", |args| taken(args, "", lists()), all_matches),
        RowFunction::new("regexp_split_to_array", |args| taken(args, "", list()), split),
        RowFunction::new("regexp_count", |args| taken(args, "i", DataType::Int32), count),
        RowFunction::new("regexp_instr", |args| taken(args, "iii", DataType::Int32), place),
        RowFunction::new("regexp_substr", |args| taken(args, "ii", DataType::Utf8View), part),
    ];
    functions.into_iter().map(RowFunction::shared).collect()
});

/// The functions, some in the place of DataFusion's of the same name.
pub(crate) fn regexp_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

fn list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
}

fn lists() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(list(), true)))
}

/// A text and a pattern, then as many integers as `between` says, then flags, then another
/// integer; all but the first two may be left out.
fn taken(args: &ReturnFieldArgs<'_>, between: &str, returns: DataType) -> Returned {
    let types = types(args);
    let [text, pattern, rest @ ..] = types.as_slice() else { return Ok(None) };
    let (numbers, flags) = rest.split_at(rest.len().min(between.len()));
    let fits = is_text(text)
        && is_text(pattern)
        && numbers.iter().all(|ty| is_integer(ty))
        && match flags {
            [] => true,
            [flags] => is_text(flags),
            [flags, group] => !between.is_empty() && is_text(flags) && is_integer(group),
            _ => false,
        };
    if fits { of(returns) } else { Ok(None) }
}

fn wrong(message: String) -> SqlError {
    SqlError::new(INVALID_PARAMETER_VALUE, message)
}

/// Expressions that have been compiled, by pattern and flags.
#[derive(Default)]
struct Compiled(HashMap<(String, String), Arc<Regex>>);

impl Compiled {
    fn get(&mut self, pattern: &str, flags: &str) -> Result<Arc<Regex>, SqlError> {
        let key = (pattern.to_owned(), flags.to_owned());
        if let Some(known) = self.0.get(&key) {
            return Ok(Arc::clone(known));
        }
        let regex = Arc::new(compiled(pattern, flags)?);
        self.0.insert(key, Arc::clone(&regex));
        Ok(regex)
    }
}

fn compiled(pattern: &str, flags: &str) -> Result<Regex, SqlError> {
    let (mut any_case, mut dot, mut lines, mut spaced, mut literal) =
        (false, true, false, false, false);
    for flag in flags.chars() {
        match flag {
            'g' => {}
            'i' => any_case = true,
            'c' => any_case = false,
            'n' | 'm' => (dot, lines) = (false, true),
            'p' => (dot, lines) = (false, false),
            'w' => (dot, lines) = (true, true),
            's' => (dot, lines) = (true, false),
            'x' => spaced = true,
            't' => spaced = false,
            'q' => literal = true,
            'e' => {}
            'b' => {
                let message = "regular expressions of the basic kind are not supported";
                return Err(SqlError::new(FEATURE_NOT_SUPPORTED, message));
            }
            flag => return Err(wrong(format!("invalid regular expression option: \"{flag}\""))),
        }
    }
    if !dot && !literal && pattern.contains("[^") {
        let message = "bracket expressions that do not match line ends are not supported";
        return Err(SqlError::new(FEATURE_NOT_SUPPORTED, message));
    }
    let escaped = literal.then(|| regex::escape(pattern));
    RegexBuilder::new(escaped.as_deref().unwrap_or(pattern))
        .case_insensitive(any_case)
        .dot_matches_new_line(dot)
        .multi_line(lines)
        .ignore_whitespace(spaced)
        .build()
        .map_err(|error| {
            let error = error.to_string();
            let why = error.rsplit_once("error: ").map_or(error.as_str(), |(_, why)| why);
            let why = why.lines().next().unwrap_or_default().trim();
            SqlError::new("2201B", format!("invalid regular expression: {why}"))
        })
}

/// A row's text, expression and flags.
struct Rows {
    texts: StringViewArray,
    patterns: StringViewArray,
    flags: Option<StringViewArray>,
    compiled: Compiled,
    /// The function, if it knows no flag `g`.
    single: Option<&'static str>,
}

impl Rows {
    fn new(call: &Call<'_>, flags: usize, single: Option<&'static str>) -> Result<Self, SqlError> {
        let flags = if call.values.len() > flags { Some(call.texts(flags)?) } else { None };
        let (texts, patterns) = (call.texts(0)?, call.texts(1)?);
        Ok(Self { texts, patterns, flags, compiled: Compiled::default(), single })
    }

    fn flags(&self, row: usize) -> &str {
        self.flags.as_ref().map_or("", |flags| flags.value(row))
    }

    fn at(&mut self, row: usize) -> Result<(&str, Arc<Regex>), SqlError> {
        let flags = self.flags.as_ref().map_or("", |flags| flags.value(row));
        if let Some(function) = self.single.filter(|_| flags.contains('g')) {
            let message = format!("{function}() does not support the \"global\" option");
            return Err(wrong(message));
        }
        let regex = self.compiled.get(self.patterns.value(row), flags)?;
        Ok((self.texts.value(row), regex))
    }
}

/// Matches one after the other. After an empty one the search goes on a character further.
fn matches<'t>(regex: &Regex, text: &'t str, from: usize) -> impl Iterator<Item = Captures<'t>> {
    let mut next = Some(from);
    std::iter::from_fn(move || {
        let captures = regex.captures_at(text, next?)?;
        let found = captures.get(0)?;
        next = match found.is_empty() {
            false => Some(found.end()),
            true => text[found.end()..].chars().next().map(|c| found.end() + c.len_utf8()),
        };
        Some(captures)
    })
}

/// What a match's groups hold, or the match if the expression has none.
fn groups(captures: &Captures<'_>, list: &mut ListBuilder<StringViewBuilder>) {
    let skipped = usize::from(captures.len() > 1);
    for group in captures.iter().skip(skipped) {
        list.values().append_option(group.map(|group| group.as_str()));
    }
    list.append(true);
}

fn first_match(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let mut rows = Rows::new(call, 2, Some("regexp_match"))?;
    let mut found = ListBuilder::new(StringViewBuilder::new());
    for row in 0..call.rows {
        if call.is_null(row) {
            found.append_null();
            continue;
        }
        let (text, regex) = rows.at(row)?;
        match regex.captures(text) {
            Some(captures) => groups(&captures, &mut found),
            None => found.append_null(),
        }
    }
    Ok(Arc::new(found.finish()))
}

/// The matches that `regexp_matches` gives as rows.
fn all_matches(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let mut rows = Rows::new(call, 2, None)?;
    let mut found = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
    for row in 0..call.rows {
        if call.is_null(row) {
            found.append_null();
            continue;
        }
        let most = if rows.flags(row).contains('g') { usize::MAX } else { 1 };
        let (text, regex) = rows.at(row)?;
        for captures in matches(&regex, text, 0).take(most) {
            groups(&captures, found.values());
        }
        found.append(true);
    }
    Ok(Arc::new(found.finish()))
}

/// What is between the matches. An empty match at an end or right after another is none.
fn split(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let mut rows = Rows::new(call, 2, Some("regexp_split_to_array"))?;
    let mut parts = ListBuilder::new(StringViewBuilder::new());
    for row in 0..call.rows {
        if call.is_null(row) {
            parts.append_null();
            continue;
        }
        let (text, regex) = rows.at(row)?;
        let (mut begin, mut last_end) = (0, 0);
        for captures in matches(&regex, text, 0) {
            let Some(found) = captures.get(0) else { continue };
            if found.start() < text.len() && found.end() > last_end {
                parts.values().append_value(&text[begin..found.start()]);
                begin = found.end();
            }
            last_end = found.end();
        }
        parts.values().append_value(&text[begin..]);
        parts.append(true);
    }
    Ok(Arc::new(parts.finish()))
}

/// The integer that an argument is, at least `least`; 1 if it was left out.
fn number(
    call: &Call<'_>,
    argument: usize,
    row: usize,
    (least, otherwise): (i64, i64),
    name: &str,
) -> Result<usize, SqlError> {
    if call.values.len() <= argument {
        return Ok(usize::try_from(otherwise).unwrap_or(0));
    }
    let value = call.integers(argument)?.value(row);
    match usize::try_from(value) {
        Ok(number) if value >= least => Ok(number),
        _ => Err(wrong(format!("invalid value for parameter \"{name}\": {value}"))),
    }
}

/// Where in a text a character is, if it is in it.
fn byte_of(text: &str, character: usize) -> Option<usize> {
    let mut places = text.char_indices().map(|(place, _)| place).chain([text.len()]);
    places.nth(character - 1)
}

/// `regexp_count(text, pattern [, start [, flags]])`.
fn count(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let mut rows = Rows::new(call, 3, Some("regexp_count"))?;
    call.each::<Int32Array, i32>(|row| {
        let start = number(call, 2, row, (1, 1), "start")?;
        let (text, regex) = rows.at(row)?;
        let count = byte_of(text, start).map_or(0, |from| matches(&regex, text, from).count());
        Ok(Some(i32::try_from(count).unwrap_or(i32::MAX)))
    })
}

/// The nth match from a place on, or one of its groups: the bytes where it begins and ends.
fn nth(
    (text, regex): (&str, &Regex),
    start: usize,
    n: usize,
    group: usize,
) -> Option<(usize, usize)> {
    let from = byte_of(text, start)?;
    let captures = matches(regex, text, from).nth(n - 1)?;
    captures.get(group).map(|found| (found.start(), found.end()))
}

/// `regexp_instr(text, pattern [, start [, n [, end [, flags [, group]]]]])`.
fn place(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let mut rows = Rows::new(call, 5, Some("regexp_instr"))?;
    call.each::<Int32Array, i32>(|row| {
        let start = number(call, 2, row, (1, 1), "start")?;
        let n = number(call, 3, row, (1, 1), "n")?;
        let end = number(call, 4, row, (0, 0), "endoption")?;
        if end > 1 {
            return Err(wrong(format!("invalid value for parameter \"endoption\": {end}")));
        }
        let group = number(call, 6, row, (0, 0), "subexpr")?;
        let (text, regex) = rows.at(row)?;
        let found = nth((text, &regex), start, n, group);
        let place = found.map_or(0, |(begin, stop)| {
            1 + text[..if end == 1 { stop } else { begin }].chars().count()
        });
        Ok(Some(i32::try_from(place).unwrap_or(i32::MAX)))
    })
}

/// `regexp_substr(text, pattern [, start [, n [, flags [, group]]]])`.
fn part(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let mut rows = Rows::new(call, 4, Some("regexp_substr"))?;
    call.each_text(|row| {
        let start = number(call, 2, row, (1, 1), "start")?;
        let n = number(call, 3, row, (1, 1), "n")?;
        let group = number(call, 5, row, (0, 0), "subexpr")?;
        let (text, regex) = rows.at(row)?;
        let found = nth((text, &regex), start, n, group);
        Ok(found.map(|(begin, end)| text[begin..end].to_owned()))
    })
}
