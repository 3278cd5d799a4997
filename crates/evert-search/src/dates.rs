//! Dates as Elasticsearch reads and shows them: ISO 8601 in parts, epoch numbers, date math.
//!
//! (Elasticsearch reference, "Common options", date math; "format")

use std::fmt::Write;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use serde_json::Value;

use crate::error::EsError;

pub(crate) const MICROS_PER_MS: i64 = 1000;
/// The tokenized steps of date math that one expression may have.
const STEPS_MAX: usize = 32;

/// A zone by its distance from UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) seconds: i64,
}

impl Zone {
    /// `Z`, `UTC`, `+05:30`.
    pub(crate) fn parse(text: &str) -> Result<Self, EsError> {
        let refuse = || {
            EsError::argument(format!(
                "time zone [{text}] is not known: write an offset from UTC, as in +05:30"
            ))
        };
        if matches!(text, "Z" | "z" | "UTC" | "GMT" | "Etc/UTC") {
            return Ok(Self::default());
        }
        let (sign, rest) = match text.split_at_checked(1) {
            Some(("+", rest)) => (1, rest),
            Some(("-", rest)) => (-1, rest),
            _ => return Err(refuse()),
        };
        let (hours, minutes) = match rest.split_once(':') {
            Some(parts) => parts,
            None if rest.len() == 4 => rest.split_at_checked(2).ok_or_else(refuse)?,
            None => (rest, "0"),
        };
        let number = |text: &str| text.parse::<u8>().ok().map(i64::from);
        match (number(hours), number(minutes)) {
            (Some(hours), Some(minutes)) if hours <= 18 && minutes < 60 => {
                Ok(Self { seconds: sign * (hours * 3600 + minutes * 60) })
            }
            _ => Err(refuse()),
        }
    }

    fn show(self, out: &mut String) {
        if self.seconds == 0 {
            out.push('Z');
            return;
        }
        let sign = if self.seconds < 0 { '-' } else { '+' };
        let minutes = self.seconds.abs() / 60;
        let _ = write!(out, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    }
}

/// Units of date math and of calendars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

impl Unit {
    fn letter(c: u8) -> Option<Self> {
        Some(match c {
            b'y' => Self::Year,
            b'M' => Self::Month,
            b'w' => Self::Week,
            b'd' => Self::Day,
            b'h' | b'H' => Self::Hour,
            b'm' => Self::Minute,
            b's' => Self::Second,
            _ => return None,
        })
    }

    /// `month`, `1M`, ...
    pub(crate) fn of_calendar(text: &str) -> Option<Self> {
        Some(match text {
            "year" | "1y" => Self::Year,
            "quarter" | "1q" => Self::Quarter,
            "month" | "1M" => Self::Month,
            "week" | "1w" => Self::Week,
            "day" | "1d" => Self::Day,
            "hour" | "1h" => Self::Hour,
            "minute" | "1m" => Self::Minute,
            "second" | "1s" => Self::Second,
            _ => return None,
        })
    }

    /// `at` and `amount` of these.
    pub(crate) fn add(self, at: NaiveDateTime, amount: i64) -> Option<NaiveDateTime> {
        let months = |each: i64| {
            let months = amount.checked_mul(each)?;
            let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
            if months < 0 { at.checked_sub_months(count) } else { at.checked_add_months(count) }
        };
        let seconds =
            |each: i64| at.checked_add_signed(TimeDelta::try_seconds(amount.checked_mul(each)?)?);
        match self {
            Self::Year => months(12),
            Self::Quarter => months(3),
            Self::Month => months(1),
            Self::Week => seconds(7 * 86_400),
            Self::Day => seconds(86_400),
            Self::Hour => seconds(3600),
            Self::Minute => seconds(60),
            Self::Second => seconds(1),
        }
    }

