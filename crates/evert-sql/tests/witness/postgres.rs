//! A Postgres of the test's own, in a temporary directory, behind a Unix socket.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A running server; it ends with this value.
pub(crate) struct Postgres {
    dir: TempDir,
    process: Child,
}

/// The rows of an answer, cells as Postgres shows them, or SQLSTATE and message.
pub(crate) type Answer = Result<Vec<Vec<Option<String>>>, (String, String)>;

impl Postgres {
    /// Makes a cluster and starts it.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let account = account();
        if let Some((user, group)) = account {
            chown(dir.path(), Some(user), Some(group)).expect("a directory of that account");
        }
        let command = |program: &str| {
            let mut command = Command::new(find(program));
            command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
            command
        };
        let made = command("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
            .args(["--lc-collate=C", "--lc-ctype=C.UTF-8", "--locale=C.UTF-8", "-D", "data"])
            .output()
            .expect("initdb runs: is Postgres installed?");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = command("postgres");
        server.args(["-D", "data"]);
        let socket = format!("unix_socket_directories={}", dir.path().display());
        for setting in [
            socket.as_str(),
            "listen_addresses=",
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=off",
            "shared_buffers=64MB",
            "jit=off",
            "timezone=UTC",
            "datestyle=ISO",
            "max_parallel_workers_per_gather=0",
            "statement_timeout=20s",
        ] {
            server.args(["-c", setting]);
        }
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let process = server.stderr(log).spawn().expect("Postgres runs");
        Self { dir, process }
    }

    /// A connection with a schema of its own.
    pub(crate) async fn connect(&self, schema: &str) -> Connection {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.dir.path()).user("postgres").dbname("postgres");
        let started = Instant::now();
        let client = loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    break client;
                }
                Err(error) => {
                    let patient = started.elapsed() < Duration::from_secs(60);
                    assert!(patient, "Postgres does not start: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        Connection { client, schema: schema.to_owned() }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT is Postgres's immediate shutdown; it takes its children along.
        let pid = self.process.id().to_string();
        let quit = Command::new("kill").args(["-QUIT", &pid]).status();
        if !quit.is_ok_and(|status| status.success()) {
            self.process.kill().ok();
        }
        self.process.wait().ok();
    }
}

/// A session.
pub(crate) struct Connection {
    client: Client,
    schema: String,
}

impl Connection {
    /// Begins with an empty schema and these statements.
    pub(crate) async fn begin(&self, statements: &str) {
        let schema = &self.schema;
        self.run(&format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS {schema} CASCADE; \
             CREATE SCHEMA {schema}; SET search_path = {schema}; {statements}"
        ))
        .await;
    }

    pub(crate) async fn run(&self, statements: &str) {
        let done = self.client.batch_execute(statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// Answers to queries, all sent before the first answer is awaited.
    pub(crate) async fn answers(&self, queries: &[String]) -> Vec<Answer> {
        join_all(queries.iter().map(|query| self.answer(query))).await
    }

    async fn answer(&self, query: &str) -> Answer {
        let messages = self.client.simple_query(query).await.map_err(|error| {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{query}: {error:?}"));
            (error.code().code().to_owned(), error.message().to_owned())
        })?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// The newest that Debian installed, else the one on the path.
fn find(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter(|path| version(path).is_some());
    match newest.max_by_key(version) {
        Some(path) => path.join("bin").join(program),
        None => program.into(),
    }
}

/// Postgres refuses to run as root: then it runs as this user and group.
fn account() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let us = std::fs::metadata("/proc/self").map(|m| m.uid()).unwrap_or(1);
    if us != 0 {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").expect("a list of accounts");
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("an account that is not root"))
}
