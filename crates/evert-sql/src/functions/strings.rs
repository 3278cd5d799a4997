//! Functions of texts as Postgres has them, in the place of DataFusion's where these differ.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringViewArray};
use arrow::compute::kernels::regexp::{regexp_is_match, regexp_match};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};

use super::rows::{Call, RowFunction, is_integer, is_text, of, types};
use super::texts::sent_texts;
use crate::SqlError;
use crate::error::{INVALID_PARAMETER_VALUE, PROGRAM_LIMIT, SYNTAX_ERROR};
use crate::system::needs_quotes;
use crate::translate;

type Returned = Result<Option<arrow::datatypes::FieldRef>>;

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = [
        RowFunction::new("replace", three_texts, replace),
        RowFunction::new("concat", any, concat),
        RowFunction::new("concat_ws", any_with_first, concat_ws),
        RowFunction::new("substr", substring_type, substring),
        RowFunction::new("substring", substring_type, substring),
        RowFunction::new("upper", one_text, |call| cased(call, upper)),
        RowFunction::new("lower", one_text, |call| cased(call, lower)),
        RowFunction::new("length", length_type, length),
        RowFunction::new("repeat", repeat_type, repeat),
        RowFunction::new("lpad", pad_type, |call| padded(call, true)),
        RowFunction::new("rpad", pad_type, |call| padded(call, false)),
        RowFunction::new("chr", one_integer, chr),
        RowFunction::new("to_hex", one_integer, to_hex),
        RowFunction::new("quote_ident", one_text, quote_ident),
        RowFunction::new("quote_literal", any_one, quote_literal),
        RowFunction::new("quote_nullable", any_one, quote_nullable),
        RowFunction::new("similar_to", similar_type, similar_to),
        RowFunction::new("unistr", one_text, unistr),
    ];
    functions.into_iter().map(RowFunction::shared).collect()
});

/// The functions, most in the place of DataFusion's of the same name.
pub(crate) fn string_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

fn texts(args: &ReturnFieldArgs<'_>, count: usize) -> bool {
    let types = types(args);
    types.len() == count && types.iter().all(|ty| is_text(ty))
}

fn one_text(args: &ReturnFieldArgs<'_>) -> Returned {
    if texts(args, 1) { of(DataType::Utf8View) } else { Ok(None) }
}

fn three_texts(args: &ReturnFieldArgs<'_>) -> Returned {
    if texts(args, 3) { of(DataType::Utf8View) } else { Ok(None) }
}

fn one_integer(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_integer(ty) => of(DataType::Utf8View),
        _ => Ok(None),
    }
}

fn any(args: &ReturnFieldArgs<'_>) -> Returned {
    if args.arg_fields.is_empty() { Ok(None) } else { of(DataType::Utf8View) }
}

fn any_one(args: &ReturnFieldArgs<'_>) -> Returned {
    if args.arg_fields.len() == 1 { of(DataType::Utf8View) } else { Ok(None) }
}

fn any_with_first(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [first, _, ..] if is_text(first) => of(DataType::Utf8View),
        _ => Ok(None),
    }
}

fn replace(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (texts, from, to) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    call.each_text(|row| {
        let text = texts.value(row);
        // Nothing is nowhere to be found.
        Ok(Some(match from.value(row) {
            "" => text.to_owned(),
            from => text.replace(from, to.value(row)),
        }))
    })
}

fn all_sent(call: &Call<'_>, from: usize) -> Result<Vec<StringViewArray>, SqlError> {
    call.values[from..].iter().map(sent_texts).collect()
}

fn concat(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let parts = all_sent(call, 0)?;
    call.texts_of(false, |row| {
        let parts = parts.iter().filter(|part| part.is_valid(row));
        Ok(Some(parts.map(|part| part.value(row)).collect()))
    })
}

