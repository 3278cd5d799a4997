//! What happens to tables happens to their relations.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::cluster::Cluster;
use super::memory::Memory;
use super::{confirmed, define_shop, start, wait_for, wal_end};
use crate::status::SourcePhase;

/// A column, its type, and values: as SQL writes them and as the topic must hold them.
type Kind = (&'static str, &'static str, Vec<(&'static str, Value)>);

/// Every ordinary type.
fn kinds() -> Vec<Kind> {
    vec![
        ("flag", "boolean", vec![("true", json!(true)), ("false", json!(false))]),
        ("small", "smallint", vec![("-32768", json!(-32768))]),
        ("big", "bigint", vec![("9223372036854775807", json!(9_223_372_036_854_775_807_i64))]),
        (
            "real8",
            "double precision",
            vec![
                ("'NaN'", json!("NaN")),
                ("-0.1", json!(-0.1)),
                ("'-Infinity'", json!("-Infinity")),
            ],
        ),
        ("price", "numeric(12,4)", vec![("12345678.9012", json!("12345678.9012"))]),
        ("free", "numeric", vec![("1.50", json!("1.50"))]),
        (
            "name",
            "text",
            vec![("E'q\" \\\\ tab\\t nl\\n é 李 \\x01'", json!("q\" \\ tab\t nl\n é 李 \u{1}"))],
        ),
        ("code", "char(4)", vec![("'ab'", json!("ab  "))]),
        (
            "day",
            "date",
            vec![("'infinity'", json!("infinity")), ("'2026-02-28'", json!("2026-02-28"))],
        ),
        ("at", "timestamp", vec![("'2026-02-28 23:59:59.5'", json!("2026-02-28T23:59:59.5"))]),
        (
            "zoned",
            "timestamptz",
            vec![
                ("'2026-02-28 23:59:59.000001+05:30'", json!("2026-02-28T18:29:59.000001Z")),
                ("'-infinity'", json!("-infinity")),
            ],
        ),
        (
            "uid",
            "uuid",
            vec![(
                "'6ecd8c99-4036-403d-bf84-cf8400f67836'",
                json!("6ecd8c99-4036-403d-bf84-cf8400f67836"),
            )],
        ),
        ("doc", "jsonb", vec![("'{\"a\": [1, null]}'", json!("{\"a\": [1, null]}"))]),
        ("raw", "bytea", vec![("'\\x00ff10'", json!("AP8Q")), ("''", json!(""))]),
        ("span", "interval", vec![("'1 day 02:00'", json!("1 day 02:00:00"))]),
        (
            "many",
            "int[]",
            vec![
                ("'{1,NULL}'", json!([1, null])),
                ("'{}'", json!([])),
                ("'{{1},{2}}'", json!("{{1},{2}}")),
            ],
        ),
        ("spans", "interval[]", vec![("'{1 day}'", json!("{\"1 day\"}"))]),
        ("coin", "money_of_ours", vec![("7.25", json!("7.25"))]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_and_stream_agree_on_every_type() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute("CREATE DOMAIN money_of_ours AS numeric(10,2)").await.unwrap();
    let columns: Vec<String> = kinds().iter().map(|(name, ty, _)| format!("{name} {ty}")).collect();
    let create = format!("CREATE TABLE kinds (id int PRIMARY KEY, {})", columns.join(", "));
    client.batch_execute(&create).await.unwrap();
    let mut expected: BTreeMap<String, Value> = BTreeMap::new();
    let mut inserts = Vec::new();
    let mut id = 0;
    for (name, _, values) in kinds() {
        for (text, value) in values {
            id += 1;
            inserts.push(format!("INSERT INTO kinds (id, {name}) VALUES (ID + {id}, {text})"));
            for base in [0, 1000] {
                let mut row: serde_json::Map<String, Value> =
                    kinds().iter().map(|(name, ..)| ((*name).into(), Value::Null)).collect();
                row.insert("id".into(), json!(base + id));
                row.insert(name.into(), value.clone());
                expected.insert(format!("{{\"id\":{}}}", base + id), Value::Object(row));
            }
        }
    }
    for insert in &inserts {
        client.batch_execute(&insert.replace("ID +", "0 +")).await.unwrap();
    }
    let definition = define_shop(&cluster, &client, &["kinds"]).await;
    let warned = definition.warnings.join("\n");
    for column in ["free", "span", "spans"] {
        assert!(warned.contains(&format!("\"{column}\"")), "{warned}");
    }
    assert!(!warned.contains("\"coin\"") && !warned.contains("\"doc\""), "{warned}");
    let memory = Memory::new();
    let source = start(&memory, &definition, false);
    source.wait_for("the copy", |status| status.phase == SourcePhase::Running).await;
    for insert in &inserts {
        client.batch_execute(&insert.replace("ID +", "1000 +")).await.unwrap();
    }
    source.catch_up(&client).await;
    let folded = memory.fold("shop.public.kinds");
    for (key, row) in &expected {
        let got = folded.rows.get(key).map(|(row, _)| row);
        assert_eq!(got, Some(row), "{key}");
    }
    assert_eq!(folded.rows.len(), expected.len());
    source.stop().await;
}

/// The rows of `items` and `bag` as their server has them.
async fn originals(client: &Client) -> (BTreeMap<String, Value>, BTreeMap<String, i64>) {
    let mut items = BTreeMap::new();
    let sql = "SELECT id, name, body, n FROM items";
    for row in client.query(sql, &[]).await.unwrap() {
        let (id, n): (i32, Option<i32>) = (row.get(0), row.get(3));
        let (name, body): (Option<String>, Option<String>) = (row.get(1), row.get(2));
        let value = json!({ "id": id, "name": name, "body": body, "n": n });
        items.insert(format!("{{\"id\":{id}}}"), value);
    }
    let mut bag = BTreeMap::new();
    let sql = "SELECT a, b, count(*) FROM bag GROUP BY a, b";
    for row in client.query(sql, &[]).await.unwrap() {
        let (a, b): (Option<i32>, Option<String>) = (row.get(0), row.get(1));
        bag.insert(json!({ "a": a, "b": b }).to_string(), row.get(2));
    }
    (items, bag)
}

pub(super) async fn check_equal(memory: &Memory, client: &Client, what: &str) {
    let (items, bag) = originals(client).await;
    let folded = memory.fold("shop.public.items");
    let folded: BTreeMap<_, _> = folded.rows.into_iter().map(|(k, (row, _))| (k, row)).collect();
    assert!(folded == items, "items differ after {what}");
    let folded = memory.fold("shop.public.bag");
    let folded: BTreeMap<_, _> = folded.rows.into_iter().map(|(k, (_, n))| (k, n)).collect();
    assert_eq!(folded, bag, "bag differs after {what}");
}

pub(super) const SCHEMA: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, body text, n int); \
     ALTER TABLE items ALTER COLUMN body SET STORAGE EXTERNAL; \
     CREATE TABLE bag (a int, b text); ALTER TABLE bag REPLICA IDENTITY FULL; \
     CREATE TABLE other (id int, body text);";

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_every_kind() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    client
        .batch_execute(
            "INSERT INTO items SELECT g, 'i' || g, repeat(md5(g::text), 300), g % 7 \
                 FROM generate_series(1, 200) g; \
             INSERT INTO bag SELECT g % 5, 'same' FROM generate_series(1, 50) g",
        )
        .await
        .unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let source = start(&memory, &definition, false);
    for step in [
        "SELECT 1",
        // The body is stored apart and unchanged: the WAL does not have it.
        "UPDATE items SET n = n + 1 WHERE id <= 100",
        "UPDATE items SET body = repeat('y', 9000) WHERE id = 7",
        "UPDATE items SET name = 'again' WHERE id = 7",
        "UPDATE items SET id = id + 1000 WHERE id BETWEEN 50 AND 60",
        "UPDATE items SET id = CASE id WHEN 1 THEN -1 ELSE id END, n = 5 WHERE id < 4",
        "DELETE FROM items WHERE id % 3 = 0",
        "BEGIN; UPDATE items SET body = repeat('z', 9000) WHERE id = 8; \
            UPDATE items SET n = 80 WHERE id = 8; UPDATE items SET id = 888 WHERE id = 8; \
            UPDATE items SET n = 81 WHERE id = 888; COMMIT",
        "BEGIN; INSERT INTO items VALUES (6000, 'new', repeat('w', 9000), 1); \
            UPDATE items SET n = 2 WHERE id = 6000; COMMIT",
        "ALTER TABLE items REPLICA IDENTITY FULL",
        "UPDATE items SET n = -1 WHERE id > 100",
        "UPDATE items SET id = id + 2000 WHERE id = 100",
        "DELETE FROM items WHERE id = 6000",
        "ALTER TABLE items REPLICA IDENTITY DEFAULT",
        "UPDATE items SET n = -2 WHERE id > 110",
        "UPDATE bag SET b = 'other' WHERE a = 1",
        "DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = 2 LIMIT 3)",
        "INSERT INTO bag VALUES (NULL, NULL), (NULL, NULL), (9, '')",
        "BEGIN; INSERT INTO items VALUES (5001, 'x', 'y', 1); ROLLBACK",
        "BEGIN; INSERT INTO items VALUES (5002, 'x', 'y', 1); SAVEPOINT s; \
            UPDATE items SET n = 2 WHERE id = 5002; ROLLBACK TO s; COMMIT",
        "TRUNCATE bag",
        "INSERT INTO bag VALUES (1, 'after')",
        "BEGIN; INSERT INTO items VALUES (7000, '', '', 1); TRUNCATE items; \
            INSERT INTO items VALUES (1, 'only', 'one', 1); COMMIT",
    ] {
        client.batch_execute(step).await.unwrap();
        source.catch_up(&client).await;
        check_equal(&memory, &client, step).await;
    }
    let status = source.status();
    assert_eq!(status.rows_copied, 250);
    assert_eq!(status.warnings, Vec::<String>::new());
    assert!(status.transactions >= 15, "{status:?}");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_gap_and_no_overlap_under_writes() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let seed = "INSERT INTO items SELECT g, 'i', NULL, 0 FROM generate_series(1, 20000) g";
    client.batch_execute(seed).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let writer = cluster.client().await;
    let writing = tokio::spawn(async move {
        for n in 0..1500 {
            let step = format!(
                "BEGIN; UPDATE items SET n = n + 1 WHERE id = {}; INSERT INTO bag VALUES ({n}, ''); \
                 DELETE FROM bag WHERE a = {}; COMMIT",
                n * 13 % 20000 + 1,
                n - 100,
            );
            writer.batch_execute(&step).await.unwrap();
        }
    });
    wait_for("some writes", || !writing.is_finished()).await;
    let source = start(&memory, &definition, false);
    writing.await.unwrap();
    source.catch_up(&client).await;
    check_equal(&memory, &client, "1500 transactions").await;
    // Both ways in were used.
    let bag = memory.records("shop.public.bag");
    assert!(bag.iter().any(|(_, envelope)| envelope["op"] == "c"));
    assert_eq!(source.status().rows_copied, 20000 + bag_copied(&bag));
    source.stop().await;
}

fn bag_copied(records: &[(Option<String>, Value)]) -> u64 {
    records.iter().filter(|(_, envelope)| envelope["op"] == "r").count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_is_one_commit() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let source = start(&memory, &definition, false);
    source.catch_up(&client).await;
    let large = "BEGIN; INSERT INTO items SELECT g, repeat('n', 100), repeat('b', 3000), g \
            FROM generate_series(1, 20000) g; UPDATE items SET n = -n; \
        INSERT INTO bag VALUES (1, 'last'); COMMIT";
    client.batch_execute(large).await.unwrap();
    source.wait_for("it", |status| status.transactions == 1).await;
    assert_eq!(memory.records("shop.public.items").len(), 40000);
    check_equal(&memory, &client, "a large transaction").await;
    assert_eq!(memory.commits_of("shop.public.items"), 1);
    assert_eq!(memory.commits_of("shop.public.bag"), 1);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_source_follows_the_wal() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let source = start(&memory, &definition, false);
    source.catch_up(&client).await;
    let others = "INSERT INTO other SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g";
    client.batch_execute(others).await.unwrap();
    let end = wal_end(&client).await;
    source.catch_up(&client).await;
    assert!(memory.lsn().unwrap() >= end);
    let started = std::time::Instant::now();
    while confirmed(&client).await < end {
        assert!(started.elapsed().as_secs() < 30, "the slot stays behind");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // A table that is left out leaves no records, and an idle source few commits.
    assert_eq!(memory.records("shop.public.items").len(), 0);
    let before = memory.commits();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(memory.commits() - before <= 4, "{} commits", memory.commits() - before);
    assert_eq!(source.status().lag_ms, Some(0));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_and_go() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let source = start(&memory, &definition, false);
    source.catch_up(&client).await;
    let added =
        "ALTER TABLE items ADD COLUMN extra int; INSERT INTO items VALUES (1, 'a', 'b', 2, 3)";
    client.batch_execute(added).await.unwrap();
    source.catch_up(&client).await;
    let records = memory.records("shop.public.items");
    assert_eq!(records[0].1["after"], json!({ "id": 1, "name": "a", "body": "b", "n": 2 }));
    let warnings = source.status().warnings;
    assert!(warnings.iter().any(|w| w.contains("\"extra\" was added")), "{warnings:?}");
    let told = |status: &crate::SourceStatus| {
        let detail = status.detail.as_deref().unwrap_or_default();
        status.phase == SourcePhase::Running
            && detail
                == "column extra of public.items is not taken: drop the source and create it again \
                    to have it"
    };
    source.wait_for("the column that is not taken", told).await;
    let dropped = "ALTER TABLE items DROP COLUMN name; INSERT INTO items VALUES (2, 'b', 2, 3)";
    client.batch_execute(dropped).await.unwrap();
    let failed = |status: &crate::SourceStatus| status.phase == SourcePhase::Failed;
    source.wait_for("a clear end", failed).await;
    let state = source.status().state();
    assert!(state.contains("public.items has changed: column \"name\" is gone"), "{state}");
    assert_eq!(memory.records("shop.public.items").len(), 1);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_nobody_knows_is_a_bad_record() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let row = "INSERT INTO items VALUES (1, 'a', repeat('b', 9000), 1)";
    client.batch_execute(row).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let source = start(&memory, &definition, false);
    source.catch_up(&client).await;
    // The relation loses the row, as it does when a record of it is bad.
    memory.forget_rows();
    client.batch_execute("UPDATE items SET n = 2").await.unwrap();
    source.catch_up(&client).await;
    let (_, last) = memory.records("shop.public.items").pop().unwrap();
    assert_eq!((&last["op"], &last["after"]), (&json!("u"), &Value::Null));
    assert_eq!(last["before"], json!({ "id": 1 }));
    let warnings = source.status().warnings;
    assert!(warnings.iter().any(|w| w.contains("REPLICA IDENTITY FULL")), "{warnings:?}");
    let again = Arc::clone(&memory);
    client.batch_execute("UPDATE items SET body = 'short'").await.unwrap();
    source.catch_up(&client).await;
    let (_, last) = again.records("shop.public.items").pop().unwrap();
    assert_eq!(last["after"]["body"], json!("short"));
    source.stop().await;
}
