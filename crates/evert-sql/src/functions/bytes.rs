//! Functions of bytes: `encode`, `decode`, `convert_from`, `convert_to`, `get_byte`, `bit_count`.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BinaryArray, BinaryViewArray, Int32Array, Int64Array};
use arrow::datatypes::{DataType, FieldRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};

use super::rows::{Call, RowFunction, cast, is_integer, is_text, of, types};
use crate::SqlError;
use crate::error::{CHARACTER_NOT_IN_REPERTOIRE, INVALID_PARAMETER_VALUE, INVALID_TEXT};

type Returned = Result<Option<FieldRef>>;

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = [
        RowFunction::new("encode", |args| of_bytes(args, DataType::Utf8View), encode),
        RowFunction::new("decode", |args| of_texts(args, DataType::Binary), decode),
        RowFunction::new("convert_from", |args| of_bytes(args, DataType::Utf8View), convert_from),
        RowFunction::new("convert_to", |args| of_texts(args, DataType::Binary), convert_to),
        RowFunction::new("get_byte", byte_type, get_byte),
        RowFunction::new("bit_count", count_type, bit_count),
    ];
    functions.into_iter().map(RowFunction::shared).collect()
});

/// The functions, some in the place of DataFusion's of the same name.
pub(crate) fn byte_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

fn is_bytes(ty: &DataType) -> bool {
    matches!(ty, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null)
}

fn of_bytes(args: &ReturnFieldArgs<'_>, returns: DataType) -> Returned {
    match types(args).as_slice() {
        // A constant text is bytes as they are written.
        [bytes, name] if (is_bytes(bytes) || is_text(bytes)) && is_text(name) => of(returns),
        _ => Ok(None),
    }
}

fn of_texts(args: &ReturnFieldArgs<'_>, returns: DataType) -> Returned {
    match types(args).as_slice() {
        [text, name] if is_text(text) && is_text(name) => of(returns),
        _ => Ok(None),
    }
}

fn byte_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [bytes, place] if is_bytes(bytes) && is_integer(place) => of(DataType::Int32),
        _ => Ok(None),
    }
}

fn count_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [bytes] if is_bytes(bytes) => of(DataType::Int64),
        _ => Ok(None),
    }
}

fn bytes(call: &Call<'_>) -> Result<BinaryViewArray, SqlError> {
    if !is_text(call.values[0].data_type()) {
        return Ok(cast(&call.values[0], &DataType::BinaryView)?.as_binary_view().clone());
    }
    let written = |text: &str| match text.strip_prefix("\\x") {
        Some(digits) => from_hex(digits),
        None => from_escaped(text),
    };
    let texts = call.texts(0)?;
    let bytes = texts.iter().map(|text| text.map(written).transpose());
    let bytes: Vec<Option<Vec<u8>>> = bytes.collect::<Result<_, SqlError>>()?;
    Ok(BinaryViewArray::from_iter(bytes))
}

fn wrong(message: impl Into<String>) -> SqlError {
    SqlError::new(INVALID_PARAMETER_VALUE, message)
}

/// Bytes for each row in which no argument is NULL.
fn each_bytes(
    call: &Call<'_>,
    mut made: impl FnMut(usize) -> Result<Vec<u8>, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let made = (0..call.rows).map(|row| match call.is_null(row) {
        true => Ok(None),
        false => made(row).map(Some),
    });
    let made: Vec<Option<Vec<u8>>> = made.collect::<Result<_, SqlError>>()?;
    Ok(Arc::new(BinaryArray::from_iter(made)))
}

/// `encode(bytes, 'hex' | 'base64' | 'escape')`.
fn encode(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (bytes, formats) = (bytes(call)?, call.texts(1)?);
    call.each_text(|row| {
        let bytes = bytes.value(row);
        Ok(Some(match formats.value(row).to_lowercase().as_str() {
            "hex" => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            "base64" => in_lines(&STANDARD.encode(bytes)),
            "escape" => escaped(bytes),
            _ => return Err(unknown_format(formats.value(row))),
        }))
    })
}

fn unknown_format(name: &str) -> SqlError {
    wrong(format!("unrecognized encoding: \"{name}\""))
}

/// Lines of 76 characters.
fn in_lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() + text.len() / 76);
    for (place, letter) in text.chars().enumerate() {
        if place > 0 && place % 76 == 0 {
            lines.push('\n');
        }
        lines.push(letter);
    }
    lines
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0 | 0x80.. => text.push_str(&format!("\\{byte:03o}")),
            byte => text.push(char::from(*byte)),
        }
    }
    text
}

