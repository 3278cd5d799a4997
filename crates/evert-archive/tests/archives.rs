//! Archives over a real log and real files: what is stored is what was said, over restarts,
//! merges and rebuilds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use evert_archive::{ArchiveTable, Archives};
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit, NewPart};
use evert_model::{
    BatchBuilder, Column, ColumnType, Compression, PartitionId, Position, RowSchema, TimestampMs,
};
use evert_view::{
    Catalog, Defaults, Format, Lengths, Name, NewRelation, OutletDef, OutletFactory, OutletKind,
    OutletVerdict, PlanError, PlannedView, Planner, RelationKind, Views,
};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 2;

struct NoPlans;

impl Planner for NoPlans {
    fn plan_view(&self, _: &str, _: &Catalog) -> Result<PlannedView, PlanError> {
        Err(PlanError { sqlstate: "0A000", message: "no views here".into(), hint: None })
    }
}

/// A server without doors.
struct World {
    views: Views,
    archives: Archives,
}

impl World {
    fn open(dir: &Path) -> Self {
        let env = Env::real();
        let log = Log::open(env.clone(), dir.join("log"), LogConfig::default()).expect("a log");
        let views = Views::open(env.clone(), log.clone(), Arc::new(NoPlans)).expect("views");
        let known = views.clone();
        let archives = Archives::new(env, log, dir.join("lake"), move |name| {
            known.catalog().relations.get(name).cloned()
        });
        let factory: Arc<dyn OutletFactory> = Arc::new(archives.clone());
        views.serve_outlets([(OutletKind::Archive, factory)]).expect("threads");
        Self { views, archives }
    }

    fn close(self) {
        self.views.close();
        self.views.log().close();
    }

    fn relation(&self, name: &str, kind: RelationKind) {
        self.relation_as(name, kind, Format::Json);
    }

    fn relation_as(&self, name: &str, kind: RelationKind, format: Format) {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let columns = vec![
            column("id", ColumnType::Int64),
            column("amount", ColumnType::Decimal { precision: 12, scale: 2 }),
            column("note", ColumnType::Text),
            column("paid", ColumnType::Date),
        ];
        let key = if kind == RelationKind::Table { vec![0] } else { Vec::new() };
        let new = NewRelation {
            name: Name::public(name),
            kind,
            schema: RowSchema { columns, key },
            topic: None,
            partitions: PARTITIONS,
            topic_config: BTreeMap::new(),
            format,
            conflict_is_error: false,
            lengths: Lengths::new(),
            defaults: Defaults::new(),
            source: None,
        };
        self.views.create_relation(new).expect("a relation");
    }

    /// One commit: rows, tombstones and what is no row at all.
    fn say(&self, relation: &str, ids: std::ops::Range<i64>) {
        let catalog = self.views.catalog();
        let topic = catalog.relations[&Name::public(relation)].topic_id;
        let mut batches: Vec<_> =
            (0..PARTITIONS).map(|_| BatchBuilder::new(Compression::None)).collect();
        for id in ids {
            let batch = &mut batches[(id % i64::from(PARTITIONS)) as usize];
            let key = id.to_string();
            let row = format!(
                r#"{{"id":{id},"amount":"{}.5","note":"n{id}","paid":"2026-11-{:02}"}}"#,
                id % 1000,
                1 + id % 3
            );
            let value = match id % 10 {
                7 => None,
                8 => Some("no json".to_owned()),
                _ => Some(row),
            };
            let value = value.as_ref().map(String::as_bytes);
            batch.push(TimestampMs::new(1_700_000_000_000), Some(key.as_bytes()), value, &[]);
        }
        let part = |(partition, batch): (i32, BatchBuilder)| NewPart {
            topic,
            partition: PartitionId::new(partition),
            batch: batch.build(),
        };
        let parts = (0..).zip(batches).map(part).collect();
        let receipt = self.views.log().append(NewCommit { parts }).expect("it is taken");
        receipt.wait().expect("it is durable");
    }

    /// One commit of one partition.
    fn say_all(&self, relation: &str, values: &[&str]) {
        let topic = self.views.catalog().relations[&Name::public(relation)].topic_id;
        let mut batch = BatchBuilder::new(Compression::None);
        for value in values {
            batch.push(TimestampMs::new(0), None, Some(value.as_bytes()), &[]);
        }
        let part = NewPart { topic, partition: PartitionId::new(1), batch: batch.build() };
        let receipt = self.views.log().append(NewCommit { parts: vec![part] }).expect("taken");
        receipt.wait().expect("it is durable");
    }

