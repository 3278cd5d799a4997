//! JSON as text: where its values begin and end, so that what is taken out keeps its digits.
//!
//! Invariants
//! - Depth is bounded, and a text that is not JSON is an error, never a panic.

use std::borrow::Cow;

/// Levels within levels that a text may have.
const DEPTH_MAX: usize = 512;

/// A text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

pub(super) type Result<T> = std::result::Result<T, Invalid>;

/// A value within a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Json<'a>(&'a str);

/// What kind of value a text begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl<'a> Json<'a> {
    /// The value that a whole text is.
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        if reader.at == text.len() { Ok(value) } else { Err(Invalid) }
    }

    /// The value as it was written.
    pub(super) fn text(self) -> &'a str {
        self.0
    }

    pub(super) fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// The value without quotes if it is a string; SQL's NULL if it is `null`.
    pub(super) fn as_text(self) -> Result<Option<Cow<'a, str>>> {
        match self.kind() {
            Kind::Null => Ok(None),
            Kind::String => unquoted(self.0).map(Some),
            _ => Ok(Some(Cow::Borrowed(self.0))),
        }
    }

    /// An array's elements; `None` for another value.
    pub(super) fn elements(self) -> Result<Option<Vec<Self>>> {
        if self.kind() != Kind::Array {
            return Ok(None);
        }
        let mut reader = Reader { text: self.0, at: 1 };
        let mut elements = Vec::new();
        if reader.ends(b']') {
            return Ok(Some(elements));
        }
        loop {
            elements.push(reader.value(1)?);
            if reader.ends(b']') {
                return Ok(Some(elements));
            }
            reader.expect(b',')?;
        }
    }

    /// An object's members in their order, the last of each name alone; `None` for another value.
    #[expect(clippy::type_complexity, reason = "names and values, as they are read once")]
    pub(super) fn members(self) -> Result<Option<Vec<(Cow<'a, str>, Self)>>> {
        if self.kind() != Kind::Object {
            return Ok(None);
        }
        let mut reader = Reader { text: self.0, at: 1 };
        let mut members: Vec<(Cow<'a, str>, Self)> = Vec::new();
        if reader.ends(b'}') {
            return Ok(Some(members));
        }
        loop {
            reader.space();
            let name = unquoted(reader.string()?)?;
            reader.expect(b':')?;
            let value = reader.value(1)?;
            match members.iter_mut().find(|(other, _)| *other == name) {
                Some((_, old)) => *old = value,
                None => members.push((name, value)),
            }
            if reader.ends(b'}') {
                return Ok(Some(members));
            }
            reader.expect(b',')?;
        }
    }

    /// The member of a name.
    pub(super) fn member(self, name: &str) -> Result<Option<Self>> {
        let members = self.members()?.unwrap_or_default();
        Ok(members.into_iter().find(|(other, _)| other == name).map(|(_, value)| value))
    }

    /// The element at a place, counted from the end if below zero.
    pub(super) fn element(self, place: i64) -> Result<Option<Self>> {
        let Some(elements) = self.elements()? else { return Ok(None) };
        let place = match usize::try_from(place) {
            Ok(place) => Some(place),
            Err(_) => usize::try_from(place.unsigned_abs())
                .ok()
                .and_then(|back| elements.len().checked_sub(back)),
        };
        Ok(place.and_then(|place| elements.get(place).copied()))
    }

    /// Follows a path: names in objects, places in arrays.
    pub(super) fn at_path<'p>(self, path: impl Iterator<Item = &'p str>) -> Result<Option<Self>> {
        let mut value = self;
        for step in path {
            let next = match value.kind() {
                Kind::Object => value.member(step)?,
                Kind::Array => match step.parse() {
                    Ok(place) => value.element(place)?,
                    Err(_) => None,
                },
                _ => None,
            };
            let Some(next) = next else { return Ok(None) };
            value = next;
        }
        Ok(Some(value))
    }

    /// Whether two values are equal as `jsonb` sees them: the order of members and the way a
    /// number is written do not count.
    pub(super) fn equals(self, other: Self) -> Result<bool> {
        if self.kind() != other.kind() {
            return Ok(false);
        }
        Ok(match self.kind() {
            Kind::Null => true,
            Kind::Boolean => self.0 == other.0,
            Kind::Number => number(self.0) == number(other.0),
            Kind::String => unquoted(self.0)? == unquoted(other.0)?,
            Kind::Array => {
                let (a, b) = (self.elements()?, other.elements()?);
                let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
                a.len() == b.len() && all(a.iter().zip(&b), |(a, b)| a.equals(*b))?
            }
            Kind::Object => {
                let (a, b) = (self.members()?, other.members()?);
                let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
                a.len() == b.len()
                    && all(a.iter(), |(name, value)| {
                        match b.iter().find(|(other, _)| other == name) {
                            Some((_, other)) => value.equals(*other),
                            None => Ok(false),
                        }
                    })?
            }
        })
    }

    /// `self @> part`, after Postgres's rules of containment.
    pub(super) fn contains(self, part: Self) -> Result<bool> {
        match (self.kind(), part.kind()) {
            (Kind::Object, Kind::Object) => {
                let members = self.members()?.unwrap_or_default();
                all(part.members()?.unwrap_or_default().iter(), |(name, wanted)| {
                    match members.iter().find(|(other, _)| other == name) {
                        Some((_, value)) => value.contains(*wanted),
                        None => Ok(false),
                    }
                })
            }
            (Kind::Array, Kind::Array) => {
                let elements = self.elements()?.unwrap_or_default();
                all(part.elements()?.unwrap_or_default().iter(), |wanted| {
                    any(elements.iter(), |element| element.contains(*wanted))
                })
            }
            // An array contains a primitive value that is one of its elements.
            (Kind::Array, kind) if kind != Kind::Object => {
                any(self.elements()?.unwrap_or_default().iter(), |value| value.equals(part))
            }
            _ => self.equals(part),
        }
    }

    /// `self ? name`: a member of an object, or a string that an array holds or the value is.
    pub(super) fn has(self, name: &str) -> Result<bool> {
        let is_name =
            |value: &Self| Ok(value.kind() == Kind::String && unquoted(value.0)?.as_ref() == name);
        match self.kind() {
            Kind::Object => Ok(self.member(name)?.is_some()),
            Kind::Array => any(self.elements()?.unwrap_or_default().iter(), is_name),
            _ => is_name(&self),
        }
    }
}