fn concat_ws(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (separators, parts) = (call.texts(0)?, all_sent(call, 1)?);
    call.texts_of(false, |row| {
        if separators.is_null(row) {
            return Ok(None);
        }
        let parts = parts.iter().filter(|part| part.is_valid(row));
        let parts: Vec<&str> = parts.map(|part| part.value(row)).collect();
        Ok(Some(parts.join(separators.value(row))))
    })
}

/// `substring(text, from [, for])` by places, or `substring(text, pattern)`.
fn substring_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [text, rest @ ..] if is_text(text) && matches!(rest.len(), 1 | 2) => {
            let by_places = rest.iter().all(|ty| is_integer(ty));
            let by_pattern = rest.len() == 1 && is_text(rest[0]);
            if by_places || by_pattern { of(DataType::Utf8View) } else { Ok(None) }
        }
        _ => Ok(None),
    }
}

fn substring(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let texts = call.texts(0)?;
    if !is_integer(call.values[1].data_type()) {
        return by_pattern(&texts, &call.texts(1)?);
    }
    let from = call.integers(1)?;
    let lengths = if call.values.len() == 3 { Some(call.integers(2)?) } else { None };
    call.each_text(|row| {
        let (text, from) = (texts.value(row), from.value(row));
        let end = match &lengths {
            None => i64::MAX,
            Some(lengths) if lengths.value(row) < 0 => {
                return Err(SqlError::new("22011", "negative substring length not allowed"));
            }
            Some(lengths) => from.saturating_add(lengths.value(row)),
        };
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(0);
        let taken = usize::try_from(end.saturating_sub(from.max(1))).unwrap_or(0);
        Ok(Some(text.chars().skip(skipped).take(taken).collect()))
    })
}

/// What a regular expression finds: its first group, if it has one.
fn by_pattern(texts: &StringViewArray, patterns: &StringViewArray) -> Result<ArrayRef, SqlError> {
    let found = regexp_match(texts, patterns, None)
        .map_err(|error| translate::planning(&error.into(), ""))?;
    let found = found.as_list::<i32>();
    let first = (0..found.len()).map(|row| {
        let groups = found.is_valid(row).then(|| found.value(row))?;
        let groups = groups.as_string_view_opt()?;
        (!groups.is_empty() && groups.is_valid(0)).then(|| groups.value(0).to_owned())
    });
    Ok(Arc::new(first.collect::<StringViewArray>()))
}

fn cased(call: &Call<'_>, case: fn(&str) -> String) -> Result<ArrayRef, SqlError> {
    let texts = call.texts(0)?;
    call.each_text(|row| Ok(Some(case(texts.value(row)))))
}

fn upper(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_uppercase() } else { by_letter(text, |c| c.to_uppercase()) }
}

fn lower(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { by_letter(text, |c| c.to_lowercase()) }
}

/// Letter by letter: what would become several stays.
fn by_letter<I: Iterator<Item = char>>(text: &str, cased: fn(char) -> I) -> String {
    let letter = |c: char| {
        let mut cased = cased(c);
        match (cased.next(), cased.next()) {
            (Some(cased), None) => cased,
            _ => c,
        }
    };
    text.chars().map(letter).collect()
}

/// As long as a text may become: a constant's is made while its statement is planned.
const LENGTH_MAX: usize = 64 << 20;

fn too_long() -> SqlError {
    SqlError::new(PROGRAM_LIMIT, "requested length too large")
}

fn length_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_text(ty) || is_bytes(ty) => of(DataType::Int32),
        _ => Ok(None),
    }
}

fn is_bytes(ty: &DataType) -> bool {
    matches!(ty, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Characters of a text, bytes of a bytea.
fn length(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let fits = |length: usize| Ok(Some(i32::try_from(length).unwrap_or(i32::MAX)));
    if is_bytes(call.values[0].data_type()) {
        let bytes = super::rows::cast(&call.values[0], &DataType::BinaryView)?;
        let bytes = bytes.as_binary_view();
        return call.each::<Int32Array, i32>(|row| fits(bytes.value(row).len()));
    }
    let texts = call.texts(0)?;
    call.each::<Int32Array, i32>(|row| fits(texts.value(row).chars().count()))
}

fn repeat_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [text, times] if is_text(text) && is_integer(times) => of(DataType::Utf8View),
        _ => Ok(None),
    }
}