    /// What each fact of a relation does: offset, op, id.
    fn facts(&self, relation: &str) -> Vec<(i64, String, Option<i64>)> {
        let relation = Arc::clone(&self.views.catalog().relations[&Name::public(relation)]);
        let facts = self.views.facts_after(&relation, Position::ZERO, &BTreeMap::new());
        let mut facts = facts.expect("they are there");
        let mut found = Vec::new();
        while let Some(batch) = facts.next().expect("reads") {
            let column = |name: &str| batch.rows.column_by_name(name).expect("a column").clone();
            let ids = column("id");
            let (ids, ops, offsets) =
                (ids.as_primitive::<Int64Type>(), column("evert_op"), column("kafka_offset"));
            for row in 0..batch.rows.num_rows() {
                found.push((
                    offsets.as_primitive::<Int64Type>().value(row),
                    ops.as_string_view().value(row).to_owned(),
                    ids.is_valid(row).then(|| ids.value(row)),
                ));
            }
        }
        found
    }

    fn archive(&self, name: &str, on: &str, to: &str) {
        let with = json!({ "flush_interval": "100ms", "partition_by": "paid" });
        let options = json!({ "to": to, "with": with });
        let def =
            OutletDef::new(Name::public(name), OutletKind::Archive, Name::public(on), options);
        self.views.create_outlet(def).expect("an archive");
    }

