//! Intervals from texts: `1 day 04:05:06`, `3 days 2:47`, `1-2`, `P1Y2M3DT4H`, `1.5 hours ago`.

use super::{DAY, HOUR, MINUTE, SECOND, Span};
use crate::SqlError;
use crate::error::DATETIME_FORMAT;

/// What a unit's name says: so many months, days or microseconds.
#[derive(Clone, Copy)]
enum Unit {
    Months(i64),
    Days(i64),
    Micros(i64),
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" | "microsec" => Unit::Micros(1),
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" | "millisec" => {
            Unit::Micros(1_000)
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Micros(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Micros(MINUTE),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Micros(HOUR),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1_200),
        "mil" | "mils" | "millennium" | "millennia" => Unit::Months(12_000),
        _ => return None,
    })
}

/// Why a text is no interval.
enum Mistake {
    Syntax,
    Range,
}

type Part<T> = Result<T, Mistake>;

/// The interval that a text is. `seconds_are` is the unit of a number without one, `None` for
/// seconds.
pub(crate) fn read_span(text: &str, number_is: Option<&str>) -> Result<Span, SqlError> {
    let trimmed = text.trim();
    let read = match trimmed.strip_prefix('P') {
        Some(designators) => iso(designators),
        None => words(&signs_joined(trimmed), number_is),
    };
    read.map_err(|mistake| match mistake {
        Mistake::Syntax => {
            let message = format!("invalid input syntax for type interval: \"{text}\"");
            SqlError::new(DATETIME_FORMAT, message)
        }
        Mistake::Range => {
            let message = format!("interval field value out of range: \"{text}\"");
            SqlError::new("22015", message)
        }
    })
}

/// A number with its digits after the point.
#[derive(Clone, Copy)]
struct Number {
    negative: bool,
    whole: i64,
    fraction: f64,
}

impl Number {
    fn read(text: &str) -> Part<Self> {
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || digits.len() < 2 && whole.is_empty() {
            return Err(Mistake::Syntax);
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| Mistake::Range)? };
        let fraction = format!("0.{fraction}0").parse().map_err(|_| Mistake::Syntax)?;
        Ok(Self { negative, whole, fraction })
    }

    fn signed(self) -> (i64, f64) {
        match self.negative {
            true => (-self.whole, -self.fraction),
            false => (self.whole, self.fraction),
        }
    }
}

/// A sum of parts.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i64,
}

impl Sum {
    fn add(&mut self, number: Number, unit: Unit) -> Part<()> {
        let (whole, fraction) = number.signed();
        let times = |unit: i64| whole.checked_mul(unit).ok_or(Mistake::Range);
        match unit {
            // What is left of a year is months, what is left of a month is days.
            Unit::Months(1) => {
                self.months = plus(self.months, whole)?;
                self.add_days(fraction * 30.0)
            }
            Unit::Months(months) => {
                let more = (fraction * months as f64).round_ties_even() as i64;
                self.months = plus(plus(self.months, times(months)?)?, more)?;
                Ok(())
            }
            Unit::Days(days) => {
                self.days = plus(self.days, times(days)?)?;
                self.add_days(fraction * days as f64)
            }
            Unit::Micros(micros) => {
                let more = (fraction * micros as f64).round_ties_even() as i64;
                self.micros = plus(plus(self.micros, times(micros)?)?, more)?;
                Ok(())
            }
        }
    }

    /// Whole days, and the rest as time.
    fn add_days(&mut self, days: f64) -> Part<()> {
        let whole = days.trunc();
        self.days = plus(self.days, whole as i64)?;
        let rest = ((days - whole) * DAY as f64).round_ties_even() as i64;
        self.micros = plus(self.micros, rest)?;
        Ok(())
    }

    fn span(self) -> Part<Span> {
        let fits = |part: i64| i32::try_from(part).map_err(|_| Mistake::Range);
        Ok(Span { months: fits(self.months)?, days: fits(self.days)?, micros: self.micros })
    }
}

fn plus(a: i64, b: i64) -> Part<i64> {
    a.checked_add(b).ok_or(Mistake::Range)
}

/// `1 month - 1 day` as `1 month -1 day`.
fn signs_joined(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut after_sign = false;
    for c in text.chars() {
        if after_sign && c.is_whitespace() {
            continue;
        }
        let begins = joined.is_empty() || joined.ends_with(char::is_whitespace);
        after_sign = begins && matches!(c, '-' | '+');
        joined.push(c);
    }
    joined
}