fn repeat(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (texts, times) = (call.texts(0)?, call.integers(1)?);
    call.each_text(|row| {
        let (text, times) = (texts.value(row), usize::try_from(times.value(row)).unwrap_or(0));
        let length = text.len().checked_mul(times).filter(|length| *length <= LENGTH_MAX);
        length.map(|_| Some(text.repeat(times))).ok_or_else(too_long)
    })
}

fn pad_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [text, length] if is_text(text) && is_integer(length) => of(DataType::Utf8View),
        [text, length, fill] if is_text(text) && is_integer(length) && is_text(fill) => {
            of(DataType::Utf8View)
        }
        _ => Ok(None),
    }
}

/// A text of so many characters: cut at its end, or filled at one of its ends.
fn padded(call: &Call<'_>, left: bool) -> Result<ArrayRef, SqlError> {
    let (texts, lengths) = (call.texts(0)?, call.integers(1)?);
    let fills = if call.values.len() == 3 { Some(call.texts(2)?) } else { None };
    call.each_text(|row| {
        let wanted = usize::try_from(lengths.value(row)).unwrap_or(0);
        if wanted > LENGTH_MAX / 4 {
            return Err(too_long());
        }
        let kept: String = texts.value(row).chars().take(wanted).collect();
        let missing = wanted - kept.chars().count();
        let fill = fills.as_ref().map_or(" ", |fills| fills.value(row));
        let filling: String = fill.chars().cycle().take(missing).collect();
        Ok(Some(if left { filling + &kept } else { kept + &filling }))
    })
}

fn chr(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let codes = call.integers(0)?;
    call.each_text(|row| {
        let code = codes.value(row);
        let refused = |message: String| Err(SqlError::new(PROGRAM_LIMIT, message));
        match code {
            0 => refused("null character not permitted".into()),
            ..0 => refused("character number must be positive".into()),
            _ => match u32::try_from(code).ok().and_then(char::from_u32) {
                Some(c) => Ok(Some(c.to_string())),
                None => refused(format!("requested character not valid for encoding: {code}")),
            },
        }
    })
}

fn to_hex(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let narrow = call.values[0].data_type().primitive_width().is_some_and(|bytes| bytes <= 4);
    let numbers = call.integers(0)?;
    if narrow {
        let numbers = super::rows::cast(&call.values[0], &DataType::Int32)?;
        let numbers = numbers.as_primitive::<Int32Type>().clone();
        return call.each_text(|row| Ok(Some(format!("{:x}", numbers.value(row)))));
    }
    call.each_text(|row| Ok(Some(format!("{:x}", numbers.value(row)))))
}

/// A text as a literal.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// A text as a name: in quotes unless it is one without.
fn identifier(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_bare = text.starts_with(|c: char| !c.is_ascii_digit())
        && text.bytes().all(plain)
        && !needs_quotes(text);
    match is_bare {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace('"', "\"\"")),
    }
}

fn quote_ident(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let texts = call.texts(0)?;
    call.each_text(|row| Ok(Some(identifier(texts.value(row)))))
}

fn quote_literal(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let texts = sent_texts(&call.values[0])?;
    call.each_text(|row| Ok(Some(literal(texts.value(row)))))
}

fn quote_nullable(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let texts = sent_texts(&call.values[0])?;
    call.texts_of(false, |row| {
        Ok(Some(match texts.is_valid(row) {
            true => literal(texts.value(row)),
            false => "NULL".to_owned(),
        }))
    })
}

/// `unistr('d\\0061ta')`: escaped characters by their codes.
fn unistr(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let texts = call.texts(0)?;
    call.each_text(|row| unescaped(texts.value(row)).map(Some))
}

