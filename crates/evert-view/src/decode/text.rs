//! Values from text: what JSON strings and record keys hold.
//!
//! Dates and timestamps follow ISO 8601 as Postgres prints it, `infinity` included, which Arrow
//! columns hold as the largest and smallest numbers.

use std::borrow::Cow;

use base64::Engine as _;
use evert_model::ColumnType;

use super::cell::{self, Cell, JsonColumns};
use super::row;
use crate::calendar::day_of_date;

const SHOWN_CHARS: usize = 60;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// `raw`, cut so that an error message stays readable.
pub(crate) fn shorten(raw: &str) -> Cow<'_, str> {
    match raw.char_indices().nth(SHOWN_CHARS) {
        None => raw.into(),
        Some((end, _)) => format!("{}...", &raw[..end]).into(),
    }
}

/// The text as a value of type `ty`, if it is one.
pub(crate) fn parse<'a>(raw: Cow<'a, str>, ty: ColumnType) -> Option<Cell<'a>> {
    match ty {
        ColumnType::Boolean => match &*raw {
            "true" | "t" => Some(Cell::Bool(true)),
            "false" | "f" => Some(Cell::Bool(false)),
            _ => None,
        },
        ColumnType::Int16 => raw.parse::<i16>().ok().map(|v| Cell::Int(v.into())),
        ColumnType::Int32 => raw.parse::<i32>().ok().map(|v| Cell::Int(v.into())),
        ColumnType::Int64 => raw.parse().ok().map(Cell::Int),
        ColumnType::Float32 | ColumnType::Float64 => float(&raw, ty).map(Cell::Float),
        ColumnType::Decimal { precision, scale } => {
            decimal(&raw, precision, scale).map(Cell::Decimal)
        }
        ColumnType::Text | ColumnType::Json => Some(Cell::Text(raw)),
        ColumnType::Uuid => {
            uuid::Uuid::parse_str(&raw).ok().map(|id| Cell::Text(id.to_string().into()))
        }
        ColumnType::Bytes => base64(&raw).map(Cell::Bytes),
        ColumnType::Date => date(&raw).map(|days| Cell::Int(days.into())),
        ColumnType::Timestamp | ColumnType::TimestampTz => timestamp(&raw).map(Cell::Int),
        ColumnType::Array(_) if row::is_too_deep(&raw) => None,
        ColumnType::Array(item) => cell::items(&raw, item, JsonColumns::Inline).ok(),
    }
}

