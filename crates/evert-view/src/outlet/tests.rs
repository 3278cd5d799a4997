//! Outlets over a real log: one that keeps its rows in memory, and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit};
use evert_model::{Column, ColumnType, Position, RowSchema};

use super::*;
use crate::catalog::{Catalog, CatalogError, Format, NewRelation, RelationKind};
use crate::encode::RowChange;
use crate::planner::{PlannedView, Planner};
use crate::status::ViewState;
use crate::subscribe::SubscribeFrom;
use crate::{Defaults, Lengths};
use crate::{Views, subscribe};

/// What is stored, and outlives the outlet.
#[derive(Default)]
struct Store {
    position: Option<Position>,
    id: Option<Uuid>,
    rows: BTreeMap<i64, i64>,
    /// What the next calls end with.
    trouble: Option<Trouble>,
    /// Positions at which it was opened.
    opened: Vec<Option<Position>>,
    removed: usize,
}

#[derive(Clone)]
enum Trouble {
    Error(OutletError),
    Panic,
}

#[derive(Clone, Default)]
struct Stores(Arc<Mutex<BTreeMap<Name, Store>>>);

impl Stores {
    fn with<T>(&self, name: &Name, work: impl FnOnce(&mut Store) -> T) -> T {
        work(self.0.lock().unwrap().entry(name.clone()).or_default())
    }

    fn stumble(&self, name: &Name) -> Result<(), OutletError> {
        match self.with(name, |store| store.trouble.clone()) {
            None => Ok(()),
            Some(Trouble::Error(error)) => Err(error),
            Some(Trouble::Panic) => panic!("planted"),
        }
    }
}

struct Memory {
    name: Name,
    stores: Stores,
}

#[async_trait]
impl OutletFactory for Stores {
    fn check(&self, def: &OutletDef, _: &RowSchema) -> Result<serde_json::Value, PlanError> {
        match def.options.get("bad") {
            None => Ok(serde_json::json!({ "checked": true })),
            Some(_) => {
                let message = "a bad option".to_owned();
                Err(PlanError { sqlstate: "22023", message, hint: None })
            }
        }
    }

    async fn open(&self, def: &OutletDef, _: &RowSchema) -> Result<Box<dyn Outlet>, OutletError> {
        self.stumble(&def.name)?;
        self.with(&def.name, |store| {
            if store.id != Some(def.id) {
                (store.id, store.position) = (Some(def.id), None);
                store.rows.clear();
            }
            store.opened.push(store.position);
        });
        Ok(Box::new(Memory { name: def.name.clone(), stores: self.clone() }))
    }

    async fn remove(&self, def: &OutletDef) -> Result<(), OutletError> {
        self.with(&def.name, |store| {
            *store = Store { removed: store.removed + 1, ..Store::default() };
        });
        Ok(())
    }
}

fn apply(rows: &mut BTreeMap<i64, i64>, changes: &subscribe::Changes) {
    for delta in &changes.deltas {
        let columns = [0, 1].map(|index| delta.rows.column(index).as_primitive::<Int64Type>());
        for row in 0..delta.len() {
            let (key, value) = (columns[0].value(row), columns[1].value(row));
            match delta.weights.value(row) < 0 {
                true => drop(rows.remove(&key)),
                false => drop(rows.insert(key, value)),
            }
        }
    }
}

#[async_trait]
impl Outlet for Memory {
    fn position(&self) -> Option<Position> {
        self.stores.with(&self.name, |store| store.position)
    }

    fn rows(&self) -> u64 {
        self.stores.with(&self.name, |store| store.rows.len() as u64)
    }

    async fn follow(&mut self, context: &OutletContext) -> Result<(), OutletError> {
        let mut changes = context.changes(self.position()).await?;
        loop {
            let next = tokio::select! {
                () = context.stopping() => return Ok(()),
                next = changes.next() => next,
            };
            let Some(next) = next else { return Ok(()) };
            let next = next?;
            self.stores.stumble(&self.name)?;
            let rows = self.stores.with(&self.name, |store| {
                apply(&mut store.rows, &next);
                if next.complete {
                    store.position = Some(next.position);
                }
                store.rows.len()
            });
            if next.complete {
                context.report(next.position, rows as u64);
            }
        }
    }

    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError> {
        let position = self.position().expect("it has followed");
        let from = SubscribeFrom { snapshot: true, after: Some(position), upto: Some(position) };
        let mut all = context.views().subscribe(context.on(), from).await?;
        let mut expected = BTreeMap::new();
        while let Some(changes) = all.next().await {
            apply(&mut expected, &changes?);
        }
        let stored = self.stores.with(&self.name, |store| store.rows.clone());
        let differing: Vec<_> =
            expected.iter().filter(|(key, value)| stored.get(key) != Some(value)).collect();
        Ok(OutletVerdict {
            position,
            rows_expected: expected.len() as u64,
            rows_stored: stored.len() as u64,
            rows_differing: differing.len() as u64,
            differences: differing.iter().map(|row| format!("{row:?}")).collect(),
        })
    }
}

