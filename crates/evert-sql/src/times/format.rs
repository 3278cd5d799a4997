//! Formats of times: `to_char(ts, 'YYYY-MM-DD HH24:MI:SS')`, and texts read by them.
//!
//! After Postgres's chapter "Data Type Formatting Functions". Patterns that are not known here are
//! refused by name.

use std::fmt::Write;

use chrono::Datelike;

use super::{Civil, DAY, HOUR, MINUTE, SECOND, Span, days_from, micros_from};
use crate::SqlError;
use crate::error::{DATETIME_FORMAT, FEATURE_NOT_SUPPORTED};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] =
    ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// The whole name of a month, from its first three letters.
pub(super) fn month_name(short: &str) -> Option<&'static str> {
    MONTHS.into_iter().find(|name| name[..3].eq_ignore_ascii_case(short))
}

/// Patterns, of those that begin alike the longest first. In a template letters count as they are
/// where their case says how a name is written, and otherwise in any case.
const PATTERNS: [&str; 58] = [
    "HH24", "HH12", "HH", "MI", "SSSSS", "SSSS", "SS", "MS", "US", "FF1", "FF2", "FF3", "FF4",
    "FF5", "FF6", "Y,YYY", "YYYY", "YYY", "YY", "Y", "IYYY", "IYY", "IY", "IDDD", "ID", "IW", "I",
    "A.M.", "P.M.", "AM", "PM", "A.D.", "B.C.", "AD", "BC", "MONTH", "Month", "month", "MON",
    "Mon", "mon", "MM", "DAY", "Day", "day", "DY", "Dy", "dy", "DDD", "DD", "D", "WW", "W", "CC",
    "J", "Q", "RM", "OF",
];
/// Patterns of which only some directions are served.
const ZONES: [&str; 3] = ["TZH", "TZM", "TZ"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece<'a> {
    Pattern {
        name: &'static str,
        /// In lower case, as `am` and `th` are written.
        lower: bool,
        fill: bool,
        /// `th` or `TH` after it.
        ordinal: Option<bool>,
    },
    Text(&'a str),
}

/// Takes a template apart.
fn pieces(template: &str) -> Result<Vec<Piece<'_>>, SqlError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut fill = true;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            pieces.push(Piece::Text(&quoted[..end]));
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        if let Some(after) = prefix(rest, "FM").or_else(|| prefix(rest, "TM")) {
            (fill, rest) = (false, after);
            continue;
        }
        if let Some(after) = prefix(rest, "FX") {
            rest = after;
            continue;
        }
        match pattern(rest) {
            Some((name, length)) => {
                let lower = rest.starts_with(|c: char| c.is_ascii_lowercase());
                rest = &rest[length..];
                let ordinal = rest.get(..2).filter(|th| th.eq_ignore_ascii_case("th"));
                if ordinal.is_some() {
                    refuse_spelled(&rest[2..])?;
                }
                let ordinal = ordinal.map(|th| th == "TH");
                rest = &rest[if ordinal.is_some() { 2 } else { 0 }..];
                refuse_spelled(rest)?;
                pieces.push(Piece::Pattern { name, lower, fill, ordinal });
                fill = true;
            }
            None => {
                let length = rest.chars().next().map_or(0, char::len_utf8);
                pieces.push(Piece::Text(&rest[..length]));
                rest = &rest[length..];
            }
        }
    }
    Ok(pieces)
}

fn refuse_spelled(rest: &str) -> Result<(), SqlError> {
    match rest.starts_with("SP") {
        true => Err(refused("SP")),
        false => Ok(()),
    }
}

fn prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The pattern at the beginning of a text, and its length.
fn pattern(text: &str) -> Option<(&'static str, usize)> {
    let exact = PATTERNS.iter().find(|name| text.starts_with(**name));
    let known = exact.or_else(|| {
        let any_case = |name: &&&str| prefix(text, name).is_some();
        ZONES.iter().chain(&PATTERNS).find(any_case)
    });
    let zone = ZONES.iter().find(|name| prefix(text, name).is_some());
    zone.or(known).map(|name| (*name, name.len()))
}

