"""Facts in from a real Postgres: tables stay equal to their originals, whatever happens to them."""

import os
import random
import signal
import threading
import time

import psycopg
import pytest
from psycopg.types.string import TextLoader

from evert_server import wait_until
from postgres_server import Postgres

COLUMNS = {
    "id": "integer",
    "flag": "boolean",
    "small": "smallint",
    "big": "bigint",
    "real4": "real",
    "real8": "double precision",
    "price": "numeric(12,4)",
    "name": "text",
    "code": "varchar(20)",
    "day": "date",
    "at": "timestamp",
    "zoned": "timestamptz",
    "uid": "uuid",
    "doc": "jsonb",
    "raw": "bytea",
    "tags": "text[]",
    "numbers": "integer[]",
    "prices": "numeric(8,2)[]",
    "moments": "timestamptz[]",
    "raws": "bytea[]",
    "uids": "uuid[]",
    "span": "interval",
}
ROWS = [
    "(1, true, -32768, -9223372036854775808, 1.5, -0.1, 12345678.9012, 'plain', 'abc', '2026-02-28',"
    " '2026-02-28 23:59:59.999999', '2026-02-28 23:59:59.000001+05:30',"
    " '6ecd8c99-4036-403d-bf84-cf8400f67836', '{\"a\": [1, null, \"x\"]}', '\\x00ff10',"
    " ARRAY['a', NULL, '', 'b \"c\", {d} \\ NULL', 'NULL'], ARRAY[1, -2, NULL], ARRAY[1.5, NULL],"
    " ARRAY['2026-01-01 00:00:00.5Z', '0044-03-15 00:00:00Z BC']::timestamptz[], ARRAY['\\x00ff', '']::bytea[],"
    " ARRAY['6ecd8c99-4036-403d-bf84-cf8400f67836']::uuid[], '1 day 02:00')",
    "(2, false, 32767, 9223372036854775807, 'NaN', 'Infinity', -0.0001, '', '', 'infinity',"
    " 'infinity', '-infinity', '00000000-0000-0000-0000-000000000000', 'null', '',"
    " '{}', '{}', '{}', '{}', '{}', '{}', '-3 mons')",
    "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,"
    " NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "(4, true, 0, 0, '-Infinity', '1e300', 0, E'quo\"te \\\\ tab\\t nl\\n é 李', 'x''y', '0044-03-15 BC',"
    " '1969-12-31 23:59:59.5', '1900-01-01 00:00:00Z', 'ffffffff-ffff-ffff-ffff-ffffffffffff',"
    " '\"text\"', '\\xdeadbeef',"
    " '{NULL}', '{NULL}', '{NULL}', '{infinity}', '{NULL}', '{NULL}', '0')",
]
# What is no ordinary type arrives as Postgres's text.
TAKEN_AS = {"span": "text", "uids": "text[]"}


def create_source(server, postgres: Postgres, *tables: str, name: str = "shop") -> None:
    listed = ", ".join(f"public.{table}" for table in tables)
    server.query(f"CREATE SOURCE {name} FROM POSTGRES '{postgres.url}' (PUBLICATION '{name}', TABLES ({listed}))")


def catch_up(server, postgres: Postgres, name: str = "shop", seconds: int = 60) -> None:
    """Returns when everything that Postgres has committed is visible in Evert."""
    server.query(f"WAIT FOR POSITION '{name}:{postgres.wal_position()}' TIMEOUT '{seconds}s'")


def in_words(connection: psycopg.Connection) -> psycopg.Connection:
    """Dates and times as the server writes them: Python's have neither infinity nor years before 1."""
    for name in ("date", "timestamp", "timestamptz"):
        connection.adapters.register_loader(name, TextLoader)
    return connection


def check_equal(server, postgres: Postgres, query: str) -> None:
    ours = server.query(query.format("shop."))
    theirs = postgres.query(query.format(""))
    assert sorted(ours, key=repr) == sorted(theirs, key=repr)


def test_every_ordinary_type(server, postgres):
    columns = ", ".join(f"{name} {type}" for name, type in COLUMNS.items())
    postgres.execute(f"CREATE TABLE kinds ({columns}, PRIMARY KEY (id))")
    # Half comes by the initial copy, half by the stream: both ways in must agree.
    for row in ROWS:
        postgres.execute(f"INSERT INTO kinds VALUES {row}")
    create_source(server, postgres, "kinds")
    catch_up(server, postgres)
    postgres.execute(f"INSERT INTO kinds SELECT id + 100, {', '.join(list(COLUMNS)[1:])} FROM kinds")
    catch_up(server, postgres)
    with in_words(server.connect()) as evert, in_words(postgres.connect()) as original:
        original.execute("SET timezone = 'UTC'")
        for name in COLUMNS:
            shown = f"{name}::{TAKEN_AS[name]}" if name in TAKEN_AS else name
            ours = evert.execute(f"SELECT id AS row, {name} FROM shop.kinds ORDER BY id").fetchall()
            theirs = original.execute(f"SELECT id AS row, {shown} FROM kinds ORDER BY id").fetchall()
            assert repr(ours) == repr(theirs), name


def test_changes_of_every_kind(server, postgres):
    postgres.execute(
        "CREATE TABLE items (id int PRIMARY KEY, name text, body text, n int)",
        # Stored out of line and not compressed, so that the WAL leaves it out when it is unchanged.
        "ALTER TABLE items ALTER COLUMN body SET STORAGE EXTERNAL",
        "CREATE TABLE bag (a int, b text)",
        "ALTER TABLE bag REPLICA IDENTITY FULL",
        "INSERT INTO items SELECT g, 'item ' || g, repeat(md5(g::text), 300), g % 7 FROM generate_series(1, 200) g",
        "INSERT INTO bag SELECT g % 5, 'same' FROM generate_series(1, 50) g",
    )
    create_source(server, postgres, "items", "bag")
    catch_up(server, postgres)
    server.query("CREATE MATERIALIZED VIEW by_n AS SELECT n, count(*) AS c, max(length(body)) AS l FROM shop.items GROUP BY n")
    steps = [
        "UPDATE items SET n = n + 1 WHERE id <= 100",  # the body is unchanged and not in the WAL
        "UPDATE items SET body = repeat('y', 9000) WHERE id = 7",
        "UPDATE items SET name = 'again' WHERE id = 7",
        "UPDATE items SET id = id + 1000 WHERE id BETWEEN 50 AND 60",  # the key changes, the body does not
        "DELETE FROM items WHERE id % 3 = 0",
        "UPDATE bag SET b = 'other' WHERE a = 1",
        "DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = 2 LIMIT 3)",
        "INSERT INTO bag VALUES (NULL, NULL), (NULL, NULL), (9, '')",
        "BEGIN; INSERT INTO items VALUES (5000, 'x', 'y', 1); DELETE FROM items WHERE id = 5000; COMMIT",
        "BEGIN; INSERT INTO items VALUES (5001, 'x', 'y', 1); ROLLBACK",
        "BEGIN; INSERT INTO items VALUES (5002, 'x', 'y', 1); UPDATE items SET n = 2 WHERE id = 5002; COMMIT",
        "INSERT INTO items VALUES (5002, 'x', 'y', 3) ON CONFLICT (id) DO UPDATE SET n = 9",
        "TRUNCATE bag",
        "INSERT INTO bag VALUES (1, 'after')",
        "BEGIN; TRUNCATE items; INSERT INTO items VALUES (1, 'only', 'one', 1); COMMIT",
    ]
    for step in steps:
        postgres.execute(step)
        catch_up(server, postgres)
        check_equal(server, postgres, "SELECT id, name, body, n FROM {}items")
        check_equal(server, postgres, "SELECT a, b FROM {}bag")
        expected = postgres.query("SELECT n, count(*), max(length(body)) FROM items GROUP BY n")
        assert sorted(server.query("SELECT n, c, l FROM by_n")) == sorted(expected), step
    server.restart()
    check_equal(server, postgres, "SELECT id, name, body, n FROM {}items")
    check_equal(server, postgres, "SELECT a, b FROM {}bag")


def test_arrays_of_arrays_are_told(server, postgres):
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, numbers int[])",
        "INSERT INTO t VALUES (1, '{1,2}'), (2, '{{1,2},{3,4}}')",
    )
    create_source(server, postgres, "t")
    postgres.execute("INSERT INTO t VALUES (3, '[0:1]={5,6}'), (4, '{7}')")
    catch_up(server, postgres)
    assert server.query("SELECT id, numbers FROM shop.t ORDER BY id") == [(1, [1, 2]), (4, [7])]
    reasons = [reason for (reason,) in server.query("SELECT reason FROM evert.errors")]
    assert len(reasons) == 2 and all("numbers" in reason for reason in reasons), reasons
    postgres.execute("UPDATE t SET numbers = '{8}' WHERE id > 1")
    catch_up(server, postgres)
    expected = [(1, [1, 2]), (2, [8]), (3, [8]), (4, [8])]
    assert server.query("SELECT id, numbers FROM shop.t ORDER BY id") == expected
    assert server.query("SELECT id FROM shop.t, unnest(numbers) AS n WHERE n = 2") == [(1,)]


