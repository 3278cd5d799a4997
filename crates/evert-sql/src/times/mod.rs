//! Dates, times and intervals as Postgres reads, writes and computes them.
//!
//! Owns: the texts of times, arithmetic of intervals, fields of times (`extract`), formats
//! (`to_char`). All on plain numbers: microseconds and days since 1970, microseconds since midnight.
//! Not here: arrays and plans (`functions`), time zones of sessions, which live in UTC.
//!
//! Invariants
//! - The largest and smallest value of a type stand for infinity and -infinity.
//! - Nothing here panics on a value, however far away: what is out of range is an error (22008).

mod civil;
mod fields;
mod format;
mod number_format;
mod read;
mod read_span;
mod span;
mod zone;

pub(crate) use civil::{
    Civil, DAY, HOUR, MINUTE, SECOND, date_of_micros, days_from, days_in_month, micros_from,
    midnight, write_clock, write_date, write_timestamp,
};
pub(crate) use fields::{Field, Number, Source, truncate, truncate_span};
pub(crate) use format::{read_as, written_as, written_span_as};
pub(crate) use number_format::{number_as, number_read_as};
pub(crate) use read::{read_clock, read_date, read_timestamp};
pub(crate) use read_span::read_span;
pub(crate) use span::{Span, age};
pub(crate) use zone::{local, universal, zone, zone_asked_for};

use crate::SqlError;

/// `22008`: a result that the type does not have.
pub(crate) fn out_of_range(ty: &str) -> SqlError {
    SqlError::new("22008", format!("{ty} out of range"))
}
