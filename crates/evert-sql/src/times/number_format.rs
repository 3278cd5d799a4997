//! Formats of numbers: `to_char(1234.5, 'FM999,990.00')`, and numbers read by them.

use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, INVALID_TEXT, SYNTAX_ERROR};

/// What a template is made of, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// A digit, `true` if it is written though it is a leading zero.
    Digit(bool),
    Point,
    Group,
    Text(char),
}

/// How a sign is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// A minus before the digits, or a blank.
    Before,
    /// `S`: a plus or minus before the digits, or after them.
    Anchored { after: bool },
    /// `MI`: a minus or a blank where it stands.
    Minus { after: bool },
    /// `PR`: angle brackets.
    Brackets,
}

struct Template {
    pieces: Vec<Piece>,
    sign: Sign,
    fill: bool,
    /// Digits before and after the point.
    whole: usize,
    decimals: usize,
}

fn refused(pattern: &str) -> SqlError {
    let message = format!("number formatting pattern \"{pattern}\" is not supported");
    SqlError::new(FEATURE_NOT_SUPPORTED, message)
}

impl Template {
    fn read(text: &str) -> Result<Self, SqlError> {
        let mut template =
            Self { pieces: Vec::new(), sign: Sign::Before, fill: true, whole: 0, decimals: 0 };
        let mut rest = text;
        let mut point = false;
        while let Some(c) = rest.chars().next() {
            let two = rest.get(..2).map(str::to_ascii_uppercase).unwrap_or_default();
            let mut length = c.len_utf8();
            let after = template.whole > 0;
            match c.to_ascii_uppercase() {
                '0' | '9' => {
                    *(if point { &mut template.decimals } else { &mut template.whole }) += 1;
                    template.pieces.push(Piece::Digit(c == '0'));
                }
                '.' | 'D' if point => {
                    return Err(SqlError::new(SYNTAX_ERROR, "multiple decimal points"));
                }
                '.' | 'D' => {
                    point = true;
                    template.pieces.push(Piece::Point);
                }
                ',' | 'G' => template.pieces.push(Piece::Group),
                '"' => {
                    let quoted = &rest[1..];
                    let end = quoted.find('"').unwrap_or(quoted.len());
                    template.pieces.extend(quoted[..end].chars().map(Piece::Text));
                    length = (end + 2).min(rest.len());
                }
                _ => {
                    length = 2;
                    match two.as_str() {
                        "FM" => template.fill = false,
                        "MI" => template.sign = Sign::Minus { after },
                        "PR" => template.sign = Sign::Brackets,
                        "EE" | "RN" | "TH" | "SG" | "PL" => return Err(refused(&two)),
                        _ if c.eq_ignore_ascii_case(&'S') => {
                            (template.sign, length) = (Sign::Anchored { after }, 1);
                        }
                        _ if matches!(c, 'V' | 'v' | 'L' | 'l') => {
                            return Err(refused(&c.to_string()));
                        }
                        _ => {
                            template.pieces.push(Piece::Text(c));
                            length = c.len_utf8();
                        }
                    }
                }
            }
            rest = &rest[length..];
        }
        Ok(template)
    }
}

/// A decimal number in a format. `digits` are its digits as they are written: `-1234.50`.
pub(crate) fn number_as(digits: &str, template: &str) -> Result<String, SqlError> {
    let template = Template::read(template)?;
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits),
    };
    let (whole, decimals) = rounded(digits, template.decimals);
    let is_zero = whole.bytes().chain(decimals.bytes()).all(|digit| digit == b'0');
    let negative = negative && !is_zero;
    let whole = whole.trim_start_matches('0');
    let (body, at) = body(&template, whole, &decimals);
    Ok(signed(&template, &body, at, negative))
}

/// The digits before and after the point, so many of them, halves away from zero.
fn rounded(digits: &str, decimals: usize) -> (String, String) {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut all: Vec<u8> = whole.bytes().collect();
    all.extend(fraction.bytes().chain(std::iter::repeat(b'0')).take(decimals));
    if fraction.as_bytes().get(decimals).is_some_and(|digit| *digit >= b'5') {
        let nines = all.iter().rev().take_while(|digit| **digit == b'9').count();
        let kept = all.len() - nines;
        all[kept..].fill(b'0');
        match kept.checked_sub(1) {
            Some(place) => all[place] += 1,
            None => all.insert(0, b'1'),
        }
    }
    let text: String = all.into_iter().map(char::from).collect();
    let (whole, decimals) = text.split_at(text.len() - decimals);
    (whole.to_owned(), decimals.to_owned())
}