def test_tables_whose_names_have_quotes(server, postgres):
    postgres.execute(
        'CREATE TABLE "MixedCase" (id int PRIMARY KEY, "userName" text)',
        'CREATE TABLE "odd ""näme""" (id int PRIMARY KEY)',
        """INSERT INTO "MixedCase" VALUES (1, 'Asha')""",
        'INSERT INTO "odd ""näme""" VALUES (2)',
    )
    tables = """public."MixedCase", public."odd ""näme\""" """
    server.query(f"CREATE SOURCE shop FROM POSTGRES '{postgres.url}' (PUBLICATION 'shop', TABLES ({tables}))")
    catch_up(server, postgres)
    assert server.query('SELECT id, "userName" FROM shop."MixedCase"') == [(1, "Asha")]
    assert server.query('SELECT id FROM shop."odd ""näme"""') == [(2,)]


def test_rows_that_come_and_are_truncated_at_once_are_nowhere(server, postgres):
    postgres.execute(
        "CREATE TABLE keyed (id int PRIMARY KEY, v text)",
        "CREATE TABLE bag (v text)",
        "ALTER TABLE bag REPLICA IDENTITY FULL",
        "INSERT INTO keyed VALUES (1, 'one')",
        "INSERT INTO bag VALUES ('one')",
    )
    create_source(server, postgres, "keyed", "bag")
    for relation in ("keyed", "bag"):
        server.query(f"CREATE SEARCH INDEX {relation}_search ON shop.{relation} (v)")
    server.query(f"CREATE SINK copied ON shop.keyed INTO POSTGRES '{postgres.url}' TABLE copied WITH (create = 'on')")
    catch_up(server, postgres)
    is_live = "SELECT state = 'live' FROM evert.views WHERE name = 'copied'"
    wait_until(lambda: server.query(is_live) == [(True,)], 30, "the sink has made its table")
    wait_until(lambda: postgres.query("SELECT * FROM copied") == [(1, "one")], 30, "the sink has the row")
    [(before,)] = server.query("SHOW POSITION")
    with postgres.connect() as connection, connection.transaction():
        for statement in (
            "UPDATE keyed SET v = 'two'",
            "INSERT INTO keyed VALUES (2, 'two')",
            "INSERT INTO bag VALUES ('two')",
            "TRUNCATE keyed, bag",
            "INSERT INTO keyed VALUES (3, 'three')",
            "INSERT INTO bag VALUES ('three')",
            "TRUNCATE bag",
            "INSERT INTO bag VALUES ('four')",
        ):
            connection.execute(statement)
    catch_up(server, postgres)
    [(end,)] = server.query("SHOW POSITION")
    assert server.query("SELECT * FROM shop.keyed") == [(3, "three")]
    assert server.query("SELECT * FROM shop.bag") == [("four",)]
    for relation, rows in (("keyed", ["three"]), ("bag", ["four"])):
        query = f"SELECT v FROM search('{relation}_search', '*')"
        wait_until(lambda: [v for (v,) in server.query(query)] == rows, 30, f"{relation} is searched as it is")
        server.verify(f"{relation}_search")
    wait_until(lambda: postgres.query("SELECT * FROM copied") == [(3, "three")], 30, "the sink has what is there")
    server.verify("copied")
    # By key, each change is told once, and what is retracted comes first.
    with server.connect() as connection, connection.cursor() as cursor:
        with cursor.copy(
            f"COPY (SUBSCRIBE shop.keyed AS OF POSITION {before} UP TO POSITION {end}) TO STDOUT"
        ) as copy:
            told = [row[1:] for row in copy.rows()]
    assert sorted(told) == [("-1", "1", "one"), ("1", "3", "three")]


