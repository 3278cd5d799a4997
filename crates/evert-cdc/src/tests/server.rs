//! Sources over the real log and the real views.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use evert_env::Env;
use evert_log::{Log, LogConfig};
use evert_model::PositionToken;
use evert_view::{Catalog, Name, PlanError, PlannedView, Planner, Views};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::changes::SCHEMA;
use super::cluster::Cluster;
use super::{PATIENCE, new_source, wait_for, wal_end};
use crate::{SourceError, SourcePhase, Sources};

/// A server without SQL.
struct Server {
    dir: TempDir,
    log: Log,
    views: Views,
    sources: Sources,
}

struct NoSql;

impl Planner for NoSql {
    fn plan_view(&self, _: &str, _: &Catalog) -> Result<PlannedView, PlanError> {
        Err(PlanError { sqlstate: "0A000", message: "no SQL here".into(), hint: None })
    }
}

impl Server {
    async fn open(dir: TempDir) -> Self {
        let path: PathBuf = dir.path().join("log");
        let opened = tokio::task::spawn_blocking(move || {
            let log = Log::open(Env::real(), path, LogConfig::default()).unwrap();
            let views = Views::open(Env::real(), log.clone(), Arc::new(NoSql)).unwrap();
            (log, views)
        });
        let (log, views) = opened.await.unwrap();
        let sources = Sources::new(log.clone(), views.clone());
        sources.start_all();
        Self { dir, log, views, sources }
    }

    async fn restart(self) -> Self {
        let Self { dir, log, views, sources } = self;
        sources.stop().await;
        drop(sources);
        tokio::task::spawn_blocking(move || {
            views.close();
            log.close();
        })
        .await
        .unwrap();
        Self::open(dir).await
    }

    /// Waits until all that the cluster has committed can be read.
    async fn catch_up(&self, client: &Client) {
        let lsn = wal_end(client).await;
        let token = PositionToken::Source { source: "shop".into(), lsn };
        self.views.resolve(&token, PATIENCE).await.unwrap();
    }

    /// A relation's rows at the log's end.
    async fn rows(&self, table: &str) -> Vec<RecordBatch> {
        let name = Name::new("shop", table);
        let names = std::slice::from_ref(&name);
        let cut = self.views.pin(names, self.log.end(), PATIENCE).await.unwrap();
        cut.snapshots[&name].scan(None).collect()
    }

    async fn check_equal(&self, client: &Client, what: &str) {
        let mut items = BTreeMap::new();
        for row in client.query("SELECT id, name, body, n FROM items", &[]).await.unwrap() {
            let value: (Option<String>, Option<String>, Option<i32>) =
                (row.get(1), row.get(2), row.get(3));
            items.insert(row.get::<_, i32>(0), value);
        }
        let mut ours = BTreeMap::new();
        for batch in self.rows("items").await {
            for row in 0..batch.num_rows() {
                let value = (text(&batch, 1, row), text(&batch, 2, row), number(&batch, 3, row));
                let id = number(&batch, 0, row).unwrap();
                assert!(ours.insert(id, value).is_none(), "{what}: {id} twice");
            }
        }
        assert!(ours == items, "items differ after {what}");
        let mut bag: Vec<(Option<i32>, Option<String>)> = Vec::new();
        for row in client.query("SELECT a, b FROM bag", &[]).await.unwrap() {
            bag.push((row.get(0), row.get(1)));
        }
        let mut ours = Vec::new();
        for batch in self.rows("bag").await {
            let row = |row| (number(&batch, 0, row), text(&batch, 1, row));
            ours.extend((0..batch.num_rows()).map(row));
        }
        bag.sort();
        ours.sort();
        assert_eq!(ours, bag, "bag differs after {what}");
    }
}

fn text(batch: &RecordBatch, column: usize, row: usize) -> Option<String> {
    let array = batch.column(column).as_string_view();
    array.is_valid(row).then(|| array.value(row).to_owned())
}

