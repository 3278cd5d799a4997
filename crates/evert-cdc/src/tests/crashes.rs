//! Crashes of either side, and the fault that a crash of Evert would make fatal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::changes::{SCHEMA, check_equal};
use super::cluster::Cluster;
use super::memory::Memory;
use super::{confirmed, define_shop, start, wait_for, wal_end};
use crate::status::SourcePhase;

#[tokio::test(flavor = "multi_thread")]
async fn equal_through_crashes_of_both() {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let seed =
        "INSERT INTO items SELECT g, 'i', repeat('b', 3000), 0 FROM generate_series(1, 500) g";
    client.batch_execute(seed).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let mut memory = Memory::new();
    let mut source = start(&memory, &definition, false);
    for round in 0..6 {
        if round > 0 {
            source.wait_for("it runs", |s| s.phase == SourcePhase::Running).await;
        }
        write(&client, round).await;
        if round % 3 != 0 {
            // Evert crashes with commits that are not durable.
            memory.hold();
            write(&client, round + 100).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            source.stop().await;
            memory = memory.crash();
            source = start(&memory, &definition, false);
        }
        if round % 2 == 0 {
            cluster.crash();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let state = source.status().state();
            assert!(state.starts_with("retrying: ") || round == 0, "{state}");
            assert!(!state.contains("s3cret"), "{state}");
            cluster.run().await;
            client = cluster.client().await;
        }
        source.catch_up(&client).await;
        check_equal(&memory, &client, &format!("round {round}")).await;
    }
    source.stop().await;
}

async fn write(client: &Client, round: i32) {
    for n in 0..50 {
        let key = (n * 7 + round * 31) % 500 + 1;
        let step = format!(
            "BEGIN; UPDATE items SET n = n + 1 WHERE id = {key}; \
             INSERT INTO bag VALUES ({key}, 'x'); DELETE FROM bag WHERE a % 10 = {}; COMMIT",
            n % 10
        );
        client.batch_execute(&step).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_killed_midway_is_begun_again() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let seed =
        "INSERT INTO items SELECT g, 'i', repeat('b', 500), 0 FROM generate_series(1, 200000) g";
    client.batch_execute(seed).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let mut memory = Memory::new();
    for _ in 0..3 {
        let source = start(&memory, &definition, false);
        source.wait_for("the copy is under way", |status| status.rows_copied > 0).await;
        assert!(source.status().state().starts_with("copying "), "{}", source.status().state());
        source.stop().await;
        memory = memory.crash();
        assert_eq!(memory.commits(), 0);
        client.batch_execute("UPDATE items SET n = n + 1 WHERE id < 100").await.unwrap();
    }
    let source = start(&memory, &definition, false);
    source.catch_up(&client).await;
    check_equal(&memory, &client, "three killed copies").await;
    source.stop().await;
}

/// What a crash of Evert loses when it comes while nothing becomes durable.
async fn lost_by_a_crash(confirms_early: bool) -> (bool, BTreeSet<i64>) {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let source = start(&memory, &definition, confirms_early);
    source.catch_up(&client).await;
    memory.hold();
    let durable = memory.lsn().unwrap();
    let before = memory.commits();
    for n in 1..=20 {
        client.batch_execute(&format!("INSERT INTO bag VALUES ({n}, 'x')")).await.unwrap();
    }
    let written = wal_end(&client).await;
    wait_for("the commits are queued", || memory.commits() >= before + 20).await;
    // Longer than it takes to tell the source what it may forget.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let early = confirmed(&client).await > durable;
    source.stop().await;
    let memory = memory.crash();
    assert_eq!(memory.lsn(), Some(durable));
    let source = start(&memory, &definition, false);
    let done = |status: &crate::SourceStatus| {
        status.phase == SourcePhase::Failed || status.lsn.is_some_and(|lsn| lsn >= written)
    };
    source.wait_for("it comes back or says why not", done).await;
    let there: BTreeSet<i64> = memory
        .records("shop.public.bag")
        .iter()
        .filter_map(|(_, envelope)| envelope["after"]["a"].as_i64())
        .collect();
    source.stop().await;
    (early, (1..=20).filter(|n| !there.contains(n)).collect())
}

/// Planted fault: the LSN is confirmed before the commit is durable.
#[tokio::test(flavor = "multi_thread")]
async fn confirming_before_durable_is_caught() {
    assert_eq!(lost_by_a_crash(false).await, (false, BTreeSet::new()));
    let (early, lost) = lost_by_a_crash(true).await;
    assert!(early, "the slot was not confirmed early: the fault was not planted");
    assert_eq!(lost, (1..=20).collect(), "the crash was expected to lose what was confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_or_ahead_is_not_passed_over() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    let definition = define_shop(&cluster, &client, &["items", "bag"]).await;
    let memory = Memory::new();
    let source = start(&memory, &definition, false);
    source.catch_up(&client).await;
    source.stop().await;
    client.batch_execute("INSERT INTO bag VALUES (1, 'unseen')").await.unwrap();
    let advance = "SELECT pg_replication_slot_advance('evert_shop', pg_current_wal_lsn())";
    until_free(&client, advance).await;
    let source = start(&memory, &definition, false);
    let failed = |status: &crate::SourceStatus| status.phase == SourcePhase::Failed;
    source.wait_for("a clear end", failed).await;
    let state = source.status().state();
    assert!(state.contains("was confirmed up to"), "{state}");
    source.stop().await;
    until_free(&client, "SELECT pg_drop_replication_slot('evert_shop')").await;
    let source = start(&Arc::clone(&memory), &definition, false);
    source.wait_for("a clear end", failed).await;
    let state = source.status().state();
    assert!(state.contains("is gone from the source"), "{state}");
    source.stop().await;
}

/// Runs a statement about the slot as soon as its session has left it.
async fn until_free(client: &Client, sql: &str) {
    for _ in 0..100 {
        if client.batch_execute(sql).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the slot does not become free");
}
