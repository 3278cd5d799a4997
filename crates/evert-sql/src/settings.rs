//! Session settings: SET, SHOW and RESET.

use std::collections::BTreeMap;
use std::time::Duration;

use evert_model::PositionToken;

use crate::SqlError;
use crate::error::{INVALID_PARAMETER_VALUE, UNDEFINED_OBJECT};
use crate::functions::SERVER_VERSION;

/// The settings of one session.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    values: BTreeMap<String, String>,
    defaults: BTreeMap<String, String>,
    pub(crate) statement_timeout: Duration,
    default_timeout: Duration,
    /// Reads are at or after this.
    pub(crate) after: Option<PositionToken>,
}

/// Settings that clients set or ask for, and their values at the start. Most change nothing here.
const KNOWN: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("check_function_bodies", "on"),
    ("client_connection_check_interval", "0"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("commit_siblings", "5"),
    ("compute_query_id", "auto"),
    ("constraint_exclusion", "partition"),
    ("cpu_index_tuple_cost", "0.005"),
    ("cpu_operator_cost", "0.0025"),
    ("cpu_tuple_cost", "0.01"),
    ("cursor_tuple_fraction", "0.1"),
    ("datestyle", "ISO, MDY"),
    ("deadlock_timeout", "1s"),
    ("default_statistics_target", "100"),
    ("default_table_access_method", "heap"),
    ("default_tablespace", ""),
    ("default_text_search_config", "pg_catalog.english"),
    ("default_toast_compression", "pglz"),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "off"),
    ("effective_cache_size", "4GB"),
    ("effective_io_concurrency", "1"),
    ("enable_async_append", "on"),
    ("enable_bitmapscan", "on"),
    ("enable_gathermerge", "on"),
    ("enable_hashagg", "on"),
    ("enable_hashjoin", "on"),
    ("enable_incremental_sort", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_indexscan", "on"),
    ("enable_material", "on"),
    ("enable_memoize", "on"),
    ("enable_mergejoin", "on"),
    ("enable_nestloop", "on"),
    ("enable_parallel_append", "on"),
    ("enable_parallel_hash", "on"),
    ("enable_partition_pruning", "on"),
    ("enable_partitionwise_aggregate", "off"),
    ("enable_partitionwise_join", "off"),
    ("enable_seqscan", "on"),
    ("enable_sort", "on"),
    ("enable_tidscan", "on"),
    ("escape_string_warning", "on"),
    ("extra_float_digits", "1"),
    ("force_parallel_mode", "off"),
    ("from_collapse_limit", "8"),
    ("geqo", "on"),
    ("geqo_threshold", "12"),
    ("gin_fuzzy_search_limit", "0"),
    ("gin_pending_list_limit", "4MB"),
    ("hash_mem_multiplier", "2"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "on"),
    ("jit", "off"),
    ("jit_above_cost", "100000"),
    ("jit_inline_above_cost", "500000"),
    ("jit_optimize_above_cost", "500000"),
    ("join_collapse_limit", "8"),
    ("lc_collate", "C.UTF-8"),
    ("lc_ctype", "C.UTF-8"),
    ("lc_messages", "C.UTF-8"),
    ("lc_monetary", "C.UTF-8"),
    ("lc_numeric", "C.UTF-8"),
    ("lc_time", "C.UTF-8"),
    ("lock_timeout", "0"),
    ("log_duration", "off"),
    ("log_min_duration_statement", "-1"),
    ("log_min_messages", "warning"),
    ("log_statement", "none"),
    ("logical_decoding_work_mem", "64MB"),
    ("maintenance_io_concurrency", "10"),
    ("maintenance_work_mem", "64MB"),
    ("max_connections", "100"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("max_parallel_maintenance_workers", "2"),
    ("max_parallel_workers", "8"),
    ("max_parallel_workers_per_gather", "2"),
    ("max_stack_depth", "2MB"),
    ("min_parallel_index_scan_size", "512kB"),
    ("min_parallel_table_scan_size", "8MB"),
    ("parallel_leader_participation", "on"),
    ("parallel_setup_cost", "1000"),
    ("parallel_tuple_cost", "0.1"),
    ("password_encryption", "scram-sha-256"),
    ("plan_cache_mode", "auto"),
    ("quote_all_identifiers", "off"),
    ("random_page_cost", "4"),
    ("row_security", "on"),
    ("search_path", "\"$user\", public"),
    ("seq_page_cost", "1"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "150000"),
    ("session_authorization", ""),
    ("session_replication_role", "origin"),
    ("standard_conforming_strings", "on"),
    ("synchronize_seqscans", "on"),
    ("synchronous_commit", "on"),
    ("tcp_keepalives_count", "0"),
    ("tcp_keepalives_idle", "0"),
    ("tcp_keepalives_interval", "0"),
    ("tcp_user_timeout", "0"),
    ("temp_buffers", "8MB"),
    ("temp_tablespaces", ""),
    ("timezone", "UTC"),
    ("track_activities", "on"),
    ("track_functions", "none"),
    ("track_io_timing", "off"),
    ("transaction_deferrable", "off"),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "off"),
    ("transaction_timeout", "0"),
    ("vacuum_cost_delay", "0"),
    ("vacuum_cost_limit", "200"),
    ("vacuum_cost_page_dirty", "20"),
    ("vacuum_cost_page_hit", "1"),
    ("vacuum_cost_page_miss", "2"),
    ("wal_sender_timeout", "1min"),
    ("work_mem", "4MB"),
    ("xmlbinary", "base64"),
    ("xmloption", "content"),
];

