//! Fields of times: what `extract` takes out, and what `date_trunc` cuts off.

use chrono::{Datelike, NaiveDate};

use super::{Civil, DAY, HOUR, MINUTE, SECOND, Span, days_from, out_of_range};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, INVALID_PARAMETER_VALUE};

/// What can be asked of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    Epoch,
    Julian,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

/// What a field is taken of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// Microseconds since 1970, with or without a zone.
    Timestamp(i64, bool),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since midnight.
    Clock(i64),
    Interval(Span),
}

/// A field's value: `units / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) units: i128,
    pub(crate) scale: u8,
}

impl Number {
    fn whole(value: i64) -> Self {
        Self { units: i128::from(value), scale: 0 }
    }

    pub(crate) fn to_f64(self) -> f64 {
        self.units as f64 / 10_f64.powi(i32::from(self.scale))
    }
}

impl Source {
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::Timestamp(_, false) => "timestamp without time zone",
            Self::Timestamp(_, true) => "timestamp with time zone",
            Self::Date(_) => "date",
            Self::Clock(_) => "time without time zone",
            Self::Interval(_) => "interval",
        }
    }
}

impl Field {
    /// The field of a name, or of one of the names that it has besides.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "microseconds" | "microsecond" | "us" | "usec" | "usecs" => Self::Microseconds,
            "milliseconds" | "millisecond" | "ms" | "msec" | "msecs" => Self::Milliseconds,
            "second" | "seconds" | "sec" | "secs" | "s" => Self::Second,
            "minute" | "minutes" | "min" | "mins" | "m" => Self::Minute,
            "hour" | "hours" | "hr" | "hrs" | "h" => Self::Hour,
            "day" | "days" | "d" => Self::Day,
            "week" | "weeks" | "w" => Self::Week,
            "month" | "months" | "mon" | "mons" => Self::Month,
            "quarter" | "qtr" => Self::Quarter,
            "year" | "years" | "yr" | "yrs" | "y" => Self::Year,
            "decade" | "decades" | "dec" | "decs" => Self::Decade,
            "century" | "centuries" | "cent" | "c" => Self::Century,
            "millennium" | "millennia" | "mil" | "mils" => Self::Millennium,
            "dow" => Self::DayOfWeek,
            "isodow" => Self::IsoDayOfWeek,
            "doy" => Self::DayOfYear,
            "isoyear" => Self::IsoYear,
            "epoch" => Self::Epoch,
            "julian" | "jd" | "j" => Self::Julian,
            "timezone" => Self::Timezone,
            "timezone_hour" | "timezone_h" => Self::TimezoneHour,
            "timezone_minute" | "timezone_m" => Self::TimezoneMinute,
            _ => return None,
        })
    }

    /// The field of a name, for a type.
    pub(crate) fn named(name: &str, ty: &str) -> Result<Self, SqlError> {
        Self::of_name(name).ok_or_else(|| {
            let message = format!("unit \"{}\" not recognized for type {ty}", name.to_lowercase());
            SqlError::new(INVALID_PARAMETER_VALUE, message)
        })
    }

    /// Precision and scale of what `extract` gives.
    pub(crate) fn size(self, of_date: bool) -> (u8, i8) {
        match self {
            Self::Second => (8, 6),
            Self::Milliseconds => (8, 3),
            Self::Epoch if of_date => (14, 0),
            Self::Epoch => (20, 6),
            Self::Julian if !of_date => (28, 20),
            _ => (10, 0),
        }
    }

    /// Its value; `name` is for messages.
    pub(crate) fn of(self, source: Source, name: &str) -> Result<Number, SqlError> {
        let number = match source {
            Source::Timestamp(micros, zoned) => self.of_timestamp(micros, zoned)?,
            Source::Date(days) => {
                let micros =
                    i64::from(days).checked_mul(DAY).ok_or_else(|| out_of_range("date"))?;
                match self {
                    Self::Epoch => Some(Number::whole(i64::from(days) * 86_400)),
                    Self::Julian => Some(Number::whole(julian_day(i64::from(days)))),
                    Self::Microseconds
                    | Self::Milliseconds
                    | Self::Second
                    | Self::Minute
                    | Self::Hour => None,
                    _ => self.of_timestamp(micros, false)?,
                }
            }
            Source::Clock(micros) => match self {
                Self::Epoch => Some(Number { units: i128::from(micros), scale: 6 }),
                _ => self.of_clock(micros),
            },
            Source::Interval(span) => self.of_interval(span),
        };
        number.ok_or_else(|| not_supported(name, source.type_name()))
    }

    /// Of a time of day, or of the time in an interval.
    fn of_clock(self, micros: i64) -> Option<Number> {
        let minute = micros % MINUTE;
        Some(match self {
            Self::Microseconds => Number::whole(minute),
            Self::Milliseconds => Number { units: i128::from(minute), scale: 3 },
            Self::Second => Number { units: i128::from(minute), scale: 6 },
            Self::Minute => Number::whole(micros % HOUR / MINUTE),
            Self::Hour => Number::whole(micros / HOUR),
            _ => return None,
        })
    }

    fn of_timestamp(self, micros: i64, zoned: bool) -> Result<Option<Number>, SqlError> {
        let civil = Civil::of_micros(micros)?;
        let date = civil.date;
        let year = i64::from(date.year());
        Ok(Some(Number::whole(match self {
            Self::Day => i64::from(date.day()),
            Self::Week => i64::from(date.iso_week().week()),
            Self::Month => i64::from(date.month()),
            Self::Quarter => i64::from(date.month0() / 3 + 1),
            // There is no year 0 in what people write.
            Self::Year => year - i64::from(year <= 0),
            Self::Decade => year.div_euclid(10),
            Self::Century => era(year, 100),
            Self::Millennium => era(year, 1_000),
            Self::DayOfWeek => i64::from(date.weekday().num_days_from_sunday()),
            Self::IsoDayOfWeek => i64::from(date.weekday().number_from_monday()),
            Self::DayOfYear => i64::from(date.ordinal()),
            Self::IsoYear => {
                let year = i64::from(date.iso_week().year());
                year - i64::from(year <= 0)
            }
            Self::Epoch => {
                return Ok(Some(Number { units: i128::from(micros), scale: 6 }));
            }
            Self::Julian => return Ok(Some(julian(micros))),
            Self::Timezone | Self::TimezoneHour | Self::TimezoneMinute if zoned => 0,
            Self::Timezone | Self::TimezoneHour | Self::TimezoneMinute => return Ok(None),
            _ => return Ok(self.of_clock(civil.clock)),
        })))
    }

    fn of_interval(self, span: Span) -> Option<Number> {
        let (years, months) = (i64::from(span.months / 12), i64::from(span.months % 12));
        Some(Number::whole(match self {
            Self::Day => i64::from(span.days),
            Self::Month => months,
            Self::Quarter => months / 3 + 1,
            Self::Year => years,
            Self::Decade => years / 10,
            Self::Century => years / 100,
            Self::Millennium => years / 1_000,
            Self::Epoch => {
                // A year has 365.25 days here, a month 30.
                let quarters_of_days = years * 1_461 + months * 120 + i64::from(span.days) * 4;
                let units =
                    i128::from(quarters_of_days) * i128::from(DAY / 4) + i128::from(span.micros);
                return Some(Number { units, scale: 6 });
            }
            _ => return self.of_clock(span.micros),
        }))
    }
}

