//! What cannot work is refused with the statement that would fix it.

use evert_model::Position;

use super::cluster::Cluster;
use super::new_source;
use crate::address::Address;
use crate::sources::define;
use crate::{SourceError, inspect};

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_taken() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client
        .batch_execute(
            "CREATE TABLE keyless (a int); \
             CREATE TABLE \"Odd \"\"name\"\"\" (a int PRIMARY KEY); \
             ALTER TABLE \"Odd \"\"name\"\"\" REPLICA IDENTITY NOTHING; \
             CREATE TABLE late (a int PRIMARY KEY DEFERRABLE); \
             CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY); \
             CREATE VIEW seen AS SELECT 1 AS a; \
             CREATE TABLE parts (a int PRIMARY KEY) PARTITION BY RANGE (a); \
             CREATE TABLE good (a int PRIMARY KEY)",
        )
        .await
        .unwrap();
    for (table, why, hint) in [
        ("keyless", "no primary key", "\"public\".\"keyless\" REPLICA IDENTITY FULL"),
        ("\"Odd \"\"name\"\"\"", "other than", "\"Odd \"\"name\"\"\" REPLICA IDENTITY DEFAULT"),
        ("late", "deferrable", "\"late\" REPLICA IDENTITY FULL"),
        ("unlogged", "not in the WAL", ""),
        ("seen", "not a table", ""),
        ("parts", "partitioned", ""),
        ("missing", "has no table missing", ""),
    ] {
        let error = inspect::tables(&client, &[table.to_owned()], None).await.unwrap_err();
        assert!(error.to_string().contains(why), "{table}: {error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{table}: {:?}", error.hint());
        // The statement in the hint does fix it.
        if let Some(fix) = error.hint().and_then(|hint| hint.strip_prefix("Run there: ")) {
            client.batch_execute(fix).await.unwrap();
            inspect::tables(&client, &[table.to_owned()], None).await.unwrap();
        }
    }
    let twice = ["good".to_owned(), "public.good".to_owned()];
    let error = inspect::tables(&client, &twice, None).await.unwrap_err();
    assert!(error.to_string().contains("named twice"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_and_slots_that_do_not_fit() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY); \
             CREATE PUBLICATION half FOR TABLE a WITH (publish = 'insert'); \
             CREATE PUBLICATION \"Only A\" FOR TABLE a; \
             CREATE PUBLICATION filtered FOR TABLE a WHERE (id > 1), b; \
             CREATE PUBLICATION narrow FOR TABLE a (id), b; \
             CREATE PUBLICATION everything FOR ALL TABLES",
        )
        .await
        .unwrap();
    let found = inspect::tables(&client, &["a".into(), "b".into()], None).await.unwrap();
    let tables: Vec<_> = found.into_iter().map(|found| found.table).collect();
    for (publication, why) in [
        ("half", "every kind of change"),
        ("Only A", "leaves out ONLY \"public\".\"b\""),
        ("filtered", "only some rows or columns of public.a"),
        ("narrow", "only some rows or columns of public.a"),
    ] {
        let outcome = inspect::ensure_publication(&client, publication, &tables).await;
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(why), "{publication}: {error}");
        if let Some(fix) = error.hint().and_then(|hint| hint.strip_prefix("Run there: ")) {
            client.batch_execute(fix).await.unwrap();
        }
    }
    for (publication, made) in [("Only A", false), ("everything", false), ("New \"one\"", true)] {
        let outcome = inspect::ensure_publication(&client, publication, &tables).await;
        assert_eq!(outcome.unwrap(), made, "{publication}");
    }
    // Without names, all tables of the publication are meant.
    let all = inspect::tables(&client, &[], Some("New \"one\"")).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(inspect::tables(&client, &[], None).await.unwrap().len(), 2);

    let slot = "SELECT pg_create_logical_replication_slot('taken', 'pgoutput')";
    client.batch_execute(slot).await.unwrap();
    for (slot, why) in [("taken", "already"), ("Bad Slot", "not a slot's name")] {
        let error = inspect::check_slot_is_free(&client, slot).await.unwrap_err();
        assert!(error.to_string().contains(why), "{slot}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_serve() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client
        .batch_execute("CREATE ROLE plain LOGIN; CREATE TABLE a (id int PRIMARY KEY)")
        .await
        .unwrap();
    let mut new = new_source(&cluster, &["a"]);
    new.url = new.url.replace("postgres:s3cret@", "plain@");
    let url = Address::parse(&new.url).unwrap();
    let plain = url.connect("test").await.unwrap();
    let error = define(&plain, url, &new, Position::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("may not replicate"), "{error}");
    assert_eq!(error.hint(), Some("Run there: ALTER ROLE \"plain\" REPLICATION;"));
    client.batch_execute("ALTER ROLE \"plain\" REPLICATION;").await.unwrap();
    let error = inspect::tables(&plain, &["a".into()], None).await.unwrap_err();
    assert_eq!(error.hint(), Some("Run there: GRANT SELECT ON \"public\".\"a\" TO \"plain\";"));

    let nobody = Address::parse("postgres://u:s3cret@127.0.0.1:1/d").unwrap();
    let error = nobody.connect("test").await.unwrap_err();
    assert!(matches!(error, SourceError::Link(_)), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
