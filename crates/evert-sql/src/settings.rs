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

/// Settings that clients set or ask for, and their values at the start.
const KNOWN: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_table_access_method", "heap"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "off"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "on"),
    ("jit", "off"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("row_security", "on"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "150000"),
    ("session_authorization", ""),
    ("standard_conforming_strings", "on"),
    ("synchronous_commit", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "off"),
];

/// Every setting and its value at the start.
pub(crate) fn defaults() -> impl Iterator<Item = (&'static str, String)> {
    KNOWN.iter().map(|(name, value)| (*name, (*value).to_owned()))
}

/// Settings that cannot be changed.
const READ_ONLY: &[&str] = &[
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "max_identifier_length",
    "max_index_keys",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
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
            _ if READ_ONLY.contains(&name) => {
                let message = format!("parameter \"{name}\" cannot be changed");
                return Err(SqlError::new("55P02", message));
            }
            "client_encoding" => refuse_unless(name, value, is_utf8)?,
            "timezone" => refuse_unless("TimeZone", value, is_utc).map_err(|error| {
                error.hint("Sessions live in UTC. AT TIME ZONE gives another zone's time.")
            })?,
            "search_path" => check_search_path(value)?,
            "standard_conforming_strings" => {
                refuse_unless(name, value, |value| matches!(value, "on" | "true" | "1"))?;
            }
            _ => {}
        }
        // As in Postgres, any dotted name may be set; others must be known.
        match (value, self.defaults.get(name)) {
            (Some(value), Some(_)) => {
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
    let first = schemas.find(|schema| !matches!(*schema, "$user" | "pg_catalog" | ""));
    match first {
        None | Some("public") => Ok(()),
        Some(other) => {
            Err(SqlError::unsupported(format!("a search_path that begins with {other}"))
                .hint(format!("Write {other}.name: names without a schema are of public.")))
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
    fn settings_are_set_shown_and_reset() {
        let mut settings = Settings::new("me", Duration::from_secs(60));
        settings.set("application_name", Some("psql")).expect("known");
        assert_eq!(settings.get("application_name").expect("known"), "psql");
        settings.set("evert.after", Some("shop:0/10")).expect("a token");
        assert_eq!(settings.get("evert.after").expect("known"), "shop:0/10");
        assert!(settings.set("evert.after", Some("soon")).is_err());
        assert!(settings.set("server_version", Some("16")).is_err());
        assert!(settings.set("nonsense", Some("1")).is_err());
        settings.set("statement_timeout", Some("1500")).expect("ms");
        assert_eq!(settings.get("statement_timeout").expect("known"), "1500ms");
        settings.reset_all();
        assert_eq!(settings.get("statement_timeout").expect("known"), "60s");
        assert_eq!(settings.get("application_name").expect("known"), "");
    }
}