    /// The beginning of the unit that `at` is in. Weeks begin on Monday.
    pub(crate) fn floor(self, at: NaiveDateTime) -> NaiveDateTime {
        let (date, time) = (at.date(), at.time());
        let first = |month: u32| NaiveDate::from_ymd_opt(date.year(), month, 1);
        let day = match self {
            Self::Year => first(1),
            Self::Quarter => first(date.month0() / 3 * 3 + 1),
            Self::Month => first(date.month()),
            Self::Week => {
                let days = u64::from(date.weekday().num_days_from_monday());
                date.checked_sub_days(Days::new(days))
            }
            _ => Some(date),
        };
        let day = day.unwrap_or(date);
        let seconds = chrono::Timelike::num_seconds_from_midnight(&time);
        let seconds = match self {
            Self::Hour => seconds / 3600 * 3600,
            Self::Minute => seconds / 60 * 60,
            Self::Second => seconds,
            _ => 0,
        };
        let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds, 0);
        day.and_time(time.unwrap_or_default())
    }
}

/// A date as a query gives it: the span that its text stands for, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first microsecond.
    pub(crate) first: i64,
    /// The last microsecond.
    pub(crate) last: i64,
}

/// How dates of a query are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DateReader {
    pub(crate) zone: Zone,
    /// Numbers are seconds instead of milliseconds.
    pub(crate) seconds: bool,
    /// What `now` is, in microseconds since 1970.
    pub(crate) now: i64,
}

