//! Sessions over a real log and real views, as scripts: a statement, what comes back.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int16Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use evert_env::Env;
use evert_log::{Log, LogConfig};
use evert_view::Views;
use futures::TryStreamExt;

use crate::{
    Engine, EngineConfig, NoSources, Response, Session, SqlError, SqlPlanner, TransactionStatus,
};

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
        let log = Log::open(env.clone(), dir.path().join("log"), LogConfig::default())
            .expect("a new log");
        let views = Views::open(env, log.clone(), Arc::new(SqlPlanner::new())).expect("views");
        let config = EngineConfig::default();
        let engine = Engine::new(log.clone(), views.clone(), Arc::new(NoSources), config);
        Self { engine, log, views, _dir: dir }
    }

    fn session(&self) -> Session {
        self.engine.session("tester", "evert")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.views.close();
        self.log.close();
    }
}

async fn shown(response: Response) -> Result<String, SqlError> {
    match response {
        Response::Empty => Ok("empty".into()),
        Response::Done { tag } => Ok(tag),
        Response::CopyOut { .. } | Response::CopyIn { .. } => panic!("COPY is read by its own"),
        Response::Rows { batches, tag, schema } => {
            let batches: Vec<RecordBatch> = batches.try_collect().await?;
            let mut lines = Vec::new();
            for batch in &batches {
                assert_eq!(batch.schema(), schema, "batches have the announced schema");
                for row in 0..batch.num_rows() {
                    let cells = batch.columns().iter().map(|column| {
                        array_value_to_string(column, row).expect("a printable value")
                    });
                    lines.push(cells.collect::<Vec<_>>().join("|"));
                }
            }
            Ok(format!("{tag} {}: {}", lines.len(), lines.join(" ")))
        }
    }
}

async fn try_run(session: &mut Session, sql: &str) -> Result<String, SqlError> {
    let mut last = String::new();
    for statement in session.parse(sql)? {
        last = shown(session.execute(&statement, &[]).await?).await?;
    }
    Ok(last)
}

async fn run(session: &mut Session, sql: &str) -> String {
    try_run(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {} {e}", e.sqlstate))
}

async fn refusal(session: &mut Session, sql: &str) -> &'static str {
    match try_run(session, sql).await {
        Ok(shown) => panic!("{sql} gave {shown}"),
        Err(error) => error.sqlstate,
    }
}

/// Statements and what they give, one after the other in one session.
async fn script(session: &mut Session, lines: &[(&str, &str)]) {
    for (sql, expected) in lines {
        assert_eq!(run(session, sql).await, *expected, "{sql}");
    }
}

