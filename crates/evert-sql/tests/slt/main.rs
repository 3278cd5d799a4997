//! The scripts beside this file, each run twice: as ad-hoc queries over loaded tables, and as views
//! that were created before the rows came, which then come and go in random batches.
//!
//! What a script expects was given by Postgres. A record `onlyif adhoc` is no view.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::array_value_to_string;
use evert_env::Env;
use evert_log::{Log, LogConfig};
use evert_model::array_element;
use evert_sql::{Engine, EngineConfig, NoSources, Response, Session, SqlPlanner};
use evert_view::Views;
use futures::TryStreamExt;
use sqllogictest::{Condition, DefaultColumnType, QueryExpect, Record};

/// A server in a directory of its own.
struct Server {
    engine: Engine,
    log: Log,
    views: Views,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let env = Env::real();
        let config = LogConfig::default();
        let log = Log::open(env.clone(), dir.path().join("log"), config).expect("a new log");
        let views = Views::open(env, log.clone(), Arc::new(SqlPlanner::new())).expect("views");
        let config = EngineConfig::default();
        let engine = Engine::new(log.clone(), views.clone(), Arc::new(NoSources), config);
        Self { engine, log, views, _dir: dir }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.views.close();
        self.log.close();
    }
}

/// A script's statements and queries.
struct Script {
    tables: Vec<String>,
    inserts: Vec<String>,
    queries: Vec<Query>,
}

impl Script {
    /// The table that a statement inserts into, and its first column, which is its key.
    fn table_of<'a>(&'a self, insert: &'a str) -> (&'a str, &'a str) {
        let table = insert.split_whitespace().nth(2).expect("INSERT INTO table");
        let columns = self.tables.iter().find_map(|create| {
            create.strip_prefix("CREATE TABLE ")?.strip_prefix(table)?.strip_prefix(" (")
        });
        let key = columns.and_then(|columns| columns.split_whitespace().next());
        (table, key.expect("CREATE TABLE table (key ...)"))
    }
}

struct Query {
    sql: String,
    line: u32,
    columns: usize,
    /// Whether it may be a view.
    is_view: bool,
    expected: Vec<String>,
}

fn script(path: &Path) -> Script {
    let records = sqllogictest::parse_file::<DefaultColumnType>(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut script = Script { tables: Vec::new(), inserts: Vec::new(), queries: Vec::new() };
    for record in records {
        match record {
            Record::Statement { sql, .. } if sql.starts_with("CREATE") => script.tables.push(sql),
            Record::Statement { sql, .. } => script.inserts.push(sql),
            Record::Query { sql, loc, conditions, expected, .. } => {
                let QueryExpect::Results { mut results, types, .. } = expected else {
                    panic!("{loc}: a query expects rows")
                };
                let only_ad_hoc = |condition: &Condition| matches!(condition, Condition::OnlyIf { label } if label == "adhoc");
                results.sort();
                script.queries.push(Query {
                    sql,
                    line: loc.line(),
                    columns: types.len(),
                    is_view: !conditions.iter().any(only_ad_hoc),
                    expected: results,
                });
            }
            _ => {}
        }
    }
    script
}

async fn run(session: &mut Session, sql: &str) -> Result<Vec<String>, String> {
    let failed = |error: evert_sql::SqlError| format!("{} {error}", error.sqlstate);
    let mut lines = Vec::new();
    for statement in session.parse(sql).map_err(failed)? {
        if let Response::Rows { batches, .. } =
            session.execute(&statement, &[]).await.map_err(failed)?
        {
            let batches: Vec<RecordBatch> = batches.try_collect().await.map_err(failed)?;
            lines.extend(
                batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| shown(batch, row))),
            );
        }
    }
    lines.sort();
    Ok(lines)
}

/// A row as Postgres writes it, but for what the two write differently by custom.
fn shown(batch: &RecordBatch, row: usize) -> String {
    let cell = |column: &Arc<dyn Array>| {
        if column.is_null(row) {
            return "NULL".to_owned();
        }
        let text = value(column, row);
        if text.is_empty() { "(empty)".to_owned() } else { text }
    };
    batch.columns().iter().map(cell).collect::<Vec<_>>().join(" ")
}