/// Settings that cannot be changed.
const READ_ONLY: &[&str] = &[
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "lc_collate",
    "lc_ctype",
    "max_connections",
    "max_identifier_length",
    "max_index_keys",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
];

/// Settings that have more values than on and off.
const NOT_SWITCHES: &[&str] = &["force_parallel_mode", "synchronous_commit"];

/// Settings that are numbers of a unit.
const UNITS: &[(&str, &[&str])] = &[
    (
        "ms",
        &[
            "client_connection_check_interval",
            "deadlock_timeout",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
            "lock_timeout",
            "log_min_duration_statement",
            "statement_timeout",
            "tcp_user_timeout",
            "transaction_timeout",
            "vacuum_cost_delay",
            "wal_sender_timeout",
        ],
    ),
    ("s", &["tcp_keepalives_idle", "tcp_keepalives_interval"]),
    (
        "kB",
        &[
            "gin_pending_list_limit",
            "logical_decoding_work_mem",
            "maintenance_work_mem",
            "max_stack_depth",
            "work_mem",
        ],
    ),
    (
        "8kB",
        &[
            "effective_cache_size",
            "min_parallel_index_scan_size",
            "min_parallel_table_scan_size",
            "temp_buffers",
        ],
    ),
];

/// Units by how many bytes or milliseconds they are.
const SIZES: &[(&str, i64)] = &[
    ("B", 1),
    ("kB", 1 << 10),
    ("8kB", 1 << 13),
    ("MB", 1 << 20),
    ("GB", 1 << 30),
    ("TB", 1 << 40),
    ("ms", 1),
    ("s", 1000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Settings that the protocol reports, in the spelling that clients look for.
const REPORTED: &[(&str, &str)] = &[
    ("application_name", "application_name"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("default_transaction_read_only", "default_transaction_read_only"),
    ("in_hot_standby", "in_hot_standby"),
    ("integer_datetimes", "integer_datetimes"),
    ("intervalstyle", "IntervalStyle"),
    ("is_superuser", "is_superuser"),
    ("server_encoding", "server_encoding"),
    ("server_version", "server_version"),
    ("session_authorization", "session_authorization"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("timezone", "TimeZone"),
];

/// Whether a setting cannot be changed.
pub(crate) fn is_read_only(name: &str) -> bool {
    READ_ONLY.contains(&name)
}

/// What a setting is a number of.
pub(crate) fn unit(name: &str) -> Option<&'static str> {
    UNITS.iter().find(|(_, names)| names.contains(&name)).map(|(unit, _)| *unit)
}

/// A value as a number of a unit: `4MB` is 4096 of `kB`. What is no such number stays as it is.
pub(crate) fn in_unit(value: &str, unit: &str) -> String {
    let size = |unit: &str| SIZES.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, own) = value.split_at(digits);
    let number = || {
        let whole = number.parse::<i64>().ok()?.checked_mul(size(own.trim())?)?;
        Some(whole / size(unit)?)
    };
    number().map_or_else(|| value.to_owned(), |number| number.to_string())
}

impl Settings {
    pub(crate) fn new(user: &str, statement_timeout: Duration) -> Self {
        let mut values: BTreeMap<String, String> =
            KNOWN.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        values.insert("session_authorization".into(), user.into());
        let defaults = values.clone();
        Self {
            values,
            defaults,
            statement_timeout,
            default_timeout: statement_timeout,
            after: None,
        }
    }

    /// The time that a statement has if the session has set it, and not only the server's default.
    pub(crate) fn own_timeout(&self) -> Option<Duration> {
        (self.statement_timeout != self.default_timeout).then_some(self.statement_timeout)
    }

    /// Sets or, without a value, resets one setting.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), SqlError> {
        let name = canonical(name);
        match name {
            "statement_timeout" => {
                self.statement_timeout = match value {
                    Some(value) => Duration::from_millis(duration_ms(value)?),
                    None => self.default_timeout,
                };
                return Ok(());
            }
            "evert.after" => {
                self.after = match value {
                    Some("" | "0") | None => None,
                    Some(value) => Some(value.parse().map_err(|error| {
                        SqlError::new(INVALID_PARAMETER_VALUE, format!("{error}"))
                    })?),
                };
                return Ok(());
            }
            _ if is_read_only(name) => {
                let message = format!("parameter \"{name}\" cannot be changed");
                return Err(SqlError::new("55P02", message));
            }
            "client_encoding" => refuse_unless(name, value, is_utf8)?,
            "timezone" => refuse_unless("TimeZone", value, is_utc).map_err(|error| {
                error.hint("Sessions live in UTC. AT TIME ZONE gives another zone's time.")
            })?,
            "search_path" => check_search_path(value)?,
            "idle_in_transaction_session_timeout" => {
                value.map(duration_ms).transpose()?;
            }
            "datestyle" => refuse_unless("DateStyle", value, is_iso)?,
            "intervalstyle" => {
                refuse_unless("IntervalStyle", value, |value| value == "postgres")?;
            }
            "bytea_output" => refuse_unless(name, value, |value| value == "hex")?,
            "standard_conforming_strings" => {
                refuse_unless(name, value, |value| matches!(value, "on" | "true" | "1"))?;
            }
            _ => {}
        }
        // As in Postgres, any dotted name may be set; others must be known.
        match (value, self.defaults.get(name)) {
            (Some(value), Some(default)) => {
                let is_switch =
                    matches!(default.as_str(), "on" | "off") && !NOT_SWITCHES.contains(&name);
                let value = if is_switch { switch(name, value)? } else { value };
                self.values.insert(name.to_owned(), value.to_owned());
            }
            (Some(value), None) if name.contains('.') && !name.starts_with("evert.") => {
                self.values.insert(name.to_owned(), value.to_owned());
            }
            (None, Some(default)) => {
                self.values.insert(name.to_owned(), default.clone());
            }
            (None, None) if self.values.remove(name).is_some() => {}
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    /// The value of a setting.
    pub(crate) fn get(&self, name: &str) -> Result<String, SqlError> {
        let name = canonical(name);
        match name {
            "statement_timeout" => Ok(match self.statement_timeout.as_millis() {
                0 => "0".into(),
                ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
                ms => format!("{ms}ms"),
            }),
            "evert.after" => Ok(self.after.as_ref().map(display_token).unwrap_or_default()),
            _ => self.values.get(name).cloned().ok_or_else(|| unknown(name)),
        }
    }

    /// Every setting, for SHOW ALL.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.values.clone().into_iter().collect();
        for name in ["statement_timeout", "evert.after"] {
            all.push((name.to_owned(), self.get(name).unwrap_or_default()));
        }
        all.sort();
        all
    }

    pub(crate) fn reset_all(&mut self) {
        self.values = self.defaults.clone();
        self.statement_timeout = self.default_timeout;
        self.after = None;
    }

    /// What the protocol reports.
    pub(crate) fn reported(&self) -> Vec<(String, String)> {
        REPORTED
            .iter()
            .map(|(name, spelled)| ((*spelled).into(), self.values[*name].clone()))
            .collect()
    }
}

fn canonical(name: &str) -> &str {
    match name {
        "time zone" => "timezone",
        "transaction isolation level" => "transaction_isolation",
        "session authorization" => "session_authorization",
        other => other,
    }
}

/// Names without a schema are of `public`, whatever the path says: a path without it would say
/// otherwise.
fn check_search_path(value: Option<&str>) -> Result<(), SqlError> {
    let Some(value) = value else { return Ok(()) };
    let mut schemas = value.split(',').map(|schema| schema.trim().trim_matches(['"', '\'']));
    let searched = ["$user", "pg_catalog", "public", ""];
    match schemas.find(|schema| !searched.contains(schema)) {
        None => Ok(()),
        Some(other) => Err(SqlError::unsupported(format!("a search_path with {other}"))
            .hint(format!("Write {other}.name: names without a schema are of public."))),
    }
}

/// On or off, in Postgres's other words for them too.
fn switch(name: &str, value: &str) -> Result<&'static str, SqlError> {
    match value.to_lowercase().as_str() {
        "on" | "true" | "t" | "yes" | "y" | "1" => Ok("on"),
        "off" | "false" | "f" | "no" | "n" | "0" => Ok("off"),
        _ => {
            let message = format!("parameter \"{name}\" requires a Boolean value");
            Err(SqlError::new(INVALID_PARAMETER_VALUE, message))
        }
    }
}

fn refuse_unless(
    name: &str,
    value: Option<&str>,
    accepted: impl Fn(&str) -> bool,
) -> Result<(), SqlError> {
    match value {
        Some(value) if !accepted(&value.to_lowercase()) => Err(SqlError::new(
            INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{name}\": \"{value}\""),
        )),
        _ => Ok(()),
    }
}