fn unescaped(text: &str) -> Result<String, SqlError> {
    let invalid = || {
        SqlError::new(SYNTAX_ERROR, "invalid Unicode escape")
            .hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
    };
    // Both halves of what is two in UTF-16.
    let (mut out, mut high) = (String::with_capacity(text.len()), None::<u32>);
    let mut rest = text;
    let pair = || SqlError::new(SYNTAX_ERROR, "invalid Unicode surrogate pair");
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' || rest.starts_with('\\') {
            rest = if c == '\\' { &rest[1..] } else { rest };
            if high.is_some() {
                return Err(pair());
            }
            out.push(c);
            continue;
        }
        let (marker, digits) = match rest.chars().next() {
            Some('u') => (1, 4),
            Some('+') => (1, 6),
            Some('U') => (1, 8),
            _ => (0, 4),
        };
        let digits = rest.get(marker..marker + digits).ok_or_else(invalid)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        rest = &rest[marker + digits.len()..];
        let code = u32::from_str_radix(digits, 16).map_err(|_| invalid())?;
        let code = match (high.take(), code) {
            (None, 0xd800..0xdc00) => {
                high = Some(code);
                continue;
            }
            (Some(high), 0xdc00..0xe000) => 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00),
            (Some(_), _) | (None, 0xdc00..0xe000) => return Err(pair()),
            (None, code) => code,
        };
        match char::from_u32(code).filter(|c| *c != '\0') {
            Some(c) => out.push(c),
            None => return Err(SqlError::new(SYNTAX_ERROR, "invalid Unicode code point")),
        }
    }
    if high.is_some() { Err(pair()) } else { Ok(out) }
}

/// `similar_to(text, pattern, escape)`.
fn similar_type(args: &ReturnFieldArgs<'_>) -> Returned {
    if texts(args, 3) { of(DataType::Boolean) } else { Ok(None) }
}

fn similar_to(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (texts, patterns, escapes) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    let mut expressions = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        expressions.push(match call.is_null(row) {
            true => None,
            false => Some(expression(patterns.value(row), escapes.value(row))?),
        });
    }
    let expressions = StringViewArray::from_iter(expressions);
    let matched = regexp_is_match::<_, _, StringViewArray>(&texts, &expressions, None)
        .map_err(|error| translate::planning(&error.into(), ""))?;
    Ok(Arc::new(matched))
}

/// SQL's regular expression as one of the common kind, over the whole text.
fn expression(pattern: &str, escape: &str) -> Result<String, SqlError> {
    let mut letters = escape.chars();
    let escape = letters.next();
    if letters.next().is_some() {
        let message = "invalid escape string";
        return Err(
            SqlError::new("22025", message).hint("Escape string must be empty or one character.")
        );
    }
    let mut expression = String::from("(?s)^(?:");
    let mut in_brackets = false;
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        if Some(c) == escape {
            let Some(next) = rest.next() else {
                let message = "pattern must not end with escape character";
                return Err(SqlError::new("22025", message));
            };
            if next == '"' {
                let message = "SIMILAR TO with parts in escaped quotes is not supported";
                return Err(SqlError::new(INVALID_PARAMETER_VALUE, message));
            }
            expression.push('\\');
            expression.push(next);
            continue;
        }
        match c {
            ']' => {
                in_brackets = false;
                expression.push(c);
            }
            '[' => {
                in_brackets = true;
                expression.push(c);
            }
            '\\' => expression.push_str("\\\\"),
            c if in_brackets => expression.push(c),
            '%' => expression.push_str(".*"),
            '_' => expression.push('.'),
            '(' => expression.push_str("(?:"),
            '.' | '^' | '$' => {
                expression.push('\\');
                expression.push(c);
            }
            c => expression.push(c),
        }
    }
    expression.push_str(")$");
    Ok(expression)
}
