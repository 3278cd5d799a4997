//! The doors: rows by key beside a redis-server with the same rows, and messages about changes, to
//! subscribers of the key-value door and of the HTTP door.
//!
//! Both servers are processes of their own and are asked by redis-benchmark, one after the other.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::runtime::Handle;

use super::Bench;
use super::report::{Durability, Outcome, Report};
use super::usage::Taken;

/// Rows of the table, which redis-benchmark's random keys are spread over.
const ROWS: usize = 100_000;
const REQUESTS: usize = 1_000_000;
const CONNECTIONS: &str = "50";
const SUBSCRIBERS: usize = 1_000;
const CHANGES_PER_SECOND: usize = 5_000;
/// Rows of a statement that changes some.
const CHANGES_AT_ONCE: usize = 50;
/// How long after the last change its messages are waited for.
const MESSAGES_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    bench.begin("rows for both servers");
    let evert = Server::evert(&bench.scratch.path().join("evert"))?;
    let redis = Server::redis(&bench.scratch.path().join("redis"))?;
    fill_evert(&evert)?;
    fill_redis(&redis)?;
    let commands: [(&str, &[&str]); 2] = [
        ("HGETALL", &["HGETALL", "rows:__rand_int__"]),
        ("HGET", &["HGET", "rows:__rand_int__", "name"]),
    ];
    for (what, command) in commands {
        for pipeline in [1, 32] {
            for (name, server) in [("evert", &evert), ("redis-server", &redis)] {
                let name = format!("{what}, {CONNECTIONS} connections, {pipeline} at once: {name}");
                let requests = bench.records(REQUESTS) * if pipeline == 1 { 1 } else { 4 };
                report.item(bench, &name, Durability::Read, true, || {
                    ask(server, command, pipeline, requests)
                })?;
            }
        }
    }
    let changes = bench.records(100_000);
    for (what, door) in [("keyspace message", Told::Keyspace), ("server-sent event", Told::Events)]
    {
        let name = format!(
            "a {what} to {SUBSCRIBERS} subscribers, each of a row, {CHANGES_PER_SECOND} changes/s"
        );
        report.item(bench, &name, Durability::Synced, false, || {
            Handle::current().block_on(messages(&evert, door, changes))
        })?;
    }
    Ok(())
}