def test_a_column_that_is_added_is_said_not_to_be_taken(server, postgres):
    postgres.execute("CREATE TABLE orders (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)")
    create_source(server, postgres, "orders")
    catch_up(server, postgres)

    def shown() -> tuple:
        return server.query("SELECT state, detail FROM evert.sources")[0]

    wait_until(lambda: shown() == ("running", None), 20, "it runs")
    postgres.execute("ALTER TABLE orders ADD COLUMN extra text", "INSERT INTO orders VALUES (1, 2, DEFAULT, 'x')")
    told = "column extra of public.orders is not taken: drop the source and create it again to have it"
    wait_until(lambda: shown() == ("running", told), 20, "the column is named")
    server.restart()
    wait_until(lambda: shown() == ("running", told), 20, "it is named after a restart")
    catch_up(server, postgres)
    assert server.query("SELECT * FROM shop.orders") == [(1, 2)]
    postgres.execute("ALTER TABLE orders DROP COLUMN extra")
    wait_until(lambda: shown() == ("running", None), 20, "there is nothing to tell any more")
    postgres.execute("ALTER TABLE orders ADD COLUMN extra text")
    server.query("DROP SOURCE shop")
    wait_until(lambda: not postgres.query("SELECT 1 FROM pg_replication_slots"), 20, "the slot is dropped")
    create_source(server, postgres, "orders")
    postgres.execute("INSERT INTO orders VALUES (2, 2, DEFAULT, 'y')")
    catch_up(server, postgres)
    assert sorted(server.query("SELECT id, extra FROM shop.orders")) == [(1, None), (2, "y")]
    assert shown() == ("running", None)