    /// Waits until an archive has all there is.
    fn reached(&self, name: &str) -> ArchiveTable {
        let (name, end, begun) = (Name::public(name), self.views.log().end(), Instant::now());
        loop {
            let reached = self.views.outlet_reached(&name).map(|reached| *reached.borrow());
            if let Some(table) = self.archives.table(&name)
                && reached.is_some_and(|reached| reached >= end)
            {
                return table;
            }
            let status = self.views.status();
            assert!(begun.elapsed() < PATIENCE, "{name} is at {reached:?} of {end}: {status:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn verify(&self, name: &str) -> OutletVerdict {
        let verdict = self.views.verify_outlet(&Name::public(name), &AtomicBool::new(false));
        verdict.expect("it is verified")
    }

    fn assert_right(&self, name: &str, rows: u64) {
        let table = self.reached(name);
        let stored: u64 = table.files.iter().map(|file| file.rows).sum();
        let verdict = self.verify(name);
        assert_eq!(verdict.differences, [""; 0]);
        let counts = (verdict.rows_expected, verdict.rows_stored, verdict.rows_differing);
        assert_eq!(counts, (rows, rows, 0));
        assert_eq!(stored, rows);
    }
}

/// Of ten records of a stream one has no value and one is not JSON.
fn rows_of_stream(records: u64) -> u64 {
    records * 8 / 10
}

#[test]
fn what_was_said_is_stored_once_over_restarts() {
    let dir = TempDir::new().expect("a directory");
    let world = World::open(dir.path());
    world.relation("payments", RelationKind::Table);
    world.relation("events", RelationKind::Stream);
    world.say("payments", 0..100);
    world.archive("payments_archive", "payments", "payments");
    world.archive("events_archive", "events", "events");
    world.say("events", 0..50);
    world.say("payments", 50..150);
    // A table's records are all rows: what cannot be read takes its key's row out.
    world.assert_right("payments_archive", 200);
    world.assert_right("events_archive", rows_of_stream(50));
    world.close();

    // What a commit leaves that did not come through.
    let lake = dir.path().join("lake/payments");
    let orphan = lake.join("data/paid=2026-11-01/orphan.parquet");
    std::fs::write(&orphan, "half").expect("writes");
    let unfinished = lake.join("metadata/.unfinished-1");
    std::fs::write(&unfinished, "half").expect("writes");

    let world = World::open(dir.path());
    world.say("payments", 150..250);
    world.assert_right("payments_archive", 300);
    world.assert_right("events_archive", rows_of_stream(50));
    assert!(!orphan.exists() && !unfinished.exists());
    let hint = std::fs::read_to_string(lake.join("metadata/version-hint.text")).expect("a hint");
    let table = world.reached("payments_archive");
    assert!(table.metadata_url.ends_with(&format!("/metadata/v{hint}.metadata.json")));
    world.close();
}

#[test]
fn small_files_become_large_ones_and_nothing_else_changes() {
    let dir = TempDir::new().expect("a directory");
    let world = World::open(dir.path());
    world.relation("payments", RelationKind::Table);
    world.archive("a", "payments", "a");
    let mut most = 0;
    for turn in 0..14 {
        world.say("payments", turn * 20..turn * 20 + 20);
        most = most.max(world.reached("a").files.len());
    }
    world.assert_right("a", 280);
    // Three days, and the deletions that have none: 56 files if none were merged.
    let files = world.reached("a").files.len();
    assert!(files <= 4 * 8, "the most files were {most}, now there are {files}");
    world.close();
    // All that is named is there: the table is read again from what is stored.
    let world = World::open(dir.path());
    world.assert_right("a", 280);
    world.close();
}

#[test]
fn a_rebuilt_archive_is_the_same_and_a_dropped_one_is_taken_up_again() {
    let dir = TempDir::new().expect("a directory");
    let world = World::open(dir.path());
    world.relation("payments", RelationKind::Table);
    world.relation("others", RelationKind::Table);
    world.archive("a", "payments", "a");
    world.say("payments", 0..40);
    world.assert_right("a", 40);
    let before = world.reached("a").metadata;

    let name = Name::public("a");
    world
        .views
        .rebuild_views(std::slice::from_ref(&name), &AtomicBool::new(false))
        .expect("rebuilt");
    world.assert_right("a", 40);
    let rebuilt = world.reached("a").metadata;
    assert_eq!(before.uuid(), rebuilt.uuid(), "to its readers it is the same table");
    let first = rebuilt.current_snapshot().expect("a snapshot");
    let began_anew = before.snapshot_by_id(first.snapshot_id()).is_none();
    assert!(began_anew && rebuilt.snapshots().count() > before.snapshots().count());

    world.views.drop(&name, false).expect("dropped");
    assert!(world.archives.table(&name).is_none());
    world.say("payments", 40..50);
    world.archive("b", "payments", "a");
    world.assert_right("b", 50);
    assert_eq!(world.reached("b").metadata.uuid(), rebuilt.uuid(), "it went on");

    // Another's facts do not go into it, nor does a second archive.
    let options = json!({ "to": "a", "with": {} });
    let taken =
        OutletDef::new(Name::public("c"), OutletKind::Archive, Name::public("others"), options);
    let refused = world.views.create_outlet(taken).expect_err("the place is taken");
    assert!(refused.to_string().contains("belongs to archive \"b\""), "{refused}");
    world.close();
}

#[test]
fn an_archive_that_someone_has_emptied_is_not_equal() {
    let dir = TempDir::new().expect("a directory");
    let world = World::open(dir.path());
    world.relation("payments", RelationKind::Table);
    world.archive("a", "payments", "a");
    world.say("payments", 0..30);
    let table = world.reached("a");
    // One file takes another's place: rows are missing, others are there twice.
    let path = |file: usize| table.files[file].url.strip_prefix("file://").expect("a file");
    std::fs::copy(path(0), path(1)).expect("copies");
    let verdict = world.verify("a");
    assert!(verdict.rows_differing > 0 && !verdict.differences.is_empty(), "{verdict:?}");
    assert!(verdict.position > Position::ZERO);
    world.close();
}

#[test]
fn every_way_to_change_a_row_is_a_fact() {
    let dir = TempDir::new().expect("a directory");
    let world = World::open(dir.path());
    let values = [
        r#"{"op":"c","before":null,"after":{"id":1}}"#,
        r#"{"op":"u","before":{"id":1},"after":{"id":2}}"#,
        r#"{"op":"no such","after":{"id":9}}"#,
        r#"{"op":"t"}"#,
        r#"{"op":"r","before":null,"after":{"id":3}}"#,
        r#"{"op":"d","before":{"id":3},"after":null}"#,
    ];
    let fact = |offset, op: &str, id| (offset, op.to_owned(), id);
    for (name, kind, put) in [("t", RelationKind::Table, "u"), ("b", RelationKind::Bag, "c")] {
        world.relation_as(name, kind, Format::Debezium);
        world.say_all(name, &values);
        let expected = [
            fact(0, put, Some(1)),
            fact(1, "d", Some(1)),
            fact(1, put, Some(2)),
            fact(3, "t", None),
            fact(4, put, Some(3)),
            fact(5, "d", Some(3)),
        ];
        assert_eq!(world.facts(name), expected, "{name}");
        let archive = format!("{name}_archive");
        world.archive(&archive, name, &archive);
        world.assert_right(&archive, 6);
    }
    world.close();
}
