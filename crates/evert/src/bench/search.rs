//! Search: an index that follows a table of payments, beside the library alone.
//!
//! The reference writes the same rows into an index of the same schema, with the same heap,
//! deletions and commit cadence; its documents are made before the time counts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use evert_door::http::{Search, SearchCall, SearchOperation};
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit};
use evert_model::Position;
use evert_search::{BareIndex, SearchConfig};
use evert_sql::SqlPlanner;
use evert_view::{Name, OutletDef, OutletKind, Relation, RowChange, Views};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::Bench;
use super::payments::{Ids, Payments, catalog, create};
use super::report::{Durability, Outcome, Report};
use crate::searching::{Searching, searching};

/// How often a search index that has much to do commits.
const COMMIT_EVERY: Duration = Duration::from_millis(650);
const REACH_WITHIN: Duration = Duration::from_secs(600);
const QUERIES: usize = 5_000;
const HITS: usize = 10;
/// A word that a quarter of the payments have.
const WORD: &str = "refunded";

fn options() -> Value {
    json!({ "columns": [], "with": { "status": "text" } })
}

/// Indexes payments, half of them in place of earlier ones, and searches them.
pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    let catalog = catalog();
    let rows = bench.records(1_000_000);
    let mut made = Payments::new(&catalog);
    let batches = made.batches(rows, Ids::Among(rows as i64 / 2));
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let queries = bench.records(QUERIES);

    let mut kept = None;
    report.item(bench, "search: payments of the log indexed", Durability::Synced, true, || {
        kept = None;
        let world = World::new(&bench.scratch.path().join("search"))?;
        let begun = Instant::now();
        let end = world.append(&batches)?;
        world.reached(end)?;
        let outcome = Outcome::since(begun, rows);
        kept = Some(world);
        Ok(outcome)
    })?;
    let world = kept.context("an item runs at least once")?;
    let mut bare = None;
    let name = "reference: the same by tantivy alone";
    report.item(bench, name, Durability::Synced, true, || {
        bare = None;
        let dir = bench.scratch.path().join("tantivy");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let (index, elapsed) = reference(&dir, &batches)?;
        bare = Some(index);
        Ok(Outcome { elapsed, records: rows, ..Outcome::default() })
    })?;
    let bare = bare.context("an item runs at least once")?;

    let searcher = bare.searcher()?;
    let expected = searcher.search("status", WORD, HITS)?.0;
    let name = format!("search: the best {HITS} of {expected} payments");
    report.item(bench, &name, Durability::Read, true, || {
        timed(queries, || Handle::current().block_on(world.search(expected)))
    })?;
    report.item(bench, "reference: the same by tantivy alone", Durability::Read, true, || {
        timed(queries, || {
            let (count, sources) = searcher.search("status", WORD, HITS)?;
            ensure!(count == expected && sources.len() == HITS, "{count} payments are found");
            Ok(())
        })
    })
}

fn timed(count: usize, mut once: impl FnMut() -> Result<()>) -> Result<Outcome> {
    let begun = Instant::now();
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let asked = Instant::now();
        once()?;
        latencies.push(asked.elapsed());
    }
    Ok(Outcome { latencies, ..Outcome::since(begun, count) })
}

fn reference(dir: &Path, batches: &[RecordBatch]) -> Result<(BareIndex, Duration)> {
    let catalog = catalog();
    let schema = &catalog.relations[&Name::public("payments")].schema;
    let heap = SearchConfig::new(dir).heap_bytes;
    let mut index = BareIndex::create(dir, &options(), schema, heap)?;
    let documents: Vec<_> = batches.iter().map(|batch| index.documents(batch)).collect();
    let begun = Instant::now();
    let mut committed = Instant::now();
    for documents in documents {
        index.put(documents)?;
        if committed.elapsed() >= COMMIT_EVERY {
            index.commit()?;
            committed = Instant::now();
        }
    }
    index.commit()?;
    Ok((index, begun.elapsed()))
}

fn index_name() -> Name {
    Name::public("payments_search")
}

/// A log with a table of payments and a live search index of it.
struct World {
    log: Log,
    views: Views,
    relation: Arc<Relation>,
    searching: Searching,
    dir: std::path::PathBuf,
}

impl World {
    fn new(dir: &Path) -> Result<Self> {
        let log = Log::open(Env::real(), dir.to_path_buf(), LogConfig::default())?;
        let views = Views::open(Env::real(), log.clone(), Arc::new(SqlPlanner::new()))?;
        let relation = create(&views, &catalog())?;
        let (factory, searching) = searching(dir, &views);
        views.serve_outlets([(OutletKind::Search, factory)])?;
        let on = relation.name.clone();
        let def = OutletDef::new(index_name(), OutletKind::Search, on, options());
        let created = views.create_outlet(def)?;
        let world = Self { log, views, relation, searching, dir: dir.to_path_buf() };
        world.reached(created)?;
        Ok(world)
    }

    fn append(&self, batches: &[RecordBatch]) -> Result<Position> {
        let mut receipts = Vec::with_capacity(batches.len());
        for batch in batches {
            let parts = self.views.encode(&self.relation, &[RowChange::Put(batch.clone())])?;
            receipts.push(self.log.append(NewCommit { parts })?);
        }
        let mut end = Position::ZERO;
        for receipt in receipts {
            end = receipt.wait()?.position;
        }
        Ok(end)
    }

    fn reached(&self, position: Position) -> Result<()> {
        let until = Instant::now() + REACH_WITHIN;
        loop {
            let reached = self.views.outlet_reached(&index_name()).context("it is there")?;
            if *reached.borrow() >= position {
                return Ok(());
            }
            ensure!(Instant::now() < until, "the index does not catch up");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// One search, as it comes from the HTTP door.
    async fn search(&self, expected: usize) -> Result<()> {
        let body = json!({
            "query": { "match": { "status": WORD } }, "size": HITS, "track_total_hits": true,
        });
        let call = SearchCall {
            operation: SearchOperation::Search,
            index: index_name().name,
            id: String::new(),
            params: Vec::new(),
            body: body.to_string().into(),
            after: None,
            timeout: REACH_WITHIN,
        };
        let answer = self.searching.answer(call).await;
        ensure!(answer.status == 200, "status {}: {:?}", answer.status, answer.body);
        let found: Value = serde_json::from_str(&answer.body)?;
        let total = found["hits"]["total"]["value"].as_u64();
        ensure!(total == Some(expected as u64), "{total:?} payments are found, not {expected}");
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.views.close();
        self.log.close();
        // What is left goes with the scratch directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
