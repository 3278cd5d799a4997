"""Numbers, UUIDs, JSON and bytes as drivers send them, read, compared and cast as in Postgres."""

import math
import uuid
from decimal import Decimal

import psycopg
import pytest


@pytest.fixture
def connection(server):
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE f (id INT PRIMARY KEY, f DOUBLE PRECISION, n NUMERIC(12,2), i INT)"
        )
        connection.execute("CREATE TABLE x (u UUID PRIMARY KEY, j JSON, y BYTEA)")
        yield connection


def test_each_value_of_an_insert_takes_its_columns_type(connection):
    connection.execute(
        "INSERT INTO f VALUES (1, 0.1, 2.5, 2.5), (2, 'NaN', '1e2', 3.5), (3, 1e-30, 1, -2.5),"
        " (4, 1e300, 0, '7'), (5, 1e15, -0.005, 0.5)"
    )
    rows = connection.execute("SELECT f, n, i FROM f ORDER BY id").fetchall()
    assert math.isnan(rows[1][0])
    assert [row[0] for row in rows if row[0] == row[0]] == [0.1, 1e-30, 1e300, 1e15]
    assert [row[1] for row in rows] == [Decimal(n) for n in ("2.5", "100", "1", "0", "-0.01")]
    assert [row[2] for row in rows] == [3, 4, -3, 7, 1]


def test_parameters_of_any_number_type_compare_as_numbers(connection):
    connection.execute("INSERT INTO f VALUES (1, 0.1, 0.1, 1), (2, 'Infinity', 2.5, 2)")
    ids = lambda sql, *values: [row[0] for row in connection.execute(sql, values)]  # noqa: E731
    assert ids("SELECT id FROM f WHERE f = %s", 0.1) == [1]
    assert ids("SELECT id FROM f WHERE f = %s", Decimal("0.1")) == [1]
    assert ids("SELECT id FROM f WHERE f > %s ORDER BY id", 0) == [1, 2]
    assert ids("SELECT id FROM f WHERE n = %s", 2.5) == [2]
    assert ids("SELECT id FROM f WHERE n = %s", Decimal("2.50")) == [2]
    assert ids("SELECT id FROM f WHERE id = %s::int", "2") == [2]
    assert ids("SELECT id FROM f WHERE id = %s::int", Decimal("1.5")) == [2]


def test_casts_of_parameters(connection):
    one = lambda sql, *values: connection.execute(sql, values).fetchone()[0]  # noqa: E731
    assert one("SELECT %s::int", 2.5) == 2
    assert one("SELECT %s::int", Decimal("2.5")) == 3
    assert one("SELECT %s::numeric", "12.50") == Decimal("12.5")
    assert one("SELECT %s::numeric / 3", 1) == pytest.approx(Decimal("0.33333333333333333333"))
    assert one("SELECT %s::json ->> 'a'", '{"a": "b"}') == "b"
    assert one("SELECT %s::varchar(2)", "abc") == "ab"
    for sql, value, sqlstate in [
        ("SELECT %s::json", "garbage", "22P02"),
        ("SELECT %s::uuid", "garbage", "22P02"),
        ("SELECT %s::int", "99999999999", "22003"),
        ("SELECT %s::int", "1.5", "22P02"),
        ("SELECT %s::float8", "1e400", "22003"),
        ("SELECT %s::real", "1e39", "22003"),
        ("SELECT %s::smallint", 1e6, "22003"),
        ("SELECT %s::bytea", "\\xzz", "22P02"),
    ]:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(sql, (value,))
        assert refused.value.sqlstate == sqlstate, sql


def test_uuids_and_bytes_have_one_form(connection):
    key = uuid.UUID("6ecd8c99-4036-403d-bf84-cf8400f67836")
    connection.execute("INSERT INTO x VALUES (%s, %s, %s)", (key, '{"a": 1}', b"\x00\xff"))
    for written in ["6ECD8C99-4036-403D-BF84-CF8400F67836", "{6ecd8c994036403dbf84cf8400f67836}"]:
        found = connection.execute(f"SELECT u FROM x WHERE u = '{written}'").fetchone()
        assert found is not None and found[0] == key
        found = connection.execute("SELECT u FROM x WHERE u = %s::uuid", (written,)).fetchone()
        assert found is not None and found[0] == key
    assert connection.execute("SELECT count(*) FROM x WHERE y = '\\x00ff'").fetchone()[0] == 1
    found = connection.execute("SELECT count(*) FROM x WHERE y = %s", (b"\x00\xff",)).fetchone()
    assert found is not None and found[0] == 1
    plan = connection.execute(f"EXPLAIN SELECT * FROM x WHERE u = '{key}'::uuid").fetchall()
    assert "Lookup" in str(plan)


def test_a_row_whose_cast_fails_is_an_error_of_its_own(connection):
    connection.execute("CREATE MATERIALIZED VIEW v AS SELECT id, f::int AS i FROM f")
    connection.execute("INSERT INTO f VALUES (1, 1.5, 1, 1), (2, 1e10, 1, 1), (3, 2.5, 1, 1)")
    assert connection.execute("SELECT * FROM v ORDER BY id").fetchall() == [(1, 2), (3, 2)]
    connection.execute("UPDATE f SET f = 3.5 WHERE id = 2")
    assert connection.execute("SELECT * FROM v ORDER BY id").fetchall() == [(1, 2), (2, 4), (3, 2)]
    assert connection.execute("SELECT count(*) FROM evert.errors").fetchone()[0] == 0


def test_what_is_not_a_number_is_a_key(connection):
    connection.execute("CREATE TABLE k (f DOUBLE PRECISION PRIMARY KEY, v INT)")
    connection.execute("INSERT INTO k VALUES ('NaN', 1), ('Infinity', 2), (0.5, 3), ('NaN', 4)")
    rows = connection.execute("SELECT f, v FROM k ORDER BY f").fetchall()
    assert [row[1] for row in rows] == [3, 2, 4]