def test_refusals_say_what_to_do(server, postgres):
    postgres.execute("CREATE TABLE keyless (a int)")
    with pytest.raises(psycopg.Error) as refusal:
        create_source(server, postgres, "keyless")
    said = f"{refusal.value} {refusal.value.diag.message_hint}"
    assert "ALTER TABLE" in said and "REPLICA IDENTITY FULL" in said, said
    with pytest.raises(psycopg.Error, match="missing"):
        create_source(server, postgres, "missing")
    # Nothing is left behind on either side, so that the same name can be used at once.
    assert postgres.query("SELECT slot_name FROM pg_replication_slots") == []
    assert server.query("SELECT name FROM evert.sources") == []
    postgres.execute("ALTER TABLE keyless REPLICA IDENTITY FULL")
    create_source(server, postgres, "keyless")
    server.query("DROP SOURCE shop CASCADE")
    wait_until(lambda: not postgres.query("SELECT 1 FROM pg_replication_slots"), 20, "the slot is dropped")


def test_a_large_transaction_is_seen_whole(server, postgres):
    postgres.execute("CREATE TABLE facts (id int PRIMARY KEY, n int)")
    create_source(server, postgres, "facts")
    catch_up(server, postgres)
    server.query("CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM shop.facts")
    seen: set[int] = set()
    stop = threading.Event()

    def watch():
        with server.connect() as connection:
            while not stop.is_set():
                [(n,)] = connection.execute("SELECT n FROM counted").fetchall()
                [(m,)] = connection.execute("SELECT count(*) FROM shop.facts").fetchall()
                seen.update((n, m))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    postgres.execute("INSERT INTO facts SELECT g, g FROM generate_series(1, 100000) g")
    catch_up(server, postgres)
    postgres.execute("DELETE FROM facts WHERE id > 40000")
    catch_up(server, postgres)
    time.sleep(0.2)
    stop.set()
    watcher.join(timeout=30)
    assert seen == {0, 100000, 40000}