/// A server of its own, stopped when it goes out of scope.
pub(super) struct Server {
    pub(super) process: Child,
    keyvalue: SocketAddr,
    pub(super) sql: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It keeps nothing that anybody wants.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Server {
    pub(super) fn evert(dir: &Path) -> Result<Self> {
        let any = "127.0.0.1:0";
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", "--kafka", "off", "--http", any, "--sql", any, "--keyvalue", any])
            .arg("--data")
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start evert serve")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("its output is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let door = |name: &str| {
            let words = line.split_whitespace();
            let mut addresses = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            addresses.next().and_then(|address| address.parse::<SocketAddr>().ok())
        };
        let (keyvalue, sql, http) = (door("keyvalue"), door("sql"), door("http"));
        let keyvalue = keyvalue.with_context(|| format!("evert serve said {line:?}"))?;
        Ok(Self { process, keyvalue, sql, http })
    }

    fn redis(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let keyvalue = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = Command::new("redis-server")
            .args(["--port", &keyvalue.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start redis-server: install it to compare with")?;
        let server = Self { process, keyvalue, sql: None, http: None };
        let begun = Instant::now();
        while TcpStream::connect(keyvalue).is_err() {
            ensure!(begun.elapsed() < Duration::from_secs(10), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    async fn sql(&self) -> Result<tokio_postgres::Client> {
        let address = self.sql.context("the SQL door is closed")?;
        let (host, port) = (address.ip(), address.port());
        let config = format!("host={host} port={port} user=bench dbname=bench");
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }
}

/// A row as redis-benchmark names it: twelve digits.
fn key(row: usize) -> String {
    format!("{row:012}")
}

fn fields(row: usize) -> [String; 4] {
    [
        format!("merchant {row}"),
        "captured".to_owned(),
        format!("{}.50", row % 1000),
        row.to_string(),
    ]
}

const NAMES: [&str; 4] = ["name", "status", "amount", "n"];

fn fill_evert(server: &Server) -> Result<()> {
    Handle::current().block_on(async {
        let client = server.sql().await?;
        let table = "CREATE TABLE rows (id text PRIMARY KEY, name text, status text, \
                     amount numeric(12,2), n bigint)";
        client.batch_execute(table).await?;
        for first in (0..ROWS).step_by(1000) {
            let values: Vec<_> = (first..first + 1000)
                .map(|row| {
                    let [name, status, amount, n] = fields(row);
                    format!("('{}','{name}','{status}',{amount},{n})", key(row))
                })
                .collect();
            client.batch_execute(&format!("INSERT INTO rows VALUES {}", values.join(","))).await?;
        }
        let count: i64 = client.query_one("SELECT count(*) FROM rows", &[]).await?.get(0);
        ensure!(count == ROWS as i64, "{count} rows of {ROWS}");
        Ok(())
    })
}

fn fill_redis(server: &Server) -> Result<()> {
    let mut socket = TcpStream::connect(server.keyvalue)?;
    for first in (0..ROWS).step_by(1000) {
        let mut commands = String::new();
        for row in first..first + 1000 {
            let mut words = vec!["HSET".to_owned(), format!("rows:{}", key(row))];
            words.extend(["id".to_owned(), key(row)]);
            for (name, value) in NAMES.iter().zip(fields(row)) {
                words.extend([(*name).to_owned(), value]);
            }
            commands.push_str(&format!("*{}\r\n", words.len()));
            words.iter().for_each(|w| commands.push_str(&format!("${}\r\n{w}\r\n", w.len())));
        }
        socket.write_all(commands.as_bytes())?;
        // Each is answered with the number of new fields.
        let mut answers = [0; 4 * 1000];
        socket.read_exact(&mut answers)?;
        ensure!(answers.chunks(4).all(|answer| answer == b":5\r\n"), "redis-server took no rows");
    }
    Ok(())
}

/// What redis-benchmark measures.
fn ask(server: &Server, command: &[&str], pipeline: usize, requests: usize) -> Result<Outcome> {
    let taken = Taken::by(server.process.id());
    let done = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &server.keyvalue.port().to_string(), "--csv"])
        .args(["-c", CONNECTIONS, "-P", &pipeline.to_string(), "-n", &requests.to_string()])
        .args(["-r", &ROWS.to_string()])
        .args(command)
        .output()
        .context("cannot start redis-benchmark: install redis-tools")?;
    let text = String::from_utf8_lossy(&done.stdout);
    // "test","rps",... and a line of figures for the test.
    let figures = text.lines().next_back().and_then(|line| line.rsplit("\",\"").nth(6));
    let per_second = figures.and_then(|figure| figure.trim_matches('"').parse::<f64>().ok());
    let Some(per_second) = per_second.filter(|per_second| *per_second > 0.0) else {
        bail!("redis-benchmark said {text:?} {:?}", String::from_utf8_lossy(&done.stderr));
    };
    let elapsed = Duration::from_secs_f64(requests as f64 / per_second);
    Ok(Outcome { elapsed, records: requests, taken: Some(taken()), ..Outcome::default() })
}

/// When each row was changed last.
type Changed = Arc<Mutex<HashMap<String, Instant>>>;

/// How subscribers are told.
#[derive(Clone, Copy)]
enum Told {
    Keyspace,
    Events,
}

/// A subscriber's connection, which tells of one row from now on.
async fn subscribe(server: &Server, told: Told, row: usize) -> Result<BufStream> {
    let (address, request, greeting) = match told {
        Told::Keyspace => {
            let request = format!("SUBSCRIBE __keyspace@0__:rows:{}\r\n", key(row));
            // The confirmation ends in a number.
            (server.keyvalue, request, ":1")
        }
        Told::Events => {
            let path = format!("/api/views/rows/changes?key={}", key(row));
            let request = format!("GET {path} HTTP/1.1\r\nHost: evert\r\n\r\n");
            (server.http.context("the HTTP door is closed")?, request, ": evert")
        }
    };
    let mut socket = tokio::io::BufReader::new(tokio::net::TcpStream::connect(address).await?);
    socket.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    while line.trim_end() != greeting {
        line.clear();
        ensure!(socket.read_line(&mut line).await? > 0, "a subscriber was turned away");
    }
    Ok(socket)
}

type BufStream = tokio::io::BufReader<tokio::net::TcpStream>;

/// Whether a line tells that the row is another one now.
fn tells(told: Told, line: &str) -> bool {
    match told {
        Told::Keyspace => line.trim_end() == "hset",
        Told::Events => line.contains("\"evert_weight\":1,"),
    }
}

/// How long after the statement that changes a row was sent its message comes.
async fn messages(server: &Server, told: Told, changes: usize) -> Result<Outcome> {
    let changed: Changed = Arc::default();
    let latencies = Arc::new(Mutex::new(Vec::with_capacity(changes)));
    let mut listeners = Vec::new();
    for row in 0..SUBSCRIBERS {
        let mut socket = subscribe(server, told, row).await?;
        let (changed, latencies) = (Arc::clone(&changed), Arc::clone(&latencies));
        listeners.push(tokio::spawn(async move {
            let mut line = String::new();
            while matches!(socket.read_line(&mut line).await, Ok(1..)) {
                if tells(told, &line) {
                    let sent = lock(&changed).get(&key(row)).copied();
                    lock(&latencies).extend(sent.map(|sent| sent.elapsed()));
                }
                line.clear();
            }
        }));
    }
    let client = server.sql().await?;
    let taken = Taken::by(server.process.id());
    let begun = Instant::now();
    for step in 0..changes / CHANGES_AT_ONCE {
        let due =
            Duration::from_secs_f64((step * CHANGES_AT_ONCE) as f64 / CHANGES_PER_SECOND as f64);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        let rows = (0..CHANGES_AT_ONCE).map(|n| (step * CHANGES_AT_ONCE + n) % SUBSCRIBERS);
        let rows: Vec<_> = rows.map(key).collect();
        // No two statements write the same row: each is a change.
        let n = changed_rows(&changed, &rows);
        let values: Vec<_> = rows.iter().map(|k| format!("('{k}','x','y',1,{n})")).collect();
        client.batch_execute(&format!("INSERT INTO rows VALUES {}", values.join(","))).await?;
    }
    let elapsed = begun.elapsed();
    let expected = changes / CHANGES_AT_ONCE * CHANGES_AT_ONCE;
    let until = Instant::now() + MESSAGES_WITHIN;
    while lock(&latencies).len() < expected && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    listeners.iter().for_each(tokio::task::JoinHandle::abort);
    let latencies = std::mem::take(&mut *lock(&latencies));
    ensure!(latencies.len() == expected, "{} messages of {expected}", latencies.len());
    let taken = Some(taken());
    Ok(Outcome { elapsed, records: expected, latencies, taken, ..Outcome::default() })
}

/// Notes that rows change now; gives a number that no earlier change had.
fn changed_rows(changed: &Changed, rows: &[String]) -> i64 {
    let now = Instant::now();
    lock(changed).extend(rows.iter().map(|key| (key.clone(), now)));
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
