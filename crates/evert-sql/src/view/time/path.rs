//! The path from log time to what a comparison sees of it: `date_trunc('day', now()) - INTERVAL
//! '7 days'` is two steps. Steps never decrease, so that "has it come so far?" has one answer: the
//! first moment at which it has.
//!
//! But for months added to a time of day. On the 29th of March at 1 o'clock, a month ago is the
//! 28th of February at 1, and so it was on the 28th: as the month gets longer, its image turns back
//! three times at most. There the answer is a few [`Piece`]s of time.
//!
//! Owns: the steps and their inverse, exact to the microsecond. Not here: SQL (`solve`), rows
//! (`bound`).

use chrono::{Datelike, NaiveDate};

pub(super) const DAY_MICROS: i64 = 86_400_000_000;
/// Day 0 of dates, as chrono counts days from the first of January of the year 1.
const EPOCH_DAY: i64 = 719_163;

/// One step. Values are microseconds since the epoch unless it says otherwise; calendars are
/// UTC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// A constant is added, in the unit of the value.
    Add(i64),
    /// Days: so many months later, the last day of a shorter month standing for those it lacks.
    AddMonths(i32),
    /// The beginning of the unit.
    Truncate(Unit),
    /// From microseconds to days.
    ToDays,
    /// From days to microseconds.
    ToMicros,
    /// To a finer unit.
    Times(i64),
    /// To a coarser unit, rounded down.
    Per(i64),
    /// So many months later, at the same time of day: where a piece of the time begins in which
    /// the goal is reached, or ends.
    Months(i32, Piece),
}

/// An end of one of the pieces of time in which months have led to a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    Begins(u8),
    Ends(u8),
}

/// A month has up to three days that another lacks.
pub(super) const PIECES: u8 = 4;
/// A moment that never comes, and infinity.
pub(super) const NEVER: i64 = i64::MAX;
/// A moment that has always been there, and -infinity.
pub(super) const ALWAYS: i64 = i64::MIN;

/// What `date_trunc` cuts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    /// So many microseconds, a divisor of a day.
    Micros(i64),
    /// From Monday on.
    Week,
    /// So many months, a divisor of a year.
    Months(i64),
}

impl Unit {
    /// The unit of this name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Some(match name.strip_suffix('s').unwrap_or(&name) {
            "microsecond" => Self::Micros(1),
            "millisecond" => Self::Micros(1_000),
            "second" => Self::Micros(1_000_000),
            "minute" => Self::Micros(60_000_000),
            "hour" => Self::Micros(3_600_000_000),
            "day" => Self::Micros(DAY_MICROS),
            "week" => Self::Week,
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => return None,
        })
    }

    /// Whether it begins at midnight, always.
    pub(super) fn is_days(self) -> bool {
        self == Self::Micros(DAY_MICROS) || !matches!(self, Self::Micros(_))
    }

    /// The first beginning of a unit at or after `time`.
    fn ceil(self, time: i64) -> Option<i64> {
        match self {
            Self::Micros(micros) => ceil_div(time, micros)?.checked_mul(micros),
            Self::Week => {
                // Day 0 was a Thursday: weeks begin at day 4, 11, ...
                let day = ceil_div(time, DAY_MICROS)?;
                let monday = ceil_div(day.checked_sub(4)?, 7)?.checked_mul(7)?.checked_add(4)?;
                monday.checked_mul(DAY_MICROS)
            }
            Self::Months(months) => {
                let day = ceil_div(time, DAY_MICROS)?;
                let date = date_of(day)?;
                let month = month_number(date) + i64::from(date.day() > 1);
                first_of(ceil_div(month, months)?.checked_mul(months)?)?.checked_mul(DAY_MICROS)
            }
        }
    }
}

