"""Columns that are added, and defaults: what is there is read again, views go on, restarts change nothing."""

import json

import psycopg
import pytest
from confluent_kafka import Producer
from psycopg import errors


def produce(server, topic, records):
    producer = Producer({"bootstrap.servers": server.kafka})
    for key, value in records:
        producer.produce(topic, value=json.dumps(value).encode(), key=key)
    assert producer.flush(20) == 0


def test_columns_are_read_of_records_that_were_there(new_server):
    server = new_server().start()
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text) WITH (topic = 't')")
        connection.execute("CREATE STREAM s (id bigint) WITH (topic = 's')")
        connection.execute("CREATE MATERIALIZED VIEW everything AS SELECT * FROM t")
        connection.execute("CREATE MATERIALIZED VIEW names AS SELECT name, count(*) AS n FROM t GROUP BY name")
        connection.execute("CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n, sum(id) AS ids FROM s")
        connection.execute("INSERT INTO t VALUES (1, 'a')")
        produce(server, "t", [(b"2", {"id": 2, "name": "b", "city": "Pune"})])
        produce(server, "s", [(None, {"id": 7, "kind": "x"}), (None, {"id": 8})])
        connection.execute("WAIT FOR POSITION 't/0@1'")
        assert connection.execute("ALTER TABLE t ADD COLUMN city text, ADD n int").statusmessage == "ALTER TABLE"
        assert connection.execute("ALTER STREAM s ADD kind text").statusmessage == "ALTER STREAM"
        rows = [(1, "a", None, None), (2, "b", "Pune", None)]
        assert connection.execute("SELECT * FROM t ORDER BY id").fetchall() == rows
        assert connection.execute("SELECT id, kind FROM s ORDER BY id").fetchall() == [(7, "x"), (8, None)]
        connection.execute("INSERT INTO t VALUES (3, 'b', 'Goa', 5)")
        connection.execute("UPDATE t SET n = 9 WHERE id = 2")
        connection.execute("INSERT INTO s VALUES (9, 'y')")
        # A view over the new column, beside those that do not know it.
        connection.execute("CREATE MATERIALIZED VIEW cities AS SELECT city, sum(n) AS n FROM t GROUP BY city")

    def check():
        assert server.query("SELECT * FROM t ORDER BY id") == [
            (1, "a", None, None),
            (2, "b", "Pune", 9),
            (3, "b", "Goa", 5),
        ]
        assert server.query("SELECT * FROM everything ORDER BY id") == [(1, "a"), (2, "b"), (3, "b")]
        assert server.query("SELECT * FROM names ORDER BY name") == [("a", 1), ("b", 2)]
        assert server.query("SELECT * FROM seen") == [(3, 24)]
        assert server.query("SELECT * FROM cities WHERE n > 0 ORDER BY city") == [("Goa", 5), ("Pune", 9)]
        for view in ("everything", "names", "seen", "cities"):
            server.verify(view)

    check()
    server.restart()
    check()
    server.kill9()
    server.start()
    check()
    with server.connect() as connection:
        connection.execute("REBUILD VIEW everything")
        # Replaced, it means what its SELECT means now.
        connection.execute("CREATE OR REPLACE MATERIALIZED VIEW everything AS SELECT * FROM t")
        assert connection.execute("SELECT * FROM everything ORDER BY id").fetchone() == (1, "a", None, None)


def test_what_cannot_be_added_changes_nothing(server):
    with server.connect() as connection:
        connection.execute("CREATE TABLE t (id bigint PRIMARY KEY) WITH (topic = 't')")
        connection.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t")
        produce(server, "t", [(b"1", {"id": 1, "n": "many"})])
        connection.execute("WAIT FOR POSITION 't/0@0'")
        for statement, error in [
            ("ALTER TABLE t ADD COLUMN n int", errors.InvalidTableDefinition),
            ("ALTER TABLE t ADD COLUMN id text", errors.DuplicateColumn),
            ("ALTER TABLE t ADD COLUMN c text NOT NULL", errors.NotNullViolation),
            ("ALTER TABLE t ADD COLUMN c text DEFAULT 'x'", errors.FeatureNotSupported),
            ("ALTER TABLE t DROP COLUMN id", errors.FeatureNotSupported),
            ("ALTER TABLE t RENAME TO u", errors.FeatureNotSupported),
            ("ALTER STREAM t ADD c text", errors.WrongObjectType),
            ("ALTER TABLE v ADD c text", errors.WrongObjectType),
            ("ALTER TABLE nix ADD c text", errors.UndefinedTable),
        ]:
            with pytest.raises(error):
                connection.execute(statement)
        with pytest.raises(psycopg.Error, match="t/0@0"):
            connection.execute("ALTER TABLE t ADD COLUMN n int")
        connection.execute("ALTER TABLE IF EXISTS nix ADD c text")
        connection.execute("ALTER TABLE t ADD COLUMN IF NOT EXISTS id bigint")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1,)]
        connection.execute("ALTER TABLE t ADD COLUMN n text")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1, "many")]


def test_the_catalog_changes_at_once_or_not_at_all(server):
    with server.connect(autocommit=False) as connection:
        connection.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
        notices = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.rollback()
        assert any("stays" in notice for notice in notices), notices
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(errors.ActiveSqlTransaction):
            connection.execute("CREATE TABLE u (id bigint PRIMARY KEY)")
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_defaults_are_there_after_a_crash(new_server):
    server = new_server().start()
    server.query("CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int NOT NULL DEFAULT 3, at timestamptz DEFAULT now())")
    server.query("INSERT INTO t DEFAULT VALUES")
    server.kill9()
    server.start()
    server.query("INSERT INTO t (n) SELECT 4 FROM generate_series(1, 2)")
    server.query("ALTER TABLE t ADD COLUMN s text")
    server.query("INSERT INTO t (s) VALUES ('x')")
    rows = server.query("SELECT n, s, at <= now() FROM t ORDER BY n, s")
    assert rows == [(3, "x", True), (3, None, True), (4, None, True), (4, None, True)]
    assert server.query("SELECT count(DISTINCT id) FROM t") == [(4,)]