impl DateReader {
    /// A number since 1970, or a text.
    pub(crate) fn read(&self, value: &Value) -> Result<Span, EsError> {
        let at = |number: i64| {
            let unit = if self.seconds { 1_000_000 } else { MICROS_PER_MS };
            let first = number.saturating_mul(unit);
            Ok(Span { first, last: first.saturating_add(unit - 1) })
        };
        match value {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => at(number),
                (None, Some(number)) => at(number as i64),
                _ => Err(unreadable(&number.to_string())),
            },
            Value::String(text) => match text.parse::<i64>() {
                // Four digits are a year.
                Ok(number) if text.len() != 4 => at(number),
                _ => self.text(text),
            },
            other => Err(unreadable(&other.to_string())),
        }
    }

    fn text(&self, text: &str) -> Result<Span, EsError> {
        let bad = || unreadable(text);
        let (anchor, math) = match (text.strip_prefix("now"), text.split_once("||")) {
            (Some(math), _) => (None, math),
            (None, Some((anchor, math))) => (Some(anchor), math),
            (None, None) => (Some(text), ""),
        };
        let (mut at, mut span) = match anchor {
            None => {
                let now = DateTime::from_timestamp_micros(self.now).ok_or_else(bad)?.naive_utc();
                let shift = TimeDelta::try_seconds(self.zone.seconds).ok_or_else(bad)?;
                (now.checked_add_signed(shift).ok_or_else(bad)?, None)
            }
            Some(anchor) => {
                let (at, unit) = self.anchor(anchor).ok_or_else(bad)?;
                (at, unit)
            }
        };
        if !math.is_empty() {
            span = None;
        }
        let mut rest = math.as_bytes();
        for _ in 0..STEPS_MAX {
            let Some((&sign, tail)) = rest.split_first() else { break };
            let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let unit = tail.get(digits).copied().and_then(Unit::letter).ok_or_else(bad)?;
            match sign {
                b'+' | b'-' => {
                    let amount = match digits {
                        0 => 1,
                        _ => {
                            let digits = std::str::from_utf8(&tail[..digits]).map_err(|_| bad())?;
                            digits.parse::<i64>().map_err(|_| bad())?
                        }
                    };
                    let amount = if sign == b'-' { -amount } else { amount };
                    at = unit.add(at, amount).ok_or_else(bad)?;
                    span = None;
                }
                b'/' if digits == 0 => {
                    at = unit.floor(at);
                    span = Some(unit);
                }
                _ => return Err(bad()),
            }
            rest = &tail[digits + 1..];
        }
        if !rest.is_empty() {
            return Err(bad());
        }
        let first = self.micros(at).ok_or_else(bad)?;
        let last = match span {
            None => first.saturating_add(MICROS_PER_MS - 1 - first.rem_euclid(MICROS_PER_MS)),
            Some(unit) => {
                let next = unit.add(at, 1).and_then(|next| self.micros(next)).ok_or_else(bad)?;
                next - 1
            }
        };
        let first = if anchor.is_none() && span.is_none() { first } else { first.min(last) };
        Ok(Span { first, last })
    }

    fn micros(&self, local: NaiveDateTime) -> Option<i64> {
        local.and_utc().timestamp_micros().checked_sub(self.zone.seconds.checked_mul(1_000_000)?)
    }

    /// A text's time in the reader's zone, and the unit it leaves open.
    fn anchor(&self, text: &str) -> Option<(NaiveDateTime, Option<Unit>)> {
        let (date, time) = match text.split_once(['T', ' ']) {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let mut parts = date.splitn(3, '-');
        let year = parts.next()?;
        let year: i32 = (year.len() >= 4).then(|| year.parse().ok())??;
        let (month, day) = (parts.next(), parts.next());
        let number = |text: Option<&str>| text.map_or(Some(1), |text| text.parse::<u32>().ok());
        let day_of = NaiveDate::from_ymd_opt(year, number(month)?, number(day)?)?;
        let midnight = day_of.and_time(NaiveTime::default());
        let Some(time) = time.filter(|time| !time.is_empty()) else {
            let unit = match (month, day) {
                (None, _) => Unit::Year,
                (_, None) => Unit::Month,
                _ => Unit::Day,
            };
            return Some((midnight, Some(unit)));
        };
        day?;
        let (time, zone) = match time.find(['Z', 'z', '+', '-']) {
            Some(at) => (&time[..at], Some(Zone::parse(&time[at..]).ok()?)),
            None => (time, None),
        };
        let mut parts = time.splitn(3, ':');
        let (hour, minute, second) = (parts.next()?, parts.next(), parts.next());
        let (whole, fraction) =
            second.unwrap_or("0").split_once(['.', ',']).unwrap_or((second.unwrap_or("0"), ""));
        if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
        let minutes = minute.map_or(Some(0), |text| text.parse().ok())?;
        let time =
            NaiveTime::from_hms_nano_opt(hour.parse().ok()?, minutes, whole.parse().ok()?, nanos)?;
        let unit = match (minute, second) {
            (None, _) => Some(Unit::Hour),
            (_, None) => Some(Unit::Minute),
            _ if fraction.is_empty() => Some(Unit::Second),
            _ => None,
        };
        let local = day_of.and_time(time);
        let shift = zone.map_or(0, |zone| self.zone.seconds - zone.seconds);
        Some((local.checked_add_signed(TimeDelta::try_seconds(shift)?)?, unit))
    }
}

fn unreadable(text: &str) -> EsError {
    EsError::parsing(format!("failed to parse date field [{text}]"))
}

/// How dates are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DateFormat {
    pub(crate) zone: Zone,
    /// A pattern of Java's, checked; ISO 8601 in milliseconds if there is none.
    pattern: Option<String>,
}

impl DateFormat {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When the pattern has letters that are not known here.
    pub(crate) fn new(pattern: Option<&str>, zone: Zone) -> Result<Self, EsError> {
        // Several formats may be listed; the first is the one to show.
        let pattern = pattern.map(|text| text.split("||").next().unwrap_or(text));
        let pattern = pattern.filter(|text| !ISO.contains(text)).map(str::to_owned);
        let format = Self { zone, pattern };
        if let Some(pattern) = &format.pattern
            && format.patterned(pattern, NaiveDateTime::default(), 0).is_none()
        {
            return Err(EsError::argument(format!("Invalid format: [{pattern}]")));
        }
        Ok(format)
    }