impl Step {
    /// The least value from which the step leads to `goal` or beyond. `None`: out of range.
    fn least(self, goal: i64) -> Option<i64> {
        if goal == NEVER {
            return Some(NEVER);
        }
        if goal == ALWAYS {
            return Some(match self {
                // Time has been in the first piece all along.
                Self::Months(_, Piece::Ends(_)) => NEVER,
                Self::Months(_, Piece::Begins(piece)) if piece > 0 => NEVER,
                _ => ALWAYS,
            });
        }
        match self {
            Self::Add(constant) => goal.checked_sub(constant),
            Self::AddMonths(months) => least_day(goal, months),
            Self::Truncate(unit) => unit.ceil(goal),
            Self::ToDays => goal.checked_mul(DAY_MICROS),
            Self::ToMicros => ceil_div(goal, DAY_MICROS),
            Self::Times(factor) => ceil_div(goal, factor),
            Self::Per(divisor) => goal.checked_mul(divisor),
            Self::Months(months, piece) => piece_end(goal, months, piece),
        }
    }
}

/// The first moment at which the path has led to `goal` or beyond. `None`: out of range.
///
/// Infinity ([`NEVER`]) is never reached, -infinity ([`ALWAYS`]) was from the beginning on.
pub(super) fn first_moment(path: &[Step], goal: i64) -> Option<i64> {
    path.iter().rev().try_fold(goal, |goal, step| step.least(goal))
}

fn ceil_div(value: i64, divisor: i64) -> Option<i64> {
    value.div_euclid(divisor).checked_add(i64::from(value.rem_euclid(divisor) > 0))
}

/// The first day that comes to `goal` or beyond when months are added.
fn least_day(goal: i64, months: i32) -> Option<i64> {
    let date = date_of(goal)?;
    let month = month_number(date) - i64::from(months);
    let (first, next) = (first_of(month)?, first_of(month + 1)?);
    // A shorter month has no such day: none of its days comes so far.
    Some((first + i64::from(date.day0())).min(next))
}

/// Where a piece of the time begins or ends in which `goal` is reached when months are added.
fn piece_end(goal: i64, months: i32, piece: Piece) -> Option<i64> {
    let date = date_of(goal.div_euclid(DAY_MICROS))?;
    let time_of_day = goal.rem_euclid(DAY_MICROS);
    let month = month_number(date) - i64::from(months);
    let (first, next) = (first_of(month)?, first_of(month + 1)?);
    let day = i64::from(date.day0());
    let length_there = first_of(month_number(date) + 1)? - first_of(month_number(date))?;
    // The days of the month that become the last day of the shorter month over there.
    let more = if day + 1 == length_there { (next - first - day - 1).max(0) } else { 0 };
    let is_short = first + day >= next;
    let (begin, end) = match piece {
        Piece::Begins(piece) | Piece::Ends(piece) if i64::from(piece) > more => (NEVER, NEVER),
        Piece::Begins(piece) | Piece::Ends(piece) => {
            let at = first + day + i64::from(piece);
            let end =
                if i64::from(piece) < more { (at + 1).checked_mul(DAY_MICROS)? } else { NEVER };
            let begin = match is_short {
                true => next.checked_mul(DAY_MICROS)?,
                false => at.checked_mul(DAY_MICROS)?.checked_add(time_of_day)?,
            };
            (begin, end)
        }
    };
    Some(if matches!(piece, Piece::Begins(_)) { begin } else { end })
}

fn date_of(day: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(day.checked_add(EPOCH_DAY)?).ok()?)
}

fn month_number(date: NaiveDate) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month0())
}

fn first_of(month: i64) -> Option<i64> {
    let year = i32::try_from(month.div_euclid(12)).ok()?;
    let date = NaiveDate::from_ymd_opt(year, month.rem_euclid(12) as u32 + 1, 1)?;
    Some(i64::from(date.num_days_from_ce()) - EPOCH_DAY)
}

#[cfg(test)]
mod tests {
    use chrono::Months;

    use super::*;