fn refused(pattern: &str) -> SqlError {
    let message = format!("formatting pattern \"{pattern}\" is not supported");
    SqlError::new(FEATURE_NOT_SUPPORTED, message)
}

/// A timestamp in a format; in UTC if it has a zone.
pub(crate) fn written_as(micros: i64, zoned: bool, template: &str) -> Result<String, SqlError> {
    let civil = Civil::of_micros(micros)?;
    let mut out = String::new();
    for piece in pieces(template)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Pattern { name, lower, fill, ordinal } => {
                let start = out.len();
                match number_of(name, civil) {
                    Some((value, width)) => put_number(&mut out, value, width, fill),
                    None => put_name(&mut out, name, civil, lower, fill, zoned)?,
                }
                add_ordinal(&mut out, start, ordinal);
            }
        }
    }
    Ok(out)
}

fn put_number(out: &mut String, value: i64, width: usize, fill: bool) {
    let width = if fill { width } else { 0 };
    let sign = if value < 0 { "-" } else { "" };
    write!(out, "{sign}{:0width$}", value.unsigned_abs()).expect("a String takes everything");
}

/// `1st`, `2ND`.
fn add_ordinal(out: &mut String, start: usize, ordinal: Option<bool>) {
    let Some(upper) = ordinal else { return };
    let digits = &out.as_bytes()[start..];
    let Some(last) = digits.last().filter(|digit| digit.is_ascii_digit()) else { return };
    let teen = digits.len() > 1 && digits[digits.len() - 2] == b'1';
    let suffix = match (teen, last) {
        (false, b'1') => "st",
        (false, b'2') => "nd",
        (false, b'3') => "rd",
        _ => "th",
    };
    match upper {
        true => out.push_str(&suffix.to_uppercase()),
        false => out.push_str(suffix),
    }
}

/// The number that a pattern stands for, and its width.
fn number_of(name: &str, civil: Civil) -> Option<(i64, usize)> {
    let date = civil.date;
    let year = i64::from(date.year());
    let year = if year <= 0 { 1 - year } else { year };
    let iso_year = i64::from(date.iso_week().year());
    Some(match name {
        "HH24" => (civil.hour(), 2),
        "HH12" | "HH" => ((civil.hour() + 11) % 12 + 1, 2),
        "MI" => (civil.minute(), 2),
        "SS" => (civil.second(), 2),
        "SSSS" | "SSSSS" => (civil.clock / SECOND, 0),
        "YYYY" => (year, 4),
        "YYY" => (year % 1_000, 3),
        "YY" => (year % 100, 2),
        "Y" => (year % 10, 1),
        "IYYY" => (iso_year, 4),
        "IYY" => (iso_year % 1_000, 3),
        "IY" => (iso_year % 100, 2),
        "I" => (iso_year % 10, 1),
        "MM" => (i64::from(date.month()), 2),
        "DDD" => (i64::from(date.ordinal()), 3),
        "DD" => (i64::from(date.day()), 2),
        "D" => (i64::from(date.weekday().number_from_sunday()), 1),
        "IDDD" => {
            let day = i64::from(date.weekday().number_from_monday());
            ((i64::from(date.iso_week().week()) - 1) * 7 + day, 3)
        }
        "ID" => (i64::from(date.weekday().number_from_monday()), 1),
        "IW" => (i64::from(date.iso_week().week()), 2),
        "WW" => (i64::from(date.ordinal0() / 7 + 1), 2),
        "W" => (i64::from(date.day0() / 7 + 1), 1),
        "CC" => ((i64::from(date.year()) + 99).div_euclid(100), 2),
        "J" => (
            days_from(i64::from(date.year()), i64::from(date.month()), i64::from(date.day()))?
                + 2_440_588,
            0,
        ),
        "Q" => (i64::from(date.month0() / 3 + 1), 1),
        _ => return None,
    })
}

