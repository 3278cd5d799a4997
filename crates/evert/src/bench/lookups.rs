//! Lookups by key over the SQL door, beside a Postgres with the same rows: both are asked by
//! pgbench, with the statement of its `-S`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::runtime::Handle;
use tokio_postgres::NoTls;

use super::Bench;
use super::doors::Server;
use super::report::{Durability, Outcome, Report};
use super::usage::Taken;

const TABLE: &str = "evert_bench_accounts";
const ROWS: usize = 100_000;
/// Rows of a statement that fills the table.
const ROWS_AT_ONCE: usize = 1000;
const SECONDS: &str = "5";
const CONNECTIONS: [&str; 2] = ["1", "8"];

/// Lookups in Evert and in the Postgres at `url`, in a table that is made and dropped.
pub(super) fn items(bench: &Bench, report: &mut Report, url: &str) -> Result<()> {
    bench.begin("accounts for both servers");
    let evert = Server::evert(&bench.scratch.path().join("lookups"))?;
    let address = evert.sql.context("the SQL door is closed")?;
    let own = format!("postgres://bench@{address}/bench");
    let script = bench.scratch.path().join("lookup.sql");
    let statement =
        format!("\\set aid random(1, {ROWS})\nSELECT abalance FROM {TABLE} WHERE aid = :aid;\n");
    std::fs::write(&script, statement)?;
    for url in [&own, url] {
        Handle::current().block_on(fill(url))?;
    }
    let process = Some(evert.process.id());
    for connections in CONNECTIONS {
        for (name, url, process) in [("evert", own.as_str(), process), ("Postgres", url, None)] {
            let name = format!("pgbench -S -M prepared, {connections} connections: {name}");
            report.item(bench, &name, Durability::Read, true, || {
                let taken = process.map(Taken::by);
                let mut pgbench = Command::new("pgbench");
                let asked = ask(pgbench.arg("-f").arg(&script).args(["-c", connections, url]))?;
                // Postgres is a process for each connection: what it takes is not known.
                let taken = taken.map_or_else(Taken::default, |taken| taken());
                Ok(Outcome { taken: Some(taken), ..asked })
            })?;
        }
    }
    Handle::current().block_on(async {
        connect(url).await?.batch_execute(&format!("DROP TABLE {TABLE}")).await?;
        Ok(())
    })
}

async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect for lookups")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn fill(url: &str) -> Result<()> {
    let client = connect(url).await?;
    client.batch_execute(&format!("DROP TABLE IF EXISTS {TABLE}")).await?;
    let columns = "(aid int PRIMARY KEY, bid int, abalance int, filler text)";
    client.batch_execute(&format!("CREATE TABLE {TABLE} {columns}")).await?;
    for first in (1..=ROWS).step_by(ROWS_AT_ONCE) {
        let rows = first..first + ROWS_AT_ONCE;
        let values: Vec<_> = rows.map(|aid| format!("({aid}, 1, 0, '{aid:084}')")).collect();
        let values = values.join(", ");
        client.batch_execute(&format!("INSERT INTO {TABLE} VALUES {values}")).await?;
    }
    Ok(())
}

/// What pgbench measures.
fn ask(pgbench: &mut Command) -> Result<Outcome> {
    let pgbench = pgbench.args(["-n", "-M", "prepared", "-T", SECONDS]);
    let done = pgbench.output().context("cannot start pgbench: install postgresql-client")?;
    let text = String::from_utf8_lossy(&done.stdout);
    let figure = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let figure = figure.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let Some(per_second) = figure else {
        bail!("pgbench said {text:?} {:?}", String::from_utf8_lossy(&done.stderr));
    };
    let elapsed = Duration::from_secs_f64(SECONDS.parse()?);
    let records = (per_second * elapsed.as_secs_f64()) as usize;
    Ok(Outcome { elapsed, records, ..Outcome::default() })
}
