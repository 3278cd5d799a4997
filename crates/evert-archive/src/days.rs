//! Rows parted by day.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Date32Type, TimestampMicrosecondType};

use crate::error::{ArchiveError, Result};

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01; rows without a date have none.
pub(crate) type Day = Option<i32>;

/// The rows of each day, in the order in which they came.
pub(crate) fn part(rows: &RecordBatch, column: &str) -> Result<Vec<(Day, RecordBatch)>> {
    let Some(first) = (rows.num_rows() > 0).then_some(0) else { return Ok(Vec::new()) };
    let days = days_of(rows, column)?;
    if days.iter().all(|day| *day == days[first]) {
        return Ok(vec![(days[first], rows.clone())]);
    }
    let mut by_day: BTreeMap<Day, Vec<u32>> = BTreeMap::new();
    for (row, day) in (0..).zip(&days) {
        by_day.entry(*day).or_default().push(row);
    }
    let parts = by_day.into_iter().map(|(day, rows_of_day)| {
        let taken = take_record_batch(rows, &UInt32Array::from(rows_of_day));
        taken.map(|rows| (day, rows)).map_err(ArchiveError::made)
    });
    parts.collect()
}

fn days_of(rows: &RecordBatch, column: &str) -> Result<Vec<Day>> {
    let missing = || ArchiveError::Invalid(format!("column \"{column}\" is gone"));
    let values = rows.column_by_name(column).ok_or_else(missing)?;
    match values.data_type() {
        DataType::Date32 => Ok(values.as_primitive::<Date32Type>().iter().collect()),
        DataType::Timestamp(_, _) => {
            let times = values.as_primitive::<TimestampMicrosecondType>().iter();
            Ok(times.map(|time| time.map(|time| time.div_euclid(MICROS_A_DAY) as i32)).collect())
        }
        other => Err(ArchiveError::Invalid(format!("\"{column}\" is {other}, not a time"))),
    }
}

/// The day as a directory's name has it.
pub(crate) fn named(day: Day) -> String {
    let date = day.and_then(|day| {
        chrono::NaiveDate::from_ymd_opt(1970, 1, 1)?
            .checked_add_signed(chrono::TimeDelta::try_days(day.into())?)
    });
    date.map_or_else(|| "none".to_owned(), |date| date.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn rows_keep_their_order_within_a_day() {
        let times = [Some(5), Some(-1), None, Some(MICROS_A_DAY), Some(7)];
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2, 3, 4]));
        let rows = RecordBatch::try_from_iter([("at", times), ("n", n)]).expect("a batch");
        let parts = part(&rows, "at").expect("parts");
        let shown: Vec<_> = parts
            .iter()
            .map(|(day, rows)| {
                let n = rows.column(1).as_primitive::<arrow::datatypes::Int64Type>();
                (*day, n.values().to_vec())
            })
            .collect();
        let expected =
            [(None, vec![2]), (Some(-1), vec![1]), (Some(0), vec![0, 4]), (Some(1), vec![3])];
        assert_eq!(shown, expected);
        assert_eq!((named(Some(-1)), named(None)), ("1969-12-31".into(), "none".into()));
    }
}
