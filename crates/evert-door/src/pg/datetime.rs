//! Dates, times and intervals in Postgres's words.
//!
//! Owns: their wire forms, and reading their texts (`evert-view` writes them). Inside they are Arrow's: days and microseconds since 1970,
//! where the largest and smallest value of the type are infinity and -infinity.
//! Not here: time zones other than a fixed offset; sessions live in UTC.

use std::fmt::{self, Write};

use evert_view::{day_of_date, write_clock};
pub(super) use evert_view::{
    write_postgres_date as write_date, write_postgres_timestamp as write_timestamp,
};

/// Days from 1970-01-01 to 2000-01-01, where Postgres's dates begin.
const EPOCH_DAYS: i32 = 10_957;
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The last whole year that 64 bits of microseconds since 1970 reach; Postgres's timestamps go on
/// for 30 years more.
const YEAR_MAX: i64 = 294_246;

/// The day since 1970 of a date that Postgres has.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    (-4_713..=YEAR_MAX).contains(&year).then(|| day_of_date(year, month, day))?
}

pub(super) fn write_time(out: &mut impl Write, micros: i64) -> fmt::Result {
    write_clock(out, micros)
}

/// An interval in style `postgres`: `1 year 2 mons -3 days +04:05:06`.
pub(super) fn write_interval(
    out: &mut impl Write,
    months: i32,
    days: i32,
    micros: i64,
) -> fmt::Result {
    let units = [(months / 12, "year"), (months % 12, "mon"), (days, "day")];
    let (mut first, mut after_negative) = (true, false);
    for (value, unit) in units.into_iter().filter(|(value, _)| *value != 0) {
        let space = if first { "" } else { " " };
        let plus = if after_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        write!(out, "{space}{plus}{value} {unit}{plural}")?;
        (first, after_negative) = (false, value < 0);
    }
    if micros == 0 && !first {
        return Ok(());
    }
    out.write_str(if first { "" } else { " " })?;
    out.write_str(match micros {
        ..0 => "-",
        _ if after_negative => "+",
        _ => "",
    })?;
    let micros = micros.unsigned_abs();
    write_clock(out, i64::try_from(micros).unwrap_or(i64::MAX))
}

/// A date as it travels: days since 2000. `None` if it does not fit.
pub(super) fn date_to_wire(days: i32) -> Option<i32> {
    match days {
        i32::MAX | i32::MIN => Some(days),
        _ => days.checked_sub(EPOCH_DAYS),
    }
}

pub(super) fn date_from_wire(days: i32) -> Option<i32> {
    match days {
        i32::MAX | i32::MIN => Some(days),
        _ => days.checked_add(EPOCH_DAYS),
    }
}

/// A timestamp as it travels: microseconds since 2000. `None` if it does not fit.
pub(super) fn timestamp_to_wire(micros: i64) -> Option<i64> {
    match micros {
        i64::MAX | i64::MIN => Some(micros),
        _ => micros.checked_sub(i64::from(EPOCH_DAYS) * DAY),
    }
}

pub(super) fn timestamp_from_wire(micros: i64) -> Option<i64> {
    match micros {
        i64::MAX | i64::MIN => Some(micros),
        _ => micros.checked_add(i64::from(EPOCH_DAYS) * DAY),
    }
}

/// A date; a time of day after it is left out, as in Postgres.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    match infinite(text) {
        Some(true) => Some(i32::MAX),
        Some(false) => Some(i32::MIN),
        None => i32::try_from(parse_moment(text)?.0).ok(),
    }
}

/// A timestamp. With a zone the offset that is written counts (none means UTC); without one it is
/// left out, as in Postgres.
pub(super) fn parse_timestamp(text: &str, zoned: bool) -> Option<i64> {
    match infinite(text) {
        Some(true) => return Some(i64::MAX),
        Some(false) => return Some(i64::MIN),
        None => {}
    }
    let (days, clock, offset) = parse_moment(text)?;
    let micros = days.checked_mul(DAY)?.checked_add(clock)?;
    if zoned { micros.checked_sub(offset) } else { Some(micros) }
}

pub(super) fn parse_time(text: &str) -> Option<i64> {
    let (clock, rest) = parse_clock(text.trim())?;
    rest.is_empty().then_some(clock)
}

/// Whether a text names infinity (`true`) or -infinity (`false`).
fn infinite(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("infinity") || text.eq_ignore_ascii_case("+infinity") {
        return Some(true);
    }
    text.eq_ignore_ascii_case("-infinity").then_some(false)
}

/// Day, time of day and offset from UTC of `2024-02-29 13:05:06.7+05:30 BC`.
fn parse_moment(text: &str) -> Option<(i64, i64, i64)> {
    let text = text.trim();
    let (text, before_christ) = match text.len().checked_sub(3) {
        Some(at) if text.is_char_boundary(at) && text[at..].eq_ignore_ascii_case(" bc") => {
            (&text[..at], true)
        }
        _ => (text, false),
    };
    let (year, rest) = number(text)?;
    let (month, rest) = number(rest.strip_prefix('-')?)?;
    let (day, rest) = number(rest.strip_prefix('-')?)?;
    if before_christ && year == 0 {
        return None;
    }
    let days = days_of(if before_christ { 1 - year } else { year }, month, day)?;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest.is_empty().then_some((days, 0, 0));
    };
    let rest = rest.trim_start();
    // JDBC sends a date with its zone and no time of day.
    let (clock, rest) = match rest.starts_with(|c: char| c.is_ascii_digit()) {
        true => parse_clock(rest)?,
        false => (0, rest),
    };
    Some((days, clock, parse_offset(rest.trim_start())?))
}