fn is_utf8(value: &str) -> bool {
    matches!(value, "utf8" | "utf-8" | "unicode")
}

/// Dates are written as ISO has them, whatever order of parts an input may have.
fn is_iso(value: &str) -> bool {
    let parts = ["iso", "mdy", "dmy", "ymd", "us", "european", "noneuropean"];
    value.split(',').all(|part| parts.contains(&part.trim()))
}

fn is_utc(value: &str) -> bool {
    let name = value.strip_prefix("etc/").unwrap_or(value);
    let names = ["utc", "uct", "gmt", "zulu", "universal", "greenwich"];
    names.contains(&name) || matches!(value, "+00:00" | "+00" | "0" | "local")
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

fn display_token(token: &PositionToken) -> String {
    match token {
        PositionToken::Position(position) => position.to_string(),
        PositionToken::Record { topic, partition, offset } => {
            format!("{topic}/{partition}@{offset}")
        }
        PositionToken::Source { source, lsn } => format!("{source}:{}", lsn.to_postgres()),
    }
}

/// A duration as Postgres writes it: `5s`, `250ms`, `1min`, `1h`; a bare number is milliseconds.
pub(crate) fn duration_ms(text: &str) -> Result<u64, SqlError> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let factor = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let refuse = || {
        SqlError::new(INVALID_PARAMETER_VALUE, format!("invalid duration: \"{text}\""))
            .hint("Write a number with ms, s, min, h or d.")
    };
    let number: u64 = text[..digits].parse().map_err(|_| refuse())?;
    // A year is enough, and keeps deadlines from overflowing.
    match number.checked_mul(factor) {
        Some(ms) if factor > 0 && ms <= 365 * 86_400_000 => Ok(ms),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration_ms("250").expect("ms"), 250);
        assert_eq!(duration_ms("5s").expect("s"), 5000);
        assert_eq!(duration_ms("1 min").expect("min"), 60_000);
        for text in ["", "s", "5 weeks", "-1", "99999999999999d"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_numbers_of_units() {
        assert_eq!(unit("work_mem"), Some("kB"));
        assert_eq!(unit("search_path"), None);
        for (value, unit, number) in [
            ("4MB", "kB", "4096"),
            ("4GB", "8kB", "524288"),
            ("1 min", "ms", "60000"),
            ("65536", "kB", "65536"),
            ("-1", "ms", "-1"),
        ] {
            assert_eq!(in_unit(value, unit), number);
        }
    }

    #[test]
    fn settings_are_set_shown_and_reset() {
        let mut settings = Settings::new("me", Duration::from_secs(60));
        settings.set("application_name", Some("psql")).expect("known");
        assert_eq!(settings.get("application_name").expect("known"), "psql");
        settings.set("evert.after", Some("shop:0/10")).expect("a token");
        assert_eq!(settings.get("evert.after").expect("known"), "shop:0/10");
        assert!(settings.set("evert.after", Some("soon")).is_err());
        assert!(settings.set("server_version", Some("16")).is_err());
        assert!(settings.set("nonsense", Some("1")).is_err());
        settings.set("enable_seqscan", Some("FALSE")).expect("known");
        assert_eq!(settings.get("enable_seqscan").expect("known"), "off");
        assert!(settings.set("enable_seqscan", Some("maybe")).is_err());
        assert!(settings.set("max_connections", Some("5")).is_err());
        settings.set("statement_timeout", Some("1500")).expect("ms");
        assert_eq!(settings.get("statement_timeout").expect("known"), "1500ms");
        settings.reset_all();
        assert_eq!(settings.get("statement_timeout").expect("known"), "60s");
        assert_eq!(settings.get("application_name").expect("known"), "");
    }
}