/// Postgres's own form: numbers with units, times of day, years and months with a hyphen.
fn words(text: &str, number_is: Option<&str>) -> Part<Span> {
    let mut sum = Sum::default();
    let mut rest = text.strip_prefix('@').unwrap_or(text).trim_start();
    if rest.is_empty() {
        return Err(Mistake::Syntax);
    }
    let mut ago = false;
    while !rest.is_empty() {
        if rest.eq_ignore_ascii_case("ago") {
            ago = true;
            break;
        }
        let (number, after) = leading(rest, |c| c.is_ascii_digit() || matches!(c, '.' | ':'))?;
        let (year, month) = (number, after.strip_prefix('-'));
        if let Some(month) = month {
            let (month, after) = leading(month, |c| c.is_ascii_digit())?;
            add_years(&mut sum, year, month)?;
            rest = after.trim_start();
            continue;
        }
        if number.contains(':') {
            sum.micros = plus(sum.micros, clock(number)?)?;
            rest = after.trim_start();
            continue;
        }
        let number = Number::read(number)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (name, later) = after.split_at(end);
        if name.is_empty() || name.eq_ignore_ascii_case("ago") {
            // A number before a time of day is days.
            let before_time = after.contains(':');
            let name = if before_time { "day" } else { number_is.unwrap_or("second") };
            sum.add(number, unit(name).ok_or(Mistake::Syntax)?)?;
            rest = after;
            continue;
        }
        sum.add(number, unit(name).ok_or(Mistake::Syntax)?)?;
        rest = later.trim_start();
    }
    let span = sum.span()?;
    if ago { span.negated().ok_or(Mistake::Range) } else { Ok(span) }
}

/// A sign and what follows it as long as `takes` it.
fn leading(text: &str, takes: impl Fn(char) -> bool) -> Part<(&str, &str)> {
    let signed = usize::from(text.starts_with(['-', '+']));
    let end = text[signed..].find(|c: char| !takes(c)).map_or(text.len(), |end| signed + end);
    if end == signed {
        return Err(Mistake::Syntax);
    }
    Ok(text.split_at(end))
}

/// `1-2`: a year and two months.
fn add_years(sum: &mut Sum, years: &str, months: &str) -> Part<()> {
    let years = Number::read(years)?;
    let months = Number { negative: years.negative, ..Number::read(months)? };
    if years.fraction != 0.0 || months.whole > 11 {
        return Err(Mistake::Syntax);
    }
    sum.add(years, Unit::Months(12))?;
    sum.add(months, Unit::Months(1))
}

/// `2:47`, `04:05:06.789`, with a sign for all of it.
fn clock(text: &str) -> Part<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let parts: Vec<&str> = digits.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        // Minutes and seconds, if there is a fraction.
        [minutes, seconds] if seconds.contains('.') => ("0", *minutes, *seconds),
        [hours, minutes] => (*hours, *minutes, "0"),
        [hours, minutes, seconds] => (*hours, *minutes, *seconds),
        _ => return Err(Mistake::Syntax),
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| Mistake::Syntax);
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = Number::read(seconds)?;
    if minutes > 59 || seconds.whole > 60 {
        return Err(Mistake::Range);
    }
    let mut sum = Sum::default();
    let count = |whole| Number { negative, whole, fraction: 0.0 };
    sum.add(count(hours), Unit::Micros(HOUR))?;
    sum.add(count(minutes), Unit::Micros(MINUTE))?;
    sum.add(Number { negative, ..seconds }, Unit::Micros(SECOND))?;
    Ok(sum.micros)
}

/// ISO 8601 with designators, after its `P`: `1Y2M3DT4H5M6S`.
fn iso(text: &str) -> Part<Span> {
    let mut sum = Sum::default();
    let (mut rest, mut in_time) = (text, false);
    if rest.is_empty() {
        return Err(Mistake::Syntax);
    }
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T') {
            (rest, in_time) = (time, true);
            continue;
        }
        let (number, after) = leading(rest, |c| c.is_ascii_digit() || c == '.')?;
        let unit = match (after.as_bytes().first(), in_time) {
            (Some(b'Y'), false) => Unit::Months(12),
            (Some(b'M'), false) => Unit::Months(1),
            (Some(b'W'), false) => Unit::Days(7),
            (Some(b'D'), false) => Unit::Days(1),
            (Some(b'H'), true) => Unit::Micros(HOUR),
            (Some(b'M'), true) => Unit::Micros(MINUTE),
            (Some(b'S'), true) => Unit::Micros(SECOND),
            _ => return Err(Mistake::Syntax),
        };
        sum.add(Number::read(number)?, unit)?;
        rest = &after[1..];
    }
    sum.span()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_may_stand_apart_from_its_number() {
        for (text, expected) in [
            ("1 month - 1 day", Some("1 mon -1 days")),
            ("- 2 hours + 30 minutes", Some("-01:30:00")),
            ("1 day -  04:05", Some("1 day -04:05:00")),
            ("1 month -1 day", Some("1 mon -1 days")),
            ("1-2", Some("1 year 2 mons")),
            ("1- 2", None),
            ("1 month -", None),
            ("- day", None),
        ] {
            let written = read_span(text, None).ok().map(Span::written);
            assert_eq!(written.as_deref(), expected, "{text}");
        }
    }
}