fn parse_clock(text: &str) -> Option<(i64, &str)> {
    let (hours, rest) = number(text)?;
    let (minutes, mut rest) = number(rest.strip_prefix(':')?)?;
    let mut micros = 0;
    if let Some(after) = rest.strip_prefix(':') {
        let (seconds, after) = number(after)?;
        micros = seconds * SECOND;
        rest = after;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            // Postgres rounds what is finer than a microsecond; so does this.
            let mut fraction = 0;
            for place in 0..6.min(digits) {
                fraction = fraction * 10 + i64::from(after.as_bytes()[place] - b'0');
            }
            fraction *= 10_i64.pow(6 - 6.min(digits) as u32);
            let rounds_up = digits > 6 && after.as_bytes()[6] >= b'5';
            micros += fraction + i64::from(rounds_up);
            rest = &after[digits..];
        }
    }
    if hours > 24 || minutes > 59 || micros > MINUTE {
        return None;
    }
    let clock = hours * HOUR + minutes * MINUTE + micros;
    (clock <= DAY).then_some((clock, rest))
}

/// An offset from UTC: nothing, `Z`, `UTC`, `+05`, `+0530`, `-05:30` or `+05:30:15`.
fn parse_offset(text: &str) -> Option<i64> {
    if text.is_empty() || text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (mut hours, mut rest) = number(rest)?;
    let (mut minutes, mut seconds) = (0, 0);
    if hours > 99 && rest.is_empty() {
        (hours, minutes) = (hours / 100, hours % 100);
    }
    if let Some(after) = rest.strip_prefix(':') {
        (minutes, rest) = number(after)?;
        if let Some(after) = rest.strip_prefix(':') {
            (seconds, rest) = number(after)?;
        }
    }
    let legal = rest.is_empty() && hours < 16 && minutes < 60 && seconds < 60;
    legal.then_some(sign * (hours * HOUR + minutes * MINUTE + seconds * SECOND))
}

/// A run of one to six digits.
fn number(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=6).contains(&digits) {
        return None;
    }
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(micros: i64, zoned: bool) -> String {
        let mut text = String::new();
        write_timestamp(&mut text, micros, zoned).expect("a string takes everything");
        text
    }

    #[test]
    fn text_forms_round_trip() {
        for text in [
            "1970-01-01 00:00:00",
            "2024-02-29 13:05:06.7",
            "1999-12-31 23:59:59.999999",
            "0001-01-01 00:00:00",
            "4713-11-24 00:00:00 BC",
            "0001-12-31 23:59:59 BC",
            "294246-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
        ] {
            let micros = parse_timestamp(text, false).expect(text);
            assert_eq!(timestamp(micros, false), text);
            assert_eq!(timestamp_from_wire(timestamp_to_wire(micros).expect(text)), Some(micros));
        }
    }

    #[test]
    fn every_day_of_four_centuries_round_trips() {
        for days in -80_000..80_000 {
            let mut text = String::new();
            write_date(&mut text, days).expect("a string takes everything");
            assert_eq!(parse_date(&text), Some(days), "{text}");
        }
        assert_eq!(parse_date("infinity"), Some(i32::MAX));
        assert_eq!(parse_date("2024-01-02 03:04"), parse_date("2024-01-02"));
        assert_eq!(parse_date("2024-01-02 +02"), parse_date("2024-01-02"));
    }

    #[test]
    fn offsets_count_only_with_a_zone() {
        let utc = parse_timestamp("2024-01-01 00:00:00", false).expect("legal");
        for text in [
            "2024-01-01T00:00:00.000Z",
            "2024-01-01 05:30:00+05:30",
            "2024-01-01 05:30:00+0530",
            "2023-12-31 19:00:00-05",
        ] {
            assert_eq!(parse_timestamp(text, true), Some(utc), "{text}");
        }
        assert_eq!(parse_timestamp("2024-01-01 00:00:00+05", false), Some(utc));
        assert_eq!(parse_timestamp("2024-01-01 +05", false), Some(utc));
        assert_eq!(parse_timestamp("2024-01-01 +05", true), Some(utc - 5 * HOUR));
        assert_eq!(timestamp(utc, true), "2024-01-01 00:00:00+00");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "x",
            "2024",
            "2024-13-01",
            "2024-02-30",
            "2023-02-29",
            "0000-01-01",
            "2024-01-01 25:00",
            "2024-01-01 12:60",
            "2024-01-01 12:00:61",
            "2024-01-01x",
            "2024-01-01 00:00:00+99",
            "9999999-01-01",
            "2024-01-01 é",
            "é BC",
        ] {
            // Postgres has no year 0.
            let refused = parse_timestamp(text, true).is_none() || text.starts_with("0000");
            assert!(refused, "{text}");
        }
    }

    #[test]
    fn intervals_read_as_in_postgres() {
        let cases = [
            ((14, 3, 14_706_000_000), "1 year 2 mons 3 days 04:05:06"),
            ((0, 0, 0), "00:00:00"),
            ((-1, 2, -500_000), "-1 mons +2 days -00:00:00.5"),
            ((0, -1, 3_600_000_000), "-1 days +01:00:00"),
            ((0, 1, 0), "1 day"),
        ];
        for ((months, days, micros), expected) in cases {
            let mut text = String::new();
            write_interval(&mut text, months, days, micros).expect("a string takes everything");
            assert_eq!(text, expected);
        }
    }
}
