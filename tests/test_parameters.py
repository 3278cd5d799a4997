"""Parameters as drivers send them: with a type of their own choosing, or with none."""

import asyncio

import asyncpg
import psycopg
import pytest


@pytest.fixture
def connection(server):
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id INT PRIMARY KEY, s TEXT, n NUMERIC(12,2))")
        connection.execute("INSERT INTO t VALUES (1, 'a', 1.5), (2, 'b', 2.5), (3, 'c', 3.5)")
        yield connection


def test_text_parameters_meet_literals(connection):
    one = lambda sql, *values: connection.execute(sql, values).fetchone()[0]  # noqa: E731
    assert one("SELECT %s || 'x'", "a") == "ax"
    assert one("SELECT 'x' || %s", "a") == "xa"
    assert one("SELECT %s || %s", "a", "b") == "ab"
    assert one("SELECT %s = 'a'", "a") is True
    assert one("SELECT 'abc' ~ %s", "^a") is True
    assert one("SELECT count(*) FROM t WHERE s || %s = 'ax'", "x") == 1


def test_pages(connection):
    def page(limit, offset):
        sql = "SELECT id FROM t ORDER BY id LIMIT %s OFFSET %s"
        return [row[0] for row in connection.execute(sql, (limit, offset))]

    assert page(1, 0) == [1]
    assert page(2, 1) == [2, 3]
    assert page(1000, 0) == [1, 2, 3]
    rows = connection.execute("SELECT x FROM generate_series(1, %s) AS g (x)", (3,)).fetchall()
    assert rows == [(1,), (2,), (3,)]


def test_lists(connection):
    ids = lambda sql, *values: [r[0] for r in connection.execute(sql, values)]  # noqa: E731
    assert ids("SELECT id FROM t WHERE s = ANY(%s) ORDER BY id", ["a", "c"]) == [1, 3]
    assert ids("SELECT id FROM t WHERE id = ANY(%s) ORDER BY id", [1, 2]) == [1, 2]
    assert ids("SELECT id FROM t WHERE NOT id = ANY(%s) ORDER BY id", [1, 2]) == [3]
    assert ids("SELECT id FROM t WHERE id = ANY(%s)", []) == []


def test_lists_of_a_described_type(server, connection):
    async def ask():
        client = await asyncpg.connect(f"postgresql://evert@{server.sql}/evert")
        try:
            found = await client.fetch("SELECT id FROM t WHERE s = ANY($1)", ["b"])
            page = await client.fetch("SELECT id FROM t ORDER BY id LIMIT $1 OFFSET $2", 1, 1)
            return [row["id"] for row in found], [row["id"] for row in page]
        finally:
            await client.close()

    assert asyncio.run(ask()) == ([2], [2])


def test_statements_that_are_too_deep(connection):
    for sql in ["SELECT " + "+".join(["1"] * 50_000), "SELECT " + "||".join(["'a'"] * 5_000)]:
        with pytest.raises(psycopg.errors.StatementTooComplex):
            connection.execute(sql)
    conditions = " OR ".join(f"id = {n}" for n in range(5_000))
    assert connection.execute(f"SELECT count(*) FROM t WHERE {conditions}").fetchone() == (3,)
    assert connection.execute("SELECT " + "+".join(["1"] * 300)).fetchone() == (300,)


def test_json_that_nests_too_deep_is_a_row_error(server, connection):
    connection.execute("CREATE TABLE o (id TEXT PRIMARY KEY, j JSON)")
    deep = "[" * 30_000 + "]" * 30_000
    try:
        connection.execute("INSERT INTO o VALUES ('deep', %s)", (deep,))
    except psycopg.Error as refused:
        assert refused.sqlstate.startswith(("22", "54"))
    connection.execute("INSERT INTO o VALUES ('well', '[1]')")
    assert connection.execute("SELECT id FROM o").fetchall() == [("well",)]


def test_internal_topics_hold_no_relation(connection):
    for topic in ["__evert_catalog", "__consumer_offsets"]:
        with pytest.raises(psycopg.Error, match="internal"):
            connection.execute(
                f"CREATE TABLE c (id TEXT PRIMARY KEY, v TEXT) WITH (topic = '{topic}')"
            )