    /// What a path makes of a time.
    fn follow(path: &[Step], time: i64) -> i64 {
        path.iter().fold(time, |value, step| match step {
            Step::Add(constant) => value + constant,
            Step::AddMonths(months) => {
                let date = date_of(value).unwrap();
                let by = Months::new(months.unsigned_abs());
                let date = if *months < 0 { date - by } else { date + by };
                i64::from(date.num_days_from_ce()) - EPOCH_DAY
            }
            Step::Truncate(Unit::Micros(micros)) => value.div_euclid(*micros) * micros,
            Step::Truncate(Unit::Week) => {
                let date = date_of(value.div_euclid(DAY_MICROS)).unwrap();
                let back = i64::from(date.weekday().num_days_from_monday());
                (value.div_euclid(DAY_MICROS) - back) * DAY_MICROS
            }
            Step::Truncate(Unit::Months(months)) => {
                let date = date_of(value.div_euclid(DAY_MICROS)).unwrap();
                first_of(month_number(date).div_euclid(*months) * months).unwrap() * DAY_MICROS
            }
            Step::ToDays => value.div_euclid(DAY_MICROS),
            Step::ToMicros => value * DAY_MICROS,
            Step::Times(factor) => value * factor,
            Step::Per(divisor) => value.div_euclid(*divisor),
            Step::Months(months, _) => {
                let days = follow(&[Step::ToDays, Step::AddMonths(*months)], value);
                days * DAY_MICROS + value.rem_euclid(DAY_MICROS)
            }
        })
    }

    #[test]
    fn months_lead_to_a_goal_in_pieces() {
        let mut rng = fastrand::Rng::with_seed(6);
        let hour = DAY_MICROS / 24;
        for months in [-13, -1, 1, 11] {
            for _ in 0..300 {
                let day = first_of(rng.i64(23_000..24_600)).unwrap() + rng.i64(-4..4);
                let goal = day * DAY_MICROS + rng.i64(0..24) * hour;
                let end = |piece| piece_end(goal, months, piece).unwrap();
                let pieces: Vec<_> =
                    (0..PIECES).map(|p| end(Piece::Begins(p))..end(Piece::Ends(p))).collect();
                let around = goal / hour - i64::from(months) * 30 * 24;
                for time in (around - 24 * 24..around + 24 * 24).map(|hours| hours * hour) {
                    let is_reached =
                        follow(&[Step::Months(months, Piece::Begins(0))], time) >= goal;
                    let holding = pieces.iter().filter(|piece| piece.contains(&time)).count();
                    assert_eq!(holding, usize::from(is_reached), "{goal} {months} {time}");
                }
            }
        }
    }

    #[test]
    fn the_first_moment_is_the_first() {
        let months = |months| [Step::ToDays, Step::AddMonths(months), Step::ToMicros];
        let mut paths: Vec<Vec<Step>> = vec![
            vec![],
            vec![Step::Add(-60_000_000)],
            vec![Step::Times(1000), Step::Add(17)],
            vec![Step::Per(1000)],
            vec![Step::ToDays, Step::Add(-7)],
            vec![Step::ToDays, Step::Add(3), Step::ToMicros, Step::Add(1)],
        ];
        paths.extend([-13, -1, 1, 12].map(|n| months(n).to_vec()));
        for unit in ["millisecond", "minute", "hour", "day", "week", "month", "quarter", "year"] {
            let cut = Step::Truncate(Unit::of_name(unit).unwrap());
            paths.push(vec![Step::Add(-1_500), cut, Step::Add(7)]);
        }
        let mut rng = fastrand::Rng::with_seed(5);
        for path in paths {
            for round in 0..400 {
                // Around ends of months and leap days, and anywhere.
                let day = match round % 4 {
                    0 => first_of(rng.i64(23_000..24_600)).unwrap() + rng.i64(-3..3),
                    _ => rng.i64(-40_000..40_000),
                };
                let time = day * DAY_MICROS + rng.i64(-2_000..2_000);
                let goal = follow(&path, time) + rng.i64(-1..2);
                let first = first_moment(&path, goal).unwrap();
                assert!(follow(&path, first) >= goal, "{path:?} {time}");
                assert!(follow(&path, first - 1) < goal, "{path:?} {time}: not the first");
            }
        }
        assert_eq!(first_moment(&[Step::Add(-10)], i64::MAX - 3), None);
        assert_eq!(first_moment(&[Step::ToDays], i64::MAX / 2), None);
    }
}
