"""psycopg 3, unmodified: default transactions, parameters in both forms, cursors, errors."""

import datetime
import decimal
import json
import threading
import time
import uuid

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Json

# A value of every column type, at the edges where there are edges.
TYPES = {
    "boolean": [True, False],
    "smallint": [-32768, 32767],
    "integer": [-(2**31), 2**31 - 1],
    "bigint": [-(2**63), 2**63 - 1],
    "real": [1.5, -0.25],
    "double precision": [0.1, 1e300],
    "numeric(38,10)": [decimal.Decimal("-1234567890123456789012345678.0123456789"), decimal.Decimal(0)],
    "text": ["naïve 'quoted' \\ text", ""],
    "bytea": [b"\x00\xff\\'", b""],
    "date": [datetime.date(2024, 2, 29), datetime.date(1, 1, 1)],
    "timestamp": [datetime.datetime(2024, 2, 29, 13, 5, 6, 700_001), datetime.datetime(1969, 12, 31, 23, 59, 59)],
    "timestamptz": [datetime.datetime(2024, 2, 29, 13, 5, 6, tzinfo=datetime.timezone.utc)],
    "uuid": [uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")],
}


@pytest.fixture
def connection(server):
    with psycopg.connect(server.dsn) as connection:
        yield connection


def make_accounts(connection):
    connection.execute("CREATE TABLE accounts (id bigint PRIMARY KEY, owner text, balance numeric(12,2))")
    connection.commit()


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_every_type_comes_back_as_it_went(connection, binary):
    columns = ", ".join(f"c{index} {name}" for index, name in enumerate(TYPES))
    connection.execute(f"CREATE TABLE kinds (id integer PRIMARY KEY, {columns})")
    connection.commit()
    names = ", ".join(f"c{index}" for index in range(len(TYPES)))
    marks = ", ".join(["%b" if binary else "%t"] * (len(TYPES) + 1))
    rows = [[values[min(row, len(values) - 1)] for values in TYPES.values()] for row in range(2)]
    rows.append([None] * len(TYPES))
    for number, row in enumerate(rows):
        connection.execute(f"INSERT INTO kinds (id, {names}) VALUES ({marks})", [number, *row])
    connection.commit()
    found = connection.cursor(binary=binary).execute(f"SELECT {names} FROM kinds ORDER BY id").fetchall()
    for row, expected in zip(found, rows, strict=True):
        for value, sent, name in zip(row, expected, TYPES, strict=True):
            assert value == sent, name
            assert type(value) is type(sent), name


def test_json_arrives_as_json(connection):
    connection.execute("CREATE TABLE documents (id integer PRIMARY KEY, body json)")
    connection.execute("INSERT INTO documents VALUES (%s, %s)", [1, Json({"a": [1, None]})])
    connection.commit()
    assert connection.execute("SELECT body FROM documents").fetchone() == ({"a": [1, None]},)


def test_infinity_is_a_value(connection):
    connection.execute("CREATE TABLE ends (id integer PRIMARY KEY, t timestamp, d date)")
    connection.execute("INSERT INTO ends VALUES (1, %s, %s)", ["infinity", "-infinity"])
    connection.commit()
    # Python has no such dates, so this looks at what the server sent.
    result = connection.execute("SELECT t, d FROM ends").pgresult
    assert (result.get_value(0, 0), result.get_value(0, 1)) == (b"infinity", b"-infinity")
    [(count,)] = connection.execute("SELECT count(*) FROM ends WHERE t > %s::timestamp", ["9999-01-01"]).fetchall()
    assert count == 1


def test_a_list_is_an_array(connection):
    make_accounts(connection)
    for number in range(5):
        connection.execute("INSERT INTO accounts VALUES (%s, 'a', 1)", [number])
    found = connection.execute("SELECT id FROM accounts WHERE id = ANY(%s) ORDER BY id", [[3, 1, 99]]).fetchall()
    assert found == [(1,), (3,)]


def test_default_transactions_commit_and_roll_back(server, connection):
    make_accounts(connection)
    insert = "INSERT INTO accounts VALUES (%s, %s, %s)"
    connection.execute(insert, [1, "Riya", decimal.Decimal("10.50")])
    status = connection.info.transaction_status
    assert status == psycopg.pq.TransactionStatus.INTRANS
    assert connection.execute("SELECT balance FROM accounts").fetchone() == (decimal.Decimal("10.50"),)
    assert server.query("SELECT count(*) FROM accounts") == [(0,)], "not committed yet"
    connection.commit()
    assert server.query("SELECT owner FROM accounts") == [("Riya",)]
    connection.execute(insert, [2, "Ada", decimal.Decimal("1")])
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (1,)


def test_an_error_fails_the_transaction_until_its_end(connection):
    make_accounts(connection)
    with pytest.raises(errors.UndefinedTable) as missing:
        connection.execute("SELECT * FROM acounts")
    assert missing.value.diag.message_hint, "a similar name is at hand"
    with pytest.raises(errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_errors_of_parameters_fail_the_transaction_too(connection):
    make_accounts(connection)
    connection.execute("SELECT 1")
    with pytest.raises(errors.InvalidTextRepresentation):
        connection.execute("SELECT * FROM accounts WHERE id = %s", ["not a number"])
    with pytest.raises(errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()


def test_syntax_errors_have_a_place(connection):
    with pytest.raises(errors.SyntaxError) as broken:
        connection.execute("SELECT 1 FORM accounts WHERE")
    assert broken.value.diag.statement_position is not None


def test_client_cursor_and_prepared_statements(connection):
    make_accounts(connection)
    for number in range(20):
        # From the fifth time on psycopg prepares this by a name.
        connection.execute("INSERT INTO accounts VALUES (%s, %s, %s)", [number, f"n{number}", number])
    connection.commit()
    for number in range(20):
        row = connection.execute("SELECT owner FROM accounts WHERE id = %s", [number], prepare=True).fetchone()
        assert row == (f"n{number}",)
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute("SELECT count(*) FROM accounts WHERE id < %s AND owner LIKE %s", [5, "n%"])
        assert cursor.fetchone() == (5,)
    connection.execute("DEALLOCATE ALL")
    connection.commit()
    assert connection.execute("SELECT owner FROM accounts WHERE id = %s", [7], prepare=True).fetchone() == ("n7",)


def test_many_rows_by_pipeline_and_executemany(connection):
    make_accounts(connection)
    rows = [(number, "x" * (number % 50), decimal.Decimal(number) / 4) for number in range(2000)]
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO accounts VALUES (%s, %s, %s)", rows)
        assert cursor.rowcount == 2000
    connection.commit()
    with connection.pipeline():
        counts = [connection.execute("SELECT count(*) FROM accounts WHERE id < %s", [n]) for n in (10, 20, 30)]
    assert [cursor.fetchone()[0] for cursor in counts] == [10, 20, 30]
    with connection.cursor() as cursor:
        streamed = sum(1 for _ in cursor.stream("SELECT id FROM accounts"))
    assert streamed == 2000


def test_an_error_in_a_pipeline_skips_to_its_end(server):
    with server.connect() as connection:
        with pytest.raises(errors.UndefinedTable):
            with connection.pipeline():
                connection.execute("SELECT 1")
                connection.execute("SELECT * FROM missing")
                connection.execute("SELECT 2")
        assert connection.execute("SELECT 3").fetchone() == (3,)


def test_update_delete_and_their_counts(connection):
    make_accounts(connection)
    for number in range(10):
        connection.execute("INSERT INTO accounts VALUES (%s, 'a', 1)", [number])
    connection.commit()
    assert connection.execute("UPDATE accounts SET balance = balance + %s WHERE id < 4", [decimal.Decimal("0.25")]).rowcount == 4
    assert connection.execute("DELETE FROM accounts WHERE id >= %s", [8]).rowcount == 2
    connection.commit()
    total = connection.execute("SELECT sum(balance), count(*) FROM accounts").fetchone()
    assert total == (decimal.Decimal("9.00"), 8)


def test_a_view_is_read_at_or_after_the_sessions_own_write(connection):
    make_accounts(connection)
    connection.autocommit = True
    connection.execute("CREATE MATERIALIZED VIEW totals AS SELECT owner, sum(balance) AS total FROM accounts GROUP BY owner")
    for number in range(50):
        connection.execute("INSERT INTO accounts VALUES (%s, 'Riya', 1)", [number])
        assert connection.execute("SELECT total FROM totals").fetchall() == [(number + 1,)]
    [(position,)] = connection.execute("SHOW POSITION").fetchall()
    assert int(position) > 0
    connection.execute(f"WAIT FOR POSITION {position} TIMEOUT '5s'")


def test_cancel_ends_a_statement(connection):
    connection.autocommit = True
    threading.Timer(0.3, connection.cancel_safe).start()
    with pytest.raises(errors.QueryCanceled):
        connection.execute("WAIT FOR POSITION 1000000000 TIMEOUT '60s'")
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_statement_ends_at_its_timeout(connection):
    connection.autocommit = True
    assert connection.execute("SELECT pg_sleep(0.01), pg_sleep(NULL)").fetchone() == ("", None)
    connection.execute("SET statement_timeout = '200ms'")
    began = time.monotonic()
    with pytest.raises(errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - began < 10
    connection.execute("RESET statement_timeout")
    threading.Timer(0.3, connection.cancel_safe).start()
    with pytest.raises(errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(60)")


def test_the_schema_can_be_read(connection):
    make_accounts(connection)
    columns = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position",
        ["accounts"],
    ).fetchall()
    assert [name for name, _ in columns] == ["id", "owner", "balance"]
    assert columns[0][1] == "bigint"


def test_notices_are_told(connection):
    make_accounts(connection)
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    connection.execute("CREATE TABLE IF NOT EXISTS accounts (id bigint PRIMARY KEY)")
    assert any("accounts" in notice for notice in heard)


def test_json_body_of_readiness_names_the_views(server, connection):
    make_accounts(connection)
    connection.autocommit = True
    connection.execute("CREATE MATERIALIZED VIEW rich AS SELECT id FROM accounts WHERE balance > 100")
    connection.execute("SELECT * FROM rich")
    status, body = server.get("/readyz")
    assert status == 200
    assert [view["name"] for view in json.loads(body)["views"]] == ["rich"]
    status, page = server.get("/metrics")
    assert status == 200 and b'evert_view_state{view="rich",state="live"} 1' in page
