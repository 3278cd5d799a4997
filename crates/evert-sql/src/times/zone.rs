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

/// The zone of a name (`Asia/Kolkata`), an abbreviation or an offset as in a timestamp's text
/// (`+05:30`, `-8`).
pub(crate) fn zone(name: &str) -> Result<Tz, SqlError> {
    let unknown = || {
        let message = format!("time zone \"{name}\" not recognized");
        SqlError::new(INVALID_PARAMETER_VALUE, message)
    };
    let known = ABBREVIATIONS.iter().find(|(short, _)| name.eq_ignore_ascii_case(short));
    if let Some((_, offset)) = known {
        return offset.parse().map_err(|_| unknown());
    }
    if name.starts_with(['+', '-']) {
        return offset(name).and_then(|offset| offset.parse().ok()).ok_or_else(unknown);
    }
    name.parse().map_err(|_| unknown())
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