/// What is no plain number: fractions, names, zones.
fn put_name(
    out: &mut String,
    name: &str,
    civil: Civil,
    lower: bool,
    fill: bool,
    zoned: bool,
) -> Result<(), SqlError> {
    let date = civil.date;
    let month = MONTHS[date.month0() as usize];
    let day = DAYS[date.weekday().num_days_from_sunday() as usize];
    let padded = |name: String| if fill { format!("{name:<9}") } else { name };
    let cased = |text: &str| if lower { text.to_lowercase() } else { text.to_owned() };
    let afternoon = civil.hour() >= 12;
    let before_christ = date.year() <= 0;
    let text = match name {
        "MS" => format!("{:03}", civil.fraction() / 1_000),
        "US" => format!("{:06}", civil.fraction()),
        "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
            let digits = usize::from(name.as_bytes()[2] - b'0');
            format!("{:06}", civil.fraction())[..digits].to_owned()
        }
        "Y,YYY" => format!("{},{:03}", date.year() / 1_000, date.year() % 1_000),
        "AM" | "PM" => cased(if afternoon { "PM" } else { "AM" }),
        "A.M." | "P.M." => cased(if afternoon { "P.M." } else { "A.M." }),
        "AD" | "BC" => cased(if before_christ { "BC" } else { "AD" }),
        "A.D." | "B.C." => cased(if before_christ { "B.C." } else { "A.D." }),
        "MONTH" => padded(month.to_uppercase()),
        "Month" => padded(month.to_owned()),
        "month" => padded(month.to_lowercase()),
        "MON" => month[..3].to_uppercase(),
        "Mon" => month[..3].to_owned(),
        "mon" => month[..3].to_lowercase(),
        "DAY" => padded(day.to_uppercase()),
        "Day" => padded(day.to_owned()),
        "day" => padded(day.to_lowercase()),
        "DY" => day[..3].to_uppercase(),
        "Dy" => day[..3].to_owned(),
        "dy" => day[..3].to_lowercase(),
        "RM" => {
            let roman = cased(ROMAN[date.month0() as usize]);
            if fill { format!("{roman:<4}") } else { roman }
        }
        "TZ" if zoned => cased("UTC"),
        "TZ" => String::new(),
        "TZH" => "+00".to_owned(),
        "TZM" => "00".to_owned(),
        "OF" => "+00".to_owned(),
        _ => return Err(refused(name)),
    };
    out.push_str(&text);
    Ok(())
}

/// An interval in a format.
pub(crate) fn written_span_as(span: Span, template: &str) -> Result<String, SqlError> {
    let mut out = String::new();
    let (clock, second) = (span.micros, span.micros % MINUTE / SECOND);
    for piece in pieces(template)? {
        let Piece::Pattern { name, fill, ordinal, .. } = piece else {
            if let Piece::Text(text) = piece {
                out.push_str(text);
            }
            continue;
        };
        let start = out.len();
        let (value, width) = match name {
            "HH24" => (clock / HOUR, 2),
            "HH12" | "HH" => {
                let hour = clock / HOUR;
                (if hour % 12 == 0 { 12 } else { hour % 12 }, 2)
            }
            "MI" => (clock % HOUR / MINUTE, 2),
            "SS" => (second, 2),
            "SSSS" | "SSSSS" => (clock / SECOND, 0),
            "MS" => (clock % SECOND / 1_000, 3),
            "US" => (clock % SECOND, 6),
            "DD" => (i64::from(span.days), 2),
            "MM" => (i64::from(span.months % 12), 2),
            "YYYY" => (i64::from(span.months / 12), 4),
            _ => return Err(refused(name)),
        };
        // Of these the sign is one of the digits.
        let signed = value < 0 && matches!(name, "DD" | "MS" | "US");
        let width = if signed { width - 1 } else { width };
        put_number(&mut out, value, width, fill || matches!(name, "MS" | "US"));
        add_ordinal(&mut out, start, ordinal);
    }
    Ok(out)
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    half_day: Option<bool>,
    hour_of_twelve: bool,
    clock: i64,
    before_christ: bool,
    zone_sign: i64,
    zone: i64,
}

