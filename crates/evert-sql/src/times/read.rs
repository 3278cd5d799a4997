//! Dates, times of day and timestamps from texts, in the forms that Postgres takes under its
//! default DateStyle (ISO, MDY).

use super::{DAY, HOUR, MINUTE, SECOND, days_from, micros_from, universal, zone};
use crate::SqlError;
use crate::error::{DATETIME_FORMAT, FEATURE_NOT_SUPPORTED};

/// Why a text is no time.
enum Mistake {
    Syntax,
    /// A field that no calendar has.
    Field,
    Told(SqlError),
}

type Part<T> = Result<T, Mistake>;

fn told(mistake: Mistake, ty: &str, text: &str) -> SqlError {
    match mistake {
        Mistake::Syntax => {
            let message = format!("invalid input syntax for type {ty}: \"{text}\"");
            SqlError::new(DATETIME_FORMAT, message)
        }
        Mistake::Field => {
            let message = format!("date/time field value out of range: \"{text}\"");
            SqlError::new("22008", message)
        }
        Mistake::Told(error) => error,
    }
}

/// A time as it is written: a day, a time of day, and how far the zone is ahead of UTC.
#[derive(Default)]
struct Written<'a> {
    days: Option<i64>,
    clock: Option<i64>,
    zone: Option<&'a str>,
}

/// Microseconds since 1970. A zone counts only where the type has one.
pub(crate) fn read_timestamp(text: &str, zoned: bool) -> Result<i64, SqlError> {
    let name = if zoned { "timestamp with time zone" } else { "timestamp" };
    let read = || match special(text)? {
        Some(Special::Infinity) => Ok(i64::MAX),
        Some(Special::NegativeInfinity) => Ok(i64::MIN),
        Some(Special::Epoch) => Ok(0),
        None => {
            let written = written(text)?;
            let days = written.days.ok_or(Mistake::Syntax)?;
            let micros = micros_from(days, written.clock.unwrap_or(0)).ok_or(Mistake::Field)?;
            match written.zone {
                Some(name) => {
                    let zone = zone(name).map_err(Mistake::Told)?;
                    if zoned { universal(micros, zone).map_err(Mistake::Told) } else { Ok(micros) }
                }
                None => Ok(micros),
            }
        }
    };
    read().map_err(|mistake| told(mistake, name, text))
}

/// Days since 1970. A time of day may follow, and counts for nothing.
pub(crate) fn read_date(text: &str) -> Result<i32, SqlError> {
    let read = || match special(text)? {
        Some(Special::Infinity) => Ok(i32::MAX),
        Some(Special::NegativeInfinity) => Ok(i32::MIN),
        Some(Special::Epoch) => Ok(0),
        None => {
            let written = written(text)?;
            let days = written.days.ok_or(Mistake::Syntax)?;
            i32::try_from(days).map_err(|_| Mistake::Field)
        }
    };
    read().map_err(|mistake| told(mistake, "date", text))
}

/// Microseconds since midnight.
pub(crate) fn read_clock(text: &str) -> Result<i64, SqlError> {
    let read = || written(text)?.clock.ok_or(Mistake::Syntax);
    read().map_err(|mistake| told(mistake, "time", text))
}

enum Special {
    Infinity,
    NegativeInfinity,
    Epoch,
}

fn special(text: &str) -> Part<Option<Special>> {
    let word = text.trim().to_ascii_lowercase();
    Ok(match word.as_str() {
        "infinity" | "+infinity" => Some(Special::Infinity),
        "-infinity" => Some(Special::NegativeInfinity),
        "epoch" => Some(Special::Epoch),
        "now" | "today" | "tomorrow" | "yesterday" | "allballs" => {
            let message = format!("the time \"{word}\" is not supported");
            return Err(Mistake::Told(
                SqlError::new(FEATURE_NOT_SUPPORTED, message)
                    .hint("Use now(), current_date, or current_date - 1."),
            ));
        }
        _ => None,
    })
}

/// Takes a text apart, from left to right.
fn written(text: &str) -> Part<Written<'_>> {
    let mut found = Written::default();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(Mistake::Syntax);
    }
    let clock_first =
        rest.find(':').is_some_and(|colon| rest[..colon].bytes().all(|byte| byte.is_ascii_digit()));
    if !clock_first {
        let (days, after) = date(rest)?;
        found.days = Some(days);
        rest = after;
    }
    if let Some(time) = rest.strip_prefix(['T', 't']) {
        rest = time;
    }
    rest = rest.trim_start();
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        let (clock, after) = clock(rest)?;
        found.clock = Some(clock);
        rest = after.trim_start();
    }
    if let Some(days) = found.days
        && let Some(before) = rest.strip_suffix("BC")
    {
        found.days = Some(before_christ(days)?);
        rest = before.trim_end();
    }
    if !rest.is_empty() {
        let fits = |c: char| c.is_ascii_alphanumeric() || "+-:/_".contains(c);
        if !rest.chars().all(fits) {
            return Err(Mistake::Syntax);
        }
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Mistake::Syntax);
        }
        found.zone = Some(rest);
    }
    Ok(found)
}