/// `decode(text, 'hex' | 'base64' | 'escape')`.
fn decode(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (texts, formats) = (call.texts(0)?, call.texts(1)?);
    each_bytes(call, |row| {
        let text = texts.value(row);
        match formats.value(row).to_lowercase().as_str() {
            "hex" => from_hex(text),
            "base64" => from_base64(text),
            "escape" => from_escaped(text),
            _ => Err(unknown_format(formats.value(row))),
        }
    })
}

fn from_hex(text: &str) -> Result<Vec<u8>, SqlError> {
    let mut digits = Vec::with_capacity(text.len());
    for letter in text.chars().filter(|letter| !matches!(letter, ' ' | '\n' | '\t' | '\r')) {
        let digit = letter.to_digit(16);
        let digit =
            digit.ok_or_else(|| wrong(format!("invalid hexadecimal digit: \"{letter}\"")))?;
        digits.push(u8::try_from(digit).unwrap_or(0));
    }
    if digits.len() % 2 == 1 {
        return Err(wrong("invalid hexadecimal data: odd number of digits"));
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn from_base64(text: &str) -> Result<Vec<u8>, SqlError> {
    let is_blank = |letter: &char| matches!(letter, ' ' | '\n' | '\t' | '\r');
    let dense: String = text.chars().filter(|letter| !is_blank(letter)).collect();
    let is_symbol = |letter: char| letter.is_ascii_alphanumeric() || "+/=".contains(letter);
    if let Some(letter) = dense.chars().find(|letter| !is_symbol(*letter)) {
        let message = format!("invalid symbol \"{letter}\" found while decoding base64 sequence");
        return Err(wrong(message));
    }
    STANDARD.decode(&dense).map_err(|_| {
        wrong("invalid base64 end sequence")
            .hint("Input data is missing padding, is truncated, or is otherwise corrupted.")
    })
}

fn from_escaped(text: &str) -> Result<Vec<u8>, SqlError> {
    let invalid = || SqlError::new(INVALID_TEXT, "invalid input syntax for type bytea");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        match after {
            [b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => return Err(invalid()),
        }
    }
    Ok(bytes)
}

/// The one encoding that texts have here.
fn check_encoding(name: &str) -> Result<(), SqlError> {
    let known: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    match known.as_str() {
        "utf8" | "unicode" => Ok(()),
        _ => Err(SqlError::unsupported(format!("the encoding \"{name}\"")).hint("Texts are UTF8.")),
    }
}

fn convert_from(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (bytes, encodings) = (bytes(call)?, call.texts(1)?);
    call.each_text(|row| {
        check_encoding(encodings.value(row))?;
        let bytes = bytes.value(row);
        let invalid = |wrong: &[u8]| {
            let wrong: Vec<String> = wrong.iter().map(|byte| format!("0x{byte:02x}")).collect();
            let message =
                format!("invalid byte sequence for encoding \"UTF8\": {}", wrong.join(" "));
            SqlError::new(CHARACTER_NOT_IN_REPERTOIRE, message)
        };
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => Err(invalid(&[0])),
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => {
                let begin = error.valid_up_to();
                // As long as its first byte says that the character is.
                let length = match bytes[begin] {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    0xf0..=0xf4 => 4,
                    _ => 1,
                };
                Err(invalid(&bytes[begin..bytes.len().min(begin + length)]))
            }
        }
    })
}

fn convert_to(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (texts, encodings) = (call.texts(0)?, call.texts(1)?);
    each_bytes(call, |row| {
        check_encoding(encodings.value(row))?;
        Ok(texts.value(row).as_bytes().to_vec())
    })
}

fn get_byte(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (bytes, places) = (bytes(call)?, call.integers(1)?);
    call.each::<Int32Array, i32>(|row| {
        let (bytes, place) = (bytes.value(row), places.value(row));
        let byte = usize::try_from(place).ok().and_then(|place| bytes.get(place));
        byte.map(|byte| Some(i32::from(*byte))).ok_or_else(|| {
            let last = bytes.len() as i64 - 1;
            SqlError::new("2202E", format!("index {place} out of valid range, 0..{last}"))
        })
    })
}

fn bit_count(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let bytes = bytes(call)?;
    call.each::<Int64Array, i64>(|row| {
        Ok(Some(bytes.value(row).iter().map(|byte| i64::from(byte.count_ones())).sum()))
    })
}