    /// Shows microseconds since 1970.
    pub(crate) fn show(&self, micros: i64) -> String {
        let local = DateTime::from_timestamp_micros(micros).and_then(|at| {
            at.naive_utc().checked_add_signed(TimeDelta::try_seconds(self.zone.seconds)?)
        });
        let Some(local) = local else { return micros.div_euclid(MICROS_PER_MS).to_string() };
        let shown = self.pattern.as_ref().and_then(|text| self.patterned(text, local, micros));
        shown.unwrap_or_else(|| {
            let mut out = local.format("%Y-%m-%dT%H:%M:%S%.3f").to_string();
            self.zone.show(&mut out);
            out
        })
    }

    fn patterned(&self, pattern: &str, at: NaiveDateTime, micros: i64) -> Option<String> {
        match pattern {
            "epoch_millis" => return Some(micros.div_euclid(MICROS_PER_MS).to_string()),
            "epoch_second" => return Some(micros.div_euclid(1_000_000).to_string()),
            _ => {}
        }
        let mut out = String::new();
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix('\'') {
                let end = quoted.find('\'')?;
                out.push_str(&quoted[..end]);
                rest = &quoted[end + 1..];
                continue;
            }
            let run = rest.chars().take_while(|other| *other == c).count();
            let (letters, tail) = rest.split_at(run * c.len_utf8());
            rest = tail;
            let spec = match letters {
                "yyyy" | "uuuu" | "y" | "u" => "%Y",
                "yy" | "uu" => "%y",
                "MM" => "%m",
                "M" => "%-m",
                "MMM" => "%b",
                "MMMM" => "%B",
                "dd" => "%d",
                "d" => "%-d",
                "HH" => "%H",
                "H" => "%-H",
                "hh" => "%I",
                "a" => "%p",
                "mm" => "%M",
                "ss" => "%S",
                "SSS" => "%3f",
                "EEE" | "E" => "%a",
                "EEEE" => "%A",
                "XXX" | "X" | "Z" | "z" | "xxx" => {
                    self.zone.show(&mut out);
                    continue;
                }
                other if other.bytes().any(|byte| byte.is_ascii_alphabetic()) => return None,
                other => {
                    out.push_str(other);
                    continue;
                }
            };
            let _ = write!(out, "{}", at.format(spec));
        }
        Some(out)
    }
}

/// Names of ISO 8601.
const ISO: [&str; 6] = [
    "strict_date_optional_time",
    "date_optional_time",
    "strict_date_optional_time_nanos",
    "strict_date_time",
    "date_time",
    "iso8601",
];

/// Whether dates in this format are what stored rows hold.
pub(crate) fn shows_as_stored(format: &str) -> bool {
    ISO.contains(&format.split("||").next().unwrap_or(format))
}

/// What a format says of the dates that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadFormat {
    /// Numbers are seconds since 1970.
    pub(crate) seconds: bool,
    /// Numbers are no times since 1970: they are texts, such as a year.
    pub(crate) textual: bool,
}

impl ReadFormat {
    /// Reads a format, or several with `||` between them.
    ///
    /// # Errors
    /// When [`DateReader`] does not read one of them.
    pub(crate) fn parse(text: &str) -> Result<Self, EsError> {
        let mut epoch = None;
        for format in text.split("||") {
            match format {
                "epoch_second" | "epoch_millis" => epoch = epoch.or(Some(format)),
                format if ISO.contains(&format) || is_part_of_iso(format) => {}
                _ => {
                    return Err(EsError::argument(format!(
                        "[range] does not support [format] [{text}]: dates are read as ISO 8601, \
                         epoch_millis or epoch_second"
                    )));
                }
            }
        }
        Ok(Self { seconds: epoch == Some("epoch_second"), textual: epoch.is_none() })
    }
}