/// The pieces with their digits, `#` for all where there are too many; and where the first digit
/// is.
fn body(template: &Template, whole: &str, decimals: &str) -> (String, usize) {
    let fits = whole.len() <= template.whole;
    let first_zero = template.pieces.iter().position(|piece| *piece == Piece::Digit(true));
    let point = template.pieces.iter().position(|piece| *piece == Piece::Point);
    let mut out = String::new();
    let mut place = 0_usize;
    let mut begun = false;
    let last_kept = kept_decimals(template, decimals);
    // `0.`, where nothing else is left.
    let lone_zero = point.is_none() || !template.fill && last_kept == 0;
    let mut first = None;
    for (index, piece) in template.pieces.iter().enumerate() {
        let in_whole = point.is_none_or(|point| index < point);
        let length = out.len();
        match piece {
            Piece::Digit(_) if !fits => out.push('#'),
            Piece::Digit(_) if in_whole => {
                let missing = template.whole - whole.len();
                let digit = place.checked_sub(missing).and_then(|at| whole.as_bytes().get(at));
                let forced = first_zero.is_some_and(|zero| zero <= index);
                place += 1;
                match digit {
                    Some(digit) => {
                        begun = true;
                        out.push(char::from(*digit));
                    }
                    None if forced => {
                        begun = true;
                        out.push('0');
                    }
                    None if lone_zero && place == template.whole && whole.is_empty() => {
                        begun = true;
                        out.push('0');
                    }
                    None if template.fill => out.push(' '),
                    None => {}
                }
            }
            Piece::Digit(_) => {
                let at = place - template.whole;
                place += 1;
                if at < last_kept {
                    out.push(char::from(decimals.as_bytes()[at]));
                }
            }
            Piece::Point => out.push('.'),
            Piece::Group if !fits || begun => out.push(','),
            Piece::Group if template.fill => out.push(' '),
            Piece::Group => {}
            Piece::Text(c) => out.push(*c),
        }
        let is_text = matches!(piece, Piece::Text(_));
        if first.is_none() && !is_text && out[length..].starts_with(|c| c != ' ') {
            first = Some(length);
        }
    }
    let first = first.unwrap_or(out.len());
    (out, first)
}

/// How many decimals are written: with FM no zeros at the end but those that `0` asks for.
fn kept_decimals(template: &Template, decimals: &str) -> usize {
    if template.fill {
        return decimals.len();
    }
    let asked = template.pieces.iter().filter(|piece| matches!(piece, Piece::Digit(_)));
    let last_zero = asked
        .skip(template.whole)
        .enumerate()
        .filter(|(_, piece)| **piece == Piece::Digit(true))
        .map(|(place, _)| place + 1)
        .last();
    decimals.trim_end_matches('0').len().max(last_zero.unwrap_or(0))
}

fn signed(template: &Template, body: &str, at: usize, negative: bool) -> String {
    // A sign stands right before the first digit.
    let before = |sign: &str| format!("{}{sign}{}", &body[..at], &body[at..]);
    let blank = if template.fill { " " } else { "" };
    match (template.sign, negative) {
        (Sign::Before, true) => before("-"),
        (Sign::Before, false) => before(blank),
        (Sign::Anchored { after: true }, _) => {
            format!("{body}{}", if negative { '-' } else { '+' })
        }
        (Sign::Anchored { after: false }, _) => before(if negative { "-" } else { "+" }),
        (Sign::Minus { after: true }, true) => format!("{body}-"),
        (Sign::Minus { after: true }, false) => format!("{body}{blank}"),
        (Sign::Minus { after: false }, true) => format!("-{body}"),
        (Sign::Minus { after: false }, false) => format!("{blank}{body}"),
        (Sign::Brackets, true) => format!("{}>", before("<")),
        (Sign::Brackets, false) => format!("{}{blank}", before(blank)),
    }
}

/// The digits of a number that a text holds in a format: `'1,234.5'` in `'9,999.9'`.
pub(crate) fn number_read_as(text: &str, template: &str) -> Result<String, SqlError> {
    let template = Template::read(template)?;
    let mut digits = String::new();
    let (mut negative, mut point, mut whole, mut decimals) = (false, false, 0, 0);
    for c in text.trim().chars() {
        match c {
            '0'..='9' if !point && whole < template.whole => {
                whole += 1;
                digits.push(c);
            }
            '0'..='9' if point && decimals < template.decimals => {
                decimals += 1;
                digits.push(c);
            }
            '-' | '<' => negative = true,
            '.' if !point && template.pieces.contains(&Piece::Point) => {
                point = true;
                digits.push(c);
            }
            _ => {}
        }
    }
    if whole + decimals == 0 {
        let message = format!("invalid input syntax for type numeric: \"{text}\"");
        return Err(SqlError::new(INVALID_TEXT, message));
    }
    let digits = digits.trim_end_matches('.');
    Ok(format!("{}{digits}", if negative { "-" } else { "" }))
}