fn not_supported(name: &str, ty: &str) -> SqlError {
    let message = format!("unit \"{}\" not supported for type {ty}", name.to_lowercase());
    SqlError::new(FEATURE_NOT_SUPPORTED, message)
}

/// The number of the century or millennium: the first begins with the year 1.
fn era(year: i64, years: i64) -> i64 {
    match year {
        1.. => (year + years - 1) / years,
        _ => -((years - year) / years),
    }
}

fn julian_day(days: i64) -> i64 {
    days + 2_440_588
}

/// The Julian day with its fraction, to 20 digits.
fn julian(micros: i64) -> Number {
    const SCALE: i128 = 100_000_000_000_000_000_000;
    let day = i128::from(julian_day(micros.div_euclid(DAY)));
    let (clock, full) = (i128::from(micros.rem_euclid(DAY)), i128::from(DAY));
    Number { units: day * SCALE + (clock * SCALE + full / 2) / full, scale: 20 }
}

/// The beginning of the unit that a timestamp lies in.
pub(crate) fn truncate(field: Field, name: &str, micros: i64) -> Result<i64, SqlError> {
    if matches!(micros, i64::MAX | i64::MIN) {
        return Ok(micros);
    }
    let unit = match field {
        Field::Microseconds => 1,
        Field::Milliseconds => 1_000,
        Field::Second => SECOND,
        Field::Minute => MINUTE,
        Field::Hour => HOUR,
        Field::Day => DAY,
        _ => return truncate_date(field, name, micros),
    };
    Ok(micros - micros.rem_euclid(unit))
}

fn truncate_date(field: Field, name: &str, micros: i64) -> Result<i64, SqlError> {
    let date = Civil::of_micros(micros)?.date;
    let (year, month) = (i64::from(date.year()), i64::from(date.month()));
    let (year, month) = match field {
        Field::Week => return week(date, micros),
        Field::Month => (year, month),
        Field::Quarter => (year, (month - 1) / 3 * 3 + 1),
        Field::Year => (year, 1),
        Field::Decade => (year.div_euclid(10) * 10, 1),
        Field::Century => ((year - 1).div_euclid(100) * 100 + 1, 1),
        Field::Millennium => ((year - 1).div_euclid(1_000) * 1_000 + 1, 1),
        _ => return Err(not_supported(name, "timestamp without time zone")),
    };
    let days = days_from(year, month, 1).and_then(|days| days.checked_mul(DAY));
    days.ok_or_else(|| out_of_range("timestamp"))
}

/// Weeks begin on Mondays.
fn week(date: NaiveDate, micros: i64) -> Result<i64, SqlError> {
    let back = i64::from(date.weekday().num_days_from_monday()) * DAY + micros.rem_euclid(DAY);
    micros.checked_sub(back).ok_or_else(|| out_of_range("timestamp"))
}

/// An interval without what is below a unit.
pub(crate) fn truncate_span(field: Field, name: &str, span: Span) -> Result<Span, SqlError> {
    let clock = |unit: i64| Span { micros: span.micros - span.micros % unit, ..span };
    let months = |unit: i32| Span { months: span.months - span.months % unit, days: 0, micros: 0 };
    Ok(match field {
        Field::Microseconds => span,
        Field::Milliseconds => clock(1_000),
        Field::Second => clock(SECOND),
        Field::Minute => clock(MINUTE),
        Field::Hour => clock(HOUR),
        Field::Day => Span { micros: 0, ..span },
        Field::Month => months(1),
        Field::Quarter => months(3),
        Field::Year => months(12),
        Field::Decade => months(120),
        Field::Century => months(1_200),
        Field::Millennium => months(12_000),
        _ => return Err(not_supported(name, "interval")),
    })
}