/// Whether a format, by its name or pattern, is the beginning of an ISO 8601 time.
fn is_part_of_iso(format: &str) -> bool {
    let name = format.strip_prefix("strict_").unwrap_or(format);
    if matches!(
        name,
        "date"
            | "year"
            | "year_month"
            | "year_month_day"
            | "date_time_no_millis"
            | "date_hour_minute_second"
            | "date_hour_minute"
            | "date_hour"
    ) {
        return true;
    }
    let plain = format.replace('\'', "").replace("uuuu", "yyyy").replace(' ', "T");
    let plain = plain.trim_end_matches(['X', 'Z']);
    matches!(
        plain,
        "yyyy"
            | "yyyy-MM"
            | "yyyy-MM-dd"
            | "yyyy-MM-ddTHH"
            | "yyyy-MM-ddTHH:mm"
            | "yyyy-MM-ddTHH:mm:ss"
            | "yyyy-MM-ddTHH:mm:ss.SSS"
            | "yyyy-MM-ddTHH:mm:ss.SSSSSS"
    )
}

/// A fixed interval in milliseconds: `90m`, `1d`.
pub(crate) fn fixed_interval_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let amount: i64 = text[..digits].parse().ok()?;
    let each = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    amount.checked_mul(each).filter(|interval| *interval > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn reader() -> DateReader {
        DateReader { now: at("2024-05-15T10:20:30.123456Z"), ..DateReader::default() }
    }

    #[test]
    fn a_date_stands_for_all_that_it_leaves_open() {
        let cases = [
            ("2024", "2024-01-01T00:00:00Z", "2024-12-31T23:59:59.999999Z"),
            ("2024-02", "2024-02-01T00:00:00Z", "2024-02-29T23:59:59.999999Z"),
            ("2024-02-03", "2024-02-03T00:00:00Z", "2024-02-03T23:59:59.999999Z"),
            ("2024-02-03T04:05", "2024-02-03T04:05:00Z", "2024-02-03T04:05:59.999999Z"),
            ("2024-02-03T04:05:06+05:30", "2024-02-02T22:35:06Z", "2024-02-02T22:35:06.999999Z"),
            ("2024-02-03 04:05:06.5Z", "2024-02-03T04:05:06.5Z", "2024-02-03T04:05:06.500999Z"),
            ("now/d", "2024-05-15T00:00:00Z", "2024-05-15T23:59:59.999999Z"),
            ("now-1M/M", "2024-04-01T00:00:00Z", "2024-04-30T23:59:59.999999Z"),
            ("2024-02-03||+1d-2h", "2024-02-03T22:00:00Z", "2024-02-03T22:00:00.000999Z"),
        ];
        for (text, first, last) in cases {
            let span = reader().read(&json!(text)).unwrap();
            assert_eq!(span, Span { first: at(first), last: at(last) }, "{text}");
        }
        assert_eq!(reader().read(&json!(1000)).unwrap().first, 1_000_000);
    }

    #[test]
    fn a_zone_moves_days() {
        let zone = Zone::parse("+05:30").unwrap();
        let span = DateReader { zone, ..reader() }.read(&json!("2024-02-03")).unwrap();
        assert_eq!(span.first, at("2024-02-02T18:30:00Z"));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "soon", "now+", "now-1x", "2024-13", "2024-02-30", "2024||/", "now/2d"] {
            assert!(reader().read(&json!(text)).is_err(), "{text}");
        }
        for zone in ["", "Mars", "+99:00", "+1:99"] {
            assert!(Zone::parse(zone).is_err(), "{zone}");
        }
    }

    #[test]
    fn dates_are_shown_by_java_s_patterns() {
        let micros = at("2024-02-03T18:35:06.789Z");
        let show = |pattern, zone| DateFormat::new(pattern, zone).unwrap().show(micros);
        assert_eq!(show(None, Zone::default()), "2024-02-03T18:35:06.789Z");
        let zone = Zone::parse("+05:30").unwrap();
        assert_eq!(show(None, zone), "2024-02-04T00:05:06.789+05:30");
        assert_eq!(show(Some("yyyy-MM-dd'T'HH:mm"), zone), "2024-02-04T00:05");
        assert_eq!(show(Some("epoch_millis"), zone), "1706985306789");
        assert!(DateFormat::new(Some("QQQ"), zone).is_err());
    }
}