fn float(raw: &str, ty: ColumnType) -> Option<f64> {
    match raw {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    // The standard parser also takes "inf" and the like; only digits make a number here.
    if !raw.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: f64 = raw.parse().ok()?;
    let fits =
        if ty == ColumnType::Float32 { (value as f32).is_finite() } else { value.is_finite() };
    fits.then_some(value)
}

/// A decimal as an unscaled integer, rounded half away from zero like Postgres does.
pub(crate) fn decimal(raw: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match raw.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (raw, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // The digit at index i of the joined digits stands for 10^(places - 1 - i) unscaled units.
    let places = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(scale);
    let mut value = 0i128;
    let mut index = 0i64;
    let mut round_up = false;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i128::from(digit - b'0');
        if index < places {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else if index == places {
            round_up = digit >= 5;
        }
        index += 1;
    }
    if value != 0 {
        for _ in index..places {
            value = value.checked_mul(10)?;
        }
    }
    value += i128::from(round_up);
    if value >= 10i128.checked_pow(precision.into())? {
        return None;
    }
    Some(if negative { -value } else { value })
}

/// Days since 1970-01-01.
pub(crate) fn date(raw: &str) -> Option<i32> {
    match raw {
        "infinity" => Some(i32::MAX),
        "-infinity" => Some(i32::MIN),
        _ => {
            let (date, rest) = split_date(raw)?;
            rest.is_empty().then_some(())?;
            i32::try_from(date).ok()
        }
    }
}

/// Microseconds since 1970-01-01 UTC. Without a zone, UTC is meant.
pub(crate) fn timestamp(raw: &str) -> Option<i64> {
    match raw {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (days, rest) = split_date(raw)?;
    let midnight = days.checked_mul(MICROS_PER_DAY)?;
    if rest.is_empty() {
        return Some(midnight);
    }
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    midnight.checked_add(time_of_day(time.trim_end())?)?.checked_sub(zone_offset(zone)?)
}

/// `YYYY-MM-DD` at the start of `raw` (years of more digits too, and ISO 8601's with a sign: `-0043`
/// is 44 BC, `+10000` what it says), and what follows it.
fn split_date(raw: &str) -> Option<(i64, &str)> {
    let (sign, raw) = match raw.strip_prefix('-') {
        Some(raw) => (-1, raw),
        None => (1, raw.strip_prefix('+').unwrap_or(raw)),
    };
    let year_end = raw.find('-').filter(|&at| (4..=7).contains(&at))?;
    let year = sign * number(&raw[..year_end])?;
    let rest = raw.get(year_end..)?;
    let month = number(rest.get(1..3)?)?;
    (rest.as_bytes().get(3) == Some(&b'-')).then_some(())?;
    let day = number(rest.get(4..6)?)?;
    Some((day_of_date(year, month, day)?, rest.get(6..)?))
}

fn time_of_day(raw: &str) -> Option<i64> {
    let mut parts = raw.splitn(3, ':');
    let hour = number(parts.next()?)?;
    let minute = number(parts.next()?)?;
    let (second, micros) = match parts.next() {
        None => (0, 0),
        Some(seconds) => match seconds.split_once(['.', ',']) {
            None => (number(seconds)?, 0),
            Some((whole, fraction)) => {
                let digits = fraction.get(..fraction.len().min(6))?;
                number(fraction)?;
                (number(whole)?, number(digits)? * 10i64.pow(6 - digits.len() as u32))
            }
        },
    };
    let in_range = hour <= 24 && minute < 60 && second <= 60;
    in_range.then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// `Z`, `+HH`, `+HHMM` or `+HH:MM` in microseconds; nothing is UTC.
fn zone_offset(raw: &str) -> Option<i64> {
    let (sign, digits) = match raw.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (raw.len() == 1).then_some(0),
        Some(b'-') => (-1, &raw[1..]),
        Some(_) => (1, &raw[1..]),
    };
    let (hours, minutes) = match digits.len() {
        2 => (digits, "0"),
        4 => digits.split_at(2),
        5 => digits.split_once(':')?,
        _ => return None,
    };
    Some(sign * (number(hours)? * 60 + number(minutes)?) * 60_000_000)
}

/// A plain number of at most twelve digits.
fn number(digits: &str) -> Option<i64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain && digits.len() <= 12 { digits.parse().ok() } else { None }
}

/// RFC 4648 section 4, with or without padding.
fn base64(raw: &str) -> Option<Vec<u8>> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    LENIENT.decode(raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_and_refuse_overflow() {
        for (raw, want) in [
            ("12.345", Some(1235)),
            ("-12.345", Some(-1235)),
            ("12.344", Some(1234)),
            ("1e2", Some(10_000)),
            ("5e-3", Some(1)),
            ("4e-3", Some(0)),
            (".5", Some(50)),
            ("999.99", Some(99_999)),
            ("999.995", None),
            ("1000", None),
            ("1e400000000", None),
            ("0e400000000", Some(0)),
            ("", None),
            ("-", None),
            ("1.2.3", None),
            ("NaN", None),
        ] {
            assert_eq!(decimal(raw, 5, 2), want, "{raw}");
        }
    }

    #[test]
    fn timestamps_of_many_shapes() {
        let base = 1_700_000_000_000_000;
        for (raw, want) in [
            ("2023-11-14T22:13:20Z", Some(base)),
            ("2023-11-14 22:13:20", Some(base)),
            ("2023-11-14T22:13:20.000001Z", Some(base + 1)),
            ("2023-11-14T22:13:20.5+00:00", Some(base + 500_000)),
            ("2023-11-15T03:43:20+05:30", Some(base)),
            ("2023-11-14 14:13:20-08", Some(base)),
            ("2023-11-14 22:13:20.123456789", Some(base + 123_456)),
            ("infinity", Some(i64::MAX)),
            ("-infinity", Some(i64::MIN)),
            ("2023-02-30T00:00:00", None),
            ("2023-11-14T25:00:00", None),
            ("yesterday", None),
            ("2023-11-14Tabc", None),
        ] {
            assert_eq!(timestamp(raw), want, "{raw}");
        }
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("1970-01-02x"), None);
        // As Postgres says: SELECT '0044-03-15 BC'::date - '1970-01-01'::date.
        assert_eq!(date("-0043-03-15"), Some(-735_160));
        assert_eq!(date("0000-12-31"), date("0001-01-01").map(|day| day - 1));
        assert_eq!(date("--043-03-15"), None);
        // As Evert itself writes them.
        assert_eq!(date("+99999-12-31"), Some(35_804_721));
        assert_eq!(date("99999-12-31"), Some(35_804_721));
        assert_eq!(date("+-9999-12-31"), None);
        assert_eq!(date("9999999-12-31"), None, "no 32 bits hold it");
        assert_eq!(timestamp("9999999-12-31"), None, "nor 64");
    }

    #[test]
    fn base64_with_and_without_padding() {
        assert_eq!(base64("AQI="), Some(vec![1, 2]));
        assert_eq!(base64("AQI"), Some(vec![1, 2]));
        assert_eq!(base64("a*b="), None);
    }
}