/// Microseconds since 1970 of a text in a format.
pub(crate) fn read_as(text: &str, template: &str) -> Result<i64, SqlError> {
    let mut reading = Reading::default();
    let mut rest = text;
    let mut parts = pieces(template)?.into_iter().peekable();
    while let Some(piece) = parts.next() {
        let separates = |c: char| !c.is_ascii_alphanumeric();
        match piece {
            // A separator or blank stands for any, or none.
            Piece::Text(text) if text.chars().all(separates) => {
                rest = rest.trim_start();
                if let Some(c) = rest
                    .chars()
                    .next()
                    .filter(|c| separates(*c) && !is_sign(*c, &parts.peek().copied()))
                {
                    rest = &rest[c.len_utf8()..];
                }
            }
            Piece::Text(text) => {
                rest = rest.get(text.len()..).unwrap_or_default();
            }
            Piece::Pattern { name, .. } => {
                rest = rest.trim_start();
                let digits_follow = matches!(parts.peek(), Some(Piece::Pattern { .. }));
                rest = reading.take(name, rest, digits_follow, text)?;
            }
        }
    }
    reading.micros(text)
}

/// A sign belongs to the zone that comes.
fn is_sign(c: char, next: &Option<Piece<'_>>) -> bool {
    matches!(c, '+' | '-') && matches!(next, Some(Piece::Pattern { name: "TZH" | "OF", .. }))
}

