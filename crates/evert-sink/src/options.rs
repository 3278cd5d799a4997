//! Options: what CREATE SINK says, typed.

use evert_view::{OutletDef, OutletError, PlanError};
use serde_json::{Map, Value};

/// Where the rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Options {
    Postgres(PostgresOptions),
    Redis(RedisOptions),
    Kafka(KafkaOptions),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostgresOptions {
    pub(crate) url: String,
    /// `table`, or `schema` and `table`.
    pub(crate) table: Vec<String>,
    /// Made if it is not there.
    pub(crate) create: bool,
    /// Rows that are there already make way.
    pub(crate) replace: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisOptions {
    pub(crate) url: String,
    /// Before the row's key.
    pub(crate) prefix: String,
    pub(crate) replace: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KafkaOptions {
    pub(crate) brokers: String,
    pub(crate) topic: String,
}

/// `22023`: invalid_parameter_value.
fn invalid(message: String, hint: &str) -> PlanError {
    PlanError { sqlstate: "22023", message, hint: Some(hint.to_owned()) }
}

impl Options {
    /// # Errors
    /// When an option is missing, unknown or makes no sense.
    pub(crate) fn read(def: &OutletDef) -> Result<Self, PlanError> {
        let text = |member: &str| -> Result<String, PlanError> {
            let value = def.options.get(member).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| invalid(format!("a sink needs its {member}"), "See docs/sql.md."))
        };
        let none = Map::new();
        let with = def.options.get("with").and_then(Value::as_object).unwrap_or(&none);
        let known = |names: &[&str]| match with.keys().find(|key| !names.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let hint = match names {
                    [] => "This kind of sink has no options.".to_owned(),
                    _ => format!("Options are {}.", names.join(", ")),
                };
                Err(invalid(format!("unrecognized option \"{key}\""), &hint))
            }
        };
        match text("into")?.as_str() {
            "postgres" => {
                known(&["create", "existing"])?;
                let table = def.options.get("table").and_then(Value::as_array);
                let table: Vec<String> = table
                    .into_iter()
                    .flatten()
                    .filter_map(|part| part.as_str().map(str::to_owned))
                    .collect();
                if !matches!(table.len(), 1 | 2) {
                    let message = format!("improper table name: {}", table.join("."));
                    return Err(invalid(message, "Write TABLE name or TABLE schema.name."));
                }
                let (url, create) = (text("url")?, switch(with, "create", ["off", "on"])?);
                url.parse::<tokio_postgres::Config>().map_err(|error| {
                    // The library's text never repeats the string itself.
                    let message = format!("the connection string cannot be read: {error}");
                    invalid(message, "Write postgres://user:password@host:5432/database.")
                })?;
                let replace = switch(with, "existing", ["refuse", "replace"])?;
                Ok(Self::Postgres(PostgresOptions { url, table, create, replace }))
            }
            "redis" => {
                known(&["prefix", "existing"])?;
                let url = text("url")?;
                if ::redis::Client::open(url.as_str()).is_err() {
                    let message = "the Redis URL cannot be read".to_owned();
                    return Err(invalid(message, "Write redis://user:password@host:6379/0."));
                }
                let prefix = with.get("prefix").and_then(Value::as_str).map(str::to_owned);
                let prefix = prefix.unwrap_or_else(|| format!("{}:", def.on));
                if prefix.is_empty() {
                    let message = "the prefix of a sink's keys cannot be empty".to_owned();
                    return Err(invalid(message, "The default is the view's name and a colon."));
                }
                let replace = switch(with, "existing", ["refuse", "replace"])?;
                Ok(Self::Redis(RedisOptions { url, prefix, replace }))
            }
            "kafka" => {
                known(&[])?;
                Ok(Self::Kafka(KafkaOptions { brokers: text("url")?, topic: text("topic")? }))
            }
            other => Err(invalid(
                format!("there is no sink into {other}"),
                "Use INTO POSTGRES, REDIS or KAFKA.",
            )),
        }
    }

    /// As [`Options::read`], of what the catalog keeps.
    pub(crate) fn kept(def: &OutletDef) -> Result<Self, OutletError> {
        Self::read(def).map_err(|error| OutletError::Failed(error.message))
    }
}

/// Whether an option has the second of two values; the first is the default.
fn switch(with: &Map<String, Value>, key: &str, values: [&str; 2]) -> Result<bool, PlanError> {
    let value = with.get(key).and_then(Value::as_str).unwrap_or(values[0]);
    match value.to_lowercase() {
        value if value == values[0] => Ok(false),
        value if value == values[1] => Ok(true),
        _ => Err(invalid(
            format!("invalid value for {key}: \"{value}\""),
            &format!("Use '{}' or '{}'.", values[0], values[1]),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evert_view::{Name, OutletKind};
    use serde_json::json;

    fn read(options: Value) -> Result<Options, PlanError> {
        let on = Name::public("v");
        Options::read(&OutletDef::new(Name::public("k"), OutletKind::Sink, on, options))
    }

    #[test]
    fn options_are_read_and_mistakes_are_told() {
        let redis = json!({ "into": "redis", "url": "redis://h:6379/1", "with": {} });
        let Ok(Options::Redis(options)) = read(redis) else { panic!("it is a Redis sink") };
        assert_eq!((options.prefix.as_str(), options.replace), ("v:", false));
        let postgres = |with: Value| {
            let url = "postgres://u:pw@h/d";
            read(json!({ "into": "postgres", "url": url, "table": ["s", "t"], "with": with }))
        };
        let Ok(Options::Postgres(options)) = postgres(json!({ "create": "ON" })) else {
            panic!("it is a Postgres sink")
        };
        assert!(options.create && !options.replace);
        for (with, message) in [
            (json!({ "prefix": "x" }), "unrecognized option \"prefix\""),
            (json!({ "existing": "keep" }), "invalid value for existing: \"keep\""),
        ] {
            assert_eq!(postgres(with).expect_err("refused").message, message);
        }
        let bad = json!({ "into": "postgres", "url": "postgres://u:s3cret@h:x/d", "table": ["t"] });
        let error = read(bad).expect_err("refused");
        assert!(!error.message.contains("s3cret"), "{}", error.message);
    }
}
