//! JSON taken apart to be changed, and written as `jsonb` is: members by the length of their names
//! and then their bytes, each once, numbers without exponents.

use super::Invalid;
use super::build::push_quoted;
use super::text::{Json, Kind};

/// A value that owns its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    /// What is written as it stands: `null`, a boolean or a number.
    Plain(String),
    String(String),
    Array(Vec<Tree>),
    /// Members in their order.
    Object(Vec<(String, Tree)>),
}

/// Zeros that a number's exponent may stand for.
const ZEROS_MAX: i64 = 131_072;

impl Tree {
    /// A value as `jsonb` holds it.
    pub(super) fn read(value: Json<'_>) -> Result<Self, Invalid> {
        Self::taken(value, true)
    }

    /// A value as `json` holds it: members in their order, numbers as they were written.
    pub(super) fn read_as_is(value: Json<'_>) -> Result<Self, Invalid> {
        Self::taken(value, false)
    }

    fn taken(value: Json<'_>, binary: bool) -> Result<Self, Invalid> {
        let inner = |value| Self::taken(value, binary);
        Ok(match value.kind() {
            Kind::Array => {
                let elements = value.elements()?.unwrap_or_default();
                Self::Array(elements.into_iter().map(inner).collect::<Result<_, _>>()?)
            }
            Kind::Object => {
                let members = value.members()?.unwrap_or_default().into_iter();
                let mut members = members
                    .map(|(name, value)| Ok((name.into_owned(), inner(value)?)))
                    .collect::<Result<Vec<_>, Invalid>>()?;
                if binary {
                    members.sort_by(|(a, _), (b, _)| order(a).cmp(&order(b)));
                }
                Self::Object(members)
            }
            Kind::String => Self::String(value.as_text()?.unwrap_or_default().into_owned()),
            Kind::Number if binary => Self::Plain(plain_number(value.text())?),
            Kind::Number | Kind::Null | Kind::Boolean => Self::Plain(value.text().to_owned()),
        })
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Plain(text) if text == "null")
    }

    /// The value without members that are null.
    pub(super) fn strip_nulls(&mut self) {
        match self {
            Self::Array(elements) => elements.iter_mut().for_each(Self::strip_nulls),
            Self::Object(members) => {
                members.retain(|(_, value)| !value.is_null());
                members.iter_mut().for_each(|(_, value)| value.strip_nulls());
            }
            Self::Plain(_) | Self::String(_) => {}
        }
    }

    /// Puts a member where its name belongs.
    pub(super) fn insert(members: &mut Vec<(String, Self)>, name: &str, value: Self) {
        let place = members.partition_point(|(other, _)| order(other) < order(name));
        members.insert(place, (name.to_owned(), value));
    }

    pub(super) fn written(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, Space::Blanks);
        text
    }

    /// Without a blank.
    pub(super) fn dense(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, Space::None);
        text
    }

    /// On lines of their own, indented by four blanks a level.
    pub(super) fn pretty(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, Space::Lines(0));
        text
    }

    fn write(&self, text: &mut String, space: Space) {
        let (open, close, count) = match self {
            Self::Plain(plain) => return text.push_str(plain),
            Self::String(string) => return push_quoted(text, string),
            Self::Array(elements) => ('[', ']', elements.len()),
            Self::Object(members) => ('{', '}', members.len()),
        };
        text.push(open);
        let inner = space.within();
        for place in 0..count {
            if place > 0 {
                text.push_str(if space == Space::Blanks { ", " } else { "," });
            }
            inner.begin_line(text);
            match self {
                Self::Array(elements) => elements[place].write(text, inner),
                Self::Object(members) => {
                    push_quoted(text, &members[place].0);
                    text.push_str(if space == Space::None { ":" } else { ": " });
                    members[place].1.write(text, inner);
                }
                Self::Plain(_) | Self::String(_) => {}
            }
        }
        space.begin_line(text);
        text.push(close);
    }
}

/// What stands between a value's parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    None,
    Blanks,
    /// Each part on its own line, at a level.
    Lines(usize),
}

impl Space {
    fn within(self) -> Self {
        match self {
            Self::Lines(level) => Self::Lines(level + 1),
            other => other,
        }
    }

    fn begin_line(self, text: &mut String) {
        if let Self::Lines(level) = self {
            text.push('\n');
            text.extend(std::iter::repeat_n("    ", level));
        }
    }
}

/// By what `jsonb` sorts the names of members.
fn order(name: &str) -> (usize, &str) {
    (name.len(), name)
}

/// A number without an exponent.
fn plain_number(text: &str) -> Result<String, Invalid> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return Ok(text
            .strip_prefix("-0")
            .map_or(text, |rest| match rest {
                "" => "0",
                _ => text,
            })
            .to_owned());
    };
    let exponent: i64 = exponent.parse().map_err(|_| Invalid)?;
    if exponent.abs() > ZEROS_MAX {
        return Err(Invalid);
    }
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i64 + exponent;
    let (whole, fraction) = if point <= 0 {
        (String::new(), "0".repeat(point.unsigned_abs() as usize) + &digits)
    } else if point as usize >= digits.len() {
        let zeros = point as usize - digits.len();
        (digits + &"0".repeat(zeros), String::new())
    } else {
        let (whole, fraction) = digits.split_at(point as usize);
        (whole.to_owned(), fraction.to_owned())
    };
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let is_zero = whole == "0" && fraction.bytes().all(|digit| digit == b'0');
    let sign = if is_zero { "" } else { sign };
    Ok(match fraction.is_empty() {
        true => format!("{sign}{whole}"),
        false => format!("{sign}{whole}.{fraction}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_as_jsonb_writes_it() {
        for (text, expected) in [
            (r#"{"bb":1,"a":[1.50,"x\n"],"bb":2}"#, r#"{"a": [1.50, "x\n"], "bb": 2}"#),
            ("[1e2,1.25e1,12e-1,-0,-1.5E+1,1e-3]", "[100, 12.5, 1.2, 0, -15, 0.001]"),
            ("{}", "{}"),
        ] {
            let value = Json::parse(text).expect("JSON");
            assert_eq!(Tree::read(value).expect("a tree").written(), expected);
        }
    }
}