impl Reading {
    /// Reads one pattern's value; gives what follows.
    fn take<'a>(
        &mut self,
        name: &str,
        text: &'a str,
        digits_follow: bool,
        whole: &str,
    ) -> Result<&'a str, SqlError> {
        let most = match name {
            "YYYY" if !digits_follow => 9,
            "YYYY" => 4,
            "YYY" | "DDD" | "MS" => 3,
            "SSSS" | "SSSSS" => 5,
            "US" | "FF6" => 6,
            "J" => 9,
            "Y" | "Q" | "D" | "ID" | "W" => 1,
            _ => 2,
        };
        if let Some(rest) = self.take_name(name, text, whole)? {
            return Ok(rest);
        }
        if name == "TZH" {
            self.zone_sign = if text.starts_with('-') { -1 } else { 1 };
        }
        let text = if name == "TZH" { text.trim_start_matches(['-', '+']) } else { text };
        let end = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = text.split_at(end);
        let value: i64 = digits.parse().map_err(|_| {
            let message =
                format!("invalid value \"{}\" for \"{name}\"", text.get(..most).unwrap_or(text));
            SqlError::new(DATETIME_FORMAT, message).detail("Value must be an integer.")
        })?;
        let fraction = |digits_max: u32| value * 10_i64.pow(digits_max - digits.len() as u32);
        match name {
            "YYYY" => self.year = Some(value),
            "YYY" => self.year = Some(2_000 + value),
            // 70 to 99 are of the last century.
            "YY" => self.year = Some(if value < 70 { 2_000 } else { 1_900 } + value),
            "Y" => self.year = Some(2_020 + value),
            "MM" => self.month = Some(value),
            "DD" => self.day = Some(value),
            "DDD" => self.day_of_year = Some(value),
            "J" => self.julian = Some(value),
            "HH24" => self.hour = value,
            "HH12" | "HH" => (self.hour, self.hour_of_twelve) = (value, true),
            "MI" => self.clock += checked(value, 59, whole)? * MINUTE,
            "SS" => self.clock += checked(value, 59, whole)? * SECOND,
            "SSSS" | "SSSSS" => self.clock += value * SECOND,
            "MS" => self.clock += fraction(3) * 1_000,
            "US" | "FF6" => self.clock += fraction(6),
            "TZH" => self.zone += self.zone_sign * value * HOUR,
            "TZM" => self.zone += self.zone_sign * value * MINUTE,
            // What the date says already.
            "Q" | "D" | "ID" | "W" => {}
            _ => return Err(refused(name)),
        }
        Ok(rest)
    }

    /// Reads a name, if the pattern is one of names.
    fn take_name<'a>(
        &mut self,
        name: &str,
        text: &'a str,
        whole: &str,
    ) -> Result<Option<&'a str>, SqlError> {
        let wrong = || {
            let message = format!("invalid value \"{text}\" for \"{name}\"");
            SqlError::new(DATETIME_FORMAT, message).detail(format!(
                "The given value did not match any of the allowed values in \"{whole}\"."
            ))
        };
        let of = |names: &[&'static str], length: Option<usize>| {
            let found = names
                .iter()
                .position(|known| prefix(text, &known[..length.unwrap_or(known.len())]).is_some());
            let place = found.ok_or_else(wrong)?;
            let length = length.unwrap_or(names[place].len());
            Ok::<_, SqlError>((place, &text[length..]))
        };
        Ok(Some(match name {
            "MONTH" | "Month" | "month" => {
                let (place, rest) = of(&MONTHS, None)?;
                self.month = Some(place as i64 + 1);
                rest
            }
            "MON" | "Mon" | "mon" => {
                let (place, rest) = of(&MONTHS, Some(3))?;
                self.month = Some(place as i64 + 1);
                rest
            }
            "DAY" | "Day" | "day" => of(&DAYS, None)?.1,
            "DY" | "Dy" | "dy" => of(&DAYS, Some(3))?.1,
            "AM" | "PM" => {
                let (place, rest) = of(&["AM", "PM"], None)?;
                self.half_day = Some(place == 1);
                rest
            }
            "A.M." | "P.M." => {
                let (place, rest) = of(&["A.M.", "P.M."], None)?;
                self.half_day = Some(place == 1);
                rest
            }
            "AD" | "BC" => {
                let (place, rest) = of(&["AD", "BC"], None)?;
                self.before_christ = place == 1;
                rest
            }
            _ => return Ok(None),
        }))
    }

    fn micros(self, text: &str) -> Result<i64, SqlError> {
        let beyond = || beyond(text);
        let hour = match (self.half_day, self.hour_of_twelve) {
            (Some(afternoon), _) => {
                let hour = Some(self.hour).filter(|hour| (1..=12).contains(hour));
                hour.ok_or_else(beyond)? % 12 + if afternoon { 12 } else { 0 }
            }
            (None, true) if self.hour > 12 || self.hour < 1 => return Err(beyond()),
            (None, true) => self.hour % 12,
            (None, false) => self.hour,
        };
        let clock = hour * HOUR + self.clock;
        if !(0..=DAY).contains(&clock) {
            return Err(beyond());
        }
        let year = match (self.year, self.before_christ) {
            (Some(year), true) => 1 - year,
            // Nothing said is the year 1 before Christ.
            (year, _) => year.unwrap_or(0),
        };
        let days = match (self.julian, self.day_of_year) {
            (Some(julian), _) => Some(julian - 2_440_588),
            (None, Some(day)) => {
                days_from(year, 1, 1).map(|first| first + day - 1).filter(|days| {
                    day >= 1 && days_from(year, 12, 31).is_some_and(|last| *days <= last)
                })
            }
            (None, None) => days_from(year, self.month.unwrap_or(1), self.day.unwrap_or(1)),
        };
        let micros = micros_from(days.ok_or_else(beyond)?, clock).ok_or_else(beyond)?;
        micros.checked_sub(self.zone).ok_or_else(beyond)
    }
}

fn beyond(text: &str) -> SqlError {
    SqlError::new("22008", format!("date/time field value out of range: \"{text}\""))
}

fn checked(value: i64, most: i64, text: &str) -> Result<i64, SqlError> {
    if value <= most { Ok(value) } else { Err(beyond(text)) }
}
