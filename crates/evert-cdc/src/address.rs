//! Where a source is, and how it is reached.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pgwire_replication::ReplicationConfig;
use serde::{Deserialize, Serialize};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, NoTls};

use crate::error::{LinkError, SourceError};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The session settings under which both the copy and the stream print values.
const SESSION: &[(&str, &str)] = &[
    ("timezone", "UTC"),
    ("datestyle", "ISO,YMD"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// A connection string. `Debug` and [`Address::display`] leave the password out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Address(String);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

impl Address {
    /// Checks that the string can be understood and asks for nothing that is not there.
    pub(crate) fn parse(url: &str) -> Result<Self, SourceError> {
        let address = Self(url.to_owned());
        let config = address.config()?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(SourceError::refused(
                "sslmode=require: TLS to a source is not supported",
                "Use sslmode=disable over a network that you trust, or a tunnel.",
            ));
        }
        if config.get_hosts().len() != 1 {
            return Err(SourceError::invalid("the connection string must name one host"));
        }
        if config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(SourceError::refused(
                "the connection string must name a user and a database",
                "Write postgres://user:password@host:5432/database",
            ));
        }
        Ok(address)
    }

    /// The string without its password.
    pub(crate) fn display(&self) -> String {
        let Ok(config) = self.config() else { return "(not a connection string)".into() };
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        format!(
            "postgres://{}@{host}:{}/{}",
            config.get_user().unwrap_or_default(),
            config.get_ports().first().copied().unwrap_or(5432),
            config.get_dbname().unwrap_or_default(),
        )
    }

    fn config(&self) -> Result<tokio_postgres::Config, SourceError> {
        // The library's error text never repeats the string itself.
        let mut config = tokio_postgres::Config::from_str(&self.0).map_err(|error| {
            SourceError::invalid(format!("the connection string cannot be read: {error}"))
        })?;
        config.ssl_mode(match config.get_ssl_mode() {
            SslMode::Require => SslMode::Require,
            _ => SslMode::Disable,
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        Ok(config)
    }

    /// An ordinary session with the settings above.
    pub(crate) async fn connect(&self, application: &str) -> Result<Client, SourceError> {
        let mut config = self.config()?;
        config.application_name(application);
        // The library's own timeout ends with the TCP handshake; a server that accepts and then
        // says nothing must not hold a worker either.
        let connected = tokio::time::timeout(CONNECT_TIMEOUT * 2, config.connect(NoTls)).await;
        let (client, connection) = connected.map_err(|_| {
            SourceError::Link(LinkError {
                message: "Postgres did not answer in time".into(),
                sqlstate: None,
            })
        })??;
        // Every call through the client reports how the connection ended.
        tokio::spawn(connection);
        let settings: Vec<String> =
            SESSION.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect();
        client.batch_execute(&settings.join(";")).await?;
        Ok(client)
    }

    /// The settings of a replication session with the same printing of values.
    pub(crate) fn replication(
        &self,
        slot: &str,
        publication: &str,
    ) -> Result<ReplicationConfig, SourceError> {
        let config = self.config()?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => return Err(SourceError::invalid("the connection string must name one host")),
        };
        let password = String::from_utf8_lossy(config.get_password().unwrap_or_default());
        // pgoutput folds unquoted publication names to lower case.
        let publication = quote_identifier(publication);
        let mut replication = ReplicationConfig::new(
            host,
            config.get_user().unwrap_or_default(),
            password,
            config.get_dbname().unwrap_or_default(),
            slot,
            publication,
        )
        .with_port(port);
        // Values of options are separated by blanks, which a backslash escapes; none has one.
        let options = SESSION.iter().map(|(name, value)| format!("-c {name}={value}"));
        replication.options = Some(options.collect::<Vec<_>>().join(" "));
        replication.application_name = Some("evert".into());
        Ok(replication)
    }
}

/// An identifier in double quotes.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant in single quotes.
pub(crate) fn quote_literal(text: &str) -> String {
    if text.contains('\\') {
        return format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_shown() {
        let address = Address::parse("postgres://ann:s3cret@db.example:5433/shop").unwrap();
        assert_eq!(address.display(), "postgres://ann@db.example:5433/shop");
        assert_eq!(format!("{address:?}"), "postgres://ann@db.example:5433/shop");
        let keywords = Address::parse("host=h user=u dbname=d password=s3cret").unwrap();
        assert_eq!(keywords.display(), "postgres://u@h:5432/d");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (url, why) in [
            ("postgres://u@h/d?sslmode=require", "TLS"),
            ("postgres://u@h1,h2/d", "one host"),
            ("postgres://h/d", "user"),
            ("postgres://u@h", "database"),
            ("what is this", "cannot be read"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
        let error = Address::parse("postgres://u:s3cret@h:port/d").unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn names_and_strings_are_quoted() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }
}