/// A value that is not NULL.
fn value(column: &Arc<dyn Array>, row: usize) -> String {
    let ty = column.data_type();
    if let Some(lists) = column.as_list_opt::<i32>() {
        let items = lists.value(row);
        let items = (0..items.len()).map(|place| match items.is_null(place) {
            true => "NULL".to_owned(),
            false => array_element(&value(&items, place)).into_owned(),
        });
        return format!("{{{}}}", items.collect::<Vec<_>>().join(","));
    }
    let text = array_value_to_string(column, row).expect("a printable value");
    if ty.is_temporal() {
        return text.replace('T', " ");
    }
    if ty.is_floating() || ty.is_decimal() {
        let digits = text.trim_end_matches('0');
        return if text.contains('.') { digits.trim_end_matches('.').to_owned() } else { text };
    }
    text
}

async fn ok(session: &mut Session, sql: &str) {
    run(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// What differs from a script's expectations.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare(&mut self, how: &str, query: &Query, found: Result<Vec<String>, String>) {
        let differs = match &found {
            Ok(rows) => *rows != query.expected,
            Err(_) => true,
        };
        if differs {
            let Query { sql, line, expected, .. } = query;
            self.0.push(format!(
                "line {line}, {how}: {sql}\n  expected {expected:?}\n  found {found:?}"
            ));
        }
    }
}

/// Rows come in random batches, go again, and come back; in the end each is there once.
async fn load_at_random(session: &mut Session, script: &Script, rng: &mut fastrand::Rng) {
    let inserts = &script.inserts;
    for _ in 0..8 {
        let one = rng.usize(0..inserts.len());
        match rng.u8(0..3) {
            0 => {
                let (of, which) = (rng.u8(2..4), rng.u8(0..2));
                let (table, key) = script.table_of(&inserts[one]);
                ok(session, &format!("DELETE FROM {table} WHERE {key} % {of} = {which}")).await;
            }
            _ => ok(session, &inserts[one]).await,
        }
    }
    for insert in inserts {
        ok(session, insert).await;
    }
}

async fn check(path: &Path, seed: u64) -> Vec<String> {
    let script = script(path);
    let server = Server::start();
    let mut session = server.engine.session("tester", "evert");
    for table in &script.tables {
        ok(&mut session, table).await;
    }
    let mut differences = Differences::default();
    let mut views = Vec::new();
    for (place, query) in script.queries.iter().enumerate().filter(|(_, query)| query.is_view) {
        let create = format!("CREATE MATERIALIZED VIEW v{place} AS {}", query.sql);
        let mut created = run(&mut session, &create).await;
        if created.as_ref().is_err_and(|error| error.starts_with("42701")) {
            // A view's columns have different names, a query's need not.
            let names: Vec<_> = (0..query.columns).map(|column| format!("c{column}")).collect();
            let (names, sql) = (names.join(", "), &query.sql);
            let create =
                format!("CREATE MATERIALIZED VIEW v{place} AS SELECT * FROM ({sql}) q({names})");
            created = run(&mut session, &create).await;
        }
        match created {
            Ok(_) => views.push((place, query)),
            Err(error) => differences.compare("as a view", query, Err(error)),
        }
    }
    load_at_random(&mut session, &script, &mut fastrand::Rng::with_seed(seed)).await;
    for query in &script.queries {
        let found = run(&mut session, &query.sql).await;
        differences.compare("ad hoc", query, found);
    }
    for (place, query) in views {
        let found = run(&mut session, &format!("SELECT * FROM v{place}")).await;
        differences.compare("as a view", query, found);
    }
    differences.0
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_hold_ad_hoc_and_as_views() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 8, "{paths:?}");
    let mut report = Vec::new();
    for path in paths {
        for difference in check(&path, 7).await {
            let name = path.file_name().expect("a file's path").to_string_lossy();
            report.push(format!("{name} {difference}"));
        }
    }
    assert!(report.is_empty(), "{} differ\n{}", report.len(), report.join("\n"));
}
