//! What `CREATE ARCHIVE` may say: where the table is, by which day rows are parted, how often
//! they are written.

use std::collections::BTreeMap;
use std::time::Duration;

use evert_model::{ColumnType, RowSchema};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::error::{ArchiveError, Result};

/// The column of the log's time, by which rows are parted unless another is named.
pub(crate) const LOG_TIME: &str = "evert_time";

/// An archive's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchiveOptions {
    /// Where the table is to be, as it was written.
    pub(crate) to: String,
    /// The column whose day parts the rows.
    pub(crate) partition_by: String,
    /// How long rows wait to be written at most.
    pub(crate) flush_interval: Duration,
    /// How large files get.
    pub(crate) file_size_bytes: u64,
    /// How long snapshots are kept for those who read them.
    pub(crate) snapshot_age: Duration,
    /// The id that the archive had when it was made; with another one it was rebuilt.
    pub(crate) first_id: Option<Uuid>,
}

/// As the catalog keeps them.
#[derive(Deserialize)]
struct Given {
    to: String,
    #[serde(default)]
    with: BTreeMap<String, String>,
    #[serde(default)]
    first_id: Option<Uuid>,
}

impl ArchiveOptions {
    /// Reads what the statement said, or what the catalog has kept of it.
    pub(crate) fn read(given: &Value, schema: &RowSchema) -> Result<Self> {
        let given: Given = serde_json::from_value(given.clone()).map_err(ArchiveError::made)?;
        let mut options = Self {
            to: given.to,
            partition_by: LOG_TIME.to_owned(),
            flush_interval: Duration::from_secs(10),
            file_size_bytes: 64 << 20,
            snapshot_age: Duration::from_secs(1_800),
            first_id: given.first_id,
        };
        for (name, text) in given.with {
            let bad = || ArchiveError::Invalid(format!("{name}: \"{text}\" is not understood"));
            match name.as_str() {
                "partition_by" => options.partition_by = text,
                "flush_interval" => options.flush_interval = duration(&text).ok_or_else(bad)?,
                "file_size" => options.file_size_bytes = bytes(&text).ok_or_else(bad)?,
                "snapshot_age" => options.snapshot_age = duration(&text).ok_or_else(bad)?,
                _ => {
                    let known = "partition_by, flush_interval, file_size and snapshot_age";
                    let what = format!("option \"{name}\" is not known: there are {known}");
                    return Err(ArchiveError::Invalid(what));
                }
            }
        }
        options.check(schema)?;
        Ok(options)
    }

    fn check(&self, schema: &RowSchema) -> Result<()> {
        let refuse = |what: String| Err(ArchiveError::Invalid(what));
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(86_400));
        if !(shortest..=longest).contains(&self.flush_interval) {
            return refuse("flush_interval lies between 100 ms and one day".into());
        }
        if !(1 << 16..=1 << 30).contains(&self.file_size_bytes) {
            return refuse("file_size lies between 64 KB and 1 GB".into());
        }
        if self.partition_by == LOG_TIME {
            return Ok(());
        }
        let column = schema.columns.iter().find(|column| column.name == self.partition_by);
        match column.map(|column| column.ty) {
            Some(ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz) => Ok(()),
            Some(_) => refuse(format!(
                "\"{}\" is no date or timestamp: an archive is parted by day",
                self.partition_by
            )),
            None => refuse(format!("column \"{}\" does not exist", self.partition_by)),
        }
    }
}

/// `10s`, `500 ms`, `1 minute`, or plain milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "ms" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "second" | "seconds" => 1_000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_millis)
}

/// `64MB`, `1 GiB`, or plain bytes.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use evert_model::Column;
    use serde_json::json;

    use super::*;

    fn schema() -> RowSchema {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let columns = vec![column("id", ColumnType::Int64), column("day", ColumnType::Date)];
        RowSchema { columns, key: vec![0] }
    }

    #[test]
    fn words_are_read() {
        let with = json!({ "partition_by": "day", "flush_interval": "2s", "file_size": "1 MB" });
        let given = json!({ "to": "s3://b/p", "with": with });
        let options = ArchiveOptions::read(&given, &schema()).expect("good");
        assert_eq!(options.flush_interval, Duration::from_secs(2));
        assert_eq!((options.file_size_bytes, options.partition_by), (1 << 20, "day".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |name: &str, value: &str| json!({ "to": "s3://b/p", "with": { name: value } });
        for bad in [
            json!({}),
            with("partition_by", "id"),
            with("partition_by", "nothing"),
            with("flush_interval", "soon"),
            with("flush_interval", "1ms"),
            with("file_size", "1"),
            with("compression", "gzip"),
        ] {
            assert!(ArchiveOptions::read(&bad, &schema()).is_err(), "{bad}");
        }
    }
}
