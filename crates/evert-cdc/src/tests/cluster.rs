//! A Postgres of a test's own, in a temporary directory, on a free port.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

pub(super) struct Cluster {
    dir: TempDir,
    port: u16,
    /// Postgres refuses to run as root: then it runs as this user and group.
    account: Option<(u32, u32)>,
    process: Option<Child>,
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let account = account();
        if let Some((user, group)) = account {
            chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Self { dir, port, account, process: None };
        let made = cluster
            .command("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(cluster.dir.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster.run().await;
        cluster
    }

    /// Starts the server of a cluster that was stopped.
    pub(super) async fn run(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.dir.path().join("data"));
        for setting in [
            format!("port={}", self.port),
            format!("unix_socket_directories={}", self.dir.path().display()),
            "listen_addresses=127.0.0.1".into(),
            "wal_level=logical".into(),
            "autovacuum=off".into(),
            // The operating system outlives every crash of these tests.
            "fsync=off".into(),
        ] {
            command.args(["-c", &setting]);
        }
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        self.process = Some(command.stderr(log).spawn().unwrap());
        let started = Instant::now();
        while self.try_client().await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "Postgres does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the server as a crash does.
    pub(super) fn crash(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // SIGQUIT is Postgres's immediate shutdown; it takes its children along.
        let pid = process.id().to_string();
        let quit = Command::new("kill").args(["-QUIT", &pid]).status().unwrap();
        assert!(quit.success());
        process.wait().unwrap();
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres:s3cret@127.0.0.1:{}/postgres", self.port)
    }

    pub(super) async fn client(&self) -> Client {
        self.try_client().await.unwrap()
    }

    async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await?;
        Ok(client)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(find(program));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}

/// The newest that Debian installed, else the one on the path.
fn find(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter(|p| version(p).is_some());
    match newest.max_by_key(version) {
        Some(path) => path.join("bin").join(program),
        None => program.into(),
    }
}

fn account() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let us = std::fs::metadata("/proc/self").map(|m| m.uid()).unwrap_or(1);
    if us != 0 {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("an account that is not root"))
}
