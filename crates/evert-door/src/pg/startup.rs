//! The beginning of a connection: what a client asks for before its first statement.

use super::backend::{Session, SqlError};

/// The startup packet's parameters, sorted out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Startup {
    pub(super) user: String,
    pub(super) database: String,
    /// Settings for the session, in the order given.
    pub(super) settings: Vec<(String, String)>,
    /// Protocol options, none of which exist in 3.0.
    pub(super) unknown_options: Vec<String>,
}

impl Startup {
    pub(super) fn new(parameters: Vec<(String, String)>) -> Result<Self, SqlError> {
        let mut startup = Self::default();
        for (name, value) in parameters {
            match &*name {
                "user" => startup.user = value,
                "database" => startup.database = value,
                "options" => startup.settings.extend(options(&value)),
                "client_encoding" => check_encoding(&value)?,
                "replication" => {
                    if !matches!(&*value.to_ascii_lowercase(), "false" | "off" | "no" | "0") {
                        return Err(SqlError::new("0A000", "replication is not supported"));
                    }
                }
                _ if name.starts_with("_pq_.") => startup.unknown_options.push(name),
                _ => startup.settings.push((name, value)),
            }
        }
        if startup.user.is_empty() {
            let message = "no PostgreSQL user name specified in startup packet";
            return Err(SqlError::new("28000", message));
        }
        if startup.database.is_empty() {
            startup.database.clone_from(&startup.user);
        }
        Ok(startup)
    }

    /// Applies the settings. One that the engine does not know is left out: drivers send theirs
    /// without asking, and a session without them is better than none.
    pub(super) async fn apply(&self, session: &mut dyn Session) {
        for (name, value) in &self.settings {
            if let Err(error) = set(session, name, value).await {
                tracing::debug!(name, %error, "sql: a setting at startup was left out");
            }
        }
        let _ = session.take_notices();
    }
}

async fn set(session: &mut dyn Session, name: &str, value: &str) -> Result<(), SqlError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    if name.is_empty() || !name.bytes().all(legal) {
        return Err(SqlError::new("42704", format!("unrecognized setting \"{name}\"")));
    }
    let value = value.replace('\'', "''");
    for statement in session.parse(&format!("SET {name} TO '{value}'"))? {
        session.execute(&statement, &[]).await?;
    }
    Ok(())
}

/// Text travels as UTF-8. `SQL_ASCII` asks for no conversion, which is the same.
fn check_encoding(name: &str) -> Result<(), SqlError> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match &*plain.to_ascii_lowercase() {
        "utf8" | "unicode" | "sqlascii" | "" => Ok(()),
        _ => Err(SqlError {
            hint: Some("Set the client's encoding to UTF8.".into()),
            ..SqlError::new("0A000", format!("client encoding \"{name}\" is not supported"))
        }),
    }
}

/// Settings in `options`: `-c name=value`, `-cname=value` or `--name=value`, where a backslash
/// keeps the next character as it is.
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        let word = words.last_mut().expect("there is always a last word");
        match next {
            '\\' => word.extend(chars.next()),
            _ if next.is_whitespace() => words.push(String::new()),
            _ => word.push(next),
        }
    }
    let mut settings = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--").or(word.strip_prefix("-c")).map(str::to_owned)
        };
        if let Some((name, value)) = setting.as_deref().and_then(|text| text.split_once('=')) {
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_sorted_out() {
        let pairs = [
            ("user", "me"),
            ("options", r"-c evert.after=41 --statement-timeout=5s -c application_name=a\ b"),
            ("client_encoding", "'utf-8'"),
            ("_pq_.more", "1"),
            ("TimeZone", "UTC"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let startup = Startup::new(pairs.into()).expect("legal");
        assert_eq!((&*startup.user, &*startup.database), ("me", "me"));
        let settings = [
            ("evert.after", "41"),
            ("statement_timeout", "5s"),
            ("application_name", "a b"),
            ("TimeZone", "UTC"),
        ];
        assert_eq!(startup.settings, settings.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(startup.unknown_options, ["_pq_.more"]);
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let refused = |name: &str, value: &str| {
            let pairs = vec![("user".into(), "me".into()), (name.into(), value.into())];
            Startup::new(pairs).expect_err(name).sqlstate
        };
        assert_eq!(refused("client_encoding", "LATIN1"), "0A000");
        assert_eq!(refused("replication", "database"), "0A000");
        assert_eq!(Startup::new(Vec::new()).expect_err("no user").sqlstate, "28000");
    }
}
