//! Time zones by name or offset, and what a clock on the wall there shows.

use arrow::array::timezone::Tz;
use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeZone};

use super::{DAY, out_of_range};
use crate::SqlError;
use crate::error::INVALID_PARAMETER_VALUE;

/// Abbreviations that Postgres knows by default, as the offset in hours.
const ABBREVIATIONS: [(&str, &str); 12] = [
    ("utc", "+00:00"),
    ("gmt", "+00:00"),
    ("ut", "+00:00"),
    ("z", "+00:00"),
    ("zulu", "+00:00"),
    ("est", "-05:00"),
    ("edt", "-04:00"),
    ("cst", "-06:00"),
    ("cdt", "-05:00"),
    ("mst", "-07:00"),
    ("pst", "-08:00"),
    ("pdt", "-07:00"),
];

/// Words of zones' names that are not written as `New_York` is.
const WORDS: [&str; 18] = [
    "ACT",
    "BajaNorte",
    "BajaSur",
    "ComodRivadavia",
    "DeNoronha",
    "DumontDUrville",
    "EasterIsland",
    "GB",
    "IN",
    "LHI",
    "McMurdo",
    "NSW",
    "UCT",
    "US",
    "UTC",
    "au",
    "es",
    "of",
];
const BETWEEN_WORDS: [char; 3] = ['/', '_', '-'];

/// The zone of a timestamp's text: a name (`Asia/Kolkata`), an abbreviation or an offset, which
/// counts to the east (`+05:30`, `-8`).
pub(crate) fn zone(name: &str) -> Result<Tz, SqlError> {
    let zone = match name.starts_with(['+', '-']) {
        true => offset(name).and_then(|offset| offset.parse().ok()),
        false => named(name),
    };
    zone.ok_or_else(|| unknown(name))
}

/// The zone that `AT TIME ZONE` names. An offset counts to the west, as POSIX has it.
pub(crate) fn zone_asked_for(name: &str) -> Result<Tz, SqlError> {
    let zone = match name.starts_with(['+', '-']) {
        true => posix(name),
        false => named(name).or_else(|| posix(name)),
    };
    zone.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> SqlError {
    let message = format!("time zone \"{name}\" not recognized");
    SqlError::new(INVALID_PARAMETER_VALUE, message)
}

/// The zone of a name or an abbreviation, in any case.
fn named(name: &str) -> Option<Tz> {
    let known = ABBREVIATIONS.iter().find(|(short, _)| name.eq_ignore_ascii_case(short));
    if let Some((_, offset)) = known {
        return offset.parse().ok();
    }
    let zone = name.parse::<Tz>().or_else(|_| name.to_ascii_uppercase().parse());
    zone.or_else(|_| spelled(name).parse()).ok()
}

/// `america/port-au-prince` as `America/Port-au-Prince`.
fn spelled(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for piece in name.split_inclusive(BETWEEN_WORDS) {
        let word = piece.trim_end_matches(BETWEEN_WORDS);
        let known = WORDS.iter().find(|known| known.eq_ignore_ascii_case(word));
        let is_gmt = word.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("gmt"));
        match known {
            Some(known) => out.push_str(known),
            None if is_gmt => out.push_str(&word.to_ascii_uppercase()),
            None => {
                let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
                out.push_str(&first.to_ascii_uppercase());
                out.push_str(&rest.to_ascii_lowercase());
            }
        }
        out.push_str(&piece[word.len()..]);
    }
    out
}

/// `+3`, `-05:30`, `UTC+3`: so far to the west.
fn posix(text: &str) -> Option<Tz> {
    let offset = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let (sign, digits) = match offset.strip_prefix('-') {
        Some(digits) => ('+', digits),
        None => ('-', offset.strip_prefix('+').unwrap_or(offset)),
    };
    let (hours, minutes) = digits.split_once(':').unwrap_or((digits, "0"));
    let number = |text: &str| {
        let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u8>().ok().filter(|_| all_digits)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    format!("{sign}{hours:02}:{minutes:02}").parse().ok()
}

/// `+5`, `+0530` and `+05:30` as the last.
pub(super) fn offset(text: &str) -> Option<String> {
    let (sign, digits) = text.split_at_checked(1)?;
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if digits.len() > 2 => digits.split_at_checked(digits.len() - 2)?,
        None => (digits, "00"),
    };
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() <= 2);
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 15 && minutes < 60).then(|| format!("{sign}{hours:02}:{minutes:02}"))
}

/// What a clock in a zone shows at a moment.
pub(crate) fn local(micros: i64, zone: Tz) -> Result<i64, SqlError> {
    if matches!(micros, i64::MAX | i64::MIN) {
        return Ok(micros);
    }
    let moment =
        DateTime::from_timestamp_micros(micros).ok_or_else(|| out_of_range("timestamp"))?;
    let offset = zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc();
    micros.checked_add(i64::from(offset) * 1_000_000).ok_or_else(|| out_of_range("timestamp"))
}

/// The moment at which a clock in a zone shows a time. Where a clock is set back, the later one,
/// by the standard time; where it skips a time, what it would show had it not.
pub(crate) fn universal(micros: i64, zone: Tz) -> Result<i64, SqlError> {
    if matches!(micros, i64::MAX | i64::MIN) {
        return Ok(micros);
    }
    let wall = |micros: i64| {
        DateTime::from_timestamp_micros(micros)
            .map(|moment| moment.naive_utc())
            .ok_or_else(|| out_of_range("timestamp"))
    };
    let seconds = |time: NaiveDateTime| match zone.offset_from_local_datetime(&time) {
        LocalResult::Single(offset) => Some(offset.fix().local_minus_utc()),
        LocalResult::Ambiguous(first, second) => {
            Some(first.fix().local_minus_utc().min(second.fix().local_minus_utc()))
        }
        LocalResult::None => None,
    };
    let offset = match seconds(wall(micros)?) {
        Some(offset) => offset,
        // The offset from before the clock was set forward.
        None => seconds(wall(micros.saturating_sub(DAY))?).unwrap_or(0),
    };
    micros.checked_sub(i64::from(offset) * 1_000_000).ok_or_else(|| out_of_range("timestamp"))
}