fn all<T>(mut items: impl Iterator<Item = T>, holds: impl Fn(T) -> Result<bool>) -> Result<bool> {
    items.try_fold(true, |so_far, item| Ok(so_far && holds(item)?))
}

fn any<T>(mut items: impl Iterator<Item = T>, holds: impl Fn(T) -> Result<bool>) -> Result<bool> {
    items.try_fold(false, |so_far, item| Ok(so_far || holds(item)?))
}

/// A number as its sign, its digits without zeros at either end, and its power of ten.
fn number(text: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(i64::MAX)),
        None => (text, 0),
    };
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return (false, String::new(), 0);
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let power = exponent.saturating_sub(fraction.len() as i64).saturating_add(zeros as i64);
    (negative, significant.to_owned(), power)
}

/// A quoted string's characters.
fn unquoted(text: &str) -> Result<Cow<'_, str>> {
    let inner = text.get(1..text.len().saturating_sub(1)).ok_or(Invalid)?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(text).map(Cow::Owned).map_err(|_| Invalid)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<()> {
        self.space();
        if self.peek() != Some(wanted) {
            return Err(Invalid);
        }
        self.at += 1;
        Ok(())
    }

    fn ends(&mut self, with: u8) -> bool {
        self.space();
        let ends = self.peek() == Some(with);
        self.at += usize::from(ends);
        ends
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>> {
        self.space();
        let start = self.at;
        if depth > DEPTH_MAX {
            return Err(Invalid);
        }
        match self.peek().ok_or(Invalid)? {
            b'{' => {
                self.at += 1;
                if !self.ends(b'}') {
                    loop {
                        self.space();
                        self.string()?;
                        self.expect(b':')?;
                        self.value(depth + 1)?;
                        if self.ends(b'}') {
                            break;
                        }
                        self.expect(b',')?;
                    }
                }
            }
            b'[' => {
                self.at += 1;
                if !self.ends(b']') {
                    loop {
                        self.value(depth + 1)?;
                        if self.ends(b']') {
                            break;
                        }
                        self.expect(b',')?;
                    }
                }
            }
            b'"' => {
                self.string()?;
            }
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        self.text.get(start..self.at).map(Json).ok_or(Invalid)
    }

    fn word(&mut self, word: &str) -> Result<()> {
        match self.text.get(self.at..) {
            Some(rest) if rest.starts_with(word) => {
                self.at += word.len();
                Ok(())
            }
            _ => Err(Invalid),
        }
    }

    fn string(&mut self) -> Result<&'a str> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(Invalid);
        }
        self.at += 1;
        loop {
            match self.peek().ok_or(Invalid)? {
                b'"' => break,
                b'\\' => self.at += 2,
                0..0x20 => return Err(Invalid),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at).ok_or(Invalid)
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Invalid) }
    }

    fn number(&mut self) -> Result<()> {
        self.at += usize::from(self.peek() == Some(b'-'));
        self.digits()?;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json<'_> {
        Json::parse(text).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn parts_are_taken_as_they_were_written() {
        let value = json(r#" {"a": [1.00, {"b": "x\n"}], "c": null, "a2": 1e400, "c": 2} "#);
        let at = |path: &[&str]| value.at_path(path.iter().copied()).expect("JSON").map(Json::text);
        assert_eq!(at(&["a", "0"]), Some("1.00"));
        assert_eq!(at(&["a", "-1", "b"]), Some(r#""x\n""#));
        assert_eq!(at(&["a2"]), Some("1e400"));
        assert_eq!(at(&["c"]), Some("2"));
        assert_eq!(at(&["a", "7"]), None);
        assert_eq!(json(r#""x\nA""#).as_text(), Ok(Some("x\nA".into())));
        assert_eq!(json("null").as_text(), Ok(None));
    }

    #[test]
    fn containment_is_postgres_s() {
        for (whole, part, expected) in [
            (r#"{"a": 1, "b": [1, 2]}"#, r#"{"b": [2]}"#, true),
            (r#"{"a": {"b": 1, "c": 2}}"#, r#"{"a": {"c": 2.0}}"#, true),
            (r#"{"a": {"b": 1}}"#, r#"{"b": 1}"#, false),
            ("[1, 2, 3]", "[3, 1, 3]", true),
            ("[1, [2, 3]]", "[[3]]", true),
            ("[1, 2]", "2", true),
            ("2", "[2]", false),
            ("[1]", "1e0", true),
            ("{}", "[]", false),
        ] {
            assert_eq!(json(whole).contains(json(part)), Ok(expected), "{whole} @> {part}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "[1,]", "{\"a\"}", "tru", "\"x", "1.", "-", "1 2", "\"\\", &deep] {
            assert_eq!(Json::parse(text), Err(Invalid), "{}", &text[..text.len().min(9)]);
        }
    }
}
