//! Intervals: months, days and microseconds that are kept apart, and compared as one length.

use std::fmt::Write;

use arrow::datatypes::IntervalMonthDayNano;
use chrono::Datelike;

use super::{Civil, DAY, days_in_month, out_of_range};
use crate::SqlError;

const MONTH_DAYS: i64 = 30;

/// An interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) micros: i64,
}

impl Span {
    pub(crate) fn of_arrow(span: IntervalMonthDayNano) -> Self {
        let micros = span.nanoseconds / 1_000;
        Self { months: span.months, days: span.days, micros }
    }

    /// Nanoseconds hold 292 years, where Postgres's microseconds hold more.
    pub(crate) fn to_arrow(self) -> Result<IntervalMonthDayNano, SqlError> {
        let nanos = self.micros.checked_mul(1_000).ok_or_else(|| out_of_range("interval"))?;
        Ok(IntervalMonthDayNano::new(self.months, self.days, nanos))
    }

    /// Of a difference of two times: whole days are days.
    pub(crate) fn of_difference(micros: i64) -> Self {
        // 64 bits of microseconds are fewer days than 32 bits.
        let days = i32::try_from(micros / DAY).unwrap_or(i32::MAX);
        Self { months: 0, days, micros: micros % DAY }
    }

    /// Its length in microseconds: a month has 30 days, a day 24 hours.
    pub(crate) fn length(self) -> i128 {
        let days = i64::from(self.months) * MONTH_DAYS + i64::from(self.days);
        i128::from(days) * i128::from(DAY) + i128::from(self.micros)
    }

    pub(crate) fn negated(self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            micros: self.micros.checked_neg()?,
        })
    }

    /// Times a number; what is left of months becomes days, what is left of days becomes time.
    pub(crate) fn times(self, factor: f64) -> Option<Self> {
        self.scaled(|part| part * factor)
    }

    /// Over a number other than zero, with the same rules.
    pub(crate) fn over(self, divisor: f64) -> Option<Self> {
        self.scaled(|part| part / divisor)
    }

    fn scaled(self, scale: impl Fn(f64) -> f64) -> Option<Self> {
        let rounded = |part: f64| (part * 1e6).round_ties_even() / 1e6;
        let (months, days) = (scale(f64::from(self.months)), scale(f64::from(self.days)));
        let (whole_months, whole_days) = (whole(months)?, whole(days)?);
        let more_days = rounded((months - f64::from(whole_months)) * MONTH_DAYS as f64);
        let mut seconds =
            rounded((days - f64::from(whole_days) + more_days - more_days.trunc()) * 86_400.0);
        let mut days = whole_days;
        if seconds.abs() >= 86_400.0 {
            let more = (seconds / 86_400.0).trunc();
            days = days.checked_add(whole(more)?)?;
            seconds -= more * 86_400.0;
        }
        days = days.checked_add(whole(more_days)?)?;
        let micros = (scale(self.micros as f64) + seconds * 1e6).round_ties_even();
        let fits = micros.is_finite() && micros.abs() < i64::MAX as f64;
        fits.then_some(Self { months: whole_months, days, micros: micros as i64 })
    }

    /// Hours beyond a day as days.
    pub(crate) fn justify_hours(self) -> Option<Self> {
        let whole = i32::try_from(self.micros / DAY).ok()?;
        let (mut days, mut micros) = (self.days.checked_add(whole)?, self.micros % DAY);
        if days > 0 && micros < 0 {
            (days, micros) = (days - 1, micros + DAY);
        } else if days < 0 && micros > 0 {
            (days, micros) = (days + 1, micros - DAY);
        }
        Some(Self { days, micros, ..self })
    }

    /// Days beyond 30 as months.
    pub(crate) fn justify_days(self) -> Option<Self> {
        let (mut months, mut days) = (self.months.checked_add(self.days / 30)?, self.days % 30);
        if months > 0 && days < 0 {
            (months, days) = (months - 1, days + 30);
        } else if months < 0 && days > 0 {
            (months, days) = (months + 1, days - 30);
        }
        Some(Self { months, days, ..self })
    }

    /// Both, with one sign for all.
    pub(crate) fn justify(self) -> Option<Self> {
        let whole = i32::try_from(self.micros / DAY).ok()?;
        let mut micros = self.micros % DAY;
        let all_days = self.days.checked_add(whole)?;
        let mut months = self.months.checked_add(all_days / 30)?;
        let mut days = all_days % 30;
        if months > 0 && (days < 0 || (days == 0 && micros < 0)) {
            (months, days) = (months - 1, days + 30);
        } else if months < 0 && (days > 0 || (days == 0 && micros > 0)) {
            (months, days) = (months + 1, days - 30);
        }
        if days > 0 && micros < 0 {
            (days, micros) = (days - 1, micros + DAY);
        } else if days < 0 && micros > 0 {
            (days, micros) = (days + 1, micros - DAY);
        }
        Some(Self { months, days, micros })
    }

    /// `1 year 2 mons -3 days +04:05:06.5`, as Postgres writes it.
    pub(crate) fn written(self) -> String {
        let mut out = String::new();
        let mut negative = false;
        let parts = [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")];
        for (value, unit) in parts.into_iter().filter(|(value, _)| *value != 0) {
            let blank = if out.is_empty() { "" } else { " " };
            let plus = if negative && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            write!(out, "{blank}{plus}{value} {unit}{plural}").expect("a String takes everything");
            negative = value < 0;
        }
        if self.micros != 0 || out.is_empty() {
            let blank = if out.is_empty() { "" } else { " " };
            let sign = match (self.micros < 0, negative) {
                (true, _) => "-",
                (false, true) => "+",
                (false, false) => "",
            };
            out.push_str(blank);
            out.push_str(sign);
            let micros = i64::try_from(self.micros.unsigned_abs()).unwrap_or(i64::MAX);
            out.push_str(&super::write_clock(micros));
        }
        out
    }
}

/// A number without its fraction, if it fits.
fn whole(number: f64) -> Option<i32> {
    let whole = number.trunc();
    (whole.abs() <= f64::from(i32::MAX)).then_some(whole as i32)
}

/// How much later one time is than another, in years, months and days of the calendar.
pub(crate) fn age(later: i64, earlier: i64) -> Result<Span, SqlError> {
    let turned = later < earlier;
    let (a, b) = (Civil::of_micros(later)?, Civil::of_micros(earlier)?);
    let sign = if turned { -1 } else { 1 };
    let mut clock = sign * (a.clock - b.clock);
    let mut days = sign * (i64::from(a.date.day()) - i64::from(b.date.day()));
    let month = |date: chrono::NaiveDate| i64::from(date.year()) * 12 + i64::from(date.month0());
    let mut months = sign * (month(a.date) - month(b.date));
    if clock < 0 {
        clock += DAY;
        days -= 1;
    }
    while days < 0 {
        let of = if turned { a.date } else { b.date };
        days += days_in_month(i64::from(of.year()), i64::from(of.month()));
        months -= 1;
    }
    let fits = |part: i64| i32::try_from(part).map_err(|_| out_of_range("interval"));
    Ok(Span { months: fits(sign * months)?, days: fits(sign * days)?, micros: sign * clock })
}