fn number(batch: &RecordBatch, column: usize, row: usize) -> Option<i32> {
    let array = batch.column(column).as_primitive::<Int32Type>();
    array.is_valid(row).then(|| array.value(row))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_equal_their_originals_through_restarts() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let seed = "INSERT INTO items SELECT g, 'i' || g, repeat(md5(g::text), 300), g \
            FROM generate_series(1, 1000) g; \
        INSERT INTO bag SELECT g % 5, 'same' FROM generate_series(1, 50) g";
    client.batch_execute(seed).await.unwrap();
    let mut server = Server::open(tempfile::tempdir().unwrap()).await;
    let notices = server.sources.create(new_source(&cluster, &["items", "bag"])).await.unwrap();
    assert_eq!(notices, Vec::<String>::new());
    server.catch_up(&client).await;
    server.check_equal(&client, "the copy").await;
    for (n, step) in [
        "UPDATE items SET n = n + 1 WHERE id <= 100",
        "UPDATE items SET id = id + 5000, n = 0 WHERE id BETWEEN 50 AND 60",
        "DELETE FROM items WHERE id % 3 = 0; UPDATE bag SET b = 'other' WHERE a = 1",
        "TRUNCATE bag; INSERT INTO bag VALUES (1, NULL), (1, NULL)",
        "INSERT INTO items SELECT g, 'large', repeat('x', 3000), g \
            FROM generate_series(10000, 14000) g; UPDATE items SET n = -n",
    ]
    .into_iter()
    .enumerate()
    {
        client.batch_execute(step).await.unwrap();
        if n % 2 == 0 {
            server = server.restart().await;
        }
        server.catch_up(&client).await;
        server.check_equal(&client, step).await;
    }
    let status = server.sources.status();
    assert_eq!(status.len(), 1);
    assert_eq!((status[0].phase, status[0].name.as_str()), (SourcePhase::Running, "shop"));
    wait_for("the slot's WAL is known", || server.sources.status()[0].retained_wal_bytes.is_some())
        .await;
    server.sources.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_dropped_and_made_again_starts_afresh() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    client
        .batch_execute("INSERT INTO items VALUES (1, 'a', 'b', 1), (2, 'a', 'b', 2)")
        .await
        .unwrap();
    client.batch_execute("INSERT INTO bag VALUES (1, 'a'), (1, 'a')").await.unwrap();
    let mut server = Server::open(tempfile::tempdir().unwrap()).await;
    let new = new_source(&cluster, &["items", "bag"]);
    server.sources.create(new.clone()).await.unwrap();
    let again = server.sources.create(new.clone()).await.unwrap_err();
    assert!(matches!(again, SourceError::Exists(_)), "{again}");
    server.catch_up(&client).await;
    server.check_equal(&client, "the first copy").await;
    assert_eq!(server.sources.drop("shop", false).await.unwrap(), Vec::<String>::new());
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots) + \
        (SELECT count(*) FROM pg_publication)";
    assert_eq!(client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert!(server.sources.status().is_empty());
    assert!(server.views.catalog().relations.is_empty());
    let missing = server.sources.drop("shop", false).await.unwrap_err();
    assert!(matches!(missing, SourceError::Unknown(_)), "{missing}");

    let meanwhile = "DELETE FROM items WHERE id = 1; INSERT INTO bag VALUES (2, NULL)";
    client.batch_execute(meanwhile).await.unwrap();
    server.sources.create(new).await.unwrap();
    let running = || server.sources.status()[0].phase == SourcePhase::Running;
    wait_for("the second copy", running).await;
    server.check_equal(&client, "the second copy").await;
    client.batch_execute("INSERT INTO bag VALUES (3, 'c')").await.unwrap();
    server = server.restart().await;
    server.catch_up(&client).await;
    server.check_equal(&client, "a restart").await;
    server.sources.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_source_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    // Every slot is taken: found out only when the source's own is made.
    let fill = "SELECT pg_create_physical_replication_slot('s' || g) FROM generate_series(1, 10) g";
    client.batch_execute(fill).await.unwrap();
    let server = Server::open(tempfile::tempdir().unwrap()).await;
    let new = new_source(&cluster, &["items"]);
    let error = server.sources.create(new.clone()).await.unwrap_err();
    assert!(error.to_string().contains("replication slots are in use"), "{error}");
    assert!(server.views.catalog().sources.is_empty());
    assert!(server.views.catalog().relations.is_empty());
    let publications = "SELECT FROM pg_publication";
    assert!(client.query(publications, &[]).await.unwrap().is_empty());
    client.batch_execute("SELECT pg_drop_replication_slot('s1')").await.unwrap();
    server.sources.create(new).await.unwrap();
    server.catch_up(&client).await;

    // A source whose server is gone can be dropped all the same.
    drop(client);
    drop(cluster);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let notices = server.sources.drop("shop", false).await.unwrap();
    assert!(notices[0].contains("pg_drop_replication_slot('evert_shop')"), "{notices:?}");
}
