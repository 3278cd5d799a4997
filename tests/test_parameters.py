"""Parameters as drivers send them: with a type of their own choosing, or with none."""

import asyncio
import uuid
from decimal import Decimal

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


def test_numeric_parameters_keep_their_digits(server):
    with server.connect() as session:
        session.execute("CREATE TABLE big (id INT PRIMARY KEY, n NUMERIC(38,20), m NUMERIC(38,2))")
        for binary in (False, True):
            with session.cursor(binary=binary) as cursor:
                exact = Decimal("1.12345678901234567890")
                cursor.execute("INSERT INTO big (id, n) VALUES (2, %s)", (exact,))
                assert cursor.execute("SELECT n FROM big WHERE n = %s", (exact,)).fetchone() == (exact,)
                cursor.execute("UPDATE big SET n = n + %s", (Decimal("1e-20"),))
                assert cursor.execute("SELECT n FROM big").fetchone() == (exact + Decimal("1e-20"),)
                large = Decimal("123456789012345678901234567890.25")
                cursor.execute("INSERT INTO big (id, m) VALUES (3, %s)", (large,))
                assert cursor.execute("SELECT id FROM big WHERE m = %s", (large,)).fetchone() == (3,)
                for value in ("1.23", "1.20", "0.00000000000123", "-7", "0"):
                    [(told,)] = cursor.execute("SELECT %s", (Decimal(value),)).fetchall()
                    assert str(told) == str(Decimal(value))
                for refused in ("1e39", "1e-40"):
                    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
                        cursor.execute("INSERT INTO big (id, n) VALUES (4, %s)", (Decimal(refused),))
                session.execute("DELETE FROM big")


def test_signs_stand_beside_operators(server):
    [row] = server.query("SELECT 3>-1, 3<>-1, 3>=-1, -1<+1, 2*-3, '[1,2]'::jsonb->-1, 5<-5")
    assert row == (True, True, True, True, -6, 2, False)
    server.query("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    server.query("CREATE MATERIALIZED VIEW w AS SELECT id FROM t WHERE v>-5")
    server.query("INSERT INTO t VALUES (1, -4), (2, -6)")
    assert server.query("SELECT id FROM w") == [(1,)]
    server.query("DELETE FROM t WHERE v<-5")
    assert server.query("SELECT id FROM t") == [(1,)]


ONE, OTHER = uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), uuid.UUID(int=7)


def test_lists_with_null_are_unknown_where_nothing_is_found(connection):
    connection.execute("CREATE MATERIALIZED VIEW v AS SELECT id, array_agg(s) AS names FROM t GROUP BY id")
    one = lambda sql, *values: connection.execute(sql, values).fetchone()[0]  # noqa: E731
    assert one("SELECT 1 = ANY(%s)", [2, None]) is None
    assert one("SELECT 2 = ANY(%s)", [2, None]) is True
    assert one("SELECT 1 = ANY(%s)", [2, 3]) is False
    assert one("SELECT 1 <> ALL(%s)", [2, None]) is None
    assert one("SELECT count(*) FROM t WHERE NOT id = ANY(%s)", [1, None]) == 0
    assert one("SELECT count(*) FROM t WHERE id = ANY(%s)", [1, None]) == 1
    assert one("SELECT id FROM v WHERE %s = ANY(names)", "b") == 2
    assert one("SELECT id FROM v WHERE names && %s AND names @> %s", ["c", "x"], ["c"]) == 3


@pytest.mark.parametrize("mark", ["%s", "%t", "%b"], ids=["unsaid", "text", "binary"])
def test_uuids(connection, mark):
    connection.execute("CREATE TABLE things (id UUID PRIMARY KEY, other UUID, n INT)")
    connection.execute(f"INSERT INTO things VALUES ({mark}, {mark}, 1)", (ONE, OTHER))
    connection.execute(f"INSERT INTO things (n, id) SELECT 2, {mark}::uuid", (OTHER,))
    ns = lambda sql, *values: [r[0] for r in connection.execute(sql.replace("%", mark), values)]  # noqa: E731
    assert ns("SELECT n FROM things WHERE id = %", ONE) == [1]
    assert ns("SELECT n FROM things WHERE id IN (%, %) ORDER BY n", ONE, OTHER) == [1, 2]
    assert ns("SELECT n FROM things WHERE id = ANY(%) ORDER BY n", [ONE, OTHER]) == [1, 2]
    assert ns("UPDATE things SET other = % WHERE id = % RETURNING other", ONE, OTHER) == [ONE]
    if mark == "%s":
        assert ns("SELECT n FROM things WHERE id = %", str(ONE).upper()) == [1]
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute("SELECT n FROM things WHERE id = %s", ("x",))


def test_uuids_and_lists_of_a_described_type(server, connection):
    connection.execute("CREATE TABLE things (id UUID PRIMARY KEY, ns INT[], big BIGINT[])")

    async def ask():
        client = await asyncpg.connect(f"postgresql://evert@{server.sql}/evert")
        try:
            insert = "INSERT INTO things VALUES ($1, $2, $3)"
            await client.execute(insert, ONE, [1, None], [2**40])
            await client.execute(insert, OTHER, [], None)
            found = await client.fetch("SELECT * FROM things WHERE id = $1 AND ns[1] = ANY($2)", ONE, [1, 5])
            both = await client.fetchval("SELECT count(*) FROM things WHERE id = ANY($1)", [ONE, OTHER])
            cast = await client.fetchval("SELECT $1::uuid", OTHER)
            wide = await client.fetchval("SELECT $1::int8[] || $2::int4", [1, None], 3)
            return [tuple(row) for row in found], both, cast, wide
        finally:
            await client.close()

    assert asyncio.run(ask()) == ([(ONE, [1, None], [2**40])], 2, OTHER, [1, None, 3])


def test_counts_of_rows_may_be_cast(connection):
    page = "SELECT id FROM t ORDER BY id LIMIT %s::INTEGER OFFSET %s::INTEGER"
    assert connection.execute(page, (2, 1)).fetchall() == [(2,), (3,)]
    assert connection.execute("SELECT id FROM t ORDER BY id LIMIT (1)::bigint").fetchall() == [(1,)]


def test_a_cast_to_text_is_a_text(connection):
    connection.execute("CREATE TABLE j (id INT PRIMARY KEY, doc JSONB, u UUID)")
    connection.execute("INSERT INTO j VALUES (1, '{\"a\": 1}', '6ecd8c99-4036-403d-bf84-cf8400f67836')")
    connection.execute("CREATE MATERIALIZED VIEW texts AS SELECT id, doc::text AS doc, u::text AS u FROM j")
    for query in ("SELECT doc::text, u::text FROM j", "SELECT doc, u FROM texts"):
        assert connection.execute(query).fetchone() == ('{"a": 1}', "6ecd8c99-4036-403d-bf84-cf8400f67836")