const ITEMS: &str = "CREATE TABLE items (id bigint PRIMARY KEY, name text NOT NULL, n int, \
                     price numeric(10,2), u uuid, j json, b bytea, at timestamp)";

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_change_and_go() {
    let server = Server::start();
    let mut session = server.session();
    script(
        &mut session,
        &[
            (ITEMS, "CREATE TABLE"),
            ("INSERT INTO items (id, name, n, price) VALUES (1, 'one', 10, 1.005), (2, 'two', 20, 3)", "INSERT 0 2"),
            ("SELECT id, name, n, price FROM items ORDER BY id", "SELECT 2: 1|one|10|1.01 2|two|20|3.00"),
            ("SELECT name FROM items WHERE id = 2", "SELECT 1: two"),
            ("SELECT name FROM items WHERE id = 3", "SELECT 0: "),
            ("INSERT INTO items (id, name) VALUES (1, 'uno')", "INSERT 0 1"),
            ("SELECT id, name, n FROM items ORDER BY 1", "SELECT 2: 1|uno| 2|two|20"),
            ("UPDATE items SET n = n + 1, name = upper(name) WHERE n >= 20 RETURNING id, n", "UPDATE 1: 2|21"),
            ("UPDATE items SET id = id + 10", "UPDATE 2"),
            ("SELECT id, name FROM items ORDER BY id", "SELECT 2: 11|uno 12|TWO"),
            ("DELETE FROM items AS i WHERE i.id = 11 RETURNING i.name", "DELETE 1: uno"),
            ("INSERT INTO items SELECT id + 1, name, n FROM items", "INSERT 0 1"),
            ("SELECT count(*), sum(n) FROM items", "SELECT 1: 2|42"),
            ("INSERT INTO items (id, name, u, j, b, at) VALUES (1, 'x', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"a\": 1}', '\\x00ff', '2026-01-02 03:04:05') RETURNING u, j, b, at",
             "INSERT 0 1: a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{\"a\": 1}|00ff|2026-01-02T03:04:05"),
            ("SELECT (SELECT count(*) FROM items) + 1", "SELECT 1: 4"),
            ("SELECT name FROM items WHERE id = (SELECT min(id) FROM items)", "SELECT 1: x"),
            ("UPDATE items SET n = (SELECT max(n) + 1 FROM items) WHERE id = 1 RETURNING n", "UPDATE 1: 22"),
            ("DELETE FROM items", "DELETE 3"),
            ("SELECT count(*) FROM items", "SELECT 1: 0"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_met_as_asked() {
    let server = Server::start();
    let mut session = server.session();
    script(
        &mut session,
        &[
            ("CREATE TABLE c (a int, b text, n int, PRIMARY KEY (a, b))", "CREATE TABLE"),
            ("INSERT INTO c VALUES (1, 'x', 1)", "INSERT 0 1"),
            ("INSERT INTO c VALUES (1, 'x', 2), (1, 'y', 3) ON CONFLICT DO NOTHING", "INSERT 0 1"),
            ("SELECT * FROM c ORDER BY a, b", "SELECT 2: 1|x|1 1|y|3"),
            ("INSERT INTO c VALUES (1, 'x', 5), (2, 'z', 6) ON CONFLICT (a, b) DO UPDATE SET n = c.n + excluded.n RETURNING a, b, n", "INSERT 0 2: 2|z|6 1|x|6"),
            ("SELECT n FROM c WHERE a = 1 AND b = 'x'", "SELECT 1: 6"),
            ("CREATE TABLE strict (id int PRIMARY KEY, v text) WITH (on_conflict='error')", "CREATE TABLE"),
            ("INSERT INTO strict VALUES (1, 'a')", "INSERT 0 1"),
        ],
    )
    .await;
    assert_eq!(
        refusal(&mut session, "INSERT INTO strict VALUES (2, 'b'), (1, 'c')").await,
        "23505"
    );
    assert_eq!(
        refusal(&mut session, "INSERT INTO strict VALUES (3, 'b'), (3, 'c')").await,
        "23505"
    );
    assert_eq!(refusal(&mut session, "UPDATE c SET b = 'x'").await, "23505");
    assert_eq!(run(&mut session, "SELECT count(*) FROM strict").await, "SELECT 1: 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_one_commit_at_one_cut() {
    let server = Server::start();
    let (mut one, mut two) = (server.session(), server.session());
    script(
        &mut one,
        &[
            (ITEMS, "CREATE TABLE"),
            ("INSERT INTO items (id, name, n) VALUES (1, 'a', 1), (2, 'b', 2)", "INSERT 0 2"),
        ],
    )
    .await;
    script(
        &mut one,
        &[
            ("BEGIN", "BEGIN"),
            ("UPDATE items SET n = 100 WHERE id = 1", "UPDATE 1"),
            ("INSERT INTO items (id, name, n) VALUES (3, 'c', 3)", "INSERT 0 1"),
            ("DELETE FROM items WHERE id = 2", "DELETE 1"),
            ("SELECT id, n FROM items ORDER BY id", "SELECT 2: 1|100 3|3"),
            ("SELECT n FROM items WHERE id = 1", "SELECT 1: 100"),
            ("SELECT n FROM items WHERE id = 2", "SELECT 0: "),
        ],
    )
    .await;
    assert_eq!(one.transaction_status(), TransactionStatus::InTransaction);
    assert_eq!(run(&mut two, "SELECT id, n FROM items ORDER BY id").await, "SELECT 2: 1|1 2|2");
    let before = server.log.end();
    assert_eq!(run(&mut one, "COMMIT").await, "COMMIT");
    assert_eq!(server.log.end().get(), before.get() + 1, "one commit");
    assert_eq!(run(&mut one, "SELECT id, n FROM items ORDER BY id").await, "SELECT 2: 1|100 3|3");
    script(
        &mut one,
        &[
            (
                "BEGIN; UPDATE items SET n = 0; SELECT count(*) FROM items WHERE n = 0",
                "SELECT 1: 2",
            ),
            ("ROLLBACK", "ROLLBACK"),
            ("SELECT id, n FROM items ORDER BY id", "SELECT 2: 1|100 3|3"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_of_a_row_one_must_try_again() {
    let server = Server::start();
    let (mut one, mut two) = (server.session(), server.session());
    run(&mut one, ITEMS).await;
    run(&mut one, "INSERT INTO items (id, name, n) VALUES (1, 'a', 1), (2, 'b', 1)").await;
    run(&mut one, "BEGIN; UPDATE items SET n = n + 1 WHERE id = 1").await;
    run(&mut two, "SET evert.after = 1; BEGIN").await;
    run(&mut two, "UPDATE items SET n = n + 10 WHERE id = 1").await;
    assert_eq!(run(&mut two, "COMMIT").await, "COMMIT");
    assert_eq!(refusal(&mut one, "COMMIT").await, "40001");
    assert_eq!(one.transaction_status(), TransactionStatus::Idle);
    assert_eq!(run(&mut two, "SELECT n FROM items WHERE id = 1").await, "SELECT 1: 11");

    // Writers of different rows don't meet.
    run(&mut one, "BEGIN; UPDATE items SET n = n + 1 WHERE id = 1").await;
    run(&mut two, "BEGIN; UPDATE items SET n = n + 1 WHERE id = 2").await;
    run(&mut two, "COMMIT").await;
    run(&mut one, "COMMIT").await;
    assert_eq!(run(&mut one, "SELECT sum(n) FROM items").await, "SELECT 1: 14");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_updates_lose_nothing() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, ITEMS).await;
    run(&mut session, "INSERT INTO items (id, name, n) VALUES (1, 'a', 0)").await;
    let tasks = (0..4).map(|_| {
        let mut session = server.session();
        tokio::spawn(async move {
            for _ in 0..10 {
                run(&mut session, "UPDATE items SET n = n + 1 WHERE id = 1").await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("all updates");
    }
    let after = server.log.end();
    run(&mut session, &format!("SET evert.after = {after}")).await;
    assert_eq!(run(&mut session, "SELECT n FROM items WHERE id = 1").await, "SELECT 1: 40");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_reads_one_cut_while_others_write() {
    let server = Server::start();
    let (mut reader, mut writer) = (server.session(), server.session());
    run(&mut writer, ITEMS).await;
    run(&mut writer, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM items").await;
    run(&mut writer, "INSERT INTO items (id, name) VALUES (1, 'a')").await;
    run(&mut reader, &format!("SET evert.after = {}", writer.position())).await;
    run(&mut reader, "BEGIN").await;
    for id in 2..6 {
        assert_eq!(run(&mut reader, "SELECT count(*) FROM items").await, "SELECT 1: 1");
        run(&mut writer, &format!("INSERT INTO items (id, name) VALUES ({id}, 'a')")).await;
        run(&mut writer, "SELECT n FROM v").await;
        assert_eq!(run(&mut reader, "SELECT n FROM v").await, "SELECT 1: 1");
    }
    run(&mut reader, "COMMIT").await;
    run(&mut reader, &format!("SET evert.after = {}", writer.position())).await;
    assert_eq!(run(&mut reader, "SELECT n FROM v").await, "SELECT 1: 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_insert_is_one_commit() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, "CREATE TABLE big (id bigint PRIMARY KEY, body text)").await;
    let before = server.log.end();
    let insert = "INSERT INTO big SELECT n, repeat('x', 100) FROM generate_series(1, 60000) AS n";
    assert_eq!(run(&mut session, insert).await, "INSERT 0 60000");
    assert_eq!(session.position().get(), before.get() + 1);
    let sums = "SELECT count(*), sum(id), sum(length(body)) FROM big";
    assert_eq!(run(&mut session, sums).await, "SELECT 1: 60000|1800030000|6000000");
    assert_eq!(run(&mut session, "DELETE FROM big WHERE id % 2 = 0").await, "DELETE 30000");
    assert_eq!(run(&mut session, "SELECT count(*) FROM big").await, "SELECT 1: 30000");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_only_the_end_is_executed() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, ITEMS).await;
    run(&mut session, "BEGIN; INSERT INTO items (id, name) VALUES (1, 'a')").await;
    assert_eq!(refusal(&mut session, "SELECT 1 / 0").await, "22012");
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    assert_eq!(refusal(&mut session, "SELECT 1").await, "25P02");
    assert_eq!(run(&mut session, "COMMIT").await, "ROLLBACK");
    assert_eq!(session.transaction_status(), TransactionStatus::Idle);
    assert_eq!(run(&mut session, "SELECT count(*) FROM items").await, "SELECT 1: 0");
    run(&mut session, "BEGIN READ ONLY").await;
    assert_eq!(refusal(&mut session, "DELETE FROM items").await, "25006");
    run(&mut session, "ROLLBACK").await;
    // An error that comes while rows are read counts too.
    run(&mut session, "INSERT INTO items (id, name, n) VALUES (1, 'a', 0), (2, 'b', 1)").await;
    run(&mut session, "BEGIN").await;
    assert_eq!(refusal(&mut session, "SELECT 1 / n FROM items").await, "22012");
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    run(&mut session, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn views_follow_and_a_session_reads_its_writes() {
    let server = Server::start();
    let mut session = server.session();
    script(
        &mut session,
        &[
            (ITEMS, "CREATE TABLE"),
            ("CREATE STREAM events (item bigint, qty int)", "CREATE STREAM"),
            ("INSERT INTO items (id, name, price) VALUES (1, 'pen', 2.50), (2, 'ink', 4)", "INSERT 0 2"),
            ("CREATE MATERIALIZED VIEW sold AS SELECT i.name, sum(e.qty) AS qty, sum(e.qty * i.price) AS total FROM events e JOIN items i ON i.id = e.item GROUP BY i.name", "CREATE MATERIALIZED VIEW"),
            ("CREATE MATERIALIZED VIEW all_sold AS SELECT sum(total) AS total, count(*) AS n FROM sold", "CREATE MATERIALIZED VIEW"),
            ("SELECT * FROM all_sold", "SELECT 1: |0"),
            ("INSERT INTO events VALUES (1, 2), (2, 1), (1, 1)", "INSERT 0 3"),
            ("SELECT * FROM sold ORDER BY name", "SELECT 2: ink|1|4.00 pen|3|7.50"),
            ("SELECT qty FROM sold WHERE name = 'pen'", "SELECT 1: 3"),
            ("SELECT s.n, t.total, (SELECT sum(qty) FROM events) FROM all_sold s, (SELECT sum(total) AS total FROM sold) t", "SELECT 1: 2|11.50|4"),
            ("UPDATE items SET price = 3 WHERE id = 1", "UPDATE 1"),
            ("SELECT total FROM all_sold", "SELECT 1: 13.00"),
            ("DELETE FROM items WHERE id = 2", "DELETE 1"),
            ("SELECT total, n FROM all_sold", "SELECT 1: 9.00|1"),
            ("SELECT count(*) FROM events", "SELECT 1: 3"),
            ("REFRESH MATERIALIZED VIEW sold", "REFRESH MATERIALIZED VIEW"),
            ("SELECT name, kind, state, rows FROM evert.views ORDER BY name", "SELECT 2: all_sold|table|live|1 sold|table|live|1"),
        ],
    )
    .await;
    let verified = run(&mut session, "VERIFY VIEW sold").await;
    assert!(
        verified.starts_with("VERIFY 1: sold|") && verified.ends_with("|1|1|true|"),
        "{verified}"
    );
    let shown = run(&mut session, "SHOW VIEWS").await;
    assert!(shown.starts_with("SHOW 2: all_sold|table|live|"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_known_and_waited_for() {
    let server = Server::start();
    let (mut writer, mut reader) = (server.session(), server.session());
    run(&mut writer, ITEMS).await;
    for id in 0..20 {
        run(&mut writer, &format!("INSERT INTO items (id, name) VALUES ({id}, 'x')")).await;
        let position = writer.position();
        assert_eq!(run(&mut writer, "SHOW POSITION").await, format!("SHOW 1: {position}"));
        run(&mut reader, &format!("SET evert.after = {position}")).await;
        let count = run(&mut reader, "SELECT count(*) FROM items").await;
        assert_eq!(count, format!("SELECT 1: {}", id + 1));
        assert!(reader.position() >= position);
    }
    run(&mut reader, "RESET evert.after").await;
    run(&mut reader, "WAIT FOR POSITION 'items/0@19' TIMEOUT '5s'").await;
    let far = "WAIT FOR POSITION 999999 TIMEOUT '50ms'";
    assert_eq!(refusal(&mut reader, far).await, "57014");
    assert_eq!(refusal(&mut reader, "WAIT FOR POSITION 'nowhere:0/1'").await, "22023");
    assert_eq!(refusal(&mut reader, "SET evert.after = 'nowhere:0/1'").await, "22023");
    run(&mut reader, "SET evert.after = 999999; SET statement_timeout = '50ms'").await;
    assert_eq!(refusal(&mut reader, "SELECT count(*) FROM items").await, "57014");
    // Why it waits can be found out.
    run(&mut reader, "SHOW SOURCES").await;
    run(&mut reader, "SHOW VIEWS").await;
    run(&mut reader, "DISCARD ALL").await;
    assert_eq!(run(&mut reader, "SELECT count(*) FROM items").await, "SELECT 1: 20");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_codes_places_and_hints() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM items").await;
    for (sql, sqlstate) in [
        ("SELECT * FROM item", "42P01"),
        ("SELECT nam FROM items", "42703"),
        ("INSERT INTO items (id, nme) VALUES (1, 'a')", "42703"),
        ("INSERT INTO items (id) VALUES (1)", "23502"),
        ("INSERT INTO items (id, name) VALUES (1)", "42601"),
        ("INSERT INTO items (id, name, n) VALUES (1, 'a', 3000000000)", "22003"),
        ("INSERT INTO items (id, name, n) VALUES (1, 'a', 'b')", "22P02"),
        ("INSERT INTO items (id, name, price) VALUES (1, 'a', 1e20)", "22003"),
        ("INSERT INTO items (id, name, j) VALUES (1, 'a', '{')", "22P02"),
        ("INSERT INTO items (id, name, u) VALUES (1, 'a', 'b')", "22P02"),
        ("INSERT INTO v VALUES (1)", "42809"),
        ("INSERT INTO evert.views VALUES (1)", "42809"),
        ("CREATE TABLE items (id int PRIMARY KEY)", "42P07"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1 FROM items", "42P07"),
        ("CREATE MATERIALIZED VIEW w AS SELECT * FROM nothing", "42P01"),
        ("CREATE MATERIALIZED VIEW w AS SELECT id, random() AS r FROM items", "0A000"),
        ("CREATE TABLE evert.x (id int PRIMARY KEY)", "42P16"),
        ("DROP TABLE items", "2BP01"),
        ("DROP TABLE v", "42809"),
        ("DROP TABLE nothing", "42P01"),
        ("SELECT 9223372036854775807 + 1", "22003"),
        ("SELECT 2147483647::int * 2147483647::int * 2147483647::int", "22003"),
        ("SELECT 1.0::float8 / 0", "22012"),
        ("SELECT 'x'::int", "22P02"),
        ("SELECT nope(1)", "42883"),
        ("SELECT * FROM generate(1)", "42883"),
        (
            "SELECT count(*) OVER (ORDER BY id RANGE BETWEEN 2 PRECEDING AND 1 PRECEDING) FROM items",
            "0A000",
        ),
        ("CREATE MATERIALIZED VIEW w AS SELECT value FROM range(1, 2)", "0A000"),
        ("CREATE MATERIALIZED VIEW w AS SELECT id, pg_sleep(1) AS s FROM items", "0A000"),
        ("SELECT count(*) FROM items TABLESAMPLE SYSTEM (10)", "0A000"),
        ("COPY items FROM '/etc/passwd'", "42501"),
        ("SAVEPOINT s", "25P01"),
        ("SHOW nothing", "42704"),
        ("SET nothing = 1", "42704"),
        ("CREATE SOURCE s FROM POSTGRES 'postgres://x'", "0A000"),
        ("DROP SOURCE s", "42704"),
        ("VERIFY VIEW nothing", "42P01"),
    ] {
        assert_eq!(refusal(&mut session, sql).await, sqlstate, "{sql}");
    }
    let error = try_run(&mut session, "SELECT id,\n nam FROM items").await.expect_err("a slip");
    assert_eq!(error.position, Some(13));
    assert!(error.hint.expect("a guess").contains("name"));
    let error = try_run(&mut session, "SELECT * FROM itms").await.expect_err("a slip");
    assert!(error.hint.expect("a guess").contains("items"));
    assert_eq!(run(&mut session, "DROP TABLE IF EXISTS nothing").await, "DROP TABLE");
    assert_eq!(session.take_notices().len(), 1);
    assert_eq!(run(&mut session, "DROP TABLE items CASCADE").await, "DROP TABLE");
    assert_eq!(refusal(&mut session, "SELECT * FROM v").await, "42P01");
}

fn int(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringViewArray::from(vec![value]))
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_have_types_and_values() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, ITEMS).await;
    let types = |sql: &'static str| {
        let mut session = server.session();
        async move {
            let statement = session.parse(sql).expect(sql).remove(0);
            let described = session.describe(&statement, &[]).await.expect(sql);
            described.params.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
    };
    assert_eq!(types("SELECT * FROM items WHERE id = $1 AND n > $2").await, "Int64,Int32");
    assert_eq!(
        types("INSERT INTO items (id, name, n) VALUES ($1, $2, $3)").await,
        "Int64,Utf8View,Int32"
    );
    assert_eq!(
        types("UPDATE items SET n = $1, name = $3 WHERE id = $2").await,
        "Int32,Int64,Utf8View"
    );
    assert_eq!(types("SELECT id FROM items ORDER BY id LIMIT $1 OFFSET $2").await, "Int64,Int64");
    assert_eq!(types("SELECT $1").await, "Utf8View");
    assert_eq!(types("DELETE FROM items WHERE name = $1 RETURNING id").await, "Utf8View");

    let insert =
        session.parse("INSERT INTO items (id, name) VALUES ($1, $2)").expect("one").remove(0);
    for id in 0..3 {
        let done = session.execute(&insert, &[int(id), text("row")]).await.expect("inserted");
        assert_eq!(shown(done).await.expect("a tag"), "INSERT 0 1");
    }
    let select = session.parse("SELECT name, id FROM items WHERE id = $1").expect("one").remove(0);
    for id in 0..3 {
        let rows = session.execute(&select, &[int(id)]).await.expect("found");
        assert_eq!(shown(rows).await.expect("rows"), format!("SELECT 1: row|{id}"));
    }
    // A driver may send a narrower type than the column has.
    let narrow: ArrayRef = Arc::new(Int16Array::from(vec![2]));
    let described = session.describe(&select, &[Some(DataType::Int16)]).await.expect("described");
    assert_eq!(described.params, [DataType::Int16]);
    let rows = session.execute(&select, &[narrow]).await.expect("found");
    assert_eq!(shown(rows).await.expect("rows"), "SELECT 1: row|2");
    let page = "SELECT id FROM items ORDER BY id LIMIT $1 OFFSET $2";
    let page = session.parse(page).expect("one").remove(0);
    session.describe(&page, &[Some(DataType::Int16), Some(DataType::Int16)]).await.expect("types");
    let count = |count: i16| -> ArrayRef { Arc::new(Int16Array::from(vec![count])) };
    let rows = session.execute(&page, &[count(1), count(1)]).await.expect("found");
    assert_eq!(shown(rows).await.expect("rows"), "SELECT 1: 1");
    assert!(types("SELECT id FROM items WHERE name = ANY($1)").await.starts_with("List"));
    let update =
        session.parse("UPDATE items SET n = $2 WHERE id = $1 RETURNING n").expect("one").remove(0);
    let described = session.describe(&update, &[]).await.expect("described");
    assert_eq!(described.columns.expect("returning").field(0).name(), "n");
    let five: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![5]));
    let rows = session.execute(&update, &[int(1), five]).await.expect("updated");
    assert_eq!(shown(rows).await.expect("rows"), "UPDATE 1: 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_what_they_ask_for() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM items").await;
    script(
        &mut session,
        &[
            ("SELECT current_database(), current_schema(), current_user", "SELECT 1: evert|public|tester"),
            ("SELECT 1, 1, 2 AS a, 3 AS a", "SELECT 1: 1|1|2|3"),
            ("SHOW standard_conforming_strings", "SHOW 1: on"),
            ("SHOW TRANSACTION ISOLATION LEVEL", "SHOW 1: repeatable read"),
            ("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1", "SELECT 2: items|BASE TABLE v|VIEW"),
            ("SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = 'items' AND ordinal_position < 5 ORDER BY ordinal_position",
             "SELECT 4: id|bigint|NO name|text|NO n|integer|YES price|numeric|YES"),
            ("SELECT relname, relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'public' ORDER BY 1", "SELECT 3: items|r items_pkey|i v|m"),
            ("SELECT topic, partition, high_watermark FROM evert.partitions WHERE topic = 'items'", "SELECT 1: items|0|0"),
            ("SELECT name, relation FROM evert.topics WHERE NOT internal", "SELECT 1: items|items"),
            ("SELECT count(*) FROM evert.errors", "SELECT 1: 0"),
            ("SHOW TOPICS", "SHOW 1: items|1|0|items"),
            ("SHOW SOURCES", "SHOW 0: "),
            ("", "empty"),
            ("SET LOCAL application_name = 'x'", "SET"),
        ],
    )
    .await;
    let version = run(&mut session, "SELECT pg_catalog.version()").await;
    assert!(version.starts_with("SELECT 1: PostgreSQL 15"), "{version}");
    let plan = run(&mut session, "EXPLAIN SELECT * FROM items WHERE id = 1").await;
    assert!(plan.contains("TableScan: items"), "{plan}");
    assert!(plan.contains("Lookup in items by key (id)"), "{plan}");
    let plan = run(&mut session, "EXPLAIN (FORMAT JSON) SELECT * FROM items").await;
    assert!(plan.contains("\"Lookups\": []"), "{plan}");
    let sql = "EXPLAIN CREATE MATERIALIZED VIEW e AS SELECT n, count(*) FROM items GROUP BY n";
    let plan = run(&mut session, sql).await;
    for part in ["Reduce", "Group Key: ", "Aggregates: count(*)", "Input items", "Key: n"] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    assert_eq!(refusal(&mut session, "EXPLAIN items").await, "42809");
    assert_eq!(refusal(&mut session, "EXPLAIN nope").await, "42P01");
    let names = |sql: &'static str| {
        let mut session = server.session();
        async move {
            let statement = session.parse(sql).expect(sql).remove(0);
            let columns = session.describe(&statement, &[]).await.expect(sql).columns;
            let columns = columns.expect("columns");
            columns.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(",")
        }
    };
    assert_eq!(
        names("SELECT count(*), sum(n), n + 1, n::text, CASE WHEN true THEN 1 END, 1, id FROM items GROUP BY n, id").await,
        "count,sum,?column?,n,case,?column?,id"
    );
    assert_eq!(names("SHOW TIME ZONE").await, "TimeZone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_can_be_stopped() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, "SET evert.after = 999999").await;
    run(&mut session, ITEMS).await;
    let cancel = session.cancel_handle();
    let waiting = tokio::spawn(async move { refusal(&mut session, "SELECT * FROM items").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancel();
    assert_eq!(waiting.await.expect("an answer"), "57014");
    // A long computation ends too.
    let mut session = server.session();
    run(&mut session, "SET statement_timeout = '200ms'; CREATE STREAM s (a bigint)").await;
    let values = (0..60).map(|n| format!("({n})")).collect::<Vec<_>>().join(",");
    run(&mut session, &format!("INSERT INTO s VALUES {values}")).await;
    let long = "SELECT count(*) FROM s a, s b, s c, s d, s e WHERE a.a + b.a + c.a + d.a + e.a = 7";
    assert_eq!(refusal(&mut session, long).await, "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scalar_subquery_has_one_row_or_an_error() {
    let server = Server::start();
    let mut session = server.session();
    let ad_hoc =
        "SELECT id, (SELECT v FROM parts WHERE whole = wholes.id) AS v FROM wholes ORDER BY id";
    script(
        &mut session,
        &[
            ("CREATE TABLE wholes (id bigint PRIMARY KEY)", "CREATE TABLE"),
            ("CREATE TABLE parts (id bigint PRIMARY KEY, whole bigint, v int)", "CREATE TABLE"),
            ("CREATE MATERIALIZED VIEW one AS SELECT id, (SELECT v FROM parts WHERE whole = wholes.id) AS v FROM wholes", "CREATE MATERIALIZED VIEW"),
            ("INSERT INTO wholes VALUES (1), (2), (3)", "INSERT 0 3"),
            ("INSERT INTO parts VALUES (1, 1, 10), (2, 2, 20), (3, 2, 21)", "INSERT 0 3"),
            ("SELECT * FROM one ORDER BY id", "SELECT 2: 1|10 3|"),
        ],
    )
    .await;
    assert_eq!(refusal(&mut session, ad_hoc).await, "21000");
    script(
        &mut session,
        &[
            ("DELETE FROM parts WHERE id = 3", "DELETE 1"),
            ("SELECT * FROM one ORDER BY id", "SELECT 3: 1|10 2|20 3|"),
            (ad_hoc, "SELECT 3: 1|10 2|20 3|"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_changed_from_what_is_named_before() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(&mut session, "CREATE TABLE u (id int PRIMARY KEY, n int)").await;
    script(
        &mut session,
        &[
            ("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)", "INSERT 0 3"),
            ("INSERT INTO t VALUES ((SELECT max(id) + 1 FROM t), DEFAULT), (9, (SELECT 5))", "INSERT 0 2"),
            ("WITH w AS (SELECT id, n * 10 AS m FROM t WHERE id < 3) INSERT INTO u SELECT id, m FROM w", "INSERT 0 2"),
            ("WITH w AS (SELECT id, n + 1 AS m FROM u), v AS (SELECT * FROM w WHERE id > 1) UPDATE t SET n = v.m FROM v WHERE v.id = t.id RETURNING t.id, t.n", "UPDATE 1: 2|21"),
            ("WITH w(k) AS (SELECT 3) DELETE FROM t WHERE id IN (SELECT k FROM w)", "DELETE 1"),
            ("WITH w AS (SELECT 1 AS id) DELETE FROM t USING w WHERE w.id = t.id", "DELETE 1"),
            ("INSERT INTO t AS x VALUES (2, 7) ON CONFLICT (id) DO UPDATE SET n = x.n + excluded.n RETURNING x.id, x.n", "INSERT 0 1: 2|28"),
            ("UPDATE ONLY t SET n = 0 WHERE id = 2", "UPDATE 1"),
            ("SELECT id, n FROM t ORDER BY id", "SELECT 3: 2|0 4| 9|5"),
        ],
    )
    .await;
    let refused = "WITH w AS (DELETE FROM t RETURNING id) INSERT INTO u SELECT id, 1 FROM w";
    assert_eq!(refusal(&mut session, refused).await, "0A000");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_leaves_behind_is_told() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&mut session, "DROP TABLE t").await;
    assert_eq!(session.take_notices(), Vec::<String>::new(), "there were no records");
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&mut session, "INSERT INTO t VALUES (1), (2)").await;
    run(&mut session, "DROP TABLE t").await;
    assert_eq!(
        session.take_notices(),
        ["topic \"t\" keeps its records: WITH TOPIC deletes it too"]
    );
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    assert_eq!(session.take_notices(), ["topic \"t\" was there: \"t\" reads its 2 records"]);
    run(&mut session, "DROP TABLE t WITH TOPIC").await;
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    assert_eq!(session.take_notices(), Vec::<String>::new());
    script(&mut session, &[("SELECT id FROM t", "SELECT 0: ")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_read_for_update_are_checked() {
    let server = Server::start();
    let (mut one, mut other) = (server.session(), server.session());
    run(&mut one, "CREATE TABLE stock (item text PRIMARY KEY, n int)").await;
    run(&mut one, "CREATE TABLE orders (id int PRIMARY KEY, item text)").await;
    run(&mut one, "CREATE MATERIALIZED VIEW total AS SELECT sum(n) AS n FROM stock").await;
    run(&mut one, "INSERT INTO stock VALUES ('pen', 1), ('ink', 5)").await;
    let read = "SELECT n AS left_over FROM stock s JOIN (SELECT 1 AS x) o ON true WHERE item = 'pen' ORDER BY left_over LIMIT 1";
    for (clause, changed, outcome) in [
        ("FOR UPDATE", "pen", "40001"),
        ("FOR UPDATE OF s SKIP LOCKED", "pen", "40001"),
        ("FOR SHARE", "pen", "40001"),
        ("FOR UPDATE", "ink", "COMMIT"),
        ("", "pen", "COMMIT"),
    ] {
        run(&mut one, "BEGIN").await;
        run(&mut one, &format!("{read} {clause}")).await;
        let sold = format!("UPDATE stock SET n = n - 1 WHERE item = '{changed}'");
        run(&mut other, &sold).await;
        run(&mut one, "INSERT INTO orders VALUES (1, 'pen')").await;
        let ended = match try_run(&mut one, "COMMIT").await {
            Ok(tag) => tag,
            Err(error) => error.sqlstate.to_string(),
        };
        assert_eq!(ended, outcome, "{clause} {changed}");
    }
    // What has written nothing has nothing to check.
    run(&mut one, "BEGIN").await;
    run(&mut one, "SELECT * FROM stock FOR UPDATE").await;
    run(&mut other, "UPDATE stock SET n = 0").await;
    assert_eq!(run(&mut one, "COMMIT").await, "COMMIT");
    for (refused, why) in [
        ("SELECT item FROM stock GROUP BY item FOR UPDATE", "0A000"),
        ("SELECT DISTINCT item FROM stock FOR UPDATE", "0A000"),
        ("SELECT item FROM stock UNION SELECT item FROM orders FOR UPDATE", "0A000"),
        ("SELECT * FROM total FOR UPDATE", "42809"),
        ("SELECT * FROM stock FOR UPDATE OF orders", "42P01"),
    ] {
        run(&mut one, "BEGIN").await;
        assert_eq!(refusal(&mut one, refused).await, why, "{refused}");
        run(&mut one, "ROLLBACK").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oids_are_written_as_names() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, "CREATE TABLE t (id bigint PRIMARY KEY, \"N\" int)").await;
    run(&mut session, "CREATE TABLE shop.\"Orders\" (id bigint PRIMARY KEY)").await;
    script(
        &mut session,
        &[
            ("SELECT 't'::regclass", "SELECT 1: t"),
            ("SELECT 'public.t'::regclass AS r, '\"t\"'::regclass::text", "SELECT 1: t|t"),
            ("SELECT 'shop.\"Orders\"'::regclass", "SELECT 1: shop.\"Orders\""),
            ("SELECT 'pg_class'::regclass::oid, CAST('pg_namespace' AS regclass)", "SELECT 1: 1259|pg_namespace"),
            ("SELECT attrelid::regclass, attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum", "SELECT 2: t|id t|N"),
            ("SELECT relname FROM pg_class WHERE oid = '\"t\"'::regclass", "SELECT 1: t"),
            ("SELECT to_regclass('t'), to_regclass('nosuch') IS NULL", "SELECT 1: t|true"),
            ("SELECT 'public'::regnamespace, 'public'::regnamespace::oid", "SELECT 1: public|2200"),
        ],
    )
    .await;
    assert_eq!(refusal(&mut session, "SELECT 'nosuch'::regclass").await, "42P01");
    assert_eq!(refusal(&mut session, "SELECT 'nosuch'::regnamespace").await, "3F000");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_come_and_go() {
    let server = Server::start();
    let mut session = server.session();
    script(
        &mut session,
        &[
            ("CREATE SCHEMA IF NOT EXISTS a", "CREATE SCHEMA"),
            ("CREATE SCHEMA IF NOT EXISTS a", "CREATE SCHEMA"),
            (
                "SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'a'",
                "SELECT 1: a",
            ),
            ("SELECT nspname FROM pg_namespace WHERE nspname = 'a'", "SELECT 1: a"),
            ("CREATE TABLE a.t (id int PRIMARY KEY)", "CREATE TABLE"),
        ],
    )
    .await;
    assert_eq!(refusal(&mut session, "CREATE SCHEMA a").await, "42P06");
    assert_eq!(refusal(&mut session, "CREATE SCHEMA public").await, "42P06");
    assert_eq!(refusal(&mut session, "CREATE SCHEMA pg_a").await, "42939");
    assert_eq!(refusal(&mut session, "DROP SCHEMA a").await, "2BP01");
    assert_eq!(refusal(&mut session, "DROP SCHEMA a CASCADE").await, "2BP01");
    assert_eq!(refusal(&mut session, "DROP SCHEMA b").await, "3F000");
    script(
        &mut session,
        &[
            ("DROP TABLE a.t", "DROP TABLE"),
            ("DROP SCHEMA a, a", "DROP SCHEMA"),
            ("DROP SCHEMA IF EXISTS a", "DROP SCHEMA"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_left_out_have_their_defaults() {
    let server = Server::start();
    let mut session = server.session();
    let create = "CREATE TABLE t (id int PRIMARY KEY, n numeric(8,2) NOT NULL DEFAULT 1.5, s text \
                  DEFAULT 'it''s' || '!', at timestamptz DEFAULT now(), u uuid DEFAULT \
                  gen_random_uuid(), tags text[] DEFAULT '{a,b}', x int)";
    script(
        &mut session,
        &[
            (create, "CREATE TABLE"),
            ("INSERT INTO t (id) VALUES (1), (2)", "INSERT 0 2"),
            ("INSERT INTO t VALUES (3, DEFAULT, NULL), (4, 2, DEFAULT)", "INSERT 0 2"),
            ("INSERT INTO t (x, id) SELECT i, i FROM generate_series(5, 6) AS g(i)", "INSERT 0 2"),
            ("INSERT INTO t SELECT 7, 3.25", "INSERT 0 1"),
            (
                "SELECT id, n, s, tags, x FROM t ORDER BY id",
                "SELECT 7: 1|1.50|it's!|[a, b]| 2|1.50|it's!|[a, b]| 3|1.50||[a, b]| \
                 4|2.00|it's!|[a, b]| 5|1.50|it's!|[a, b]|5 6|1.50|it's!|[a, b]|6 \
                 7|3.25|it's!|[a, b]|",
            ),
            // Each row has its own.
            ("SELECT count(DISTINCT u), count(at), min(at) <= now() FROM t", "SELECT 1: 7|7|true"),
            ("UPDATE t SET n = DEFAULT, s = DEFAULT, x = DEFAULT WHERE id = 6", "UPDATE 1"),
            (
                "INSERT INTO t (id) VALUES (4) ON CONFLICT (id) DO UPDATE SET n = DEFAULT",
                "INSERT 0 1",
            ),
            (
                "SELECT id, n, s, x FROM t WHERE id IN (4, 6) ORDER BY id",
                "SELECT 2: 4|1.50|it's!| 6|1.50|it's!|",
            ),
            ("CREATE STREAM facts (kind text DEFAULT 'none', n int)", "CREATE STREAM"),
            ("INSERT INTO facts DEFAULT VALUES", "INSERT 0 1"),
            ("SELECT kind, n FROM facts", "SELECT 1: none|"),
            (
                "SELECT column_name, column_default FROM information_schema.columns WHERE \
                 table_name = 't' AND column_default IS NOT NULL ORDER BY ordinal_position LIMIT 3",
                "SELECT 3: n|1.5 s|'it''s' || '!' at|now()",
            ),
        ],
    )
    .await;
    for (refused, why) in [
        ("CREATE TABLE w (id int PRIMARY KEY, n int DEFAULT id)", "0A000"),
        ("CREATE TABLE w (id int PRIMARY KEY, n int DEFAULT id + 1)", "42703"),
        ("CREATE TABLE w (id int PRIMARY KEY, n int DEFAULT (SELECT 1))", "0A000"),
        ("CREATE TABLE w (id int PRIMARY KEY, n int DEFAULT count(*))", "0A000"),
        ("CREATE TABLE w (id int PRIMARY KEY, n int DEFAULT 'one')", "22P02"),
        ("CREATE TABLE w (id int PRIMARY KEY, n int DEFAULT nothing())", "42883"),
        ("INSERT INTO t (n) VALUES (1)", "23502"),
        ("INSERT INTO t (id, n) VALUES (8)", "42601"),
        ("INSERT INTO t (id, n) VALUES (8, NULL)", "23502"),
    ] {
        assert_eq!(refusal(&mut session, refused).await, why, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_json_by_their_tables_names_only() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, "CREATE TABLE t (id bigint PRIMARY KEY, s text)").await;
    run(&mut session, "CREATE TABLE u (t bigint PRIMARY KEY)").await;
    run(&mut session, "INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (2)").await;
    script(
        &mut session,
        &[
            ("SELECT row_to_json(x) FROM t AS x", r#"SELECT 1: {"id":1,"s":"a"}"#),
            ("SELECT row_to_json(x) FROM t AS x(a, b)", r#"SELECT 1: {"a":1,"b":"a"}"#),
            // A column of the name is meant first.
            ("SELECT to_json(t) FROM t, u", "SELECT 1: 2"),
            ("SELECT to_json(t.*) FROM t, u", r#"SELECT 1: {"id":1,"s":"a"}"#),
        ],
    )
    .await;
    assert_eq!(refusal(&mut session, "SELECT row_to_json(t) FROM t AS x").await, "42703");
    assert_eq!(refusal(&mut session, "SELECT row_to_json(s) FROM t").await, "42883");
    assert_eq!(refusal(&mut session, "SELECT t FROM t").await, "42703");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_s_catalogs_are_there() {
    let server = Server::start();
    let mut session = server.session();
    run(&mut session, "CREATE TABLE t (id bigint PRIMARY KEY, s text)").await;
    run(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT id FROM t").await;
    script(
        &mut session,
        &[
            ("SELECT table_name, is_updatable FROM information_schema.views WHERE table_schema = 'public'", "SELECT 1: v|NO"),
            ("SELECT table_name, privilege_type FROM information_schema.table_privileges WHERE table_schema = 'public' ORDER BY 1, 2", "SELECT 5: t|DELETE t|INSERT t|SELECT t|UPDATE v|SELECT"),
            ("SELECT column_name, numeric_precision_radix, is_identity, dtd_identifier FROM information_schema.columns WHERE table_name = 't'", "SELECT 2: id|2|NO|1 s||NO|2"),
            ("SELECT column_name FROM information_schema.constraint_column_usage WHERE constraint_name = 't_pkey'", "SELECT 1: id"),
            ("SELECT count(*) FROM information_schema.routines", "SELECT 1: 0"),
            ("SELECT count(*) FROM information_schema.sequences", "SELECT 1: 0"),
            ("SELECT word, catcode FROM pg_catalog.pg_get_keywords() WHERE word IN ('between', 'select') ORDER BY 1", "SELECT 2: between|C select|R"),
            ("SELECT is_dst FROM pg_timezone_names WHERE name = 'UTC'", "SELECT 1: false"),
            ("SELECT count(*) FROM pg_locks", "SELECT 1: 0"),
            ("SELECT pg_get_indexdef('t_pkey'::regclass, 1, false), pg_get_indexdef('t_pkey'::regclass, 2, false) = ''", "SELECT 1: id|true"),
        ],
    )
    .await;
    let plan = run(&mut session, "EXPLAIN ANALYZE SELECT * FROM t").await;
    assert!(plan.contains("Actual Rows: 0") && plan.contains("Execution Time: "), "{plan}");
    let plan = run(&mut session, "EXPLAIN (ANALYZE, FORMAT JSON) SELECT 1").await;
    assert!(plan.contains("\"Actual Rows\": 1"), "{plan}");
    assert_eq!(refusal(&mut session, "EXPLAIN ANALYZE v").await, "0A000");
}

#[tokio::test(flavor = "multi_thread")]
async fn recursive_terms_have_one_type() {
    let server = Server::start();
    let mut session = server.session();
    let with = |first: &str, next: &str| {
        format!(
            "WITH RECURSIVE r(n, x) AS (SELECT 1, {first} UNION ALL SELECT n + 1, {next} FROM r \
             WHERE n < 3) SELECT x FROM r ORDER BY n"
        )
    };
    for (first, next) in
        [("100.0", "x * 1.005"), ("1", "x / 2.0"), ("1::numeric(8,2)", "x * 2.5::float8")]
    {
        assert_eq!(refusal(&mut session, &with(first, next)).await, "42804", "{first} {next}");
    }
    for (first, next, shown) in [
        ("100.0::numeric(20,4)", "(x * 1.005)::numeric(20,4)", "100.0000 100.5000 101.0025"),
        ("100.0", "(x * 1.005)::numeric(4,1)", "100.0 100.5 101.0"),
        ("1.5", "x + 1", "1.5 2.5 3.5"),
        ("1::int", "x + n", "1 2 4"),
        ("1.5::float8", "x * 1.5", "1.5 2.25 3.375"),
    ] {
        assert_eq!(run(&mut session, &with(first, next)).await, format!("SELECT 3: {shown}"));
    }
}
