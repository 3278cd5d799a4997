//! Sources against a real Postgres.

mod changes;
mod cluster;
mod crashes;
mod memory;
mod refusals;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use evert_model::{Lsn, Position};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::address::Address;
use crate::definition::Definition;
use crate::inspect;
use crate::sources::{NewSource, define};
use crate::status::{SourcePhase, SourceStatus, StatusCell};
use crate::worker::{self, Source};
use cluster::Cluster;
use memory::Memory;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A source that runs over a log in memory.
struct Running {
    status: StatusCell,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn status(&self) -> SourceStatus {
        self.status.get()
    }

    async fn stop(self) {
        let _ = self.stop.send(true);
        self.task.await.unwrap();
    }

    async fn wait_for(&self, what: &str, done: impl Fn(&SourceStatus) -> bool) {
        wait_for(what, || {
            let status = self.status();
            assert!(
                status.phase != SourcePhase::Failed || done(&status),
                "{what}: {}",
                status.state()
            );
            done(&status)
        })
        .await;
    }

    /// Waits until everything that the cluster has committed is durable.
    async fn catch_up(&self, client: &Client) {
        let end = wal_end(client).await;
        let what = format!("{} is reached", end.to_postgres());
        self.wait_for(&what, |status| status.lsn.is_some_and(|lsn| lsn >= end)).await;
    }
}

async fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn wal_end(client: &Client) -> Lsn {
    let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
    Lsn::parse(row.get(0)).unwrap()
}

async fn confirmed(client: &Client) -> Lsn {
    let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots";
    Lsn::parse(client.query_one(sql, &[]).await.unwrap().get(0)).unwrap()
}

fn new_source(cluster: &Cluster, tables: &[&str]) -> NewSource {
    NewSource {
        name: "shop".into(),
        url: cluster.url(),
        publication: None,
        slot: None,
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
    }
}

/// Defines the source `shop` as CREATE SOURCE does.
async fn define_shop(cluster: &Cluster, client: &Client, tables: &[&str]) -> Definition {
    let new = new_source(cluster, tables);
    let url = Address::parse(&new.url).unwrap();
    let (definition, _) = define(client, url, &new, Position::ZERO).await.unwrap();
    inspect::ensure_publication(client, &definition.publication, &definition.tables).await.unwrap();
    definition
}

/// Starts or resumes the source `shop`.
fn start(memory: &Arc<Memory>, definition: &Definition, confirms_early: bool) -> Running {
    let status = StatusCell::new("shop", definition);
    let (stop, stopped) = watch::channel(false);
    let source = Source {
        name: "shop".into(),
        definition: definition.clone(),
        destination: Arc::new(Arc::clone(memory)),
        status: status.clone(),
        confirms_early,
    };
    Running { status, stop, task: tokio::spawn(worker::run(source, None, stopped)) }
}