struct NoPlans;

impl Planner for NoPlans {
    fn plan_view(&self, sql: &str, _: &Catalog) -> Result<PlannedView, PlanError> {
        Err(PlanError { sqlstate: "0A000", message: format!("no plan for {sql}"), hint: None })
    }
}

struct World {
    dir: tempfile::TempDir,
    log: Log,
    views: Views,
    stores: Stores,
}

fn items() -> Name {
    Name::public("items")
}

fn sink(name: &str) -> OutletDef {
    OutletDef::new(Name::public(name), OutletKind::Sink, items(), serde_json::json!({}))
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = Stores::default();
        let (log, views) = Self::open(dir.path(), &stores);
        let column =
            |name: &str| Column { name: name.into(), ty: ColumnType::Int64, nullable: false };
        let new = NewRelation {
            name: items(),
            kind: RelationKind::Table,
            schema: RowSchema { columns: vec![column("id"), column("n")], key: vec![0] },
            topic: None,
            partitions: 1,
            topic_config: BTreeMap::new(),
            format: Format::Json,
            conflict_is_error: false,
            lengths: Lengths::new(),
            defaults: Defaults::new(),
            source: None,
        };
        views.create_relation(new).expect("a table");
        Self { dir, log, views, stores }
    }

    fn open(dir: &std::path::Path, stores: &Stores) -> (Log, Views) {
        let env = Env::real();
        let log = Log::open(env.clone(), dir.join("log"), LogConfig::default()).expect("a log");
        let views = Views::open(env, log.clone(), Arc::new(NoPlans)).expect("views");
        let factory: Arc<dyn OutletFactory> = Arc::new(stores.clone());
        views.serve_outlets([(OutletKind::Sink, factory)]).expect("outlets");
        (log, views)
    }

    fn restart(&mut self) {
        self.views.close();
        self.log.close();
        (self.log, self.views) = Self::open(self.dir.path(), &self.stores);
    }

    fn put(&self, rows: &[(i64, i64)]) -> Position {
        let relation = Arc::clone(&self.views.catalog().relations[&items()]);
        let columns = [0, 1].map(|index| {
            let values = rows.iter().map(|row| if index == 0 { row.0 } else { row.1 });
            Arc::new(Int64Array::from_iter_values(values)) as arrow::array::ArrayRef
        });
        let batch = RecordBatch::try_new(relation.schema.to_arrow(), columns.to_vec());
        let put = RowChange::Put(batch.expect("rows"));
        let parts = self.views.encode(&relation, &[put]).expect("records");
        let receipt = self.log.append(NewCommit { parts }).expect("an append");
        receipt.wait().expect("it is durable").position
    }

    fn wait(&self, name: &str, what: &str, is: impl Fn(&ViewState) -> bool) {
        let began = Instant::now();
        loop {
            let status = self.views.status();
            let found = status.iter().find(|status| status.name.name == name);
            let state = &found.expect("it is listed").state;
            if is(state) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{name} is {state}, not {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the outlet has reached a position; gives its rows.
    fn rows(&self, name: &str, at: Position) -> BTreeMap<i64, i64> {
        let began = Instant::now();
        let name = Name::public(name);
        while self.views.outlet_reached(&name).is_none_or(|reached| *reached.borrow() < at) {
            assert!(began.elapsed() < Duration::from_secs(20), "{name} is not at {at}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stores.with(&name, |store| store.rows.clone())
    }

    fn opened(&self, name: &str) -> Vec<Option<Position>> {
        self.stores.with(&Name::public(name), |store| store.opened.clone())
    }

    fn set_trouble(&self, name: &str, trouble: Option<Trouble>) {
        self.stores.with(&Name::public(name), |store| store.trouble = trouble);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.views.close();
        self.log.close();
    }
}

#[test]
fn an_outlet_follows_and_goes_on_from_its_position_after_a_start() {
    let mut world = World::new();
    world.put(&[(1, 10), (2, 20)]);
    world.views.create_outlet(sink("k")).expect("a sink");
    let at = world.put(&[(2, 21), (3, 30)]);
    assert_eq!(world.rows("k", at), BTreeMap::from([(1, 10), (2, 21), (3, 30)]));
    world.wait("k", "live", |state| *state == ViewState::Live);
    let kept = world.views.catalog().outlets[&Name::public("k")].options.clone();
    assert_eq!(kept, serde_json::json!({ "checked": true }));

    world.restart();
    let at = world.put(&[(4, 40)]);
    assert_eq!(world.rows("k", at).len(), 4);
    let opened = world.opened("k");
    assert!(matches!(opened[..], [None, Some(_)]), "{opened:?}");
}

#[test]
fn a_paused_outlet_stands_still_over_a_start() {
    let mut world = World::new();
    world.views.create_outlet(sink("k")).expect("a sink");
    let at = world.put(&[(1, 10)]);
    world.rows("k", at);
    let paused = world.views.pause_view(&Name::public("k")).expect("it stops");
    assert!(paused >= at);
    world.put(&[(2, 20)]);
    world.restart();
    world.wait("k", "paused", |state| *state == ViewState::Paused);
    assert_eq!(world.rows("k", at).len(), 1);
    let lag = world.views.status()[0].lag_records;
    assert_eq!(lag, 1, "a record waits");
    world.views.resume_view(&Name::public("k")).expect("it goes on");
    let at = world.put(&[(3, 30)]);
    assert_eq!(world.rows("k", at).len(), 3);
}

#[test]
fn trouble_is_retried_or_fails_until_a_rebuild_and_stays_alone() {
    let world = World::new();
    world.views.create_outlet(sink("bad")).expect("a sink");
    world.views.create_outlet(sink("good")).expect("another");
    let at = world.put(&[(1, 10)]);
    world.rows("bad", at);
    let down = OutletError::Retry("the target is down".into());
    world.set_trouble("bad", Some(Trouble::Error(down)));
    let at = world.put(&[(2, 20)]);
    let told = "retrying: the target is down";
    world.wait("bad", "retrying", |state| state.to_string() == told);
    assert_eq!(world.rows("good", at).len(), 2);
    world.set_trouble("bad", None);
    assert_eq!(world.rows("bad", at).len(), 2);

    world.set_trouble("bad", Some(Trouble::Panic));
    world.put(&[(3, 30)]);
    let told = "failed: it ended in a panic: planted";
    world.wait("bad", "failed", |state| state.to_string() == told);
    world.set_trouble("bad", None);
    let at = world.put(&[(4, 40)]);
    assert_eq!(world.rows("good", at).len(), 4);
    world.wait("bad", "failed still", |state| state.to_string() == told);
    let given_up = AtomicBool::new(false);
    let name = Name::public("bad");
    world.views.rebuild_views(std::slice::from_ref(&name), &given_up).expect("it is back");
    assert_eq!(world.rows("bad", at).len(), 4);
    assert_eq!(world.opened("bad"), [None], "it was forgotten and began anew");
}

#[test]
fn verify_finds_what_differs_and_following_goes_on() {
    let world = World::new();
    world.views.create_outlet(sink("k")).expect("a sink");
    let at = world.put(&[(1, 10), (2, 20)]);
    world.rows("k", at);
    let (name, given_up) = (Name::public("k"), AtomicBool::new(false));
    let verdict = world.views.verify_outlet(&name, &given_up).expect("a verdict");
    assert_eq!((verdict.rows_stored, verdict.rows_differing), (2, 0));
    world.stores.with(&name, |store| store.rows.insert(2, 99));
    let verdict = world.views.verify_outlet(&name, &given_up).expect("a verdict");
    assert_eq!(verdict.differences, ["(2, 20)"]);
    let at = world.put(&[(3, 30)]);
    assert_eq!(world.rows("k", at).len(), 3);
    assert_eq!(world.opened("k").len(), 1, "it stayed open");
}

#[test]
fn what_an_outlet_reads_is_dropped_with_it_only() {
    let world = World::new();
    world.views.create_outlet(sink("k")).expect("a sink");
    let taken = world.views.create_outlet(sink("k"));
    assert!(matches!(taken, Err(CatalogError::Exists(_))));
    let mut bad = sink("b");
    bad.options = serde_json::json!({ "bad": 1 });
    assert!(matches!(world.views.create_outlet(bad), Err(CatalogError::Plan(_))));
    let Err(CatalogError::HasDependents { details, .. }) = world.views.drop(&items(), false) else {
        panic!("the sink depends on it")
    };
    assert_eq!(details, ["sink k depends on table items"]);
    world.views.drop(&items(), true).expect("both go");
    assert!(world.views.catalog().outlets.is_empty() && world.views.status().is_empty());
    assert_eq!(world.stores.with(&Name::public("k"), |store| store.removed), 1);
    assert!(world.views.outlet_reached(&Name::public("k")).is_none());
}
