//! The calendar: the days since 1970-01-01 and the dates that they are, as far as numbers go.
//!
//! The Gregorian calendar also for days before it was introduced, as ISO 8601 and Postgres have
//! it; year 0 is 1 BC. (Howard Hinnant, "chrono-compatible low-level date algorithms")

/// Beyond what days of 32 bits and microseconds of 64 bits reach.
const YEAR_MAX: i64 = 9_999_999;

/// Year, month and day of a day since 1970.
pub fn date_of_day(day: i64) -> (i64, i64, i64) {
    let shifted = day.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day since 1970 of a date; `None` if there is no such date.
pub fn day_of_date(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(-YEAR_MAX..=YEAR_MAX).contains(&year) || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day.min(99) - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    // A day past its month's end comes back as another date.
    (date_of_day(days) == (year, month, day)).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_other_s() {
        // As Postgres says: SELECT date - '1970-01-01'::date.
        for (date, day) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((-43, 3, 15), -735_160),
            ((-4712, 1, 1), -2_440_550),
            ((99_999, 12, 31), 35_804_721),
            ((294_276, 12, 31), 106_762_939),
        ] {
            assert_eq!(day_of_date(date.0, date.1, date.2), Some(day), "{date:?}");
            assert_eq!(date_of_day(day), date);
        }
        for (year, month, day) in
            [(2023, 2, 29), (2023, 13, 1), (2023, 4, 31), (2023, 1, 0), (2023, 1, i64::MAX)]
        {
            assert_eq!(day_of_date(year, month, day), None, "{year}-{month}-{day}");
        }
    }
}
