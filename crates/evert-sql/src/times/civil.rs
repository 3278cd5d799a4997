//! The calendar: from days and microseconds to years, months and days, and their texts.

use std::fmt::Write;

use chrono::{Datelike, NaiveDate};

use super::out_of_range;
use crate::SqlError;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Day 0 of dates, as chrono counts days from the first of January of the year 1.
const EPOCH_DAY: i64 = 719_163;

/// A time taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) date: NaiveDate,
    /// Microseconds since midnight.
    pub(crate) clock: i64,
}

impl Civil {
    /// Of microseconds since 1970.
    pub(crate) fn of_micros(micros: i64) -> Result<Self, SqlError> {
        let date = date(micros.div_euclid(DAY)).ok_or_else(|| out_of_range("timestamp"))?;
        Ok(Self { date, clock: micros.rem_euclid(DAY) })
    }

    pub(crate) fn hour(self) -> i64 {
        self.clock / HOUR
    }

    pub(crate) fn minute(self) -> i64 {
        self.clock / MINUTE % 60
    }

    pub(crate) fn second(self) -> i64 {
        self.clock / SECOND % 60
    }

    /// Microseconds of the second.
    pub(crate) fn fraction(self) -> i64 {
        self.clock % SECOND
    }
}

fn date(days: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(days.checked_add(EPOCH_DAY)?).ok()?)
}

fn days_of(date: NaiveDate) -> i64 {
    i64::from(date.num_days_from_ce()) - EPOCH_DAY
}

/// Days since 1970 of a date that exists.
pub(crate) fn days_from(year: i64, month: i64, day: i64) -> Option<i64> {
    let (month, day) = (u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day).map(days_of)
}

/// The day that a time lies in.
pub(crate) fn date_of_micros(micros: i64) -> i32 {
    match micros {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        micros => i32::try_from(micros.div_euclid(DAY)).expect("64 bits hold fewer days than 2^31"),
    }
}

/// The beginning of a day.
pub(crate) fn midnight(days: i32) -> Result<i64, SqlError> {
    match days {
        i32::MAX => Ok(i64::MAX),
        i32::MIN => Ok(i64::MIN),
        days => i64::from(days)
            .checked_mul(DAY)
            .ok_or_else(|| SqlError::new("22008", "date out of range for timestamp")),
    }
}

/// Microseconds since 1970 of a day and a time of day.
pub(crate) fn micros_from(days: i64, clock: i64) -> Option<i64> {
    days.checked_mul(DAY)?.checked_add(clock)
}

pub(crate) fn days_in_month(year: i64, month: i64) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    match (days_from(year, month, 1), days_from(next.0, next.1, 1)) {
        (Some(first), Some(next)) => next - first,
        _ => 31,
    }
}

/// `2024-01-31`, with whether it lies before Christ.
fn write_days(out: &mut String, days: i64) -> Result<bool, SqlError> {
    let date = date(days).ok_or_else(|| out_of_range("date"))?;
    let before_christ = date.year() <= 0;
    let year = if before_christ { 1 - date.year() } else { date.year() };
    put(write!(out, "{year:04}-{:02}-{:02}", date.month(), date.day()));
    Ok(before_christ)
}

/// Writing to a text cannot fail.
fn put(outcome: std::fmt::Result) {
    outcome.expect("a String takes everything");
}

/// A date as Postgres writes it.
pub(crate) fn write_date(days: i32) -> Result<String, SqlError> {
    Ok(match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        days => {
            let mut out = String::new();
            if write_days(&mut out, i64::from(days))? {
                out.push_str(" BC");
            }
            out
        }
    })
}

/// A time of day: `10:11:12.5`.
pub(crate) fn write_clock(clock: i64) -> String {
    let mut out =
        format!("{:02}:{:02}:{:02}", clock / HOUR, clock / MINUTE % 60, clock / SECOND % 60);
    if clock % SECOND != 0 {
        put(write!(out, ".{:06}", clock % SECOND));
        out.truncate(out.trim_end_matches('0').len());
    }
    out
}

/// A timestamp, in UTC if it has a zone.
pub(crate) fn write_timestamp(micros: i64, zoned: bool) -> Result<String, SqlError> {
    Ok(match micros {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        micros => {
            let mut out = String::new();
            let before_christ = write_days(&mut out, micros.div_euclid(DAY))?;
            out.push(' ');
            out.push_str(&write_clock(micros.rem_euclid(DAY)));
            out.push_str(if zoned { "+00" } else { "" });
            out.push_str(if before_christ { " BC" } else { "" });
            out
        }
    })
}