def test_an_idle_source_pins_no_wal(server, postgres):
    """Writes to tables that are not taken move the slot, too."""
    postgres.execute("CREATE TABLE taken (id int PRIMARY KEY)", "CREATE TABLE other (id int, body text)")
    create_source(server, postgres, "taken")
    catch_up(server, postgres)
    postgres.execute("INSERT INTO other SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g")
    lsn = postgres.wal_position()
    wait_until(
        lambda: postgres.query(f"SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots") == [(True,)],
        40,
        "the slot is confirmed past writes that are not of its tables",
    )
    catch_up(server, postgres, seconds=20)


@pytest.mark.timeout(300)
def test_equal_through_crashes_of_both(new_server, postgres):
    seed = int(os.environ.get("EVERT_SEED", time.time_ns() % 1_000_000))
    print(f"EVERT_SEED={seed}")
    rng = random.Random(seed)
    postgres.execute(
        "CREATE TABLE items (id int PRIMARY KEY, n int, body text)",
        "CREATE TABLE bag (id int, n int)",
        "ALTER TABLE bag REPLICA IDENTITY FULL",
        "INSERT INTO items SELECT g, 0, md5(g::text) FROM generate_series(1, 20000) g",
    )
    server = new_server().start()
    create_source(server, postgres, "items", "bag")
    for round in range(10):
        stop = threading.Event()

        def write(stop, seed):
            inner = random.Random(seed)
            try:
                with postgres.connect(autocommit=False) as connection:
                    while not stop.is_set():
                        key = inner.randrange(1, 20000)
                        connection.execute("UPDATE items SET n = n + 1 WHERE id = %s", [key])
                        connection.execute("INSERT INTO bag VALUES (%s, %s)", [key, inner.randrange(10)])
                        if inner.random() < 0.1:
                            connection.execute("DELETE FROM bag WHERE id %% 100 = %s", [inner.randrange(100)])
                        connection.commit() if inner.random() < 0.9 else connection.rollback()
            except psycopg.OperationalError:
                pass  # Postgres was taken away; whether the last commit happened is in its tables.

        writer = threading.Thread(target=write, args=(stop, rng.random()), daemon=True)
        writer.start()
        time.sleep(rng.uniform(0.2, 1.5))
        victim = rng.choice(["evert", "postgres", "both"])
        if victim in ("evert", "both"):
            server.kill9()
        if victim in ("postgres", "both"):
            postgres.stop(signal.SIGQUIT)
            time.sleep(rng.uniform(0, 0.5))
            postgres.start()
        if victim in ("evert", "both"):
            server.start()
        time.sleep(0.2)
        stop.set()
        writer.join(timeout=30)
        catch_up(server, postgres)
        check_equal(server, postgres, "SELECT id, n, body FROM {}items")
        check_equal(server, postgres, "SELECT id, n FROM {}bag")
        print(f"round {round}: {victim} killed, equal")
    server.check_unharmed()
    server.terminate()