/// The same day so many years before Christ.
fn before_christ(days: i64) -> Part<i64> {
    use chrono::Datelike;
    let micros = days.checked_mul(DAY).ok_or(Mistake::Field)?;
    let date = super::Civil::of_micros(micros).map_err(Mistake::Told)?.date;
    let year = 1 - i64::from(date.year());
    days_from(year, i64::from(date.month()), i64::from(date.day())).ok_or(Mistake::Field)
}

/// One part of a date: digits or letters.
fn part(text: &str) -> (&str, &str) {
    let of = |takes: fn(&char) -> bool| {
        text.find(|c: char| !takes(&c)).map_or((text, ""), |end| text.split_at(end))
    };
    match text.chars().next() {
        Some(c) if c.is_ascii_digit() => of(char::is_ascii_digit),
        _ => of(char::is_ascii_alphabetic),
    }
}

/// The day at the beginning of a text, and what follows.
fn date(text: &str) -> Part<(i64, &str)> {
    let (first, after) = part(text);
    if first.len() == 8 && first.bytes().all(|byte| byte.is_ascii_digit()) {
        return day(&first[..4], &first[4..6], &first[6..]).map(|days| (days, after));
    }
    let between = |text: &str| -> usize {
        text.len() - text.trim_start_matches(['-', '/', '.', ',', ' ']).len()
    };
    let (second, after_second) = part(&after[between(after)..]);
    if first.is_empty() || second.is_empty() || between(after) == 0 {
        return Err(Mistake::Syntax);
    }
    let (third, rest) = part(&after_second[between(after_second)..]);
    if third.is_empty() || between(after_second) == 0 {
        return Err(Mistake::Syntax);
    }
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let days = match (is_number(first), is_number(second), is_number(third)) {
        (true, true, true) if first.len() > 2 => day(first, second, third),
        // Month, day, year.
        (true, true, true) if third.len() > 2 => day(third, first, second),
        (true, false, true) if first.len() > 2 => day(first, month(second)?, third),
        (true, false, true) if third.len() > 2 => day(third, month(second)?, first),
        (false, true, true) if third.len() > 2 => day(third, month(first)?, second),
        _ => Err(Mistake::Syntax),
    };
    days.map(|days| (days, rest))
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const NUMBERS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

/// The number of a month by its name or the first letters of it.
fn month(name: &str) -> Part<&'static str> {
    let name = name.to_ascii_lowercase();
    let known = |short: &&str| {
        let full = super::format::month_name(short);
        name == **short || full.is_some_and(|full| full.eq_ignore_ascii_case(&name))
    };
    let place = MONTHS.iter().position(known).or_else(|| (name == "sept").then_some(8));
    place.map(|place| NUMBERS[place]).ok_or(Mistake::Syntax)
}

fn day(year: &str, month: &str, day: &str) -> Part<i64> {
    let number = |text: &str| {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.len() > 6 {
            return Err(Mistake::Syntax);
        }
        text.parse::<i64>().map_err(|_| Mistake::Syntax)
    };
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    if year == 0 {
        return Err(Mistake::Field);
    }
    days_from(year, month, day).ok_or(Mistake::Field)
}

/// The time of day at the beginning of a text, and what follows.
fn clock(text: &str) -> Part<(i64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.'));
    let (digits, mut rest) = end.map_or((text, ""), |end| text.split_at(end));
    let mut parts = digits.split(':');
    let number = |text: Option<&str>| match text {
        None => Ok(0),
        Some(text) if text.is_empty() || text.len() > 2 => Err(Mistake::Syntax),
        Some(text) => text.parse::<i64>().map_err(|_| Mistake::Syntax),
    };
    let mut hours = number(parts.next())?;
    let minutes = number(Some(parts.next().ok_or(Mistake::Syntax)?))?;
    let seconds = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return Err(Mistake::Syntax);
    }
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let seconds = number(Some(whole))?;
    let fraction = micros_of(fraction)?;
    let after = rest.trim_start();
    for (word, is_afternoon) in [("am", false), ("pm", true)] {
        let found = after.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if found && !after[2..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            if !(1..=12).contains(&hours) {
                return Err(Mistake::Field);
            }
            hours = hours % 12 + if is_afternoon { 12 } else { 0 };
            rest = &after[2..];
            break;
        }
    }
    let micros = hours * HOUR + minutes * MINUTE + seconds * SECOND + fraction;
    if minutes > 59 || seconds > 60 || micros > DAY {
        return Err(Mistake::Field);
    }
    Ok((micros, rest))
}

/// The fraction of a second, rounded to microseconds.
fn micros_of(digits: &str) -> Part<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::Syntax);
    }
    let digit = |place: usize| digits.as_bytes().get(place).map_or(0, |d| i64::from(d - b'0'));
    let micros = (0..6).fold(0, |micros, place| micros * 10 + digit(place));
    Ok(micros + i64::from(digit(6) >= 5))
}
